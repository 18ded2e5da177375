# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decide what goes and why everything else stays. Pure: facts in, plan out, no clock and no file touched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import Refused
from ..system.text import display_path, human_duration, human_size
from .options import Target
from .scan import Survey


@dataclass
class Folder:
    """What was found for a target.

    C(state) is C(ok), C(missing) (no such folder) or C(failed) with a C(note). C(protected) maps names of units to why they stay
    whatever their age; C(unread) those that could not be looked at to why.
    """

    target: Target
    path: str = ""
    state: str = "ok"
    note: str = ""
    units: list[Survey] = field(default_factory=list)
    protected: dict[str, str] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Kept:
    """A unit that stays, and why."""

    target: str
    path: str
    reason: str

    def to_dict(self) -> dict[str, Any]:
        return {"target": self.target, "path": display_path(self.path), "reason": self.reason}


@dataclass(frozen=True)
class Doomed:
    """A unit that goes. C(size) is in bytes as du(1) counts, C(age) in seconds (None where a tool does not tell)."""

    target: str
    path: str
    kind: str
    size: int
    age: float | None
    reason: str
    survey: Survey | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "target": self.target,
            "path": display_path(self.path),
            "kind": self.kind,
            "size": self.size,
            "files": self.survey.files if self.survey else None,
            "age_days": None if self.age is None else round(self.age / 86400, 3),
            "reason": self.reason,
        }


@dataclass
class Plan:
    """What goes and what stays, in the order of the targets, oldest first. C(matched) counts units by target name."""

    remove: list[Doomed] = field(default_factory=list)
    keep: list[Kept] = field(default_factory=list)
    matched: dict[str, int] = field(default_factory=dict)

    def of(self, target: str) -> list[Doomed]:
        """Return what goes from one target."""
        return [one for one in self.remove if one.target == target]


def due(unit: Survey, target: Target, now: float) -> bool:
    """Say whether a unit is as old as its target's retention, to the nanosecond; a retention of 0 always is."""
    return target.retention == 0 or _ns(now) - unit.newest >= _ns(target.retention)


def _ns(seconds: float) -> int:
    whole = int(seconds // 1)
    return whole * 10**9 + int((seconds - whole) * 10**9)


def cutoff(target: Target, now: float) -> int | None:
    """Return the newest time (nanoseconds since the epoch) at which a unit is still due, None when every unit is."""
    return None if target.retention == 0 else _ns(now) - _ns(target.retention)


def decide(folders: list[Folder], now: float) -> Plan:
    """Return the plan. A unit stays if anything protects it; C(now) is in seconds since the epoch.

    A path that several targets match belongs to the first of them.
    """
    plan = Plan()
    taken: set[str] = set()
    for folder in folders:
        target, going = folder.target, []
        units = []
        for unit in folder.units:
            path = f"{folder.path.rstrip('/')}/{unit.name}"
            if path not in taken:
                taken.add(path)
                units.append((unit, path))
        plan.matched[target.name] = len(units) + len(folder.unread)
        plan.keep.extend(
            Kept(target.name, f"{folder.path.rstrip('/')}/{name}", reason)
            for name, reason in folder.unread.items()
        )
        # By what is in them: a unit that was only moved (or moved and put back) is not newer than the others.
        units.sort(key=lambda one: (one[0].content, one[0].name), reverse=True)
        for place, (unit, path) in enumerate(units):
            reason = _why_kept(unit, folder, place, now)
            if reason:
                plan.keep.append(Kept(target.name, path, reason))
            else:
                age = max(0.0, now - unit.newest / 10**9)
                why = (
                    "always removed"
                    if target.retention == 0
                    else f"{_days(age)} old, kept {_days(target.retention)}"
                )
                going.append(Doomed(target.name, path, unit.kind, unit.disk_usage, age, why, unit))
        plan.remove.extend(reversed(going))
    return plan


def _why_kept(unit: Survey, folder: Folder, place: int, now: float) -> str:
    if unit.name in folder.protected:
        return folder.protected[unit.name]
    if unit.veto is not None and not unit.stopped:
        return unit.veto
    if not due(unit, folder.target, now):
        where = f" ({display_path(unit.newest_path)[-200:]})" if unit.newest_path else ""
        age = now - unit.newest / 10**9
        when = f"{_days(age)} ago" if age >= 0 else f"is dated {_days(-age)} in the future"
        return f"newest change {when}{where}, kept {_days(folder.target.retention)}"
    if place < folder.target.keep_last:
        return f"one of the {folder.target.keep_last} newest"
    return ""


def _days(seconds: float) -> str:
    return f"{seconds / 86400:.1f} days" if seconds >= 86400 else human_duration(seconds)


class Braked(Refused):
    """The plan is larger than the brake allows; nothing was removed. C(result) is the result of a run that did nothing."""

    result: Mapping[str, Any] = {}


def check_brake(plan: Plan, folders: list[Folder], brake: Mapping[str, Any] | None) -> None:
    """:raises Braked: the plan exceeds a limit. Targets that are always emptied (retention 0) do not count for the share."""
    if not brake:
        return
    size = sum(one.size for one in plan.remove)
    problem = ""
    if brake["max_units"] is not None and len(plan.remove) > brake["max_units"]:
        problem = (
            f"{len(plan.remove)} units would be removed, the brake allows {brake['max_units']}"
        )
    elif brake["max_bytes"] is not None and size > brake["max_bytes"]:
        problem = f"{human_size(size)} would be removed, the brake allows {human_size(brake['max_bytes'])}"
    elif brake["max_share"] is not None:
        for target in (folder.target for folder in folders if folder.target.retention > 0):
            count, matched = len(plan.of(target.name)), plan.matched.get(target.name, 0)
            if matched and count / matched > brake["max_share"]:
                problem = f"{count} of {matched} units of {target.name} would be removed, the brake allows a share of {brake['max_share']:g}"
                break
    if problem:
        raise Braked(
            f"The cleanup was stopped before anything was removed: {problem}.",
            "Look at the plan; raise the brake if it is right.",
            "brake",
        )
