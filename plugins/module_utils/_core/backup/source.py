# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The source tree, and the fingerprint that tells whether anything in it has changed."""

from __future__ import annotations

import errno
import fnmatch
import hashlib
import json
import os
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii as quoted
from typing import NamedTuple

from ..errors import NotUsable
from ..system.text import display_path

FILE = "file"
#: In manifests of format 1 a directory is called a folder.
DIRECTORY = "folder"
LINK = "link"

_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: Kernels stamp files with a clock that ticks every 1 to 10 ms: a change within the tick of the
#: walk would leave no trace.
TICK_NS = 20_000_000
#: What opening something says that was removed, or replaced by a link or a file, since its
#: directory was read.
GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
#: Directories that are kept open on the way down.
_MOST_OPEN = 64
#: Links that the kernel follows for one path.
_MOST_LINKS = 40
#: Path in the archive of a directory by its device and inode.
Identities = dict[tuple[int, int], str]


class Entry(NamedTuple):
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
        size = allocated = 0
        if kind == FILE:
            size = status.st_size
            allocated = min(size, status.st_blocks * 512)
        return cls(
            path,
            kind,
            stat.S_IMODE(status.st_mode),
            status.st_uid,
            status.st_gid,
            size,
            status.st_mtime_ns,
            status.st_ctime_ns,
            status.st_ino,
            allocated,
            target,
            origin,
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
        if not 0 <= age <= TICK_NS:
            break
        time.sleep((TICK_NS - age) / 1e9)
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


def relative(path: str, link: str) -> str:
    """Return the target with which a link leads to ``path``, both relative to the source."""
    return os.path.relpath(f"/{path}", os.path.dirname(f"/{link}"))


def described(link: Entry) -> str:
    """Return a link for a message."""
    return f"{display_path(link.path)} -> {display_path(link.target)}"


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
