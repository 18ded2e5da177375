# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Carry a plan out: move each unit into the root's quarantine, decide again on fresh facts, then remove it there.

Directories are removed in the quarantine's second compartment, since their removal takes many steps; a file takes one.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
from collections.abc import Callable, Generator, Iterator, MutableSequence, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from ..errors import FleetError
from ..ports import Progress, Tell, World
from ..system import mounts
from ..system.removal import Changed, remove
from ..system.text import display_path
from .facts import Facts, LeftoverFacts, TargetFacts, follow_trackers, in_use
from .held import DOOMED, Compartment, HeldUnit, Hold
from .history import Amount
from .inuse import InUse
from .options import CleanupOptions
from .plan import (
    PUT_BACK,
    Kept,
    NamedRemoval,
    Plan,
    Recovery,
    Removal,
    UnitRemoval,
    interrupted,
    why_put_back,
)
from .quarantine import Aside, Quarantine
from .root import Root, exists
from .scan import Look, Survey, survey, survey_again
from .targets import Target, cutoff
from .tools import TOOLS
from .watermark import Freed

#: Units, and files in them, that are moved before the process table is read again. Those that must stay are back before
#: the first of the others is removed, that is, after one look at so many files.
BATCH = BATCH_FILES = 100_000
#: Directories of runs that share one look at the processes.
TOGETHER = 64
#: Removed units between two reports of progress.
_STEP = 50
_FULL = (errno.ENOSPC, errno.EDQUOT)


_NOTHING = Amount(0, 0)


class Failure(NamedTuple):
    """A unit that could not be removed, and why; ``path`` is where what remains of it is."""

    target: str
    path: str
    error: str

    def to_dict(self) -> dict[str, str]:
        """Return the entry of the result."""
        return {"target": self.target, "path": self.path, "error": self.error}


@dataclass
class Outcome:
    """What was done. ``freed`` is in bytes, by target name."""

    removed: list[Removal] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    freed: dict[str, int] = field(default_factory=dict)
    filesystems: list[dict[str, Any]] = field(default_factory=list)
    counted: Freed = field(default_factory=Freed)
    #: Units and bytes by target name, those in quarantine included.
    amounts: dict[str, Amount] = field(default_factory=dict)
    #: Called for everything that was removed, at once.
    record: Callable[[Removal, str], None] | None = None
    #: What was moved to quarantine, removed from it (by its path there), and brought back.
    held: list[Removal] = field(default_factory=list)
    purged: set[str] = field(default_factory=set)
    restored: list[HeldUnit] = field(default_factory=list)

    def hold(self, removal: Removal) -> None:
        """Note what was moved to quarantine, where it still uses its space."""
        self.count(removal.target, removal.size)
        self.removed.append(removal)
        self.held.append(removal)
        if self.record is not None:
            self.record(removal, "moved to quarantine")

    def gone(self, removal: Removal) -> None:
        """Count what was removed; a file with several links when its last one was."""
        unit = removal.survey
        size = removal.size if unit is None else unit.size
        if unit is not None and unit.linked is not None:
            size = self.counted.add(unit)
        target = removal.target
        self.freed[target] = self.freed.get(target, 0) + size
        self.count(target, size)
        self.removed.append(removal)
        if self.record is not None:
            self.record(removal, "removed")

    def count(self, target: str, size: int) -> None:
        """Count a unit and its bytes."""
        units, total = self.amounts.get(target, _NOTHING)
        self.amounts[target] = Amount(units + 1, total + size)

    def keep(self, removal: Removal, reason: str) -> None:
        """Note that something stays after all."""
        self.kept.append(Kept(removal.target, removal.path, reason))

    def fail(self, target: str, path: str, error: object) -> None:
        """Note what could not be done."""
        text = str(error)
        if isinstance(error, OSError) and error.strerror:
            text = error.strerror
        self.failures.append(Failure(target, path, text))


@dataclass(frozen=True)
class Work:
    """What removing the units of one directory needs. ``busy`` reads the process table again (None: what is in use is not asked)."""

    root: Root
    target: Target
    now: float
    busy: Callable[[], InUse | None]
    #: The unit of the root without which nothing in it may be removed, "" for none.
    anchor: str = ""
    #: Whether the files of units were compared with backups.
    covered: bool = False
    #: Where removed units are kept, None when they are not.
    compartment: Compartment | None = None

    @property
    def limit(self) -> int | None:
        """The newest time at which a unit is still due."""
        return cutoff(self.target, self.now)

    def decide(self, planned: Survey, unit: Survey, protected: dict[str, str]) -> str:
        """Return why a unit that was looked at again must stay, empty when it does not."""
        if self.anchor and not exists(self.anchor, self.root.fd):
            return f"{display_path(self.anchor)}, which was to stay, is gone"
        if self.covered and unit.content != planned.content:
            return "it was changed after it was compared with the backups"
        return why_put_back(planned, unit, self.limit, protected.get(planned.name, ""))


