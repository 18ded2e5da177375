# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the page of a run shows, as plain data for its template: trends, groups, the data of its
script.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from .. import verdict
from ..system.text import human_count, human_duration, human_size
from . import storage
from .faults import severity
from .history import TREND
from .report import HELD, NO_DATA, UNREACHABLE, worst

LABELS = {verdict.PASS: "ok", NO_DATA: "no data", verdict.SKIPPED: "not run"}
#: A shape for each state, so that nobody needs the colours.
MARKS = {
    verdict.PASS: "✓",
    verdict.SKIPPED: "–",
    verdict.UNKNOWN: "?",
    verdict.WARNING: "!",
    verdict.CRITICAL: "✕",
    "failed": "■",
    HELD: "‖",
    NO_DATA: "?",
    UNREACHABLE: "⊘",
}
#: Runs that a trend shows.
RUNS = TREND


class Series(NamedTuple):
    """A number of the run that the page draws over time."""

    metric: str
    title: str
    kind: str


SERIES = (
    Series("score_median", "Median health score", "number"),
    Series("critical_hosts", "Critical hosts", "number"),
    Series("temperature_spread", "Hottest GPU above the median", "°C"),
    Series("backup_bytes", "Size of all backups", "size"),
    Series("backup_age_max", "Oldest backup", "duration"),
    Series("freed_bytes", "Freed", "size"),
    Series("duration_max", "Longest host", "duration"),
)


def shown(value: float, kind: str) -> str:
    """Return a value as text for people."""
    if kind == "size":
        return human_size(value)
    if kind == "duration":
        if value > 2 * 86400:
            return f"{value / 86400:.1f} days"
        return human_duration(value)
    if kind == "number":
        return f"{value:g}"
    return f"{value:g} {kind}"


def trends(runs: Sequence[tuple[str, Mapping[str, float]]]) -> list[dict[str, Any]]:
    """Return the charts: title, points of a line in a box of 160 x 40, first, last, smallest,
    largest value.

    :param runs: time and metrics of each run, oldest first.
    """
    charts = []
    for metric, title, kind in SERIES:
        values = [
            (time, float(metrics[metric])) for time, metrics in runs[-RUNS:] if metric in metrics
        ]
        if len(values) < 2:
            continue
        low, high = min(value for _time, value in values), max(value for _time, value in values)
        step = 156.0 / (len(values) - 1)
        points = [
            (round(2 + number * step, 1), round(38 - 36 * (value - low) / ((high - low) or 1), 1))
            for number, (_time, value) in enumerate(values)
        ]
        charts.append(
            {
                "title": title,
                "points": " ".join(f"{x:g},{y:g}" for x, y in points),
                "end": points[-1],
                "last": shown(values[-1][1], kind),
                "low": shown(low, kind),
                "high": shown(high, kind),
                "runs": len(values),
                "since": values[0][0][:10],
            }
        )
    return charts


def glance(hosts: Sequence[Mapping[str, Any]], limit: int = 60) -> list[dict[str, Any]]:
    """Return the hosts by inventory group: each host once, in the smallest of its groups.

    :param limit: most groups; the hosts of the smallest ones beyond it are shown together.
    """
    sizes = Counter(group for entry in hosts for group in entry["groups"])
    groups: dict[str, list[dict[str, Any]]] = {}
    for number, entry in enumerate(hosts):
        # A group of one host says nothing; the host is shown with its next larger group.
        of_host = sorted(entry["groups"], key=lambda group: (sizes[group] < 2, sizes[group], group))
        name = ""
        if of_host:
            name = of_host[0]
        groups.setdefault(name, []).append(
            {"number": number, "host": entry["host"], "status": entry["status"]}
        )
    ordered = sorted(groups.items(), key=lambda item: (item[0] == "", item[0]))
    if len(ordered) > limit:
        ordered = [("", [host for _name, members in ordered for host in members])]
    return [
        {
            "name": name or ("other hosts" if len(ordered) > 1 else "all hosts"),
            "hosts": members,
            "status": worst(host["status"] for host in members),
            "counts": counts(host["status"] for host in members),
        }
        for name, members in ordered
    ]


def counts(states: Iterable[str]) -> str:
    """Return the number of hosts per state, worst first: ``2 critical, 46 ok``."""
    counted = Counter(states)
    ordered = sorted(counted, key=lambda state: -severity(state))
    return ", ".join(f"{counted[state]} {LABELS.get(state, state)}" for state in ordered)


def script_data(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the page's script shows of single hosts; equal texts are stored once."""
    texts: dict[str, int] = {}

    def number(text: object) -> int:
        return texts.setdefault(str(text), len(texts))

    hosts = [
        {
            "host": entry["host"],
            "hostname": entry["hostname"],
            "status": entry["status"],
            "score": entry["health_score"],
            "action": entry["recommendation"],
            "groups": entry["groups"],
            "phases": [
                [phase["phase"], phase["status"], phase["message"][:400], phase["duration"]]
                for phase in entry["phases"]
            ],
            "checks": [[number(cell) for cell in row] for row in entry["checks"]],
            "devices": entry["devices"],
            "software": entry["software"],
            "backup": entry["backup"],
            "copies": entry["copies"],
            "removed": entry["removed"],
            "disks": entry.get("disks", []),
            "places": storage.copies(entry),
            "safe": storage.meets_321(entry),
            "proof": storage.proof(entry),
            "exposed": storage.exposed(entry, report["timestamp"]),
            "hardware": entry.get("hardware", {}),
            "freed": entry["freed_bytes"],
            "notes": entry["notes"],
        }
        for entry in report["hosts"]
    ]
    return {"texts": list(texts), "hosts": hosts, "labels": LABELS, "marks": MARKS}


def headline_parts(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the tiles at the top: value and what it is."""
    summary = report["summary"]
    tiles = [(str(summary["hosts"]), "hosts targeted")]
    tiles += [
        (str(count), LABELS.get(state, state))
        for state, count in summary["states"].items()
        if count
    ]
    if summary["score_min"] is not None:
        tiles.append((f"{summary['score_min']:g}", "lowest health score"))
    if "backup" in report["phases"]:
        tiles.append((str(summary["backups_verified"]), "verified backups"))
    if "cleanup" in report["phases"]:
        tiles.append((human_size(summary["freed_bytes"]), "freed"))
    return tiles


def filters(report: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the states and groups that the page can filter by."""
    states = {entry["status"] for entry in report["hosts"]}
    return {
        "states": sorted(states, key=lambda state: -severity(state)),
        "groups": sorted({group for entry in report["hosts"] for group in entry["groups"]}),
    }


def hosts_text(hosts: Sequence[str], limit: int = 6) -> str:
    """Return hosts as text: the first few and the number of the others."""
    if len(hosts) <= limit:
        return ", ".join(hosts)
    return f"{', '.join(hosts[:limit])} and {human_count(len(hosts) - limit, 'more host')}"
