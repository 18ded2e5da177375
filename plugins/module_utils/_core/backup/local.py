# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups in a directory on this machine."""

from __future__ import annotations

import os
from typing import BinaryIO

from . import catalogue, members, reading
from .catalogue import Backup
from .manifest import Contents


class LocalStore:
    """A directory on this machine."""

    connections = 1

    def __init__(self, path: str) -> None:
        self._path = path

    def listing(self) -> list[Backup]:
        return catalogue.listing(self._path)

    def members(self, backup: Backup) -> list[Backup]:
        return members.local_members(backup)

    def contents(self, backup: Backup) -> Contents | None:
        return catalogue.contents(backup)

    def read(self, backup: Backup, offset: int, length: int) -> bytes:
        with reading.open_archive(backup.path) as stream:
            return os.pread(stream.fileno(), length, offset)

    def open(self, backup: Backup) -> BinaryIO:
        return reading.open_archive(backup.path)

    def url(self, name: str) -> str:
        return os.path.join(self._path, name) if name else self._path

    def local_path(self, backup: Backup) -> str | None:
        return backup.path
