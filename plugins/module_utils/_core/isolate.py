# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run something that may hang in a forked child with a deadline, killed as a group, never waited for.

A system call on a dead mount or a wedged driver can't be interrupted by a signal, and a thread that sits in one keeps the
interpreter from exiting. A forked child in a session of its own, with no descriptor of ours but the result pipe, can be left
behind: the caller gets its answer at the deadline even when SIGKILL has no effect yet.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .errors import FleetError


@dataclass(frozen=True)
class Outcome:
    """What became of one isolated call.

    Exactly one of three: C(error) is None and C(value) is what the function returned; C(error) is the exception it raised
    (a FleetError keeps its type, anything else arrives as a FleetError); C(timed_out) is true. C(pid) is the child's,
    C(alive) says whether it could not be killed by then (stuck in the kernel), C(duration) is in seconds.
    """

    value: Any = None
    error: FleetError | None = None
    timed_out: bool = False
    pid: int = 0
    alive: bool = False
    duration: float = 0.0


@dataclass
class _Child:
    pid: int
    fd: int
    started: float
    deadline: float
    data: bytes = b""


def _start(function: Callable[[], Any], timeout: float) -> _Child:
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        _child(function, write_fd)
    os.close(write_fd)
    os.set_blocking(read_fd, False)
    now = time.monotonic()
    return _Child(pid, read_fd, now, now + timeout)


def _child(function: Callable[[], Any], write_fd: int) -> None:
    """Run in the forked child; never returns and never runs the parent's exit handlers."""
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        # Locks and pipes of the parent must not live on in a child that can't be killed.
        for fd in [int(name) for name in os.listdir("/proc/self/fd")]:
            if fd > 2 and fd != write_fd:
                with contextlib.suppress(OSError):
                    os.close(fd)
        try:
            answer: tuple[str, Any] = ("value", function())
        except FleetError as error:
            answer = ("error", error)
        except BaseException as error:  # noqa: BLE001  # whatever it is, the parent must hear of it
            answer = ("error", FleetError(f"{type(error).__name__}: {error}"))
        data = memoryview(pickle.dumps(answer))
        while data:
            data = data[os.write(write_fd, data) :]
    finally:
        os._exit(0)  # pylint: disable=protected-access


def _outcome(child: _Child, timed_out: bool) -> Outcome:
    os.close(child.fd)
    with contextlib.suppress(OSError):
        os.killpg(child.pid, signal.SIGKILL)  # also what the function left running
    alive = not _reap(child.pid, 0.2)
    duration = time.monotonic() - child.started
    if timed_out:
        return Outcome(timed_out=True, pid=child.pid, alive=alive, duration=duration)
    try:
        kind, value = pickle.loads(child.data)
    except (pickle.UnpicklingError, EOFError):
        return Outcome(error=FleetError("The isolated call died without an answer (killed, or out of memory)."), pid=child.pid, duration=duration)
    if kind == "error":
        return Outcome(error=value, pid=child.pid, duration=duration)
    return Outcome(value=value, pid=child.pid, duration=duration)


def _reap(pid: int, patience: float) -> bool:
    """Collect the child without ever blocking on it; say whether it is gone."""
    end = time.monotonic() + patience
    while True:
        try:
            if os.waitpid(pid, os.WNOHANG)[0] == pid:
                return True
        except ChildProcessError:
            return True
        if time.monotonic() >= end:
            return False
        time.sleep(0.002)


def call_many(jobs: Mapping[str, Callable[[], Any]], timeout: float, total: float | None = None) -> dict[str, Outcome]:
    """Run all functions at once, each in a child of its own; return their outcomes by name, in the order given.

    :param timeout: seconds for each. :param total: seconds for all together.
    Values travel pickled through a pipe, so they must be plain data.
    """
    running = {}
    for name, function in jobs.items():
        running[name] = _start(function, min(timeout, total) if total is not None else timeout)
    found: dict[str, Outcome] = {}
    while running:
        now = time.monotonic()
        wait = max(0.0, min(child.deadline for child in running.values()) - now)
        ready = set(select.select([child.fd for child in running.values()], [], [], wait)[0])
        for name, child in list(running.items()):
            finished = False
            if child.fd in ready:
                with contextlib.suppress(BlockingIOError):
                    while True:
                        chunk = os.read(child.fd, 1 << 16)
                        if not chunk:
                            finished = True
                            break
                        child.data += chunk
            if finished or time.monotonic() >= child.deadline:
                found[name] = _outcome(running.pop(name), timed_out=not finished)
    return {name: found[name] for name in jobs}


def call(function: Callable[[], Any], timeout: float) -> Outcome:
    """Run one function in a child of its own, C(timeout) in seconds."""
    return call_many({"": function}, timeout)[""]
