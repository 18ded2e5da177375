# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Expected hardware: what a machine made of files has, against what it must have."""

from __future__ import annotations

import json

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import OptionError
from ansible_collections.mlops.fleet.plugins.module_utils._core.node import expected, run
from ansible_collections.mlops.fleet.plugins.module_utils._core.node.expectations import parse_size

FILE = "/var/lib/mlops-fleet/expected-hardware.json"
GIB = 2**30
NVME = 7501476528  # 512-byte sectors of a disk of 3.84 TB


@pytest.fixture
def node(machine):
    """A node with 4 CPUs, 64 GiB, 2 memory modules, 2 disks, 2 links, 2 GPUs and a driver."""
    machine.put("/proc/stat", "cpu 1\ncpu0 1\ncpu1 1\ncpu2 1\ncpu3 1\nbtime 5\n")
    machine.put("/proc/meminfo", f"MemTotal: {64 * GIB // 1024} kB\nSwapTotal: 8388604 kB\n")
    for dimm in ("dimm0", "dimm1"):
        machine.put(f"/sys/devices/system/edac/mc/mc0/{dimm}/size", "32768\n")
    machine.put("/sys/devices/system/edac/mc/mc0/dimm2/size", "0\n")  # an empty slot
    for disk in ("nvme0n1", "nvme1n1"):
        machine.put(f"/sys/block/{disk}/size", f"{NVME}\n")
    machine.put("/sys/block/sdz/size", "1000\n")
    machine.put("/sys/block/sdz/removable", "1\n")
    for link in ("eth0", "eth1"):
        machine.put(f"/sys/class/net/{link}/device/vendor", "0x15b3\n")
        machine.put(f"/sys/class/net/{link}/speed", "200000\n")
    machine.put("/sys/class/net/eth0v0/device/physfn/vendor", "0x15b3\n")
    machine.put("/sys/class/net/eth0v0/speed", "200000\n")
    machine.put("/sys/class/net/lo/speed", "1\n")
    for slot in ("0000:01:00.0", "0000:02:00.0"):
        machine.put(f"/sys/bus/pci/devices/{slot}/vendor", "0x10de\n")
        machine.put(f"/sys/bus/pci/devices/{slot}/class", "0x030200\n")
    machine.put("/sys/bus/pci/devices/0000:03:00.0/vendor", "0x10de\n")
    machine.put("/sys/bus/pci/devices/0000:03:00.0/class", "0x068000\n")  # an NVSwitch
    machine.put("/sys/module/nvidia/version", "570.86.15\n")
    machine.put("/sys/class/dmi/id/bios_version", "2.4.4\n")
    for port, version in (("mlx5_0", "28.39.1002"), ("mlx5_1", "28.38.1900")):
        machine.put(f"/sys/class/infiniband/{port}/board_id", "MT_0000000838\n")
        machine.put(f"/sys/class/infiniband/{port}/fw_ver", f"{version}\n")
    machine.put("/sys/class/nvme/nvme0/model", "SAMSUNG MZQL23T8HCLS-00A07   \n")
    machine.put("/sys/class/nvme/nvme0/firmware_rev", "GDC5902Q\n")
    machine.put("/sys/module/nvidia_peermem/refcnt", "0\n")
    machine.put("/proc/sys/kernel/osrelease", "6.8.0-1\n")
    machine.put("/lib/modules/6.8.0-1/modules.builtin", "kernel/drivers/infiniband/ib-core.ko\n")
    machine.put("/opt/lib/libcuda.so.1", "")
    cache = machine.put("/etc/ld.so.cache", "")
    cache.write_bytes(b"glibc\0/gone/libnccl.so.2\0libcuda.so.1\0/opt/lib/libcuda.so.1\0")
    return machine


