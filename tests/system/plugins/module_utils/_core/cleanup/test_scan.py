# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The walks: depth, entries that are no files, and attackers who exchange directories for links while we walk."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import pathlib
import random
import re
import signal
import socket
import stat
import subprocess
import tempfile
import time

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup import scan
from ansible_collections.mlops.fleet.plugins.module_utils._core.system import removal

AT_FDCWD, RENAME_EXCHANGE = -100, 2


def _look(root, **more):
    found = os.stat(root)
    fd = os.open(root, os.O_RDONLY)
    try:
        return scan.Look(scan.STAMPS["newest"], found.st_dev, removal.mount_id(fd), **more)
    finally:
        os.close(fd)


def _deep(root, levels):
    fd = os.open(root, os.O_RDONLY)
    for _level in range(levels):
        os.mkdir("d", dir_fd=fd)
        inner = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(os.open("bottom", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)


def test_two_thousand_levels_with_few_descriptors(world, lab):
    import resource

    root = tempfile.mkdtemp(
        prefix="deep-"
    )  # not pytest's directory: it can't remove a tree this deep, should the test be killed
    _deep(root, 2000)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = max(
        map(int, os.listdir("/proc/self/fd"))
    )  # whatever other tests of this process have open
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken + 50, hard))
    try:
        result = lab.clean(world, root)
        left = os.listdir(root)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        subprocess.run(["rm", "-rf", root], check=True)
    assert result["removed_count"] == 1 and result["removed"][0]["files"] == 1 and left == []


def test_the_newest_entry_is_found_at_any_depth(root):
    _deep(root, 300)
    fd = os.open(root, os.O_RDONLY)
    try:
        future = time.time_ns() + 10**12
        subprocess.run(
            [
                "find",
                str(root),
                "-name",
                "bottom",
                "-execdir",
                "touch",
                "-d",
                f"@{future // 10**9}",
                "{}",
                "+",
            ],
            check=True,
        )
        found = scan.survey(fd, "d", _look(root))
    finally:
        os.close(fd)
    assert (
        found.newest == future // 10**9 * 10**9
        and found.newest_path.count("/") == 299
        and found.directories == 300
        and found.files == 1
    )


def test_entries_that_are_no_files_are_removed_and_never_opened(world, root, lab):
    """Opening the FIFO would block for ever; opening a device may do anything."""
    one = lab.unit(root, "odd")
    os.mkfifo(one / "fifo")
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(one / "socket"))
    if os.geteuid() == 0:
        try:
            os.mknod(one / "null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
        except PermissionError:
            pass
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.alarm(20)
    try:
        result = lab.clean(world, root)
    finally:
        signal.alarm(0)
    assert lab.names(result["removed"]) == ["fifo", "odd"] and os.listdir(root) == []
    assert os.path.exists("/dev/null")


def test_names_that_are_excluded_are_found_inside(root, lab):
    lab.unit(root, "run", files=("a/b/.keep", "c"))
    fd = os.open(root, os.O_RDONLY)
    try:
        found = scan.survey(fd, "run", _look(root, excluded=re.compile(r"\.keep\Z")))
    finally:
        os.close(fd)
    assert found.veto == "holds a/b/.keep, which is excluded"


def test_a_root_is_opened_without_following_links_of_others(tmp_path):
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "up").symlink_to("a/../a/b")
    fd, path = scan.open_root(str(tmp_path / "up"))
    os.close(fd)
    assert path == str(tmp_path / "a/b")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(Exception, match="not ours"):
        scan.open_root(str(tmp_path / "loop"))
    with pytest.raises(FileNotFoundError):
        scan.open_root(str(tmp_path / "none"))


def _exchange(one, two, stop, count):
    """Attack: exchange a directory for a link to the victim and back, as fast as possible, until told to stop.

    In bursts with pauses: an attack without any never lets the cleanup get beyond its first look, and so never meets a deletion.
    """
    libc, dice = ctypes.CDLL(None), random.Random(os.getpid())
    first, second = os.fsencode(one), os.fsencode(two)
    while not stop.value:
        for _burst in range(dice.randint(1, 100)):
            if libc.renameat2(AT_FDCWD, first, AT_FDCWD, second, RENAME_EXCHANGE) == 0:
                count.value += 1
        time.sleep(dice.choice((0, 0.002, 0.01, 0.03, 0.06)))


