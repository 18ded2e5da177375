# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a restore reads.

The backup, the destination, and what interrupted restores have left beside it.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass

from ...errors import NotUsable, Refused
from ...ports import Progress, Tell, World, silent
from ...system import mounts
from ...system.roots import refuse_dangerous
from ...system.text import display_path
from .. import source, walk, writer
from ..catalogue import Backup
from ..codec import BLOCK
from ..manifest import ManifestEntry
from ..options import RestoreOptions
from ..source import FILE, LINK, Directories, Entry
from ..store import Store
from .parts import Part

#: States of a destination.
MISSING = "missing"
EMPTY = "empty"
SAME = "same"
OTHER = "other"


@dataclass(frozen=True)
class Leftovers:
    """Which names are beside a destination; ``missing``: there is no destination."""

    destination: str
    names: tuple[str, ...]
    missing: bool


@dataclass(frozen=True)
class Place:
    """What is known about source and destination before the destination's content is read.

    ``backups`` are those to choose from at ``where``. ``link`` means that the destination is a
    symbolic link; ``mount_point`` is the destination itself or the first mount point in it. ``lot``
    is a random number from 0 to below 1, ``hostname`` that of this machine.
    """

    destination: str
    backups: tuple[Backup, ...]
    where: str
    now: float
    link: bool = False
    mount_point: str | None = None
    lot: float = 0.0
    hostname: str = ""


@dataclass(frozen=True)
class Origin:
    """Where the chosen backup is read from.

    :param url: its path or URL. :param parts: the archives to read.
    """

    backup: Backup
    url: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Facts:
    """What was read.

    ``wanted`` are the entries to restore (None: an archive of the old scripts, known only when
    read).

    ``state`` of the destination: ``missing empty same other``; ``reason`` says what is different.
    ``free`` in bytes.
    """

    origin: Origin
    destination: str
    wanted: tuple[ManifestEntry, ...] | None
    state: str
    free: int
    reason: str = ""


def observe_leftovers(destination: str) -> Leftovers:
    """Read what is beside the destination. :raises Refused: the destination is dangerous."""
    destination = refuse_dangerous(destination, "restore destination")
    parent = os.path.dirname(destination)
    names = tuple(os.listdir(parent)) if os.path.isdir(parent) else ()
    return Leftovers(destination, names, not os.path.lexists(destination))


def observe_place(options: RestoreOptions, store: Store, world: World) -> Place:
    """Read which backups there are and what kind of destination it is.

    :raises Refused: the destination is dangerous. :raises FleetError: the backups can't be listed.
    """
    destination = refuse_dangerous(options.target, "restore destination")
    return Place(
        destination,
        tuple(store.listing()),
        store.url(""),
        world.clock.now(),
        os.path.islink(destination),
        _mount_point(destination),
        int.from_bytes(os.urandom(4), "big") / (1 << 32),
        world.hostname,
    )


def _mount_point(destination: str) -> str | None:
    """Return the destination itself or a path in it, whichever something is mounted at."""
    try:
        table = mounts.read()
    except OSError:
        return None
    real = os.path.realpath(destination)
    for mount in table:
        if mount.point == real or mount.point.startswith(real + "/"):
            return destination if mount.point == real else mount.point
    return None


def local_copy(store: Store, backup: Backup) -> str | None:
    """Return where the archive really is on this machine, None when it is elsewhere."""
    path = store.local_path(backup)
    return None if path is None else os.path.realpath(path)


def observe(
    place: Place,
    backup: Backup,
    wanted: tuple[ManifestEntry, ...] | None,
    parts: tuple[Part, ...],
    store: Store,
    tell: Tell = silent,
) -> Facts:
    """Compare the destination with the backup.

    :raises NotUsable: it can't be read.
    :raises Refused: it is no directory.
    """
    url = store.local_path(backup) or store.url(backup.name)
    origin = Origin(backup, url, parts)
    state, reason = _compare(place.destination, wanted, tell)
    free = mounts.available(place.destination)
    return Facts(origin, place.destination, wanted, state, free, reason)


def observe_again(directory: int, name: str, earlier: Facts) -> Facts:
    """Look at the destination once more, under its lock.

    What was put there meanwhile must not be lost.

    :param directory: the destination's parent, open.
    :param name: the destination in it. The contents are not compared again.
    """
    state, reason = earlier.state, earlier.reason
    if not holds_something(directory, name):
        state, reason = (EMPTY if exists(directory, name) else MISSING), ""
    elif state in (MISSING, EMPTY):
        state, reason = OTHER, "something was put there meanwhile"
    return Facts(
        earlier.origin,
        earlier.destination,
        earlier.wanted,
        state,
        mounts.available(directory),
        reason,
    )


