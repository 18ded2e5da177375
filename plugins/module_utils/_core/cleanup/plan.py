# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decide what is removed and why everything else stays. Pure: facts in, plan out, no clock and no file touched."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat
from operator import attrgetter

from ..system.text import display_path
from . import policies
from .brake import check_brake
from .checkpoints import Checkpoint
from .facts import Facts, LeftoverFacts, TargetFacts
from .held import run_name
from .levels import free_to_levels, interrupted, keep_uncovered, purge_expired, remains
from .options import CleanupOptions
from .policies import Member, Reasons
from .removals import Kept, NamedRemoval, Plan, Recovery, UnitRemoval, days
from .targets import DAY, Target, cutoff
from .tool import CACHE, Item, ToolFacts
from .tools import TOOLS
from .units import PlainFile, Unit

#: Characters of a path in a reason.
_PATH_LENGTH = 200


def due(unit: Unit, limit: int | None) -> bool:
    """Return whether a unit is as old as its target's retention, to the nanosecond.

    :param limit: the target's cutoff(): the newest time at which a unit is still due, None when every unit is.
    """
    return limit is None or (unit.own <= limit and unit.content <= limit)


def vetoed(unit: Unit) -> str:
    """Return what in a unit protects it; empty when nothing does, or when its survey ended early because it is not due anyway."""
    if unit.stopped:
        return ""
    return unit.veto or ""


def fixed(unit: Unit, protected: Mapping[str, str]) -> bool:
    """Return whether something other than its age or a policy keeps a unit."""
    return bool(protected.get(unit.name) or unit.veto)


def why_kept(
    unit: Unit, target: Target, limit: int | None, protected: str, rank: int, now: float
) -> str:
    """Return why a unit stays, empty when it is removed.

    :param limit: the target's cutoff(). :param protected: why its name must stay whatever its age, or empty.
    :param rank: its place among the target's units, 0 for the newest.
    """
    if protected:
        return protected
    veto = vetoed(unit)
    if veto:
        return veto
    if not due(unit, limit):
        where = ""
        if unit.newest_path:
            where = f" ({display_path(unit.newest_path)[-_PATH_LENGTH:]})"
        age = now - unit.newest / 10**9
        when = f"{days(age)} ago" if age >= 0 else f"is dated {days(-age)} in the future"
        return f"newest change {when}{where}, kept {days(target.retention)}"
    if rank < target.keep_last:
        return f"one of the {target.keep_last} newest"
    return ""


def why_put_back(planned: Unit, unit: Unit, limit: int | None, protected: str) -> str:
    """Return why a unit that was looked at again must stay, empty when it is still what was planned."""
    if protected:
        return protected
    if unit.identity != planned.identity or unit.mode != planned.mode:
        return "it was replaced by something else after the plan was made"
    if vetoed(unit):
        return vetoed(unit)
    if not due(unit, limit) or unit.mtime_ns != planned.mtime_ns:
        return "it was changed after the plan was made"
    return ""


def decide(options: CleanupOptions, facts: Facts) -> Plan:
    """Return the plan. A unit stays if anything protects it. A path that several targets match belongs to the first of them."""
    plan = Plan()
    if options.held_for:
        plan.held_for = options.held_for
        plan.run = run_name(facts.now, {held.hold.run for held in facts.held})
    taken: dict[str, set[str]] = {}
    places = facts.places
    shared = _repeated(place.path for place in places)
    kept = _policies(places, facts.now)
    plan.matched.update((place.target.name, 0) for place in facts.targets)
    for place in places:
        # Names are remembered only where a later target can match them again.
        names = taken.setdefault(place.path, set()) if place.path in shared else None
        _decide_target(plan, place, names, facts.now, kept)
    plan.recoveries = [_decide_leftover(leftover, facts.now) for leftover in facts.leftovers]
    keep_uncovered(plan, facts)
    purge_expired(plan, facts)
    free_to_levels(plan, facts)
    for dummy, removals in plan.units:
        plan.remove.extend(removals)
    for tool in facts.tools:
        _decide_tool(plan, tool, facts.now)
    for recovery in plan.recoveries:
        plan.remove.extend(recovery.due)
        for removal in recovery.due:
            plan.matched[removal.target] += 1
    plan.notes.extend(_notes(facts))
    targets = [place.target for place in facts.targets]
    brake = check_brake(plan, targets, options.brake, facts.history)
    if brake is not None:
        plan.braked, plan.allow = brake
    if not plan.braked:
        # What had begun is finished in any case and is nothing to stop for.
        for recovery in plan.recoveries:
            plan.remove.extend(recovery.begun)
        plan.remove.extend(removal for dummy, removal in plan.purge)
        plan.remove.extend(removal for dummy, removal in interrupted(facts))
    return plan


