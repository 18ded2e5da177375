# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a place that keeps backups or their copies has to offer; the places are listed in
``stores``.
"""

from __future__ import annotations

from typing import BinaryIO, Protocol, TypedDict

from ..ports import Tell
from .catalogue import Backup
from .manifest import Contents


class StoredCopy(TypedDict):
    """A copy in a store, as modules return it. ``verified`` is ``checksum`` or ``size_only``."""

    url: str
    size: int
    sha256: str | None
    verified: str
    storage_class: str
    uploaded: bool


class Store(Protocol):
    """A place from which backups are read."""

    @property
    def connections(self) -> int:
        """How many ranges of an archive may be read at the same time."""
        ...  # pylint: disable=unnecessary-ellipsis

    def listing(self) -> list[Backup]:
        """Return the backups there, newest first. :raises FleetError: the place can't be read."""
        ...  # pylint: disable=unnecessary-ellipsis

    def members(self, backup: Backup) -> list[Backup]:
        """Return the archives that a set names, with what is wrong with each as its problems.

        :raises FleetError: the place can't be read.
        """
        ...  # pylint: disable=unnecessary-ellipsis

    def contents(self, backup: Backup) -> Contents | None:
        """Return what the backup's manifest lists, None where it has no manifest.

        :raises FleetError: it is damaged, or can't be read.
        """
        ...  # pylint: disable=unnecessary-ellipsis

    def read(self, backup: Backup, offset: int, length: int) -> bytes:
        """Return a range of the archive, shorter where it ends.

        :raises FleetError: it can't be read. :raises OSError: likewise.
        """
        ...  # pylint: disable=unnecessary-ellipsis

    def open(self, backup: Backup) -> BinaryIO:
        """Return the archive as a stream. :raises FleetError: it can't be read."""
        ...  # pylint: disable=unnecessary-ellipsis

    def url(self, name: str) -> str:
        """Return the path or URL of an archive, of the place itself for ``""``."""
        ...  # pylint: disable=unnecessary-ellipsis

    def local_path(self, backup: Backup) -> str | None:
        """Return where the archive is on this machine, None when it is elsewhere."""
        ...  # pylint: disable=unnecessary-ellipsis


class CopyStore(Store, Protocol):
    """A place to which local backups are copied."""

    @property
    def prunes(self) -> bool:
        """Whether the retention rules apply to the copies too."""
        ...  # pylint: disable=unnecessary-ellipsis

    def look(self) -> None:
        """Make sure that the place exists.

        :raises StoreError: it does not, or there is no connection to it.
        """
        ...  # pylint: disable=unnecessary-ellipsis

    def present(self, backup: Backup) -> StoredCopy | None:
        """Return the complete copy of this very backup.

        :raises StoreError: another backup has its name.
        """
        ...  # pylint: disable=unnecessary-ellipsis

    def upload(self, backup: Backup, tell: Tell) -> StoredCopy:
        """Copy a local backup.

        :raises StoreError: it failed, and nothing there looks like a copy.
        """
        ...  # pylint: disable=unnecessary-ellipsis

    def remove(self, name: str) -> None:
        """Remove a copy. :raises StoreError: the place refused."""
        ...  # pylint: disable=unnecessary-ellipsis
