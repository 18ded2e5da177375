# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Removed units are kept for a time, and come back whole: at any moment, on a full disk, and never over something else."""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import time

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup import run
from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup.guards import HELD, TRASH
from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup.options import (
    CleanupOptions,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import NotUsable

DAY = 86400
FILES = ["a", "d/b", "d/e/c"]
CALLS = ("mkdir", "rename", "unlink", "rmdir", "link", "symlink", "fchmod", "fchown", "write")


def _clean(world, root, check=False, **more):
    options = {
        "targets": [{"path": str(root), "retention_days": 30, "name": "t"}],
        "in_use": "ignore",
    }
    return run.run(CleanupOptions.from_mapping({**options, **more}), world, check=check).to_dict()


def _undo(world, root, *units, check=False):
    return _clean(world, root, check, state="restored", undo=list(units) or None)


def _visible(root):
    """The entries of a root that are not ours."""
    return sorted(name for name in os.listdir(root) if not name.startswith((HELD, TRASH)))


def _held(root):
    return sorted(
        path.name
        for hold in pathlib.Path(root).glob(HELD + "*")
        for compartment in hold.glob("[0-9]")
        for path in compartment.iterdir()
    )


def _whole(path):
    if path.is_file():
        return path.read_text() == "x"
    return (
        sorted(str(inner.relative_to(path)) for inner in path.rglob("*") if inner.is_file())
        == FILES
    )


def test_units_are_kept_come_back_and_go_when_their_time_is_over(world, clock, root, lab):
    for name in ("old", "older"):
        lab.unit(root, name, files=FILES)
    (root / "file").write_text("x")
    planned = _clean(world, root, check=True, quarantine="3d")
    result = _clean(world, root, quarantine="3d")
    assert (
        planned["removed"] == result["removed"] and planned["quarantined"] == result["quarantined"]
    )
    assert planned["notes"] == result["notes"]
    assert result["changed"] and result["freed_bytes"] == 0 and _visible(root) == []
    assert lab.names(result["quarantined"]) == ["file", "old", "older"] == _held(root)
    assert result["quarantined_bytes"] == sum(entry["size"] for entry in result["removed"]) > 0
    assert "in quarantine still use" in result["notes"][-1]
    clock.time += 3 * DAY - 1
    again = _clean(world, root, quarantine="3d")
    assert not again["changed"] and again["quarantined"] == result["quarantined"]
    rehearsed = _undo(world, root, str(root / "old"), check=True)
    assert rehearsed["restored_count"] == 1 and _visible(root) == []
    restored = _undo(world, root, str(root / "old"))
    assert restored["changed"] and lab.names(restored["restored"]) == ["old"]
    assert _visible(root) == ["old"] and _whole(root / "old")
    assert lab.names(restored["quarantined"]) == ["file", "older"]
    shutil.rmtree(root / "old")
    clock.time += 1
    rehearsed = _clean(world, root, check=True)
    result = _clean(world, root)
    assert lab.names(result["removed"]) == ["file", "older"] and result["freed_bytes"] > 0
    assert (
        rehearsed["removed"] == result["removed"] and "are over" in result["removed"][0]["reason"]
    )
    assert os.listdir(root) == [] and not _clean(world, root)["changed"]


def test_a_run_or_everything_comes_back(world, clock, root, lab):
    runs = []
    for number in range(3):
        lab.unit(root, f"u{number}", files=FILES)
        runs.append(_clean(world, root, quarantine="1h")["quarantined"][-1]["run"])
        clock.time += 60
    assert len(set(runs)) == 3
    assert lab.names(_undo(world, root, runs[1])["restored"]) == ["u1"]
    assert lab.names(_undo(world, root)["restored"]) == ["u0", "u2"]
    assert not _undo(world, root)["changed"] and sorted(os.listdir(root)) == ["u0", "u1", "u2"]
    with pytest.raises(NotUsable, match="Nothing in quarantine"):
        _undo(world, root, "20200101T000000Z")


def test_two_cleanups_in_one_second_are_two_runs(world, root, lab):
    results = []
    for dummy in range(2):
        lab.unit(root, "same", files=FILES)
        results.append(_clean(world, root, quarantine="1h"))
    runs = [entry["run"] for entry in results[1]["quarantined"]]
    assert runs[1] == runs[0] + "-2" and _held(root) == ["same", "same"]
    assert lab.names(_undo(world, root, str(root / "same"))["restored"]) == ["same"]


@pytest.mark.parametrize("kind", ["dir", "empty", "file", "link"])
def test_nothing_comes_back_onto_a_path_that_exists_again(world, root, lab, kind):
    if kind in ("dir", "empty"):
        lab.unit(root, "u", files=FILES)
    else:
        (root / "u").write_text("x")
    _clean(world, root, quarantine="3d")
    if kind == "dir":
        lab.unit(root, "u", files=("new",))
    elif kind == "empty":
        (root / "u").mkdir()
    elif kind == "file":
        (root / "u").write_text("new")
    else:
        (root / "u").symlink_to("/etc/passwd")
    for check in (True, False):
        before = lab.image(root)
        result = _undo(world, root, check=check)
        assert result["failed"] and "exists again" in result["failures"][0]["error"]
        assert lab.image(root) == before and not result["changed"]
    os.rename(root / "u", root / "aside")
    assert lab.names(_undo(world, root)["restored"]) == ["u"] and _whole(root / "u")


def test_checkpoints_come_back_to_their_runs_and_not_through_links(world, root, tmp_path, lab):
    for run_ in ("a", "deep/b"):
        for step in (100, 200):
            lab.checkpoint(root / run_, "torch_dcp", step)
    options = {
        "targets": [{"path": str(root), "layout": "auto", "keep_last": 1}],
        "quarantine": "1d",
    }
    result = _clean(world, root, **options)
    assert result["removed_count"] == 2 and not list(root.glob("*/.mlops*"))
    assert sorted(os.path.relpath(entry["path"], root) for entry in result["quarantined"]) == [
        "a/step-100",
        "deep/b/step-100",
    ]
    os.rename(root / "a", tmp_path / "a")
    (root / "a").symlink_to(tmp_path / "a")
    result = _undo(world, root)
    assert len(result["failures"]) == 1 and (root / "deep/b/step-100/.metadata").exists()
    os.unlink(root / "a")
    os.rename(tmp_path / "a", root / "a")
    assert _undo(world, root)["restored_count"] == 1 and (root / "a/step-100/.metadata").exists()


def _killed_at(number, call):
    """Run in a forked child that kills itself right before (even) or after (odd) its n-th change; say whether it came to that."""
    pid = os.fork()
    if pid == 0:
        try:
            count = [number]

            def bomb(real):
                def change(*arguments, **options):
                    count[0] -= 1
                    if count[0] == -1:
                        os.kill(os.getpid(), signal.SIGKILL)
                    value = real(*arguments, **options)
                    if count[0] == 0 and number % 2:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return value

                return change

            for name in CALLS:
                setattr(os, name, bomb(getattr(os, name)))
            call()
        finally:
            os._exit(0)
    status = os.waitpid(pid, 0)[1]
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize("what", ["quarantine", "undo", "purge"])
def test_killed_before_and_after_every_change_units_stay_whole_and_the_next_run_converges(
    world, clock, root, lab, what
):
    start = clock.time
    names = ["file", "u0", "u1"]
    for number in range(300):
        clock.time = start
        shutil.rmtree(root)
        root.mkdir()
        for name in names[1:]:
            lab.unit(root, name, files=FILES, size=10)
        (root / "file").write_text("x")
        if what != "quarantine":
            _clean(world, root, quarantine="1d")
        if what == "purge":
            clock.time += DAY

        def step(check=False):
            if what == "undo":
                return _undo(world, root, check=check)
            return _clean(world, root, check, quarantine="1d")

        killed = _killed_at(number, step)
        for name in _visible(root):
            assert _whole(root / name), f"{name} is not whole after a kill at change {number}"
        for hold in root.glob(HELD + "*"):
            for path in hold.glob("[0-9]/*"):
                assert _whole(path), f"{path} is not whole after a kill at change {number}"
        result = step()
        assert "failed" not in result, f"kill at change {number}: {result['failures']}"
        if what == "quarantine":
            assert _visible(root) == [] and _held(root) == names, f"kill at change {number}"
            _undo(world, root)
            assert os.listdir(root) and sorted(os.listdir(root)) == names
        elif what == "undo":
            assert sorted(os.listdir(root)) == names and all(_whole(root / name) for name in names)
        else:
            assert os.listdir(root) == [], f"kill at change {number}"
        if not killed:
            break
    else:
        pytest.fail("the run never came to its end")
    assert number > 8


def test_on_a_full_disk_nothing_is_removed_that_could_not_come_back(world, root, lab):
    lab.require_mounts()

    def case():
        # Seven inodes: the root, the unit, its two directories and three files.
        lab.mount("-t", "tmpfs", "-o", "nr_inodes=7", "tmpfs", root)
        lab.unit(root, "u", files=FILES)
        before = lab.image(root)
        return _clean(world, root, quarantine="1d"), lab.image(root) == before

    result, same = lab.in_namespace(case)
    assert result["failed"] and "No space" in result["failures"][0]["error"]
    assert result["removed"] == [] and same


def test_below_the_level_what_is_in_quarantine_goes_first(world, clock, root, lab):
    lab.require_mounts()

    def case():
        lab.mount("-t", "tmpfs", "-o", "size=64m", "tmpfs", root)
        target = {"path": str(root), "retention_days": 1, "name": "t"}
        results = []
        for name in ("a", "b", "c", "d"):
            (root / name).write_bytes(b"x" * (8 << 20))
            if name != "d":
                results.append(_clean(world, root, targets=[target], quarantine="3d"))
                clock.time += 3600
        for free_to in ("47M", "60M", "60M"):
            options = {"targets": [target], "quarantine": "3d", "free_to": free_to}
            planned = _clean(world, root, check=True, **options)
            results.append(_clean(world, root, **options))
            assert planned["removed"] == results[-1]["removed"]
            assert planned["watermarks"] == results[-1]["watermarks"]
            assert planned["quarantined"] == results[-1]["quarantined"]
        return results, os.statvfs(root).f_bavail, os.statvfs(root).f_blocks

    clock.time = time.time() + 10 * DAY
    results, available, blocks = lab.in_namespace(case)
    assert lab.names(results[2]["quarantined"]) == ["a", "b", "c"]
    assert lab.names(results[3]["removed"]) == ["a", "b"] and results[3]["watermarks"][0]["reached"]
    assert "its space is needed" in results[3]["removed"][0]["reason"]
    assert (
        lab.names(results[4]["removed"]) == ["c", "d"]
        and not results[4]["watermarks"][0]["reached"]
    )
    assert lab.names(results[4]["quarantined"]) == ["d"]
    assert any("chosen for quarantine" in note for note in results[4]["notes"])
    assert lab.names(results[5]["removed"]) == ["d"] and results[5]["watermarks"][0]["reached"]
    assert available == blocks


def test_a_unit_in_use_stays_in_quarantine(world, clock, root, lab):
    lab.unit(root, "u", files=FILES)
    _clean(world, root, quarantine="1d")
    clock.time += 2 * DAY
    (path,) = root.glob(HELD + "*/0/u/a")
    with open(path, "rb"):
        result = _clean(world, root, in_use="skip")
        assert result["removed"] == [] and "in use" in result["kept"][-1]["reason"]
    assert _clean(world, root, in_use="skip")["removed_count"] == 1


@pytest.mark.parametrize("flaw", ["mode", "owner", "name"])
def test_only_quarantines_that_are_exactly_ours_are_touched(world, root, lab, flaw):
    name = HELD + ("20200101T000000Z-x" if flaw == "name" else "20200101T000000Z-60")
    hold = root / name
    for path in (hold, hold / "0"):
        path.mkdir(mode=0o700)
    (hold / "0.where").symlink_to(".")
    (hold / "0/precious").write_text("x")
    if flaw == "mode":
        os.chmod(hold, 0o755)
    elif flaw == "owner":
        lab.require_root()
        os.chown(hold, 65534, 65534)
    assert not _clean(world, root)["changed"] and not _undo(world, root)["changed"]
    assert (hold / "0/precious").exists()
