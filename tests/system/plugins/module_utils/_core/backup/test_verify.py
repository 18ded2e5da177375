# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Verification must find every fault and say which file it hit."""

from __future__ import annotations

import json
import os
import random
import subprocess

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core import errors
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup import manifest, verify


def only(found):
    assert len(found["backups"]) == 1
    return found["backups"][0]


def spoil(path, change):
    with open(path, "r+b") as stream:
        change(stream)


def test_a_good_backup(back_up, look):
    back_up()
    for depth in ("none", "quick", "full"):
        found = look(verify=depth)
        assert (
            found["verified"] and only(found)["checked"] == depth and only(found)["problems"] == []
        )
    assert verify.verify_file(only(found)["path"])["verified"]


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_every_flipped_bit_is_detected(back_up, look, compression):
    """40 random single bits, one at a time; in an uncompressed archive the file that was hit must
    be named.
    """
    path = back_up(compression=compression).backup["path"]
    size, rng = os.path.getsize(path), random.Random(5)
    named = 0
    for _turn in range(40):
        offset, bit = rng.randrange(size), 1 << rng.randrange(8)

        def flip(stream, offset=offset, bit=bit):
            stream.seek(offset)
            byte = stream.read(1)[0]
            stream.seek(offset)
            stream.write(bytes([byte ^ bit]))

        spoil(path, flip)
        for depth in ("quick", "full"):
            found = look(verify=depth)
            assert (
                not found["verified"] and not only(found)["verified"] and only(found)["problems"]
            ), (offset, depth)
        named += any(problem.startswith(("bert/", "sparse")) for problem in only(found)["problems"])
        spoil(path, flip)
    assert named >= 30
    assert look(verify="full")["verified"]


@pytest.mark.parametrize("share", [0, 0.001, 0.3, 0.9, 0.9999])
def test_truncation(back_up, look, share):
    path = back_up().backup["path"]
    os.truncate(path, int(os.path.getsize(path) * share))
    assert "bytes long, but was" in only(look())["problems"][0]
    found = only(look(verify="full"))
    assert not found["verified"] and len(found["problems"]) > 1
    with pytest.raises(errors.VerificationFailed):
        verify.verify_file(path)


def test_swapped_and_stolen_content(back_up, look, source, tmp_path):
    """Another whole archive under the name, with a checksum file that fits: the manifest tells
    which files differ.
    """
    path = back_up(compression="none").backup["path"]
    (source / "bert" / "v1" / "tokenizer.json").write_text("other")
    (source / "-rf").unlink()
    (source / "added").write_text("x")
    subprocess.run(
        [
            "tar",
            "-cf",
            path,
            "-C",
            str(source),
            "--exclude=socket",
            *sorted(os.listdir(source))[1:],
        ],
        stderr=subprocess.DEVNULL,
        check=False,
    )
    subprocess.run(
        f"sha256sum {os.path.basename(path)} > {path}.sha256",
        shell=True,
        cwd=os.path.dirname(path),
        check=True,
    )
    problems = only(look(verify="full"))["problems"]
    assert any(one.startswith("bert/v1/tokenizer.json: differs") for one in problems)
    assert "added: is in the archive but not in the manifest" in problems
    assert "the checksum file and the manifest disagree" in problems


def test_a_spoiled_manifest(back_up, look):
    path = back_up().backup["path"] + ".manifest.json"
    with open(path) as stream:
        document = json.load(stream)
    document["entries"][0]["path"] = "x"
    with open(path, "w") as stream:
        json.dump(document, stream)
    found = look()
    assert not found["verified"] and "its checksum is wrong" in only(found)["problems"][0]
    with open(path, "w") as stream:
        stream.write("{")
    assert "not valid JSON" in only(look())["problems"][0]


