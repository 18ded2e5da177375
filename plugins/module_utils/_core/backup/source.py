# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The source tree.

Walked without following links, with a fingerprint that tells whether anything has changed.
"""

from __future__ import annotations

import errno
import fnmatch
import hashlib
import json
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii as quoted

from ..errors import NotUsable, Refused
from ..system.text import display_path

FILE = "file"
#: In manifests of format 1 a directory is called a folder.
DIRECTORY = "folder"
LINK = "link"

_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: Kernels stamp files with a clock that ticks every 1 to 10 ms: a change within the tick of the
#: walk would leave no trace.
_TICK_NS = 20_000_000
#: What opening something says that was removed, or replaced by a link or a file, since its
#: directory was read.
GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
#: Directories that are kept open on the way down.
_MOST_OPEN = 64
#: Links that the kernel follows for one path.
_MOST_LINKS = 40
#: Path in the archive of a directory by its device and inode.
Identities = dict[tuple[int, int], str]


@dataclass(frozen=True)
class Entry:
    """One file, directory or symbolic link.

    ``path`` is relative to the source; undecodable bytes are surrogates. Sizes in bytes.
    ``origin`` is the real path of what a link out of the source names, "" for all else.
    """

    path: str
    type: str
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    allocated: int = 0
    target: str = ""
    origin: str = ""

    @classmethod
    def of(
        cls, path: str, kind: str, status: os.stat_result, target: str = "", origin: str = ""
    ) -> Entry:
        return cls(
            path=path,
            type=kind,
            mode=stat.S_IMODE(status.st_mode),
            uid=status.st_uid,
            gid=status.st_gid,
            size=status.st_size if kind == FILE else 0,
            mtime_ns=status.st_mtime_ns,
            ctime_ns=status.st_ctime_ns,
            inode=status.st_ino,
            allocated=min(status.st_size, status.st_blocks * 512) if kind == FILE else 0,
            target=target,
            origin=origin,
        )


@dataclass(frozen=True)
class Tree:
    """The result of a walk, directories before what is in them.

    ``skipped`` names sockets, pipes and devices, with their kind. Where links out of the source
    are followed, ``followed`` are the paths of those and ``outside`` describes the others.
    """

    entries: tuple[Entry, ...]
    skipped: tuple[str, ...]
    followed: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()

    @property
    def files(self) -> int:
        return sum(entry.type == FILE for entry in self.entries)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.entries)

    @property
    def allocated(self) -> int:
        """Bytes of all files that are not holes."""
        return sum(entry.allocated for entry in self.entries)


class Directories:
    """Opens directories below a root component by component, never through a link.

    Descriptors of the directories on the way to the last one stay open, few of them however deep it
    is: the next one is mostly near.
    """

    def __init__(self, root: int) -> None:
        self._root = root
        self._parts: list[str] = []
        #: (depth, descriptor) of directories on the way to the last one, outermost first.
        self._opened: list[tuple[int, int]] = []

    def open(self, path: str) -> int:
        """Return a descriptor of a directory, valid until the next call.

        :param path: relative to the root, which is ``""``.
        :raises OSError: it can't be opened.
        """
        parts = path.split("/") if path else []
        common = 0
        for part, opened_part in zip(parts, self._parts):
            if part != opened_part:
                break
            common += 1
        self._close_below(common)
        depth, fd = self._opened[-1] if self._opened else (0, self._root)
        self._parts = parts[:depth]
        for part in parts[depth:]:
            fd = os.open(part, _DIRECTORY_FLAGS, dir_fd=fd)
            self._parts.append(part)
            self._opened.append((len(self._parts), fd))
            if len(self._opened) > _MOST_OPEN:
                for dummy, surplus in self._opened[0:-1:2]:
                    os.close(surplus)
                del self._opened[0:-1:2]
        return fd

    def _close_below(self, depth: int) -> None:
        while self._opened and self._opened[-1][0] > depth:
            os.close(self._opened.pop()[1])

    def close(self) -> None:
        """Close the directories that are kept open."""
        self._close_below(0)
        self._parts = []


@contextmanager
def below(root: int) -> Iterator[Directories]:
    """Give a Directories for ``root``, closed in the end."""
    directories = Directories(root)
    try:
        yield directories
    finally:
        directories.close()


def open_root(path: str) -> int:
    """Open the source directory, which may be reached through links.

    :raises NotUsable: missing, no directory, not permitted.
    """
    try:
        return os.open(os.path.realpath(path), _DIRECTORY_FLAGS)
    except OSError as error:
        what = (
            "is not a directory"
            if error.errno == errno.ENOTDIR
            else f"can't be opened: {error.strerror}"
        )
        raise NotUsable(
            f"The source {path} {what}.",
            "Name an existing directory that this user may read.",
            path,
        ) from error


def stat_when_stable(fd: int) -> os.stat_result:
    """Return an open file's status once the next change to it is sure to get another time."""
    for dummy in range(2):
        status = os.fstat(fd)
        age = time.time_ns() - status.st_ctime_ns
        if not 0 <= age <= _TICK_NS:
            break
        time.sleep((_TICK_NS - age) / 1e9)
    return status


