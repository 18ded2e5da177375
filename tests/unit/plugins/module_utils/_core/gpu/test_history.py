# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs remember of each GPU, and what follows from it. Runs are called one after the other."""

from __future__ import annotations

import json
import os
import time

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core import errors
from ansible_collections.mlops.fleet.plugins.module_utils._core.gpu import (
    history,
    memory,
    plan,
    xid,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.gpu.facts import DriverErrors, Facts
from ansible_collections.mlops.fleet.plugins.module_utils._core.gpu.options import GpuOptions
from ansible_collections.mlops.fleet.plugins.module_utils._core.gpu.reading import (
    Ecc,
    Gpu,
    LinkErrors,
    NvLink,
    Pcie,
    Reading,
    Remap,
    bus_id,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.ports import World

HOUR, DAY = 3600.0, 86400.0
BUS, OTHER = "00000000:41:00.0", "00000000:61:00.0"


class Node:
    """A node whose clock, log and GPUs the test sets; the memory goes through its file format."""

    def __init__(self, **options):
        self.options = GpuOptions.from_mapping({"state_file": "/state.json", **options})
        self.memory = history.Memory()
        self.now, self.boot, self.uptime = 1_800_000_000.0, "one", 100_000.0
        self.log = []
        self.driver = "590.1"

    def wait(self, seconds):
        self.now += seconds
        self.uptime += seconds

    def reboot(self):
        self.boot += "'"
        self.uptime = 60.0
        self.log = []

    def logged(self, code, bus=BUS, ago=0.0, text=""):
        self.log.append(xid.Incident(self.now - ago, bus_id(bus), str(code), text))

    def run(self, *gpus):
        reading = Reading("nvml", driver_version=self.driver, count=len(gpus), gpus=list(gpus))
        facts = Facts(
            reading,
            errors=DriverErrors("journal", tuple(self.log)),
            now=self.now,
            boot_id=self.boot,
            uptime=self.uptime,
        )
        decided = plan.decide(self.options, facts, memory=self.memory)
        kept = json.loads(history.dump(decided.memory))
        self.memory = history.Memory(
            tuple(history._record(entry, self.now) for entry in kept["gpus"])
        )
        return {(check.check, check.subject): check for check in decided.checks}, [
            report.to_dict() for report in decided.gpus
        ]

    def check(self, name, *gpus, subject="GPU 0"):
        check = self.run(*gpus)[0].get((f"gpu_{name}", subject))
        return check and (check.status, check.message)


def gpu(uuid="GPU-a", bus=BUS, index=0, **values):
    values.setdefault("serial", f"S{uuid}")
    return Gpu(index, name="NVIDIA H100", uuid=uuid, bus_id=bus, **values)


# --- rates ------------------------------------------------------------------------------------


def corrected(count):
    return gpu(ecc=Ecc(True, count, 0))


def test_corrected_errors_count_per_hour():
    node = Node()
    assert node.check("corrected_errors", corrected(0))[0] == "pass"
    node.wait(300)
    assert node.check("corrected_errors", corrected(1000))[0] == "pass", "not yet above 1000"
    node.wait(300)
    assert node.check("corrected_errors", corrected(1001))[0] == "warning"
    node.wait(2 * HOUR)
    status, message = node.check("corrected_errors", corrected(1001))
    assert (status, message) == ("pass", "GPU 0: 0 corrected memory errors in 2 h 00 min")


def test_a_high_rate_is_seen_without_a_state_file():
    def statuses(count, uptime):
        reading = Reading("nvml", driver_version="590.1", count=1, gpus=[corrected(count)])
        facts = Facts(reading, now=1.8e9, uptime=uptime)
        decided = plan.decide(GpuOptions.from_mapping({}), facts)
        assert decided.memory is None and decided.gpus[0].history is None
        return [check.status for check in decided.checks if check.check == "gpu_corrected_errors"]

    assert statuses(9_600_000_000, 100 * DAY) == ["warning"]
    assert statuses(100_000, 100 * HOUR) == []
    assert statuses(100_001, 100 * HOUR) == ["warning"]
    assert statuses(900, 10.0) == [], "not a rate of a whole hour"
    assert statuses(9_600_000_000, None) == [], "unknown uptime"


@pytest.mark.parametrize(
    ("pcie", "per_minute", "expected"),
    [
        (Pcie(5, 5, 16, 16), 30, "pass"),
        (Pcie(5, 5, 16, 16), 31, "warning"),
        (Pcie(1, 4, 16, 16), 16, "warning"),
        (Pcie(3, 3, 8, 16), 8, "warning"),
        (Pcie(3, 3, 8, 16), 7, "pass"),
    ],
)
def test_replays_count_per_minute_lane_and_generation(pcie, per_minute, expected):
    node = Node()
    node.run(gpu(pcie=pcie._replace(replays=50)))
    node.wait(300)
    found = node.check("pcie_replays", gpu(pcie=pcie._replace(replays=50 + 5 * per_minute)))
    assert found[0] == expected


def test_replays_of_the_users_limit():
    node = Node(pcie_replays_warning=1)
    node.run(gpu(pcie=Pcie(replays=0)))
    node.wait(60)
    assert node.check("pcie_replays", gpu(pcie=Pcie(replays=2)))[0] == "warning"


def link(number, **counts):
    return gpu(nvlink=NvLink(2, [], [LinkErrors(0), LinkErrors(number, **counts)]))


def test_nvlink_errors_name_the_link():
    node = Node()
    assert node.check("nvlink_errors", link(1, recovery=5))[0] == "pass", "before the first run"
    node.wait(60)
    status, message = node.check("nvlink_errors", link(1, recovery=6))
    assert (status, message) == ("warning", "GPU 0: NVLink errors: link 1 1 recovery")
    node.wait(60)
    assert node.check("nvlink_errors", link(1, recovery=6, crc=100))[0] == "pass"
    node.wait(60)
    status, message = node.check("nvlink_errors", link(1, recovery=6, crc=100, replay=101))
    assert (status, message) == ("warning", "GPU 0: NVLink errors: link 1 101 errors per minute")


def test_a_rate_survives_clock_steps_and_restarts_with_the_counter():
    node = Node()
    node.run(corrected(5000))
    node.uptime += 300
    node.now -= 400 * DAY
    assert node.check("corrected_errors", corrected(5001))[0] == "pass"
    node.now += 800 * DAY
    node.uptime += 300
    assert node.check("corrected_errors", corrected(5002))[0] == "pass"
    node.wait(300)
    status, message = node.check("corrected_errors", corrected(2))
    assert (status, message[:37]) == ("pass", "GPU 0: 4 corrected memory errors in 1")


def test_counters_of_another_card_are_not_compared():
    node = Node()
    node.run(corrected(0))
    node.wait(300)
    swapped = gpu("GPU-b", ecc=Ecc(True, 1000, 0))
    status, message = node.check("history", swapped)
    assert status == "pass" and "the GPU in this slot was GPU-a before" in message
    assert node.run(swapped)[1][0]["history"]["corrected_errors_per_hour"] < 1000


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({"ecc": Ecc(aggregate_corrected=7)}, {"ecc": Ecc(aggregate_corrected=7)}, "pass"),
        ({"ecc": Ecc(aggregate_corrected=7)}, {"ecc": Ecc(aggregate_corrected=6)}, "warning"),
        ({"remap": Remap(1, 1, False, False)}, {"remap": Remap(1, 0, False, False)}, "warning"),
        ({"ecc": Ecc(volatile_corrected=7)}, {"ecc": Ecc(volatile_corrected=0)}, "pass"),
        ({"pcie": Pcie(replays=7)}, {"pcie": Pcie(replays=0)}, "pass"),
    ],
)
def test_counters_that_went_backwards(before, after, expected):
    node = Node()
    node.run(gpu(**before))
    node.wait(300)
    status, message = node.check("counters", gpu(**after))
    assert status == expected
    assert ("restarted" in message) == ("pcie" in before)