def predict(facts: Facts, plan: Plan, outcome: Outcome) -> None:
    """Fill in what carry_out() would do, as far as is known before."""
    for recovery in plan.recoveries:
        directory = recovery.facts.quarantine.root.path
        for target, name in recovery.back:
            outcome.kept.append(Kept(target, f"{directory}/{name}", PUT_BACK))
    gone: list[Removal] = [removal for dummy, removal in interrupted(facts)]
    gone += [removal for dummy, removal in plan.purge]
    outcome.purged = {unit.path for unit, dummy in plan.purge}
    units: list[Removal] = []
    for recovery in plan.recoveries:
        gone += recovery.begun
        units += [_in_place(recovery, due) if plan.run else due for due in recovery.due]
    for dummy, removals in plan.units:
        units += removals
    for removal in gone:
        outcome.gone(removal)
    for removal in units:
        if plan.run:
            outcome.hold(removal)
        else:
            outcome.gone(removal)
    for removal in [removal for chosen in plan.tools.values() for dummy, removal in chosen]:
        outcome.gone(removal)


def carry_out(
    options: CleanupOptions, world: World, facts: Facts, plan: Plan, outcome: Outcome, tell: Tell
) -> None:
    """Do what the plan says. What can't be removed is recorded, and the rest goes on."""
    before = _space(facts)
    holds = Holds(facts, plan)
    try:
        _remove_held(facts, plan, outcome)
        for recovery in plan.recoveries:
            _recover(recovery, outcome, holds)
        _clean_directories(options, world, facts, plan, outcome, tell, holds)
    finally:
        holds.close()
    for tool in facts.tools:
        chosen = plan.tools.get(tool.name)
        if not chosen:
            continue
        tell(Progress("remove", 0, len(chosen), "files", tool.name))
        problems = TOOLS[tool.name].clean(world, tool, [item for item, dummy in chosen])
        for item, removal in chosen:
            if item.path in problems:
                outcome.fail(tool.name, item.path, problems[item.path])
            else:
                outcome.gone(removal)
    outcome.filesystems = _compare(before, _space(facts))


class Holds:
    """The quarantines that this run fills, one for each root. Nothing is made before it is needed."""

    def __init__(self, facts: Facts, plan: Plan) -> None:
        self.roots, self.plan = facts.roots, plan
        self._open: dict[str, Hold] = {}

    def compartment(self, root: Root) -> Compartment | None:
        """Make a place in quarantine for units of a directory; None when units are not kept. :raises OSError: no permission, no space."""
        if not self.plan.run:
            return None
        top = next(
            top
            for top in self.roots.values()
            if root.path == top.path or root.path.startswith(top.path.rstrip("/") + "/")
        )
        if top.path not in self._open:
            self._open[top.path] = Hold.make(top, self.plan.run, self.plan.held_for)
        return self._open[top.path].compartment(root.path[len(top.path) :].strip("/"))

    def close(self) -> None:
        """Close them, and remove those that are empty."""
        for hold in self._open.values():
            hold.close(tidy=True)


def _remove_held(facts: Facts, plan: Plan, outcome: Outcome) -> None:
    """Remove units from quarantine for good: a rename to where half of one can't be taken for a whole one, then the removal."""
    for held, removal in interrupted(facts):
        _remove_from(held.hold, os.path.basename(removal.path), removal, outcome)
    for number, (unit, removal) in enumerate(plan.purge):
        name = f"{number}-{os.urandom(4).hex()}"
        try:
            with unit.hold.opened(str(unit.number)) as fd, unit.hold.opened(DOOMED) as doomed:
                os.rename(unit.name, name, src_dir_fd=fd, dst_dir_fd=doomed)
        except FileNotFoundError:
            continue
        except OSError as error:
            outcome.fail(removal.target, unit.path, error)
            continue
        outcome.purged.add(unit.path)
        _remove_from(unit.hold, name, removal, outcome)


