# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``mlfleet restore``: restore a backup, verified while it is written."""

from __future__ import annotations

import argparse
import os

from ..._core.jobs import JOBS
from .. import parts
from ..context import Context
from ..parser import archive, full_path
from . import Command


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    parser.add_argument("destination", type=full_path, help="directory to restore to")
    parser.add_argument("files", nargs="*", help="only these files (patterns)")
    parser.add_argument(
        "--backup",
        default="latest",
        type=archive,
        help="archive, its name, or latest (default latest)",
    )
    parser.add_argument(
        "--path",
        metavar="DIR",
        type=full_path,
        help="backup directory (default: the configured one)",
    )
    parser.add_argument("--replace", action="store_true", help="replace what is in the destination")


def run(context: Context) -> int:
    """Restore a backup and print what was done."""
    from ..._core.backup.options import RestoreOptions
    from ..._core.backup.restore import run as restore
    from ..._core.system.text import human_count

    args, terminal = context.arguments, context.terminal
    path = parts.backup_directory(context) if args.path is None else args.path
    options = RestoreOptions.from_mapping(
        {
            "backup": args.backup,
            "path": path,
            "destination": args.destination,
            "files": args.files,
            "mode": "replace" if args.replace else "new",
        }
    )
    with context.job_lock():
        present = _names_in(args.destination) if args.replace else set()
        outcome = restore.run(options, context.world, check=args.dry_run, tell=terminal.progress)
    result = outcome.to_dict()
    restored = result["restored"]
    if result["changed"]:
        would = "would be " if args.dry_run else ""
        lost = sorted(present - set(outcome.after))
        lines = [f"{would}restored {path}" for path in outcome.after]
        terminal.account([f"{would}removed {path}" for path in lost] + lines, every=args.verbose)
    verb = "Would restore" if args.dry_run else "Restored"
    files = human_count(int(restored.get("files") or 0), "file")
    line = f"{verb} {files} from {restored.get('backup')} to {args.destination}"
    terminal.say(line)
    terminal.log("INFO", line)
    terminal.data(result)
    return 0


def _names_in(directory: str) -> set[str]:
    """Return the paths below a directory, relative to it; none when it is not there."""
    from ..._core.backup.restore.facts import names_in

    return set(names_in(directory)) if os.path.isdir(directory) else set()


COMMAND = Command(
    name="restore",
    help="restore a backup, verified while it is written",
    examples=(
        "mlfleet restore --dry-run /srv/restored",
        "mlfleet restore /srv/restored 'bert/*' --backup models_backup_20250131_020000.tar.gz",
    ),
    arguments=arguments,
    run=run,
    part="",
    leave_out=(),
    log=JOBS["backup"].log,
    dry_run=True,
    waits=True,
    statuses="0 done, 1 failed, 2 the backup is damaged, 3 could not begin",
)
