# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""NVML through pynvml (package nvidia-ml-py): one session that asks everything once.

Runs in a forked child, because a wedged driver leaves the caller in a system call that no signal ends. NVML is not shut down at
the end: that is one more call that can hang, and the child's exit does it anyway.

Every question is optional. Newer ones are missing in older drivers (function not found) and older pynvml releases (no attribute);
both mean "not supported". Numbers below are NVML's enumerations (nvml.h); they never change, unlike pynvml's names for them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from ..errors import MissingLibrary
from . import reading as r

#: Field ids for nvmlDeviceGetFieldValues: memory temperature; T.Limit distances to shutdown, slowdown, memory and GPU maximum;
#: recovery action.
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
_CORRECTED, _UNCORRECTED = 0, 1
_VOLATILE, _AGGREGATE = 0, 1
_MIB = 1 << 20


def library_loads() -> bool:
    """Say whether NVIDIA's driver library is on this machine. Runs library code: call it in a child."""
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
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


class _Asker:
    """Asks NVML and keeps the faults of the GPU at hand."""

    def __init__(self, pynvml: Any, journal: r.Journal | None) -> None:
        self.pynvml = pynvml
        self.journal = journal
        self.gpu: dict[str, Any] | None = None
        self.code = 0  # of the latest question

    def raw(self, name: str, *args: Any) -> tuple[int, str, Any]:
        """Return (code, words, value) of a call; code 13 for a function this pynvml does not have."""
        function: Callable[..., Any] | None = getattr(self.pynvml, name, None)
        if function is None:
            return 13, "Function Not Found", None
        if self.journal is not None:
            self.journal.asking(name if self.gpu is None else f"{name} on GPU {self.gpu['id']}")
        try:
            return 0, "", _text(function(*args))
        except self.pynvml.NVMLError as error:
            return int(error.value), str(error), None
        except getattr(
            self.pynvml, "NVMLLibraryMismatchError", ()
        ):  # asked for by its plain name, this driver has an older form only
            return 13, "Function Not Found", None
        except Exception as error:  # noqa: BLE001  # a binding that does not fit the driver must not end the round
            return r.UNREADABLE, f"{type(error).__name__}: {error}", None

    def ask(
        self, name: str, *args: Any, fine: frozenset[int] = r.UNSUPPORTED, label: str = ""
    ) -> Any:
        """Return the value, or None; what is neither an answer nor in C(fine) is noted as a fault of the GPU at hand."""
        if self.gone():
            return None
        code, words, value = self.raw(name, *args)
        self.code = code
        if code and code not in fine and self.gpu is not None:
            self.gpu["faults"].append((label or name, code, words))
        return value

    def gone(self) -> bool:
        return self.gpu is not None and any(
            code in r.GONE for _name, code, _words in self.gpu["faults"]
        )


def session(journal: r.Journal | None = None) -> r.Reading:
    """Ask everything.

    :raises MissingLibrary: pynvml can't be imported. Everything the driver says, errors included, is in the result.
    """
    pynvml = import_pynvml()
    asker = _Asker(pynvml, journal)
    found = r.Reading(backend="nvml")
    found.code, found.text, _none = asker.raw("nvmlInit")
    if found.code:
        return found
    found.driver_version = asker.raw("nvmlSystemGetDriverVersion")[2]
    found.nvml_version = asker.raw("nvmlSystemGetNVMLVersion")[2]
    cuda = asker.raw("nvmlSystemGetCudaDriverVersion")[2]
    found.cuda_version = f"{cuda // 1000}.{cuda % 1000 // 10}" if isinstance(cuda, int) else None
    found.code, found.text, found.count = asker.raw("nvmlDeviceGetCount")
    for index in range(found.count or 0):
        if journal is not None:
            journal.keep(found)
        found.gpus.append(_gpu(asker, index))
    return found


def _gpu(asker: _Asker, index: int) -> dict[str, Any]:
    gpu = asker.gpu = r.blank(index)
    try:
        handle = asker.ask("nvmlDeviceGetHandleByIndex", index, fine=frozenset())
        if handle is not None:
            _identity(asker, gpu, handle)
            _temperatures(asker, gpu, handle)
            _load(asker, gpu, handle)
            _memory_faults(asker, gpu, handle)
            _links(asker, gpu, handle)
            _processes(asker, gpu, handle)
    finally:
        asker.gpu = None
    return gpu


def _identity(asker: _Asker, gpu: dict[str, Any], handle: Any) -> None:
    gpu["name"] = asker.ask("nvmlDeviceGetName", handle)
    gpu["uuid"] = asker.ask("nvmlDeviceGetUUID", handle)
    gpu["serial"] = asker.ask("nvmlDeviceGetSerial", handle)
    gpu["vbios"] = asker.ask("nvmlDeviceGetVbiosVersion", handle)
    pci = asker.ask("nvmlDeviceGetPciInfo", handle)
    gpu["bus_id"] = None if pci is None else _text(pci.busId)
    persistence = asker.ask("nvmlDeviceGetPersistenceMode", handle)
    gpu["persistence"] = None if persistence is None else bool(persistence)
    mig = asker.ask("nvmlDeviceGetMigMode", handle)
    gpu["mig"] = None if mig is None else bool(mig[0])
    asker.ask("nvmlDeviceValidateInforom", handle)


