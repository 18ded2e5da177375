# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Making a snapshot with restic: the same decisions as for an archive, other hands."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import Any

from ...errors import NotUsable, OptionError, Refused, VerificationFailed, WriteFailed
from ...ports import Tell, World, silent
from ...system import mounts
from ...verdict import isoformat
from .. import catalogue, manifest, proofs, protection, source
from ..catalogue import Backup
from ..make import facts, plan
from ..make.facts import Facts
from ..make.plan import Plan
from ..make.run import Removal, Result
from ..options import FOLLOW, BackupOptions
from .look import describe
from .repository import TAG, Repository

#: More bytes than any disk has: how many restic will add is not known beforehand.
_ENOUGH = 1 << 62
#: restic's exit status for a snapshot in which something is missing.
_INCOMPLETE = 3


def run(
    options: BackupOptions,
    world: World,
    check: bool = False,
    tell: Tell = silent,  # noqa: ARG001
) -> Result:
    """Make a snapshot unless the newest one still matches the source, check it, apply retention.

    :param check: only say what would be done.
    :raises VerificationFailed: restic's check found something wrong. :raises FleetError: otherwise.
    """
    if options.outside_links == FOLLOW:
        raise OptionError(
            "Options engine=restic and outside_links=follow contradict each other: restic stores "
            "links as links.",
            "Set outside_links to warn or fail.",
            "outside_links",
        )
    repository = Repository(options, options.destination, world)
    options = _checked_place(options, repository)
    exists = repository.exists()
    seen = _observe(options, repository, exists, world)
    planned = plan.decide(options, seen)
    result = _result(planned, world)
    if check:
        result.changed = planned.make or bool(planned.removals)
        return result
    if planned.make:
        _make(planned, repository, exists, world, result)
    if planned.removals:
        repository.forget([str(decision.backup.sha256) for decision in planned.removals])
        result.changed = True
    return result


def _checked_place(options: BackupOptions, repository: Repository) -> BackupOptions:
    """Return the options with the repository's directory as destination, after a look at both."""
    if repository.local is not None:
        options = _with_destination(options, os.path.normpath(repository.local))
        plan.check_place(options, facts.observe_place(options))
        return options
    place = facts.observe_place(options)
    elsewhere = replace(
        place,
        destination=facts.MISSING,
        real_destination=repository.url,
        dangling=None,
        destination_in_source=False,
        source_in_destination=False,
    )
    plan.check_place(options, elsewhere)
    return options


def _with_destination(options: BackupOptions, destination: str) -> BackupOptions:
    import copy

    changed = copy.copy(options)
    changed.destination = destination
    return changed


def _observe(options: BackupOptions, repository: Repository, exists: bool, world: World) -> Facts:
    """Read source and repository. :raises Refused: the repository is another host's."""
    backups = repository.snapshots() if exists else []
    hosts = {backup.manifest["hostname"] for backup in backups if backup.manifest is not None}
    shared = options.restic is not None and options.restic.shared
    if hosts and world.hostname not in hosts and not shared:
        raise Refused(
            f"The restic repository {repository.url} holds backups of "
            f"{', '.join(sorted(hosts))} and none of {world.hostname}.",
            "Give each host a repository of its own, or set restic.shared to true.",
            repository.url,
        )
    with facts.opened_source(options.source) as root:
        tree = facts.walk(root, options)
    own = [
        backup
        for backup in backups
        if backup.manifest is not None and backup.manifest["hostname"] == world.hostname
    ]
    free = _ENOUGH
    if repository.local is not None and not own:
        free = mounts.available(repository.local)
    return Facts(
        tree=tree,
        fingerprint=source.fingerprint(options.source, tree.entries),
        names=(),
        backups=tuple(own),
        free=free,
        now=world.clock.now(),
    )


def _result(planned: Plan, world: World) -> Result:
    seen, options = planned.facts, planned.options
    current = None if planned.make else describe(planned.current)
    before = sorted(backup.name for backup in seen.backups)
    removed = {decision.backup.name for decision in planned.removals}
    return Result(
        planned,
        seen.tree,
        current,
        [_removal(decision.backup, decision.reason) for decision in planned.removals],
        notes=plan.notes(options, seen.tree, seen.backups, world.clock.now()),
        outside=plan.outside(options, seen.tree),
        before=before,
        after=sorted(set(before) - removed),
        proof=proofs.newest(options.destination),
        separate=protection.on_other_storage(options.source, options.destination),
    )


