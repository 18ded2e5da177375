# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Carry a plan out: finish what stopped runs began, remove the units of each directory, then let the tools clean."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from typing import Any

from ..errors import FleetError
from ..ports import Progress, Tell, World
from ..system import mounts
from ..system.removal import Changed, remove
from . import batches
from .facts import Facts, LeftoverFacts, TargetFacts, follow_trackers, in_use
from .held import DOOMED, Compartment, Hold
from .inuse import InUse
from .levels import interrupted
from .options import CleanupOptions
from .outcome import Outcome
from .removals import PUT_BACK, Kept, NamedRemoval, Plan, Recovery, Removal, UnitRemoval
from .root import Root
from .steps import finish, give_back, keep, remove_directory
from .tools import TOOLS
from .work import Work

#: Directories of runs that share one look at the processes.
TOGETHER = 64


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
    for removal in gone:
        outcome.gone(removal)
    for removal in units:
        if plan.run:
            outcome.hold(removal)
        else:
            outcome.gone(removal)
    for dummy, removals in plan.units:
        if not plan.run:
            outcome.all_gone(removals)
            continue
        for unit in removals:
            outcome.hold(unit)
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
                work = replace(_work(options, directory, place, facts), busy=busy)
                try:
                    work = replace(work, compartment=holds.compartment(directory))
                except OSError as error:
                    batches.fail_all(units, directory, error, outcome)
                    return
                try:
                    yield from batches.clean(work, units, outcome, tell)
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
        alone = place.container is None or size >= batches.BATCH_FILES
        if group and (
            alone
            or place.target.name != group[0][0].target.name
            or files + size > batches.BATCH_FILES
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


def _work(options: CleanupOptions, root: Root, place: TargetFacts, facts: Facts) -> Work:
    required = options.require_backup
    covered = required is not None and required.check == "covered"
    simple = place.container is None and not covered and not options.quarantine
    return Work(
        root,
        place.target,
        facts.now,
        lambda: None,
        place.run.anchor,
        covered,
        in_place=simple and root.watched and place.target.age_by != "atime",
        watch=facts.watch,
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
        give_back(quarantine, name, removal, PUT_BACK, outcome)
    for removal in recovery.begun:
        finish(quarantine, os.path.basename(removal.path), removal, outcome)
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
        keep(quarantine, compartment, due, outcome)
        compartment.close()
        return
    for removal in recovery.due:
        remove_directory(quarantine, os.path.basename(removal.path), removal, outcome)
