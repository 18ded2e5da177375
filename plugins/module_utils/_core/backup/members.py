# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The archives that sets name: which there are, and which no set names any more."""

from __future__ import annotations

import os
from dataclasses import replace

from ..errors import NotUsable
from . import catalogue, names, sets
from . import manifest as manifests
from .catalogue import DAY, Backup
from .manifest import Member
from .options import BackupOptions


def examined(backup: Backup) -> Backup:
    """Return a complete local backup with what is wrong with the entries in its manifest.

    For a set, in the manifests of its archives.
    """
    if backup.is_set:
        members = [examined(archive) for archive in local_members(backup)]
        problems = [problem for archive in members for problem in archive.problems]
        return replace(backup, problems=(*backup.problems, *problems))
    try:
        damage = manifests.damage(catalogue.read_manifest(backup), backup.path + names.MANIFEST)
    except NotUsable as error:
        damage = error.message
    return replace(backup, problems=(*backup.problems, damage)) if damage else backup


def local_members(backup: Backup) -> list[Backup]:
    """Return the archives that a local set names.

    What is wrong with one, as far as is known without reading it, is among its problems.
    """
    directory = os.path.dirname(backup.path)
    return [
        named(archive, catalogue.inspect(directory, archive["name"]), backup)
        for archive in backup.archives
    ]


def named(archive: Member, present: Backup | None, backup: Backup) -> Backup:
    """Return an archive that a set names as it is, with what is wrong with it.

    :param present: what is known about it, None when it is not there.
    """
    name = archive["name"]
    if present is None:
        path = backup.path[: -len(backup.name)] + name
        problem = sets.problem(archive, "the archive is gone")
        return Backup(name, path, archive["created"], 0, problems=(problem,), lost=True)
    problems = [sets.problem(archive, problem) for problem in present.problems]
    if present.sha256 != archive["sha256"] and not problems:
        problems.append(sets.problem(archive, "it is not the archive that the set names"))
    return replace(present, problems=tuple(problems))


def unnamed(destination: str, options: BackupOptions, hostname: str) -> list[Member]:
    """Return archives of this source that no set names, which a killed run has finished.

    They may be used if they still match.
    """
    free = _free(destination)
    usable = []
    for name in free or ():
        backup = catalogue.inspect(destination, name)
        if backup is None or not backup.complete or backup.manifest is None:
            continue
        model = backup.manifest.get("model")
        sound = examined(backup).complete and (backup.verified or not options.verify)
        if sound and model is not None and _is_own(backup, options, hostname):
            usable.append(sets.member(backup.manifest, model))
    return usable


def garbage(destination: str, options: BackupOptions, hostname: str, now: float) -> list[str]:
    """Return the archives that no set names, to be removed under the lock.

    Only those of this source and host, and what has no readable manifest for more than a day: in a
    shared directory another host may be about to name the others.
    """
    names_to_remove = []
    for name in _free(destination) or ():
        backup = catalogue.inspect(destination, name)
        if backup is not None and backup.manifest is not None:
            if _is_own(backup, options, hostname):
                names_to_remove.append(name)
        elif now - _newest_change(destination, name) > DAY:
            names_to_remove.append(name)
    return names_to_remove


def _free(destination: str) -> list[str] | None:
    """Return the archives that no set names; None where a set can't be read, which may name any."""
    present = catalogue.directory_names(destination)
    owners = {names.without_companion(name) for name in present}
    free = {name for name in owners if names.is_member(name)}
    if not free:
        return []
    for name in present:
        if not names.is_set(name):
            continue
        backup = catalogue.inspect(destination, name)
        if backup is not None and backup.manifest is None:
            return None
        if backup is not None:
            free -= {archive["name"] for archive in backup.archives}
    return sorted(free)


def _is_own(backup: Backup, options: BackupOptions, hostname: str) -> bool:
    return backup in catalogue.of_source([backup], options.source, hostname)


def _newest_change(destination: str, name: str) -> float:
    """Return when a file of an archive was changed last, in seconds since the epoch."""
    newest = 0.0
    for file in (name, name + names.CHECKSUM, name + names.MANIFEST):
        path = os.path.join(destination, file)
        if os.path.lexists(path):
            newest = max(newest, os.lstat(path).st_mtime)
    return newest
