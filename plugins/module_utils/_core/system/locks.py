# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lock files: one holder at a time, released by a crash, never removed."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator

from ..errors import LockBusy, Refused, WriteFailed

#: Seconds between two attempts to get a lock that another process holds.
_PAUSE = 0.05


@contextlib.contextmanager
def lock(path: str, purpose: str, wait: float = 0.0) -> Iterator[None]:
    """Hold the lock file ``path`` (flock) while the body runs.

    The file is never removed: a removed one would let two processes hold locks of the same name. It
    contains the holder's process ID. A crash releases the lock.

    :param purpose: what is locked, for the message of another run (``backup``).
    :param wait: seconds to wait for another holder to release it.
    :raises LockBusy: another process holds it. :raises WriteFailed: the file can't be made.
    :raises Refused: it is a hard link to something else.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise WriteFailed(
            f"Can't open the lock file {path}: {error.strerror}.",
            "Check that its directory is writable by this user.",
            path,
        ) from error
    try:
        if os.fstat(fd).st_nlink > 1:
            raise Refused(f"The lock file {path} has other names too.", "Remove it.", path)
        try:
            acquire(fd, wait)
        except BlockingIOError as error:
            raise LockBusy(purpose, path, _holder(fd)) from error
        # Informative only: on a full disk the lock is held without it.
        with contextlib.suppress(OSError):
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode("ascii"), 0)
        yield
    finally:
        os.close(fd)


def acquire(fd: int, wait: float = 0.0) -> None:
    """Take the exclusive lock (flock) of the open file ``fd``; closing it releases the lock.

    :param wait: seconds to wait for another holder to release it.
    :raises BlockingIOError: another process still holds it.
    """
    deadline = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise BlockingIOError(error.errno, error.strerror) from error
        time.sleep(min(_PAUSE, remaining))


def _holder(fd: int) -> int | None:
    """Return the process ID in a lock file, None when there is none."""
    content = os.pread(fd, 32, 0).strip()
    if content.isdigit():
        return int(content)
    return None


def lock_directory() -> str:
    """Return the directory of this user's lock files, made when missing.

    It is ``/run/lock/mlops-fleet`` for root and is in the runtime directory for others, never
    directly in a directory that everybody can write to: there anybody could hold our locks. The
    environment variable ``MLOPS_FLEET_LOCK_DIR`` names another directory (read-only systems,
    tests); all jobs of a node must use the same one.

    :raises Refused: it belongs to another user, or others may write to it. :raises WriteFailed: it
        can't be made.
    """
    uid = os.getuid()
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    bases = ["/run/lock", "/run"] if uid == 0 else [runtime]
    base = next((path for path in bases if os.path.isdir(path) and os.access(path, os.W_OK)), "")
    default = os.path.join(base, "mlops-fleet") if base else f"/tmp/mlops-fleet-{uid}"
    directory = os.environ.get("MLOPS_FLEET_LOCK_DIR") or default
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(directory, 0o700)
        status = os.lstat(directory)
    except OSError as error:
        raise WriteFailed(
            f"Can't make the lock directory {directory}: {error.strerror}.",
            "Name another with MLOPS_FLEET_LOCK_DIR.",
            directory,
        ) from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != uid or status.st_mode & 0o022:
        raise Refused(
            f"{directory} is not a directory that only this user writes to.",
            "Remove it.",
            directory,
        )
    return directory
