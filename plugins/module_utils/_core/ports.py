# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The outside world as the core sees it: small protocols that a shell (or a test) fills in."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from .records import dataclass, field


@dataclass(frozen=True)
class CommandResult:
    """Exit status of a finished program (negative = killed by that signal) and its decoded
    output.
    """

    returncode: int
    stdout: str
    stderr: str


class CommandRunner(Protocol):
    """Runs programs. Never a shell; always with a deadline."""

    def __call__(
        self,
        argv: Sequence[str],
        timeout: float = 30.0,
        env: Mapping[str, str] | None = None,
        stdin: str | None = None,
    ) -> CommandResult:
        """Run ``argv``; its first item is an absolute path, or a name to find in PATH and the sbin
        directories.

        :param timeout: seconds; then the process group is killed.
        :param env: variables added to the environment (``LC_ALL=C`` is always set).
        :raises CommandFailed: the program does not exist (code MISSING), the deadline passed
            (TIMED_OUT), or it could not be started (FAILED). An exit status is no error here.
        """
        ...  # pylint: disable=unnecessary-ellipsis


class Clock(Protocol):
    """Time, injected so that tests can set it."""

    def now(self) -> float:
        """Return seconds since the epoch."""
        ...  # pylint: disable=unnecessary-ellipsis

    def monotonic(self) -> float:
        """Return seconds of a clock that never steps."""
        ...  # pylint: disable=unnecessary-ellipsis


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


@dataclass(frozen=True)
class Progress:
    """Progress of a long operation.

    ``done`` and ``total`` are in ``unit`` (``bytes`` or ``files``); total 0 = unknown.
    """

    phase: str
    done: int = 0
    total: int = 0
    unit: str = "bytes"
    subject: str = ""


Tell = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """Ignore progress."""


def hostname() -> str:
    """Return this machine's host name as the kernel knows it."""
    return os.uname().nodename


#: What the agent, cleanups and alerts keep between runs.
STATE = "/var/lib/mlops-fleet"
STATE_VARIABLE = "MLOPS_FLEET_STATE_DIR"


@dataclass
class World:
    """The bundle of ports that observe() and carry_out() get.

    :param run: runs external programs.
    :param root: directory below which ``/proc``, ``/sys``, ``/etc``, ``/run`` and ``/var`` are read
        (``/`` except in tests).
    :param warn: receives what went wrong without stopping the run.
    """

    run: CommandRunner
    clock: Clock = field(default_factory=SystemClock)
    root: str = "/"
    hostname: str = field(default_factory=hostname)
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    warn: Callable[[str], None] = lambda message: None

    def path(self, absolute: str) -> str:
        """Return the path ``absolute`` below this world's root."""
        if self.root == "/":
            return absolute
        return os.path.join(self.root, absolute.lstrip("/"))

    def state(self, name: str) -> str:
        """Return the path of ``name`` in the agent's state directory.

        The environment variable ``MLOPS_FLEET_STATE_DIR`` names another directory.
        """
        base = self.environ.get(STATE_VARIABLE) if self.root == "/" else None
        return os.path.join(base or self.path(STATE), name)
