# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A verdict document as the output of a Nagios plugin, for Nagios, Icinga, Naemon, Checkmk and other readers of
this format.

Format: https://www.monitoring-plugins.org/doc/guidelines.html (plugin output, performance data, return codes).
The first line has the verdict, the problems and the performance data, the further lines one check each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from .. import verdict

_STATUS_NAMES = {
    verdict.SKIPPED: "OK",
    verdict.PASS: "OK",
    verdict.WARNING: "WARNING",
    verdict.CRITICAL: "CRITICAL",
}
#: Our units -> units of measurement of the guidelines; other units give a plain number.
_UNITS = {"%": "%", "s": "s", "ms": "ms", "us": "us", "B": "B", "KB": "KB", "MB": "MB", "GB": "GB"}
#: Problems on the first line; the further lines have all.
_MOST = 4


def render(result: Mapping[str, Any], name: str = "NODE") -> str:
    """Return a verdict document (``Document.to_dict()``, or a module's result) as plugin output, ending with a new line.

    :param name: name of the service, at the beginning. The exit code of the plugin is the document's ``exit_code``.
    """
    counted = [check for check in result["checks"] if check["status"] != verdict.SKIPPED]
    problems = [check for check in counted if check["status"] != verdict.PASS]
    # Stable: the document's order within a status.
    problems.sort(key=lambda check: -verdict.STATUSES.index(check["status"]))
    summary = result["summary"]
    score = "" if summary["health_score"] is None else f", score {summary['health_score']:g}"
    if problems:
        text = "; ".join(_plain(check["message"]) for check in problems[:_MOST])
        if len(problems) > _MOST:
            text += f"; and {len(problems) - _MOST} more"
    elif counted:
        text = f"{summary['passed']} checks passed"
    else:
        text = "nothing to check here"
    first = f"{name} {_STATUS_NAMES[result['status']]} - {text}{score}"
    data = _perfdata(counted, summary)
    lines = [first + (f" | {data}" if data else "")]
    lines += [f"[{check['status'].upper()}] {_plain(check['message'])}" for check in counted]
    return "".join(line + "\n" for line in lines)


def _plain(text: str) -> str:
    """Return one line without the bar that begins performance data."""
    return " ".join(verdict.one_line(text).split()).replace("|", "/")


def _perfdata(counted: list[Mapping[str, Any]], summary: Mapping[str, Any]) -> str:
    """Return ``'label'=value[unit];[warn];[crit]`` for every measured number; a label occurs once."""
    samples: dict[str, str] = {}
    for check in counted:
        value = check.get("value")
        if (
            isinstance(value, bool)
            or not isinstance(value, (int, float))
            or not math.isfinite(value)
        ):
            continue
        label = check["check"] + (f" {check['subject']}" if check.get("subject") else "")
        unit = _UNITS.get(check.get("unit") or "", "")
        text = f"{_label(label)}={_number(value)}{unit};{_limit(check.get('warn'))};{_limit(check.get('crit'))}"
        samples.setdefault(label, text.rstrip(";"))
    if summary["health_score"] is not None:
        samples["health_score"] = f"'health_score'={_number(summary['health_score'])};;;0;100"
    return " ".join(samples.values())


def _label(text: str) -> str:
    """Return a quoted label without quotes, equals signs and bars (a doubled quote is legal, but few readers support it)."""
    clean = " ".join(verdict.one_line(text).split())
    for character in "'=|":
        clean = clean.replace(character, "_")
    return f"'{clean}'"


def _number(value: float) -> str:
    """Return digits, sign and point only, as the guidelines require: no exponent. Enough digits for microseconds."""
    return str(value) if isinstance(value, int) else f"{value:.9f}".rstrip("0").rstrip(".")


def _limit(limit: Any) -> str:
    if limit is None or isinstance(limit, bool):
        return ""
    return _number(limit) if isinstance(limit, (int, float)) else str(limit)
