# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known of a unit: of a tree or a special file, and, for hundreds of thousands of them, of
a plain file.
"""

from __future__ import annotations

import os
import stat
from typing import NamedTuple, Union

from ..system.removal import Identity
from .watch import Watched

#: Unit of st_blocks, whatever the file system's own.
BLOCK = 512


class Survey:
    """What a unit is and holds.

    ``size`` is the allocated bytes without files that have further links; those are in ``linked``:
    identity to (number of links the file has, number seen here, allocated bytes), None without any.
    ``own`` is the time of the unit itself, ``content`` the newest time in it, which belongs to
    ``content_path`` (relative to the unit, empty for itself); both in nanoseconds since the epoch.
    ``veto`` says why the unit must stay; ``stopped`` that the survey ended early at something
    fresh. ``watched`` is what the kernel watches since before that look, None when it watches
    nothing. There may be hundreds of thousands, hence the slots.
    """

    __slots__ = (
        "content",
        "content_path",
        "device",
        "directories",
        "files",
        "inode",
        "linked",
        "mode",
        "mtime_ns",
        "name",
        "own",
        "size",
        "stopped",
        "uid",
        "veto",
        "watched",
    )

    def __init__(
        self,
        name: str,
        identity_: Identity,
        mode: int,
        uid: int,
        mtime_ns: int,
        own: int,
        content: int,
    ) -> None:
        self.name = name
        self.device, self.inode = identity_
        self.mode = mode
        self.uid = uid
        self.mtime_ns = mtime_ns
        self.own = own
        self.content = content
        self.content_path = ""
        self.size = 0
        self.files = 0
        self.directories = 0
        self.linked: dict[Identity, tuple[int, int, int]] | None = None
        self.veto: str | None = None
        self.stopped = False
        self.watched: Watched | None = None

    @property
    def identity(self) -> Identity:
        """What distinguishes it from other files."""
        return self.device, self.inode

    @property
    def kind(self) -> str:
        """``dir``, ``link``, or ``file`` for everything else."""
        if stat.S_ISDIR(self.mode):
            return "dir"
        if stat.S_ISLNK(self.mode):
            return "link"
        return "file"

    @property
    def newest(self) -> int:
        """The newest time of the unit and everything in it."""
        if self.own > self.content:
            return self.own
        return self.content

    @property
    def newest_path(self) -> str:
        """What has that time, empty for the unit itself."""
        if self.content > self.own:
            return self.content_path
        return ""

    @property
    def disk_usage(self) -> int:
        """Allocated bytes as du(1) counts them: every file once, whether or not it has links
        elsewhere.
        """
        if self.linked is None:
            return self.size
        return self.size + sum(size for dummy, dummy, size in self.linked.values())

    def keep(self, reason: str) -> None:
        """Note the first reason to keep the unit."""
        if self.veto is None:
            self.veto = reason


class PlainFile(NamedTuple):
    """A regular file with one link that nothing in it or about it protects; like a Survey, at a
    quarter of its cost.

    ``own`` and ``content`` are times, ``size`` the allocated bytes, as there.
    """

    name: str
    inode: int
    own: int
    content: int
    mode: int
    uid: int
    size: int
    device: int

    @property
    def mtime_ns(self) -> int:
        return self.content

    @property
    def identity(self) -> Identity:
        return self.device, self.inode

    @property
    def kind(self) -> str:
        return "file"

    @property
    def newest(self) -> int:
        if self.own > self.content:
            return self.own
        return self.content

    @property
    def newest_path(self) -> str:
        return ""

    @property
    def content_path(self) -> str:
        return ""

    @property
    def disk_usage(self) -> int:
        return self.size

    @property
    def files(self) -> int:
        return 1

    @property
    def directories(self) -> int:
        return 0

    @property
    def linked(self) -> None:
        return None

    @property
    def veto(self) -> None:
        return None

    @property
    def watched(self) -> None:
        return None

    @property
    def stopped(self) -> bool:
        return False


Unit = Union[Survey, PlainFile]


def unchanged(planned: Unit, state: os.stat_result) -> bool:
    """Return whether a plain file still is what it was when it was looked at; its change time may
    be that of a move.
    """
    # Every field that a decision depends on, cheapest difference first.
    return (
        state.st_mtime_ns == planned.mtime_ns
        and state.st_ino == planned.inode
        and state.st_dev == planned.device
        and state.st_mode == planned.mode
        and state.st_uid == planned.uid
        and state.st_blocks * BLOCK == planned.size
        and state.st_nlink == 1
    )


def plain(unit: Unit) -> bool:
    """Return whether a unit is a regular file with one link that nothing protects."""
    return isinstance(unit, PlainFile) or (
        unit.directories == 0
        and unit.veto is None
        and unit.linked is None
        and stat.S_ISREG(unit.mode)
    )
