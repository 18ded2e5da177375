# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One archive per model: what is written again, what stays, what a damaged one does."""

from __future__ import annotations

import json
import os
import pathlib
import resource
import shutil
import subprocess

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core import errors
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup import api, archive, names
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.make import run as making
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.options import (
    BackupOptions,
    RestoreOptions,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.restore import (
    run as restoring,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.ports import World

DAY = 86400


@pytest.fixture
def source(tmp_path) -> pathlib.Path:
    """Two models, a file beside them, a link, an empty directory, a name that is no file name."""
    root = tmp_path / "models"
    for model in ("bert", "llama", "Grüße 模型\n%"):
        (root / model / "v1").mkdir(parents=True)
        (root / model / "v1" / "weights").write_bytes(os.urandom(200_000))
        (root / model / "config.json").write_text(json.dumps({"model": model}))
    (root / "README").write_text("all models")
    (root / "latest").symlink_to("bert/v1")
    (root / "empty").mkdir()
    return root


@pytest.fixture
def per_model(back_up):
    """Run a backup with one archive per model."""
    return lambda **given: back_up(layout="per_model", **given)


def archives(result):
    return {item["model"]: item for item in result.backup["archives"]}


def files(destination):
    return {name for name in os.listdir(destination) if not name.startswith(".")}


def test_one_archive_per_entry_and_the_set_names_them(per_model, source, destination, tmp_path):
    result = per_model()
    backup = result.backup
    assert names.is_set(backup["name"]) and backup["path"] == str(destination / backup["name"])
    assert set(archives(result)) == set(os.listdir(source))
    assert (backup["verified"], backup["layout"], backup["files"]) == (True, "per_model", 7)
    assert backup["size"] == sum(item["size"] for item in backup["archives"])
    stats = result.to_dict()["stats"]
    assert stats["archives_written"] == 6 and stats["bytes_written"] == backup["size"]
    document = json.loads((destination / backup["name"]).read_text())
    assert [item["name"] for item in document["archives"]] == [
        item["name"] for item in backup["archives"]
    ]
    for name in files(destination):
        assert api.is_backup_file(name), "cleanup must never take it for a file of its own"
    target = tmp_path / "by tar"
    target.mkdir()
    for item in backup["archives"]:
        subprocess.run(["tar", "xzf", item["path"], "-C", target], check=True)
        subprocess.run(["sha256sum", "-c", item["name"] + ".sha256"], cwd=destination, check=True)
    subprocess.run(["diff", "-r", "--no-dereference", source, target], check=True)
    listed = subprocess.run(
        ["sha256sum", "-c", backup["name"] + ".sha256"], cwd=destination, check=True
    )
    assert listed.returncode == 0


def test_what_did_not_change_is_neither_read_nor_written(per_model, source, destination, clock):
    before = per_model()
    clock.time += DAY
    assert per_model().changed is False
    (source / "bert" / "v1" / "weights").write_bytes(os.urandom(1000))
    stamps = {path: path.stat().st_mtime_ns for path in destination.iterdir()}
    reads = (source / "llama" / "v1" / "weights").stat().st_atime_ns
    after = per_model()
    old, new = archives(before), archives(after)
    assert {model for model in new if new[model] != old[model]} == {"bert"}
    stats = after.to_dict()["stats"]
    assert (stats["archives_written"], stats["bytes_read"]) == (1, 1000 + len('{"model": "bert"}'))
    for path, stamp in stamps.items():
        assert path.name.startswith(".") or path.stat().st_mtime_ns == stamp
    assert (source / "llama" / "v1" / "weights").stat().st_atime_ns == reads
    shutil.rmtree(source / "llama")
    (source / "new").mkdir()
    clock.time += DAY
    assert set(archives(per_model())) == {*old, "new"} - {"llama"}


def test_force_writes_everything_again(per_model):
    per_model()
    assert per_model(force=True).to_dict()["stats"]["archives_written"] == 6


def test_without_verification_the_next_verified_run_writes_it(per_model):
    assert per_model(verify=False).backup["verified"] is False
    result = per_model()
    assert result.backup["verified"] is True
    assert result.to_dict()["stats"]["archives_written"] == 6


def test_removal_counts_references(per_model, source, destination, clock):
    first = per_model()
    for day in range(4):
        clock.time += DAY
        (source / "bert" / "v1" / "weights").write_bytes(os.urandom(1000 + day))
        result = per_model(retention_days=0, keep_last=2)
    kept = {item["name"] for item in result.backup["archives"]}
    assert archives(first)["llama"]["name"] in kept, "the oldest archive is still named"
    members = {name for name in files(destination) if names.is_member(name)}
    assert len(members) == 7, "two of bert, one of each other"
    assert len([name for name in files(destination) if names.is_set(name)]) == 2
    companions = {names.without_companion(name) for name in files(destination)}
    assert companions == members | {name for name in files(destination) if names.is_set(name)}


def test_layouts_can_be_switched(per_model, back_up, bring_back, look, restored, source, clock):
    single = back_up().backup["name"]
    clock.time += DAY
    result = per_model()
    assert result.plan.reason == "the layout has changed" and result.changed
    clock.time += DAY
    (source / "bert" / "config.json").write_text("changed")
    again = back_up().backup["name"]
    assert [backup["name"] for backup in look(verify="full")["backups"]] == [
        again,
        result.backup["name"],
        single,
    ]
    assert look(verify="full")["verified"]
    for name in (single, result.backup["name"], again):
        shutil.rmtree(restored, ignore_errors=True)
        assert bring_back(backup=name).files == 7
    clock.time += DAY
    third = back_up(retention_days=0, keep_last=1, force=True)
    assert [backup["name"] for backup in look()["backups"]] == [third.backup["name"]]
    assert len(files(third.plan.options.destination)) == 3, "no archive of the set is left"


@pytest.mark.parametrize("layout", ["single", "per_model"])
def test_one_model_is_restored(back_up, bring_back, restored, source, layout):
    back_up(layout=layout)
    result = bring_back(model="bert").to_dict()["restored"]
    assert (result["files"], result["verified"]) == (2, True)
    assert os.listdir(restored) == ["bert"]
    assert (restored / "bert/config.json").read_text() == (source / "bert/config.json").read_text()
    assert bring_back(model="bert").changed is False
    with pytest.raises(errors.NotUsable, match="no model gpt in models_backup_") as caught:
        bring_back(model="gpt", destination=str(restored) + "2")
    assert "bert" in caught.value.todo
    with pytest.raises(errors.OptionError, match="contradict"):
        bring_back(model="bert", mode="replace")
    some = bring_back(model="llama", files=["config.json"], destination=str(restored) + "3")
    assert some.files == 1


def test_everything_is_restored(per_model, bring_back, restored, source):
    per_model()
    assert bring_back().verified
    subprocess.run(["diff", "-r", "--no-dereference", source, restored], check=True)
    assert bring_back().changed is False


def flip(path, position):
    with open(path, "r+b") as stream:
        stream.seek(position)
        byte = stream.read(1)[0]
        stream.seek(position)
        stream.write(bytes([byte ^ 4]))


@pytest.mark.parametrize("part", ["set", "head", "entries", "index", "archive", "gone"])
def test_damage_is_detected_and_named(
    per_model, look, bring_back, restored, source, destination, part
):
    result = per_model()
    packed = pathlib.Path(archives(result)["bert"]["path"])
    manifest = pathlib.Path(str(packed) + ".manifest.json")
    raw = manifest.read_bytes()
    places = {
        "set": (destination / result.backup["name"], 100),
        "head": (manifest, 100),
        "entries": (manifest, raw.index(b'"entries": [') + 60),
        "index": (manifest, raw.index(b'"chunk_size"') + 15),
        "archive": (packed, packed.stat().st_size // 2),
    }
    if part == "gone":
        packed.unlink()
    else:
        flip(*places[part])
    checked = look(verify="full")
    (backup,) = checked["backups"]
    expected = "set.json" if part == "set" else "bert"
    assert checked["verified"] is False
    assert all(expected in problem for problem in backup["problems"]) and backup["problems"]
    if part == "archive":
        assert "bert/v1/weights" in " ".join(backup["problems"])
    if part == "index":
        assert bring_back().files == 7, "slower, never wrong"
    else:
        with pytest.raises((errors.VerificationFailed, errors.NotUsable)):
            bring_back()
        assert not restored.exists()
    if part not in ("set", "index"):
        name = result.backup["name"]
        one = bring_back(model="llama", backup=name, destination=str(restored) + "2")
        assert one.files == 2
        saved = bring_back(verify=False, backup=name, destination=str(restored) + "3")
        assert saved.files >= 5 and any("damaged" in note for note in saved.notes)
    if part not in ("archive", "index"):  # these are not read again to find that out
        assert per_model().changed is True, "a damaged set does not count"


def test_what_a_dead_run_has_finished_is_used(per_model, source, destination):
    result = per_model()
    for name in (result.backup["name"], result.backup["name"] + ".sha256"):
        (destination / name).unlink()
    again = per_model()
    assert again.to_dict()["stats"]["archives_written"] == 0
    assert again.backup["archives"] == result.backup["archives"]


def test_archives_of_a_dead_run_that_do_not_match_are_removed(per_model, source, destination):
    result = per_model()
    (destination / result.backup["name"]).unlink()
    (source / "bert" / "config.json").write_text("changed")
    again = per_model()
    expected = {item["name"] for item in again.backup["archives"]}
    assert {name for name in files(destination) if names.is_member(name)} == expected


def test_a_set_that_cannot_be_read_keeps_all_archives(per_model, source, destination, clock):
    first = per_model()
    flip(destination / first.backup["name"], 100)
    (source / "bert" / "config.json").write_text("changed")
    clock.time += DAY
    per_model()
    for item in first.backup["archives"]:
        assert (destination / item["name"]).exists()


def test_two_hosts_share_a_directory(source, destination, clock, look):
    def run(host, **given):
        options = {"source": str(source), "destination": str(destination), "keep_last": 1}
        options = BackupOptions.from_mapping({**options, "retention_days": 0, **given})
        return making.run(options, World(run=None, clock=clock, hostname=host))

    for layout in ("single", "per_model"):
        made = {host: run(host, layout=layout).backup["name"] for host in ("node1", "node2")}
        assert len(set(made.values())) == 2
        clock.time += DAY
        for host, name in made.items():
            result = run(host, layout=layout)
            assert result.changed is False and result.backup["name"] == name
        (source / "bert" / "config.json").write_text(layout)
        new = run("node1", layout=layout).backup["name"]
        present = {backup["name"]: backup["hostname"] for backup in look(verify="full")["backups"]}
        assert present == {made["node2"]: "node2", new: "node1"}
        assert look()["verified"]
        for host, name in (("node1", new), ("node2", made["node2"]), ("node3", new)):
            world = World(run=None, clock=clock, hostname=host)
            target = {"path": str(destination), "destination": str(destination) + "-restored"}
            result = restoring.run(RestoreOptions.from_mapping(target), world, check=True)
            assert result.plan.facts.origin.backup.name == name


def test_a_run_that_fails_takes_no_archive_with_it(per_model, source, destination, look):
    """Neither one that the last set names, nor leaves one of its own."""
    first = per_model()
    before = files(destination)
    (source / "bert" / "config.json").write_text("changed")
    (source / "new").mkdir()
    (source / "new" / "weights").write_bytes(os.urandom(2_000_000))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        with pytest.raises(errors.WriteFailed, match="File too large"):
            per_model()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert files(destination) == before
    (backup,) = look(verify="full")["backups"]
    assert backup["name"] == first.backup["name"] and backup["verified"]


def test_archives_that_another_host_is_about_to_name_stay(source, destination, clock):
    """A host that died, or still runs, has finished archives that no set names yet."""

    def run(host):
        options = {"source": str(source), "destination": str(destination), "layout": "per_model"}
        world = World(run=None, clock=clock, hostname=host)
        return making.run(BackupOptions.from_mapping({**options, "keep_last": 1}), world)

    first = run("node1")
    (destination / first.backup["name"]).unlink()
    (source / "bert" / "config.json").write_text("changed")
    clock.time += 10 * DAY
    run("node2")
    for item in first.backup["archives"]:
        assert (destination / item["name"]).exists()
    run("node1")
    names_left = {name for name in files(destination) if names.is_member(name)}
    assert archives(first)["bert"]["name"] not in names_left, "its own run removes what is no use"
    assert archives(first)["llama"]["name"] in names_left


def test_an_archive_without_a_manifest_is_left_alone_for_a_day(per_model, destination, clock):
    """Another host may be writing it."""
    per_model()
    path = destination / names.member(clock.time, "gpt", ".tar.gz")
    path.write_bytes(b"half of an archive")
    os.utime(path, (clock.time, clock.time))
    for hours, stays in ((23, True), (2, False)):
        clock.time += hours * 3600
        per_model()
        assert path.exists() is stays


def test_a_file_that_changes_while_it_is_read(per_model, source, monkeypatch):
    real, calls = archive.write, []

    def write(*arguments):
        calls.append(arguments[0].entries[0].path.partition("/")[0])
        if calls[-1] == "llama" and calls.count("llama") == 1:
            (source / "llama" / "config.json").write_text("changed meanwhile")
            os.utime(source / "llama" / "config.json", ns=(1, 1))
            raise archive.Changed("llama/config.json")
        return real(*arguments)

    monkeypatch.setattr(archive, "write", write)
    result = per_model()
    assert calls.count("llama") == 2 and calls.count("bert") == 1, "finished archives are kept"
    assert result.backup["verified"]


def test_names_of_archives():
    long = ["x" * 200 + end for end in "ab"]
    models = ["bert", "a b", "ä", "\udcff", "%41", "A", ".", "~", "set.json", "a.tar.gz", *long]
    made = [names.member(1_800_000_000.0, model, ".tar.gz") for model in models]
    assert len(set(made)) == len(models)
    for name in made:
        assert names.is_member(name) and not names.is_backup(name) and len(name) < 220
        assert names.stamp_time(name) == 1_800_000_000.0
        assert names.is_temporary(f".{name}.0123456789ab.tmp")
        assert names.archive_of(f".{name}.0123456789ab.tmp") == name
        assert names.archive_of(f".{name}.manifest.json.0123456789ab.tmp") is None
    assert not names.is_member("models_backup_20250131_020000.old.tar.gz")
