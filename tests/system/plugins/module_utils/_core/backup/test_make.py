# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Making backups: what is done, what is refused, and what is left after every kind of death."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import pathlib
import resource
import signal
import subprocess
import sys
import time

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core import errors
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup import (
    archive,
    catalogue,
    deflate,
    manifest,
    names,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.make import plan
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.make import run as job
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.options import BackupOptions

DAY = 86400
ROOT = pathlib.Path(__file__).resolve().parents[6]


def content(directory):
    return sorted(name for name in os.listdir(directory) if name != names.LOCK)


def in_child(function):
    """Run ``function`` in a forked child; return its exit status (its FleetError's exit code + 10,
    99 for anything else).
    """
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            function()
            status = 0
        except errors.FleetError as error:
            status = 10 + error.exit_code
            os.write(2, f"{error}\n".encode())
        finally:
            os._exit(status)
    return (
        os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if hasattr(os, "waitstatus_to_exitcode")
        else os.WEXITSTATUS(os.waitpid(pid, 0)[1])
    )


# --- the ordinary course
# ---------------------------------------------------------------------------------------------


def test_check_apply_check_apply(back_up, destination):
    preview = back_up(check=True).to_dict()
    assert (
        preview["changed"] and preview["backup"] is None and preview["plan"]["action"] == "create"
    )
    assert not destination.exists(), "check mode writes nothing, not even the directory"
    first = back_up().to_dict()
    assert first["changed"] and first["backup"]["verified"]
    before = {name: os.stat(destination / name).st_mtime_ns for name in content(destination)}
    assert not back_up(check=True).changed
    second = back_up().to_dict()
    assert not second["changed"] and second["backup"] == first["backup"]
    assert before == {
        name: os.stat(destination / name).st_mtime_ns for name in content(destination)
    }


def test_what_is_written_and_returned(back_up, source, destination, clock):
    result = back_up().to_dict()
    stem = time.strftime("models_backup_%Y%m%d_%H%M%S.tar.gz", time.localtime(clock.now()))
    assert content(destination) == [stem, stem + ".manifest.json", stem + ".sha256"]
    assert [oct(os.stat(destination / name).st_mode & 0o7777) for name in content(destination)] == [
        "0o640"
    ] * 3
    assert oct(destination.stat().st_mode & 0o7777) == "0o750"
    files = [path for path in source.rglob("*") if path.is_file() and not path.is_symlink()]
    assert result["backup"]["files"] == len(files)
    assert (
        result["backup"]["bytes"]
        == result["stats"]["bytes_read"]
        == sum(path.stat().st_size for path in files)
    )
    assert result["notes"] == ["not backed up: socket (socket)"]
    document = manifest.parse((destination / (stem + ".manifest.json")).read_bytes(), "")
    weights = next(entry for entry in document["entries"] if entry["path"].endswith("safetensors"))
    told = subprocess.run(
        ["sha256sum", str(source / weights["path"])], capture_output=True, text=True, check=False
    ).stdout.split()[0]
    assert weights["sha256"] == told
    json.dumps(result, ensure_ascii=False).encode("utf-8")


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "new").write_text(""),
        lambda root: (root / "empty").unlink(),
        lambda root: (root / "run.sh").chmod(0o700),
        lambda root: (
            (root / "bert" / "latest").unlink() or (root / "bert" / "latest").symlink_to("v2")
        ),
        lambda root: os.utime(root / "run.sh"),
        lambda root: (root / "empty directory").rmdir(),
    ],
)
def test_any_change_of_the_source_makes_a_new_backup(back_up, source, change):
    back_up()
    change(source)
    assert back_up().changed and not back_up().changed


def test_same_size_and_time_but_other_content_is_seen(back_up, source, clock):
    """ctime gives it away, as for borg and restic."""
    back_up()
    file = source / "bert" / "v1" / "tokenizer.json"
    before = file.stat()
    data = bytearray(file.read_bytes())
    data[100] ^= 1
    with open(file, "r+b") as stream:
        stream.write(data)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    clock.time += 5
    assert back_up().changed


def test_another_spelling_of_the_source_is_no_change(back_up, source, destination):
    back_up()
    assert not back_up(source=f"/{source}/", destination=f"{destination}/.").changed


