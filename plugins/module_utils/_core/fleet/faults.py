# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults of a run: what is wrong on which host, the same fault in several runs, and faults grouped
by cause.

A fault is a dictionary with the keys ``host phase check subject status message action``. Two faults
are the same when host, phase, check and subject are equal.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from .. import verdict
from ..system.text import one_line

Fault = Mapping[str, Any]

#: Longest message of a fault in the report. Modules may return any text.
MESSAGE_LENGTH = 400
#: Check of a phase whose single checks are unknown: reports of version 1 have no others.
ANY_CHECK = "*"
#: Statuses of a fault, mildest first.
STATUSES = (
    verdict.UNKNOWN,
    verdict.WARNING,
    "no_data",
    "held",
    verdict.CRITICAL,
    "failed",
    "unreachable",
)
#: Beginning of the message about a host that answers no more, unlike one that can't be reached.
HANGS = "The host hangs"
_NUMBER = re.compile(r"\d+")
_XID = re.compile(r"\bXid (\d+)")


def clean(text: object, length: int = MESSAGE_LENGTH) -> str:
    """Return any text as one line without control characters, cut to a length."""
    line = one_line(str(text)[: length + 1])
    if len(line) <= length:
        return line
    return line[: length - 1] + "\u2026"


def mapping(value: object) -> Mapping[str, Any]:
    """Return a part of a result; an empty one where what a host sent is no mapping."""
    if isinstance(value, Mapping):
        return value
    return {}


def severity(status: str) -> int:
    """Return the rank of a status; a status that is none of a fault, such as ``pass``, is -1."""
    if status in STATUSES:
        return STATUSES.index(status)
    return -1


def key(fault: Fault) -> tuple[str, str, str, str]:
    """Return what identifies a fault across runs."""
    return (fault["host"], fault["phase"], fault["check"], fault["subject"])


def of_host(
    host: str, entry: Mapping[str, Any], results: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the faults of one host, worst first.

    :param entry: the host's entry in the report. :param results: phase to its registered result.
    """
    faults: list[dict[str, Any]] = []
    for phase in entry["phases"]:
        faults += _of_phase(host, phase, results.get(phase["phase"]) or {})
    faults = _joined(faults, results)
    faults.sort(key=lambda fault: -severity(fault["status"]))
    return faults


def _joined(faults: list[dict[str, Any]], results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return faults with the phases that did not end joined to the mount that does not respond.

    A phase that hangs on a dead mount is no second trouble; the fault of the mount names it.
    """
    late = [phase for phase, result in results.items() if (result or {}).get("timed_out")]
    dead = [
        fault
        for fault in faults
        if fault["check"] == "mount_responds" and fault["status"] == verdict.CRITICAL
    ]
    if not late or not dead:
        return faults
    dead[0]["message"] = clean(f"{dead[0]['message']}; phase that did not end: {', '.join(late)}")
    return [fault for fault in faults if fault["phase"] not in late]


def _of_phase(
    host: str, phase: Mapping[str, Any], result: Mapping[str, Any]
) -> list[dict[str, Any]]:
    def fault(
        check: str, status: str, message: object, subject: object, action: str
    ) -> dict[str, Any]:
        return {
            "host": host,
            "phase": phase["phase"],
            "check": clean(check, 100),
            "subject": clean(subject or "", 200),
            "status": status,
            "message": clean(message),
            "action": action if action in verdict.ACTIONS else "none",
        }

    status = phase["status"]
    if status == "unreachable":
        return [fault("unreachable", status, phase["message"], "", "inspect")]
    checks = [
        fault(
            str(check.get("check")),
            str(check["status"]),
            check.get("message"),
            check.get("subject"),
            str(check.get("action")),
        )
        for check in result.get("checks") or []
        if severity(str(check.get("status"))) >= 0
    ]
    if checks:
        return checks
    if severity(status) < 0:
        return []
    kind = "result"
    if status in ("failed", "held", "no_data"):
        kind = status
    return [fault(f"{phase['phase']}_{kind}", status, phase["message"], "", "inspect")]


def causes(faults: Iterable[Fault]) -> list[dict[str, Any]]:
    """Group faults by cause, worst first, then by the number of hosts.

    Faults have the same cause when check, action and the kind of subject agree (numbers in a
    subject are ignored: GPU 3 and GPU 5), and Xids when their number agrees too. A phase that
    failed is grouped by its message without numbers.

    :return: ``check phase status action title variants hosts count`` per cause; ``variants`` is the
        number of different messages, ``title`` the most frequent of them.
    """
    groups: dict[tuple[str, ...], list[Fault]] = {}
    for fault in faults:
        xid = _XID.search(fault["message"])
        detail = ""
        if xid:
            detail = xid[1]
        if fault["check"].endswith("_failed"):
            detail = _NUMBER.sub("#", fault["message"].replace(fault["host"], "HOST"))
        elif fault["message"].startswith(HANGS):
            detail = HANGS
        identity = (
            fault["phase"] if fault["check"] != "unreachable" else "",
            fault["check"],
            fault["action"],
            _NUMBER.sub("#", fault["subject"]),
            detail,
        )
        groups.setdefault(identity, []).append(fault)
    result = []
    for members in groups.values():
        messages = Counter(fault["message"] for fault in members)
        hosts = list(dict.fromkeys(fault["host"] for fault in members))
        result.append(
            {
                "check": members[0]["check"],
                "phase": members[0]["phase"],
                "status": max((fault["status"] for fault in members), key=severity),
                "action": members[0]["action"],
                "title": messages.most_common(1)[0][0],
                "variants": len(messages),
                "hosts": hosts,
                "count": len(members),
            }
        )
    result.sort(key=lambda cause: (-severity(cause["status"]), -len(cause["hosts"])))
    return result
