# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a whole maintenance run costs the controller, per host, against four bare module calls per
host.

    .build/dev/bin/python tests/benchmarks/fleet.py [ROUNDS] [HOSTS...]        (default: 3 rounds of
    20, 100 and 500 hosts)

The nodes are stand-ins: their Python is a shell script that reads the module and prints a result,
so what is measured is the controller. CPU is user + system time of ansible-playbook with its
workers; the ratio carries over to other machines. Targets: at most 1.3 times the bare calls, and
the same per host at every size; collecting last results at most 0.2 times a whole run. Stand-ins do
no work, so on real nodes collecting is cheaper still against a run.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import bench
import setup
from common import BUILD, Problem, main_wrapper, say

TARGET = 1.3
COLLECT_TARGET = 0.2
MODULES = ("node_health", "gpu_health", "model_backup", "artifact_cleanup")
#: What every module of a stand-in node answers: a verdict, a backup and a cleanup in one.
ANSWER: dict[str, Any] = {
    "changed": False,
    "hostname": "node",
    "duration": 0.1,
    "status": "pass",
    "exit_code": 0,
    "checks": [
        {
            "check": f"check_{number}",
            "status": "pass",
            "message": "Memory usage: 41%",
            "value": 41.0,
        }
        for number in range(20)
    ],
    "summary": {
        "total": 20,
        "passed": 20,
        "warnings": 0,
        "failed": 0,
        "skipped": 0,
        "health_score": 100.0,
        "status": "pass",
        "exit_code": 0,
    },
    "backup": {"path": "/b/x.tar.gz", "size": 1, "files": 1, "verified": True},
    "removed": [],
    "freed_bytes": 0,
}


def prepare(directory: Path, hosts: int) -> dict[str, list[str]]:
    """Write inventory, stand-in and playbooks; return the command lines to compare."""
    stub = directory / "python"
    stub.write_text(
        f"#!/bin/sh\ncat >/dev/null\ncat <<'END'\n{json.dumps(ANSWER)}\nEND\n", encoding="utf-8"
    )
    stub.chmod(0o755)
    variables = {
        "ansible_connection": "local",
        "ansible_python_interpreter": str(stub),
        "ansible_pipelining": True,
        "maintenance_gpu_expected_count": 8,
        "maintenance_backup_keep_last": 3,
    }
    inventory = directory / f"inventory-{hosts}.json"
    names = {f"node{number:04}": {} for number in range(hosts)}
    inventory.write_text(json.dumps({"all": {"hosts": names, "vars": variables}}), encoding="utf-8")
    bare = directory / "bare.yml"
    play = {
        "hosts": "all",
        "gather_facts": False,
        "tasks": [{f"mlops.fleet.{module}": {}, "register": module} for module in MODULES],
    }
    bare.write_text(json.dumps([play]), encoding="utf-8")
    program = [str(BUILD / "dev" / "bin" / "ansible-playbook"), "-i", str(inventory)]
    return {
        "four bare module calls": [*program, str(bare)],
        "mlops.fleet.maintenance": [*program, "mlops.fleet.maintenance"],
        "mlops.fleet.collect": [
            *program,
            "mlops.fleet.collect",
            "-e",
            f"collect_state_dir={keep_results(directory)}",
        ],
    }


def keep_results(directory: Path) -> Path:
    """Write what the jobs of a node leave; return the directory."""
    results = directory / "state" / "last"
    results.mkdir(parents=True, exist_ok=True)
    for phase in ("health", "gpu", "backup", "cleanup"):
        document = {"version": 1, "phase": phase, "time": time.time(), "result": ANSWER}
        text = json.dumps(document, separators=(",", ":"))
        (results / f"{phase}.json").write_text(text + "\n", encoding="utf-8")
    return results.parent


def measure(argv: list[str], env: dict[str, str], directory: Path) -> tuple[float, float]:
    """Return CPU seconds and peak memory (MB) of a run. :raises Problem: it failed."""
    with (directory / "output").open("w+b") as output:
        process = subprocess.Popen(
            argv, env=env, cwd=directory, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        _pid, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            raise Problem(f"{' '.join(argv)} failed: {output.read().decode()[-1500:]}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> int:
    setup.ensure("dev")
    rounds = bench.rounds(3)
    sizes = [int(size) for size in sys.argv[2:]] or [20, 100, 500]
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    result: dict[str, dict[str, float]] = {}
    met = True
    with tempfile.TemporaryDirectory(prefix="mlops-fleet-bench-") as name:
        directory = Path(name)
        env = {**bench.environment(directory), "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORKS": "5"}
        say(f"{'hosts':>5}  {'':<26}{'CPU s':>8}{'ms/host':>9}{'ratio':>7}{'peak MB':>9}")
        for hosts in sizes:
            lines = prepare(directory, hosts)
            samples: dict[str, list[tuple[float, float]]] = {label: [] for label in lines}
            for dummy in range(rounds):
                for label, argv in lines.items():
                    samples[label].append(measure(argv, env, directory))
            base, ratios = 0.0, {}
            for label, pairs in samples.items():
                # Other work on the machine only ever adds to the CPU time: the least is the nearest
                # to the truth.
                cpu, memory = min(pairs)
                base = base or cpu
                ratio = ratios[label] = cpu / base
                result[f"{label}, {hosts} hosts"] = {
                    "cpu_s": round(cpu, 2),
                    "ms_per_host": round(1000 * cpu / hosts, 1),
                    "ratio": round(ratio, 2),
                    "peak_mb": round(memory, 1),
                }
                say(
                    f"{hosts:>5} "
                    f" {label:<26}{cpu:>8.1f}{1000 * cpu / hosts:>9.1f}{ratio:>7.2f}{memory:>9.1f}"
                )
            whole = ratios["mlops.fleet.maintenance"]
            met &= bench.target(f"whole run over {hosts} hosts", whole, TARGET, "x four bare calls")
            share = ratios["mlops.fleet.collect"] / whole
            met &= bench.target(
                f"collecting from {hosts} hosts", share, COLLECT_TARGET, "x whole run"
            )
    bench.save("fleet", result)
    return 0 if met else 1


if __name__ == "__main__":
    main_wrapper(main)
