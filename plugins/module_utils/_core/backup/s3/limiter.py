# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A limit of the bytes per second that all connections share."""

from __future__ import annotations

import io
import threading
import time

#: Bytes that are sent at a time where there is a limit.
_STEP = 64 << 10


class Limiter:
    """Lets callers wait until they may move their bytes; threads may share it."""

    def __init__(self, rate: int | None) -> None:
        """:param rate: bytes per second, None for no limit."""
        self.rate = rate
        self._lock = threading.Lock()
        self._free = 0.0  # when the bytes that were taken so far have been moved

    def take(self, count: int) -> None:
        """Wait until ``count`` bytes more are within the limit."""
        if not self.rate:
            return
        with self._lock:
            now = time.monotonic()
            self._free = max(now, self._free) + count / self.rate
            pause = self._free - now
        time.sleep(pause)

    def body(self, data: bytes) -> bytes | io.BytesIO:
        """Return ``data`` as the body of a request that is sent within the limit."""
        return _Slowed(data, self) if self.rate else data


class _Slowed(io.BytesIO):
    """Data that can be read only as fast as the limiter allows."""

    def __init__(self, data: bytes, limiter: Limiter) -> None:
        super().__init__(data)
        self._limiter = limiter

    def read(self, size: int | None = -1) -> bytes:
        if size is not None and size > _STEP:
            size = _STEP  # a shorter read is no end
        data = super().read(size)
        self._limiter.take(len(data))
        return data