def exists(directory: int, name: str) -> bool:
    """Say whether an open directory has an entry of this name, whatever it is."""
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def holds_something(directory: int, name: str) -> bool:
    """Say whether an open directory has a directory of this name that is not empty.

    :raises OSError: it is no directory.
    """
    return exists(directory, name) and bool(os.listdir(f"/proc/self/fd/{directory}/{name}"))


def state_of(destination: str, tell: Tell = silent) -> tuple[str, str]:
    """Return the state of the destination, and what is different, without comparing it."""
    return _compare(destination, None, tell)


def _compare(
    destination: str, wanted: tuple[ManifestEntry, ...] | None, tell: Tell
) -> tuple[str, str]:
    """Return the state of the destination, and what is different."""
    try:
        status = os.lstat(destination)
    except FileNotFoundError:
        return MISSING, ""
    except OSError as error:
        raise NotUsable(
            f"Can't look at {destination}: {error.strerror}.", "Check its permissions.", destination
        ) from error
    if not stat.S_ISDIR(status.st_mode):
        raise Refused(
            f"The restore destination {destination} exists and is not a directory.",
            "Name a directory.",
            destination,
        )
    try:
        if not os.listdir(destination):
            return EMPTY, ""
    except OSError as error:
        raise NotUsable(
            f"Can't read {destination}: {error.strerror}.", "Check its permissions.", destination
        ) from error
    if wanted is None:
        return OTHER, "what an archive of the old scripts holds is not known beforehand"
    try:
        reason = difference(destination, wanted, tell)
    except NotUsable as error:
        # Files that not even their owner may read are restored so, and compared by root only.
        reason = error.message.rstrip(".")
    except OSError as error:
        reason = f"it can't be compared: {error.strerror or error}"
    return (OTHER if reason else SAME), reason


def difference(destination: str, wanted: Sequence[ManifestEntry], tell: Tell = silent) -> str:
    """Return how the directory differs from the entries, "" when it equals them.

    Names, kinds, modes, times and contents.
    """
    root = source.open_root(destination)
    try:
        tree = walk.walk(root, destination)
        expected = {entry["path"]: entry for entry in wanted}
        present = {entry.path: entry for entry in tree.entries}
        reason = _difference_by_status(expected, present)
        if reason:
            return reason
        if tree.skipped:
            return f"{tree.skipped[0]} is not in the backup"
        with source.below(root) as directories:
            return _difference_by_content(directories, expected, tree.size, tell)
    finally:
        os.close(root)


def _difference_by_status(expected: dict[str, ManifestEntry], present: dict[str, Entry]) -> str:
    for path in expected:
        if path not in present:
            return f"{display_path(path)} is missing"
    for path, entry in present.items():
        other = expected.get(path)
        if other is None:
            return f"{display_path(path)} is not in the backup"
        if entry.type != other["type"] or entry.target != other.get("target", ""):
            return f"{display_path(path)} differs"
        if entry.type == FILE and entry.size != other["size"]:
            return f"{display_path(path)} differs"
        if entry.type != LINK and entry.mode != writer.permissions(other):
            return f"{display_path(path)} has other permissions"
        if entry.type == FILE and entry.mtime_ns != other["mtime_ns"]:
            return f"{display_path(path)} has another modification time"
    return ""


def _difference_by_content(
    directories: Directories, expected: dict[str, ManifestEntry], total: int, tell: Tell
) -> str:
    """:param total: bytes of all files, for progress."""
    done = 0
    for path, entry in expected.items():
        if entry["type"] != FILE:
            continue
        tell(Progress("compare", done, total, subject=display_path(path)))
        if _digest(directories, path) != entry["sha256"]:
            return f"{display_path(path)} has other content"
        done += entry["size"]
    tell(Progress("compare", done, total))
    return ""


def _digest(directories: Directories, path: str) -> str:
    """Return the SHA-256 of a file below an open directory; no link is followed."""
    directory, dummy, base = path.rpartition("/")
    fd = os.open(
        base,
        os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC,
        dir_fd=directories.open(directory),
    )
    digest = hashlib.sha256()
    with os.fdopen(fd, "rb", buffering=0) as stream:
        while True:
            block = stream.read(BLOCK)
            if not block:
                return digest.hexdigest()
            digest.update(block)


def names_in(path: str) -> list[str]:
    """Return all paths in a directory, [] when it can't be read."""
    try:
        root = source.open_root(path)
    except NotUsable:
        return []
    try:
        return sorted(entry.path for entry in walk.walk(root, path).entries)
    except NotUsable:
        return []
    finally:
        os.close(root)