def decided(node, options, **given):
    """Return status and message by subject; nothing else is asked."""
    document = run.run(options(checks=["expected_hardware"], **given), node.world).to_dict()
    assert {check["check"] for check in document["checks"]} <= {"expected_hardware"}
    return {
        check.get("subject"): (check["status"], check["message"]) for check in document["checks"]
    }


#: What is expected, and the subject, status and part of the message of the check.
EXPECTED = [
    ({"cpus": 4}, "cpus", "pass", "4 of 4"),
    ({"cpus": 8}, "cpus", "critical", "4 of 8"),
    ({"cpus": 2}, "cpus", "pass", "4 of 2"),
    ({"memory": "64G"}, "memory", "pass", "64.0 GiB of 64.0 GiB"),
    ({"memory": str(64 * GIB)}, "memory", "pass", ""),
    ({"memory": "65.9 GiB"}, "memory", "pass", ""),
    ({"memory": "66.1 GiB"}, "memory", "critical", "64.0 GiB of 66.1 GiB"),
    ({"dimms": 2}, "dimms", "pass", "2 of 2"),
    ({"dimms": 3}, "dimms", "critical", "2 of 3"),
    ({"swap": "8G"}, "swap", "pass", ""),
    ({"swap": "16G"}, "swap", "warning", "8.0 GiB of 16.0 GiB"),
    ({"gpus": 2}, "gpus", "pass", "2 of 2"),
    ({"gpus": 3}, "gpus", "critical", "2 of 3"),
    ({"disks": [{"size": "3.84TB", "count": 2}]}, "disks 3.5 TiB", "pass", "2 of 2"),
    ({"disks": [{"size": "3.84TB", "count": 3}]}, "disks 3.5 TiB", "critical", "2 of 3"),
    ({"disks": [{"size": "7.68TB"}]}, "disks 7.0 TiB", "critical", "0 of 1"),
    ({"links": [{"speed": 100000, "count": 2}]}, "links 100000 Mbit/s", "pass", "2 of 2"),
    ({"links": [{"speed": 400000}]}, "links 400000 Mbit/s", "critical", "0 of 1"),
    ({"kernel_modules": ["nvidia-peermem"]}, "kernel module nvidia-peermem", "pass", ""),
    ({"kernel_modules": ["ib_core"]}, "kernel module ib_core", "pass", "present"),
    ({"kernel_modules": ["gdrdrv"]}, "kernel module gdrdrv", "critical", "missing"),
    ({"libraries": ["libcuda.so.1"]}, "library libcuda.so.1", "pass", "present"),
    ({"libraries": ["libcuda.so"]}, "library libcuda.so", "critical", "missing"),
    ({"libraries": ["libnccl.so.2"]}, "library libnccl.so.2", "critical", "missing"),
    ({"libraries": ["/opt/lib/libcuda.so.1"]}, "library /opt/lib/libcuda.so.1", "pass", ""),
    ({"kernel": "6.8.*"}, "kernel", "pass", "6.8.0-1"),
    ({"kernel": "5.15.0-1"}, "kernel", "warning", "6.8.0-1, expected 5.15.0-1"),
    ({"driver": "570.86.15"}, "driver", "pass", ""),
    ({"driver": "535.*"}, "driver", "warning", "expected 535.*"),
    ({"firmware": {"bios": "2.4.*"}}, "firmware bios", "pass", "2.4.4"),
    ({"firmware": {"bmc": "1.*"}}, "firmware bmc", "warning", "none, expected 1.*"),
    (
        {"firmware": {"MT_0000000838": "28.39.1002"}},
        "firmware MT_0000000838",
        "warning",
        "28.38.1900, 28.39.1002, expected 28.39.1002",
    ),
]


def test_what_is_expected_is_compared(node, options):
    for wanted, subject, status, part in EXPECTED:
        checks = decided(node, options, expected_hardware=wanted)
        assert list(checks) == [subject], wanted
        assert checks[subject][0] == status and part in checks[subject][1], wanted


