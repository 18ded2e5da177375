# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restore drills: what is restored is compared and always removed; only a success is recorded."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import signal
import time

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core import errors
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup import (
    drill,
    overview,
    proofs,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.options import (
    BackupOptions,
    RestoreOptions,
)

OLD = pathlib.Path(__file__).parents[5] / "unit/plugins/module_utils/_core/backup/old"


@pytest.fixture
def scratch(tmp_path):
    path = tmp_path / "scratch"
    path.mkdir()
    return path


@pytest.fixture
def rehearse(world, destination, scratch):
    """Run a drill; options as keywords."""

    def run(check=False, tell=lambda progress: None, **given):
        mine = {"drill": True, "path": str(destination), "scratch": str(scratch)}
        options = RestoreOptions.from_mapping({**mine, **given})
        return drill.run(options, world, check=check, tell=tell)

    return run


def record(directory):
    path = directory / proofs.FILE
    return path.read_text().splitlines() if path.exists() else []


def test_check_apply_check_apply(back_up, rehearse, look, destination, scratch, world):
    backup = back_up().backup
    (destination / "models_backup_20200101_000000.tar.gz").write_bytes(b"foreign")
    planned = rehearse(check=True)
    assert planned["restored"]["files"] == 10 and planned["last_restore_proof"] is None
    assert record(destination) == [] and look()["last_restore_proof"] is None
    result = rehearse()
    assert not result["changed"] and result["restored"]["verified"] and not result["notes"]
    proof = result["last_restore_proof"]
    assert (proof["backup"], proof["sha256"]) == (backup["name"], backup["sha256"])
    assert (proof["files"], proof["bytes"]) == (10, backup["bytes"])
    assert (proof["compared"], proof["place"]) == ("files", str(destination))
    assert proof["hostname"] == world.hostname and proof["at"].startswith("2049-")
    assert os.listdir(scratch) == []
    assert [json.loads(line) for line in record(destination)] == [proof]
    assert (destination / proofs.FILE).stat().st_mode & 0o777 == 0o640
    assert look()["last_restore_proof"] == proof
    assert look(path=destination / backup["name"])["last_restore_proof"] == proof
    options = BackupOptions.from_mapping({"destination": str(destination)})
    assert overview.run(options, None, world)[0]["last_restore_proof"] == proof
    rehearse(check=True)
    proofs.record(str(destination), {**proof, "seconds": 7.0})
    assert look()["last_restore_proof"]["seconds"] == 7.0, "the same second, a later line"
    world.clock.time += 60
    later = rehearse()["last_restore_proof"]
    assert later["at"] > proof["at"] and look()["last_restore_proof"] == later
    assert len(record(destination)) == 3


def test_random_takes_every_usable_backup_sooner_or_later(
    back_up, rehearse, few, destination, world
):
    names = set()
    for number in range(3):
        world.clock.time += 86400
        (few / "new.bin").write_bytes(b"%d" % number)
        names.add(back_up(source=str(few), keep_last=5).backup["name"])
    broken = sorted(names)[0]
    with open(destination / broken, "ab") as stream:
        stream.write(b"x")
    drawn = {rehearse(backup="random")["restored"]["backup"] for dummy in range(30)}
    assert drawn == names - {broken}


def test_a_damaged_backup_fails_and_leaves_nothing(back_up, rehearse, look, destination, scratch):
    backup = back_up().backup
    rehearse()
    before = record(destination)
    path = destination / backup["name"]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(errors.VerificationFailed, match=r"model\.safetensors"):
        rehearse()
    assert os.listdir(scratch) == [] and record(destination) == before
    assert look()["last_restore_proof"]["backup"] == backup["name"]


def test_what_the_disk_returns_is_compared_and_not_what_was_written(
    back_up, rehearse, destination, scratch
):
    """A file that changes after it was written, as on a bad disk, fails the drill."""
    back_up()

    def tell(progress):
        if progress.phase == "compare" and progress.done == 0:
            for path in scratch.glob(".mlops-drill.*/models/bert/v1/tokenizer.json"):
                status = path.stat()
                path.write_bytes(path.read_bytes().replace(b"token", b"taken", 1))
                os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    with pytest.raises(errors.VerificationFailed, match=r"tokenizer\.json has other content"):
        rehearse(tell=tell)
    assert os.listdir(scratch) == [] and record(destination) == []


def test_too_little_space_is_seen_before_anything_is_written(
    back_up, rehearse, destination, scratch, mounted
):
    back_up()
    for name in (
        "models_backup_20230101_020000.tar.gz",
        "models_backup_20230101_020000.tar.gz.sha256",
    ):
        shutil.copy(OLD / name, destination)

    def rehearse_all():
        (scratch / "the only page").write_bytes(b"x")
        for backup in ("latest", "models_backup_20230101_020000.tar.gz"):
            for check in (True, False):
                with pytest.raises(errors.WriteFailed, match="Not enough space"):
                    rehearse(check=check, backup=backup)
                assert os.listdir(scratch) == ["the only page"]
                assert record(destination) == []

    mounted([(b"none", scratch, "tmpfs", "size=4k")], rehearse_all)


def test_an_archive_of_the_old_scripts(rehearse, destination, scratch):
    destination.mkdir()
    for name in (
        "models_backup_20230101_020000.tar.gz",
        "models_backup_20230101_020000.tar.gz.sha256",
    ):
        shutil.copy(OLD / name, destination)
    proof = rehearse()["last_restore_proof"]
    assert proof["compared"] == "archive" and proof["files"] > 0 and proof["source"] == ""
    assert os.listdir(scratch) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_signal_leaves_no_scratch_directory(back_up, rehearse, scratch, destination, few, number):
    """What only a later drill can remove (SIGKILL), that removes."""
    back_up(source=str(few))

    def stop(progress):
        if progress.phase == "restore":
            os.kill(os.getpid(), number)
            time.sleep(60)

    pid = os.fork()
    if pid == 0:
        try:
            with contextlib.suppress(OSError):  # nohup ignores SIGHUP; SIGKILL can't be set
                signal.signal(number, signal.SIG_DFL)
            rehearse(tell=stop)
        finally:
            os._exit(99)
    status = os.waitpid(pid, 0)[1]
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == number
    killed = number == signal.SIGKILL
    assert len(os.listdir(scratch)) == (1 if killed else 0) and record(destination) == []
    mine = scratch / ".mlops-drill.another-host.0123456789ab"
    mine.mkdir()
    notes = rehearse()["notes"]
    assert os.listdir(scratch) == [mine.name]
    assert notes == (["removed what an interrupted drill had left"] if killed else [])


def test_without_a_backup_nothing_is_made(rehearse, destination, scratch):
    with pytest.raises(errors.NotUsable, match="no complete backup"):
        rehearse()
    assert not destination.exists() and os.listdir(scratch) == []


def test_two_at_once_in_the_same_scratch_directory(back_up, rehearse, few):
    back_up(source=str(few))

    def again(progress):
        if progress.phase == "restore":
            rehearse()

    with pytest.raises(errors.LockBusy, match="restore drill in"):
        rehearse(tell=again)


def test_links_out_of_the_source_do_not_keep_a_drill_from_succeeding(
    back_up, rehearse, source, scratch
):
    (source / "current").symlink_to("/mnt/big/model")
    back_up()
    assert rehearse()["last_restore_proof"]["compared"] == "files"
    assert os.listdir(scratch) == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"destination": "/opt/ml/models"}, "drill and destination"),
        ({"files": ["x"]}, "drill and files"),
        ({"mode": "replace"}, "drill and mode"),
        ({"verify": False}, "drill and verify"),
        ({"drill": False}, "destination is required"),
        ({"drill": False, "destination": "/x/y", "backup": "random"}, "only a drill takes"),
    ],
)
def test_options_that_contradict_each_other(rehearse, given, message):
    with pytest.raises(errors.OptionError, match=message):
        rehearse(**given)


