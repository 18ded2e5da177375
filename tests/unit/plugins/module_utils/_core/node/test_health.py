# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node check as a whole, on this machine and on machines that lack nearly everything."""

from __future__ import annotations

import json
import os
import sys
import time

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import MissingLibrary
from ansible_collections.mlops.fleet.plugins.module_utils._core.node import gpus, probes
from ansible_collections.mlops.fleet.plugins.module_utils._core.node.checks import GROUPS
from ansible_collections.mlops.fleet.plugins.module_utils._core.node.options import NodeOptions
from ansible_collections.mlops.fleet.plugins.module_utils._core.node.run import run
from ansible_collections.mlops.fleet.plugins.module_utils._core.ports import World
from ansible_collections.mlops.fleet.plugins.module_utils._core.system import isolate
from ansible_collections.mlops.fleet.plugins.module_utils._core.verdict import STATUSES

EVERY = {name for names in GROUPS.values() for name in names}


def _valid(document):
    """Check the contract of a document: names, order, counts, plain data."""
    assert list(document)[:6] == [
        "timestamp",
        "hostname",
        "checks",
        "summary",
        "status",
        "exit_code",
    ]
    groups = list(GROUPS)
    order = [
        groups.index(
            next((group for group, names in GROUPS.items() if check["check"] in names), "gpu")
        )
        for check in document["checks"]
    ]
    assert order == sorted(order), "checks come in the order of their groups"
    for check in document["checks"]:
        assert check["status"] in STATUSES and check["message"] and "\n" not in check["message"]
        assert check["check"] in EVERY or check["check"].startswith("gpu_")
    keys = [(check["check"], check.get("subject")) for check in document["checks"]]
    assert len(keys) == len(set(keys)), "no check twice"
    counted = [check["status"] for check in document["checks"] if check["status"] != "skipped"]
    assert document["summary"]["total"] == len(counted)
    assert document["recommendation"] in ("none", "inspect", "drain", "reboot")
    assert json.loads(json.dumps(document)) == document
    return document


@pytest.fixture
def psutil_there():
    pytest.importorskip("psutil")


def test_this_machine(world, options, psutil_there):
    document = _valid(run(options(), world).to_dict())
    found = {check["check"] for check in document["checks"]}
    assert {
        "disk_usage",
        "inode_usage",
        "memory_usage",
        "cpu_load",
        "uptime",
        "reboot_required",
        "oom_kills",
        "process_ids",
    } <= found
    again = run(options(), world).to_dict()
    assert [(check["check"], check.get("subject")) for check in again["checks"]] == [
        (check["check"], check.get("subject")) for check in document["checks"]
    ]


def test_a_machine_that_lacks_everything(machine, options):
    """No systemd, journal, PSI, GPU, network, mounts, programs: skipped or unknown, never a crash.

    (The clock is always there.)
    """
    document = _valid(
        run(options(skip=["memory", "network", "time_sync"]), machine.world).to_dict()
    )
    assert document["summary"]["failed"] == 0
    assert {
        check["check"]: check["status"]
        for check in document["checks"]
        if check["status"] not in ("skipped", "pass")
    } == {
        "cpu_load": "unknown",
        "file_descriptors": "unknown",
        "process_ids": "unknown",
    }


def test_an_empty_root_even_without_proc(tmp_path, clock, options, psutil_there):
    world = World(
        run=lambda *a, **k: pytest.fail("no program is there"),
        clock=clock,
        root=str(tmp_path),
        environ={},
    )
    document = _valid(run(options(), world).to_dict())
    assert document["summary"]["failed"] == 0 and document["status"] == "warning"


#: Every file that is read of the kernel and of /etc.
READ = """/proc/uptime /proc/loadavg /proc/stat /proc/meminfo /proc/vmstat /proc/pressure/memory /proc/pressure/io /proc/pressure/cpu /proc/interrupts
/proc/sys/fs/file-nr /proc/sys/kernel/pid_max /proc/sys/kernel/threads-max /proc/sys/net/netfilter/nf_conntrack_count /proc/net/dev
/proc/sys/net/netfilter/nf_conntrack_max /proc/sys/kernel/tainted /proc/sys/kernel/osrelease /proc/sys/kernel/random/boot_id /proc/1/stat /proc/9/stat
/proc/net/route /proc/net/ipv6_route /proc/net/arp /proc/self/mountinfo /etc/fstab /etc/resolv.conf /sys/class/net/eth0/flags /sys/class/net/eth0/carrier
/sys/class/infiniband/mlx5_0/ports/1/state /sys/class/infiniband/mlx5_0/ports/1/rate /sys/devices/system/edac/mc/mc0/ce_count /sys/block/md0/md/level
/sys/block/md0/md/degraded /proc/spl/kstat/zfs/arcstats /proc/spl/kstat/zfs/tank/state /sys/class/nvme/nvme0/state /dev/kmsg /run/reboot-required""".split()


GARBAGE = [
    "",
    "\n\n",
    "garbage\n" * 3,
    "-1 -2 -3 -4 -5 -6 -7 -8 -9\n",
    "9" * 30,
    "\0\ufffd",
    ": " * 40,
    "nan inf 1e400 0x 00000000 x x 00000000\n" * 2,
]


