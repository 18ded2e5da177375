# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a restore would do and why: pure functions of options and facts."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...errors import NotPermitted, NotUsable, Refused, VerificationFailed, WriteFailed
from ...system.text import display_path, human_list, human_size
from .. import catalogue, source
from ..catalogue import Backup
from ..manifest import Contents, ManifestEntry
from ..options import RANDOM, RestoreOptions
from ..source import DIRECTORY, FILE
from ..writer import check_links
from .facts import OTHER, SAME, Facts, Leftovers, Place

#: Which backups ``latest`` takes, best first.
_PREFERENCE: tuple[Callable[[Backup], bool], ...] = (
    lambda backup: backup.verified,
    lambda backup: backup.complete,
    lambda backup: backup.legacy,
)


#: Models that a message names.
_MOST_NAMED = 10


@dataclass(frozen=True)
class Recovery:
    """What is to be done with what interrupted restores have left.

    A tree to put back in place, trees to remove.
    """

    destination: str
    put_back: str | None
    remove: tuple[str, ...]


@dataclass(frozen=True)
class Choice:
    """The backup to restore, and what to note about the choice.

    ``wanted`` are its entries to restore and ``contents`` all it holds, both None for an archive of
    the old scripts.
    """

    backup: Backup
    wanted: tuple[ManifestEntry, ...] | None
    contents: Contents | None
    note: str = ""


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    ``restore`` is False where the destination already equals the backup; ``size`` in bytes.
    """

    options: RestoreOptions
    facts: Facts
    restore: bool
    files: int
    size: int
    paths: tuple[str, ...]


def decide_recovery(leftovers: Leftovers) -> Recovery:
    """Say what is to be done with leftovers.

    A run that died between two renames has left the only copy of what was there under a temporary
    name.
    """
    name = os.path.basename(leftovers.destination)
    pattern = re.compile(re.escape(f".{name}.mlops-") + "(restore|old)[.][0-9a-f]{12}")
    put_back = None
    remove = []
    for other in sorted(leftovers.names):
        match = pattern.fullmatch(other)
        if match is None:
            continue
        if match.group(1) == "old" and leftovers.missing and put_back is None:
            put_back = other
        else:
            remove.append(other)
    return Recovery(leftovers.destination, put_back, tuple(remove))


def choose(options: RestoreOptions, place: Place) -> Backup:
    """Return the backup that the options name.

    ``latest`` is the newest complete one, a verified one first.

    :raises Refused: the destination can't be replaced in one step.
    :raises NotUsable: there is no such backup.
    :raises VerificationFailed: it is damaged.
    """
    _refuse_destination(place)
    backup = _chosen(options, place)
    if backup.unreadable:
        raise NotPermitted(backup.unreadable, catalogue.TODO, backup.path)
    # A model may be sound in a set in which another one is not; each archive is checked later.
    if backup.problems and options.verify and not (options.model and backup.archives):
        raise VerificationFailed(
            f"{backup.path} is damaged: {'; '.join(backup.problems)}.",
            "Use another backup.",
            backup.path,
        )
    return backup


def narrow(
    options: RestoreOptions, place: Place, backup: Backup, contents: Contents | None
) -> Choice:
    """Return the chosen backup with its entries to restore.

    :param contents: what its manifest lists; None for an archive of the old scripts.
    :raises Refused: a link in the backup leads out of the destination.
    :raises NotUsable: nothing in it matches.
    """
    wanted = select(contents, options.files, options.model)
    if wanted is not None and not wanted:
        _nothing(options, backup, contents)
    if wanted is not None:
        check_links(wanted, place.destination, options.allow_outside_links)
    return Choice(backup, wanted, contents, _note(options, place.backups, backup))


def _nothing(options: RestoreOptions, backup: Backup, contents: Contents | None) -> None:
    """:raises NotUsable: always; it says what the backup holds instead."""
    if options.model is None or (contents is not None and contents.entries and options.files):
        raise NotUsable(
            f"Nothing in {backup.name} matches {', '.join(options.files)}.",
            "Check the patterns.",
            backup.name,
        )
    present = [archive["model"] for archive in backup.archives]
    if contents is not None and not present:
        present = list(dict.fromkeys(entry["path"].split("/")[0] for entry in contents.entries))
    listed = human_list([display_path(model) for model in present], _MOST_NAMED) or "none"
    raise NotUsable(
        f"There is no model {display_path(options.model)} in {backup.name}.",
        f"It holds: {listed}.",
        backup.name,
    )


def _refuse_destination(place: Place) -> None:
    """Refuse a link, a mount point and what holds one.

    It could not be swapped, or what is mounted would go with it.
    """
    destination = place.destination
    if place.link:
        raise Refused(
            f"The restore destination {destination} is a symbolic link.",
            "Name the directory it points to.",
            destination,
        )
    if place.mount_point is not None:
        what = (
            "is a mount point"
            if place.mount_point == destination
            else f"holds the mount point {display_path(place.mount_point)}"
        )
        raise Refused(
            f"The restore destination {destination} {what}.",
            "Restore into a directory inside of it, or unmount it.",
            destination,
        )


def _chosen(options: RestoreOptions, place: Place) -> Backup:
    if "/" in options.backup:
        return place.backups[0]
    if options.backup == "latest":
        return _latest(place)
    if options.backup == RANDOM:
        return _drawn(place)
    for backup in place.backups:
        if backup.name == options.backup:
            return backup
    near = ", ".join(backup.name for backup in place.backups[:3]) or "none"
    raise NotUsable(
        f"There is no backup {options.backup} in {place.where}.",
        f"The newest there: {near}.",
        place.where,
    )


def _latest(place: Place) -> Backup:
    # What a wrong clock has dated ahead comes last.
    ordered = sorted(place.backups, key=lambda backup: not catalogue.credible(backup, place.now))
    # In a directory that hosts share, those of this host come first.
    own = [
        backup
        for backup in ordered
        if backup.manifest is not None and catalogue.of_host(backup, place.hostname)
    ]
    for candidates in (own, ordered):
        for acceptable in _PREFERENCE:
            for backup in candidates:
                if acceptable(backup):
                    return backup
    for backup in ordered:
        if backup.unreadable:
            return backup
    raise NotUsable(
        f"There is no complete backup in {place.where}.",
        "Make one, or name another place.",
        place.where,
    )


def _drawn(place: Place) -> Backup:
    """Return one of the usable backups by lot. :raises NotUsable: there is none."""
    for acceptable in _PREFERENCE[1:]:
        usable = [backup for backup in place.backups if acceptable(backup)]
        if usable:
            return usable[int(place.lot * len(usable))]
    return _latest(place)


def _note(options: RestoreOptions, backups: Sequence[Backup], chosen: Backup) -> str:
    """Say that ``latest`` could have meant another backup."""
    if options.backup != "latest":
        return ""
    newer = [item for item in backups if item.unreadable and item.created > chosen.created]
    if newer:
        return f"this user may not read {newer[0].name}, which is newer: {newer[0].unreadable}"
    if chosen.manifest is None:
        return ""
    others = catalogue.sources(backups) - {chosen.manifest["source"]}
    host = chosen.manifest.get("hostname", "")
    if not others and not all(catalogue.of_host(backup, host) for backup in backups):
        return f"this is the latest backup of {display_path(host)}; there are those of other hosts"
    if not others:
        return ""
    where = ", ".join(sorted(display_path(other) for other in others))
    return (
        f"this is the latest backup of {display_path(chosen.manifest['source'])}; "
        f"there are backups of {where} too"
    )


def select(
    contents: Contents | None, patterns: Sequence[str], model: str | None = None
) -> tuple[ManifestEntry, ...] | None:
    """Return the manifest's entries that match a pattern, with the directories that hold them.

    None without a manifest.

    :param model: the only model whose entries are returned.
    """
    if contents is None:
        return None
    entries = contents.entries
    if model is not None:
        entries = [entry for entry in entries if entry["path"].partition("/")[0] == model]
    if not patterns:
        return tuple(entries)
    chosen = {entry["path"] for entry in entries if source.selected(entry["path"], patterns)}
    parents = {
        "/".join(path.split("/")[:depth])
        for path in chosen
        for depth in range(1, path.count("/") + 1)
    }
    return tuple(
        entry
        for entry in entries
        if entry["path"] in chosen or (entry["path"] in parents and entry["type"] == DIRECTORY)
    )


def refuse_own_backup(destination: str, real_destination: str, archive: str | None) -> None:
    """:raises Refused: the archive lies inside the destination.
    :param archive: its real path, None when it is elsewhere.
    """
    if archive is not None and archive.startswith(real_destination + "/"):
        raise Refused(
            f"The backup {archive} lies inside the restore destination {destination}.",
            "Restore into a directory elsewhere.",
            destination,
        )


def decide(options: RestoreOptions, facts: Facts) -> Plan:
    """Say what would be done.

    :raises Refused: the destination holds something and may not be replaced.
    :raises WriteFailed: the backup does not fit.
    """
    wanted = facts.wanted or ()
    files = [entry for entry in wanted if entry["type"] == FILE]
    size = sum(entry["size"] for entry in files)
    plan = Plan(
        options,
        facts,
        facts.state != SAME,
        len(files),
        size,
        tuple(entry["path"] for entry in wanted),
    )
    if not plan.restore:
        return plan
    if facts.state == OTHER and options.mode == "new":
        raise Refused(
            f"The restore destination {facts.destination} is not empty and differs from the backup:"
            f" {facts.reason}.",
            "Name a new directory, or set mode to replace.",
            facts.destination,
        )
    if options.drill and facts.wanted is None:
        size = facts.origin.backup.size  # what an archive of the old scripts holds is at least that
    if size > facts.free:
        raise WriteFailed(
            f"Not enough space for {facts.destination}: the backup needs {human_size(size)}, "
            f"{human_size(facts.free)} are free.",
            "Free some space, or restore only some files.",
            facts.destination,
        )
    return plan
