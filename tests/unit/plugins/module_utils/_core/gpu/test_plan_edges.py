# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts that are missing: no duration, no number of GPUs, no name."""

from __future__ import annotations

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.gpu import nvswitch, plan, xid
from ansible_collections.mlops.fleet.plugins.module_utils._core.gpu.facts import (
    DriverErrors,
    Facts,
    PciGpu,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.gpu.options import GpuOptions
from ansible_collections.mlops.fleet.plugins.module_utils._core.gpu.reading import (
    Ecc,
    Gpu,
    LinkErrors,
    NvLink,
    Pcie,
    Process,
    Reading,
    bus_id,
)


def check(name, read, **facts):
    checks = plan.decide(GpuOptions.from_mapping({}), Facts(read, **facts)).checks
    return next(check for check in checks if check.check == name)


def gpu(index, name="NVIDIA L40S", vbios="1", **values):
    return Gpu(index, name=name, bus_id=f"00000000:4{index}:00.0", vbios=vbios, **values)


SWITCH = nvswitch.Incident(1.0, "1", "20034", True, "Link 30 LTSSM Fault Up")


@pytest.mark.parametrize(
    ("read", "duration", "expected"),
    [
        (Reading(gpus=[gpu(0)], count=1), 1.0, 1000.0),
        (Reading(gpus=[gpu(0)], count=1), None, None),
        (None, 1.0, None),
    ],
)
def test_the_duration_of_the_driver(read, duration, expected):
    assert check("gpu_driver", read, duration=duration).duration_ms == expected


def test_a_driver_that_hung_before_it_said_how_many():
    read = Reading(hung="nvmlDeviceGetCount", hung_gpu=0, count=None)
    assert check("gpu_driver", read).message.endswith("nvmlDeviceGetCount")


@pytest.mark.parametrize(
    ("second", "status"),
    [
        (gpu(1, vbios="2"), "warning"),
        (gpu(1, vbios=None), "pass"),
        (gpu(1, name=None, vbios="2"), "pass"),
        (gpu(1, name="NVIDIA L4", vbios="2"), "pass"),
    ],
)
def test_only_gpus_with_a_known_model_and_vbios_are_compared(second, status):
    assert check("gpu_vbios", Reading(gpus=[gpu(0), gpu(2), second], count=3)).status == status


def only(read, name, **facts):
    checks = plan.decide(GpuOptions.from_mapping({}), Facts(read, **facts)).checks
    return [check for check in checks if check.check == name]


@pytest.mark.parametrize(
    ("others", "status"),
    [
        ([], []),
        ([gpu(1)], ["pass"]),
        ([gpu(1, name=None)], []),
        ([gpu(1, vbios=None)], []),
        ([gpu(1), gpu(2, name=None, vbios="1"), gpu(3, name=None, vbios="2")], ["pass"]),
    ],
)
def test_vbios_needs_two_gpus_whose_models_are_known(others, status):
    read = Reading(gpus=[gpu(0), *others], count=1 + len(others))
    assert [check.status for check in only(read, "gpu_vbios")] == status


def test_the_errors_of_links_are_reported_where_there_are_some():
    links = [
        LinkErrors(0),
        LinkErrors(1, replay=1),
        LinkErrors(2, crc=2),
        LinkErrors(3, recovery=3),
    ]
    read = Reading(gpus=[gpu(0, nvlink=NvLink(4, [], links))], count=1)
    (report,) = plan.decide(GpuOptions.from_mapping({}), Facts(read)).gpus
    assert [link["link"] for link in report.to_dict()["nvlink"]["errors"]] == [1, 2, 3]


def test_links_without_counters_have_no_errors():
    read = Reading(gpus=[gpu(0, nvlink=NvLink(4, [1]))], count=1)
    (report,) = plan.decide(GpuOptions.from_mapping({}), Facts(read)).gpus
    assert report.to_dict()["nvlink"] == {"links": 4, "down": [1], "errors": None}


def links(replay, crc):
    return {"nvlink": NvLink(1, [], [LinkErrors(0, replay=replay, crc=crc)])}


@pytest.mark.parametrize(
    ("values", "given", "counts"),
    [
        ({}, {}, False),
        ({"ecc": Ecc(volatile_corrected=5)}, {"corrected_errors_warning": 5}, False),
        ({"ecc": Ecc(volatile_corrected=6)}, {"corrected_errors_warning": 5}, True),
        ({"ecc": Ecc()}, {"corrected_errors_warning": 0}, False),
        ({"pcie": Pcie()}, {"pcie_replays_warning": 0}, False),
        ({"pcie": Pcie(replays=100)}, {}, False),
        ({"pcie": Pcie(replays=101)}, {}, True),
        ({"pcie": Pcie(replays=7)}, {"pcie_replays_warning": 7}, False),
        ({"pcie": Pcie(replays=8)}, {"pcie_replays_warning": 7}, True),
        ({"pcie": Pcie(replays=101)}, {"pcie_replays_warning": 500}, False),
        (links(2, 3), {"nvlink_errors_warning": 5}, False),
        (links(3, 3), {"nvlink_errors_warning": 5}, True),
        ({"nvlink": NvLink(1, [])}, {}, False),
    ],
)
def test_when_a_counter_is_compared_with_the_time_since_boot(values, given, counts):
    assert plan._counts_errors(gpu(0, **values), GpuOptions.from_mapping(given)) is counts


@pytest.mark.parametrize(
    ("errors", "manager", "checks"),
    [
        ({}, None, []),
        ({"switch": (SWITCH,)}, None, ["gpu_sxid"]),
        ({}, nvswitch.FabricManager(4, "failed"), ["gpu_fabric_manager"]),
    ],
)
def test_switches_and_their_service_are_checked_where_there_are_some(errors, manager, checks):
    read = Reading(gpus=[gpu(0)], count=1)
    facts = Facts(read, errors=DriverErrors("journal", **errors), fabric_manager=manager)
    decided = plan.decide(GpuOptions.from_mapping({}), facts)
    names = [check.check for check in decided.checks]
    assert [name for name in names if name in ("gpu_sxid", "gpu_fabric_manager")] == checks


def test_a_driver_that_is_skipped_reports_no_gpu():
    options = GpuOptions.from_mapping({"expected_count": 0})
    decided = plan.decide(options, Facts(Reading(gpus=[gpu(0)], code=9)))
    assert [check.status for check in decided.checks] == ["skipped"] and not decided.gpus


@pytest.mark.parametrize(
    ("values", "facts", "message"),
    [
        ({"backend": "nvml", "driver_version": "1"}, {}, "NVIDIA driver 1 answers"),
        ({"backend": "amd_smi", "driver_version": "1"}, {}, "AMD driver 1 answers"),
        ({}, {"module_version": "2"}, "NVIDIA driver of unknown version answers"),
    ],
)
def test_the_driver_says_whose_it_is(values, facts, message):
    made = check("gpu_driver", Reading(gpus=[gpu(0)], count=1, **values), **facts)
    assert (made.status, made.message) == ("pass", message)


def test_an_earlier_check_that_still_waits_is_a_fault_whatever_the_code():
    made = check("gpu_driver", Reading(gpus=[gpu(0)], count=1, stuck=(7, 0.0)))
    assert made.status == "critical"


def test_only_the_driver_has_a_duration():
    read = Reading(gpus=[gpu(0)], count=1, stuck=(7, 0.0))
    assert check("gpu_count", read, duration=1.0).duration_ms is None
    assert check("gpu_count", read, duration=1.0).since is None


def test_a_check_of_the_node_must_find_something():
    case = plan.NodeCase(GpuOptions.from_mapping({}), Facts(None), None)
    entry = plan.NODE_CHECKS["gpu_count"]._replace(evaluate=lambda case: None)
    with pytest.raises(ValueError, match="gpu_count"):
        plan._node_check(entry, case)


def test_without_answers_there_is_no_gpu():
    case = plan.NodeCase(GpuOptions.from_mapping({}), Facts(None), None)
    assert plan.NODE_CHECKS["gpu_count"].evaluate(case).value == 0
    assert plan.NODE_CHECKS["gpu_vbios"].evaluate(case).status == "pass"
    assert plan.decide(GpuOptions.from_mapping({}), Facts(Reading())).driver == plan.Driver()


def test_a_gpu_at_another_address_is_not_missing():
    """Containers and virtual machines may show it under another address."""
    read = Reading(gpus=[gpu(0)], count=1)
    made = check("gpu_count", read, pci=(PciGpu("0000:61:00.0", "x"),))
    assert (made.status, made.message) == ("pass", "1 GPU found")


@pytest.mark.parametrize(
    ("own", "event", "belongs"),
    [
        ("00000000:41:00.0", "0000:41:00", True),
        ("00000000:41:00.0", "0000:42:00", False),
        ("00000000:41:00.0", None, False),
        (None, None, False),
        (None, "0000:41:00", False),
    ],
)
def test_an_error_belongs_to_the_gpu_at_its_address(own, event, belongs):
    incident = xid.Incident(1.0, event and bus_id(event), "79")
    events = xid.events((incident,), {}, None, 5)
    assert bool(plan._own(events, Gpu(0, bus_id=own))) is belongs


@pytest.mark.parametrize(
    ("bus", "begins"),
    [
        ("0000:99:00", "0000:99:00, which the driver does not show: "),
        (None, "unknown GPU: "),
    ],
)
@pytest.mark.parametrize("address", ["00000000:40:00.0", "no address"])
def test_an_error_of_no_listed_gpu_names_its_place(bus, begins, address):
    read = Reading(gpus=[Gpu(0, name="x", bus_id=address)], count=1)
    errors = DriverErrors("journal", (xid.Incident(1.0, bus and bus_id(bus), "79"),))
    messages = [check.message for check in only(read, "gpu_xid", errors=errors)]
    assert any(message.startswith(begins) for message in messages)


@pytest.mark.parametrize(("backend", "reported"), [("amd_smi", False), ("nvml", True)])
def test_xids_are_nvidias(backend, reported):
    read = Reading(gpus=[gpu(0)], count=1, backend=backend)
    errors = DriverErrors("journal", (), "permission denied")
    messages = [check.message for check in only(read, "gpu_xid", errors=errors)]
    assert any("permission denied" in message for message in messages) is reported


def test_so_many_processes_are_reported():
    busy = gpu(0, processes=[Process(pid, 1) for pid in range(1, 41)])
    (report,) = plan.decide(GpuOptions.from_mapping({}), Facts(Reading(gpus=[busy], count=1))).gpus
    assert len(report.to_dict()["processes"]) == 32
