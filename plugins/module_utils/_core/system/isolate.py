# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run something that may hang in a forked child with a deadline, killed as a group, never waited
for.

A system call on a dead mount or a wedged driver can't be interrupted by a signal, and a thread that
sits in one keeps the interpreter from exiting. A forked child in a session of its own, with no
descriptor of ours but the result pipe, can be left behind: the caller gets its answer at the
deadline even when SIGKILL has no effect yet.
"""

from __future__ import annotations

import contextlib
import gc
import math
import os
import select
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import FleetError

try:
    from _pickle import dumps, loads  # what pickle itself uses, without its slow form
except ImportError:
    from pickle import dumps, loads
from ..records import dataclass, field


@dataclass(frozen=True)
class Outcome:
    """What became of one isolated call.

    Exactly one of three: C(error) is None and C(value) is what the function returned; C(error) is
    the exception it raised (a FleetError keeps its type, anything else arrives as a FleetError);
    C(timed_out) is true. C(pid) is the child's, C(alive) says whether it could not be killed by
    then (stuck in the kernel), C(duration) is in seconds.
    """

    value: Any = None
    error: FleetError | None = None
    timed_out: bool = False
    pid: int = 0
    alive: bool = False
    duration: float = 0.0


#: Children at one time; more jobs than that wait until one has ended.
_AT_ONCE = 128
#: Bytes that hold the length of the answer, so that a grandchild with our pipe open can't hold it
#: back.
_HEADER = 8


@dataclass
class _Child:
    pid: int
    fd: int
    started: float
    deadline: float
    data: bytearray = field(default_factory=bytearray)

    @property
    def whole(self) -> bool:
        return len(self.data) >= _HEADER + int.from_bytes(self.data[:_HEADER], "big")

    def read(self) -> bool:
        """Take what has come; say whether that is all."""
        with contextlib.suppress(BlockingIOError):
            while True:
                chunk = os.read(self.fd, 1 << 16)
                self.data += chunk
                if not chunk or self.whole:
                    return True
        return False


def _start(function: Callable[[], Any], timeout: float) -> _Child:
    """Start a child. :raises OSError: no process or descriptor is to be had."""
    read_fd, write_fd = os.pipe()
    try:
        pid = os.fork()
    except OSError:
        os.close(read_fd)
        os.close(write_fd)
        raise
    if pid == 0:
        _child(function, write_fd)
    os.close(write_fd)
    os.set_blocking(read_fd, False)
    now = time.monotonic()
    return _Child(pid, read_fd, now, now + timeout)


def _descriptors() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:  # no /proc here, or no descriptor left to read it
        return list(range(4096))


def _child(function: Callable[[], Any], write_fd: int) -> None:
    """Run in the forked child; never returns and never runs the parent's exit handlers."""
    try:
        os.setsid()
        gc.freeze()  # a collection would write to, and so copy, all that is shared with the parent
        # Locks and pipes of the parent must not live on in a child that can't be killed.
        for fd in _descriptors():
            if fd > 2 and fd != write_fd:
                with contextlib.suppress(OSError):
                    os.close(fd)
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        try:
            reply: tuple[str, Any] = ("value", function())
        except FleetError as error:
            reply = ("error", error)
        except BaseException as error:  # noqa: BLE001  # whatever it is, the parent must hear of it
            reply = ("error", FleetError(f"{type(error).__name__}: {error}"))
        whole = dumps(reply)
        data = memoryview(len(whole).to_bytes(_HEADER, "big") + whole)
        while data:
            data = data[os.write(write_fd, data) :]
    finally:
        os._exit(0)  # pylint: disable=protected-access


def _families(pids: list[int]) -> list[int]:
    """Return the processes and all that they started, in whatever session."""
    children: dict[int, list[int]] = {}
    with contextlib.suppress(OSError):
        for name in os.listdir("/proc"):
            if name.isdigit():
                with contextlib.suppress(OSError, IndexError, ValueError):
                    with open(f"/proc/{name}/stat", "rb") as stream:
                        children.setdefault(
                            int(stream.read().rpartition(b")")[2].split()[1]), []
                        ).append(int(name))
    found = list(pids)
    for pid in found:
        found += children.get(pid, [])
    return found


