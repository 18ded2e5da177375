# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An open cleanup root: listed once, and the kernel reports what appears in it afterwards."""

from __future__ import annotations

import contextlib
import os

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup import root as roots
from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup import watch
from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup.targets import Target


@pytest.fixture
def opened(root):
    with contextlib.closing(roots.open_target(Target("t", str(root), 0.0))) as opened:
        yield opened


@pytest.fixture
def listings(opened, monkeypatch):
    """How often the root was listed."""
    counted, real = [], os.scandir

    def scandir(path="."):
        counted.append(path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    return counted


def _link(root):
    (root / "run-7").mkdir()
    (root / "latest").symlink_to("run-7")


BOTH = {"run-7": "the link latest names it", "latest": "it names run-7"}


def test_links_that_appear_after_the_listing_protect(root, opened, listings):
    opened.list()
    assert opened.protected(None) == {}
    _link(root)
    assert opened.protected(None) == BOTH
    os.rename(root / "latest", root / "newest")
    (root / "run-8").mkdir()
    os.symlink("run-8", root / "x")
    os.replace(root / "x", root / "newest")
    assert opened.protected(None) == {
        "run-8": "the link newest names it",
        "newest": "it names run-8",
    }
    assert len(listings) == (1 if opened.fstype in roots._WATCHED else 4)


@pytest.mark.parametrize("why", ["no watch", "events lost"])
def test_without_a_watch_the_root_is_listed_again(root, opened, listings, monkeypatch, why):
    if why == "no watch":
        monkeypatch.setattr(roots, "_WATCHED", frozenset())
    else:
        monkeypatch.setattr(watch.NameWatch, "names", lambda self: None)
    opened.list()
    _link(root)
    assert opened.protected(None) == BOTH and len(listings) == 2


def test_a_link_to_nothing_protects_nothing(root, opened):
    (root / "latest").symlink_to("gone")
    opened.list()
    assert opened.protected(None) == {}


def test_the_watch_reports_every_name_and_says_when_it_lost_some(root):
    fd = os.open(root, os.O_RDONLY)
    with contextlib.closing(watch.NameWatch(fd)) as watched:
        assert watched.names() == set()
        (root / "a").write_text("x")
        os.mkdir(root / "b")
        os.rename(root / "a", root / os.fsdecode(b"c\xff"))
        os.unlink(root / os.fsdecode(b"c\xff"))
        assert watched.names() == {"a", "b", os.fsdecode(b"c\xff")}
        assert watched.names() == set()
        with open("/proc/sys/fs/inotify/max_queued_events", encoding="ascii") as limit:
            events = int(limit.read()) + 1
        if events < 100_000:
            # Equal events that follow each other are one to the kernel; two names in turn are not.
            for name in ("b", "d") * (events // 2 + 1):
                os.rename(root / name, root / {"b": "d", "d": "b"}[name])
            assert watched.names() is None
    os.close(fd)


@pytest.mark.parametrize(
    ("fstype", "listed", "knows"),
    [
        ("ext4", True, True),
        ("xfs", True, True),
        ("tmpfs", True, True),
        ("ext4", False, False),
        ("nfs4", True, False),
        ("btrfs", True, False),
        ("overlay", True, False),
        ("", True, False),
    ],
)
def test_where_the_kernels_list_of_locks_is_complete(fstype, listed, knows):
    from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup.inuse import InUse

    root = roots.Root(-1, "/r", 1, 2, fstype=fstype)
    assert root.knows_locks(InUse(locks_listed=listed)) is knows


def test_only_links_are_read_as_links(root, opened):
    _link(root)
    (root / "file").touch()
    assert sorted(opened.list()) == ["file", "latest", "run-7"] and opened.links == {"latest"}
