# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restoring: observe, decide, carry out. ``run`` does all three and is what the shells call."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TypedDict

from ...ports import Tell, World, silent
from ...verdict import isoformat
from .. import stores
from ..options import RestoreOptions
from . import execute, facts, parts, plan
from .plan import Plan


class RestoredData(TypedDict):
    """What was restored. Sizes in bytes."""

    backup: str
    origin: str
    created: str
    sha256: str | None
    destination: str
    files: int
    bytes: int
    verified: bool
    state: str


class ResultData(TypedDict):
    """What the module returns."""

    changed: bool
    restored: RestoredData
    notes: list[str]


@dataclass
class Result:
    """What was restored, or in check mode would be.

    ``before`` and ``after`` are the paths in the destination.
    """

    plan: Plan
    changed: bool
    files: int
    bytes: int
    verified: bool
    notes: list[str] = field(default_factory=list)
    before: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)

    def to_dict(self) -> ResultData:
        """Return what the module returns."""
        seen = self.plan.facts
        backup = seen.origin.backup
        return {
            "changed": self.changed,
            "restored": {
                "backup": backup.name,
                "origin": seen.origin.url,
                "created": isoformat(backup.created),
                "sha256": backup.sha256,
                "destination": seen.destination,
                "files": self.files,
                "bytes": self.bytes,
                "verified": self.verified,
                "state": seen.state,
            },
            "notes": self.notes,
        }


def run(options: RestoreOptions, world: World, check: bool = False, tell: Tell = silent) -> Result:
    """Restore a backup unless the destination already equals it.

    :param check: only say what would be done.
    :raises VerificationFailed: the archive is not what was backed up; nothing is left.
    :raises Refused: the destination or something in the archive is dangerous.
    :raises FleetError: anything else.
    """
    # First of all: it may be the only copy of what was there, and what is there decides about the
    # rest.
    put_back, notes = (False, []) if check else recover(options.target)
    path = options.backup if "/" in options.backup else options.path
    store = stores.to_read(options, path)
    place = facts.observe_place(options, store, world)
    backup = plan.choose(options, place)
    archives, damage = parts.observe(store, backup, options.verify, options.model)
    notes += damage
    choice = plan.narrow(options, place, backup, parts.merged(archives))
    real = os.path.realpath(place.destination)
    plan.refuse_own_backup(place.destination, real, facts.local_copy(store, backup))
    seen = facts.observe(place, backup, choice.wanted, archives, store, tell)
    planned = plan.decide(options, seen)
    if choice.note:
        notes.append(choice.note)
    if check or not planned.restore:
        return planned_result(planned, put_back, notes)
    return _carry_out(planned, notes, tell)


def recover(destination: str) -> tuple[bool, list[str]]:
    """Clear up after restores to this destination that were killed.

    Return whether a tree was put back, and what to note.

    :raises LockBusy: another restore to it is running.
    :raises WriteFailed: it can't be done.
    """
    recovery = plan.decide_recovery(facts.observe_leftovers(destination))
    if recovery.put_back is None and not recovery.remove:
        return False, []
    destination = recovery.destination
    failure = f"Can't clear up beside {destination}"
    with execute.locked(destination):
        # What was seen before we had the lock may have been another run's work.
        recovery = plan.decide_recovery(facts.observe_leftovers(destination))
        with execute.opened_parent(
            destination, failure, "Check the permissions of its parent directory."
        ) as directory:
            return recovery.put_back is not None, execute.recover(recovery, directory)


def planned_result(planned: Plan, changed: bool, notes: list[str]) -> Result:
    """Return the result where nothing is written: in check mode, or nothing is to be done.

    :param changed: whether a tree of an interrupted restore was put back.
    """
    paths = list(planned.paths)
    same = not planned.restore
    return Result(
        planned,
        changed or planned.restore,
        planned.files,
        planned.size,
        verified=same,
        notes=notes,
        before=paths if same else [],
        after=paths,
    )


def _carry_out(planned: Plan, notes: list[str], tell: Tell) -> Result:
    """Restore under the destination's lock, after another look at it."""
    options, destination = planned.options, planned.facts.destination
    with execute.locked(destination):
        execute.make_parents(destination)
        with execute.opened_parent(
            destination,
            f"Restoring to {destination} failed",
            "Nothing was changed there; check space and permissions.",
        ) as directory:
            name = os.path.basename(destination)
            fresh = facts.observe_again(directory, name, planned.facts)
            todo = plan.decide(options, fresh)
            restored = execute.carry_out(todo, directory, tell)
    return Result(
        planned,
        True,
        restored.files,
        restored.size,
        verified=options.verify and planned.facts.origin.backup.sha256 is not None,
        notes=notes + restored.notes,
        before=restored.before,
        after=restored.after,
    )