def test_progress_is_reported_within_a_file_and_ends_at_the_total(world, source, destination):
    told: list = []
    job.run(
        BackupOptions.from_mapping({"source": str(source), "destination": str(destination)}),
        world,
        tell=told.append,
    )
    archived = [one for one in told if one.phase == "archive"]
    assert len([one for one in archived if one.subject.endswith("safetensors")]) > 1
    assert (archived[-1].done, archived[-1].unit) == (archived[-1].total, "bytes")
    assert [one.done for one in archived] == sorted(one.done for one in archived)
    assert told[-1].phase == "verify" and told[-1].done == told[-1].total


def test_two_backups_in_one_second_get_two_names(back_up):
    first, second = back_up(), back_up(force=True)
    assert first.backup["name"] != second.backup["name"]
    assert second.before == [first.backup["name"]] and len(second.after) == 2


@pytest.mark.parametrize("ahead", [60, 3600, 5 * 3600, 3 * DAY, 40 * 365 * DAY])
def test_a_clock_set_back(back_up, bring_back, source, restored, clock, ahead):
    """What was made last is the newest, whatever an earlier clock said; nothing is made twice,
    nothing new is removed.
    """
    clock.time += ahead
    first = back_up()
    clock.time -= ahead
    (source / "new").write_text("new")
    preview = back_up(check=True)
    second = back_up()
    assert (
        second.changed
        and second.after == [*sorted(second.before), second.backup["name"]] == preview.after
    ) or ahead > DAY
    assert not back_up(check=True).changed and not back_up().changed
    assert (
        bring_back().plan.facts.origin.backup.name == second.backup["name"]
        and (restored / "new").exists()
    )
    (source / "newer").write_text("newer")
    result = back_up(retention_days=0, keep_last=1)
    assert {one["name"] for one in result.removed} <= {
        first.backup["name"],
        second.backup["name"],
    } and len(result.after) <= 2
    assert not back_up(retention_days=0, keep_last=1).changed
    assert bool([note for note in result.notes if "dated in the future" in note]) is (ahead > DAY)


def test_a_change_that_hides_its_time_while_it_is_read(world, source, destination):
    """Written to and given its old modification time back, as rsync and cp -p do."""
    path, times = source / "bert" / "v1" / "model.safetensors", []

    def tell(progress):
        if progress.subject.endswith("safetensors") and len(times) < 2:
            times.append(1)
            before = path.stat()
            with open(path, "r+b") as stream:
                stream.write(os.urandom(64))
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    result = job.run(
        BackupOptions.from_mapping({"source": str(source), "destination": str(destination)}),
        world,
        tell=tell,
    )
    assert len(times) == 2
    document = manifest.parse(
        (destination / (result.backup["name"] + ".manifest.json")).read_bytes(), ""
    )
    told = next(
        entry["sha256"] for entry in document["entries"] if entry["path"].endswith("safetensors")
    )
    assert told == hashlib.sha256(path.read_bytes()).hexdigest()


def test_an_unverified_backup_is_no_reason_to_skip(back_up):
    assert back_up(verify=False).backup["verified"] is False
    assert not back_up(verify=False).changed
    assert back_up().plan.reason == "the newest backup was never verified"


def test_a_damaged_newest_backup_is_no_reason_to_skip(back_up):
    path = back_up().backup["path"]
    os.truncate(path, os.path.getsize(path) - 1)
    assert back_up().changed


def test_exclude(back_up, source, destination):
    result = back_up(exclude=["*.json", "bert/latest", "d" * 30])
    listed = subprocess.run(
        ["tar", "-tzf", result.backup["path"]], capture_output=True, text=True, check=False
    ).stdout
    assert (
        "safetensors" in listed
        and ".json" not in listed
        and "latest" not in listed
        and "ddd" not in listed
    )


