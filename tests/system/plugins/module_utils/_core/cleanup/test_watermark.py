# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Freeing a file system to a level, on a small file system of its own."""

from __future__ import annotations

import os
import time

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup import run
from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup.options import (
    CleanupOptions,
)

MIB = 1 << 20


@pytest.fixture
def small(root, lab):
    """Return a function that runs another one in a private mount namespace, with 64 MiB mounted on the root."""
    lab.require_mounts()

    def inside(function):
        def mounted():
            lab.mount("-t", "tmpfs", "-o", "size=64m", "tmpfs", root)
            return function()

        return lab.in_namespace(mounted)

    return inside


def _file(path, mib, day):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * (mib * MIB))
    os.utime(path, (time.time() - day * 86400,) * 2)


def _clean(world, check=False, **options):
    return run.run(CleanupOptions.from_mapping(options), world, check=check).to_dict()


def _free(path):
    state = os.statvfs(path)
    return state.f_bavail * state.f_frsize


def test_the_oldest_of_all_targets_go_until_the_level_is_reached(world, clock, root, lab, small):
    clock.time = time.time()

    def case():
        for number, name in enumerate("abcdef"):
            _file(root / ("one", "two")[number % 2] / name, 8, 20 - number)
        _file(root / "other/g", 1, 30)
        targets = [
            {
                "path": str(root / name),
                "retention_days": 10 if name == "two" else 1,
                "age_by": "mtime",
            }
            for name in ("one", "two")
        ]
        options = {"targets": targets, "free_to": str(40 * MIB), "when_below": "25%"}
        planned = _clean(world, check=True, **options)
        result = _clean(world, **options)
        again = _clean(world, **options)
        return planned, result, again, _free(root), sorted(path.name for path in root.rglob("?"))

    planned, result, again, free, names = small(case)
    assert planned["plan"] == result["plan"] and planned["removed"] == result["removed"]
    assert planned["kept"] == result["kept"] and planned["notes"] == result["notes"]
    assert lab.names(result["removed"]) == ["a", "b", "c", "d"][:4]
    assert names == ["e", "f", "g"] and free >= 40 * MIB
    (level,) = result["watermarks"]
    assert level["reached"] and level["needed"] == 25 * MIB and level["freed"] == 32 * MIB
    assert "not needed" in lab.reasons(result)["e"]
    assert not again["changed"] and again["targets"][0]["note"] == "enough space is free"


def test_a_level_that_can_not_be_reached_is_reported_with_what_would_be_next(
    world, clock, root, lab, small
):
    clock.time = time.time()

    def case():
        for number, name in enumerate("abc"):
            _file(root / "one" / name, 8, 20 - 9 * number)
        _file(root / "other/g", 20, 30)
        held = open(root / "one/a", "rb")
        target = {"path": str(root / "one"), "retention_days": 10, "age_by": "mtime"}
        result = _clean(world, targets=[target], free_to="90%")
        held.close()
        return result

    result = small(case)
    assert lab.names(result["removed"]) == ["b"]
    (level,) = result["watermarks"]
    assert not level["reached"] and [os.path.basename(unit["path"]) for unit in level["next"]] == [
        "c"
    ]
    assert any("can't be reached" in note and "one/c" in note for note in result["notes"])


def test_an_abandoned_incomplete_checkpoint_goes_first_and_policies_hold(world, root, lab, small):
    def case():
        for step in (100, 200, 300, 400):
            _file(lab.checkpoint(root / "run", "torch_dcp", step) / "weights", 8, 0)
        _file(lab.checkpoint(root / "run", "torch_dcp", 350, whole=False) / "weights", 8, 0)
        target = {"path": str(root), "layout": "auto", "keep_last": 2}
        first = _clean(world, targets=[target], free_to="30M", in_use="ignore")
        _file(root / "ballast", 20, 0)
        second = _clean(world, targets=[target], free_to="56M", in_use="ignore")
        return first, second

    first, second = small(case)
    assert lab.names(first["removed"]) == ["step-350"]
    assert lab.names(second["removed"]) == ["step-100", "step-200"]
    assert not second["watermarks"][0]["reached"]
    assert [os.path.basename(unit["path"]) for unit in second["watermarks"][0]["next"]] == [
        "step-300"
    ]


def test_nothing_to_do_costs_next_to_nothing(world, root, lab):
    for number in range(20_000):
        (root / f"f{number}").write_text("")
    start = time.process_time()
    result = lab.clean(world, root, retention_days=0, free_to="1k")
    assert time.process_time() - start < 0.1 and not result["changed"]
    assert result["targets"][0]["note"] == "enough space is free"
