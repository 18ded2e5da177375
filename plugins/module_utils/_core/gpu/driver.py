# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""NVML through pynvml (package nvidia-ml-py): one session that makes every query once.

It runs in a forked child, because a wedged driver leaves the caller in a system call that no signal
ends. NVML is not shut down at the end: that is one more call that can hang, and the child's exit
does it anyway.

Every query is optional. Newer ones are missing in older drivers (function not found) and older
pynvml releases (no attribute); both mean "not supported". Numbers below are NVML's enumerations
(nvml.h); they never change, unlike pynvml's names for them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from ..errors import MissingLibrary
from .reading import (
    NOT_FOUND,
    UNREADABLE,
    UNSUPPORTED,
    Ecc,
    Fabric,
    Gpu,
    Journal,
    Limits,
    LinkErrors,
    NvLink,
    Pcie,
    Process,
    Reading,
    Remap,
    Retired,
)

#: Field ids for nvmlDeviceGetFieldValues: memory temperature; T.Limit distances to shutdown,
#: slowdown, memory and GPU maximum; recovery action.
FIELDS = {
    "memory_temp": 82,
    "shutdown": 193,
    "slowdown": 194,
    "mem_max": 195,
    "gpu_max": 196,
    "recovery": 230,
}
THRESHOLDS = {"shutdown": 0, "slowdown": 1, "mem_max": 2, "gpu_max": 3}
NVLINKS = 36
#: Fields of NVLink5 by link: recoveries, errors that were left after correction.
NVLINK5_FIELDS = (215, 219)
_CORRECTED, _UNCORRECTED = 0, 1
_VOLATILE, _AGGREGATE = 0, 1
_INVALID_ARGUMENT = 2
_FUNCTION_NOT_FOUND = 13
_PSTATES = range(16)  # 32 is "unknown"
_MIB = 1 << 20


def library_loads() -> bool:
    """Return whether NVIDIA's driver library is here. It runs library code: call it in a child."""
    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return False
    return True


def import_pynvml() -> Any:
    """Return the module pynvml.

    :raises MissingLibrary: it can't be imported.
    """
    try:
        import pynvml
    except ImportError as error:
        raise MissingLibrary(
            "nvidia-ml-py", "to read GPUs through NVML (or install nvidia-smi)", str(error)
        ) from error
    return pynvml


