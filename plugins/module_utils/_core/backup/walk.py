# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Walking a directory without following links."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Iterable

from ..errors import NotUsable, Refused
from ..system.text import display_path
from .source import (
    DIRECTORY,
    FILE,
    GONE,
    LINK,
    TICK_NS,
    Directories,
    Entry,
    Identities,
    Tree,
    below,
    matches,
    relative,
)

#: Walks over the tree, while the newest change is so young that another one would leave no trace.
_ATTEMPTS = 5


def walk(
    root: int,
    name: str,
    exclude: Iterable[str] = (),
    never: os.stat_result | None = None,
    follow: Callable[[Tree, Identities], Tree] | None = None,
) -> Tree:
    """Return everything below the directory open as ``root``, sorted, in the order of the archive.

    :param name: the directory's path, for messages.
    :param exclude: patterns, see matches; what is in an excluded directory is excluded.
    :param never: a directory that must not be below it, however it is mounted there.
    :param follow: puts what links out of the directory name in place of the links.
    :raises NotUsable: something can't be read; an archive without it would not be a backup.
    :raises Refused: ``never`` is there.
    """
    exclude = tuple(exclude)
    for attempt in range(_ATTEMPTS):
        if follow is None:
            tree = Walker(root, name, exclude, never).walk()
        else:
            identities: Identities = {}
            tree = follow(Walker(root, name, exclude, never, identities).walk(), identities)
        newest = max((entry.ctime_ns for entry in tree.entries), default=0)
        age = time.time_ns() - newest
        if age > TICK_NS or age < 0 or attempt == _ATTEMPTS - 1:
            break
        time.sleep(TICK_NS / 1e9)
    return tree


class Walker:
    """A walk over the directory open as ``root``; see ``walk``.

    :param identities: gets the path of each directory by its device and inode, where it is needed.
    :param place: where the directory is in the archive if that is not the root. Then entries have
        their ``origin``, the place is an entry, and a directory in ``identities`` becomes a link.
    """

    def __init__(
        self,
        root: int,
        name: str,
        exclude: tuple[str, ...],
        never: os.stat_result | None,
        identities: Identities | None = None,
        place: str = "",
    ) -> None:
        self._root, self._name, self._exclude, self._never = root, name, exclude, never
        self._identities, self._place = identities, place
        self._prefix = place + "/" * bool(place)
        self._entries: list[Entry] = []
        self._skipped: list[str] = []
        self._pending = [""]

    def walk(self) -> Tree:
        """Return the tree. :raises NotUsable: as ``walk``. :raises Refused: likewise."""
        with below(self._root) as directories:
            while self._pending:
                where = self._pending.pop()
                try:
                    self._directory(directories, where)
                except OSError as error:
                    if where and error.errno in GONE:
                        continue  # gone since its parent was read: no longer part of the tree
                    raise unreadable(self._name, where, error) from error
        return Tree(tuple(self._entries), tuple(self._skipped))

    def _directory(self, directories: Directories, where: str) -> None:
        """Read a directory. :raises OSError: it can't be read."""
        fd = directories.open(where)
        stored = (self._prefix + where).rstrip("/")
        if stored or self._identities is not None:
            here = os.fstat(fd)
            if where and self._never is not None and os.path.samestat(here, self._never):
                raise _holds_destination(f"{self._name}/{where}")
            if self._is_stored(here, stored):
                return
            if stored:
                self._entries.append(Entry.of(stored, DIRECTORY, here))
        prefix = where + "/" * bool(where)
        inner = []
        for child in sorted(os.listdir(fd), key=os.fsencode):
            path = prefix + child
            if self._exclude and matches(self._prefix + path, self._exclude):
                continue
            try:
                if self._child(fd, child, path):
                    inner.append(path)
            except FileNotFoundError:
                continue  # gone since the directory was read: no longer part of the tree
            except OSError as error:
                raise unreadable(self._name, path, error) from error
        self._pending.extend(reversed(inner))

    def _is_stored(self, status: os.stat_result, stored: str) -> bool:
        """Note a directory; say whether it is stored elsewhere already and a link to that does."""
        if self._identities is None:
            return False
        key = (status.st_dev, status.st_ino)
        elsewhere = self._identities.setdefault(key, stored)
        if elsewhere == stored or not self._place:
            return False
        self._entries.append(Entry.of(stored, LINK, status, relative(elsewhere, stored)))
        return True

    def _child(self, directory: int, name: str, path: str) -> bool:
        """Note what has this name in an open directory; say whether it is a directory."""
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        mode, stored, origin = status.st_mode, self._prefix + path, ""
        if self._place:
            origin = f"{self._name}/{path}"
        if stat.S_ISDIR(mode):
            return True
        if stat.S_ISLNK(mode):
            target = os.readlink(name, dir_fd=directory)
            self._entries.append(Entry.of(stored, LINK, status, target, origin))
        elif stat.S_ISREG(mode):
            effective = os.access in os.supports_effective_ids
            if not os.access(name, os.R_OK, dir_fd=directory, effective_ids=effective):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            self._entries.append(Entry.of(stored, FILE, status, origin=origin))
        else:
            self._skipped.append(f"{display_path(stored)} ({_special(mode)})")
        return False


def unreadable(root: str, path: str, error: OSError) -> NotUsable:
    """Return the error for a file or directory that can't be read."""
    full = display_path(f"{root}/{path}".rstrip("/"))
    return NotUsable(
        f"Can't read {full}: {error.strerror}.", "Give this user access to it, or exclude it.", full
    )


def _holds_destination(path: str) -> Refused:
    full = display_path(path)
    return Refused(
        f"{full} is the destination, mounted there, so backups would contain backups.",
        "Exclude it, or unmount it.",
        full,
    )


def _special(mode: int) -> str:
    if stat.S_ISSOCK(mode):
        return "socket"
    if stat.S_ISFIFO(mode):
        return "pipe"
    return "device"
