# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""State files that are not one, and limits that are ranges."""

from __future__ import annotations

import json

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.node import state, thresholds

EMPTY = state.Memory({}, state.Counters())


def test_what_is_no_state_file(tmp_path):
    assert state.load(str(tmp_path / "gone"), 1.0) == (EMPTY, None)
    assert state.load(str(tmp_path), 1.0) == (EMPTY, f"{tmp_path} is not a file.")
    path = tmp_path / "state.json"
    for content in ([], {}, {"version": state.VERSION + 1, "checks": {}, "counters": {}}):
        path.write_text(json.dumps(content))
        memory, problem = state.load(str(path), 1.0)
        assert memory == EMPTY
        assert "not a state file of this version" in problem
    path.write_text(json.dumps({"version": state.VERSION, "checks": {}, "counters": {}}))
    assert state.load(str(path), 1.0) == (EMPTY, None)


@pytest.mark.parametrize(
    ("limit", "below", "bad", "good"),
    [
        ("80", False, (80, 81), (79,)),
        ("80", True, (80, 79), (81,)),
        ("10:20", False, (9, 21), (10, 20)),
        ("@10:20", False, (10, 20), (9, 21)),
        ("@20", False, (0, 20), (-1, 21)),
        ("~:5", False, (6,), (-100, 5)),
        ("5:", False, (4,), (5, 1e9)),
    ],
)
def test_which_values_a_limit_hits(limit, below, bad, good):
    parsed = thresholds.parse(limit, below)
    assert [value for value in (*bad, *good) if parsed.hit(value)] == [*bad]
