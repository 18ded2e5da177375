# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Remove the units of one directory: move them aside, decide again on fresh facts, then remove them
there.

Directories are removed in the quarantine's second compartment, since their removal takes many
steps; a file takes one.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence

from ..ports import Progress, Tell
from ..system.removal import Changed
from .full_disk import FULL, make_room, unlink_files
from .in_place import remove_files
from .outcome import Outcome
from .quarantine import Quarantine
from .removals import UnitRemoval
from .root import Root
from .scan import Look, survey_again
from .steps import give_back, keep, remove_directory, updated
from .units import Unit
from .work import Work

#: Units, and files in them, that are moved before the process table is read again. Those that must
#: stay are back before the first of the others is removed, that is, after one look at so many
#: files.
BATCH = BATCH_FILES = 100_000

#: Removed units between two reports of progress.
_STEP = 50


def clean(work: Work, units: Sequence[UnitRemoval], outcome: Outcome, tell: Tell) -> Iterator[None]:
    """Remove the units of one directory; yields each time when units were moved and the processes
    are to be looked at.
    """
    root = work.root
    units = remove_files(work, units, outcome, tell)
    if not units:
        return
    try:
        quarantine = Quarantine.make(root)
    except OSError as error:
        if work.compartment is not None:
            fail_all(units, root, error, outcome)
            return
        if error.errno in FULL:
            # No room for a directory: files need none, since unlinking one is atomic. Afterwards
            # there is room.
            units = unlink_files(work, units, outcome)
            if not units:
                return
        try:
            quarantine = make_room(work, units, outcome)
        except OSError as second:
            fail_all(units, root, second, outcome)
            return
    try:
        finished = 0
        for batch in _batches(units):
            yield from _Batch(quarantine, work, outcome, tell, len(units), finished).steps(batch)
            finished += len(batch)
        tell(Progress("remove", finished, len(units), "files", work.target.name))
    finally:
        quarantine.close()


def fail_all(units: Sequence[UnitRemoval], root: Root, error: OSError, outcome: Outcome) -> None:
    why = f"no quarantine directory could be made in {root.path}: {error.strerror}"
    for removal in units:
        outcome.fail(removal.target, removal.path, why)


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


class _Batch:
    """Units that are moved, decided about again, and removed together.

    ``before`` of ``total`` units were finished before.
    """

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
        approved: list[tuple[UnitRemoval, Unit]] = []
        root, quarantine, work = self.work.root, self.quarantine, self.work
        try:
            yield
            # Whoever opened a unit before it was moved is seen now; nobody can open it by its name
            # any more.
            busy = work.busy()
            protected = root.protected(busy, quarantine.place("new"), quarantine.new)
            look = root.look(work.target, busy, work.now, moved=True, watch=work.watch)
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
                give_back(quarantine, removal.survey.name, removal, reason, self.outcome)
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

    def _approve(self, removal: UnitRemoval, look: Look, protected: dict[str, str]) -> Unit | None:
        """Look again at a unit that was moved.

        Return what it is now, or put it back where it must stay and return None.
        """
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
            give_back(self.quarantine, planned.name, removal, reason, self.outcome)
            return None
        return unit

    def _destroy(self, approved: list[tuple[UnitRemoval, Unit]], end: int) -> None:
        """Remove units, the last of the list first; ``end`` units are finished afterwards."""
        quarantine, outcome, unlink = self.quarantine, self.outcome, os.unlink
        if self.work.compartment is not None:
            keep(quarantine, self.work.compartment, approved, outcome)
            return
        while approved:
            if len(approved) % _STEP == 0:
                finished = end - len(approved)
                target = self.work.target.name
                self.tell(Progress("remove", finished, self.total, "files", target))
            removal, unit = approved.pop()
            if self.work.watch is not None and removal.survey.watched is not None:
                self.work.watch.release(removal.survey.watched.directories)
            if unit.directories:
                remove_directory(quarantine, unit.name, updated(removal, unit), outcome)
                continue
            try:
                unlink(unit.name, dir_fd=quarantine.new)
            except OSError as error:
                outcome.fail(removal.target, quarantine.place("new", unit.name), error)
            else:
                outcome.gone(updated(removal, unit))
