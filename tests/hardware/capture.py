# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read a machine's GPUs through NVML and write what they say as a scenario of the NVML double.

Serial numbers and UUIDs are replaced. A call that the driver does not support leaves its key out;
any other error is written as the error, so that the double repeats it. Keys:
tests/nvml_double/README.md.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from typing import Any

import pynvml

#: NVML: not supported, function not found, argument version mismatch, deprecated.
_LEFT_OUT = {3, 13, 25, 26}
_CLOCKS = {"graphics": 0, "sm": 1, "memory": 2, "video": 3}
_THRESHOLDS = {
    "shutdown": 0,
    "slowdown": 1,
    "mem_max": 2,
    "gpu_max": 3,
    "acoustic_min": 4,
    "acoustic_curr": 5,
    "acoustic_max": 6,
}
_LOCATIONS = {
    "l1_cache": 0,
    "l2_cache": 1,
    "dram": 2,
    "register_file": 3,
    "texture_memory": 4,
    "texture_shm": 5,
    "cbu": 6,
    "sram": 7,
}
_COUNTERS = {"volatile": 0, "aggregate": 1}
_ERRORS = {"corrected": 0, "uncorrected": 1}
#: Fields that the collection reads or that describe temperatures, power, NVLink and recovery.
_FIELDS = (82, 83, 91, 94, 186, 187, 188, 189, 193, 194, 195, 196, 230)
_TYPES = {0: "f64", 1: "u32", 2: "ul", 3: "u64", 4: "s64", 5: "s32", 6: "u16"}
_MEMBERS = {0: "dVal", 1: "uiVal", 2: "ulVal", 3: "ullVal", 4: "sllVal", 6: "usVal"}


def _text(value: Any) -> str:
    return value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)


def _plain(name: str, convert: Callable[[Any], Any] = lambda value: value, *more: Any) -> Any:
    return lambda handle: convert(getattr(pynvml, name)(handle, *more))


