# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Verdicts at the edges of what was measured."""

from __future__ import annotations

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.diagnostics import plan
from ansible_collections.mlops.fleet.plugins.module_utils._core.diagnostics.facts import (
    Facts,
    Failure,
    GpuFacts,
    Measured,
    Outcome,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.diagnostics.options import (
    DiagnosticsOptions,
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
