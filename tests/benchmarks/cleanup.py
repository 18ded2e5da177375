# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What it costs to plan and to carry out a cleanup of many files, against du, find and rm.

    .build/dev/bin/python tests/benchmarks/cleanup.py [ROUNDS]              (make bench runs it too)
    MLOPS_CLEANUP_FILES="20000 100000 300000" MLOPS_CLEANUP_FOLDER=/var/tmp  how many files, and on which file system
    MLOPS_CLEANUP_SHAPES="flat nested"                                      which trees

Nested: runs of 100 files of 64 to 4000 bytes in three directories each; the runs are the units. Flat: the same files directly in the
root, where each is a unit. A tree is laid out again before every removal. Ours is the core's own function, process table, both looks
at every file, quarantine and result included, in a process of its own, so that its memory is known. `du -s` is what a plan can't do
without: one stat per file. `du -s` and `rm -rf` together know the sizes and check nothing; `find` with `du` and `rm` for each run is
what the old scripts did. tmpfs is the hardest peer: there removing costs next to nothing, and what is checked weighs most.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import bench
import setup
from common import Problem, main_wrapper, say

#: Largest CPU of a plan against `du -s`, and of a cleanup against `du -s; rm -rf`.
PLAN = 2.0
CLEAN = {"flat": 2.0, "nested on tmpfs": 1.6, "nested": 1.3}
#: Largest CPU of three times as many flat files; largest memory in MiB, and in KiB for each unit.
THREEFOLD, MEMORY, MEMORY_PER_UNIT = 3.2, 64.0, 0.3
SIZES = [int(size) for size in os.environ.get("MLOPS_CLEANUP_FILES", "20000 100000").split()]
SHAPES = os.environ.get("MLOPS_CLEANUP_SHAPES", "flat nested").split()
DIRECTORY = os.environ.get("MLOPS_CLEANUP_FOLDER", "/var/tmp")
PER_RUN = 100
DAY = 86400
PLACES = ("logs", "checkpoints", "metrics")


class Cost(NamedTuple):
    """Milliseconds, and MiB at the peak."""

    wall: float
    cpu: float
    memory: float


def write(root: Path, shape: str, files: int) -> int:
    """Lay out a tree; return how many units it has."""
    dice, data = random.Random(7), os.urandom(4000)
    root.mkdir()
    for number in range(files):
        if shape == "flat":
            path = root / f"part-{number:07}.bin"
        else:
            run, place = divmod(number, PER_RUN)
            path = root / f"run-{run:05}" / PLACES[place % 3] / f"file-{place}"
            if place < len(PLACES):
                path.parent.mkdir(parents=True)
        with open(path, "wb", buffering=0) as stream:
            stream.write(data[: dice.randint(64, 4000)])
    return files if shape == "flat" else files // PER_RUN


def measured(function: Callable[[], object]) -> Cost:
    """Run a function in a forked child and return its cost, with the children it waited for."""
    start = time.perf_counter()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            function()
            status = 0
        except BaseException as error:
            say(f"{type(error).__name__}: {error}")
        finally:
            os._exit(status)
    dummy, status, usage = os.wait4(pid, 0)
    if status:
        raise Problem("a measured run failed")
    wall = time.perf_counter() - start
    return Cost(1000 * wall, 1000 * (usage.ru_utime + usage.ru_stime), usage.ru_maxrss / 1024)


def shell(root: Path, *commands: str) -> Callable[[], object]:
    """Return a function that runs commands in the root."""
    return lambda: [
        subprocess.run(command, shell=True, cwd=root, stdout=subprocess.DEVNULL, check=True)
        for command in commands
    ]


def cleanup(root: Path, units: int, check: bool) -> Callable[[], object]:
    """Return a function that cleans the root, 40 days after it was laid out."""
    from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup import run
    from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup.options import (
        CleanupOptions,
    )
    from ansible_collections.mlops.fleet.plugins.module_utils._core.ports import SystemClock, World

    class Later(SystemClock):
        """The machine's clock 40 days later: what was just written is old."""

        def now(self) -> float:
            return time.time() + 40 * DAY

    def start_program(*_arguments, **_options):
        raise Problem("a cleanup of directories starts no program")

    world = World(run=start_program, clock=Later(), hostname="n1", environ={})
    target = {"name": "runs", "path": str(root), "retention_days": 30}
    # With the report that nodes with the agent keep.
    state = f"{root}-state"
    options = CleanupOptions.from_mapping({"targets": [target], "state_dir": state})

    def clean() -> None:
        result = run.run(options, world, check=check)
        if result.failures or len(result.outcome.removed) != units:
            raise Problem(f"{len(result.outcome.removed)} of {units} units were removed")

    return clean