def _calls() -> Iterator[tuple[str, Callable[[Any], Any]]]:
    """Yield a key of the scenario and the call that gives its value."""
    yield "name", _plain("nvmlDeviceGetName", _text)
    yield "brand", _plain("nvmlDeviceGetBrand")
    yield "architecture", _plain("nvmlDeviceGetArchitecture")
    yield (
        "compute_capability",
        _plain("nvmlDeviceGetCudaComputeCapability", lambda pair: ".".join(map(str, pair))),
    )
    yield "board_part", _plain("nvmlDeviceGetBoardPartNumber", _text)
    yield "vbios", _plain("nvmlDeviceGetVbiosVersion", _text)
    yield "bus_width", _plain("nvmlDeviceGetMemoryBusWidth")
    yield "cores", _plain("nvmlDeviceGetNumGpuCores")
    yield "minor", _plain("nvmlDeviceGetMinorNumber")
    yield "pci.bus_id", _plain("nvmlDeviceGetPciInfo", lambda pci: _text(pci.busId))
    yield "pci.device_id", _plain("nvmlDeviceGetPciInfo", lambda pci: hex(pci.pciDeviceId))
    yield "pci.subsystem_id", _plain("nvmlDeviceGetPciInfo", lambda pci: hex(pci.pciSubSystemId))
    yield "temp.gpu", _plain("nvmlDeviceGetTemperature", int, 0)
    yield "temp.margin", _plain("nvmlDeviceGetMarginTemperature")
    for name, number in _THRESHOLDS.items():
        yield f"temp.threshold.{name}", _plain("nvmlDeviceGetTemperatureThreshold", int, number)
    yield "fan", _plain("nvmlDeviceGetFanSpeed")
    yield "power.usage", _plain("nvmlDeviceGetPowerUsage")
    yield "power.limit", _plain("nvmlDeviceGetPowerManagementLimit")
    yield "power.enforced_limit", _plain("nvmlDeviceGetEnforcedPowerLimit")
    yield "power.default_limit", _plain("nvmlDeviceGetPowerManagementDefaultLimit")
    limits = "nvmlDeviceGetPowerManagementLimitConstraints"
    yield "power.min_limit", _plain(limits, lambda pair: pair[0])
    yield "power.max_limit", _plain(limits, lambda pair: pair[1])
    yield "power.management", _plain("nvmlDeviceGetPowerManagementMode")
    yield "energy", _plain("nvmlDeviceGetTotalEnergyConsumption")
    yield "util.gpu", _plain("nvmlDeviceGetUtilizationRates", lambda rates: rates.gpu)
    yield "util.memory", _plain("nvmlDeviceGetUtilizationRates", lambda rates: rates.memory)
    memory = _plain("nvmlDeviceGetMemoryInfo", lambda info: info, pynvml.nvmlMemory_v2)
    yield "memory.total", lambda handle: memory(handle).total
    yield "memory.reserved", lambda handle: memory(handle).reserved
    yield "memory.used", lambda handle: memory(handle).used
    yield "bar1.total", _plain("nvmlDeviceGetBAR1MemoryInfo", lambda info: info.bar1Total)
    yield "bar1.used", _plain("nvmlDeviceGetBAR1MemoryInfo", lambda info: info.bar1Used)
    for name, number in _CLOCKS.items():
        yield f"clock.{name}", _plain("nvmlDeviceGetClockInfo", int, number)
        yield f"clock.max.{name}", _plain("nvmlDeviceGetMaxClockInfo", int, number)
    yield "clocks.reasons", _plain("nvmlDeviceGetCurrentClocksEventReasons", hex)
    yield "clocks.supported_reasons", _plain("nvmlDeviceGetSupportedClocksEventReasons", hex)
    yield "pstate", _plain("nvmlDeviceGetPerformanceState")
    yield "persistence", _plain("nvmlDeviceGetPersistenceMode")
    yield "display.mode", _plain("nvmlDeviceGetDisplayMode")
    yield "display.active", _plain("nvmlDeviceGetDisplayActive")
    yield "compute_mode", _plain("nvmlDeviceGetComputeMode")
    yield "ecc.mode", _plain("nvmlDeviceGetEccMode", lambda pair: pair[0])
    yield "ecc.pending", _plain("nvmlDeviceGetEccMode", lambda pair: pair[1])
    for counter, scope in _COUNTERS.items():
        for error, kind in _ERRORS.items():
            yield f"ecc.{counter}.{error}", _plain("nvmlDeviceGetTotalEccErrors", int, kind, scope)
            for location, place in _LOCATIONS.items():
                call = _plain("nvmlDeviceGetMemoryErrorCounter", int, kind, scope, place)
                yield f"ecc.{counter}.{error}.{location}", call
    yield "sram.threshold_exceeded", _sram_threshold
    rows = "nvmlDeviceGetRemappedRows"
    for place, name in enumerate(("corrected", "uncorrected", "pending", "failure")):
        yield f"remap.{name}", _plain(rows, lambda values, place=place: int(values[place]))
    yield "remap.histogram", _plain("nvmlDeviceGetRowRemapperHistogram", _histogram)
    yield "retired.pending", _plain("nvmlDeviceGetRetiredPagesPendingStatus", int)
    yield "nvlink.links", _links
    yield "pcie.gen", _plain("nvmlDeviceGetCurrPcieLinkGeneration")
    yield "pcie.gen_max", _plain("nvmlDeviceGetMaxPcieLinkGeneration")
    yield "pcie.width", _plain("nvmlDeviceGetCurrPcieLinkWidth")
    yield "pcie.width_max", _plain("nvmlDeviceGetMaxPcieLinkWidth")
    yield "pcie.replay", _plain("nvmlDeviceGetPcieReplayCounter")
    yield "mig.mode", _plain("nvmlDeviceGetMigMode", lambda pair: pair[0])
    yield "mig.pending", _plain("nvmlDeviceGetMigMode", lambda pair: pair[1])
    yield "procs.compute", _plain("nvmlDeviceGetComputeRunningProcesses", _processes)
    yield "procs.graphics", _plain("nvmlDeviceGetGraphicsRunningProcesses", _processes)
    yield "inforom.image", _plain("nvmlDeviceGetInforomImageVersion", _text)
    yield "gsp.version", _plain("nvmlDeviceGetGspFirmwareVersion", _text)
    yield "gsp.mode", _plain("nvmlDeviceGetGspFirmwareMode", lambda pair: pair[0])
    yield from _fabric()


