# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what the driver, the PCI bus and the kernel log say to verdicts. Pure: reads nothing, changes nothing.

The order is the one in which faults explain each other: driver, count, state of each GPU, memory, Xids, temperature, links, numbers.
The device's own words come before fixed numbers: its recovery action, its margin to slowdown, its remap flags.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

from .. import verdict
from ..system.text import human_count
from ..verdict import CRITICAL, PASS, SKIPPED, UNKNOWN, WARNING, Check
from . import reading as r
from . import xid
from .options import GpuOptions

#: Core temperatures in °C (warning, critical) where neither the device nor the user gives a limit.
FIXED_TEMPERATURES = (80.0, 90.0)
#: Warn at this distance to the device's slowdown threshold, °C.
MARGIN_WARNING = 5
#: RMA criteria: retired pages in all (NVIDIA's page retirement guide allows 64), remapped uncorrectable rows.
RETIRED_PAGES_MAX = 63
REMAPPED_ROWS_MAX = 512
_DEFAULTS = {option.name: option.default for option in GpuOptions.TABLE}
#: How many processes of a GPU are named in the result.
PROCESSES_SHOWN = 32

_IDLE, _HW_SLOWDOWN, _HW_THERMAL, _HW_BRAKE = 0x1, 0x8, 0x40, 0x80
REASONS = {
    _IDLE: "idle",
    0x2: "application_clocks",
    0x4: "sw_power_cap",
    _HW_SLOWDOWN: "hw_slowdown",
    0x10: "sync_boost",
    0x20: "sw_thermal_slowdown",
    _HW_THERMAL: "hw_thermal_slowdown",
    _HW_BRAKE: "hw_power_brake",
    0x100: "display_clocks",
}
#: Codes after which the driver, not one value, is in doubt: uninitialized, not loaded, time-out, interrupts, library, mismatch.
_DRIVER_BROKEN = frozenset({1, r.DRIVER_NOT_LOADED, 10, 11, r.LIBRARY_NOT_FOUND, r.MISMATCH})
#: The questions whose answers carry the verdict; a missing one makes the GPU "unknown", any other only a warning.
_ESSENTIAL = frozenset(
    {
        "nvmlDeviceGetTemperature",
        "nvmlDeviceGetTemperatureV",
        "nvmlDeviceGetFieldValues",
        "nvmlDeviceGetFieldValues 230",
        "nvmlDeviceGetTotalEccErrors volatile uncorrected",
        "nvmlDeviceGetRemappedRows",
        "nvmlDeviceGetRetiredPagesPendingStatus",
        "nvmlDeviceGetMemoryInfo",
        "temperature.gpu",
        "gpu_recovery_action",
        "ecc.errors.uncorrected.volatile.total",
        "retired_pages.pending",
        "memory.used",
        "memory.total",
        "nvidia-smi",
    }
)


@dataclass
class Facts:
    """What was observed.

    C(reading) is None on a node where nothing can ask a GPU and nothing shows one. C(pci) are the bus ids of NVIDIA GPUs that this
    system should drive, none where that can't be told (containers). C(orphans) are
    process ids that hold GPU memory and do not exist. C(module_version) is the loaded kernel module's. C(timeout) in seconds, and
    C(duration) of the questions to the driver. C(others) are drivers that hold a GPU of C(pci) instead of NVIDIA's.
    """

    reading: Optional[r.Reading]
    pci: list[str] = field(default_factory=list)
    log: xid.Log = field(default_factory=lambda: xid.Log("none"))
    orphans: Optional[frozenset[int]] = None
    module_version: Optional[str] = None
    timeout: float = 0.0
    duration: Optional[float] = None
    others: list[str] = field(default_factory=list)


