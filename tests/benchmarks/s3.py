# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a copy in S3 costs over a slow network, against boto3's transfer manager.

    .build/dev/bin/python tests/benchmarks/s3.py [ROUNDS]
    MLOPS_S3_MIB=256      how much is sent and read

The server (servers/slow_s3.py) lets each connection move 25 MB per second, with 30 ms of delay in
each direction. Both sides use as many connections as the option s3.parallel allows by default, and
begin without a client. Each number is the median of the rounds, in which both sides take turns; CPU
is that of this process. What boto3 needs with the ten connections it uses by default is printed
too, beside what the same option does here.
"""

from __future__ import annotations

import contextlib
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bench
import setup
from common import main_wrapper, say

sys.path.insert(0, str(setup.link_collection()))

import boto3
from boto3.s3.transfer import TransferConfig

from ansible_collections.mlops.fleet.plugins.module_utils._core.backup import catalogue
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.make import run as making
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.options import (
    BackupOptions,
    S3Copies,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.s3.store import S3Store
from ansible_collections.mlops.fleet.plugins.module_utils._core.ports import World

MIB = int(os.environ.get("MLOPS_S3_MIB", "256"))
#: Connections: the default of s3.parallel, and boto3's.
CONNECTIONS, BOTO3_CONNECTIONS = 4, 10
#: Longest time against boto3's.
GOAL = 1.0
KEYS = {"access_key": "bench", "secret_key": "bench-secret"}


@contextlib.contextmanager
def slow_server() -> Iterator[str]:
    """Run the slow server; give its URL."""
    script = bench.HERE / "servers" / "slow_s3.py"
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


def measured(work: Callable[[], object]) -> tuple[float, float]:
    """Return seconds and CPU seconds of this process."""
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF)
    work()
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.monotonic() - started, cpu


def jobs(url: str, directory: Path, mib: int) -> dict[str, Callable[[], object]]:
    """Make an archive; return what sends and reads it, by name."""
    (directory / "source").mkdir()
    with open(directory / "source" / "weights", "wb") as stream:
        for dummy in range(mib):
            stream.write(os.urandom(1 << 20))
    given = {"source": str(directory / "source"), "destination": str(directory / "backups")}
    options = BackupOptions.from_mapping({**given, "compression": "none", "verify": False})
    made = making.run(options, World(run=None)).backup
    backup = catalogue.inspect(str(directory / "backups"), made["name"])

    def store(parallel: int) -> S3Store:
        settings = {"bucket": "bench", "endpoint_url": url, **KEYS, "parallel": parallel}
        return S3Store(S3Copies.from_mapping(settings))

    def read(parallel: int) -> None:
        with store(parallel).open(backup) as stream:
            while stream.read(1 << 20):
                pass

    def client() -> Any:
        return boto3.session.Session().client(
            "s3",
            endpoint_url=url,
            region_name="us-east-1",
            aws_access_key_id=KEYS["access_key"],
            aws_secret_access_key=KEYS["secret_key"],
        )

    def theirs(parallel: int) -> TransferConfig:
        return TransferConfig(max_concurrency=parallel)

    copy = str(directory / "copy")
    work: dict[str, Callable[[], object]] = {}
    for count in (CONNECTIONS, BOTO3_CONNECTIONS):
        work[f"send over {count}, mlops.fleet"] = lambda n=count: store(n).upload(backup)
        work[f"send over {count}, boto3"] = lambda n=count: client().upload_file(
            made["path"], "bench", "other", Config=theirs(n)
        )
    work[f"read over {CONNECTIONS}, mlops.fleet"] = lambda: read(CONNECTIONS)
    work[f"read over {CONNECTIONS}, boto3"] = lambda: client().download_file(
        "bench", "other", copy, Config=theirs(CONNECTIONS)
    )
    return work


def compare(mib: int, rounds: int) -> dict[str, list[float]]:
    """Return the medians of seconds and CPU seconds by job; all jobs take turns."""
    with tempfile.TemporaryDirectory() as name, slow_server() as url:
        work = jobs(url, Path(name), mib)
        results: dict[str, list[tuple[float, float]]] = {job: [] for job in work}
        for dummy in range(rounds):
            for job, run in work.items():
                results[job].append(measured(run))
    return {
        job: [statistics.median(column) for column in zip(*numbers)]
        for job, numbers in results.items()
    }


def pairs(medians: dict[str, list[float]]) -> list[tuple[str, float]]:
    """Return by what was done our time as a multiple of boto3's."""
    done = [job.partition(",")[0] for job in medians if job.endswith("boto3")]
    return [
        (what, medians[f"{what}, mlops.fleet"][0] / medians[f"{what}, boto3"][0]) for what in done
    ]


def main() -> int:
    """Print the table; 1 when the goal is missed."""
    medians = compare(MIB, bench.rounds(3))
    for job, (seconds, cpu) in medians.items():
        say(f"{job:<28} {seconds:7.2f} s {cpu:7.2f} CPU-s {MIB * 1.048576 / seconds:7.1f} MB/s")
    missed = 0
    for what, ratio in pairs(medians):
        missed += ratio > GOAL
        say(f"{what}: {ratio:.2f} x of boto3's time (goal: at most {GOAL:g})")
    bench.save("s3", medians)
    return 1 if missed else 0


if __name__ == "__main__":
    main_wrapper(main)
