# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The decision about a node, called directly with facts."""

from __future__ import annotations

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.gpu import (
    plan,
    reading,
    recall,
    xid,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.gpu.facts import (
    DriverErrors,
    Facts,
    PciGpu,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.gpu.options import GpuOptions
from ansible_collections.mlops.fleet.plugins.module_utils._core.gpu.reading import (
    Gpu,
    Process,
    Reading,
    bus_id,
)

ONE, TWO = PciGpu("0000:41:00.0", "nvidia"), PciGpu("0000:61:00.0", "nvidia")


def gpu(index=0, bus="00000000:41:00.0", **values):
    return Gpu(index, name="NVIDIA L40S", bus_id=bus, **values)


def answers(*gpus, **values):
    defaults = {"backend": "nvml", "driver_version": "590.1", "count": len(gpus)}
    return Reading(gpus=list(gpus), **{**defaults, **values})


def decide(read=None, options=None, **facts):
    return plan.decide(GpuOptions.from_mapping(options or {}), Facts(read, **facts))


def first(decided, name="gpu_driver"):
    return next(check for check in decided.checks if check.check == name)


def driver(read=None, options=None, **facts):
    check = first(decide(read, options, **facts))
    return check.status, check.action


def failed(code):
    return Reading(code=code, text="words")


@pytest.mark.parametrize(
    ("read", "options", "facts", "expected"),
    [
        (None, {}, {}, ("skipped", "none")),
        (None, {"expected_count": 0}, {}, ("skipped", "none")),
        (None, {"expected_count": 0}, {"pci": (ONE,)}, ("warning", "inspect")),
        (None, {"expected_count": 1}, {}, ("critical", "inspect")),
        (None, {}, {"pci": (ONE,)}, ("critical", "inspect")),
        (failed(12), {}, {}, ("skipped", "none")),
        (failed(12), {}, {"pci": (ONE,)}, ("critical", "inspect")),
        (failed(9), {}, {}, ("critical", "inspect")),
        (failed(9), {"expected_count": 0}, {}, ("skipped", "none")),
        (failed(18), {}, {}, ("critical", "reboot")),
        (failed(4), {}, {}, ("unknown", "inspect")),
        (failed(10), {}, {}, ("critical", "reboot")),
        (failed(11), {}, {}, ("critical", "reboot")),
        (failed(15), {}, {}, ("critical", "reboot")),
        (failed(999), {}, {}, ("critical", "reboot")),
        (failed(1), {}, {}, ("critical", "inspect")),
        (failed(-1), {}, {}, ("critical", "inspect")),
        (answers(gpu()), {}, {}, ("pass", "none")),
        (answers(gpu()), {}, {"module_version": "590.1"}, ("pass", "none")),
        (answers(gpu()), {}, {"module_version": "580.1"}, ("warning", "reboot")),
        (answers(gpu(), hung="nvmlInit"), {}, {}, ("critical", "reboot")),
        (Reading(hung="an earlier check", stuck=(7, 0.0)), {}, {}, ("critical", "reboot")),
    ],
)
def test_driver(read, options, facts, expected):
    assert driver(read, options, **facts) == expected


def test_driver_messages():
    assert "words (NVML code 1)" in first(decide(failed(1))).message
    assert first(decide(failed(-1))).message.endswith("words")
    assert first(decide(failed(4))).counts_as == "critical"
    assert "set expected_count to 0" in first(decide(failed(9))).message
    assert "1 NVIDIA GPU on the PCI bus" in first(decide(failed(9), pci=(ONE,))).message
    held = (PciGpu("0000:41:00.0", "nouveau"), PciGpu("0000:42:00.0", ""))
    assert "2 NVIDIA GPUs on the PCI bus (held by nouveau)" in first(decide(pci=held)).message
    stuck = first(decide(Reading(hung="x", stuck=(7, 0.0)), duration=None))
    assert "process 7 of an earlier check still waits" in stuck.message
    assert (stuck.since, stuck.duration_ms) == ("1970-01-01T00:00:00+00:00", None)
    assert first(decide(answers(gpu()), duration=0.04213)).duration_ms == 42.1


@pytest.mark.parametrize(
    ("gpus", "hung_gpu", "count", "suffix"),
    [
        ([gpu()], None, None, "to q"),
        ([gpu()], 1, 2, "to q"),
        ([gpu()], None, 3, "to q"),
        ([], 0, 2, "; not asked: GPU 1"),
        ([gpu()], 1, 4, "; not asked: GPU 2, 3"),
    ],
)
def test_gpus_that_were_not_asked(gpus, hung_gpu, count, suffix):
    read = answers(*gpus, hung="q", hung_gpu=hung_gpu, count=count)
    assert first(decide(read)).message.endswith(suffix)


@pytest.mark.parametrize(
    ("count", "expected", "pci", "status", "action"),
    [
        (1, None, (), "pass", "none"),
        (1, None, (ONE,), "pass", "none"),
        (1, 1, (ONE,), "pass", "none"),
        (1, None, (ONE, TWO), "critical", "reboot"),
        (1, 2, (ONE, TWO), "critical", "reboot"),
        (1, 2, (ONE,), "critical", "inspect"),
        (1, 0, (), "warning", "inspect"),
        (0, None, (), "warning", "inspect"),
        (0, 0, (), "pass", "none"),
    ],
)
def test_count(count, expected, pci, status, action):
    decided = decide(answers(*[gpu()] * count), {"expected_count": expected}, pci=pci)
    check = first(decided, "gpu_count")
    assert (check.status, check.action, check.value, check.crit) == (
        status,
        action,
        count,
        expected,
    )
    assert check.threshold_source == (None if expected is None else "user")
    assert ("0000:61:00.0" in check.message) == (TWO in pci)
    assert ("on the PCI bus" in check.message) == (TWO in pci)
    assert (check.domain is None) == (status == "pass")


def test_at_most_eight_missing_gpus_are_named():
    pci = tuple(PciGpu(f"0000:{bus:02x}:00.0", "nvidia") for bus in range(1, 12))
    message = first(decide(answers(), pci=pci), "gpu_count").message
    assert "0000:08:00.0" in message and "0000:09:00.0" not in message


@pytest.mark.parametrize("read", [failed(9), answers(gpu(), count=None), answers(gpu(), code=15)])
def test_a_number_that_is_not_known_is_not_compared(read):
    assert "gpu_count" not in {check.check for check in decide(read).checks}


def error(code, bus="0000:41:00", when=1.0):
    return xid.Incident(when, bus_id(bus), str(code))


def xids(*errors, source="journal", problem="", options=None):
    log = DriverErrors(source, tuple(errors), problem)
    decided = decide(answers(gpu()), options, errors=log)
    return [
        (check.subject, check.status, check.action)
        for check in decided.checks
        if check.check == "gpu_xid"
    ]


def test_errors_belong_to_their_gpu_or_to_an_address():
    assert xids() == [("GPU 0", "pass", "none")]
    assert xids(error(79)) == [("GPU 0", "critical", "reboot")]
    assert xids(error(79), error(43, "0000:99:00"), error(46, "0000:98:00")) == [
        ("GPU 0", "critical", "reboot"),
        ("0000:99:00", "pass", "none"),
        ("0000:98:00", "critical", "reset_gpu"),
    ]
    lost = [xid.Incident(1.0, None, "bad_state")]
    assert xids(*lost)[1] == ("unknown GPU", "critical", "reset_gpu")
    assert xids(error(79), options={"xid_overrides": {"79": "ignore"}})[0][1] == "pass"


@pytest.mark.parametrize(("number", "domain"), [(46, "node"), (43, None)])
def test_only_a_problem_of_a_gpu_that_is_not_listed_is_the_nodes(number, domain):
    log = DriverErrors("journal", (error(number, "0000:99:00"),), "")
    checks = decide(answers(gpu()), errors=log).checks
    assert [check.domain for check in checks if check.subject == "0000:99:00"] == [domain]


def test_a_log_that_was_not_read():
    assert xids(source="none") == [(None, "skipped", "none")]
    assert xids(source="auto", problem="no") == [(None, "skipped", "none")]
    assert xids(source="journal", problem="no") == [(None, "unknown", "none")]


def test_vbios_is_compared_within_a_model_only():
    def status(*gpus):
        checks = [check for check in decide(answers(*gpus)).checks if check.check == "gpu_vbios"]
        return [(check.status, check.message) for check in checks]

    assert status(gpu(vbios="1")) == []
    assert status(gpu(vbios="1"), gpu(1)) == []
    assert [entry[0] for entry in status(gpu(vbios="1"), gpu(1, vbios="1"))] == ["pass"]
    other = Gpu(1, name="NVIDIA H100", vbios="2")
    assert [entry[0] for entry in status(gpu(vbios="1"), other)] == ["pass"]
    ((result, message),) = status(gpu(vbios="1"), gpu(1, vbios="2"), gpu(2, vbios="2"))
    assert (result, message) == (
        "warning",
        "Different VBIOS versions, NVIDIA L40S: 1 on GPU 0; 2 on GPU 1, 2",
    )


def test_the_report_of_a_gpu():
    processes = [Process(pid, 5) for pid in range(1, 41)]
    busy = gpu(processes=processes, clock_reasons=0x5, recovery=1, temp=40)
    (report,) = decide(answers(busy), errors=DriverErrors("journal", (error(31),))).gpus
    values = report.to_dict()
    assert (values["status"], values["recovery_action"]) == ("critical", "reset the GPU")
    assert (values["process_count"], len(values["processes"])) == (40, plan.MAX_PROCESSES)
    assert values["processes"][0] == {"pid": 1, "mem_used": 5}
    assert values["clock_reasons"] == ["idle", "sw_power_cap"]
    assert [entry["code"] for entry in values["xids"]] == [31]
    assert values["ecc"] == dict.fromkeys(reading.Ecc._fields)
    assert not {"faults", "thresholds", "t_limits", "recovery"} & set(values)
    (bare,) = decide(answers(gpu())).gpus
    empty = bare.to_dict()
    assert [empty[key] for key in ("processes", "process_count", "recovery_action")] == [None] * 3
    assert (empty["clock_reasons"], empty["status"]) == (None, "pass")


def test_the_plan_names_what_is_written_and_what_answered():
    options = {"metrics_csv": "/x.csv", "textfile": "/x.prom"}
    decided = decide(answers(gpu(), cuda_version="13.1"), options, now=7.0)
    assert (decided.metrics_csv, decided.textfile, decided.now) == ("/x.csv", "/x.prom", 7.0)
    assert (decided.driver, decided.gpu_count) == (plan.Driver("nvml", "590.1", None, "13.1"), 1)
    nothing = decide()
    assert (nothing.driver, nothing.gpu_count, nothing.metrics_csv) == (plan.Driver(), 0, None)
    assert decide(Reading(hung="x")).gpu_count is None
    assert decide(answers(gpu()), {"expected_count": 1}).gpus
    assert not decide(failed(9), {"expected_count": 0}).gpus


def test_default_temperatures_of_another_part():
    facts = Facts(answers(gpu(temp=78)))
    options = GpuOptions.from_mapping({})
    assert first(plan.decide(options, facts), "gpu_temperature").status == "pass"
    assert first(plan.decide(options, facts, (75.0, 85.0)), "gpu_temperature").status == "warning"


@pytest.mark.parametrize(
    ("values", "refused"),
    [
        ({"temp": -50}, None),
        ({"temp": 200}, None),
        ({"temp": -51}, "temp"),
        ({"temp": 201}, "temp"),
        ({"margin": -101}, "margin"),
        ({"util_gpu": 101}, "util_gpu"),
        ({"util_mem": 100}, None),
        ({"power_draw": 10_001.0}, "power_draw"),
        ({"power_limit": -1.0}, "power_limit"),
        ({"clock_sm": 20_001}, "clock_sm"),
        ({"mem_used": 5, "mem_total": 5}, None),
        ({"mem_used": 6, "mem_total": 5}, "mem_used"),
        ({"processes": [Process(2**31 - 1, 1)]}, None),
        ({"processes": [Process(2**31, 1)]}, "processes"),
        ({"processes": [Process(0, 1)]}, "processes"),
    ],
)
def test_impossible_values(values, refused):
    subject = gpu(**values)
    reading.refuse_impossible(answers(subject))
    assert [fault.query for fault in subject.faults] == ([refused] if refused else [])
    for key, value in values.items():
        if refused == key:
            assert getattr(subject, key) in (None, [])
        elif not refused:
            assert getattr(subject, key) == value


def test_a_reading_survives_the_way_to_the_parent():
    read = answers(
        gpu(
            ecc=reading.Ecc(True, 1, 2, 3, 4),
            remap=reading.Remap(1, 2, True, False),
            nvlink=reading.NvLink(2, [1]),
            processes=[Process(1, None)],
            thresholds=reading.Limits(90),
        ),
        hung_gpu=1,
    )
    read.gpus[0].fail("query", 3, "words")
    copy = recall.from_json(reading.to_json(read))
    assert vars(copy.gpus[0]) == vars(read.gpus[0])
    assert {**vars(copy), "gpus": 0} == {**vars(read), "gpus": 0}
    assert isinstance(copy.gpus[0].nvlink, reading.NvLink)
    journal = reading.Journal()
    journal.keep(read)
    journal.asking("nvmlX on GPU 1")
    recalled = recall.of(journal)
    assert (recalled.hung, recalled.driver_version) == ("nvmlX on GPU 1", "590.1")
    assert recall.of(reading.Journal()).hung == "loading the driver's library"