def _repeated(paths: Iterable[str]) -> set[str]:
    seen: set[str] = set()
    repeated = set()
    for path in paths:
        if path in seen:  # mutant: equivalent because more names remembered only cost memory
            repeated.add(path)
        seen.add(path)
    return repeated


#: Why the policies keep units, by the place's number and the unit's name.
_Policies = dict[tuple[int, str], Reasons]


def _policies(places: Sequence[TargetFacts], now: float) -> _Policies:
    """Return why the targets' policies keep units; those of plain targets are not in it."""
    members: dict[str, list[Member]] = {}
    targets = {}
    for place in places:
        if place.target.plain:
            continue
        targets[place.target.name] = place.target
        members.setdefault(place.target.name, []).extend(
            Member((id(place), unit.name), unit, place.run.checkpoints[unit.name], place.run)
            for unit in place.units
        )
    kept: _Policies = {}
    for name, target in targets.items():
        kept.update(policies.reasons(target, members[name], now))
    return kept


def _surplus(target: Target, checkpoint: Checkpoint) -> str:
    """Return why no policy keeps a unit."""
    if not checkpoint.complete:
        return f"incomplete ({checkpoint.missing}) and abandoned"
    limits = []
    if target.keep_last:
        limits.append(f"the {target.keep_last} newest")
    if target.keep_best:
        value = "unknown" if checkpoint.metric is None else f"{checkpoint.metric:g}"
        limits.append(f"the {target.keep_best} best ({target.metric} is {value})")
    if target.every_steps or target.every_seconds:
        limits.append("those kept at intervals")
    what = "a checkpoint" if checkpoint.step is None else f"step {checkpoint.step}"
    if limits:
        return f"{what} beyond {' and '.join(limits)}"
    return what


def _decide_target(
    plan: Plan, place: TargetFacts, taken: set[str] | None, now: float, kept: _Policies
) -> None:
    target, protected = place.target, place.protected
    limit = cutoff(target, now)
    units = place.units
    if taken is not None:
        units = [unit for unit in units if unit.name not in taken]
        taken.update(unit.name for unit in units)
    base = place.path.rstrip("/")
    plan.matched[target.name] = plan.matched.get(target.name, 0) + len(units) + len(place.unread)
    plan.keep.extend(
        Kept(target.name, f"{base}/{name}", reason) for name, reason in place.unread.items()
    )
    # By what is in them: a unit that was only moved (or moved and put back) is not newer than the others.
    units.sort(key=attrgetter("name"))
    units.sort(key=attrgetter("content"))
    run, plain, keep_last = place.run, target.plain, target.keep_last
    removals = _unkept(place, units, limit, now) if plain else []
    if plain and len(removals) == len(units):
        plan.units.append((place, removals))
        return
    decided = reversed([removal.survey for removal in removals])
    next_decided = next(decided, None)
    for rank, unit in enumerate(reversed(units)):
        if unit is next_decided:
            next_decided = next(decided, None)
            continue
        name = unit.name
        # Where there are policies, these have counted.
        number = rank if plain else keep_last
        reason = why_kept(unit, target, limit, protected.get(name, ""), number, now)
        why = kept.get((id(place), name))
        by_age = not fixed(unit, protected) and not (why and why.fixed)
        if why and not reason:
            reason = str(why)
        if not reason:
            surplus = _surplus(target, run.checkpoints[name])
            removals.append(UnitRemoval(place, unit, now, surplus))
            continue
        plan.keep.append(Kept(target.name, f"{base}/{name}", reason))
        if target.free_to is not None and by_age:
            plan.following.setdefault(place.device, []).append((unit.newest, plan.keep[-1]))
        if place.container is not None and run.checkpoints[name].complete:
            run.anchor = run.anchor or name
    if not plain:
        removals.reverse()
    plan.units.append((place, removals))


