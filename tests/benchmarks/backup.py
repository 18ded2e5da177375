# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What backups cost, against tar, gzip, sha256sum, boto3 and, where they are installed, pigz, zstd,
restic and borg.

    .build/dev/bin/python tests/benchmarks/backup.py
    MLOPS_BACKUP_MIB=2048 MLOPS_BACKUP_FILES=20000 MLOPS_BACKUP_DIRECTORY=/var/tmp   how much, and where

Weights are 16-bit numbers from a normal distribution. CPU seconds of a process and its children;
wall seconds only tell something on a quiet machine. No memory below that of this program can be
seen. The peer of a row does what the row names; a goal that is missed ends this with 1. Rows
without a goal show what others cost. The goals are for the default sizes; with much less, what is
measured is the start of Python (0.25 CPU-s). ISA-L is used where it is installed, as on a node.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import bench
import s3
import setup
from common import Problem, main_wrapper, say

MIB = int(os.environ.get("MLOPS_BACKUP_MIB", "2048"))
FILES = int(os.environ.get("MLOPS_BACKUP_FILES", "20000"))
PLACE = os.environ.get("MLOPS_BACKUP_DIRECTORY", "/var/tmp")
OURS = """
import json, os, sys, time
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup import isal, options
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.make import run as make
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.restore import run as restore
from ansible_collections.mlops.fleet.plugins.module_utils._core.ports import World
job, given, plain, shift = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3] == "zlib", float(sys.argv[4])
if plain:
    isal.library = lambda: None
class Clock:
    now = staticmethod(lambda: time.time() + shift)
    monotonic = staticmethod(time.monotonic)
world = World(run=None, clock=Clock())
if job == "make":
    make.run(options.BackupOptions.from_mapping(given), world)
else:
    restore.run(options.RestoreOptions.from_mapping(given), world)
"""


class Cost(NamedTuple):
    """Seconds, and MiB at the peak."""

    wall: float
    cpu: float
    memory: float


def measure(argv: list[str]) -> Cost:
    """Run a command; return what it cost with its children."""
    env = {**os.environ, "PYTHONPATH": str(setup.link_collection())}
    begun = time.monotonic()
    pid = os.posix_spawnp(argv[0], argv, env)
    dummy, status, usage = os.wait4(pid, 0)
    if status:
        raise Problem(f"{argv[0]} failed")
    cpu = usage.ru_utime + usage.ru_stime
    return Cost(time.monotonic() - begun, cpu, usage.ru_maxrss / 1024)


def ours(job: str, engine: str = "any", shift: float = 0.0, **given: Any) -> Cost:
    return measure([sys.executable, "-c", OURS, job, json.dumps(given), engine, str(shift)])


def shell(text: str) -> Cost:
    return measure(["bash", "-euc", text])


def blocks() -> Iterator[bytes]:
    """Yield blocks of 1 MiB of weights; their signs are drawn anew, so that no two are alike."""
    dice = random.Random(7)
    numbers = [struct.pack("<f", dice.gauss(0, 0.02))[2:] for dummy in range(1 << 19)]
    drawn = []
    for dummy in range(4):
        dice.shuffle(numbers)
        drawn.append(int.from_bytes(b"".join(numbers), "little"))
    sign = bytes(value & 0x80 for value in range(256))
    for block in itertools.cycle(drawn):
        signs = bytearray(1 << 20)
        signs[1::2] = os.urandom(1 << 19).translate(sign)
        yield (block ^ int.from_bytes(signs, "little")).to_bytes(1 << 20, "little")


