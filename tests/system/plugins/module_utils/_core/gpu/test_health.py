# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The GPU part from end to end: unmodified pynvml on the simulated library, verdicts from the
device's own words.
"""

from __future__ import annotations

import csv
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[5]


def bad(document):
    return [
        (one["check"], one.get("subject"), one["status"])
        for one in document["checks"]
        if one["status"] not in ("pass", "skipped")
    ]


# --- scenarios as shipped
# ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["h100x8", "a100x4", "l40s", "rtx4080", "driver470"])
def test_healthy(node, name):
    (node.root / "proc" / "1").mkdir()  # uses the consumer card
    document = node.gpus(name).run()
    assert not [one for one in document["checks"] if "domain" in one], "nobody is at fault"
    assert 0 < document["checks"][0]["duration_ms"] < 30000
    assert (
        bad(document),
        document["status"],
        document["exit_code"],
        document["summary"]["health_score"],
    ) == ([], "pass", 0, 100.0)


@pytest.mark.parametrize(
    ("name", "expected", "action"),
    [
        (
            "faulty",
            {"gpu_remapped_rows", "gpu_ecc", "gpu_temperature", "gpu_throttling"},
            "reset_gpu",
        ),
        ("lost", {"gpu_state"}, "reboot"),
        ("lost_midway", {"gpu_state"}, "reboot"),
        ("dead_handle", {"gpu_state"}, "reboot"),
        ("recovery_reset", {"gpu_state"}, "reset_gpu"),
        ("remap_failure", {"gpu_remapped_rows"}, "inspect"),
        ("nvlink_down", {"gpu_nvlink"}, "inspect"),
        ("h100_margin", {"gpu_temperature", "gpu_throttling"}, "inspect"),
        ("version_mismatch", {"gpu_driver"}, "reboot"),
        ("no_driver", {"gpu_driver"}, "inspect"),
    ],
)
def test_broken_is_critical_and_names_the_reason(node, name, expected, action):
    document = node.gpus(name).run()
    critical = [one for one in document["checks"] if one["status"] == "critical"]
    assert {one["check"] for one in critical} == expected
    assert critical[0]["action"] == action
    assert document["exit_code"] == 2
    assert document["summary"]["health_score"] < 50


def test_narrow_pcie_is_a_warning(node, check):
    document = node.gpus("pcie_narrow").run()
    assert "x4 instead of x16" in check(document, "gpu_pcie", "GPU 0")["message"]
    assert document["exit_code"] == 1


def test_idle_consumer_card_in_generation_1_is_fine_and_a_busy_one_is_not(node, check):
    assert check(node.gpus("rtx4080").run(), "gpu_pcie")["status"] == "pass"
    node.gpus("rtx4080", gpus=[{"util.gpu": 85, "pstate": 2}])
    found = check(node.run(), "gpu_pcie")
    assert (found["status"], found["message"]) == (
        "warning",
        "GPU 0: PCIe generation 1 instead of 4",
    )


def test_a_lost_gpu_does_not_hide_the_other(node, check):
    document = node.gpus("lost").run()
    assert check(document, "gpu_temperature", "GPU 0")["status"] == "pass"
    assert [(gpu["id"], gpu["status"]) for gpu in document["gpus"]] == [
        (0, "pass"),
        (1, "critical"),
    ]


def test_a_lost_gpu_is_placed_by_the_address_that_is_left(node, check):
    node.gpus("lost").pci("0000:18:00.0", "0000:2a:00.0")
    document = node.run(
        log_source=node.log("NVRM: Xid (PCI:0000:2a:00): 79, pid=1, GPU has fallen off the bus.")
    )
    assert (
        check(document, "gpu_state", "GPU 1")["message"]
        == "GPU 1: the GPU at 0000:2a:00 is lost (fallen off the bus or not answering)"
    )
    assert check(document, "gpu_xid", "GPU 1")["action"] == "reboot"


def test_values_and_their_units(node):
    node.gpus(
        "h100x8_busy",
        gpus=[
            {
                "temp.gpu": 72,
                "util.gpu": 85,
                "util.memory": 90,
                "memory.used": "15000M",
                "power.usage": 250400,
                "procs.compute": f"{os.getpid()}:512M",
            }
        ],
    )
    gpu = node.run()["gpus"][0]
    assert {
        name: gpu[name]
        for name in (
            "id",
            "temp",
            "util_gpu",
            "util_mem",
            "mem_used",
            "mem_total",
            "power_draw",
            "power_limit",
        )
    } == {
        "id": 0,
        "temp": 72,
        "util_gpu": 85,
        "util_mem": 90,
        "mem_used": 15000,
        "mem_total": 81559,
        "power_draw": 250.4,
        "power_limit": 700.0,
    }
    assert gpu["processes"] == [{"pid": os.getpid(), "mem_used": 512}]
    assert gpu["bus_id"] == "00000000:18:00.0"


def test_what_the_device_does_not_have_is_null_not_zero(node):
    gpu = node.gpus(gpus=[{"name": "NVIDIA Bare", "uuid": "GPU-1"}]).run()["gpus"][0]
    for name in (
        "temp",
        "temp_memory",
        "margin",
        "fan",
        "util_gpu",
        "util_mem",
        "mem_used",
        "mem_total",
        "power_draw",
        "power_limit",
        "nvlink",
        "remap",
    ):
        assert gpu[name] is None, name


def test_eight_gpus_stay_well_below_60_kb(node):
    assert len(json.dumps(node.gpus("h100x8_busy").run())) < 40_000


@pytest.mark.parametrize("branch", [470, 525, 535, 570, 590])
def test_what_a_branch_does_not_have_is_no_fault(node, branch):
    document = node.gpus(
        "h100x8", system={"driver_profile": branch, "driver_version": f"{branch}.1"}
    ).run()
    gpu = document["gpus"][7]
    assert (
        document["status"],
        document["driver"]["version"],
        gpu["temp"],
        gpu["clock_reasons"],
    ) == ("pass", f"{branch}.1", 41, ["idle"])
    assert gpu["mem_used"] == (4 if branch > 470 else 555), (
        "the first call counts what the driver reserves"
    )
    assert [gpu[name] is None for name in ("margin", "fabric", "recovery_action")] == [
        branch < 570
    ] * 3
    assert (gpu["sram_threshold"] is None) == (branch < 535)


def test_where_one_call_is_gone_the_other_gives_the_value(node):
    node.gpus(
        "l40s",
        system={"nvmlDeviceGetTemperature": "!DEPRECATED"},
        gpus=[{"temp.gpu": 55, "power.enforced_limit": None, "power.limit": 275000}],
    )
    gpu = node.quick()["gpus"][0]
    assert (gpu["temp"], gpu["power_limit"]) == (55, 275.0)


def test_old_driver_without_margin_uses_absolute_thresholds(node, check):
    node.gpus(
        "driver470",
        gpu={"temp.gpu": 91, "temp.threshold.slowdown": 95, "temp.threshold.gpu_max": 87},
    )
    found = check(node.run(), "gpu_temperature")
    assert (found["status"], found["threshold_source"], found["warn"], found["crit"]) == (
        "warning",
        "device",
        87,
        95,
    )


# --- count and presence
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expected", "status"), [(8, "pass"), (9, "critical"), (7, "warning"), (0, "warning")]
)
def test_expected_count(node, check, expected, status):
    document = node.gpus("h100x8").run(expected_count=expected)
    assert check(document, "gpu_count")["status"] == status
    assert check(document, "gpu_count")["threshold_source"] == "user"


def test_no_gpu_is_said_plainly_and_is_no_error(node):
    for pynvml in (True, False):
        document = node.run(library=False, pynvml=pynvml)
        assert (document["status"], document["exit_code"], document["gpus"]) == ("skipped", 0, [])
        assert document["checks"][0]["message"].startswith("No NVIDIA GPU on this node")


def test_no_gpu_where_some_are_expected_is_critical(node, check):
    document = node.run(library=False, expected_count=2)
    assert (document["status"], document["exit_code"]) == ("critical", 2)
    assert "2 GPUs expected" in check(document, "gpu_driver")["message"]


def test_gpu_on_the_bus_without_driver_is_critical(node, check):
    node.pci("0000:05:00.0", driver="nouveau")
    document = node.run(library=False)
    assert (
        check(document, "gpu_driver")["message"]
        == "1 NVIDIA GPU on the PCI bus (held by nouveau), but the NVIDIA driver is not installed"
    )
    assert document["exit_code"] == 2


def test_audio_functions_other_vendors_and_gpus_of_virtual_machines_are_no_gpus_of_ours(node):
    node.pci("0000:05:00.1", kind="0x040300").pci("0000:06:00.0", vendor="0x1002").pci(
        "0000:07:00.0", driver="vfio-pci"
    )
    assert node.run(library=False)["status"] == "skipped"


def test_driver_installed_on_a_node_said_to_have_no_gpu(node):
    assert node.gpus("no_driver").run(expected_count=0)["status"] == "skipped"


def test_gpu_on_the_bus_of_a_node_said_to_have_none(node):
    document = node.pci("0000:05:00.0").run(library=False, expected_count=0)
    assert (document["status"], document["checks"][0]["status"]) == ("warning", "warning")


def test_gpu_on_the_bus_that_the_driver_lost_is_named(node, check):
    node.gpus("faulty").pci("0000:18:00.0", "0000:2a:00.0", "0000:3b:00.0")
    found = check(node.run(), "gpu_count")
    assert (found["status"], found["value"]) == ("critical", 2)
    assert found["message"] == "2 GPUs found; on the PCI bus, but not in the driver: 0000:3b:00.0"
    found = check(node.run(expected_count=3), "gpu_count")
    assert (found["status"], found["message"]) == (
        "critical",
        "2 GPUs found, 3 expected; on the PCI bus, but not in the driver: 0000:3b:00.0",
    )
    inside = check(node.run(world_env={"NVIDIA_VISIBLE_DEVICES": "0,1"}), "gpu_count")
    assert inside["status"] == "pass", "a container sees the whole bus and only its share of GPUs"


def test_pending_driver_update(node, check):
    path = node.root / "sys/module/nvidia"
    path.mkdir(parents=True)
    (path / "version").write_text("580.1\n")
    assert check(node.gpus("h100x8").run(), "gpu_driver")["action"] == "reboot"


# --- temperature
# -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "options", "status", "source"),
    [
        ({"temp.gpu": 41, "temp.margin": 46}, {}, "pass", "device"),
        ({"temp.gpu": 83, "temp.margin": 5}, {}, "warning", "device"),
        ({"temp.gpu": 89, "temp.margin": -2}, {}, "warning", "device"),
        ({"temp.gpu": 90, "temp.margin": -3}, {}, "critical", "device"),
        (
            {"temp.gpu": 90, "temp.margin": -3},
            {"temperature_warning": 99, "temperature_critical": 100},
            "critical",
            "device",
        ),
        ({"temp.gpu": 83, "temp.margin": 5}, {"temperature_warning": 85}, "pass", "user"),
        ({"temp.gpu": 60, "temp.margin": 30}, {"temperature_warning": 59}, "warning", "user"),
        ({"temp.gpu": 60, "temp.margin": 30}, {"temperature_warning": 60}, "pass", "user"),
        ({"temp.gpu": 60, "temp.margin": 30}, {"temperature_critical": 59}, "critical", "user"),
        ({"temp.gpu": 80, "temp.margin": None, "field.194": None}, {}, "pass", "default"),
        ({"temp.gpu": 81, "temp.margin": None}, {}, "warning", "default"),
        ({"temp.gpu": 91, "temp.margin": None}, {}, "critical", "default"),
        ({"temp.gpu": 91, "temp.margin": None}, {"temperature_warning": 95}, "pass", "user"),
        (
            {
                "temp.gpu": 91,
                "temp.margin": None,
                "temp.threshold.slowdown": 0,
                "temp.threshold.gpu_max": 0,
            },
            {},
            "critical",
            "default",
        ),
        (
            {"temp.gpu": 95, "temp.margin": None, "temp.threshold.slowdown": 95},
            {},
            "critical",
            "device",
        ),
        (
            {"temp.gpu": 94, "temp.margin": None, "temp.threshold.slowdown": 95},
            {},
            "pass",
            "device",
        ),
        (
            {"temp.gpu": 95, "temp.margin": 24, "temp.threshold.slowdown": 95},
            {},
            "critical",
            "device",
        ),
        (
            {
                "temp.gpu": 88,
                "temp.margin": 24,
                "temp.threshold.slowdown": 95,
                "temp.threshold.gpu_max": 87,
            },
            {},
            "warning",
            "device",
        ),
        (
            {"temp.gpu": 60, "temp.margin": -3, "temp.threshold.slowdown": 95},
            {},
            "critical",
            "device",
        ),
        ({"temp.gpu": 41}, {"temperature_warning": 0}, "warning", "user"),
        ({"temp.gpu": 91, "temp.margin": 24}, {}, "warning", "default"),
        ({"temp.gpu": 91, "temp.margin": 24}, {"temperature_warning": 95}, "pass", "user"),
        ({"temp.gpu": 91, "temp.margin": 24, "temp.threshold.slowdown": 105}, {}, "pass", "device"),
    ],
)
def test_temperature(node, check, values, options, status, source):
    found = check(node.gpus("l40s", gpus=[values]).quick(**options), "gpu_temperature")
    assert (found["status"], found["threshold_source"]) == (status, source)


def test_memory_temperature_above_the_devices_maximum(node, check):
    node.gpus("a100x4", gpu={"field.82": "96:u32", "temp.threshold.mem_max": 95})
    assert check(node.quick(), "gpu_memory_temperature", "GPU 0")["status"] == "warning"


# --- numbers
# -----------------------------------------------------------------------------------------------------------


def test_full_memory_and_power_are_warnings_about_the_user_and_can_be_switched_off(node, check):
    node.gpus("l40s", gpus=[{"memory.used": "41462M", "power.usage": 332600}])
    document = node.quick()
    memory, power = check(document, "gpu_memory"), check(document, "gpu_power")
    assert (memory["status"], memory["domain"], memory["value"], memory["warn"]) == (
        "warning",
        "user",
        90.0,
        90,
    )
    assert (power["status"], power["domain"], power["value"], power["warn"]) == (
        "warning",
        "user",
        95.0,
        95,
    )
    off = node.quick(memory_warning=0, power_warning=0)
    assert not {"gpu_memory", "gpu_power"} & {one["check"] for one in off["checks"]}
    assert (
        memory["threshold_source"],
        check(node.quick(memory_warning=80), "gpu_memory")["threshold_source"],
    ) == ("default", "user")


def test_exactly_at_the_limit_and_no_limit_are_no_warning(node, check):
    node.gpus(
        "l40s",
        gpus=[
            {
                "memory.total": "1000M",
                "memory.used": "900M",
                "power.usage": 285000,
                "power.enforced_limit": 300000,
            }
        ],
    )
    document = node.quick()
    assert (check(document, "gpu_memory")["status"], check(document, "gpu_power")["status"]) == (
        "pass",
        "pass",
    )
    node.gpus("l40s", gpus=[{"power.usage": 285000, "power.enforced_limit": 0, "memory.total": 0}])
    assert not {"gpu_memory", "gpu_power"} & {one["check"] for one in node.quick()["checks"]}


# --- state and memory faults
# -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "status", "action"),
    [
        (0, "pass", "none"),
        (1, "critical", "reset_gpu"),
        (2, "critical", "reboot"),
        (3, "warning", "drain"),
        (4, "critical", "drain"),
        (9, "critical", "inspect"),
    ],
)
def test_recovery_action(node, check, value, status, action):
    found = check(node.gpus("l40s", gpus=[{"field.230": f"{value}:u32"}]).quick(), "gpu_state")
    assert (found["status"], found["action"]) == (status, action)


@pytest.mark.parametrize(
    ("values", "name", "status", "action"),
    [
        ({"remap.pending": 1}, "gpu_remapped_rows", "critical", "reset_gpu"),
        ({"remap.failure": 1, "remap.pending": 1}, "gpu_remapped_rows", "critical", "inspect"),
        ({"remap.uncorrected": 512}, "gpu_remapped_rows", "warning", "inspect"),
        (
            {"retired.sbe": "0", "retired.dbe": "0", "retired.pending": 1},
            "gpu_retired_pages",
            "critical",
            "reset_gpu",
        ),
        ({"ecc.volatile.uncorrected": 1}, "gpu_ecc", "critical", "reset_gpu"),
        ({"sram.threshold_exceeded": 1}, "gpu_ecc", "critical", "inspect"),
        ({"ecc.volatile.corrected": 99999}, "gpu_ecc", "pass", "none"),
        ({"clocks.reasons": "0x40"}, "gpu_throttling", "critical", "inspect"),
        ({"clocks.reasons": "0x80"}, "gpu_throttling", "warning", "inspect"),
        ({"clocks.reasons": "0x8"}, "gpu_throttling", "warning", "inspect"),
        ({"clocks.reasons": "0x27"}, "gpu_throttling", "pass", "none"),
        ({"persistence": 0}, "gpu_persistence", "warning", "none"),
        ({"nvmlDeviceValidateInforom": "!CORRUPTED_INFOROM"}, "gpu_inforom", "warning", "inspect"),
        ({"fabric.state": 1, "fabric.status": 0}, "gpu_fabric", "warning", "inspect"),
        ({"fabric.state": 3, "fabric.status": 999}, "gpu_fabric", "critical", "inspect"),
        (
            {"nvlink.links": 12, "nvlink.state": 0, "nvlink.5.state": 1},
            "gpu_nvlink",
            "critical",
            "inspect",
        ),
    ],
)
def test_single_faults(node, check, values, name, status, action):
    if name == "gpu_inforom":
        node.gpus("l40s", system={"nvmlDeviceValidateInforom": "!CORRUPTED_INFOROM"})
    else:
        node.gpus("l40s", gpus=[values])
    found = check(node.quick(), name)
    assert (found["status"], found["action"]) == (status, action)


def test_all_nvlinks_down_is_a_card_without_bridge(node):
    node.gpus("l40s", gpus=[{"nvlink.links": 12, "nvlink.state": 0}])
    assert "gpu_nvlink" not in {one["check"] for one in node.quick()["checks"]}


def test_all_nvlinks_down_of_one_gpu_among_others_is_a_fault(node, check):
    document = node.gpus("h100x8", gpus={5: {"nvlink.state": 0}}).quick()
    assert [
        (one["subject"], one["message"])
        for one in document["checks"]
        if one["status"] == "critical"
    ] == [("GPU 5", "GPU 5: all 18 NVLinks down, other GPUs have theirs")]


@pytest.mark.parametrize(
    ("name", "count", "fault"),
    [
        ("NVIDIA H100 80GB HBM3", 2, True),
        ("NVIDIA A100-SXM4-80GB", 2, True),
        ("NVIDIA H200", 2, True),
        ("NVIDIA H100 80GB HBM3", 1, False),
        ("NVIDIA H100 PCIe", 2, False),
        ("NVIDIA H200 NVL", 2, False),
        ("NVIDIA A100 80GB PCIe", 2, False),
        ("NVIDIA GeForce RTX 3090", 2, False),
    ],
)
def test_all_nvlinks_down_on_all_gpus_is_a_fault_of_a_board_only(node, name, count, fault):
    """Bridges are optional; a virtual machine with a single GPU of a board has no links either."""
    links = {"name": name, "nvlink.links": 4, "nvlink.state": 0}
    node.gpus("l40s", gpus=[{**links, "uuid": f"GPU-{index}"} for index in range(count)])
    document = node.quick()
    results = [one["status"] for one in document["checks"] if one["check"] == "gpu_nvlink"]
    assert results == (["critical"] * count if fault else [])


@pytest.mark.parametrize(
    ("values", "status"),
    [
        ({"util.gpu": 0, "pstate": 8, "clocks.reasons": "0x4"}, "pass"),
        ({"util.gpu": 85, "pstate": 2, "clocks.reasons": "0x1"}, "warning"),
        ({"util.gpu": 10, "pstate": 4}, "warning"),
        ({"util.gpu": 9, "pstate": 0}, "pass"),
        ({"util.gpu": 30, "pstate": 5}, "pass"),
        ({"util.gpu": None, "util.memory": None, "pstate": 0}, "pass"),
        ({"util.gpu": None, "util.memory": None, "pstate": 0, "procs.compute": "1:5M"}, "warning"),
        ({"util.gpu": 100, "pstate": None}, "warning"),
    ],
)
def test_the_pcie_generation_counts_by_load_and_not_by_one_flag(node, check, values, status):
    """A GeForce at 0 %, P8 with the reason sw_power_cap instead of idle was a false alarm."""
    quiet = {"procs.compute": "", "procs.graphics": ""}
    node.gpus("rtx4080", gpus=[{**quiet, **values}])
    assert check(node.quick(), "gpu_pcie")["status"] == status


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"temp.gpu": -256}, "temp"),
        ({"temp.gpu": 255}, "temp"),
        ({"power.usage": 4294967295}, "power_draw"),
        ({"memory.used": "70000M", "memory.total": "48M"}, "mem_used"),
        ({"procs.compute": "4294967295:5M"}, "processes"),
    ],
)
def test_impossible_readings_are_unknown(node, check, values, field):
    document = node.gpus("l40s", gpus=[values]).quick()
    assert document["gpus"][0][field] in (None, [])
    result = check(document, "gpu_readings")
    assert result["status"] == "unknown" and "impossible" in result["message"]


def test_different_vbios_of_one_model(node, check):
    node.gpus("a100x4", gpus={2: {"vbios": "92.00.19.00.01"}})
    assert "on GPU 2" in check(node.quick(), "gpu_vbios")["message"]


def test_memory_held_by_a_process_that_is_gone(node, check):
    node.gpus("l40s", gpus=[{"procs.compute": "4242:512M, 77:1M"}])
    (node.root / "proc" / "77").mkdir()
    found = check(node.run(), "gpu_processes")
    assert (found["status"], found["value"]) == ("warning", 1)
    assert "512 MiB" in found["message"] and found["message"].endswith(": 4242")


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("unshare"),
    reason="needs root and unshare to mount another /proc",
)
def test_processes_hidden_in_proc_are_there_all_the_same():
    """As another user sees them under hidepid or ProtectProc=: not in /proc, and not ours to
    signal.
    """
    command = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        'mount -t proc -o hidepid=2 proc /proc && exec "$@"',
        "sh",
        sys.executable,
        "-c",
        HIDDEN,
        str(ROOT),
    ]
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        done = subprocess.run(
            [*command, str(sleeper.pid)], capture_output=True, text=True, timeout=60, check=False
        )
        sleeper.kill()
    if "mount:" in done.stderr or "unshare:" in done.stderr:
        pytest.skip(f"no mounting here: {done.stderr.strip()}")
    assert done.stdout == "hidden in /proc, there: True, nobody: False\n", done.stderr


HIDDEN = """
import os, sys
sys.path.insert(0, sys.argv[1] + "/.build/collections")
from ansible_collections.mlops.fleet.plugins.module_utils._core.gpu import facts
from ansible_collections.mlops.fleet.plugins.module_utils._core.ports import World
os.setgroups([]), os.setgid(65534), os.setuid(65534)
pid, world = int(sys.argv[2]), World(run=None)
there = [facts.process_exists(number, world) for number in (pid, 4194303)]
hidden = "seen" if os.path.exists(f"/proc/{pid}") else "hidden in /proc"
print(f"{hidden}, there: {there[0]}, nobody: {there[1]}")
"""


def test_process_ids_of_another_namespace_are_not_judged(node):
    (node.root / "proc/self/ns").mkdir(parents=True)
    (node.root / "proc/self/ns/pid").symlink_to("pid:[4026532999]")
    node.gpus("l40s", gpus=[{"procs.compute": "4242:512M"}])
    assert "gpu_processes" not in {one["check"] for one in node.run()["checks"]}


# --- faults of the driver itself
# ---------------------------------------------------------------------------------------


def test_a_driver_that_hangs_at_the_first_gpu_still_gives_its_version_and_count(
    node, check, tmp_path
):
    prom = tmp_path / "gpu.prom"
    node.gpus("l40s", system={"nvmlDeviceGetName": "@9 ok"})
    document = node.run(timeout=1, textfile=str(prom))
    assert check(document, "gpu_driver")["status"] == "critical"
    assert document["driver"]["version"] and document["gpus"] == []
    assert "mlops_gpu_devices 1\n" in prom.read_text()
    node.gpus("hang_init").run(timeout=1, textfile=str(prom))
    assert "devices" not in prom.read_text(), "nobody knows how many, so not 0"
    node.gpus("no_driver").run(timeout=1, textfile=str(prom), expected_count=0)
    assert "gpu_exit_code 0" in prom.read_text()


def test_an_nvidia_smi_that_cannot_be_run_is_no_absence(node, check):
    (node.bin / "nvidia-smi").write_text("not a program")
    (node.bin / "nvidia-smi").chmod(0o755)
    document = node.run(library=False, backend="nvidia_smi", world_env={"PATH": str(node.bin)})
    assert check(document, "gpu_driver")["status"] == "critical"


@pytest.mark.parametrize(
    "variable", ["NVIDIA_VISIBLE_DEVICES", "KUBERNETES_SERVICE_HOST", "container"]
)
def test_containers_see_the_whole_bus_and_their_share_of_gpus(node, check, variable):
    node.gpus("l40s").pci("0000:41:00.0", "0000:61:00.0")
    assert check(node.run(), "gpu_count")["status"] == "critical"
    assert check(node.run(world_env={variable: "x"}), "gpu_count")["status"] == "pass"
    for pynvml in (True, False):
        assert (
            node.run(library=False, pynvml=pynvml, world_env={variable: "x"})["status"] == "skipped"
        ), "a container without GPU on a machine with some"


TWICE = """
import json, os, sys, time
sys.path.insert(0, sys.argv[1] + "/.build/collections")
from ansible_collections.mlops.fleet.plugins.module_utils._core.gpu import facts, run
from ansible_collections.mlops.fleet.plugins.module_utils._core.gpu.options import GpuOptions
from ansible_collections.mlops.fleet.plugins.module_utils._core.ports import World
facts._MARK = sys.argv[2]
found = []
for _round in range(2):
    document = run.run(GpuOptions.from_mapping({"timeout": 1, "log_source": "none"}), World(run=None)).to_dict()
    names = [open(f"/proc/{pid}/comm").read().strip() for pid in os.listdir("/proc") if pid.isdigit() and os.path.exists(f"/proc/{pid}/comm")]
    found.append({**document["checks"][0], "exit_code": document["exit_code"], "waiting": names.count(sys.argv[2])})
