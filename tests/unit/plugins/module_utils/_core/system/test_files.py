# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import (
    LockBusy,
    NotUsable,
    WriteFailed,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.system import (
    files,
    locks,
    text,
)


def test_atomic_write_replaces_whole_with_the_mode_asked(tmp_path):
    target = tmp_path / "f"
    target.write_text("old")
    old = os.umask(0o077)
    try:
        files.atomic_write(str(target), "new", mode=0o644)
    finally:
        os.umask(old)
    assert target.read_text() == "new" and target.stat().st_mode & 0o777 == 0o644
    assert os.listdir(tmp_path) == ["f"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_file_stays_its_owners_unless_anybody_could_have_made_it(tmp_path):
    for mode, kept in ((0o755, True), (0o1777, False)):
        os.chmod(tmp_path, mode)
        target = tmp_path / "state"
        target.write_text("old")
        os.chown(target, 65534, 65534)
        files.atomic_write(str(target), "new", mode=0o600)
        found = target.stat()
        assert (
            target.read_text() == "new"
            and ((found.st_uid, found.st_gid) == (65534, 65534)) is kept
            and found.st_mode & 0o777 == 0o600
        )
        target.unlink()


def test_a_full_disk_leaves_the_old_file_and_no_rubbish(tmp_path):
    """A file size limit stands for the full disk: the kernel refuses the write half-way, as ENOSPC
    would.
    """
    (tmp_path / "f").write_text("old")
    program = (
        "import resource, signal, sys\nfrom"
        " ansible_collections.mlops.fleet.plugins.module_utils._core.system import files,"
        " locks\nsignal.signal(signal.SIGXFSZ,"
        " signal.SIG_IGN)\nresource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\ntry:\n   "
        f" files.atomic_write({str(tmp_path / 'f')!r}, b'x' * 5000)\nexcept files.WriteFailed as"
        " error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
        check=True,
    )
    assert "Can't write" in done.stdout and "File too large" in done.stdout
    assert (tmp_path / "f").read_text() == "old" and os.listdir(tmp_path) == ["f"]


def test_missing_directory_is_named(tmp_path):
    with pytest.raises(WriteFailed, match="nowhere"):
        files.atomic_write(str(tmp_path / "nowhere" / "f"), "x")


def test_json_errors_name_file_and_place(tmp_path):
    path = tmp_path / "c.json"
    assert files.read_json(str(path)) is None
    path.write_text('{"a": 1,\n"b" 2}')
    with pytest.raises(NotUsable, match=r"c\.json.*line 2"):
        files.read_json(str(path))


def test_a_lock_directory_that_can_not_be_made_is_one_clear_message(tmp_path, monkeypatch):
    monkeypatch.setenv("MLOPS_FLEET_LOCK_DIR", str(tmp_path / "missing" / "locks"))
    with pytest.raises(WriteFailed, match="MLOPS_FLEET_LOCK_DIR"):
        locks.lock_directory()


def test_only_one_holder_and_a_crash_frees_the_lock(tmp_path):
    path = str(tmp_path / "l")
    program = (
        "import os, sys\nfrom ansible_collections.mlops.fleet.plugins.module_utils._core.system"
        f" import files, locks\nwith locks.lock({path!r}, 'backup'):\n    print('held',"
        " flush=True); sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
    )
    try:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(LockBusy) as caught, locks.lock(path, "backup"):
            pass
        assert (caught.value.holder, caught.value.purpose) == (holder.pid, "backup")
    finally:
        holder.kill()
        holder.communicate()
    with locks.lock(path, "backup"):
        pass


@pytest.mark.parametrize("wait", [0.0, 0.1])
def test_a_lock_that_is_still_held_after_the_wait_is_busy(tmp_path, wait):
    path = str(tmp_path / "l")
    with locks.lock(path, "backup"):
        started = time.monotonic()
        with pytest.raises(LockBusy), locks.lock(path, "backup", wait=wait):
            pass
        assert wait <= time.monotonic() - started < wait + 2


def test_a_lock_that_is_released_within_the_wait_is_taken(tmp_path):
    path = str(tmp_path / "l")
    holder = os.open(path, os.O_RDWR | os.O_CREAT)
    locks.acquire(holder)
    threading.Timer(0.1, os.close, (holder,)).start()
    with locks.lock(path, "backup", wait=20):
        assert (tmp_path / "l").read_text() == f"{os.getpid()}\n"


@pytest.mark.parametrize("content", [b"", b"garbage\xff", b"-7"])
def test_a_lock_file_without_a_process_id_has_an_unknown_holder(tmp_path, content):
    path = tmp_path / "l"
    path.write_bytes(content)
    fd = os.open(path, os.O_RDWR)
    try:
        locks.acquire(fd)
        with pytest.raises(LockBusy, match="process unknown") as caught, locks.lock(str(path), "x"):
            pass
        assert caught.value.holder is None
    finally:
        os.close(fd)


def test_a_lock_path_that_is_a_link_is_not_followed(tmp_path):
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "l").symlink_to(tmp_path / "victim")
    with pytest.raises(WriteFailed), locks.lock(str(tmp_path / "l"), "backup"):
        pass
    assert (tmp_path / "victim").read_text() == "precious"


@pytest.mark.parametrize(
    ("size", "display"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (5 * 1024**3, "5.0 GiB"),
        (2048 * 1024**4, "2048.0 TiB"),
    ],
)
def test_human_size(size, display):
    assert text.human_size(size) == display


@pytest.mark.parametrize(
    ("seconds", "display"),
    [(0.85, "850 ms"), (12.34, "12.3 s"), (245, "4 min 05 s"), (7380, "2 h 03 min")],
)
def test_human_duration(seconds, display):
    assert text.human_duration(seconds) == display
