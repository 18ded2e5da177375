# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``mlfleet verify``: read backups again and compare every file."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from ..._core import outcome
from ..._core.errors import NotPermitted, NotUsable, OptionError, VerificationFailed
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
    parser.add_argument(
        "--s3",
        action="store_true",
        help="verify the copies in the configured bucket instead; downloads all of them",
    )


def run(context: Context) -> int:
    """Verify what was named, the configured directory, or the copies in the configured bucket.

    :raises OptionError: a path and the bucket were named.
    """
    path = context.arguments.path
    if not context.arguments.s3:
        return verify(context, parts.backup_directory(context) if path is None else path)
    if path is not None:
        raise OptionError("--s3 and a path contradict each other.", "Give one of them.", "path")
    s3 = parts.object_storage(context)
    return verify(context, parts.backup_directory(context), s3)


def verify(context: Context, path: str, s3: Mapping[str, Any] | None = None) -> int:
    """Verify one archive, or all in a directory or bucket, and print the result.

    :raises VerificationFailed: it is not there, or can't be read. :raises NotPermitted: this user
        may not read it.
    """
    terminal = context.terminal
    try:
        result = parts.list_backups(context, path, verify="full", s3=s3)
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
        place = path if s3 is None else f"s3://{s3['bucket']}/{s3.get('prefix') or ''}"
        terminal.say(f"There is no backup in {place}")
        terminal.log("CRITICAL", f"there is no backup in {place}")
    terminal.data(result)
    return outcome.of_backups(result["backups"])


COMMAND = Command(
    name="verify",
    help="read backups again and compare every file",
    examples=(
        "mlfleet verify",
        "mlfleet verify --s3",
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