print(json.dumps(found))
"""


@pytest.mark.skipif(
    os.geteuid() != 0 or not os.access("/dev/fuse", os.W_OK), reason="needs root and /dev/fuse"
)
def test_one_who_waits_in_the_kernel_for_ever_gets_no_company(environment, tmp_path):
    """The library is made to wait where SIGKILL does not reach, as in a wedged driver: in a file
    system that never answers.
    """
    (tmp_path / "dead").mkdir()
    name = f"mlf-{os.getpid()}"  # nobody who runs the same beside this shall meet it
    command = [
        str(ROOT / "tests/system/plugins/module_utils/_core/node/dead_fuse.py"),
        "swallow",
        str(tmp_path / "dead"),
        sys.executable,
        "-c",
        TWICE,
        str(ROOT),
        name,
    ]
    env = {**environment, "NVML_DOUBLE_SCENARIO": str(tmp_path / "dead" / "scenario.ini")}
    done = subprocess.run(
        [sys.executable, *command], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode != 0 and "Operation not permitted" in done.stderr:
        pytest.skip("mount namespaces are not allowed here")
    assert done.returncode == 0, done.stderr
    first, second = json.loads(done.stdout)
    assert first["message"] == "The driver does not answer: no reply within 1 s to nvmlInit"
    assert second["message"].startswith(
        f"The driver does not answer: hung since {second['since']}, process "
    )
    assert (first["exit_code"], second["exit_code"], first["waiting"], second["waiting"]) == (
        2,
        2,
        1,
        1,
    )


@pytest.mark.parametrize("name", ["hang", "hang_init"])
def test_a_hanging_driver_is_critical_within_the_time_and_a_second(node, check, name):
    document = node.gpus(name).run(timeout=1)
    found = check(document, "gpu_driver")
    assert (found["status"], found["action"], document["exit_code"]) == ("critical", "reboot", 2)
    assert "does not answer" in found["message"]
    assert document["wall"] < 2


def test_a_hang_at_one_gpu_does_not_hide_the_others(node, check):
    """GPU 0 of three hangs; GPU 1 has a failed remapping, and an Xid in the log."""
    gpus = [{"temp.gpu": "@9 41"}, {"remap.failure": 1}, {}]
    places = [f"00000000:{bus}:00.0" for bus in ("41", "61", "81")]
    node.gpus(
        "l40s",
        gpus=[{"pci.bus_id": place, **more} for place, more in zip(places, gpus)],
    )
    node.pci("0000:41:00.0", "0000:61:00.0", "0000:81:00.0")
    log = node.log(
        "NVRM: Xid (PCI:0000:61:00): 31, pid=7", "NVRM: Xid (PCI:0000:41:00): 119, pid=7"
    )
    document = node.run(timeout=2, log_source=log)
    assert document["wall"] < 3
    assert "on GPU 0" in check(document, "gpu_driver")["message"]
    assert [gpu["id"] for gpu in document["gpus"]] == [0, 1, 2]
    state = check(document, "gpu_state", "GPU 0")
    assert (
        state["message"]
        == "GPU 0: the GPU at 0000:41:00 does not answer: no reply to nvmlDeviceGetTemperature"
    )
    assert (state["status"], state["action"]) == ("critical", "reboot")
    assert check(document, "gpu_xid", "GPU 0")["status"] == "critical"
    assert check(document, "gpu_remapped_rows", "GPU 1")["status"] == "critical"
    assert check(document, "gpu_xid", "GPU 1")["status"] == "pass"
    assert document["gpus"][2]["status"] == "pass"


def test_a_driver_that_is_only_slow_is_not_called_hung(node, check):
    node.gpus("h100x8", system={"nvmlDeviceGetName": "@0.25 ok"})
    node.pci(*(f"0000:{bus}:00.0" for bus in ("18", "2a", "3a", "5d", "9a", "ab", "ba", "db")))
    document = node.run(timeout=2)
    assert check(document, "gpu_driver")["status"] == "pass"
    assert [gpu["id"] for gpu in document["gpus"]] == list(range(8))


def test_gpus_that_were_not_asked_are_named(node, check):
    node.gpus("h100x8", system={"nvmlDeviceGetName": "@9 ok"})
    assert (
        check(node.run(timeout=1), "gpu_driver")["message"]
        == "The driver does not answer: no reply within 1 s to nvmlDeviceGetName on GPU 0; "
        "not asked: GPU 1, 2, 3, 4, 5, 6, 7"
    )


def test_what_was_learnt_before_the_driver_hung_is_kept(node, check):
    document = node.gpus("hang").run(timeout=1)
    assert "nvmlDeviceGetTemperature on GPU 1" in check(document, "gpu_driver")["message"]
    assert [gpu["id"] for gpu in document["gpus"]] == [0]
    assert document["driver"]["version"]


def test_a_missing_pynvml_is_named_where_gpus_show(node):
    for given in (
        {"pynvml": False},
        {"pynvml": False, "library": False, "backend": "nvml"},
        {"pynvml": False, "library": False, "expected_count": 1},
    ):
        error = node.run(**given)["error"]
        assert error["kind"] == "MissingLibrary"
        assert "nvidia-ml-py" in error["message"]


def functions():
    """Every NVML function that a round asks, by a look at the round's own source."""
    source = (ROOT / "plugins/module_utils/_core/gpu/driver.py").read_text()
    return sorted(
        set(re.findall(r'"(nvml[A-Z]\w+)"', source))
        - {"nvmlEccSramErrorStatus_v1", "nvmlMemory_v2"}
    )


