# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Steady verdicts: what runs remember, so that a state is raised and cleared only when it lasts."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

from .. import verdict
from ..errors import FleetError
from ..records import NamedTuple, replace
from ..system import files
from ..verdict import Check, isoformat
from .checks import CHECKS, group_of
from .facts import Counters
from .options import NodeOptions
from .thresholds import OFF, Limits

VERSION = 1
#: What was not checked for so long is forgotten; seconds.
FORGET = 7 * 86400
WORSE, BETTER = "worse", "better"
_RAISED = frozenset({verdict.WARNING, verdict.CRITICAL, verdict.UNKNOWN})
#: Times beyond it (the year 5138) are garbage.
_NO_TIME = 1e11


class Remembered(NamedTuple):
    """What is remembered of one check and subject; times are in seconds since the epoch.

    ``repeats`` observations in a row were in ``direction`` of the reported status.
    """

    status: str
    since: float
    seen: float
    repeats: int = 0
    direction: str | None = None
    action: str = "none"
    domain: str | None = None


class Memory(NamedTuple):
    """The content of the state file; the keys of ``checks`` are ``check|subject``."""

    checks: dict[str, Remembered]
    counters: Counters


def _key(check: Check) -> str:
    return f"{check.check}|{check.subject or ''}"


def _rank(check: Check, status: str) -> int:
    return verdict.STATUSES.index(check.unknown_as if status == verdict.UNKNOWN else status)


def steady(
    checks: Iterable[Check],
    memory: Mapping[str, Remembered],
    now: float,
    age: float | None,
    options: NodeOptions,
) -> tuple[list[Check], dict[str, Remembered]]:
    """Return the checks with the statuses that have lasted, and what to remember. Pure.

    A worse status must be seen ``raise_after`` times in a row, a better one ``clear_after``
    times. A check with a ``clear`` limit stays raised until its value no longer hits that. Within
    ``boot_grace`` seconds after the start nothing new is raised, except lasting faults. What was
    checked before and does not exist any more (a mount, an error in the log) is forgotten. What
    was not requested, or could not be checked because its probe failed, is kept for a while.

    :param now: seconds since the epoch. :param age: seconds since boot, None when unknown.
    """
    checks = list(checks)
    kept = _kept(checks, memory, now, options)
    grace = age is not None and age < options.boot_grace
    reported = []
    for check in checks:
        if check.status == verdict.SKIPPED:
            reported.append(check)
            continue
        key = _key(check)
        steady_check, kept[key] = _observe(check, memory.get(key), now, grace, options)
        reported.append(steady_check)
    return reported, kept


def _kept(
    checks: list[Check], memory: Mapping[str, Remembered], now: float, options: NodeOptions
) -> dict[str, Remembered]:
    """Return what is kept of checks that were not requested or could not be made this time."""
    silent = {
        group_of(check.check)
        for check in checks
        if check.status == verdict.UNKNOWN
        or (check.check == "mount_responds" and check.status == verdict.CRITICAL)
    }
    kept = {}
    for key, before in memory.items():
        name = key.partition("|")[0]
        unchecked = not options.wants(name) or group_of(name) in silent
        if unchecked and now - before.seen < FORGET:
            kept[key] = before
    return kept


def _observe(
    check: Check, before: Remembered | None, now: float, grace: bool, options: NodeOptions
) -> tuple[Check, Remembered]:
    """Return the check as it is reported, and what to remember of it.

    :param grace: the node has just started.
    """
    old = before or Remembered(verdict.PASS, now, now)
    since = min(now, old.since)  # the clock may have been set back
    limits = options.limits_in_force.get(check.check)
    observed = _held_back(check, old.status, limits)
    status, count, direction, note = old.status, old.repeats, old.direction, ""
    if observed == status:
        count, direction = 0, None
    else:
        worse = _rank(check, observed) > _rank(check, status)
        way = WORSE if worse else BETTER
        count, direction = (count + 1 if direction == way else 1), way
        need = options.raise_after if worse else options.clear_after
        if worse and grace and not _lasting(check.check):
            count, note = 0, f" (within {options.boot_grace} s after boot, not raised yet)"
        elif count >= need:
            status, since, count, direction = observed, now, 0, None
        elif worse:
            note = f" (seen {count} of {need} times, not raised yet)"
        else:
            note = f" (better {count} of {need} times, not cleared yet)"
    if observed != check.status and limits and limits.clear:
        side = "below"
        if limits.rule.below:
            side = "above"
        note = f" (not {side} {limits.clear.text} yet, not cleared)"
    action, domain, details = check.action, check.domain, check.details
    if status != check.status:
        raised = status in _RAISED
        # mutant: equivalent because a check that was not raised had neither
        action, domain = (old.action, old.domain) if raised else ("none", None)
        details = {**(details or {}), "observed": check.status}
    reported = replace(
        check,
        status=status,
        message=check.message + note,
        since=isoformat(since),
        action=action,
        domain=domain,
        details=details,
    )
    return reported, Remembered(status, since, now, count, direction, action, domain)