def decide(
    options: GpuOptions, facts: Facts, fixed: tuple[float, float] = FIXED_TEMPERATURES
) -> tuple[list[Check], list[dict[str, Any]]]:
    """Return the checks in their order and the GPUs as they are returned to the user.

    :param fixed: (warning, critical) core temperature in °C where neither the device nor the user gives a limit.
    """
    reading = facts.reading
    checks = _driver(options, facts)
    if reading is None or checks[0].status == SKIPPED:
        return checks, []
    if reading.count is not None and reading.code == 0:
        checks += _count(options, facts, reading)
    events = xid.judge(facts.log.finds, options.xid_overrides)
    shown = []
    for gpu in reading.gpus:
        mine = _gpu_checks(options, facts, gpu, fixed, events, reading)
        checks += mine
        shown.append(_shown(gpu, mine, events))
    checks += _xids_elsewhere(facts, reading, events)
    checks += _equality(reading)
    return checks, shown


# --- driver and count --------------------------------------------------------------------------------------------------


def _driver(options: GpuOptions, facts: Facts) -> list[Check]:
    reading, expected = facts.reading, options.expected_count
    on_bus = f"{human_count(len(facts.pci), 'NVIDIA GPU')} on the PCI bus" + (
        f" (held by {', '.join(facts.others)})" if facts.others else ""
    )

    took = None if facts.duration is None or reading is None else round(facts.duration * 1000, 1)

    def one(status: str, message: str, action: str = "none", **more: Any) -> list[Check]:
        domain = "node" if status not in (PASS, SKIPPED) else None
        return [
            Check(
                "gpu_driver",
                status,
                message,
                action=action,
                domain=domain,
                duration_ms=took,
                **more,
            )
        ]

    if reading is not None and reading.stuck:
        pid, start = reading.stuck
        since = verdict.isoformat(start)
        words = f"The driver does not answer: hung since {since}, process {pid} of an earlier check still waits, so it was not asked again"
        return one(CRITICAL, words, "reboot", since=since)
    if reading is not None and reading.hung:
        words = f"The driver does not answer: no reply within {facts.timeout:g} s to {reading.hung}"
        return one(CRITICAL, words, "reboot", value=facts.timeout, unit="s")
    if reading is not None and reading.code == 0:
        version = reading.driver_version or "of unknown version"
        if (
            facts.module_version
            and reading.driver_version
            and facts.module_version != reading.driver_version
        ):
            words = f"The loaded kernel module is {facts.module_version}, but the driver's library says {version}: an update waits for a reboot"
            return one(WARNING, words, "reboot", value=version)
        return one(PASS, f"NVIDIA driver {version} answers", value=reading.driver_version)
    if expected == 0:
        if facts.pci:
            return one(WARNING, f"{on_bus}, but none expected, and no working driver", "inspect")
        return one(SKIPPED, "No GPU on this node, as expected")
    code = r.LIBRARY_NOT_FOUND if reading is None else reading.code
    if code == r.LIBRARY_NOT_FOUND:
        if facts.pci:
            return one(CRITICAL, f"{on_bus}, but the NVIDIA driver is not installed", "inspect")
        if expected:
            return one(
                CRITICAL,
                f"{human_count(expected, 'GPU')} expected, but there is no NVIDIA driver and no NVIDIA GPU in sight",
                "inspect",
            )
        return one(
            SKIPPED, "No NVIDIA GPU on this node: no driver library and no device on the PCI bus"
        )
    if code == r.DRIVER_NOT_LOADED:
        words = "The NVIDIA driver is installed but not loaded"
        if facts.pci:
            words += f", {on_bus}"
        elif expected is None:
            words += "; set expected_count to 0 if this node has no GPU"
        return one(CRITICAL, words, "inspect")
    if code == r.MISMATCH:
        return one(
            CRITICAL,
            "The driver's library and its loaded kernel module have different versions: reload the module or reboot",
            "reboot",
        )
    words = f"The NVIDIA driver answers with an error: {reading.text if reading else ''}" + (
        "" if code == r.UNREADABLE else f" (NVML code {code})"
    )
    if code == r.NO_PERMISSION:
        return one(UNKNOWN, words, "inspect", unknown_as=CRITICAL)
    return one(
        CRITICAL, words, "reboot" if code in (r.GPU_IS_LOST, r.UNKNOWN_ERROR, 10, 11) else "inspect"
    )


