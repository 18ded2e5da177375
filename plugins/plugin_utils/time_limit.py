# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Time limits of phases: on the node by coreutils' timeout, on the controller by an alarm.

Only for the controller.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
import typing as t

#: Seconds from the interrupt of a phase on the node until it is killed.
KILL_AFTER = 10
#: Seconds that the controller waits beyond the limit for the node to say that it stopped the phase.
GRACE = 20
#: Exit codes of timeout: it interrupted the program, or had to kill it.
_EXIT_CODES = (124, 128 + signal.SIGKILL)


class NoAnswer(BaseException):
    """The node did not answer in time. No Exception: connection plugins try again after those."""


def limited(command: str, seconds: float) -> str:
    """Return a shell command that interrupts a command after some seconds, as Ctrl-C does, then
    kills it.

    :param command: it may begin with assignments of variables.
    """
    return f"timeout --signal=INT --kill-after={KILL_AFTER} {seconds:g} env {command}"


def was_stopped(code: int, took: float, seconds: float) -> bool:
    """Say whether the exit code of a limited command means that its time was up."""
    return code in _EXIT_CODES and took >= seconds


@contextlib.contextmanager
def answer_within(seconds: float) -> t.Iterator[None]:
    """Raise NoAnswer when the body takes longer, and stop the programs (ssh) that it waits for.

    An alarm of Ansible's own (``task_timeout``) that is due earlier stays.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before, began = signal.getitimer(signal.ITIMER_REAL)[0], time.monotonic()
    if 0 < before <= seconds:
        yield
        return

    def give_up(number: int, frame: t.Any) -> None:  # noqa: ARG001
        raise NoAnswer

    handler = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except NoAnswer:
        _stop_children()
        raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if before:
            rest = before - (time.monotonic() - began)
            signal.setitimer(signal.ITIMER_REAL, max(0.01, rest))


def _stop_children() -> None:
    """Stop the processes that this worker started; they would wait for the node for ever."""
    own = os.getpid()
    if not os.path.isdir("/proc/self"):
        return
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError, ValueError, IndexError):
            with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as stream:
                parent = int(stream.read().rpartition(")")[2].split()[1])
            if parent == own:
                os.kill(int(name), signal.SIGTERM)