def test_retention_removes_with_manifest_and_checksum_and_only_ours(
    back_up, source, destination, clock
):
    back_up()
    old = content(destination)
    strangers = [
        "models_backup_20200101_000000.tar.gz.bak",
        "models_backup_2020.tar.gz",
        "notes.txt",
        "models_backup_20201399_000000.tar.gz",
    ]
    for name in strangers:
        (destination / name).write_text("keep")
    target = destination.parent / "precious"
    target.write_text("precious")
    (destination / "models_backup_20190101_000000.tar.gz").symlink_to(target)
    clock.time += 31 * DAY
    preview = back_up(check=True, force=True)
    result = back_up(force=True)
    assert (
        [one["name"] for one in result.removed]
        == [one["name"] for one in preview.removed]
        == [old[0]]
    )
    assert result.removed[0]["reason"] == "31 days old, kept are 30"
    left = set(content(destination))
    assert (
        not left & set(old)
        and set(strangers) <= left
        and "models_backup_20190101_000000.tar.gz" in left
    )
    assert target.read_text() == "precious"


def test_two_sources_in_one_directory(back_up, bring_back, source, few, destination, clock):
    """Each is compared with its own backups, and no run removes the other's."""
    rules = {"retention_days": 0, "keep_last": 1}
    first = back_up(**rules)
    clock.time += 60
    second = back_up(source=str(few), **rules)
    assert second.changed and second.removed == [] and str(source) in second.notes[-1]
    clock.time += 60
    for given in ({}, {"source": str(few)}):
        assert (
            not back_up(check=True, **given, **rules).changed
            and not back_up(**given, **rules).changed
        )
    (source / "new").write_text("x")
    assert [one["name"] for one in back_up(**rules).removed] == [first.backup["name"]]
    assert bring_back(check=True).notes == [
        f"this is the latest backup of {source}; there are backups of {few} too"
    ]
    assert bring_back(check=True, backup=second.backup["name"]).notes == []


def test_archives_of_the_old_script_are_known_and_expire_only_behind_a_verified_backup(
    back_up, look, source, destination, clock
):
    destination.mkdir()
    stem = time.strftime(
        "models_backup_%Y%m%d_%H%M%S.tar.gz", time.localtime(clock.now() - 40 * DAY)
    )
    subprocess.run(
        ["tar", "-czf", str(destination / stem), "-C", str(source.parent), "models"],
        check=True,
        stderr=subprocess.DEVNULL,
    )
    subprocess.run(f"sha256sum {stem} > {stem}.sha256", shell=True, cwd=destination, check=True)
    found = look(verify="full")["backups"]
    assert [(one["name"], one["legacy"], one["verified"], one["problems"]) for one in found] == [
        (stem, True, True, [])
    ]
    assert back_up(verify=False).removed == []
    result = back_up(force=True)
    assert [one["name"] for one in result.removed] == [stem]
    assert not (destination / (stem + ".sha256")).exists()


# --- refusals
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "kind", "text"),
    [
        ({"source": "/nonexistent/models"}, errors.NotUsable, "does not exist"),
        ({"source": "/etc/hostname"}, errors.NotUsable, "is not a directory"),
        ({"source": "models"}, errors.OptionError, "absolute path"),
        ({"source": ""}, errors.OptionError, "empty"),
        ({"destination": ""}, errors.OptionError, "empty"),
        ({"destination": "/etc/backups"}, errors.Refused, "system directory"),
        ({"destination": "/"}, errors.Refused, "system directory"),
        ({"retention_days": -1}, errors.OptionError, "at least 0"),
        ({"compression_level": 12}, errors.OptionError, "at most 9"),
        ({"compression_level": 0}, errors.OptionError, "at least 1"),
        ({"compression": "lzma"}, errors.OptionError, "gzip, zstd, none"),
        ({"keep_last": -3}, errors.OptionError, "at least 0"),
        ({"workers": 1000}, errors.OptionError, "at most 64"),
        ({"exclude": ["*"]}, errors.NotUsable, "no file that is not excluded"),
        ({"s3": {"prefix": "x"}}, errors.OptionError, "s3.bucket is missing"),
        ({"s3": {"bucket": "b", "access_key": "x"}}, errors.OptionError, "belong together"),
        ({"s3": {"bucket": "b", "endpoint_url": "ftp://x"}}, errors.OptionError, "http"),
    ],
)
def test_refused_before_anything_is_written(back_up, destination, given, kind, text):
    for check in (True, False):
        with pytest.raises(kind, match=text):
            back_up(check=check, **given)
    assert not destination.exists()


