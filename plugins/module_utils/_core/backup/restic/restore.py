# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restoring a snapshot with restic: into a tree beside the destination, compared, then one step."""

from __future__ import annotations

import os
import re
import stat
from typing import Any, BinaryIO, NoReturn, cast

from ...errors import NotUsable, OptionError, VerificationFailed
from ...ports import Tell, World, silent
from ...system import mounts
from ...system.text import display_path
from .. import source, walk
from ..catalogue import Backup
from ..manifest import Contents, ManifestEntry
from ..options import RestoreOptions
from ..restore import execute, facts, plan
from ..restore.facts import Facts, Origin, Place
from ..restore.plan import Plan
from ..restore.run import Result, planned_result, recover
from ..source import FILE, LINK
from ..writer import check_links
from .repository import Repository


class _Store:
    """What a restore asks a place for."""

    connections = 1

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    def listing(self) -> list[Backup]:
        return self._repository.snapshots()

    def url(self, name: str) -> str:
        return f"{self._repository.url.rstrip('/')}/{name}" if name else self._repository.url

    def local_path(self, backup: Backup) -> str | None:  # noqa: ARG002
        return None

    def members(self, backup: Backup) -> list[Backup]:  # noqa: ARG002
        return []

    def contents(self, backup: Backup) -> Contents | None:  # noqa: ARG002
        return None

    def read(self, backup: Backup, offset: int, length: int) -> NoReturn:  # noqa: ARG002
        raise NotUsable("A restic repository holds no archives.", "", self._repository.url)

    def open(self, backup: Backup) -> BinaryIO:
        return self.read(backup, 0, 0)


def run(options: RestoreOptions, world: World, check: bool = False, tell: Tell = silent) -> Result:
    """Restore a snapshot unless the destination already equals it.

    :param check: only say what would be done; then contents are not compared, only names, sizes,
        permissions and times.
    :raises VerificationFailed: what restic wrote is not what the snapshot holds.
    :raises FleetError: anything else; the destination is as before then.
    """
    put_back, notes = (False, []) if check else recover(options.target)
    repository = Repository(options, options.path, world)
    repository.require()
    store = _Store(repository)
    place = facts.observe_place(options, store, world)
    backup = plan.choose(options, place)
    entries = cast("list[ManifestEntry]", repository.entries(str(backup.sha256)))
    wanted = _select(entries, options, backup)
    seen = _observe(place, backup, wanted, store, tell)
    planned = plan.decide(options, seen)
    if not planned.restore or check:
        return planned_result(planned, put_back, notes)
    return _carry_out(planned, repository, notes)


def _select(
    entries: list[ManifestEntry], options: RestoreOptions, backup: Backup
) -> tuple[ManifestEntry, ...]:
    if options.model is not None and options.files:
        raise OptionError(
            "Options model and files can't be combined with engine=restic.",
            "Name the files by their paths, like bert/config.json.",
            "files",
        )
    wanted = plan.select(Contents(entries, None), options.files, options.model)
    if not wanted:
        patterns = options.files or [options.model or "*"]
        raise NotUsable(
            f"Nothing in {backup.name} matches {', '.join(patterns)}.",
            "Check the patterns.",
            backup.name,
        )
    return wanted


def _observe(
    place: Place, backup: Backup, wanted: tuple[ManifestEntry, ...], store: _Store, tell: Tell
) -> Facts:
    origin = Origin(backup, store.url(backup.name), ())
    state, reason = facts.state_of(place.destination, tell)
    if state == facts.OTHER:
        reason = _difference(place.destination, wanted)
        if not reason:
            state = facts.SAME
    free = mounts.available(place.destination)
    return Facts(origin, place.destination, wanted, state, free, reason)


