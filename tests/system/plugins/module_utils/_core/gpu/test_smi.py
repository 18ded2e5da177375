# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""nvidia-smi as the only way to ask: a stand-in that answers in the words of the real program's
captures.
"""

from __future__ import annotations

import csv

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.gpu.smi import FIELDS

H100 = {
    "index": "0",
    "name": "NVIDIA H100 80GB HBM3",
    "uuid": "GPU-4f2a9c10-0000-4d3e-9b1a-012345678900",
    "serial": "1654922000000",
    "pci.bus_id": "00000000:18:00.0",
    "driver_version": "590.48.01",
    "vbios_version": "96.00.89.00.01",
    "temperature.gpu": "59",
    "temperature.gpu.tlimit": "26",
    "temperature.memory": "70",
    "fan.speed": "[N/A]",
    "utilization.gpu": "100",
    "utilization.memory": "31",
    "memory.used": "76000",
    "memory.total": "81559",
    "power.draw": "629.14",
    "enforced.power.limit": "700.00",
    "power.limit": "700.00",
    "pstate": "P0",
    "clocks.sm": "1980",
    "clocks.mem": "2619",
    "clocks_throttle_reasons.active": "0x0000000000000004",
    "ecc.mode.current": "Enabled",
    "ecc.errors.corrected.volatile.total": "0",
    "ecc.errors.uncorrected.volatile.total": "0",
    "pcie.link.gen.current": "5",
    "pcie.link.gen.max": "5",
    "pcie.link.width.current": "16",
    "pcie.link.width.max": "16",
    "persistence_mode": "Enabled",
    "mig.mode.current": "Disabled",
    "gpu_recovery_action": "None",
}
OTHER = {**H100, "index": "1", "uuid": "GPU-2", "pci.bus_id": "00000000:2A:00.0"}
GEFORCE = {
    **dict.fromkeys(H100, "[N/A]"),
    "index": "0",
    "name": "NVIDIA GeForce RTX 2080 SUPER",
    "uuid": "GPU-3",
    "temperature.gpu": "38",
    "memory.used": "612",
    "memory.total": "8192",
    "power.draw": "[Not Supported]",
    "fan.speed": "0",
}
FEW = {"memory_warning": 0, "backend": "nvidia_smi"}


def ask(node, options=None, **answers):
    return node.smi(**answers).run(library=False, **{**FEW, **(options or {})})


def test_values_agree_with_what_the_program_prints(node):
    document = ask(node, gpus=[H100, OTHER])
    gpu = document["gpus"][0]
    assert document["driver"] == {
        "backend": "nvidia_smi",
        "version": "590.48.01",
        "nvml_version": None,
        "cuda_version": None,
    }
    assert (document["status"], len(document["gpus"])) == ("pass", 2)
    assert [
        gpu[name]
        for name in (
            "id",
            "temp",
            "margin",
            "util_gpu",
            "util_mem",
            "mem_used",
            "mem_total",
            "power_draw",
            "power_limit",
            "pstate",
            "fan",
        )
    ] == [
        0,
        59,
        26,
        100,
        31,
        76000,
        81559,
        629.14,
        700.0,
        0,
        None,
    ]
    assert gpu["clock_reasons"] == ["sw_power_cap"]


def test_forms_of_not_available_are_null(node):
    gpu = ask(node, gpus=[GEFORCE])["gpus"][0]
    assert (gpu["temp"], gpu["power_draw"], gpu["util_gpu"], gpu["retired"], gpu["fan"]) == (
        38,
        None,
        None,
        None,
        0,
    )
    assert set(gpu["ecc"].values()) == set(gpu["pcie"].values()) == {None}


@pytest.mark.parametrize("pynvml", [True, False])
def test_auto_takes_it_where_library_or_pynvml_is_missing(node, pynvml):
    document = node.smi(gpus=[H100]).run(library=False, pynvml=pynvml)
    assert document["driver"]["backend"] == "nvidia_smi"


def test_auto_prefers_nvml(node):
    assert node.smi(gpus=[H100]).gpus("l40s").run()["driver"]["backend"] == "nvml"


def test_a_version_that_does_not_know_a_field_is_asked_again_without(node):
    document = ask(node, gpus=[H100], unknown=["gpu_recovery_action", "temperature.gpu.tlimit"])
    assert (document["status"], document["gpus"][0]["margin"], document["gpus"][0]["temp"]) == (
        "pass",
        None,
        59,
    )


def test_a_recovery_action_in_unknown_words_is_no_none(node, check):
    document = ask(node, gpus=[{**H100, "gpu_recovery_action": "Replace Board"}])
    assert (check(document, "gpu_readings")["status"], document["exit_code"]) == ("unknown", 2)


@pytest.mark.parametrize(
    "name",
    ["NVIDIA H100, 80GB, HBM3", 'NVIDIA "H100" 80GB', "NVIDIA H100™ Größe L", '"NVIDIA H100"'],
)
def test_a_name_that_looks_like_csv(node, tmp_path, name):
    document = ask(
        node, {"metrics_csv": str(tmp_path / "gpu.csv")}, gpus=[{**H100, "name": name}, OTHER]
    )
    assert (document["status"], [gpu["temp"] for gpu in document["gpus"]]) == ("pass", [59, 59])
    with open(tmp_path / "gpu.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["name"], row["temp"]) for row in rows] == [
        (document["gpus"][0]["name"], "59"),
        (OTHER["name"], "59"),
    ]
    assert document["gpus"][0]["name"].strip('"') == name.strip('"')


@pytest.mark.parametrize(
    "text", ["\0\1\2garbage\n" * 200_000, "7, " * 300_000 + "\n", "x" * 3_000_000]
)
def test_much_and_strange_output_is_critical_and_not_repeated(node, text):
    document = ask(node, output=text)
    assert document["exit_code"] == 2
    assert max(len(one["message"]) for one in document["checks"]) < 500


def test_windows_line_ends(node):
    line = ", ".join(H100.get(field, "[N/A]") for field in FIELDS)
    document = ask(node, output=f"{line}\r\n")
    assert (
        document["status"],
        document["gpus"][0]["temp"],
        document["gpus"][0]["recovery_action"],
    ) == ("pass", 59, "none")


def test_the_second_question_hanging_is_told(node, check):
    document = ask(node, {"timeout": 1}, gpus=[H100], hang_rows=True)
    assert "--query-remapped-rows" in check(document, "gpu_driver")["message"]
    assert (document["exit_code"], document["gpus"][0]["temp"]) == (2, 59)


def test_a_renamed_field_is_asked_by_its_new_name(node, check):
    gpu = {**H100, "clocks_event_reasons.active": "0x0000000000000040"}
    document = ask(node, gpus=[gpu], unknown=["clocks_throttle_reasons.active", "mig.mode.current"])
    assert check(document, "gpu_throttling")["status"] == "critical"
    assert (
        ask(
            node,
            gpus=[gpu],
            unknown=["clocks_throttle_reasons.active", "clocks_event_reasons.active"],
        )["status"]
        == "pass"
    )


def test_recovery_remap_and_ecc(node, check):
    rows = [
        {
            "gpu_uuid": H100["uuid"],
            "remapped_rows.correctable": "0",
            "remapped_rows.uncorrectable": "2",
            "remapped_rows.pending": "1",
            "remapped_rows.failure": "0",
        }
    ]
    document = ask(
        node,
        gpus=[
            {**H100, "gpu_recovery_action": "Reset", "ecc.errors.uncorrected.volatile.total": "4"}
        ],
        rows=rows,
    )
    assert check(document, "gpu_state")["action"] == "reset_gpu"
    assert check(document, "gpu_remapped_rows")["status"] == "critical"
    assert check(document, "gpu_ecc")["value"] == 4


@pytest.mark.parametrize(
    "text", ["[Unknown Error]", "[GPU is lost]", "ERR!", "[GPU requires reset]", "nonsense"]
)
def test_a_field_in_error_is_never_healthy(node, text):
    document = ask(node, gpus=[{**H100, "temperature.gpu": text}])
    assert document["gpus"][0]["temp"] is None
    assert document["exit_code"] == 2


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (
            (
                "Unable to determine the device handle for GPU 0000:2A:00.0: GPU is lost.  Reboot"
                " the system to recover this GPU"
            ),
            15,
        ),
        ("Unable to determine the device handle for GPU0000:2A:00.0: Unknown Error", 255),
        ("Unable to determine the device handle for GPU1: 0000:2A:00.0: Unknown Error", 255),
    ],
)
def test_a_dead_gpu_beside_a_living_one(node, check, words, code):
    document = ask(node, gpus=[H100, words], exit=code)
    assert check(document, "gpu_state", "GPU 0")["status"] == "pass"
    assert check(document, "gpu_state", "GPU 1")["status"] == "critical"
    assert document["gpus"][1]["bus_id"] == "0000:2A:00.0"


@pytest.mark.parametrize(
    ("output", "code", "exit_code", "words"),
    [
        (
            (
                "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make"
                " sure that the latest NVIDIA driver is installed and running.\n"
            ),
            9,
            2,
            "not loaded",
        ),
        (
            (
                "Failed to initialize NVML: Driver/library version mismatch\nNVML library version:"
                " 535.309\n"
            ),
            18,
            2,
            "different versions",
        ),
        (
            (
                "NVIDIA-SMI couldn't find libnvidia-ml.so library in your system. Please make sure"
                " that the NVIDIA Display Driver is properly installed\n"
            ),
            12,
            0,
            "No NVIDIA GPU",
        ),
        ("No devices were found\n", 6, 1, "has no GPU"),
        ("GPU is lost\n", 15, 2, "NVML code 15"),
        (
            (
                "Mismatch in versions between nvidia-smi and NVML.\nAre you sure you are using"
                " nvidia-smi provided with the driver?\n"
            ),
            255,
            2,
            "Mismatch in versions",
        ),
        ("", 255, 2, "said nothing"),
        ("", 0, 2, "said nothing"),
    ],
)
def test_exit_codes(node, output, code, exit_code, words):
    document = ask(node, output=output, exit=code)
    assert document["exit_code"] == exit_code
    assert any(words in one["message"] for one in document["checks"]), document["checks"]


def test_corrupted_inforom_by_exit_code_alone(node, check):
    document = ask(node, gpus=[H100, OTHER], exit=14)
    assert (check(document, "gpu_inforom", "GPU 0")["status"], document["exit_code"]) == (
        "warning",
        1,
    )


def test_corrupted_inforom_is_a_warning_and_the_values_stay(node, check):
    document = ask(node, gpus=[H100, "WARNING: infoROM is corrupted at gpu 0000:18:00.0"], exit=14)
    assert check(document, "gpu_inforom", "GPU 0")["status"] == "warning"
    assert document["gpus"][0]["temp"] == 59


def test_a_program_that_hangs_and_ignores_sigterm(node, check):
    document = ask(node, {"timeout": 1}, hang=True)
    assert document["wall"] < 2
    assert "does not answer" in check(document, "gpu_driver")["message"]
    assert document["exit_code"] == 2


def test_an_index_that_comes_twice_keeps_both_gpus_and_the_files(node, tmp_path):
    document = ask(
        node,
        {"textfile": str(tmp_path / "gpu.prom"), "metrics_csv": str(tmp_path / "gpu.csv")},
        gpus=[H100, {**OTHER, "index": "0"}],
    )
    assert [gpu["id"] for gpu in document["gpus"]] == [0, 1]
    assert (tmp_path / "gpu.prom").exists()


def test_asked_for_and_not_installed(node):
    assert node.run(library=False, backend="nvidia_smi")["status"] == "skipped"
    assert node.run(library=False, backend="nvidia_smi", expected_count=1)["exit_code"] == 2


def test_a_row_with_more_columns_than_asked_is_refused(node, check):
    """A decimal comma moves every value behind it: memory was at 116513 % of power."""
    document = ask(node, gpus=[{**H100, "power.draw": "70,1"}, OTHER])
    state = check(document, "gpu_state", "GPU 0")
    assert state["status"] == "critical" and "values for" in state["message"]
    broken, whole = document["gpus"]
    assert (broken["bus_id"], broken["mem_used"], whole["mem_used"]) == (
        "00000000:18:00.0",
        None,
        76000,
    )
