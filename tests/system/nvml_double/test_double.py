# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The simulated GPU, seen through NVIDIA's unmodified Python binding."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

INIT = "n.nvmlInit(); g = n.nvmlDeviceGetHandleByIndex(0)\n"
ONE = {
    "system": {"driver_version": "590.48.01"},
    "gpus": [{"name": "Double", "uuid": "GPU-1", "pci.bus_id": "00000000:18:00.0"}],
}


def one(**keys):
    """A scenario of one GPU; keyword a__b stands for key a.b."""
    return {
        **ONE,
        "gpus": [
            {**ONE["gpus"][0], **{key.replace("__", "."): value for key, value in keys.items()}}
        ],
    }


# Each call that a health check needs, on GPU g. Version words are those of pynvml itself.
CALLS = """
def struct(cls, version):
    value = cls(); value.version = version
    return value

def sram():
    value = struct(n.c_nvmlEccSramErrorStatus_v1_t, n.nvmlEccSramErrorStatus_v1)
    n.nvmlDeviceGetSramEccErrorStatus(g, ctypes.byref(value))
    return value

def sram_unique():
    value = struct(n.c_nvmlEccSramUniqueUncorrectedErrorCounts_v1_t, n.nvmlEccSramUniqueUncorrectedErrorCounts_v1)
    n.nvmlDeviceGetSramUniqueUncorrectedEccErrorCounts(g, ctypes.byref(value))
    return value.entryCount

def fabric(cls, version):
    value = struct(cls, version)
    n.nvmlDeviceGetGpuFabricInfoV(g, ctypes.byref(value))
    return [value.state, value.status, value.cliqueId, value.healthMask, bytes(value.clusterUuid).hex()]

def remapped_v2():
    value = n.c_nvmlRemappedRowsInfo_v2_t()
    n.nvmlDeviceGetRemappedRows_v2(g, ctypes.byref(value))
    return value

def field(number):
    value = n.nvmlDeviceGetFieldValues(g, [number])[0]
    if value.nvmlReturn:
        raise n.NVMLError(value.nvmlReturn)
    return value.value.siVal

CALLS = {
    "nvmlDeviceGetIndex": lambda: n.nvmlDeviceGetIndex(g),
    "nvmlDeviceGetName": lambda: n.nvmlDeviceGetName(g),
    "nvmlDeviceGetUUID": lambda: n.nvmlDeviceGetUUID(g),
    "nvmlDeviceGetSerial": lambda: n.nvmlDeviceGetSerial(g),
    "nvmlDeviceGetBoardPartNumber": lambda: n.nvmlDeviceGetBoardPartNumber(g),
    "nvmlDeviceGetVbiosVersion": lambda: n.nvmlDeviceGetVbiosVersion(g),
    "nvmlDeviceGetMinorNumber": lambda: n.nvmlDeviceGetMinorNumber(g),
    "nvmlDeviceGetPciInfo_v3": lambda: n.nvmlDeviceGetPciInfo_v3(g),
    "nvmlDeviceGetBrand": lambda: n.nvmlDeviceGetBrand(g),
    "nvmlDeviceGetArchitecture": lambda: n.nvmlDeviceGetArchitecture(g),
    "nvmlDeviceGetCudaComputeCapability": lambda: n.nvmlDeviceGetCudaComputeCapability(g),
    "nvmlDeviceGetTemperature": lambda: n.nvmlDeviceGetTemperature(g, 0),
    "nvmlDeviceGetTemperatureV": lambda: n.nvmlDeviceGetTemperatureV(g, 0),
    "nvmlDeviceGetTemperatureThreshold": lambda: n.nvmlDeviceGetTemperatureThreshold(g, 1),
    "nvmlDeviceGetMarginTemperature": lambda: n.nvmlDeviceGetMarginTemperature(g),
    "nvmlDeviceGetFanSpeed": lambda: n.nvmlDeviceGetFanSpeed(g),
    "nvmlDeviceGetFanSpeed_v2": lambda: n.nvmlDeviceGetFanSpeed_v2(g, 0),
    "nvmlDeviceGetNumFans": lambda: n.nvmlDeviceGetNumFans(g),
    "nvmlDeviceGetPowerUsage": lambda: n.nvmlDeviceGetPowerUsage(g),
    "nvmlDeviceGetPowerManagementLimit": lambda: n.nvmlDeviceGetPowerManagementLimit(g),
    "nvmlDeviceGetPowerManagementDefaultLimit": lambda: n.nvmlDeviceGetPowerManagementDefaultLimit(g),
    "nvmlDeviceGetPowerManagementLimitConstraints": lambda: n.nvmlDeviceGetPowerManagementLimitConstraints(g),
    "nvmlDeviceGetEnforcedPowerLimit": lambda: n.nvmlDeviceGetEnforcedPowerLimit(g),
    "nvmlDeviceGetTotalEnergyConsumption": lambda: n.nvmlDeviceGetTotalEnergyConsumption(g),
    "nvmlDeviceGetUtilizationRates": lambda: n.nvmlDeviceGetUtilizationRates(g),
    "nvmlDeviceGetEncoderUtilization": lambda: n.nvmlDeviceGetEncoderUtilization(g)[0],
    "nvmlDeviceGetDecoderUtilization": lambda: n.nvmlDeviceGetDecoderUtilization(g)[0],
    "nvmlDeviceGetMemoryInfo": lambda: n.nvmlDeviceGetMemoryInfo(g),
    "nvmlDeviceGetMemoryInfo_v2": lambda: n.nvmlDeviceGetMemoryInfo(g, n.nvmlMemory_v2),
    "nvmlDeviceGetBAR1MemoryInfo": lambda: n.nvmlDeviceGetBAR1MemoryInfo(g),
    "nvmlDeviceGetClockInfo": lambda: n.nvmlDeviceGetClockInfo(g, 0),
    "nvmlDeviceGetMaxClockInfo": lambda: n.nvmlDeviceGetMaxClockInfo(g, 2),
    "nvmlDeviceGetApplicationsClock": lambda: n.nvmlDeviceGetApplicationsClock(g, 0),
    "nvmlDeviceGetCurrentClocksEventReasons": lambda: n.nvmlDeviceGetCurrentClocksEventReasons(g),
    "nvmlDeviceGetCurrentClocksThrottleReasons": lambda: n.nvmlDeviceGetCurrentClocksThrottleReasons(g),
    "nvmlDeviceGetSupportedClocksEventReasons": lambda: n.nvmlDeviceGetSupportedClocksEventReasons(g),
    "nvmlDeviceGetPerformanceState": lambda: n.nvmlDeviceGetPerformanceState(g),
    "nvmlDeviceGetPersistenceMode": lambda: n.nvmlDeviceGetPersistenceMode(g),
    "nvmlDeviceGetDisplayMode": lambda: n.nvmlDeviceGetDisplayMode(g),
    "nvmlDeviceGetDisplayActive": lambda: n.nvmlDeviceGetDisplayActive(g),
    "nvmlDeviceGetComputeMode": lambda: n.nvmlDeviceGetComputeMode(g),
    "nvmlDeviceGetEccMode": lambda: n.nvmlDeviceGetEccMode(g),
    "nvmlDeviceGetTotalEccErrors": lambda: n.nvmlDeviceGetTotalEccErrors(g, 1, 0),
    "nvmlDeviceGetDetailedEccErrors": lambda: n.nvmlDeviceGetDetailedEccErrors(g, 1, 1),
    "nvmlDeviceGetMemoryErrorCounter": lambda: n.nvmlDeviceGetMemoryErrorCounter(g, 1, 0, 7),
    "nvmlDeviceGetSramEccErrorStatus": sram,
    "nvmlDeviceGetSramUniqueUncorrectedEccErrorCounts": sram_unique,
    "nvmlDeviceGetRemappedRows": lambda: n.nvmlDeviceGetRemappedRows(g),
    "nvmlDeviceGetRemappedRows_v2": remapped_v2,
    "nvmlDeviceGetRowRemapperHistogram": lambda: n.nvmlDeviceGetRowRemapperHistogram(g),
    "nvmlDeviceGetRetiredPages": lambda: n.nvmlDeviceGetRetiredPages(g, 1),
    "nvmlDeviceGetRetiredPages_v2": lambda: n.nvmlDeviceGetRetiredPages_v2(g, 1),
    "nvmlDeviceGetRetiredPagesPendingStatus": lambda: n.nvmlDeviceGetRetiredPagesPendingStatus(g),
    "nvmlDeviceGetRepairStatus": lambda: n.nvmlDeviceGetRepairStatus(g),
    "nvmlDeviceGetNvLinkState": lambda: n.nvmlDeviceGetNvLinkState(g, 0),
    "nvmlDeviceGetNvLinkVersion": lambda: n.nvmlDeviceGetNvLinkVersion(g, 0),
    "nvmlDeviceGetNvLinkCapability": lambda: n.nvmlDeviceGetNvLinkCapability(g, 0, 0),
    "nvmlDeviceGetNvLinkErrorCounter": lambda: n.nvmlDeviceGetNvLinkErrorCounter(g, 0, 0),
    "nvmlDeviceGetNvLinkRemotePciInfo_v2": lambda: n.nvmlDeviceGetNvLinkRemotePciInfo(g, 0),
    "nvmlDeviceGetNvLinkRemoteDeviceType": lambda: n.nvmlDeviceGetNvLinkRemoteDeviceType(g, 0),
    "nvmlDeviceGetCurrPcieLinkGeneration": lambda: n.nvmlDeviceGetCurrPcieLinkGeneration(g),
    "nvmlDeviceGetMaxPcieLinkGeneration": lambda: n.nvmlDeviceGetMaxPcieLinkGeneration(g),
    "nvmlDeviceGetGpuMaxPcieLinkGeneration": lambda: n.nvmlDeviceGetGpuMaxPcieLinkGeneration(g),
    "nvmlDeviceGetCurrPcieLinkWidth": lambda: n.nvmlDeviceGetCurrPcieLinkWidth(g),
    "nvmlDeviceGetMaxPcieLinkWidth": lambda: n.nvmlDeviceGetMaxPcieLinkWidth(g),
    "nvmlDeviceGetPcieReplayCounter": lambda: n.nvmlDeviceGetPcieReplayCounter(g),
    "nvmlDeviceGetPcieThroughput": lambda: n.nvmlDeviceGetPcieThroughput(g, 1),
    "nvmlDeviceGetFieldValues": lambda: field(230),
    "nvmlDeviceGetMigMode": lambda: n.nvmlDeviceGetMigMode(g),
    "nvmlDeviceGetMaxMigDeviceCount": lambda: n.nvmlDeviceGetMaxMigDeviceCount(g),
    "nvmlDeviceIsMigDeviceHandle": lambda: n.nvmlDeviceIsMigDeviceHandle(g),
    "nvmlDeviceGetMigDeviceHandleByIndex": lambda: n.nvmlDeviceGetMigDeviceHandleByIndex(g, 0),
    "nvmlDeviceGetComputeRunningProcesses_v2": lambda: n.nvmlDeviceGetComputeRunningProcesses_v2(g),
    "nvmlDeviceGetComputeRunningProcesses_v3": lambda: n.nvmlDeviceGetComputeRunningProcesses_v3(g),
    "nvmlDeviceGetGraphicsRunningProcesses_v3": lambda: n.nvmlDeviceGetGraphicsRunningProcesses_v3(g),
    "nvmlDeviceGetMPSComputeRunningProcesses_v3": lambda: n.nvmlDeviceGetMPSComputeRunningProcesses_v3(g),
    "nvmlDeviceGetRunningProcessDetailList": lambda: n.nvmlDeviceGetRunningProcessDetailList(g, n.nvmlProcessDetailList_v1, 0),
    "nvmlDeviceGetProcessUtilization": lambda: n.nvmlDeviceGetProcessUtilization(g, 0),
    "nvmlDeviceGetGpuFabricInfoV": lambda: fabric(n.c_nvmlGpuFabricInfo_v3_t, n.nvmlGpuFabricInfo_v3),
    "nvmlDeviceGetInforomImageVersion": lambda: n.nvmlDeviceGetInforomImageVersion(g),
    "nvmlDeviceGetInforomVersion": lambda: n.nvmlDeviceGetInforomVersion(g, 1),
    "nvmlDeviceGetInforomConfigurationChecksum": lambda: n.nvmlDeviceGetInforomConfigurationChecksum(g),
    "nvmlDeviceValidateInforom": lambda: n.nvmlDeviceValidateInforom(g),
    "nvmlDeviceGetGspFirmwareVersion": lambda: n.nvmlDeviceGetGspFirmwareVersion(g),
    "nvmlDeviceGetGspFirmwareMode": lambda: n.nvmlDeviceGetGspFirmwareMode(g),
    "nvmlDeviceGetDriverModel_v2": lambda: n.nvmlDeviceGetDriverModel_v2(g),
    "nvmlDeviceGetConfComputeMemSizeInfo": lambda: n.nvmlDeviceGetConfComputeMemSizeInfo(g),
    "nvmlDeviceGetViolationStatus": lambda: n.nvmlDeviceGetViolationStatus(g, 1).violationTime,
    "nvmlDeviceGetSupportedEventTypes": lambda: n.nvmlDeviceGetSupportedEventTypes(g),
}
SYSTEM_CALLS = {
    "nvmlSystemGetDriverVersion": n.nvmlSystemGetDriverVersion,
    "nvmlSystemGetDriverBranch": lambda: n.nvmlSystemGetDriverBranch().branch,
    "nvmlSystemGetNVMLVersion": n.nvmlSystemGetNVMLVersion,
    "nvmlSystemGetCudaDriverVersion": n.nvmlSystemGetCudaDriverVersion,
    "nvmlSystemGetCudaDriverVersion_v2": n.nvmlSystemGetCudaDriverVersion_v2,
    "nvmlSystemGetProcessName": lambda: n.nvmlSystemGetProcessName(4242),
    "nvmlDeviceGetCount_v2": n.nvmlDeviceGetCount,
    "nvmlDeviceGetHandleByIndex_v2": lambda: bool(n.nvmlDeviceGetHandleByIndex(0)),
    "nvmlDeviceGetHandleByUUID": lambda: bool(n.nvmlDeviceGetHandleByUUID(UUID)),
    "nvmlDeviceGetHandleBySerial": lambda: bool(n.nvmlDeviceGetHandleBySerial(b"1")),
    "nvmlDeviceGetHandleByPciBusId_v2": lambda: bool(n.nvmlDeviceGetHandleByPciBusId(b"0000:18:00.0")),
    "nvmlEventSetCreate": lambda: bool(n.nvmlEventSetCreate()),
}
UUID = b"GPU-4f2a9c10-0000-4d3e-9b1a-012345678900"
"""

