# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether every file of a unit is in a verified backup: by size first, then by SHA-256. Reads only."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from ..backup.api import backups_at, contents_of, stored_at
from ..errors import NotUsable, StoreError
from ..system.removal import Changed, Identity, identity, open_checked, open_directory
from ..system.text import display_path

if TYPE_CHECKING:
    from ..backup.api import Backup
    from .options import RequireBackupOptions

#: (size in bytes, SHA-256) of a file.
Content = tuple[int, str]
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_BLOCK = 1 << 20


class BackupFacts(NamedTuple):
    """One backup, as far as the interlock asks: its archive's name, when it was made (seconds since the epoch), and what is wrong."""

    name: str
    created: float
    verified: bool
    problems: tuple[str, ...] = ()


class Interlock:
    """The backups that an interlock asks for, in a directory and in S3.

    :raises FleetError: they can't be read.
    """

    def __init__(self, required: RequireBackupOptions) -> None:
        self._sources: list[tuple[Backup, Callable[[Backup], set[Content]]]] = []
        if required.path is not None:
            self._sources += [(backup, contents_of) for backup in backups_at(required.path)]
        if required.s3 is not None:
            stored = stored_at(required.s3)
            self._sources += [(backup, stored.contents) for backup in stored.backups]
        self._sources.sort(key=lambda source: source[0].created, reverse=True)

    @property
    def backups(self) -> list[BackupFacts]:
        """What is known of them, the newest first."""
        return [
            BackupFacts(backup.name, backup.created, backup.verified, tuple(backup.problems))
            for backup, dummy in self._sources
        ]

    @property
    def coverage(self) -> Coverage:
        """The contents of the verified ones, read when they are needed."""
        return Coverage(self._contents)

    def _contents(self) -> set[Content]:
        files: set[Content] = set()
        for backup, contents in self._sources:
            if backup.verified:
                # One that is damaged or out of reach by now covers nothing.
                with contextlib.suppress(NotUsable, StoreError):
                    files |= contents(backup)
        return files


class Coverage:
    """The contents of the verified backups. ``contents`` is called when the first unit is asked for."""

    def __init__(self, contents: Callable[[], set[Content]]) -> None:
        self._read = contents
        self._contents: set[Content] | None = None
        self._sizes: set[int] = set()

    def missing(self, parent: int, name: str) -> str:
        """Return why a unit of an open directory is not covered, empty when each of its files is in a backup."""
        if self._contents is None:
            self._contents = self._read()
            self._sizes = {size for size, dummy in self._contents}
        try:
            state = os.lstat(name, dir_fd=parent)
            if stat.S_ISDIR(state.st_mode):
                return self._directory(parent, name, identity(state), name)
            return self._file(parent, name, state, name)
        except (OSError, Changed) as error:
            return f"it can't be compared with the backups: {error}"

    def _directory(self, parent: int, name: str, expected: Identity, where: str) -> str:
        fd = open_checked(name, parent, expected, where)
        directories = []
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    state = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(state.st_mode):
                        directories.append((entry.name, identity(state)))
                        continue
                    why = self._file(fd, entry.name, state, f"{where}/{entry.name}")
                    if why:
                        return why
            for inner, identity_ in directories:
                why = self._directory(fd, inner, identity_, f"{where}/{inner}")
                if why:
                    return why
        finally:
            os.close(fd)
        return ""

    def _file(self, parent: int, name: str, state: os.stat_result, where: str) -> str:
        # Links, sockets and empty files have no content to lose.
        if not stat.S_ISREG(state.st_mode) or state.st_size == 0:
            return ""
        missing = f"{display_path(where)} is in no verified backup"
        if state.st_size not in self._sizes:
            return missing
        fd = open_directory(name, parent, _FILE)
        try:
            if identity(os.fstat(fd)) != identity(state):
                raise Changed(f"{where} was replaced while it was read")
            digest, size = hashlib.sha256(), 0
            while True:
                block = os.read(fd, _BLOCK)
                if not block:
                    break
                size += len(block)
                digest.update(block)
        finally:
            os.close(fd)
        if (size, digest.hexdigest()) in (self._contents or ()):
            return ""
        return missing
