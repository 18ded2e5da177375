# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is in use, asked one by one: the parts that back each other up in a whole run."""

from __future__ import annotations

import fcntl
import os

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup import inuse


@pytest.mark.parametrize("folder", [True, False])
def test_a_lock_is_seen_without_the_process_table(root, folder):
    """On a network filesystem the lock may be another host's; /proc shows nothing of it."""
    path = root / "unit"
    path.mkdir() if folder else path.write_text("x")
    fd, held = os.open(root, os.O_RDONLY), os.open(path, os.O_RDONLY)
    try:
        assert not inuse.locked("unit", fd, folder)
        fcntl.flock(held, fcntl.LOCK_SH)
        assert inuse.locked("unit", fd, folder)
    finally:
        os.close(held)
        os.close(fd)


def test_mount_tables_with_odd_names(tmp_path):
    path = tmp_path / "mountinfo"
    path.write_bytes(
        b"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        b"30 22 8:2 /data/with\\040space /opt/ml\\011x rw - xfs /dev/sdb rw\n"
        b"31 22 8:2 /b\xff\x85 /mnt rw - xfs /dev/sdb rw\n"
    )
    found = inuse.read_mounts(str(path))
    assert [(one.id, one.device, one.source, one.point) for one in found[:2]] == [
        (22, "8:1", "/", "/"),
        (30, "8:2", "/data/with space", "/opt/ml\tx"),
    ]
    assert os.fsencode(found[2].source) == b"/b\xff\x85"
    assert inuse.located("/opt/ml\tx/runs/a", found) == ("8:2", "/data/with space/runs/a")
    assert inuse.located("/opt/mlx/runs", found) == ("8:1", "/opt/mlx/runs")
    assert inuse.located("/", found) == ("8:1", "/")
