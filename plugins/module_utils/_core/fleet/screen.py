# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A report as lines of text for a terminal. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import verdict
from ..output import human
from ..system.text import human_count, human_duration, human_size, one_line
from .report import NO_DATA, STATES, troubles

_MARKS = {verdict.PASS: "ok", verdict.SKIPPED: "-", NO_DATA: "no data"}


#: Most hosts that the table lists one by one.
TABLE_HOSTS = 40
#: Longest reason of one phase on the screen.
LINE = 300


def _line(text: str) -> str:
    """Return text as one line that a terminal displays as it is, cut to a length."""
    line = one_line(text[: LINE + 1])
    if len(line) <= LINE:
        return line
    return line[: LINE - 1] + "\u2026"


def table(report: Mapping[str, Any]) -> list[str]:
    """Return the report as lines of plain text, the verdict last.

    Up to TABLE_HOSTS hosts: a row per host, a column per phase with state and duration, then what
    is wrong per host. More hosts: a row per group of hosts whose phases have the same states.
    """
    if len(report["hosts"]) > TABLE_HOSTS:
        lines = _groups(report)
    else:
        lines = _rows(report)
        lines += [
            _line(f"{entry['host']}: {trouble}")
            for entry in report["hosts"]
            for trouble in troubles(entry)
        ]
        lines += [
            _line(f"{entry['host']}: note: {note}")
            for entry in report["hosts"]
            for note in entry["notes"]
        ]
    if report["left_out"]:
        lines.append(f"left out by tags: {', '.join(report['left_out'])}")
    return [*lines, *report["errors"], headline(report)]


def _rows(report: Mapping[str, Any]) -> list[str]:
    header = ["HOST", "STATE", "SCORE", *(phase.upper() for phase in report["phases"]), "TIME"]
    rows = [header]
    for entry in report["hosts"]:
        cells = [
            _line(entry["host"]),
            entry["status"],
            "" if entry["health_score"] is None else f"{entry['health_score']:g}",
        ]
        for phase in entry["phases"]:
            mark = _MARKS.get(phase["status"], phase["status"])
            if phase["duration"] is not None:
                mark += f" {human_duration(phase['duration'])}"
            cells.append(mark)
        rows.append([*cells, human_duration(entry["duration"]) if entry["duration"] else ""])
    return human.table(rows, rule=True)


def _groups(report: Mapping[str, Any]) -> list[str]:
    """Return a table of groups of like hosts, worst first, then the largest."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for entry in report["hosts"]:
        states = (entry["status"], *(phase["status"] for phase in entry["phases"]))
        groups.setdefault(states, []).append(entry["host"])
    rows = [["HOSTS", "STATE", *(phase.upper() for phase in report["phases"]), "WHICH"]]
    for states, hosts in sorted(
        groups.items(), key=lambda item: (-STATES.index(item[0][0]), -len(item[1]))
    ):
        which = ", ".join(_line(host) for host in hosts[:3])
        more = ""
        if len(hosts) > 3:
            more = f" and {len(hosts) - 3} more"
        marks = [_MARKS.get(state, state) for state in states[1:]]
        rows.append([str(len(hosts)), states[0], *marks, which + more])
    notes = sum(1 for entry in report["hosts"] if entry["notes"])
    lines = human.table(rows, rule=True)
    if notes:
        lines.append(f"{human_count(notes, 'host')}: the agent is not the collection's version")
    return lines


def headline(report: Mapping[str, Any]) -> str:
    """Return the whole run in one line."""
    summary = report["summary"]
    states = ", ".join(
        f"{count} {state.replace('_', ' ')}" for state, count in summary["states"].items() if count
    )
    hosts = human_count(summary["hosts"], "host")
    backups = human_count(summary["backups_verified"], "verified backup")
    return (
        f"{report['title']}: {report['status'].upper()} - {hosts} ({states or 'none'}), {backups},"
        f" {human_size(summary['freed_bytes'])} freed"
    )
