# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What it costs to plan and to carry out a cleanup of many files, against du, find and rm.

    .build/dev/bin/python tests/benchmarks/cleanup.py [ROUNDS]              (make bench runs it too)
    MLOPS_CLEANUP_FILES="20000 100000 300000"    how many files MLOPS_CLEANUP_PLACES="tmpfs ext4
    /var/tmp"   file systems that are made for this (root only), or directories
    MLOPS_CLEANUP_SHAPES="flat nested"           which trees

Nested: runs of 100 files of 64 to 4000 bytes in three directories each; the runs are the units.
Flat: the same files directly in the root, where each is a unit. A tree is laid out again before
every removal. Ours is the core's own function, process table, both looks at every file, quarantine
and result included, in a process of its own, so that its memory is known. `du -s` is what a plan
can't do without: one stat per file. `du -s` and `rm -rf` together know the sizes and check nothing;
`find` with `du` and `rm` for each run is what the old scripts did, `find -exec rm {} +` what many
cron jobs do. Ansible's own find and file clean 40 directories, the number that a run can wait for.
tmpfs is the hardest peer: there removing costs next to nothing, and what is checked weighs most.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
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
SIZES = [int(size) for size in os.environ.get("MLOPS_CLEANUP_FILES", "20000 100000 300000").split()]
SHAPES = os.environ.get("MLOPS_CLEANUP_SHAPES", "flat nested").split()
DEFAULT = "tmpfs ext4" if os.geteuid() == 0 else "/var/tmp"
WHERE = os.environ.get("MLOPS_CLEANUP_PLACES", DEFAULT).split()
#: Bytes of a file system that is made.
SPACE = 4 << 30
#: Directories that Ansible cleans, and most CPU seconds of a run of the node command that has
#: nothing to do.
DIRECTORIES, IDLE = 40, 0.3
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


def look(root: Path) -> Callable[[], object]:
    """Return a function that looks at the processes: a plan does so once, a cleanup twice."""
    from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup import inuse

    return lambda: inuse.observe("/proc", {root.stat().st_dev}, [str(root)])


def median(costs: list[Cost]) -> Cost:
    """Return the cost whose CPU time is the median."""
    return sorted(costs, key=lambda cost: cost.cpu)[len(costs) // 2]


def compare(base: Path, shape: str, files: int, rounds: int) -> dict[str, Cost]:
    """Measure everything on one tree, in turns; return the medians."""
    root = base / "runs"
    costs: dict[str, list[Cost]] = {}
    removals = ["ours", "du -s; rm -rf", "rm -rf"]
    removals.append("find -exec rm +")
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
                "find -exec rm +": shell(root, "find . -mindepth 1 -maxdepth 1 -exec rm -rf {} +"),
                "find -exec du; -exec rm": shell(root, each),
            }
            costs.setdefault(what, []).append(measured(functions[what]))
            shutil.rmtree(root, ignore_errors=True)
    return {what: median(measurements) for what, measurements in costs.items()}


@contextlib.contextmanager
def place(where: str) -> Iterator[Path]:
    """Give a directory on a file system, which is made for that unless it is the path of a
    directory.
    """
    top = Path(where)
    if not where.startswith("/"):
        top = Path(tempfile.mkdtemp(prefix="mlops-fleet-bench-", dir="/var/tmp"))
    image = top.with_suffix(".img")
    mounted = False
    try:
        if where == "tmpfs":
            command = ["mount", "-t", "tmpfs", "-o", f"size={SPACE}", "tmpfs", str(top)]
            subprocess.run(command, check=True)
            mounted = True
        elif not where.startswith("/"):
            with open(image, "wb") as stream:
                stream.truncate(SPACE)
            # With an inode for each 4 KiB, for these are small files.
            subprocess.run([f"mkfs.{where}", "-q", "-F", "-i", "4096", image], check=True)
            subprocess.run(["mount", "-o", "loop", image, top], check=True)
            mounted = True
        base = Path(tempfile.mkdtemp(prefix="mlops-fleet-bench-", dir=top))
        try:
            yield base
        finally:
            shutil.rmtree(base)
    finally:
        if mounted:
            subprocess.run(["umount", top], check=True)
            image.unlink(missing_ok=True)
        if not where.startswith("/"):
            top.rmdir()


PLAYBOOK = """
- hosts: localhost
  connection: local
  gather_facts: false
  vars: {ansible_python_interpreter: "{{ ansible_playbook_python }}"}
  tasks:
    - ansible.builtin.find: {paths: ["%(root)s"], file_type: directory, age: 0s}
      register: directories
      when: peer | bool
    - ansible.builtin.file: {path: "{{ item.path }}", state: absent}
      loop: "{{ directories.files }}"
      loop_control: {label: "{{ item.path }}"}
      when: peer | bool
    - mlops.fleet.artifact_cleanup:
        targets: [{path: "%(root)s", retention_days: 0}]
      when: not peer | bool
"""