@pytest.mark.parametrize("where", ["the unit", "a directory in it"])
def test_thirty_attacks_with_exchanged_links_cost_no_file_outside(world, tmp_path, lab, where):
    """The attacker owns the tree; the victim's files are not below it. A walk by path loses some of them within 30 attacks."""
    if not hasattr(ctypes.CDLL(None), "renameat2"):
        pytest.skip("no renameat2 here")
    victim = lab.unit(tmp_path, "victim", files=[f"f{number}" for number in range(50)], size=10)
    expected = lab.image(victim)
    context = multiprocessing.get_context("fork")
    attacked = exchanges = 0
    for attempt in range(30):
        root = tmp_path / f"root{attempt}"
        one = lab.unit(
            root, "run", files=[f"sub{number // 15}/f{number}" for number in range(150)], size=1
        )
        if where == "the unit":
            target, link = one, root / "zz-link"
        else:
            target, link = one / "sub5", one / "link"
        link.symlink_to(victim)
        stop, count = context.Value("b", 0), context.Value("i", 0)
        attacker = context.Process(target=_exchange, args=(target, link, stop, count))
        attacker.start()
        try:
            while count.value < 3:
                time.sleep(0.001)
            for _round in range(2):
                result = lab.clean(world, root, retention_days=0, in_use="ignore")
                attacked += result["removed_count"]
        finally:
            stop.value = 1
            attacker.join()
        exchanges += count.value
    assert lab.image(victim) == expected
    assert attacked > 0 and exchanges > 300


@pytest.fixture
def act_inside(monkeypatch):
    """Let a test act at the moment a walk lists a certain directory."""

    def arrange(end, action):
        done = []

        def acting(real):
            def listing(fd):
                path = os.readlink(f"/proc/self/fd/{fd}")
                if path.endswith(end) and not done:
                    done.append(path)
                    action(path)
                return real(fd)

            return listing

        for name in ("scandir", "listdir"):
            monkeypatch.setattr(os, name, acting(getattr(os, name)))
        return done

    return arrange


def _survey(root, name):
    fd = os.open(root, os.O_RDONLY)
    try:
        return scan.survey(fd, name, _look(root))
    finally:
        os.close(fd)


def test_a_directory_moved_away_while_we_are_in_it_ends_the_walk(root, tmp_path, lab, act_inside):
    """Without the comparison on the way up, the walk would go on in whatever directory the moved one lies in now."""
    lab.unit(root, "run", files=("a/b/c/x",))
    (tmp_path / "elsewhere").mkdir()
    moved = root / "run/a/b"
    done = act_inside("/run/a/b/c", lambda _path: os.rename(moved, tmp_path / "elsewhere/b"))
    with pytest.raises(removal.Changed, match="moved"):
        _survey(root, "run")
    assert done


def test_a_directory_replaced_between_listing_and_opening_ends_the_walk(
    root, tmp_path, lab, act_inside
):
    lab.unit(root, "run", files=("a/x", "b/y"))

    def replace(path):
        other = os.path.join(os.path.dirname(path), "a" if path.endswith("b") else "b")
        os.rename(other, tmp_path / "away")
        os.mkdir(other)

    done = act_inside(("/run/a", "/run/b"), replace)  # whichever comes first
    with pytest.raises(removal.Changed, match="replaced"):
        _survey(root, "run")
    assert done


def test_removing_touches_nothing_outside_a_unit_whose_directory_is_moved_away(
    root, tmp_path, lab, act_inside
):
    lab.unit(root, "run", files=("a/x", "b/y"))
    lab.unit(tmp_path, "elsewhere", files=("precious", "b/precious"))
    done = act_inside("/run/a", lambda path: os.rename(path, tmp_path / "elsewhere/a"))
    fd = os.open(root, os.O_RDONLY)
    try:
        removal.remove(fd, "run", os.stat(root).st_dev, removal.mount_id(fd))
    finally:
        os.close(fd)
    assert (
        done
        and (tmp_path / "elsewhere/precious").exists()
        and (tmp_path / "elsewhere/b/precious").exists()
    )


def test_sizes_of_a_scan_with_links_to_links(root, lab):
    one = lab.unit(root, "run")
    os.symlink("a" * 200, one / "long")
    fd = os.open(root, os.O_RDONLY)
    try:
        found = scan.survey(fd, "run", _look(root))
    finally:
        os.close(fd)
    du = subprocess.run(
        ["du", "-s", "--block-size=1", str(one)], capture_output=True, text=True, check=True
    )
    assert found.disk_usage == int(du.stdout.split()[0])
    assert pathlib.Path(one / "long").is_symlink()
