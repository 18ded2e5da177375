# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The checks of one GPU, each an entry of CHECKS. Pure: reads nothing, changes nothing.

The order is the one in which faults explain each other: state, memory, Xids, temperature, links,
numbers. What the device reports comes before fixed numbers: its recovery action, its margin to
slowdown, its remap flags.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Optional

from .. import verdict
from ..records import NamedTuple
from ..registry import Registry
from ..system.text import human_count
from ..verdict import CRITICAL, PASS, SKIPPED, UNKNOWN, WARNING, Check
from . import reading
from .options import GpuOptions
from .reading import Gpu, NvLink, bus_id, display_bus
from .recovery import recovery

if TYPE_CHECKING:
    from . import xid

#: Core temperatures in °C (warning, critical) where neither the device nor the user gives a limit.
FIXED_TEMPERATURES = (80.0, 90.0)
#: Warn at this distance to the device's slowdown threshold, °C.
MARGIN_WARNING = 5
#: RMA criteria: retired pages in all (NVIDIA's page retirement guide allows 64), remapped
#: uncorrectable rows.
RETIRED_PAGES_MAX = 63
REMAPPED_ROWS_MAX = 512
#: From this utilisation in percent on a GPU counts as busy, at P-states up to this one.
BUSY_UTILISATION = 10
BUSY_PSTATE = 4

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
#: Codes after which the driver, not one value, is in doubt: uninitialized, not loaded, time-out,
#: interrupts, library, mismatch.
_DRIVER_BROKEN = frozenset(
    {1, reading.DRIVER_NOT_LOADED, 10, 11, reading.LIBRARY_NOT_FOUND, reading.MISMATCH}
)
#: The queries whose answers carry the verdict; a missing one makes the GPU "unknown", any other
#: only a warning.
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
        "temp",
        "mem_used",
        "power_draw",
        "processes",
        "mem_total",
    }
)
#: SXM boards, whose NVLinks run through the board; bridges of PCIe cards are optional.
_SXM = re.compile(r"\bSXM|\b(?:H100 80GB HBM3|H800|H200|H20|B[123]00|GB[23]00)\b")
_BRIDGED = re.compile(r"\b(?:PCIe|NVL)\b")


class Case(NamedTuple):
    """One GPU and all that its checks look at."""

    options: GpuOptions
    gpu: Gpu
    others: Sequence[Gpu]  # all GPUs of the node
    events: Sequence[xid.Event]  # of this GPU
    log_readable: bool
    driver_version: Optional[str]
    orphans: Optional[frozenset[int]]
    fixed: tuple[float, float]


class Finding(NamedTuple):
    """The result of one check; the fields are those of a verdict.Check."""

    status: str
    message: str
    action: str = "none"
    value: Any = None
    unit: Optional[str] = None
    warn: Optional[float] = None
    crit: Optional[float] = None
    threshold_source: Optional[str] = None
    domain: Optional[str] = "node"
    unknown_as: str = WARNING


class GpuCheck(NamedTuple):
    """A check: what it looks at, where its limit comes from, what it may recommend.

    ``runbook`` is the label of its entry in the runbook, ``metric`` the series that shows its
    value, ``unusable`` whether it runs on a GPU that answers nothing useful.
    """

    name: str
    evaluate: Callable[[Case], Optional[Finding]]
    limit: str
    actions: tuple[str, ...]
    runbook: str
    metric: str
    documentation: str
    unusable: bool = False


def evaluate(case: Case) -> list[Check]:
    """Return the checks of one GPU in their order."""
    subject = f"GPU {case.gpu.id}"
    usable = _usable(case.gpu)
    checks = []
    for entry in CHECKS:
        finding = entry.evaluate(case) if usable or entry.unusable else None
        if finding is not None:
            values = finding._asdict()
            values["message"] = f"{subject}: {finding.message}"
            if finding.status == PASS:
                values["domain"] = None
            checks.append(Check(entry.name, subject=subject, **values))
    return checks


def busy(gpu: Gpu) -> bool:
    """Return whether a GPU works, by its load: clock reasons say too little on some cards."""
    if gpu.pstate is not None and gpu.pstate > BUSY_PSTATE:
        return False
    if gpu.util_gpu is not None:
        return gpu.util_gpu >= BUSY_UTILISATION
    return bool(gpu.processes)


# --- state and answers ------------------------------------------------------------------------


