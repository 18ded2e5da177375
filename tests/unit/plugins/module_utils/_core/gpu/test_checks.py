# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The checks of one GPU, called directly: each limit on both sides."""

from __future__ import annotations

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.gpu import (
    checks,
    links,
    reading,
    temperature,
    xid,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.gpu.options import GpuOptions
from ansible_collections.mlops.fleet.plugins.module_utils._core.gpu.reading import (
    Ecc,
    Fabric,
    Fault,
    Gpu,
    Limits,
    NvLink,
    Pcie,
    Process,
    Remap,
    Retired,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.registry import Registry

BUS = "00000000:41:00.0"


def case(options=None, others=(), events=(), log=True, driver="590.1", orphans=frozenset(), **gpu):
    values = {"name": "NVIDIA L40S", "bus_id": BUS, **gpu}
    subject = Gpu(0, **values)
    return checks.Case(
        GpuOptions.from_mapping(options or {}),
        subject,
        [subject, *others],
        events,
        log,
        driver,
        orphans,
        temperature.FIXED_TEMPERATURES,
    )


def finding(check, **given):
    """Return (status, action) of a check, None without a finding."""
    result = checks.CHECKS[check].evaluate(case(**given))
    return result and (result.status, result.action)


def remap(corrected=0, uncorrected=0, pending=False, failure=False):
    return Remap(corrected, uncorrected, pending, failure)


@pytest.mark.parametrize(
    ("check", "gpu", "expected"),
    [
        ("gpu_remapped_rows", {}, None),
        ("gpu_remapped_rows", {"remap": remap(uncorrected=511)}, ("pass", "none")),
        ("gpu_remapped_rows", {"remap": remap(uncorrected=512)}, ("warning", "inspect")),
        ("gpu_remapped_rows", {"remap": remap(pending=True)}, ("critical", "reset_gpu")),
        ("gpu_remapped_rows", {"remap": remap(pending=True, failure=True)}, ("critical", "inspect")),
        ("gpu_retired_pages", {}, None),
        ("gpu_retired_pages", {"retired": Retired(31, 31, False)}, ("pass", "none")),
        ("gpu_retired_pages", {"retired": Retired(31, 32, False)}, ("critical", "inspect")),
        ("gpu_retired_pages", {"retired": Retired(63, None, None)}, ("critical", "inspect")),
        ("gpu_retired_pages", {"retired": Retired(0, 0, True)}, ("critical", "reset_gpu")),
        ("gpu_ecc", {}, None),
        ("gpu_ecc", {"ecc": Ecc(volatile_uncorrected=0)}, ("pass", "none")),
        ("gpu_ecc", {"ecc": Ecc(volatile_uncorrected=1)}, ("critical", "reset_gpu")),
        ("gpu_ecc", {"sram_threshold": True}, ("critical", "inspect")),
        ("gpu_ecc", {"sram_threshold": False}, None),
        ("gpu_memory_temperature", {"temp_memory": 95, "thresholds": Limits(mem_max=95)}, ("pass", "none")),
        ("gpu_memory_temperature", {"temp_memory": 96, "thresholds": Limits(mem_max=95)}, ("warning", "inspect")),
        ("gpu_memory_temperature", {"temp_memory": 96}, None),
        ("gpu_memory_temperature", {"thresholds": Limits(mem_max=95)}, None),
        ("gpu_throttling", {}, None),
        ("gpu_throttling", {"clock_reasons": 0x0}, ("pass", "none")),
        ("gpu_throttling", {"clock_reasons": 0x37}, ("pass", "none")),
        ("gpu_throttling", {"clock_reasons": 0xC8}, ("critical", "inspect")),
        ("gpu_throttling", {"clock_reasons": 0x88}, ("warning", "inspect")),
        ("gpu_throttling", {"clock_reasons": 0x8}, ("warning", "inspect")),
        ("gpu_fabric", {}, None),
        ("gpu_fabric", {"fabric": Fabric(1, 0)}, ("warning", "inspect")),
        ("gpu_fabric", {"fabric": Fabric(2, 0)}, ("warning", "inspect")),
        ("gpu_fabric", {"fabric": Fabric(3, 0)}, ("pass", "none")),
        ("gpu_fabric", {"fabric": Fabric(3, 1)}, ("critical", "inspect")),
        ("gpu_pcie", {}, None),
        ("gpu_pcie", {"pcie": Pcie(width=16)}, None),
        ("gpu_pcie", {"pcie": Pcie(width=16, width_max=16)}, ("pass", "none")),
        ("gpu_pcie", {"pcie": Pcie(width=8, width_max=16)}, ("warning", "inspect")),
        ("gpu_pcie", {"pcie": Pcie(4, 4, 16, 16), "util_gpu": 99}, ("pass", "none")),
        ("gpu_pcie", {"pcie": Pcie(3, 4, 16, 16), "util_gpu": 99}, ("warning", "inspect")),
        ("gpu_pcie", {"pcie": Pcie(3, 4, 16, 16), "util_gpu": 0}, ("pass", "none")),
        ("gpu_pcie", {"pcie": Pcie(3, 4), "util_gpu": 99}, ("warning", "inspect")),
        ("gpu_persistence", {"persistence": False}, None),
        ("gpu_persistence", {"ecc": Ecc(mode=False)}, None),
        ("gpu_persistence", {"persistence": False, "ecc": Ecc(mode=False)}, ("warning", "none")),
        ("gpu_persistence", {"persistence": True, "ecc": Ecc(mode=True)}, ("pass", "none")),
        ("gpu_nvlink", {}, None),
        ("gpu_nvlink", {"nvlink": NvLink(4, [])}, ("pass", "none")),
        ("gpu_nvlink", {"nvlink": NvLink(4, [3])}, ("critical", "inspect")),
        ("gpu_nvlink", {"nvlink": NvLink(2, [0, 1])}, None),
        ("gpu_processes", {}, None),
        ("gpu_processes", {"processes": []}, None),
        ("gpu_processes", {"processes": [Process(7, 5)]}, ("pass", "none")),
        ("gpu_processes", {"processes": [Process(7, 5)], "orphans": {7}}, ("warning", "reset_gpu")),
        ("gpu_processes", {"processes": [Process(7, None)], "orphans": {7}}, ("warning", "reset_gpu")),
        ("gpu_processes", {"processes": [Process(7, 5)], "orphans": None}, None),
        ("gpu_inforom", {}, None),
        ("gpu_inforom", {"faults": [Fault("x", 14, "")]}, ("warning", "inspect")),
        ("gpu_inforom", {"faults": [Fault("x", 14, ""), Fault("y", 15, "")]}, None),
        ("gpu_xid", {}, ("pass", "none")),
        ("gpu_xid", {"log": False}, None),
        ("gpu_xid", {"bus_id": None}, None),
    ],
)  # fmt: skip
def test_limits(check, gpu, expected):
    assert finding(check, **gpu) == expected


def test_memory_of_processes_that_are_gone():
    processes = [Process(7, 5), Process(8, None), Process(9, 100)]
    result = checks.CHECKS["gpu_processes"].evaluate(case(processes=processes, orphans={7, 8}))
    assert (result.value, result.message) == (
        2,
        "5 MiB held by processes that no longer exist: 7, 8",
    )
    assert (
        checks.CHECKS["gpu_processes"].evaluate(case(processes=processes)).message == "3 processes"
    )
    assert (
        checks.CHECKS["gpu_processes"].evaluate(case(processes=processes[:1])).message
        == "1 process"
    )


@pytest.mark.parametrize(
    ("gpu", "expected"),
    [
        ({}, ("pass", "none")),
        ({"recovery": 0}, ("pass", "none")),
        ({"recovery": 1}, ("critical", "reset_gpu")),
        ({"recovery": 3}, ("warning", "drain")),
        ({"faults": [Fault("nvmlDeviceGetName", 15, "lost")]}, ("critical", "reboot")),
        ({"faults": [Fault("nvmlDeviceGetName", 16, "reset")]}, ("critical", "reset_gpu")),
        ({"faults": [Fault("no reply", reading.NO_REPLY, "no reply to x")]}, ("critical", "reboot")),
        ({"faults": [Fault("device handle", 999, "unknown")]}, ("critical", "reboot")),
        ({"faults": [Fault("nvmlDeviceGetHandleByIndex", 4, "denied")]}, ("unknown", "inspect")),
        ({"faults": [Fault("nvmlDeviceGetName", 999, "unknown")]}, ("pass", "none")),
    ],
)  # fmt: skip
def test_state(gpu, expected):
    assert finding("gpu_state", **gpu) == expected


@pytest.mark.parametrize(
    ("faults", "mig", "status", "value"),
    [
        ([], None, None, None),
        ([Fault("nvmlDeviceGetFanSpeed", 999, "unknown")], None, "warning", 1),
        ([Fault("nvmlDeviceGetFanSpeed", 9, "not loaded")], None, "unknown", 1),
        ([Fault("nvmlDeviceGetRemappedRows", 999, "unknown")], None, "unknown", 1),
        ([Fault("nvmlDeviceGetRemappedRows", 4, "denied")], None, "unknown", 1),
        ([Fault("nvmlDeviceGetRemappedRows", 4, "denied")], True, "skipped", None),
        ([Fault("nvmlDeviceGetFanSpeed", 4, "denied")], None, None, None),
        ([Fault("nvmlDeviceGetFanSpeed", 14, "InfoROM")], None, None, None),
        ([Fault("nvmlDeviceGetRemappedRows", 14, "InfoROM")], None, "unknown", 1),
        ([Fault(f"q{n}", 999, "unknown") for n in range(5)], None, "warning", 5),
        ([Fault("q", 999, "unknown"), Fault("q", 16, "reset")], None, None, None),
    ],
)  # fmt: skip
def test_readings(faults, mig, status, value):
    result = checks.CHECKS["gpu_readings"].evaluate(case(faults=faults, mig=mig))
    assert (result and result.status, result and result.value) == (status, value)
    if value == 5:
        assert result.message.endswith("q2 (unknown) and 2 more")
    if status == "unknown":
        assert result.unknown_as == "critical"


@pytest.mark.parametrize("code", [1, 9, 10, 11, 12, 18])
def test_a_code_that_puts_the_whole_driver_in_doubt_makes_the_gpu_unknown(code):
    assert finding("gpu_readings", faults=[Fault("anything", code, "")]) == ("unknown", "inspect")


def test_a_gpu_that_asks_for_nothing_says_so():
    message = checks.CHECKS["gpu_state"].evaluate(case(recovery=0)).message
    assert message == "NVIDIA L40S answers and asks for no recovery action"
    assert checks.CHECKS["gpu_state"].evaluate(case(name=None)).message == "the GPU answers"


@pytest.mark.parametrize(
    ("faults", "temp", "expected"),
    [
        ([], 40, True),
        ([Fault("x", 15, "lost")], None, False),
        ([Fault("x", 15, "lost")], 40, True),
        ([Fault("x", 16, "reset")], 40, True),
        ([Fault("device handle", 999, "")], 40, False),
        ([Fault("no reply", reading.NO_REPLY, "")], 40, False),
    ],
)
def test_an_unusable_gpu_has_only_its_state_and_its_errors(faults, temp, expected):
    results = checks.evaluate(case(faults=faults, temp=temp))
    others = {check.check for check in results} - {"gpu_state", "gpu_xid"}
    assert ("gpu_temperature" in others) is (expected and temp is not None)
    assert bool(others) is expected
    assert {check.subject for check in results} == {"GPU 0"}
    assert all(check.message.startswith("GPU 0: ") for check in results)
    assert all((check.domain is None) == (check.status == "pass") for check in results)


@pytest.mark.parametrize(
    ("gpu", "expected"),
    [
        ({}, False),
        ({"util_gpu": 9}, False),
        ({"util_gpu": 10}, True),
        ({"util_gpu": 10, "pstate": 4}, True),
        ({"util_gpu": 10, "pstate": 5}, False),
        ({"util_gpu": 0, "processes": [Process(1, 1)]}, False),
        ({"processes": [Process(1, 1)]}, True),
        ({"processes": []}, False),
    ],
)
def test_busy(gpu, expected):
    assert links.busy(Gpu(0, **gpu)) is expected


@pytest.mark.parametrize(
    ("model", "fabric", "expected"),
    [
        ("NVIDIA H100 80GB HBM3", None, True),
        ("NVIDIA A100-SXM4-40GB", None, True),
        ("Tesla V100-SXM2-32GB", None, True),
        ("NVIDIA B200", None, True),
        ("NVIDIA GB200", None, True),
        ("NVIDIA H200", None, True),
        ("NVIDIA H200 NVL", None, False),
        ("NVIDIA H100 PCIe", None, False),
        ("NVIDIA L40S", None, False),
        ("NVIDIA H100 PCIe", Fabric(3, 0), True),
        (None, None, False),
    ],
)
def test_boards_whose_links_are_not_optional(model, fabric, expected):
    assert links.on_sxm_board(Gpu(0, name=model, fabric=fabric)) is expected


def test_links_that_are_all_down():
    down, up = NvLink(2, [0, 1]), NvLink(2, [])
    board, card = "NVIDIA H200", "NVIDIA L40S"

    def result(model, *others):
        peers = [Gpu(1 + n, name=model, nvlink=nvlink) for n, nvlink in enumerate(others)]
        return finding("gpu_nvlink", name=model, nvlink=down, others=peers)

    assert result(card) is result(board) is result(card, down) is result(board, None) is None
    assert (
        result(board, down) == result(card, up) == result(card, down, up) == ("critical", "inspect")
    )
    stranger = Gpu(1, name="NVIDIA H100 PCIe", nvlink=up)
    assert finding("gpu_nvlink", name=card, nvlink=down, others=[stranger]) is None


@pytest.mark.parametrize(("what", "limit"), [("memory", 90), ("power", 95)])
def test_a_share_is_above_its_limit_only_above_it(what, limit):
    used, total = {"memory": ("mem_used", "mem_total"), "power": ("power_draw", "power_limit")}[
        what
    ]

    def result(value, **options):
        given = case({f"{what}_warning": limit, **options}, **{used: value, total: 1000})
        return checks.CHECKS[f"gpu_{what}"].evaluate(given)

    assert result(limit * 10).status == "pass"
    above = result(limit * 10 + 1)
    assert (above.status, above.domain, above.threshold_source) == ("warning", "user", "default")
    assert (above.value, above.unit, above.warn) == (round(limit + 0.1, 1), "%", limit)
    assert result(1, **{f"{what}_warning": 50}).threshold_source == "user"
    assert result(1000, **{f"{what}_warning": 0}) is None
    assert result(None) is None
    assert checks.CHECKS[f"gpu_{what}"].evaluate(case(**{used: 1, total: 0})) is None


def event(number, level, action="none", count=1, repeats=False, source="default"):
    meaning = xid.Xid(str(number), number, level, action, "text", True, repeats)
    return xid.Event((0, 0x41, 0), meaning, count, count, 1.0, level, action, "text", source)


@pytest.mark.parametrize(
    ("events", "status", "action", "source"),
    [
        ([event(43, "pass", count=9)], "pass", "none", "default"),
        ([event(31, "pass", "restart_app", 2, True)], "pass", "none", "default"),
        ([event(31, "pass", "restart_app", 3, True)], "warning", "inspect", "default"),
        ([event(31, "pass", count=2, repeats=True), event(13, "pass", repeats=True)], "warning", "inspect", "default"),
        ([event(31, "pass", count=3, repeats=True, source="user")], "pass", "none", "user"),
        ([event(79, "critical", "reboot"), event(95, "critical", "reset_gpu")], "critical", "reboot", "default"),
        ([event(79, "critical", "reboot"), event(92, "warning", "inspect", source="user")], "critical", "reboot", "default"),
        ([event(92, "warning", "inspect", source="user"), event(43, "pass")], "warning", "inspect", "user"),
    ],
)  # fmt: skip
def test_the_worst_error_decides(events, status, action, source):
    result = xid.finding(events)
    assert (result.status, result.action, result.threshold_source) == (status, action, source)
    assert result.value == sum(each.count for each in events)


def test_six_errors_are_named():
    text = xid.finding([event(number, "warning") for number in range(1, 9)]).message
    assert "Xid 6" in text and "Xid 7" not in text and "times" not in text
    assert xid.finding([event(92, "warning", count=2)]).message.endswith("(text) 2 times")


@pytest.mark.parametrize(
    ("gpu", "options", "status", "source", "warn", "crit"),
    [
        ({"temp": 80}, {}, "pass", "default", 80, 90),
        ({"temp": 81}, {}, "warning", "default", 80, 90),
        ({"temp": 90}, {}, "warning", "default", 80, 90),
        ({"temp": 91}, {}, "critical", "default", 80, 90),
        ({"temp": 91}, {"temperature_warning": 90}, "warning", "user", 90, None),
        ({"temp": 91}, {"temperature_warning": 89}, "critical", "default", None, 90),
        ({"temp": 91}, {"temperature_critical": 91}, "warning", "default", 80, None),
        ({"temp": 92}, {"temperature_critical": 91}, "critical", "user", None, 91),
        ({"temp": 85}, {"temperature_warning": 85}, "pass", "user", 85, None),
        ({"temp": 60, "margin": 6}, {}, "pass", "device", None, None),
        ({"temp": 60, "margin": 5}, {}, "warning", "device", None, None),
        ({"temp": 60, "margin": 0}, {}, "warning", "device", None, None),
        ({"temp": 60, "margin": -1}, {}, "critical", "device", None, None),
        ({"temp": 60, "margin": -2, "t_limits": Limits(slowdown=-2)}, {}, "warning", "device", None, None),
        ({"temp": 60, "margin": -3, "t_limits": Limits(slowdown=-2)}, {}, "critical", "device", None, None),
        ({"margin": 30}, {}, "pass", "device", None, None),
        ({"margin": 3}, {"temperature_warning": 70}, "warning", "device", None, None),
        ({"temp": 60, "margin": 3}, {"temperature_warning": 70}, "pass", "user", 70, None),
        ({"temp": 90, "margin": 30}, {}, "pass", "device", None, None),
        ({"temp": 91, "margin": 30}, {}, "warning", "default", 90, None),
        ({"temp": 94, "thresholds": Limits(slowdown=95, gpu_max=94)}, {}, "pass", "device", 94, 95),
        ({"temp": 94, "thresholds": Limits(slowdown=95, gpu_max=93)}, {}, "warning", "device", 93, 95),
        ({"temp": 95, "thresholds": Limits(slowdown=95, gpu_max=93)}, {}, "critical", "device", 93, 95),
        ({"temp": 99, "thresholds": Limits(shutdown=99)}, {}, "critical", "device", None, 99),
        ({"temp": 98, "thresholds": Limits(shutdown=99)}, {}, "pass", "device", None, 99),
    ],
)  # fmt: skip
def test_temperature(gpu, options, status, source, warn, crit):
    result = checks.CHECKS["gpu_temperature"].evaluate(case(options, **gpu))
    assert (result.status, result.threshold_source) == (status, source)
    assert (result.warn, result.crit, result.value) == (warn, crit, gpu.get("temp"))
    assert result.action == ("none" if status == "pass" else "inspect")


def test_without_any_temperature_there_is_no_check():
    assert checks.CHECKS["gpu_temperature"].evaluate(case()) is None


@pytest.mark.parametrize("field", ["evaluate", "limit", "actions", "runbook", "metric", "documentation"])  # fmt: skip
def test_an_incomplete_check_fails_at_import(field):
    entry = checks.CHECKS["gpu_state"]._replace(**{field: None})
    with pytest.raises(TypeError, match=f"gpu_state is incomplete: it has no {field}"):
        Registry("GPU check", [entry], checks.CHECKS.required[1:])


def test_an_incomplete_or_repeated_xid_fails_at_import():
    entry = xid.CATALOG["79"]
    for incomplete in (
        entry._replace(action=""),
        entry._replace(level=""),
        entry._replace(text=""),
    ):
        with pytest.raises(TypeError, match="The Xid 79 is incomplete"):
            Registry("Xid", [incomplete], xid.CATALOG.required[1:])
    with pytest.raises(TypeError, match="The Xid 79 is registered twice"):
        xid.CATALOG.add(entry)


def test_every_action_that_a_check_names_exists():
    from ansible_collections.mlops.fleet.plugins.module_utils._core.verdict import ACTIONS

    for entry in checks.CHECKS:
        assert set(entry.actions) <= set(ACTIONS), entry.name