CODES = [*range(1, 31), 999]
#: The library's own names where pynvml calls another than its wrapper says.
EXPORTED = {
    "nvmlInit": "nvmlInitWithFlags",
    "nvmlDeviceGetCount": "nvmlDeviceGetCount_v2",
    "nvmlDeviceGetHandleByIndex": "nvmlDeviceGetHandleByIndex_v2",
    "nvmlDeviceGetPciInfo": "nvmlDeviceGetPciInfo_v3",
    "nvmlDeviceGetMemoryInfo": "nvmlDeviceGetMemoryInfo_v2",
    "nvmlDeviceGetComputeRunningProcesses": "nvmlDeviceGetComputeRunningProcesses_v3",
    "nvmlDeviceGetGraphicsRunningProcesses": "nvmlDeviceGetGraphicsRunningProcesses_v3",
}
#: Asked only where the other one is missing.
SECOND = {
    "nvmlDeviceGetCurrentClocksThrottleReasons": "nvmlDeviceGetCurrentClocksEventReasons",
    "nvmlDeviceGetPowerManagementLimit": "nvmlDeviceGetEnforcedPowerLimit",
    "nvmlDeviceGetTemperatureV": "nvmlDeviceGetTemperature",
}
#: Not supported, function not found, vGPU without ECC, other structure version, deprecated:
#: absence, not a fault.
ABSENT = {3, 13, 22, 25, 26}
ESSENTIAL = {
    "nvmlDeviceGetTemperature",
    "nvmlDeviceGetTemperatureV",
    "nvmlDeviceGetFieldValues",
    "nvmlDeviceGetRemappedRows",
    "nvmlDeviceGetTotalEccErrors",
    "nvmlDeviceGetRetiredPagesPendingStatus",
    "nvmlDeviceGetMemoryInfo",
}