# --- resets -----------------------------------------------------------------------------------


def reported(node, *gpus):
    return node.check("xid", *gpus)[0]


def test_a_reset_between_two_runs_is_seen_by_the_recovery_action():
    node = Node()
    node.logged(95, ago=100)
    assert reported(node, gpu(recovery=1)) == "critical"
    node.wait(300)
    assert reported(node, gpu(recovery=1)) == "critical", "not reset yet"
    node.wait(300)
    assert reported(node, gpu(recovery=0)) == "pass"
    node.wait(300)
    node.logged(95)
    assert reported(node, gpu(recovery=0)) == "critical", "a new one after the reset"


def test_a_reset_does_not_cure_everything():
    node = Node()
    node.logged(79, ago=100)
    node.run(gpu(recovery=1))
    node.wait(300)
    assert reported(node, gpu(recovery=0)) == "critical"


def running(energy, **values):
    return gpu(energy=energy, persistence=True, **values)


def test_a_reset_is_seen_by_the_energy_counter():
    node = Node()
    node.run(running(9000, recovery=0))
    node.wait(100)
    node.logged(95)
    node.wait(100)
    assert reported(node, running(9500, recovery=0)) == "critical"
    node.wait(100)
    assert reported(node, running(10, recovery=0)) == "pass"