def test_scratch_directories_that_do_not_do(back_up, rehearse, tmp_path):
    back_up()
    (tmp_path / "file").write_text("")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    for name, error in (
        ("missing", errors.NotUsable),
        ("file", errors.NotUsable),
        ("open", errors.Refused),
    ):
        with pytest.raises(error, match=name):
            rehearse(scratch=str(tmp_path / name))


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe\n", b"[]\n{}\n", b'{"at": 1}\n', b'{"at": "x", "place', b"[" * 100_000],
)
def test_a_record_with_any_content_is_read_and_continued(
    back_up, rehearse, look, destination, few, content
):
    back_up(source=str(few))
    (destination / proofs.FILE).write_bytes(content)
    assert look()["last_restore_proof"] is None
    proof = rehearse()["last_restore_proof"]
    assert look()["last_restore_proof"] == proof
    assert (destination / proofs.FILE).read_bytes().startswith(content)


def test_a_record_that_is_a_link_is_neither_followed_nor_written(
    back_up, rehearse, look, destination, few, tmp_path
):
    back_up(source=str(few))
    target = tmp_path / "target"
    target.write_text("mine")
    (destination / proofs.FILE).symlink_to(target)
    with pytest.raises(errors.WriteFailed, match="Can't record"):
        rehearse()
    assert target.read_text() == "mine"
    assert "Can't read" in look()["last_restore_proof"]["unreadable"]