def _text(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value


class _Asker:
    """Makes NVML's queries and keeps the faults of the current GPU."""

    def __init__(self, pynvml: Any, journal: Journal | None) -> None:
        self.pynvml = pynvml
        self.journal = journal
        self.gpu: Gpu | None = None
        self.code = 0  # of the latest query

    def raw(self, name: str, *args: Any) -> tuple[int, str, Any]:
        """Return (code, explanation, value) of a call."""
        function: Callable[..., Any] | None = getattr(self.pynvml, name, None)
        if function is None:
            return _FUNCTION_NOT_FOUND, "Function Not Found", None
        if self.journal is not None:
            call = name
            if self.gpu is not None:
                call += f" on GPU {self.gpu.id}"
            self.journal.asking(call)
        try:
            return 0, "", _text(function(*args))
        except self.pynvml.NVMLError as error:
            return int(error.value), str(error), None
        except getattr(self.pynvml, "NVMLLibraryMismatchError", ()):
            # Called by its plain name; this driver has an older form only.
            return _FUNCTION_NOT_FOUND, "Function Not Found", None
        except Exception as error:  # noqa: BLE001  # a binding that does not fit
            return UNREADABLE, f"{type(error).__name__}: {error}", None

    def ask(
        self, name: str, *args: Any, fine: frozenset[int] = UNSUPPORTED, label: str = ""
    ) -> Any:
        """Return the value, or None.

        An error that is not in ``fine`` is noted as a fault of the current GPU.
        """
        if self.gpu is not None and self.gpu.lost:
            return None
        code, text, value = self.raw(name, *args)
        self.code = code
        if code and code not in fine and self.gpu is not None:
            self.gpu.fail(label or name, code, text)
        return value


def session(journal: Journal | None = None) -> Reading:
    """Make every query.

    :raises MissingLibrary: pynvml can't be imported. All that the driver answers, errors included,
        is in the result.
    """
    pynvml = import_pynvml()
    asker = _Asker(pynvml, journal)
    reading = Reading(backend="nvml")
    reading.code, reading.text, dummy = asker.raw("nvmlInit")
    if reading.code:
        return reading
    reading.driver_version = asker.raw("nvmlSystemGetDriverVersion")[2]
    reading.nvml_version = asker.raw("nvmlSystemGetNVMLVersion")[2]
    cuda = asker.raw("nvmlSystemGetCudaDriverVersion")[2]
    if isinstance(cuda, int):
        reading.cuda_version = f"{cuda // 1000}.{cuda % 1000 // 10}"
    reading.code, reading.text, reading.count = asker.raw("nvmlDeviceGetCount")
    for index in range(reading.count or 0):
        if journal is not None:
            journal.keep(reading)
        reading.gpus.append(_gpu(asker, index))
    return reading


def single_gpu(index: int, journal: Journal) -> Gpu | None:
    """Ask about one GPU only, as a session of its own; None when the driver does not start."""
    asker = _Asker(import_pynvml(), journal)
    if asker.raw("nvmlInit")[0]:
        return None
    return _gpu(asker, index)


def _gpu(asker: _Asker, index: int) -> Gpu:
    gpu = asker.gpu = Gpu(index)
    try:
        handle = asker.ask("nvmlDeviceGetHandleByIndex", index, fine=frozenset())
        if handle is not None:
            _identity(asker, gpu, handle)
            _temperatures(asker, gpu, handle)
            _load(asker, gpu, handle)
            _memory_faults(asker, gpu, handle)
            _links(asker, gpu, handle)
            gpu.processes = _processes(asker, handle)
    finally:
        asker.gpu = None
    return gpu


def _flag(value: Any) -> bool | None:
    if value is None:
        return None
    return bool(value)


def _identity(asker: _Asker, gpu: Gpu, handle: Any) -> None:
    gpu.name = asker.ask("nvmlDeviceGetName", handle)
    gpu.uuid = asker.ask("nvmlDeviceGetUUID", handle)
    gpu.serial = asker.ask("nvmlDeviceGetSerial", handle)
    gpu.vbios = asker.ask("nvmlDeviceGetVbiosVersion", handle)
    pci = asker.ask("nvmlDeviceGetPciInfo", handle)
    gpu.bus_id = None if pci is None else _text(pci.busId)
    gpu.persistence = _flag(asker.ask("nvmlDeviceGetPersistenceMode", handle))
    mig = asker.ask("nvmlDeviceGetMigMode", handle)
    gpu.mig = _flag(mig and mig[0])
    asker.ask("nvmlDeviceValidateInforom", handle)


def _temperatures(asker: _Asker, gpu: Gpu, handle: Any) -> None:
    gpu.temp = asker.ask("nvmlDeviceGetTemperature", handle, 0)
    if gpu.temp is None and asker.code in UNSUPPORTED:  # NVIDIA calls it deprecated
        gpu.temp = asker.ask("nvmlDeviceGetTemperatureV", handle, 0)
    gpu.margin = asker.ask("nvmlDeviceGetMarginTemperature", handle)
    fields = _fields(asker, gpu, handle)
    # Cards without a memory sensor answer 0.
    gpu.temp_memory = fields.pop("memory_temp") or None
    gpu.recovery = fields.pop("recovery")
    gpu.t_limits = Limits(**fields)
    # A threshold of 0 stands for "not known".
    thresholds = {
        name: asker.ask("nvmlDeviceGetTemperatureThreshold", handle, kind) or None
        for name, kind in THRESHOLDS.items()
    }
    gpu.thresholds = Limits(**thresholds)
    gpu.fan = asker.ask("nvmlDeviceGetFanSpeed", handle)


def _fields(asker: _Asker, gpu: Gpu, handle: Any) -> dict[str, Any]:
    """Ask for all fields in one call.

    Each has a return code of its own; a single bad one must not hide the others.
    """
    fields: dict[str, Any] = dict.fromkeys(FIELDS)
    values = asker.ask("nvmlDeviceGetFieldValues", handle, list(FIELDS.values()))
    if values is None:
        return fields
    # A field this driver does not know is "invalid argument" or "not found" on older branches.
    fine = UNSUPPORTED | {_INVALID_ARGUMENT, NOT_FOUND}
    for name, value in zip(FIELDS, values):
        code = int(value.nvmlReturn)
        if code == 0:
            fields[name] = _field_value(value)
        elif code not in fine:
            text = str(asker.pynvml.NVMLError(code))
            gpu.fail(f"nvmlDeviceGetFieldValues {FIELDS[name]}", code, text)
    return fields


def _field_value(value: Any) -> Any:
    """Read the member of the union that the value's type names (nvmlValueType_t).

    5 is signed, which old bindings have no member for.
    """
    kind = value.valueType
    if kind == 5:
        return ctypes.c_int32(value.value.uiVal).value
    members = {0: "dVal", 1: "uiVal", 2: "ulVal", 3: "ullVal", 4: "sllVal", 6: "usVal"}
    return getattr(value.value, members.get(kind, "uiVal"), None)


def _load(asker: _Asker, gpu: Gpu, handle: Any) -> None:
    utilization = asker.ask("nvmlDeviceGetUtilizationRates", handle)
    if utilization is not None:
        gpu.util_gpu, gpu.util_mem = utilization.gpu, utilization.memory
    memory = _memory_info(asker, gpu, handle)
    if memory is not None and memory.total:
        gpu.mem_used, gpu.mem_total = memory.used // _MIB, memory.total // _MIB
    gpu.power_draw = _watts(asker.ask("nvmlDeviceGetPowerUsage", handle))
    gpu.power_limit = _watts(asker.ask("nvmlDeviceGetEnforcedPowerLimit", handle))
    if gpu.power_limit is None:
        gpu.power_limit = _watts(asker.ask("nvmlDeviceGetPowerManagementLimit", handle))
    gpu.energy = asker.ask("nvmlDeviceGetTotalEnergyConsumption", handle)
    pstate = asker.ask("nvmlDeviceGetPerformanceState", handle)
    if pstate in _PSTATES:
        gpu.pstate = pstate
    gpu.clock_sm = asker.ask("nvmlDeviceGetClockInfo", handle, 1)
    gpu.clock_mem = asker.ask("nvmlDeviceGetClockInfo", handle, 2)
    # Renamed in branch 535; the old name is in all drivers, the new one may replace it some day.
    gpu.clock_reasons = asker.ask("nvmlDeviceGetCurrentClocksEventReasons", handle)
    if gpu.clock_reasons is None:
        gpu.clock_reasons = asker.ask("nvmlDeviceGetCurrentClocksThrottleReasons", handle)


def _watts(milliwatts: int | None) -> float | None:
    if milliwatts is None:
        return None
    return round(milliwatts / 1000.0, 2)


def _memory_info(asker: _Asker, gpu: Gpu, handle: Any) -> Any:
    """Version 2 counts like nvidia-smi; version 1 (older drivers) includes the reserved part."""
    version = getattr(asker.pynvml, "nvmlMemory_v2", None)
    if version is not None:
        memory = asker.ask("nvmlDeviceGetMemoryInfo", handle, version)
        if memory is not None or gpu.failed("nvmlDeviceGetMemoryInfo"):
            return memory
    return asker.ask("nvmlDeviceGetMemoryInfo", handle)


def _memory_faults(asker: _Asker, gpu: Gpu, handle: Any) -> None:
    mode = asker.ask("nvmlDeviceGetEccMode", handle)
    totals = {
        f"{scope}_{kind}": asker.ask(
            "nvmlDeviceGetTotalEccErrors",
            handle,
            error,
            counter,
            label=f"nvmlDeviceGetTotalEccErrors {scope} {kind}",
        )
        for scope, counter in (("volatile", _VOLATILE), ("aggregate", _AGGREGATE))
        for kind, error in (("corrected", _CORRECTED), ("uncorrected", _UNCORRECTED))
    }
    gpu.ecc = Ecc(mode=_flag(mode and mode[0]), **totals)
    gpu.sram_threshold = _sram_threshold(asker, handle)
    rows = asker.ask("nvmlDeviceGetRemappedRows", handle)
    if rows is not None:
        gpu.remap = Remap(rows[0], rows[1], pending=bool(rows[2]), failure=bool(rows[3]))
    counts = []
    for cause in (0, 1):
        pages = asker.ask("nvmlDeviceGetRetiredPages", handle, cause)
        counts.append(None if pages is None else len(pages))
    pending = _flag(asker.ask("nvmlDeviceGetRetiredPagesPendingStatus", handle))
    retired = Retired(counts[0], counts[1], pending)
    if retired != Retired():
        gpu.retired = retired


def _sram_threshold(asker: _Asker, handle: Any) -> bool | None:
    kind = getattr(asker.pynvml, "c_nvmlEccSramErrorStatus_v1_t", None)
    version = getattr(asker.pynvml, "nvmlEccSramErrorStatus_v1", None)
    if kind is None or version is None:
        return None
    status = kind()
    status.version = version
    if asker.ask("nvmlDeviceGetSramEccErrorStatus", handle, ctypes.byref(status)) is None:
        return None
    return bool(status.bThresholdExceeded)


def _links(asker: _Asker, gpu: Gpu, handle: Any) -> None:
    gpu.pcie = Pcie(
        gen=asker.ask("nvmlDeviceGetCurrPcieLinkGeneration", handle),
        gen_max=asker.ask("nvmlDeviceGetMaxPcieLinkGeneration", handle),
        width=asker.ask("nvmlDeviceGetCurrPcieLinkWidth", handle),
        width_max=asker.ask("nvmlDeviceGetMaxPcieLinkWidth", handle),
        replays=asker.ask("nvmlDeviceGetPcieReplayCounter", handle),
    )
    states: dict[int, bool] = {}
    # A card without NVLink answers "not supported" at link 0; a number beyond the last link is an
    # invalid argument.
    fine = UNSUPPORTED | {_INVALID_ARGUMENT}
    for link in range(NVLINKS):
        state = asker.ask("nvmlDeviceGetNvLinkState", handle, link, fine=fine)
        if state is not None:
            states[link] = bool(state)
        elif link == 0 or asker.code not in UNSUPPORTED:
            break
    if states:
        down = [link for link, up in states.items() if not up]
        gpu.nvlink = NvLink(len(states), down, _link_errors(asker, handle, list(states)))
    gpu.fabric = _fabric(asker, handle)


def _link_errors(asker: _Asker, handle: Any, links: list[int]) -> list[LinkErrors] | None:
    """Return the error counters of the links, None where the driver has none."""
    fine = UNSUPPORTED | {_INVALID_ARGUMENT}
    if asker.ask("nvmlDeviceGetNvLinkErrorCounter", handle, links[0], 0, fine=fine) is None:
        return _nvlink5_errors(asker, handle, links)
    errors = []
    for link in links:
        replay, recovery, flit, data = (
            asker.ask("nvmlDeviceGetNvLinkErrorCounter", handle, link, counter, fine=fine) or 0
            for counter in range(4)
        )
        errors.append(LinkErrors(link, replay, recovery, flit + data))
    return errors


def _nvlink5_errors(asker: _Asker, handle: Any, links: list[int]) -> list[LinkErrors] | None:
    """Return the counters of NVLink5 (Blackwell), which are fields with the link as scope."""
    wanted = [(field, link) for link in links for field in NVLINK5_FIELDS]
    code, dummy, values = asker.raw("nvmlDeviceGetFieldValues", handle, wanted)
    if code or not values or int(values[0].nvmlReturn):
        return None
    numbers = [0 if int(value.nvmlReturn) else int(_field_value(value) or 0) for value in values]
    return [
        LinkErrors(link, recovery=numbers[2 * at], crc=numbers[2 * at + 1])
        for at, link in enumerate(links)
    ]


def _fabric(asker: _Asker, handle: Any) -> Fabric | None:
    """Return the registration with the NVSwitch fabric, None (state 0) where there is none."""
    older = getattr(asker.pynvml, "c_nvmlGpuFabricInfoV_t", None)
    kind = getattr(asker.pynvml, "c_nvmlGpuFabricInfo_v2_t", older)
    if kind is None:
        return None
    info = kind()
    if asker.ask("nvmlDeviceGetGpuFabricInfoV", handle, ctypes.byref(info)) is None:
        return None
    if info.state:
        return Fabric(int(info.state), int(info.status))
    return None


def _processes(asker: _Asker, handle: Any) -> list[Process] | None:
    memory: dict[int, int | None] = {}
    known = False
    for name in ("nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetGraphicsRunningProcesses"):
        listed = asker.ask(name, handle)
        if listed is None and asker.code in UNSUPPORTED:
            listed = asker.ask(name + "_v2", handle)
        if listed is None:
            continue
        known = True
        for process in listed:
            used = process.usedGpuMemory
            memory[int(process.pid)] = None if used is None else used // _MIB
    if known:
        return [Process(pid, used) for pid, used in sorted(memory.items())]
    return None


def running() -> list[int]:
    """Return the process ids on all GPUs, as one more session.

    :raises MissingLibrary: pynvml can't be imported.
    """
    asker = _Asker(import_pynvml(), None)
    pids: set[int] = set()
    if asker.raw("nvmlInit")[0] == 0:
        for index in range(asker.raw("nvmlDeviceGetCount")[2] or 0):
            handle = asker.raw("nvmlDeviceGetHandleByIndex", index)[2]
            if handle is not None:
                asker.gpu = Gpu(index)
                pids.update(process.pid for process in _processes(asker, handle) or ())
                asker.gpu = None
    return sorted(pids)
