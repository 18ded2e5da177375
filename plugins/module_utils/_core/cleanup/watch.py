# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""New names in a directory, reported by the kernel (inotify(7)), so that a large directory need not be listed again and again."""

from __future__ import annotations

import ctypes
import os
import struct

_EVENT = struct.Struct("4xI4xI")  # watch, mask, cookie, length of the name
_OPEN, _CREATE, _MOVED_TO = 0x20, 0x100, 0x80
#: The watch ended, or events were lost.
_LOST = 0x4000 | 0x8000 | 0x2000 | 0x400 | 0x800
_ONLY_DIRECTORY = 0x01000000
_BUFFER = 65536


class NameWatch:
    """Collects the names that appear in an open directory, on local file systems only. Close it after use.

    With ``opened`` it also collects, in the set of that name, the entries that are opened; our own opening counts, too.
    """

    def __init__(self, directory: int, opened: bool = False) -> None:
        """:raises OSError: the kernel has no watch for us."""
        self.opened: set[str] = set()
        libc = ctypes.CDLL(None, use_errno=True)
        self.fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        path = f"/proc/self/fd/{directory}".encode("ascii")
        mask = _CREATE | _MOVED_TO | _ONLY_DIRECTORY | (_OPEN if opened else 0)
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
                (self.opened if mask & _OPEN else names).add(name)
                offset = start + length

    def close(self) -> None:
        """End the watch."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
