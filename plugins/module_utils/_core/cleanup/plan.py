# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decide what is removed and why everything else stays. Pure: facts in, plan out, no clock and no file touched."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, NamedTuple, Union

from ..errors import Refused
from ..system.text import display_path, human_duration, human_size
from ..verdict import isoformat
from . import policies
from .checkpoints import Checkpoint
from .facts import BackupFacts, Facts, HoldFacts, LeftoverFacts, TargetFacts
from .held import DOOMED, HeldUnit, run_name
from .history import History
from .options import BrakeOptions, CleanupOptions, RequireBackupOptions
from .policies import Member, Reasons
from .scan import Survey
from .targets import DAY, Target, cutoff
from .tools import CACHE, TOOLS, Item, ToolFacts
from .watermark import NEXT, Freed, Watermark, needed_first

#: Seconds by which the clock that dated a backup may be ahead of ours.
SKEW = 3600.0
#: Why a unit goes back that a stopped run had moved.
PUT_BACK = "put back: a run was interrupted before its removal, and it is not due"
#: Characters of a path in a reason.
_PATH_LENGTH = 200


class Kept(NamedTuple):
    """A unit that stays, and why."""

    target: str
    path: str
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of the result."""
        return {"target": self.target, "path": display_path(self.path), "reason": self.reason}


class UnitRemoval:
    """A unit of a directory that is removed.

    There may be hundreds of thousands, so that everything but the survey is computed when it is asked for.
    """

    __slots__ = ("now", "place", "survey", "why")

    def __init__(self, place: TargetFacts, survey: Survey, now: float, why: str = "") -> None:
        self.place, self.survey, self.now, self.why = place, survey, now, why

    @property
    def target(self) -> str:
        """Name of its target."""
        return self.place.target.name

    @property
    def path(self) -> str:
        """Its path, without symbolic links."""
        return f"{self.place.path.rstrip('/')}/{self.survey.name}"

    @property
    def kind(self) -> str:
        """``dir``, ``link`` or ``file``."""
        return self.survey.kind

    @property
    def size(self) -> int:
        """Allocated bytes as du(1) counts them."""
        return self.survey.disk_usage

    @property
    def age(self) -> float:
        """Seconds since the newest change."""
        return max(0.0, self.now - self.survey.newest / 10**9)

    @property
    def reason(self) -> str:
        """Why it is removed."""
        retention = self.place.target.retention
        reason = f"{_days(self.age)} old, kept {_days(retention)}"
        if retention == 0:
            reason = f"{_days(self.age)} old" if self.why else "always removed"
        return f"{reason}; {self.why}" if self.why else reason

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of the result."""
        return _entry(self)


