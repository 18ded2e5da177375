# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What running processes use: open files, working directories, mapped files, locks, and mounts of other namespaces.

Identities (st_dev, st_ino) instead of paths: they stay true after renames, in containers and in other mount namespaces.
Processes of other hosts on a network filesystem are invisible here; nothing in /proc can show them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import NotUsable
from ..system import isolate, mounts
from ..system.removal import Identity, open_directory

#: Seconds after which a process table that does not answer (a file on a dead network mount) ends the cleanup.
PATIENCE = 60.0


#: Inode number of the first process id namespace (PROC_PID_INIT_INO): in others the kernel lists only locks of processes in them.
_FIRST_PID_NAMESPACE = 0xEFFFFFFC


#: A mapped file in /proc/PID/maps: major, minor, inode, path.
_MAPPED = re.compile(rb"^\S+ \S+ \S+ ([0-9a-f]+):([0-9a-f]+) ([1-9]\d*) +(/.*)$", re.M)


@dataclass(frozen=True)
class InUse:
    """Identities in use on the devices asked for, their inode numbers alone, all mounts of all namespaces, how many processes could not
    be examined, and the other users whose they are (None: not even that is known)."""

    identities: frozenset[Identity] = frozenset()
    inodes: frozenset[int] = frozenset()
    mounts: frozenset[tuple[str, str]] = frozenset()
    unseen: int = 0
    strangers: frozenset[int] | None = frozenset()
    #: Whether the kernel lists the locks of all processes, not only those of a container.
    locks_listed: bool = False
    #: Those among the identities that are working directories: our own descriptors of directories say nothing about others.
    directories: frozenset[Identity] = frozenset()

    @property
    def hidden(self) -> Container[int] | None:
        """The users whose files may be in use unseen, None when there are none."""
        if self.strangers is None:
            return _EverybodyElse()
        return self.strangers or None


class _Every(Container[int]):
    def __contains__(self, _item: object) -> bool:
        return True


class _EverybodyElse(Container[int]):
    def __contains__(self, uid: object) -> bool:
        return uid != os.geteuid()


def observe(proc: str, devices: Iterable[int] | None, directories: Iterable[str]) -> InUse:
    """Look at all processes, this one included.

    :param proc: path of the process table. :param devices: st_dev of interest (None: all). :param directories: real paths of the cleanup roots.
    :raises NotUsable: the process table can't be read, or does not answer; without it nothing can be called unused.
    """
    wanted = _Every() if devices is None else frozenset(devices)
    outcome = isolate.call(lambda: _collect(proc, wanted, tuple(directories)), PATIENCE)
    if outcome.timed_out or outcome.error is not None:
        why = f"did not answer within {PATIENCE:g} s"
        if outcome.error is not None:
            why = outcome.error.message
        raise NotUsable(
            f"Can't find out what is in use: {proc} {why}.",
            "Nothing was removed. Say in_use=ignore when nothing can be.",
            proc,
        )
    in_use: InUse = outcome.value
    return in_use


def _collect(proc: str, devices: Container[int], directories: tuple[str, ...]) -> InUse:
    identities: set[Identity] = set()
    working: set[Identity] = set()
    traces = _traces(devices, directories)
    mounted: set[tuple[str, str]] = set()
    namespaces: set[Any] = set()
    unseen, strangers = 0, set()
    known = {str(os.getpid())}
    # A process may hand over its files to a child that is not in our list, and end.
    for dummy in range(5):
        pids = [pid for pid in os.listdir(proc) if pid.isdigit() and pid not in known]
        if not pids:
            break
        known.update(pids)
        for pid in pids:
            base = f"{proc}/{pid}"
            try:
                owner = os.stat(base).st_uid
                hidden = _add(f"{base}/cwd", devices, working)
                hidden |= _descriptors(base, devices, identities)
                hidden |= _maps(base, devices, directories, traces, identities)
            except (FileNotFoundError, ProcessLookupError):
                continue
            if hidden:
                unseen += 1
                strangers.add(owner)
            with contextlib.suppress(OSError):
                namespace = os.stat(f"{base}/ns/mnt").st_ino
                if namespace not in namespaces:
                    mounted.update(mounts.parts(f"{base}/mountinfo"))
                    namespaces.add(namespace)
    with contextlib.suppress(OSError):
        mounted.update(mounts.parts(f"{proc}/self/mountinfo"))
    identities |= working
    locks_listed = False
    with contextlib.suppress(OSError):
        _locks(f"{proc}/locks", devices, identities)
        locks_listed = os.stat(f"{proc}/self/ns/pid").st_ino == _FIRST_PID_NAMESPACE
    for path in _kernels(proc):
        if path.startswith(directories):
            _add(path, devices, identities)
    # Where process 1 is not shown (mount option hidepid), others may be hidden, too.
    owners = frozenset(strangers - {os.geteuid()}) if "1" in known else None
    return InUse(
        frozenset(identities),
        frozenset(inode for _device, inode in identities),
        frozenset(mounted),
        unseen,
        owners,
        locks_listed,
        frozenset(working),
    )