ALL_CODES = [*range(1, 31), 999]


# ---- values
# ------------------------------------------------------------------------------------------------------------


def test_every_call_gives_the_value_of_the_scenario(run):
    values = run(
        "h100x8",
        CALLS + INIT + "say({name: ask(call) for name, call in {**SYSTEM_CALLS, **CALLS}.items()})",
    )
    assert values["nvmlDeviceGetName"] == "NVIDIA H100 80GB HBM3"
    assert values["nvmlDeviceGetCount_v2"] == 8
    assert values["nvmlSystemGetDriverVersion"] == "590.48.01"
    assert values["nvmlSystemGetDriverBranch"] == "r590_00"
    assert values["nvmlSystemGetNVMLVersion"] == "13.590.48.01"
    assert (
        values["nvmlSystemGetCudaDriverVersion"]
        == values["nvmlSystemGetCudaDriverVersion_v2"]
        == 13010
    )
    assert values["nvmlSystemGetProcessName"] == "!6"
    assert (
        values["nvmlDeviceGetHandleByUUID"]
        is values["nvmlDeviceGetHandleByPciBusId_v2"]
        is values["nvmlEventSetCreate"]
        is True
    )
    assert values["nvmlDeviceGetTemperature"] == values["nvmlDeviceGetTemperatureV"] == 41
    assert values["nvmlDeviceGetMarginTemperature"] == 46
    assert values["nvmlDeviceGetTemperatureThreshold"] == "!3"
    assert values["nvmlDeviceGetFanSpeed"] == "!3"
    assert values["nvmlDeviceGetPowerUsage"] == 118000
    assert values["nvmlDeviceGetPowerManagementLimitConstraints"] == [200000, 700000]
    assert values["nvmlDeviceGetEnforcedPowerLimit"] == 700000
    assert values["nvmlDeviceGetMemoryInfo_v2"] == {
        "version": 0x2000028,
        "total": 81559 << 20,
        "reserved": 551 << 20,
        "free": (81559 - 551 - 4) << 20,
        "used": 4 << 20,
    }
    assert values["nvmlDeviceGetMemoryInfo"]["used"] == (551 + 4) << 20
    assert values["nvmlDeviceGetBAR1MemoryInfo"] == {
        "bar1Total": 128 << 30,
        "bar1Free": (128 << 30) - (1 << 20),
        "bar1Used": 1 << 20,
    }
    assert values["nvmlDeviceGetPciInfo_v3"] == {
        "busIdLegacy": "0000:18:00.0",
        "domain": 0,
        "bus": 0x18,
        "device": 0,
        "pciDeviceId": 0x233010DE,
        "pciSubSystemId": 0x16C110DE,
        "busId": "00000000:18:00.0",
    }
    assert values["nvmlDeviceGetCudaComputeCapability"] == [9, 0]
    assert values["nvmlDeviceGetMaxClockInfo"] == 2619
    assert (
        values["nvmlDeviceGetCurrentClocksEventReasons"]
        == values["nvmlDeviceGetCurrentClocksThrottleReasons"]
        == 1
    )
    assert values["nvmlDeviceGetEccMode"] == [1, 1]
    assert values["nvmlDeviceGetRemappedRows"] == [0, 0, 0, 0]
    assert values["nvmlDeviceGetRowRemapperHistogram"] == {
        "max": 2560,
        "high": 0,
        "partial": 0,
        "low": 0,
        "none": 0,
    }
    assert values["nvmlDeviceGetNvLinkState"] == values["nvmlDeviceGetNvLinkCapability"] == 1
    assert values["nvmlDeviceGetNvLinkRemotePciInfo_v2"] == "!3"
    assert values["nvmlDeviceGetCurrPcieLinkWidth"] == 16
    assert values["nvmlDeviceGetFieldValues"] == 0
    assert values["nvmlDeviceGetMigMode"] == [0, 0]
    assert values["nvmlDeviceIsMigDeviceHandle"] == 0
    assert values["nvmlDeviceGetMigDeviceHandleByIndex"] == "!6"
    assert values["nvmlDeviceGetComputeRunningProcesses_v3"] == []
    assert values["nvmlDeviceGetProcessUtilization"] == "!6"
    assert values["nvmlDeviceGetGpuFabricInfoV"] == [3, 0, 0, 0, "00" * 16]
    assert values["nvmlDeviceGetInforomVersion"] == "7.16"
    assert values["nvmlDeviceValidateInforom"] is None
    assert values["nvmlDeviceGetGspFirmwareVersion"] == "590.48.01"
    assert values["nvmlDeviceGetDriverModel_v2"] == "!3"


