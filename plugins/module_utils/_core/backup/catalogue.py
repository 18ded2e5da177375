# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which backups a directory holds.

Only files that are named exactly as ours count; links never do.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import BinaryIO

from ..errors import NotPermitted, NotUsable
from ..system.text import display_path
from . import manifest as manifests
from . import sets
from .backups import Backup, Description
from .manifest import Contents, Head
from .names import (
    CHECKSUM,
    MANIFEST,
    is_archive,
    is_backup,
    is_member,
    is_set,
    is_temporary,
    stamp_time,
)

__all__ = ("Backup", "Description")

DAY = 86400.0
#: What to do where this user may not read something.
TODO = "Run this as root or as the user who made the backups."


def newest_first(backups: Iterable[Backup]) -> list[Backup]:
    """Return the backups in the order in which they are listed."""
    return sorted(backups, key=lambda backup: (backup.created, backup.name), reverse=True)


def directory_names(directory: str) -> list[str]:
    """Return the names in a backup directory, [] when it does not exist.

    :raises NotUsable: it can't be read.
    """
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []
    except PermissionError as error:
        raise NotPermitted(
            f"Can't read the backup directory {directory}: {error.strerror}.", TODO, directory
        ) from error
    except OSError as error:
        raise NotUsable(
            f"Can't read the backup directory {directory}: {error.strerror}.",
            "Check its path and permissions.",
            directory,
        ) from error


def listing(directory: str) -> list[Backup]:
    """Return the backups in a directory, newest first; an empty list when it does not exist.

    :raises NotUsable: the directory can't be read.
    """
    present = set(directory_names(directory))
    backups = [inspect(directory, name) for name in present if is_backup(name)]
    backups += [_without_archive(directory, name) for name in present if _lost(name, present)]
    return newest_first(backup for backup in backups if backup is not None)


def _lost(name: str, present: set[str]) -> bool:
    """Say whether ``name`` is the manifest of an archive that is not among the names."""
    archive = name[: -len(MANIFEST)]
    return name.endswith(MANIFEST) and is_archive(archive) and archive not in present


def _without_archive(directory: str, name: str) -> Backup:
    archive = name[: -len(MANIFEST)]
    return Backup(
        archive,
        os.path.join(directory, archive),
        stamp_time(archive) or 0.0,
        0,
        problems=("the archive is gone; only its manifest is left",),
        lost=True,
    )


def inspect(directory: str, name: str) -> Backup | None:
    """Return what is known about an archive without reading it, or about a set.

    None when there is no such file.
    """
    path = os.path.join(directory, name)
    if is_set(name):
        return _inspect_set(directory, name)
    created = stamp_time(name)
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        problem = f"Can't look at {path}: {error.strerror}."
        denied = problem if isinstance(error, PermissionError) else ""
        return Backup(name, path, created or 0.0, 0, problems=(problem,), unreadable=denied)
    if not stat.S_ISREG(status.st_mode):
        return None
    backup = Backup(name, path, status.st_mtime if created is None else created, status.st_size)
    problems = []
    checksum: str | None = None
    try:
        checksum = read_checksum(path)
    except NotUsable as error:
        problems.append(error.message)
        backup = _denied(backup, error)
    try:
        manifest, index_problem = _read_head(path + MANIFEST)
    except NotUsable as error:
        backup = _denied(backup, error)
        return replace(backup, sha256=checksum, problems=(*problems, error.message))
    if manifest is None:
        if checksum is None and not problems:
            problems.append("neither manifest nor checksum file: an unfinished or foreign archive")
        return replace(backup, sha256=checksum, legacy=not problems, problems=tuple(problems))
    problems += contradictions(manifest, name, status.st_size, "archive")
    if checksum is not None and checksum != manifest["archive"]["sha256"]:
        problems.append("the checksum file and the manifest disagree")
    return replace(
        backup,
        created=float(manifest["created"]),
        sha256=manifest["archive"]["sha256"],
        manifest=manifest,
        problems=tuple(problems),
        index_problem=index_problem,
    )


def _inspect_set(directory: str, name: str) -> Backup | None:
    """Return a set; what is wrong with its archives as far as names and sizes tell is a problem."""
    path = os.path.join(directory, name)
    backup = Backup(name, path, stamp_time(name) or 0.0, 0)
    try:
        raw = _read(path)
        if raw is None:
            return None
        head = sets.parse(raw, path)
    except NotUsable as error:
        return replace(_denied(backup, error), problems=(error.message,))
    problems = contradictions(head, name, head["archive"]["size"], "set")
    for archive in head["archives"]:
        file = os.path.join(directory, archive["name"])
        problems += sets.contradictions(archive, _size(file), _size(file + MANIFEST) is not None)
    return replace(
        backup,
        created=float(head["created"]),
        size=head["archive"]["size"],
        sha256=head["archive"]["sha256"],
        manifest=head,
        problems=tuple(problems),
    )


