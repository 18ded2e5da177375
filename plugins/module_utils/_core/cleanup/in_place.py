# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Remove many plain files where they are, without moving them aside first: that would double the
cost of the removal.

The order keeps what a move would. From before the files are looked at for the plan, the kernel
reports which entries are opened, changed or replaced; before the removal the process table is read;
and each file is removed in the system call right after the question for further reports.
What was opened before the first look is in the process table or, closed again, was reported. A file
that is opened or replaced between these two calls, a few microseconds, goes. Where reports were
lost, files are compared with the plan and removed in two consecutive calls.
"""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Container, Sequence

from ..ports import Progress, Tell
from .outcome import Outcome
from .removals import UnitRemoval
from .units import plain, unchanged
from .watch import NameWatch
from .work import Work

#: Plain files in one directory from which these are removed where they are.
MANY = 1000
#: Removed files between two reports of progress.
_STEP = 500


def remove_files(
    work: Work, units: Sequence[UnitRemoval], outcome: Outcome, tell: Tell
) -> list[UnitRemoval]:
    """Remove the plain files among the units that are still what was planned; return the other
    units, of which none was touched.
    """
    if not work.in_place or sum(plain(removal.survey) for removal in units) < MANY:
        return list(units)
    watch = work.root.touches
    if watch is not None:
        return _remove(work, units, outcome, tell, watch, compare=False)
    try:
        watch = NameWatch(work.root.fd, touched=True)
    except OSError:
        return list(units)
    with contextlib.closing(watch):
        return _remove(work, units, outcome, tell, watch, compare=True)


def _remove(
    work: Work,
    units: Sequence[UnitRemoval],
    outcome: Outcome,
    tell: Tell,
    watch: NameWatch,
    compare: bool,
) -> list[UnitRemoval]:
    """Remove them; ``compare`` with the plan where the watch began after it was made."""
    root, fd, record = work.root, work.root.fd, outcome.record
    busy = work.busy()
    protected = root.protected(busy)
    look = root.look(work.target, busy, work.now)
    if look.hidden is not None or watch.fd < 0:  # or events were lost meanwhile
        return list(units)
    touched: Container[str] = () if watch.touched is None else watch.touched
    inodes, lstat, unlink = look.inodes, os.lstat, os.unlink
    events = select.poll()
    events.register(watch.fd, select.POLLIN)
    poll = events.poll
    remaining: list[UnitRemoval] = []
    removed: list[UnitRemoval] = []
    try:
        for number, removal in enumerate(units):
            planned = removal.survey
            if number % _STEP == 0:
                tell(Progress("remove", number, len(units), "files", work.target.name))
            if not plain(planned) or planned.inode in inodes:
                remaining.append(removal)
                continue
            if poll(0):
                names = watch.names() if compare else root.refresh()
                if names:
                    protected = root.protected(busy)
                if names is None or watch.fd < 0:  # events were lost
                    remaining.extend(units[number:])
                    break
            name = planned.name
            if name in protected or name in touched:
                remaining.append(removal)
                continue
            try:
                if compare and not unchanged(planned, lstat(name, dir_fd=fd)):
                    remaining.append(removal)
                    continue
                unlink(name, dir_fd=fd)
            except FileNotFoundError:
                continue  # somebody else removed it
            except OSError:
                remaining.append(removal)
                continue
            removed.append(removal)
            if record is not None:
                record(removal, "removed")
    finally:
        outcome.all_gone(removed)
    return remaining
