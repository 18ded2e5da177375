# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Killed at any moment, the cleanup leaves whole units or none, and the next run finishes what was begun."""

from __future__ import annotations

import errno
import os
import pathlib
import shutil
import signal
import time

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup import batches
from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup.brake import Braked
from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup.guards import TRASH

DAY = 86400
OLD = {f"old-{number}": ("a", "d/b", "d/e/c") for number in range(4)}
FILES = sorted(["a", "d/b", "d/e/c"])


def _tree(root, lab, clock):
    clock.time = time.time() + 40 * DAY
    for name, files in OLD.items():
        lab.unit(root, name, files=files, size=10)
    (root / "old-file").write_text("x")
    young = lab.unit(root, "young", files=FILES, size=10)
    os.utime(young / "a", (clock.time - DAY, clock.time - DAY))


def _whole(path):
    return (
        sorted(str(one.relative_to(path)) for one in pathlib.Path(path).rglob("*") if one.is_file())
        == FILES
    )


def _no_room(real_mkdir, real_rmdir):
    """Stand for a filesystem without room for a directory, until one is removed."""
    state = []

    def mkdir(*arguments, **options):
        if not state and "dir_fd" in options:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real_mkdir(*arguments, **options)

    def rmdir(*arguments, **options):
        real_rmdir(*arguments, **options)
        state.append(1)

    return mkdir, rmdir


def _killed_at(number, call, full=False):
    """Run in a forked child that kills itself right before (even number) or after (odd) its n-th change of a directory; say whether it came to that."""
    pid = os.fork()
    if pid == 0:
        try:
            left = [number]

            def bomb(real):
                def change(*arguments, **options):
                    left[0] -= 1
                    if left[0] == -1:
                        os.kill(os.getpid(), signal.SIGKILL)
                    found = real(*arguments, **options)
                    if left[0] == 0 and number % 2:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return found

                return change

            if full:
                os.mkdir, os.rmdir = _no_room(os.mkdir, os.rmdir)
            for name in ("mkdir", "rename", "unlink", "rmdir", "link", "fchmod", "fchown"):
                setattr(os, name, bomb(getattr(os, name)))
            call()
        finally:
            os._exit(0)
    _pid, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize("full", [False, True])
def test_killed_before_and_after_every_change_it_leaves_whole_units_and_the_next_run_converges(
    world, clock, root, lab, full
):
    killed = 0
    for number in range(200):
        shutil.rmtree(root)
        root.mkdir()
        _tree(root, lab, clock)
        if not _killed_at(number, lambda: lab.clean(world, root, in_use="ignore"), full):
            break
        killed += 1
        for name in os.listdir(root):
            if not name.startswith(TRASH) and name != "old-file":
                assert _whole(root / name), f"{name} is not whole after a kill at change {number}"
        planned = lab.clean(world, root, in_use="ignore", check=True)
        image = lab.image(root)
        assert (
            planned == lab.clean(world, root, in_use="ignore", check=True)
            and lab.image(root) == image
        )
        result = lab.clean(world, root, in_use="ignore")
        assert "failed" not in result and sorted(map(str, planned["plan"])) == sorted(
            map(str, result["removed"])
        )
        if (
            full and len(os.listdir(root)) > 1
        ):  # what was set aside and went back is judged where it belongs
            assert not any(name.startswith(TRASH) for name in os.listdir(root))
            result = lab.clean(world, root, in_use="ignore")
        assert os.listdir(root) == ["young"] and _whole(root / "young"), f"kill at change {number}"
        assert not lab.clean(world, root, in_use="ignore")["changed"]
    else:
        pytest.fail("the run never came to its end")
    assert killed > 40


