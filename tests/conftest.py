# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make the checkout importable as ansible_collections.mlops.fleet, and offer real ports to the
tests of tests/unit and tests/system.
"""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import tempfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
COLLECTIONS = ROOT / ".build" / "collections"


def _link() -> None:
    here = COLLECTIONS / "ansible_collections" / "mlops"
    here.mkdir(parents=True, exist_ok=True)
    link = here / "fleet"
    try:
        link.symlink_to(ROOT)
    except FileExistsError:
        if link.resolve() != ROOT:
            raise RuntimeError(f"{link} is not a link to {ROOT}: remove it") from None
    if str(COLLECTIONS) not in sys.path:
        sys.path.insert(0, str(COLLECTIONS))


_link()

from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import CommandFailed
from ansible_collections.mlops.fleet.plugins.module_utils._core.ports import CommandResult, World


def pytest_configure(config: pytest.Config) -> None:
    """Give this process a lock and a state directory of its own.

    Several interpreters and workers run tests side by side, on machines that may have an agent.
    """
    locks = tempfile.TemporaryDirectory(prefix="mlops-fleet-locks-")
    config.add_cleanup(locks.cleanup)
    os.environ["MLOPS_FLEET_LOCK_DIR"] = locks.name
    state = tempfile.TemporaryDirectory(prefix="mlops-fleet-state-")
    config.add_cleanup(state.cleanup)
    os.environ["MLOPS_FLEET_STATE_DIR"] = state.name


class Clock:
    """A clock that stands until a test turns it; seconds since the epoch.

    It starts in 2049, ahead of every file that tests make.
    """

    def __init__(self, now: float = 2_500_000_000.0) -> None:
        self.time = now

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


def run_command(argv, timeout=30.0, env=None, stdin=None):
    """A real CommandRunner over subprocess."""
    try:
        done = subprocess.run(
            list(argv),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env={**os.environ, "LC_ALL": "C", **(env or {})},
        )
    except FileNotFoundError as error:
        raise CommandFailed.missing(argv[0]) from error
    except subprocess.TimeoutExpired as error:
        raise CommandFailed.timed_out(argv[0], timeout) from error
    except OSError as error:
        raise CommandFailed(f"{argv[0]}: {error}") from error
    return CommandResult(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def world(clock: Clock) -> World:
    """Ports over the real machine, with a clock the test can turn."""
    return World(run=run_command, clock=clock)