def _removal(backup: Backup, reason: str) -> Removal:
    return {
        "name": backup.name,
        "path": backup.path,
        "created": isoformat(backup.created),
        "size": backup.size,
        "reason": reason,
    }


def _make(
    planned: Plan, repository: Repository, exists: bool, world: World, result: Result
) -> None:
    """Make a snapshot, check it, and note in its tags what was checked."""
    options = planned.options
    if not exists:
        _initialise(repository)
    started = world.clock.monotonic()
    summary = _back_up(planned, repository, world)
    result.durations["archive"] = world.clock.monotonic() - started
    added = int(summary.get("data_added_packed") or summary.get("data_added") or 0)
    marks = [f"added={added}"]
    if options.verify:
        started = world.clock.monotonic()
        problems = repository.check(full=True)
        if problems:
            raise VerificationFailed(
                f"The restic repository {repository.url} is damaged: {'; '.join(problems[:5])}.",
                "Make a backup in another repository, then repair this one by hand.",
                repository.url,
            )
        marks.append(f"verified={isoformat(world.clock.now())}")
        result.durations["verify"] = world.clock.monotonic() - started
    identifier = str(summary["snapshot_id"])
    more = [argument for mark in marks for argument in ("--add", mark)]
    repository.run("tag", *more, identifier)
    made = _made(repository, planned, world)
    result.plan = replace(planned, current=made)
    result.backup, result.changed, result.written = describe(made), True, added
    result.after = sorted({*result.after, made.name})


def _initialise(repository: Repository) -> None:
    if repository.local is not None:
        try:
            os.makedirs(repository.local, 0o750, exist_ok=True)
        except OSError as error:
            raise WriteFailed(
                f"Can't make the directory {repository.local}: {error.strerror}.",
                "Check the permissions of its parent directory.",
                repository.local,
            ) from error
    repository.run("init")


def _back_up(planned: Plan, repository: Repository, world: World) -> dict[str, Any]:
    """Run restic backup; return its summary. :raises NotUsable: it could not read everything."""
    options, tree = planned.options, planned.facts.tree
    tags = [
        TAG,
        f"files={tree.files}",
        f"bytes={tree.size}",
        f"fingerprint={planned.facts.fingerprint}",
    ]
    arguments = [argument for tag in tags for argument in ("--tag", tag)]
    for pattern in options.exclude:
        anchored = f"{options.source}/{pattern.lstrip('/')}" if "/" in pattern else pattern
        arguments += ["--exclude", anchored]
    if options.compression == "none":
        arguments += ["--compression", "off"]
    # From inside of the source, so that the snapshot holds what is in it and not the way to it.
    result = repository.call(
        "backup", "--json", "--host", world.hostname, *arguments, ".", directory=options.source
    )
    summary: dict[str, Any] = {}
    for line in result.stdout.splitlines():
        document = json.loads(line) if line.startswith("{") else {}
        if document.get("message_type") == "summary":
            summary = document
    if result.returncode == _INCOMPLETE:
        if summary.get("snapshot_id"):
            repository.forget([str(summary["snapshot_id"])])
        lines = [line.strip() for line in result.stderr.splitlines() if line.startswith("error")]
        raise NotUsable(
            f"restic could not read everything in {options.source}: {'; '.join(lines[:3])}.",
            "Run it as a user who may read all of it, or exclude what can't be read.",
            options.source,
        )
    if result.returncode or not summary:
        raise repository.error("backup", result)
    return summary


def _made(repository: Repository, planned: Plan, world: World) -> Backup:
    """Return the snapshot that was just made, as it is listed now: tagging has renamed it."""
    wanted = planned.facts.fingerprint
    for backup in catalogue.of_source(repository.snapshots(), planned.options.source):
        head = backup.manifest
        if head is None or head["hostname"] != world.hostname:
            continue
        if head["fingerprint"] == wanted and manifest.verified(head) == planned.options.verify:
            return backup
    raise WriteFailed(
        f"The snapshot is not in {repository.url} after it was made.",
        "Does something else remove snapshots there?",
        repository.url,
    )
