# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What it costs to plan and to carry out a cleanup of many files, against du, find and rm.

    .build/dev/bin/python tests/benchmarks/cleanup.py [ROUNDS]              (make bench runs it too)
    MLOPS_CLEANUP_FILES=30000 MLOPS_CLEANUP_FOLDER=/var/tmp                 how many files, and on which filesystem

A tree of runs (100 files of 64 to 4000 bytes in three folders each) is laid out anew before every deletion. Ours is the core's own function,
process table, both looks at every file, quarantine and report included. `du -s` is what a plan can't do without: one stat per file. `du -s` and
`rm -rf` together know the sizes and judge nothing; `find` with `du` and `rm` for each run is what the old scripts did. Memory (tmpfs) is the
hardest peer: there removing costs next to nothing, and looking twice at every file weighs most.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import bench
import setup
from common import Problem, main_wrapper, say

SCAN, CLEAN = 2.5, 2.0
FILES = int(os.environ.get("MLOPS_CLEANUP_FILES", "30000"))
PER_RUN = 100
DAY = 86400


def write(root: Path) -> None:
    """Lay out the runs."""
    dice, data = random.Random(7), os.urandom(4000)
    for number in range(FILES // PER_RUN):
        run = root / f"run-{number:05}"
        for folder in ("logs", "checkpoints", "metrics"):
            (run / folder).mkdir(parents=True)
        for place in range(PER_RUN):
            with open(
                run / ("logs", "checkpoints", "metrics")[place % 3] / f"file-{place}",
                "wb",
                buffering=0,
            ) as stream:
                stream.write(data[: dice.randint(64, 4000)])


def timed(function: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU milliseconds of a call, with the children it waited for."""

    def cpu() -> float:
        return time.process_time() + sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])

    wall, used = time.perf_counter(), cpu()
    function()
    return 1000 * (time.perf_counter() - wall), 1000 * (cpu() - used)


def main() -> int:
    setup.ensure("dev")
    sys.path.insert(0, str(setup.link_collection()))
    from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup import run
    from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup.options import (
        CleanupOptions,
    )
    from ansible_collections.mlops.fleet.plugins.module_utils._core.ports import SystemClock, World

    class Later(SystemClock):
        """The machine's clock 40 days on: what was just written is old."""

        def now(self) -> float:
            return time.time() + 40 * DAY

    def start_program(*_arguments, **_options):
        raise Problem("a cleanup of folders starts no program")

    world = World(run=start_program, clock=Later(), hostname="n1", environ={})
    base = Path(
        tempfile.mkdtemp(
            prefix="mlops-fleet-bench-", dir=os.environ.get("MLOPS_CLEANUP_FOLDER", "/var/tmp")
        )
    )
    os.environ["MLOPS_FLEET_LOCK_DIR"] = str(base / "lock")
    root = base / "runs"
    options = CleanupOptions.from_mapping(
        {"targets": [{"name": "runs", "path": str(root), "retention_days": 30}]}
    )

    def ours(check: bool) -> None:
        result = run.run(options, world, check=check)
        if result.failures or len(result.done.removed) != FILES // PER_RUN:
            raise Problem(
                f"{len(result.done.removed)} of {FILES // PER_RUN} runs were removed, {len(result.failures)} failures"
            )

    def typed(*commands: str) -> Callable[[], object]:
        return lambda: [
            subprocess.run(one, shell=True, cwd=root, stdout=subprocess.DEVNULL, check=True)
            for one in commands
        ]

    plans = {
        "artifact_cleanup, check mode": lambda: ours(True),
        "du -s": typed("du -s ."),
        "find -printf": typed(r"find . -printf '%T@ %C@ %b %p\n'"),
        "find -exec du -sm, each run": typed(r"find . -mindepth 1 -maxdepth 1 -exec du -sm {} \;"),
    }
    cleanings = {
        "artifact_cleanup": lambda: ours(False),
        "du -s; rm -rf": typed("du -s .", "rm -rf run-*"),
        "rm -rf": typed("rm -rf run-*"),
        "find -exec du -sm; -exec rm -rf, each run": typed(
            r"find . -mindepth 1 -maxdepth 1 -exec du -sm {} \; -exec rm -rf {} \;"
        ),
    }
    tables: list[dict[str, list[tuple[float, float]]]] = [
        {what: [] for what in plans},
        {what: [] for what in cleanings},
    ]
    try:
        for turn in range(bench.rounds(2)):
            for what, function in cleanings.items():
                shutil.rmtree(root, ignore_errors=True)
                write(root)
                typed("du -s .")()
                if what == "artifact_cleanup":
                    for plan, look in plans.items():
                        tables[0][plan].append(timed(look))
                tables[1][what].append(timed(function))
            say(f"round {turn + 1} done")
    finally:
        shutil.rmtree(base)
    plan, clean = (
        {what: bench.medians(pairs) for what, pairs in table.items()} for table in tables
    )
    bench.show(f"plan, {FILES} files", plan, "du -s", "/ du")
    bench.show(f"clean, {FILES} files", clean, "du -s; rm -rf", "/ du;rm")
    met = bench.target(
        "CPU of a plan", plan["artifact_cleanup, check mode"]["cpu_ratio"], SCAN, "x du -s"
    )
    met &= bench.target(
        "CPU of a cleanup", clean["artifact_cleanup"]["cpu_ratio"], CLEAN, "x (du -s; rm -rf)"
    )
    bench.save("cleanup", {"files": FILES, "plan": plan, "clean": clean})
    return 0 if met else 1


if __name__ == "__main__":
    main_wrapper(main)
