# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writing and synchronising files behind the reader's back.

The disk takes what was unpacked before while the next chunks are hashed and unpacked. One thread
writes, in the order given; another one waits for the disk.
"""

from __future__ import annotations

import collections
import os
from collections.abc import Callable
from typing import Any

#: Pieces that wait to be written, at most.
_MOST_PIECES = 8
#: Groups of files that wait for the disk, at most. Their descriptors are open until then.
_MOST_GROUPS = 2


class Behind:
    """The threads; they start with the first job.

    An error of a job is raised by a later call.
    """

    def __init__(self) -> None:
        self._writer: Any = None
        self._synchroniser: Any = None
        #: Jobs up to the last call of ``settle``, and later ones.
        self._older: collections.deque[Any] = collections.deque()
        self._newer: collections.deque[Any] = collections.deque()
        self._groups: collections.deque[tuple[Any, list[int]]] = collections.deque()

    def run(self, job: Callable[..., None], *arguments: Any) -> None:
        """Do a job after those before. :raises OSError: of an earlier job."""
        if self._writer is None:
            self._writer = _thread("write")
        while len(self._older) + len(self._newer) >= _MOST_PIECES:
            (self._older or self._newer).popleft().result()
        self._newer.append(self._writer.submit(job, *arguments))

    def settle(self) -> None:
        """Return when the jobs before the last call of this are done.

        :raises OSError: one of them failed.
        """
        while self._older:
            self._older.popleft().result()
        self._older, self._newer = self._newer, self._older

    def wait(self) -> None:
        """Return when all jobs are done. :raises OSError: one of them failed."""
        self.settle()
        self.settle()

    def synchronise(self, descriptors: list[int]) -> None:
        """Make files durable after the jobs before, and close them.

        :raises OSError: that of earlier files failed.
        """
        if self._synchroniser is None:
            self._synchroniser = _thread("synchronise")
        while len(self._groups) >= _MOST_GROUPS:
            self._groups.popleft()[0].result()
        last = (self._newer or self._older or (None,))[-1]
        submitted = self._synchroniser.submit(_synchronise, last, descriptors)
        self._groups.append((submitted, descriptors))

    def finish(self) -> None:
        """Return when everything is done and durable. :raises OSError: something failed."""
        self.wait()
        while self._groups:
            self._groups.popleft()[0].result()

    def close(self) -> None:
        """End the threads; what has not begun is left undone."""
        for executor in (self._writer, self._synchroniser):
            if executor is not None:
                executor.shutdown(wait=True, cancel_futures=True)
        for dummy, descriptors in self._groups:
            _close(descriptors)
        self._groups.clear()


def _thread(name: str) -> Any:
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(1, name)


def _synchronise(last: Any, descriptors: list[int]) -> None:
    try:
        if last is not None:
            last.result()
        for descriptor in descriptors:
            os.fsync(descriptor)
    finally:
        _close(descriptors)


def _close(descriptors: list[int]) -> None:
    while descriptors:
        os.close(descriptors.pop())
