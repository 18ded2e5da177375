# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a check says is what the run does, with a level of free space and with a quarantine: random
trees on a small file system of their own, three runs one after the other.
"""

from __future__ import annotations

import os
import random
import time

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup import run
from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup.options import (
    CleanupOptions,
)

KIB = 1024
DAY = 86400
COMPARED = (
    "changed",
    "plan",
    "plan_count",
    "removed",
    "removed_count",
    "largest",
    "kept",
    "kept_count",
    "freed_bytes",
    "targets",
    "notes",
    "watermarks",
    "quarantined",
    "quarantined_count",
    "quarantined_bytes",
)


def _grow(dice, root, lab, number):
    """Add files, directories and checkpoints of random sizes and ages to the three targets."""
    for count in range(dice.randint(2, 6)):
        path = root / "files" / f"{number}-{count}"
        path.write_bytes(b"x" * (dice.randint(1, 900) * KIB))
        _age(dice, path)
    for count in range(dice.randint(1, 4)):
        path = lab.unit(root / "runs", f"{number}-{count}", size=dice.randint(1, 300) * KIB)
        for inner in path.rglob("*"):
            _age(dice, inner)
        _age(dice, path)
    for step in sorted(dice.sample(range(1, 50), dice.randint(2, 5))):
        whole = dice.random() < 0.7
        path = lab.checkpoint(root / "models/llm", "torch_dcp", step + 50 * number, whole=whole)
        (path / "weights").write_bytes(b"x" * (dice.randint(1, 900) * KIB))
        for inner in (*path.rglob("*"), path):
            _age(dice, inner)


def _fill(root):
    """Leave only half of the space free, so that every level is missed."""
    state = os.statvfs(root)
    excess = state.f_bavail - state.f_blocks // 2
    if excess > 0:
        with open(root / "ballast", "ab") as stream:
            stream.write(bytes(excess * state.f_frsize))


def _age(dice, path):
    moment = time.time() - dice.randint(1, 40) * DAY
    os.utime(path, (moment, moment))


def _targets(dice, root):
    keeps = [{}, {"keep_last": 1}, {"keep_last": 2, "keep_every": "10"}]
    return [
        {"name": "files", "path": str(root / "files"), "retention_days": dice.choice((5, 20))},
        {"name": "runs", "path": str(root / "runs"), "retention_days": 10, "keep_last": 1},
        {
            "name": "models",
            "path": str(root / "models"),
            "layout": "auto",
            "retention_days": 0,
            **dice.choice(keeps[1:]),
        },
    ]


CASES = {
    "level": {"free_to": "60%"},
    "level with a trigger": {"free_to": "70%", "when_below": "65%"},
    "level out of reach": {"free_to": "99%"},
    "quarantine": {"quarantine": "3d"},
    "level and quarantine": {"free_to": "70%", "quarantine": "3d"},
}


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("case", CASES)
def test_a_check_lists_exactly_what_the_run_then_does(world, clock, root, lab, case, seed):
    lab.require_mounts()
    dice = random.Random(f"{case} {seed}")

    def rounds():
        lab.mount("-t", "tmpfs", "-o", "size=32m", "tmpfs", root)
        for name in ("files", "runs", "models/llm"):
            (root / name).mkdir(parents=True)
        results = []
        targets = [{**target, "age_by": "mtime"} for target in _targets(dice, root)]
        options = CleanupOptions.from_mapping(
            {"targets": targets, "in_use": "ignore", **CASES[case]}
        )
        for number in range(3):
            _grow(dice, root, lab, number)
            _fill(root)
            clock.time = time.time() + 2 * number * DAY
            before = lab.image(root)
            planned = run.run(options, world, check=True).to_dict()
            unharmed = lab.image(root) == before
            results.append((unharmed, planned, run.run(options, world).to_dict()))
        return results

    removed = 0
    for unharmed, planned, result in lab.in_namespace(rounds):
        assert unharmed, "a check changed something"
        assert "failed" not in result
        for key in COMPARED:
            assert planned.get(key) == result.get(key), key
        removed += result["removed_count"]
    assert removed, "a tree of which nothing goes shows nothing"
