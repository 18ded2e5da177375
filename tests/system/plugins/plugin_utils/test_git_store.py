# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs kept in real Git repositories: bare, served by git daemon, and with a working tree."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import socket
import subprocess
import threading
import time

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import (
    FleetError,
    NotUsable,
    OptionError,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.fleet import history
from ansible_collections.mlops.fleet.plugins.plugin_utils import run_stores
from ansible_collections.mlops.fleet.tests import synthetic_fleet

pytestmark = pytest.mark.skipif(not shutil.which("git"), reason="needs git")
NOW = 1_800_000_000
DAY = 86400


@pytest.fixture(autouse=True)
def nobody(tmp_path, monkeypatch):
    """A user without a configuration of git."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_DIR", "/nonexistent")  # of the shell; it must not redirect us
    for name in ("EMAIL", "GIT_AUTHOR_EMAIL", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)


def git(directory, *arguments):
    env = {key: value for key, value in os.environ.items() if key != "GIT_DIR"}
    command = ["git", "-C", str(directory), *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def bare(tmp_path):
    path = tmp_path / "fleet.git"
    path.mkdir()
    git(path, "init", "--quiet", "--bare", "--initial-branch=main")
    return path


def texts(number=0):
    run = {**synthetic_fleet.run(2), "number": number}
    return {"json": json.dumps(run), "html": f"page {number}", "md": f"text {number}"}


def add(place, number=0, now=NOW, keep=30):
    return run_stores.open_store(place).add(texts(number), now, keep, None)


def numbers(place):
    store = run_stores.open_store(place)
    problems = []
    read = list(history.earlier(store, problems))
    assert problems == []
    names = [f"{stem}.json" for stem in history.stems_of(store.names())]
    assert len(read) == len(names)
    return [store.load(name)["number"] for name in names]


@pytest.mark.parametrize("form", ["{}", "file://{}", "file://{}#runs", "{}#main:fleet/runs"])
def test_each_run_is_a_commit_and_is_read_back(bare, form):
    place = "git+" + form.format(bare)
    assert numbers(place) == []
    made = add(place, 1)
    add(place, 2, now=NOW + 60)
    assert numbers(place) == [1, 2]
    branch = "runs" if form.endswith("#runs") else "main"
    assert git(bare, "log", "--format=%s %ae", branch).count("Add the run maintenance-") == 2
    repository, dummy, inside = made["json"].removeprefix("git+").rpartition("#")
    assert repository == form.format(bare).partition("#")[0]
    assert json.loads(git(bare, "show", inside))["number"] == 1


def test_old_runs_are_removed_and_other_files_stay(bare, tmp_path):
    git(tmp_path, "clone", "--quiet", str(bare), "mine")
    mine = tmp_path / "mine"
    (mine / "README").write_text("mine")
    git(mine, "add", "README")
    git(mine, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "Read me")
    git(mine, "push", "-q")
    for number in range(4):
        add(f"git+{bare}", number, now=NOW + number, keep=2)
    assert numbers(f"git+{bare}") == [2, 3]
    files = git(bare, "ls-tree", "-r", "--name-only", "main").split()
    assert "README" in files and len(files) == 7


@pytest.mark.parametrize("writers", [6])
def test_controllers_that_push_at_once_lose_nothing(bare, writers):
    """All of them cloned the empty repository before one pushed; all in the same second."""
    stores = [run_stores.open_store(f"git+file://{bare}") for dummy in range(writers)]
    failures = []

    def write(number):
        try:
            stores[number].add(texts(number), NOW, 30, None)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == [] and sorted(numbers(f"git+{bare}")) == list(range(writers))


def test_a_working_tree_is_used_in_place_and_pushed(bare, tmp_path):
    add(f"git+{bare}", 0)
    git(tmp_path, "clone", "--quiet", str(bare), "tree")
    tree = tmp_path / "tree"
    add(f"git+{bare}", 1, now=NOW + 1)
    (tree / "note").write_text("not committed")
    git(tree, "add", "note")
    add(f"git+{tree}", 2, now=NOW + 2, keep=2)
    assert numbers(f"git+{bare}") == numbers(f"git+{tree}") == [1, 2]
    assert git(tree, "status", "--porcelain") == "A  note\n"
    with pytest.raises(NotUsable, match="is checked out"):
        run_stores.open_store(f"git+{tree}#other")
    git(tree, "remote", "remove", "origin")  # then it is only committed
    add(f"git+{tree}", 3, now=NOW + 3)
    assert numbers(f"git+{tree}") == [1, 2, 3]


def test_a_link_does_not_lead_out_of_the_repository(tmp_path):
    git(tmp_path, "init", "--quiet", "tree")
    (tmp_path / "out").mkdir()
    (tmp_path / "tree" / "runs").symlink_to(tmp_path / "out")
    with pytest.raises(NotUsable, match="link out of the repository"):
        add(f"git+{tmp_path / 'tree'}#:runs")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.fixture
def daemon(bare):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--reuseaddr", "--export-all", "--enable=receive-pack", "--listen=127.0.0.1"]
    command = ["git", "daemon", *options, f"--port={port}", f"--base-path={bare.parent}"]
    env = {key: value for key, value in os.environ.items() if key != "GIT_DIR"}
    process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL)
    end = time.monotonic() + 20
    while time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    yield f"git://127.0.0.1:{port}/{bare.name}"
    process.terminate()
    process.wait()


def test_a_served_repository_and_one_that_refuses(daemon, bare):
    add(f"git+{daemon}", 1)
    assert numbers(f"git+{daemon}") == [1]
    hook = bare / "hooks" / "update"
    hook.write_text("#!/bin/sh\necho 'no more today' >&2\nexit 1\n")
    hook.chmod(0o755)
    with pytest.raises(FleetError, match="no more today"):
        add(f"git+{daemon}", 2)
    assert numbers(f"git+{daemon}") == [1]


def test_a_repository_that_is_not_there_shows_no_password():
    place = "git+http://user:canary-7f@127.0.0.1:9/fleet.git"
    with pytest.raises(FleetError) as caught:
        run_stores.open_store(place)
    assert "127.0.0.1:9" in str(caught.value) and "canary" not in str(caught.value.to_dict())
    for wrong in ("git+", "git+--upload-pack=x", "git+/x#main:../y", "ftp://u:canary@h/x"):
        with pytest.raises(OptionError) as caught:
            run_stores.open_store(wrong)
        assert "canary" not in str(caught.value)


def test_the_directory_is_removed_at_the_end(bare):
    store = run_stores.open_store(f"git+{bare}")
    directory = pathlib.Path(store._tree)
    assert directory.is_dir()
    del store
    assert not directory.exists()
