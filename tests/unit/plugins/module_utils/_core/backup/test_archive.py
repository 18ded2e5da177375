# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What we write must be read by everybody else: tar, gzip, sha256sum, zstd, Python's streaming
reader, busybox where it exists.
"""

from __future__ import annotations

import gzip
import io
import os
import random
import shutil
import subprocess
import tarfile

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.backup import (
    codec,
    deflate,
    isal,
    tarstream,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.source import FILE, Entry


def same_trees(one, other):
    """Let diff(1) and a listing by find(1) compare two trees: contents, links, modes, exact
    times.
    """
    found = subprocess.run(
        ["diff", "-r", "--no-dereference", str(one), str(other)],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    lines = [
        line
        for line in found.stdout.splitlines()
        if not line.endswith((": socket", "is a socket while")) and "socket" not in line
    ]
    assert lines == [] and not found.stderr

    def listing(root):
        done = subprocess.run(
            ["find", ".", "-mindepth", "1", "!", "-type", "s", "-printf", r"%P %y %m %T@ %s %l\0"],
            cwd=root,
            capture_output=True,
            check=True,
        )
        return sorted(line for line in done.stdout.split(b"\0") if b" d " not in line), sorted(
            line.rsplit(b" ", 2)[0] for line in done.stdout.split(b"\0") if b" d " in line
        )

    assert listing(one) == listing(other)


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_tar_restores_everything(back_up, source, tmp_path, compression):
    archive = back_up(compression=compression).backup["path"]
    target = tmp_path / "unpacked"
    target.mkdir()
    flag = {"gzip": ["-z"], "zstd": ["--zstd"], "none": []}[compression]
    done = subprocess.run(
        ["tar", *flag, "-xpf", archive, "-C", str(target)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    same_trees(source, target)


def test_gzip_and_sha256sum_agree(back_up, destination):
    archive = back_up().backup["path"]
    assert subprocess.run(["gzip", "-t", archive], check=False).returncode == 0
    done = subprocess.run(
        ["sha256sum", "-c", os.path.basename(archive) + ".sha256"],
        cwd=destination,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == f"{os.path.basename(archive)}: OK\n"
    with open(archive, "rb") as stream:
        assert stream.read(4) == b"\x1f\x8b\x08\x00", (
            "no extra fields: streaming readers fail on them"
        )


def test_zstd_agrees(back_up):
    archive = back_up(compression="zstd").backup["path"]
    assert subprocess.run(["zstd", "-q", "-t", archive], check=False).returncode == 0


def test_streaming_readers_see_every_member(back_up, source):
    archive = back_up().backup["path"]
    with tarfile.open(archive, "r|gz", errors="surrogateescape") as tar:
        names = {member.name for member in tar}
    wanted = {
        os.path.relpath(os.path.join(where, name), source)
        for where, directories, files in os.walk(source)
        for name in directories + files
        if name != "socket"
    }
    assert names == wanted
    for program in ("busybox", "bsdtar"):
        if shutil.which(program):
            command = [program, "tar"] if program == "busybox" else [program]
            done = subprocess.run([*command, "-tzf", archive], capture_output=True, check=False)
            assert (done.returncode, done.stderr) == (0, b"")


def test_sizes_beyond_the_plain_header():
    for size in (8**11 - 1, 8**11, 3 << 40):
        entry = Entry("big", FILE, 0o644, 2**21, 5, size, 10**18 + 1, 0, 0)
        with tarfile.open(fileobj=io.BytesIO(tarstream.header(entry) + b"\0" * 1024)) as tar:
            found = tar.next()
        assert (found.size, found.uid, found.pax_headers["mtime"]) == (
            size,
            2**21,
            "1000000000.000000001",
        )


def test_times_before_1970_and_long_after():
    for time_ns in (-1, -(10**9), -1_500_000_000, 0, 8**11 * 10**9):
        entry = Entry("x", FILE, 0o644, 0, 0, 0, time_ns, 0, 0)
        with tarfile.open(fileobj=io.BytesIO(tarstream.header(entry) + b"\0" * 1024)) as tar:
            assert tar.next().mtime == pytest.approx(time_ns / 1e9, abs=1e-6)


def engines():
    """What can deflate here: zlib always, ISA-L in both ways where it is installed."""
    kinds = [pytest.param(None, id="zlib")]
    for kind in (isal.Package, isal.Library):
        try:
            kinds.append(pytest.param(kind(), id=kind.__name__))
        except (ImportError, OSError):
            continue
    return kinds


@pytest.fixture(params=engines())
def engine(request, monkeypatch):
    """Compress and unpack by this and nothing else."""
    monkeypatch.setattr(isal, "library", lambda: request.param)
    return request.param


@pytest.mark.parametrize("length", [0, 1, codec.CHUNK - 1, codec.CHUNK, codec.CHUNK + 1])
def test_gzip_chunks_make_one_member(engine, length):
    import zlib

    packer = deflate.Gzip(6)
    data = (os.urandom(length // 2) + b"a" * length)[:length]
    chunks = [data[n : n + codec.CHUNK] for n in range(0, length, codec.CHUNK)]
    raw = (
        packer.header
        + b"".join(packer.pack(memoryview(chunk)) for chunk in chunks)
        + packer.trailer(zlib.crc32(data), length)
    )
    assert gzip.decompress(raw) == data
    member = zlib.decompressobj(31)
    assert member.decompress(raw) == data
    assert member.eof and member.unused_data == b"", "more than one member"


WEIGHTS = bytes(random.Random(7).choices(range(256), [1 + n % 9 for n in range(256)], k=150_000))


@pytest.mark.parametrize("level", range(1, 10))
def test_no_level_expands_weights_and_each_chunk_unpacks_alone(engine, level):
    """Fast levels of several libraries make weights larger than they are."""
    for data in (WEIGHTS, os.urandom(150_000), b"word " * 30_000, b""):
        packed = deflate.Gzip(level).pack(memoryview(bytearray(data)))
        assert len(packed) <= len(data) * 1.001 + 10
        assert deflate.unpack(packed, len(data)) == data


@pytest.mark.parametrize(
    "spoil",
    [
        lambda packed: packed[:-100],
        lambda packed: packed[:50] + b"\xff" * 100 + packed[150:],
        lambda packed: packed + packed,
        lambda packed: b"",
    ],
)
def test_a_damaged_chunk_is_an_error(engine, spoil):
    data = b"".join(b"line %d of a log file\n" % n for n in range(5_000))
    with pytest.raises(codec.Damaged):
        deflate.unpack(spoil(deflate.Gzip(6).pack(data)), len(data))


def test_a_library_that_works_otherwise_is_not_used(monkeypatch):
    class Other:
        def pack(self, data, level):
            return deflate.deflate(data, 6)[:-1]

        def unpack(self, data, size):
            return b""

    monkeypatch.setattr(isal, "Package", Other)
    monkeypatch.setattr(isal, "Library", Other)
    assert isal.library.__wrapped__() is None


def test_the_method_fits_the_data(monkeypatch):
    monkeypatch.setattr(isal, "library", lambda: None)

    noise, text = (
        os.urandom(1 << 20),
        b"".join(b"line %d of a log file\n" % n for n in range(50_000)),
    )
    packer = deflate.Gzip(6)
    assert len(packer.pack(noise)) < len(noise) * 1.001, "stored, not expanded"
    assert len(packer.pack(text)) < len(deflate.deflate(text, 6)) * 1.01, (
        "text gets the full search"
    )
    skewed = bytes(b & 0x1F for b in noise)
    huffman = deflate.deflate(skewed, 6, 2)
    assert packer.pack(skewed) == huffman, "noise with few values gets Huffman coding alone"
