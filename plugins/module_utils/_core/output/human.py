# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Verdicts for people: aligned lines, coloured on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .. import verdict

_COLOURS = {
    verdict.PASS: "32",
    verdict.WARNING: "33",
    verdict.UNKNOWN: "35",
    verdict.CRITICAL: "31;1",
    verdict.SKIPPED: "2",
}


def paint(text: str, status: str, colour: bool) -> str:
    """Return C(text) in the status's colour (ANSI), or as it is."""
    return f"\033[{_COLOURS[status]}m{text}\033[0m" if colour and status in _COLOURS else text


def document(result: Mapping[str, Any], colour: bool = False, verbose: bool = False) -> list[str]:
    """Return a verdict document as lines: what is wrong, or every check when C(verbose); then the summary.

    Checks that passed or were skipped are shown only when C(verbose).
    """
    checks = [
        check
        for check in result["checks"]
        if verbose or check["status"] not in (verdict.PASS, verdict.SKIPPED)
    ]
    width = max((len(check["check"]) for check in checks), default=0)
    lines = []
    for check in checks:
        mark = paint(check["status"].upper().ljust(8), check["status"], colour)
        lines.append(f"{mark}  {check['check'].ljust(width)}  {check['message']}")
    summary = result["summary"]
    if summary["total"] == 0:
        why = [check["message"] for check in result["checks"]]
        return [
            *lines,
            paint(
                f"{result['hostname']}: nothing to check. {' '.join(why[:1])}".strip(),
                verdict.SKIPPED,
                colour,
            ),
        ]
    counts = f"{summary['passed']} passed, {summary['warnings']} warnings, {summary['failed']} critical, {summary['skipped']} skipped"
    head = paint(summary["status"].upper(), summary["status"], colour)
    return [*lines, f"{result['hostname']}: {head}, score {summary['health_score']:g} ({counts})"]


def table(rows: Iterable[Iterable[Any]], rule: bool = False) -> list[str]:
    """Return rows of cells as lines with aligned columns; the first row is the header, underlined when C(rule)."""
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    if not cells:
        return []
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    if rule:
        cells.insert(1, ["-" * width for width in widths])
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in cells
    ]


def gpus(found: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the GPUs as a table; values a GPU does not report read C(-)."""
    rows: list[list[Any]] = [["GPU", "NAME", "TEMP", "UTIL", "MEMORY", "POWER"]]

    def show(value: Any, unit: str = "") -> str:
        return (
            "-"
            if value is None
            else f"{value:g}{unit}"
            if isinstance(value, (int, float))
            else str(value)
        )

    for gpu in found:
        memory = f"{show(gpu.get('mem_used'))} / {show(gpu.get('mem_total'), ' MiB')}"
        power = f"{show(gpu.get('power_draw'))} / {show(gpu.get('power_limit'), ' W')}"
        rows.append(
            [
                gpu.get("id"),
                gpu.get("name"),
                show(gpu.get("temp"), " C"),
                show(gpu.get("util_gpu"), " %"),
                memory,
                power,
            ]
        )
    return table(rows) if len(rows) > 1 else []
