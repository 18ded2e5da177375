# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The brake on growth compares with earlier runs, and a report of each is kept."""

from __future__ import annotations

import dataclasses
import json
import os

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup import run
from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup.brake import Braked
from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup.options import (
    CleanupOptions,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import NotUsable


def _clean(world, root, state, check=False, **more):
    options = {
        "targets": [{"path": str(root), "retention_days": 30, "name": "t"}],
        "in_use": "ignore",
        "state_dir": str(state),
    }
    return run.run(CleanupOptions.from_mapping({**options, **more}), world, check=check).to_dict()


def _units(root, count, size=10):
    for number in range(count):
        (root / f"u{number}").write_bytes(b"x" * size)


def test_a_plan_that_outgrows_the_last_runs_is_stopped_and_says_how_to_allow_it(
    world, root, tmp_path
):
    state, brake = tmp_path / "state", {"max_growth": 3}
    _units(root, 2)
    assert _clean(world, root, state, brake=brake)["removed_count"] == 2  # no earlier run
    _units(root, 7)
    with pytest.raises(Braked) as braked:
        _clean(world, root, state, brake=brake)
    assert "7 units of t would be removed, at most 2 in its last runs" in str(braked.value)
    assert f"the first beyond it is {root}/u6" in str(braked.value)
    assert "--brake-max-growth 3.5" in str(braked.value)
    assert braked.value.result["plan_count"] == 7 and len(os.listdir(root)) == 7
    assert _clean(world, root, state, brake={"max_growth": 3.5})["removed_count"] == 7
    _units(root, 1, size=1 << 20)
    with pytest.raises(Braked, match=r"1.0 MiB of t would be removed, at most 28.0 KiB"):
        _clean(world, root, state, brake=brake)


@pytest.mark.parametrize(
    ("brake", "first", "allow"),
    [
        ({"max_units": 2}, "u2", "--brake-max-units 4"),
        ({"max_bytes": 9000}, "u2", "--brake-max-bytes 16384"),
        ({"max_share": 0.5}, "u2", "--brake-max-share 1"),
    ],
)
def test_the_brake_names_the_unit_that_is_too_much_and_how_to_allow_it(
    world, root, tmp_path, brake, first, allow
):
    _units(root, 4)
    with pytest.raises(Braked) as braked:
        _clean(world, root, tmp_path / "state", brake=brake)
    assert f"{root}/{first} (" in str(braked.value) and allow in str(braked.value)


def test_reports_of_runs_that_removed_something_are_kept_for_their_time(
    world, clock, root, tmp_path
):
    state = tmp_path / "state"
    _units(root, 3)
    (root / "u2").write_bytes(b"x" * 100_000)
    assert _clean(world, root, state, check=True)["changed"] and not state.exists()
    result = _clean(world, root, state)
    assert [os.path.basename(unit["path"]) for unit in result["largest"]] == ["u2", "u0", "u1"]
    (report,) = state.glob("2*.json")
    assert report.stat().st_mode & 0o777 == 0o640 and state.stat().st_mode & 0o777 == 0o750
    assert len(json.loads(report.read_text())["removed"]) == 3
    assert not _clean(world, root, state)["changed"] and len(list(state.glob("2*.json"))) == 1
    clock.time += 90 * 86400 - 1
    _units(root, 1)
    clock.time += 40 * 86400
    _clean(world, root, state, report_days=130)
    assert report.exists()
    _units(root, 1)
    _clean(world, root, state)
    assert not report.exists() and len(list(state.glob("2*.json"))) == 2
    _units(root, 1)
    clock.time += 1
    _clean(world, root, state, report_days=0)
    assert len(list(state.glob("2*.json"))) == 0 and (state / "history.json").exists()


def test_by_default_only_nodes_with_the_agent_keep_reports(world, root, tmp_path):
    world = dataclasses.replace(world, root=str(tmp_path / "node"))
    options = {"targets": [{"path": str(root), "retention_days": 0}], "in_use": "ignore"}
    _units(root, 1)
    run.run(CleanupOptions.from_mapping(options), world)
    assert not (tmp_path / "node").exists()
    agent = tmp_path / "node/var/lib/mlops-fleet"
    agent.mkdir(parents=True)
    _units(root, 1)
    run.run(CleanupOptions.from_mapping(options), world)
    assert len(list((agent / "cleanup").glob("2*.json"))) == 1


def test_a_history_that_is_needed_and_can_not_be_kept_is_an_error(world, root, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotUsable, match="state_dir"):
        _clean(world, root, tmp_path / "file/state", brake={"max_growth": 2})
