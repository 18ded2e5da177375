# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``mlfleet backups``: list the backups, without reading them."""

from __future__ import annotations

import argparse
import os

from ..._core import outcome
from .. import parts
from ..context import Context
from ..parser import full_path
from . import Command


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "path",
        nargs="?",
        type=full_path,
        help="a backup directory or an archive (default: the configured directory)",
    )


def run(context: Context) -> int:
    """Print a line for each backup, newest first."""
    from ..._core.output import human
    from ..._core.system.text import human_size

    path = context.arguments.path or parts.backup_directory(context)
    result = parts.list_backups(context, path)
    rows = [["BACKUP", "CREATED", "SIZE", "FILES", "STATE"]]
    for backup in result["backups"]:
        state = "verified" if backup.get("verified") else "not verified"
        if backup.get("unreadable"):
            state = f"unknown: {backup['unreadable']}"
        elif backup.get("problems"):
            state = "; ".join(backup["problems"])
        name = os.path.basename(str(backup["path"]))
        size = human_size(backup.get("size") or 0)
        files = backup.get("files")
        created = str(backup.get("created") or "unknown")
        rows.append([name, created, size, "unknown" if files is None else str(files), state])
    if len(rows) > 1:
        context.terminal.say(*human.table(rows))
    else:
        context.terminal.say(f"There is no backup in {path}")
    context.terminal.data(result)
    return outcome.OK


COMMAND = Command(
    name="backups",
    help="list the backups, newest first, without reading them",
    examples=("mlfleet backups", "mlfleet backups --json | jq '.backups[].path'"),
    arguments=arguments,
    run=run,
    part="",
    leave_out=(),
    log="",
    dry_run=False,
    waits=False,
)
