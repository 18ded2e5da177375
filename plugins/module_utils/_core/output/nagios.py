# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A verdict document as the output of a Nagios plugin: for Nagios, Icinga, Naemon, Checkmk and everything that reads their form.

Form: https://www.monitoring-plugins.org/doc/guidelines.html (plugin output, performance data, return codes). The first line carries the
verdict and what is wrong, the further ones every check that was judged, the last part of the first line the performance data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from .. import verdict
from ..system.text import one_line

_WORDS = {
    verdict.SKIPPED: "OK",
    verdict.PASS: "OK",
    verdict.WARNING: "WARNING",
    verdict.CRITICAL: "CRITICAL",
}
#: Our units -> units of measurement the guidelines know; others stand for a plain number.
_UNITS = {"%": "%", "s": "s", "ms": "ms", "us": "us", "B": "B", "KB": "KB", "MB": "MB", "GB": "GB"}
#: Problems named on the first line; the further lines have all.
_MOST = 4


def render(result: Mapping[str, Any], name: str = "NODE") -> str:
    """Return a verdict document (C(Document.to_dict()), or a module's result) as plugin output, ending with a new line.

    :param name: the service's name in front. The exit code that belongs to it is the document's C(exit_code).
    """
    judged = [check for check in result["checks"] if check["status"] != verdict.SKIPPED]
    bad = [check for check in judged if check["status"] != verdict.PASS]
    bad.sort(
        key=lambda check: -verdict.STATUSES.index(check["status"])
    )  # stable: the document's order within a status
    summary = result["summary"]
    score = "" if summary["health_score"] is None else f", score {summary['health_score']:g}"
    if bad:
        said = "; ".join(_plain(check["message"]) for check in bad[:_MOST]) + (
            f"; and {len(bad) - _MOST} more" if len(bad) > _MOST else ""
        )
    else:
        said = f"{summary['passed']} checks passed" if judged else "nothing to check here"
    first = f"{name} {_WORDS[result['status']]} - {said}{score}"
    data = _perfdata(judged, summary)
    lines = [first + (f" | {data}" if data else "")]
    lines += [f"[{check['status'].upper()}] {_plain(check['message'])}" for check in judged]
    return "".join(line + "\n" for line in lines)


def _plain(text: str) -> str:
    """One line without the bar that begins performance data."""
    return " ".join(one_line(text).split()).replace("|", "/")


def _perfdata(judged: list[Mapping[str, Any]], summary: Mapping[str, Any]) -> str:
    """Return C('label'=value[unit];[warn];[crit]) for every measured number; a label occurs once."""
    found: dict[str, str] = {}
    for check in judged:
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
        found.setdefault(label, text.rstrip(";"))
    if summary["health_score"] is not None:
        found["health_score"] = f"'health_score'={_number(summary['health_score'])};;;0;100"
    return " ".join(found.values())


def _label(text: str) -> str:
    """A quoted label: no quote, no equals sign, no bar in it (a doubled quote would be legal, but few readers know it)."""
    clean = " ".join(one_line(text).split())
    for character in "'=|":
        clean = clean.replace(character, "_")
    return f"'{clean}'"


def _number(value: float) -> str:
    """Digits, sign and point only: that is all the guidelines allow, so no exponent. Enough digits for microseconds."""
    return str(value) if isinstance(value, int) else f"{value:.9f}".rstrip("0").rstrip(".")


def _limit(limit: Any) -> str:
    return (
        ""
        if limit is None or isinstance(limit, bool)
        else _number(limit)
        if isinstance(limit, (int, float))
        else str(limit)
    )