@pytest.mark.parametrize("content", GARBAGE)
def test_a_machine_whose_files_are_garbage(machine, options, psutil_there, content):
    for path in READ:
        machine.put(path, content)
    _valid(run(options(skip=["dns"]), machine.world).to_dict())


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to stop being it")
def test_as_nobody(world, options, psutil_there):
    def as_nobody():
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        return run(options(security_updates=False), world).to_dict()

    outcome = isolate.call(as_nobody, 20)
    assert outcome.error is None, outcome.error
    document = _valid(outcome.value)
    assert not [
        check
        for check in document["checks"]
        if check["check"] in ("mount_responds", "disk_health") and check["status"] == "critical"
    ]


def test_groups_and_names_choose(machine, options):
    assert {
        check["check"]
        for check in run(options(checks=["limits", "uptime"]), machine.world).to_dict()["checks"]
    } == {
        "file_descriptors",
        "process_ids",
        "conntrack",
        "uptime",
    }
    assert (
        run(options(checks=["limits"], skip=["limits"]), machine.world).to_dict()["summary"][
            "health_score"
        ]
        is None
    )


def test_missing_psutil_is_its_own_error(world, options, monkeypatch):
    monkeypatch.setitem(sys.modules, "psutil", None)
    with pytest.raises(MissingLibrary):
        run(options(), world)


def test_gpus_are_absent_expected_or_hinted_at(machine, options):
    given = options(checks=["gpu"])
    assert [(check.check, check.status) for check in run(given, machine.world).checks] == [
        ("gpu_driver", "skipped")
    ]
    expected = run(options(checks=["gpu"], gpu_expected_count=8), machine.world).to_dict()
    assert expected["status"] == "critical", (
        "a node that is said to have GPUs and shows none is sick"
    )
    assert gpus.traces(machine.world) is False
    machine.put("/sys/bus/pci/devices/0000:17:00.0/vendor", "0x10de\n")
    assert gpus.traces(machine.world) is True


def test_own_gpu_temperatures_go_before_the_devices(options, machine, monkeypatch):
    import importlib

    door = importlib.import_module(gpus.__package__.rpartition(".")[0] + ".gpu.api")
    seen = []

    def gpu_checks(world, timeout, count, warning, critical, defaults):
        seen.append((warning, critical, defaults))
        return []

    monkeypatch.setattr(door, "gpu_checks", gpu_checks)
    for given in ({}, {"gpu_temperature_warning": 60}, {"gpu_temperature_critical": 95}):
        gpus.checks(options(gpu_expected_count=2, **given), machine.world)
    # The default of the other limit does not become the user's word.
    assert seen == [
        (None, None, (75.0, 85.0)),
        (60.0, None, (60.0, 85.0)),
        (None, 95.0, (75.0, 95.0)),
    ]


def test_files_that_cannot_be_written_are_checks_and_check_mode_writes_none(
    machine, options, tmp_path
):
    given = options(
        checks=["limits"],
        textfile=str(tmp_path / "no" / "node.prom"),
        state_file=str(tmp_path / "no" / "such" / "state.json"),
    )
    found = {check.check: check.status for check in run(given, machine.world).checks}
    assert (found["textfile"], found["state_file"]) == (
        "warning",
        "warning",
    ) and "file_descriptors" in found
    good = options(
        checks=["limits"],
        textfile=str(tmp_path / "node.prom"),
        state_file=str(tmp_path / "state.json"),
    )
    run(good, machine.world, check=True)
    assert os.listdir(tmp_path) == ["machine"]
    run(good, machine.world)
    assert sorted(os.listdir(tmp_path)) == ["machine", "node.prom", "state.json", "state.json.lock"]
    assert (
        'mlops_node_check_status{check="file_descriptors",subject=""} 3'
        in (tmp_path / "node.prom").read_text()
    )


def test_what_is_no_file_is_never_replaced_by_one(machine, options, tmp_path):
    """textfile: /dev/null must not end with a file in its place; a pipe that nobody writes must not
    hang the run.
    """
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    given = options(checks=["limits"], textfile=str(pipe), state_file=str(pipe))
    found = {check.check: check.message for check in run(given, machine.world).checks}
    assert (
        "is not a file" in found["textfile"]
        and "is not a file" in found["state_file"]
        and pipe.is_fifo()
    )
    assert "process_ids" in {check.check for check in run(given, machine.world, check=True).checks}


def test_stuck_processes_must_not_have_run(machine, monkeypatch):
    """Of three that can't be interrupted at both looks, one ran in between and one was replaced."""
    tail = " 1 1 1 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 {start} 0"
    status = "Name:\tx_ctxt_switches\nvoluntary_ctxt_switches:\t{count}\nnonvoluntary_ctxt_switches:\t0\n"
    for pid in (11, 12, 13):
        machine.put(f"/proc/{pid}/stat", f"{pid} (job) D" + tail.format(start=100))
        machine.put(f"/proc/{pid}/status", status.format(count=5))
    begun = time.monotonic()

    def later(seconds):
        machine.put("/proc/12/status", status.format(count=6))
        machine.put("/proc/13/stat", "13 (job) D" + tail.format(start=999))
        assert 0 < seconds <= probes.STUCK_SECONDS

    monkeypatch.setattr(probes.time, "sleep", later)
    document = run(
        NodeOptions.from_mapping({"checks": ["stuck_processes"]}), machine.world
    ).to_dict()
    assert (
        document["checks"][0]["details"] == {"processes": [{"pid": 11, "name": "job"}]}
        and time.monotonic() - begun < 1
    )
