# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""AMD's GPUs through amd-smi, in the shapes of several releases, and GPUs of vendors that nobody
knows.
"""

from __future__ import annotations

import json

import pytest

STATIC = {
    "gpu": 0,
    "asic": {"market_name": "AMD Instinct MI300X", "asic_serial": "0x6F1F0A2B3C4D5E6F"},
    "bus": {"bdf": "0000:83:00.0", "max_pcie_width": 16, "pcie_interface_version": "Gen 5"},
    "vbios": {"part_number": "113-M3000100-102"},
    "limit": {
        "max_power": {"value": 750, "unit": "W"},
        "slowdown_hotspot_temperature": {"value": 100, "unit": "C"},
        "shutdown_hotspot_temperature": {"value": 110, "unit": "C"},
        "slowdown_vram_temperature": {"value": 105, "unit": "C"},
    },
    "driver": {"name": "amdgpu", "version": "6.8.5"},
    "vram": {"size": {"value": 196592, "unit": "MB"}},
}
METRIC = {
    "gpu": 0,
    "usage": {"gfx_activity": {"value": 3, "unit": "%"}, "umc_activity": {"value": 0, "unit": "%"}},
    "power": {"socket_power": {"value": 143, "unit": "W"}},
    "clock": {"gfx_0": {"clk": {"value": 132, "unit": "MHz"}}, "mem_0": {"clk": {"value": 900, "unit": "MHz"}}},
    "temperature": {"edge": "N/A", "hotspot": {"value": 48, "unit": "C"}, "mem": {"value": 40, "unit": "C"}},
    "pcie": {"width": 16, "replay_count": 0},
    "ecc": {"total_correctable_count": 0, "total_uncorrectable_count": 0},
    "mem_usage": {"total_vram": {"value": 196592, "unit": "MB"}, "used_vram": {"value": 283, "unit": "MB"}},
}  # fmt: skip
LIST = {"gpu": 0, "bdf": "0000:83:00.0", "uuid": "17ff74a1-0000-1000-806f-1f0a2b3c4d5e"}


def amd_node(node, wrap=lambda entry: [entry], **given):
    node.pci("0000:83:00.0", vendor="0x1002", kind="0x120000", driver="amdgpu")
    answers = {"static": STATIC, "metric": METRIC, "list": LIST, **given}
    body = "".join(
        f"  {query}) cat"
        f" <<'EOF'\n{json.dumps(wrap(entry)) if entry is not None else 'ERROR'}\nEOF\n  ;;\n"
        for query, entry in answers.items()
    )
    program = node.bin / "amd-smi"
    program.write_text(f"#!/bin/sh\ncase $1 in\n{body}esac\n")
    program.chmod(0o755)
    return node


@pytest.mark.parametrize("wrap", [lambda entry: [entry], lambda entry: {"gpu_data": [entry]}])
def test_a_healthy_card(node, wrap):
    document = amd_node(node, wrap=wrap).run(library=False)
    assert (document["status"], document["exit_code"]) == ("pass", 0), document["checks"]
    assert document["driver"]["backend"] == "amd_smi"
    assert document["checks"][0]["message"] == "AMD driver 6.8.5 answers"
    (gpu,) = document["gpus"]
    assert (gpu["name"], gpu["temp"], gpu["mem_used"], gpu["mem_total"], gpu["power_limit"]) == (
        "AMD Instinct MI300X",
        48,
        283,
        196592,
        750,
    )
    assert gpu["uuid"].startswith("17ff74a1") and gpu["pcie"]["width_max"] == 16
    assert not [entry for entry in document["checks"] if entry["check"] == "gpu_xid"]


@pytest.mark.parametrize(
    ("part", "values", "name", "status"),
    [
        ("ecc", {"total_uncorrectable_count": 2}, "gpu_ecc", "critical"),
        ("temperature", {"hotspot": {"value": 101, "unit": "C"}}, "gpu_temperature", "critical"),
        ("temperature", {"hotspot": 101}, "gpu_temperature", "critical"),
        ("pcie", {"width": 8}, "gpu_pcie", "warning"),
        ("mem_usage", {"total_vram": 100, "used_vram": "99 MB"}, "gpu_memory", "warning"),
    ],
)
def test_faults(node, check, part, values, name, status):
    document = amd_node(node, metric={**METRIC, part: values}).run(library=False)
    assert check(document, name, "GPU 0")["status"] == status


def test_a_card_without_values_is_not_unhealthy(node):
    bare = {"gpu": 0, **{key: "N/A" for key in METRIC if key != "gpu"}}
    document = amd_node(node, static={"gpu": 0, "asic": "N/A"}, metric=bare, list=None).run(
        library=False
    )
    assert (document["status"], document["gpus"][0]["temp"]) == ("pass", None)


def test_an_answer_that_is_no_json_is_critical(node):
    assert amd_node(node, metric=None).run(library=False)["status"] == "critical"


def test_amd_smi_that_was_asked_for_and_is_not_installed(node):
    assert node.run(library=False, backend="amd_smi")["status"] == "critical"


@pytest.mark.parametrize(
    ("vendor", "kind", "words"),
    [
        ("0x1002", "0x120000", "1 GPU of AMD at 0000:03:00.0 not checked"),
        ("0x8086", "0x038000", "1 GPU of Intel at 0000:03:00.0 not checked"),
        ("0x8086", "0x030000", "1 GPU of Intel at"),
        ("0xabcd", "0x120000", "1 GPU of vendor 0xabcd at 0000:03:00.0 not checked"),
        ("0x1a03", "0x030000", None),
    ],
)
def test_gpus_of_other_vendors_are_named(node, check, vendor, kind, words):
    node.pci("0000:03:00.0", vendor=vendor, kind=kind)
    document = node.run(library=False, pynvml=False)
    found = check(document, "gpu_driver")
    assert found["status"] == "skipped"
    assert (words in found["message"]) if words else found["message"].endswith("on the PCI bus")
