# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files, safely: whole-or-nothing writes, locks, folders opened without following links, roots that are refused."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
import time
from collections.abc import Iterator
from typing import Any

from .errors import LockBusy, NotUsable, Refused, WriteFailed

#: Folders that are never a cleanup root or a restore target, whatever the options say. Their children may be.
DANGEROUS = frozenset(
    {
        "/",
        "/bin",
        "/boot",
        "/dev",
        "/etc",
        "/home",
        "/lib",
        "/lib32",
        "/lib64",
        "/libx32",
        "/lost+found",
        "/media",
        "/mnt",
        "/opt",
        "/proc",
        "/root",
        "/run",
        "/sbin",
        "/srv",
        "/sys",
        "/tmp",
        "/usr",
        "/usr/bin",
        "/usr/lib",
        "/usr/local",
        "/usr/sbin",
        "/usr/share",
        "/var",
        "/var/cache",
        "/var/lib",
        "/var/lib/dpkg",
        "/var/lib/rpm",
        "/var/log",
        "/var/run",
        "/var/spool",
        "/var/tmp",
    }
)
#: Of these, the ones many programs share: acceptable where a pattern limits what is meant (C(/var/log) with C(ml-*)).
SHARED = frozenset({"/tmp", "/var/log", "/var/tmp"})
#: Trees in which nothing is ever ours: neither they nor anything below them is accepted.
FORBIDDEN_TREES = (
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/proc",
    "/sbin",
    "/sys",
    "/usr/bin",
    "/usr/games",
    "/usr/include",
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/libexec",
    "/usr/libx32",
    "/usr/sbin",
    "/usr/src",
    "/var/lib/apt",
    "/var/lib/containerd",
    "/var/lib/containers",
    "/var/lib/docker",
    "/var/lib/dpkg",
    "/var/lib/etcd",
    "/var/lib/kubelet",
    "/var/lib/mongodb",
    "/var/lib/mysql",
    "/var/lib/postgresql",
    "/var/lib/redis",
    "/var/lib/rpm",
    "/var/lib/snapd",
    "/var/lib/systemd",
    "/var/mail",
    "/var/spool/cron",
)

_DIR_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def fsync_folder(path: str) -> None:
    """Make renames inside the folder C(path) durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes) -> None:
    """Write every byte of C(data) to C(fd); raise OSError when the device takes no more."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def atomic_write(path: str, data: bytes | str, mode: int = 0o640, durable: bool = True) -> None:
    """Replace the file C(path) by C(data) whole or not at all: temporary file beside it, fsync, rename, fsync of the folder.

    The temporary name starts with a dot and is random; it is opened exclusively, so a link planted in the folder is never
    followed. An existing file's owner is kept when we may (root), unless others may write to the folder and so may have made the file.

    :param mode: permission bits of the new file, independent of the umask.
    :raises WriteFailed: any step failed; the old file is untouched and the temporary one is gone.
    """
    raw = data.encode("utf-8") if isinstance(data, str) else data
    folder = os.path.dirname(path) or "."
    if os.path.exists(path) and not os.path.isfile(path):  # the rename would put a file in its place, /dev/null's too
        raise WriteFailed(f"Can't write {path}: it is not a file.", "Name another one.", path)
    temporary = os.path.join(folder, f".{os.path.basename(path)}.{os.urandom(6).hex()}.tmp")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise WriteFailed(f"Can't write {path}: {error.strerror}.", f"Check that {folder} exists and is writable.", path) from error
    try:
        try:
            write_all(fd, raw)
            _keep_owner(fd, path)
            os.fchmod(fd, mode)
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            raise WriteFailed(f"Can't write {path}: {error.strerror}.", "Nothing was changed; check space and permissions.", path) from error
        raise
    if durable:
        fsync_folder(folder)


