# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What must survive every policy: random trees, and a process that writes checkpoints."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup import layouts

LIBRARIES = list(layouts.LAYOUTS.names)


@pytest.mark.parametrize("seed", range(12))
def test_whatever_the_rules_the_newest_the_best_and_what_is_named_used_or_excluded_survive(
    world, clock, root, lab, seed
):
    """Random trees, policies and clocks; what must survive is known from how the trees were made."""
    dice = random.Random(seed)
    precious, held = set(), []
    for number in range(dice.randint(1, 3)):
        layout = dice.choice(LIBRARIES)
        run = root / f"run-{number}" / dice.choice(("", "deeper"))
        steps = dice.sample(range(100, 2000, 100), dice.randint(1, 6))
        losses = {step: round(dice.random(), 3) for step in steps}
        paths = {}
        for step in sorted(steps):
            paths[step] = lab.checkpoint(run, layout, step, loss=losses[step])
        precious.add(paths[max(steps)])
        if layout != "transformers":
            precious.add(paths[min(steps, key=lambda step: (losses[step], -step))])
        if layout not in ("megatron", "deepspeed") or dice.random() < 0.5:
            lab.checkpoint(run, layout, 5000, whole=False)
        step = dice.choice(steps)
        if dice.random() < 0.4:
            inner = [path for path in (paths[step], *paths[step].rglob("*")) if path.is_file()]
            held.append(open(dice.choice(inner), "rb"))
            precious.add(paths[step])
        step = dice.choice(steps)
        if dice.random() < 0.4:
            (paths[step].parent / "wanted").symlink_to(paths[step].name)
            precious.add(paths[step])
        step = dice.choice(steps)
        if dice.random() < 0.4 and paths[step].is_dir():
            (paths[step] / "run.pinned").write_text("")
            precious.add(paths[step])
    clock.time = dice.choice((clock.time, time.time() + dice.random() * 100_000, time.time()))
    try:
        result = lab.clean(
            world,
            root,
            retention_days=dice.choice((0, 0, 0.5, 20)),
            layout="auto",
            keep_last=dice.randint(0, 2),
            keep_best=dice.randint(0, 2),
            metric="val_loss",
            keep_every=dice.choice((None, "300", "1h", "30d")),
            group_by=dice.choice(("run", "target")),
            exclude=["*.pinned"],
        )
    finally:
        for stream in held:
            stream.close()
    assert "failed" not in result
    for path in precious:
        assert path.exists(), f"{path} of seed {seed} went: {result['removed']}"
    for path in {path.parent for path in precious}:
        assert not any(name.startswith(".mlops") for name in os.listdir(path))
    assert all(entry["reason"] for entry in (*result["kept"], *result["removed"]))


def test_a_checkpoint_is_never_touched_while_a_process_writes_it(world, clock, root, lab):
    """A real writer: shards, then the tracker, while one cleanup follows the other."""
    writer = """
import os, sys, time
run = sys.argv[1]
for step in range(100, 1100, 100):
    path = f"{run}/global_step{step}"
    os.makedirs(path)
    for shard in ("zero_pp_rank_0_optim_states.pt", "mp_rank_00_model_states.pt"):
        with open(f"{path}/{shard}", "w") as stream:
            stream.write("x" * 1000)
            time.sleep(0.04)
    with open(f"{run}/new", "w") as stream:
        stream.write(f"global_step{step}")
    os.rename(f"{run}/new", f"{run}/latest")
    time.sleep(0.04)
    assert sorted(os.listdir(path)) == ["mp_rank_00_model_states.pt", "zero_pp_rank_0_optim_states.pt"], path
"""
    run = root / "run"
    run.mkdir()
    clock.time = time.time()
    process = subprocess.Popen([sys.executable, "-c", writer, str(run)], stderr=subprocess.PIPE)
    removed, rounds = set(), 0
    while process.poll() is None:
        result = lab.clean(world, root, retention_days=0, layout="deepspeed", keep_last=1)
        assert "failed" not in result
        removed.update(lab.names(result["removed"]))
        rounds += 1
    assert process.returncode == 0, process.stderr.read().decode()
    process.stderr.close()
    lab.clean(world, root, retention_days=0, layout="deepspeed", keep_last=1)
    assert sorted(os.listdir(run)) == ["global_step1000", "latest"]
    assert rounds > 1 and removed and "global_step1000" not in removed
