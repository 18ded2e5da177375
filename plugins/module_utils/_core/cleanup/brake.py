# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Limits above which nothing is removed, and the backup without which nothing is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..errors import Refused
from ..system.text import display_path, human_duration, human_size
from ..verdict import isoformat
from .cover import BackupFacts
from .history import History
from .options import BrakeOptions, RequireBackupOptions
from .removals import Plan, Removal
from .targets import Target

#: Seconds by which the clock that dated a backup may be ahead of ours.
SKEW = 3600.0


class Braked(Refused):
    """The plan is larger than the brake allows; nothing was removed.

    ``result`` is the result of a run that did nothing.
    """

    result: Mapping[str, Any] = {}


class Brake(NamedTuple):
    """Which limit a plan exceeds, with the unit that is too much, and the options that allow it
    once.
    """

    why: str
    allow: str


def check_brake(
    plan: Plan,
    targets: Sequence[Target],
    brake: BrakeOptions | None,
    history: History | None = None,
) -> Brake | None:
    """Return which limit the plan exceeds, None when none.

    Targets that are always emptied (retention 0) do not count for the share. Without earlier runs
    there is no growth.
    """
    if brake is None:
        return None
    count, size = len(plan.remove), sum(removal.size for removal in plan.remove)
    if brake.max_units is not None and count > brake.max_units:
        why = f"{count} units would be removed, the brake allows {brake.max_units}"
        return _brake(why, plan.remove, brake.max_units, "max-units", count)
    if brake.max_bytes is not None and size > brake.max_bytes:
        why = f"{human_size(size)} would be removed, the brake allows {human_size(brake.max_bytes)}"
        return _brake(why, plan.remove, _fitting(plan.remove, brake.max_bytes), "max-bytes", size)
    for target in targets:
        removals = plan.of(target.name)
        matched = plan.matched.get(target.name, 0)  # mutant: equivalent because all are in it
        count = len(removals)
        share = brake.max_share
        if share is not None and target.plain and target.retention == 0:
            share = None
        if share is not None and matched and count / matched > share:
            why = (
                f"{count} of {matched} units of {target.name} would be removed, the brake allows a"
                f" share of {share:g}"
            )
            return _brake(why, removals, int(share * matched), "max-share", _up(count / matched))
        last = None if history is None else history.largest(target.name)
        if brake.max_growth is None or last is None:
            continue
        size = sum(removal.size for removal in removals)
        units, bytes_ = brake.max_growth * last.units, brake.max_growth * last.size
        growth = _up(max(count / max(1, last.units), size / max(1, last.size)))
        if count > units:
            why = (
                f"{count} units of {target.name} would be removed, at most {last.units} in its last"
                f" runs, the brake allows a growth of {brake.max_growth:g}"
            )
            return _brake(why, removals, int(units), "max-growth", growth)
        if size > bytes_:
            why = (
                f"{human_size(size)} of {target.name} would be removed, at most"
                f" {human_size(last.size)} in its last runs, the brake allows a growth of"
                f" {brake.max_growth:g}"
            )
            return _brake(why, removals, _fitting(removals, bytes_), "max-growth", growth)
    return None


def _up(number: float) -> float:
    """Return a number rounded up to a hundredth, so that it is a limit that allows it."""
    return -(-number * 100 // 1) / 100


def _fitting(removals: Sequence[Removal], size: float) -> int:
    """Return how many removals fit into so many bytes."""
    total = 0
    for number, removal in enumerate(removals):
        total += removal.size
        if total > size:
            return number
    return len(removals)


def _brake(why: str, removals: Sequence[Removal], allowed: int, option: str, value: float) -> Brake:
    removal = removals[min(allowed, len(removals) - 1)]
    first = f"the first beyond it is {display_path(removal.path)} ({human_size(removal.size)})"
    number = f"{value:g}" if isinstance(value, float) else str(value)
    name = option.replace("-", "_")
    return Brake(
        f"{why}; {first}",
        "Look at the plan. To allow it once, run"
        f" mlfleet cleanup --brake-{option} {number}, or the task with brake={{{name}: {number}}}.",
    )


def refuse_without_backup(
    required: RequireBackupOptions, backups: Sequence[BackupFacts], now: float
) -> None:
    """Refuse the cleanup unless there is a verified and fresh backup.

    :raises Refused: there is none.
    """
    path = required.place
    verified = [backup for backup in backups if backup.verified]
    if not verified:
        why = ""
        if backups:
            problems = "; ".join(backups[0].problems) or "it was not verified"
            why = f" ({display_path(backups[0].name)}: {problems})"
        raise Refused(
            f"Nothing was removed: {path} holds no verified backup{why}.",
            "Make one with mlops.fleet.model_backup first.",
            path,
        )
    # A date in the future would make a backup fresh for ever.
    dated = [backup.created for backup in verified if backup.created <= now + SKEW]
    if not dated:
        raise Refused(
            f"Nothing was removed: the newest verified backup in {path} is dated in the future"
            f" ({isoformat(verified[0].created)}); a clock was wrong.",
            "Check the clock and make a new backup with mlops.fleet.model_backup first.",
            path,
        )
    age = now - max(dated)
    if required.check == "covered":
        return  # each file is compared with them
    if age > required.max_age_hours * 3600:
        raise Refused(
            f"Nothing was removed: the newest verified backup in {path} is {human_duration(age)}"
            f" old, {required.max_age_hours:g} h are allowed.",
            "Make a new one with mlops.fleet.model_backup first.",
            path,
        )
