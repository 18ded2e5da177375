# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Verdicts for people: aligned lines, coloured on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .. import verdict
from ..system.text import human_count

_COLOURS = {
    verdict.PASS: "32",
    verdict.WARNING: "33",
    verdict.UNKNOWN: "35",
    verdict.CRITICAL: "31;1",
    verdict.SKIPPED: "2",
}


def paint(text: str, status: str, colour: bool) -> str:
    """Return ``text`` in the status's colour (ANSI), or unchanged."""
    if colour and status in _COLOURS:
        return f"\033[{_COLOURS[status]}m{text}\033[0m"
    return text


def document(result: Mapping[str, Any], colour: bool = False, verbose: bool = False) -> list[str]:
    """Return a verdict document as lines: its problems, or every check when ``verbose``, and the
    summary.
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
        why = next((check["message"] for check in result["checks"]), "")
        text = f"{result['hostname']}: nothing to check. {why}".strip()
        return [*lines, paint(text, verdict.SKIPPED, colour)]
    counts = ", ".join(
        (
            f"{summary['passed']} passed",
            human_count(summary["warnings"], "warning"),
            f"{summary['failed']} critical",
            f"{summary['skipped']} skipped",
        )
    )
    head = paint(summary["status"].upper(), summary["status"], colour)
    return [*lines, f"{result['hostname']}: {head}, score {summary['health_score']:g} ({counts})"]


def table(rows: Iterable[Iterable[Any]], rule: bool = False) -> list[str]:
    """Return rows of cells as lines with aligned columns; the first row is the header, underlined
    when ``rule``.
    """
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    if not cells:
        return []
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    if rule:
        cells.insert(1, ["-" * width for width in widths])
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in cells
    ]


def wrapped_table(rows: Sequence[Sequence[str]], width: int = 100) -> list[str]:
    """Return rows of three cells as aligned lines of at most ``width`` columns; long cells continue
    below.
    """
    import textwrap

    first = max(len(row[0]) for row in rows)
    second = min((width - first - 4) * 3 // 5, max(len(row[1]) for row in rows))
    widths = (first, second, max(20, width - first - second - 4))
    lines = []
    for row in rows:
        cells = [
            textwrap.wrap(cell, size, break_on_hyphens=False) or [""]
            for cell, size in zip(row, widths)
        ]
        for index in range(max(map(len, cells))):
            parts = (
                (cell[index] if index < len(cell) else "").ljust(size)
                for cell, size in zip(cells, widths)
            )
            lines.append("  ".join(parts).rstrip())
    return lines


def gpus(readings: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the GPUs as a table; values that a GPU does not report are ``-``."""
    rows: list[list[Any]] = [["GPU", "NAME", "TEMP", "UTIL", "MEMORY", "POWER"]]
    for gpu in readings:
        memory = f"{_cell(gpu.get('mem_used'))} / {_cell(gpu.get('mem_total'), ' MiB')}"
        power = f"{_cell(gpu.get('power_draw'))} / {_cell(gpu.get('power_limit'), ' W')}"
        temperature = _cell(gpu.get("temp"), " C")
        utilization = _cell(gpu.get("util_gpu"), " %")
        rows.append([gpu.get("id"), gpu.get("name"), temperature, utilization, memory, power])
    if len(rows) > 1:
        return table(rows)
    return []


def _cell(value: Any, unit: str = "") -> str:
    if value is None:
        return "-"
    if isinstance(value, (int, float)):
        return f"{value:g}{unit}"
    return str(value)
