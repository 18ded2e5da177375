# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``mlfleet restore``: restore a backup, verified while it is written, or rehearse that."""

from __future__ import annotations

import argparse
import os
from typing import Any

from ..._core.errors import OptionError
from ..._core.jobs import JOBS
from .. import parts
from ..context import Context
from ..parser import archive, full_path
from . import Command


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    parser.add_argument(
        "destination", nargs="?", type=full_path, help="directory to restore to; none with --drill"
    )
    parser.add_argument("files", nargs="*", help="only these files (patterns)")
    parser.add_argument(
        "--model", metavar="NAME", help="only this model, a top-level entry of the backup"
    )
    parser.add_argument(
        "--backup",
        default="latest",
        type=archive,
        help="archive, its name, latest (default), or random (with --drill)",
    )
    parser.add_argument(
        "--path",
        metavar="DIR",
        type=full_path,
        help="backup directory (default: the configured one)",
    )
    parser.add_argument("--replace", action="store_true", help="replace what is in the destination")
    parser.add_argument(
        "--s3", action="store_true", help="restore from the copies in the configured bucket"
    )
    parser.add_argument(
        "--drill",
        action="store_true",
        help="restore into a scratch directory, compare all files, remove it, record the proof",
    )
    parser.add_argument(
        "--scratch",
        metavar="DIR",
        type=full_path,
        help="directory in which --drill makes its scratch directory (default /var/tmp)",
    )


def run(context: Context) -> int:
    """Restore a backup, or rehearse that, and print what was done."""
    args = context.arguments
    if not args.destination and not args.drill:
        raise OptionError(
            "Option destination is required.",
            "Call mlfleet restore DIRECTORY, or mlfleet restore --drill.",
            "destination",
        )
    given: dict[str, Any] = {
        "backup": args.backup,
        "path": parts.backup_directory(context) if args.path is None else args.path,
        "destination": args.destination,
        "files": args.files,
        "model": args.model,
        "mode": "replace" if args.replace else "new",
        "drill": args.drill,
        "s3": parts.object_storage(context) if args.s3 else None,
    }
    given.update(parts.engine_options(context, given["s3"]))
    if args.scratch is not None:
        if not args.drill:
            raise OptionError("--scratch is for drills.", "Add --drill.", "scratch")
        given["scratch"] = args.scratch
    if args.drill:
        return _drill(context, given)
    return _restore(context, given)


def _drill(context: Context, given: dict[str, Any]) -> int:
    from ..._core.backup import drill
    from ..._core.backup.options import RestoreOptions
    from ..._core.system.text import human_count, human_size

    args, terminal = context.arguments, context.terminal
    options = RestoreOptions.from_mapping(given)
    with context.job_lock():
        result = drill.run(options, context.world, check=args.dry_run, tell=terminal.progress)
    restored, proof = result["restored"], result["last_restore_proof"]
    files, size = human_count(restored["files"], "file"), human_size(restored["bytes"])
    what = f"{files} ({size}) from {restored['backup']}"
    line = f"Would restore {what}, compare and remove them"
    if proof is not None:
        line = f"Restored {what} in {proof['seconds']:.1f} s, compared and removed them"
    terminal.say(line)
    for text in (line, *result["notes"]):
        terminal.log("INFO", text)
    for note in result["notes"]:
        terminal.note(note)
    terminal.data(result)
    return 0


def _restore(context: Context, given: dict[str, Any]) -> int:
    from ..._core.backup.engines import ENGINES
    from ..._core.backup.options import RestoreOptions
    from ..._core.system.text import human_count

    args, terminal = context.arguments, context.terminal
    options = RestoreOptions.from_mapping(given)
    with context.job_lock():
        present = _names_in(args.destination) if args.replace else set()
        engine = ENGINES[options.engine]
        outcome = engine.restore(options, context.world, args.dry_run, terminal.progress)
    result = outcome.to_dict()
    restored = result["restored"]
    if result["changed"]:
        would = ""
        if args.dry_run:
            would = "would be "
        lost = sorted(present - set(outcome.after))
        lines = [f"{would}restored {path}" for path in outcome.after]
        terminal.account([f"{would}removed {path}" for path in lost] + lines, every=args.verbose)
    files = human_count(int(restored.get("files") or 0), "file")
    line = _summary(files, restored.get("backup"), args, result["changed"])
    terminal.say(line)
    terminal.log("INFO", line)
    terminal.data(result)
    return 0


def _summary(files: str, backup: object, args: argparse.Namespace, changed: bool) -> str:
    if not changed:
        return f"{args.destination} has {files} of {backup} already; nothing to restore"
    verb = "Restored"
    if args.dry_run:
        verb = "Would restore"
    return f"{verb} {files} from {backup} to {args.destination}"


def _names_in(directory: str) -> set[str]:
    """Return the paths below a directory, relative to it; none when it is not there."""
    from ..._core.backup.restore.facts import names_in

    if os.path.isdir(directory):
        return set(names_in(directory))
    return set()


COMMAND = Command(
    name="restore",
    help="restore a backup, verified while it is written, or rehearse that",
    examples=(
        "mlfleet restore --dry-run /srv/restored",
        "mlfleet restore /srv/restored 'bert/*' --backup models_backup_20250131_020000.tar.gz",
        "mlfleet restore --drill --backup random --scratch /data",
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
