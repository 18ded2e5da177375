# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The figures of earlier runs and the comparison with them."""

from __future__ import annotations

import json
import os

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.diagnostics import record
from ansible_collections.mlops.fleet.plugins.module_utils._core.diagnostics.facts import (
    Failure,
    GpuFacts,
    Measured,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.ports import World


def gpu(uuid="GPU-a", number=0):
    return GpuFacts(number, "H100", uuid, "", False, (), 0, 0, 5, 16, 0, 0)


def measured(tflops, number=0, failure=None):
    return Measured(number, {"compute": {"tflops": tflops}}, {}, failure)


def run(path, tflops, uuid="GPU-a", failure=None, warnings=None):
    world = World(run=None, warn=(warnings if warnings is not None else []).append)
    checks = record.update(str(path), [gpu(uuid)], [measured(tflops, failure=failure)], 10.0, world)
    return [(check.check, check.status) for check in checks]


def test_a_gpu_that_became_slower_than_it_was(tmp_path):
    path = tmp_path / "state" / "figures.json"
    assert run(path, 60) == []
    assert run(path, 54) == [("gpu_test_record", "pass")]
    assert run(path, 51.4) == [("gpu_test_record", "pass")], "the median is 57"
    assert run(path, 48) == [("gpu_test_record", "warning")]
    assert run(path, 10, uuid="GPU-b") == [], "another card"
    for dummy in range(20):
        run(path, 60)
    stored = json.loads(path.read_text())["gpus"]["GPU-a"]["compute.tflops"]
    assert stored == [60.0] * record.RUNS


def test_a_failed_test_is_no_record(tmp_path):
    path = tmp_path / "figures.json"
    run(path, 1, failure=Failure("compute", "x"))
    assert json.loads(path.read_text())["gpus"] == {}


@pytest.mark.parametrize(
    "content", ["", "[]", '{"version": 1}', '{"version": 1, "gpus": {"a": 7}}', '{"version": "x"}']
)
def test_a_broken_record_starts_over(tmp_path, content):
    path = tmp_path / "figures.json"
    path.write_text(content)
    warnings = []
    assert run(path, 60, warnings=warnings) == [] and "starts over" in warnings[0]
    assert json.loads(path.read_text())["version"] == 1


def test_a_record_of_a_later_release_is_left_alone(tmp_path):
    path = tmp_path / "figures.json"
    path.write_text('{"version": 2}')
    assert run(path, 60) == [("gpu_test_state_file", "warning")]
    assert path.read_text() == '{"version": 2}'
    assert run(tmp_path / "no" / "such" / "file", 60) == [("gpu_test_state_file", "warning")]
    assert "no" not in os.listdir(tmp_path)