def _count(options: GpuOptions, facts: Facts, reading: r.Reading) -> list[Check]:
    found, expected = reading.count or 0, options.expected_count
    source = None if expected is None else "user"

    known = {xid.bus_id(gpu["bus_id"]) for gpu in reading.gpus if gpu["bus_id"]}
    missing = (
        [bus for bus in facts.pci if xid.bus_id(bus) not in known] if len(facts.pci) > found else []
    )
    names = f"; on the PCI bus, but not in the driver: {', '.join(missing[:8])}" if missing else ""

    def one(status: str, message: str, action: str = "none") -> list[Check]:
        domain = None if status == PASS else "node"
        return [
            Check(
                "gpu_count",
                status,
                message,
                value=found,
                crit=expected,
                threshold_source=source,
                action=action,
                domain=domain,
            )
        ]

    if expected is not None:
        if found < expected:
            return one(
                CRITICAL,
                f"{human_count(found, 'GPU')} found, {expected} expected{names}",
                "reboot" if missing else "inspect",
            )
        if found > expected:
            return one(
                WARNING, f"{human_count(found, 'GPU')} found, only {expected} expected", "inspect"
            )
        return one(PASS, f"{human_count(found, 'GPU')} found, as expected")
    if missing:
        return one(CRITICAL, f"{human_count(found, 'GPU')} found{names}", "reboot")
    if found == 0:
        return one(
            WARNING,
            "The NVIDIA driver is loaded but has no GPU; set expected_count to 0 if that is right",
            "inspect",
        )
    return one(PASS, f"{human_count(found, 'GPU')} found")


# --- one GPU -----------------------------------------------------------------------------------------------------------