def _without_handle(gpu: Gpu) -> reading.Fault | None:
    return next((fault for fault in gpu.faults if "handle" in fault.query.lower()), None)


def _reset_required(gpu: Gpu) -> bool:
    return any(fault.code == reading.RESET_REQUIRED for fault in gpu.faults)


def _usable(gpu: Gpu) -> bool:
    """Return whether the rest of the GPU's values is worth looking at."""
    if not gpu.replied:
        return False
    if gpu.lost:
        return gpu.temp is not None
    return _without_handle(gpu) is None


def _state(case: Case) -> Finding:
    gpu = case.gpu
    place = f" at {display_bus(bus_id(gpu.bus_id))}" if gpu.bus_id else ""
    handle = _without_handle(gpu)
    if not gpu.replied:
        text = next(fault.text for fault in gpu.faults if fault.code == reading.NO_REPLY)
        return Finding(CRITICAL, f"the GPU{place} does not answer: {text}", "reboot")
    if gpu.lost:
        text = f"the GPU{place} is lost (fallen off the bus or not answering)"
        return Finding(CRITICAL, text, "reboot")
    if _reset_required(gpu):
        return Finding(CRITICAL, "the driver says that the GPU must be reset", "reset_gpu")
    if handle is not None:
        text = f"the driver gives no access to it{place}: {handle.text}"
        if handle.code == reading.NO_PERMISSION:
            return Finding(UNKNOWN, text, "inspect", unknown_as=CRITICAL)
        return Finding(CRITICAL, text, "reboot", unknown_as=CRITICAL)
    return _recovery(case)


def _recovery(case: Case) -> Finding:
    title = case.gpu.name or "the GPU"
    number = case.gpu.recovery
    if number is None:
        return Finding(PASS, f"{title} answers")
    wanted = recovery(int(number), case.driver_version)
    if wanted.level == PASS:
        return Finding(PASS, f"{title} answers and asks for no recovery action")
    return Finding(
        wanted.level,
        f"the driver asks for recovery: {wanted.text}",
        wanted.action,
        value=int(number),
        threshold_source="device",
    )


def _answering(case: Case) -> bool:
    """Return whether single answers matter: not where the GPU as a whole is at fault."""
    return not (case.gpu.lost or _reset_required(case.gpu))


def _inforom(case: Case) -> Finding | None:
    if not _answering(case):
        return None
    if all(fault.code != reading.CORRUPTED_INFOROM for fault in case.gpu.faults):
        return None
    return Finding(WARNING, "the InfoROM is corrupted", "inspect", threshold_source="device")


def _readings(case: Case) -> Finding | None:
    if not _answering(case):
        return None
    failed, hidden, severe = [], [], False
    for fault in case.gpu.faults:
        essential = fault.query in _ESSENTIAL
        optional = (reading.CORRUPTED_INFOROM, reading.NO_PERMISSION)
        if fault.code in optional and not essential:
            continue
        if fault.code == reading.NO_PERMISSION and case.gpu.mig:
            hidden.append(fault.query)
            continue
        failed.append(f"{fault.query} ({fault.text})")
        severe = severe or essential or fault.code in _DRIVER_BROKEN
    if failed:
        more = f" and {len(failed) - 3} more" if len(failed) > 3 else ""
        return Finding(
            UNKNOWN if severe else WARNING,
            f"the driver failed to answer: {', '.join(failed[:3])}{more}",
            "inspect",
            value=len(failed),
            unknown_as=CRITICAL,
        )
    if hidden:
        queries = ", ".join(hidden)
        text = f"split into instances (MIG), of which only root may read the sums: {queries}"
        return Finding(SKIPPED, text, domain=None)
    return None


# --- memory -----------------------------------------------------------------------------------


def _remapped_rows(case: Case) -> Finding | None:
    rows = case.gpu.remap
    if rows is None:
        return None
    value = rows.uncorrected
    if rows.failure:
        text = "remapping a memory row failed: the GPU needs replacement"
        return Finding(CRITICAL, text, "inspect", value, threshold_source="device")
    if rows.pending:
        text = "a memory row waits to be remapped at the next reset"
        return Finding(CRITICAL, text, "reset_gpu", value, threshold_source="device")
    if value >= REMAPPED_ROWS_MAX:
        return Finding(
            WARNING,
            f"{value} memory rows remapped",
            "inspect",
            value,
            warn=REMAPPED_ROWS_MAX,
            threshold_source="default",
        )
    remapped = human_count(value + rows.corrected, "memory row")
    return Finding(PASS, f"{remapped} remapped, none pending", value=value)


