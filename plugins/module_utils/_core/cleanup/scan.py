# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Look at a unit (one entry of a cleanup root) and everything in it, through directory descriptors only.

No path is used twice: roots are opened component by component, everything below through the descriptor of its directory, symbolic
links are never followed, FIFOs and devices never opened (system.removal has more about such walks).
"""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
from collections import deque
from collections.abc import Callable, Container, Set
from dataclasses import dataclass

from ..backup.api import is_backup_file
from ..errors import NotUsable, Refused
from ..system.removal import (
    DIRECTORY,
    Changed,
    Identity,
    climb,
    entry_mount_id,
    identity,
    mount_id,
    open_checked,
    open_directory,
)
from .guards import MOUNT
from .units import BLOCK, PlainFile, Survey, Unit, plain, unchanged
from .watch import TreeWatch, Watched

_PATH = getattr(os, "O_PATH", 0o10000000)


def open_root(path: str) -> tuple[int, str]:
    """Open the cleanup root ``path`` component by component; return its descriptor and its path without symbolic links.

    A link on the way is followed only when nobody but root or this user can have made it.

    :raises FileNotFoundError: it does not exist.
    :raises Refused: somebody else's link on the way, or a directory in which anybody may replace the next one.
    :raises NotUsable: not a directory, or not accessible.
    """
    parts = deque(part for part in path.split("/") if part)
    fd = os.open("/", DIRECTORY)
    real: list[str] = []
    links = 0
    try:
        while parts:
            here = os.fstat(fd)
            if here.st_mode & stat.S_IWOTH and not here.st_mode & stat.S_ISVTX:
                raise Refused(
                    f"The cleanup root {path} can't be trusted: anybody may replace what is in /{'/'.join(real)}.",
                    f"Take write permission from others (chmod o-w /{'/'.join(real)}) or set the sticky bit.",
                    path,
                )
            part = parts.popleft()
            target = _own_link(part, fd)
            if target is not None:
                links += 1
                if links > 40 or not target:
                    raise Refused(
                        f"The cleanup root {path} leads through a symbolic link that is not ours: {part}.",
                        "Name the real path.",
                        path,
                    )
                parts.extendleft(
                    reversed([step for step in target.split("/") if step not in ("", ".")])
                )
                if target.startswith("/"):
                    os.close(fd)
                    fd, real = os.open("/", DIRECTORY), []
                continue
            child = os.open(part, DIRECTORY, dir_fd=fd)
            os.close(fd)
            fd = child
            if part == "..":
                real = real[:-1]
            else:
                real.append(part)
    except FileNotFoundError:
        os.close(fd)
        raise
    except OSError as error:
        os.close(fd)
        raise NotUsable(
            f"Can't open the cleanup root {path}: {error.strerror}.",
            "Name an existing directory this user can read.",
            path,
        ) from error
    except BaseException:
        os.close(fd)
        raise
    return fd, "/" + "/".join(real)


def _own_link(name: str, dir_fd: int) -> str | None:
    """Return where a symbolic link leads, empty when it is neither root's nor this user's, None when the entry is no link.

    Through a descriptor, so that the link that is read is the one whose owner was seen.
    """
    fd = os.open(name, _PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        state = os.fstat(fd)
        if not stat.S_ISLNK(state.st_mode):
            return None
        return os.readlink("", dir_fd=fd) if state.st_uid in (0, os.geteuid()) else ""
    finally:
        os.close(fd)


# --- measuring ----------------------------------------------------------------------------------------------------


def _newest(state: os.stat_result) -> int:
    return max(state.st_mtime_ns, state.st_ctime_ns)


def _mtime(state: os.stat_result) -> int:
    return state.st_mtime_ns


def _ctime(state: os.stat_result) -> int:
    return state.st_ctime_ns


def _atime(state: os.stat_result) -> int:
    """Last use: of a file the later one of reading and writing; of a directory its last change, since listing it is no use."""
    return (
        state.st_mtime_ns
        if stat.S_ISDIR(state.st_mode)
        else max(state.st_atime_ns, state.st_mtime_ns)
    )


STAMPS: dict[str, Callable[[os.stat_result], int]] = {
    "newest": _newest,
    "mtime": _mtime,
    "ctime": _ctime,
    "atime": _atime,
}


@dataclass(frozen=True)
class Look:
    """What a survey looks out for.

    :param stamp: the time of an entry that counts, nanoseconds since the epoch.
    :param busy: identities of what is in use; None when that is not asked. ``inodes`` are their inode numbers.
    :param hidden: users with processes that could not be examined; None when all could.
    :param device: st_dev, ``mount`` the mount id of the root; nothing elsewhere is entered.
    :param fresh: stop when an entry is newer than this (nanoseconds): the unit stays anyway.
    :param moved: the unit was just renamed, so its own ctime says nothing; only its mtime counts.
    :param watch: watches units from before they are looked at, so that unchanged ones need not be looked at again; None: no.
    """

    stamp: Callable[[os.stat_result], int]
    device: int
    mount: int | None
    busy: Set[Identity] | None = None
    inodes: Set[int] = frozenset()
    hidden: Container[int] | None = None
    excluded: re.Pattern[str] | None = None
    fresh: int | None = None
    moved: bool = False
    watch: TreeWatch | None = None


#: One object for each number that many units have in common.
_common: dict[int, int] = {}


def survey(parent: int, name: str, look: Look) -> Survey:
    """Look at a unit and everything in it. Reads only.

    :raises FileNotFoundError: it is gone. :raises Changed: it is being changed.
    """
    state = os.lstat(name, dir_fd=parent)
    mode, uid, device = state.st_mode, state.st_uid, state.st_dev
    own = content = mtime = state.st_mtime_ns
    if look.stamp is _atime:
        own = content = _atime(state)
    elif not look.moved:
        # Renaming a unit changes its ctime and nothing in it.
        own = look.stamp(state)
    if device == look.device:
        device = look.device
    unit = Survey(
        name,
        (device, state.st_ino),
        _common.setdefault(mode, mode),
        _common.setdefault(uid, uid),
        mtime,
        own,
        content,
    )
    if look.excluded is not None and look.excluded.match(name):
        unit.keep("excluded")
    if name[:14] == "models_backup_" and is_backup_file(name):
        unit.keep("a backup; the retention of model_backup removes it")
    if (
        state.st_nlink == 1
        and stat.S_ISREG(mode)
        and device == look.device
        and state.st_ino not in look.inodes
        and look.hidden is None
    ):
        size = state.st_blocks * BLOCK
        unit.size = _common.setdefault(size, size)
        unit.files = 1
        return unit
    _count(unit, parent, name, "", state, look)
    if not stat.S_ISDIR(mode) or unit.veto == MOUNT or _is_fresh(unit, look):
        return unit
    if look.watch is None:
        _walk(unit, parent, name, state, look)
    else:
        _walk_watched(unit, parent, name, state, look, look.watch)
    return unit


def _walk_watched(
    unit: Survey, parent: int, name: str, state: os.stat_result, look: Look, watch: TreeWatch
) -> None:
    unit.watched = watched = Watched()
    watched.inodes.append(state.st_ino)
    _walk(unit, parent, name, state, look)
    due = unit.veto is None and not unit.stopped and unit.linked is None
    if due and unit.watched is watched:
        watch.finished(watched)
    else:
        _no_longer(unit, watch)


def _keep_by_name(unit: Survey, prefix: str, name: str, excluded: re.Pattern[str] | None) -> None:
    if excluded is not None and excluded.match(name):
        unit.keep(f"holds {prefix}{name}, which is excluded")
    if _BACKUPS <= name < _AFTER and is_backup_file(name):
        unit.keep(f"holds the backup {prefix}{name}")


def _reported(mode: int) -> bool:
    """Return whether a watch reports all that happens to such a file: a socket may be taken into use unseen."""
    return stat.S_ISDIR(mode) or stat.S_ISREG(mode) or stat.S_ISLNK(mode)


def _no_longer(unit: Survey, watch: TreeWatch) -> None:
    """End the watch over a unit that stays, or whose changes the watch would not see."""
    if unit.watched is not None:
        watch.release(unit.watched.directories)
        unit.watched = None


#: Bits of a mode that are the type of a file, and those of a regular one.
_TYPE, _REGULAR = 0o170000, 0o100000
#: Names of backups are between these.
_BACKUPS, _AFTER = "models_backup_", "models_backup`"


def list_files(
    fd: int,
    look: Look,
    fitting: Callable[[str], object] | None,
    skipped: Set[str],
    links: set[str],
) -> tuple[list[str], list[Unit]]:
    """List an open directory and look at the plain files in it in the same pass; return the other names, and these files.

    A plain file has one link, is on the look's device and not in use. Everything else, and what vanished meanwhile, is left to survey().

    :param look: its ``hidden`` is None, and its ``stamp`` is the newest change or the modification.
    :param fitting: whether a name may be a unit; files that it refuses are not looked at. None: all names.
    :param skipped: names that are not looked at, those of mount points. :param links: receives the names of symbolic links.
    """
    names: list[str] = []
    files: list[Unit] = []
    device, inodes, excluded = look.device, look.inodes, look.excluded
    newest = look.stamp is _newest
    append, new, share = files.append, tuple.__new__, _common.setdefault
    with os.scandir(fd) as entries:
        # There may be hundreds of thousands: what is frequent is done here without calls.
        for entry in entries:
            name = entry.name
            # Known from the listing, without another system call.
            if not entry.is_file(follow_symlinks=False) or name in skipped:
                if entry.is_symlink():
                    links.add(name)
                names.append(name)
                continue
            if fitting is not None and not fitting(name):
                continue
            try:
                state = entry.stat(follow_symlinks=False)
            except OSError:
                names.append(name)
                continue
            mode, inode, here, links_, uid = state[:5]
            if links_ != 1 or here != device or inode in inodes or mode & _TYPE != _REGULAR:
                names.append(name)
                continue
            if _BACKUPS <= name < _AFTER or (excluded is not None and excluded.match(name)):
                names.append(name)  # it may be protected
                continue
            own = mtime = state.st_mtime_ns
            if newest and state.st_ctime_ns > own:
                own = state.st_ctime_ns
            # Equal numbers are kept once: that is a seventh of the memory.
            mode, size = share(mode, mode), state.st_blocks * BLOCK
            size = share(size, size)
            append(new(PlainFile, (name, inode, own, mtime, mode, uid, size, device)))
    return names, files


def survey_again(parent: int, planned: Unit, look: Look) -> Unit:
    """Look at a unit that was moved since. Returns the same survey when it is a plain file in which nothing changed.

    Raises like survey.
    """
    if (
        plain(planned)
        and look.stamp is not _atime
        and planned.device == look.device
        and planned.inode not in look.inodes
        and look.hidden is None
        and unchanged(planned, os.lstat(planned.name, dir_fd=parent))
    ):
        return planned
    if planned.watched is not None and _watched_unchanged(parent, planned, look):
        return planned
    return survey(parent, planned.name, look)


def _watched_unchanged(parent: int, planned: Unit, look: Look) -> bool:
    """Return whether a unit is still the watched one, unchanged, and no process uses any of it."""
    watch, watched = look.watch, planned.watched
    if watch is None or watched is None or look.hidden is not None:
        return False
    state = os.lstat(planned.name, dir_fd=parent)
    return (
        identity(state) == planned.identity
        and state.st_mode == planned.mode
        and state.st_uid == planned.uid
        and state.st_mtime_ns == planned.mtime_ns
        and look.inodes.isdisjoint(watched.inodes)
        and watch.unchanged(watched)
    )


def _is_fresh(unit: Survey, look: Look) -> bool:
    unit.stopped = look.fresh is not None and unit.newest > look.fresh
    return unit.stopped


def _count(unit: Survey, fd: int, name: str, where: str, state: os.stat_result, look: Look) -> None:
    """Add one entry to the unit's numbers and check it against what protects a unit."""
    mode = state.st_mode
    size = state.st_blocks * BLOCK
    if stat.S_ISDIR(mode):
        unit.directories += 1
        unit.size += size
    else:
        unit.files += 1
        if state.st_nlink > 1:
            if unit.linked is None:
                unit.linked = {}
            seen = unit.linked.get(identity(state), (0, 0, 0))[1]
            unit.linked[identity(state)] = (state.st_nlink, seen + 1, size)
        else:
            unit.size += size
    # In an overlay only directories have its st_dev; files have one for each layer.
    if state.st_dev != look.device and (
        stat.S_ISDIR(mode) or look.mount is None or entry_mount_id(fd, name) != look.mount
    ):
        unit.keep(MOUNT)
    if look.busy is not None and unit.veto is None:
        if (state.st_dev, state.st_ino) in look.busy:
            unit.keep(
                f"in use: {where or 'itself'} is open, mapped, locked or a process's directory"
            )
        elif stat.S_ISSOCK(mode) and socket_alive(fd, name):
            unit.keep(f"in use: {where or 'itself'} is a socket that a process listens on")
        elif look.hidden is not None and state.st_uid in look.hidden:
            unit.keep(
                f"may be in use: {where or 'itself'} belongs to user {state.st_uid}, whose processes this user can't examine"
            )


