# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make room on a file system that has none for a quarantine directory."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from ..system.removal import Changed
from .outcome import Outcome
from .quarantine import Aside, Quarantine
from .removals import UnitRemoval
from .scan import survey
from .steps import finish, give_back, updated
from .work import Work

FULL = (errno.ENOSPC, errno.EDQUOT)


def unlink_files(work: Work, units: Sequence[UnitRemoval], outcome: Outcome) -> list[UnitRemoval]:
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
            outcome.gone(updated(removal, unit))
    return remaining


def make_room(work: Work, units: list[UnitRemoval], outcome: Outcome) -> Quarantine:
    """Make a quarantine directory, if need be by removing directories where they are, the smallest
    first.

    :raises OSError: there is no room even so.
    """
    while True:
        try:
            return Quarantine.make(work.root)
        except OSError as error:
            directories = [removal for removal in units if removal.kind == "dir"]
            if error.errno not in FULL or not directories:
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
        give_back(aside, planned.name, removal, f"the cleanup was stopped: {error}", outcome)
        if isinstance(error, (OSError, Changed)):
            return
        raise
    if reason or unit is None:
        give_back(aside, planned.name, removal, reason, outcome)
        return
    finish(aside, aside.name, updated(removal, unit), outcome)