class _Gpu:
    """One GPU's values and the checks made of them so far."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values
        self.subject = f"GPU {values['id']}"
        self.checks: list[Check] = []

    def add(
        self, name: str, status: str, message: str, domain: str | None = "node", **more: Any
    ) -> None:
        self.checks.append(
            Check(
                name,
                status,
                f"{self.subject}: {message}",
                subject=self.subject,
                domain=domain if status != PASS else None,
                **more,
            )
        )


def _gpu_checks(
    options: GpuOptions,
    facts: Facts,
    values: Mapping[str, Any],
    fixed: tuple[float, float],
    events: list[xid.Event],
    reading: r.Reading,
) -> list[Check]:
    gpu = _Gpu(values)
    if _state(gpu):
        _memory_health(gpu)
        _xids(gpu, facts, events)
        _temperature(gpu, options, fixed)
        _throttling(gpu)
        _nvlink(gpu, reading)
        _links(gpu)
        _numbers(gpu, options)
        _housekeeping(gpu, facts)
    else:
        _xids(gpu, facts, events)
    return gpu.checks


def _state(gpu: _Gpu) -> bool:
    """Judge whether the GPU is usable at all; say whether the rest is worth looking at."""
    faults = gpu.values["faults"]
    codes = {code for _name, code, _words in faults}
    handle = next(((code, words) for name, code, words in faults if "handle" in name.lower()), None)
    place = f" at {xid.shown(xid.bus_id(gpu.values['bus_id']))}" if gpu.values["bus_id"] else ""
    if r.GPU_IS_LOST in codes:
        gpu.add(
            "gpu_state",
            CRITICAL,
            f"the GPU{place} is lost (fallen off the bus or not answering)",
            action="reboot",
        )
        return gpu.values["temp"] is not None
    if r.RESET_REQUIRED in codes:
        gpu.add(
            "gpu_state", CRITICAL, "the driver says that the GPU must be reset", action="reset_gpu"
        )
        return handle is None
    if handle is not None:
        status = UNKNOWN if handle[0] == r.NO_PERMISSION else CRITICAL
        gpu.add(
            "gpu_state",
            status,
            f"the driver gives no access to it{place}: {handle[1]}",
            action="reboot" if status == CRITICAL else "inspect",
            unknown_as=CRITICAL,
        )
        return False
    _recovery(gpu)
    _readings(gpu, faults)
    return True


def _recovery(gpu: _Gpu) -> None:
    value = gpu.values["recovery"]
    if value is None:
        gpu.add("gpu_state", PASS, f"{gpu.values['name'] or 'the GPU'} answers")
        return
    status, action, words = xid.recovery(int(value))
    if status == PASS:
        gpu.add(
            "gpu_state",
            PASS,
            f"{gpu.values['name'] or 'the GPU'} answers and asks for no recovery action",
        )
    else:
        gpu.add(
            "gpu_state",
            status,
            f"the driver asks for recovery: {words}",
            action=action,
            value=int(value),
            threshold_source="device",
        )


def _readings(gpu: _Gpu, faults: Sequence[tuple[str, int, str]]) -> None:
    if any(code == r.CORRUPTED_INFOROM for _name, code, _words in faults):
        gpu.add(
            "gpu_inforom",
            WARNING,
            "the InfoROM is corrupted",
            action="inspect",
            threshold_source="device",
        )
    failed = []
    hidden = []
    severe = False
    for name, code, words in faults:
        essential = name in _ESSENTIAL
        if code in (r.CORRUPTED_INFOROM, r.NO_PERMISSION) and not essential:
            continue
        if code == r.NO_PERMISSION and gpu.values["mig"]:
            hidden.append(name)
            continue
        failed.append(f"{name} ({words})")
        severe = severe or essential or code in _DRIVER_BROKEN
    if failed:
        more = f" and {len(failed) - 3} more" if len(failed) > 3 else ""
        words = f"the driver failed to answer: {', '.join(failed[:3])}{more}"
        gpu.add(
            "gpu_readings",
            UNKNOWN if severe else WARNING,
            words,
            value=len(failed),
            action="inspect",
            unknown_as=CRITICAL,
        )
    elif hidden:
        gpu.add(
            "gpu_readings",
            SKIPPED,
            f"split into instances (MIG), of which only root may read the sums: {', '.join(hidden)}",
            domain=None,
        )


def _memory_health(gpu: _Gpu) -> None:
    rows, retired, ecc = gpu.values["remap"], gpu.values["retired"], gpu.values["ecc"]
    if rows:
        value = rows["uncorrected"]
        if rows["failure"]:
            gpu.add(
                "gpu_remapped_rows",
                CRITICAL,
                "remapping a memory row failed: the GPU needs replacement",
                value=value,
                action="inspect",
                threshold_source="device",
            )
        elif rows["pending"]:
            gpu.add(
                "gpu_remapped_rows",
                CRITICAL,
                "a memory row waits to be remapped at the next reset",
                value=value,
                action="reset_gpu",
                threshold_source="device",
            )
        elif value >= REMAPPED_ROWS_MAX:
            gpu.add(
                "gpu_remapped_rows",
                WARNING,
                f"{value} memory rows remapped",
                value=value,
                warn=REMAPPED_ROWS_MAX,
                threshold_source="default",
                action="inspect",
            )
        else:
            gpu.add(
                "gpu_remapped_rows",
                PASS,
                f"{human_count(value + rows['corrected'], 'memory row')} remapped, none pending",
                value=value,
            )
    if retired:
        total = (retired.get("single_bit") or 0) + (retired.get("double_bit") or 0)
        if retired.get("pending"):
            gpu.add(
                "gpu_retired_pages",
                CRITICAL,
                "a memory page waits to be retired at the next reset",
                value=total,
                action="reset_gpu",
                threshold_source="device",
            )
        elif total >= RETIRED_PAGES_MAX:
            words = f"{total} memory pages retired: the GPU needs replacement"
            gpu.add(
                "gpu_retired_pages",
                CRITICAL,
                words,
                value=total,
                crit=RETIRED_PAGES_MAX,
                threshold_source="default",
                action="inspect",
            )
        else:
            gpu.add(
                "gpu_retired_pages",
                PASS,
                f"{human_count(total, 'memory page')} retired, none pending",
                value=total,
            )
    errors = ecc.get("volatile_uncorrected")
    if gpu.values["sram_threshold"]:
        gpu.add(
            "gpu_ecc",
            CRITICAL,
            "too many uncorrected SRAM errors, the device's threshold is exceeded",
            action="inspect",
            threshold_source="device",
        )
    elif errors:
        words = f"{human_count(errors, 'uncorrected memory error')} since the driver was loaded"
        gpu.add(
            "gpu_ecc",
            CRITICAL,
            words,
            value=errors,
            crit=0,
            threshold_source="default",
            action="reset_gpu",
        )
    elif errors == 0:
        gpu.add(
            "gpu_ecc",
            PASS,
            f"no uncorrected memory errors, {ecc.get('volatile_corrected') or 0} corrected",
            value=errors,
        )


def _mine(events: list[xid.Event], bus: str | None) -> list[xid.Event]:
    own = xid.bus_id(bus) if bus else None
    return [event for event in events if own is not None and event.bus == own]


def _xid_verdict(events: list[xid.Event]) -> tuple[str, str, str]:
    """Return (status, action, words) of one GPU's events."""
    worst = max(events, key=lambda event: verdict.STATUSES.index(event.level))
    repeated = sum(event.count for event in events if event.repeats)
    words = ", ".join(
        f"Xid {event.code} ({event.text}){f' {event.count} times' if event.count > 1 else ''}"
        for event in events[:6]
    )
    if worst.level == PASS and repeated >= xid.REPEATED:
        return WARNING, "inspect", f"{repeated} application errors on this GPU: {words}"
    action = max(
        (event.action for event in events if event.level == worst.level), key=verdict.ACTIONS.index
    )
    return worst.level, action, words