def test_a_spoiled_checksum_file(back_up, look):
    """Single bits of each value: found, or without meaning (a hex digit's case)."""
    path = back_up().backup["path"] + ".sha256"
    with open(path, "rb") as stream:
        good = stream.read()
    for bit in range(0, 8 * len(good), 5):
        raw = bytearray(good)
        raw[bit // 8] ^= 1 << bit % 8
        with open(path, "wb") as stream:
            stream.write(raw)
        done = subprocess.run(
            ["sha256sum", "--status", "-c", os.path.basename(path)],
            cwd=os.path.dirname(path),
            stderr=subprocess.DEVNULL,
            check=False,
        )
        assert look()["verified"] is (done.returncode == 0), bytes(raw)


@pytest.mark.parametrize(
    "text", ["{}  {}\n", "{}  /backup/models/{}\n", "{} *{}\n", "{}\n", "{}  -\n", "{}"]
)
def test_checksum_files_as_scripts_write_them(look, source, destination, text):
    destination.mkdir()
    stem = "models_backup_20250131_020000.tar.gz"
    subprocess.run(
        ["tar", "-czf", str(destination / stem), "-C", str(source.parent), "models"],
        check=True,
        stderr=subprocess.DEVNULL,
    )
    digest = subprocess.run(
        ["sha256sum", stem], cwd=destination, capture_output=True, text=True, check=True
    ).stdout.split()[0]
    (destination / (stem + ".sha256")).write_text(text.format(digest, stem))
    assert look(verify="full")["verified"]
    (destination / (stem + ".sha256")).write_text(
        f"{digest}  models_backup_20250130_020000.tar.gz\n"
    )
    assert "no SHA-256 of" in only(look())["problems"][0]


def test_a_manifest_without_its_archive_is_reported(back_up, look):
    os.unlink(back_up().backup["path"])
    found = look(verify="full")
    assert (
        not found["verified"]
        and only(found)["problems"] == ["the archive is gone; only its manifest is left"]
        and found["latest"] is None
    )


def test_old_archives(look, source, destination):
    destination.mkdir()
    stem = "models_backup_20250131_020000.tar.gz"
    subprocess.run(
        ["tar", "-czf", str(destination / stem), "-C", str(source.parent), "models"],
        check=True,
        stderr=subprocess.DEVNULL,
    )
    assert "neither manifest nor checksum" in only(look())["problems"][0]
    subprocess.run(f"sha256sum {stem} > {stem}.sha256", shell=True, cwd=destination, check=True)
    assert only(look(verify="full"))["verified"] and only(look(verify="full"))["files"] == 10
    spoil(destination / stem, lambda stream: (stream.seek(2_000_000), stream.write(b"spoiled")))
    assert not look(verify="full")["verified"] and not look(verify="quick")["verified"]


def test_an_archive_by_any_name(back_up, tmp_path, look):
    path = back_up().backup["path"]
    copy = tmp_path / "copy.tgz"
    os.link(path, copy)
    found = only(look(path=copy, verify="full"))
    assert not found["verified"] and "neither manifest" in found["problems"][0], (
        "nothing to compare with proves nothing"
    )
    with pytest.raises(errors.NotUsable, match="no backup directory or archive"):
        look(path=tmp_path / "missing")


def test_data_behind_the_end_and_a_missing_end(back_up, look, destination):
    path = back_up(compression="none").backup["path"]
    with open(path, "ab") as stream:
        stream.write(b"x" * 512)
    assert any("goes on behind its end" in one for one in only(look(verify="full"))["problems"])


def test_other_fields_are_compared_too():
    from ansible_collections.mlops.fleet.plugins.module_utils._core.backup import reading

    scan = reading.Scan()
    entry = {
        "path": "a",
        "type": "file",
        "mode": "0644",
        "uid": 0,
        "gid": 0,
        "mtime_ns": 1,
        "size": 1,
        "sha256": "x",
    }
    for key, value in (
        ("mode", "4755"),
        ("uid", 5),
        ("mtime_ns", 2),
        ("size", 2),
        ("sha256", "y"),
        ("type", "link"),
    ):
        reading._compare(scan, {**entry, key: value}, entry)
    assert len(scan.problems) == 6


def test_version_is_the_collections():
    import pathlib
    import re

    galaxy = pathlib.Path(__file__).resolve().parents[6] / "galaxy.yml"
    assert re.search(r"^version: (\S+)", galaxy.read_text(), re.MULTILINE)[1] == manifest.VERSION