def _remove_from(hold: Hold, name: str, removal: Removal, outcome: Outcome) -> None:
    try:
        with hold.opened(DOOMED) as fd:
            problems = remove(fd, name, hold.root.device, hold.root.mount)
    except OSError as error:
        problems = [str(error)]
    if problems:
        outcome.fail(removal.target, f"{hold.path}/{DOOMED}/{name}", "; ".join(problems))
    else:
        outcome.gone(removal)


def restore(units: Sequence[HeldUnit], facts: Facts, check: bool, outcome: Outcome) -> None:
    """Bring units back from quarantine, or with ``check`` say which would come back. What can't be brought back stays where it is."""
    seen: set[str] = set()
    for unit in units:
        target = unit.target or next(
            held.target.name for held in facts.held if held.hold is unit.hold
        )
        try:
            if check:
                unit.hold.check(unit)
                if unit.original in seen:
                    raise FileExistsError(errno.EEXIST, "the path exists again")
                seen.add(unit.original)
            else:
                unit.hold.bring_back(unit)
        except OSError as error:
            why = f"it stays in quarantine ({display_path(unit.path)}): {error.strerror}"
            outcome.fail(target, unit.original, why)
            continue
        outcome.restored.append(unit._replace(target=target))
        if outcome.record is not None:
            why = f"run {unit.hold.run}"
            entry = NamedRemoval(target, unit.original, "", max(0, unit.size), None, why)
            outcome.record(entry, "brought back")


def _clean_directories(
    options: CleanupOptions,
    world: World,
    facts: Facts,
    plan: Plan,
    outcome: Outcome,
    tell: Tell,
    holds: Holds,
) -> None:
    def steps(
        place: TargetFacts, units: list[UnitRemoval], busy: _SharedLook
    ) -> Generator[None, None, None]:
        root = facts.roots[place.target.name]
        try:
            with _directory(root, place) as directory:
                work = replace(_work(options, directory, place, facts.now), busy=busy)
                try:
                    work = replace(work, compartment=holds.compartment(directory))
                except OSError as error:
                    _fail_all(units, directory, error, outcome)
                    return
                try:
                    yield from _clean(work, units, outcome, tell)
                finally:
                    if work.compartment is not None:
                        work.compartment.close()
        except (FleetError, OSError, Changed) as error:
            outcome.fail(place.target.name, place.path, error)

    for group in _groups(facts, plan):
        roots = [facts.roots[group[0][0].target.name]]
        busy = _SharedLook(functools.partial(in_use, options, world, roots))
        running = [steps(place, units, busy) for place, units in group]
        try:
            for step in running:
                next(step, None)
            busy.shared = len(group) > 1
            for step in running:
                for dummy in step:
                    pass
        finally:
            for step in running:
                step.close()


class _SharedLook:
    """The processes' look at what is in use. Once it is ``shared``, several directories whose units were all moved before use one."""

    def __init__(self, read: Callable[[], InUse | None]) -> None:
        self.read, self.shared = read, False
        self._known: list[InUse | None] = []

    def __call__(self) -> InUse | None:
        if not self.shared:
            return self.read()
        if not self._known:
            self._known.append(self.read())
        return self._known[0]


def _groups(facts: Facts, plan: Plan) -> Iterator[list[tuple[TargetFacts, list[UnitRemoval]]]]:
    """Yield the directories to clean; of one target together those with so few units that one look at the processes serves all."""
    group: list[tuple[TargetFacts, list[UnitRemoval]]] = []
    files = 0
    for place, units in plan.units:
        if not units or place.target.name not in facts.roots:
            continue
        size = max(len(units), sum(removal.survey.files for removal in units))
        alone = place.container is None or size >= BATCH_FILES
        if group and (
            alone
            or place.target.name != group[0][0].target.name
            or files + size > BATCH_FILES
            or len(group) >= TOGETHER
        ):
            yield group
            group, files = [], 0
        group.append((place, units))
        files += size
        if alone:
            yield group
            group, files = [], 0
    if group:
        yield group


def _fail_all(units: Sequence[UnitRemoval], root: Root, error: OSError, outcome: Outcome) -> None:
    why = f"no quarantine directory could be made in {root.path}: {error.strerror}"
    for removal in units:
        outcome.fail(removal.target, removal.path, why)


@contextlib.contextmanager
def _directory(root: Root, place: TargetFacts) -> Iterator[Root]:
    """Give the open directory that holds the units of a place: the target's root, or one below it."""
    if place.container is None:
        yield root
        return
    directory = root.inside(place.container.where, place.container.identity)
    try:
        follow_trackers(directory, place.container)
        yield directory
    finally:
        directory.close()