def _temperatures(asker: _Asker, gpu: dict[str, Any], handle: Any) -> None:
    gpu["temp"] = asker.ask("nvmlDeviceGetTemperature", handle, 0)
    if gpu["temp"] is None and asker.code in r.UNSUPPORTED:  # NVIDIA calls it deprecated
        gpu["temp"] = asker.ask("nvmlDeviceGetTemperatureV", handle, 0)
    gpu["margin"] = asker.ask("nvmlDeviceGetMarginTemperature", handle)
    fields = _fields(asker, handle)
    # Cards without a memory sensor answer 0.
    gpu["temp_memory"] = fields.pop("memory_temp") or None
    gpu["recovery"] = fields.pop("recovery")
    gpu["t_limits"] = fields
    # A threshold of 0 stands for "not known".
    thresholds = {
        name: asker.ask("nvmlDeviceGetTemperatureThreshold", handle, kind) or None
        for name, kind in THRESHOLDS.items()
    }
    gpu["thresholds"] = thresholds
    gpu["fan"] = asker.ask("nvmlDeviceGetFanSpeed", handle)


def _fields(asker: _Asker, handle: Any) -> dict[str, Any]:
    """Ask all fields in one call. Each has a return code of its own; a single bad one must not hide the others."""
    found: dict[str, Any] = dict.fromkeys(FIELDS)
    values = asker.ask("nvmlDeviceGetFieldValues", handle, list(FIELDS.values()))
    if values is None or asker.gpu is None:
        return found
    # A field this driver does not know is "invalid argument" (2) or "not found" on older branches.
    fine = r.UNSUPPORTED | {2, r.NOT_FOUND}
    for name, value in zip(FIELDS, values):
        if value.nvmlReturn == 0:
            found[name] = _field_value(value)
        elif value.nvmlReturn not in fine:
            asker.gpu["faults"].append(
                (
                    f"nvmlDeviceGetFieldValues {FIELDS[name]}",
                    int(value.nvmlReturn),
                    _words(asker.pynvml, value.nvmlReturn),
                )
            )
    return found


def _words(pynvml: Any, code: int) -> str:
    return str(pynvml.NVMLError(code))


def _field_value(value: Any) -> Any:
    """Read the member of the union that the value's type names (nvmlValueType_t); 5 is signed, which old bindings have no member for."""
    kind = value.valueType
    if kind == 5:
        return ctypes.c_int32(value.value.uiVal).value
    member = {0: "dVal", 1: "uiVal", 2: "ulVal", 3: "ullVal", 4: "sllVal", 6: "usVal"}.get(
        kind, "uiVal"
    )
    return getattr(value.value, member, None)


def _load(asker: _Asker, gpu: dict[str, Any], handle: Any) -> None:
    utilization = asker.ask("nvmlDeviceGetUtilizationRates", handle)
    if utilization is not None:
        gpu["util_gpu"], gpu["util_mem"] = utilization.gpu, utilization.memory
    memory = _memory_info(asker, handle)
    if memory is not None and memory.total:
        gpu["mem_used"], gpu["mem_total"] = memory.used // _MIB, memory.total // _MIB
    powers = (
        ("power_draw", "nvmlDeviceGetPowerUsage"),
        ("power_limit", "nvmlDeviceGetEnforcedPowerLimit"),
        ("power_limit", "nvmlDeviceGetPowerManagementLimit"),
    )
    for key, name in powers:
        milliwatts = asker.ask(name, handle) if gpu[key] is None else None
        gpu[key] = gpu[key] if milliwatts is None else round(milliwatts / 1000.0, 2)
    pstate = asker.ask("nvmlDeviceGetPerformanceState", handle)
    gpu["pstate"] = (
        pstate if isinstance(pstate, int) and 0 <= pstate <= 15 else None
    )  # 32 is "unknown"
    gpu["clock_sm"] = asker.ask("nvmlDeviceGetClockInfo", handle, 1)
    gpu["clock_mem"] = asker.ask("nvmlDeviceGetClockInfo", handle, 2)
    # Renamed in branch 535; the old name is in all drivers, the new one may go without it some day.
    for name in (
        "nvmlDeviceGetCurrentClocksEventReasons",
        "nvmlDeviceGetCurrentClocksThrottleReasons",
    ):
        if gpu["clock_reasons"] is None:
            gpu["clock_reasons"] = asker.ask(name, handle)


def _memory_info(asker: _Asker, handle: Any) -> Any:
    """Version 2 counts like nvidia-smi; version 1 (older drivers) counts what the driver reserves as used."""
    word = getattr(asker.pynvml, "nvmlMemory_v2", None)
    found = None if word is None else asker.ask("nvmlDeviceGetMemoryInfo", handle, word)
    if found is None and not any(
        name == "nvmlDeviceGetMemoryInfo"
        for name, _code, _words_ in (asker.gpu or {}).get("faults", ())
    ):
        found = asker.ask("nvmlDeviceGetMemoryInfo", handle)
    return found


