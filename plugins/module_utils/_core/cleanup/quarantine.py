# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The quarantine directory of a cleanup root, into which units are moved before they are looked at again and removed.

A unit leaves its place in one atomic step, so that a crash never leaves half of it where it looks whole. The quarantine directory
(``.mlops-fleet-trash-...``, 0700, in the cleanup root, so on the same file system) has two compartments: ``new`` holds what was moved and
not yet looked at again, ``doomed`` the directories that are being removed. The next run finishes what is in ``doomed`` and decides again
about what is in ``new``. Where the file system has no room for it, files and then the smallest directories are removed without it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat

from ..system.removal import DIRECTORY, Changed, Identity, identity
from .guards import TRASH
from .root import Root

_NAME = re.compile(re.escape(TRASH) + r"[0-9a-f]{16}")
_ASIDE = re.compile(re.escape(TRASH) + r"[0-9a-f]{16}-(.+)", re.S)
#: Mode of a directory that was set aside and is being removed.
_BEGUN = 0o1700


class Quarantine:
    """The quarantine directory of a root: made new, or left behind by a run that was stopped. It is locked while it is open."""

    def __init__(self, root: Root, name: str, fd: int, new: int, doomed: int) -> None:
        self.root, self.name, self.fd, self.new, self.doomed = root, name, fd, new, doomed

    @property
    def path(self) -> str:
        return f"{self.root.path.rstrip('/')}/{self.name}"

    def place(self, *where: str) -> str:
        """Return the path of a unit: compartment and name."""
        return "/".join((self.path, *where))

    @classmethod
    def make(cls, root: Root) -> Quarantine:
        """Make a new one. :raises OSError: no permission, no space."""
        name = TRASH + os.urandom(8).hex()
        os.mkdir(name, 0o700, dir_fd=root.fd)
        fd = os.open(name, DIRECTORY, dir_fd=root.fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for compartment in ("new", "doomed"):
                os.mkdir(compartment, 0o700, dir_fd=fd)
            return cls(
                root,
                name,
                fd,
                os.open("new", DIRECTORY, dir_fd=fd),
                os.open("doomed", DIRECTORY, dir_fd=fd),
            )
        except BaseException:
            for compartment in ("new", "doomed"):
                with contextlib.suppress(OSError):
                    os.rmdir(compartment, dir_fd=fd)
            os.close(fd)
            with contextlib.suppress(OSError):
                os.rmdir(name, dir_fd=root.fd)
            raise

    @classmethod
    def take(cls, root: Root, name: str) -> Quarantine | None:
        """Open what a stopped run of this user left; None for anything that is not exactly that, or that a run holds."""
        if not _NAME.fullmatch(name):
            return None
        fds: list[int] = []
        try:
            for compartment in ("", "new", "doomed"):
                if compartment and compartment not in os.listdir(fds[0]):
                    fds.append(-1)  # stopped while it was made or removed
                    continue
                fds.append(
                    os.open(
                        compartment or name, DIRECTORY, dir_fd=fds[0] if compartment else root.fd
                    )
                )
                state = os.fstat(fds[-1])
                if (
                    state.st_uid != os.geteuid()
                    or state.st_mode & 0o777 != 0o700
                    or state.st_dev != root.device
                ):
                    raise PermissionError
                if not compartment:
                    fcntl.flock(fds[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if not set(os.listdir(fds[0])) <= {"new", "doomed"}:
                        raise PermissionError
            return cls(root, name, *fds)
        except OSError:
            for fd in fds:
                if fd >= 0:
                    os.close(fd)
            return None

    def complete(self) -> None:
        """Make the compartments that a stopped run had not made yet. :raises OSError: no permission, no space."""
        for compartment in ("new", "doomed"):
            if getattr(self, compartment) < 0:
                os.mkdir(compartment, 0o700, dir_fd=self.fd)
                setattr(self, compartment, os.open(compartment, DIRECTORY, dir_fd=self.fd))

    def put_back(self, name: str) -> None:
        """Return a unit from ``new`` to its place. :raises OSError: something else has taken the place; nothing is overwritten."""
        put_back(name, self.new, self.root.fd)

    def close(self, tidy: bool = True) -> None:
        """Close it; ``tidy``: remove it when it is empty."""
        if tidy:
            for compartment in ("new", "doomed"):
                with contextlib.suppress(OSError):
                    os.rmdir(compartment, dir_fd=self.fd)
            with contextlib.suppress(OSError):
                os.rmdir(self.name, dir_fd=self.root.fd)
        for fd in (self.new, self.doomed, self.fd):
            if fd >= 0:
                os.close(fd)


def put_back(name: str, source: int, place: int) -> None:
    """Move an entry from one open directory to another. :raises OSError: the name is taken there; nothing is overwritten."""
    state = os.lstat(name, dir_fd=source)
    if stat.S_ISDIR(state.st_mode):
        # rename(2) replaces nothing but an empty directory by a directory.
        os.rename(name, name, src_dir_fd=source, dst_dir_fd=place)
        return
    try:
        os.link(name, name, src_dir_fd=source, dst_dir_fd=place, follow_symlinks=False)
    except FileExistsError:
        if identity(os.lstat(name, dir_fd=place)) != identity(state):
            raise  # otherwise a run was stopped right here
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK):
            raise
        # No hard links here, or not for this user: an empty file claims the name, and the rename replaces nothing but that.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        os.close(os.open(name, flags, 0o600, dir_fd=place))
        os.rename(name, name, src_dir_fd=source, dst_dir_fd=place)
        return
    os.unlink(name, dir_fd=source)


class Aside(Quarantine):
    """A directory that was set aside under another name in its root, because there was no room for a quarantine directory. Its mode says
    whether its removal has begun; until then it goes back."""

    def __init__(self, root: Root, name: str, original: str) -> None:
        super().__init__(root, name, root.fd, root.fd, root.fd)
        self.original = original

    @classmethod
    def name_for(cls, original: str) -> str:
        return f"{TRASH}{os.urandom(8).hex()}-{original}"

    @classmethod
    def take(cls, root: Root, name: str) -> Aside | None:
        """Open what a stopped run left; None for anything else. One cleanup runs at a time, and it has only one."""
        match = _ASIDE.fullmatch(name)
        try:
            if match and stat.S_ISDIR(os.lstat(name, dir_fd=root.fd).st_mode):
                return cls(root, name, match.group(1))
            return None
        except OSError:
            return None

    @property
    def begun(self) -> bool:
        """Whether its removal has begun. Nobody else can make a directory that looks so."""
        state = os.lstat(self.name, dir_fd=self.root.fd)
        return (
            state.st_uid == os.geteuid()
            and state.st_mode & 0o7777 == _BEGUN
            and state.st_dev == self.root.device
        )

    def begin(self, expected: Identity) -> None:
        """Mark it as being removed; no name and no block is needed for that. :raises OSError: not ours to remove."""
        fd = os.open(self.name, DIRECTORY, dir_fd=self.root.fd)
        try:
            if identity(os.fstat(fd)) != expected:
                raise Changed("it was replaced by something else")
            if os.fstat(fd).st_uid != os.geteuid():
                os.fchown(fd, os.geteuid(), -1)
            os.fchmod(fd, _BEGUN)
        finally:
            os.close(fd)

    def place(self, *_where: str) -> str:
        return self.path

    def put_back(self, name: str) -> None:
        os.rename(self.name, name, src_dir_fd=self.root.fd, dst_dir_fd=self.root.fd)

    def close(self, tidy: bool = True) -> None:
        """It has no descriptors of its own."""