def matches(path: str, patterns: Iterable[str]) -> bool:
    """Say whether ``path`` matches a pattern.

    A pattern with a slash is compared with the whole relative path, others with the name.
    """
    name = path.rsplit("/", 1)[-1]
    return any(
        fnmatch.fnmatchcase(path if "/" in p.strip("/") else name, p.strip("/")) for p in patterns
    )


def selected(path: str, patterns: Iterable[str]) -> bool:
    """Say whether ``path`` or a directory above it matches a pattern."""
    parts = path.split("/")
    return any(matches("/".join(parts[: n + 1]), patterns) for n in range(len(parts)))


def unreadable(root: str, path: str, error: OSError) -> NotUsable:
    full = display_path(f"{root}/{path}" if path else root)
    return NotUsable(
        f"Can't read {full}: {error.strerror}.", "Give this user access to it, or exclude it.", full
    )


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
    for attempt in range(5):
        identities: Identities | None = None if follow is None else {}
        tree = walk_once(root, name, exclude, never, identities)
        if follow is not None and identities is not None:
            tree = follow(tree, identities)
        newest = max((entry.ctime_ns for entry in tree.entries), default=0)
        age = time.time_ns() - newest
        if age > _TICK_NS or age < 0 or attempt == 4:
            break
        time.sleep(_TICK_NS / 1e9)
    return tree


def walk_once(
    root: int,
    name: str,
    exclude: tuple[str, ...],
    never: os.stat_result | None,
    identities: Identities | None = None,
    place: str = "",
) -> Tree:
    """Return everything below the directory open as ``root``, like ``walk``.

    :param identities: gets the path of each directory by its device and inode.
    :param place: where it is in the archive if that is not the root. Then entries have their
        ``origin``, the place is an entry, and a directory in ``identities`` becomes a link to it.
    """
    entries: list[Entry] = []
    skipped: list[str] = []
    pending = [""]
    with below(root) as directories:
        while pending:
            where = pending.pop()
            stored = "/".join(part for part in (place, where) if part)
            try:
                fd = directories.open(where)
                if stored or identities is not None:
                    here = os.fstat(fd)
                    if where and never is not None and os.path.samestat(here, never):
                        raise _holds_destination(f"{name}/{where}")
                    key = (here.st_dev, here.st_ino)
                    if place and identities is not None and key in identities:
                        target = relative(identities[key], stored)
                        entries.append(Entry.of(stored, LINK, here, target))
                        continue
                    if identities is not None:
                        identities.setdefault(key, stored)
                    if stored:
                        entries.append(Entry.of(stored, DIRECTORY, here))
                children = sorted(os.listdir(fd), key=os.fsencode)
            except OSError as error:
                if where and error.errno in GONE:
                    continue  # like a file that is gone, below
                raise unreadable(name, where, error) from error
            inner = []
            for child in children:
                path = f"{where}/{child}" if where else child
                stored = f"{place}/{path}" if place else path
                if exclude and matches(stored, exclude):
                    continue
                try:
                    status = os.stat(child, dir_fd=fd, follow_symlinks=False)
                    if stat.S_ISDIR(status.st_mode):
                        inner.append(path)
                        continue
                    entry = _entry(fd, child, stored, status, f"{name}/{path}" if place else "")
                    if entry is None:
                        skipped.append(f"{display_path(stored)} ({_special(status.st_mode)})")
                    else:
                        entries.append(entry)
                except FileNotFoundError:
                    continue  # gone since the directory was read: no longer part of the tree
                except OSError as error:
                    raise unreadable(name, path, error) from error
            pending.extend(reversed(inner))
    return Tree(tuple(entries), tuple(skipped))


