# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which backups a folder holds. Only files that are named exactly as ours count; links never do."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import NotUsable
from ..system.text import display_path
from ..verdict import isoformat
from . import manifest as manifests
from .names import CHECKSUM, MANIFEST, is_archive, is_temporary, stamp_time

DAY = 86400.0


@dataclass(frozen=True)
class Backup:
    """One backup. C(created) is in seconds since the epoch, C(size) in bytes.

    C(manifest) is None for archives of the old scripts (C(legacy): they have a checksum file only) and for what is damaged;
    C(problems) says what is wrong as far as names, sizes and the manifest tell.
    """

    name: str
    path: str
    created: float
    size: int
    sha256: str | None = None
    legacy: bool = False
    manifest: dict[str, Any] | None = field(default=None, repr=False, compare=False)
    problems: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether it is a finished backup of ours, as far as can be told without reading it."""
        return self.manifest is not None and not self.problems

    @property
    def verified(self) -> bool:
        """Whether the archive was read back and matched, the last time that was tried."""
        return self.complete and self.manifest is not None and manifests.verified(self.manifest)

    def to_dict(self) -> dict[str, Any]:
        """Return it as modules do."""
        found: dict[str, Any] = {
            "name": self.name,
            "path": self.path,
            "created": isoformat(self.created),
            "size": self.size,
            "sha256": self.sha256,
            "legacy": self.legacy,
            "verified": self.verified,
            "problems": list(self.problems),
        }
        if self.manifest is not None:
            found.update(
                files=self.manifest["totals"]["files"],
                bytes=self.manifest["totals"]["bytes"],
                source=self.manifest["source"],
                compression=self.manifest["compression"],
                hostname=self.manifest["hostname"],
                manifest=self.path + MANIFEST,
            )
        return found


def listing(folder: str) -> list[Backup]:
    """Return the backups in C(folder), newest first; an empty list when the folder does not exist.

    :raises NotUsable: the folder can't be read.
    """
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise NotUsable(
            f"Can't read the backup folder {folder}: {error.strerror}.",
            "Check its path and permissions.",
            folder,
        ) from error
    present = set(names)
    found = [inspect(folder, name) for name in names if is_archive(name)]
    found += [_without_archive(folder, name) for name in names if _lost_archive(name, present)]
    return sorted(
        (one for one in found if one is not None),
        key=lambda one: (one.created, one.name),
        reverse=True,
    )


def _lost_archive(name: str, present: set[str]) -> bool:
    archive = name[: -len(MANIFEST)]
    return name.endswith(MANIFEST) and is_archive(archive) and archive not in present


def _without_archive(folder: str, name: str) -> Backup:
    archive = name[: -len(MANIFEST)]
    return Backup(
        archive,
        os.path.join(folder, archive),
        stamp_time(archive) or 0.0,
        0,
        problems=("the archive is gone; only its manifest is left",),
    )


def inspect(folder: str, name: str) -> Backup | None:
    """Return what is known about the archive C(name) in C(folder) without reading it; None when it is no file."""
    path = os.path.join(folder, name)
    try:
        found = os.lstat(path)
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    created = stamp_time(name)
    backup = Backup(name, path, found.st_mtime if created is None else created, found.st_size)
    problems = []
    checksum: str | None = None
    try:
        checksum = read_checksum(path)
    except NotUsable as error:
        problems.append(error.message)
    try:
        raw = _read(path + MANIFEST)
        manifest = manifests.parse(raw, path + MANIFEST) if raw is not None else None
    except NotUsable as error:
        return replace(backup, sha256=checksum, problems=(*problems, error.message))
    if manifest is None:
        if checksum is None and not problems:
            problems.append("neither manifest nor checksum file: an unfinished or foreign archive")
        return replace(backup, sha256=checksum, legacy=not problems, problems=tuple(problems))
    expected = manifest["archive"]
    if manifest["name"] != name:
        problems.append(f"the manifest belongs to {display_path(manifest['name'])}")
    if expected["size"] != found.st_size:
        problems.append(
            f"the archive is {found.st_size} bytes long, but was {expected['size']} when it was made"
        )
    if checksum is not None and checksum != expected["sha256"]:
        problems.append("the checksum file and the manifest disagree")
    return replace(
        backup,
        created=float(manifest["created"]),
        sha256=expected["sha256"],
        manifest=manifest,
        problems=tuple(problems),
    )


def _read(path: str) -> bytes | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise NotUsable(f"Can't read {path}: {error.strerror}.", "", path) from error
    try:
        with os.fdopen(fd, "rb") as stream:
            return stream.read()
    except OSError as error:
        raise NotUsable(f"Can't read {path}: {error.strerror}.", "", path) from error


def read_checksum(archive: str) -> str | None:
    """Return the SHA-256 in the checksum file beside C(archive), None when there is none. :raises NotUsable: it is no such file."""
    path = archive + CHECKSUM
    raw = _read(path)
    if raw is None:
        return None
    found = parse_checksum(raw, os.path.basename(archive))
    if found is None:
        raise NotUsable(
            f"The checksum file {path} holds no SHA-256 of {os.path.basename(archive)}.", "", path
        )
    return found


def parse_checksum(raw: bytes, archive: str) -> str | None:
    """Return the SHA-256 at the beginning of what sha256sum(1) wrote, None when there is none, or it is that of another backup."""
    match = re.match(rb"\\?([0-9A-Fa-f]{64})(?: [ *]([^\n]*))?(?:\n|$)", raw)
    if match is None:
        return None
    named = os.fsdecode(match.group(2) or b"-").rpartition("/")[2]
    # A backup copied under a name of the user's own may bring the checksum file of its old name.
    if is_archive(archive) and named not in ("-", archive):
        return None
    return match.group(1).decode("ascii").lower()


def stale(folder: str) -> list[str]:
    """Return the names of temporary files of ours in C(folder); under the lock they all belong to dead runs."""
    try:
        return sorted(name for name in os.listdir(folder) if is_temporary(name))
    except FileNotFoundError:
        return []


def of_source(backups: Iterable[Backup], source: str) -> list[Backup]:
    """Return the backups of one source folder, and those that do not say what they are of (old archives, damaged ones)."""
    return [one for one in backups if one.manifest is None or one.manifest["source"] == source]


def sources(backups: Iterable[Backup]) -> set[str]:
    """Return the source folders that the complete backups are of."""
    return {one.manifest["source"] for one in backups if one.complete and one.manifest is not None}


def credible(backup: Backup, now: float) -> bool:
    """Say whether the backup can have been made before C(now): not when a clock that was wrong by more than a day has dated it."""
    return backup.created <= now + DAY


def newest(backups: list[Backup], now: float) -> Backup | None:
    """Return the newest backup that is complete; one dated in the future only when there is no other."""
    complete = [one for one in backups if one.complete]
    return next((one for one in complete if credible(one, now)), complete[0] if complete else None)