def _keep_owner(fd: int, path: str) -> None:
    """Give the new file the old one's owner. A service user's file that root wrote once stays the service user's."""
    with contextlib.suppress(OSError):
        old, new = os.lstat(path), os.fstat(fd)
        shared = os.stat(os.path.dirname(path) or ".").st_mode & 0o022
        if stat.S_ISREG(old.st_mode) and not shared and (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
            os.fchown(fd, old.st_uid, old.st_gid)


def read_json(path: str) -> Any:
    """Return the parsed content of a JSON file, None when it does not exist.

    :raises NotUsable: it can't be read or is not JSON; the message gives line and column.
    """
    try:
        with open(path, encoding="utf-8-sig") as stream:  # editors of some systems begin a file with a byte order mark
            return json.load(stream)
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise NotUsable(f"Can't read {path}: {error}.", "Check its permissions and encoding.", path) from error
    except ValueError as error:
        raise NotUsable(f"{path} is not valid JSON: {error}.", "Correct or remove it.", path) from error


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
        raise WriteFailed(f"Can't open the lock file {path}: {error.strerror}.", "Check that its folder is writable by this user.", path) from error
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
                raise LockBusy(f"Another {purpose} is running (process {holder} holds {path}).", "Wait for it to end, then run again.", path) from error
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
    folder = os.environ.get("MLOPS_FLEET_LOCK_DIR") or (os.path.join(base, "mlops-fleet") if base else f"/tmp/mlops-fleet-{uid}")
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, 0o700)
        found = os.lstat(folder)
    except OSError as error:
        raise WriteFailed(f"Can't make the folder of the locks {folder}: {error.strerror}.", "Name another with MLOPS_FLEET_LOCK_DIR.", folder) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != uid or found.st_mode & 0o022:
        raise Refused(f"{folder} is not a folder that only this user writes to.", "Remove it.", folder)
    return folder


def refuse_dangerous(path: str, what: str, shared_ok: bool = False) -> str:
    """Return C(path) normalised, when it may be the C(what) (C("cleanup root"), C("restore target"), ...).

    Links are resolved for the test, so that a link to C(/home) is refused like C(/home). C(shared_ok) accepts the folders
    in SHARED; pass it only when a pattern with a literal beginning limits what inside them is meant.

    :raises Refused: empty, relative, C(/), a system folder, a home folder itself, or less than two levels deep.
    """
    if not path or not os.path.isabs(path):
        raise Refused(f"The {what} {path!r} is not an absolute path.", "Name a folder by its full path.", path)
    if ".." in path.split("/"):
        raise Refused(f"The {what} {path} contains '..'.", "Name the folder directly.", path)
    normal = os.path.normpath("/" + path.lstrip("/"))
    for candidate in dict.fromkeys((normal, os.path.realpath(normal))):
        if shared_ok and candidate in SHARED:
            continue
        homes = {os.path.expanduser("~")} | ({candidate} if os.path.dirname(candidate) == "/home" else set())
        leads = path if candidate == normal else f"{path} leads to {candidate}, which"
        if candidate in DANGEROUS or candidate in homes:
            raise Refused(f"The {what} {leads} is a system or home folder.", "Name a folder of its own below it.", path)
        if candidate.count("/") < 2:
            raise Refused(f"The {what} {leads} lies directly below /, like system folders and whole disks.", "Name a folder of its own below it.", path)
        for tree in FORBIDDEN_TREES:
            if candidate == tree or candidate.startswith(tree + "/"):
                raise Refused(f"The {what} {leads} lies in {tree}.", "Name a folder outside the system's own trees.", path)
    return normal


def open_folder(path: str) -> int:
    """Open the folder C(path) component by component without following any symbolic link; return its descriptor.

    :raises NotUsable: it does not exist, is no folder, or a component is a symbolic link.
    """
    fd = os.open("/", _DIR_FLAGS)
    walked = ""
    try:
        for part in os.path.normpath(path).split("/"):
            if not part:
                continue
            walked += "/" + part
            child = os.open(part, _DIR_FLAGS, dir_fd=fd)
            os.close(fd)
            fd = child
    except OSError as error:
        os.close(fd)
        reason = "a symbolic link or not a folder" if error.errno in (errno.ELOOP, errno.ENOTDIR) else error.strerror
        raise NotUsable(
            f"Can't open folder {path}: {walked} is {reason}."
            if error.errno in (errno.ELOOP, errno.ENOTDIR)
            else f"Can't open folder {path}: {walked}: {reason}.",
            "Name an existing folder by its real path.",
            path,
        ) from error
    return fd


def human_size(size: float) -> str:
    """Return bytes in the largest binary unit that fits: C(1.2 GiB)."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(size) < 1024 or unit == "TiB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return ""


def human_count(number: int, what: str) -> str:
    """Return a number with its noun: C(1 host), C(3 hosts)."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def human_duration(seconds: float) -> str:
    """Return seconds as C(850 ms), C(12.3 s), C(4 min 05 s) or C(2 h 03 min)."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
