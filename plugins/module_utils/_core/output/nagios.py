# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A verdict document as the output of a Nagios plugin: for Nagios, Icinga, Naemon, Checkmk and
whatever reads the same.

Form: https://www.monitoring-plugins.org/doc/guidelines.html (plugin output, performance data,
return codes). The first line has the verdict, the problems and the performance data, the further
lines all checks that were not skipped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from .. import verdict
from ..system.text import one_line

_STATES = {
    verdict.SKIPPED: "OK",
    verdict.PASS: "OK",
    verdict.WARNING: "WARNING",
    verdict.CRITICAL: "CRITICAL",
}
#: Our units -> the units of measurement in the guidelines; other values are plain numbers.
_UNITS = {"%": "%", "s": "s", "ms": "ms", "us": "us", "B": "B", "KB": "KB", "MB": "MB", "GB": "GB"}
#: Problems on the first line; the further lines have all.
_MOST = 4


def render(result: Mapping[str, Any], name: str = "NODE") -> str:
    """Return a verdict document (``Document.to_dict()``, or a module's result) as plugin output,
    with a final line break.

    :param name: name of the service, in front. Its exit code is the document's ``exit_code``.
    """
    counted = [check for check in result["checks"] if check["status"] != verdict.SKIPPED]
    problems = [check for check in counted if check["status"] != verdict.PASS]
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
    first = f"{name} {_STATES[result['status']]} - {text}{score}"
    data = _perfdata(counted, summary)
    lines = [first + (f" | {data}" if data else "")]
    lines += [f"[{check['status'].upper()}] {_plain(check['message'])}" for check in counted]
    return "".join(line + "\n" for line in lines)


def _plain(text: str) -> str:
    """Return one line without the bar, which begins performance data."""
    return " ".join(one_line(text).split()).replace("|", "/")


def _perfdata(checks: list[Mapping[str, Any]], summary: Mapping[str, Any]) -> str:
    """Return ``'label'=value[unit];[warn];[crit]`` for every measured number; a label occurs
    once.
    """
    data: dict[str, str] = {}
    for check in checks:
        value = check.get("value")
        if (
            isinstance(value, bool)
            or not isinstance(value, (int, float))
            or not math.isfinite(value)
        ):
            continue
        label = check["check"] + (f" {check['subject']}" if check.get("subject") else "")
        unit = _UNITS.get(check.get("unit") or "", "")
        limits = f"{_limit(check.get('warn'))};{_limit(check.get('crit'))}"
        data.setdefault(label, f"{_label(label)}={_number(value)}{unit};{limits}".rstrip(";"))
    if summary["health_score"] is not None:
        data["health_score"] = f"'health_score'={_number(summary['health_score'])};;;0;100"
    return " ".join(data.values())


def _label(text: str) -> str:
    """Return a quoted label without quote, equals sign or bar (a doubled quote is legal, but few
    programs read it).
    """
    clean = " ".join(one_line(text).split())
    for character in "'=|":
        clean = clean.replace(character, "_")
    return f"'{clean}'"


def _number(value: float) -> str:
    """Return digits, sign and point only, as the guidelines demand: no exponent, enough digits for
    microseconds.
    """
    if isinstance(value, int):
        return str(value)
    return f"{value:.9f}".rstrip("0").rstrip(".")


def _limit(limit: Any) -> str:
    if limit is None or isinstance(limit, bool):
        return ""
    if isinstance(limit, (int, float)):
        return _number(limit)
    return str(limit)
