# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one task costs a node: wall clock and CPU of our modules against a module that does nothing,
as ratios.

    .build/dev/bin/python tests/benchmarks/task_cost.py [ROUNDS]        (make bench runs it too)

Ansible packs each module with its arguments as it would for a node; the packed file is then run.
The GPU module reads eight simulated GPUs.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import bench
import setup
from common import main_wrapper, say

# What is measured: module -> arguments
MODULES = {"empty": {}, "mlops.fleet.gpu_health": {}, "mlops.fleet.node_health": {"network": False}}
# CPU milliseconds over the empty module, at most. On a busy machine everything takes longer:
# compare the ratios.
TARGETS = {"mlops.fleet.gpu_health": 110}


def main() -> int:
    setup.ensure("dev")
    with tempfile.TemporaryDirectory(prefix="mlops-fleet-bench-") as name:
        directory = Path(name)
        env = bench.environment(directory, "h100x8")
        packed = {
            module: bench.pack(directory, module, arguments, env)
            for module, arguments in MODULES.items()
        }
        sizes = {module: round(path.stat().st_size / 1024) for module, path in packed.items()}
        result = bench.take_turns(
            {module: [[sys.executable, str(path)]] for module, path in packed.items()},
            bench.rounds(),
            env,
        )
    bench.show("module", result, "empty", "/ empty")
    say("packed: " + ", ".join(f"{module} {size} kB" for module, size in sizes.items()))
    bench.save(
        "task_cost", {module: {**row, "packed_kb": sizes[module]} for module, row in result.items()}
    )
    met = [
        bench.target(
            f"CPU of {module} over the empty module",
            result[module]["cpu_ms"] - result["empty"]["cpu_ms"],
            limit,
            "ms",
        )
        for module, limit in TARGETS.items()
    ]
    return 0 if all(met) else 1


if __name__ == "__main__":
    main_wrapper(main)