def _retired_pages(case: Case) -> Finding | None:
    retired = case.gpu.retired
    if retired is None:
        return None
    total = (retired.single_bit or 0) + (retired.double_bit or 0)
    if retired.pending:
        text = "a memory page waits to be retired at the next reset"
        return Finding(CRITICAL, text, "reset_gpu", total, threshold_source="device")
    if total >= RETIRED_PAGES_MAX:
        return Finding(
            CRITICAL,
            f"{total} memory pages retired: the GPU needs replacement",
            "inspect",
            total,
            crit=RETIRED_PAGES_MAX,
            threshold_source="default",
        )
    pages = human_count(total, "memory page")
    return Finding(PASS, f"{pages} retired, none pending", value=total)


def _ecc(case: Case) -> Finding | None:
    errors = case.gpu.ecc.volatile_uncorrected
    if case.gpu.sram_threshold:
        text = "too many uncorrected SRAM errors, the device's threshold is exceeded"
        return Finding(CRITICAL, text, "inspect", threshold_source="device")
    if errors is None:
        return None
    if errors:
        count = human_count(errors, "uncorrected memory error")
        return Finding(
            CRITICAL,
            f"{count} since the driver was loaded",
            "reset_gpu",
            errors,
            crit=0,
            threshold_source="default",
        )
    corrected = case.gpu.ecc.volatile_corrected or 0
    return Finding(PASS, f"no uncorrected memory errors, {corrected} corrected", value=errors)


# --- Xids -------------------------------------------------------------------------------------


def xid_finding(events: Sequence[xid.Event]) -> Finding:
    """Return the verdict on the events of one GPU."""
    from . import xid  # there are events, so it is loaded

    worst = max(events, key=lambda event: verdict.STATUSES.index(event.level))
    repeated = sum(event.active for event in events if event.repeats)
    text = ", ".join(
        event.title + (f" {event.count} times" if event.count > 1 else "") for event in events[:6]
    )
    value = sum(event.count for event in events)
    if worst.level == PASS and repeated >= xid.REPEATED:
        text = f"{repeated} application errors on this GPU: {text}"
        return Finding(WARNING, text, "inspect", value, threshold_source="default")
    deciding = [event for event in events if event.level == worst.level]
    by_user = any(event.source == "user" for event in deciding)
    action = max((event.action for event in deciding), key=verdict.ACTIONS.index)
    return Finding(
        worst.level,
        text,
        "none" if worst.level == PASS else action,
        value,
        threshold_source="user" if by_user else "default",
    )


def _xids(case: Case) -> Finding | None:
    if not case.log_readable or not case.gpu.bus_id:
        return None
    if not case.events:
        return Finding(PASS, "no Xid in the kernel log", value=0)
    return xid_finding(case.events)


# --- temperature ------------------------------------------------------------------------------


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
    return _Opinion(WARNING if gpu.margin <= MARGIN_WARNING else PASS, "device", text)


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
        return opinions if by_default is None else [*opinions, by_default]
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


def _temperature(case: Case) -> Finding | None:
    worst = _worst(_opinions(case))
    if worst is None:
        return None
    text = "temperature" if case.gpu.temp is None else f"temperature {case.gpu.temp} °C"
    return Finding(
        worst.status,
        f"{text}, {worst.text}" if worst.text else text,
        "none" if worst.status == PASS else "inspect",
        case.gpu.temp,
        "°C",
        worst.warn,
        worst.crit,
        worst.source,
    )


def _memory_temperature(case: Case) -> Finding | None:
    value, maximum = case.gpu.temp_memory, case.gpu.thresholds.mem_max
    if value is None or maximum is None:
        return None
    hot = value > maximum
    return Finding(
        WARNING if hot else PASS,
        f"memory temperature {value} °C, the device's maximum is {maximum} °C",
        "inspect" if hot else "none",
        value,
        "°C",
        warn=maximum,
        threshold_source="device",
    )


def _throttling(case: Case) -> Finding | None:
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


# --- links ------------------------------------------------------------------------------------


def on_sxm_board(gpu: Gpu) -> bool:
    """Return whether NVLinks of this GPU are part of the board, not of an optional bridge."""
    model = gpu.name or ""
    return gpu.fabric is not None or bool(_SXM.search(model) and not _BRIDGED.search(model))


def _all_down(nvlink: NvLink) -> bool:
    return len(nvlink.down) == nvlink.links