def _kill(children: list[_Child], whole_family: bool) -> None:
    """Kill children with their groups, and also what they started in other sessions (a program with
    a child of its own around it).
    """
    for child in children:
        os.close(child.fd)
    if not children:
        return
    pids = [child.pid for child in children]
    for pid in _families(pids) if whole_family else pids:
        for kill in (os.killpg, os.kill):  # it may not lead a group yet, or never have led one
            with contextlib.suppress(OSError):
                kill(pid, signal.SIGKILL)


def _outcome(child: _Child, timed_out: bool, alive: bool) -> Outcome:
    duration = time.monotonic() - child.started
    if timed_out:
        return Outcome(timed_out=True, pid=child.pid, alive=alive, duration=duration)
    if not child.whole:
        return Outcome(
            error=FleetError(
                "The isolated call died without an answer (killed, or out of memory)."
            ),
            pid=child.pid,
            duration=duration,
        )
    kind, value = loads(child.data[_HEADER:])
    if kind == "error":
        return Outcome(error=value, pid=child.pid, duration=duration)
    return Outcome(value=value, pid=child.pid, duration=duration)


def _reap(children: list[_Child], patience: float) -> set[int]:
    """Collect the children without ever blocking on one; return the process ids of those that are
    not gone.
    """
    end = time.monotonic() + patience
    left = {child.pid for child in children}
    while left:
        for pid in list(left):
            try:
                gone = os.waitpid(pid, os.WNOHANG)[0] == pid
            except ChildProcessError:
                gone = True
            if gone:
                left.discard(pid)
        if not left or time.monotonic() >= end:
            break
        time.sleep(0.002)
    return left


def _wait(children: list[_Child]) -> set[int]:
    """Wait until a child says something or the first deadline is over; return the descriptors with
    something to read.
    """
    poll = select.poll()  # unlike select() it takes any descriptor
    for child in children:
        poll.register(child.fd, select.POLLIN)
    patience = min(child.deadline for child in children) - time.monotonic()
    return {fd for fd, _event in poll.poll(min(max(0, math.ceil(patience * 1000)), 1 << 30))}


def call_many(  # long because the loop has each state of a child in one place
    jobs: Mapping[str, Callable[[], Any]], timeout: float, total: float | None = None
) -> dict[str, Outcome]:
    """Run all functions at once, each in a child of its own; return their outcomes by name, in the
    order given.

    :param timeout: seconds for each. :param total: seconds for all together; what could not even be
        started by then has timed out with C(pid) 0. Values travel pickled through a pipe, so they
        must be plain data.
    """
    end = math.inf if total is None else time.monotonic() + total
    waiting = list(jobs.items())[::-1]
    running: dict[str, _Child] = {}
    found: dict[str, Outcome] = {}
    try:
        while waiting or running:
            while waiting and len(running) < _AT_ONCE:
                name, function = waiting[-1]
                left = end - time.monotonic()
                try:
                    if left > 0:
                        running[name] = _start(function, min(timeout, left))
                    else:
                        found[name] = Outcome(timed_out=True)
                except OSError as error:
                    if running:
                        break  # tried again when one of them has ended
                    found[name] = Outcome(
                        error=FleetError(f"No process could be started: {error.strerror}.")
                    )
                waiting.pop()
            if not running:
                continue
            ready = _wait(list(running.values()))
            finished = {
                name: child for name, child in running.items() if child.fd in ready and child.read()
            }
            now = time.monotonic()
            late = {
                name: child
                for name, child in running.items()
                if name not in finished and now >= child.deadline
            }
            for name in (*finished, *late):
                del running[name]
            _kill(list(finished.values()), whole_family=False)
            _kill(list(late.values()), whole_family=True)
            alive = _reap([*finished.values(), *late.values()], 0.2)
            found.update({name: _outcome(child, False, False) for name, child in finished.items()})
            found.update(
                {name: _outcome(child, True, child.pid in alive) for name, child in late.items()}
            )
    finally:
        if running:  # an interrupt: nothing is left behind
            _kill(list(running.values()), whole_family=True)
            _reap(list(running.values()), 0.2)
    return {name: found[name] for name in jobs}


def call(function: Callable[[], Any], timeout: float) -> Outcome:
    """Run one function in a child of its own, C(timeout) in seconds."""
    return call_many({"": function}, timeout)[""]
