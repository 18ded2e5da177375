# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run would do and why: pure functions of options and facts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ...errors import NotPermitted, NotUsable, Refused, WriteFailed
from ...system.roots import FORBIDDEN_TREES
from ...system.text import display_path, human_count, human_list, human_size
from ...verdict import PASS, WARNING
from .. import catalogue, codecs, manifest, names, retention, sets, source
from ..catalogue import Backup
from ..manifest import Member
from ..options import FAIL, FOLLOW, PER_MODEL, BackupOptions
from ..retention import Decision
from ..source import LINK, Entry, Tree
from .facts import DENIED, DIRECTORY, MISSING, OTHER, CopyFacts, Facts, Place

NONE_READABLE = "there is no complete backup that this user may read"
#: Files that are not backed up and are named one by one.
_MOST_SKIPPED = 20
#: Links that a message names.
_MOST_NAMED = 5


@dataclass(frozen=True)
class ModelPlan:
    """What is to be done about one model of a set.

    ``fingerprint`` is that of its entries, ``keep`` the archive of the last set that still matches
    it, None when one is to be written.
    """

    model: str
    entries: tuple[Entry, ...]
    fingerprint: str
    keep: Member | None


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    :param reason: why a backup is made, or why not.
    :param current: the backup that counts afterwards: the one to be made, as it will be listed, or
        the present one.
    :param estimate: expected size of a new archive in bytes, 0 when none is made.
    :param removals: backups that no rule keeps then.
    :param newest: the newest backup so far.
    """

    options: BackupOptions
    facts: Facts
    make: bool
    reason: str
    current: Backup
    estimate: int
    removals: tuple[Decision, ...]
    newest: Backup | None = None


@dataclass(frozen=True)
class CopyPlan:
    """What is to be done in one place for copies."""

    upload: bool
    removals: tuple[Decision, ...]


def check_place(options: BackupOptions, place: Place) -> None:
    """Refuse a destination inside the source, the reverse, and system directories.

    :raises Refused: it is one of these. :raises NotUsable: source or destination is no directory.
    :raises NotPermitted: that is unknown.
    """
    origin, destination = options.source, options.destination
    for path, kind in ((origin, place.source), (destination, place.destination)):
        if kind == DENIED:
            raise NotPermitted(
                f"Can't look at {path}: permission denied.",
                "Run this as root or as a user who may read it.",
                path,
            )
    if place.source != DIRECTORY:
        what = "does not exist" if place.source == MISSING else "is not a directory"
        raise NotUsable(
            f"The source {origin} {what}.", "Name the directory that holds the models.", origin
        )
    if place.dangling is not None:
        # The link usually leads to a disk. Made below its mount point, backups would vanish once it
        # is mounted.
        raise NotUsable(
            f"The destination {destination} leads to {place.dangling}, which does not exist.",
            "Mount its disk, or make the directory.",
            destination,
        )
    if place.destination == OTHER:
        raise NotUsable(
            f"The destination {destination} is not a directory.", "Name a directory.", destination
        )
    real = place.real_destination
    if real == "/" or any(real == tree or real.startswith(tree + "/") for tree in FORBIDDEN_TREES):
        raise Refused(
            f"The destination {destination} is a system directory.",
            "Name a separate directory for backups.",
            destination,
        )
    if place.destination_in_source:
        raise Refused(
            f"The destination {destination} lies inside the source {origin}, so backups would"
            " contain backups.",
            "Name a directory elsewhere.",
            destination,
        )
    if place.source_in_destination:
        raise Refused(
            f"The source {origin} lies inside the destination {destination}.",
            "Name a directory elsewhere.",
            destination,
        )


def decide(options: BackupOptions, facts: Facts) -> Plan:
    """Say whether a backup is needed and which ones are to be removed afterwards.

    :raises WriteFailed: it would not fit.
    :raises Refused: a link points out of the source, and that is to fail.
    """
    _check_links(options, facts.tree)
    own = catalogue.of_source(facts.backups, options.source, facts.hostname)
    newest = catalogue.newest(own, facts.now)
    reason = why_needed(options, facts, newest)
    if reason is None and newest is not None:
        return Plan(
            options,
            facts,
            False,
            f"nothing has changed since {newest.name}",
            newest,
            0,
            _removals(options, own, newest, facts.now),
        )
    expected_size = estimate(options, facts, newest)
    if expected_size > facts.free:
        raise WriteFailed(
            f"Not enough space in {options.destination}: the backup needs about "
            f"{human_size(expected_size)}, {human_size(facts.free)} are free.",
            "Free some space, or name another destination.",
            options.destination,
        )
    coming = _coming(options, facts)
    return Plan(
        options,
        facts,
        True,
        reason or "",
        coming,
        expected_size,
        _removals(options, [*own, coming], coming, facts.now),
        newest,
    )


def decide_copies(
    options: BackupOptions, facts: CopyFacts, current: Backup, now: float, hostname: str = ""
) -> CopyPlan:
    """Say whether the current backup is to be copied, and which copies are to be removed then.

    Copies are removed only where they were listed. The current backup's copy always stays.
    """
    upload = facts.present is None
    if facts.backups is None:
        return CopyPlan(upload, ())
    own = catalogue.of_source(facts.backups, options.source, hostname)
    others = [backup for backup in own if backup.name != current.name]
    return CopyPlan(upload, _removals(options, [*others, current], current, now))


def _removals(
    options: BackupOptions, backups: Sequence[Backup], current: Backup, now: float
) -> tuple[Decision, ...]:
    """Return what no rule keeps. The run's own backup is never removed, whatever the clock says."""
    return tuple(
        decision
        for decision in retention.decide(backups, retention.rules(options), now)
        if not decision.keep and decision.backup.name != current.name
    )