def _xids(gpu: _Gpu, facts: Facts, events: list[xid.Event]) -> None:
    if facts.log.problem or facts.log.source == "none" or not gpu.values["bus_id"]:
        return
    own = _mine(events, gpu.values["bus_id"])
    if not own:
        gpu.add("gpu_xid", PASS, "no Xid in the kernel log", value=0)
        return
    status, action, words = _xid_verdict(own)
    source = (
        "user"
        if any(event.source == "user" and event.level == status for event in own)
        else "default"
    )
    gpu.add(
        "gpu_xid",
        status,
        words,
        value=sum(event.count for event in own),
        action=action if status != PASS else "none",
        threshold_source=source,
    )


def _xids_elsewhere(facts: Facts, reading: r.Reading, events: list[xid.Event]) -> list[Check]:
    log = facts.log
    if log.problem:
        named = log.source not in ("auto",)
        status, domain = (UNKNOWN, "node") if named else (SKIPPED, None)
        return [Check("gpu_xid", status, f"Xids not checked: {log.problem}", domain=domain)]
    if log.source == "none":
        return [Check("gpu_xid", SKIPPED, "Xids not checked: switched off by log_source")]
    known = {xid.bus_id(gpu["bus_id"]) for gpu in reading.gpus if gpu["bus_id"]}
    strangers: dict[str, list[xid.Event]] = {}
    for event in events:
        if event.bus is None or event.bus not in known:
            strangers.setdefault(xid.shown(event.bus), []).append(event)
    checks = []
    for bus, own in strangers.items():
        status, action, words = _xid_verdict(own)
        count = sum(event.count for event in own)
        message = f"{bus}, which the driver does not show: {words}"
        checks.append(
            Check(
                "gpu_xid",
                status,
                message,
                subject=bus,
                value=count,
                action=action if status != PASS else "none",
                domain=None if status == PASS else "node",
            )
        )
    return checks


# --- temperature -------------------------------------------------------------------------------------------------------


def _device_temperature(values: Mapping[str, Any]) -> tuple[str, str, dict[str, Any]] | None:
    """Judge the core by what the device says of itself: (status, words, limits); None when it says nothing.

    The worse of margin (distance to the nearest slowdown) and absolute thresholds, which are going away on Ada and later.
    """
    found = [one for one in (_by_margin(values), _by_thresholds(values)) if one is not None]
    return max(found, key=lambda one: verdict.STATUSES.index(one[0]), default=None)


