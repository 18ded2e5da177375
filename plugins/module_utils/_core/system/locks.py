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


@contextlib.contextmanager
def lock(path: str, purpose: str, wait: float = 0.0) -> Iterator[None]:
    """Hold the lock file C(path) (flock) while the body runs. It is never removed, so there is no window between two holders.

    The holder's process id stands in the file for people. A crash frees the lock.

    :param wait: seconds to wait for another holder to end.
    :raises LockBusy: another process holds it. :raises WriteFailed: the file can't be made.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise WriteFailed(
            f"Can't open the lock file {path}: {error.strerror}.",
            "Check that its folder is writable by this user.",
            path,
        ) from error
    try:
        _acquire(fd, path, purpose, time.monotonic() + wait)
        with contextlib.suppress(OSError):  # a courtesy: on a full disk the lock holds without it
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode("ascii"), 0)
        yield
    finally:
        os.close(fd)


def _acquire(fd: int, path: str, purpose: str, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            if time.monotonic() >= deadline:
                holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
                raise LockBusy(
                    f"Another {purpose} is running (process {holder} holds {path}).",
                    "Wait for it to end, then run again.",
                    path,
                ) from error
        time.sleep(min(1.0, max(0.0, deadline - time.monotonic())))


def lock_folder() -> str:
    """Return where this user's lock files live, made when missing: root's in C(/run/lock/mlops-fleet), others' in their runtime folder.

    Never directly in a folder that everybody writes to: there anybody could hold our locks. The environment variable
    C(MLOPS_FLEET_LOCK_DIR) names another folder (read-only systems, tests); all jobs of a node must agree on it.

    :raises Refused: the folder is there and belongs to somebody else, or others may write to it. :raises WriteFailed: it can't be made.
    """
    uid = os.getuid()
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    bases = ("/run/lock", "/run") if uid == 0 else (runtime,) if runtime else ()
    base = next((one for one in bases if os.path.isdir(one) and os.access(one, os.W_OK)), "")
    folder = os.environ.get("MLOPS_FLEET_LOCK_DIR") or (
        os.path.join(base, "mlops-fleet") if base else f"/tmp/mlops-fleet-{uid}"
    )
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, 0o700)
        found = os.lstat(folder)
    except OSError as error:
        raise WriteFailed(
            f"Can't make the folder of the locks {folder}: {error.strerror}.",
            "Name another with MLOPS_FLEET_LOCK_DIR.",
            folder,
        ) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != uid or found.st_mode & 0o022:
        raise Refused(
            f"{folder} is not a folder that only this user writes to.", "Remove it.", folder
        )
    return folder
