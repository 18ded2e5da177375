# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a health check writes: its state file and its metrics file. Nothing is decided here."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from ..errors import WriteFailed
from ..system import files, locks
from ..verdict import Check
from . import state

#: How long a second run waits for the first one's lock; seconds.
PATIENCE = 2.0


@contextlib.contextmanager
def locked(path: str) -> Iterator[None]:
    """Hold the lock of a state file while the body runs; its directory is made when missing.

    :raises WriteFailed: no state can be kept there. :raises LockBusy: the other run takes too long.
    """
    # Writing would put a file in its place, of /dev/null as well.
    if os.path.exists(path) and not os.path.isfile(path):
        raise WriteFailed(
            f"{path} is not a file, so no state is kept there.", "Name another state_file.", path
        )
    directory = os.path.dirname(path)
    if not os.path.isdir(directory):
        try:
            # One level only: a longer path that does not exist is a mistake.
            os.mkdir(directory, 0o750)
        except FileExistsError:
            pass
        except OSError as error:
            raise WriteFailed(
                f"Can't make {directory} for the state file: {error.strerror}.",
                "Make it, or name another state_file.",
                path,
            ) from error
    with locks.lock(path + ".lock", "health check", wait=PATIENCE):
        yield


def store(path: str, memory: state.Memory) -> None:
    """Write the state file. :raises WriteFailed: it can't be written."""
    files.atomic_write(path, state.dump(memory), mode=0o640)


def write_metrics(path: str, checks: list[Check], now: float) -> None:
    """Write the metrics file. :raises WriteFailed: it can't be written."""
    from ..output import prometheus

    prometheus.write(path, prometheus.of_checks("node", checks, now))