def _by_margin(values: Mapping[str, Any]) -> tuple[str, str, dict[str, Any]] | None:
    margin = values["margin"]
    if margin is None:
        return None
    words = f"margin to slowdown {margin} °C"
    if margin < ((values["t_limits"] or {}).get("slowdown") or 0):
        return CRITICAL, words + ", beyond the slowdown threshold", {}
    return (WARNING if margin <= MARGIN_WARNING else PASS), words, {}


def _by_thresholds(values: Mapping[str, Any]) -> tuple[str, str, dict[str, Any]] | None:
    temp, thresholds = values["temp"], values["thresholds"] or {}
    critical = thresholds.get("slowdown") or thresholds.get("shutdown")
    warning = thresholds.get("gpu_max")
    if temp is None or (critical is None and warning is None):
        return None
    limits = {"warn": warning, "crit": critical}
    if critical is not None and temp >= critical:
        return CRITICAL, f"the device slows down at {critical} °C", limits
    if warning is not None and temp > warning:
        return WARNING, f"the device's maximum for operation is {warning} °C", limits
    return PASS, f"the device's limit is {warning or critical} °C", limits


def _temperature(gpu: _Gpu, options: GpuOptions, fixed: tuple[float, float]) -> None:
    values = gpu.values
    temp = values["temp"]
    user_warning, user_critical = options.temperature_warning, options.temperature_critical
    candidates: list[tuple[str, str, str, dict[str, Any]]] = []
    if temp is not None and (user_warning is not None or user_critical is not None):
        limits = {"warn": user_warning, "crit": user_critical}
        if user_critical is not None and temp > user_critical:
            candidates.append((CRITICAL, "user", f"above {user_critical:g} °C", limits))
        elif user_warning is not None and temp > user_warning:
            candidates.append((WARNING, "user", f"above {user_warning:g} °C", limits))
        else:
            candidates.append((PASS, "user", "", limits))
    device = _device_temperature(values)
    if device is not None:
        status, words, limits = device
        # The user's warning number stands in for the device's; the device's critical always holds.
        if not (status == WARNING and user_warning is not None and temp is not None):
            candidates.append((status, "device", words, limits))
        hot = FIXED_TEMPERATURES[1]
        if (
            temp is not None
            and temp > hot
            and user_warning is None
            and _by_thresholds(values) is None
        ):
            candidates.append(
                (WARNING, "default", f"above {hot:g} °C, which does not fit {words}", {"warn": hot})
            )
    elif temp is not None:
        warning = fixed[0] if user_warning is None else None
        critical = (
            fixed[1]
            if user_critical is None and (user_warning is None or user_warning < fixed[1])
            else None
        )
        limits = {"warn": warning, "crit": critical}
        if critical is not None and temp > critical:
            candidates.append((CRITICAL, "default", f"above {critical:g} °C", limits))
        elif warning is not None and temp > warning:
            candidates.append((WARNING, "default", f"above {warning:g} °C", limits))
        else:
            candidates.append((PASS, "default", "", limits))
    if candidates:
        status, source, words, limits = max(
            candidates, key=lambda one: verdict.STATUSES.index(one[0])
        )
        shown = "temperature" if temp is None else f"temperature {temp} °C"
        message = f"{shown}, {words}" if words else shown
        gpu.add(
            "gpu_temperature",
            status,
            message,
            value=temp,
            unit="°C",
            threshold_source=source,
            action="none" if status == PASS else "inspect",
            **_known(limits),
        )
    maximum = (values["thresholds"] or {}).get("mem_max")
    memory = values["temp_memory"]
    if memory is not None and maximum is not None:
        hot = memory > maximum
        words = f"memory temperature {memory} °C, the device's maximum is {maximum} °C"
        more = {"value": memory, "unit": "°C", "warn": maximum, "threshold_source": "device"}
        gpu.add(
            "gpu_memory_temperature",
            WARNING if hot else PASS,
            words,
            action="inspect" if hot else "none",
            **more,
        )