def test_a_key_that_is_not_there_is_not_supported(run):
    values = run(one(), CALLS + INIT + "say({name: ask(call) for name, call in CALLS.items()})")
    given = {
        "nvmlDeviceGetIndex",
        "nvmlDeviceGetName",
        "nvmlDeviceGetUUID",
        "nvmlDeviceGetPciInfo_v3",
        "nvmlDeviceIsMigDeviceHandle",
    }
    assert {name for name, value in values.items() if value != "!3"} == given


def test_the_faults_of_the_faulty_gpu_arrive(run):
    values = run(
        "faulty",
        CALLS + INIT + "g = n.nvmlDeviceGetHandleByIndex(1)\nsay({name: ask(call) for name, call in"
        " CALLS.items()})",
    )
    assert values["nvmlDeviceGetTotalEccErrors"] == 3
    assert values["nvmlDeviceGetMemoryErrorCounter"] == 1
    assert values["nvmlDeviceGetDetailedEccErrors"]["deviceMemory"] == 4
    assert values["nvmlDeviceGetRemappedRows"] == [0, 1, 1, 0]
    assert values["nvmlDeviceGetTemperature"] == 92
    assert values["nvmlDeviceGetMarginTemperature"] == -4


def test_lists_of_all_kinds(run):
    scenario = one(
        retired__dbe="0x1000:1700000000, 8192",
        sram__unique="1:2:3:4:5:1:9, 6:0:0:0:0:0:2",
        fabric__state=2,
        fabric__status=27,
        fabric__cluster="00112233-4455-6677-8899-aabbccddeeff",
        fabric__health_mask="0x41",
        remap__corrected=1,
        remap__inactive_corrected=2,
        remap__uncorrected=3,
        remap__inactive_uncorrected=4,
        remap__pending=1,
        remap__failure=0,
        sram__threshold_exceeded=1,
        sram__bucket__sm=12,
        sram__volatile__secded=5,
    )
    code = """
counts = struct(n.c_nvmlEccSramUniqueUncorrectedErrorCounts_v1_t, n.nvmlEccSramUniqueUncorrectedErrorCounts_v1)
first = ask(n.nvmlDeviceGetSramUniqueUncorrectedEccErrorCounts, g, ctypes.byref(counts))
entries = (n.c_nvmlEccSramUniqueUncorrectedErrorEntry_v1_t * counts.entryCount)()
counts.entries = ctypes.cast(entries, type(counts.entries))
n.nvmlDeviceGetSramUniqueUncorrectedEccErrorCounts(g, ctypes.byref(counts))
old = n.c_nvmlGpuFabricInfo_t()
n.nvmlDeviceGetGpuFabricInfo(g, ctypes.byref(old))
say([CALLS["nvmlDeviceGetRetiredPages"](), CALLS["nvmlDeviceGetRetiredPages_v2"](), first, list(entries),
     fabric(n.c_nvmlGpuFabricInfo_v2_t, n.nvmlGpuFabricInfo_v2), [old.state, old.status], remapped_v2(), sram()])
"""
    pages, dated, first, entries, fabric, old, remapped, sram = run(scenario, CALLS + INIT + code)
    assert pages == [4096, 8192]
    assert dated == [{"address": 4096, "timestamp": 1700000000}, {"address": 8192, "timestamp": 0}]
    assert first == "!7"
    assert [list(entry.values()) for entry in entries] == [
        [1, 2, 3, 4, 5, 1, 9],
        [6, 0, 0, 0, 0, 0, 2],
    ]
    assert fabric == [2, 27, 0, 0x41, "00112233445566778899aabbccddeeff"]
    assert old == [2, 27]
    assert list(remapped.values()) == [1, 2, 3, 4, 1, 0]
    assert (
        sram["bThresholdExceeded"],
        sram["aggregateUncBucketSm"],
        sram["volatileUncSecDed"],
        sram["aggregateCor"],
    ) == (1, 12, 5, 0)


