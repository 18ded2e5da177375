# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Guards of an open root: what mount points, logs of our own and other paths to the same directory protect."""

from __future__ import annotations

import contextlib
import os

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup import guards
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


@pytest.mark.parametrize(
    ("where", "protects"),
    [
        ("mounted in the root", True),
        ("mounted in the compartment", True),
        ("in the root", True),
        ("in the compartment", True),
        ("nowhere", False),
    ],
)
def test_a_link_protects_what_it_names_wherever_that_is(root, opened, monkeypatch, where, protects):
    (root / "q").mkdir()
    (root / "latest").symlink_to("unit")
    points = {
        "mounted in the root": f"{opened.path}/unit",
        "mounted in the compartment": f"{opened.path}/q/unit",
    }
    if where == "in the root":
        (root / "unit").mkdir()
    elif where == "in the compartment":
        (root / "q/unit").mkdir()
    table = mounts.read()
    if where in points:
        table = [*table, _mount(root, points[where], 10**6, "tmpfs")]
    monkeypatch.setattr(mounts, "read", lambda: table)
    opened.list()
    fd = os.open(root / "q", os.O_RDONLY)
    try:
        kept = opened.protected(None, f"{opened.path}/q", fd)
    finally:
        os.close(fd)
    assert ("latest" in kept, "unit" in kept) == (protects, protects)


def test_mount_points_protect_in_the_directory_that_was_asked_about(root, opened, monkeypatch):
    table = mounts.read()
    for point in ("a", "q/b"):
        table.append(_mount(root, f"{opened.path}/{point}", 10**6, "tmpfs"))
    monkeypatch.setattr(mounts, "read", lambda: table)
    opened.list()
    assert opened.protected(None) == {"a": guards.MOUNT, "q": guards.MOUNT}
    assert opened.protected(None, f"{opened.path}/q") == {"b": guards.MOUNT}


def test_what_is_mounted_elsewhere_and_what_a_tracker_names_stays(opened):
    opened.source = ("8:1", "/runs")
    opened.trackers = lambda: {"a": "the tracker names it", "b": "the tracker names it"}
    busy = InUse(mounts=frozenset({("8:1", "/runs/a/x"), ("8:2", "/runs/c")}))
    elsewhere = "in use: it is mounted elsewhere"
    assert opened.protected(busy) == {"a": elsewhere, "b": "the tracker names it"}
    assert opened.protected(None) == {
        "a": "the tracker names it",
        "b": "the tracker names it",
    }


def test_a_link_that_leads_back_by_another_one_protects(root, tmp_path, opened):
    (root / "run-7").mkdir()
    (tmp_path / "hop").symlink_to(root / "run-7")
    (root / "latest").symlink_to(tmp_path / "hop")
    opened.list()
    assert set(opened.protected(None)) == {"run-7", "latest"}


def test_other_directories_have_no_logs_of_our_own(root, opened):
    opened.list()
    (root / "ml-backup.log").touch()
    opened.refresh()
    assert opened.logs == set()


@pytest.mark.parametrize("case", ["asked", "no look", "no list", "logs"])
def test_plain_files_are_listed_apart_only_where_that_was_asked(root, opened, monkeypatch, case):
    (root / "file").touch()
    (root / "directory").mkdir()
    if case == "logs":
        monkeypatch.setattr(roots, "_LOGS", opened.path)
    look = None if case == "no look" else opened.look(Target("t", str(root), 0.0), None, 1e9)
    files = None if case == "no list" else []
    names = opened.list(look, None, files)
    if case == "asked":
        assert (names, [file.name for file in files]) == (["directory"], ["file"])
    else:
        assert sorted(names) == ["directory", "file"] and not files


@pytest.mark.parametrize(
    ("path", "where", "inner"), [("/r", "a/b", "/r/a/b"), ("/", "a", "/a"), ("/r", "", "/r")]
)
@pytest.mark.parametrize("known", [True, False])
def test_a_directory_below_is_a_root_of_its_own(root, path, where, inner, known):
    (root / "a/b").mkdir(parents=True)
    outer = roots.Root(os.open(root, os.O_RDONLY), path, 1, 2, given=path, links={"x"})
    outer.source = ("8:1", path) if known else None
    expected = os.stat(root / where)
    below = outer.inside(where, (expected.st_dev, expected.st_ino))
    assert (below.path, below.given, below.links) == (inner, inner, set())
    assert below.source == (("8:1", inner) if known else None)
    assert os.fstat(below.fd).st_ino == expected.st_ino and below.fd != outer.fd
    below.close()
    outer.close()


@pytest.mark.parametrize(("mount", "fstype", "overlay"), [(7, "ext4", False), (8, "overlay", True)])
@pytest.mark.parametrize("backwards", [False, True])
def test_only_its_own_mount_says_what_file_system_it_is(
    root, monkeypatch, mount, fstype, overlay, backwards
):
    table = [_mount(root, "/", 7), _mount(root, "/mnt", 8, "overlay")]
    monkeypatch.setattr(mounts, "read", lambda: table[:: -1 if backwards else 1])
    monkeypatch.setattr(roots, "mount_id", lambda fd: mount)
    with contextlib.closing(roots.open_target(Target("t", str(root), 0.0))) as opened:
        assert (opened.overlay, opened.fstype) == (overlay, fstype)


def test_a_closed_root_leaves_no_descriptor(root):
    before = len(os.listdir("/proc/self/fd"))
    opened = roots.open_target(Target("t", str(root), 0.0))
    opened.list()
    opened.list()
    opened.close()
    assert len(os.listdir("/proc/self/fd")) == before
    assert not roots.Root(-1, "/r", 1, 2).overlay


def test_a_survey_does_not_take_a_unit_for_moved_unless_it_was(root, opened):
    target = Target("t", str(root), 0.0)
    for busy in (None, InUse()):
        assert opened.look(target, busy, 1e9).moved is False
        assert opened.look(target, busy, 1e9, moved=True).moved is True


@pytest.mark.parametrize(
    ("fstype", "age_by", "busy", "trusted"),
    [
        ("ext4", "newest", None, True),
        ("ext4", "mtime", InUse(), True),
        ("tmpfs", "newest", InUse(strangers=frozenset()), True),
        ("ext4", "atime", None, False),
        ("nfs4", "newest", None, False),
        ("overlay", "newest", None, False),
        ("ext4", "newest", InUse(strangers=frozenset({7})), False),
        ("ext4", "newest", InUse(strangers=None), False),
    ],
)
def test_a_watch_is_used_only_where_it_sees_everything(fstype, age_by, busy, trusted):
    watch = object()
    opened = roots.Root(-1, "/r", 1, 2, fstype=fstype)
    look = opened.look(Target("t", "/r", 0.0, age_by=age_by), busy, 1e9, watch=watch)
    assert look.watch is (watch if trusted else None)


def test_what_was_touched_is_known_only_where_that_was_asked(root, opened):
    if not opened.watched:
        pytest.skip(f"{opened.fstype} is not watched")
    assert opened.touches is None
    opened.list()
    assert opened.touches is None
    opened.list(touched=True)
    (root / "a").write_text("x")
    watch = opened.touches
    assert watch is not None and watch.names() == {"a"} and watch.touched == {"a"}


def test_names_that_appeared_are_reported_once(root, opened, monkeypatch):
    opened.list()
    if opened.watched:
        assert opened.refresh() is False
        (root / "a").write_text("x")
        assert opened.refresh() is True and opened.refresh() is False
    monkeypatch.setattr(roots, "_WATCHED", frozenset())
    opened.list()
    assert opened.refresh() is True