def _work(options: CleanupOptions, root: Root, place: TargetFacts, now: float) -> Work:
    required = options.require_backup
    return Work(
        root,
        place.target,
        now,
        lambda: None,
        place.run.anchor,
        required is not None and required.check == "covered",
    )


def _space(facts: Facts) -> dict[int, tuple[str, int]]:
    """Return the bytes available to users by file system: st_dev to (a path on it, bytes)."""
    space: dict[int, tuple[str, int]] = {}
    for root in facts.roots.values():
        space.setdefault(root.device, (root.path, mounts.available(root.fd)))
    return space


def _compare(
    before: dict[int, tuple[str, int]], after: dict[int, tuple[str, int]]
) -> list[dict[str, Any]]:
    return [
        {
            "path": path,
            "available_before": size,
            "available_after": after[device][1],
            "difference": after[device][1] - size,
        }
        for device, (path, size) in before.items()
    ]


# --- the units of one target ----------------------------------------------------------------------------------------------


def _clean(
    work: Work, units: Sequence[UnitRemoval], outcome: Outcome, tell: Tell
) -> Iterator[None]:
    """Remove the units of one directory; yields each time when units were moved and the processes are to be looked at."""
    root = work.root
    units = list(units)
    try:
        quarantine = Quarantine.make(root)
    except OSError as error:
        if work.compartment is not None:
            _fail_all(units, root, error, outcome)
            return
        if error.errno in _FULL:
            # No room for a directory: files need none, since unlinking one is atomic. Afterwards there is room.
            units = _unlink_files(work, units, outcome)
            if not units:
                return
        try:
            quarantine = _make_room(work, units, outcome)
        except OSError as second:
            _fail_all(units, root, second, outcome)
            return
    try:
        finished = 0
        for batch in _batches(units):
            yield from _Batch(quarantine, work, outcome, tell, len(units), finished).steps(batch)
            finished += len(batch)
        tell(Progress("remove", finished, len(units), "files", work.target.name))
    finally:
        quarantine.close()


def _batches(units: Sequence[UnitRemoval]) -> Iterator[list[UnitRemoval]]:
    batch: list[UnitRemoval] = []
    files = 0
    for removal in units:
        batch.append(removal)
        files += removal.survey.files
        if len(batch) >= BATCH or files >= BATCH_FILES:
            yield batch
            batch, files = [], 0
    if batch:
        yield batch


def _unlink_files(work: Work, units: Sequence[UnitRemoval], outcome: Outcome) -> list[UnitRemoval]:
    """Remove files where they are; return the units that remain."""
    root = work.root
    busy = work.busy()
    protected = root.protected(busy)
    look = root.look(work.target, busy, work.now)
    remaining = []
    for removal in units:
        planned = removal.survey
        if planned.kind == "dir":
            remaining.append(removal)
            continue
        try:
            unit = survey(root.fd, planned.name, look)
            if work.decide(planned, unit, protected):
                remaining.append(removal)  # decided again, with all the reasons, in quarantine
                continue
            os.unlink(planned.name, dir_fd=root.fd)
        except (OSError, Changed) as error:
            outcome.fail(removal.target, removal.path, error)
        else:
            outcome.gone(_updated(removal, unit))
    return remaining


def _make_room(work: Work, units: list[UnitRemoval], outcome: Outcome) -> Quarantine:
    """Make a quarantine directory, if need be by removing directories where they are, the smallest first.

    :raises OSError: there is no room even so.
    """
    while True:
        try:
            return Quarantine.make(work.root)
        except OSError as error:
            directories = [removal for removal in units if removal.kind == "dir"]
            if error.errno not in _FULL or not directories:
                raise
            smallest = min(directories, key=lambda removal: (removal.survey.files, removal.path))
            units.remove(smallest)
            try:
                _remove_aside(work, smallest, outcome)
            except (OSError, Changed) as why:
                outcome.fail(smallest.target, smallest.path, why)