def _difference(directory: str, wanted: tuple[ManifestEntry, ...]) -> str:
    """Return how a directory differs from the snapshot by names, kinds, sizes, modes and times."""
    try:
        root = source.open_root(directory)
        try:
            present = {entry.path: entry for entry in walk.walk(root, directory).entries}
        finally:
            os.close(root)
    except (NotUsable, OSError) as error:
        return str(error).rstrip(".")
    expected = {entry["path"]: entry for entry in wanted}
    for path in (*expected, *present):
        if path not in present:
            return f"{display_path(path)} is missing"
        if path not in expected:
            return f"{display_path(path)} is not in the backup"
        entry, other = present[path], expected[path]
        if entry.type != other["type"]:
            return f"{display_path(path)} differs"
        if entry.type == LINK:
            continue
        if entry.mode & 0o777 != int(other["mode"], 8):
            return f"{display_path(path)} has other permissions"
        if entry.type == FILE and entry.size != other["size"]:
            return f"{display_path(path)} differs"
        if entry.type == FILE and entry.mtime_ns != other["mtime_ns"]:
            return f"{display_path(path)} has another modification time"
    return ""


def _carry_out(planned: Plan, repository: Repository, notes: list[str]) -> Result:
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
            plan.decide(options, facts.observe_again(directory, name, planned.facts))
            before = facts.names_in(destination) if options.mode == "replace" else []
            _restore(planned, repository, directory, name)
    return Result(
        planned,
        True,
        planned.files,
        planned.size,
        verified=options.verify,
        notes=notes,
        before=before,
        after=sorted(planned.paths),
    )


def _restore(planned: Plan, repository: Repository, directory: int, name: str) -> None:
    options, backup = planned.options, planned.facts.origin.backup
    temporary = f".{name}.mlops-restore.{os.urandom(6).hex()}"
    parent = os.path.realpath(os.path.dirname(planned.facts.destination))
    tree = os.path.join(parent, temporary)
    os.mkdir(temporary, 0o700, dir_fd=directory)
    try:
        arguments = ["restore", str(backup.sha256), "--target", tree]
        if options.verify:
            arguments.append("--verify")
        for pattern in options.files:
            arguments += ["--include", f"/{pattern.strip('/')}" if "/" in pattern else pattern]
        if options.model is not None:
            arguments += ["--include", "/" + re.sub(r"([*?\[\\])", r"\\\1", options.model)]
        result = repository.call(*arguments)
        if result.returncode:
            if not options.verify:
                raise repository.error("restore", result)
            lines = [line for line in result.stderr.splitlines() if "error" in line.lower()]
            if not lines:
                raise repository.error("restore", result)
            raise VerificationFailed(
                f"The backup {backup.name} can't be restored: {'; '.join(lines[:5])}.",
                "Use another backup.",
                backup.name,
            )
        _require_whole(planned, tree)
        os.chmod(tree, execute.root_mode(directory, name))
        execute.swap(directory, temporary, name, planned.facts.destination)
    except BaseException:
        execute.discard(directory, temporary)
        raise
    os.fsync(directory)
    execute.discard(directory, temporary)


def _require_whole(planned: Plan, tree: str) -> None:
    """Compare what restic wrote with the list of the snapshot; drop set-user-id bits.

    :raises VerificationFailed: something is missing or differs. :raises Refused: a link leads out.
    """
    backup = planned.facts.origin.backup
    root = source.open_root(tree)
    try:
        entries = walk.walk(root, tree).entries
    finally:
        os.close(root)
    links: list[dict[str, Any]] = [
        {"path": entry.path, "type": LINK, "target": entry.target}
        for entry in entries
        if entry.type == LINK
    ]
    check_links(
        cast("list[ManifestEntry]", links),
        planned.facts.destination,
        planned.options.allow_outside_links,
    )
    for entry in entries:
        if entry.mode & (stat.S_ISUID | stat.S_ISGID) and entry.type != LINK:
            os.chmod(os.path.join(tree, entry.path), entry.mode & 0o1777)
    reason = _difference(tree, planned.facts.wanted or ())
    if reason and planned.options.verify:
        raise VerificationFailed(
            f"The backup {backup.name} was restored, but {reason}.",
            "Use another backup.",
            backup.name,
        )