def _size(path: str) -> int | None:
    """Return the size of a file in bytes, None when it is not there or no file."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _denied(backup: Backup, error: NotUsable) -> Backup:
    """Note that this user may not read a file of the backup, if that is the error."""
    return replace(backup, unreadable=error.message) if isinstance(error, NotPermitted) else backup


def contradictions(manifest: Head, name: str, size: int, what: str) -> list[str]:
    """Return how an archive contradicts the manifest beside it by its name and size in bytes.

    :param what: the noun for the archive in messages (``archive``, ``object``).
    """
    problems = []
    if manifest["name"] != name:
        problems.append(f"the manifest belongs to {display_path(manifest['name'])}")
    expected = manifest["archive"]["size"]
    if expected != size:
        problems.append(f"the {what} is {size} bytes long, but was {expected} when it was made")
    return problems


def _opened(path: str) -> BinaryIO | None:
    """Return a file opened for reading, not through a link; None when there is none.

    :raises NotUsable: it can't be opened.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise NotPermitted(f"Can't read {path}: {error.strerror}.", TODO, path) from error
    except OSError as error:
        raise NotUsable(f"Can't read {path}: {error.strerror}.", "", path) from error
    return os.fdopen(fd, "rb", buffering=0)


def _read(path: str) -> bytes | None:
    """Return the content of a file, not through a link; None when there is none.

    :raises NotUsable: it can't be read.
    """
    stream = _opened(path)
    if stream is None:
        return None
    try:
        with stream:
            return stream.read()
    except OSError as error:
        raise NotUsable(f"Can't read {path}: {error.strerror}.", "", path) from error


def _read_head(path: str) -> tuple[Head | None, str]:
    """Return the head of a manifest, None when there is none, and what is wrong with its index.

    :raises NotUsable: it is damaged.
    """
    stream = _opened(path)
    if stream is None:
        return None, ""
    try:
        with stream:
            return manifests.read_head(stream.read, os.fstat(stream.fileno()).st_size, path)
    except OSError as error:
        raise NotUsable(f"Can't read {path}: {error.strerror}.", "", path) from error


def read_manifest(backup: Backup) -> bytes:
    """Return the manifest of a local backup as it is stored.

    :raises NotUsable: it is not there any more, or can't be read.
    """
    path = backup.path + MANIFEST
    raw = _read(path)
    if raw is None:
        raise NotUsable(f"The manifest {path} is gone.", "", path)
    return raw


def contents(backup: Backup) -> Contents | None:
    """Return what the manifest of a local backup lists, None where it has no manifest.

    :raises NotUsable: its entries are damaged, or can't be read.
    """
    if backup.manifest is None:
        return None
    return same_manifest(backup, read_manifest(backup), backup.path + MANIFEST)


def same_manifest(backup: Backup, raw: bytes, where: str) -> Contents:
    """Return the contents in ``raw``, which must be the manifest whose head the backup has.

    :raises NotUsable: it is damaged, or belongs to another backup by now.
    """
    head, listed = manifests.read_contents(raw, where)
    if head != backup.manifest:
        raise NotUsable(f"The manifest {where} was replaced meanwhile.", "Try again.", where)
    return listed


def read_checksum(archive: str) -> str | None:
    """Return the SHA-256 in the checksum file beside an archive, None when there is none.

    :raises NotUsable: it is no such file.
    """
    path = archive + CHECKSUM
    raw = _read(path)
    if raw is None:
        return None
    checksum = parse_checksum(raw, os.path.basename(archive))
    if checksum is None:
        raise NotUsable(
            f"The checksum file {path} holds no SHA-256 of {os.path.basename(archive)}.", "", path
        )
    return checksum


def parse_checksum(raw: bytes, archive: str) -> str | None:
    """Return the SHA-256 at the beginning of what sha256sum(1) wrote.

    None when there is none, or it is the checksum of another backup.
    """
    match = re.match(rb"\\?([0-9A-Fa-f]{64})(?: [ *]([^\n]*))?(?:\n|$)", raw)
    if match is None:
        return None
    title = os.fsdecode(match.group(2) or b"-").rpartition("/")[2]
    # A backup copied under a name of the user's own may bring the checksum file of its old name.
    if (is_archive(archive) or is_member(archive)) and title not in ("-", archive):
        return None
    return match.group(1).decode("ascii").lower()


def stale(names: Iterable[str]) -> list[str]:
    """Return the temporary files of ours among the names.

    Under the lock they all belong to dead runs.
    """
    return sorted(name for name in names if is_temporary(name))


def of_source(backups: Iterable[Backup], source: str, hostname: str = "") -> list[Backup]:
    """Return the backups of one source, and those that do not say what they are of.

    These are archives of the old scripts, damaged backups, and what this user may not read.

    :param hostname: the host whose source it is, "" for any.
    """
    return [
        backup
        for backup in backups
        if backup.manifest is None
        or (backup.manifest["source"] == source and of_host(backup, hostname))
    ]


def of_host(backup: Backup, hostname: str) -> bool:
    """Say whether a backup was made on this host, as far as it says; "" is any host."""
    if backup.manifest is None:
        return True
    return hostname in ("", backup.manifest.get("hostname") or hostname)


def sources(backups: Iterable[Backup]) -> set[str]:
    """Return the source directories that the complete backups are of."""
    return {
        backup.manifest["source"]
        for backup in backups
        if backup.complete and backup.manifest is not None
    }


def credible(backup: Backup, now: float) -> bool:
    """Say whether the backup can have been made before ``now``.

    False when it was dated by a clock that was wrong by more than a day.
    """
    return backup.created <= now + DAY


def newest(backups: Sequence[Backup], now: float) -> Backup | None:
    """Return the newest backup that is complete.

    A backup that is dated in the future counts only when there is no other.
    """
    complete = [backup for backup in backups if backup.complete]
    for backup in complete:
        if credible(backup, now):
            return backup
    return complete[0] if complete else None
