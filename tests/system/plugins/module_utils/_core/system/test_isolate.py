# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import resource
import signal
import time

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import (
    FleetError,
    MissingLibrary,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.system import isolate


def _gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def _ended(pid: int) -> bool:
    """Gone, or dead and only not collected by whoever inherited it."""
    return _gone(pid) or open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] in "ZX"


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
    found = isolate.call_many(
        {str(i): lambda: time.sleep(30) for i in range(5)}, timeout=10, total=0.3
    )
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
    state = (
        open(f"/proc/{note.read_text()}/stat").read().split()[2]
        if not _gone(int(note.read_text()))
        else "Z"
    )
    assert state == "Z"


def test_what_was_started_in_a_session_of_its_own_dies_too(tmp_path):
    """A program inside a probe has a child of its own around it: both are killed when only the
    probe's deadline is shorter.
    """
    note = tmp_path / "pid"

    def inner() -> None:
        note.write_text(str(os.getpid()))
        time.sleep(60)

    assert isolate.call(lambda: isolate.call(inner, 60).value, 1.5).timed_out
    time.sleep(0.2)
    assert _ended(int(note.read_text()))


def test_a_grandchild_with_our_pipe_does_not_hold_the_answer_back():
    def run() -> str:
        if os.fork() == 0:
            time.sleep(60)
        return "done"

    found = isolate.call(run, 5)
    assert found.value == "done" and found.duration < 3


def test_many_that_cannot_be_killed_cost_one_patience(monkeypatch):
    """The kernel keeps what sits in it: they are given up together, not one after the other."""
    kill = os.kill
    monkeypatch.setattr(isolate.os, "killpg", lambda pid, number: None)
    monkeypatch.setattr(isolate.os, "kill", lambda pid, number: None)
    begun = time.monotonic()
    found = isolate.call_many({str(number): lambda: time.sleep(9) for number in range(30)}, 0.5)
    took = time.monotonic() - begun
    assert all(one.timed_out and one.alive for one in found.values()) and took < 5
    monkeypatch.undo()
    for one in found.values():
        kill(one.pid, signal.SIGKILL)
        os.waitpid(one.pid, 0)


def test_a_child_that_had_no_time_to_begin_is_killed_all_the_same(monkeypatch):
    monkeypatch.setattr(isolate.os, "setsid", lambda: time.sleep(60))
    found = isolate.call(lambda: 7, 0.2)
    assert found.timed_out and not found.alive and _gone(found.pid)


def test_more_jobs_than_processes_at_once(monkeypatch):
    monkeypatch.setattr(isolate, "_AT_ONCE", 4)
    found = isolate.call_many(
        {str(number): (lambda number=number: number) for number in range(20)}, 5
    )
    assert [one.value for one in found.values()] == list(range(20)) and list(found) == [
        str(number) for number in range(20)
    ]
    found = isolate.call_many(
        {str(number): lambda: time.sleep(30) for number in range(6)}, 0.4, total=0.5
    )
    assert (
        all(one.timed_out for one in found.values())
        and [one.pid for one in found.values()].count(0) <= 2
    )


def test_descriptors_beyond_those_that_select_takes():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2000:
        pytest.skip("this process may not open so many files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (2000, hard))
    kept = []
    try:
        kept = [os.open(os.devnull, os.O_RDONLY) for dummy in range(1100)]
        assert isolate.call(lambda: 7, 5).value == 7
    finally:
        for fd in kept:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_too_few_descriptors_or_processes_are_an_error_of_that_call_only():
    def scarce():
        taken = len(os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (taken + 4, taken + 4))
        many = isolate.call_many(
            {str(number): (lambda number=number: number) for number in range(12)}, 5
        )
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, taken + 4))
        none = isolate.call(lambda: 7, 5)
        return [one.value for one in many.values()], str(none.error)

    values, text = isolate.call(scarce, 20).value
    assert values == list(range(12)) and "No process could be started: Too many open files" in text


def test_an_interrupt_leaves_nothing_behind(tmp_path):
    note = tmp_path / "pid"

    def job() -> None:
        note.write_text(str(os.getpid()))
        time.sleep(60)

    def stop(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, 1.5)
        with pytest.raises(KeyboardInterrupt):
            isolate.call(job, 30)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert _ended(int(note.read_text()))


def test_typed_errors_keep_their_type():
    def fail() -> None:
        raise MissingLibrary("psutil", "to read memory", "ImportError: no psutil")

    error = isolate.call(fail, 5).error
    assert (
        isinstance(error, MissingLibrary)
        and error.library == "psutil"
        and "install psutil" in str(error)
    )


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
