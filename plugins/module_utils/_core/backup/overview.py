# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All backups of one host with their copies, and why each is kept; reads only."""

from __future__ import annotations

from ..ports import World
from . import catalogue, info, local, proofs, retention, stores
from .catalogue import Backup, Description
from .options import BackupOptions, InfoOptions
from .proofs import Proof
from .store import Store

LOCAL = "local"


class Listed(Description):
    """A backup, or a copy of one.

    ``where`` is ``local`` or the URL of the place. ``kept`` is why the retention rules keep it,
    empty when the next run removes it.
    """

    where: str
    kept: str


def run(options: BackupOptions, path: str | None, world: World) -> tuple[info.Result, list[Listed]]:
    """Return the result for the local backups; and all backups, then the copies in each place.

    :param path: a directory or archive to list instead of what is configured, then without copies.
    :raises FleetError: the directory or a place can't be read.
    """
    if path is None and options.engine == "restic":
        return _snapshots(options, world)
    result = info.run(InfoOptions.from_mapping({"path": path or options.destination}))
    places: list[tuple[str, Store, bool]] = []
    if path is None:
        places.append((LOCAL, local.LocalStore(options.destination), True))
        places += [(store.url(""), store, store.prunes) for store in stores.copy_stores(options)]
    else:
        store = stores.to_read(InfoOptions.from_mapping({"path": path}), path)
        places.append((LOCAL, store, path == options.destination))
    result["last_restore_proof"] = _last_proof(options, path, [where for where, *dummy in places])
    now = world.clock.now()
    listed: list[Listed] = []
    for where, store, pruned in places:
        backups = store.listing()
        reasons = _reasons(options, backups, now, world.hostname) if pruned else {}
        for backup in backups:
            kept = reasons.get(backup.name, "the retention rules do not apply to it")
            listed.append({**backup.to_dict(), "where": where, "kept": kept})
    return result, listed


def _snapshots(options: BackupOptions, world: World) -> tuple[info.Result, list[Listed]]:
    """Return the result for the snapshots in the configured repository, and all of them."""
    from .restic import look
    from .restic.repository import Repository

    repository = Repository(options, options.destination, world)
    repository.require()
    backups = repository.snapshots()
    where = LOCAL if repository.local is not None else repository.url
    reasons = _reasons(options, backups, world.clock.now(), world.hostname)
    listed: list[Listed] = []
    for backup in backups:
        kept = reasons.get(backup.name, "the retention rules do not apply to it")
        listed.append({**look.describe(backup), "where": where, "kept": kept})
    proof = proofs.newest(options.destination)
    return info.summarise([look.describe(backup) for backup in backups], proof), listed


def _last_proof(options: BackupOptions, path: str | None, places: list[str]) -> Proof | None:
    """Return the newest proof of these places."""
    directory = info.record_directory(path or options.destination)
    recorded = [proofs.last(directory, None if where == LOCAL else where) for where in places]
    return max(
        (proof for proof in recorded if proof is not None),
        key=lambda proof: proof.get("at", ""),
        default=None,
    )


def _reasons(
    options: BackupOptions, backups: list[Backup], now: float, hostname: str
) -> dict[str, str]:
    """Return why the rules keep each backup of the configured source, empty where none does."""
    own = catalogue.of_source(backups, options.source, hostname)
    return {
        decision.backup.name: decision.reason if decision.keep else ""
        for decision in retention.decide(own, retention.rules(options), now)
    }
