# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Serve a file system whose file can't be read, as from a disk with bad sectors (needs root).

    python failing_fuse.py MOUNTPOINT

It holds one file of 1 MB, weights.bin; reading its second half fails with EIO. The kernel logs
nothing about it, so that a test of one node leaves no faults for the others on the machine. It
speaks the protocol of linux/fuse.h, without libfuse.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import sys

LOOKUP, GETATTR, OPEN, READ, STATFS, INIT, READDIR = 1, 3, 14, 15, 17, 26, 28
OPENDIR, RELEASE, RELEASEDIR, FLUSH, ACCESS = 27, 18, 29, 25, 34
FORGET, INTERRUPT, BATCH_FORGET = 2, 36, 42
ROOT, FILE, NAME, SIZE = 1, 2, b"weights.bin", 1_000_000
TIME = 1_700_000_000


def attributes(node: int) -> bytes:
    """Return a struct fuse_attr."""
    is_root = node == ROOT
    mode = stat.S_IFDIR | 0o755 if is_root else stat.S_IFREG | 0o644
    size = 4096 if is_root else SIZE
    times = (TIME, TIME, TIME, 0, 0, 0)
    return struct.pack(
        "<6Q10I", node, size, size // 512, *times, mode, 2 if is_root else 1, 0, 0, 0, 4096, 0
    )


def entry(inode: int, offset: int, name: bytes, kind: int) -> bytes:
    """Return a struct fuse_dirent, padded."""
    packed = struct.pack("<QQII", inode, offset, len(name), kind) + name
    return packed + bytes(-len(packed) % 8)


def answer(opcode: int, node: int, body: bytes) -> bytes | int:
    """Return the reply to a request, or a negative error number."""
    if opcode == INIT:
        reply = struct.pack("<IIIIHHII", 7, 31, 65536, 0, 12, 10, 131072, 1)
        return reply.ljust(64, b"\0")
    if opcode == LOOKUP:
        if body.rstrip(b"\0") != NAME:
            return -errno.ENOENT
        return struct.pack("<QQQQII", FILE, 0, 60, 60, 0, 0) + attributes(FILE)
    if opcode == GETATTR:
        return struct.pack("<QII", 60, 0, 0) + attributes(node)
    if opcode in (OPEN, OPENDIR):
        return struct.pack("<QII", 0, 0, 0)
    if opcode == READDIR:
        if struct.unpack_from("<QQ", body)[1]:
            return b""
        names = [(ROOT, b".", 4), (ROOT, b"..", 4), (FILE, NAME, 8)]
        return b"".join(entry(i, n + 1, name, kind) for n, (i, name, kind) in enumerate(names))
    if opcode == READ:
        offset, length = struct.unpack_from("<QI", body, 8)
        if offset + length > SIZE // 2:
            return -errno.EIO
        return b"w" * length
    if opcode == STATFS:
        return struct.pack("<5Q4I", 10000, 5000, 5000, 1000, 500, 4096, 255, 4096, 0) + bytes(24)
    return b"" if opcode in (RELEASE, RELEASEDIR, FLUSH, ACCESS) else -errno.ENOSYS


def main() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    data = f"fd={device},rootmode={stat.S_IFDIR:o},user_id=0,group_id=0,allow_other"
    if libc.mount(b"failing", sys.argv[1].encode(), b"fuse.failing", 0, data.encode()):
        raise OSError(ctypes.get_errno(), "mount failed")
    while True:
        request = os.read(device, 1 << 18)
        dummy, opcode, unique, node = struct.unpack_from("<IIQQ", request)
        if opcode in (FORGET, INTERRUPT, BATCH_FORGET):
            continue
        reply = answer(opcode, node, request[40:])
        if isinstance(reply, int):
            os.write(device, struct.pack("<IiQ", 16, reply, unique))
        else:
            os.write(device, struct.pack("<IiQ", 16 + len(reply), 0, unique) + reply)


if __name__ == "__main__":
    main()
