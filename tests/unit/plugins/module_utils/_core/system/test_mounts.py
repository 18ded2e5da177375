# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The mount table and the questions it answers."""

from __future__ import annotations

import os

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.system import mounts

TABLE = (
    b"22 1 8:1 / / rw - ext4 /dev/sda1 rw,errors=remount-ro\n"
    b"30 22 8:2 /data/with\\040space /opt/ml\\011x ro,nosuid shared:1 - xfs /dev/sdb\\040b rw\n"
    b"31 22 8:2 /b\xff\x85 /mnt rw shared:2 master:3 - xfs /dev/sdb rw\n"
    b"32 22 0:40 / /home/a/remote rw - fuse.sshfs host: ro,user_id=1000\n"
    b"33 22 8:3 / /srv rw - ext4 /dev/sdc ro,emergency_ro\n"
    b"short line\n"
)


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "mountinfo"
    path.write_bytes(TABLE)
    return mounts.read(str(path))


def test_fields_with_odd_names(table):
    assert [mount[:6] for mount in table[:2]] == [
        (22, "8:1", "/", "/", "ext4", "/dev/sda1"),
        (30, "8:2", "/data/with space", "/opt/ml\tx", "xfs", "/dev/sdb b"),
    ]
    assert os.fsencode(table[2].root) == b"/b\xff\x85"
    assert len(table) == 5


def test_flags(table):
    flags = [(m.mount_read_only, m.super_read_only, m.stopped, m.user) for m in table]
    assert flags == [
        (False, False, False, False),
        (True, False, False, False),
        (False, False, False, False),
        (False, True, False, True),
        (False, True, True, False),
    ]


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/opt/ml\tx/runs/a", ("8:2", "/data/with space/runs/a")),
        ("/opt/ml\tx", ("8:2", "/data/with space")),
        ("/opt/mlx/runs", ("8:1", "/opt/mlx/runs")),
        ("/", ("8:1", "/")),
        ("", None),
    ],
)
def test_where_a_path_is(table, path, place):
    assert mounts.located(path, table) == place


def test_of_mounts_on_one_point_the_later_one_counts(table):
    above = table[0]._replace(id=40, point="/srv", device="0:50")
    assert mounts.mount_of("/srv/a", [*table, above]) == above


def test_following_links_stops_at_mounts_that_may_not_answer(tmp_path):
    real = os.path.realpath(tmp_path)
    top = mounts.Mount(1, "8:1", "/", "/", "ext4")
    remote = mounts.Mount(2, "0:9", "/", f"{real}/remote", "nfs4")
    for name, target in [
        ("latest", "run-1"),
        ("again", f"{real}/sub/../latest"),
        ("dead", "remote/run"),
        ("loop", "loop"),
    ]:
        os.symlink(target, f"{real}/{name}")
    table = [top, remote]
    assert mounts.follow(f"{real}/again", table, None) == f"{real}/run-1"
    assert mounts.follow(f"{real}/dead", table, None) == ""
    assert mounts.follow(f"{real}/dead", table, 2) == f"{real}/remote/run"
    assert mounts.follow(f"{real}/loop", table, None) == ""
    assert mounts.follow("/..", table, None) == "/"


def test_available_space_of_what_does_not_exist_yet(tmp_path):
    state = os.statvfs(tmp_path)
    near = state.f_bavail * state.f_frsize
    assert abs(mounts.available(str(tmp_path / "a" / "b")) - near) < 2**30