def _remove_aside(work: Work, removal: UnitRemoval, outcome: Outcome) -> None:
    root, planned = work.root, removal.survey
    protected = root.protected(None)
    if planned.name in protected:
        outcome.keep(removal, protected[planned.name])
        return
    aside = Aside(root, Aside.name_for(planned.name), planned.name)
    os.rename(planned.name, aside.name, src_dir_fd=root.fd, dst_dir_fd=root.fd)
    try:
        busy = work.busy()
        protected = root.protected(busy)
        if aside.name in protected:
            protected.setdefault(planned.name, protected[aside.name])
        unit = None
        reason = protected.get(planned.name, "")
        if not reason:
            look = root.look(work.target, busy, work.now, moved=True)
            unit = survey(root.fd, aside.name, look)
            reason = work.decide(planned, unit, protected)
            if not reason:
                aside.begin(unit.identity)
    except BaseException as error:
        _return(aside, planned.name, removal, f"the cleanup was stopped: {error}", outcome)
        if isinstance(error, (OSError, Changed)):
            return
        raise
    if reason or unit is None:
        _return(aside, planned.name, removal, reason, outcome)
        return
    _finish(aside, aside.name, _updated(removal, unit), outcome)


def _updated(removal: UnitRemoval, unit: Survey) -> Removal:
    """Return a removal as it was planned, with what the unit held when it was looked at last."""
    if unit is removal.survey:
        return removal
    return NamedRemoval(
        removal.target, removal.path, removal.kind, removal.size, removal.age, removal.reason, unit
    )


class _Batch:
    """Units that are moved, decided about again, and removed together. ``before`` of ``total`` units were finished before."""

    def __init__(
        self,
        quarantine: Quarantine,
        work: Work,
        outcome: Outcome,
        tell: Tell,
        total: int,
        before: int,
    ) -> None:
        self.quarantine, self.work, self.outcome = quarantine, work, outcome
        self.tell, self.total, self.before = tell, total, before

    def steps(self, units: Sequence[UnitRemoval]) -> Iterator[None]:
        """Remove the units; yields once when they were moved."""
        waiting = self._move(units)
        waiting.reverse()
        approved: list[tuple[UnitRemoval, Survey]] = []
        root, quarantine, work = self.work.root, self.quarantine, self.work
        try:
            yield
            # Whoever opened a unit before it was moved is seen now; nobody can open it by its name any more.
            busy = work.busy()
            protected = root.protected(busy, quarantine.place("new"), quarantine.new)
            look = root.look(work.target, busy, work.now, moved=True)
            while waiting:
                unit = self._approve(waiting[-1], look, protected)
                removal = waiting.pop()
                if unit is not None:
                    approved.append((removal, unit))
            approved.reverse()
            self._destroy(approved, self.before + len(units))
        except BaseException as error:
            reason = f"the cleanup was stopped: {error}"
            for removal in [*waiting, *(removal for removal, dummy in approved)]:
                _return(quarantine, removal.survey.name, removal, reason, self.outcome)
            raise

    def _move(self, units: Sequence[UnitRemoval]) -> list[UnitRemoval]:
        """Move units to quarantine; return those that were moved."""
        root, outcome = self.work.root, self.outcome
        protected = root.protected(None)
        source, destination, rename = root.fd, self.quarantine.new, os.rename
        moved = []
        for removal in units:
            name = removal.survey.name
            if name in protected:
                outcome.keep(removal, protected[name])
                continue
            try:
                rename(name, name, src_dir_fd=source, dst_dir_fd=destination)
            except FileNotFoundError:
                continue  # somebody else removed it
            except OSError as error:
                problem: object = error
                if error.errno == errno.EXDEV and root.overlay:
                    problem = (
                        "it is in a lower layer of an overlay, where no directory can be renamed"
                    )
                outcome.fail(removal.target, removal.path, problem)
                continue
            moved.append(removal)
        return moved

    def _approve(
        self, removal: UnitRemoval, look: Look, protected: dict[str, str]
    ) -> Survey | None:
        """Look again at a unit that was moved. Return what it is now, or put it back where it must stay and return None."""
        planned = removal.survey
        reason = protected.get(planned.name, "")
        unit = None
        if (
            not reason
        ):  # otherwise it is not even looked at: it may hold a mount that does not answer
            try:
                unit = survey_again(self.quarantine.new, planned, look)
                if unit is planned and not self.work.anchor:  # the same facts, so the same decision
                    return unit
                reason = self.work.decide(planned, unit, protected)
            except FileNotFoundError:
                why = "it vanished from the quarantine directory"
                self.outcome.fail(removal.target, removal.path, why)
                return None
            except Changed as error:
                reason = str(error)
            except OSError as error:
                reason = f"it can't be read: {error.strerror}"
        if reason:
            _return(self.quarantine, planned.name, removal, reason, self.outcome)
            return None
        return unit

    def _destroy(self, approved: list[tuple[UnitRemoval, Survey]], end: int) -> None:
        """Remove units, the last of the list first; ``end`` units are finished afterwards."""
        quarantine, outcome, unlink = self.quarantine, self.outcome, os.unlink
        if self.work.compartment is not None:
            _keep(quarantine, self.work.compartment, approved, outcome)
            return
        while approved:
            if len(approved) % _STEP == 0:
                finished = end - len(approved)
                target = self.work.target.name
                self.tell(Progress("remove", finished, self.total, "files", target))
            removal, unit = approved.pop()
            if unit.directories:
                updated = _updated(removal, unit)
                _remove_directory(quarantine, unit.name, updated, outcome)
                continue
            try:
                unlink(unit.name, dir_fd=quarantine.new)
            except OSError as error:
                outcome.fail(removal.target, quarantine.place("new", unit.name), error)
            else:
                outcome.gone(_updated(removal, unit))


