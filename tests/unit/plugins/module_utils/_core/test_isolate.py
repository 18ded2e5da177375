# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import signal
import time

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core import isolate
from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import FleetError, MissingLibrary


def _gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def _stubborn() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(60)


def test_value_comes_back_whole():
    found = isolate.call(lambda: {"text": "x" * 1_000_000}, 10)
    assert found.value == {"text": "x" * 1_000_000} and not found.timed_out and found.error is None


def test_a_stuck_call_ends_at_its_deadline_and_is_killed():
    start = time.monotonic()
    found = isolate.call(_stubborn, 0.3)
    assert found.timed_out and time.monotonic() - start < 2
    assert not found.alive and _gone(found.pid)


def test_one_stuck_call_does_not_hold_up_the_others():
    found = isolate.call_many({"slow": lambda: time.sleep(30), "quick": lambda: 7}, timeout=0.5)
    assert list(found) == ["slow", "quick"]
    assert found["slow"].timed_out and found["quick"].value == 7 and found["quick"].duration < 0.4


def test_calls_run_side_by_side_under_a_total_deadline():
    start = time.monotonic()
    found = isolate.call_many({str(i): lambda: time.sleep(30) for i in range(5)}, timeout=10, total=0.3)
    assert all(one.timed_out for one in found.values()) and time.monotonic() - start < 3


def test_grandchildren_die_with_the_call(tmp_path):
    note = tmp_path / "pid"

    def parent_of_sleeper() -> None:
        pid = os.fork()
        if pid == 0:
            time.sleep(60)
        note.write_text(str(pid))
        time.sleep(60)

    assert isolate.call(parent_of_sleeper, 0.5).timed_out
    time.sleep(0.1)
    state = open(f"/proc/{note.read_text()}/stat").read().split()[2] if not _gone(int(note.read_text())) else "Z"
    assert state == "Z"


def test_typed_errors_keep_their_type():
    def fail() -> None:
        raise MissingLibrary("psutil", "to read memory", "ImportError: no psutil")

    error = isolate.call(fail, 5).error
    assert isinstance(error, MissingLibrary) and error.library == "psutil" and "install psutil" in str(error)


def test_any_other_error_is_reported_not_lost():
    error = isolate.call(lambda: 1 // 0, 5).error
    assert isinstance(error, FleetError) and "ZeroDivisionError" in str(error)


def test_a_killed_child_is_an_error_not_an_answer():
    error = isolate.call(lambda: os.kill(os.getpid(), signal.SIGKILL), 5).error
    assert error is not None and "died" in str(error)


@pytest.mark.parametrize("stream", [1, 2])
def test_the_child_does_not_hold_our_output(stream, tmp_path):
    read_fd, write_fd = os.pipe()
    kept = os.dup(stream)
    os.dup2(write_fd, stream)
    try:
        isolate.call(lambda: time.sleep(30), 0.2)
    finally:
        os.dup2(kept, stream)
        os.close(kept)
        os.close(write_fd)
    assert os.read(read_fd, 10) == b""
    os.close(read_fd)
