# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Removed units that can be brought back: directories in a cleanup root that keep them until their time is over.

One directory for each cleanup (``.mlops-fleet-quarantine-20261128T063000Z-259200``, 0700: when, and for how many seconds). In it the
link ``0.where`` leads to the directory, relative to the root, from which the units in the directory ``0`` were moved, and so on;
``doomed`` holds directories that are being removed, so that half a unit is never among those that can be brought back. The file ``units``
has their sizes and targets; without it they are measured. Every step is one system call, and what a stopped run left is a unit in its
place, in quarantine, or in ``doomed``.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..errors import NotUsable
from ..system.files import write_all
from ..system.removal import DIRECTORY, identity, mount_id
from ..verdict import isoformat
from .guards import HELD
from .quarantine import put_back
from .root import Root, exists
from .units import Unit

_NAME = re.compile(re.escape(HELD) + r"(\d{8}T\d{6}Z)-(\d+)(-\d+)?")
_TIME = "%Y%m%dT%H%M%SZ"
_UNITS, _WHERE = "units", ".where"
#: Directory in a quarantine whose entries are being removed.
DOOMED = "doomed"


def run_name(now: float, taken: set[str]) -> str:
    """Return the name of a run that moves units to quarantine: when it began, with a number where that name is taken."""
    base = time.strftime(_TIME, time.gmtime(now))
    name, number = base, 1
    while name in taken:
        number += 1
        name = f"{base}-{number}"
    return name


class HeldUnit(NamedTuple):
    """A unit in quarantine: where it is (compartment, name), where it was, and what is known of it.

    ``survey`` is what it is now, None when nobody had to look. ``stays`` says why it can't be removed.
    """

    hold: Hold
    number: int
    name: str
    where: str
    target: str
    size: int
    survey: Unit | None = None
    stays: str = ""

    @property
    def original(self) -> str:
        """The path that it had."""
        return "/".join(
            part for part in (self.hold.root.path.rstrip("/"), self.where, self.name) if part
        )

    @property
    def path(self) -> str:
        """The path that it has."""
        return f"{self.hold.path}/{self.number}/{self.name}"


class HeldEntry(NamedTuple):
    """What the result says of a unit in quarantine; times in seconds since the epoch."""

    target: str
    path: str
    run: str
    size: int
    since: float
    until: float

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of the result."""
        from ..system.text import display_path

        return {
            "target": self.target,
            "path": display_path(self.path),
            "run": self.run,
            "size": self.size,
            "since": isoformat(self.since),
            "until": isoformat(self.until),
        }


@dataclass
class Hold:
    """The quarantine of one cleanup in one root, open and locked. ``since`` and ``until`` in seconds since the epoch."""

    root: Root
    name: str
    fd: int
    run: str
    since: float
    until: float

    @property
    def path(self) -> str:
        return f"{self.root.path.rstrip('/')}/{self.name}"

    @classmethod
    def make(cls, root: Root, run: str, seconds: float) -> Hold:
        """Make a new one, for units that are kept for so many seconds. :raises OSError: no permission, no space."""
        stamp, dash, number = run.partition("-")
        name = f"{HELD}{stamp}-{int(seconds)}{dash}{number}"
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=root.fd)
        hold = cls.take(root, name)
        if hold is None:
            raise OSError(errno.EEXIST, f"{name} is not ours")
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(DOOMED, 0o700, dir_fd=hold.fd)
        except BaseException:
            hold.close()
            raise
        return hold

    @classmethod
    def take(cls, root: Root, name: str) -> Hold | None:
        """Open one of this user's; None for anything that is not exactly that, or that a run holds."""
        match = _NAME.fullmatch(name)
        if match is None:
            return None
        try:
            fd = os.open(name, DIRECTORY, dir_fd=root.fd)
        except OSError:
            return None
        try:
            state = os.fstat(fd)
            if (
                state.st_uid != os.geteuid()
                or state.st_mode & 0o777 != 0o700
                or state.st_dev != root.device
                or (root.mount is not None and mount_id(fd) != root.mount)
            ):
                raise PermissionError
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            return None
        since = _seconds(match.group(1))
        run = match.group(1) + (match.group(3) or "")
        return cls(root, name, fd, run, since, since + int(match.group(2)))

    def compartment(self, where: str) -> Compartment:
        """Make a compartment for units of a directory, relative to the root. :raises OSError: no permission, no space."""
        number = 0
        while True:
            try:
                os.symlink(where or ".", f"{number}{_WHERE}", dir_fd=self.fd)
                break
            except FileExistsError:
                number += 1
        os.mkdir(str(number), 0o700, dir_fd=self.fd)
        return Compartment(self, number, os.open(str(number), DIRECTORY, dir_fd=self.fd))

    def open(self, name: str) -> int:
        """Open one of its directories. :raises OSError: it is not there, or not ours."""
        fd = os.open(name, DIRECTORY, dir_fd=self.fd)
        if os.fstat(fd).st_uid != os.geteuid():
            os.close(fd)
            raise PermissionError(errno.EACCES, "it is not ours")
        return fd

    def units(self) -> list[HeldUnit]:
        """Return the units in it. :raises OSError: it can't be read."""
        known = self._known()
        units = []
        for name in sorted(os.listdir(self.fd)):
            if not name.endswith(_WHERE) or not name[: -len(_WHERE)].isdecimal():
                continue
            number = int(name[: -len(_WHERE)])
            where = os.readlink(name, dir_fd=self.fd)
            if where == ".":
                where = ""
            with contextlib.suppress(FileNotFoundError), self.opened(str(number)) as fd:
                for unit in sorted(os.listdir(fd)):
                    target, size = known.get((number, unit), ("", -1))
                    units.append(HeldUnit(self, number, unit, where, target, size))
        return units

    def begun(self) -> list[str]:
        """Return the names in ``doomed``: units whose removal was interrupted."""
        try:
            with self.opened(DOOMED) as fd:
                return sorted(os.listdir(fd))
        except FileNotFoundError:
            return []

    @contextlib.contextmanager
    def opened(self, name: str) -> Iterator[int]:
        """Give one of its directories open. :raises OSError: it is not there, or not ours."""
        fd = self.open(name)
        try:
            yield fd
        finally:
            os.close(fd)

    def _known(self) -> dict[tuple[int, str], tuple[str, int]]:
        known: dict[tuple[int, str], tuple[str, int]] = {}
        with contextlib.suppress(OSError, ValueError):
            fd = os.open(
                _UNITS, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self.fd
            )
            with open(fd, encoding="utf-8", errors="surrogateescape", newline="\n") as lines:
                for line in lines:
                    with contextlib.suppress(ValueError, TypeError):
                        number, name, target, size = json.loads(line)
                        known[int(number), str(name)] = (str(target), int(size))
        return known

    def check(self, unit: HeldUnit) -> None:
        """:raises OSError: a unit can't be brought back: its directory is gone, or its path exists again."""
        with self._place(unit) as here, self.opened(str(unit.number)) as fd:
            _check_place(unit.name, fd, here)

    def bring_back(self, unit: HeldUnit) -> None:
        """Return a unit to its place. :raises OSError: its directory is gone, or the path exists again; nothing is overwritten."""
        with self._place(unit) as here, self.opened(str(unit.number)) as fd:
            _check_place(unit.name, fd, here)
            put_back(unit.name, fd, here)

    @contextlib.contextmanager
    def _place(self, unit: HeldUnit) -> Iterator[int]:
        """Give the directory open that a unit came from, none of its parts a link."""
        here = os.dup(self.root.fd)
        try:
            for part in unit.where.split("/") if unit.where else ():
                inner = os.open(part, DIRECTORY, dir_fd=here)
                os.close(here)
                here = inner
            if os.fstat(here).st_dev != self.root.device:
                raise OSError(errno.EXDEV, "its directory is on another file system now")
            yield here
        finally:
            os.close(here)

    def close(self, tidy: bool = False) -> None:
        """Close it; ``tidy``: remove what is empty in it, and itself when nothing is left."""
        if self.fd < 0:
            return
        if tidy:
            with contextlib.suppress(OSError):
                self._tidy()
        os.close(self.fd)
        self.fd = -1

    def _tidy(self) -> None:
        names = os.listdir(self.fd)
        for name in names:
            if name.endswith(_WHERE):
                with contextlib.suppress(FileNotFoundError):
                    os.rmdir(name[: -len(_WHERE)], dir_fd=self.fd)
                os.unlink(name, dir_fd=self.fd)
        if set(os.listdir(self.fd)) <= {_UNITS, DOOMED}:
            with contextlib.suppress(FileNotFoundError):
                os.rmdir(DOOMED, dir_fd=self.fd)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(_UNITS, dir_fd=self.fd)
            os.rmdir(self.name, dir_fd=self.root.fd)


