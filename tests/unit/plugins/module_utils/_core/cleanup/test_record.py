# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The record of every removal: one line for each unit in the log and in the journal, and none for what stayed."""

from __future__ import annotations

import os
import re
import socket
import tempfile

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup import record, run
from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup.brake import Braked
from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup.options import (
    CleanupOptions,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup.record import Recorder
from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup.removals import NamedRemoval


@pytest.fixture
def journal():
    """A socket that receives like journald's, and the entries it got."""
    with tempfile.TemporaryDirectory() as directory:
        receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        receiver.bind(f"{directory}/socket")
        receiver.setblocking(False)

        def entries():
            received = []
            while True:
                try:
                    data = receiver.recv(65536).decode()
                except BlockingIOError:
                    return received
                received.append(dict(line.split("=", 1) for line in data.splitlines()))

        yield f"{directory}/socket", entries
        receiver.close()


def _clean(world, root, recorder, check=False, **more):
    options = {"targets": [{"name": "runs", "path": str(root), "retention_days": 30}], **more}
    return run.run(CleanupOptions.from_mapping(options), world, check=check, recorder=recorder)


def _unrecorded(result):
    return [note for note in result["notes"] if note.startswith("Not recorded")]


LINE = (
    r"\d+-\d\d-\d\d \d\d:\d\d:\d\d \[INFO\] removed {path} \(target runs, {size} B,"
    r" age 5[01]\.\d+ days\): 5[01]\.\d days old, kept 30\.0 days"
)


def test_one_line_for_each_unit(world, clock, root, tmp_path, journal, lab):
    lab.unit(root, "run\nx")
    (root / "file").write_text("x")
    young = lab.unit(root, "young")
    os.utime(young / "model.bin", (clock.time, clock.time))
    log = tmp_path / "cleanup.log"
    log.write_text("before\n")
    result = _clean(world, root, Recorder(str(log), journal=journal[0])).to_dict()
    sizes = {entry["path"]: entry["size"] for entry in result["removed"]}
    assert len(sizes) == 2 and _unrecorded(result) == []
    lines = log.read_text().splitlines()
    assert lines[0] == "before" and len(lines) == 3
    for path, size in sizes.items():
        pattern = LINE.format(path=re.escape(path), size=size)
        assert sum(bool(re.fullmatch(pattern, line)) for line in lines) == 1
    entries = journal[1]()
    assert {(entry["MLOPS_PATH"], entry["MLOPS_SIZE"]) for entry in entries} == {
        (path, str(size)) for path, size in sizes.items()
    }
    assert {entry["MLOPS_TARGET"] for entry in entries} == {"runs"}
    assert {entry["SYSLOG_IDENTIFIER"] for entry in entries} == {"mlops-cleanup"}
    assert {entry["MESSAGE"] for entry in entries} == {
        line.split("[INFO] ")[1] for line in lines[1:]
    }


def test_a_check_and_a_braked_run_record_nothing(world, root, tmp_path, journal, lab):
    lab.unit(root, "run")
    log = tmp_path / "cleanup.log"
    log.write_text("")
    recorder = Recorder(str(log), journal=journal[0])
    _clean(world, root, recorder, check=True)
    with pytest.raises(Braked):
        _clean(world, root, recorder, brake={"max_units": 0})
    assert log.read_text() == "" and journal[1]() == []


def test_each_unit_is_recorded_before_the_next_one_is_removed(
    world, root, tmp_path, lab, monkeypatch
):
    """What stops the run in the middle does not lose the record of what was removed before."""
    for name in ("a", "b", "c"):
        lab.unit(root, name)
    log = tmp_path / "cleanup.log"
    log.write_text("")
    from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup import steps

    real, seen = steps.remove, []

    def remove(*arguments):
        seen.append(len(log.read_text().splitlines()))
        if len(seen) == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(steps, "remove", remove)
    with pytest.raises(KeyboardInterrupt):
        _clean(world, root, Recorder(str(log), journal="/nowhere"))
    assert seen == [0, 1, 2] and len(log.read_text().splitlines()) == 2


@pytest.mark.parametrize("flaw", ["link", "directory", "pipe"])
def test_a_log_that_can_not_be_written_is_reported_and_stops_nothing(
    world, root, tmp_path, lab, flaw
):
    lab.unit(root, "run")
    log = tmp_path / "cleanup.log"
    if flaw == "link":
        log.symlink_to(tmp_path / "elsewhere")
        (tmp_path / "elsewhere").write_text("")
    elif flaw == "directory":
        log.mkdir()
    else:
        os.mkfifo(log)
    result = _clean(world, root, Recorder(str(log), journal="/nowhere")).to_dict()
    assert result["removed_count"] == 1 and "failed" not in result
    assert _unrecorded(result)[0].startswith(f"Not recorded in {log}: ")
    assert flaw != "link" or (tmp_path / "elsewhere").read_text() == ""


def test_a_full_disk_under_the_log_is_reported_once(world, root, lab):
    for name in ("a", "b"):
        lab.unit(root, name)
    result = _clean(world, root, Recorder("/dev/full", journal="/nowhere")).to_dict()
    assert result["removed_count"] == 2
    assert _unrecorded(result) == ["Not recorded in /dev/full: No space left on device."]


def test_a_log_is_made_only_when_that_is_asked_for(tmp_path):
    path = tmp_path / "cleanup.log"
    removal = NamedRemoval("docker", "image:1", "image", 5, None, "why\nnot")
    with Recorder(str(path), journal="/nowhere") as recorder:
        recorder(removal)
    assert not path.exists() and recorder.problems == []
    with Recorder(str(path), create=True, journal="/nowhere") as recorder:
        recorder(removal)
    assert "removed image:1 (target docker, 5 B, age unknown days): why not" in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o640 & ~_umask()
    with Recorder(str(tmp_path / "no/log"), create=True, journal="/nowhere") as recorder:
        recorder(removal)
    assert "does not exist" in recorder.problems[0]


def _umask():
    current = os.umask(0)
    os.umask(current)
    return current


def test_a_journal_that_accepts_nothing_holds_nothing_up(monkeypatch, tmp_path):
    monkeypatch.setattr(record, "PATIENCE", 0.05)
    path = str(tmp_path / "socket")
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    receiver.bind(path)
    try:
        with Recorder(None, journal=path) as recorder:
            for dummy in range(5000):
                recorder(NamedRemoval("t", "/p", "file", 1, 1.0, "why"))
    finally:
        receiver.close()
    assert len(recorder.problems) == 1 and recorder.problems[0].startswith("the journal: ")
