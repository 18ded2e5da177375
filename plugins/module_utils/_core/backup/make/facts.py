# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What making a backup reads: the source, the destination, and the places that hold copies."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ...errors import NotUsable
from ...ports import World
from ...system import mounts
from .. import catalogue, codecs, members, source
from .. import walk as walking
from ..catalogue import Backup
from ..follow import follower, is_inside
from ..options import FOLLOW, BackupOptions
from ..source import Tree
from ..store import CopyStore, StoredCopy

#: What can be at a path.
MISSING = "missing"
DENIED = "denied"
DIRECTORY = "directory"
OTHER = "other"


@dataclass(frozen=True)
class Place:
    """What source and destination are before anything in them is read.

    ``source`` and ``destination`` are each ``missing``, ``denied``, ``directory`` or ``other``.
    ``dangling`` is what a link on the way to the destination leads to and does not exist.
    """

    source: str
    destination: str
    real_destination: str
    dangling: str | None = None
    destination_in_source: bool = False
    source_in_destination: bool = False


@dataclass(frozen=True)
class Facts:
    """What was read.

    ``tree`` is the source; ``names`` are all names in the destination and ``backups`` the backups
    among them; ``free`` are the bytes that are left there for this user; ``now`` is in seconds
    since the epoch.
    """

    tree: Tree
    fingerprint: str
    names: tuple[str, ...]
    backups: tuple[Backup, ...]
    free: int
    now: float
    hostname: str = ""


@dataclass(frozen=True)
class CopyFacts:
    """What was read about one place for copies.

    ``present`` is the copy of the current backup; ``backups`` are all copies there, None while they
    were not listed.
    """

    present: StoredCopy | None = None
    backups: tuple[Backup, ...] | None = None


def observe(options: BackupOptions, world: World) -> Facts:
    """Read source and destination.

    :raises NotUsable: the source is unreadable or without a file.
    :raises Refused: the destination is mounted in it.
    """
    codecs.make(options.compression, options.level)  # its library may be missing
    with opened_source(options.source) as root:
        tree = walk(root, options)
    return Facts(
        tree=tree,
        fingerprint=source.fingerprint(options.source, tree.entries),
        names=tuple(catalogue.directory_names(options.destination)),
        backups=_backups(options, world.clock.now(), world.hostname),
        free=mounts.available(options.destination),
        now=world.clock.now(),
        hostname=world.hostname,
    )


def observe_again(options: BackupOptions, earlier: Facts) -> Facts:
    """Read the destination once more, under its lock: another run may have been there since.

    The source is not read again.
    """
    return replace(
        earlier,
        names=tuple(catalogue.directory_names(options.destination)),
        backups=_backups(options, earlier.now, earlier.hostname),
        free=mounts.available(options.destination),
    )


def _backups(options: BackupOptions, now: float, hostname: str) -> tuple[Backup, ...]:
    """Return the backups in the destination. The one that may do is examined more closely."""
    backups = catalogue.listing(options.destination)
    own = catalogue.of_source(backups, options.source, hostname)
    newest = catalogue.newest(own, now)
    return tuple(members.examined(backup) if backup is newest else backup for backup in backups)


def observe_copies(store: CopyStore, backup: Backup | None, listed: bool) -> CopyFacts:
    """Read what a place holds.

    :raises StoreError: it can't be read, or another host's backup has the name of ours.
    :param backup: the local backup whose copy is looked up.
    :param listed: list all copies, too.
    """
    return CopyFacts(
        present=None if backup is None else store.present(backup),
        backups=tuple(store.listing()) if listed else None,
    )


def observe_place(options: BackupOptions) -> Place:
    """Read what source and destination are, with all links resolved."""
    origin, target = os.path.realpath(options.source), os.path.realpath(options.destination)
    present = options.destination
    while not os.path.lexists(present):
        present = os.path.dirname(present)
    return Place(
        source=kind_of(origin),
        destination=kind_of(target),
        real_destination=target,
        dangling=None if os.path.exists(present) else os.path.realpath(present),
        destination_in_source=is_inside(target, origin),
        source_in_destination=is_inside(origin, target),
    )


def kind_of(path: str) -> str:
    """Return what is at a path, after links.

    ``missing``, ``denied``, ``directory`` or ``other``.
    """
    try:
        mode = os.stat(path).st_mode
    except PermissionError:
        return DENIED
    except OSError:
        return OTHER if os.path.lexists(path) else MISSING
    return DIRECTORY if stat.S_ISDIR(mode) else OTHER


@contextlib.contextmanager
def opened_source(path: str) -> Iterator[int]:
    """Give the descriptor of the source directory, closed in the end.

    :raises NotUsable: it can't be opened.
    """
    fd = source.open_root(path)
    try:
        yield fd
    finally:
        os.close(fd)


def walk(root: int, options: BackupOptions) -> Tree:
    """Return the source tree open as ``root``.

    :raises NotUsable: it can't be read, or holds no file.
    :raises Refused:
    """
    never = None
    with contextlib.suppress(OSError):
        never = os.stat(options.destination)
    follow = None
    if options.outside_links == FOLLOW:
        exclude = tuple(options.exclude)
        follow = follower(options.source, options.destination, exclude, never)
    tree = walking.walk(root, options.source, options.exclude, never, follow)
    if not tree.files:
        unexcluded = " that is not excluded" if options.exclude else ""
        raise NotUsable(
            f"The source {options.source} holds no file{unexcluded}; an empty backup would only"
            " push good ones out.",
            "Check the path, and that its disk is mounted.",
            options.source,
        )
    return tree
