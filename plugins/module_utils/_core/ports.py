# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The outside world as the core sees it: small protocols that a shell (or a test) fills in."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class CommandResult:
    """What a finished program left: exit status (negative = killed by that signal) and its decoded output."""

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
        """Run C(argv) (first word: a name looked up in PATH and the sbin folders, or an absolute path).

        :param timeout: seconds; then the process group is killed.
        :param env: variables added to the environment (C(LC_ALL=C) is always set).
        :raises CommandFailed: the program does not exist or the deadline passed.
        """
        ...  # pylint: disable=unnecessary-ellipsis


class Clock(Protocol):
    """Time, injected so that tests can turn it."""

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
    """How far long work is. C(done) and C(total) are in C(unit) (C(bytes) or C(files)); total 0 = not known yet."""

    phase: str
    done: int = 0
    total: int = 0
    unit: str = "bytes"
    subject: str = ""


Tell = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """Receive progress and say nothing."""


def hostname() -> str:
    """Return this machine's host name as the kernel knows it."""
    return socket.gethostname()


@dataclass
class World:
    """The bundle of ports that observe() and carry_out() get.

    :param run: runs external programs.
    :param root: folder below which C(/proc), C(/sys), C(/etc), C(/run) and C(/var) are read (C(/) outside tests).
    """

    run: CommandRunner
    clock: Clock = field(default_factory=SystemClock)
    root: str = "/"
    hostname: str = field(default_factory=hostname)
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    warn: Callable[[str], None] = lambda message: None

    def path(self, absolute: str) -> str:
        """Return C(absolute) below this world's root."""
        return absolute if self.root == "/" else os.path.join(self.root, absolute.lstrip("/"))
