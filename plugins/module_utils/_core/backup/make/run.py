# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Making a backup: observe, decide, carry out. ``run`` does all three and is what the shells call.

The copies are made once the local backup is complete; only then are the backups removed that no
retention rule keeps.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypedDict, Union

from ...errors import StoreError
from ...ports import Tell, World, silent
from ...verdict import isoformat
from .. import catalogue, proofs, protection, stores
from ..catalogue import Backup, Description
from ..options import BackupOptions
from ..proofs import Proof
from ..retention import Decision
from ..source import Tree
from ..store import CopyStore, StoredCopy
from . import execute, facts, layouts, plan
from .facts import CopyFacts
from .plan import Plan

#: Links that the result lists.
_MOST_LINKS = 100


class Removal(TypedDict):
    """A backup that was removed, as modules return it. ``size`` in bytes."""

    name: str
    path: str
    created: str
    size: int
    reason: str


class PlannedCopy(TypedDict):
    """A copy that check mode would make; ``verified`` is ``planned``."""

    url: str
    verified: str


class RemovedCopy(TypedDict):
    """A copy that no rule keeps."""

    url: str
    removed: bool
    reason: str


CopyResult = Union[StoredCopy, PlannedCopy, RemovedCopy]


class PlanResult(TypedDict):
    """What was decided. Sizes in bytes."""

    action: str
    reason: str
    files: int
    bytes: int
    estimated_size: int


class Stats(TypedDict):
    """What it took.

    Archives written, seconds per phase, bytes of files read, bytes of archives written, and their
    ratio.
    """

    archives_written: int
    durations: dict[str, float]
    bytes_read: int
    bytes_written: int
    ratio: float | None


class ResultData(TypedDict):
    """What the module returns."""

    changed: bool
    status: str
    backup: Description | None
    outside_links: list[str]
    plan: PlanResult
    removed: list[Removal]
    copies: list[CopyResult]
    stats: Stats
    protection: protection.Protection
    last_restore_proof: Proof | None
    notes: list[str]


@dataclass
class Result:
    """What was done, or in check mode would be.

    ``backup`` is None when there is none yet; ``tree`` is the source as it was read last;
    ``before`` and ``after`` are the names of the backups in the destination, ``proof`` is the last
    restore drill on record. ``outside`` are links to what is not in the backup.
    """

    plan: Plan
    tree: Tree
    backup: Description | None
    removed: list[Removal] = field(default_factory=list)
    copies: list[CopyResult] = field(default_factory=list)
    changed: bool = False
    notes: list[str] = field(default_factory=list)
    outside: tuple[str, ...] = ()
    durations: dict[str, float] = field(default_factory=dict)
    written: int = 0
    read: int = 0
    archives: int = 0
    before: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)
    proof: Proof | None = None
    separate: bool = False

    def to_dict(self) -> ResultData:
        """Return what the module returns. Durations in seconds, sizes in bytes."""
        written, size = self.written, self.tree.size
        read = self.read
        return {
            "changed": self.changed,
            "status": plan.status(self.outside),
            "backup": self.backup,
            "outside_links": list(self.outside[:_MOST_LINKS]),
            "plan": {
                "action": "create" if self.plan.make else "keep",
                "reason": self.plan.reason,
                "files": self.tree.files,
                "bytes": size,
                "estimated_size": self.plan.estimate,
            },
            "removed": self.removed,
            "copies": self.copies,
            "stats": {
                "archives_written": self.archives,
                "durations": {
                    phase: round(seconds, 3) for phase, seconds in self.durations.items()
                },
                "bytes_read": read,
                "bytes_written": written,
                "ratio": round(written / read, 4) if written and read else None,
            },
            "protection": protection.count(
                self.backup, self.copies, self.separate, self.plan.facts.now
            ),
            "last_restore_proof": self.proof,
            "notes": self.notes,
        }


