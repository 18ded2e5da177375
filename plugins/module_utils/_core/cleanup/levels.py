# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decide what goes to reach a level of free space, what leaves quarantine, and what the interlock
with backups keeps. Pure but for that interlock, which compares files only where that decides.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

from ..system.text import human_size
from .facts import Facts, HoldFacts
from .held import DOOMED, HeldUnit
from .removals import Kept, NamedRemoval, Plan, UnitRemoval, days
from .units import Unit
from .watermark import NEXT, Freed, Watermark, needed_first


def interrupted(facts: Facts) -> list[tuple[HoldFacts, NamedRemoval]]:
    """Return the units in quarantine whose removal was interrupted."""
    return [
        (
            held,
            remains(
                held.target.name,
                f"{held.hold.path}/{DOOMED}/{name}",
                unit,
                "its removal was interrupted",
            ),
        )
        for held in facts.held
        for name, unit in held.begun
    ]


def remains(target: str, path: str, unit: Unit | None, reason: str) -> NamedRemoval:
    if unit is None:
        return NamedRemoval(target, path, "dir", 0, None, reason)
    return NamedRemoval(target, path, unit.kind, unit.disk_usage, None, reason, unit)


def _purge(
    plan: Plan, unit: HeldUnit, survey: Unit, held: HoldFacts, now: float, reason: str
) -> None:
    age = now - held.hold.since
    target = unit.target or held.target.name
    plan.purge.append(
        (unit, NamedRemoval(target, unit.original, survey.kind, unit.size, age, reason, survey))
    )


def purge_expired(plan: Plan, facts: Facts) -> None:
    """Remove the units whose time in quarantine is over."""
    for held in facts.held:
        if facts.now < held.hold.until:
            continue
        for unit in held.units:
            if unit.stays or unit.survey is None:
                plan.keep.append(Kept(unit.target or held.target.name, unit.path, unit.stays))
                continue
            kept_for = days(held.hold.until - held.hold.since)
            _purge(
                plan, unit, unit.survey, held, facts.now, f"its {kept_for} in quarantine are over"
            )


def _purge_for_space(plan: Plan, facts: Facts, device: int, needed: int, count: Freed) -> int:
    """Remove units from quarantine before their time, the oldest first, until so much is free;
    return the bytes that frees.
    """
    freed = 0
    for held in sorted(facts.held, key=lambda held: (held.hold.since, held.hold.run)):
        if held.device != device or facts.now >= held.hold.until:
            continue
        for unit in held.units:
            if freed >= needed or unit.stays or unit.survey is None:
                continue
            freed += count.add(unit.survey)
            _purge(
                plan, unit, unit.survey, held, facts.now, "in quarantine, and its space is needed"
            )
    return freed


def keep_uncovered(plan: Plan, facts: Facts) -> None:
    """Keep units whose files are not all in a backup; where a file system has a level, only those
    that would go are compared.
    """
    if facts.coverage is None:
        return
    for number, (place, removals) in enumerate(plan.units):
        if place.target.free_to is not None:
            continue
        covered = []
        for removal in removals:
            why = facts.uncovered(place, removal.survey.name)
            if why:
                plan.keep.append(Kept(removal.target, removal.path, why))
            else:
                covered.append(removal)
        plan.units[number] = (place, covered)


def free_to_levels(plan: Plan, facts: Facts) -> None:
    """Where a file system has a level, take from the plan what need not go to reach it."""
    for device in facts.space:
        level = facts.watermark(device)
        if level is None:
            continue
        count = Freed()
        recovered = [
            removal
            for recovery in plan.recoveries
            if recovery.facts.quarantine.root.device == device
            for removal in (*(() if plan.run else recovery.due), *recovery.begun)
        ]
        freed = sum(count.add(removal.survey) for removal in recovered if removal.survey)
        freed += sum(
            count.add(removal.survey)
            for held, removal in interrupted(facts)
            if held.device == device and removal.survey is not None
        )
        limited: list[UnitRemoval] = []
        for place, removals in plan.units:
            if place.device == device and place.target.free_to is not None:
                limited.extend(removals)
            elif place.device == device and not plan.run:
                freed += sum(count.add(removal.survey) for removal in removals)
        freed += sum(
            count.add(unit.survey)
            for unit, dummy in plan.purge
            if unit.survey is not None and unit.hold.root.device == device
        )
        freed += _purge_for_space(plan, facts, device, level.needed - freed, count)
        uncovered: dict[int, str] = {}

        usable = functools.partial(_usable, facts, limited, uncovered)
        chosen, more = needed_first(
            (
                (_complete(removal), removal.survey, number)
                for number, removal in enumerate(limited)
            ),
            level.needed - freed,
            usable,
        )
        spared = {id(removal) for removal in limited} - {id(limited[number]) for number in chosen}
        _spare(plan, spared, level, uncovered)
        following = sorted(plan.following.get(device, ()))
        level = level._replace(
            freed=freed + (0 if plan.run else more),
            moved=more if plan.run else 0,
            following=tuple((kept.path, kept.reason) for dummy, kept in following[:NEXT]),
        )
        plan.watermarks.append(level)
        if level.note():
            plan.notes.append(level.note())


def _usable(
    facts: Facts, limited: Sequence[UnitRemoval], uncovered: dict[int, str], number: int
) -> bool:
    """Return whether the interlock lets a unit go; note in ``uncovered`` why not."""
    removal = limited[number]
    why = facts.uncovered(removal.place, removal.survey.name)
    if why:
        uncovered[id(removal)] = why
    return not why


def _complete(removal: UnitRemoval) -> bool:
    """Return whether a unit is a complete checkpoint, or no checkpoint at all."""
    checkpoint = removal.place.run.checkpoints.get(removal.survey.name)
    return checkpoint is None or checkpoint.complete


def _spare(plan: Plan, spared: set[int], level: Watermark, uncovered: Mapping[int, str]) -> None:
    """Keep removals that are not needed to reach a level."""
    why = f"not needed: {human_size(level.goal)} are free without its removal"
    for number, (place, removals) in enumerate(plan.units):
        for removal in removals:
            if id(removal) in spared:
                reason = uncovered.get(id(removal), why)
                plan.keep.append(Kept(removal.target, removal.path, reason))
        plan.units[number] = (place, [removal for removal in removals if id(removal) not in spared])