def lay_out(root: Path) -> tuple[Path, Path]:
    """Write the weights, and the small files."""
    dice, weight = random.Random(7), blocks()
    weights, small = root / "weights", root / "small"
    weights.mkdir()
    for number in range(max(10, MIB // 50)):
        with open(weights / f"shard-{number:03d}", "wb") as stream:
            for dummy in range(max(1, min(MIB // 10, 50))):
                stream.write(next(weight))
    (weights / "wanted").write_bytes(os.urandom(2 << 20))
    for number in range(FILES):
        where = small / f"d{number // 200}"
        where.mkdir(parents=True, exist_ok=True)
        (where / f"{number}.json").write_bytes(
            b'{"token": %d}\n' % number * dice.randrange(10, 300)
        )
    return weights, small


def row(what: str, cost: Cost, peer: Cost | None = None, goal: str = "", good: bool = True) -> bool:
    text = f"{what:<48} {cost.wall:7.2f} s {cost.cpu:7.2f} CPU-s {cost.memory:5.0f} MiB"
    if peer is not None:
        text += f"   peer {peer.wall:7.2f} s {peer.cpu:7.2f} CPU-s"
    if goal:
        text += f"   goal {goal}: {'reached' if good else 'MISSED'}"
    say(text)
    return good


def main() -> int:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    root = Path(tempfile.mkdtemp(prefix="mlops-bench-backup-", dir=PLACE))
    try:
        return 0 if all(rows(root)) else 1
    finally:
        shutil.rmtree(root)


def rows(root: Path) -> list[bool]:
    weights, small = lay_out(root)
    return [
        *making(root, weights),
        *reading(root),
        *small_files(root, small),
        *models(root, weights),
        *object_storage(),
    ]


def making(root: Path, weights: Path) -> list[bool]:
    """Return whether the goals of making an archive of weights are reached."""
    reached = []
    seed = shell(f"cd {root}; tar czf s.tgz weights; sha256sum s.tgz > s.sum; gzip -t s.tgz")
    row("tar czf, sha256sum, gzip -t", seed)
    for engine, verify, least in (("any", False, 15), ("zlib", False, 6), ("any", True, 8)):
        to = root / f"to-{engine}-{verify}"
        cost = ours("make", engine, source=str(weights), destination=str(to), verify=verify)
        what = f"{MIB} MiB of weights, {engine}, verify={verify}"
        good = seed.cpu / cost.cpu >= least
        reached.append(row(what, cost, seed, f"{least} x less CPU", good))
        size = sum(path.stat().st_size for path in to.glob("*.tar.gz"))
        reached.append(
            row(
                "  its archive, of tar's",
                cost,
                None,
                "1.0",
                size <= (root / "s.tgz").stat().st_size,
            )
        )
    to = str(root / "to-8")
    cost = ours("make", source=str(weights), destination=to, workers=8)
    good = cost.memory <= 150
    reached.append(row("memory at 8 workers", cost, None, "150 MiB", good))
    if bench.peer("pigz", "pigz"):
        row("pigz -6", shell(f"cd {root}; tar c weights | pigz -6 > p.tgz"))
    if bench.peer("zstd", "zstd"):
        row("zstd -3 -T0", shell(f"cd {root}; tar c weights | zstd -q -3 -T0 > p.tzst"))
        to = str(root / "to-zstd")
        row("ours with zstd", ours("make", source=str(weights), destination=to, compression="zstd"))
    if bench.peer("borg", "borgbackup"):
        row(
            "borg, lz4",
            shell(
                f"cd {root}; export BORG_BASE_DIR={root}/borg-home; borg init -e none borg; "
                "borg create borg::a weights"
            ),
        )
    return reached


def reading(root: Path) -> list[bool]:
    """Return whether the goals of restoring are reached."""
    to = str(root / "to-any-True")
    cost = ours("restore", path=to, destination=str(root / "one"), files=["wanted"])
    empty = measure([sys.executable, "-c", OURS.split("job, given", maxsplit=1)[0]])
    good = cost.wall - empty.wall <= 0.2
    reached = [row("one 2 MiB file, without the start", cost, empty, "0.2 s more", good)]
    cost = ours("restore", path=to, destination=str(root / "all"))
    if bench.peer("restic", "restic"):
        environment = f"cd {root}; export RESTIC_PASSWORD=x RESTIC_REPOSITORY={root}/restic; "
        row(
            "restic: backup",
            shell(f"{environment} restic init -q; restic backup -q --no-cache weights"),
        )
        row(
            "restic: one 2 MiB file",
            shell(f"{environment} restic restore -q latest -i wanted -t one-r"),
        )
        peer = shell(f"{environment} restic restore -q latest -t all-r; sync -f all-r")
        good = cost.wall <= peer.wall
        reached.append(row("full restore", cost, peer, "the time of restic", good))
    else:
        row("full restore", cost)
    return reached


def small_files(root: Path, small: Path) -> list[bool]:
    """Return whether the goals of many small files and many kept backups are reached."""
    peer = shell(
        f"cd {root}; tar czf q.tgz small; sha256sum q.tgz > q.sum; gzip -t q.tgz; tar tzf q.tgz > q"
    )
    given = {"source": str(small), "destination": str(root / "to-small"), "retention_days": 0}
    cost = ours("make", **given)
    good = cost.cpu <= 1.2 * peer.cpu
    reached = [row(f"{FILES} small files, verified", cost, peer, "1.2 x of its CPU", good)]
    kept = 1
    first = ours("make", **given)
    row("nothing changed, 1 kept", first)
    for count in (10, 30):
        for day in range(kept, count):
            ours("make", shift=86400.0 * day, force=True, **given)
        kept = count
        many = ours("make", shift=86400.0 * count, **given)
        good = many.cpu <= 1.3 * first.cpu and many.memory < 120
        what = f"nothing changed, {count} kept"
        reached.append(row(what, many, first, "1.3 x of 1 kept, 120 MiB", good))
    return reached


def models(root: Path, weights: Path) -> list[bool]:
    """Return whether one new model among ten costs little more than that model."""
    ten = root / "ten"
    for number in range(10):
        (ten / f"model-{number}").mkdir(parents=True)
    shards = sorted(weights.glob("shard-*"))
    for number, shard in enumerate(shards):
        os.link(shard, ten / f"model-{number % 10}" / shard.name)
    given = {"source": str(ten), "destination": str(root / "to-ten"), "layout": "per_model"}
    new = ten / "model-new"
    new.mkdir()
    row("ten models, each its archive", ours("make", **given))
    for shard in shards[: max(1, len(shards) // 10)]:
        shutil.copy(shard, new)
    cost = ours("make", shift=86400.0, **given)
    alone = ours("make", source=str(new), destination=str(root / "to-new"))
    good = cost.cpu <= 1.3 * alone.cpu
    return [row("one new model among ten", cost, alone, "1.3 x of it alone", good)]


def object_storage() -> list[bool]:
    """Return whether copies travel to S3 and back as fast as with boto3.

    On a slow network wall seconds count: see s3.py, which compares them.
    """
    medians = s3.compare(min(MIB, 512), 3)
    reached = []
    for what, ratio in s3.pairs(medians):
        mine, theirs = (Cost(*medians[f"{what}, {who}"], 0) for who in ("mlops.fleet", "boto3"))
        title = f"S3, 25 MB/s per connection, 30 ms: {what}"
        reached.append(row(title, mine, theirs, "the time of boto3", ratio <= s3.GOAL))
    return reached


if __name__ == "__main__":
    subprocess.run(["sync"], check=False)
    main_wrapper(main)