def test_processes_in_the_first_form_of_the_call(run):
    """As nvidia-ml-py 11.450 asks: records of 16 bytes."""
    code = """
class Record(ctypes.Structure):
    _fields_ = [("pid", ctypes.c_uint), ("used", ctypes.c_ulonglong)]
old, count, records = n._nvmlGetFunctionPointer("nvmlDeviceGetComputeRunningProcesses"), ctypes.c_uint(0), (Record * 3)()
say([old(g, ctypes.byref(count), None), count.value, old(g, ctypes.byref(count), records), [[r.pid, r.used] for r in records]])
"""
    assert run(one(procs__compute="4242:536870912, 17:na"), INIT + code) == [
        7,
        2,
        0,
        [[4242, 536870912], [17, 2**64 - 1], [0, 0]],
    ]


def test_processes(run):
    scenario = one(
        procs__compute="4242:536870912, 17:na 99:1M:3:1",
        procs__graphics="",
        procs__mps="7:3K",
        procs__utilization="4242:90:40:1:2",
    )
    scenario["system"] = {"process.4242": "/usr/bin/python3 train.py"}
    code = """
say([n.nvmlDeviceGetComputeRunningProcesses(g), n.nvmlDeviceGetGraphicsRunningProcesses(g), n.nvmlDeviceGetMPSComputeRunningProcesses(g),
     n.nvmlSystemGetProcessName(4242), n.nvmlDeviceGetProcessUtilization(g, 0),
     n.nvmlDeviceGetRunningProcessDetailList(g, n.nvmlProcessDetailList_v1, 2)])
"""
    compute, graphics, mps, name, utilization, details = run(scenario, INIT + code)
    nothing = 2**32 - 1
    assert [
        [p["pid"], p["usedGpuMemory"], p["gpuInstanceId"], p["computeInstanceId"]] for p in compute
    ] == [
        [4242, 536870912, nothing, nothing],
        [17, None, nothing, nothing],
        [99, 1 << 20, 3, 1],
    ]
    assert graphics == []
    assert [(p["pid"], p["usedGpuMemory"]) for p in mps] == [(7, 3072)]
    assert name == "/usr/bin/python3 train.py"
    assert [
        (s["pid"], s["smUtil"], s["memUtil"], s["encUtil"], s["decUtil"]) for s in utilization
    ] == [(4242, 90, 40, 1, 2)]
    assert [(d["pid"], d["usedGpuMemory"]) for d in details] == [(7, 3072)]


