# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An open cleanup root: where it is, and which names in it must stay."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from ..system import mounts
from ..system.mounts import Mount
from ..system.removal import Identity, mount_id
from . import guards
from .checkpoints import open_below
from .inuse import InUse
from .scan import STAMPS, Look, list_files, open_root
from .targets import Target, cutoff
from .units import Unit
from .watch import NameWatch, TreeWatch

#: File systems whose locks the kernel lists under the device that stat(2) returns.
_LOCKS_LISTED = frozenset({"ext2", "ext3", "ext4", "f2fs", "tmpfs", "xfs"})
#: File systems that nobody changes from elsewhere, and where one directory is one inode.
_WATCHED = mounts.ANSWERING - {"overlay"}
_LOGS = "/var/log"
Names = list[str]


@dataclass
class Root:
    """An open cleanup root.

    ``device`` is st_dev, ``mount`` the mount id, ``source`` (major:minor, path inside that file system), ``given`` the path as it was
    configured, ``fstype`` its file system. ``own`` are the paths that the run itself needs, and why.
    """

    fd: int
    path: str
    device: int
    mount: int | None
    source: tuple[str, str] | None = None
    given: str = ""
    fstype: str = ""
    overlay: bool = False
    own: dict[str, str] = field(default_factory=dict)
    #: Names of the symbolic links, and of our own jobs' logs, in it.
    links: set[str] = field(default_factory=set)
    logs: set[str] = field(default_factory=set)
    #: Names of quarantine directories that stopped runs left in it.
    leftovers: list[str] = field(default_factory=list)
    #: Names of directories in it that keep removed units.
    held: list[str] = field(default_factory=list)
    #: Returns the names in it that a tracker names, and why they stay.
    trackers: Callable[[], dict[str, str]] | None = None
    _watch: NameWatch | None = None

    @property
    def place(self) -> guards.Place:
        """Where it is, as the guards want it."""
        return guards.Place(self.path, self.given, self.source)

    def look(
        self,
        target: Target,
        busy: InUse | None,
        now: float,
        moved: bool = False,
        watch: TreeWatch | None = None,
    ) -> Look:
        """Return what a survey of one of this root's units looks out for. ``watch`` is used where it sees everything."""
        if not self.watched or target.age_by == "atime" or (busy and busy.hidden is not None):
            watch = None
        stamp, fresh = STAMPS[target.age_by], cutoff(target, now)
        look = Look(
            stamp,
            self.device,
            self.mount,
            excluded=target.excluded,
            fresh=fresh,
            moved=moved,
            watch=watch,
        )
        if busy is None:
            return look
        return Look(
            stamp,
            self.device,
            self.mount,
            busy.identities,
            busy.inodes,
            busy.hidden,
            look.excluded,
            fresh,
            moved,
            watch,
        )

    def knows_locks(self, busy: InUse) -> bool:
        """Return whether every lock on a file in it is among what is in use, so that no file need be opened to ask."""
        return busy.locks_listed and self.fstype in _LOCKS_LISTED

    def inside(self, where: str, expected: Identity) -> Root:
        """Open a directory below this root as a root of its own.

        :raises OSError: it is gone or can't be read. :raises Changed: it is another one than expected.
        """
        fd = open_below(self.fd, where, expected)
        if not where:
            return replace(self, fd=fd, links=set(), logs=set(), leftovers=[], held=[], _watch=None)
        source = self.source
        if source is not None:
            source = (source[0], f"{source[1].rstrip('/')}/{where}")
        return replace(
            self,
            fd=fd,
            path=f"{self.path.rstrip('/')}/{where}",
            given=f"{self.given.rstrip('/')}/{where}",
            source=source,
            links=set(),
            logs=set(),
            leftovers=[],
            held=[],
            _watch=None,
        )

    @property
    def watched(self) -> bool:
        """Whether the kernel reports all that happens to the names in it."""
        return self.fstype in _WATCHED

    def list(
        self,
        look: Look | None = None,
        fitting: Callable[[str], object] | None = None,
        files: list[Unit] | None = None,
        touched: bool = False,
    ) -> list[str]:
        """Return the names in it. Lists it once: afterwards the kernel reports names that appear. :raises OSError: it can't be read.

        :param files: receives the plain files instead, as list_files() looks at them with ``look`` and ``fitting``.
        :param touched: whether the kernel also reports which entries are opened or changed from now on.
        """
        self._end_watch()
        if self.watched:
            with contextlib.suppress(OSError):
                self._watch = NameWatch(self.fd, touched)
        self.links, self.logs = set(), set()
        names: Names = []
        if look is not None and files is not None and self.path != _LOGS:
            points = {guards.unit_of(mount.point, self.path) for mount in mounts.read()}
            names, plain_files = list_files(self.fd, look, fitting, points, self.links)
            files.extend(plain_files)
        else:
            with os.scandir(self.fd) as entries:
                for entry in entries:
                    names.append(entry.name)
                    if entry.is_symlink():
                        self.links.add(entry.name)
        if self.path == _LOGS:
            self._note_logs(names)
        self._note_own(names)
        return names

    def find_own(self) -> None:
        """Bring ``leftovers`` and ``held`` up to date. :raises OSError: it can't be read."""
        self._note_own(os.listdir(self.fd))

    def _note_own(self, names: Sequence[str]) -> None:
        own = [name for name in names if name.startswith(".mlops-fleet-")]
        self.leftovers = sorted(name for name in own if name.startswith(guards.TRASH))
        self.held = sorted(name for name in own if name.startswith(guards.HELD))

    def _note_logs(self, names: Sequence[str]) -> None:
        self.logs.update(name for name in names if guards.OWN_LOGS.fullmatch(name))

    @property
    def touches(self) -> NameWatch | None:
        """The watch that collects what was touched since the entries were listed with ``touched``; None when there is none."""
        if self._watch is None or self._watch.touched is None:
            return None
        return self._watch

    def refresh(self) -> bool:
        """Bring ``links`` and ``logs`` up to date; return whether names appeared, or may have. :raises OSError: it can't be read."""
        names = None if self._watch is None else self._watch.names()
        if names is None:
            self.list()
            return True
        for name in names:
            with contextlib.suppress(OSError):
                os.readlink(name, dir_fd=self.fd)
                self.links.add(name)
        if self.path == _LOGS:
            self._note_logs(sorted(names))
        return bool(names)

    def protected(self, busy: InUse | None, directory: str = "", fd: int = -1) -> dict[str, str]:
        """Return the names in a directory that must stay whatever their age, and why. Reads the mount table again.

        :param directory: path of a compartment of the root's quarantine, open as ``fd``; by default the root itself.
        """
        self.refresh()
        directory = directory or self.path
        table = mounts.read()
        points = {mount.point for mount in table}
        links = []
        for link in sorted(self.links):
            unit = self._unit_named_by(link, table)
            # A mount point exists, and looking at it might take for ever.
            if unit and (
                f"{self.path.rstrip('/')}/{unit}" in points
                or f"{directory}/{unit}" in points
                or exists(unit, self.fd)
                or exists(unit, fd)
            ):
                links.append((link, unit))
        reasons = guards.protected(
            self.place,
            directory,
            self.own,
            points,
            () if busy is None else busy.mounts,
            links,
            self.logs,
        )
        if self.trackers is not None:
            for name, reason in self.trackers().items():
                reasons.setdefault(name, reason)
        return reasons

    def _unit_named_by(self, link: str, table: Sequence[Mount]) -> str:
        """Return the name in the root that a link in the root (``latest``) leads to, empty when it leads elsewhere.

        Compared as text first, and through the mount table: a link into a dead network mount must not be followed.
        """
        try:
            target = os.readlink(link, dir_fd=self.fd)
        except OSError:
            return ""
        where = os.path.join(self.path, target)
        resolve: tuple[Callable[[], str], ...] = (
            lambda: os.path.normpath(where),
            lambda: mounts.follow(where, table, self.mount),
        )
        for path_of in resolve:
            path = path_of()
            unit = guards.unit_at(self.place, path, mounts.located(path, table))
            if unit:
                return unit
        return ""

    def _end_watch(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def close(self) -> None:
        """Close its descriptors."""
        self._end_watch()
        os.close(self.fd)


def exists(name: str, fd: int) -> bool:
    """Return whether an open directory has an entry of this name; -1 is none, which the kernel refuses."""
    try:
        os.lstat(name, dir_fd=fd)
    except OSError:
        return False
    return True


def open_target(target: Target) -> Root:
    """Open a target's directory.

    :raises FileNotFoundError: it does not exist. :raises NotUsable: it is not a directory, or not accessible. :raises Refused: it can't be
        trusted.
    """
    fd, path = open_root(target.path)
    root = Root(fd, path, os.fstat(fd).st_dev, mount_id(fd), given=target.path)
    try:
        table = mounts.read()
    except BaseException:
        os.close(fd)
        raise
    root.source = mounts.located(path, table)
    for mount in table:
        if root.mount is None or mount.id == root.mount:
            root.overlay |= mount.fstype == "overlay"
            root.fstype = mount.fstype if mount.id == root.mount else ""
    return root
