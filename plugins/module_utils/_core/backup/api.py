# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What other parts may ask about backups; nothing else of this part is theirs to import."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import NotPermitted, StoreError
from . import names
from .options import S3Connection, check_s3

if TYPE_CHECKING:
    from .catalogue import Backup
    from .s3.bucket import Bucket

# Other parts import these here.
__all__ = ("Backup", "S3Connection", "check_s3")


def is_backup_file(name: str) -> bool:
    """Say whether ``name`` is the file name of a backup's archive, checksum file or manifest."""
    return names.is_companion(name)


def default_directory() -> str:
    """Return where backups are made unless configured otherwise."""
    from .options import BackupOptions

    return str(BackupOptions.default("destination"))


def contents_of(backup: Backup) -> set[tuple[int, str]]:
    """Return size in bytes and SHA-256 of each file in a verified backup, by its manifest.

    Empty when the manifest can't be read any more. :raises NotUsable: it is damaged.
    """
    from . import members

    if not backup.is_set:
        return _contents(backup)
    contents: set[tuple[int, str]] = set()
    for member in members.local_members(backup):
        contents |= _contents(member)
    return contents


def _contents(archive: Backup) -> set[tuple[int, str]]:
    from . import manifest

    path = archive.path + names.MANIFEST
    try:
        with open(path, "rb") as stream:
            raw = stream.read()
    except OSError:
        return set()
    return {
        (entry["size"], entry["sha256"])
        for entry in manifest.parse(raw, path)["entries"]
        if "sha256" in entry
    }


class StoredBackups(NamedTuple):
    """The copies in object storage, newest first, and what returns the contents of one.

    ``contents`` is like ``contents_of``. :raises StoreError: it can't be read.
    """

    backups: list[Backup]
    contents: Callable[[Backup], set[tuple[int, str]]]


def stored_at(connection: S3Connection) -> StoredBackups:
    """Return the copies under a bucket and prefix, by their manifests.

    :raises MissingLibrary: boto3 is not installed or too old.
    :raises StoreError: the bucket can't be read.
    """
    from .s3.sets import S3Sets

    store = S3Sets(connection)

    def contents(backup: Backup) -> set[tuple[int, str]]:
        archives = [backup]
        if backup.is_set:
            archives = store.members(backup)
        files = set()
        for archive in archives:
            listed = store.contents(archive)
            if listed is not None and not archive.problems:
                for entry in listed.entries:
                    if "sha256" in entry:
                        files.add((entry["size"], entry["sha256"]))
        return files

    return StoredBackups(store.listing(), contents)


def backups_at(path: str) -> list[Backup]:
    """Return the backups in a directory, newest first, or a single backup.

    Empty when there is none.

    :param path: a directory, or the archive or manifest of one backup.
    :raises NotUsable: the directory can't be read.
    :raises NotPermitted: this user may not read some backups, and none of the others is verified.
    """
    from . import catalogue

    if os.path.isdir(path):
        backups = catalogue.listing(path)
    else:
        archive = path[: -len(names.MANIFEST)] if path.endswith(names.MANIFEST) else path
        backup = catalogue.inspect(*os.path.split(archive))
        backups = [] if backup is None else [backup]
    if not any(backup.verified for backup in backups):
        for backup in backups:
            if backup.unreadable:
                raise NotPermitted(backup.unreadable, catalogue.TODO, backup.path)
    return backups


def open_bucket(given: Mapping[str, Any]) -> Bucket:
    """Return a bucket for documents of another part.

    :param given: the options of the connection, with bucket and prefix.
    :raises OptionError: one can't be used. :raises MissingLibrary: boto3 is not installed or too
        old.
    """
    from .s3.bucket import Bucket

    connection = S3Connection.from_mapping(given)
    connection.check_together()
    return Bucket(connection)


def is_missing_object(error: StoreError) -> bool:
    """Say whether the server reported that there is no such object."""
    from .s3.connection import error_code

    return hasattr(error.__cause__, "response") and error_code(error.__cause__) == "NoSuchKey"