def test_field_values_keep_type_sign_scope_and_their_own_error(run):
    scenario = one(
        field__194="-2:s32",
        field__83="5000000000",
        field__218="1.5:f64",
        field__230="!TIMEOUT",
        remap__pending=1,
    )
    scenario["gpus"][0].update(
        {"energy": "12", "field.83": "5000000000:u64", "field.165": "1:u32", "field.165.3": "0:u32"}
    )
    code = """
f = n.nvmlDeviceGetFieldValues(g, [194, 83, 218, 230, 144, (165, 2), (165, 3), 82])
say([[f[i].nvmlReturn, f[i].valueType] for i in range(8)] + [f[0].value.siVal, f[1].value.ullVal, f[2].value.dVal, f[4].value.uiVal,
     f[5].value.uiVal, f[6].value.uiVal, f[0].value.uiVal])
"""
    got = run(scenario, INIT + code)
    assert got[:8] == [[0, 5], [0, 3], [0, 0], [10, 0], [0, 1], [0, 1], [0, 1], [3, 0]]
    assert got[8:] == [-2, 5000000000, 1.5, 1, 1, 0, 4294967294]


# ---- errors
# ------------------------------------------------------------------------------------------------------------


def test_every_error_code_can_be_put_into_every_call(harness, run):
    names = run(None, CALLS + "say([list(CALLS), list(SYSTEM_CALLS)])")
    system = {name: ";".join(f"!{code}" for code in ALL_CODES) for name in names[1]}
    # The one look-up of the handle before the test proper uses a step of its own.
    system["nvmlDeviceGetHandleByIndex_v2"] = "ok;" + system["nvmlDeviceGetHandleByIndex_v2"]
    gpu = {name: ";".join(f"!{code}" for code in ALL_CODES) for name in names[0]}
    scenario = {"base": "h100x8", "system": system, "gpu": gpu}
    code = (
        f"say({{name: [ask(call) for _ in range({len(ALL_CODES)})] for name, call in {{**CALLS,"
        " **SYSTEM_CALLS}.items()})"
    )
    got = run(scenario, CALLS + INIT + code)
    expected = [f"!{code}" for code in ALL_CODES]
    # On INSUFFICIENT_SIZE pynvml asks again with a buffer, and gets the next step.
    asks_again = [code for code in expected if code != "!7"] + ["!999"]
    different = {name for name, codes in got.items() if codes != expected}
    assert {name for name in different if got[name] != asks_again} == set()
    assert all("Process" in name or "RetiredPages" in name for name in different)
    assert len(got) > 95


def test_every_error_code_of_init_and_its_text(run):
    scenario = {"system": {"init": ";".join(f"!{code}" for code in ALL_CODES)}}
    # init re-reads the file, so each code needs a fresh one: write it from inside.
    code = f"""
texts = []
for code in {ALL_CODES!r}:
    open(os.environ["NVML_DOUBLE_SCENARIO"], "w").write("[system]\\ninit = !%d\\n" % code)
    texts.append([ask(n.nvmlInit), n.nvmlErrorString(code)])
say(texts)
"""
    got = run(scenario, code)
    assert [pair[0] for pair in got] == [f"!{code}" for code in ALL_CODES]
    texts = dict(zip(ALL_CODES, (pair[1] for pair in got)))
    assert (texts[9], texts[15], texts[999]) == (
        "Driver Not Loaded",
        "GPU is lost",
        "Unknown Error",
    )
    assert len(set(texts.values())) == len(ALL_CODES)


def test_error_names_are_those_of_pynvml(run, harness):
    names = run(None, "say({k[11:]: v for k, v in vars(n).items() if k.startswith('NVML_ERROR_')})")
    steps = ";".join(f"!{name}" for name in names)
    got = run(
        one(name=steps), INIT + f"say([ask(n.nvmlDeviceGetName, g) for _ in range({len(names)})])"
    )
    assert got == [f"!{code}" for code in names.values()]


def test_lost_gpu_fails_everywhere_and_spares_its_neighbour(run):
    code = """
n.nvmlInit()
g = n.nvmlDeviceGetHandleByIndex(0)
say([n.nvmlDeviceGetCount(), ask(n.nvmlDeviceGetHandleByIndex, 1), n.nvmlDeviceGetTemperature(g, 0),
     ask(n.nvmlDeviceGetHandleByUUID, b"GPU-4f2a9c10-0001-4d3e-9b1a-012345678901"), ask(n.nvmlDeviceGetHandleByPciBusId, b"00000000:2A:00.0")])
"""
    assert run("lost", code) == [2, "!15", 41, "!15", "!15"]


