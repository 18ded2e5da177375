# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A denial by a unit's sandbox names the variable that widens it; any other denial keeps its
advice.

The mount tables have the lines of systemd 252 with ProtectSystem=strict and ProtectHome=yes.
"""

from __future__ import annotations

import errno
import pickle

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core import errors, sandbox
from ansible_collections.mlops.fleet.plugins.module_utils._core.ports import World

NODE = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
READ_ONLY = NODE.replace("/ rw,", "/ ro,")
UNIT = (
    "22 1 8:1 / / ro,relatime shared:1 - ext4 /dev/sda1 rw\n"
    "30 22 8:1 /var/log /var/log rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
    "31 22 0:25 /systemd/inaccessible/dir /home ro,nosuid shared:1 - tmpfs tmpfs rw,size=1k\n"
)


@pytest.fixture
def world(tmp_path):
    for process, table in (("1", NODE), ("self", UNIT)):
        (tmp_path / "proc" / process).mkdir(parents=True)
        (tmp_path / "proc" / process / "mountinfo").write_text(table)
    (tmp_path / "proc/self/cgroup").write_text("0::/system.slice/ml-backup.service\n")
    return World(run=None, root=str(tmp_path), environ={"INVOCATION_ID": "1"})


def failed(number, path):
    try:
        try:
            raise OSError(number, "reason", path)
        except OSError as error:
            raise errors.WriteFailed(f"Can't write {path}.", "Check the mode.", path) from error
    except errors.WriteFailed as error:
        return error


def test_a_read_only_directory_of_the_sandbox_names_the_variable(world):
    text = sandbox.advice(failed(errno.EROFS, "/backup9/other/.lock"), world)
    assert "sandbox of ml-backup.service" in text
    assert "Add /backup9/other to schedule_backup_write_paths" in text


def test_a_hidden_directory_names_the_directives(world):
    text = sandbox.advice(failed(errno.EACCES, "/home/ann9/x"), world)
    assert "hides /home." in text and "schedule_backup_directives" in text


@pytest.mark.parametrize(
    ("number", "path"),
    [(errno.ENOSPC, "/backup9/x"), (errno.EACCES, "/backup9/x"), (errno.EROFS, "x")],
)
def test_other_errors_are_not_the_sandbox(world, number, path, monkeypatch):
    monkeypatch.setattr(sandbox, "_is_limited_root", lambda: False)
    assert sandbox.advice(failed(number, path), world) == ""


def test_a_disk_that_is_read_only_for_the_node_is_not_the_sandbox(world, tmp_path):
    (tmp_path / "proc/1/mountinfo").write_text(READ_ONLY)
    assert sandbox.advice(failed(errno.EROFS, "/backup9/x"), world) == ""
    (tmp_path / "proc/1/mountinfo").write_text(NODE)
    (tmp_path / "proc/self/mountinfo").write_text(READ_ONLY.replace("sda1 rw", "sda1 ro"))
    assert sandbox.advice(failed(errno.EROFS, "/backup9/x"), world) == ""


def test_outside_of_units_and_in_units_of_others(world, tmp_path):
    error = failed(errno.EROFS, "/backup9/x")
    world.environ = {}
    assert sandbox.advice(error, world) == ""
    world.environ = {"INVOCATION_ID": "1"}
    (tmp_path / "proc/self/cgroup").write_text("0::/system.slice/mine.service\n")
    assert "ReadWritePaths= (systemctl edit mine.service)" in sandbox.advice(error, world)


def test_the_advice_replaces_what_an_error_says_also_from_a_child_process(world):
    error = pickle.loads(pickle.dumps(failed(errno.EROFS, "/backup9/x")))
    try:
        errors.advise_by(lambda error: sandbox.advice(error, world))
        assert "schedule_backup_write_paths" in str(error)
        assert "schedule_backup_write_paths" in error.to_dict()["todo"]
        assert str(failed(errno.ENOSPC, "/x")) == "Can't write /x. Check the mode."
    finally:
        errors.advise_by(None)
    assert str(error) == "Can't write /backup9/x. Check the mode."