def _lasting(name: str) -> bool:
    """Return whether a fault of this check does not go away while a node settles after boot."""
    entry = CHECKS.get(name)
    return entry is not None and entry.lasting


def _held_back(check: Check, status: str, limits: Limits | None) -> str:
    """Return the status that counts.

    A raised check passes only when its value no longer hits the clear limit, until then it is at
    least a warning.
    """
    value = check.value
    if limits is None or limits.clear is None or check.status != verdict.PASS:
        return check.status
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return check.status
    if status not in (verdict.WARNING, verdict.CRITICAL) or not limits.clear.hit(value):
        return check.status
    if limits.warning.text == OFF:
        return status
    return verdict.WARNING


# --- the file ---------------------------------------------------------------------------------


def _is_number(value: Any) -> bool:
    """Return whether a value is a usable number; NaN is not below the limit either."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) < _NO_TIME


def _valid(entry: Any) -> bool:
    """Return whether what was read of one check is what we write."""
    return (
        isinstance(entry, dict)
        and entry.get("status") in verdict.STATUSES
        and _is_number(entry.get("since"))
        and _is_number(entry.get("seen", 0))
        and _is_number(entry.get("count", 0))
        and entry.get("direction") in (None, WORSE, BETTER)
        and entry.get("action", "none") in verdict.ACTIONS
        and entry.get("domain") in (None, "node", "user")
    )


def _remembered(entry: Mapping[str, Any], now: float) -> Remembered:
    return Remembered(
        status=entry["status"],
        since=float(entry["since"]),
        seen=float(entry.get("seen", now)),
        repeats=int(entry.get("count", 0)),
        direction=entry.get("direction"),
        action=entry.get("action") or "none",
        domain=entry.get("domain"),
    )


def _counters(counters: Mapping[str, Any]) -> Counters:
    boot_id, oom_kill = counters.get("boot_id"), counters.get("oom_kill")
    return Counters(
        boot_id if isinstance(boot_id, str) else None,
        oom_kill if isinstance(oom_kill, int) else None,
    )


def load(path: str, now: float) -> tuple[Memory, str | None]:
    """Return what the state file holds, nothing where there is none, and what is wrong with it.

    :param now: seconds since the epoch.
    """
    empty = Memory({}, Counters())
    if os.path.exists(path) and not os.path.isfile(path):
        return empty, f"{path} is not a file."
    try:
        content = files.read_json(path)
    except FleetError as error:
        return empty, error.message
    except RecursionError:
        content = []
    if content is None:
        return empty, None
    wrong = f"{path} is not a state file of this version."
    if not isinstance(content, dict) or content.get("version") != VERSION:
        return empty, wrong
    checks, counters = content.get("checks"), content.get("counters")
    if not isinstance(checks, dict) or not isinstance(counters, dict):
        return empty, wrong
    if not all(_valid(entry) for entry in checks.values()):
        return empty, wrong
    kept = {key: _remembered(entry, now) for key, entry in checks.items()}
    return Memory(kept, _counters(counters)), None


def _stored(entry: Remembered) -> dict[str, Any]:
    fields = entry._asdict()
    fields["count"] = fields.pop("repeats")
    return fields


def dump(memory: Memory) -> str:
    """Return the content of the state file."""
    content = {
        "version": VERSION,
        "checks": {key: _stored(entry) for key, entry in memory.checks.items()},
        "counters": memory.counters._asdict(),
    }
    return json.dumps(content, indent=1, sort_keys=True) + "\n"