def test_a_gpu_lost_midway_answers_first(run):
    code = (
        "n.nvmlInit(); g = n.nvmlDeviceGetHandleByIndex(1)\nsay([ask(n.nvmlDeviceGetTemperature, g,"
        " 0) for _ in range(25)])"
    )
    got = run("lost_midway", code)
    assert got == [41] * 19 + ["!15"] * 6


@pytest.mark.parametrize(
    ("scenario", "error"),
    [
        ("no_driver", "!9"),
        ("version_mismatch", "!18"),
        (None, "!9"),
        ({"system": {"init": "!999"}}, "!999"),
    ],
)
def test_init_fails(run, scenario, error):
    assert run(scenario, "say(ask(n.nvmlInit))") == error


def test_a_scenario_file_that_is_gone_is_no_driver_and_says_so(run, harness):
    assert run(None, "say(ask(n.nvmlInit))", NVML_DOUBLE_SCENARIO="/nonexistent/x.ini") == "!9"
    assert "/nonexistent/x.ini: No such file" in run.stderr


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("temp.gpuu = 1", "unknown key"),
        ("ecc.volatile.uncorected = 1", "unknown key"),
        ("nvmlDeviceGetTemprature = !TIMEOUT", "unknown key"),
        ("nvmlSystemGetDriverVersion = !TIMEOUT", "unknown key"),
        ("temp.gpu = !GPU_LOST", "unknown error name"),
        ("temp.gpu = @x 4", "bad delay"),
        ("temp.gpu", "neither a section"),
        ("[gpu 64]", "GPU number too high"),
        ("[gpus]", "neither a section"),
        ("name = " + "x" * 5000, "line too long"),
    ],
)
def test_a_mistake_in_the_scenario_is_not_a_healthy_gpu(run, tmp_path, line, complaint):
    path = tmp_path / "wrong.ini"
    path.write_text(f"[system]\ncount = 1\n[gpu 0]\nname = x\n{line}\n")
    assert run(path, "say(ask(n.nvmlInit))") == "!999"
    assert f"{path}:5: " in run.stderr
    assert complaint in run.stderr


def test_a_value_that_is_no_number_is_an_error_and_said(run):
    assert run(
        one(temp__gpu="warm", pstate="9999999999999999999G"),
        INIT
        + "say([ask(n.nvmlDeviceGetTemperature, g, 0), ask(n.nvmlDeviceGetPerformanceState, g)])",
    ) == [
        "!999",
        "!999",
    ]
    assert "'warm' is not a number" in run.stderr


# ---- behaviour of the library
# ------------------------------------------------------------------------------------------


def test_nothing_works_before_init_or_after_the_last_shutdown(run):
    code = """
n._LoadNvmlLibrary() if hasattr(n, "_LoadNvmlLibrary") else None
g = n.c_nvmlDevice_t()
before = {name: ask(call) for name, call in {**CALLS, **SYSTEM_CALLS}.items() if name != "nvmlDeviceGetRunningProcessDetailList"}
lone_shutdown = ask(n.nvmlShutdown)
n.nvmlInit(); n.nvmlInit(); n.nvmlShutdown()
between = ask(n.nvmlDeviceGetCount)
n.nvmlShutdown()
say([before, lone_shutdown, between, ask(n.nvmlDeviceGetCount)])
"""
    before, lone_shutdown, between, after = run("h100x8", CALLS + code)
    assert before.pop("nvmlSystemGetNVMLVersion") == "13.590.48.01"
    assert set(before.values()) == {"!1"}
    assert (lone_shutdown, between, after) == (None, 8, "!1")


def test_arguments_are_checked_after_init_and_version_words_too(run):
    code = """
lib = ctypes.CDLL("libnvidia-ml.so.1")
before = lib.nvmlDeviceGetTemperature(None, 0, None)
n.nvmlInit()
g = n.nvmlDeviceGetHandleByIndex(0)
u = ctypes.c_uint()
small = ctypes.create_string_buffer(4)
wrong = struct(n.c_nvmlMemory_v2_t, 0x1000028)
say([before, lib.nvmlDeviceGetTemperature(g, 0, None), lib.nvmlDeviceGetTemperature(None, 0, ctypes.byref(u)),
     lib.nvmlDeviceGetTemperature(ctypes.c_void_p(4096), 0, ctypes.byref(u)), lib.nvmlDeviceGetTemperature(g, 7, ctypes.byref(u)),
     lib.nvmlDeviceGetName(g, small, 4), lib.nvmlDeviceGetMemoryInfo_v2(g, ctypes.byref(wrong)), ask(n.nvmlDeviceGetHandleByIndex, 8),
     ask(n.nvmlDeviceGetHandleByUUID, b"GPU-none"), ask(n.nvmlDeviceGetHandleByPciBusId, b"rubbish"), ask(n.nvmlDeviceGetHandleByPciBusId, b"FF:00.0"),
     ask(fabric, n.c_nvmlGpuFabricInfo_v3_t, 0x4000028), ask(n.nvmlDeviceGetNvLinkState, g, 18), ask(n.nvmlDeviceGetTotalEccErrors, g, 2, 0)])
"""
    assert run("h100x8", CALLS + code) == [
        1,
        2,
        2,
        2,
        2,
        7,
        25,
        "!2",
        "!6",
        "!2",
        "!6",
        "!25",
        "!2",
        "!2",
    ]