def run(options: BackupOptions, world: World, check: bool = False, tell: Tell = silent) -> Result:
    """Make a backup unless the newest one still matches the source, copy it, apply retention.

    :param check: only say what would be done.
    :raises VerificationFailed: the new archive is not what was written.
    :raises FleetError: whatever kept it from succeeding; then nothing was removed.
    """
    # A missing library or a setting that can't be used must come out before hours of work, not
    # after.
    copy_stores = stores.copy_stores(options)
    plan.check_place(options, facts.observe_place(options))
    observed = facts.observe(options, world)
    planned = plan.decide(options, observed)
    if check:
        return _preview(planned, copy_stores)
    with execute.locked(options.destination) as directory:
        stale = catalogue.stale(catalogue.directory_names(options.destination))
        execute.discard(directory, stale)
        # What another run did before we had the lock is taken into account.
        planned = plan.decide(options, facts.observe_again(options, observed))
        result, backup = _make(planned, world, tell, directory)
        if stale:
            result.notes.insert(0, f"removed {len(stale)} temporary files of interrupted runs")
        for store in copy_stores:
            _copy(store, backup, result, world, tell)
        execute.remove(directory, [decision.backup.name for decision in planned.removals])
        layouts.collect(options.destination, directory, options, world)
        result.changed = result.changed or bool(planned.removals)
    return result


def _result(planned: Plan, tree: Tree, current: Backup | None) -> Result:
    """Return the result of a plan as far as the destination goes."""
    seen = planned.facts
    before = sorted(backup.name for backup in seen.backups)
    removed = {decision.backup.name for decision in planned.removals}
    return Result(
        planned,
        tree,
        current.to_dict() if current is not None else None,
        [_removal(decision) for decision in planned.removals],
        notes=plan.notes(planned.options, tree, seen.backups, seen.now, seen.hostname),
        outside=plan.outside(planned.options, tree),
        before=before,
        after=sorted(({*before} | {planned.current.name}) - removed),
        proof=proofs.newest(planned.options.destination),
        separate=protection.on_other_storage(planned.options.source, planned.options.destination),
    )


def _make(planned: Plan, world: World, tell: Tell, directory: int) -> tuple[Result, Backup]:
    """Carry out what concerns the destination; return the result and the backup that counts now."""
    if not planned.make:
        return _result(planned, planned.facts.tree, planned.current), planned.current
    made = layouts.make(planned, world, tell, directory)
    result = _result(planned, made.tree, made.backup)
    result.changed, result.durations = True, made.durations
    result.written, result.read, result.archives = made.written, made.read, made.archives
    return result, made.backup


def _preview(planned: Plan, copy_stores: tuple[CopyStore, ...]) -> Result:
    """Return what carrying out the plan would return, as far as it can be known."""
    options, now, current = planned.options, planned.facts.now, planned.current
    present = None if planned.make else current
    result = _result(planned, planned.facts.tree, present)
    for store in copy_stores:
        store.look()
        seen = facts.observe_copies(store, present, listed=store.prunes)
        todo = plan.decide_copies(options, seen, current, now, planned.facts.hostname)
        if todo.upload:
            planned_copy: PlannedCopy = {"url": store.url(current.name), "verified": "planned"}
            result.copies.append(planned_copy)
        result.copies += [_removed_copy(store, decision) for decision in todo.removals]
    result.changed = planned.make or bool(planned.removals) or bool(result.copies)
    return result


def _copy(store: CopyStore, current: Backup, result: Result, world: World, tell: Tell) -> None:
    """Copy the backup to one place and remove there what no rule keeps.

    :raises StoreError: it failed; the message says that the local backup is complete.
    """
    options, now, started = result.plan.options, result.plan.facts.now, world.clock.monotonic()
    host = world.hostname
    try:
        seen = facts.observe_copies(store, current, listed=False)
        if plan.decide_copies(options, seen, current, now, host).upload:
            seen = CopyFacts(store.upload(current, tell))
            result.changed = True
        if seen.present is not None:
            result.copies.append(seen.present)
        if store.prunes:  # listed only now: a copy must be made even where listing is not allowed
            seen = CopyFacts(seen.present, tuple(store.listing()))
            for decision in plan.decide_copies(
                options, seen, current, now, world.hostname
            ).removals:
                store.remove(decision.backup.name)
                result.copies.append(_removed_copy(store, decision))
                result.changed = True
    except StoreError as error:
        raise StoreError(
            f"{error.message} The local backup {current.path} is complete.",
            error.todo,
            error.subject,
        ) from error
    result.durations["upload"] = world.clock.monotonic() - started


def _removed_copy(store: CopyStore, decision: Decision) -> RemovedCopy:
    return {"url": store.url(decision.backup.name), "removed": True, "reason": decision.reason}


def _removal(decision: Decision) -> Removal:
    backup = decision.backup
    return {
        "name": backup.name,
        "path": backup.path,
        "created": isoformat(backup.created),
        "size": backup.size,
        "reason": decision.reason,
    }
