# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One run out of those of several slices of a job, or of several controllers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .. import verdict
from ..errors import NotUsable
from . import faults as fleet_faults
from . import history, record
from .report import PHASES, conclude


def recent(store: history.Store, now: float, hours: float) -> list[Mapping[str, Any]]:
    """Return the runs of the last hours, oldest first.

    :raises NotUsable: there is none, or one can't be read, is damaged or has another version.
    """
    stems = history.since(store, now - hours * 3600)
    if not stems:
        raise NotUsable(
            f"{store.place} holds no run of the last {hours:g} hours.",
            "Let the slices write their reports there first.",
            store.place,
        )
    return [_load(store, f"{stem}.json") for stem in stems]


def combine(
    runs: Iterable[Mapping[str, Any]], *, timestamp: float, title: str, fail_on: str
) -> dict[str, Any]:
    """Return one run with the hosts of all these runs; of a host in several the last counts.

    :param runs: documents of the current version, oldest first.
    :raises NotUsable: a document lacks keys, or they are of another type.
    """
    hosts: dict[str, dict[str, Any]] = {}
    phases: set[str] = set()
    for document in runs:
        phases.update(phase for phase in document["phases"] if phase in PHASES)
        for entry in document["hosts"]:
            hosts[str(entry["host"])] = entry
    try:
        report = conclude(
            {
                "version": history.VERSION,
                "title": title,
                "timestamp": verdict.isoformat(timestamp),
                "check_mode": False,
                "phases": [phase for phase in PHASES if phase in phases],
                "left_out": [],
                "hosts": list(hosts.values()),
            },
            fail_on,
        )
        report["causes"] = fleet_faults.causes(
            fault for entry in report["hosts"] for fault in entry["faults"]
        )
        report["metrics"] = record.metrics(report)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise NotUsable(
            "A document of a slice lacks keys of a host, or they are of another type.",
            "Remove the damaged document; the format is in the documentation.",
        ) from error
    return report


def _load(store: history.Store, name: str) -> Mapping[str, Any]:
    path = f"{store.place}/{name}"
    try:
        document: Mapping[str, Any] = store.load(name)
        history.upgrade(document)  # checks version and keys
    except (history.Damaged, OSError) as error:
        raise NotUsable(
            f"Can't use the run {path}: {error}.", "Remove it, or let the slice run again.", path
        ) from error
    if document["version"] != history.VERSION:
        raise NotUsable(
            f"The run {path} has version {document['version']}.",
            "Runs of the same version can be merged: let the slice run again.",
            path,
        )
    return document
