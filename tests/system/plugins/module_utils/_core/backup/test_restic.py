# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""engine=restic over the installed restic: same options, results and errors as with archives."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core import errors
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup import drill, overview
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.engines import ENGINES
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.options import (
    BackupOptions,
    InfoOptions,
    RestoreOptions,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.ports import silent

from . import test_s3
from .test_restore import snapshot

DAY = 86400
PASSWORD = "a secret of the tests"
endpoint, bucket, s3 = test_s3.endpoint, test_s3.bucket, test_s3.s3

pytestmark = pytest.mark.skipif(
    shutil.which("restic") is None, reason="restic is not installed (apt-get install restic)"
)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """What restic remembers of repositories elsewhere does not stay in the home directory."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def repository(tmp_path):
    return tmp_path / "repository"


@pytest.fixture
def clock():
    """Restic dates snapshots by the machine's clock, so ours must not be far from it."""
    now = time.time()

    class Clock:
        ahead = 0.0

        def now(self):
            return now + self.ahead

        def monotonic(self):
            return time.monotonic()

    return Clock()


@pytest.fixture
def work(world, few, repository, restored):
    """Call the engine: ``make``, ``look`` or ``restore``; options as keywords."""
    (few / "bert").mkdir(exist_ok=True)
    (few / "bert" / "model.bin").write_bytes(os.urandom(100_000))

    def run(what, check=False, host="", **given):
        ours = dataclasses.replace(world, hostname=host) if host else world
        common = {"engine": "restic", "restic": {"password": PASSWORD}}
        if what == "make":
            mine = {"source": str(few), "destination": str(repository)}
            options = BackupOptions.from_mapping({**common, **mine, **given})
            return ENGINES["restic"].make(options, ours, check, silent)
        mine = {"path": str(repository)}
        if what == "look":
            options = InfoOptions.from_mapping({**common, **mine, **given})
            return ENGINES["restic"].look(options, ours, silent)
        mine["destination"] = str(restored)
        options = RestoreOptions.from_mapping({**common, **mine, **given})
        return ENGINES["restic"].restore(options, ours, check, silent)

    return run


def restic(repository, *arguments):
    """Run restic itself, as an administrator would."""
    return subprocess.run(
        ["restic", "-r", str(repository), "--no-cache", *arguments],
        input=PASSWORD + "\n",
        capture_output=True,
        text=True,
        check=False,
    )


def test_check_apply_check_apply_list_verify_restore(work, few, repository, restored):
    preview = work("make", check=True).to_dict()
    assert preview["changed"] and preview["backup"] is None and not repository.exists()
    result = work("make").to_dict()
    backup = result["backup"]
    assert result["changed"] and backup["verified"] and backup["source"] == str(few)
    assert (backup["files"], backup["bytes"]) == (result["plan"]["files"], result["plan"]["bytes"])
    assert result["stats"]["bytes_written"] == backup["size"] > 100_000
    again = work("make").to_dict()
    assert not again["changed"] and again["backup"] == backup and again["plan"]["action"] == "keep"
    assert not work("make", check=True).changed
    for depth in ("none", "quick", "full"):
        listed = work("look", verify=depth)
        assert listed["verified"] and [one["name"] for one in listed["backups"]] == [backup["name"]]
    assert work("restore", check=True).changed and not restored.exists()
    done = work("restore").to_dict()
    assert done["restored"]["verified"] and done["restored"]["backup"] == backup["name"]
    assert snapshot(restored) == snapshot(few)
    assert not work("restore").changed and not work("restore", check=True).changed
    assert [path.name for path in restored.parent.iterdir()] == [restored.name]


def test_what_changed_is_noticed_and_only_that_is_added(work, few, repository):
    (few / "large").write_bytes(os.urandom(3_000_000))
    first = work("make")
    (few / "bert" / "new.bin").write_bytes(os.urandom(50_000))
    second = work("make")
    assert second.changed and second.written < 200_000 < first.written
    (few / "large").unlink()
    assert work("make").plan.reason == "the source has changed"
    assert len(work("look")["backups"]) == 3


def test_the_same_retention(work, few, clock):
    first = work("make").backup["name"]
    clock.ahead = 40 * DAY
    (few / "new").write_text("x")
    planned = work("make", check=True)
    assert [removal["name"] for removal in planned.removed] == [first]
    assert len(work("look")["backups"]) == 1
    result = work("make")
    assert [removal["name"] for removal in result.removed] == [first]
    assert [one["name"] for one in work("look")["backups"]] == [result.backup["name"]]
    assert not work("make").changed


def test_the_list_of_the_node_command(work, few, repository, world):
    name = work("make").backup["name"]
    options = BackupOptions.from_mapping(
        {
            "engine": "restic",
            "restic": {"password": PASSWORD},
            "source": str(few),
            "destination": str(repository),
        }
    )
    result, (listed,) = overview.run(options, None, world)
    assert (listed["name"], listed["where"]) == (name, "local") and result["verified"]
    assert listed["kept"] == "newest verified backup"


def test_snapshots_of_others_are_neither_listed_nor_removed(work, few, repository, clock):
    work("make")
    foreign = restic(repository, "backup", "--json", str(few / "bert"))
    assert foreign.returncode == 0
    clock.ahead = 400 * DAY
    work("make", force=True)
    assert len(work("look")["backups"]) == 1
    listed = restic(repository, "snapshots", "--json").stdout.splitlines()[-1]
    snapshots = json.loads(listed)
    assert len(snapshots) == 2 and sum(not one.get("tags") for one in snapshots) == 1


def test_some_files_exclude_and_replace(work, few, restored):
    (few / "skip.tmp").write_text("x")
    (few / "bert" / "skip").mkdir()
    (few / "bert" / "skip" / "x").write_text("x")
    work("make", exclude=["*.tmp", "bert/skip"])
    work("restore", files=["bert"])
    assert [path.name for path in restored.iterdir()] == ["bert"]
    names = {path.name for path in (few / "bert").iterdir()}
    assert {path.name for path in (restored / "bert").iterdir()} == names - {"skip"}
    (restored / "mine").write_text("x")
    with pytest.raises(errors.Refused, match="not empty and differs"):
        work("restore")
    assert (restored / "mine").exists()
    result = work("restore", mode="replace")
    assert "mine" in result.before and not (restored / "mine").exists()
    other = str(restored.parent / "other")
    work("restore", model="bert", destination=other)
    assert os.listdir(other) == ["bert"]
    with pytest.raises(errors.NotUsable, match="Nothing in"):
        work("restore", files=["nothing"], destination=other)


def test_damage_is_found_and_nothing_wrong_is_restored(work, repository, restored):
    work("make")
    for pack in pathlib.Path(repository, "data").rglob("*"):
        if pack.is_file():
            pack.chmod(0o600)
            data = bytearray(pack.read_bytes())
            data[len(data) // 3] ^= 1
            pack.write_bytes(bytes(data))
    (backup,) = work("look", verify="full")["backups"]
    assert not backup["verified"] and backup["problems"]
    with pytest.raises(errors.FleetError):
        work("restore")
    assert not restored.parent.exists() or not list(restored.parent.iterdir())
    with pytest.raises(errors.FleetError):
        work("make", force=True)


def test_a_password_file_and_a_drill(world, work, repository, tmp_path):
    path = tmp_path / "password"
    path.write_text(PASSWORD)
    path.chmod(0o600)
    name = work("make", restic={"password_file": str(path)}).backup["name"]
    (tmp_path / "scratch").mkdir()
    given = {"engine": "restic", "restic": {"password": PASSWORD}, "drill": True}
    options = RestoreOptions.from_mapping(
        {**given, "path": str(repository), "scratch": str(tmp_path / "scratch"), "backup": "random"}
    )
    proof = drill.run(options, world)["last_restore_proof"]
    assert (proof["backup"], proof["place"]) == (name, str(repository))
    assert os.listdir(tmp_path / "scratch") == []
    assert work("look")["last_restore_proof"] == proof
    assert restic(repository, "check").returncode == 0, "the record does not disturb restic"


def test_a_wrong_password(work, repository):
    restic(repository, "init")
    for what in ("make", "look", "restore"):
        with pytest.raises(errors.StoreError, match="password of the restic repository") as error:
            work(what, restic={"password": "another one"})
        assert "another one" not in str(error.value)


def test_no_password_and_two_of_them(work, tmp_path):
    two = {"password": "x", "password_file": str(tmp_path / "x")}
    for given in ({}, two):
        with pytest.raises(errors.OptionError, match="needs either"):
            work("make", restic=given)


def test_a_locked_repository_names_the_holder(work, repository):
    """restic keeps its lock while it waits for its input."""
    restic(repository, "init")
    holder = subprocess.Popen(
        [
            *("restic", "-r", str(repository), "--no-cache", "backup", "--stdin"),
            *("--password-command", f"echo {PASSWORD}"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + 30
        while not os.listdir(repository / "locks") and time.monotonic() < end:
            time.sleep(0.05)
        with pytest.raises(errors.LockBusy, match=f"process {holder.pid} holds") as error:
            work("make", force=True)
        assert "unlock" in str(error.value)
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()


def test_the_repository_of_another_host(work, restored):
    work("make", host="node1")
    with pytest.raises(errors.Refused, match="holds backups of node1 and none of node2"):
        work("make", host="node2")
    shared = {"password": PASSWORD, "shared": True}
    assert work("make", host="node2", restic=shared, keep_last=1).changed
    assert {one["hostname"] for one in work("look")["backups"]} == {"node1", "node2"}
    assert work("restore", host="node3").changed, "a new machine has another name"


def test_without_restic_and_without_a_repository(work, monkeypatch, tmp_path, restored):
    for what in ("look", "restore"):
        with pytest.raises(errors.NotUsable, match="no restic repository"):
            work(what)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    for what in ("make", "look", "restore"):
        with pytest.raises(errors.CommandFailed, match="restic is not installed") as error:
            work(what)
        assert error.value.code == errors.CommandFailed.MISSING


def test_neither_arguments_nor_environment_hold_the_password(
    work, monkeypatch, tmp_path, repository
):
    """Between us and restic stands a program that writes down what it gets."""
    real, seen = shutil.which("restic"), tmp_path / "seen"
    (tmp_path / "bin").mkdir()
    spy = tmp_path / "bin" / "restic"
    spy.write_text(f'#!/bin/sh\n{{ echo "$@"; env; }} >> {seen}\nexec {real} "$@"\n')
    spy.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    work("make")
    work("restore")
    assert str(repository) in seen.read_text() and PASSWORD not in seen.read_text()


def test_links_can_not_be_followed(work):
    with pytest.raises(errors.OptionError, match="restic stores links as links"):
        work("make", outside_links="follow")


def test_a_link_out_of_the_source_is_refused_on_restore(work, few, restored):
    (few / "current").symlink_to("/etc/passwd")
    assert work("make").to_dict()["status"] == "warning"
    with pytest.raises(errors.Refused, match="outside of the directory"):
        work("restore")
    assert not restored.exists()
    work("restore", allow_outside_links=True)
    assert os.readlink(restored / "current") == "/etc/passwd"


def test_a_repository_in_a_bucket(work, few, s3, restored):
    """Keys of the option s3; nothing is made on this machine."""
    there = {**s3, "parallel": 2}
    result = work("make", s3=there)
    assert result.backup["verified"] and f"{s3['bucket']}/node1" in result.backup["path"]
    assert not work("make", s3=there).changed
    assert work("look", s3=there, verify="full")["verified"]
    assert work("restore", s3=there).verified and snapshot(restored) == snapshot(few)
    with pytest.raises(errors.NotUsable, match="no restic repository"):
        work("look", s3={**there, "prefix": "node9"})
    with pytest.raises(errors.StoreError, match="failed for"):
        work("look", s3={**there, "secret_key": "wrong"})


@pytest.fixture
def rest(tmp_path):
    """The URL of a REST server for repositories (rclone's), with its user and password in it."""
    if shutil.which("rclone") is None:
        pytest.skip("rclone is not installed (apt-get install rclone)")
    with open(tmp_path / "rest.log", "wb") as log:
        process = subprocess.Popen(
            [
                *("rclone", "serve", "restic", "--addr", "127.0.0.1:0"),
                *("--user", "node", "--pass", "rest-secret", str(tmp_path / "rest")),
            ],
            stdout=log,
            stderr=log,
            env={**os.environ, "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)},
        )
    try:
        end, port = time.monotonic() + 30, None
        while port is None and time.monotonic() < end:
            time.sleep(0.05)
            port = re.search(r"http://127\.0\.0\.1:(\d+)/", (tmp_path / "rest.log").read_text())
        assert port is not None, (tmp_path / "rest.log").read_text()
        yield f"rest:http://node:rest-secret@127.0.0.1:{port[1]}/models"
    finally:
        process.kill()
        process.wait()


def test_a_repository_behind_a_rest_server(work, few, rest, restored, tmp_path, clock):
    """As on a disk; the password in the URL is in no message and no result."""
    there = {"password": PASSWORD, "repository": rest}
    with pytest.raises(errors.NotUsable, match="no restic repository") as error:
        work("look", restic=there)
    assert "rest-secret" not in str(error.value)
    assert work("make", check=True, restic=there).changed
    assert not (tmp_path / "rest").exists() or not os.listdir(tmp_path / "rest")
    result = work("make", restic=there)
    assert result.backup["verified"] and "rest-secret" not in str(result.to_dict())
    assert not work("make", restic=there).changed
    assert work("look", restic=there, verify="full")["verified"]
    assert work("restore", restic=there).verified and snapshot(restored) == snapshot(few)
    clock.ahead = 40 * DAY
    (few / "new").write_text("x")
    assert len(work("make", restic=there).removed) == 1
    assert len(work("look", restic=there)["backups"]) == 1
    with pytest.raises(errors.Refused, match="holds backups of"):
        work("make", host="another", restic=there)


def test_errors_of_a_rest_server(work, rest):
    """A wrong password of the repository, a wrong one of the server, and no server."""
    there = {"password": PASSWORD, "repository": rest}
    work("make", restic=there)
    for given, text in (
        ({**there, "password": "another one"}, "The password of the restic repository"),
        ({**there, "repository": rest.replace("rest-secret", "wrong-one")}, "401"),
        ({**there, "repository": "rest:http://node:rest-secret@127.0.0.1:9/"}, "refused"),
    ):
        for what in ("make", "look", "restore"):
            with pytest.raises(errors.StoreError, match=text) as error:
                work(what, restic=given)
            assert not any(word in str(error.value) for word in ("secret", "wrong-one", "another"))