def median(costs: list[Cost]) -> Cost:
    """Return the cost whose CPU time is the median."""
    return sorted(costs, key=lambda cost: cost.cpu)[len(costs) // 2]


def compare(base: Path, shape: str, files: int, rounds: int) -> dict[str, Cost]:
    """Measure everything on one tree, in turns; return the medians."""
    root = base / "runs"
    costs: dict[str, list[Cost]] = {}
    removals = ["ours", "du -s; rm -rf", "rm -rf"]
    if shape == "nested":
        removals.append("find -exec du; -exec rm")
    each = r"find . -mindepth 1 -maxdepth 1 -exec du -sm {} \; -exec rm -rf {} \;"
    for dummy in range(rounds):
        for what in removals:
            units = write(root, shape, files)
            shell(root, "du -s .")()
            if what == "ours":
                plan = {"plan": cleanup(root, units, True), "du -s": shell(root, "du -s .")}
                for name, function in plan.items():
                    costs.setdefault(name, []).append(measured(function))
            functions = {
                "ours": cleanup(root, units, False),
                "du -s; rm -rf": shell(base, "du -s runs", "rm -rf runs"),
                "rm -rf": shell(base, "rm -rf runs"),
                "find -exec du; -exec rm": shell(root, each),
            }
            costs.setdefault(what, []).append(measured(functions[what]))
            shutil.rmtree(root, ignore_errors=True)
    return {what: median(measurements) for what, measurements in costs.items()}


def main() -> int:
    setup.ensure("dev")
    sys.path.insert(0, str(setup.link_collection()))
    base = Path(tempfile.mkdtemp(prefix="mlops-fleet-bench-", dir=DIRECTORY))
    os.environ["MLOPS_FLEET_LOCK_DIR"] = str(base / "lock")
    os.environ["MLOPS_FLEET_STATE_DIR"] = str(base / "state")
    fstype = subprocess.run(
        ["stat", "-f", "-c", "%T", base], capture_output=True, text=True, check=True
    ).stdout.strip()
    met = True
    saved: dict[str, dict[str, Cost]] = {}
    try:
        for shape in SHAPES:
            for files in SIZES:
                costs = compare(base, shape, files, bench.rounds(2))
                label = f"{files} files, {shape}, {fstype}"
                saved[label] = costs
                say(f"{label}:")
                for what, cost in costs.items():
                    row = f"{cost.cpu:9.0f} ms CPU {cost.wall:9.0f} ms {cost.memory:7.0f} MiB"
                    say(f"  {what:26}{row}")
                met &= bench.target(
                    f"plan, {label}", costs["plan"].cpu / costs["du -s"].cpu, PLAN, "x du -s"
                )
                goal = CLEAN.get(f"{shape} on {fstype}", CLEAN[shape])
                ratio = costs["ours"].cpu / costs["du -s; rm -rf"].cpu
                met &= bench.target(f"cleanup, {label}", ratio, goal, "x (du -s; rm -rf)")
                units = files if shape == "flat" else files // PER_RUN
                limit = MEMORY + MEMORY_PER_UNIT * units / 1024
                met &= bench.target(f"memory, {label}", costs["ours"].memory, limit, "MiB")
                third = saved.get(f"{files // 3} files, {shape}, {fstype}")
                if third is not None:
                    growth = costs["ours"].cpu / third["ours"].cpu
                    met &= bench.target(f"growth, {label}", growth, THREEFOLD, "x a third of it")
    finally:
        shutil.rmtree(base)
    bench.save(
        "cleanup",
        {
            label: {what: cost._asdict() for what, cost in costs.items()}
            for label, costs in saved.items()
        },
    )
    return 0 if met else 1


if __name__ == "__main__":
    main_wrapper(main)