def _nvlink(case: Case) -> Finding | None:
    nvlink = case.gpu.nvlink
    if nvlink is None:
        return None
    if not nvlink.down:
        return Finding(PASS, f"all {nvlink.links} NVLinks up", value=0)
    peers = [gpu for gpu in case.others if gpu.nvlink and gpu.name == case.gpu.name]
    if not _all_down(nvlink):
        numbers = ", ".join(str(link) for link in nvlink.down)
        text = f"NVLink {numbers} of {nvlink.links} down"
    elif not all(_all_down(gpu.nvlink) for gpu in peers if gpu.nvlink):
        text = f"all {nvlink.links} NVLinks down, other GPUs have theirs"
    elif len(peers) > 1 and on_sxm_board(case.gpu):
        text = f"all {nvlink.links} NVLinks down on all GPUs of the board"
    else:  # a card without bridge, or a virtual machine with a single GPU of a board
        return None
    return Finding(CRITICAL, text, "inspect", len(nvlink.down), crit=0, threshold_source="device")


def _fabric(case: Case) -> Finding | None:
    fabric = case.gpu.fabric
    if fabric is None:
        return None
    if fabric.state != 3:
        text = "not yet registered with the NVLink fabric: is the fabric manager running?"
        return Finding(WARNING, text, "inspect", threshold_source="device")
    if fabric.status != 0:
        text = f"registration with the NVLink fabric failed (NVML code {fabric.status})"
        return Finding(CRITICAL, text, "inspect", fabric.status, threshold_source="device")
    return Finding(PASS, "registered with the NVLink fabric")


def _pcie(case: Case) -> Finding | None:
    pcie = case.gpu.pcie
    problems = []
    if pcie.width and pcie.width_max and pcie.width < pcie.width_max:
        problems.append(f"width x{pcie.width} instead of x{pcie.width_max}")
    # Idle GPUs lower the generation to save power.
    if pcie.gen and pcie.gen_max and pcie.gen < pcie.gen_max and busy(case.gpu):
        problems.append(f"generation {pcie.gen} instead of {pcie.gen_max}")
    if problems:
        text = f"PCIe {' and '.join(problems)}"
        return Finding(WARNING, text, "inspect", threshold_source="device")
    if not pcie.width or not pcie.width_max:
        return None
    text = f"PCIe x{pcie.width} of x{pcie.width_max}"
    return Finding(PASS, text + (f", generation {pcie.gen}" if pcie.gen else ""))


# --- numbers and housekeeping -----------------------------------------------------------------


def _share(
    what: str, used: float | None, total: float | None, limit: float, unit: str
) -> Finding | None:
    """Compare a share with its limit in percent; 0 switches the check off."""
    if used is None or not total or not limit:
        return None
    percent = round(100.0 * used / total, 1)
    above = 100.0 * used > limit * total
    text = f"{what} {percent:g} % ({used:g} of {total:g} {unit})"
    return Finding(
        WARNING if above else PASS,
        text + (f", above {limit:g} %" if above else ""),
        value=percent,
        unit="%",
        warn=limit,
        threshold_source=("default" if limit == GpuOptions.default(f"{what}_warning") else "user"),
        domain="user",
    )


def _memory(case: Case) -> Finding | None:
    gpu = case.gpu
    return _share("memory", gpu.mem_used, gpu.mem_total, case.options.memory_warning, "MiB")


def _power(case: Case) -> Finding | None:
    gpu = case.gpu
    return _share("power", gpu.power_draw, gpu.power_limit, case.options.power_warning, "W")


def _processes(case: Case) -> Finding | None:
    processes = case.gpu.processes
    if not processes or case.orphans is None:
        return None
    orphans = [process for process in processes if process.pid in case.orphans]
    if not orphans:
        count = len(processes)
        return Finding(PASS, f"{count} process{'' if count == 1 else 'es'}", value=count)
    held = sum(process.mem_used or 0 for process in orphans)
    pids = ", ".join(str(process.pid) for process in orphans[:8])
    text = f"{held} MiB held by processes that no longer exist: {pids}"
    return Finding(WARNING, text, "reset_gpu", len(orphans))


def _persistence(case: Case) -> Finding | None:
    """Only on a card made for servers, which has ECC: on a workstation the driver may unload."""
    if case.gpu.ecc.mode is None or case.gpu.persistence is None:
        return None
    if case.gpu.persistence:
        return Finding(PASS, "persistence mode is on")
    return Finding(WARNING, "persistence mode is off: enable nvidia-persistenced")


