# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of the GPU part."""

from __future__ import annotations

import os
from typing import Any

from ..errors import OptionError
from ..options import ReportOptions, option

#: What an override of an Xid can say.
XID_LEVELS = ("ignore", "warning", "critical")
LOG_SOURCES = ("auto", "journal", "dmesg", "none")


def _check_overrides(value: dict[Any, Any]) -> str | None:
    for code, level in value.items():
        if not str(code).isdecimal():
            return f"{code!r} is not an Xid number"
        if level not in XID_LEVELS:
            return (
                f"the level of Xid {code} is {level!r}, but must be one of {', '.join(XID_LEVELS)}"
            )
    return None


def _check_log_source(value: str) -> str | None:
    if value in LOG_SOURCES or os.path.isabs(value):
        return None
    return f"it must be one of {', '.join(LOG_SOURCES)}, or the absolute path of a log file"


class GpuOptions(ReportOptions):
    """Checked options of the GPU part; the table is documented in the module gpu_health."""

    expected_count: int | None = option(
        type="int", minimum=0, help="Number of GPUs this node must have."
    )
    temperature_warning: float | None = option(
        type="float",
        minimum=0,
        maximum=200,
        env=("TEMP_THRESHOLD",),
        help="Warn above this core temperature in °C; default: the GPU's limit, else 80.",
    )
    temperature_critical: float | None = option(
        type="float",
        minimum=0,
        maximum=200,
        help="Critical above this core temperature in °C; default: the GPU's limit, else 90.",
    )
    memory_warning: float = option(
        type="float",
        default=90,
        minimum=0,
        maximum=100,
        env=("MEMORY_THRESHOLD",),
        help="Warn above this share of memory in use in percent; 0 never.",
    )
    power_warning: float = option(
        type="float",
        default=95,
        minimum=0,
        maximum=200,
        env=("POWER_THRESHOLD",),
        help="Warn above this share of the power limit in percent; 0 never.",
    )
    metrics_csv: str | None = option(
        type="path", env=("METRICS_FILE",), help="CSV file to append one row per GPU to."
    )
    timeout: float = option(
        type="float",
        default=30,
        minimum=0.5,
        maximum=600,
        help="Seconds for all queries to the driver together.",
    )
    xid_window: int = option(
        type="int",
        default=86400,
        minimum=1,
        help="Seconds to look back in the kernel log, never beyond the last boot.",
    )
    xid_overrides: dict[str, Any] | None = option(
        type="dict", check=_check_overrides, help="Xid number -> ignore, warning or critical."
    )
    log_source: str = option(
        default="auto",
        check=_check_log_source,
        help="auto, journal, dmesg, none, or the path of a log file.",
    )
    state_file: str | None = option(
        type="path", help="File in which counters and incidents are remembered."
    )
    keep_xids: bool = option(
        type="bool",
        default=False,
        help="Keep Xids until a person clears them (needs state_file).",
    )
    incidents_warning: int = option(
        type="int",
        default=3,
        minimum=0,
        help="Incidents in 30 days that make a GPU a repeat offender; 0 never (needs state_file).",
    )
    corrected_errors_warning: float = option(
        type="float",
        default=1000,
        minimum=0,
        help="Warn above this number of corrected memory errors per hour; 0 never.",
    )
    pcie_replays_warning: float | None = option(
        type="float",
        minimum=0,
        help="Warn above this number of PCIe replays per minute; 0 never; default by link.",
    )
    nvlink_errors_warning: float = option(
        type="float",
        default=100,
        minimum=0,
        help="Warn above this number of errors per minute of one NVLink; 0 never.",
    )
    backend: str = option(
        choices=("auto", "nvml", "nvidia_smi", "amd_smi"),
        default="auto",
        help="How to ask the driver.",
    )

    def check_together(self) -> None:
        """:raises OptionError: the critical temperature is below the warning one, or Xids are to be
        kept nowhere."""
        warning, critical = self.temperature_warning, self.temperature_critical
        if warning is not None and critical is not None and critical < warning:
            raise OptionError(
                f"Option temperature_critical is {critical:g}, below temperature_warning "
                f"{warning:g}.",
                "Set it to the same or a higher number.",
                "temperature_critical",
            )
        if self.keep_xids and not self.state_file:
            raise OptionError(
                "Option keep_xids needs state_file, in which they are kept.",
                "Name a state_file.",
                "state_file",
            )
