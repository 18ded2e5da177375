# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one task costs a node: wall clock and CPU of our modules against a module that does nothing, as ratios.

    make bench            or: .build/dev/bin/python scripts/bench.py [ROUNDS]

Ansible packs each module with its arguments as it would for a node; the packed file is then run ROUNDS times (default 15), the modules in
turn, so that a busy moment hits all of them. CPU is user + system time of the process and its children. The medians count. Ratios carry
over to other machines better than milliseconds. The GPU module reads eight simulated GPUs. The numbers also go to .build/bench.json.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import setup
from house import BUILD, ROOT, Problem, main_wrapper, run, say

sys.path.insert(0, str(ROOT / "tests" / "nvml_double"))

EMPTY = """#!/usr/bin/python
from ansible.module_utils.basic import AnsibleModule

AnsibleModule(argument_spec={}, supports_check_mode=True).exit_json(changed=False)
"""
# What is measured: module -> arguments
MODULES = {"empty": {}, "mlops.fleet.gpu_health": {}, "mlops.fleet.node_health": {"network": False}}


def pack(folder: Path, name: str, arguments: dict, env: dict[str, str]) -> Path:
    """The file that Ansible would run on a node for this module."""
    home = folder / name
    argv = [BUILD / "dev" / "bin" / "ansible", "localhost", "-M", folder / "library", "-m", name]
    argv += ["-a", json.dumps(arguments)] if arguments else []
    argv += ["-e", f"ansible_python_interpreter={sys.executable}"]
    run(argv, capture=True, env={**env, "ANSIBLE_KEEP_REMOTE_FILES": "1", "ANSIBLE_REMOTE_TMP": str(home), "ANSIBLE_PIPELINING": "0"})
    packed = list(home.glob("*/AnsiballZ_*.py"))
    if len(packed) != 1:
        raise Problem(f"expected one packed module below {home}, found {len(packed)}")
    return packed[0]


def measure(packed: Path, env: dict[str, str]) -> tuple[float, float]:
    """Wall and CPU milliseconds of one run."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, str(packed)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=env)
    _pid, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    words = process.stderr.read().decode(errors="replace")
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise Problem(f"{packed.name} ended with {process.returncode}: {words[-500:]}")
    return 1000 * wall, 1000 * (usage.ru_utime + usage.ru_stime)


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    setup.ensure("dev")
    collections = setup.link_collection()
    folder = BUILD / "bench"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "library").mkdir(parents=True)
    (folder / "library" / "empty.py").write_text(EMPTY, encoding="utf-8")

    import harness  # the simulated GPUs

    env = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
    env.update(ANSIBLE_COLLECTIONS_PATH=str(collections), ANSIBLE_HOME=str(folder / "home"), ANSIBLE_LOCALHOST_WARNING="False", LC_ALL="C.UTF-8")
    env = harness.environment("h100x8", env)
    packed = {name: pack(folder, name, arguments, env) for name, arguments in MODULES.items()}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in packed}
    for number in range(rounds + 1):
        for name, path in packed.items():
            one = measure(path, env)
            if number:  # the first round warms the caches
                times[name].append(one)

    result = {}
    for name, pairs in times.items():
        wall, cpu = (statistics.median(column) for column in zip(*pairs))
        result[name] = {"wall_ms": round(wall, 1), "cpu_ms": round(cpu, 1), "packed_kb": round(packed[name].stat().st_size / 1024)}
    base = result["empty"]
    say(f"{'module':<28}{'wall ms':>9}{'ratio':>8}{'CPU ms':>9}{'ratio':>8}{'packed kB':>11}")
    for name, numbers in result.items():
        numbers["wall_ratio"] = round(numbers["wall_ms"] / base["wall_ms"], 2)
        numbers["cpu_ratio"] = round(numbers["cpu_ms"] / base["cpu_ms"], 2)
        say(f"{name:<28}{numbers['wall_ms']:>9.1f}{numbers['wall_ratio']:>8.2f}{numbers['cpu_ms']:>9.1f}{numbers['cpu_ratio']:>8.2f}{numbers['packed_kb']:>11}")
    (BUILD / "bench.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    main_wrapper(main)