def test_an_old_driver_cannot_say_what_came_first():
    node = Node()
    node.logged(119, ago=10)
    node.run(running(9000))
    node.wait(100)
    node.logged(95)
    node.wait(100)
    checks, (report,) = node.run(running(10))
    assert checks["gpu_xid", "GPU 0"].status == "critical"
    assert {entry["code"]: entry["level"] for entry in report["xids"]} == {
        119: "pass",
        95: "critical",
    }


def test_without_persistence_the_energy_counter_says_nothing():
    node = Node()
    node.logged(95, ago=10)
    node.run(gpu(energy=9000, persistence=False))
    node.wait(100)
    assert reported(node, gpu(energy=1, persistence=False)) == "critical"


# --- incidents --------------------------------------------------------------------------------


def test_three_incidents_in_30_days_mark_a_gpu_whatever_its_state_is_now():
    node = Node()
    for day in range(3):
        node.reboot()
        node.logged((95, 48, 140)[day])
        checks, (report,) = node.run(gpu())
        assert report["history"]["incidents"] == day + 1
        assert report["history"]["repeat_offender"] == (day == 2)
        node.wait(5 * DAY)
    node.log = []
    checks, (report,) = node.run(gpu())
    assert checks["gpu_xid", "GPU 0"].status == "pass"
    found = checks["gpu_history", "GPU 0"]
    assert (found.status, found.message) == (
        "warning",
        "GPU 0: repeat offender, 3 incidents in 30 days: Xid 95, Xid 48, Xid 140",
    )
    node.wait(21 * DAY)
    assert node.check("history", gpu())[0] == "pass", "the first is 31 days old"


def test_one_line_is_one_incident_however_often_it_is_read():
    node = Node()
    node.logged(95)
    for step in (300, 300, 20 * HOUR):
        node.run(gpu())
        node.wait(step)
    assert node.check("history", gpu())[1] == "GPU 0: 1 incident in 30 days: Xid 95"


@pytest.mark.parametrize("relative_to_boot", [True, False])
def test_a_clock_step_makes_no_second_incident_of_a_line(relative_to_boot):
    """The ring buffer dates a line by the uptime, the journal by the clock of its time."""
    node = Node()
    node.logged(95, ago=50)
    node.run(gpu())
    for step in (7200.0, -3 * DAY):
        node.now += step
        if relative_to_boot:
            node.log[0] = node.log[0]._replace(time=node.log[0].time + step)
        assert node.check("history", gpu())[1] == "GPU 0: 1 incident in 30 days: Xid 95"


