# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``mlfleet cleanup``: remove old experiments, checkpoints, logs and temporary files."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..._core import outcome
from ..._core.errors import OptionError
from ..._core.jobs import JOBS
from .. import parts
from ..context import Context
from . import Command


class Wording(NamedTuple):
    """How a run says what it does, and a dry run what it would do."""

    mark: str
    freed: str
    brought: str
    removed: str


WORDING = {
    False: Wording("", "Freed", "Brought", "removed"),
    True: Wording(" (dry run)", "Would free", "Would bring", "would remove"),
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    for target in ("experiments", "checkpoints"):
        parser.add_argument(
            f"--{target}-only",
            dest="only_target",
            action="append_const",
            const=target,
            help=f"clean up {target} and nothing else",
        )
    parser.add_argument(
        "--undo",
        nargs="?",
        const="",
        metavar="UNIT|RUN",
        help="bring back from quarantine a unit, all units of a run, or everything",
    )


def run(context: Context) -> int:
    """Clean up and print what was done. :raises OptionError: --only names no target."""
    from ..._core.output import human
    from ..._core.system.text import human_count, human_size

    args, terminal = context.arguments, context.terminal
    flags = context.flags
    if args.only_target:
        flags["only"] = args.only_target
    if flags.get("only") == []:
        raise OptionError(
            "--only names no target.", "Name some, or leave it out to clean up all.", "only"
        )
    if args.undo is not None:
        flags["state"] = "restored"
        flags["undo"] = [_unit_or_run(args.undo)] if args.undo else None
    dry_run = bool(args.dry_run or context.rehearses_cleanup)
    wording = WORDING[dry_run]
    terminal.log("INFO", f"cleanup started{wording.mark}")
    with context.job_lock():
        result = parts.clean_up(context, flags, check=dry_run)
    context.outcome = outcome.Outcome(freed_bytes=0 if dry_run else int(result["freed_bytes"]))
    terminal.account(_removals(result, dry_run), every=args.verbose or dry_run)
    if args.undo is None:
        terminal.say(*human.table(_rows(result)))
        line = f"{wording.freed} {human_size(result['freed_bytes'])}"
    else:
        terminal.say(*_restored(result, dry_run))
        count = human_count(result["restored_count"], "unit")
        line = f"{wording.brought} back {count}"
    terminal.say(*result["notes"])
    terminal.say(line)
    terminal.log("INFO", line)
    terminal.data(result)
    if result.get("failed"):
        return outcome.FAILED
    return outcome.OK


def _unit_or_run(text: str) -> str:
    """Return the name of a run as it is, and the path of a unit absolute."""
    if re.fullmatch(r"\d{8}T\d{6}Z(-\d+)?", text):
        return text
    return os.path.abspath(text)


def _restored(result: Mapping[str, Any], dry_run: bool) -> list[str]:
    verb = "brought back"
    if dry_run:
        verb = "would bring back"
    lines = [f"{verb} {unit['path']}" for unit in result["restored"]]
    return lines + [f"{failure['path']}: {failure['error']}" for failure in result["failures"]]


def _removals(result: Mapping[str, Any], dry_run: bool) -> list[str]:
    from ..._core.system.text import human_size

    units, failures = result["removed"], result.get("failures") or []
    if dry_run:
        units, failures = result["plan"], []
    lines = []
    for unit in units:
        path, size = unit, ""
        if isinstance(unit, dict):
            path = unit.get("path", "")
            size = f" ({human_size(unit.get('size') or unit.get('bytes') or 0)})"
        lines.append(f"{WORDING[dry_run].removed} {path}{size}")
    return lines + [f"not removed {failure['path']}: {failure['error']}" for failure in failures]


def _rows(result: Mapping[str, Any]) -> list[list[Any]]:
    from ..._core.system.text import human_size

    rows: list[list[Any]] = [["TARGET", "ROOT", "STATUS", "REMOVED", "FREED"]]
    for target in result["targets"]:
        freed = human_size(target.get("freed_bytes") or 0)
        removed = target.get("removed_count", 0)
        rows.append(
            [target["name"], target.get("root", ""), target.get("status", ""), removed, freed]
        )
    return rows


COMMAND = Command(
    name="cleanup",
    help="remove old experiments, checkpoints, logs and temporary files",
    examples=(
        "mlfleet cleanup --dry-run",
        "mlfleet cleanup --aggressive",
        "mlfleet cleanup --undo /opt/ml/checkpoints/step-0400",
        "EXPERIMENTS_RETENTION=14 mlfleet cleanup --experiments-only",
    ),
    arguments=arguments,
    run=run,
    part="cleanup",
    leave_out=("undo", "state"),
    log=JOBS["cleanup"].log,
    dry_run=True,
    waits=True,
    statuses="0 done, 1 failed, 3 could not begin",
)