@dataclass
class Compartment:
    """An open directory in a quarantine that takes the units of one directory."""

    hold: Hold
    number: int
    fd: int

    def announce(self, units: list[tuple[str, str, int]]) -> None:
        """Note (name, target, size) of units before they are moved in. Only sizes are lost when that fails."""
        text = "".join(json.dumps([self.number, *unit]) + "\n" for unit in units)
        with contextlib.suppress(OSError):
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(_UNITS, flags, 0o600, dir_fd=self.hold.fd)
            try:
                write_all(fd, text.encode("utf-8", "surrogateescape"))
            finally:
                os.close(fd)

    def close(self) -> None:
        """Close it."""
        os.close(self.fd)


def _check_place(name: str, source: int, place: int) -> None:
    """:raises OSError: the name is taken in the other directory, unless by the same file: then a run was stopped right there."""
    state = os.lstat(name, dir_fd=source)
    if exists(name, place) and (
        stat.S_ISDIR(state.st_mode) or identity(os.lstat(name, dir_fd=place)) != identity(state)
    ):
        raise FileExistsError(errno.EEXIST, "the path exists again")


def _seconds(stamp: str) -> float:
    import calendar

    return float(calendar.timegm(time.strptime(stamp, _TIME)))


def expiry(name: str) -> float:
    """Return until when the quarantine of this name keeps its units, seconds since the epoch."""
    match = _NAME.fullmatch(name)
    if match is None:
        return float("inf")
    return _seconds(match.group(1)) + int(match.group(2))


def select(units: list[HeldUnit], wanted: list[str] | None) -> list[HeldUnit]:
    """Return the units that are wanted, by their original paths or runs, the newest first; all when nothing is named.

    :raises NotUsable: one of the names fits nothing in quarantine.
    """
    newest = sorted(units, key=lambda unit: (unit.hold.since, unit.hold.run), reverse=True)
    if not wanted:
        return newest
    chosen: list[HeldUnit] = []
    for name in wanted:
        path = ""
        if name.startswith("/"):
            path = os.path.normpath(name)
        fitting = [unit for unit in newest if name == unit.hold.run or path == unit.original]
        if path:
            fitting = fitting[:1]  # what was removed last under this path
        if not fitting:
            known = ", ".join(dict.fromkeys(unit.hold.run for unit in newest)) or "none"
            raise NotUsable(
                f"Nothing in quarantine is or comes from {name}.",
                f"Name the path that a unit had, or a run. Runs in quarantine: {known}.",
                name,
            )
        chosen.extend(unit for unit in fitting if unit not in chosen)
    return chosen
