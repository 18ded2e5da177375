# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A verdict document as JUnit XML, for CI systems: one test suite, one test case per check.

Form: the schema that Jenkins' JUnit plugin and Ant's task share (testsuites, testsuite, testcase
with failure, error or skipped). Critical is a failure, ``unknown`` an error, ``skipped`` skipped; a
warning passes with its message in system-out unless ``warnings_fail``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .. import verdict

#: Characters that XML 1.0 does not allow at all, not even as a reference.
_ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _text(value: Any) -> str:
    clean = _ILLEGAL.sub("\ufffd", str(value))
    return clean.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _attribute(value: Any) -> str:
    clean = _text(value).replace('"', "&quot;")
    return '"' + clean.replace("\t", "&#9;").replace("\n", "&#10;").replace("\r", "&#13;") + '"'


def _seconds(check: Mapping[str, Any]) -> float:
    """Return how long the probe of a check took."""
    duration: float = (check.get("duration_ms") or 0) / 1000
    return duration


def _case(check: Mapping[str, Any], suite: str, kind: str | None) -> str:
    """Return the element of a check. :param kind: name of the element in it, None for a pass."""
    name = check["check"]
    if check.get("subject"):
        name += f" {check['subject']}"
    classname = _attribute(f"{suite}.{check['check']}")
    time = _attribute(f"{_seconds(check):.3f}")
    head = f"    <testcase classname={classname} name={_attribute(name)} time={time}>"
    message = _attribute(check["message"])
    if kind is None:
        body = f"      <system-out>{_text(check['message'])}</system-out>"
    elif kind == "skipped":
        body = f"      <skipped message={message}/>"
    else:
        more = "\n".join(
            f"{key}: {check[key]}"
            for key in ("value", "unit", "warn", "crit", "since", "action")
            if check.get(key) is not None
        )
        attributes = f"message={message} type={_attribute(check['status'])}"
        body = f"      <{kind} {attributes}>{_text(more)}</{kind}>"
    return f"{head}\n{body}\n    </testcase>"


def render(
    result: Mapping[str, Any], suite: str = "node_health", warnings_fail: bool = False
) -> str:
    """Return a verdict document (``Document.to_dict()``, or a module's result) as JUnit XML, with a
    final line break.

    :param suite: name of the test suite. :param warnings_fail: count warnings as failures too.
    """
    cases = []
    counts = {"failure": 0, "error": 0, "skipped": 0}
    seconds = 0.0
    for check in result["checks"]:
        seconds = max(seconds, _seconds(check))  # the probes run at the same time
        kind = _kind(check["status"], warnings_fail)
        if kind is not None:
            counts[kind] += 1
        cases.append(_case(check, suite, kind))
    numbers = (
        f"tests={_attribute(len(cases))} failures={_attribute(counts['failure'])}"
        f" errors={_attribute(counts['error'])}"
    )
    stamp = str(result["timestamp"]).partition("+")[0]  # the schema has no time zone; ours is UTC
    suite_head = (
        f"  <testsuite name={_attribute(suite)} {numbers} skipped={_attribute(counts['skipped'])}"
        f" time={_attribute(f'{seconds:.3f}')} timestamp={_attribute(stamp)}"
        f" hostname={_attribute(result['hostname'])}>"
    )
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f"<testsuites {numbers}>",
        suite_head,
        *cases,
        "  </testsuite>",
        "</testsuites>",
    ]
    return "\n".join(lines) + "\n"


def _kind(status: str, warnings_fail: bool) -> str | None:
    if status == verdict.WARNING:
        if warnings_fail:
            return "failure"
        return None
    return {verdict.CRITICAL: "failure", verdict.UNKNOWN: "error", verdict.SKIPPED: "skipped"}.get(
        status
    )