def test_a_unit_that_was_only_moved_goes_back_when_it_is_no_longer_due(world, clock, root, lab):
    _tree(root, lab, clock)
    trash = root / (TRASH + "0123456789abcdef")
    for directory in (trash, trash / "new", trash / "doomed"):
        directory.mkdir(mode=0o700)
    for name in ("young", "old-1", "old-2", "unmatched"):
        if name == "unmatched":
            lab.unit(root, name, files=FILES)
        os.rename(root / name, trash / "new" / name)
    lab.unit(root, "old-2", files=("taken",))
    held = open(trash / "new/old-1/a")
    try:
        planned = lab.clean(world, root, pattern="[oy]*", check=True)
        assert planned["changed"] and trash.exists()
        result = lab.clean(world, root, pattern="[oy]*")
    finally:
        held.close()
    assert _whole(root / "young") and _whole(root / "unmatched") and _whole(root / "old-1")
    assert sum(name.startswith(TRASH) for name in os.listdir(root)) == 0
    assert "failed" not in result


def test_a_name_that_was_taken_meanwhile_is_not_overwritten(world, clock, root, lab):
    clock.time = time.time()
    trash = root / (TRASH + "0123456789abcdef")
    for directory in (trash, trash / "new", trash / "doomed"):
        directory.mkdir(mode=0o700)
    (trash / "new/x").write_text("old")
    (root / "x").write_text("new")
    result = lab.clean(world, root)
    assert result["failed"] and "put back" in result["failures"][0]["error"]
    assert (root / "x").read_text() == "new" and (trash / "new/x").read_text() == "old"


def _trash(root, *inside):
    """Lay out what a stopped run left: units that were moved and not yet looked at again."""
    trash = root / (TRASH + "0123456789abcdef")
    for directory in (trash, trash / "new", trash / "doomed"):
        directory.mkdir(mode=0o700)
    for name in inside:
        os.rename(root / name, trash / "new" / name)
    return trash


def test_a_run_stopped_while_it_put_a_file_back_is_finished(world, fresh_clock, root, lab):
    """Between the two steps the file has both names."""
    (root / "x").write_text("precious")
    trash = _trash(root, "x")
    os.link(trash / "new/x", root / "x")
    result = lab.clean(world, root)
    assert (
        "failed" not in result
        and os.listdir(root) == ["x"]
        and (root / "x").read_text() == "precious"
    )


def test_what_was_moved_counts_for_the_brake_and_is_untouched_by_it(world, root, lab):
    for name in ("a", "b"):
        lab.unit(root, name)
    trash = _trash(root, "a")
    before = lab.image(root)
    for brake in ({"max_units": 1}, {"max_bytes": 20_000}, {"max_share": 0.9}):
        with pytest.raises(Braked):
            lab.clean(world, root, brake=brake)
        assert lab.image(root) == before and (trash / "new/a").exists()
    assert (
        lab.clean(world, root, brake={"max_units": 2})["removed_count"] == 2
        and os.listdir(root) == []
    )


def test_an_empty_quarantine_directory_is_left_by_the_brake_too(world, root, lab):
    lab.unit(root, "a")
    _trash(root)
    before = lab.image(root)
    with pytest.raises(Braked):
        lab.clean(world, root, brake={"max_units": 0})
    assert lab.image(root) == before


def test_only_directories_that_are_marked_go_on_being_removed(world, root, lab):
    """Anybody may give a directory such a name where anybody may write."""
    name = TRASH + "0123456789abcdef-unit"
    lab.unit(root, name)
    for mode, owner in ((0o755, 0), (0o700, 0), (0o1700, 65534)):
        os.chmod(root / name, mode)
        if owner:
            lab.require_root()
            os.chown(root / name, owner, owner)
        result = lab.clean(world, root, retention_days=99999)
        assert (
            result["removed"] == []
            and os.listdir(root) == ["unit"]
            and (root / "unit/model.bin").exists()
        )
        os.rename(root / "unit", root / name)
    lab.unit(root, "unit")
    result = lab.clean(world, root, retention_days=99999)
    assert (
        result["failed"]
        and "put back" in result["failures"][0]["error"]
        and sorted(os.listdir(root)) == [name, "unit"]
    )
    (root / (TRASH + "0123456789abcdef-..")).mkdir()
    assert lab.clean(world, root, retention_days=99999)["removed"] == []


