# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks of a GPU as a whole: does it answer, and what does the driver ask for. Pure."""

from __future__ import annotations

from ..verdict import CRITICAL, PASS, SKIPPED, UNKNOWN, WARNING
from . import reading
from .case import Case, Finding
from .reading import Gpu, bus_id, display_bus
from .recovery import recovery

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


def _without_handle(gpu: Gpu) -> reading.Fault | None:
    return next((fault for fault in gpu.faults if "handle" in fault.query.lower()), None)


def _reset_required(gpu: Gpu) -> bool:
    return any(fault.code == reading.RESET_REQUIRED for fault in gpu.faults)


def usable(gpu: Gpu) -> bool:
    """Return whether the rest of the GPU's values is worth looking at."""
    if not gpu.replied:
        return False
    if gpu.lost:
        return gpu.temp is not None
    return _without_handle(gpu) is None


def condition(case: Case) -> Finding:
    gpu = case.gpu
    place = ""
    if gpu.bus_id:
        place = f" at {display_bus(bus_id(gpu.bus_id))}"
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


def inforom(case: Case) -> Finding | None:
    if not _answering(case):
        return None
    if all(fault.code != reading.CORRUPTED_INFOROM for fault in case.gpu.faults):
        return None
    return Finding(WARNING, "the InfoROM is corrupted", "inspect", threshold_source="device")


def readings(case: Case) -> Finding | None:
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
        more = ""
        if len(failed) > 3:
            more = f" and {len(failed) - 3} more"
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
