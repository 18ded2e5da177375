# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Head, entries and index: what each job reads of them, and what happens when one is spoiled."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pathlib
import shutil
import tarfile

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core import errors
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup import (
    catalogue,
    headers,
    manifest,
    tarstream,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.source import (
    DIRECTORY,
    FILE,
    Entry,
)

#: One backup of each version that was ever released, in each compression; never write them again.
OLD = pathlib.Path(__file__).parent / "old"
BASH, GZIP, ZSTD, PLAIN = (
    "models_backup_20230101_020000.tar.gz",
    "models_backup_20231115_221320.tar.gz",
    "models_backup_20231117_221320.tar.zst",
    "models_backup_20231118_221320.tar",
)


@pytest.fixture
def old(destination):
    shutil.copytree(OLD, destination)
    return destination


def test_old_backups_are_listed_and_verified(old, look):
    for depth in ("none", "quick", "full"):
        listed = {backup["name"]: backup for backup in look(verify=depth)["backups"]}
        assert list(listed) == [PLAIN, ZSTD, GZIP, BASH]
        assert not any(backup["problems"] for backup in listed.values())
        assert [listed[name].get("files") for name in (PLAIN, ZSTD, GZIP)] == [4, 4, 4]
        assert listed[GZIP]["verified"] and listed[PLAIN]["verified"]
        assert listed[ZSTD]["verified"] is (depth == "full"), "it was made without verification"
    assert listed[BASH]["legacy"] and listed[BASH]["verified"] and listed[BASH]["files"] == 4


@pytest.mark.parametrize("name", [BASH, GZIP, ZSTD, PLAIN])
def test_old_backups_are_restored(old, bring_back, restored, name):
    result = bring_back(backup=name).to_dict()["restored"]
    assert (result["files"], result["bytes"], result["verified"]) == (4, 5510, True)
    root = restored / "old-models" if name == BASH else restored
    weights = (root / "bert" / "v1" / "weights").read_bytes()
    assert (
        hashlib.sha256(weights).hexdigest()
        == "0f75c21f6a75170423676219888a544faedf4a357f9d34b346091bc77a308a0d"
    )
    assert os.readlink(root / "bert" / "latest") == "v1"


@pytest.mark.parametrize("name", [GZIP, ZSTD, PLAIN])
def test_one_file_of_an_old_backup(old, bring_back, restored, name):
    assert bring_back(backup=name, files=["bert/v1/vocabulary.txt"]).files == 1
    assert (restored / "bert" / "v1" / "vocabulary.txt").read_text() == "word\n" * 500


def manifest_path(result):
    return pathlib.Path(result.backup["path"] + ".manifest.json")


def test_a_person_can_read_it(back_up):
    path = manifest_path(back_up())
    raw = path.read_bytes()
    document = json.loads(raw)
    head, contents = manifest.read_contents(raw, "")
    assert document["entries"] == contents.entries
    assert raw.count(b'\n  {"path"') == len(contents.entries), "one line per entry"
    index = contents.index
    assert sum(chunk.length for chunk in index.chunks) < head["archive"]["size"]
    assert [place >= 0 for place in index.places] == [
        entry["type"] == "file" for entry in contents.entries
    ]


def test_a_listing_reads_heads_only(back_up, source, monkeypatch):
    for number in range(900):
        (source / "bert" / f"shard {number} of a model with {'a long ' * 25}name").write_text("x")
    path = manifest_path(back_up())
    assert path.stat().st_size > 5 * manifest.HEAD
    read = 0
    opened = catalogue._opened

    def counting(path):
        stream = opened(path)
        real = stream.read

        def count(size=-1):
            nonlocal read
            piece = real(size)
            read += len(piece)
            return piece

        class Counting:
            def __enter__(self):
                return self

            def __exit__(self, *error):
                stream.close()

            read = staticmethod(count)
            fileno = stream.fileno

        return Counting()

    monkeypatch.setattr(catalogue, "_opened", counting)
    (backup,) = catalogue.listing(str(path.parent))
    assert backup.complete and read <= manifest.HEAD + 1000
    assert "entries" not in backup.manifest


def regions(path):
    raw = path.read_bytes()
    head, dummy = manifest.read_contents(raw, "")
    start = raw.index(b',\n "entries": [')
    return start, start + head["entries_part"]["size"], len(raw)


@pytest.mark.parametrize("part", [0, 1, 2], ids=["head", "entries", "index"])
def test_a_flipped_bit_is_named(back_up, look, bring_back, restored, part):
    path = manifest_path(back_up())
    good, ends = path.read_bytes(), (0, *regions(path))
    span = range(ends[part], ends[part + 1], max(1, (ends[part + 1] - ends[part]) // 6))
    for offset in span:
        raw = bytearray(good)
        raw[offset] ^= 1 << offset % 8
        path.write_bytes(raw)
        for depth in ("quick", "full"):
            (backup,) = look(verify=depth)["backups"]
            assert not backup["verified"], (offset, depth)
            assert any("manifest" in problem for problem in backup["problems"]), backup["problems"]
        if part != 2:
            with pytest.raises(errors.FleetError):
                bring_back()
    if part == 2:
        result = bring_back(files=["bert/v1/*.json"])
        assert result.files == 1 and "index" in result.notes[0], "slower, never wrong"
    path.write_bytes(good)
    assert look(verify="full")["verified"]


def test_a_manifest_cut_off_in_head_or_entries_is_noticed_in_a_listing(back_up, look, bring_back):
    path = manifest_path(back_up())
    start, entries_end, dummy = regions(path)
    for size in (entries_end - 1, start, 10):
        os.truncate(path, size)
        (backup,) = look()["backups"]
        assert "manifest" in backup["problems"][0] and not backup["verified"]
        with pytest.raises(errors.FleetError):
            bring_back()


@pytest.mark.parametrize("damage", ["longer", "a byte short", "half", "gone"])
def test_an_index_of_another_length_only_makes_reading_slower(
    back_up, look, source, bring_back, restored, damage
):
    """It is named everywhere, and restores, retention and skips go on using the backup."""
    path = manifest_path(back_up())
    dummy, entries_end, size = regions(path)
    middle = (entries_end + size) // 2
    new = {"longer": size + 10, "a byte short": size - 1, "half": middle, "gone": entries_end}
    os.truncate(path, new[damage])
    problem = f"the index in the manifest {path} is damaged, so reading takes longer"
    for depth in ("none", "quick", "full"):
        (backup,) = look(verify=depth)["backups"]
        assert backup["problems"] == [problem] and not backup["verified"]
    assert backup["files"] == 10, "all of it was read and agrees with its entries"
    assert not back_up().changed
    result = bring_back()
    assert result.verified and result.notes == [problem]
    weights = "bert/v1/model.safetensors"
    assert (restored / weights).read_bytes() == (source / weights).read_bytes()
    assert bring_back(files=["run.sh"], destination=f"{restored}2").files == 1
    with open(str(path).removesuffix(".manifest.json"), "r+b") as stream:
        stream.seek(2_000_000)
        stream.write(b"spoiled")
    (backup,) = look(verify="full")["backups"]
    assert any(weights in line for line in backup["problems"])
    with pytest.raises(errors.VerificationFailed):
        bring_back(destination=f"{restored}3")


def test_a_backup_whose_entries_are_damaged_does_not_do(back_up):
    path = manifest_path(back_up())
    raw = bytearray(path.read_bytes())
    raw[regions(path)[0] + 100] ^= 1
    path.write_bytes(raw)
    result = back_up()
    assert result.changed and result.plan.reason == "there is no complete backup"
    assert not back_up().changed


def test_damage_is_located(back_up, source, look):
    """The files in the damaged range are named, also those that share a chunk with what was hit."""
    (source / "bert" / "v1" / "zz-last").write_bytes(os.urandom(9_000_000))
    path = back_up().backup["path"]
    dummy, contents = manifest.read_contents(manifest_path(back_up()).read_bytes(), "")
    chunk = contents.index.chunks[2]
    with open(path, "r+b") as stream:
        stream.seek(chunk.offset + chunk.length // 2)
        stream.write(b"spoiled")
    problems = look(verify="full")["backups"][0]["problems"]
    where = f"bytes {chunk.offset} to {chunk.offset + chunk.length} of the archive are damaged"
    assert any(where in problem and "bert/v1/zz-last" in problem for problem in problems), problems


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_a_restore_names_the_damaged_chunk(
    back_up, few, destination, bring_back, restored, compression
):
    """Also in the middle of a file of many chunks, and that of a file that was changed since."""
    (few / "bert" / "weights").write_bytes(os.urandom(14_000_000))
    path = back_up(source=str(few), compression=compression).backup["path"]
    dummy, contents = manifest.read_contents(pathlib.Path(path + ".manifest.json").read_bytes(), "")
    assert len(contents.index.chunks) == 4
    with open(path, "r+b") as stream:
        for chunk in contents.index.chunks:
            place = chunk.offset + chunk.length // 2
            byte = os.pread(stream.fileno(), 1, place)
            os.pwrite(stream.fileno(), bytes([byte[0] ^ 4]), place)
            where = f"bytes {chunk.offset} to {chunk.offset + chunk.length} were changed; in them: "
            with pytest.raises(errors.VerificationFailed, match=where + ".*bert/weights"):
                bring_back()
            assert not restored.exists()
            os.pwrite(stream.fileno(), byte, place)
    assert bring_back().files == 2


def test_a_large_file_with_holes_is_restored_with_them(back_up, few, bring_back, restored):
    weights = few / "bert" / "weights"
    with open(weights, "wb") as stream:
        for place in (0, 9_000_000, 11_000_000):
            stream.seek(place)
            stream.write(os.urandom(300_000))
        stream.truncate(30_000_000)
    back_up(source=str(few))
    bring_back()
    assert (restored / "bert" / "weights").read_bytes() == weights.read_bytes()
    assert (restored / "bert" / "weights").stat().st_blocks * 512 < 20_000_000


def test_a_single_file_is_read_from_its_chunks(back_up, source, bring_back, restored):
    """Damage elsewhere does not matter to it, and is not even seen."""
    (source / "bert" / "v1" / "aa-first").write_bytes(os.urandom(9_000_000))
    path = back_up().backup["path"]
    dummy, contents = manifest.read_contents(pathlib.Path(path + ".manifest.json").read_bytes(), "")
    with open(path, "r+b") as stream:
        stream.seek(contents.index.chunks[1].offset + 100)
        stream.write(b"spoiled")
    result = bring_back(files=["bert/v1/tokenizer.json"])
    assert result.files == 1 and result.verified
    same = (restored / "bert" / "v1" / "tokenizer.json").read_bytes()
    assert same == (source / "bert" / "v1" / "tokenizer.json").read_bytes()
    with pytest.raises(errors.VerificationFailed, match="aa-first"):
        bring_back(files=["bert/v1/aa-first"], destination=str(restored) + "2")
    assert not os.path.exists(str(restored) + "2")


# --- headers
# ----------------------------------------------------------------------------------------------------------

WEIGHTS = Entry("bert/weights", FILE, 0o640, 1000, 8**8, 8**12, 1_234_567_890_123_456_789, 0, 0)


def reader(raw):
    position = 0

    def take(count):
        nonlocal position
        position += count
        return raw[position - count : position]

    return take


@pytest.mark.parametrize("path", ["a", "é" * 40, "d" * 90 + "/" + "n" * 90])
@pytest.mark.parametrize("time", [0, -1, 10**9, 8**11 * 10**9, 1_234_567_890_123_456_789])
def test_headers_are_read_as_they_were_written(path, time):
    entry = Entry(path, FILE, 0o640, 1000, 8**8, 8**12, time, 0, 0)
    read = headers.read(reader(tarstream.header(entry)))
    assert (read["path"], read["mtime_ns"], read["size"]) == (path, time, 8**12)
    assert (read["uid"], read["gid"], read["mode"]) == (1000, 8**8, "0640")


@pytest.mark.parametrize("kind", [FILE, DIRECTORY])
@pytest.mark.parametrize(
    "path", ["a", "b/" + "n" * 97, "b/" + "n" * 98, "b/" + "n" * 99, "a.b", "é"]
)
@pytest.mark.parametrize("owner", [0, 1000, 8**7 - 1, 8**7])
@pytest.mark.parametrize("time", [0, 1, 10**9, 8**11 * 10**9, 1_234_567_890_100_000_000])
def test_the_quick_ways_agree_with_the_thorough_ones(kind, path, owner, time):
    """The writer's, the reader's, and what the standard library reads."""
    size = 8**11 - 1 if kind == FILE else 0
    entry = Entry(path, kind, 0o640, owner, 0, size, time, 0, 0)
    raw = tarstream.header(entry)
    assert raw == tarstream._any(entry)
    read = headers.read(reader(raw))
    assert headers.expected(read) in (None, raw)
    if path == "a" and owner == 1000 and time < 8**11 * 10**9:
        assert headers.expected(read) == raw
    member = tarfile.open(fileobj=io.BytesIO(raw + b"\0" * 1024), mode="r:").next()
    assert (member.name, member.uid, member.mode) == (path, owner, 0o640)
    assert member.isdir() is (kind == DIRECTORY) and float(member.mtime) == time / 1e9


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../b", "./a", "a\0b"])
def test_the_quick_reader_takes_no_unsafe_name(path):
    entry = {"path": path, "type": FILE, "mode": "0640", "uid": 0, "gid": 0}
    assert headers.expected({**entry, "mtime_ns": 0, "size": 1, "sha256": ""}) is None


def test_every_changed_byte_of_a_header_is_noticed():
    raw = tarstream.header(WEIGHTS)
    good = headers.read(reader(raw))
    for offset in range(len(raw)):
        changed = bytearray(raw)
        changed[offset] ^= 1
        try:
            read = headers.read(reader(bytes(changed)))
        except (headers.Unknown, errors.VerificationFailed):
            continue
        # Checksums of ordinary headers cover every byte; a pax record's own bytes are covered by
        # what they say, and its padding by the chunk's SHA-256.
        assert 512 <= offset < 1024 and (read != good or changed[offset] == 1 or offset > 512), (
            offset
        )


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x"])
def test_unsafe_names_are_refused(path):
    with pytest.raises(errors.VerificationFailed, match="unsafe name"):
        headers.read(reader(tarstream.header(Entry(path, FILE, 0, 0, 0, 0, 0, 0, 0))))
