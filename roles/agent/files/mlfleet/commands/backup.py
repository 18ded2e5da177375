# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``mlfleet backup``: make a verified backup, or verify one archive."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from ..._core.errors import OptionError
from ..._core.jobs import JOBS
from ..._core.outcome import Outcome
from .. import parts
from ..context import Context
from ..parser import full_path
from . import Command
from .verify import verify


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    parser.add_argument(
        "--s3-sync",
        action="store_true",
        help="store a copy in the bucket named by S3_BUCKET or the configuration",
    )
    parser.add_argument(
        "--verify",
        dest="verify_file",
        metavar="FILE",
        type=full_path,
        help="make no backup; verify this archive",
    )
    parser.add_argument(
        "--no-verify",
        dest="option:verify",
        action="store_false",
        default=None,
        help="do not read the new archive back [VERIFY_BACKUP=false]",
    )


def run(context: Context) -> int:
    """Make a backup and print what was done. :raises OptionError: --s3-sync without a bucket."""
    args, terminal = context.arguments, context.terminal
    if args.verify_file is not None:
        return verify(context, args.verify_file)
    if args.s3_sync and not (context.merged("backup").values.get("s3") or {}).get("bucket"):
        raise OptionError(
            "--s3-sync needs a bucket.",
            "Set S3_BUCKET, --s3-bucket or backup.s3.bucket in the configuration.",
            "s3.bucket",
        )
    terminal.log("INFO", "backup started" + (" (dry run)" if args.dry_run else ""))
    with context.job_lock():
        result = parts.make_backup(context, check=args.dry_run)
    lines = describe(result, args.dry_run)
    terminal.say(*lines)
    for line in lines:
        terminal.log("INFO", line)
    for link in result["outside_links"]:
        terminal.log("WARNING", f"not in the backup: what {link} points to")
    terminal.data(result)
    context.outcome = Outcome(status=result["status"])
    return 0


def describe(result: Mapping[str, Any], dry_run: bool) -> list[str]:
    """Return what a backup run did, or would do, as lines."""
    from ..._core.system.text import human_count, human_list, human_size

    would = ""
    if dry_run:
        would = "would be "
    made, plan = result["backup"] or {}, result["plan"]
    if plan["action"] != "create":
        lines = [f"No new backup needed: {plan['reason']}"]
    elif dry_run:
        size = human_size(plan["bytes"])
        lines = [
            f"A backup would be made: {human_count(plan['files'], 'file')}, {size}"
            f" ({plan['reason']})"
        ]
    else:
        proof = "NOT verified"
        if made.get("verified"):
            proof = "verified"
        size = human_size(made["size"])
        lines = [
            f"Backup made: {made['path']} ({human_count(made['files'], 'file')}, {size}, {proof})"
        ]
    lines += [f"Copy {would}stored: {copy['url']}" for copy in result["copies"]]
    lines += [
        f"Expired backup {would}removed: {expired['path']} ({expired['reason']})"
        for expired in result["removed"]
    ]
    if result["outside_links"]:
        links = human_list(result["outside_links"], 1)
        lines.append(
            f"Warning: what links out of the source point to is not in the backup: {links}"
        )
    return lines


COMMAND = Command(
    name="backup",
    help="back up the models, verified",
    examples=(
        "mlfleet backup --dry-run",
        "MODEL_DIR=/opt/ml/models BACKUP_DIR=/backup/models mlfleet backup",
        "S3_BUCKET=my-backups mlfleet backup --s3-sync",
        "mlfleet backup --verify /backup/models/models_backup_20250131_020000.tar.gz",
    ),
    arguments=arguments,
    run=run,
    part="backup",
    leave_out=("verify",),
    log=JOBS["backup"].log,
    dry_run=True,
    waits=True,
    statuses="0 done, or nothing had changed, 1 failed, 2 a backup is damaged, 3 could not begin",
)
