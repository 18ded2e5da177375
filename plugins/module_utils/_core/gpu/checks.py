# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The checks of one GPU, each an entry of CHECKS. Pure: reads nothing, changes nothing.

The order is the one in which faults explain each other: state, memory, Xids, temperature, links,
numbers. What the device reports comes before fixed numbers: its recovery action, its margin to
slowdown, its remap flags.
"""

from __future__ import annotations

from ..registry import Registry
from ..system.text import human_count
from ..verdict import CRITICAL, PASS, WARNING, Check
from . import links, state, temperature
from .case import Case, Finding, GpuCheck, source_of

#: RMA criteria: retired pages in all (NVIDIA's page retirement guide allows 64), remapped
#: uncorrectable rows.
RETIRED_PAGES_MAX = 63
REMAPPED_ROWS_MAX = 512


def evaluate(case: Case) -> list[Check]:
    """Return the checks of one GPU in their order."""
    subject = f"GPU {case.gpu.id}"
    usable = state.usable(case.gpu)
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


def _xids(case: Case) -> Finding | None:
    if not case.log_readable or not case.gpu.bus_id:
        return None
    if not case.events:
        return Finding(PASS, "no Xid in the kernel log", value=0)
    from . import xid  # there are events, so it is loaded

    return xid.finding(case.events)


# --- numbers and housekeeping -----------------------------------------------------------------


def _share(
    what: str, used: float | None, total: float | None, limit: float, unit: str
) -> Finding | None:
    """Compare a share with its limit in percent; 0 switches the check off."""
    if used is None or not total or not limit:
        return None
    percent = round(100.0 * used / total, 1)
    status, text = PASS, f"{what} {percent:g} % ({used:g} of {total:g} {unit})"
    if 100.0 * used > limit * total:
        status, text = WARNING, f"{text}, above {limit:g} %"
    return Finding(
        status,
        text,
        value=percent,
        unit="%",
        warn=limit,
        threshold_source=source_of(f"{what}_warning", limit),
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
            state.condition,
            "device",
            ("reboot", "reset_gpu", "drain", "inspect"),
            "gpu_state",
            "mlops_gpu_status",
            "lost, not answering, reset required, or a recovery action that the driver asks for",
            unusable=True,
        ),
        GpuCheck(
            "gpu_inforom",
            state.inforom,
            "device",
            ("inspect",),
            "gpu_inforom",
            _STATUS,
            "corruption of the board's InfoROM",
        ),
        GpuCheck(
            "gpu_readings",
            state.readings,
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
            temperature.core,
            "device; options temperature_warning, temperature_critical",
            ("inspect",),
            "gpu_temperature",
            "mlops_gpu_temperature_celsius",
            "core temperature against the device's own limits",
        ),
        GpuCheck(
            "gpu_memory_temperature",
            temperature.memory,
            "device",
            ("inspect",),
            "gpu_memory_temperature",
            "mlops_gpu_memory_temperature_celsius",
            "memory temperature against the device's maximum",
        ),
        GpuCheck(
            "gpu_throttling",
            temperature.throttling,
            "device",
            ("inspect",),
            "gpu_throttling",
            _STATUS,
            "slowdown by the hardware: heat, power brake",
        ),
        GpuCheck(
            "gpu_nvlink",
            links.nvlinks,
            "device",
            ("inspect",),
            "gpu_nvlink",
            _STATUS,
            "NVLinks that are down",
        ),
        GpuCheck(
            "gpu_fabric",
            links.fabric_registration,
            "device",
            ("inspect",),
            "gpu_fabric",
            _STATUS,
            "registration with the NVLink fabric",
        ),
        GpuCheck(
            "gpu_pcie",
            links.pcie_link,
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