class NamedRemoval(NamedTuple):
    """Something else that is removed: what a tool cleans, or what a stopped run left.

    ``size`` is in bytes, ``age`` in seconds (None when unknown).
    """

    target: str
    path: str
    kind: str
    size: int
    age: float | None
    reason: str
    survey: Survey | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of the result."""
        return _entry(self)


Removal = Union[UnitRemoval, NamedRemoval]


def _entry(removal: Removal) -> dict[str, Any]:
    return {
        "target": removal.target,
        "path": display_path(removal.path),
        "kind": removal.kind,
        "size": removal.size,
        "files": None if removal.survey is None else removal.survey.files,
        "age_days": None if removal.age is None else round(removal.age / DAY, 3),
        "reason": removal.reason,
    }


class Recovery(NamedTuple):
    """What happens with what a stopped run left in a quarantine directory.

    ``begun``: its removal had begun and continues. ``due``: was only moved, and is removed. ``back`` (target, name): was only moved, and is
    put back.
    """

    facts: LeftoverFacts
    begun: tuple[NamedRemoval, ...]
    due: tuple[NamedRemoval, ...]
    back: tuple[tuple[str, str], ...]


@dataclass
class Plan:
    """What is removed and what stays, in the order of the targets, oldest first.

    ``matched`` counts units by target name. ``units`` are the removals of each directory, ``tools`` the items by tool name.
    ``braked`` says what exceeds the brake, empty when nothing does; otherwise nothing may be removed, and ``allow`` says how to allow it.
    """

    remove: list[Removal] = field(default_factory=list)
    keep: list[Kept] = field(default_factory=list)
    matched: dict[str, int] = field(default_factory=dict)
    units: list[tuple[TargetFacts, list[UnitRemoval]]] = field(default_factory=list)
    tools: dict[str, list[tuple[Item, NamedRemoval]]] = field(default_factory=dict)
    recoveries: list[Recovery] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    braked: str = ""
    allow: str = ""
    #: Units in quarantine that are removed for good.
    purge: list[tuple[HeldUnit, NamedRemoval]] = field(default_factory=list)
    #: Name of the run whose units are kept in quarantine, and for how many seconds; "" and 0 when they are not kept.
    run: str = ""
    held_for: int = 0
    #: The levels of file systems, and by st_dev what only its age or a policy keeps, with the newest time in it.
    watermarks: list[Watermark] = field(default_factory=list)
    following: dict[int, list[tuple[int, Kept]]] = field(default_factory=dict)

    def of(self, target: str) -> list[Removal]:
        """Return what is removed from one target."""
        return [removal for removal in self.remove if removal.target == target]


# --- one unit -------------------------------------------------------------------------------------------------------------


def due(unit: Survey, limit: int | None) -> bool:
    """Return whether a unit is as old as its target's retention, to the nanosecond.

    :param limit: the target's cutoff(): the newest time at which a unit is still due, None when every unit is.
    """
    return limit is None or (unit.own <= limit and unit.content <= limit)


def vetoed(unit: Survey) -> str:
    """Return what in a unit protects it; empty when nothing does, or when its survey ended early because it is not due anyway."""
    return "" if unit.stopped else unit.veto or ""


def fixed(unit: Survey, protected: Mapping[str, str]) -> bool:
    """Return whether something other than its age or a policy keeps a unit."""
    return bool(protected.get(unit.name) or unit.veto)


def why_kept(
    unit: Survey, target: Target, limit: int | None, protected: str, rank: int, now: float
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
        where = f" ({display_path(unit.newest_path)[-_PATH_LENGTH:]})" if unit.newest_path else ""
        age = now - unit.newest / 10**9
        when = f"{_days(age)} ago" if age >= 0 else f"is dated {_days(-age)} in the future"
        return f"newest change {when}{where}, kept {_days(target.retention)}"
    if rank < target.keep_last:
        return f"one of the {target.keep_last} newest"
    return ""


def why_put_back(planned: Survey, unit: Survey, limit: int | None, protected: str) -> str:
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


def _days(seconds: float) -> str:
    return f"{seconds / DAY:.1f} days" if seconds >= DAY else human_duration(seconds)


# --- the whole plan -------------------------------------------------------------------------------------------------------


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
    _keep_uncovered(plan, facts)
    _purge_expired(plan, facts)
    _free_to_levels(plan, facts)
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


def interrupted(facts: Facts) -> list[tuple[HoldFacts, NamedRemoval]]:
    """Return the units in quarantine whose removal was interrupted."""
    return [
        (
            held,
            _left(
                held.target.name,
                f"{held.hold.path}/{DOOMED}/{name}",
                unit,
                "its removal was interrupted",
            ),
        )
        for held in facts.held
        for name, unit in held.begun
    ]


def _purge(plan: Plan, unit: HeldUnit, held: HoldFacts, now: float, reason: str) -> None:
    age = now - held.hold.since
    kind = "dir" if unit.survey is None else unit.survey.kind
    target = unit.target or held.target.name
    plan.purge.append(
        (unit, NamedRemoval(target, unit.original, kind, unit.size, age, reason, unit.survey))
    )


def _purge_expired(plan: Plan, facts: Facts) -> None:
    """Remove the units whose time in quarantine is over."""
    for held in facts.held:
        if facts.now < held.hold.until:
            continue
        for unit in held.units:
            if unit.stays or unit.survey is None:
                plan.keep.append(Kept(unit.target or held.target.name, unit.path, unit.stays))
                continue
            days = _days(held.hold.until - held.hold.since)
            _purge(plan, unit, held, facts.now, f"its {days} in quarantine are over")


def _purge_for_space(plan: Plan, facts: Facts, device: int, needed: int, count: Freed) -> int:
    """Remove units from quarantine before their time, the oldest first, until so much is free; return the bytes that frees."""
    freed = 0
    for held in sorted(facts.held, key=lambda held: (held.hold.since, held.hold.run)):
        if held.device != device or facts.now >= held.hold.until:
            continue
        for unit in held.units:
            if freed >= needed or unit.stays or unit.survey is None:
                continue
            freed += count.add(unit.survey)
            _purge(plan, unit, held, facts.now, "in quarantine, and its space is needed")
    return freed


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
    return f"{what} beyond {' and '.join(limits)}" if limits else what


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
    removals: list[UnitRemoval] = []
    run, plain, keep_last = place.run, target.plain, target.keep_last
    for rank, unit in enumerate(reversed(units)):
        name = unit.name
        # There may be hundreds of thousands that nothing keeps.
        if (
            plain
            and rank >= keep_last
            and unit.veto is None
            and (limit is None or (unit.own <= limit and unit.content <= limit))
            and name not in protected
        ):
            removals.append(UnitRemoval(place, unit, now))
            continue
        # Where there are policies, these have counted.
        number = rank if plain else keep_last
        reason = why_kept(unit, target, limit, protected.get(name, ""), number, now)
        why = kept.get((id(place), name))
        by_age = not fixed(unit, protected) and not (why and why.fixed)
        if why and not reason:
            reason = str(why)
        if reason:
            plan.keep.append(Kept(target.name, f"{base}/{name}", reason))
            if target.free_to is not None and by_age:
                plan.following.setdefault(place.device, []).append((unit.newest, plan.keep[-1]))
            if place.container is not None and run.checkpoints[name].complete:
                run.anchor = run.anchor or name
        elif plain:
            removals.append(UnitRemoval(place, unit, now))
        else:
            surplus = _surplus(target, run.checkpoints[name])
            removals.append(UnitRemoval(place, unit, now, surplus))
    removals.reverse()
    plan.units.append((place, removals))


def _keep_uncovered(plan: Plan, facts: Facts) -> None:
    """Keep units whose files are not all in a backup; where a file system has a level, only those that would go are compared."""
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


def _free_to_levels(plan: Plan, facts: Facts) -> None:
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
        _spare(plan, device, spared, level, uncovered)
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


def _spare(
    plan: Plan, device: int, spared: set[int], level: Watermark, uncovered: Mapping[int, str]
) -> None:
    """Keep removals that are not needed to reach a level."""
    why = f"not needed: {human_size(level.goal)} are free without its removal"
    for number, (place, removals) in enumerate(plan.units):
        if place.device != device or place.target.free_to is None:
            continue
        for removal in removals:
            if id(removal) in spared:
                reason = uncovered.get(id(removal), why)
                plan.keep.append(Kept(removal.target, removal.path, reason))
        plan.units[number] = (place, [removal for removal in removals if id(removal) not in spared])


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
            why = _created(age, retention)
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
        return age, _created(age, retention)
    return age, ""


def _created(age: float, retention: float) -> str:
    return f"created {age / DAY:.1f} days ago, kept {retention / DAY:.1f} days"


def _decide_leftover(facts: LeftoverFacts, now: float) -> Recovery:
    """Decide what happens with what a stopped run left.

    What was already being removed continues. What was only moved is decided again by the target that matches its name (its own ctime is
    the moment of the move, so only its mtime counts). It goes back when it is not due, or when that target keeps its newest units: which
    those are is only known of units in their places.
    """
    begun = tuple(
        _left(facts.first.name, path, unit, "its removal was interrupted")
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
            due_again.append(_left(target.name, moved.path, unit, reason))
    return Recovery(facts, begun, tuple(due_again), tuple(back))


def may_finish(unit: Survey, target: Target, now: float) -> bool:
    """Return whether a unit that a stopped run had only moved may be removed."""
    if target.keeps or not target.fits(unit.kind):
        return False
    return not vetoed(unit) and due(unit, cutoff(target, now))


def _left(target: str, path: str, unit: Survey | None, reason: str) -> NamedRemoval:
    if unit is None:
        return NamedRemoval(target, path, "dir", 0, None, reason)
    return NamedRemoval(target, path, unit.kind, unit.disk_usage, None, reason, unit)


def _notes(facts: Facts) -> list[str]:
    busy = facts.busy
    if busy is None or not (busy.unseen or busy.hidden is not None):
        return []
    stay = "" if busy.hidden is None else "; units that hold files of their users stay"
    return [
        f"{busy.unseen or 'Some'} process(es) could not be examined;"
        f" only locks and mounts tell what they use{stay}."
    ]


# --- brake and interlock --------------------------------------------------------------------------------------------------


class Braked(Refused):
    """The plan is larger than the brake allows; nothing was removed. ``result`` is the result of a run that did nothing."""

    result: Mapping[str, Any] = {}


class Brake(NamedTuple):
    """Which limit a plan exceeds, with the unit that is too much, and the options that allow it once."""

    why: str
    allow: str


def check_brake(
    plan: Plan,
    targets: Sequence[Target],
    brake: BrakeOptions | None,
    history: History | None = None,
) -> Brake | None:
    """Return which limit the plan exceeds, None when none.

    Targets that are always emptied (retention 0) do not count for the share. Without earlier runs there is no growth.
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
        removals, matched = plan.of(target.name), plan.matched.get(target.name, 0)
        count = len(removals)
        share = brake.max_share
        if share is not None and target.plain and target.retention == 0:
            share = None
        if share is not None and matched and count / matched > share:
            why = f"{count} of {matched} units of {target.name} would be removed, the brake allows a share of {share:g}"
            return _brake(why, removals, int(share * matched), "max-share", _up(count / matched))
        last = None if history is None else history.largest(target.name)
        if brake.max_growth is None or last is None:
            continue
        size = sum(removal.size for removal in removals)
        units, bytes_ = brake.max_growth * last.units, brake.max_growth * last.size
        growth = _up(max(count / max(1, last.units), size / max(1, last.size)))
        if count > units:
            why = (
                f"{count} units of {target.name} would be removed, at most {last.units} in its last runs,"
                f" the brake allows a growth of {brake.max_growth:g}"
            )
            return _brake(why, removals, int(units), "max-growth", growth)
        if size > bytes_:
            why = (
                f"{human_size(size)} of {target.name} would be removed, at most {human_size(last.size)} in its last runs,"
                f" the brake allows a growth of {brake.max_growth:g}"
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
    """Refuse the cleanup unless there is a verified and fresh backup. :raises Refused: there is none."""
    path = required.path
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
            f"Nothing was removed: the newest verified backup in {path} is {human_duration(age)} old,"
            f" {required.max_age_hours:g} h are allowed.",
            "Make a new one with mlops.fleet.model_backup first.",
            path,
        )