def test_the_list_of_functions_is_the_real_one():
    assert len(functions()) > 30 and "nvmlDeviceGetTotalEccErrors" in functions()


@pytest.mark.parametrize(
    "function",
    [
        name
        for name in functions()
        if name.startswith("nvmlDevice") and name != "nvmlDeviceGetCount"
    ],
)
def test_every_error_of_every_question_gives_a_sensible_verdict(node, function):
    exported = EXPORTED.get(function, function)
    # Errors of links are counted only where there are links.
    scenario = "a100x4" if function == "nvmlDeviceGetNvLinkErrorCounter" else "l40s"
    for code in CODES:
        node.gpus(
            scenario,
            system={
                exported: f"!{code}",
                **({"absent": SECOND[function]} if function in SECOND else {}),
            },
        )
        document = node.quick()
        found = {
            one["check"]: one["counts_as"]
            for one in document["checks"]
            if one["counts_as"] not in ("pass", "skipped")
        }
        where = f"{function} with {code}: {found}"
        assert all(
            one["counts_as"] == "critical"
            for one in document["checks"]
            if one["status"] == "unknown"
        ), where
        if function == "nvmlDeviceGetHandleByIndex" or code in (15, 16):
            assert found.get("gpu_state") == "critical", where
        elif code in ABSENT:
            assert "gpu_state" not in found and "gpu_readings" not in found, where
        elif code == 14 and function not in ESSENTIAL:
            assert found.get("gpu_inforom") == "warning", where
        elif code in (1, 9, 10, 11, 12, 18) or function in ESSENTIAL:
            assert found.get("gpu_readings") == "critical", where
        elif function == "nvmlDeviceGetRetiredPages" and code == 7:
            pass  # "insufficient size" is this function's way of asking for room
        elif (
            code == 4
            or (function.startswith("nvmlDeviceGetNvLink") and code == 2)
            or (function.endswith("Processes") and code == 7)
        ):
            assert not found or found == {"gpu_readings": "warning"}, where
        else:
            assert found.get("gpu_readings") in ("warning", "critical"), where


