# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the benchmarks share.

Run by itself it runs all benchmarks of this directory in turn, as `make bench` does:

    .build/dev/bin/python tests/benchmarks/bench.py [ROUNDS]

In every benchmark what is compared takes turns, so that a busy moment hits all of it, and the
medians count. CPU is user + system time of a process and its children. Ratios carry over to other
machines better than milliseconds. A peer that is not on this machine is named with the command that
installs it, and skipped. Numbers go to .build/bench/NAME.json. Ends with 1 when a benchmark misses
its target or fails.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
for _directory in (HERE.parent / "nvml_double", HERE.parents[1] / "scripts"):
    if str(_directory) not in sys.path:
        sys.path.insert(0, str(_directory))

import setup
from common import BUILD, EXTRA_PATH, Problem, install_command, main_wrapper, run, say

EMPTY = """#!/usr/bin/python
from ansible.module_utils.basic import AnsibleModule

AnsibleModule(argument_spec={}, supports_check_mode=True).exit_json(changed=False)
"""
TOOLS = BUILD / "tools"
# Where distributions put programs that are not meant to be typed.
PEER_PATH = (
    "/usr/lib/nagios/plugins",
    "/usr/lib64/nagios/plugins",
    "/usr/lib/monitoring-plugins",
    "/usr/lib/systemd",
    "/lib/systemd",
)

# One measured thing: the programs it starts, one after the other.
Steps = Sequence[Sequence[str]]


def rounds(default: int = 15) -> int:
    """How often each thing is run: the first word of the command line, or the default."""
    return int(sys.argv[1]) if len(sys.argv) > 1 else default


def environment(directory: Path, scenario: str | None = None) -> dict[str, str]:
    """The environment of all runs, with simulated GPUs where a scenario is named; also makes the
    directory of the empty module.
    """
    (directory / "library").mkdir(exist_ok=True)
    (directory / "library" / "empty.py").write_text(EMPTY, encoding="utf-8")
    env = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
    env.update(
        ANSIBLE_COLLECTIONS_PATH=str(setup.link_collection()),
        ANSIBLE_HOME=str(directory / "home"),
        ANSIBLE_LOCALHOST_WARNING="False",
        LC_ALL="C.UTF-8",
    )
    if scenario:
        import harness

        env = harness.environment(scenario, env)
    return env


def pack(directory: Path, name: str, arguments: dict, env: dict[str, str], label: str = "") -> Path:
    """The file that Ansible would run on a node for this module; a label keeps two packings of one
    module apart.
    """
    home = directory / (label or name)
    argv = [BUILD / "dev" / "bin" / "ansible", "localhost", "-M", directory / "library", "-m", name]
    argv += ["-a", json.dumps(arguments)] if arguments else []
    argv += ["-e", f"ansible_python_interpreter={sys.executable}"]
    done = run(
        argv,
        capture=True,
        check=False,
        env={
            **env,
            "ANSIBLE_KEEP_REMOTE_FILES": "1",
            "ANSIBLE_REMOTE_TMP": str(home),
            "ANSIBLE_PIPELINING": "0",
        },
    )
    packed = list(home.glob("*/AnsiballZ_*.py"))
    if len(packed) != 1:
        raise Problem(
            f"expected one packed module below {home}, found {len(packed)}:"
            f" {done.stdout.strip()[-500:]}"
        )
    return packed[0]


def measure(
    argv: Sequence[str], env: dict[str, str], good: Sequence[int] = (0,)
) -> tuple[float, float]:
    """Wall and CPU milliseconds of one run from start to exit.

    :raises Problem: it ended with another status than the good ones.
    """
    start = time.perf_counter()
    process = subprocess.Popen(
        list(argv),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=env,
    )
    words = process.stderr.read().decode(errors="replace")
    _pid, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.stderr.close()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in good or "Traceback" in words:
        raise Problem(f"{' '.join(argv)} ended with {process.returncode}: {words[-500:]}")
    return 1000 * wall, 1000 * (usage.ru_utime + usage.ru_stime)


def take_turns(
    things: dict[str, Steps], number: int, env: dict[str, str], good: Sequence[int] = (0,)
) -> dict[str, dict[str, float]]:
    """Run all things in turn, so many rounds after a first round that warms the caches; the medians
    of each as wall_ms and cpu_ms.
    """
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in things}
    for turn in range(number + 1):
        for name, steps in things.items():
            wall, cpu = (
                sum(column) for column in zip(*(measure(argv, env, good) for argv in steps))
            )
            if turn:
                times[name].append((wall, cpu))
    return {name: medians(pairs) for name, pairs in times.items()}


def medians(pairs: Sequence[tuple[float, float]]) -> dict[str, float]:
    """The medians of (wall, CPU) milliseconds."""
    wall, cpu = (statistics.median(column) for column in zip(*pairs))
    return {"wall_ms": round(wall, 1), "cpu_ms": round(cpu, 1)}


def show(title: str, table: dict[str, dict[str, float]], base: str, per: str) -> None:
    """Print a table and add to each row its ratios to the base row; per says in a word what that
    is.
    """
    say(f"{title:<44}{'wall ms':>10}{per:>9}{'CPU ms':>10}{per:>9}")
    for name, row in table.items():
        for key in ("wall", "cpu"):
            row[f"{key}_ratio"] = round(row[f"{key}_ms"] / max(0.1, table[base][f"{key}_ms"]), 2)
        say(
            f"{name:<44}{row['wall_ms']:>10.1f}{row['wall_ratio']:>9.2f}{row['cpu_ms']:>10.1f}{row['cpu_ratio']:>9.2f}"
        )


def target(what: str, found: float, limit: float, unit: str) -> bool:
    """Say whether a target is met; returns whether."""
    say(
        f"{what}: {found:.1f} {unit}, target at most {limit:g} {unit}:"
        f" {'met' if found <= limit else 'MISSED'}"
    )
    return found <= limit


def peer(program: str, package: str) -> str | None:
    """The path of somebody else's program; None where it is missing, which is reported with what
    installs it.
    """
    directories = [
        *os.environ.get("PATH", "").split(os.pathsep),
        *EXTRA_PATH,
        *PEER_PATH,
        *(f"{TOOLS}{path}" for path in PEER_PATH),
    ]
    found = shutil.which(program, path=os.pathsep.join(directories))
    if found is None:
        say(f"skipped: {program} is not on this machine. Install: {install_command([package])}")
    return found


def save(name: str, result: dict) -> None:
    """Write a benchmark's numbers to .build/bench/NAME.json."""
    (BUILD / "bench").mkdir(parents=True, exist_ok=True)
    (BUILD / "bench" / f"{name}.json").write_text(
        json.dumps(result, indent=2) + "\n", encoding="utf-8"
    )


def main() -> int:
    setup.ensure("dev")
    failed = []
    for script in sorted(HERE.glob("*.py")):
        if script.name == Path(__file__).name:
            continue
        say(f"--- {script.stem}")
        if (
            subprocess.run([sys.executable, str(script), *sys.argv[1:]], check=False).returncode
            != 0
        ):
            failed.append(script.stem)
        say()
    say(
        f"bench: failed or missed a target: {', '.join(failed)}"
        if failed
        else "bench: all done, no target missed"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    main_wrapper(main)
