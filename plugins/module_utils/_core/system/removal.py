# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Remove a file or a tree through directory descriptors only, and what walks through changing trees
need for that.

No path is used twice: everything is opened through the descriptor of its directory, symbolic links
are never followed, FIFOs and devices never opened. A walk holds two descriptors at most whatever
the depth: it climbs back through ``..`` and compares what it finds there with what it came from, so
that a directory that is moved while the walk is inside ends the walk.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import stat
from collections.abc import Callable

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NOATIME = getattr(os, "O_NOATIME", 0)

_ATTEMPTS = 3

#: (st_dev, st_ino)
Identity = tuple[int, int]


def identity(state: os.stat_result) -> Identity:
    """Return what distinguishes two files."""
    return state.st_dev, state.st_ino


class Changed(Exception):
    """The tree was changed during a walk; ``str()`` of it says where."""


def open_directory(name: str, dir_fd: int, flags: int = DIRECTORY) -> int:
    """Open a directory (with other flags: a file), where possible without leaving a trace in its
    access time.
    """
    try:
        return os.open(name, flags | _NOATIME, dir_fd=dir_fd)
    except PermissionError:
        return os.open(name, flags, dir_fd=dir_fd)


class _Statx(ctypes.Structure):
    """The part of ``struct statx`` that is read here."""

    _fields_ = [
        ("mask", ctypes.c_uint32),
        ("_between", ctypes.c_uint8 * 140),
        ("mount", ctypes.c_uint64),
        ("_rest", ctypes.c_uint8 * 104),
    ]


_STATX_MNT_ID = 0x1000
# AT_... flags of statx(2); the second includes "no automount".
_EMPTY_PATH, _NOFOLLOW, _DONT_SYNC = 0x1000, 0x900, 0x4000
_result = _Statx()
_reference = ctypes.byref(_result)
_statx: Callable[..., int] | None
try:
    _statx = ctypes.CDLL(None).statx
except (OSError, AttributeError):  # an old C library
    _statx = None


def _ask_mount(fd: int, name: bytes, flags: int) -> int | None:
    if (
        _statx is None
        or _statx(fd, name, flags | _DONT_SYNC, _STATX_MNT_ID, _reference) != 0
        or not _result.mask & _STATX_MNT_ID
    ):
        return None
    return int(_result.mount)


def mount_id(fd: int) -> int | None:
    """Return the id of the mount that an open file is on, None when the kernel does not say.

    Called for every directory: statx(2) returns it since Linux 5.8 at a tenth of the cost of
    reading /proc (since 3.15).
    """
    mount = _ask_mount(fd, b"", _EMPTY_PATH)
    if mount is not None:
        return mount
    try:
        info = os.open(f"/proc/self/fdinfo/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        match = re.search(rb"^mnt_id:\s*(\d+)", os.read(info, 4096), re.M)
    finally:
        os.close(info)
    if match:
        return int(match.group(1))
    return None


def entry_mount_id(dir_fd: int, name: str) -> int | None:
    """Return the id of the mount that an entry of an open directory is on, None when the kernel
    does not say.
    """
    return _ask_mount(dir_fd, os.fsencode(name), _NOFOLLOW)


def open_checked(name: str, parent: int, expected: Identity, where: str) -> int:
    """Open the directory that was seen under this name before.

    :raises Changed: it is another one now.
    """
    fd = open_directory(name, parent)
    if identity(os.fstat(fd)) != expected:
        os.close(fd)
        raise Changed(f"{where} was replaced while it was read")
    return fd


def climb(fd: int, expected: Identity, where: str) -> int:
    """Return the descriptor of the directory above; ``fd`` is closed if that is where the walk came
    from.
    """
    above = open_directory("..", fd)
    if identity(os.fstat(above)) != expected:
        os.close(above)
        raise Changed(f"{where} was moved while it was read")
    os.close(fd)
    return above


def remove(parent: int, name: str, device: int, mount: int | None) -> list[str]:
    """Remove a file or a whole tree.

    Return what could not be removed, and why (at most 5 lines); empty when all is gone.

    Continues after an entry that can't be removed, so that as much as possible is freed; never
    enters another file system or mount.
    """
    problems: list[str] = []
    # A process that still holds a directory open may add to it while it is emptied.
    for dummy in range(_ATTEMPTS):
        problems = []
        try:
            _remove(parent, name, device, mount, problems)
        except FileNotFoundError:
            pass
        except (OSError, Changed) as error:
            problems.append(str(error))
        if not any(os.strerror(errno.ENOTEMPTY) in problem for problem in problems):
            break
    return problems[:5]


def _remove(parent: int, name: str, device: int, mount: int | None, problems: list[str]) -> None:
    state = os.lstat(name, dir_fd=parent)
    if not stat.S_ISDIR(state.st_mode):
        os.unlink(name, dir_fd=parent)
        return
    path = [name]
    fd = open_checked(name, parent, identity(state), name)
    try:
        stack = [(identity(state), _empty(fd, path, device, mount, problems))]
        while True:
            pending = stack[-1][1]
            if pending:
                child, expected = pending.pop()
                path.append(child)
                try:
                    inner = open_checked(child, fd, expected, "/".join(path))
                except OSError as error:
                    problems.append(f"{'/'.join(path)}: {error.strerror}")
                    path.pop()
                    continue
                except Changed as error:
                    problems.append(f"{'/'.join(path)}: {error}")
                    path.pop()
                    continue
                try:
                    directories = _empty(inner, path, device, mount, problems)
                except BaseException:
                    os.close(inner)
                    raise
                if not directories:
                    os.close(inner)
                    _rmdir(child, fd, path, problems)
                    path.pop()
                    continue
                os.close(fd)
                fd = inner
                stack.append((expected, directories))
                continue
            stack.pop()
            if not stack:
                break
            fd = climb(fd, stack[-1][0], "/".join(path))
            _rmdir(path[-1], fd, path, problems)
            path.pop()
    finally:
        os.close(fd)
    _rmdir(name, parent, path, problems)


def _rmdir(name: str, fd: int, path: list[str], problems: list[str]) -> None:
    try:
        os.rmdir(name, dir_fd=fd)
    except FileNotFoundError:
        pass
    except OSError as error:
        problems.append(f"{'/'.join(path)}: {error.strerror}")


def _empty(
    fd: int, path: list[str], device: int, mount: int | None, problems: list[str]
) -> list[tuple[str, Identity]]:
    """Unlink what is not a directory in the open directory; return its subdirectories."""
    here = os.fstat(fd)
    if here.st_dev != device or (mount is not None and mount_id(fd) != mount):
        problems.append(f"{'/'.join(path)}: a mount point")
        return []
    if here.st_mode & 0o700 != 0o700 and here.st_uid == os.geteuid() != 0:
        # Caches make their directories read-only; their owner may remove them all the same.
        with contextlib.suppress(OSError):
            os.fchmod(fd, 0o700)
    directories, unlink = [], os.unlink
    # All names at once: some file systems lose their place when entries go while they are listed.
    for name in os.listdir(fd):
        try:
            unlink(name, dir_fd=fd)
        except FileNotFoundError:
            continue
        except OSError as error:
            # unlink(2) never removes a directory, so that nothing need be asked before.
            with contextlib.suppress(FileNotFoundError):
                state = os.lstat(name, dir_fd=fd)
                if stat.S_ISDIR(state.st_mode):
                    directories.append((name, identity(state)))
                else:
                    problems.append(f"{'/'.join(path)}/{name}: {error.strerror}")
    return directories