def why_needed(options: BackupOptions, facts: Facts, newest: Backup | None) -> str | None:
    """Return why a new backup is to be made, None when the newest one will do."""
    if options.force:
        return "forced"
    if newest is None or newest.manifest is None:
        unreadable = any(backup.unreadable for backup in facts.backups)
        return NONE_READABLE if unreadable else "there is no complete backup"
    if options.verify and not newest.verified:
        return "the newest backup was never verified"
    if newest.manifest["fingerprint"] != facts.fingerprint:
        return "the source has changed"
    if newest.is_set != (options.layout == PER_MODEL):
        return "the layout has changed"
    return None


def models(
    options: BackupOptions, tree: Tree, newest: Backup | None, written: Iterable[Member] = ()
) -> list[ModelPlan]:
    """Return what is to be done about each model, in the order of the tree.

    :param newest: the newest backup; the archives of a set are kept where they still match.
    :param written: archives of this run, which are kept likewise.
    """
    known: dict[tuple[str, str], Member] = {}
    if newest is not None and newest.complete and not options.force:
        for archive in newest.archives:
            if archive["verified"] or not options.verify:
                known[archive["model"], archive["fingerprint"]] = archive
    for archive in written:
        known[archive["model"], archive["fingerprint"]] = archive
    plans = []
    for model, entries in sets.group(tree.entries).items():
        fingerprint = source.fingerprint(options.source, entries)
        plans.append(ModelPlan(model, entries, fingerprint, known.get((model, fingerprint))))
    return plans


def estimate(options: BackupOptions, facts: Facts, newest: Backup | None) -> int:
    """Return the expected size of the archive in bytes.

    By the ratio of the newest backup with the same compression; without one as if nothing could be
    compressed.
    """
    tree = facts.tree
    if options.layout == PER_MODEL:
        todo = [item.entries for item in models(options, tree, newest) if item.keep is None]
        tree = replace(tree, entries=tuple(entry for entries in todo for entry in entries))
    overhead = 2048 * len(tree.entries) + 65536
    if options.compression == "none":
        return tree.size + overhead
    if (
        newest is not None
        and newest.manifest is not None
        and newest.manifest["compression"] == options.compression
    ):
        before = newest.manifest["totals"]["bytes"]
        if before:
            return int(tree.size * min(1.0, 1.1 * newest.size / before)) + overhead
    return tree.allocated + overhead


def _coming(options: BackupOptions, facts: Facts) -> Backup:
    """Return the backup to be made as it will be listed, for the rules."""
    suffix = codecs.CODECS[options.compression].suffix
    if options.layout == PER_MODEL:
        suffix = names.SET
    name, created = free_name(facts.names, creation_time(facts), suffix)
    return Backup(
        name,
        os.path.join(options.destination, name),
        created,
        0,
        manifest=manifest.expected(name, created, options),
    )


