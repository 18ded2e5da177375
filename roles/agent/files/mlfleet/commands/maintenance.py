# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``mlfleet maintenance``: health, GPU check, backup, cleanup, in this order."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from ..._core import outcome, verdict
from ..._core.jobs import JOBS
from ..._core.maintenance import plan
from ..._core.maintenance.options import MaintenanceOptions
from .. import parts
from ..context import Context
from ..reporting import alert_arguments
from . import Command


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    for phase in plan.PHASES.names:
        parser.add_argument(f"--skip-{phase}", action="store_true", help=f"leave out {phase}")
    parser.add_argument(
        "--continue-on-error",
        action="store_true",
        help="go on after a phase that failed (cleanup never follows a failed backup)",
    )
    alert_arguments(parser)


def run(context: Context) -> int:
    """Run the phases, print their report, and fail when one could not do its work or the node is
    critical.
    """
    from ..._core.fleet import report as fleet
    from ..._core.maintenance import run as maintenance

    options = _options(context)
    phases = _Phases(context, options)
    work = {
        "health": phases.health,
        "gpu": phases.gpu,
        "backup": phases.backup,
        "cleanup": phases.cleanup,
    }
    with context.job_lock():
        results = maintenance.run(options, work, context.world, phases.started)
    if not context.arguments.dry_run:
        failed = {phase: result for phase, result in results.items() if plan.phase_failed(result)}
        context.results.update(failed)
    report = fleet.assemble(
        [context.world.hostname],
        lambda _host, phase: results[phase],
        timestamp=context.world.clock.now(),
        title="Maintenance",
    )
    report["results"] = {
        phase: {key: value for key, value in result.items() if key != "skip"}
        for phase, result in results.items()
    }
    failed_phases = [phase for phase, result in results.items() if plan.phase_failed(result)]
    freed = 0 if context.rehearses_cleanup else int(results["cleanup"].get("freed_bytes") or 0)
    context.outcome = outcome.Outcome(report["status"], tuple(failed_phases), freed)
    _show(context, report)
    if report["failed_hosts"]:
        return outcome.FAILED
    return outcome.OK


def _options(context: Context) -> MaintenanceOptions:
    flags: dict[str, Any] = {
        phase.switch: False
        for phase in plan.PHASES
        if getattr(context.arguments, f"skip_{phase.name}")
    }
    if context.arguments.continue_on_error:
        flags["continue_on_error"] = True
    return context.options("maintenance", MaintenanceOptions, flags)


class _Phases:
    """What each phase does."""

    def __init__(self, context: Context, options: MaintenanceOptions) -> None:
        self._context = context
        self._check = bool(context.arguments.dry_run)
        self._run_gpu = options.run_gpu

    def started(self, phase: str) -> None:
        """Log that a phase begins."""
        terminal = self._context.terminal
        terminal.log("INFO", f"{phase} started")
        if not terminal.live:
            terminal.note(f"{phase} started")

    def health(self) -> dict[str, Any]:
        """Check the node; the GPUs are left to their own phase."""
        given = self._context.merged("health", {}).given()
        leaves_gpus = plan.leaves_gpus(given, self._run_gpu)
        flags = {"gpu": False} if leaves_gpus else {}
        document = parts.check_node(self._context, flags, write=not self._check)
        if leaves_gpus:
            document = plan.note_gpus_left(document)
        return self._alerted(document)

    def gpu(self) -> dict[str, Any]:
        """Check the GPUs."""
        return self._alerted(parts.check_gpus(self._context, {}, write=not self._check))

    def _alerted(self, document: dict[str, Any]) -> dict[str, Any]:
        if not self._check:
            parts.send_alerts_if_possible(self._context, document, log=False)
        return document

    def backup(self) -> dict[str, Any]:
        """Make a backup."""
        return parts.make_backup(self._context, {}, self._check)

    def cleanup(self) -> dict[str, Any]:
        """Clean up."""
        check = self._check or self._context.rehearses_cleanup
        return parts.clean_up(self._context, {}, check)


def _show(context: Context, report: Mapping[str, Any]) -> None:
    """Print and log the report; a phase that was only rehearsed says so."""
    from ..._core.fleet import report as fleet
    from ..._core.fleet import screen
    from ..._core.system.text import human_duration

    rehearsed: tuple[str, ...] = ()
    if context.arguments.dry_run:
        rehearsed = ("backup", "cleanup")
    elif context.rehearses_cleanup:
        rehearsed = ("cleanup",)
    entries = report["hosts"][0]["phases"]
    for entry in entries:
        if entry["phase"] in rehearsed and entry["status"] not in (fleet.FAILED, verdict.SKIPPED):
            entry["message"] = f"rehearsed, nothing was changed: {entry['message']}"
    headline = screen.headline(report)
    if rehearsed:
        headline += f" ({' and '.join(rehearsed)} rehearsed: nothing was changed)"
    terminal = context.terminal
    terminal.say(*screen.table(report)[:-1], headline)
    for entry in entries:
        took = ""
        if entry["duration"] is not None:
            took = f" in {human_duration(entry['duration'])}"
        level = "INFO"
        if entry["status"] == fleet.FAILED:
            level = "ERROR"
        terminal.log(level, f"{entry['phase']}: {entry['status']}{took}: {entry['message']}")
    terminal.log("INFO", headline)
    terminal.data(report)


COMMAND = Command(
    name="maintenance",
    help="health, GPU, backup, cleanup, in this order",
    examples=(
        "mlfleet maintenance --dry-run",
        "mlfleet maintenance --skip-gpu --continue-on-error",
    ),
    arguments=arguments,
    run=run,
    part="",
    leave_out=(),
    log=JOBS["maintenance"].log,
    dry_run=True,
    waits=True,
    statuses=(
        "0 all phases did their work, 1 a phase failed or the node is critical, 3 could not begin"
    ),
)