def _memory_faults(asker: _Asker, gpu: dict[str, Any], handle: Any) -> None:
    mode = asker.ask("nvmlDeviceGetEccMode", handle)
    ecc = gpu["ecc"]
    ecc["mode"] = None if mode is None else bool(mode[0])
    for scope, counter in (("volatile", _VOLATILE), ("aggregate", _AGGREGATE)):
        for kind, error in (("corrected", _CORRECTED), ("uncorrected", _UNCORRECTED)):
            ecc[f"{scope}_{kind}"] = asker.ask(
                "nvmlDeviceGetTotalEccErrors",
                handle,
                error,
                counter,
                label=f"nvmlDeviceGetTotalEccErrors {scope} {kind}",
            )
    gpu["sram_threshold"] = _sram_threshold(asker, handle)
    rows = asker.ask("nvmlDeviceGetRemappedRows", handle)
    if rows is not None:
        gpu["remap"] = {
            "corrected": rows[0],
            "uncorrected": rows[1],
            "pending": bool(rows[2]),
            "failure": bool(rows[3]),
        }
    retired: dict[str, Any] = {}
    for kind, cause in (("single_bit", 0), ("double_bit", 1)):
        pages = asker.ask("nvmlDeviceGetRetiredPages", handle, cause)
        retired[kind] = None if pages is None else len(pages)
    pending = asker.ask("nvmlDeviceGetRetiredPagesPendingStatus", handle)
    retired["pending"] = None if pending is None else bool(pending)
    if any(value is not None for value in retired.values()):
        gpu["retired"] = retired


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


def _links(asker: _Asker, gpu: dict[str, Any], handle: Any) -> None:
    gpu["pcie"] = {
        "gen": asker.ask("nvmlDeviceGetCurrPcieLinkGeneration", handle),
        "gen_max": asker.ask("nvmlDeviceGetMaxPcieLinkGeneration", handle),
        "width": asker.ask("nvmlDeviceGetCurrPcieLinkWidth", handle),
        "width_max": asker.ask("nvmlDeviceGetMaxPcieLinkWidth", handle),
        "replays": asker.ask("nvmlDeviceGetPcieReplayCounter", handle),
    }
    states: dict[int, bool] = {}
    for link in range(NVLINKS):
        # A card without NVLink says "not supported" at link 0; a number beyond the last link is an invalid argument.
        state = asker.ask("nvmlDeviceGetNvLinkState", handle, link, fine=r.UNSUPPORTED | {2})
        if state is not None:
            states[link] = bool(state)
        elif link == 0 or asker.code not in r.UNSUPPORTED:
            break
    if states:
        gpu["nvlink"] = {
            "links": len(states),
            "down": [link for link, up in states.items() if not up],
        }
    gpu["fabric"] = _fabric(asker, handle)


def _fabric(asker: _Asker, handle: Any) -> dict[str, Any] | None:
    """Registration with the NVSwitch fabric: state 0 not supported, 1 not started, 2 in progress, 3 completed; status is an NVML code."""
    kind = getattr(
        asker.pynvml,
        "c_nvmlGpuFabricInfo_v2_t",
        getattr(asker.pynvml, "c_nvmlGpuFabricInfoV_t", None),
    )
    if kind is None:
        return None
    info = kind()
    if (
        asker.ask("nvmlDeviceGetGpuFabricInfoV", handle, ctypes.byref(info)) is None
        or info.state == 0
    ):
        return None
    return {"state": int(info.state), "status": int(info.status)}


def _processes(asker: _Asker, gpu: dict[str, Any], handle: Any) -> None:
    found: dict[int, int | None] = {}
    known = False
    for name in ("nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetGraphicsRunningProcesses"):
        listed = asker.ask(name, handle)
        if listed is None and asker.code in r.UNSUPPORTED:
            listed = asker.ask(name + "_v2", handle)
        if listed is None:
            continue
        known = True
        for process in listed:
            used = process.usedGpuMemory
            found[int(process.pid)] = None if used is None else used // _MIB
    if known:
        gpu["processes"] = [{"pid": pid, "mem_used": used} for pid, used in sorted(found.items())]


def running() -> list[int]:
    """Return the process ids on all GPUs, as one more session.

    :raises MissingLibrary: pynvml can't be imported.
    """
    pynvml = import_pynvml()
    asker = _Asker(pynvml, None)
    found: set[int] = set()
    if asker.raw("nvmlInit")[0] == 0:
        for index in range(asker.raw("nvmlDeviceGetCount")[2] or 0):
            handle = asker.raw("nvmlDeviceGetHandleByIndex", index)[2]
            gpu = r.blank(index)
            if handle is not None:
                _processes(asker, gpu, handle)
            found.update(process["pid"] for process in gpu["processes"] or ())
    return sorted(found)
