# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Temperature, power, clock and slowdowns of the GPUs while they are tested, read through NVML."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

#: Seconds between two readings.
INTERVAL = 0.25
#: Clock reasons (nvml.h, nvmlClocksEventReason*) that mean a slowdown by hardware or heat: HW
#: slowdown, SW thermal, HW thermal, HW power brake.
SLOWDOWN = 0x8 | 0x20 | 0x40 | 0x80
_SM_CLOCK = 1


def watch(
    pynvml: Any, indexes: list[int], finished: Callable[[], bool]
) -> dict[str, dict[str, Any]]:
    """Read until C(finished); return by the GPU's number C(temperature) (°C) and C(power) (W) at
    most, C(clock) (MHz) at least while it was loaded, C(reasons) (bits) seen, and C(readings). What
    can't be read is None.
    """
    pynvml.nvmlInit()
    seen: dict[str, dict[str, Any]] = {
        str(index): {"temperature": None, "power": None, "clock": None, "reasons": 0, "readings": 0}
        for index in indexes
    }
    while True:
        for index in indexes:
            _read(pynvml, index, seen[str(index)])
        if finished():
            return seen
        time.sleep(INTERVAL)


def _read(pynvml: Any, index: int, entry: dict[str, Any]) -> None:
    def ask(name: str, *arguments: Any) -> Any:
        try:
            return getattr(pynvml, name)(handle, *arguments)
        except (pynvml.NVMLError, AttributeError):
            return None

    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    except pynvml.NVMLError:
        return
    temperature, power = ask("nvmlDeviceGetTemperature", 0), ask("nvmlDeviceGetPowerUsage")
    entry["temperature"] = _largest(entry["temperature"], temperature)
    entry["power"] = _largest(entry["power"], None if power is None else round(power / 1000, 1))
    rates, clock = ask("nvmlDeviceGetUtilizationRates"), ask("nvmlDeviceGetClockInfo", _SM_CLOCK)
    if clock is not None and rates is not None and rates.gpu >= 50:
        entry["clock"] = _smallest(entry["clock"], clock)
    entry["reasons"] |= ask("nvmlDeviceGetCurrentClocksThrottleReasons") or 0
    entry["readings"] += 1


def _largest(*values: Any) -> Any:
    return max((value for value in values if value is not None), default=None)


def _smallest(*values: Any) -> Any:
    return min((value for value in values if value is not None), default=None)
