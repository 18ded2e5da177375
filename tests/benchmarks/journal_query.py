# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long the node check's question to the journal takes when the journal is large, against what
people type.

    .build/dev/bin/python tests/benchmarks/journal_query.py [ROUNDS]        (make bench runs it too)
    MLOPS_JOURNAL_ENTRIES=600000                                            the size of each journal

Two journals of 600,000 entries are written by systemd-journal-remote: a quiet one (30 days, one
entry in a thousand an error) and a flooded one (all within the last hour, one in a hundred an
error). Ours is the core's own function with its own arguments, from the call to the parsed answer;
the only change is the directory that journalctl reads. Each is asked once with its files pushed out
of memory, then warm, in turn with the others.
"""

from __future__ import annotations

import os
import random
import resource
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import bench
import setup
from common import Problem, ask, main_wrapper, say

WALL_MS = 200
ENTRIES = int(os.environ.get("MLOPS_JOURNAL_ENTRIES", "600000"))
DAY = 86400
# Kind -> (seconds that the entries span, one in how many is an error)
KINDS = {"quiet, 30 days": (30 * DAY, 1000), "flooded, one hour": (3500, 100)}
UNITS = [
    "sshd.service",
    "cron.service",
    "slurmd.service",
    "docker.service",
    "prometheus-node-exporter.service",
    "systemd-logind.service",
]


def write(program: str, directory: Path, seconds: float, errors: int) -> None:
    """Write a journal of ENTRIES entries that ends now, evenly spread over the seconds, one in
    C(errors) of priority err.
    """
    directory.mkdir(parents=True)
    chance = random.Random(7)
    machine, boot = uuid.uuid4().hex, uuid.uuid4().hex
    start, step = time.time() - seconds, seconds / ENTRIES
    # A program unpacked below .build/tools finds its libraries there too.
    libraries = (
        os.pathsep.join(str(path) for path in (bench.TOOLS / "usr" / "lib").glob("*-linux-*"))
        if program.startswith(str(bench.TOOLS))
        else ""
    )
    env = {**os.environ, "LD_LIBRARY_PATH": libraries} if libraries else None
    with tempfile.TemporaryFile() as words:
        argv = [program, "--output", str(directory / "system.journal"), "-"]
        child = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=words, env=env
        )
        try:
            for number in range(ENTRIES):
                unit = UNITS[number % len(UNITS)]
                name, pid = unit.partition(".")[0], 1000 + number % 977
                level = 3 if number % errors == errors - 1 else chance.choice((4, 5, 6, 6, 6, 6))
                fields = (
                    f"__REALTIME_TIMESTAMP={int((start + number * step) * 1e6)}",
                    f"__MONOTONIC_TIMESTAMP={int(number * step * 1e6) + 1}",
                    f"_BOOT_ID={boot}",
                    f"_MACHINE_ID={machine}",
                    "_HOSTNAME=n1",
                    "_TRANSPORT=syslog",
                    f"PRIORITY={level}",
                    f"SYSLOG_IDENTIFIER={name}",
                    f"_PID={pid}",
                    "_UID=0",
                    "_GID=0",
                    f"_COMM={name[:15]}",
                    f"_EXE=/usr/sbin/{name}",
                    f"_CMDLINE=/usr/sbin/{name} --foreground",
                    f"_SYSTEMD_CGROUP=/system.slice/{unit}",
                    f"_SYSTEMD_UNIT={unit}",
                    "_SYSTEMD_SLICE=system.slice",
                    (
                        f"MESSAGE={'error' if level == 3 else 'notice'}: request {number} of client"
                        f" 10.0.{pid % 256}.{number % 251} took {chance.random():.6f} s"
                    ),
                )
                child.stdin.write(("\n".join(fields) + "\n\n").encode())
            child.stdin.close()
        except BrokenPipeError:
            pass
        if child.wait() != 0:
            words.seek(0)
            raise Problem(
                f"{program} ended with {child.returncode}:"
                f" {words.read()[-500:].decode(errors='replace')}"
            )


def count(directory: Path) -> int:
    """How many entries journalctl itself finds in the files' headers."""
    header = ask(["journalctl", "--header", f"--directory={directory}"])
    return sum(
        int(line.rpartition(":")[2])
        for line in header.splitlines()
        if line.strip().lower().startswith("entry objects:")
    )


def forget(directory: Path) -> None:
    """Push the files out of memory, so that the next look reads the disk."""
    for path in directory.rglob("*.journal"):
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)