@pytest.mark.parametrize(("mig", "status"), [(0, "unknown"), (1, "skipped")])
def test_sums_that_only_root_may_read_of_a_split_gpu_are_no_broken_gpu(node, check, mig, status):
    node.gpus("a100x4", gpus=[{"mig.mode": mig, "nvmlDeviceGetTotalEccErrors": "!NO_PERMISSION"}])
    assert check(node.quick(), "gpu_readings", "GPU 0")["status"] == status


@pytest.mark.parametrize("function", ["nvmlInitWithFlags", "nvmlDeviceGetCount_v2"])
@pytest.mark.parametrize("code", CODES)
def test_every_error_of_the_start_is_critical_or_absence(node, function, code):
    node.gpus(
        "l40s",
        system={"init": f"!{code}"} if function == "nvmlInitWithFlags" else {function: f"!{code}"},
    )
    document = node.run()
    # Library not found without any sign of a GPU is a node without GPU; all else is a broken
    # driver.
    assert document["exit_code"] == (0 if code == 12 else 2), document["checks"]


# --- files
# -------------------------------------------------------------------------------------------------------------


def test_files_are_written_and_not_in_check_mode(node, tmp_path):
    table, prom = tmp_path / "gpu.csv", tmp_path / "gpu.prom"
    node.gpus("h100x8")
    node.run(metrics_csv=str(table), textfile=str(prom), write=False)
    assert not table.exists() and not prom.exists()
    node.run(metrics_csv=str(table), textfile=str(prom))
    assert len(table.read_text().splitlines()) == 9
    assert 'mlops_gpu_temperature_celsius{gpu="7"' in prom.read_text()


