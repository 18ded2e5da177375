# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lock that all jobs of a node share, whoever runs them.

It is ``jobs.lock`` in a directory that only root writes to and everybody may enter. Root and the
members of the agent's group hold it by turns. Other users can't hold it (anybody could keep a node
from its backup), but they see in ``/proc/locks`` that it is held, and wait as well.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator

from ..errors import LockBusy, Refused, WriteFailed
from ..records import NamedTuple
from . import locks
from .procfs import parse_stat
from .text import one_line

NAME = "jobs.lock"
PURPOSE = "job of mlfleet"
#: Where the lock is unless the environment names another directory; the second on systems without
#: /run/lock.
DIRECTORIES = ("/run/lock/mlops-fleet", "/run/mlops-fleet")

_PAUSE = 0.2
_MOST_TEXT = 120


class Holder(NamedTuple):
    """Who holds the lock; what is unknown is None or empty.

    :param since: seconds since the epoch.
    """

    pid: int | None = None
    command: str = ""
    since: float | None = None

    def text(self) -> str:
        """Return the holder as text: ``mlfleet backup (process 4711) since 2026-11-28
        02:00:03``.
        """
        process = "unknown" if self.pid is None else self.pid
        text = f"{self.command or 'another job'} (process {process})"
        if self.since:
            text += f" since {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(self.since))}"
        return text


@contextlib.contextmanager
def hold(
    command: str,
    wait: float = 0.0,
    group: int | None = None,
    waiting: Callable[[Holder], None] = lambda holder: None,
) -> Iterator[None]:
    """Hold the node's lock while the body runs.

    :param command: what the body does, for the messages of others (``mlfleet backup``).
    :param wait: seconds to wait for another holder to release it. :param waiting: is called once
        before that.
    :param group: number of the group whose members may hold the lock too; used by root, who makes
        it.
    :raises LockBusy: another job still holds it. :raises WriteFailed: it can't be made.
    :raises Refused: others may write to its directory.
    """
    deadline = time.monotonic() + wait
    path, fd = _open(group)
    if fd is None:
        _wait_until_free(path, deadline, waiting)
        path = os.path.join(locks.lock_directory(), NAME)
        fd = _open_file(path, os.O_RDWR | os.O_CREAT)
    try:
        _acquire(fd, path, deadline, waiting)
        _write(fd, f"{os.getpid()}\n{time.time():.0f}\n{command}\n")
        yield
        # Empty means that the last holder ended as it should.
        _write(fd, "")
    finally:
        os.close(fd)


def _directory() -> str:
    """Return the directory of the lock; root makes it and opens it to everybody."""
    configured = os.environ.get("MLOPS_FLEET_LOCK_DIR", "")
    if os.getuid() and not configured:
        return next(filter(os.path.isdir, DIRECTORIES), DIRECTORIES[0])
    if os.getuid() and os.path.isdir(configured):
        return configured
    directory = locks.lock_directory()
    if directory in DIRECTORIES:
        with contextlib.suppress(OSError):
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if stat.S_IMODE(os.fstat(fd).st_mode) != 0o755:
                    os.fchmod(fd, 0o755)
            finally:
                os.close(fd)
    return directory


def _open(group: int | None) -> tuple[str, int | None]:
    """Return the path of the lock and its descriptor, None where this user may not hold it."""
    path = os.path.join(_directory(), NAME)
    if not os.getuid():
        fd = _open_file(path, os.O_RDWR | os.O_CREAT)
        status = os.fstat(fd)
        if group and (status.st_uid, status.st_gid) != (0, group):
            with contextlib.suppress(OSError):
                os.fchown(fd, 0, group)
                os.fchmod(fd, 0o660)
        return path, fd
    try:
        directory = os.stat(os.path.dirname(path))
    except OSError:
        return path, None
    own = directory.st_uid == os.getuid()
    if not own and (directory.st_uid or directory.st_mode & 0o002):
        raise Refused(
            f"Others may write to {os.path.dirname(path)}.", "Remove it.", os.path.dirname(path)
        )
    for flags in (os.O_RDWR | (os.O_CREAT if own else 0), os.O_RDONLY):
        try:
            return path, os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError:
            continue
    return path, None


def _open_file(path: str, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise WriteFailed(
            f"Can't open the lock file {path}: {error.strerror}.",
            "Check that its directory is writable by this user.",
            path,
        ) from error


def _acquire(fd: int, path: str, deadline: float, waiting: Callable[[Holder], None]) -> None:
    for patience in (0.0, max(0.0, deadline - time.monotonic())):
        try:
            locks.acquire(fd, patience)
            return
        except BlockingIOError:
            if patience:
                break
            holder = _holder(os.fstat(fd), _content(fd))
            if deadline <= time.monotonic():
                raise _busy(path, holder) from None
            waiting(holder)
    raise _busy(path, _holder(os.fstat(fd), _content(fd)))


def _wait_until_free(path: str, deadline: float, waiting: Callable[[Holder], None]) -> None:
    """Wait until nobody holds a lock that this user may not open."""
    announced = False
    while True:
        try:
            holder = _holder(os.stat(path), "")
        except OSError:
            return  # no job has run since the node started, or nobody can tell
        if holder.pid is None:
            return
        if time.monotonic() >= deadline:
            raise _busy(path, holder)
        if not announced:
            waiting(holder)
            announced = True
        time.sleep(_PAUSE)


def _busy(path: str, holder: Holder) -> LockBusy:
    return LockBusy(PURPOSE, path, holder.pid, holder.command, holder.since)


def _content(fd: int) -> str:
    try:
        return os.pread(fd, 512, 0).decode("utf-8", "replace")
    except OSError:
        return ""


def _write(fd: int, text: str) -> None:
    """Write who holds the lock.

    Informative only: it is held without it, on a full disk or a read-only descriptor.
    """
    if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        return
    with contextlib.suppress(OSError):
        os.ftruncate(fd, 0)
        os.pwrite(fd, text.encode(), 0)


def _holder(status: os.stat_result, content: str) -> Holder:
    """Return who holds the lock: the kernel knows the process, the file what it does and since
    when.
    """
    written = _parse(content)
    pid = _locker(status)
    if pid is None:
        return written
    if pid != written.pid:
        written = Holder(pid)  # of an earlier holder
    return Holder(pid, written.command or _command(pid), written.since or _started(pid))


def _parse(content: str) -> Holder:
    lines = [*content.splitlines(), "", "", ""]
    return Holder(_number(lines[0]), one_line(lines[2])[:_MOST_TEXT], _number(lines[1]))


def _number(text: str) -> int | None:
    if text.isascii() and text.isdigit():
        return int(text)
    return None


def _locker(status: os.stat_result) -> int | None:
    """Return the process that holds an flock on a file, None where the kernel does not say."""
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    with contextlib.suppress(OSError, ValueError), open("/proc/locks", encoding="ascii") as lines:
        for line in lines:
            fields = line.split()
            # A line with -> is a process that waits.
            if len(fields) > 5 and fields[1] == "FLOCK" and fields[5] == device:
                return int(fields[4]) or None
    return None


def _command(pid: int) -> str:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as stream:
        arguments = stream.read(4096).decode("utf-8", "replace").rstrip("\0").replace("\0", " ")
        return one_line(arguments)[:_MOST_TEXT]
    return ""


def _started(pid: int) -> float | None:
    """Return when a process started, in seconds since the epoch, None when it is unknown."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stream:
            process = parse_stat(stream.read())
        with open("/proc/uptime", encoding="ascii") as stream:
            uptime = float(stream.read().split()[0])
        if process is not None:
            return time.time() - uptime + process.start
    return None
