# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``mlfleet verify``: read backups again and compare every file."""

from __future__ import annotations

import argparse

from ..._core import outcome
from ..._core.errors import NotPermitted, NotUsable, VerificationFailed
from ..._core.jobs import JOBS
from .. import parts
from ..context import Context
from ..parser import full_path
from . import Command


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    parser.add_argument(
        "path",
        nargs="?",
        type=full_path,
        help="an archive or a backup directory (default: the configured one)",
    )


def run(context: Context) -> int:
    """Verify the archive or directory that was named, or the configured directory."""
    path = context.arguments.path
    return verify(context, parts.backup_directory(context) if path is None else path)


def verify(context: Context, path: str) -> int:
    """Verify one archive, or all in a directory, and print the result.

    :raises VerificationFailed: it is not there, or can't be read. :raises NotPermitted: this user may not read it.
    """
    terminal = context.terminal
    try:
        result = parts.list_backups(context, path, verify="full")
    except NotPermitted:
        raise  # nothing is known about the backups
    except NotUsable as error:
        raise VerificationFailed(error.message, error.todo, error.subject) from error
    for backup in result["backups"]:
        state, level = outcome.backup_state(backup)
        line = f"{backup['path']}: {state}"
        terminal.say(line)
        terminal.log(level, line)
    if not result["backups"]:
        terminal.say(f"There is no backup in {path}")
        terminal.log("CRITICAL", f"there is no backup in {path}")
    terminal.data(result)
    return outcome.of_backups(result["backups"])


COMMAND = Command(
    name="verify",
    help="read backups again and compare every file",
    examples=(
        "mlfleet verify",
        "mlfleet verify /backup/models/models_backup_20250131_020000.tar.gz",
    ),
    arguments=arguments,
    run=run,
    part="",
    leave_out=(),
    log=JOBS["backup"].log,
    dry_run=False,
    waits=False,
    statuses="0 all backups verified, 2 a backup is damaged or there is none, 3 could not run",
)