def test_odd_names_and_large_numbers_of_twelve_gpus_can_be_read_by_others(node, tmp_path):
    names = ["NVIDIA A, B", 'NVIDIA "Q" \\ B', "NVIDIA Größe™ L", "=A1", "{x}"]
    gpus = [
        {
            "name": names[index % 5],
            "uuid": f"GPU-{index}",
            "pci.bus_id": f"00000000:{index + 16:02X}:00.0",
            "temp.gpu": 40 + index,
            "ecc.volatile.corrected": 2**64 - 1 - index,
            "memory.total": "4096G",
            "memory.used": "1G",
        }
        for index in range(12)
    ]
    node.gpus(system={"driver_version": "590.48.01"}, gpus=gpus)
    log = node.log("NVRM: Xid (PCI:0000:12:00): 79, pid=1", "NVRM: Xid (PCI:0000:12:00): 31, pid=1")
    node.run(
        metrics_csv=str(tmp_path / "gpu.csv"), textfile=str(tmp_path / "gpu.prom"), log_source=log
    )
    with open(tmp_path / "gpu.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [
        (
            row["gpu_id"],
            row["name"],
            row["temp"],
            row["mem_total"],
            row["power_draw"],
            row["util_gpu"],
        )
        for row in rows
    ] == [(str(index), names[index % 5], str(40 + index), "4194304", "", "") for index in range(12)]
    text = (tmp_path / "gpu.prom").read_text(encoding="utf-8")
    assert 'mlops_gpu_ecc_corrected_errors{gpu="11",uuid="GPU-11"} 18446744073709551604' in text
    if shutil.which("promtool"):
        done = subprocess.run(
            ["promtool", "check", "metrics"],
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_file_that_cannot_be_written_does_not_hide_the_verdict(node, check, tmp_path):
    document = node.gpus("lost").run(
        metrics_csv=str(tmp_path / "no" / "gpu.csv"), textfile=str(tmp_path / "no" / "gpu.prom")
    )
    assert document["exit_code"] == 2
    assert check(document, "gpu_metrics_csv")["status"] == "warning"
    assert check(document, "gpu_textfile")["status"] == "warning"
