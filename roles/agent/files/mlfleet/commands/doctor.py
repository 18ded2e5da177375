# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``mlfleet doctor``: check whether this node can look after itself."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..._core import config, verdict
from ..._core.errors import NotUsable
from ..._core.jobs import JOBS
from .. import parts
from ..context import Context
from ..parser import version
from . import Command

if TYPE_CHECKING:
    from ..._core.environment import Environment
    from ..._core.maintenance.options import MaintenanceOptions


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    jobs = JOBS.names
    parser.add_argument(
        "--run",
        nargs="*",
        action="extend",
        choices=jobs,
        metavar="JOB",
        help=(
            "start these jobs too (default: all scheduled ones), once, in their own units as their"
            f" timers do; needs root; known: {' '.join(jobs)}"
        ),
    )
    parser.add_argument(
        "--cleanup",
        choices=("rehearse", "run"),
        default="rehearse",
        help="whether a cleanup that is started removes anything (default rehearse)",
    )
    parser.add_argument(
        "--alert-test",
        action="store_true",
        help="send a marked test message over each alert channel",
    )


class _Node:
    """This node, as the doctor sees it."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def problems(self) -> list[str]:
        return self._context.configuration.effective()[1]

    def environment(self) -> tuple[Environment, str]:
        environment = self._context.environment
        return environment, config.unreadable(environment)

    def maintenance_options(self) -> MaintenanceOptions:
        from ..._core.maintenance.options import MaintenanceOptions

        return self._context.options("maintenance", MaintenanceOptions, {})

    def rehearse(self, job: str) -> Mapping[str, Any]:
        if job == "health":
            return parts.check_node(self._context, {}, write=False)
        if job == "gpu":
            return parts.check_gpus(self._context, {}, write=False)
        if job == "backup":
            return parts.make_backup(self._context, {}, check=True)
        return parts.clean_up(self._context, {}, check=True)

    def starting(self, job: str) -> None:
        self._context.terminal.note(f"starting {job} and waiting for its end")

    def backup_directory(self) -> str:
        return parts.backup_directory(self._context)

    def backups(self, directory: str) -> list[dict[str, Any]]:
        backups: list[dict[str, Any]] = parts.list_backups(self._context, directory)["backups"]
        return backups

    def channels(self, send: bool) -> list[dict[str, Any]]:
        return parts.test_channels(self._context, send)


def run(context: Context) -> int:
    """Check the node, start the jobs that were asked for, and print what was found."""
    from ..._core import trial
    from ..._core.doctor import run as doctor
    from ..._core.doctor.options import Request

    args, world = context.arguments, context.world
    if args.run is not None and os.geteuid():
        raise NotUsable(
            "Only root can start the jobs' units (--run).",
            "Run: sudo mlfleet doctor --run",
            "--run",
        )
    schedule = trial.scheduled(world)
    # What is checked here must get the variables that the jobs get.
    path = trial.environment_file(world, schedule)
    if path and path != context.environment.path:
        context.read_environment(path)
        context.note_environment()
        world.environ = dict(context.environ)
    request = Request(
        config_path=args.config,
        start=None if args.run is None else tuple(args.run),
        rehearse_cleanup=args.cleanup == "rehearse",
        alert_test=args.alert_test,
        command=os.path.realpath(sys.argv[0]),
    )
    log_files = list(dict.fromkeys(job.log for job in JOBS))
    result = doctor.run(request, schedule, world, _Node(context), log_files)
    extra = {"version": version(), "changed": result.changed}
    document = verdict.Document(
        verdict.isoformat(time.time()), world.hostname, result.checks, extra
    ).to_dict()
    parts.show_document(context, document)
    return int(document["exit_code"])


COMMAND = Command(
    name="doctor",
    help="check whether this node can look after itself; changes nothing; --run starts the jobs",
    examples=(
        "mlfleet doctor",
        "mlfleet doctor --run",
        "mlfleet doctor --run gpu health --alert-test",
    ),
    arguments=arguments,
    run=run,
    part="",
    leave_out=(),
    log="",
    dry_run=False,
    waits=False,
)