def timed(function: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU milliseconds of a call, with the children it waited for."""

    def cpu() -> float:
        return time.process_time() + sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])

    wall, used = time.perf_counter(), cpu()
    function()
    return 1000 * (time.perf_counter() - wall), 1000 * (cpu() - used)


def main() -> int:
    setup.ensure("dev")
    program = bench.peer("systemd-journal-remote", "systemd-journal-remote")
    if not bench.peer("journalctl", "systemd") or not program:
        return 0
    sys.path.insert(0, str(setup.link_collection()))
    from ansible_collections.mlops.fleet.plugins.module_utils._core.node import journal
    from ansible_collections.mlops.fleet.plugins.module_utils._core.node.options import NodeOptions
    from ansible_collections.mlops.fleet.plugins.module_utils._core.ports import (
        CommandResult,
        World,
    )

    number, met, result = bench.rounds(), True, {}
    options = NodeOptions.from_mapping({})
    for kind, (seconds, errors) in KINDS.items():
        with tempfile.TemporaryDirectory(prefix="mlops-fleet-bench-") as name:
            directory = Path(name) / "var" / "log" / "journal" / uuid.uuid4().hex
            start = time.perf_counter()
            write(program, directory, seconds, errors)
            size = sum(path.stat().st_size for path in directory.iterdir()) / 2**20
            found = count(directory)
            say(
                f"{kind}: {found} entries in {len(list(directory.iterdir()))} files, {size:.0f}"
                f" MiB, written in {time.perf_counter() - start:.0f} s"
            )
            if found != ENTRIES:
                raise Problem(f"the journal holds {found} entries instead of {ENTRIES}")

            def start_program(argv, timeout=30.0, env=None, stdin=None, directory=directory):
                """The runner port: journalctl on our directory instead of the machine's."""
                done = subprocess.run(
                    [argv[0], f"--directory={directory}", *argv[1:]],
                    capture_output=True,
                    text=True,
                    check=False,
                    timeout=timeout,
                )
                return CommandResult(done.returncode, done.stdout, done.stderr)

            world = World(run=start_program, root=name, hostname="n1", environ={})

            def ours(world=world) -> journal.LogFacts:
                answer = journal.observe(world, options, 60)
                if answer.source != "journal":
                    raise Problem("the core did not read the journal")
                return answer

            def typed(*words: str, directory=directory) -> Callable[[], object]:
                argv = ["journalctl", "-q", "--no-pager", f"--directory={directory}", *words]
                return lambda: subprocess.run(argv, stdout=subprocess.DEVNULL, check=True)

            answer = ours()
            # The last hour's errors are known: a query that finds others is not worth timing.
            wanted = (
                min(journal.MOST, ENTRIES // errors)
                if seconds < options.error_window
                else round(ENTRIES / seconds * options.error_window / errors)
            )
            if abs(len(answer.entries) - wanted) > 1:
                raise Problem(
                    f"{len(answer.entries)} errors were found in the last hour, about {wanted} were"
                    " written"
                )
            things = {
                "node_health's query": ours,
                "journalctl -n 1": typed("-n", "1"),
                "journalctl -p err --since=-1h": typed("-p", "err", "--since=-1h"),
                "journalctl --since=-1h": typed("--since=-1h"),
                "journalctl -p err": typed("-p", "err"),
            }
            forget(directory)
            cold = bench.medians([timed(ours)])
            times: dict[str, list[tuple[float, float]]] = {what: [] for what in things}
            for turn in range(number):
                for what, function in things.items():
                    if turn < 3 or what in (
                        "node_health's query",
                        "journalctl -n 1",
                    ):  # the others take seconds
                        times[what].append(timed(function))
            rows = {
                **{what: bench.medians(pairs) for what, pairs in times.items()},
                "node_health's query, files not in memory": cold,
            }
            bench.show(f"journal, {kind}", rows, "journalctl -n 1", "/ -n 1")
            say(
                f"{len(answer.entries)} errors"
                f" returned{', the most it takes' if answer['limited'] else ''}"
            )
            met &= bench.target(
                "wall clock of the query", rows["node_health's query"]["wall_ms"], WALL_MS, "ms"
            )
            result[kind] = {"entries": found, "mib": round(size), **rows}
    bench.save("journal_query", result)
    return 0 if met else 1


if __name__ == "__main__":
    main_wrapper(main)
