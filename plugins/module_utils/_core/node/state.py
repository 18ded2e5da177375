# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Steady verdicts: a small file remembers what was seen, so that a state is raised and cleared only when it lasts."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from .. import verdict
from ..errors import FleetError, LockBusy, WriteFailed
from ..system import files, locks
from ..verdict import Check, isoformat
from .options import NodeOptions, group_of
from .thresholds import OFF, Limits

VERSION = 1
#: What a check that was not made for so long said is forgotten; seconds.
FORGET = 7 * 86400
#: How long a second run waits for the first one's lock; seconds.
PATIENCE = 2.0
#: Faults that do not go away by themselves while a node settles after its boot: raised at once.
LASTING = frozenset(
    {
        "certificate",
        "disk_health",
        "disk_usage",
        "disk_wear",
        "inode_usage",
        "kernel_taint",
        "machine_checks",
        "memory_errors",
        "nvme_state",
        "raid",
        "read_only",
        "security_updates",
        "zfs_pool",
    }
)


def _rank(check: Check, status: str) -> int:
    return verdict.STATUSES.index(check.unknown_as if status == verdict.UNKNOWN else status)


def steady(
    checks: Iterable[Check],
    memory: Mapping[str, Mapping[str, Any]],
    now: float,
    age: float | None,
    options: NodeOptions,
) -> tuple[list[Check], dict[str, dict[str, Any]]]:
    """Return the checks with the statuses that have lasted, and what to remember.

    A worse status must be seen C(raise_after) times in a row, a better one C(clear_after) times. A check with a C(clear) limit stays raised
    until its value no longer hits that. Within C(boot_grace) seconds after the start nothing new is raised, but for LASTING.
    What was asked for and is not there any more (a mount, an error in the log) is forgotten. What was not asked for, or could not be looked
    at because its probe failed, is kept for a while.

    :param memory: check and subject to what was remembered. :param now: seconds since the epoch. :param age: seconds since boot, None when unknown.
    """
    checks = list(checks)
    found = []
    silent = [
        check
        for check in checks
        if check.status == verdict.UNKNOWN
        or (check.check == "mount_responds" and check.status == verdict.CRITICAL)
    ]
    blind = {group_of(check.check) for check in silent}
    kept: dict[str, dict[str, Any]] = {}
    for key, before in memory.items():
        name = key.partition("|")[0]
        if (not options.wants(name) or group_of(name) in blind) and now - float(
            before.get("seen", now)
        ) < FORGET:
            kept[key] = dict(before)
    grace = age is not None and age < options.boot_grace
    for check in checks:
        key = f"{check.check}|{check.subject or ''}"
        old: Mapping[str, Any] | None = memory.get(key)
        if check.status == verdict.SKIPPED:
            found.append(check)
            continue
        confirmed = str(old["status"]) if old else verdict.PASS
        since = min(now, float(old["since"])) if old else now  # the clock may have been set back
        count, direction = (int(old.get("count", 0)), old.get("direction")) if old else (0, None)
        limits = options.limits_in_force.get(check.check)
        observed = _held_back(check, confirmed, limits)
        held = observed != check.status
        note = ""
        if observed == confirmed:
            count, direction = 0, None
        else:
            worse = _rank(check, observed) > _rank(check, confirmed)
            way = "worse" if worse else "better"
            count, direction = (count + 1 if direction == way else 1), way
            need = options.raise_after if worse else options.clear_after
            if worse and grace and check.check not in LASTING:
                count, note = 0, f" (within {options.boot_grace} s after boot, not raised yet)"
            elif count >= need:
                confirmed, since, count, direction = observed, now, 0, None
            else:
                note = (
                    f" (seen {count} of {need} times, not raised yet)"
                    if worse
                    else f" (better {count} of {need} times, not cleared yet)"
                )
        if held and limits and limits.clear:
            note = f" (not {'above' if limits.rule.below else 'below'} {limits.clear.text} yet, not cleared)"
        action, domain = check.action, check.domain
        if confirmed != check.status:
            raised = confirmed in (verdict.WARNING, verdict.CRITICAL, verdict.UNKNOWN)
            action = str(old.get("action") or "none") if old and raised else "none"
            domain = old.get("domain") if old and raised else None
        details = (
            {**(check.details or {}), "observed": check.status}
            if confirmed != check.status
            else check.details
        )
        found.append(
            replace(
                check,
                status=confirmed,
                message=check.message + note,
                since=isoformat(since),
                action=action,
                domain=domain,
                details=details,
            )
        )
        kept[key] = {
            "status": confirmed,
            "since": since,
            "count": count,
            "direction": direction,
            "action": action,
            "domain": domain,
            "seen": now,
        }
    return found, kept


