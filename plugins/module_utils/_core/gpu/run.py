# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The GPU part as a whole: observe, decide, write metrics."""

from __future__ import annotations

from .. import verdict
from ..errors import FleetError
from ..ports import World
from ..verdict import Check, Document
from .facts import Facts, observe
from .options import GpuOptions
from .plan import Plan, decide


def run(options: GpuOptions, world: World, check: bool = False) -> Document:
    """Check all GPUs of this node and return the report with ``gpus`` and ``driver``.

    The state, CSV and metrics files that the options name are written; a failure becomes a check.

    :param check: write nothing.
    :raises MissingLibrary: as observe().
    """
    facts = observe(options, world)
    problems: list[Check] = []
    plan = _remember(options, world, facts, check, problems)
    if not check and (plan.metrics_csv or plan.textfile):
        from .execute import carry_out  # most runs write nothing

        problems += carry_out(plan._replace(checks=(*plan.checks, *problems)))
    return Document(
        verdict.isoformat(plan.now),
        world.hostname,
        (*plan.checks, *problems),
        {
            "gpus": [report.to_dict() for report in plan.gpus],
            "driver": plan.driver._asdict(),
        },
    )


def _remember(
    options: GpuOptions, world: World, facts: Facts, check: bool, problems: list[Check]
) -> Plan:
    """Return the plan, with what earlier runs remember if there is a state file.

    A run that can't have the file does without, and reports that in ``problems``.
    """
    path = options.state_file
    if not path:
        return decide(options, facts)
    from . import memory  # a run without a state file does not load it

    try:
        with memory.locked_unless(check, path):
            before = memory.read(path, facts.now, world, keep_broken=not check)
            plan = decide(options, facts, memory=before)
            if plan.memory is not None and not check:
                memory.store(path, plan.memory)
        return plan
    except FleetError as error:
        text = str(error)
        name = memory.STATE_FILE.name
        problems.append(Check(name, verdict.WARNING, text, subject=path, domain="node"))
        return decide(options, facts)