def test_a_password_in_the_endpoint_is_not_repeated(back_up):
    with pytest.raises(errors.OptionError) as error:
        back_up(s3={"bucket": "b", "endpoint_url": "https://joe:sesame@s3.example.com"})
    assert "sesame" not in str(error.value) + json.dumps(error.value.to_dict())


def test_a_storage_class_alone_asks_for_no_object_storage():
    """The old scripts' environment file sets S3_STORAGE_CLASS also where S3_BUCKET is empty."""
    assert BackupOptions.from_mapping({"s3": {"storage_class": "GLACIER"}}).s3 is None


def test_nested_directories_are_refused_also_through_links(back_up, source, tmp_path):
    link = tmp_path / "elsewhere"
    link.symlink_to(source)
    for given in (
        {"destination": str(source / "backups")},
        {"destination": str(link / "backups")},
        {"destination": str(source)},
        {"destination": str(tmp_path)},
    ):
        with pytest.raises(errors.Refused, match="inside"):
            back_up(**given)


def test_an_empty_source_is_an_error_and_removes_nothing(back_up, tmp_path, destination, clock):
    back_up()
    clock.time += 90 * DAY
    before = content(destination)
    empty = tmp_path / "empty"
    (empty / "directory").mkdir(parents=True)
    with pytest.raises(errors.NotUsable, match="holds no file"):
        back_up(source=str(empty))
    assert content(destination) == before


def test_two_runs_at_once(back_up, destination):
    back_up()
    with open(destination / names.LOCK, "r+") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        stream.write("4242\n")
        stream.flush()
        with pytest.raises(errors.LockBusy, match="4242"):
            back_up(force=True)
    assert len(content(destination)) == 3


# --- what a hostile world does
# ------------------------------------------------------------------------------------------


def as_nobody(function):
    def run():
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        function()

    return in_child(run)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_as_another_user(tmp_path, world, source):
    for path in (*tmp_path.parents, tmp_path):
        if path.stat().st_uid == 0 and path != pathlib.Path("/"):
            path.chmod(path.stat().st_mode | 0o055)
    (source / "run.sh").chmod(0o755)
    place = tmp_path / "theirs"
    place.mkdir()
    os.chown(place, 65534, 65534)

    def go(**given):
        options = BackupOptions.from_mapping(
            {"source": str(source), "destination": str(place / "b"), **given}
        )
        return lambda: job.run(options, world)

    assert as_nobody(go()) == 0
    assert len(content(place / "b")) == 3
    secret = source / "bert" / "v1" / "secret"
    secret.write_text("x")
    secret.chmod(0o600)

    def told():
        try:
            go()()
        except errors.NotUsable as error:
            if str(secret) in str(error) and "Permission denied" in str(error):
                raise
        os._exit(1)

    assert as_nobody(told) == 13
    assert len(content(place / "b")) == 3
    assert as_nobody(go(destination="/root/b", exclude=["secret"])) == 13


@pytest.mark.parametrize("limit", [0, 1000, 2_000_000, 4_000_000])
def test_a_file_size_limit_leaves_nothing(world, source, destination, limit):
    def run():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        job.run(
            BackupOptions.from_mapping({"source": str(source), "destination": str(destination)}),
            world,
        )

    assert in_child(run) == 13
    assert content(destination) == []


def test_a_full_disk(source, tmp_path, world, mounted, monkeypatch):
    """A tmpfs of 3 MB: refused beforehand; with a wrong estimate, cleaned up afterwards."""
    small = tmp_path / "small"
    small.mkdir()
    options = BackupOptions.from_mapping({"source": str(source), "destination": str(small)})

    def fill():
        with pytest.raises(errors.WriteFailed, match="Not enough space"):
            job.run(options, world)
        assert os.listdir(small) == []
        monkeypatch.setattr(plan, "estimate", lambda *arguments: 0)
        with pytest.raises(errors.WriteFailed, match="No space left"):
            job.run(options, world)
        assert content(small) == []

    mounted([(b"tmpfs", small, "tmpfs", "size=3m")], fill)


