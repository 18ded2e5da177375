# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks, backups and deletions of the fleet, as the page lists them. Pure."""

from __future__ import annotations

import calendar
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .. import verdict
from ..system.text import human_count, human_duration, human_size
from .faults import clean, mapping

#: Most file systems that are kept of a host: those with the least free space.
DISKS = 6
#: Most rows of a table.
ROWS = 10
#: What a store confirms of a copy that counts as verified.
_CONFIRMED = frozenset({"checksum"})
_DAY = 86400.0


class Table(NamedTuple):
    """A table of the page; each row begins with the number of a host in the report."""

    title: str
    note: str
    head: Sequence[str]
    rows: Sequence[tuple[int, Sequence[str]]]


def disks(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the fullest file systems of a host: C(mount free used), bytes and percent.

    :param result: the result of its health phase.
    """
    listed: list[dict[str, Any]] = []
    for check in result.get("checks") or ():
        if not isinstance(check, Mapping) or check.get("check") != "disk_usage":
            continue
        free = mapping(check.get("details")).get("free_bytes")
        used = check.get("value")
        if _is_number(free) and _is_number(used):
            listed.append(
                {"mount": clean(check.get("subject") or "", 100), "free": free, "used": used}
            )
    return sorted(listed, key=lambda disk: -disk["used"])[:DISKS]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e18


def copies(entry: Mapping[str, Any]) -> list[str]:
    """Return where verified copies of the models are, besides the models themselves."""
    places = []
    if entry["backup"].get("verified") is True:
        places.append("backup directory")
    places += [copy["url"] for copy in entry["copies"] if copy["verified"] in _CONFIRMED]
    return places


def meets_321(entry: Mapping[str, Any]) -> bool:
    """Say whether there are three copies, the models included, on two kinds of storage, one
    elsewhere.
    """
    places = copies(entry)
    return len(places) >= 2 and any("://" in place for place in places)


def age(created: object, now: str) -> float | None:
    """Return the seconds between two times in ISO 8601 with ``+00:00``, None when one is none."""
    try:
        moments = [
            calendar.timegm(time.strptime(str(text)[:19], "%Y-%m-%dT%H:%M:%S"))
            for text in (created, now)
        ]
    except ValueError:
        return None
    return float(max(0, moments[1] - moments[0]))


def exposed(entry: Mapping[str, Any], now: str) -> float | None:
    """Return the seconds since the models were last known to be in a backup, None for never.

    That is what would be lost with the host: its current recovery point.
    """
    return age(entry.get("backed_up"), now)


def _backs_up(entry: Mapping[str, Any]) -> bool:
    return any(
        phase["phase"] == "backup" and phase["status"] != verdict.SKIPPED
        for phase in entry["phases"]
    ) or bool(entry.get("backed_up"))


def _ago(seconds: float | None) -> str:
    if seconds is None:
        return "never"
    if seconds < 1:
        return "this run"
    if seconds < 2 * _DAY:
        return f"{human_duration(seconds)} ago"
    return f"{seconds / _DAY:.1f} days ago"


def tables(report: Mapping[str, Any]) -> list[Table]:
    """Return the tables of the page that have rows: free space, backups to look at, deletions."""
    listed = [_free_space(report["hosts"]), _backups(report), _deletions(report["hosts"])]
    return [table for table in listed if table.rows or table.note]


def _free_space(hosts: Sequence[Mapping[str, Any]]) -> Table:
    every = [
        (number, disk) for number, entry in enumerate(hosts) for disk in entry.get("disks", ())
    ]
    every.sort(key=lambda pair: -float(pair[1]["used"]))
    rows = [
        (number, (disk["mount"], human_size(disk["free"]), f"{disk['used']:g} %"))
        for number, disk in every[:ROWS]
    ]
    return Table("Least free space", "", ("Host", "File system", "Free", "Used"), rows)


def _backups(report: Mapping[str, Any]) -> Table:
    now = report["timestamp"]
    hosts = [pair for pair in enumerate(report["hosts"]) if _backs_up(pair[1])]
    ages = {number: exposed(entry, now) for number, entry in hosts}
    meeting = sum(1 for dummy, entry in hosts if meets_321(entry))
    proven = sum(1 for dummy, entry in hosts if entry.get("restore_proof", {}).get("at"))
    note = ""
    if hosts:
        note = (
            f"{human_count(len(hosts), 'host')}: {meeting} with three copies on two kinds of"
            f" storage and one elsewhere (3-2-1), {proven} with a restore on record."
        )
    suspects = [(number, entry) for number, entry in hosts if ages[number] or not meets_321(entry)]
    suspects += [pair for pair in hosts if ages[pair[0]] is None and pair not in suspects]

    def urgency(pair: tuple[int, Mapping[str, Any]]) -> tuple[float, int]:
        seconds = ages[pair[0]]
        return (float("-inf") if seconds is None else -seconds, len(copies(pair[1])))

    rows = [
        (
            number,
            (
                _ago(ages[number]),
                ", ".join(copies(entry)) or "none verified",
                ("no", "yes")[meets_321(entry)],
                proof(entry),
            ),
        )
        for number, entry in sorted(suspects, key=urgency)[:ROWS]
    ]
    head = ("Host", "Last known good", "Verified copies", "3-2-1", "Last restore proof")
    return Table("Backups", note, head, rows)


def proof(entry: Mapping[str, Any]) -> str:
    """Return the last restore proof of a host as text."""
    record = entry.get("restore_proof") or {}
    if record.get("unreadable"):
        return clean(record["unreadable"], 100)
    if not record.get("at"):
        return "none"
    seconds = record.get("seconds")
    parts = [record["at"][:10], record.get("backup", ""), record.get("place", "")]
    if seconds is not None:
        parts.append(f"in {human_duration(seconds)}")
    return ", ".join(part for part in parts if part)


def _deletions(hosts: Sequence[Mapping[str, Any]]) -> Table:
    every = [(number, unit) for number, entry in enumerate(hosts) for unit in entry["removed"]]
    every.sort(key=lambda pair: -float(pair[1]["size"]))
    rows = [(number, (unit["path"], human_size(unit["size"]))) for number, unit in every[:ROWS]]
    return Table("Largest deletions", "", ("Host", "Path", "Size"), rows)
