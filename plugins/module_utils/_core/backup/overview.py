# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All backups of one host with their copies, and why each is kept; reads only."""

from __future__ import annotations

from typing import TypedDict

from ..ports import World
from ..verdict import isoformat
from . import catalogue, local, retention, stores
from .catalogue import Backup
from .make import plan
from .options import BackupOptions
from .store import Store

LOCAL = "local"


class Listed(TypedDict):
    """A backup or a copy of one. ``size`` in bytes; ``files`` is None where that is not known.

    ``where`` is ``local`` or the URL of the place; ``kept`` is why the retention rules keep it, empty
    when the next run removes it.
    """

    name: str
    created: str
    size: int
    files: int | None
    verified: bool
    where: str
    path: str
    source: str | None
    kept: str
    problems: list[str]


def run(options: BackupOptions, world: World) -> list[Listed]:
    """Return the backups in the destination, then the copies in each place, newest first each.

    :raises FleetError: the directory or a place can't be read.
    """
    places: list[tuple[str, Store, bool]] = [(LOCAL, local.LocalStore(options.destination), True)]
    places += [(store.url(""), store, store.prunes) for store in stores.copy_stores(options)]
    now = world.clock.now()
    listed = []
    for where, store, pruned in places:
        backups = store.listing()
        reasons = _reasons(options, backups, now) if pruned else {}
        for backup in backups:
            kept = reasons.get(backup.name, "the retention rules do not apply to it")
            listed.append(_listed(backup, where, kept))
    return listed


def _reasons(options: BackupOptions, backups: list[Backup], now: float) -> dict[str, str]:
    """Return why the rules keep each backup of the configured source, empty where none does."""
    own = catalogue.of_source(backups, options.source)
    return {
        decision.backup.name: decision.reason if decision.keep else ""
        for decision in retention.decide(own, plan.rules(options), now)
    }


def _listed(backup: Backup, where: str, kept: str) -> Listed:
    head = backup.manifest
    return {
        "name": backup.name,
        "created": isoformat(backup.created),
        "size": backup.size,
        "files": None if head is None else head["totals"]["files"],
        "verified": backup.verified,
        "where": where,
        "path": backup.path,
        "source": None if head is None else head["source"],
        "kept": kept,
        "problems": list(backup.problems),
    }