def test_a_clock_far_ahead_loses_nothing():
    node = Node()
    node.logged(95)
    node.run(gpu())
    node.log = []
    node.now += 3000 * DAY
    node.run(gpu())
    node.now -= 3000 * DAY
    assert node.check("history", gpu())[1] == "GPU 0: 1 incident in 30 days: Xid 95"


def test_several_xids_of_one_fault_are_one_incident():
    node = Node()
    for code, ago in ((48, 20), (94, 10), (95, 5)):
        node.logged(code, ago=ago)
    assert node.check("history", gpu())[1].startswith("GPU 0: 1 incident in 30 days: Xid 48, Xid")


@pytest.mark.parametrize(
    ("code", "overrides", "count"),
    [(43, {}, 0), (13, {}, 0), (92, {}, 1), (43, {"43": "critical"}, 1), (79, {"79": "ignore"}, 0)],
)
def test_what_is_no_warning_is_no_incident(code, overrides, count):
    node = Node(xid_overrides=overrides)
    node.logged(code)
    assert node.run(gpu())[1][0]["history"]["incidents"] == count


def test_a_critical_state_without_xid_is_an_incident_once():
    node = Node()
    for dummy in range(3):
        history_of = node.run(gpu(recovery=1))[1][0]["history"]
        assert (history_of["incidents"], history_of["codes"]) == (1, ["gpu_state"])
        node.wait(2 * HOUR)
    node.run(gpu(recovery=0))
    node.wait(2 * HOUR)
    assert node.run(gpu(recovery=1))[1][0]["history"]["incidents"] == 2


def test_an_xid_that_comes_back_after_a_reboot():
    node = Node(incidents_warning=0)
    node.logged(79)
    assert node.check("history", gpu())[0] == "pass"
    node.reboot()
    node.wait(HOUR)
    assert node.check("history", gpu())[0] == "pass"
    node.logged(79)
    status, message = node.check("history", gpu())
    assert status == "warning" and "Xid 79 came back after a reboot" in message


def test_a_record_follows_the_card_and_not_the_slot():
    node = Node()
    node.logged(95)
    node.run(gpu("GPU-a"), gpu("GPU-b", OTHER, 1))
    node.wait(HOUR)
    node.log = []
    node.reboot()
    dummy, reports = node.run(gpu("GPU-b", BUS, 0), gpu("GPU-a", OTHER, 1))
    assert [report["history"]["incidents"] for report in reports] == [0, 1]


def test_a_serial_number_finds_a_card_with_a_new_uuid_but_not_its_sibling():
    node = Node()
    node.logged(95)
    node.run(gpu("GPU-a", serial="7"), gpu("GPU-b", OTHER, 1, serial="7"))
    dummy, reports = node.run(gpu("GPU-a", serial="7"), gpu("GPU-b", OTHER, 1, serial="7"))
    assert [report["history"]["incidents"] for report in reports] == [1, 0]
    node.log = []
    dummy, reports = node.run(gpu("GPU-c", serial="7"), gpu("GPU-b", OTHER, 1, serial="7"))
    assert [report["history"]["incidents"] for report in reports] == [1, 0]
    dummy, reports = node.run(gpu("GPU-d", serial="0"))
    assert reports[0]["history"]["incidents"] == 0


def test_a_lost_gpu_is_known_by_its_address():
    node = Node()
    node.run(gpu("GPU-a"), gpu("GPU-b", OTHER, 1))
    node.wait(300)
    lost = Gpu(1, bus_id=OTHER)
    lost.fail("nvmlDeviceGetHandleByIndex", 15, "GPU is lost")
    node.logged(79, OTHER)
    node.run(gpu("GPU-a"), lost)
    assert {record.uuid: len(record.incidents) for record in node.memory.records} == {
        "GPU-a": 0,
        "GPU-b": 1,
    }