def _held_back(check: Check, confirmed: str, limits: Limits | None) -> str:
    """Return the status that counts: a raised check passes only when its value no longer hits the clear limit, until then it warns at least."""
    if (
        not limits
        or not limits.clear
        or isinstance(check.value, bool)
        or not isinstance(check.value, (int, float))
    ):
        return check.status
    if (
        check.status != verdict.PASS
        or confirmed not in (verdict.WARNING, verdict.CRITICAL)
        or not limits.clear.hit(check.value)
    ):
        return check.status
    return verdict.WARNING if limits.warning.text != OFF else confirmed


def _number(value: Any) -> bool:
    return (
        isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e11
    )  # NaN is not below it either


def _valid(one: Any) -> bool:
    """Whether what was read of one check is what we write."""
    return (
        isinstance(one, dict)
        and one.get("status") in verdict.STATUSES
        and _number(one.get("since"))
        and _number(one.get("seen", 0))
        and _number(one.get("count", 0))
        and one.get("direction") in (None, "worse", "better")
        and one.get("action", "none") in verdict.ACTIONS
        and one.get("domain") in (None, "node", "user")
    )


def load(path: str) -> tuple[dict[str, Any], str | None]:
    """Return what the state file holds (an empty state when there is none) and what is wrong with it, if anything."""
    empty: dict[str, Any] = {"version": VERSION, "checks": {}, "counters": {}}
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
    if isinstance(content, dict) and content.get("version") == VERSION:
        checks, counters = content.get("checks"), content.get("counters")
        if (
            isinstance(checks, dict)
            and isinstance(counters, dict)
            and all(_valid(one) for one in checks.values())
        ):
            return {"version": VERSION, "checks": checks, "counters": counters}, None
    return empty, f"{path} is not a state file of this version."


@contextlib.contextmanager
def opened(path: str, write: bool) -> Iterator[dict[str, Any]]:
    """Give the state of C(path) and store what the body makes of it. Two runs at once follow each other.

    The mapping has the keys C(checks) and C(counters), and C(problem) (text or None), which is not stored.

    :param write: whether to store it at all. :raises WriteFailed: it can't be stored. :raises LockBusy: the other run takes too long.
    """
    with contextlib.ExitStack() as stack:
        if write:
            if os.path.exists(path) and not os.path.isfile(
                path
            ):  # writing would put a file in its place, /dev/null's too
                raise WriteFailed(
                    f"{path} is not a file, so no state is kept there.",
                    "Name another state_file.",
                    path,
                )
            folder = os.path.dirname(path)
            if not os.path.isdir(folder):
                try:
                    os.mkdir(
                        folder, 0o750
                    )  # one level only: a longer path that does not exist is a mistake
                except FileExistsError:
                    pass
                except OSError as error:
                    raise WriteFailed(
                        f"Can't make {folder} for the state file: {error.strerror}.",
                        "Make it, or name another state_file.",
                        path,
                    ) from error
            end = time.monotonic() + PATIENCE
            while True:
                try:
                    stack.enter_context(locks.lock(path + ".lock", "health check"))
                    break
                except LockBusy:
                    if time.monotonic() >= end:
                        raise
                    time.sleep(0.05)
        state, problem = load(path)
        yield_state = {**state, "problem": problem}
        yield yield_state
        if write:
            yield_state.pop("problem")
            files.atomic_write(
                path, json.dumps(yield_state, indent=1, sort_keys=True) + "\n", mode=0o640
            )