def test_a_destination_that_is_mounted_inside_the_source(back_up, source, destination, mounted):
    back_up()
    (source / "inside").mkdir()

    def run():
        for check in (True, False):
            with pytest.raises(errors.Refused, match="inside is the destination, mounted there"):
                back_up(check=check)
        assert not back_up(exclude=["inside"]).changed, "left out, so nothing is new"

    mounted([(destination, source / "inside", None, "")], run)


def test_a_destination_behind_a_link(back_up, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    assert back_up(destination=str(tmp_path / "link" / "models")).changed
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to(tmp_path / "not mounted")
    for path in (tmp_path / "link", tmp_path / "link" / "models"):
        with pytest.raises(errors.NotUsable, match="not mounted, which does not exist"):
            back_up(destination=str(path))
    assert not (tmp_path / "not mounted").exists()


def test_a_file_that_changes_while_it_is_read_makes_it_start_over(back_up, source, monkeypatch):
    """The file grows while the archive is written, twice; the third attempt gets a state that
    existed.
    """
    path, times = source / "bert" / "v1" / "model.safetensors", []
    real = archive._Members._large

    def large(self, descriptor, entry, header):
        if entry.path.endswith("safetensors") and len(times) < 2:
            times.append(1)
            with open(path, "ab") as stream:
                stream.write(b"more")
        return real(self, descriptor, entry, header)

    monkeypatch.setattr(archive._Members, "_large", large)
    result = back_up()
    assert len(times) == 2 and result.backup["verified"]
    assert result.backup["bytes"] == sum(
        p.stat().st_size for p in source.rglob("*") if p.is_file() and not p.is_symlink()
    )


def test_a_file_that_never_stands_still_fails_by_name(world, source, destination):
    path = source / "bert" / "v1" / "model.safetensors"

    def tell(progress):
        """Write to the file while it is read, each time."""
        if progress.subject.endswith("safetensors"):
            with open(path, "r+b") as stream:
                stream.write(os.urandom(64))

    with pytest.raises(errors.NotUsable, match=r"model\.safetensors changed while it was read"):
        job.run(
            BackupOptions.from_mapping({"source": str(source), "destination": str(destination)}),
            world,
            tell=tell,
        )
    assert content(destination) == []


@pytest.mark.parametrize("kind", ["gone", "link", "directory", "pipe"])
def test_a_file_that_is_replaced_before_it_is_read_makes_it_start_over(
    back_up, source, monkeypatch, tmp_path, kind
):
    real, path, times, elsewhere = archive.write, source / "run.sh", [], tmp_path / "elsewhere"

    def write(*arguments):
        if not times:
            times.append(1)
            path.unlink()
            if kind != "gone":
                {
                    "link": lambda: path.symlink_to(elsewhere),
                    "directory": path.mkdir,
                    "pipe": lambda: os.mkfifo(path),
                }[kind]()
        return real(*arguments)

    monkeypatch.setattr(archive, "write", write)
    result = back_up()
    listed = subprocess.run(
        ["tar", "-tvzf", result.backup["path"]], capture_output=True, text=True, check=False
    ).stdout
    shown = {
        "gone": False,
        "link": f"run.sh -> {elsewhere}",
        "directory": "run.sh/",
        "pipe": False,
    }[kind]
    assert shown in listed if shown else "run.sh" not in listed
    assert result.backup["verified"]


def test_a_directory_that_goes_while_its_parent_is_walked_is_not_part_of_it(
    back_up, source, monkeypatch
):
    real, times = os.listdir, []

    def listdir(where):
        found = real(where)
        if "empty directory" in found and not times:
            times.append(1)
            (source / "empty directory").rmdir()
            (source / "empty directory").symlink_to("/etc")
        return found

    monkeypatch.setattr(os, "listdir", listdir)
    assert back_up().backup["verified"] and times


def test_the_walk_never_follows_a_directory_swapped_for_a_link(
    source, tmp_path, back_up, monkeypatch
):
    """Between walk and read a directory becomes a link to /etc: the run fails or starts over, but
    never reads through it.
    """
    real = archive.write

    def write(tree, *arguments):
        if not (source / "bert").is_symlink():
            (source / "bert").rename(tmp_path / "moved")
            (source / "bert").symlink_to("/etc")
        return real(tree, *arguments)

    monkeypatch.setattr(archive, "write", write)
    result = back_up()
    listed = subprocess.run(
        ["tar", "-tzf", result.backup["path"]], capture_output=True, text=True, check=False
    ).stdout
    assert "bert" in listed.split("\n") and "bert/" not in listed


def test_an_archive_that_does_not_read_back_is_never_published(back_up, destination, monkeypatch):
    class Lying(deflate.Gzip):
        def pack(self, data):
            spoiled = bytearray(data)
            spoiled[len(spoiled) // 2] ^= 1
            return super().pack(bytes(spoiled))

    monkeypatch.setattr(deflate, "Gzip", Lying)
    with pytest.raises(errors.VerificationFailed) as error:
        back_up()
    assert error.value.exit_code == 2
    assert content(destination) == []
    monkeypatch.undo()


def test_a_failed_run_removes_no_old_backup(back_up, source, destination, clock):
    first = back_up()
    second = back_up(force=True)
    clock.time += 60 * DAY
    before = content(destination)
    (source / "new").write_text("x")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limit[1]))
    try:
        with pytest.raises(errors.WriteFailed):
            back_up()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert content(destination) == before
    assert [one["name"] for one in back_up().removed] == [
        second.backup["name"],
        first.backup["name"],
    ]


