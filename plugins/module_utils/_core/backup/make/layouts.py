# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Making a backup in either layout: one archive, or a set of archives, one per model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

from ...errors import NotUsable
from ...ports import Tell, World
from ...system.files import atomic_write
from ...system.text import display_path
from .. import archive, codecs, members, names, sets
from ..manifest import Member
from ..options import PER_MODEL, BackupOptions
from ..source import Entry, Tree
from . import execute, facts
from . import plan as planning
from .plan import ModelPlan, Plan

#: How often a run starts over because a file changed while it was read.
ATTEMPTS = 3


def make(plan: Plan, world: World, tell: Tell, directory: int) -> execute.Made:
    """Write, prove and publish a backup.

    :param directory: the destination, open and locked.
    :raises VerificationFailed: an archive is not what was written.
    :raises WriteFailed:
    :raises NotUsable: see the message.
    """
    run = execute.Run(plan.options, plan.current.created, world, tell, directory)
    attempt, path = run.single, ""
    if plan.options.layout == PER_MODEL:
        attempt = _SetRun(run, plan).attempt
    tree, fingerprint = plan.facts.tree, plan.facts.fingerprint
    with facts.opened_source(plan.options.source) as root:
        for number in range(ATTEMPTS):
            if number:
                tree, fingerprint = facts.walk(root, plan.options), ""
            try:
                return attempt(root, tree, plan.current.name, fingerprint)
            except archive.Changed as change:
                path = str(change.args[0])
    full = display_path(f"{plan.options.source}/{path}")
    raise NotUsable(
        f"{full} changed while it was read, {ATTEMPTS} times in a row.",
        "Back up when nothing writes to it, or exclude it.",
        full,
    )


class _SetRun:
    """Makes a set: an archive of each model that changed, then the file that names all archives."""

    def __init__(self, run: execute.Run, plan: Plan) -> None:
        self._run, self._plan = run, plan
        self._options, self._destination = plan.options, plan.options.destination
        self._suffix = codecs.CODECS[plan.options.compression].suffix
        #: Archives that may be named besides those of the newest set, and those of this run.
        self._usable = members.unnamed(self._destination, plan.options, run.world.hostname)
        self._written: list[Member] = []
        self._bytes = 0

    def attempt(
        self,
        root: int,
        tree: Tree,
        name: str,
        fingerprint: str = "",  # noqa: ARG002
    ) -> execute.Made:
        """Make the set. :raises Changed: a file changed meanwhile; finished archives stay."""
        usable = (*self._usable, *self._written)
        entries: list[Entry] = []
        archives: list[Member] = []
        try:
            for item in planning.models(self._options, tree, self._plan.newest, usable):
                archived, read = self._archive(root, tree, item)
                archives.append(archived)
                entries += read
            self._publish(name, tree, entries, archives)
        except archive.Changed:
            raise
        except BaseException:
            for written in self._written:
                execute.remove_files(self._run.directory, written["name"])
            raise
        return execute.Made(
            execute.published(self._destination, name),
            replace(tree, entries=tuple(entries)),
            sum(written["size"] for written in self._written),
            self._bytes,
            self._run.durations,
            len(self._written),
        )

    def _archive(self, root: int, tree: Tree, item: ModelPlan) -> tuple[Member, Sequence[Entry]]:
        """Return the archive of a model, which is written unless an archive matches."""
        if item.keep is not None:
            return item.keep, item.entries
        part = replace(tree, entries=item.entries, skipped=())
        file = names.member(self._run.created, item.model, self._suffix)
        head, written = self._run.archive(root, part, file, item.fingerprint, item.model)
        archived = sets.member(head, item.model)
        self._written = [other for other in self._written if other["name"] != file] + [archived]
        self._bytes += sum(entry.size for entry in written.entries)
        return archived, written.entries

    def _publish(
        self, name: str, tree: Tree, entries: Sequence[Entry], archives: Sequence[Member]
    ) -> None:
        world = self._run.world
        head = sets.build(
            name,
            self._run.created,
            world.hostname,
            self._options,
            tree.skipped,
            entries,
            archives,
            world.clock.now(),
        )
        path = os.path.join(self._destination, name)
        try:
            atomic_write(path + names.CHECKSUM, sets.checksums(archives), execute.FILE_MODE)
            atomic_write(path, sets.dump(head), execute.FILE_MODE)
        except BaseException as error:
            execute.remove_files(self._run.directory, name)
            if isinstance(error, OSError):
                raise execute.write_failed(self._destination, error) from error
            raise


def collect(destination: str, directory: int, options: BackupOptions, world: World) -> int:
    """Remove archives that no set names any more; return how many.

    :param directory: the destination, open and locked.
    :raises WriteFailed: one can't be removed.
    """
    now = world.clock.now()
    garbage = members.garbage(destination, options, world.hostname, now)
    execute.remove(directory, garbage)
    return len(garbage)
