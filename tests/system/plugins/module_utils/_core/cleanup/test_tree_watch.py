# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Units that the kernel watches from before the first look at them until they are removed: whatever
happens to one of them is noticed, and where the kernel can't tell, all is looked at again.
"""

from __future__ import annotations

import mmap
import os
import shutil
import socket

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup import scan, watch
from ansible_collections.mlops.fleet.plugins.module_utils._core.system import removal


class Lookout:
    """A watched unit in an open root; ``again()`` says whether it had to be listed again."""

    def __init__(self, root, unit):
        self.fd, self.tree = os.open(root, os.O_RDONLY), watch.TreeWatch()
        self.look = self.looking()
        self.planned = scan.survey(self.fd, unit.name, self.look)

    def looking(self, **more):
        state = os.fstat(self.fd)
        mount = removal.mount_id(self.fd)
        return scan.Look(
            scan.STAMPS["newest"], state.st_dev, mount, moved=True, watch=self.tree, **more
        )

    def again(self, **more):
        return scan.survey_again(self.fd, self.planned, self.looking(**more)) is not self.planned

    def close(self):
        self.tree.close()
        os.close(self.fd)


@pytest.fixture
def unit(root, lab):
    return lab.unit(root, "run", files=("model.bin", "logs/a/train.log", "logs/b.log"))


@pytest.fixture
def lookout(root, unit):
    (unit / "link").symlink_to("model.bin")
    lookout = Lookout(root, unit)
    yield lookout
    lookout.close()


def _as_before(path, change):
    """Change a file and set its times back."""
    state = os.stat(path)
    change()
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def _write(unit):
    _as_before(unit / "logs/a/train.log", lambda: (unit / "logs/a/train.log").write_bytes(b"new"))


def _write_without_growing(unit):
    with open(unit / "model.bin", "r+b") as stream:
        stream.write(b"new")


def _write_mapped(unit):
    with open(unit / "model.bin", "r+b") as stream, mmap.mmap(stream.fileno(), 3) as mapping:
        mapping[:] = b"new"


def _replace_the_unit(unit):
    os.rename(unit, unit.parent.parent / "old")
    shutil.copytree(unit.parent.parent / "old", unit, symlinks=True)


CHANGES = {
    "written, times set back": _write,
    "written in place": _write_without_growing,
    "written through a mapping": _write_mapped,
    "cut off": lambda unit: os.truncate(unit / "logs/b.log", 0),
    "touched": lambda unit: os.utime(unit / "logs/b.log"),
    "mode": lambda unit: (unit / "logs/b.log").chmod(0o600),
    "renamed": lambda unit: os.rename(unit / "logs/b.log", unit / "logs/c.log"),
    "made": lambda unit: (unit / "logs/a/new").touch(),
    "removed": lambda unit: (unit / "logs/a/train.log").unlink(),
    "moved out": lambda unit: os.rename(unit / "logs/a", unit.parent / "a"),
    "link in a subdirectory": lambda unit: (unit / "logs/latest").symlink_to("a"),
    "mode of a directory": lambda unit: (unit / "logs/a").chmod(0o700),
    "mode of the unit": lambda unit: unit.chmod(0o700),
    "another unit": _replace_the_unit,
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_unit_that_changed_is_looked_at_again(unit, lookout, change):
    CHANGES[change](unit)
    assert lookout.again()


def test_a_unit_that_was_only_read_and_moved_is_not_looked_at_again(root, unit, lookout):
    shutil.copytree(unit, root.parent / "copy", symlinks=True)
    os.rename(unit, root / "aside")
    os.rename(root / "aside", unit)
    assert not lookout.again()


@pytest.mark.parametrize("path", ["", "logs", "logs/a/train.log"])
def test_a_unit_of_which_a_process_uses_something_is_looked_at_again(unit, lookout, path):
    inode = os.stat(unit / path).st_ino
    device = os.stat(unit).st_dev
    assert lookout.again(busy=frozenset({(device, inode)}), inodes=frozenset({inode}))


def test_where_processes_are_hidden_all_is_looked_at_again(lookout):
    assert lookout.again(hidden=frozenset({12345}))


def test_where_events_are_lost_all_is_looked_at_again(root, lab, unit):
    other = lab.unit(root, "other")
    lookout, second = Lookout(root, unit), None
    try:
        second = scan.survey(lookout.fd, "other", lookout.look)
        for number in range(20_000):
            os.utime(other / ("model.bin", "logs")[number % 2])
        assert lookout.again() and second.watched is not None
    finally:
        lookout.close()


@pytest.mark.parametrize("what", ["socket", "fifo", "second link"])
def test_what_a_watch_does_not_report_about_is_not_watched(root, unit, what):
    path = unit / "logs/special"
    if what == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    elif what == "fifo":
        os.mkfifo(path)
    else:
        os.link(unit / "model.bin", path)
    lookout = Lookout(root, unit)
    try:
        assert lookout.planned.watched is None and lookout.again()
    finally:
        lookout.close()


def test_beyond_what_the_kernel_grants_units_are_looked_at_again(
    root, unit, lab, monkeypatch, world
):
    """Other programs of this user need watches, too."""
    monkeypatch.setattr(watch, "_DIRECTORIES", 4)
    for number in range(3):
        lab.unit(root, f"more-{number}")
    listed, real = [], os.scandir

    def scandir(fd):
        listed.append(os.readlink(f"/proc/self/fd/{fd}"))
        return real(fd)

    monkeypatch.setattr(os, "scandir", scandir)
    assert lab.clean(world, root)["removed_count"] == 4 and os.listdir(root) == []
    again = {path.rpartition("/new/")[2] for path in listed if "/new/" in path}
    units = {path.partition("/")[0] for path in again}
    assert 2 <= len(units) <= 3, "one or two of the four were watched"


def test_a_watch_is_used_for_directories_and_ends_before_they_are_removed(
    root, unit, lab, monkeypatch, world
):
    """Otherwise the kernel reports each removal to us, too."""
    released, real = [], watch.TreeWatch.release

    def release(self, numbers):
        released.extend(numbers)
        assert (root / "run").exists() is False and len(numbers) == 3
        return real(self, numbers)

    monkeypatch.setattr(watch.TreeWatch, "release", release)
    assert lab.clean(world, root)["removed_count"] == 1 and len(released) == 3