def test_every_version_word_is_checked(run):
    code = """
lib = ctypes.CDLL("libnvidia-ml.so.1")
calls = {
    "nvmlDeviceGetMemoryInfo_v2": (n.c_nvmlMemory_v2_t, n.nvmlMemory_v2),
    "nvmlDeviceGetTemperatureV": (n.c_nvmlTemperature_v1_t, n.nvmlTemperature_v1),
    "nvmlDeviceGetMarginTemperature": (n.c_nvmlMarginTemperature_v1_t, n.nvmlMarginTemperature_v1),
    "nvmlDeviceGetSramEccErrorStatus": (n.c_nvmlEccSramErrorStatus_v1_t, n.nvmlEccSramErrorStatus_v1),
    "nvmlDeviceGetSramUniqueUncorrectedEccErrorCounts": (n.c_nvmlEccSramUniqueUncorrectedErrorCounts_v1_t, n.nvmlEccSramUniqueUncorrectedErrorCounts_v1),
    "nvmlDeviceGetRepairStatus": (n.c_nvmlRepairStatus_t, n.nvmlRepairStatus_v1),
    "nvmlDeviceGetGpuFabricInfoV": (n.c_nvmlGpuFabricInfo_v3_t, n.nvmlGpuFabricInfo_v3),
    "nvmlDeviceGetRunningProcessDetailList": (n.c_nvmlProcessDetailList_t, n.nvmlProcessDetailList_v1),
}
codes = {}
for name, (cls, right) in calls.items():
    codes[name] = []
    for word in (right, right + 1, right ^ (0x10 << 24), 0):
        value = struct(cls, word)
        codes[name].append(getattr(lib, name)(g, ctypes.byref(value)))
say(codes)
"""
    got = run("h100x8", CALLS + INIT + code)
    assert got == {name: [0, 25, 25, 25] for name in got}
    assert len(got) == 8


def test_steps_advance_once_per_read_and_the_last_stays(run):
    got = run(
        one(temp__gpu="70;75;!GPU_IS_LOST;80", procs__compute="1:5;;!TIMEOUT"),
        INIT
        + "say([[ask(n.nvmlDeviceGetTemperature, g, 0) for _ in range(5)], "
        + "[p if isinstance(p, str) else len(p) for p in"
        " [ask(n.nvmlDeviceGetComputeRunningProcesses, g) for _ in range(4)]]])",
    )
    assert got == [[70, 75, "!15", 80, 80], [1, 0, "!10", "!10"]]


def test_defaults_step_for_each_gpu_alone_and_count_makes_gpus(run):
    scenario = {
        "system": {"count": "3;2"},
        "gpu": {"temp.gpu": "40;50"},
        "gpus": {1: {"temp.gpu": "60"}},
    }
    code = """
n.nvmlInit()
handles = [n.nvmlDeviceGetHandleByIndex(i) for i in range(3)]
say([n.nvmlDeviceGetCount(), n.nvmlDeviceGetCount(), [n.nvmlDeviceGetTemperature(h, 0) for h in handles + handles], [n.nvmlDeviceGetIndex(h) for h in handles]])
"""
    assert run(scenario, code) == [3, 2, [40, 60, 40, 50, 60, 50], [0, 1, 2]]


def test_the_scenario_is_read_again_at_each_first_init_only(run, harness):
    code = """
path = os.environ["NVML_DOUBLE_SCENARIO"]
def rewrite(temperature):
    open(path, "w").write("[gpu 0]\\ntemp.gpu = %d\\n" % temperature)
def read():
    return n.nvmlDeviceGetTemperature(n.nvmlDeviceGetHandleByIndex(0), 0)
n.nvmlInit(); got = [read()]
rewrite(51); n.nvmlInit(); got.append(read())
n.nvmlShutdown(); n.nvmlShutdown(); n.nvmlInit(); got.append(read())
say(got)
"""
    assert run(one(temp__gpu=50), code) == [50, 50, 51]


def test_a_hang_is_not_interrupted_by_a_signal(run):
    code = """
late = []
signal.signal(signal.SIGALRM, lambda *_: late.append(time.monotonic()))
start = time.monotonic()
signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
value = n.nvmlDeviceGetTemperature(g, 0)
signal.setitimer(signal.ITIMER_REAL, 0)
took = time.monotonic() - start
watched = []
watchdog = threading.Timer(0.2, lambda: watched.append(time.monotonic()))
watchdog.start()
again = time.monotonic()
n.nvmlDeviceGetTemperature(g, 0)
say([value, took, late[0] - start, watched[0] - again])
"""
    value, took, handled, watched = run(one(temp__gpu="@1.2 41"), INIT + code)
    assert value == 41
    assert 1.2 <= took < 3
    assert handled >= 1.15  # Python's handler ran only after the call
    assert watched < 1.0  # while a thread gets its turn


def test_a_delay_on_a_list_or_a_name_is_served_once(run):
    start = time.monotonic()
    code = """
def took(call):
    start = time.monotonic(); call()
    return time.monotonic() - start
say([took(lambda: n.nvmlDeviceGetComputeRunningProcesses(g)), took(lambda: ask(n.nvmlDeviceGetSerial, g)), took(lambda: n.nvmlDeviceGetIndex(g))])
"""
    listed, named, free = run(
        one(procs__compute="@0.4 7:1", nvmlDeviceGetSerial="@0.4 !TIMEOUT"), INIT + code
    )
    assert 0.4 <= listed < 0.75
    assert 0.4 <= named < 0.75
    assert free < 0.3
    assert time.monotonic() - start < 20


def test_a_thread_stuck_in_a_call_survives_shutdown_and_reload(run):
    code = """
result = []
stuck = threading.Thread(target=lambda: result.append(ask(n.nvmlDeviceGetTemperature, g, 0)))
stuck.start(); time.sleep(0.1)
for _ in range(50):
    n.nvmlShutdown(); n.nvmlInit()
free = n.nvmlDeviceGetName(g)
stuck.join()
say([result, free])
"""
    assert run(one(temp__gpu="@0.6 41"), INIT + code) == [[41], "Double"]