def _known(limits: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in limits.items() if value is not None}


def _throttling(gpu: _Gpu) -> None:
    reasons = gpu.values["clock_reasons"]
    if reasons is None:
        return
    if reasons & _HW_THERMAL:
        gpu.add(
            "gpu_throttling",
            CRITICAL,
            "the hardware slows it down because of heat",
            action="inspect",
            threshold_source="device",
        )
    elif reasons & _HW_BRAKE:
        gpu.add(
            "gpu_throttling",
            WARNING,
            "the power brake slows it down (power supply or chassis)",
            action="inspect",
            threshold_source="device",
        )
    elif reasons & _HW_SLOWDOWN:
        gpu.add(
            "gpu_throttling",
            WARNING,
            "the hardware slows it down (heat, power or brake)",
            action="inspect",
            threshold_source="device",
        )
    else:
        gpu.add("gpu_throttling", PASS, "no slowdown by the hardware")


# --- links, numbers, housekeeping --------------------------------------------------------------------------------------


def _nvlink(gpu: _Gpu, reading: r.Reading) -> None:
    nvlink = gpu.values["nvlink"]
    if not nvlink:
        return
    down = nvlink["down"]
    if not down:
        gpu.add("gpu_nvlink", PASS, f"all {nvlink['links']} NVLinks up", value=0)
        return
    # All links down is a card without bridge, which is no fault, unless another one of its model has links.
    others = (
        other["nvlink"]
        for other in reading.gpus
        if other["nvlink"] and other["name"] == gpu.values["name"]
    )
    if all(len(other["down"]) == other["links"] for other in others):
        return
    names = ", ".join(str(link) for link in down)
    words = (
        f"NVLink {names} of {nvlink['links']} down"
        if len(down) < nvlink["links"]
        else f"all {nvlink['links']} NVLinks down, other GPUs have theirs"
    )
    gpu.add(
        "gpu_nvlink",
        CRITICAL,
        words,
        value=len(down),
        crit=0,
        action="inspect",
        threshold_source="device",
    )


def _links(gpu: _Gpu) -> None:
    fabric, pcie = gpu.values["fabric"], gpu.values["pcie"]
    if fabric:
        if fabric["state"] == 3 and fabric["status"] == 0:
            gpu.add("gpu_fabric", PASS, "registered with the NVLink fabric")
        elif fabric["state"] == 3:
            words = f"registration with the NVLink fabric failed (NVML code {fabric['status']})"
            gpu.add(
                "gpu_fabric",
                CRITICAL,
                words,
                value=fabric["status"],
                action="inspect",
                threshold_source="device",
            )
        else:
            gpu.add(
                "gpu_fabric",
                WARNING,
                "not yet registered with the NVLink fabric: is the fabric manager running?",
                action="inspect",
                threshold_source="device",
            )
    problems = []
    width, width_max, gen, gen_max = (
        pcie.get(name) for name in ("width", "width_max", "gen", "gen_max")
    )
    if width and width_max and width < width_max:
        problems.append(f"width x{width} instead of x{width_max}")
    reasons = gpu.values["clock_reasons"]
    # Idle GPUs lower the generation to save power; only a busy one can be judged.
    if gen and gen_max and gen < gen_max and reasons is not None and not reasons & _IDLE:
        problems.append(f"generation {gen} instead of {gen_max}")
    if problems:
        gpu.add(
            "gpu_pcie",
            WARNING,
            f"PCIe {' and '.join(problems)}",
            action="inspect",
            threshold_source="device",
        )
    elif width and width_max:
        gpu.add(
            "gpu_pcie",
            PASS,
            f"PCIe x{width} of x{width_max}" + (f", generation {gen}" if gen else ""),
        )