def _sram_threshold(handle: Any) -> int:
    status = pynvml.c_nvmlEccSramErrorStatus_v1_t()
    status.version = pynvml.nvmlEccSramErrorStatus_v1
    pynvml.nvmlDeviceGetSramEccErrorStatus(handle, ctypes.byref(status))
    return int(status.bThresholdExceeded)


def _histogram(values: Any) -> str:
    return f"{values.max} {values.high} {values.partial} {values.low} {values.none}"


def _links(handle: Any) -> int:
    links = 0
    for link in range(18):
        try:
            pynvml.nvmlDeviceGetNvLinkState(handle, link)
        except pynvml.NVMLError as error:
            if link == 0:
                raise
            if error.value in _LEFT_OUT:
                continue
            break
        links = link + 1
    return links


def _processes(listed: Any) -> str:
    return ", ".join(
        f"{process.pid}:{'na' if process.usedGpuMemory is None else process.usedGpuMemory}"
        for process in listed
    )


def _fabric() -> Iterator[tuple[str, Callable[[Any], Any]]]:
    def member(name: str) -> Callable[[Any], Any]:
        def read(handle: Any) -> int:
            info = pynvml.c_nvmlGpuFabricInfo_v2_t()
            pynvml.nvmlDeviceGetGpuFabricInfoV(handle, ctypes.byref(info))
            return int(getattr(info, name))

        return read

    yield "fabric.state", member("state")
    yield "fabric.status", member("status")
    yield "fabric.health_mask", member("healthMask")


def _value(call: Callable[[Any], Any], handle: Any) -> str | None:
    """Return a value of the scenario, None where the key is left out."""
    try:
        return str(call(handle))
    except pynvml.NVMLError as error:
        return None if error.value in _LEFT_OUT else f"!{error.value}"
    except AttributeError:  # this version of nvidia-ml-py does not have the call
        return None


def _fields(handle: Any) -> Iterator[str]:
    for value in pynvml.nvmlDeviceGetFieldValues(handle, list(_FIELDS)):
        if value.nvmlReturn == 0 and value.valueType in _TYPES:
            number = (
                ctypes.c_int32(value.value.uiVal).value
                if value.valueType == 5
                else getattr(value.value, _MEMBERS[value.valueType])
            )
            yield f"field.{value.fieldId} = {number}:{_TYPES[value.valueType]}"


def scenario(title: str) -> str:
    """Return the scenario of this machine's GPUs.

    :raises pynvml.NVMLError: the driver can't be asked at all.
    """
    pynvml.nvmlInit()
    lines = [
        "# Copyright (c) 2026, mlops.fleet contributors",
        (
            "# GNU General Public License v3.0+ (see LICENSE or"
            " https://www.gnu.org/licenses/gpl-3.0.txt)"
        ),
        "# SPDX-License-Identifier: GPL-3.0-or-later",
        f"# {title}",
        "",
        "[system]",
        f"driver_version = {_text(pynvml.nvmlSystemGetDriverVersion())}",
        f"nvml_version = {_text(pynvml.nvmlSystemGetNVMLVersion())}",
        f"cuda_version = {pynvml.nvmlSystemGetCudaDriverVersion_v2()}",
    ]
    for index in range(pynvml.nvmlDeviceGetCount()):
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        lines += [
            "",
            f"[gpu {index}]",
            f"uuid = GPU-00000000-0000-4000-8000-{index:012d}",
            f"serial = {1000000000000 + index}",
        ]
        for key, call in _calls():
            value = _value(call, handle)
            if value is not None:
                lines.append(f"{key} = {value}")
        links = _value(_links, handle)
        for link in range(int(links) if links and links.isdigit() else 0):
            state = _value(_plain("nvmlDeviceGetNvLinkState", int, link), handle)
            if state is not None:
                lines.append(f"nvlink.{link}.state = {state}")
        lines += _fields(handle)
    pynvml.nvmlShutdown()
    return "\n".join(lines) + "\n"