# --- kept and cleared -------------------------------------------------------------------------


def test_xids_are_kept_until_cleared():
    node = Node(keep_xids=True)
    node.logged(95)
    node.run(gpu(recovery=1))
    node.wait(300)
    node.log.append(xid.Recovered(node.now, None))
    assert reported(node, gpu(recovery=0)) == "critical", "whatever was reset"
    node.reboot()
    node.wait(3 * DAY)
    assert node.check("xid", gpu(recovery=0)) == (
        "critical",
        "GPU 0: Xid 95 (uncontained memory error)",
    )
    from ansible_collections.mlops.fleet.plugins.module_utils._core.gpu import trends

    node.memory, count = trends.clear(node.memory, lambda record: True)
    assert count == 1
    assert reported(node, gpu(recovery=0)) == "pass"


def test_a_cleared_xid_in_the_log_counts_no_more_but_a_new_one_does():
    from ansible_collections.mlops.fleet.plugins.module_utils._core.gpu import trends

    node = Node()
    node.logged(79)
    assert reported(node, gpu()) == "critical"
    node.memory, dummy = trends.clear(node.memory, lambda record: record.uuid == "GPU-a")
    assert node.check("xid", gpu()) == (
        "pass",
        "GPU 0: Xid 79 (GPU has fallen off the bus, cleared)",
    )
    node.wait(600)
    node.logged(79)
    assert reported(node, gpu()) == "critical"
    assert len(node.memory.records[0].incidents) == 2


def test_kept_xids_need_a_place():
    with pytest.raises(errors.OptionError, match="needs state_file"):
        GpuOptions.from_mapping({"keep_xids": True})


# --- the file ---------------------------------------------------------------------------------


def world(now=1_800_000_000.0):
    class Clock:
        def now(self):
            return now

        def monotonic(self):
            return time.monotonic()

    warnings = []
    return World(run=None, clock=Clock(), warn=warnings.append), warnings


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        '{"version": 0, "gpus": []}',
        '{"version": true, "gpus": []}',
        '{"version": 1}',
        '{"version": 1, "gpus": [7]}',
        (
            '{"version": 1, "gpus": [{"first_seen": NaN, "last_seen": 1, "samples": [],'
            ' "incidents": []}]}'
        ),
        (
            '{"version": 1, "gpus": [{"first_seen": 1, "last_seen": 1, "samples": 5, "incidents":'
            " []}]}"
        ),
        (
            '{"version": 1, "gpus": [{"first_seen": 1, "last_seen": 1, "samples": [], "incidents":'
            ' [{"time": 1, "code": 79, "level": "critical"}]}]}'
        ),
        "[" * 100_000,
        "\udcff",
    ],
)
def test_a_file_that_cannot_be_understood_is_put_aside(tmp_path, content):
    path = tmp_path / "gpu.json"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    where, warnings = world()
    assert memory.read(str(path), 1.8e9, where, keep_broken=True) == history.Memory()
    if content == "null":
        return
    assert len(warnings) == 1 and "starts over" in warnings[0]
    assert os.listdir(tmp_path) == ["gpu.json.broken"]


def test_a_file_of_a_later_release_is_left_alone(tmp_path):
    path = tmp_path / "gpu.json"
    path.write_text('{"version": 2, "cards": {}}')
    where, dummy = world()
    with pytest.raises(history.FutureVersion, match="later release"):
        memory.read(str(path), 1.8e9, where, keep_broken=True)
    assert path.read_text() == '{"version": 2, "cards": {}}'


