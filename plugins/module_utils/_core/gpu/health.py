# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Former name of gpu.run and gpu.api, until all callers use those."""

from __future__ import annotations

from typing import Any

from ..ports import World
from ..verdict import Check
from .checks import FIXED_TEMPERATURES
from .facts import observe
from .options import GpuOptions
from .plan import decide
from .run import run

__all__ = ["checks", "run"]


def checks(
    options: GpuOptions, world: World, fixed: tuple[float, float] = FIXED_TEMPERATURES
) -> tuple[list[Check], list[dict[str, Any]]]:
    """Return the checks and the GPUs; use api.gpu_checks() instead."""
    plan = decide(options, observe(options, world), fixed)
    return list(plan.checks), [report.to_dict() for report in plan.gpus]