def test_killed_at_any_moment(world, few, destination, clock, dies):
    """kill -9 around every step: whatever has an archive's name is whole for gzip and sha256sum;
    the next run cleans up.
    """
    options = BackupOptions.from_mapping(
        {
            "source": str(few),
            "destination": str(destination),
            "force": True,
            "retention_days": 0,
            "keep_last": 2,
        }
    )
    for _turn in range(2):
        job.run(options, world)
        clock.time += 60
    partial, steps, checked = 0, 0, set(content(destination))
    for step in dies.everywhere(lambda: job.run(options, world)):
        steps = step
        partial += any(names.is_temporary(name) for name in content(destination))
        for name in set(content(destination)) - checked:
            if names.is_archive(name):
                assert (
                    subprocess.run(["gzip", "-t", name], cwd=destination, check=False).returncode
                    == 0
                )
                assert (
                    subprocess.run(
                        ["sha256sum", "--status", "-c", name + ".sha256"],
                        cwd=destination,
                        check=False,
                    ).returncode
                    == 0
                )
        checked |= set(content(destination))
        assert catalogue.newest(catalogue.listing(str(destination)), clock.now()) is not None, (
            "one complete backup is always there"
        )
        clock.time += 60
    assert partial > 5 and steps > 30, (
        "archive, three renames, a removal of three files, each synchronised"
    )
    assert job.run(options, world).backup["verified"]
    left = content(destination)
    assert len(left) == 6 and sum(name.endswith(".gz") for name in left) == 2, (
        "archive, checksum and manifest of two"
    )


PEAK = """
import sys
sys.path.insert(0, {path!r})
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.make import run as job
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.options import BackupOptions
from ansible_collections.mlops.fleet.plugins.module_utils._core.ports import World
given = {{"source": {source!r}, "destination": {destination!r}, "workers": 2, "compression_level": 1}}
assert job.run(BackupOptions.from_mapping(given), World(run=None)).backup["verified"]
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM:")))
"""


def peak_memory(directory, size):
    """The most memory, in MB, that backing up one file of ``size`` MiB takes: first half noise,
    which stays as large, then a hole.

    Not ru_maxrss: that begins with what the process had which started this one, here pytest with
    all its plugins.
    """
    models = directory / "models"
    models.mkdir(parents=True)
    noise = os.urandom(1 << 20)
    with open(models / "weights", "wb") as stream:
        for _turn in range(size // 2):
            stream.write(noise)
        stream.truncate(size << 20)
    code = PEAK.format(
        path=str(ROOT / ".build" / "collections"),
        source=str(models),
        destination=str(directory / "backups"),
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout) // 1024


def test_memory_does_not_grow_with_the_data(tmp_path):
    """Ten times the data, no more memory: what is not compressed yet, and what is not written yet,
    waits in a bounded queue.
    """
    small, large = peak_memory(tmp_path / "small", 40), peak_memory(tmp_path / "large", 400)
    assert large < small + 60, f"{small} MB for 40 MiB, {large} MB for 400 MiB"
