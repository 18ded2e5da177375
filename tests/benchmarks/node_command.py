# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a timer's job costs a node: `mlfleet gpu` and `mlfleet health` from start to exit, against
`python3 -c pass` and against the same check as a task of Ansible.

    .build/dev/bin/python tests/benchmarks/node_command.py [ROUNDS]        (make bench runs it too)

The command is installed as the agent role installs it. The module is run as Ansible would run it on
a node: the packed file, without the connection and the controller's own time, so the comparison
flatters the task. Both read eight simulated GPUs, or this machine. All take turns, so that a busy
moment hits all of them; the medians count. CPU is user + system time of the process and its
children. The numbers go to .build/bench/node_command.json too. Ends with 1 when the command costs
more than its share of the CPU of the task, or imports what its check has no use for.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests" / "nvml_double")]

import bench
import setup
from common import Problem, main_wrapper, say

CHECKS = {
    "gpu": ("mlops.fleet.gpu_health", {"log_source": "none"}),
    "health": ("mlops.fleet.node_health", {"network": False}),
}
# Never needed to judge a healthy node.
UNWANTED = {
    "gpu": {"boto3", "psutil", "urllib.request", "smtplib", "tarfile", "ssl"},
    "health": {"boto3", "smtplib", "tarfile"},
}
# The command's share of the CPU of the task, below.
SHARES = {"gpu": 0.35, "health": 1}
PROBE = (
    "import runpy, sys\nsys.argv = sys.argv[1:]\ntry:\n    runpy.run_path(sys.argv[0],"
    " run_name='__main__')\nexcept SystemExit:\n    pass\nprint(*sys.modules, file=sys.stderr)\n"
)


def measure(argv: list[str], env: dict[str, str]) -> tuple[float, float]:
    """Wall and CPU milliseconds of one run; a verdict other than healthy is a run all the same."""
    start = time.perf_counter()
    process = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=env
    )
    words = process.stderr.read().decode(errors="replace")
    _pid, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 1, 2) or "Traceback" in words:
        raise Problem(f"{' '.join(argv)} ended with {process.returncode}: {words[-500:]}")
    return 1000 * wall, 1000 * (usage.ru_utime + usage.ru_stime)


def install(directory: Path) -> Path:
    """Install the command below a directory; returns its path."""
    sys.path.insert(0, str(setup.link_collection()))
    from ansible_collections.mlops.fleet.plugins.action import agent_install
    from ansible_collections.mlops.fleet.plugins.module_utils._core import agent

    version, data = agent_install.bundle()
    agent.install(str(directory / "opt"), str(directory / "bin"), sys.executable, version, data)
    return directory / "bin" / "mlfleet"


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    setup.ensure("dev")
    import harness

    directory = Path(tempfile.mkdtemp(prefix="mlops-fleet-bench-"))
    try:
        (directory / "library").mkdir()
        env = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
        env.update(
            ANSIBLE_COLLECTIONS_PATH=str(setup.link_collection()),
            ANSIBLE_HOME=str(directory / "home"),
            ANSIBLE_LOCALHOST_WARNING="False",
            LC_ALL="C.UTF-8",
        )
        env = harness.environment("h100x8", env)
        command = str(install(directory))
        runs = {"python3 -c pass": [sys.executable, "-I", "-c", "pass"]}
        for name, (module, arguments) in CHECKS.items():
            config = directory / f"{name}.json"
            section = (
                {**arguments, "metrics_csv": str(directory / "gpu.csv")}
                if name == "gpu"
                else arguments
            )
            config.write_text(json.dumps({name: section}), encoding="utf-8")
            runs[f"mlfleet {name}"] = [
                command,
                name,
                "--config",
                str(config),
                "--log-file",
                str(directory / "log"),
            ]
            runs[f"task {module}"] = [
                sys.executable,
                str(bench.pack(directory, module, section, env)),
            ]
        unwanted = {}
        for name, words in UNWANTED.items():
            argv = [sys.executable, "-c", PROBE, *runs[f"mlfleet {name}"]]
            imported = subprocess.run(
                argv, capture_output=True, text=True, check=True, env=env
            ).stderr.split()
            unwanted[name] = sorted(words & set(imported))

        times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
        for number in range(rounds + 1):
            for name, argv in runs.items():
                one = measure(argv, env)
                if number:  # the first round warms the caches
                    times[name].append(one)
    finally:
        shutil.rmtree(directory, ignore_errors=True)

    result: dict[str, dict] = {}
    for name, pairs in times.items():
        wall, cpu = (statistics.median(column) for column in zip(*pairs))
        result[name] = {"wall_ms": round(wall, 1), "cpu_ms": round(cpu, 1)}
    base = result["python3 -c pass"]
    say(f"{'':<30}{'wall ms':>9}{'/ pass':>8}{'CPU ms':>9}{'/ pass':>8}{'/ task':>8}")
    failed = 0
    for name, numbers in result.items():
        numbers["wall_ratio"], numbers["cpu_ratio"] = (
            round(numbers[key] / base[key], 2) for key in ("wall_ms", "cpu_ms")
        )
        word, _space, check = name.partition(" ")
        share = ""
        if word == "mlfleet":
            numbers["of_task"] = round(
                numbers["cpu_ms"] / result[f"task {CHECKS[check][0]}"]["cpu_ms"], 2
            )
            share = f"{numbers['of_task']:.2f}"
            failed |= numbers["of_task"] >= SHARES[check] or bool(unwanted[check])
        say(
            f"{name:<30}{numbers['wall_ms']:>9.1f}{numbers['wall_ratio']:>8.2f}{numbers['cpu_ms']:>9.1f}{numbers['cpu_ratio']:>8.2f}{share:>8}"
        )
    for name, words in unwanted.items():
        if words:
            say(f"mlfleet {name} imports {', '.join(words)}, which it has no use for")
    # The timers' own count: every five minutes and every quarter of an hour; nothing runs in
    # between.
    day = (288 * result["mlfleet gpu"]["cpu_ms"] + 96 * result["mlfleet health"]["cpu_ms"]) / 1000
    say(f"a day of both timers: {day:.0f} s of CPU, {day / 864:.3f} % of one core")
    bench.save("node_command", result)
    return failed


if __name__ == "__main__":
    main_wrapper(main)
