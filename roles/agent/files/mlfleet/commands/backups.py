# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``mlfleet backups``: list the backups and their copies, without reading them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from typing import Any

from ..._core import outcome
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
    """Print a line for each backup and each copy in the configured bucket, newest first."""
    from ..._core.backup import overview
    from ..._core.backup.options import BackupOptions
    from ..._core.output import human
    from ..._core.system.text import human_size

    path, options = context.arguments.path, context.options("backup", BackupOptions, {})
    result, listed = overview.run(options, path, context.world)
    rows = [["BACKUP", "CREATED", "SIZE", "FILES", "WHERE", "KEPT", "STATE"]]
    for backup in listed:
        state = "not verified"
        if backup["verified"]:
            state = "verified"
        if backup.get("unreadable"):
            state = f"unknown: {backup['unreadable']}"
        elif backup["problems"]:
            state = "; ".join(backup["problems"])
        files = "unknown"
        if "files" in backup:
            files = str(backup["files"])
        size, kept = human_size(backup["size"]), backup["kept"] or "no: no rule keeps it"
        created = backup["created"] or "unknown"
        name = os.path.basename(backup["path"])
        rows.append([name, created, size, files, backup["where"], kept, state])
    if listed:
        context.terminal.say(*human.table(rows))
    else:
        context.terminal.say(f"There is no backup in {path or options.destination}")
    proof = result["last_restore_proof"]
    if listed and proof is not None:
        context.terminal.say("", restore_proof_line(proof))
    context.terminal.data({**result, "backups": listed})
    return outcome.OK


def restore_proof_line(proof: Mapping[str, Any] | None) -> str:
    """Return the last restore drill as a line."""
    if proof is None:
        return "Last restore proof: none (mlfleet restore --drill)"
    if proof.get("unreadable"):
        return f"Last restore proof: unknown: {proof['unreadable']}"
    what = f"{proof['backup']} from {proof['place']} in {proof['seconds']:.1f} s"
    return f"Last restore proof: {proof['at']}, {what}"


COMMAND = Command(
    name="backups",
    help="list the backups and their copies, and why each is kept, without reading them",
    examples=("mlfleet backups", "mlfleet backups --json | jq '.backups[].path'"),
    arguments=arguments,
    run=run,
    part="",
    leave_out=(),
    log="",
    dry_run=False,
    waits=False,
    statuses="0 listed, 3 could not run",
)
