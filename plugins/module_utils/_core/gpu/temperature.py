# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks of temperatures and slowdowns, against the device's own limits where it has some. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Optional

from .. import verdict
from ..records import NamedTuple
from ..verdict import CRITICAL, PASS, WARNING
from .case import Case, Finding
from .options import GpuOptions
from .reading import Gpu

#: Core temperatures in °C (warning, critical) where neither the device nor the user gives a limit.
FIXED_TEMPERATURES = (80.0, 90.0)
#: Warn at this distance to the device's slowdown threshold, °C.
MARGIN_WARNING = 5

_HW_SLOWDOWN, _HW_THERMAL, _HW_BRAKE = 0x8, 0x40, 0x80
REASONS = {
    0x1: "idle",
    0x2: "application_clocks",
    0x4: "sw_power_cap",
    _HW_SLOWDOWN: "hw_slowdown",
    0x10: "sync_boost",
    0x20: "sw_thermal_slowdown",
    _HW_THERMAL: "hw_thermal_slowdown",
    _HW_BRAKE: "hw_power_brake",
    0x100: "display_clocks",
}


class _Opinion(NamedTuple):
    """One source's verdict on the core temperature."""

    status: str
    source: str
    text: str = ""
    warn: Optional[float] = None
    crit: Optional[float] = None


def _worst(opinions: Iterable[_Opinion]) -> _Opinion | None:
    return max(opinions, key=lambda opinion: verdict.STATUSES.index(opinion.status), default=None)


def _by_user(gpu: Gpu, options: GpuOptions) -> _Opinion | None:
    warn, crit = options.temperature_warning, options.temperature_critical
    if gpu.temp is None or (warn is None and crit is None):
        return None
    if crit is not None and gpu.temp > crit:
        return _Opinion(CRITICAL, "user", f"above {crit:g} °C", warn, crit)
    if warn is not None and gpu.temp > warn:
        return _Opinion(WARNING, "user", f"above {warn:g} °C", warn, crit)
    return _Opinion(PASS, "user", "", warn, crit)


def _by_margin(gpu: Gpu) -> _Opinion | None:
    if gpu.margin is None:
        return None
    text = f"margin to slowdown {gpu.margin} °C"
    if gpu.margin < (gpu.t_limits.slowdown or 0):
        return _Opinion(CRITICAL, "device", text + ", beyond the slowdown threshold")
    if gpu.margin <= MARGIN_WARNING:
        return _Opinion(WARNING, "device", text)
    return _Opinion(PASS, "device", text)


def _by_thresholds(gpu: Gpu) -> _Opinion | None:
    """Absolute thresholds, which are going away on Ada and later."""
    crit = gpu.thresholds.slowdown or gpu.thresholds.shutdown
    warn = gpu.thresholds.gpu_max
    if gpu.temp is None or (crit is None and warn is None):
        return None
    if crit is not None and gpu.temp >= crit:
        return _Opinion(CRITICAL, "device", f"the device slows down at {crit} °C", warn, crit)
    if warn is not None and gpu.temp > warn:
        text = f"the device's maximum for operation is {warn} °C"
        return _Opinion(WARNING, "device", text, warn, crit)
    return _Opinion(PASS, "device", f"the device's limit is {warn or crit} °C", warn, crit)


def _by_default(gpu: Gpu, options: GpuOptions, fixed: tuple[float, float]) -> _Opinion | None:
    """Fixed limits, where the device has none and the user did not replace them."""
    if gpu.temp is None:
        return None
    user_warn = options.temperature_warning
    warn = fixed[0] if user_warn is None else None
    replaced = options.temperature_critical is not None or (user_warn or 0) >= fixed[1]
    crit = None if replaced else fixed[1]
    if crit is not None and gpu.temp > crit:
        return _Opinion(CRITICAL, "default", f"above {crit:g} °C", warn, crit)
    if warn is not None and gpu.temp > warn:
        return _Opinion(WARNING, "default", f"above {warn:g} °C", warn, crit)
    return _Opinion(PASS, "default", "", warn, crit)


def _opinions(case: Case) -> list[_Opinion]:
    gpu, options = case.gpu, case.options
    by_user, by_thresholds = _by_user(gpu, options), _by_thresholds(gpu)
    device = _worst(opinion for opinion in (_by_margin(gpu), by_thresholds) if opinion is not None)
    opinions = [] if by_user is None else [by_user]
    if device is None:
        by_default = _by_default(gpu, options, case.fixed)
        if by_default is None:
            return opinions
        return [*opinions, by_default]
    warned_by_user = options.temperature_warning is not None and gpu.temp is not None
    # The user's warning stands in for the device's; the device's critical limit always holds.
    if device.status != WARNING or not warned_by_user:
        opinions.append(device)
    hot = FIXED_TEMPERATURES[1]
    unlikely = gpu.temp is not None and gpu.temp > hot and by_thresholds is None
    if unlikely and options.temperature_warning is None:
        text = f"above {hot:g} °C, which does not fit {device.text}"
        opinions.append(_Opinion(WARNING, "default", text, warn=hot))
    return opinions


def core(case: Case) -> Finding | None:
    worst = _worst(_opinions(case))
    if worst is None:
        return None
    text = "temperature"
    if case.gpu.temp is not None:
        text += f" {case.gpu.temp} °C"
    if worst.text:
        text += f", {worst.text}"
    return Finding(
        worst.status,
        text,
        "none" if worst.status == PASS else "inspect",
        case.gpu.temp,
        "°C",
        worst.warn,
        worst.crit,
        worst.source,
    )


def memory(case: Case) -> Finding | None:
    value, maximum = case.gpu.temp_memory, case.gpu.thresholds.mem_max
    if value is None or maximum is None:
        return None
    finding = Finding(
        PASS,
        f"memory temperature {value} °C, the device's maximum is {maximum} °C",
        value=value,
        unit="°C",
        warn=maximum,
        threshold_source="device",
    )
    if value > maximum:
        return finding._replace(status=WARNING, action="inspect")
    return finding


def throttling(case: Case) -> Finding | None:
    reasons = case.gpu.clock_reasons
    if reasons is None:
        return None
    for bit, status, text in (
        (_HW_THERMAL, CRITICAL, "the hardware slows it down because of heat"),
        (_HW_BRAKE, WARNING, "the power brake slows it down (power supply or chassis)"),
        (_HW_SLOWDOWN, WARNING, "the hardware slows it down (heat, power or brake)"),
    ):
        if reasons & bit:
            return Finding(status, text, "inspect", threshold_source="device")
    return Finding(PASS, "no slowdown by the hardware")
