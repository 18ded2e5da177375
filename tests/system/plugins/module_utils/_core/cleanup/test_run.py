# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes and what stays: real trees, real processes, a clock that is turned."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import mmap
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup import inuse, run, steps
from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup.brake import Braked
from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup.guards import TRASH
from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup.options import (
    CleanupOptions,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import (
    LockBusy,
    NotUsable,
    Refused,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.system import isolate, locks

DAY = 86400


# --- age ----------------------------------------------------------------------------------------------------------


def test_old_units_go_young_ones_stay_and_a_second_run_finds_nothing(world, clock, root, lab):
    lab.unit(root, "old")
    clock.time = time.time() + 31 * DAY
    young = lab.unit(root, "young")
    for path in (young, *young.rglob("*")):
        os.utime(path, (clock.time - DAY, clock.time - DAY))
    first = lab.clean(world, root)
    assert (
        first["changed"]
        and lab.names(first["removed"]) == ["old"]
        and lab.names(first["kept"]) == ["young"]
    )
    assert os.listdir(root) == ["young"]
    second = lab.clean(world, root)
    assert not second["changed"] and second["removed"] == [] and second["freed_bytes"] == 0


@pytest.mark.parametrize(
    ("days", "seconds", "goes"),
    [(30, 0, True), (30, -1, False), (30, 1, True), (0.5, -1, False), (0.5, 0, True)],
)
def test_the_boundary_is_exact_to_the_second(world, clock, root, lab, days, seconds, goes):
    one = root / "file.log"
    one.write_text("x")
    stamp = int(time.time()) - 100
    os.utime(one, (stamp, stamp))
    clock.time = float(stamp + days * DAY + seconds)
    assert (
        bool(lab.clean(world, root, retention_days=days, age_by="mtime", check=True)["removed"])
        is goes
    )


def test_an_old_directory_with_one_fresh_file_deep_inside_stays(world, clock, root, lab):
    clock.time = time.time() + 40 * DAY
    one = lab.unit(root, "run", files=("a/b/c/fresh.bin", "a/old.bin"))
    os.utime(one / "a/b/c/fresh.bin", (clock.time - DAY, clock.time - DAY))
    result = lab.clean(world, root)
    assert result["removed"] == [] and "a/b/c/fresh.bin" in lab.reasons(result)["run"]
    assert (one / "a/b/c/fresh.bin").exists()


def test_an_old_mtime_alone_is_no_age_but_mtime_can_be_asked_for(world, fresh_clock, root, lab):
    one = lab.unit(root, "unpacked")
    for path in (one, *one.rglob("*")):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    assert lab.clean(world, root)["removed"] == []
    assert lab.clean(world, root, age_by="ctime")["removed"] == []
    assert lab.names(lab.clean(world, root, age_by="mtime")["removed"]) == ["unpacked"]
    assert os.listdir(root) == []


def test_by_access_time_a_file_read_lately_protects_its_unit_and_our_own_look_does_not(
    world, clock, root, lab
):
    for name in ("read", "unread"):
        one = lab.unit(root, name)
        for path in (one, *one.rglob("*")):
            os.utime(path, (1_000_000_000, 1_000_000_000))
    os.utime(root / "read/model.bin", (time.time(), 1_000_000_000))
    clock.time = time.time() + DAY
    lab.clean(world, root, age_by="atime", check=True)
    result = lab.clean(world, root, age_by="atime")
    assert lab.names(result["removed"]) == ["unread"] and os.listdir(root) == ["read"]


def test_retention_zero_takes_everything_even_from_the_future(world, fresh_clock, root, lab):
    one = lab.unit(root, "ml-x")
    os.utime(one / "model.bin", (2_500_000_000, 2_500_000_000))
    assert lab.names(lab.clean(world, root, retention_days=0, pattern="ml-*")["removed"]) == [
        "ml-x"
    ]


def test_a_date_in_the_future_keeps_and_is_told(world, clock, root, lab):
    for name, seconds in (("soon", 3600), ("later", 10 * DAY)):
        one = lab.unit(root, name)
        os.utime(one / "logs/train.log", (clock.time + seconds,) * 2)
    kept = lab.reasons(lab.clean(world, root))
    assert (
        "in the future (logs/train.log)" in kept["soon"]
        and "is dated 10.0 days in the future" in kept["later"]
    )


def test_keep_last_keeps_the_newest(world, clock, root, lab):
    for number in range(5):
        one = lab.unit(root, f"step-{number}")
        for path in (one, *one.rglob("*")):
            os.utime(path, (1_000_000_000 + number, 1_000_000_000 + number))
    result = lab.clean(world, root, keep_last=2, age_by="mtime")
    assert lab.names(result["removed"]) == ["step-0", "step-1", "step-2"]
    assert sorted(os.listdir(root)) == ["step-3", "step-4"]


def test_a_unit_that_was_only_moved_does_not_count_as_newer_than_the_others(
    world, root, tmp_path, lab
):
    """Putting a unit back sets its ctime; the newest checkpoint must not lose its place to it."""
    for name in ("step-1", "step-2"):
        lab.unit(root, name)
        time.sleep(0.02)
    os.rename(root / "step-1", tmp_path / "aside")
    os.rename(tmp_path / "aside", root / "step-1")
    assert lab.names(lab.clean(world, root, keep_last=1)["removed"]) == ["step-1"]


# --- which entries ------------------------------------------------------------------------------------------------


def test_pattern_unit_kind_and_exclusions(world, root, lab):
    for name in ("ml-a", "ml-keep", "ml-marked", "other", ".hidden"):
        lab.unit(root, name)
    (root / "ml-marked/logs/.pinned").write_text("")
    (root / "ml-file").write_text("x")
    result = lab.clean(world, root, pattern="ml-*", unit="dir", exclude=["*keep", ".pinned"])
    assert lab.names(result["removed"]) == ["ml-a"]
    assert lab.reasons(result) == {
        "ml-keep": "excluded",
        "ml-marked": "holds logs/.pinned, which is excluded",
    }
    assert sorted(os.listdir(root)) == [".hidden", "ml-file", "ml-keep", "ml-marked", "other"]
    assert lab.names(lab.clean(world, root, pattern="ml-*", unit="file")["removed"]) == ["ml-file"]
    assert lab.names(lab.clean(world, root, pattern="*", exclude=["ml-*"])["removed"]) == ["other"]
    assert lab.names(lab.clean(world, root, pattern=".h*")["removed"]) == [".hidden"]


def test_a_link_is_removed_never_followed_and_a_link_to_a_unit_protects_both(
    world, root, tmp_path, lab
):
    victim = lab.unit(tmp_path, "victim")
    for name in ("run-1", "run-2", "run-3"):
        lab.unit(root, name)
    (root / "away").symlink_to(victim)
    (root / "dangling").symlink_to("/nowhere/at/all")
    (root / "latest").symlink_to("run-2")
    (root / "best").symlink_to(root / "run-3" / "model.bin")
    result = lab.clean(world, root)
    assert lab.names(result["removed"]) == ["away", "dangling", "run-1"]
    assert sorted(os.listdir(root)) == ["best", "latest", "run-2", "run-3"]
    assert (victim / "model.bin").exists()


def test_a_root_reached_through_our_own_link_works_and_links_back_through_it_protect(
    world, root, tmp_path, lab
):
    (tmp_path / "alias").symlink_to(root)
    for name in ("run-1", "run-2"):
        lab.unit(root, name)
    (root / "latest").symlink_to(tmp_path / "alias" / "run-2")
    assert lab.names(lab.clean(world, root, check=True)["removed"]) == [
        "run-1"
    ]  # by its real name, too
    result = lab.clean(world, tmp_path / "alias")
    assert lab.names(result["removed"]) == ["run-1"] and result["targets"][0]["root"] == str(root)


def test_links_that_name_a_unit_by_way_of_other_links_protect(world, root, tmp_path, lab):
    for number in range(4):
        lab.unit(root, f"run-{number}")
    (tmp_path / "current").symlink_to(root / "run-1")
    (root / "latest").symlink_to("../current")
    (root / "best").symlink_to("second")
    (root / "second").symlink_to("run-2")
    (root / "loop").symlink_to("loop")
    (tmp_path / "dir").symlink_to(root.parent)
    (root / "deep").symlink_to(tmp_path / "dir/root/../root/run-3/logs")
    result = lab.clean(world, root)
    assert lab.names(result["removed"]) == ["loop", "run-0"]
    assert sorted(os.listdir(root)) == [
        "best",
        "deep",
        "latest",
        "run-1",
        "run-2",
        "run-3",
        "second",
    ]


def test_names_of_any_bytes(world, root, lab):
    name = b"bad\xff\nname\x1b[31m"
    os.mkdir(os.fsencode(root) + b"/" + name)
    with open(os.fsencode(root) + b"/" + name + b"/in\xfe", "wb") as stream:
        stream.write(b"x")
    result = lab.clean(world, root)
    json.dumps(result).encode("utf-8")
    assert "\n" not in result["removed"][0]["path"] and "\x1b" not in result["removed"][0]["path"]
    assert os.listdir(root) == []


def test_a_path_that_two_targets_match_belongs_to_the_first(world, root, lab):
    lab.unit(root, "ml-a")
    given = {
        "targets": [
            {"name": "first", "path": str(root), "pattern": "ml-*", "retention_days": 999},
            {"name": "all", "path": str(root), "retention_days": 0},
        ]
    }
    assert run.run(CleanupOptions.from_mapping(given), world).to_dict()["removed"] == []
    given["targets"].reverse()
    assert lab.names(run.run(CleanupOptions.from_mapping(given), world).to_dict()["removed"]) == [
        "ml-a"
    ]


def test_what_the_run_itself_needs_stays(world, root, tmp_path, lab):
    inner = lab.unit(root, "holds-a-root") / "inner"
    lab.unit(inner, "x")
    (root / "reports").mkdir()
    given = {
        "targets": [
            {"name": "outer", "path": str(root), "retention_days": 0},
            {"name": "inner", "path": str(inner), "retention_days": 0},
        ],
        "report_path": str(root / "reports" / "report.json"),
    }
    result = run.run(CleanupOptions.from_mapping(given), world).to_dict()
    assert lab.names(result["removed"]) == ["x"] and sorted(os.listdir(root)) == [
        "holds-a-root",
        "reports",
    ]


def test_backups_stay_in_their_directory_and_in_units_that_hold_it(world, root, lab):
    for directory in (root, root / "unit/backups"):
        directory.mkdir(parents=True, exist_ok=True)
        for name in ("", ".sha256", ".manifest.json"):
            (directory / f"models_backup_20260101_020000.tar.gz{name}").write_text("x")
    for name in ("models_backup_notes.txt", "other"):
        (root / name).write_text("x")
    result = lab.clean(world, root, retention_days=0)
    assert (
        lab.names(result["removed"]) == ["models_backup_notes.txt", "other"]
        and result["kept_count"] == 4
    )
    assert "holds the backup backups/models_backup_2026" in lab.reasons(result)["unit"]


# --- in use -------------------------------------------------------------------------------------------------------


def _holder(code, *arguments):
    """Start a process that uses something; it says when it does."""
    child = subprocess.Popen(
        [
            sys.executable,
            "-c",
            code + "\nimport sys, time\nprint('ready', flush=True)\ntime.sleep(60)",
            *map(str, arguments),
        ],
        stdout=subprocess.PIPE,
    )
    assert child.stdout.readline() == b"ready\n"
    return child


HOLD = {
    "open": "import sys; held = open(sys.argv[1])",
    "mapped": "import mmap, sys\nwith open(sys.argv[1], 'r+b') as f: held = mmap.mmap(f.fileno(), 0)",
    "flock": "import fcntl, sys; held = open(sys.argv[1]); fcntl.flock(held, fcntl.LOCK_EX)",
    "cwd": "import os, sys; os.chdir(os.path.dirname(sys.argv[1]))",
    "renamed": "import os, sys; held = open(sys.argv[1]); os.rename(sys.argv[1], sys.argv[1] + '.x')",
}


@pytest.mark.parametrize("way", sorted(HOLD))
def test_what_a_process_uses_stays_and_goes_when_it_ended(world, root, lab, way):
    lab.unit(root, "free")
    used = lab.unit(root, "used", files=("deep/er/model.bin",)) / "deep/er/model.bin"
    child = _holder(HOLD[way], used)
    try:
        result = lab.clean(world, root)
    finally:
        child.kill()
        child.wait()
    assert lab.names(result["removed"]) == ["free"] and "in use" in lab.reasons(result)["used"]
    assert lab.names(lab.clean(world, root)["removed"]) == ["used"]


def test_in_use_can_be_ignored(world, root, lab):
    used = lab.unit(root, "used") / "model.bin"
    child = _holder(HOLD["open"], used)
    try:
        assert lab.names(lab.clean(world, root, in_use="ignore")["removed"]) == ["used"]
    finally:
        child.kill()
        child.wait()


def test_a_log_that_is_being_written_stays_and_its_rotated_files_age_on_their_own(world, root, lab):
    for name in ("ml-api.log", "ml-api.log.1", "ml-api.log.2.gz"):
        (root / name).write_text("x")
    child = _holder("import sys; held = open(sys.argv[1], 'a')", root / "ml-api.log")
    try:
        assert lab.names(lab.clean(world, root, pattern="ml-*", retention_days=14)["removed"]) == [
            "ml-api.log.1",
            "ml-api.log.2.gz",
        ]
    finally:
        child.kill()
        child.wait()


def test_what_users_own_whose_processes_can_not_be_examined_stays(world, lab):
    """Without privileges nobody sees what root's processes have open."""
    lab.require_root()
    root = pathlib.Path("/var/tmp") / f"cleanup-test-{os.getpid()}"
    root.mkdir(mode=0o755)
    os.chown(root, 65534, 65534)
    try:
        lab.as_nobody(lambda: lab.unit(root, "mine") and lab.unit(root, "mixed"))
        used = root / "mixed/logs/root.log"
        used.write_text("x")
        with open(used):
            result = lab.as_nobody(lambda: lab.clean(world, root))
            assert lab.names(result["removed"]) == ["mine"] and "stay" in result["notes"][0]
            assert lab.reasons(result)["mixed"].startswith(
                "may be in use: logs/root.log belongs to user 0"
            )
        assert lab.names(
            lab.as_nobody(lambda: lab.clean(world, root, in_use="ignore"))["removed"]
        ) == ["mixed"]
    finally:
        shutil.rmtree(root)


def test_an_image_behind_a_loop_device_stays(world, root, lab):
    """No process has it open; the kernel has."""
    lab.require_root()
    image = lab.unit(root, "images", files=("data.squashfs",), size=1 << 20) / "data.squashfs"
    made = subprocess.run(
        ["losetup", "--find", "--show", image], capture_output=True, text=True, check=False
    )
    if made.returncode != 0:
        pytest.skip(f"no loop device: {made.stderr.strip()}")
    try:
        assert "in use: data.squashfs" in lab.reasons(lab.clean(world, root))["images"]
    finally:
        subprocess.run(["losetup", "--detach", made.stdout.strip()], check=True)
    assert lab.clean(world, root)["removed_count"] == 1


def test_the_layers_of_an_overlay_stay(world, root, tmp_path, lab):
    lab.require_mounts()
    for name in ("lower", "upper", "free"):
        lab.unit(root, name)
    for directory in (root / "upper/up", root / "upper/work", tmp_path / "merged"):
        directory.mkdir()

    def inner():
        # Where the machine's own root is an overlay or a container's, an overlay may not be stacked on it.
        options = f"lowerdir={root}/lower/logs,upperdir={root}/upper/up,workdir={root}/upper/work"
        if subprocess.run(
            ["mount", "-t", "overlay", "overlay", "-o", options, tmp_path / "merged"],
            capture_output=True,
            check=False,
        ).returncode:
            return None
        return lab.clean(world, root)

    result = lab.in_namespace(inner)
    if result is None:
        pytest.skip("no overlay can be mounted here")
    assert (
        lab.names(result["removed"]) == ["free"] and "in use: logs" in lab.reasons(result)["lower"]
    )


def test_files_handed_over_to_a_child_that_was_not_listed_yet_are_seen(root, lab, monkeypatch):
    """The process that had them ends while the table is read."""
    used = lab.unit(root, "used") / "model.bin"
    child, real = [], os.listdir

    def listdir(path):
        found = real(path)
        if path == "/proc" and not child:
            child.append(_holder(HOLD["open"], used))
        return found

    monkeypatch.setattr(os, "listdir", listdir)
    try:
        found = inuse._collect("/proc", frozenset({os.stat(root).st_dev}), (str(root),))
    finally:
        child[0].kill()
        child[0].wait()
    assert (os.stat(used).st_dev, os.stat(used).st_ino) in found.identities


def test_a_lock_on_the_unit_itself_holds(world, root, lab):
    one = lab.unit(root, "pinned")
    fd = os.open(one, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        assert "in use" in lab.reasons(lab.clean(world, root))["pinned"]
    finally:
        os.close(fd)


def test_a_mapped_file_without_any_descriptor_stays(world, root, lab):
    path = lab.unit(root, "mapped") / "model.bin"
    fd = os.open(path, os.O_RDONLY)
    held = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
    os.close(fd)
    try:
        assert "in use" in lab.reasons(lab.clean(world, root))["mapped"]
    finally:
        held.close()


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_a_live_socket_stays_and_is_not_disturbed_a_dead_one_goes(world, root, lab, kind):
    lab.unit(root, "live")
    with socket.socket(socket.AF_UNIX, kind) as listener:
        listener.bind(str(root / "live/s"))
        if kind != socket.SOCK_DGRAM:
            listener.listen()
        listener.settimeout(0.2)
        assert "socket" in lab.reasons(lab.clean(world, root))["live"]
        with pytest.raises(TimeoutError if sys.version_info >= (3, 10) else socket.timeout):
            listener.recv(1) if kind == socket.SOCK_DGRAM else listener.accept()
    assert lab.names(lab.clean(world, root)["removed"]) == ["live"]


def test_a_volume_of_a_container_stays(world, root, tmp_path, lab):
    """A container's mount namespace shows the unit mounted, though no process has a file of it open."""
    lab.require_mounts()
    one = lab.unit(root, "volume")
    lab.unit(root, "free")
    (tmp_path / "mnt").mkdir()
    script = f"mount --make-rprivate / && mount --bind {one}/logs {tmp_path}/mnt && echo ready && exec sleep 60"
    child = subprocess.Popen(["unshare", "-m", "sh", "-c", script], stdout=subprocess.PIPE)
    try:
        assert child.stdout.readline() == b"ready\n"
        result = lab.clean(world, root)
    finally:
        child.kill()
        child.wait()
    assert (
        lab.names(result["removed"]) == ["free"]
        and "mounted elsewhere" in lab.reasons(result)["volume"]
    )


# --- between plan and removal -------------------------------------------------------------------------------------


def _once(action):
    """A receiver of progress that acts once, when the scan is under way and the plan not carried out."""
    state = []

    def tell(progress):
        if progress.phase == "scan" and progress.subject == "later" and not state:
            state.append(1)
            action()

    return tell


def _two(root, later, world, tell, **more):
    """Clean two targets: the second one's scan is the moment between the first one's scan and its removal."""
    given = {
        "targets": [
            {"name": "first", "path": str(root), "retention_days": 30},
            {"name": "later", "path": str(later), "retention_days": 30},
        ],
        **more,
    }
    return run.run(CleanupOptions.from_mapping(given), world, tell=tell).to_dict()


@pytest.fixture
def later(tmp_path, lab):
    lab.unit(tmp_path / "later", "z")
    return tmp_path / "later"


def test_a_unit_that_was_replaced_meanwhile_stays(world, root, later, tmp_path, lab):
    one = lab.unit(root, "run")

    def replace():
        os.rename(one, tmp_path / "old")
        lab.unit(root, "run", files=("new.bin",))

    result = _two(root, later, world, _once(replace))
    assert lab.names(result["removed"]) == ["z"] and "replaced" in lab.reasons(result)["run"]
    assert (
        os.listdir(root) == ["run"]
        and os.listdir(root / "run") == ["new.bin"]
        and (tmp_path / "old/model.bin").exists()
    )


def test_a_unit_that_became_a_link_meanwhile_is_put_back_and_not_followed(
    world, root, later, tmp_path, lab
):
    one, victim = lab.unit(root, "run"), lab.unit(tmp_path, "victim")

    def replace():
        shutil.rmtree(one)
        one.symlink_to(victim)

    result = _two(root, later, world, _once(replace))
    assert (
        lab.names(result["removed"]) == ["z"]
        and os.readlink(one) == str(victim)
        and (victim / "model.bin").exists()
    )


def test_a_unit_that_was_written_to_meanwhile_is_put_back_whole(world, clock, root, later, lab):
    one = lab.unit(root, "run")
    clock.time = time.time() + 40 * DAY

    def write():
        (one / "logs/new.log").write_text("still training")
        for path in (one / "logs/new.log",):
            os.utime(path, (clock.time, clock.time))

    result = _two(root, later, world, _once(write))
    assert "changed after the plan" in lab.reasons(result)["run"]
    assert sorted(str(path.relative_to(root)) for path in root.rglob("*")) == [
        "run",
        "run/logs",
        "run/logs/new.log",
        "run/logs/train.log",
        "run/model.bin",
    ]


def test_a_file_that_was_written_to_meanwhile_stays_even_where_age_does_not_matter(
    world, root, later, lab
):
    (root / "state.bin").write_text("old")

    def write():
        (root / "state.bin").write_text("new")

    result = _two(root, later, world, _once(write))
    assert (
        "changed after the plan" in lab.reasons(result)["state.bin"]
        and (root / "state.bin").read_text() == "new"
    )


def test_a_unit_taken_into_use_meanwhile_is_put_back_whole(world, root, later, lab):
    one = lab.unit(root, "run")
    held = []
    try:
        result = _two(root, later, world, _once(lambda: held.append(open(one / "model.bin"))))
    finally:
        held[0].close()
    assert (
        "in use" in lab.reasons(result)["run"]
        and (one / "model.bin").exists()
        and os.listdir(root) == ["run"]
    )


def test_what_must_stay_is_back_in_its_place_before_anything_is_removed(
    world, root, later, lab, monkeypatch
):
    """Removing the others may take long; what is in use must not be missing all that time."""
    one = lab.unit(root, "run")
    for number in range(5):
        lab.unit(root, f"go-{number}")
    there, real = [], steps.remove

    def remove(*arguments):
        there.append((one / "model.bin").exists())
        return real(*arguments)

    monkeypatch.setattr(steps, "remove", remove)
    held = []
    try:
        result = _two(root, later, world, _once(lambda: held.append(open(one / "model.bin"))))
    finally:
        held[0].close()
    assert result["removed_count"] == 6 and len(there) == 6 and all(there)


def test_when_the_process_table_stops_answering_what_was_moved_goes_back(world, root, later, lab):
    lab.unit(root, "run")
    result = _two(root, later, world, _once(lambda: setattr(world, "root", "/nowhere")))
    assert (
        result["failed"]
        and not result["changed"]
        and os.listdir(root) == ["run"]
        and os.listdir(later) == ["z"]
    )
    assert (root / "run/model.bin").exists()


def test_when_the_run_is_interrupted_what_was_moved_goes_back(world, root, lab):
    """Ctrl-C, or the terminal that was told of the progress is gone."""
    for number in range(60):
        (root / f"f{number:02}").write_text("x")

    def tell(progress):
        if progress.phase == "remove":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lab.clean(world, root, tell=tell)
    assert len(os.listdir(root)) == 50 and not any(
        name.startswith(TRASH) for name in os.listdir(root)
    )


def test_a_unit_that_vanished_meanwhile_is_no_error(world, root, later, lab):
    one = lab.unit(root, "run")
    result = _two(root, later, world, _once(lambda: shutil.rmtree(one)))
    assert "failed" not in result and lab.names(result["removed"]) == ["z"]


# --- mounts -------------------------------------------------------------------------------------------------------


def test_mounts_inside_and_on_units_survive(world, root, tmp_path, lab):
    lab.require_mounts()
    data = lab.unit(tmp_path, "data", files=tuple(f"f{n}" for n in range(3)))
    for name in ("bind", "tmpfs", "file", "top", "free"):
        lab.unit(root, name)
    (root / "bind/m").mkdir()
    (root / "tmpfs/m").mkdir()

    def inner():
        lab.mount("--bind", data, root / "bind/m")
        lab.mount("-t", "tmpfs", "none", root / "tmpfs/m")
        (root / "tmpfs/m/x").write_text("x")
        lab.mount("--bind", data / "f0", root / "file/model.bin")
        lab.mount("--bind", data, root / "top")
        result = lab.clean(world, root, retention_days=0)
        return (
            result,
            sorted(os.listdir(data)),
            os.listdir(root / "tmpfs/m"),
            sorted(os.listdir(root / "bind")),
        )

    result, left, in_tmpfs, beside = lab.in_namespace(inner)
    assert left == ["f0", "f1", "f2"] and in_tmpfs == ["x"] and beside == ["logs", "m", "model.bin"]
    assert lab.names(result["removed"]) == ["free"] and "failed" not in result
    assert set(lab.reasons(result)) == {"bind", "tmpfs", "file", "top"}


def test_a_root_on_an_overlay_over_two_filesystems(world, tmp_path, lab):
    """Diskless nodes: files have another st_dev than their directory, and directories of the lower layer can't be renamed."""
    lab.require_mounts()
    for name in ("lower/runs", "memory", "merged"):
        (tmp_path / name).mkdir(parents=True)
    lab.unit(tmp_path / "lower/runs", "of-the-image")
    (tmp_path / "lower/runs/file").write_text("x")
    root = tmp_path / "merged/runs"

    def inner():
        lab.mount("-t", "tmpfs", "none", tmp_path / "memory")
        for name in ("upper", "work"):
            (tmp_path / "memory" / name).mkdir()
        options = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/memory/upper,workdir={tmp_path}/memory/work"
        if subprocess.run(
            ["mount", "-t", "overlay", "overlay", "-o", options, tmp_path / "merged"],
            capture_output=True,
            check=False,
        ).returncode:
            return None
        for name in ("run", "open", "mapped", "bound"):
            lab.unit(root, name)
        lab.mount("--bind", tmp_path / "lower/runs/file", root / "bound/model.bin")
        fd = os.open(root / "mapped/model.bin", os.O_RDONLY)
        held = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
        os.close(fd)
        with open(root / "open/model.bin"):
            result = lab.clean(world, root)
        held.close()
        return result, sorted(os.listdir(root)), (root / "bound/model.bin").exists()

    found = lab.in_namespace(inner)
    if found is None:
        pytest.skip("no overlay can be mounted here")
    result, left, bound = found
    assert (
        lab.names(result["removed"]) == ["file", "run"]
        and left == ["bound", "mapped", "of-the-image", "open"]
        and bound
    )
    kept = lab.reasons(result)
    assert "in use" in kept["open"] and "in use" in kept["mapped"] and "mount" in kept["bound"]
    assert [one["path"] for one in result["failures"]] == [
        str(root / "of-the-image")
    ] and "lower layer" in result["failures"][0]["error"]


def test_a_mount_that_does_not_answer_holds_nothing_up(world, root, lab):
    """A dead network mount: whoever looks at it waits for ever. Here it is a FUSE filesystem whose server never says a word."""
    lab.require_mounts()
    for name in ("on-top", "inside", "free"):
        lab.unit(root, name)

    def inner():
        libc = ctypes.CDLL(None, use_errno=True)
        for point in (root / "on-top", root / "inside/logs"):
            try:
                fd = os.open("/dev/fuse", os.O_RDWR)
            except OSError:
                return None
            if (
                libc.mount(
                    b"dead",
                    os.fsencode(point),
                    b"fuse",
                    0,
                    f"fd={fd},rootmode=40000,user_id=0,group_id=0".encode(),
                )
                != 0
            ):
                return None
        (root / "link").symlink_to("on-top")
        (root / "far").symlink_to("inside/logs/x/y")
        return lab.clean(world, root)

    result = lab.in_namespace(inner)
    if result is None:
        pytest.skip("no FUSE here")
    assert lab.names(result["removed"]) == ["free"] and set(lab.reasons(result)) == {
        "on-top",
        "inside",
        "link",
        "far",
    }


def test_a_mount_made_after_the_scan_survives(world, root, later, tmp_path, lab):
    lab.require_mounts()
    data, one = lab.unit(tmp_path, "data"), lab.unit(root, "run")

    def inner():
        return _two(root, later, world, _once(lambda: lab.mount("--bind", data, one / "logs")))

    result = lab.in_namespace(inner)
    assert (data / "model.bin").exists() and lab.names(result["removed"]) == ["z"]


def test_the_plan_of_a_filesystem_that_is_read_only_is_the_same_and_nothing_is_touched(
    world, root, lab
):
    lab.require_mounts()
    for name in ("a", "b"):
        lab.unit(root, name)
    before = lab.image(root)
    plan = lab.clean(world, root, check=True)
    assert lab.image(root) == before and plan["changed"]

    def inner():
        lab.mount("--bind", root, root)
        lab.mount("-o", "remount,ro,bind", root)
        return lab.clean(world, root, check=True), lab.clean(world, root)

    checked, failed = lab.in_namespace(inner)
    assert checked["plan"] == plan["plan"] and "failed" not in checked
    assert failed["failed"] and not failed["changed"] and failed["freed_bytes"] == 0
    done = lab.clean(world, root)
    assert done["removed"] == plan["removed"] and done["freed_bytes"] == plan["freed_bytes"]


# --- sizes --------------------------------------------------------------------------------------------------------


def _du(*paths):
    return int(
        subprocess.run(
            ["du", "-sc", "--block-size=1", *map(str, paths)],
            capture_output=True,
            text=True,
            check=True,
        )
        .stdout.splitlines()[-1]
        .split()[0]
    )


def test_sizes_are_those_of_du_and_links_count_when_the_last_one_goes(world, root, tmp_path, lab):
    one, two = lab.unit(root, "one"), lab.unit(root, "two")
    with open(one / "sparse", "wb") as stream:
        stream.truncate(1 << 30)
        stream.write(b"x" * 9000)
    os.link(one / "model.bin", one / "inside")
    os.link(one / "logs/train.log", two / "shared")
    os.link(two / "model.bin", tmp_path / "outside")
    expected = _du(one, two)
    outside = os.stat(tmp_path / "outside").st_blocks * 512
    result = lab.clean(world, root)
    assert {entry["path"]: entry["size"] for entry in result["plan"]}.keys() == {str(one), str(two)}
    assert result["freed_bytes"] == expected - outside


def test_each_units_size_is_that_of_du(world, root, lab):
    one, two = lab.unit(root, "one"), lab.unit(root, "two", files=("a", "b", "c/d"), size=70000)
    os.link(one / "model.bin", two / "shared")
    expected = {str(one): _du(one), str(two): _du(two)}
    assert {
        entry["path"]: entry["size"] for entry in lab.clean(world, root, check=True)["plan"]
    } == expected


# --- brakes, locks, refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize("brake", [{"max_units": 2}, {"max_bytes": 10_000}, {"max_share": 0.7}])
def test_the_brake_leaves_the_tree_as_it_was_and_returns_the_plan(world, root, lab, brake):
    for name in ("a", "b", "c"):
        lab.unit(root, name)
    lab.unit(root, "pinned")
    before = lab.image(root)
    with pytest.raises(Braked) as stopped:
        lab.clean(world, root, brake=brake, exclude=["pinned"])
    assert lab.image(root) == before and lab.names(stopped.value.result["plan"]) == ["a", "b", "c"]
    assert stopped.value.result["removed"] == [] and not stopped.value.result["changed"]
    loose = {"max_units": 3, "max_bytes": 10_000_000, "max_share": 0.75}
    assert lab.clean(world, root, brake=loose, exclude=["pinned"])["removed_count"] == 3


def test_two_at_once_one_of_them_is_told(world, root, lab):
    lab.unit(root, "a")
    before = lab.image(root)
    with locks.lock(os.path.join(locks.lock_directory(), "cleanup.lock"), "cleanup"):
        with pytest.raises(LockBusy):
            lab.clean(world, root)
        assert lab.image(root) == before
        assert lab.clean(world, root, check=True)["changed"]


def test_without_a_fresh_verified_backup_nothing_goes(world, clock, root, tmp_path, lab):
    from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.make import (
        run as backups,
    )
    from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.options import (
        BackupOptions,
    )

    models = lab.unit(tmp_path, "models")
    lab.unit(root, "a")
    directory = tmp_path / "backups"
    with pytest.raises(Refused, match="no verified backup"):
        lab.clean(world, root, require_backup={"path": str(directory)})
    done = backups.run(
        BackupOptions.from_mapping({"source": str(models), "destination": str(directory)}), world
    ).to_dict()
    archive = done["backup"]["path"]
    clock.time += 26 * 3600
    with pytest.raises(Refused, match="26 h"):
        lab.clean(world, root, require_backup={"path": str(directory)})
    assert os.listdir(root) == ["a"]
    assert lab.clean(
        world, root, require_backup={"path": str(directory), "max_age_hours": 27}, check=True
    )["changed"]
    assert lab.clean(
        world,
        root,
        require_backup={"path": archive + ".manifest.json", "max_age_hours": 27},
        check=True,
    )["changed"]
    clock.time -= 40 * DAY  # the clock was wrong when the backup was made, or is wrong now
    with pytest.raises(Refused, match="future"):
        lab.clean(world, root, require_backup={"path": str(directory)})
    clock.time += 40 * DAY
    with open(archive, "ab") as stream:
        stream.write(b"damage")
    with pytest.raises(Refused, match=r"no verified backup \(models_backup_.*bytes long"):
        lab.clean(world, root, require_backup={"path": str(directory), "max_age_hours": 27})


def test_a_missing_root_is_reported_and_no_error(world, tmp_path, lab):
    result = lab.clean(world, tmp_path / "not-there")
    assert not result["changed"] and result["targets"][0]["status"] == "missing"


def test_a_root_that_is_a_file_fails_and_the_other_target_goes_on(world, root, tmp_path, lab):
    lab.unit(root, "a")
    (tmp_path / "file").write_text("x")
    given = {
        "targets": [
            {"name": "bad", "path": str(tmp_path / "file"), "retention_days": 0},
            {"name": "good", "path": str(root), "retention_days": 0},
        ]
    }
    result = run.run(CleanupOptions.from_mapping(given), world).to_dict()
    assert (
        result["failed"] and lab.names(result["removed"]) == ["a"] and (tmp_path / "file").exists()
    )
    assert [one["status"] for one in result["targets"]] == ["failed", "ok"]


def test_a_root_that_stops_answering_fails_and_the_other_target_goes_on(
    world, root, later, lab, monkeypatch
):
    """A disk that fails while it is read."""
    lab.unit(root, "a")
    real = os.scandir

    def scandir(path="."):
        if isinstance(path, int) and os.readlink(f"/proc/self/fd/{path}") == str(root):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    result = _two(root, later, world, lambda progress: None)
    assert [one["status"] for one in result["targets"]] == [
        "failed",
        "ok",
    ] and "Input/output error" in result["failures"][0]["error"]
    assert lab.names(result["removed"]) == ["z"] and (root / "a/model.bin").exists()


def test_a_root_whose_parent_anybody_may_write_to_is_refused(world, tmp_path, lab):
    lab.unit(tmp_path / "open" / "root", "a")
    os.chmod(tmp_path / "open", 0o777)
    with pytest.raises(Refused, match="anybody"):
        lab.clean(world, tmp_path / "open" / "root")
    os.chmod(tmp_path / "open", 0o1777)
    assert lab.clean(world, tmp_path / "open" / "root")["changed"]


def test_a_root_behind_somebody_elses_link_is_refused(world, tmp_path, root, lab):
    lab.require_root()
    lab.unit(root, "a")
    (tmp_path / "link").symlink_to(root)
    os.lchown(tmp_path / "link", 65534, 65534)
    with pytest.raises(Refused, match="not ours"):
        lab.clean(world, tmp_path / "link")
    assert os.listdir(root) == ["a"]


# --- failures -----------------------------------------------------------------------------------------------------


def test_a_unit_that_resists_is_reported_and_the_others_go(world, root, lab):
    lab.require_root()
    for name in ("a", "b", "c"):
        lab.unit(root, name)
    if (
        subprocess.run(
            ["chattr", "+i", root / "b/model.bin"], capture_output=True, check=False
        ).returncode
        != 0
    ):
        pytest.skip("this filesystem has no immutable flag")
    try:
        result = lab.clean(world, root)
        assert (
            lab.names(result["removed"]) == ["a", "c"]
            and result["failed"]
            and "model.bin" in result["failures"][0]["error"]
        )
        assert "b" not in os.listdir(root)
        # What is left stays in quarantine, where nobody takes it for a whole unit, and is tried again by the next run.
        assert (
            os.path.exists(result["failures"][0]["path"]) and TRASH in result["failures"][0]["path"]
        )
        assert lab.clean(world, root)["failed"]
    finally:
        subprocess.run(["chattr", "-i", "-R", root], capture_output=True, check=False)
    assert lab.clean(world, root)["removed_count"] == 1 and os.listdir(root) == []


def test_another_user_cleans_what_is_his(world, tmp_path, lab):
    lab.require_root()
    base = pathlib.Path("/var/tmp") / f"cleanup-test-{os.getpid()}"
    base.mkdir(mode=0o755)
    try:
        root = base / "root"
        root.mkdir()
        os.chmod(root, 0o1777)
        lab.unit(root, "roots")
        lab.as_nobody(
            lambda: lab.unit(root, "mine", files=("a", "d/b")) and os.chmod(root / "mine/d", 0o500)
        )
        result = lab.as_nobody(lambda: lab.clean(world, root))
        assert (
            lab.names(result["removed"]) == ["mine"]
            and "another user" in lab.reasons(result)["roots"]
        )
        assert "failed" not in result and os.listdir(root) == ["roots"]
        os.chmod(root, 0o755)
        lab.unit(root, "more")
        result = lab.as_nobody(lambda: lab.clean(world, root, in_use="ignore"))
        assert (
            result["failed"]
            and result["removed"] == []
            and sorted(os.listdir(root)) == ["more", "roots"]
        )
        os.chmod(root, 0o700)
        assert lab.as_nobody(lambda: lab.clean(world, root))["targets"][0]["status"] == "failed"
    finally:
        shutil.rmtree(base)


def test_a_file_that_this_user_may_not_link_goes_back_all_the_same(world, clock, lab):
    """Sysctl fs.protected_hardlinks, and filesystems without hard links."""
    lab.require_root()
    if pathlib.Path("/proc/sys/fs/protected_hardlinks").read_text().strip() != "1":
        pytest.skip("every file may be linked here")
    root = pathlib.Path("/var/tmp") / f"cleanup-test-{os.getpid()}"
    root.mkdir(mode=0o755)
    try:
        for name in ("roots", "spare"):
            (root / name).write_text(name)
            (root / name).chmod(0o644)
        os.chown(root, 65534, 65534)

        def replace():
            os.rename(root / "roots", root / "aside")
            os.rename(root / "spare", root / "roots")

        def inner():
            later = root / "later"
            lab.unit(later, "z")
            return _two(root, later, world, _once(replace), in_use="ignore")

        result = lab.as_nobody(inner)
        assert "replaced" in lab.reasons(result)["roots"] and "failed" not in result
        assert (
            sorted(os.listdir(root)) == ["aside", "later", "roots"]
            and (root / "roots").read_text() == "spare"
        )
    finally:
        shutil.rmtree(root)


def test_a_full_filesystem_is_no_obstacle(world, tmp_path, lab):
    """Not even a directory can be made: files go first, then there is room for the quarantine directory."""
    lab.require_mounts()
    root = tmp_path / "full"
    root.mkdir()

    def inner():
        lab.mount("-t", "tmpfs", "-o", "size=1m,nr_inodes=20", "none", root)
        lab.unit(root, "run")
        try:
            for number in range(100):
                (root / f"f{number}").write_text("x")
        except OSError:
            pass
        with pytest.raises(OSError, match="No space"):
            os.mkdir(root / "more")
        return lab.clean(world, root), os.listdir(root)

    result, left = lab.in_namespace(inner)
    assert "failed" not in result and left == []


def test_a_full_disk_that_holds_nothing_but_directories_is_no_obstacle(world, tmp_path, lab):
    """As data disks are: without a reserve for root, and every unit a directory."""
    lab.require_mounts()
    if not shutil.which("mkfs.ext4"):
        pytest.skip("needs mkfs.ext4")
    image, disk = tmp_path / "image", tmp_path / "disk"
    disk.mkdir()
    with open(image, "wb") as stream:
        stream.truncate(8 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)

    def inner():
        if subprocess.run(
            ["mount", "-o", "loop", image, disk], capture_output=True, check=False
        ).returncode:
            return None
        root = disk / "a/runs"
        for number in range(3):
            lab.unit(root, f"run-{number}")
        with pytest.raises(OSError, match="No space"):
            (root / "run-0/fill").write_bytes(bytes(8 << 20))
        with pytest.raises(OSError, match="No space"):
            for number in range(10000):
                os.mkdir(root / f"run-0/{number}")
        return lab.clean(world, root), os.listdir(root)

    found = lab.in_namespace(inner)
    if found is None:
        pytest.skip("no loop device")
    result, left = found
    assert "failed" not in result and result["removed_count"] == 3 and left == []


def test_the_report_holds_everything_and_only_its_group_reads_it(world, root, tmp_path, lab):
    for number in range(1005):
        (root / f"f{number}").write_text("x")
    path = tmp_path / "report.json"
    assert (
        lab.clean(world, root, report_path=str(path), check=True)["plan_count"] == 1005
        and not path.exists()
    )
    result = lab.clean(world, root, report_path=str(path))
    report = json.loads(path.read_text())
    assert len(result["removed"]) == 1000 and result["removed_count"] == 1005 == len(
        report["removed"]
    )
    assert report["hostname"] == world.hostname and path.stat().st_mode & 0o777 == 0o640
    with pytest.raises(NotUsable, match="does not exist"):
        lab.clean(world, root, report_path=str(tmp_path / "no/report.json"))
    (root / "more").write_text("x")
    with pytest.raises(NotUsable, match="is a directory"):
        lab.clean(world, root, report_path=str(tmp_path))
    assert os.listdir(root) == ["more"]


def test_an_unanswering_process_table_ends_the_run_before_anything_goes(world, root, tmp_path, lab):
    lab.unit(root, "a")
    world.root = str(tmp_path / "no-proc-here")
    with pytest.raises(NotUsable, match="in use"):
        lab.clean(world, root)
    assert os.listdir(root) == ["a"]


# --- the usual places ---------------------------------------------------------------------------------------------


def test_the_old_scripts_places_by_default(world, clock, tmp_path, lab):
    lab.require_mounts()

    def inner():
        for path in ("/opt", "/var/log", "/tmp"):
            lab.mount(
                "-t", "tmpfs", "-o", "mode=1777" if path == "/tmp" else "mode=755", "none", path
            )
        # The new /tmp hides where this test's locks are; this is a child with an environment of its own.
        os.environ["MLOPS_FLEET_LOCK_DIR"] = "/tmp/mlops-fleet-locks"
        now = time.time()
        clock.time = now + 20 * DAY
        for path in ("/opt/ml/experiments/e20", "/opt/ml/checkpoints/c20"):
            lab.unit(*os.path.split(path))
        ours = (
            "ml-backup.log",
            "ml-cleanup.log.3.gz",
            "ml-health-check.log-20260101",
            "ml-maintenance.log.1",
        )
        for path in (
            "/var/log/ml-api.log.9",
            "/var/log/syslog",
            "/tmp/ml-new",
            "/tmp/other",
            *(f"/var/log/{name}" for name in ours),
        ):
            pathlib.Path(path).write_text("x")
        os.utime("/tmp/ml-new", (clock.time, clock.time))
        first = run.run(CleanupOptions.from_mapping({}), world).to_dict()
        clock.time = now + 29.9 * DAY
        second = run.run(CleanupOptions.from_mapping({}), world).to_dict()
        clock.time = now + 30.1 * DAY
        third = run.run(CleanupOptions.from_mapping({"only": ["experiments"]}), world).to_dict()
        aggressive = run.run(
            CleanupOptions.from_mapping({"aggressive": True, "only": ["tmp"]}), world
        ).to_dict()
        return (
            first,
            second,
            third,
            aggressive,
            sorted(os.listdir("/tmp")),
            sorted(set(os.listdir("/var/log")) - set(ours)),
        )

    first, second, third, aggressive, tmp, log = lab.in_namespace(inner)
    assert [one["path"] for one in first["removed"]] == [
        "/opt/ml/checkpoints/c20",
        "/var/log/ml-api.log.9",
        "/tmp/ml-new",
    ]
    assert sum("log rotation" in one["reason"] for one in first["kept"]) == 4
    assert [one["name"] for one in first["targets"]] == [
        "experiments",
        "checkpoints",
        "logs",
        "temp",
    ]
    assert not second["changed"] and [one["path"] for one in third["removed"]] == [
        "/opt/ml/experiments/e20"
    ]
    assert [one["path"] for one in aggressive["removed"]] == ["/tmp/other"]
    assert tmp == ["mlops-fleet-locks"] and log == ["syslog"]  # never the lock that is held


def test_isolated_runs_do_not_disturb_the_parent(world, root, lab):
    """The process table is read in a child; nothing of it is left behind."""
    lab.unit(root, "a")
    before = len(os.listdir("/proc/self/fd"))
    lab.clean(world, root)
    assert len(os.listdir("/proc/self/fd")) == before
    assert isolate.call(lambda: 1, 5).value == 1
