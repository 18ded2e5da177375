# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a command with a FUSE mount whose server never answers, in a mount namespace of its own
(needs root).

    python dead_fuse.py MODE MOUNTPOINT COMMAND...

MODE is how dead it is: C(pending) never reads a request, so a waiting process can still be killed;
C(swallow) reads every request and never answers, so it can't. With C(+everybody) behind it every
process sees the mount: only on a node of its own. The mount is gone when this ends: closing the
device ends every waiting call. No libfuse is needed. Several mount points are separated by colons.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
import subprocess
import sys
import threading

_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNS, _MS_REC, _MS_PRIVATE = 0x00020000, 0x4000, 1 << 18


def _check(result: int) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _initialise(fd: int) -> None:
    """Answer FUSE_INIT (linux/fuse.h), so that the kernel sends the real requests."""
    request = os.read(fd, 1 << 18)
    _length, _opcode, unique = struct.unpack_from("<IIQ", request)
    body = struct.pack("<IIIIHHII", 7, 31, 65536, 0, 12, 10, 131072, 1).ljust(64, b"\0")
    os.write(fd, struct.pack("<IiQ", 16 + len(body), 0, unique) + body)


def _swallow(fd: int) -> None:
    while True:
        try:
            os.read(fd, 1 << 18)
        except OSError:
            return


def main() -> int:
    mode, points, command = sys.argv[1], sys.argv[2].split(":"), sys.argv[3:]
    if mode.endswith("+everybody"):
        mode = mode.partition("+")[0]
    else:
        _check(_LIBC.unshare(_CLONE_NEWNS))
        _check(_LIBC.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None))
    for point in points:
        fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        data = f"fd={fd},rootmode={stat.S_IFDIR:o},user_id=0,group_id=0"
        _check(_LIBC.mount(b"dead", point.encode(), b"fuse.dead", 0, data.encode()))
        if mode == "swallow":
            _initialise(fd)
            threading.Thread(target=_swallow, args=(fd,), daemon=True).start()
    os._exit(subprocess.run(command, check=False).returncode)


if __name__ == "__main__":
    main()