def _walk(unit: Survey, parent: int, name: str, state: os.stat_result, look: Look) -> None:
    stack: list[tuple[Identity, list[tuple[str, os.stat_result]]]] = []
    path: list[str] = []
    try:
        fd = _enter(unit, name, parent, state, name, look)
    except PermissionError:
        unit.keep("can't be read by this user")
        return
    try:
        stack.append((identity(state), _list(unit, fd, path, look)))
        while stack and not unit.stopped:
            pending = stack[-1][1]
            if not pending:
                stack.pop()
                if not stack:
                    break
                fd = climb(fd, stack[-1][0], "/".join(path))
                path.pop()
                continue
            child, expected = pending.pop()
            path.append(child)
            inner = _open_child(unit, fd, expected, path, look)
            if inner < 0:
                path.pop()
                continue
            try:
                directories = _list(unit, inner, path, look)
            except BaseException:
                os.close(inner)
                raise
            if not directories:
                os.close(inner)
                path.pop()
                continue
            os.close(fd)
            fd = inner
            stack.append((identity(expected), directories))
    finally:
        os.close(fd)


def _open_child(
    unit: Survey, fd: int, expected: os.stat_result, path: list[str], look: Look
) -> int:
    """Open a directory below the open one; -1 when it is gone or can't be read.

    :raises Changed: it is another one now.
    """
    where = "/".join(path)
    try:
        return _enter(unit, path[-1], fd, expected, where, look)
    except PermissionError:
        unit.keep(f"{where} can't be read by this user")
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise
        raise Changed(f"{where} was replaced while it was read") from error
    return -1


