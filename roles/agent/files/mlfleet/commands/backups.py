# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``mlfleet backups``: list the backups and their copies, and why each is kept."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from ..._core.jobs import JOBS
from ..context import Context
from ..parser import full_path
from . import Command

_COLUMNS = ("NAME", "TIME", "SIZE", "FILES", "VERIFIED", "WHERE", "KEPT")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    parser.add_argument(
        "path",
        nargs="?",
        type=full_path,
        help="a backup directory (default: the configured one)",
    )


def run(context: Context) -> int:
    """List the backups in the directory and their copies in the configured bucket."""
    from ..._core.backup import overview
    from ..._core.backup.options import BackupOptions

    forced = {} if context.arguments.path is None else {"destination": context.arguments.path}
    options = context.options("backup", BackupOptions, {}, **forced)
    backups = overview.run(options, context.world)
    terminal = context.terminal
    if backups:
        terminal.say(*_table([_COLUMNS, *(_row(backup) for backup in backups)]))
    else:
        terminal.say(f"There is no backup in {options.destination}")
    terminal.data({"backups": backups})
    return 0


def _row(backup: Mapping[str, Any]) -> tuple[str, ...]:
    from ..._core.system.text import human_size

    kept = backup["kept"] or "no rule keeps it"
    if backup["problems"]:
        kept = f"{kept}; PROBLEM: {backup['problems'][0]}"
    return (
        backup["name"],
        backup["created"],
        human_size(backup["size"]),
        "?" if backup["files"] is None else str(backup["files"]),
        "yes" if backup["verified"] else "no",
        backup["where"],
        kept,
    )


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the rows as lines whose columns are aligned."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows
    ]


COMMAND = Command(
    name="backups",
    help="list the backups and their copies, and why each is kept",
    examples=("mlfleet backups", "mlfleet backups /backup/models"),
    arguments=arguments,
    run=run,
    part="",
    leave_out=(),
    log=JOBS["backup"].log,
    dry_run=False,
    waits=False,
)
