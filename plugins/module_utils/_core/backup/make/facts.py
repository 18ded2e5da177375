# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What making a backup reads: the source, the destination, and the places that hold copies."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ...errors import NotUsable, Refused
from ...ports import World
from ...system.roots import FORBIDDEN_TREES
from .. import catalogue, codecs, source
from ..catalogue import Backup
from ..options import BackupOptions
from ..source import Tree
from ..stores import CopyStore, StoredCopy


@dataclass(frozen=True)
class Facts:
    """What was read.

    ``tree`` is the source; ``names`` are all names in the destination and ``backups`` the backups among them; ``free`` are the
    bytes that are left there for this user; ``now`` is in seconds since the epoch.
    """

    tree: Tree
    fingerprint: str
    names: tuple[str, ...]
    backups: tuple[Backup, ...]
    free: int
    now: float


@dataclass(frozen=True)
class CopyFacts:
    """What was read about one place for copies.

    ``present`` is the copy of the current backup; ``backups`` are all copies there, None while they were not listed.
    """

    present: StoredCopy | None = None
    backups: tuple[Backup, ...] | None = None


def observe(options: BackupOptions, world: World) -> Facts:
    """Read source and destination.

    :raises NotUsable: the source is missing, unreadable or without a file. :raises Refused: see ``refuse_nested``.
    """
    refuse_nested(options.source, options.destination)
    codecs.make(options.compression, options.compression_level)  # its library may be missing
    with opened_source(options.source) as root:
        tree = walk(root, options)
    return Facts(
        tree=tree,
        fingerprint=source.fingerprint(options.source, tree.entries),
        names=tuple(catalogue.directory_names(options.destination)),
        backups=tuple(catalogue.listing(options.destination)),
        free=free_space(options.destination),
        now=world.clock.now(),
    )


def observe_again(options: BackupOptions, earlier: Facts) -> Facts:
    """Read the destination once more, under its lock: another run may have been there since. The source is not read again."""
    return replace(
        earlier,
        names=tuple(catalogue.directory_names(options.destination)),
        backups=tuple(catalogue.listing(options.destination)),
        free=free_space(options.destination),
    )


def observe_copies(store: CopyStore, backup: Backup | None, listed: bool) -> CopyFacts:
    """Read what a place holds. :raises StoreError: it can't be read, or another host's backup has the name of ours.

    :param backup: the local backup whose copy is looked up. :param listed: list all copies, too.
    """
    return CopyFacts(
        present=None if backup is None else store.present(backup),
        backups=tuple(store.listing()) if listed else None,
    )


def refuse_nested(origin: str, destination: str) -> None:
    """Refuse a destination inside the source, the reverse, and system directories.

    :raises Refused: it is one of these. :raises NotUsable: source or destination is no directory.
    """
    here, there = os.path.realpath(origin), os.path.realpath(destination)
    if not os.path.isdir(here):
        what = "is not a directory" if os.path.lexists(here) else "does not exist"
        raise NotUsable(
            f"The source {origin} {what}.", "Name the directory that holds the models.", origin
        )
    present = destination
    while not os.path.lexists(present):
        present = os.path.dirname(present)
    if not os.path.exists(present):
        # A link usually leads to a disk. Made below the mount point while the disk is not mounted, backups would vanish
        # under it later.
        target = os.path.realpath(present)
        raise NotUsable(
            f"The destination {destination} leads to {target}, which does not exist.",
            "Mount its disk, or make the directory.",
            destination,
        )
    if os.path.lexists(there) and not os.path.isdir(there):
        raise NotUsable(
            f"The destination {destination} is not a directory.", "Name a directory.", destination
        )
    if there == "/" or any(
        there == tree or there.startswith(tree + "/") for tree in FORBIDDEN_TREES
    ):
        raise Refused(
            f"The destination {destination} is a system directory.",
            "Name a separate directory for backups.",
            destination,
        )
    if _is_inside(there, here):
        raise Refused(
            f"The destination {destination} lies inside the source {origin}, so backups would contain backups.",
            "Name a directory elsewhere.",
            destination,
        )
    if _is_inside(here, there):
        raise Refused(
            f"The source {origin} lies inside the destination {destination}.",
            "Name a directory elsewhere.",
            destination,
        )


def _is_inside(path: str, directory: str) -> bool:
    """Say whether ``path`` is the directory or in it, by identity, so that bind mounts and other spellings count."""
    try:
        wanted = os.stat(directory)
    except OSError:
        return False
    while True:
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(path), wanted):
                return True
        if path == "/":
            return False
        path = os.path.dirname(path)


@contextlib.contextmanager
def opened_source(path: str) -> Iterator[int]:
    """Give the descriptor of the source directory, closed in the end. :raises NotUsable: it can't be opened."""
    fd = source.open_root(path)
    try:
        yield fd
    finally:
        os.close(fd)


def walk(root: int, options: BackupOptions) -> Tree:
    """Return the source tree open as ``root``. :raises NotUsable: it can't be read, or holds no file. :raises Refused:"""
    never = None
    with contextlib.suppress(OSError):
        never = os.stat(options.destination)
    tree = source.walk(root, options.source, options.exclude, never)
    if not tree.files:
        unexcluded = " that is not excluded" if options.exclude else ""
        raise NotUsable(
            f"The source {options.source} holds no file{unexcluded}; an empty backup would only push good ones out.",
            "Check the path, and that its disk is mounted.",
            options.source,
        )
    return tree


def free_space(directory: str) -> int:
    """Return the bytes that are left for this user where the directory is, or will be made."""
    while not os.path.isdir(directory):
        directory = os.path.dirname(directory)
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize
