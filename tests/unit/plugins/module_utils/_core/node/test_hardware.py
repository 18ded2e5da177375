# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hardware: kernel counters of other machines, answers of smartctl and nvme."""

from __future__ import annotations

import json
import os
import time

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import CommandFailed
from ansible_collections.mlops.fleet.plugins.module_utils._core.node import disks, hardware
from ansible_collections.mlops.fleet.plugins.module_utils._core.node.disks import DiskHealth
from ansible_collections.mlops.fleet.plugins.module_utils._core.node.run import run
from ansible_collections.mlops.fleet.plugins.module_utils._core.ports import CommandResult, World


def _run(world, given):
    return {
        (check["check"], check.get("subject")): check
        for check in run(given, world).to_dict()["checks"]
    }


def test_memory_errors_and_machine_checks(machine, options):
    given = options(checks=["memory_errors", "machine_checks"])
    for name, ce, ue in (("mc0", 50, 0), ("mc1", 5000, 0), ("mc2", 0, 1)):
        machine.put(f"/sys/devices/system/edac/mc/{name}/ce_count", f"{ce}\n")
        machine.put(f"/sys/devices/system/edac/mc/{name}/ue_count", f"{ue}\n")
    machine.put(
        "/proc/interrupts",
        "           CPU0       CPU1\n MCE:          1          2   Machine check exceptions\n MCP:"
        " 9 9 Machine check polls\n",
    )
    found = _run(machine.world, given)
    assert {
        subject: check["status"]
        for (name, subject), check in found.items()
        if name == "memory_errors"
    } == {
        "mc0": "pass",
        "mc1": "warning",
        "mc2": "critical",
    }
    assert found[("memory_errors", "mc1")]["value"] == 500, "per day, after ten days"
    assert (
        found[("machine_checks", None)]["status"],
        found[("machine_checks", None)]["value"],
    ) == ("warning", 3)


def _array(machine, name, **files):
    for file, text in {
        "level": "raid1",
        "array_state": "clean",
        "degraded": "0",
        "sync_action": "idle",
        "raid_disks": "2",
        **files,
    }.items():
        machine.put(f"/sys/block/{name}/md/{file}", text + "\n")


def test_raid_and_zfs_and_nvme(machine, options):
    _array(machine, "md0")
    _array(machine, "md1", degraded="1")
    _array(machine, "md2", degraded="1", sync_action="recover")
    _array(machine, "md3", array_state="inactive")
    for name, state in (("tank", "ONLINE"), ("scratch", "DEGRADED")):
        machine.put(f"/proc/spl/kstat/zfs/{name}/state", state + "\n")
    for name, version in (
        ("md4", "external:imsm"),
        ("md5", "external:/md4/0"),
    ):  # Intel VROC: the set of disks, and an array of it
        _array(
            machine,
            name,
            metadata_version=version,
            array_state="inactive" if name == "md4" else "active",
            level="container" if name == "md4" else "raid5",
        )
    machine.put("/sys/class/nvme/nvme0/state", "live\n")
    machine.put("/sys/class/nvme/nvme1/state", "dead\n")
    found = _run(machine.world, options(checks=["raid", "zfs_pool", "nvme_state"]))
    assert {subject: check["status"] for (_name, subject), check in found.items()} == {
        "md0": "pass",
        "md1": "critical",
        "md2": "warning",
        "md3": "critical",
        "md5": "pass",
        "tank": "pass",
        "scratch": "critical",
        "nvme0": "pass",
        "nvme1": "critical",
    }


def test_a_machine_without_any_of_it_skips(machine, options):
    found = _run(machine.world, options(checks=["hardware"]))
    assert {check["status"] for check in found.values()} == {"skipped"} and len(found) == 6


#: Cut from answers of smartctl 7.3 (ATA and NVMe).
ATA = {
    "smart_status": {"passed": True},
    "ata_smart_attributes": {
        "table": [
            {"id": 5, "name": "Reallocated_Sector_Ct", "raw": {"value": 0}, "when_failed": ""}
        ]
    },
}
PENDING = {"id": 197, "name": "Current_Pending_Sector", "raw": {"value": 8}, "when_failed": ""}
NVME = {
    "smart_status": {"passed": True},
    "nvme_smart_health_information_log": {
        "critical_warning": 0,
        "percentage_used": 3,
        "media_errors": 0,
        "available_spare": 100,
    },
}


def _said(text):
    return {"smartctl": {"messages": [{"string": text, "severity": "error"}], "exit_status": 2}}


@pytest.mark.parametrize(
    ("answer", "refused", "health_status", "wear_status"),
    [
        (ATA, 0, "pass", None),
        ({**ATA, "smart_status": {"passed": False}}, 0, "critical", None),
        ({**ATA, "ata_smart_attributes": {"table": [PENDING]}}, 0, "warning", None),
        (NVME, 0, "pass", "pass"),
        (
            {
                **NVME,
                "nvme_smart_health_information_log": {"critical_warning": 4, "percentage_used": 95},
            },
            0,
            "warning",
            "warning",
        ),
        (
            {"smartctl": {"messages": [{"string": "Device is in STANDBY mode, exit(2)"}]}},
            2,
            "skipped",
            None,
        ),
        (_said("/dev/sda: Unknown USB bridge [0x1234:0x5678 (0x100)]"), 1, "skipped", None),
        (
            _said(
                "Smartctl open device: /dev/sda failed: DELL or MegaRaid controller, please try"
                " adding '-d megaraid,N'"
            ),
            2,
            "skipped",
            None,
        ),
        (
            _said("Smartctl open device: /dev/sda failed: Operation not permitted"),
            2,
            "skipped",
            None,
        ),  # a container
        (
            _said("Smartctl open device: /dev/sda failed: No such device or address"),
            2,
            "unknown",
            None,
        ),  # it is gone
        ({**ATA, "endurance_used": {"current_percent": 93}}, 0, "pass", "warning"),
    ],
)
@pytest.mark.skipif(os.geteuid() != 0, reason="only root asks disks")
def test_what_disks_say(machine, options, answer, refused, health_status, wear_status):
    machine.put("/sys/block/sda/size", "1\n")
    machine.put("/sys/block/loop0/size", "1\n")
    os.chmod(machine.put("/usr/sbin/smartctl", "#!/bin/sh\n"), 0o755)
    asked = []

    def smartctl(argv, timeout=30.0, env=None, stdin=None):
        asked.append(argv)
        assert argv[1:] == ["-H", "-A", "-j", "-n", "standby", "/dev/sda"] and timeout < 5
        return CommandResult(refused, json.dumps(answer), "")

    found = _run(
        World(run=smartctl, clock=machine.world.clock, root=str(machine.root), environ={}),
        options(checks=["disk_health", "disk_wear"]),
    )
    assert found[("disk_health", "sda")]["status"] == health_status
    assert found.get(("disk_wear", "sda"), {}).get("status") == wear_status
    assert not [key for key in found if key[1] not in ("sda",)]


def test_nvme_cli_speaks_two_dialects():
    assert disks.read_nvme(
        {"critical_warning": 0, "percent_used": 7, "media_errors": 0}
    ) == DiskHealth(True, 7)
    found = disks.read_nvme(
        {
            "critical_warning": {"value": 1, "available_spare": 1},
            "percentage_used": 99,
            "media_errors": 2,
        }
    )
    assert found == DiskHealth(False, 99, ("spare below its threshold", "2 media errors"))


def test_an_old_smartctl_is_no_fault(machine):
    os.chmod(machine.put("/usr/sbin/smartctl", "#!/bin/sh\n"), 0o755)
    world = World(
        run=lambda argv, **more: CommandResult(1, "=======> UNRECOGNIZED OPTION: j\n", ""),
        root=str(machine.root),
        environ={},
    )
    assert "too old" in disks.ask_disk(world, "sda", 1).skipped


def test_a_container_asks_only_the_disks_it_has(machine):
    for name in ("sda", "sdb", "loop0", "vda"):
        machine.put(f"/sys/block/{name}/size", "1\n")
    assert hardware.disks(machine.world) == ["sda", "sdb"]
    machine.put("/run/.containerenv", "")
    machine.put("/dev/sdb", "")
    assert hardware.disks(machine.world) == ["sdb"]


def test_nvme_without_the_right_is_no_fault_and_a_lost_disk_is(machine):
    def world(text):
        return World(
            run=lambda argv, **more: CommandResult(1, "", text), root=str(machine.root), environ={}
        )

    assert (
        "Operation not permitted"
        in disks.ask_disk(world("passthru: Operation not permitted\n"), "nvme0n1", 1).skipped
    )
    with pytest.raises(CommandFailed, match="No such device"):
        disks.ask_disk(world("/dev/nvme0n1: No such device\n"), "nvme0n1", 1)


def test_an_array_that_holds_its_lock_costs_the_kernels_hardware_checks_only(
    machine, options, monkeypatch
):
    monkeypatch.setattr(hardware, "observe", lambda world: time.sleep(30))
    found = _run(machine.world, options(checks=["hardware", "limits"], timeout=0.5))
    assert (
        found[("raid", None)]["status"] == "unknown"
        and found[("zfs_pool", None)]["status"] == "skipped"
        and ("process_ids", None) in found
    )
    document = run(options(checks=["hardware"], timeout=0.5), machine.world)
    assert document.summary.status == "critical", "storage"


def test_garbage_is_no_verdict():
    with pytest.raises(CommandFailed, match="no JSON"):
        disks._json("Segmentation fault", "smartctl")
