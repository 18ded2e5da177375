# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a copy in S3 costs over a slow network, against boto3's transfer manager.

    .build/dev/bin/python tests/benchmarks/s3.py [ROUNDS]

A proxy between client and server (SeaweedFS) lets each connection send and receive 25 MB per
second, with 30 ms of delay. Both sides use the same number of connections. Each number is the
median of the rounds, in which both sides take turns.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / ".build" / "collections"))

from boto3.s3.transfer import TransferConfig

from ansible_collections.mlops.fleet.plugins.module_utils._core.backup import catalogue
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.make import run as making
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.options import (
    BackupOptions,
    S3Copies,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.s3.store import S3Store
from ansible_collections.mlops.fleet.plugins.module_utils._core.ports import World
from ansible_collections.mlops.fleet.tests.system.plugins.module_utils._core.backup import test_s3

SIZE = 256 << 20
#: Bytes per second and connection, seconds of delay, and what is sent at a time.
RATE, DELAY, STEP = 25_000_000, 0.03, 64 << 10
CONNECTIONS = 4
#: Longest time against boto3's.
GOAL = 1.0


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    free = 0.0
    try:
        while True:
            data = await reader.read(STEP)
            if not data:
                break
            now = time.monotonic()
            # What follows at once is delayed only by the rate.
            free = max(free, now + DELAY if now - free > DELAY else free) + len(data) / RATE
            await asyncio.sleep(max(0.0, free - now))
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


def slow_network(target: str) -> str:
    """Start the proxy in a thread; return its URL."""
    host, port = target.split("//")[1].split(":")
    ready: list[int] = []
    started = threading.Event()

    async def serve() -> None:
        async def connected(reader: Any, writer: Any) -> None:
            there_reader, there_writer = await asyncio.open_connection(host, int(port))
            await asyncio.gather(_pipe(reader, there_writer), _pipe(there_reader, writer))

        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        ready.append(server.sockets[0].getsockname()[1])
        started.set()
        await server.serve_forever()

    threading.Thread(target=lambda: asyncio.run(serve()), daemon=True).start()
    started.wait(10)
    return f"http://127.0.0.1:{ready[0]}"


def measured(work: Callable[[], object]) -> tuple[float, float]:
    """Return seconds and CPU seconds of this process, the proxy's included."""
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF)
    work()
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.monotonic() - started, cpu


def compare(url: str, directory: Path, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Send and read the same archive in turns."""
    (directory / "source").mkdir()
    (directory / "source" / "weights").write_bytes(os.urandom(SIZE))
    given = {"source": str(directory / "source"), "destination": str(directory / "backups")}
    options = BackupOptions.from_mapping({**given, "compression": "none", "verify": False})
    made = making.run(options, World(run=None)).backup
    backup = catalogue.inspect(str(directory / "backups"), made["name"])
    path, keys = made["path"], test_s3.KEYS
    settings = {"bucket": "bench", "endpoint_url": url, **keys, "parallel": CONNECTIONS}
    client = test_s3.client(url)
    config = TransferConfig(max_concurrency=CONNECTIONS)

    def read() -> None:
        store = S3Store(S3Copies.from_mapping(settings))
        with store.open(backup) as stream:
            while stream.read(1 << 20):
                pass

    jobs: dict[str, Callable[[], object]] = {
        "send, mlops.fleet": lambda: S3Store(S3Copies.from_mapping(settings)).upload(backup),
        "send, boto3": lambda: client.upload_file(path, "bench", "other", Config=config),
        "read, mlops.fleet": read,
        "read, boto3": lambda: client.download_file(
            "bench", "other", str(directory / "copy"), Config=config
        ),
    }
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in jobs}
    for _round in range(rounds):
        for name, work in jobs.items():
            results[name].append(measured(work))
    return results


def main() -> int:
    """Print the table; 1 when the goal is missed."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    with tempfile.TemporaryDirectory() as name, test_s3.running(Path(name)) as endpoint:
        test_s3.client(endpoint).create_bucket(Bucket="bench")
        results = compare(slow_network(endpoint), Path(name), rounds)
    medians = {
        job: [statistics.median(values) for values in zip(*numbers)]
        for job, numbers in results.items()
    }
    for job, (seconds, cpu) in medians.items():
        print(f"{job:<20} {seconds:7.2f} s {cpu:7.2f} CPU-s {SIZE / seconds / 1e6:7.1f} MB/s")
    missed = 0
    for job in ("send", "read"):
        ratio = medians[f"{job}, mlops.fleet"][0] / medians[f"{job}, boto3"][0]
        missed += ratio > GOAL
        print(f"{job}: {ratio:.2f} x of boto3's time (goal: at most {GOAL:g})")
    (ROOT / ".build" / "bench").mkdir(parents=True, exist_ok=True)
    (ROOT / ".build" / "bench" / "s3.json").write_text(json.dumps(medians), encoding="utf-8")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
