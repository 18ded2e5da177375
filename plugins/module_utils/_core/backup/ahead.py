# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ranges of an archive that are read before they are needed, several at a time."""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from concurrent.futures import Future


class Ahead:
    """Reads ranges in the order in which they will be needed.

    Each connection holds one range. A range that does not come next is read at once.
    """

    def __init__(
        self,
        read: Callable[[int, int], bytes],
        ranges: Sequence[tuple[int, int]],
        connections: int,
    ) -> None:
        """:param read: returns a range, given offset and length. :param ranges: in their order.

        :param connections: how many ranges may be read at a time; with one nothing is read ahead.
        """
        self._read, self._connections = read, connections
        self._later = collections.deque(ranges if connections > 1 else ())
        self._begun: collections.deque[tuple[tuple[int, int], Future[bytes]]] = collections.deque()
        if connections > 1:
            from concurrent.futures import ThreadPoolExecutor

            self._pool = ThreadPoolExecutor(connections, thread_name_prefix="read-ahead")

    def read(self, offset: int, length: int) -> bytes:
        """Return a range of the archive. Raises what reading it raised."""
        self._begin()
        if not self._begun or self._begun[0][0] != (offset, length):
            return self._read(offset, length)
        dummy, data = self._begun.popleft()
        self._begin()
        return data.result()

    def _begin(self) -> None:
        while self._later and len(self._begun) < self._connections:
            wanted = self._later.popleft()
            self._begun.append((wanted, self._pool.submit(self._read, *wanted)))

    def close(self) -> None:
        """Ask for nothing more."""
        self._later.clear()
        if self._connections > 1:
            self._pool.shutdown(wait=False, cancel_futures=True)
