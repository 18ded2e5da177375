# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Verdicts at the edges of what was measured."""

from __future__ import annotations

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.diagnostics import peers, plan
from ansible_collections.mlops.fleet.plugins.module_utils._core.diagnostics.facts import (
    Facts,
    Failure,
    GpuFacts,
    Measured,
    Outcome,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.diagnostics.options import (
    LEVELS,
    RESERVE,
    DiagnosticsOptions,
    Expected,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.diagnostics.sensors import (
    SLOWDOWN,
)

GPU = GpuFacts(0, "NVIDIA L4", "GPU-1", "0:0", False, (), 0, 0, 4, 16, 0, 0)


def evaluate(figures, readings=None, gpus=(GPU,), peer_failure=None, when_busy="fail"):
    options = DiagnosticsOptions.from_mapping({"when_busy": when_busy})
    decided = plan.decide(options, Facts(tuple(gpus), (), 1.0))
    measured = tuple(Measured(gpu.number, figures, readings or {}, None) for gpu in decided.gpus)
    outcome = Outcome(measured, (), peer_failure)
    return plan.evaluate(options, decided, outcome, Facts(tuple(gpus), (), 2.0))


def test_no_gpu_and_no_free_gpu_are_told_apart():
    assert [check.message for check in evaluate({}, gpus=())] == ["No NVIDIA GPU on this node"]
    busy = GPU._replace(processes=(7,))
    (check,) = evaluate({}, gpus=[busy], when_busy="skip")
    assert "process 7" in check.message


def test_memory_that_passed_counts_no_mismatch():
    memory = {"bytes": 1 << 30, "patterns": 2, "mismatches": 0, "samples": []}
    (check,) = [c for c in evaluate({"memory": memory}) if c.check == "gpu_test_memory"]
    assert (check.status, check.value) == ("pass", 0)


@pytest.mark.parametrize("readings", [{}, {"readings": 0}, {"readings": 0, "temperature": 90}])
def test_without_a_reading_nothing_is_said_about_sensors(readings):
    assert [c for c in evaluate({}, readings) if "temperature" in c.message] == []


@pytest.mark.parametrize(("stuck", "action"), [(True, "reboot"), (False, "inspect")])
def test_what_to_do_about_copies_that_fail(stuck, action):
    failure = Failure("peer", "it failed", stuck=stuck)
    second = GPU._replace(number=1, uuid="GPU-2")
    checks = evaluate({}, gpus=[GPU, second], peer_failure=failure)
    assert [c.action for c in checks if c.check == "gpu_test_peer"] == [action]


def options(**given):
    return DiagnosticsOptions.from_mapping(given)


def numbered(*numbers, **values):
    return tuple(GPU._replace(number=number, uuid=f"GPU-{number}", **values) for number in numbers)


def test_chosen_gpus_are_tested():
    decided = plan.decide(options(gpus=[1]), Facts(numbered(0, 1, 2), (), 1.0))
    assert [gpu.number for gpu in decided.gpus] == [1]


def test_a_busy_gpu_with_mig_is_left_out_once():
    busy = numbered(0, mig=True, processes=(7,))
    decided = plan.decide(options(when_busy="skip"), Facts(busy, (), 1.0))
    assert [check.message for check in decided.left_out] == [f"GPU 0: not tested, {busy[0].busy}"]


@pytest.mark.parametrize(
    ("tests", "count", "peer"),
    [(["peer"], 2, True), (["peer"], 1, False), (["memory"], 2, False)],
)
def test_copies_between_gpus_need_two_and_the_test(tests, count, peer):
    facts = Facts(numbered(*range(count)), (), 1.0)
    assert plan.decide(options(tests=tests), facts).peer is peer


@pytest.mark.parametrize(
    ("given", "default", "limit"),
    [(12.34, 99.0, (11.1, "user")), (None, 12.345, (12.3, "default")), (None, None, (None, None))],
)
def test_a_limit_is_rounded_and_says_where_it_comes_from(given, default, limit):
    assert plan._limit(given, options(tolerance=10), default) == limit


SENSORS = {"readings": 3, "temperature": 61, "power": 70.5, "clock": None, "reasons": 0}


@pytest.mark.parametrize(
    ("change", "status", "action", "message"),
    [
        ({}, "pass", "none", "GPU 0: temperature up to 61 °C, power up to 70.5 W"),
        (
            {"reasons": SLOWDOWN},
            "warning",
            "inspect",
            "GPU 0: temperature up to 61 °C, power up to 70.5 W, slowed down by hardware or heat",
        ),
        ({"temperature": None, "power": None}, "pass", "none", "GPU 0: no readings"),
    ],
)
def test_what_the_sensors_said(change, status, action, message):
    checks = evaluate({}, {**SENSORS, **change})
    (check,) = [check for check in checks if check.check == "gpu_test_sensors"]
    assert (check.status, check.action, check.message) == (status, action, message)


@pytest.mark.parametrize(
    ("rates", "slow"),
    [
        ([12.34, 12.34, 11.2], []),
        ([12.34, 12.34, 11.0], [(2, 11.1)]),
        ([100.0, 100.0, 90.0], []),
        ([100.0, 10.0], []),
    ],
)
def test_a_gpu_is_slow_below_the_median_of_three(rates, slow):
    checks = peers.slow(dict(enumerate(rates)), "copies", "GB/s", 10)
    assert [(check.subject, check.warn) for check in checks] == [
        (f"GPU {number}", warn) for number, warn in slow
    ]


PAIR = {"source": 0, "target": 1, "rate": 90.0, "direct": True, "mismatches": 0}


@pytest.mark.parametrize(
    ("pair", "typical", "status", "action", "warn", "message"),
    [
        ({}, 100.0, "pass", "none", 90.0, "90 GB/s directly"),
        (
            {"rate": 89.9},
            100.0,
            "warning",
            "inspect",
            90.0,
            "89.9 GB/s directly, at least 90 expected",
        ),
        ({"direct": False}, 12.34, "pass", "none", 11.1, "90 GB/s through the host"),
        ({"mismatches": 1}, 100.0, "critical", "drain", None, "1 word arrived wrong (directly)"),
    ],
)
def test_copies_of_a_pair(pair, typical, status, action, warn, message):
    expected = Expected.from_mapping({})
    check = peers.pair_check({**PAIR, **pair}, typical, expected, options(tolerance=10))
    assert (check.status, check.action, check.warn) == (status, action, warn)
    assert check.message == f"GPU 0 to GPU 1: {message}"


@pytest.mark.parametrize(
    ("later", "status", "value"),
    [
        ({}, "pass", 0),
        ({"uncorrected": 1}, "critical", 1),
        ({"corrected": 1}, "warning", 1),
        ({"corrected": 1, "uncorrected": 2}, "critical", 2),
    ],
)
def test_errors_that_appear_during_the_tests(later, status, value):
    decided = plan.decide(options(), Facts((GPU,), (), 1.0))
    after = Facts((GPU._replace(**later),), (), 2.0)
    (check,) = plan.evaluate(options(), decided, Outcome((), (), None), after)
    assert (check.status, check.value) == (status, value)


def test_the_levels_and_what_stays_free_of_the_memory_are_as_documented():
    assert RESERVE == 0.05
    assert [
        (
            level.name,
            level.memory_share,
            level.patterns,
            level.compute,
            level.copy >> 20,
            *level[6:],
        )
        for level in LEVELS
    ] == [
        ("quick", 0.5, 2, 2.0, 256, 5, 60.0),
        ("standard", 0.95, 8, 20.0, 1024, 10, 300.0),
        ("soak", 0.95, 8, 600.0, 1024, 10, 300.0),
    ]