@pytest.mark.parametrize(
    ("profile", "present", "missing"),
    [
        (
            470,
            "nvmlDeviceGetCurrentClocksThrottleReasons nvmlDeviceGetMemoryInfo",
            "nvmlDeviceGetMemoryInfo_v2 nvmlDeviceGetComputeRunningProcesses_v3",
        ),
        (
            525,
            "nvmlDeviceGetMemoryInfo_v2 nvmlDeviceGetComputeRunningProcesses_v3",
            "nvmlDeviceGetCurrentClocksEventReasons nvmlDeviceGetSramEccErrorStatus",
        ),
        (
            535,
            "nvmlDeviceGetCurrentClocksEventReasons nvmlDeviceGetSramEccErrorStatus",
            "nvmlDeviceGetMarginTemperature nvmlDeviceGetTemperatureV",
        ),
        (
            570,
            "nvmlDeviceGetMarginTemperature nvmlDeviceGetTemperatureV",
            "nvmlDeviceGetRepairStatus nvmlDeviceGetSramUniqueUncorrectedEccErrorCounts",
        ),
        (
            590,
            "nvmlDeviceGetRepairStatus nvmlDeviceGetSramUniqueUncorrectedEccErrorCounts",
            "nvmlDeviceGetRemappedRows_v2",
        ),
    ],
)
def test_driver_profiles(run, profile, present, missing):
    scenario = {"base": "h100x8", "system": {"driver_profile": profile, "driver_version": None}}
    got = run(
        scenario,
        CALLS + INIT + "say({name: ask(call) for name, call in {**SYSTEM_CALLS, **CALLS}.items()})",
    )
    assert got["nvmlSystemGetDriverVersion"].startswith(f"{profile}.")
    for name in present.split():
        assert got[name] != "!13", name
    for name in missing.split():
        assert got[name] == "!13", name
    assert got["nvmlDeviceGetFieldValues"] == (0 if profile >= 570 else "!2")


def test_absent_symbols_raise_the_class_of_a_missing_symbol(run):
    scenario = one(temp__gpu=40)
    scenario["system"] = {"absent": "nvmlDeviceGetName, nvmlDeviceGetTemperatureV"}
    code = (
        INIT + "say([ask(n.nvmlDeviceGetName, g), ask(n.nvmlDeviceGetTemperatureV, g, 0),"
        " ask(n.nvmlDeviceGetTemperature, g, 0)])"
    )
    assert run(scenario, code) == ["!13", "!13", 40]
    scenario["system"] = {"absent": "nvmlDeviceGetNaem"}
    assert run(scenario, "say(ask(n.nvmlInit))") == "!999"


def test_events_time_out(run):
    code = """
events = n.nvmlEventSetCreate()
supported = n.nvmlDeviceGetSupportedEventTypes(g)
n.nvmlDeviceRegisterEvents(g, n.nvmlEventTypeXidCriticalError, events)
start = time.monotonic()
waited = ask(n.nvmlEventSetWait, events, 300)
took = time.monotonic() - start
n.nvmlEventSetFree(events)
say([supported & 8, waited, took, ask(n.nvmlDeviceRegisterEvents, g, 1 << 40, events)])
"""
    supported, waited, took, unsupported = run("h100x8", INIT + code)
    assert (supported, waited, unsupported) == (8, "!10", "!3")
    assert 0.3 <= took < 2


# ---- the shipped scenarios, the harness, the compiler
# ------------------------------------------------------------------


def test_all_shipped_scenarios_load(harness, run):
    for path in sorted(harness.SCENARIOS.glob("*.ini")):
        if path.stem == "hang_init":
            continue
        code = "code = ask(n.nvmlInit)\nsay([code, ask(n.nvmlDeviceGetCount)])"
        code, count = run(path, code)
        assert code == {"no_driver": "!9", "version_mismatch": "!18"}.get(path.stem), path
        assert code or count >= 1
        assert not run.stderr


def test_harness_adds_two_variables_and_knows_the_scenarios(harness):
    env = harness.environment("h100x8", base={"PATH": "/usr/bin:/bin"})
    assert set(env) == {"PATH", "LD_LIBRARY_PATH", "NVML_DOUBLE_SCENARIO"}
    with pytest.raises(FileNotFoundError, match="h100x8"):
        harness.scenario_path("no-such-profile")


def test_clean_under_sanitizers(harness, prelude, tmp_path):
    """The whole poll, errors, reloads and odd numbers with AddressSanitizer and UBSan watching."""
    found = subprocess.run(
        [harness.compiler(), "-print-file-name=libasan.so"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    if "/" not in found:
        pytest.skip("the compiler has no AddressSanitizer")
    library = harness.build(
        tmp_path / "asan" / "libnvidia-ml.so.1",
        cflags="-g -O1 -fsanitize=address,undefined -fno-sanitize-recover=all",
    )
    scenario = harness.write_scenario(
        tmp_path / "s.ini",
        base="faulty",
        gpu={
            "retired.dbe": "0xffffffffffffffff:1 2",
            "retired.sbe": "",
            "field.194": "-2:s32;-9223372036854775808:s64",
            "field.82": "7:what",
        },
        gpus={
            0: {
                "temp.gpu": "1;2;99999999999999999999",
                "procs.compute": ",".join(f"{i}:1" for i in range(256)),
                "procs.graphics": ",".join(f"{i}:1" for i in range(257)),
                "sram.unique": "1:2",
                "fabric.cluster": "zz-1",
            }
        },
    )
    env = harness.environment(scenario, library=library)
    env.update(
        LD_PRELOAD=found,
        ASAN_OPTIONS="detect_leaks=0",
        UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1",
        PYTHONMALLOC="malloc",
    )

    code = """
for round in range(3):
    n.nvmlInit()
    for index in range(2):
        g = n.nvmlDeviceGetHandleByIndex(index)
        for _ in range(4):
            for call in {**CALLS, **SYSTEM_CALLS}.values():
                ask(call)
            n.nvmlDeviceGetFieldValues(g, list(range(308)))
    n.nvmlShutdown()
print("through")
"""
    done = subprocess.run(
        [sys.executable, "-c", prelude + CALLS + code],
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "ERROR: AddressSanitizer" not in done.stderr
    assert "runtime error" not in done.stderr
    assert done.stdout.strip() == "through", done.stderr[-2000:]