_STATUS = "mlops_gpu_check_status"
CHECKS: Registry[GpuCheck] = Registry(
    "GPU check",
    (
        GpuCheck(
            "gpu_state",
            _state,
            "device",
            ("reboot", "reset_gpu", "drain", "inspect"),
            "gpu_state",
            "mlops_gpu_status",
            "lost, not answering, reset required, or a recovery action that the driver asks for",
            unusable=True,
        ),
        GpuCheck(
            "gpu_inforom",
            _inforom,
            "device",
            ("inspect",),
            "gpu_inforom",
            _STATUS,
            "corruption of the board's InfoROM",
        ),
        GpuCheck(
            "gpu_readings",
            _readings,
            "device",
            ("inspect",),
            "gpu_readings",
            _STATUS,
            "queries that the driver failed to answer, and impossible values",
        ),
        GpuCheck(
            "gpu_remapped_rows",
            _remapped_rows,
            f"device; {REMAPPED_ROWS_MAX} rows",
            ("inspect", "reset_gpu"),
            "gpu_remapped_rows",
            _STATUS,
            "remapped memory rows, failed and pending ones",
        ),
        GpuCheck(
            "gpu_retired_pages",
            _retired_pages,
            f"device; {RETIRED_PAGES_MAX} pages",
            ("inspect", "reset_gpu"),
            "gpu_retired_pages",
            _STATUS,
            "retired memory pages of GPUs before Ampere",
        ),
        GpuCheck(
            "gpu_ecc",
            _ecc,
            "device; no uncorrected error",
            ("inspect", "reset_gpu"),
            "gpu_ecc",
            "mlops_gpu_ecc_uncorrected_errors",
            "uncorrected memory errors since the driver was loaded",
        ),
        GpuCheck(
            "gpu_xid",
            _xids,
            "the catalog; option xid_overrides",
            ("restart_app", "inspect", "reset_gpu", "drain", "reboot"),
            "gpu_xid",
            "mlops_gpu_xid_errors",
            "driver errors in the kernel log",
            unusable=True,
        ),
        GpuCheck(
            "gpu_temperature",
            _temperature,
            "device; options temperature_warning, temperature_critical",
            ("inspect",),
            "gpu_temperature",
            "mlops_gpu_temperature_celsius",
            "core temperature against the device's own limits",
        ),
        GpuCheck(
            "gpu_memory_temperature",
            _memory_temperature,
            "device",
            ("inspect",),
            "gpu_memory_temperature",
            "mlops_gpu_memory_temperature_celsius",
            "memory temperature against the device's maximum",
        ),
        GpuCheck(
            "gpu_throttling",
            _throttling,
            "device",
            ("inspect",),
            "gpu_throttling",
            _STATUS,
            "slowdown by the hardware: heat, power brake",
        ),
        GpuCheck(
            "gpu_nvlink",
            _nvlink,
            "device",
            ("inspect",),
            "gpu_nvlink",
            _STATUS,
            "NVLinks that are down",
        ),
        GpuCheck(
            "gpu_fabric",
            _fabric,
            "device",
            ("inspect",),
            "gpu_fabric",
            _STATUS,
            "registration with the NVLink fabric",
        ),
        GpuCheck(
            "gpu_pcie",
            _pcie,
            "device",
            ("inspect",),
            "gpu_pcie",
            _STATUS,
            "width of the PCIe link, and its generation while busy",
        ),
        GpuCheck(
            "gpu_memory",
            _memory,
            "option memory_warning",
            ("none",),
            "gpu_memory",
            "mlops_gpu_memory_used_bytes",
            "memory in use",
        ),
        GpuCheck(
            "gpu_power",
            _power,
            "option power_warning",
            ("none",),
            "gpu_power",
            "mlops_gpu_power_draw_watts",
            "power draw as a share of its limit",
        ),
        GpuCheck(
            "gpu_processes",
            _processes,
            "no orphan",
            ("reset_gpu",),
            "gpu_processes",
            _STATUS,
            "memory held by processes that no longer exist",
        ),
        GpuCheck(
            "gpu_persistence",
            _persistence,
            "on, where the GPU has ECC",
            ("none",),
            "gpu_persistence",
            _STATUS,
            "persistence mode",
        ),
    ),
    required=("evaluate", "limit", "actions", "runbook", "metric", "documentation"),
)