def creation_time(facts: Facts) -> float:
    """Return the time of a new backup, so that the order holds.

    Now, or after the newest one when the clock was set back a little.
    """
    later = [
        int(backup.created) + 1.0
        for backup in facts.backups
        if backup.complete and facts.now < backup.created <= facts.now + catalogue.DAY
    ]
    return max([facts.now, *later])


def free_name(present: Iterable[str], now: float, suffix: str) -> tuple[str, float]:
    """Return a name that none of ``present`` has and its time.

    When this second is taken, the next free one.
    """
    present = tuple(present)
    created = float(int(now))
    while any(name.startswith(names.stem(created) + ".") for name in present):
        created += 1
    return names.stem(created) + suffix, created


def notes(
    options: BackupOptions,
    tree: Tree,
    backups: Sequence[Backup],
    now: float,
    hostname: str = "",
) -> list[str]:
    """Return what is worth knowing about the source and the other backups in the destination."""
    lines = [f"not backed up: {skipped}" for skipped in tree.skipped[:_MOST_SKIPPED]]
    if len(tree.skipped) > _MOST_SKIPPED:
        more = len(tree.skipped) - _MOST_SKIPPED
        lines.append(f"not backed up: {more} more sockets, pipes and devices")
    lines += _link_notes(options, tree)
    ahead = [backup for backup in backups if not catalogue.credible(backup, now)]
    if ahead:
        lines.append(
            f"{len(ahead)} backups are dated in the future ({ahead[0].name}): a clock was wrong; "
            "they stay until then, never taken for the newest"
        )
    unreadable = [backup for backup in backups if backup.unreadable]
    if unreadable:
        lines.append(
            f"{len(unreadable)} backups can't be read by this user ({unreadable[0].name}); they"
            " stay"
        )
    strangers = {
        backup.manifest["hostname"]
        for backup in backups
        if backup.manifest is not None and not catalogue.of_host(backup, hostname)
    }
    if strangers:
        listed = ", ".join(sorted(display_path(stranger) for stranger in strangers))
        lines.append(f"the directory holds backups made on {listed}; this run leaves them alone")
    others = catalogue.sources(backups) - {options.source}
    if others:
        listed = ", ".join(sorted(display_path(other) for other in others))
        lines.append(f"the directory holds backups of {listed} too; this run leaves them alone")
    return lines


def outside(options: BackupOptions, tree: Tree) -> tuple[str, ...]:
    """Return the links out of the source whose targets are not in the backup."""
    if options.outside_links == FOLLOW:
        return tree.outside
    origin = os.path.normpath(options.source)
    links = {entry.path: entry.target for entry in tree.entries if entry.type == LINK}
    return tuple(
        source.described(entry)
        for entry in tree.entries
        if entry.type == LINK and source.points_outside(entry.path, entry.target, origin, links)
    )


def status(links: Sequence[str]) -> str:
    """Return the verdict about a backup that lacks what these links point to."""
    if links:
        return WARNING
    return PASS


def _check_links(options: BackupOptions, tree: Tree) -> None:
    """:raises Refused: a link points out of the source, and that is to fail."""
    if options.outside_links != FAIL:
        return
    links = outside(options, tree)
    if links:
        raise Refused(
            f"{human_count(len(links), 'link')} of {options.source} point out of it, so what they "
            f"point to would not be in the backup: {human_list(links, _MOST_NAMED)}.",
            "Set outside_links to follow to store it, or to warn to leave it out.",
            options.source,
        )


def _link_notes(options: BackupOptions, tree: Tree) -> list[str]:
    lines = []
    links = outside(options, tree)
    if links:
        lines.append(
            f"{len(links)} links point out of the source ({links[0]}): what they point to is not in"
            " the backup, and restoring them needs allow_outside_links"
        )
    if tree.followed:
        lines.append(
            f"{human_count(len(tree.followed), 'link')} out of the source followed "
            f"({display_path(tree.followed[0])}): what they point to is stored in their place"
        )
    return lines
