# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The phases in their order on one node: health, GPU, backup, cleanup."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..errors import FleetError
from ..ports import World
from . import plan
from .options import MaintenanceOptions

#: Runs a phase and returns its result (the module's return values).
Work = Callable[[], Mapping[str, Any]]


def run(
    options: MaintenanceOptions,
    phases: Mapping[str, Work],
    world: World,
    started: Callable[[str], None] = lambda phase: None,
) -> dict[str, dict[str, Any]]:
    """Run the phases in order and return the result of each, those that did not run included.

    :param phases: phase name to what runs it; every phase must be there.
    :param started: called with the name of each phase that begins.
    A phase that raises FleetError is recorded as failed.
    """
    results: dict[str, dict[str, Any]] = {}
    for phase in plan.PHASES.names:
        skip = plan.decide(phase, options, results)
        if skip is not None:
            results[phase] = {"skipped": True, "skip": skip._asdict()}
            continue
        started(phase)
        begin = world.clock.monotonic()
        try:
            result = dict(phases[phase]())
        except FleetError as error:
            result = {"failed": True, "msg": str(error), "error": error.to_dict()}
        results[phase] = {**result, "duration": round(world.clock.monotonic() - begin, 3)}
    return results
