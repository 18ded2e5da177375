# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether nodes may go back into service."""

from __future__ import annotations

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.fleet.qualify import qualify


def part(status="pass", *checks, **more):
    return {"status": status, "checks": list(checks), **more}


def check(name, status, subject=None):
    return {"check": name, "status": status, "message": f"{name} is {status}", "subject": subject}


def diagnosed(*rates, model="H100", checks=(), status="pass"):
    gpus = [{"id": number, "name": model, "uuid": f"GPU-{number}"} for number in range(len(rates))]
    figures = {str(number): {"compute": {"tflops": rate}} for number, rate in enumerate(rates)}
    return part(status, *checks, gpus=gpus, measured={"gpus": figures, "pairs": []})


def decide(tolerance=10.0, **hosts):
    return qualify({host: {"diagnostics": result} for host, result in hosts.items()}, tolerance)


def test_a_slow_gpu_among_the_nodes_is_named():
    verdicts = decide(a=diagnosed(60, 60), b=diagnosed(60, 53))
    assert verdicts["a"]["qualified"] and verdicts["a"]["summary"] == "qualified"
    slow = verdicts["b"]
    assert (slow["qualified"], slow["slow_gpus"], slow["status"]) == (False, 1, "warning")
    assert slow["reasons"] == [
        "GPU 1: slow: arithmetic 53 TFLOP/s, 88 % of the median 60 of 4 GPUs"
    ]
    assert [gpu["qualified"] for gpu in slow["gpus"]] == [True, False]


@pytest.mark.parametrize(
    ("rate", "tolerance", "qualified"), [(54, 10, True), (53.9, 10, False), (56, 5, False)]
)
def test_the_tolerance(rate, tolerance, qualified):
    assert decide(tolerance, a=diagnosed(60, 60, rate))["a"]["qualified"] is qualified


def test_only_gpus_of_the_same_model_are_peers_and_two_are_too_few():
    verdicts = decide(a=diagnosed(60, 60, 60), b=diagnosed(30, 20, model="L40S"))
    assert verdicts["b"]["qualified"]


@pytest.mark.parametrize(
    ("name", "qualified"),
    [("gpu_test_record", False), ("gpu_test_device_bandwidth", False), ("gpu_test_sensors", True)],
)
def test_a_gpu_that_its_own_node_found_slow(name, qualified):
    slow = check(name, "warning", "GPU 0") | {"message": "GPU 0: 3 GB/s, 60 in earlier runs"}
    verdict = decide(a=diagnosed(60, checks=[slow], status="warning"))["a"]
    assert verdict["qualified"] is qualified
    assert verdict["reasons"] == ([] if qualified else ["GPU 0: slow: 3 GB/s, 60 in earlier runs"])


@pytest.mark.parametrize(
    ("parts", "qualified", "reason"),
    [
        ({"health": part(), "gpu": part()}, True, None),
        ({"health": part("warning", check("cpu_load", "warning"))}, True, None),
        (
            {"health": part("critical", check("raid", "critical"))},
            False,
            "health: raid: raid is critical",
        ),
        ({"gpu": {"failed": True, "msg": "no driver"}}, False, "gpu: not checked: no driver"),
        ({"gpu": {"unreachable": True}}, False, "gpu: not checked: it gave no verdict"),
        ({"gpu": {"skipped": True}, "health": part()}, True, None),
        ({}, False, "nothing was checked"),
    ],
)
def test_what_a_node_needs(parts, qualified, reason):
    verdict = qualify({"a": parts})["a"]
    assert verdict["qualified"] is qualified
    assert verdict["reasons"] == ([reason] if reason else [])


def test_a_gpu_has_the_worst_of_its_checks_in_all_parts():
    gpus = [{"id": 0, "name": "H100", "uuid": "GPU-0", "serial": "7"}]
    parts = {
        "gpu": part("warning", check("gpu_history", "warning", "GPU 0"), gpus=gpus),
        "diagnostics": diagnosed(
            60, status="critical", checks=[check("gpu_test_memory", "critical", "GPU 0")]
        ),
    }
    verdict = qualify({"a": parts})["a"]
    (gpu,) = verdict["gpus"]
    assert (gpu["status"], gpu["qualified"], gpu["serial"]) == ("critical", False, "7")
    assert gpu["problems"] == [
        "gpu_history: gpu_history is warning",
        "gpu_test_memory: gpu_test_memory is critical",
    ]
    assert verdict["reasons"] == ["diagnostics: gpu_test_memory: gpu_test_memory is critical"]
