# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where backups and their copies are kept: one protocol for all places.

A further kind of object storage is one entry in ``COPY_STORES`` plus the module that implements
CopyStore.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple, Protocol

from ..registry import Registry
from . import verify
from .catalogue import Backup
from .local import LocalStore
from .options import S3Connection
from .store import CopyStore, Store


class ArchiveStore(LocalStore):
    """A single archive on this machine, whatever its name."""

    def listing(self) -> list[Backup]:
        return [verify.at(self._path)]


class CopyOptions(Protocol):
    """Options that may name places for copies."""

    @property
    def s3(self) -> S3Connection | None:
        """Object storage that speaks S3."""
        ...  # pylint: disable=unnecessary-ellipsis


class CopyStoreKind(NamedTuple):
    """A kind of place for copies.

    :param connect: makes the store, None when the options do not ask for it.
    :raises MissingLibrary:
    :raises StoreError:
    """

    name: str
    connect: Callable[[CopyOptions], CopyStore | None]


def _connect_s3(options: CopyOptions) -> CopyStore | None:
    if options.s3 is None:
        return None
    from .s3.sets import S3Sets

    return S3Sets(options.s3)


#: In the order in which copies are made.
COPY_STORES: Registry[CopyStoreKind] = Registry(
    "copy store",
    (
        CopyStoreKind(
            name="s3",
            connect=_connect_s3,
        ),
    ),
    required=("connect",),
)


def copy_stores(options: CopyOptions) -> tuple[CopyStore, ...]:
    """Return the places that the options name for copies.

    :raises MissingLibrary: a library is missing. :raises StoreError: a setting can't be used.
    """
    stores = [kind.connect(options) for kind in COPY_STORES]
    return tuple(store for store in stores if store is not None)


def to_read(options: CopyOptions, path: str) -> Store:
    """Return the place to read backups from.

    The copies where the options name any, else a directory or an archive.

    Raises like ``copy_stores``.
    """
    copies = copy_stores(options)
    if copies:
        return copies[0]
    if os.path.isdir(path) or not os.path.lexists(path):
        return LocalStore(path)
    return ArchiveStore(path)