def _remove_directory(
    quarantine: Quarantine, name: str, removal: Removal, outcome: Outcome
) -> None:
    """Remove a unit that is in ``new``."""
    try:
        os.rename(name, name, src_dir_fd=quarantine.new, dst_dir_fd=quarantine.doomed)
    except OSError as error:
        outcome.fail(removal.target, removal.path, error)
        return
    _finish(quarantine, name, removal, outcome)


def _keep(
    quarantine: Quarantine,
    compartment: Compartment,
    approved: MutableSequence[tuple[UnitRemoval, Survey]]
    | MutableSequence[tuple[NamedRemoval, Survey]],
    outcome: Outcome,
) -> None:
    """Move approved units from ``new`` to where they can be brought back from."""
    compartment.announce(
        [(unit.name, removal.target, unit.disk_usage) for removal, unit in approved]
    )
    while approved:
        removal, unit = approved.pop()
        try:
            os.rename(unit.name, unit.name, src_dir_fd=quarantine.new, dst_dir_fd=compartment.fd)
        except OSError as error:
            outcome.fail(removal.target, quarantine.place("new", unit.name), error)
        else:
            outcome.hold(removal)


def _finish(quarantine: Quarantine, name: str, removal: Removal, outcome: Outcome) -> None:
    """Remove a unit that is in ``doomed``."""
    root = quarantine.root
    problems = remove(quarantine.doomed, name, root.device, root.mount)
    if problems:
        outcome.fail(removal.target, quarantine.place("doomed", name), "; ".join(problems))
    else:
        outcome.gone(removal)


def _return(
    quarantine: Quarantine, name: str, removal: Removal, reason: str, outcome: Outcome
) -> None:
    try:
        quarantine.put_back(name)
    except OSError as error:
        outcome.fail(
            removal.target,
            quarantine.place("new", name),
            f"{reason}; and it could not be put back: {error.strerror}",
        )
    else:
        outcome.keep(removal, reason)


# --- what a stopped run left ----------------------------------------------------------------------------------------------


def _in_place(recovery: Recovery, removal: NamedRemoval) -> NamedRemoval:
    """Return the removal of a unit that was only moved, with the path that it had before."""
    directory = recovery.facts.quarantine.root.path.rstrip("/")
    return removal._replace(path=f"{directory}/{os.path.basename(removal.path)}")


def _recover(recovery: Recovery, outcome: Outcome, holds: Holds) -> None:
    """Finish what a stopped run began."""
    leftover: LeftoverFacts = recovery.facts
    quarantine = leftover.quarantine
    if recovery.due:
        try:
            quarantine.complete()
        except OSError as error:
            outcome.fail(recovery.due[0].target, quarantine.path, error)
            return
    directory = quarantine.root.path.rstrip("/")
    for target, name in recovery.back:
        removal = NamedRemoval(target, f"{directory}/{name}", "", 0, None, "")
        _return(quarantine, name, removal, PUT_BACK, outcome)
    for removal in recovery.begun:
        _finish(quarantine, os.path.basename(removal.path), removal, outcome)
    if not recovery.due:
        return
    try:
        compartment = holds.compartment(quarantine.root)
    except OSError as error:
        for removal in recovery.due:
            outcome.fail(removal.target, removal.path, error)
        return
    if compartment is not None:
        due = [
            (_in_place(recovery, removal), removal.survey)
            for removal in reversed(recovery.due)
            if removal.survey
        ]
        _keep(quarantine, compartment, due, outcome)
        compartment.close()
        return
    for removal in recovery.due:
        _remove_directory(quarantine, os.path.basename(removal.path), removal, outcome)
