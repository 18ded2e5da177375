# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The GPU part as a whole: observe, decide, write metrics."""

from __future__ import annotations

from .. import verdict
from ..ports import World
from ..verdict import Check, Document
from .facts import observe
from .options import GpuOptions
from .plan import decide


def run(options: GpuOptions, world: World, check: bool = False) -> Document:
    """Check all GPUs of this node and return the report with ``gpus`` and ``driver``.

    The CSV and metrics files that the options name are written; a failure becomes a check.

    :param check: write nothing.
    :raises MissingLibrary: as observe().
    """
    plan = decide(options, observe(options, world))
    problems: list[Check] = []
    if not check and (plan.metrics_csv or plan.textfile):
        from .execute import carry_out  # most runs write nothing

        problems = carry_out(plan)
    return Document(
        verdict.isoformat(plan.now),
        world.hostname,
        (*plan.checks, *problems),
        {
            "gpus": [report.to_dict() for report in plan.gpus],
            "driver": plan.driver._asdict(),
        },
    )
