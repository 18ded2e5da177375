# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of a maintenance run."""

from __future__ import annotations

from ..options import OptionSet, option


class MaintenanceOptions(OptionSet):
    """Which phases run, and what happens after a failed phase."""

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
    skip_busy: bool = option(
        type="bool",
        default=False,
        help="Leave out backup and cleanup where the GPU phase of this run shows work on the GPUs.",
    )
