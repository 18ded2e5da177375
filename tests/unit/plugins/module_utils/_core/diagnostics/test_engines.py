# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The JSON of dcgmi and nvbandwidth as our checks and figures."""

from __future__ import annotations

import json

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.diagnostics import engines, plan
from ansible_collections.mlops.fleet.plugins.module_utils._core.diagnostics.facts import (
    Facts,
    GpuFacts,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.diagnostics.options import (
    DiagnosticsOptions,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import (
    CommandFailed,
    NotUsable,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.ports import CommandResult, World


def gpu(number):
    return GpuFacts(number, "H100", f"GPU-{number}", "", False, (), 0, 0, 5, 16, 0, 0)


def run(engine, answer, gpus=2, code=0, **given):
    """Return (checks, figures, pairs, calls) of an engine whose program prints an answer."""
    options = DiagnosticsOptions.from_mapping({"engine": engine, **given})
    facts = Facts(tuple(map(gpu, range(gpus))), (), 0.0)
    decided = plan.decide(options, facts)
    calls = []

    def command(argv, timeout=0, env=None, stdin=None):
        calls.append((list(argv), env))
        if isinstance(answer, Exception):
            raise answer
        text = answer if isinstance(answer, str) else json.dumps(answer)
        return CommandResult(code, text, "")

    results = engines.run(engine, decided, World(run=command))
    checks = results.checks + plan.evaluate(options, decided, results.outcome, facts)
    found = [
        (check.check, check.subject, check.status, check.action)
        for check in checks
        if check.check != "gpu_test_errors"
    ]
    figures = {one.number: one.figures for one in results.outcome.gpus}
    return found, figures, results.outcome.pairs, calls, checks


# --- dcgm: the shapes of DCGM 4.2 (entities) and 3.1 (gpu_ids) ---------------------------------


def dcgm(*tests, key="DCGM Diagnostic"):
    return {key: {"test_categories": [{"category": "c", "tests": list(tests)}]}, "metadata": {}}


def entity(name, status, number=0, **warning):
    result = {"entity_group": "GPU", "entity_group_id": 1, "entity_id": number, "status": status}
    if warning:
        result["warnings"] = [warning]
    return {"name": name, "results": [result], "test_summary": {"status": status}}


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        (entity("memory", "Pass"), ("gpu_test_memory", "GPU 0", "pass", "none")),
        (entity("memory_bandwidth", "Pass", 1), ("gpu_test_device_bandwidth", "GPU 1", "pass", "none")),
        (entity("pcie", "Skip"), ("gpu_test_host_to_device", "GPU 0", "skipped", "none")),
        (entity("diagnostic", "Warn"), ("gpu_test_compute", "GPU 0", "warning", "inspect")),
        (entity("targeted_power", "Fail"), ("gpu_test_compute", "GPU 0", "critical", "inspect")),
        (entity("memory", "Fail", error_severity=2, warning="x"), ("gpu_test_memory", "GPU 0", "critical", "drain")),
        (entity("memory", "Fail", error_severity=6, warning="x"), ("gpu_test_memory", "GPU 0", "critical", "reset_gpu")),
        (entity("software", "Fail", error_severity=5, warning="Persistence"), ("gpu_test", "GPU 0", "warning", "inspect")),
        (entity("software", "Odd"), ("gpu_test", "GPU 0", "unknown", "inspect")),
        ({"name": "software", "results": [{"status": "Pass"}]}, ("gpu_test", "DCGM", "pass", "none")),
        ({"name": "Memory", "results": [{"gpu_ids": "1", "status": "Fail", "warnings": "bad"}]}, ("gpu_test_memory", "GPU 1", "critical", "inspect")),
    ],
)  # fmt: skip
def test_results_of_dcgm(test, expected):
    assert run("dcgm", dcgm(test))[0] == [expected]
    assert run("dcgm", dcgm(test, key="DCGM GPU Diagnostic"), code=226)[0] == [expected]


def test_dcgm_is_called_for_the_chosen_gpus_and_level():
    answer = "note\n" + json.dumps(dcgm(entity("memory", "Pass")))
    calls = run("dcgm", answer, gpus=3)
    assert calls[3][0][0] == ["dcgmi", "diag", "-r", "1", "-i", "0,1,2", "-j"]
    assert run("dcgm", answer, level="standard")[3][0][0][3] == "2"
    many = {"name": "memory", "results": [{"gpu_ids": "0,1", "status": "Pass"}]}
    assert [entry[1] for entry in run("dcgm", dcgm(many))[0]] == ["GPU 0", "GPU 1"]


# --- nvbandwidth ------------------------------------------------------------------------------


def nvbandwidth(*cases, **more):
    return {"nvbandwidth": {"version": "v0.8", "testcases": list(cases), **more}}


def case(name, *rows, status="Passed", **more):
    return {"name": name, "status": status, "bandwidth_matrix": [list(row) for row in rows], **more}


DOWN = case("host_to_device_memcpy_ce", ("55.63", "54.10"))
UP = case("device_to_host_memcpy_ce", ("55.59", "20.00"))
BETWEEN = case("device_to_device_memcpy_read_ce", ("N/A", "395.1"), ("120.0", "N/A"))


def test_results_of_nvbandwidth():
    found, figures, pairs, calls, dummy = run("nvbandwidth", nvbandwidth(DOWN, UP, BETWEEN))
    assert figures == {
        0: {"host_bandwidth": {"host_to_device": 55.63, "device_to_host": 55.59}},
        1: {"host_bandwidth": {"host_to_device": 54.1, "device_to_host": 20.0}},
    }
    assert ("gpu_test_device_to_host", "GPU 1", "warning", "inspect") in found
    assert ("gpu_test_peer", "GPU 1 to GPU 0", "pass", "none") in found
    assert [(pair["source"], pair["target"], pair["rate"]) for pair in pairs] == [
        (1, 0, 395.1),
        (0, 1, 120.0),
    ]
    argv, env = calls[0]
    assert argv[:4] == ["nvbandwidth", "-j", "-t", "host_to_device_memcpy_ce"] and len(argv) == 8
    assert env["CUDA_VISIBLE_DEVICES"] == "GPU-0,GPU-1"


def test_what_nvbandwidth_could_not_measure():
    waived = case("device_to_device_memcpy_read_ce", status="Waived")
    assert all(
        entry[2] == "pass"
        for entry in run("nvbandwidth", nvbandwidth(DOWN, DOWN | {"name": UP["name"]}, waived))[0]
    )
    broken = case("host_to_device_memcpy_ce", status="Error", error="CUDA_ERROR_UNKNOWN")
    assert run("nvbandwidth", nvbandwidth(broken))[0] == [
        ("gpu_test", "nvbandwidth", "critical", "inspect")
    ]
    assert run("nvbandwidth", nvbandwidth(error="no device"))[0][0][2] == "critical"


# --- both -------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["dcgm", "nvbandwidth"])
@pytest.mark.parametrize(
    "answer",
    [
        "",
        "no JSON",
        "{",
        "[]",
        "{}",
        '{"nvbandwidth": 7, "DCGM Diagnostic": 7}',
        CommandFailed.timed_out("x", 60),
    ],
)
def test_a_program_without_a_result_is_critical(engine, answer):
    found = run(engine, answer, code=1)[0]
    assert [entry[:3:2] for entry in found] == [("gpu_test", "critical")]


@pytest.mark.parametrize("engine", ["dcgm", "nvbandwidth"])
def test_a_program_that_is_not_installed(engine):
    with pytest.raises(NotUsable, match="set engine to builtin"):
        run(engine, CommandFailed.missing("x"))