def _entry(
    directory: int, name: str, path: str, status: os.stat_result, origin: str
) -> Entry | None:
    """Return a file or link in an open directory, None for what can't be stored.

    :raises OSError: it can't be read.
    """
    if stat.S_ISLNK(status.st_mode):
        target = os.readlink(name, dir_fd=directory)
        return Entry.of(path, LINK, status, target, origin)
    if not stat.S_ISREG(status.st_mode):
        return None
    effective = os.access in os.supports_effective_ids
    if not os.access(name, os.R_OK, dir_fd=directory, effective_ids=effective):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    return Entry.of(path, FILE, status, origin=origin)


def _holds_destination(path: str) -> Refused:
    full = display_path(path)
    return Refused(
        f"{full} is the destination, mounted there, so backups would contain backups.",
        "Exclude it, or unmount it.",
        full,
    )


def relative(path: str, link: str) -> str:
    """Return the target with which a link leads to ``path``, both relative to the source."""
    return os.path.relpath(f"/{path}", os.path.dirname(f"/{link}"))


def described(link: Entry) -> str:
    """Return a link for a message."""
    return f"{display_path(link.path)} -> {display_path(link.target)}"


def _special(mode: int) -> str:
    if stat.S_ISSOCK(mode):
        return "socket"
    if stat.S_ISFIFO(mode):
        return "pipe"
    return "device"


def points_outside(path: str, target: str, root: str, links: Mapping[str, str]) -> bool:
    """Say whether a link at the relative ``path`` below the directory ``root`` points out of it.

    Computed from names: nothing is followed.

    :param links: path and target of all links below the root, because a link may lead through
        others.
    """
    where = path.split("/")[:-1]
    waiting = target.split("/")
    if target.startswith("/"):
        if target != root and not target.startswith(root + "/"):
            return True
        where, waiting = [], target[len(root) :].split("/")
    waiting.reverse()
    followed = 0
    while waiting:
        part = waiting.pop()
        if part == "..":
            if not where:
                return True
            where.pop()
        elif part not in ("", "."):
            further = links.get("/".join((*where, part)))
            if further is None:
                where.append(part)
                continue
            followed += 1
            if followed > _MOST_LINKS:
                return False  # a loop, which leads nowhere
            if further.startswith("/"):
                if further != root and not further.startswith(root + "/"):
                    return True
                where, further = [], further[len(root) :]
            waiting.extend(reversed(further.split("/")))
    return False


def fingerprint(source: str, entries: Iterable[Entry]) -> str:
    """Return a SHA-256 (hex) over all entries.

    It covers path, type, mode, size, times, inode and link target.
    """
    digest = hashlib.sha256(json.dumps(["mlops.fleet source 1", source]).encode("ascii"))
    for entry in entries:
        # The same as json.dumps of a list, which takes three times as long.
        line = (
            f"[{quoted(entry.path)}, {quoted(entry.type)}, {entry.mode}, {entry.uid}, {entry.gid}, "
            f"{entry.size}, {entry.mtime_ns}, {entry.ctime_ns}, {entry.inode}, "
            f"{quoted(entry.target)}]\n"
        )
        digest.update(line.encode("ascii"))
    return digest.hexdigest()