def _share(
    gpu: _Gpu, what: str, used: float | None, total: float | None, limit: float, unit: str
) -> None:
    if used is None or not total or not limit:
        return
    percent = round(100.0 * used / total, 1)
    above = 100.0 * used > limit * total
    words = f"{what} {percent:g} % ({used:g} of {total:g} {unit})" + (
        f", above {limit:g} %" if above else ""
    )
    source = "default" if limit == _DEFAULTS[f"{what}_warning"] else "user"
    gpu.add(
        f"gpu_{what}",
        WARNING if above else PASS,
        words,
        domain="user",
        value=percent,
        unit="%",
        warn=limit,
        threshold_source=source,
    )


def _numbers(gpu: _Gpu, options: GpuOptions) -> None:
    values = gpu.values
    _share(gpu, "memory", values["mem_used"], values["mem_total"], options.memory_warning, "MiB")
    _share(gpu, "power", values["power_draw"], values["power_limit"], options.power_warning, "W")


def _housekeeping(gpu: _Gpu, facts: Facts) -> None:
    processes = gpu.values["processes"]
    if processes and facts.orphans is not None:
        orphans = [process for process in processes if process["pid"] in facts.orphans]
        if orphans:
            held = sum(process["mem_used"] or 0 for process in orphans)
            names = ", ".join(str(process["pid"]) for process in orphans[:8])
            gpu.add(
                "gpu_processes",
                WARNING,
                f"{held} MiB held by processes that no longer exist: {names}",
                value=len(orphans),
                action="reset_gpu",
            )
        else:
            gpu.add(
                "gpu_processes",
                PASS,
                f"{len(processes)} process{'' if len(processes) == 1 else 'es'}",
                value=len(processes),
            )
    # On a card made for servers only (it has ECC): on a workstation the driver unloads when idle, as meant.
    ecc_mode = gpu.values["ecc"]["mode"]
    if ecc_mode is not None and gpu.values["persistence"] is not None:
        on = gpu.values["persistence"]
        words = (
            "persistence mode is on"
            if on
            else "persistence mode is off: enable nvidia-persistenced"
        )
        gpu.add("gpu_persistence", PASS if on else WARNING, words)


def _equality(reading: r.Reading) -> list[Check]:
    """GPUs of one model must have one VBIOS version; others behave differently under the same job."""
    models: dict[str, dict[str, list[str]]] = {}
    for gpu in reading.gpus:
        if gpu["name"] and gpu["vbios"]:
            models.setdefault(gpu["name"], {}).setdefault(gpu["vbios"], []).append(str(gpu["id"]))
    if sum(len(ids) for versions in models.values() for ids in versions.values()) < 2:
        return []
    mixed = [
        f"{model}: "
        + "; ".join(f"{version} on GPU {', '.join(ids)}" for version, ids in versions.items())
        for model, versions in models.items()
        if len(versions) > 1
    ]
    if mixed:
        return [
            Check(
                "gpu_vbios",
                WARNING,
                "Different VBIOS versions, " + " | ".join(mixed),
                action="inspect",
                domain="node",
            )
        ]
    return [Check("gpu_vbios", PASS, "GPUs of the same model have the same VBIOS")]


# --- what is returned --------------------------------------------------------------------------------------------------


def _shown(
    values: Mapping[str, Any], checks: list[Check], events: list[xid.Event]
) -> dict[str, Any]:
    """Return a GPU as the user sees it: the old keys first, no internals."""
    hidden = {"t_limits", "thresholds", "clock_reasons", "processes", "recovery"}
    shown = {name: values[name] for name in r.KEYS if name not in hidden}
    reasons = values["clock_reasons"]
    shown["clock_reasons"] = (
        None if reasons is None else [name for bit, name in REASONS.items() if reasons & bit]
    )
    shown["recovery_action"] = (
        None if values["recovery"] is None else xid.recovery(int(values["recovery"]))[2]
    )
    processes = values["processes"]
    shown["processes"] = None if processes is None else processes[:PROCESSES_SHOWN]
    shown["process_count"] = None if processes is None else len(processes)
    shown["xids"] = [event.to_dict() for event in _mine(events, values["bus_id"])]
    shown["status"] = verdict.worst(check.counts_as for check in checks)
    return shown