def _kernels(proc: str) -> Iterator[str]:
    """Yield files that the kernel itself uses, for no process: images behind loop devices, swap files, layers of overlays."""
    block = os.path.join(os.path.dirname(proc), "sys/block")
    with contextlib.suppress(OSError):
        for name in os.listdir(block):
            if name.startswith("loop"):
                with (
                    contextlib.suppress(OSError),
                    open(
                        f"{block}/{name}/loop/backing_file",
                        encoding="utf-8",
                        errors="surrogateescape",
                    ) as stream,
                ):
                    yield stream.read().rstrip("\n")
    with (
        contextlib.suppress(OSError),
        open(f"{proc}/swaps", encoding="utf-8", errors="surrogateescape", newline="\n") as lines,
    ):
        for line in lines:
            yield mounts.unescape(line.split(" ")[0].split("\t")[0])
    with (
        contextlib.suppress(OSError),
        open(
            f"{proc}/self/mountinfo", encoding="utf-8", errors="surrogateescape", newline="\n"
        ) as lines,
    ):
        for line in lines:
            if " - overlay " in line:
                for layers in re.findall(r"[ ,](?:lowerdir\+?|upperdir|workdir)=([^,\n]*)", line):
                    yield from mounts.unescape(layers).split(":")


def _add(path: str, devices: Container[int], identities: set[Identity]) -> bool:
    """Add what a link of /proc leads to; return whether we may not know."""
    try:
        state = os.stat(path)
    except PermissionError:
        return True
    except OSError:
        return False
    if state.st_dev in devices:
        identities.add((state.st_dev, state.st_ino))
    return False


def _descriptors(base: str, devices: Container[int], identities: set[Identity]) -> bool:
    """Add open files and the process's directories; return whether something was hidden from us."""
    hidden = False
    for name in ("root", "exe"):
        hidden |= _add(f"{base}/{name}", devices, identities)
    try:
        for fd in os.listdir(f"{base}/fd"):
            hidden |= _add(f"{base}/fd/{fd}", devices, identities)
    except PermissionError:
        hidden = True
    return hidden


def _traces(devices: Container[int], directories: tuple[str, ...]) -> list[bytes] | None:
    """Return what a list of mapped files holds when one of them is of interest; None when all may be."""
    if not isinstance(devices, frozenset):
        return None
    traces = [os.fsencode(directory) for directory in directories]
    traces += [b" %02x:%02x " % (os.major(device), os.minor(device)) for device in devices]
    return traces


def _maps(
    base: str,
    devices: Container[int],
    directories: tuple[str, ...],
    traces: list[bytes] | None,
    identities: set[Identity],
) -> bool:
    """Add mapped files: a checkpoint that is mapped has no descriptor left. Return whether they were hidden from us.

    Some filesystems (btrfs, overlay) show another device here than stat(2) gives, so paths below a root are looked up, too.
    """
    try:
        with open(f"{base}/maps", "rb") as stream:
            maps = stream.read()
    except PermissionError:
        return True
    if traces is not None and not any(trace in maps for trace in traces):
        return False
    # A file is mapped in several pieces, and by many processes.
    for mapped in set(_MAPPED.findall(maps)):
        major, minor, inode, path = mapped
        device = os.makedev(int(major, 16), int(minor, 16))
        if device in devices:
            identities.add((device, int(inode)))
        place = os.fsdecode(path)
        if place.startswith(directories):
            _add(place, devices, identities)
    return False


def _locks(path: str, devices: Container[int], identities: set[Identity]) -> None:
    """Add locked files; this list shows those of other users' processes, too."""
    with open(path, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            match = re.search(r" ([0-9a-f]+):([0-9a-f]+):(\d+) ", line)
            if match:
                device = os.makedev(int(match.group(1), 16), int(match.group(2), 16))
                if device in devices:
                    identities.add((device, int(match.group(3))))


def locked(name: str, dir_fd: int, directory: bool) -> bool:
    """Return whether somebody holds a lock (flock(2)) on a unit, the way systemd-tmpfiles asks; programs pin their files so."""
    flags = (
        os.O_RDONLY
        | os.O_NOFOLLOW
        | os.O_NONBLOCK
        | os.O_CLOEXEC
        | (os.O_DIRECTORY if directory else 0)
    )
    try:
        fd = open_directory(name, dir_fd, flags)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(fd)
    return False