def test_each_link_counts_once(node, options):
    node.put("/sys/class/net/eth2/device/vendor", "0x8086\n")
    node.put("/sys/class/net/eth2/speed", "10000\n")
    links = [{"speed": 10000, "count": 2}, {"speed": 200000, "count": 2}]
    checks = decided(node, options, expected_hardware={"links": links})
    assert checks["links 200000 Mbit/s"][0] == "pass"
    assert checks["links 10000 Mbit/s"] == (
        "critical",
        "Network interfaces of 10000 Mbit/s or more: 1 of 2 expected",
    )


def test_what_can_not_be_counted_is_unknown(machine, options):
    checks = decided(machine, options, expected_hardware={"dimms": 2, "gpus": 0, "memory": "1G"})
    assert {subject: status for subject, (status, dummy) in checks.items()} == {
        "dimms": "unknown",
        "gpus": "unknown",
        "memory": "unknown",
    }


def test_nothing_is_expected_by_default(node, options):
    assert decided(node, options) == {}
    assert decided(node, options, expected_hardware={}) == {
        None: ("skipped", "Expected hardware: nothing is expected")
    }


def test_what_was_learned_is_expected(node, options):
    node.put(FILE, "")
    content = expected.learn(node.world, options())
    assert content == json.loads((node.root / FILE[1:]).read_text())
    assert content["hostname"] == "n1"
    assert content["expected_hardware"] == {
        "cpus": 4,
        "memory": 64 * GIB,
        "dimms": 2,
        "swap": 8388604 * 1024,
        "disks": [{"size": NVME * 512, "count": 2}],
        "links": [{"speed": 200000, "count": 2}],
        "gpus": 2,
        "kernel_modules": ["ib_core", "nvidia", "nvidia_peermem"],
        "libraries": ["libcuda.so.1"],
        "kernel": "6.8.0-1",
        "driver": "570.86.15",
        "firmware": {
            "bios": "2.4.4",
            "MT_0000000838": "28.38.1900, 28.39.1002",
            "SAMSUNG MZQL23T8HCLS-00A07": "GDC5902Q",
        },
    }
    assert {status for status, dummy in decided(node, options).values()} == {"pass"}
    (node.root / "sys/block/nvme1n1/size").unlink()
    faults = {key: value for key, value in decided(node, options).items() if value[0] != "pass"}
    assert faults == {"disks 3.5 TiB": ("critical", "Disks of 3.5 TiB: 1 of 2 expected")}
    # An option takes precedence, key by key.
    given = {"disks": [{"size": "3.84TB", "count": 1}], "cpus": 5}
    checks = decided(node, options, expected_hardware=given)
    assert (checks["disks 3.5 TiB"][0], checks["cpus"][0], checks["gpus"][0]) == (
        "pass",
        "critical",
        "pass",
    )


def test_facts_are_a_value_of_the_option(node, options):
    given = options(checks=["expected_hardware"], hardware_facts=True)
    hardware = run.run(given, node.world).to_dict()["hardware"]
    assert hardware["disks"] == [{"size": NVME * 512, "count": 2}]
    checks = decided(node, options, expected_hardware=hardware)
    assert {status for status, dummy in checks.values()} == {"pass"}


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"expected_hardware": {"cpu": 3}}', '{"expected_hardware": [1]}']
)
def test_a_file_that_can_not_be_used_is_unknown(node, options, content):
    node.put(FILE, content)
    ((status, message),) = decided(node, options).values()
    assert status == "unknown" and "expected-hardware.json" in message


@pytest.mark.parametrize(
    ("text", "size"),
    [("5", 5), ("1K", 1024), ("1.5GiB", 3 * 2**29), ("2 TB", 2 * 10**12), ("1gb", 10**9)],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "G", "-1", "1X", "nan"])
def test_what_is_no_size_is_refused(options, text):
    with pytest.raises((OptionError, ValueError)):
        parse_size(text)
        options(expected_hardware={"memory": text})