def _enter(
    unit: Survey, name: str, parent: int, expected: os.stat_result, where: str, look: Look
) -> int:
    """Open a directory that was seen, and watch it from before it is listed.

    :raises Changed: it is another one now, or was changed before the watch began.
    """
    if look.watch is None or unit.watched is None:
        return open_checked(name, parent, identity(expected), where)
    fd = open_directory(name, parent)
    if not look.watch.add(unit.watched, fd):
        _no_longer(unit, look.watch)
    state = os.fstat(fd)
    if (
        identity(state) != identity(expected)
        or state.st_mtime_ns != expected.st_mtime_ns
        or state.st_ctime_ns != expected.st_ctime_ns
    ):
        os.close(fd)
        raise Changed(f"{where} was changed while it was read")
    return fd


def _list(unit: Survey, fd: int, path: list[str], look: Look) -> list[tuple[str, os.stat_result]]:
    """Count the entries of the open directory; return its subdirectories that may be entered."""
    if look.mount is not None and mount_id(fd) != look.mount:
        unit.keep(MOUNT)
        return []
    prefix = "/".join(path) + "/" if path else ""
    excluded, inodes, hidden, device = look.excluded, look.inodes, look.hidden, look.device
    stamp = None if look.stamp is _newest else look.stamp
    quick = excluded is None and hidden is None
    directories: list[tuple[str, os.stat_result]] = []
    files = blocks = 0
    note = None if unit.watched is None else unit.watched.inodes.append
    newest, newest_name = unit.content, ""
    with os.scandir(fd) as entries:
        # What is frequent is done here without calls.
        for entry in entries:
            try:
                state = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            name = entry.name
            mode, inode, here, links, dummy = state[:5]
            time = state.st_ctime_ns
            if stamp is not None:
                time = stamp(state)
            elif state.st_mtime_ns > time:
                time = state.st_mtime_ns
            if time > newest:
                newest, newest_name = time, name
            if note is not None:
                note(inode)
            regular = links == 1 and mode & _TYPE == _REGULAR and here == device
            if regular and quick and inode not in inodes and not _BACKUPS <= name < _AFTER:
                files += 1
                blocks += state.st_blocks
                continue
            _keep_by_name(unit, prefix, name, excluded)
            if regular and inode not in inodes and hidden is None:
                files += 1
                blocks += state.st_blocks
                continue
            _count(unit, fd, name, prefix + name, state, look)
            if look.watch is not None and not _reported(mode):
                _no_longer(unit, look.watch)
            if stat.S_ISDIR(mode) and here == device:
                directories.append((name, state))
    if newest_name:
        unit.content, unit.content_path = newest, prefix + newest_name
    unit.files += files
    unit.size += blocks * BLOCK
    return [] if _is_fresh(unit, look) else directories


def socket_alive(fd: int, name: str) -> bool:
    """Return whether a process has bound the socket ``name`` in the open directory, in any network namespace.

    A datagram socket that connects to a stream socket is refused with EPROTOTYPE before the owner notices anything, and connecting
    to a datagram socket sends nothing; ECONNREFUSED is the kernel's error for a socket without owner (unix(7)). Anything else counts as alive.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(f"/proc/self/fd/{fd}/{name}")
        except OSError as error:
            return error.errno not in (errno.ECONNREFUSED, errno.ENOENT)
    return True
