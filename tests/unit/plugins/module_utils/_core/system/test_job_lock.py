# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lock that all jobs of a node share."""

from __future__ import annotations

import fcntl
import os
import subprocess
import threading
import time

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import LockBusy, Refused
from ansible_collections.mlops.fleet.plugins.module_utils._core.ports import World
from ansible_collections.mlops.fleet.plugins.module_utils._core.system import job_lock, unit

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become other users")


@pytest.fixture
def directory(tmp_path, monkeypatch):
    path = tmp_path / "locks"
    path.mkdir(mode=0o755)
    monkeypatch.setenv("MLOPS_FLEET_LOCK_DIR", str(path))
    return path


@pytest.fixture
def foreign_holder(directory):
    """A program that knows nothing of us holds the lock."""
    (directory / "jobs.lock").write_text("1\n1\nan earlier job that crashed\n")
    process = subprocess.Popen(
        ["flock", str(directory / "jobs.lock"), "sh", "-c", "echo held; exec sleep 60"],
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def in_child(work, uid, gid=NOBODY):
    """Run a function as another user; return what it wrote."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setgroups([])
            os.setgid(gid)
            os.setuid(uid)
            text = work() or "held"
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(writing, text.encode())
        os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8") as stream:
        text = stream.read()
    os.waitpid(child, 0)
    return text


def take():
    with job_lock.hold("mlfleet cleanup"):
        pass


def test_the_message_says_who_holds_it_what_and_since_when(directory):
    before = int(time.time())
    with job_lock.hold("mlfleet backup"):
        with pytest.raises(LockBusy) as caught:
            take()
        busy = caught.value
        assert (busy.holder, busy.command) == (os.getpid(), "mlfleet backup")
        assert before <= busy.since <= time.time() + 1
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(busy.since))
        assert f": mlfleet backup, since {since}. Wait" in str(busy)
    take()


def test_a_holder_that_wrote_nothing_is_known_from_the_kernel(foreign_holder):
    with pytest.raises(LockBusy) as caught:
        take()
    # flock(1) leaves the lock to its child.
    assert caught.value.holder and "earlier" not in caught.value.command
    assert "/jobs.lock" in caught.value.command or "sleep 60" in caught.value.command
    assert abs(caught.value.since - time.time()) < 60


def test_waiting_is_announced_once_and_ends_with_the_holder(directory):
    announced = []
    fd = os.open(directory / "jobs.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, fcntl.LOCK_EX)
    threading.Timer(0.15, os.close, (fd,)).start()
    with job_lock.hold("mlfleet cleanup", 20, None, announced.append):
        assert len(announced) == 1 and f"(process {os.getpid()})" in announced[0].text()
        content = (directory / "jobs.lock").read_text().splitlines()
        assert (content[0], content[2]) == (str(os.getpid()), "mlfleet cleanup")
    assert (directory / "jobs.lock").read_text() == ""


@as_root
def test_a_member_of_the_group_and_root_hold_the_same_lock(directory):
    for parent in [directory, *directory.parents][:-2]:
        parent.chmod(parent.stat().st_mode | 0o011)
    with job_lock.hold("mlfleet backup", group=NOBODY):
        status = (directory / "jobs.lock").stat()
        assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (0, NOBODY, 0o660)
        assert "mlfleet backup" in in_child(take, NOBODY)
    assert in_child(take, NOBODY) == "held"

    def hold_and_look():
        with job_lock.hold("mlfleet backup"):
            take()

    assert "LockBusy" in in_child(hold_and_look, NOBODY)


@as_root
def test_a_user_outside_the_group_waits_but_can_not_hold_it(directory, monkeypatch, tmp_path):
    for parent in [directory, *directory.parents][:-2]:
        parent.chmod(parent.stat().st_mode | 0o011)
    outsider = NOBODY - 1
    own = tmp_path / "own"
    own.mkdir(mode=0o700)
    os.chown(own, outsider, outsider)

    def work():
        monkeypatch.setattr(job_lock, "DIRECTORIES", (str(directory),))
        monkeypatch.delenv("MLOPS_FLEET_LOCK_DIR")
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(own))
        take()

    with job_lock.hold("mlfleet backup", group=NOBODY):
        text = in_child(work, outsider, outsider)
        assert "LockBusy" in text and f"process {os.getpid()}" in text
    assert in_child(work, outsider, outsider) == "held"
    assert (own / "mlops-fleet" / "jobs.lock").exists()


@as_root
def test_a_directory_that_everybody_writes_to_is_refused(directory):
    directory.chmod(0o777)
    with pytest.raises(Refused):
        take()


@pytest.mark.parametrize(
    ("cgroup", "invocation", "expected"),
    [
        ("0::/system.slice/ml-backup.service\n", "1", "ml-backup.service"),
        ("0::/system.slice/ml-backup.service\n", "", ""),
        ("0::/user.slice/user-0.slice/session-1.scope\n", "1", ""),
        (
            "12:pids:/other.service\n1:name=systemd:/system.slice/gpu-monitor.service\n0::/\n",
            "1",
            "gpu-monitor.service",
        ),
    ],
)
def test_the_unit_of_this_process(tmp_path, cgroup, invocation, expected):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(cgroup)
    world = World(run=None, root=str(tmp_path), environ={"INVOCATION_ID": invocation})
    assert unit.current_unit(world) == expected
