# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Storing what links out of the source name.

Each tree is stored once, at the place of the first link that names it or something around it; other
links to it become relative links to that place. A link is left alone if it names nothing, the
source or the destination, or a directory that contains either of them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from . import source
from .source import FILE, LINK, Entry, Identities, Tree
from .walk import Walker, unreadable

#: What looking at the target of a link raises where it leads nowhere.
_NOTHING = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})


def is_inside(path: str, directory: str) -> bool:
    """Say whether ``path`` is the directory or in it.

    By identity, so that bind mounts and other spellings count.
    """
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


@dataclass
class _Places:
    """Where in the archive what is stored.

    ``directories`` and ``files`` map real paths to paths in the archive, ``identities`` device and
    inode of every directory that was read.
    """

    identities: Identities
    directories: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)

    def find(self, real: str) -> str | None:
        """Return where a real path is stored, None when it is not."""
        if real in self.files:
            return self.files[real]
        rest: list[str] = []
        path = real
        while True:
            stored = self.directories.get(path)
            if stored is None:
                with contextlib.suppress(OSError):
                    stored = self.same(os.stat(path))
            if stored is not None:
                return "/".join((stored, *reversed(rest))).lstrip("/")
            if path == "/":
                return None
            path, dummy, last = path.rpartition("/")
            path = path or "/"
            rest.append(last)

    def same(self, status: os.stat_result) -> str | None:
        """Return where the directory with this status is stored, None when it is not."""
        if not stat.S_ISDIR(status.st_mode):
            return None
        return self.identities.get((status.st_dev, status.st_ino))


class Follower:
    """Follows the links of one tree.

    :param origin: path of the source, for the test which links leave it.
    :param keep_out: directories that must not be stored, with everything that contains them.
    :param walk: reads the directory at a real path as if it were at a path in the archive.
    """

    def __init__(
        self,
        origin: str,
        keep_out: tuple[str, ...],
        walk: Callable[[str, str, Identities], Tree],
    ) -> None:
        self._origin, self._real = origin, os.path.realpath(origin)
        self._keep_out, self._walk = (self._real, *keep_out), walk
        self._followed: list[str] = []
        self._alone: list[str] = []
        self._skipped: list[str] = []

    def follow(self, tree: Tree, identities: Identities) -> Tree:
        """Return the tree with what its links out of the source name.

        :raises NotUsable: something that they name can't be read.
        """
        places = _Places(identities, {self._real: ""})
        links = {entry.path: entry.target for entry in tree.entries if entry.type == LINK}
        outside = {
            entry.path: self._target(entry)
            for entry in tree.entries
            if entry.type == LINK
            and source.points_outside(entry.path, entry.target, self._origin, links)
        }
        self._reserve(places, outside)
        entries: list[Entry] = []
        for entry in tree.entries:
            if entry.path in outside:
                entries += self._resolved(entry, places)
            else:
                entries.append(entry)
        return replace(
            tree,
            entries=tuple(entries),
            skipped=(*tree.skipped, *self._skipped),
            followed=tuple(self._followed),
            outside=tuple(self._alone),
        )

    def _target(self, entry: Entry) -> str:
        """Return the real path that a link names."""
        where = os.path.dirname(entry.origin or f"{self._real}/{entry.path}")
        return os.path.realpath(os.path.join(where, entry.target))

    def _reserve(self, places: _Places, outside: dict[str, str]) -> None:
        """Give each tree that contains others to a link that names it, not to one inside of it."""
        for path, real in sorted(outside.items(), key=lambda item: (item[1].count("/"), item[0])):
            if places.find(real) is None and os.path.isdir(real) and not self._is_kept_out(real):
                places.directories[real] = path

    def _is_kept_out(self, real: str) -> bool:
        return any(is_inside(path, real) for path in self._keep_out) or any(
            is_inside(real, path) for path in self._keep_out[1:]
        )

    def _resolved(self, link: Entry, places: _Places) -> Iterator[Entry]:
        """Yield what is stored in place of a link that leads out, links in it resolved likewise."""
        pending = [link]
        while pending:
            entry = pending.pop()
            if entry.type != LINK or not (entry is link or entry.origin):
                yield entry
                continue
            first, *inner = self._replacement(entry, places)
            yield first
            pending.extend(reversed(inner))

    def _replacement(self, link: Entry, places: _Places) -> list[Entry]:
        """Return what is stored in place of one link."""
        real = self._target(link)
        try:
            status = os.stat(real)
            if stat.S_ISREG(status.st_mode) and not os.access(real, os.R_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as error:
            if error.errno in _NOTHING:
                return [self._left_alone(link, "which leads nowhere")]
            raise unreadable(self._origin, link.path, error) from error
        stored = places.same(status)
        if stored is None and places.find(real) != link.path:
            stored = places.find(real)
        if stored is not None:
            return [_pointing(link, stored)]
        if self._is_kept_out(real):
            return [self._left_alone(link, "which holds the source or is for backups")]
        if stat.S_ISDIR(status.st_mode):
            places.directories[real] = link.path
            tree = self._walk(real, link.path, places.identities)
            self._followed.append(link.path)
            self._skipped += tree.skipped
            return list(tree.entries)
        if stat.S_ISREG(status.st_mode):
            places.files[real] = link.path
            self._followed.append(link.path)
            return [Entry.of(link.path, FILE, status, origin=real)]
        return [self._left_alone(link, "which is no file and no directory")]

    def _left_alone(self, link: Entry, why: str) -> Entry:
        self._alone.append(f"{source.described(link)}, {why}")
        return link._replace(origin="")


def _pointing(link: Entry, stored: str) -> Entry:
    """Return the link with a relative target that leads to a path in the archive."""
    return link._replace(target=source.relative(stored, link.path), origin="")


def follower(
    origin: str, destination: str, exclude: tuple[str, ...], never: os.stat_result | None
) -> Callable[[Tree, Identities], Tree]:
    """Return what puts the targets of links out of the source in place of these links.

    :param origin: path of the source. :param never: status of the destination, if it exists.
    """

    def walk(real: str, place: str, identities: Identities) -> Tree:
        root = source.open_root(real)
        try:
            tree = Walker(root, real, exclude, never, identities, place).walk()
        finally:
            os.close(root)
        links = {
            entry.origin[len(real) + 1 :]: entry.target
            for entry in tree.entries
            if entry.type == LINK and entry.origin
        }
        return replace(tree, entries=tuple(_rigid(entry, real, links) for entry in tree.entries))

    def follow(tree: Tree, identities: Identities) -> Tree:
        keep_out = (os.path.realpath(destination),)
        return Follower(origin, keep_out, walk).follow(tree, identities)

    return follow


def _rigid(entry: Entry, real: str, links: dict[str, str]) -> Entry:
    """Return an entry of a followed tree; a link that stays in the tree needs no second look."""
    if entry.type != LINK or not entry.origin or entry.target.startswith("/"):
        return entry
    path = entry.origin[len(real) + 1 :]
    if source.points_outside(path, entry.target, real, links):
        return entry
    return entry._replace(origin="")
