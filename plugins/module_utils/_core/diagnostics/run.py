# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""GPU diagnostics from options to document: observe, decide, test, observe again, evaluate."""

from __future__ import annotations

from typing import Any

from ..errors import MissingLibrary
from ..gpu.api import nvml
from ..ports import Tell, World, silent
from ..verdict import Check, Document, isoformat
from . import execute, plan
from .facts import Facts, Outcome, observe
from .options import DiagnosticsOptions


def run(
    options: DiagnosticsOptions, world: World, check: bool = False, tell: Tell = silent
) -> Document:
    """Test the GPUs and return the verdict; C(check) looks and decides, and tests nothing.

    :raises Refused: a GPU is in use and C(when_busy) is C(fail). :raises LockBusy: other
        diagnostics run.
    :raises MissingLibrary: the GPUs can't even be asked. :raises NotUsable: a GPU was named that
        does not exist.
    """
    before = observe(options, world)
    decided = plan.decide(options, before)
    if check:
        return _document(before, list(decided.left_out), decided, Outcome((), (), None), world)
    theirs: list[Check] = []
    if options.engine == "builtin":
        outcome = execute.carry_out(decided, _nvml(), tell)
    else:
        from . import engines

        outcome, theirs = engines.run(options.engine, decided, world)
    after = observe(options, world) if decided.gpus else before
    checks = theirs + plan.evaluate(options, decided, outcome, after)
    checks += _new_problems(before, after)
    if options.state_file and decided.gpus:
        from . import record

        checks += record.update(
            options.state_file, decided.gpus, outcome.gpus, options.tolerance, world
        )
    return _document(before, checks, decided, outcome, world)


def _nvml() -> Any:
    """Return NVML's library for the sensors, None without it: the tests run without readings
    then.
    """
    try:
        return nvml()
    except MissingLibrary:
        return None


def _new_problems(before: Facts, after: Facts) -> list[Check]:
    """Return what the passive check reports after the tests and did not report before them (Xids,
    slowdowns ...).
    """
    known = {(check.check, check.subject, check.status) for check in before.problems}
    return [
        check for check in after.problems if (check.check, check.subject, check.status) not in known
    ]


def _document(
    before: Facts, checks: list[Check], decided: plan.Plan, outcome: Outcome, world: World
) -> Document:
    figures = {measured.number: measured for measured in outcome.gpus}
    gpus = []
    for gpu in before.gpus:
        measured = figures.get(gpu.number)
        gpus.append(
            {
                "id": gpu.number,
                "name": gpu.name,
                "uuid": gpu.uuid,
                "bus_id": gpu.bus_id,
                "tested": measured is not None,
                "sensors": measured.sensors if measured else {},
            }
        )
    extra = {
        "level": decided.level.name,
        "gpus": gpus,
        "measured": {
            "gpus": {str(index): measured.figures for index, measured in figures.items()},
            "pairs": [dict(pair) for pair in outcome.pairs],
        },
        "would_test": [gpu.number for gpu in decided.gpus],
    }
    return Document(isoformat(before.timestamp), world.hostname, tuple(checks), extra)
