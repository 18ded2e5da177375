# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What changes in directories, reported by the kernel (inotify(7)): new names in one, so that it need not be listed again and again,
and any change in a whole unit, so that it need not be looked at again before it is removed.
"""

from __future__ import annotations

import ctypes
import os
import struct
from array import array
from collections.abc import Iterable

from ..system import mounts

_EVENT = struct.Struct("4xI4xI")  # watch, mask, cookie, length of the name
_NUMBERED = struct.Struct("iI4xI")
_OPEN, _CREATE, _MOVED_TO = 0x20, 0x100, 0x80
#: The watch ended, or events were lost.
_LOST = 0x4000 | 0x8000 | 0x2000 | 0x400 | 0x800
_ONLY_DIRECTORY = 0x01000000
_BUFFER = 65536
#: Events were lost, and the file system went.
_OVERFLOW, _UNMOUNTED = 0x4000, 0x2000
#: Written to, other attributes, closed after writing or mapping.
_WRITTEN = 0x2 | 0x4 | 0x8
#: These, moved away or here, made, removed, and the directory itself removed.
_ANY_CHANGE = _WRITTEN | 0x40 | _MOVED_TO | _CREATE | 0x200 | 0x400
#: Most directories that a TreeWatch watches, of those that the kernel grants a user, one in so many; and most inode numbers.
_DIRECTORIES, _SHARE, _INODES = 32_768, 4, 2_000_000
#: Watches that begin or end before the events are read: the kernel keeps 16,384.
_OFTEN = 1024
_GRANTED = "/proc/sys/fs/inotify/max_user_watches"


class NameWatch:
    """Collects the names that appear in an open directory, on local file systems only. Close it after use.

    With ``touched`` it also collects, in the set of that name, the entries that are opened, changed, replaced or made; our own opening
    counts, too. Otherwise that is None.
    """

    def __init__(self, directory: int, touched: bool = False) -> None:
        """:raises OSError: the kernel has no watch for us."""
        self.touched: set[str] | None = None
        mask = _CREATE | _MOVED_TO | _ONLY_DIRECTORY
        if touched:
            self.touched = set()
            mask |= _OPEN | _WRITTEN
        libc = ctypes.CDLL(None, use_errno=True)
        self.fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        path = f"/proc/self/fd/{directory}".encode("ascii")
        if libc.inotify_add_watch(self.fd, path, mask) < 0:
            self.close()
            raise OSError(ctypes.get_errno(), "inotify_add_watch")

    def names(self) -> set[str] | None:
        """Return the names that appeared since the last call; None when some may be unknown."""
        names: set[str] = set()
        while True:
            try:
                data = os.read(self.fd, _BUFFER)
            except BlockingIOError:
                return names
            except OSError:
                return None
            offset = 0
            while offset < len(data):
                mask, length = _EVENT.unpack_from(data, offset)
                if mask & _LOST:
                    return None
                start = offset + _EVENT.size
                name = os.fsdecode(data[start : start + length].rstrip(b"\0"))
                if self.touched is not None:
                    self.touched.add(name)
                if mask & (_CREATE | _MOVED_TO):
                    names.add(name)
                offset = start + length

    def close(self) -> None:
        """End the watch."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Watched:
    """What is watched of one unit: its directories, by the kernel's numbers, and the inode numbers of all that is in it."""

    __slots__ = ("directories", "inodes")

    def __init__(self) -> None:
        self.directories = array("i")
        self.inodes = array("Q")


class TreeWatch:
    """Watches whole units for changes, from before they are looked at until they are removed. Close it after use.

    Each directory is watched from before it is listed, so that what was read of a unit without a report still holds. What was opened or
    mapped before is not reported: compare the inode numbers with what is in use. A change through another link of a file isn't either.
    """

    def __init__(self) -> None:
        """:raises OSError: the kernel has no watch for us."""
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._add = self._libc.inotify_add_watch
        self._add.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)
        self._changed: set[int] = set()
        self._lost = False
        self._calls = self._directories = self._inodes = 0
        with open(_GRANTED, encoding="ascii") as stream:
            self._most = min(_DIRECTORIES, int(stream.read()) // _SHARE)
        self._fd = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")

    def add(self, watched: Watched, directory: int) -> bool:
        """Watch an open directory of a unit; return whether that is possible."""
        if self._directories >= self._most or self._inodes >= _INODES:
            return False
        number = self._add(self._fd, b"/proc/self/fd/%d" % directory, _ANY_CHANGE | _ONLY_DIRECTORY)
        if number < 0:
            return False
        watched.directories.append(number)
        self._directories += 1
        self._count()
        return True

    def finished(self, watched: Watched) -> None:
        """Note that all of a unit is watched."""
        self._inodes += len(watched.inodes)

    def unchanged(self, watched: Watched) -> bool:
        """Return whether nothing changed in a unit since it was looked at."""
        self._read()
        return not self._lost and self._changed.isdisjoint(watched.directories)

    def release(self, numbers: Iterable[int]) -> None:
        """End the watch over directories."""
        for number in numbers:
            self._libc.inotify_rm_watch(self._fd, number)
            self._directories -= 1
            self._count()

    def _count(self) -> None:
        self._calls += 1
        if self._calls % _OFTEN == 0:
            self._read()

    def _read(self) -> None:
        while not self._lost:
            try:
                data = os.read(self._fd, _BUFFER)
            except BlockingIOError:
                return
            except OSError:
                self._lost = True
                return
            offset = 0
            while offset < len(data):
                number, mask, length = _NUMBERED.unpack_from(data, offset)
                self._lost |= bool(mask & _OVERFLOW)
                if mask & (_ANY_CHANGE | _UNMOUNTED):
                    self._changed.add(number)
                offset += _NUMBERED.size + length

    def close(self) -> None:
        """End all watches."""
        os.close(self._fd)


def watch_trees(wanted: bool) -> TreeWatch | None:
    """Return a watch for units.

    None where none is wanted, where the kernel has none for us, or where changes may come past it,
    from clients of an NFS server.
    """
    try:
        if not wanted or any(mount.fstype == "nfsd" for mount in mounts.read()):
            return None
        return TreeWatch()
    except OSError:
        return None