def playbooks(base: Path, rounds: int) -> bool:
    """Clean directories with Ansible's own modules, and with ours."""
    root, play = base / "runs", base / "play.yml"
    play.write_text(PLAYBOOK % {"root": root})
    seconds: dict[str, list[float]] = {"find and file": [], "artifact_cleanup": []}
    environ = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(setup.link_collection()),
        "ANSIBLE_LOCALHOST_WARNING": "false",
    }
    program = str(setup.environment_bin("dev") / "ansible-playbook")
    for dummy in range(rounds):
        for name in seconds:
            write(root, "nested", DIRECTORIES * PER_RUN)
            peer = str(name == "find and file").lower()
            command = [program, "-i", "localhost,", "-e", f"peer={peer}", str(play)]
            cost = measured(
                lambda command=command: subprocess.run(
                    command, check=True, env=environ, stdout=subprocess.DEVNULL
                )
            )
            if os.listdir(root):
                raise Problem(f"{name} did not remove all of {root}")
            seconds[name].append(cost.cpu)
            root.rmdir()
    for name, values in seconds.items():
        say(f"  {DIRECTORIES} directories, {name:20}{min(values):9.0f} ms CPU")
    ratio = min(seconds["artifact_cleanup"]) / min(seconds["find and file"])
    return bool(bench.target(f"playbook, {DIRECTORIES} directories", ratio, 1.0, "x find and file"))


def idle(base: Path, rounds: int) -> bool:
    """Run the node command with a level that is reached, so that there is nothing to do."""
    package = base / "package" / "agent"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "_core").symlink_to(setup.ROOT / "plugins/module_utils/_core")
    (package / "mlfleet").symlink_to(setup.ROOT / "roles/agent/files/mlfleet")
    write(base / "runs", "nested", 20_000)
    configuration = base / "config.json"
    section = {
        "targets": [{"path": str(base / "runs"), "retention_days": 0}],
        "free_to": "1%",
        "quarantine": "3d",
    }
    configuration.write_text(json.dumps({"cleanup": section}))
    program = "import sys; from agent.mlfleet.entry import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, "cleanup", "--config", str(configuration), "--json"]
    environ = {**os.environ, "PYTHONPATH": str(package.parent)}
    costs = [
        measured(
            lambda: subprocess.run(command, check=True, env=environ, stdout=subprocess.DEVNULL)
        )
        for dummy in range(max(3, rounds))
    ]
    shutil.rmtree(base / "runs")
    seconds = median(costs).cpu / 1000
    return bool(bench.target("nothing to do, mlfleet cleanup", seconds, IDLE, "s CPU"))


Saved = dict[str, dict[str, Cost]]


def trees(base: Path, rounds: int, saved: Saved) -> bool:
    """Measure all trees on one file system."""
    command = ["stat", "-f", "-c", "%T", str(base)]
    fstype = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    met = True
    cleanup(base, 0, True)  # imports what is measured
    cost = median([measured(look(base)) for dummy in range(5)])
    processes = sum(name.isdigit() for name in os.listdir("/proc"))
    say(f"one look at {processes} processes, part of all below: {cost.cpu:.0f} ms CPU")
    for shape in SHAPES:
        for files in SIZES:
            costs = compare(base, shape, files, rounds)
            label = f"{files} files, {shape}, {fstype}"
            saved[label] = costs
            say(f"{label}:")
            for what, cost in costs.items():
                row = f"{cost.cpu:9.0f} ms CPU {cost.wall:9.0f} ms {cost.memory:7.0f} MiB"
                say(f"  {what:26}{row}")
            ratio = costs["plan"].cpu / costs["du -s"].cpu
            met &= bench.target(f"plan, {label}", ratio, PLAN, "x du -s")
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
    return met


def main() -> int:
    setup.ensure("dev")
    sys.path.insert(0, str(setup.link_collection()))
    met, rounds = True, bench.rounds(2)
    saved: Saved = {}
    for where in WHERE:
        with place(where) as base:
            os.environ["MLOPS_FLEET_LOCK_DIR"] = str(base / "lock")
            os.environ["MLOPS_FLEET_STATE_DIR"] = str(base / "state")
            met &= trees(base, rounds, saved)
            if where == WHERE[0]:
                met &= idle(base, rounds)
                met &= playbooks(base, rounds)
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
