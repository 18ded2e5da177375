# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which GPUs are tested, and what measured figures mean."""

from __future__ import annotations

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.diagnostics import kernels, plan
from ansible_collections.mlops.fleet.plugins.module_utils._core.diagnostics.facts import (
    IDLE_MEMORY,
    Facts,
    Failure,
    GpuFacts,
    Measured,
    Outcome,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.diagnostics.options import (
    LEVELS,
    DiagnosticsOptions,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import Refused

HEALTHY = GpuFacts(
    number=0,
    name="NVIDIA H100 80GB HBM3",
    uuid="GPU-1",
    bus_id="00000000:00:06.0",
    mig=False,
    processes=(),
    memory_used=0,
    utilization=0,
    pcie_generation=5,
    pcie_width=16,
    uncorrected=0,
    corrected=0,
)
FIGURES = {
    "device_bandwidth": {"rate": 3006.0},
    "host_bandwidth": {"host_to_device": 54.9, "device_to_host": 55.2},
    "memory": {"bytes": 42 << 30, "patterns": 2, "mismatches": 0, "samples": []},
    "compute": {"launches": 140, "wrong": 0, "fingerprint": kernels.ANSWER, "tflops": 14.92},
}


def options(**given):
    return DiagnosticsOptions.from_mapping(given)


def facts(*gpus):
    return Facts(gpus, (), 1.0)


def changed(test, **figures):
    return {**FIGURES, test: {**FIGURES[test], **figures}}


def evaluate(*figures, gpus=None, given=None, after=None, failures=(), pairs=(), peer_failure=None):
    """Return the checks that did not pass, for GPUs with these figures."""
    gpus = gpus or [HEALTHY._replace(number=number) for number in range(len(figures))]
    chosen = options(**(given or {}))
    decided = plan.decide(chosen, facts(*gpus))
    failed = dict(failures)
    measured = tuple(
        Measured(gpu.number, values, {}, failed.get(gpu.number))
        for gpu, values in zip(gpus, figures)
    )
    outcome = Outcome(measured, tuple(pairs), peer_failure)
    checks = plan.evaluate(chosen, decided, outcome, facts(*(after or gpus)))
    return [check for check in checks if check.status not in ("pass", "skipped")]


@pytest.mark.parametrize(
    ("busy", "reason"),
    [
        ({"processes": (7, 8)}, "process 7, 8 uses it"),
        ({"processes": None, "memory_used": IDLE_MEMORY + 1}, f"{IDLE_MEMORY + 1} MiB"),
        ({"processes": None, "utilization": 1}, "utilization is 1 %"),
    ],
)
def test_a_gpu_in_use_is_never_tested(busy, reason):
    gpus = facts(HEALTHY, HEALTHY._replace(number=1, **busy))
    with pytest.raises(Refused, match=r"Nothing was tested.*GPU 1"):
        plan.decide(options(), gpus)
    decided = plan.decide(options(when_busy="skip"), gpus)
    assert [gpu.number for gpu in decided.gpus] == [0] and not decided.peer
    assert [check.status for check in decided.left_out] == [
        "skipped"
    ] and reason in decided.left_out[0].message
    # A level that was not asked for may work.
    assert plan.decide(options(gpus=[0]), gpus).left_out == ()


@pytest.mark.parametrize(
    "idle",
    [{"processes": None}, {"processes": None, "memory_used": IDLE_MEMORY}, {"utilization": 100}],
)
def test_a_gpu_without_processes_is_free(idle):
    assert HEALTHY._replace(**idle).busy == ""


def test_a_gpu_divided_by_mig_is_left_out():
    decided = plan.decide(options(), facts(HEALTHY._replace(mig=True)))
    assert decided.gpus == () and "MIG" in decided.left_out[0].message


def test_tests_run_in_their_order_and_peers_need_two():
    decided = plan.decide(options(tests=["compute", "peer", "memory"]), facts(HEALTHY))
    assert decided.tests == ("memory", "compute") and not decided.peer
    assert plan.decide(options(), facts(HEALTHY, HEALTHY._replace(number=1))).peer


@pytest.mark.parametrize(
    ("given", "compute", "timeout"),
    [
        ({}, 2.0, 60.0),
        ({"level": "standard", "timeout": 30}, 20.0, 30.0),
        ({"level": "soak", "soak_time": 1000}, 1000.0, 1300.0),
    ],
)
def test_effort(given, compute, timeout):
    level = options(**given).effort
    assert (level.compute, level.timeout) == (compute, timeout) and level.memory_share <= 0.95


def test_what_a_healthy_h100_measured_passes():
    assert evaluate(FIGURES) == []


@pytest.mark.parametrize(
    ("figures", "status", "words", "action"),
    [
        (
            changed("device_bandwidth", rate=2512.0),
            "warning",
            "at least 2512.5 expected",
            "inspect",
        ),
        (
            changed("host_bandwidth", host_to_device=37.7),
            "warning",
            "from the host 37.7",
            "inspect",
        ),
        (changed("host_bandwidth", device_to_host=20.0), "warning", "to the host 20", "inspect"),
        (changed("compute", wrong=1), "critical", "silent corruption", "drain"),
        (
            changed("compute", fingerprint="0" * 16),
            "critical",
            "every time: silent corruption",
            "drain",
        ),
        (
            changed("memory", mismatches=2, samples=[(400, 0x90454222, 0x90454200)]),
            "critical",
            "2 words of 42.0 GiB read back wrong, the first at offset 0x190: written 0x90454222,"
            " read 0x90454200, bits 0x00000022 differ",
            "drain",
        ),
        (changed("memory", bytes=0), "unknown", "no free memory", "none"),
    ],
)
def test_a_figure_that_is_not_well(figures, status, words, action):
    (check,) = evaluate(figures)
    assert (check.status, check.action) == (status, action) and words in check.message
    assert check.counts_as == ("warning" if status == "warning" else "critical")


@pytest.mark.parametrize("rate", [2512.5, 3350.0])
def test_the_limit_itself_is_enough(rate):
    assert evaluate(changed("device_bandwidth", rate=rate)) == []


def test_own_figures_come_before_the_table():
    given = {"expected": {"device_bandwidth": 3400, "compute": 14.9}, "tolerance": 10}
    (check,) = evaluate(changed("device_bandwidth", rate=3059.9), given=given)
    assert check.warn == 3060.0 and check.threshold_source == "user"
    assert evaluate(changed("device_bandwidth", rate=3060.0), given=given) == []


def test_an_unknown_model_has_no_limit_of_its_own():
    gpu = HEALTHY._replace(name="NVIDIA Z1", pcie_generation=None)
    slow = {
        **FIGURES,
        "device_bandwidth": {"rate": 1.0},
        "host_bandwidth": {"host_to_device": 1.0, "device_to_host": 1.0},
    }
    assert evaluate(slow, gpus=[gpu]) == []


def test_a_slow_gpu_among_its_peers_is_named():
    slow = changed("compute", tflops=13.4)
    checks = evaluate(FIGURES, FIGURES, slow)
    assert [(check.subject, check.threshold_source, check.status) for check in checks] == [
        ("GPU 2", "peers", "warning")
    ]
    assert "2 peers have a median of 14.92" in checks[0].message
    assert evaluate(FIGURES, slow) == [], "two are no majority"
    assert evaluate(FIGURES, FIGURES, changed("compute", tflops=13.43)) == [], (
        "within the tolerance"
    )
    others = [
        HEALTHY._replace(number=n, name="NVIDIA Z1" if n == 2 else HEALTHY.name) for n in range(3)
    ]
    assert evaluate(FIGURES, FIGURES, slow, gpus=others) == [], "another model"


@pytest.mark.parametrize(
    ("failure", "words", "action"),
    [
        (
            Failure("memory", "cuMemAlloc_v2 failed: x (2)", 2),
            "test memory failed: cuMemAlloc_v2",
            "inspect",
        ),
        (
            Failure("compute", "no answer within 3 s", hung=True),
            "hung, no answer within 3 s; its process was killed",
            "reset_gpu",
        ),
        (Failure("compute", "no answer", hung=True, stuck=True), "can't be killed", "reboot"),
    ],
)
def test_a_test_that_does_not_end_well_is_critical(failure, words, action):
    (check,) = evaluate({}, failures={0: failure}.items())
    assert (check.status, check.action) == ("critical", action) and words in check.message


def pair(source, target, rate=400.0, mismatches=0, direct=True):
    return {
        "source": source,
        "target": target,
        "direct": direct,
        "rate": rate,
        "mismatches": mismatches,
    }


@pytest.mark.parametrize(
    ("pairs", "given", "status", "words"),
    [
        (
            [pair(0, 1), pair(1, 0, mismatches=1)],
            {},
            "critical",
            "GPU 1 to GPU 0: 1 word arrived wrong (directly)",
        ),
        ([pair(0, 1), pair(1, 0), pair(0, 2, 359.9)], {}, "warning", "at least 360 expected"),
        ([pair(0, 1, 40.0)], {"expected": {"peer": 50}}, "warning", "at least 45 expected"),
    ],
)
def test_copies_between_gpus(pairs, given, status, words):
    (check,) = evaluate(FIGURES, FIGURES, given=given, pairs=pairs)
    assert check.status == status and words in check.message
    assert (
        evaluate(FIGURES, FIGURES, pairs=[pair(0, 1), pair(1, 0), pair(0, 2, 30.0, direct=False)])
        == []
    )


def test_copies_that_end_early_are_critical():
    (check,) = evaluate(
        FIGURES, FIGURES, peer_failure=Failure("GPU 0 to GPU 1", "cuMemcpyPeerAsync failed")
    )
    assert check.status == "critical" and "GPU 0 to GPU 1" in check.message


@pytest.mark.parametrize(
    ("later", "status", "words"),
    [
        ({"uncorrected": 1}, "critical", "1 uncorrected memory error during"),
        ({"corrected": 3}, "warning", "3 corrected memory errors during"),
        (None, "critical", "no longer answers"),
    ],
)
def test_what_the_tests_brought_to_light(later, status, words):
    after = facts() if later is None else facts(HEALTHY._replace(**later))
    (check,) = evaluate(FIGURES, after=after.gpus or [HEALTHY._replace(number=9)])
    assert check.status == status and words in check.message


def test_errors_from_before_do_not_count():
    old = HEALTHY._replace(uncorrected=4, corrected=7)
    assert evaluate(FIGURES, gpus=[old]) == []


def test_slowdowns_during_the_tests_are_reported():
    readings = {"temperature": 90, "power": 700.0, "clock": 1200, "reasons": 0x40, "readings": 4}
    (check,) = plan._sensors(HEALTHY, readings)
    assert check.status == "warning" and "90 °C" in check.message and "slowed down" in check.message
    assert "slowed down by hardware or heat" in check.message
    (check,) = plan._sensors(HEALTHY, {**readings, "reasons": 0x4})
    assert (check.status, check.action) == ("pass", "none") and "slowed" not in check.message
    assert plan._sensors(HEALTHY, {}) == []


def test_a_longer_level_tests_nothing_less():
    figures = [
        (level.memory_share, level.patterns, level.compute, level.timeout) for level in LEVELS
    ]
    assert figures == [(0.5, 2, 2.0, 60.0), (0.95, 8, 20.0, 300.0), (0.95, 8, 600.0, 300.0)]
