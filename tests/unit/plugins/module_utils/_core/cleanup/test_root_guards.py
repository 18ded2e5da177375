# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Guards of an open root: what mount points, logs of our own and other paths to the same directory protect."""

from __future__ import annotations

import contextlib
import os

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup import root as roots
from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup.inuse import InUse
from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup.targets import Target
from ansible_collections.mlops.fleet.plugins.module_utils._core.system import mounts


@pytest.fixture
def opened(root):
    with contextlib.closing(roots.open_target(Target("t", str(root), 0.0))) as opened:
        yield opened


def _mount(root, point, number=1, fstype="ext4"):
    real = mounts.read()[0]
    return real._replace(id=number, point=point, fstype=fstype)


@pytest.mark.parametrize("where", ["root", "compartment", "neither"])
def test_a_link_to_a_mount_point_protects_it(root, tmp_path, lab, where):
    lab.require_mounts()
    points = {"root": root / "dead", "compartment": root / "q/dead", "neither": tmp_path / "x"}
    for path in (root / "dead", root / "q/dead", tmp_path / "x"):
        path.mkdir(parents=True)
    (root / "latest").symlink_to("/nowhere" if where == "neither" else "dead")

    def case():
        lab.mount("-t", "tmpfs", "tmpfs", points[where])
        with contextlib.closing(roots.open_target(Target("t", str(root), 0.0))) as opened:
            opened.list()
            return set(opened.protected(None, f"{root}/q", os.open(root, os.O_RDONLY)))

    assert ({"dead", "latest"} <= lab.in_namespace(case)) is (where != "neither")


def test_our_own_logs_are_noted_in_their_directory_only(root, opened, monkeypatch):
    (root / "ml-cleanup.log").write_text("x")
    (root / "other.log").write_text("x")
    opened.list()
    assert opened.logs == set()
    monkeypatch.setattr(roots, "_LOGS", opened.path)
    opened.list()
    assert opened.logs == {"ml-cleanup.log"}
    (root / "ml-backup.log").write_text("x")
    opened.refresh()
    assert opened.logs == {"ml-backup.log", "ml-cleanup.log"}


def test_the_file_system_is_that_of_its_own_mount(root, tmp_path, lab):
    lab.require_mounts()
    (tmp_path / "other").mkdir()

    def case():
        lab.mount("-t", "ramfs", "ramfs", tmp_path / "other")
        lab.mount("-t", "tmpfs", "tmpfs", root)
        with contextlib.closing(roots.open_target(Target("t", str(root), 0.0))) as opened:
            return opened.overlay, opened.fstype

    assert lab.in_namespace(case) == (False, "tmpfs")


def test_where_the_mount_is_unknown_any_overlay_counts(root, monkeypatch):
    """A kernel before 5.8 does not say which mount a descriptor belongs to."""
    table = [_mount(root, "/", 7), _mount(root, "/mnt", 8, "overlay")]
    monkeypatch.setattr(mounts, "read", lambda: table)
    monkeypatch.setattr(roots, "mount_id", lambda fd: None)
    with contextlib.closing(roots.open_target(Target("t", str(root), 0.0))) as opened:
        assert (opened.overlay, opened.fstype) == (True, "")


def test_without_a_list_of_what_is_in_use_a_look_holds_none(root, opened):
    target = Target("t", str(root), 1.0)
    assert opened.look(target, None, 1e9).busy is None
    busy = InUse(identities={(1, 2)}, inodes={2}, strangers=frozenset({7}))
    look = opened.look(target, busy, 1e9)
    assert (look.busy, look.inodes, look.hidden) == ({(1, 2)}, {2}, {7})
