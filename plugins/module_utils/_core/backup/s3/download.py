# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading an object as a stream that survives broken connections, over several at a time."""

from __future__ import annotations

import collections
import io
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from ...errors import StoreError
from .bucket import Bucket

#: How often a broken connection is replaced without a byte in between.
_RESUMES = 5
#: Bytes that a connection reads at a time. Each connection holds that much.
PIECE = 8 << 20
#: Bytes asked of a connection at a time: so many are lost where it breaks, and so many pass
#: between two looks at the bandwidth limit.
_STEP = 256 << 10


class NoRanges(Exception):
    """The server returned the whole object instead of a range."""


class Piece:
    """A range of an object, all of the same version where that is named."""

    def __init__(self, bucket: Bucket, name: str, etag: str | None, size: int) -> None:
        """:param size: of the object in bytes."""
        self._bucket, self._name, self._etag, self._size = bucket, name, etag, size

    def fetch(self, offset: int, length: int) -> bytes:
        """Return the range; a broken connection is resumed where it broke.

        :raises StoreError: that failed too often. :raises NoRanges: see there.
        """
        data = bytearray()
        failures = 0
        while len(data) < length:
            before = len(data)
            reason = self._more(data, offset, length)
            failures = failures + 1 if len(data) == before else 0
            if failures > _RESUMES:
                raise _failed(self._bucket.url(self._name), offset + before, self._size, reason)
        return bytes(data)

    def _more(self, data: bytearray, offset: int, length: int) -> str:
        """Read what is missing until the connection breaks; return why it did."""
        bucket = self._bucket
        first, last = offset + len(data), offset + length - 1
        version = {} if self._etag is None else {"IfMatch": self._etag}
        with bucket.reading(self._name):
            answer = bucket.client.get_object(
                Bucket=bucket.bucket,
                Key=bucket.key(self._name),
                Range=f"bytes={first}-{last}",
                **version,
            )
        body = answer["Body"]
        try:
            if int(answer["ContentLength"]) > length:
                raise NoRanges
            return _read_into(data, body, bucket, length)
        finally:
            body.close()


def _read_into(data: bytearray, body: Any, bucket: Bucket, length: int) -> str:
    while len(data) < length:
        try:
            block = body.read(min(_STEP, length - len(data)))
        except Exception as error:  # noqa: BLE001  # botocore lets several libraries' errors through
            return str(error)
        if not block:
            return "the connection ended early"
        bucket.limiter.take(len(block))
        data += block
    return ""


def _failed(url: str, position: int, size: int, reason: str) -> StoreError:
    return StoreError(
        f"Reading {url} failed at byte {position} of {size}: {reason}.", "Try again.", url
    )


class ParallelDownload(io.RawIOBase):
    """An object read from the beginning to its end, in pieces that are fetched ahead.

    Where the server knows no ranges, it is read over one connection.
    """

    def __init__(self, bucket: Bucket, name: str, etag: str, size: int) -> None:
        """:param etag: of the version to read. :param size: its size in bytes.

        :raises StoreError: its beginning can't be read.
        """
        self._bucket, self._name, self._size = bucket, name, size
        self._piece = Piece(bucket, name, etag, size)
        self._pool = ThreadPoolExecutor(bucket.parallel, thread_name_prefix="s3-read")
        self._fetched: collections.deque[Future[bytes]] = collections.deque()
        self._asked = 0
        self._whole: Download | None = None
        self._current = memoryview(b"")
        try:
            self._next()
        except BaseException:
            self.close()
            raise

    def _next(self) -> None:
        """Take the next piece, and ask for further ones."""
        while self._asked < self._size and len(self._fetched) < self._bucket.parallel:
            length = min(PIECE, self._size - self._asked)
            self._fetched.append(self._pool.submit(self._piece.fetch, self._asked, length))
            self._asked += length
        if not self._fetched:
            self._current = memoryview(b"")
            return
        try:
            self._current = memoryview(self._fetched.popleft().result())
        except NoRanges:
            self._stop()
            self._whole = Download(self._bucket, self._name)

    def _stop(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._fetched.clear()
        self._asked = self._size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._current and self._whole is None:
            self._next()
        if self._whole is not None:
            return self._whole.readinto(buffer)
        count = min(len(buffer), len(self._current))
        buffer[:count] = self._current[:count]
        self._current = self._current[count:]
        return count

    def close(self) -> None:
        self._stop()
        self._current = memoryview(b"")
        if self._whole is not None:
            self._whole.close()
        super().close()


class Download(io.RawIOBase):
    """An object read over one connection.

    A broken connection is resumed where it broke, on the same version.
    """

    def __init__(self, bucket: Bucket, name: str) -> None:
        self._bucket, self._name = bucket, name
        self._position = 0
        self._etag: str | None = None
        self._size = 0
        self._body: Any = None
        self._resumes = 0
        self._connect()

    def _connect(self) -> None:
        more = (
            {}
            if self._etag is None
            else {"Range": f"bytes={self._position}-", "IfMatch": self._etag}
        )
        bucket = self._bucket
        with bucket.reading(self._name):
            answer = bucket.client.get_object(
                Bucket=bucket.bucket, Key=bucket.key(self._name), **more
            )
        if self._etag is None:
            self._etag, self._size = answer["ETag"], int(answer["ContentLength"])
        self._body = answer["Body"]

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), _STEP)
        while True:
            try:
                data = self._body.read(wanted)
            except Exception as error:  # noqa: BLE001  # botocore lets several libraries' errors through
                data = b""
                reason = str(error)
            else:
                reason = "the connection ended early"
            if data or self._position == self._size:
                self._bucket.limiter.take(len(data))
                buffer[: len(data)] = data
                self._position += len(data)
                self._resumes = 0
                return len(data)
            self._resumes += 1
            if self._resumes > _RESUMES:
                raise _failed(self._bucket.url(self._name), self._position, self._size, reason)
            self._connect()

    def close(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None
        super().close()
