# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Listing and checking the snapshots in a restic repository; reads only."""

from __future__ import annotations

from ...ports import Tell, World, silent
from .. import info, proofs
from ..catalogue import Backup, Description
from ..options import InfoOptions
from .repository import Repository


def run(options: InfoOptions, world: World, tell: Tell = silent) -> info.Result:  # noqa: ARG001
    """List our snapshots; with ``verify`` check the repository, with ``full`` all data in it.

    :raises FleetError: there is no repository, or it can't be read.
    """
    repository = Repository(options, options.path, world)
    repository.require()
    backups = repository.snapshots()
    problems: list[str] = []
    if options.verify != "none" and backups:
        problems = repository.check(full=options.verify == "full")
    descriptions = [describe(backup) for backup in backups]
    for description in descriptions:
        description["checked"] = options.verify
        description["problems"] = [*description["problems"], *problems]
        if problems or options.verify == "full":
            description["verified"] = not problems
    return info.summarise(descriptions, proofs.last(options.path, _place(repository)))


def _place(repository: Repository) -> str | None:
    return None if repository.local is not None else repository.url


def describe(backup: Backup) -> Description:
    """Return a snapshot as modules do: like an archive, without a manifest of its own."""
    description = backup.to_dict()
    description.pop("manifest", None)
    return description