def test_history_as_text_and_cleared_by_name(tmp_path):
    node = Node()
    node.logged(95, text=", pid=1, name=x, Uncontained")
    node.run(gpu("GPU-a", ecc=Ecc(True, 7, 0)), gpu("GPU-b", OTHER, 1))
    path = str(tmp_path / "gpu.json")
    memory.store(path, node.memory)
    assert memory.lines(node.memory, node.now, time.gmtime) == [
        "GPU-a  NVIDIA H100, serial SGPU-a, last seen at 00000000:41:00.0 2027-01-15 08:00:00",
        "  1 incident in 30 days, remembered since 2027-01-15 08:00:00",
        "  2027-01-15 08:00:00  critical  Xid 95  pid=1, name=x, Uncontained",
        "  counters: corrected 7",
        "GPU-b  NVIDIA H100, serial SGPU-b, last seen at 00000000:61:00.0 2027-01-15 08:00:00",
        "  0 incidents in 30 days, remembered since 2027-01-15 08:00:00",
    ]
    where, dummy = world()
    with pytest.raises(errors.NotUsable, match="Known: GPU-a, GPU-b"):
        memory.clear(path, "GPU-x", where)
    assert memory.clear(path, "0000:61:00.0", where) == {}
    for dummy in range(2):
        assert memory.clear(path, "SGPU-a", where, check=True) == {"GPU-a": ["95"]}
    assert memory.clear(path, "SGPU-a", where) == {"GPU-a": ["95"]}
    assert memory.clear(path, "all", where) == {}
    content = memory.to_dict(memory.read(path, node.now, where))
    assert content["gpus"][0]["incidents"][0]["cleared"] is True
    assert content["gpus"][0]["last_seen"] == "2027-01-15T08:00:00+00:00"
    assert memory.lines(history.Memory(), 0.0, time.gmtime) == ["No GPU is remembered yet."]


# --- runs on the simulated driver -------------------------------------------------------------


def test_runs_on_the_simulated_driver(node, check, tmp_path):
    state = str(tmp_path / "state" / "gpu.json")
    node.booted(uptime=100_000.0)
    log = node.log("NVRM: Xid (PCI:0000:18:00): 95, pid=1, name=x, Uncontained")
    node.gpus("h100x8", gpus=[{"ecc.volatile.corrected": 10, "nvlink.3.error.crc_data": 9}])
    document = node.run(state_file=state, log_source=log)
    assert check(document, "gpu_history", "GPU 0")["message"].endswith("Xid 95")
    assert check(document, "gpu_corrected_errors", "GPU 0")["status"] == "pass"
    errors_of_links = [gpu["nvlink"]["errors"] for gpu in document["gpus"][:2]]
    assert errors_of_links == [[{"link": 3, "replay": 0, "recovery": 0, "crc": 9}], []]
    node.booted(uptime=100_300.0)
    node.gpus("h100x8", gpus=[{"ecc.volatile.corrected": 1_000_000}])
    checked = node.run(state_file=state, write=False, now=1_800_000_300.0)
    stored = os.stat(state).st_mtime_ns
    again = node.run(state_file=state, now=1_800_000_300.0)
    assert check(checked, "gpu_corrected_errors", "GPU 0")["status"] == "warning"
    assert check(again, "gpu_corrected_errors", "GPU 0")["status"] == "warning"
    assert again["gpus"][0]["history"]["corrected_errors_per_hour"] == 999_990.0
    assert os.stat(state).st_mtime_ns > stored, "check mode wrote nothing, the run did"
    assert sorted(os.listdir(tmp_path / "state")) == ["gpu.json", "gpu.json.lock"]


def test_a_run_that_cannot_keep_its_memory_checks_the_rest(node, check, tmp_path):
    path = tmp_path / "gpu.json"
    path.write_text('{"version": 99}')
    document = node.gpus("h100x8").run(state_file=str(path))
    assert check(document, "gpu_state_file")["status"] == "warning"
    assert document["exit_code"] == 1 and len(document["gpus"]) == 8
    document = node.run(state_file=str(tmp_path / "no" / "such" / "gpu.json"))
    assert "Can't make" in check(document, "gpu_state_file")["message"]
