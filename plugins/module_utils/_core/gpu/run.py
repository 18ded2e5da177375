# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The GPU part as a whole: observe, decide, write metrics."""

from __future__ import annotations

from .. import verdict
from ..ports import World
from ..verdict import Document
from .execute import carry_out
from .facts import observe
from .options import GpuOptions
from .plan import decide


def run(options: GpuOptions, world: World, write: bool = True) -> Document:
    """Check all GPUs of this node and return the report with ``gpus`` and ``driver``.

    :param write: write the CSV and metrics files that the options name; a file that can't be
        written becomes a check.
    :raises MissingLibrary: as observe().
    """
    plan = decide(options, observe(options, world))
    problems = carry_out(plan) if write else []
    return Document(
        verdict.isoformat(plan.now),
        world.hostname,
        (*plan.checks, *problems),
        {
            "gpus": [report.to_dict() for report in plan.gpus],
            "driver": plan.driver._asdict(),
        },
    )