def _unkept(
    place: TargetFacts, units: Sequence[Unit], limit: int | None, now: float
) -> list[UnitRemoval]:
    """Return the removals of a plain target's units that nothing keeps: why_kept() of each is empty. ``units`` are sorted, the oldest first."""
    protected, keep_last = place.protected, place.target.keep_last
    surplus = [
        unit
        for unit in (units[:-keep_last] if keep_last else units)
        if (isinstance(unit, PlainFile) or not vetoed(unit))
        and (limit is None or (unit.own <= limit and unit.content <= limit))
        and not (protected and unit.name in protected)
    ]
    # UnitRemoval(place, unit, now, ""), for there may be hundreds of thousands.
    make = functools.partial(tuple.__new__, UnitRemoval)
    return list(map(make, zip(repeat(place), surplus, repeat(now), repeat(""))))


def _decide_tool(plan: Plan, facts: ToolFacts, now: float) -> None:
    retention = TOOLS[facts.name].retention
    chosen = []
    for item in facts.items:
        age, reason = decide_item(item, retention, now)
        if reason:
            plan.keep.append(Kept(facts.name, item.path, reason))
            continue
        why = f"a cache of {item.files} files"
        if age is not None:
            why = _since(item, age, retention)
        removal = NamedRemoval(facts.name, item.path, item.kind, item.size, age, why)
        chosen.append((item, removal))
    plan.tools[facts.name] = chosen
    plan.remove.extend(removal for dummy, removal in chosen)
    plan.matched[facts.name] = len(facts.items)


def decide_item(item: Item, retention: float, now: float) -> tuple[float | None, str]:
    """Return the age of a tool's item and why it stays, empty when it is removed."""
    if item.kind == CACHE and retention == 0:
        return None, item.in_use
    if item.made is None:
        return None, "its creation time is unknown"
    age = now - item.made
    if item.in_use:
        return age, item.in_use
    if age < retention:
        return age, _since(item, age, retention)
    return age, ""


def _since(item: Item, age: float, retention: float) -> str:
    return f"{item.event} {age / DAY:.1f} days ago, kept {retention / DAY:.1f} days"


def _decide_leftover(facts: LeftoverFacts, now: float) -> Recovery:
    """Decide what happens with what a stopped run left.

    What was already being removed continues. What was only moved is decided again by the target that matches its name (its own ctime is
    the moment of the move, so only its mtime counts). It goes back when it is not due, or when that target keeps its newest units: which
    those are is only known of units in their places.
    """
    begun = tuple(
        remains(facts.first.name, path, unit, "its removal was interrupted")
        for path, unit in facts.begun
    )
    due_again, back = [], []
    for moved in facts.moved:
        target, unit = moved.target, moved.survey
        if target is None:
            back.append((facts.first.name, moved.name))
        elif unit is None or moved.protected or not may_finish(unit, target, now):
            back.append((target.name, moved.name))
        else:
            reason = "a run was interrupted before its removal"
            due_again.append(remains(target.name, moved.path, unit, reason))
    return Recovery(facts, begun, tuple(due_again), tuple(back))


def may_finish(unit: Unit, target: Target, now: float) -> bool:
    """Return whether a unit that a stopped run had only moved may be removed."""
    if target.keeps or not target.fits(unit.kind):
        return False
    return not vetoed(unit) and due(unit, cutoff(target, now))


def _notes(facts: Facts) -> list[str]:
    busy = facts.busy
    if busy is None or not (busy.unseen or busy.hidden is not None):
        return []
    stay = "; units that hold files of their users stay"
    if busy.hidden is None:
        stay = ""
    return [
        f"{busy.unseen or 'Some'} process{'' if busy.unseen == 1 else 'es'} could not be examined;"
        f" only locks and mounts tell what they use{stay}."
    ]