def test_what_must_stay_is_set_aside_only_to_look_at_it(world, root, lab, monkeypatch):
    for name in ("a", "used", "z"):
        lab.unit(
            root, name, files=("model.bin",) if name == "used" else ("model.bin", "x")
        )  # the smallest comes first
    mkdir, rmdir = _no_room(os.mkdir, os.rmdir)
    held, real = [], os.rename

    def rename(source, *arguments, **options):
        if source == "used" and not held:
            held.append(open(root / "used/model.bin"))
        return real(source, *arguments, **options)

    monkeypatch.setattr(os, "mkdir", mkdir)
    monkeypatch.setattr(os, "rmdir", rmdir)
    monkeypatch.setattr(os, "rename", rename)
    result = lab.clean(world, root)
    held[0].close()
    assert (
        lab.names(result["removed"]) == ["a", "z"]
        and "in use" in lab.reasons(result)["used"]
        and "failed" not in result
    )
    assert os.listdir(root) == ["used"] and (root / "used/model.bin").exists()


def test_what_was_moved_goes_back_when_a_link_names_it(world, root, lab):
    for name in ("old", "wanted"):
        lab.unit(root, name)
    _trash(root, "old", "wanted")
    (root / "latest").symlink_to("wanted")
    result = lab.clean(world, root)
    assert lab.names(result["removed"]) == ["old"] and sorted(os.listdir(root)) == [
        "latest",
        "wanted",
    ]


@pytest.mark.parametrize("rule", [{"keep_last": 1}, {"unit": "file"}])
def test_what_was_moved_goes_back_where_the_rules_now_keep_it(world, root, lab, rule):
    """The other units may be gone since: whether it is one of the newest is judged where it belongs."""
    lab.unit(root, "newest")
    _trash(root, "newest")
    first = lab.clean(world, root, **rule)
    assert first["changed"] and first["removed"] == [] and os.listdir(root) == ["newest"]
    assert not lab.clean(world, root, **rule)["changed"]


@pytest.mark.parametrize("flaw", ["mode", "stranger", "name", "owner", "link", "locked"])
def test_only_quarantine_directories_that_are_exactly_ours_are_touched(
    world, root, tmp_path, lab, flaw
):
    name = TRASH + ("0123456789abcdeX" if flaw == "name" else "0123456789abcdef")
    trash = (tmp_path if flaw == "link" else root) / name
    for directory in (trash, trash / "new", trash / "doomed"):
        directory.mkdir(mode=0o700)
    (trash / "doomed/precious").write_text("x")
    lock = None
    if flaw == "mode":
        os.chmod(trash, 0o755)
    elif flaw == "stranger":
        (trash / "notes").write_text("x")
    elif flaw == "owner":
        lab.require_root()
        os.chown(trash, 65534, 65534)
    elif flaw == "link":
        (root / name).symlink_to(trash)
    elif flaw == "locked":
        import fcntl

        lock = os.open(trash, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        result = lab.clean(world, root, retention_days=0)
    finally:
        if lock is not None:
            os.close(lock)
    assert (trash / "doomed/precious").exists() and result["removed"] == []
    if flaw == "locked":
        assert (
            lab.clean(world, root, retention_days=0)["removed_count"] == 1
            and os.listdir(root) == []
        )


@pytest.mark.parametrize("limit", ["BATCH", "BATCH_FILES"])
def test_many_units_go_in_batches(world, root, lab, monkeypatch, limit):
    monkeypatch.setattr(batches, limit, 3)
    for number in range(10):
        (root / f"f{number}").write_text("x")
    assert lab.clean(world, root)["removed_count"] == 10 and os.listdir(root) == []
