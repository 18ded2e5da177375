# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The phases in their order on one node: health, GPU, backup, cleanup. The maintenance role follows the same rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .errors import FleetError
from .fleet import report as fleet
from .options import OptionSet, option
from .ports import World

#: A phase: gets nothing, returns its result (the module's return values).
Phase = Callable[[], Mapping[str, Any]]


class MaintenanceOptions(OptionSet):
    """Which phases run, and what happens after one that failed."""

    run_health: bool = option(
        type="bool", default=True, env=("RUN_HEALTH_CHECK",), help="Check the node."
    )
    run_gpu: bool = option(
        type="bool", default=True, env=("RUN_GPU_MONITOR",), help="Check the GPUs."
    )
    run_backup: bool = option(
        type="bool", default=True, env=("RUN_BACKUP",), help="Back up the models."
    )
    run_cleanup: bool = option(type="bool", default=True, env=("RUN_CLEANUP",), help="Clean up.")
    continue_on_error: bool = option(
        type="bool",
        default=False,
        env=("CONTINUE_ON_ERROR",),
        help="Go on after a phase that failed.",
    )


def may_run(phase: str, options: MaintenanceOptions, done: Mapping[str, Mapping[str, Any]]) -> bool:
    """Say whether a phase may run after the results of those before it.

    A sick node is a result, not an error: only a phase that could not do its job stops the later ones, unless
    C(continue_on_error). Cleanup never runs after a backup that failed or was kept from running; a backup that was
    switched off does not hold it back.
    """
    if not getattr(options, "run_" + phase):
        return False
    if (
        phase == "cleanup"
        and options.run_backup
        and (done["backup"].get("failed") or done["backup"].get("skipped"))
    ):
        return False
    return bool(
        options.continue_on_error or not any(fleet.phase_failed(result) for result in done.values())
    )


def run(
    options: MaintenanceOptions,
    phases: Mapping[str, Phase],
    world: World,
    started: Callable[[str], None] = lambda phase: None,
) -> dict[str, Any]:
    """Run the phases in order and return the fleet report of this one node.

    :param phases: phase name to what runs it; every phase of C(fleet.PHASES) must be there.
    :param started: is told the name of each phase that begins.
    A phase that raises FleetError is recorded as failed; the report's C(failed_hosts) names this node then.
    """
    done: dict[str, Mapping[str, Any]] = {}
    for phase in fleet.PHASES:
        if not may_run(phase, options, done):
            done[phase] = {"skipped": True}
            continue
        started(phase)
        begun = world.clock.monotonic()
        try:
            result = dict(phases[phase]())
        except FleetError as error:
            result = {"failed": True, "msg": str(error), "error": error.to_dict()}
        done[phase] = {**result, "duration": round(world.clock.monotonic() - begun, 3)}
    report = fleet.assemble(
        [world.hostname],
        lambda _host, phase: done[phase],
        timestamp=world.clock.now(),
        title="Maintenance",
    )
    report["results"] = done
    return report
