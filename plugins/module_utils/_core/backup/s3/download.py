# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading an object as a stream that survives broken connections."""

from __future__ import annotations

import io
from typing import Any

from ...errors import StoreError
from .connection import asking

#: How often a broken download is resumed.
_RESUMES = 5


class Download(io.RawIOBase):
    """An object read from the beginning to its end.

    A broken connection is resumed where it broke, on the same version.
    """

    def __init__(self, client: Any, bucket: str, key: str, url: str) -> None:
        self._client, self._bucket, self._key, self._url = client, bucket, key, url
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
        with asking("Reading", self._url):
            answer = self._client.get_object(Bucket=self._bucket, Key=self._key, **more)
        if self._etag is None:
            self._etag, self._size = answer["ETag"], int(answer["ContentLength"])
        self._body = answer["Body"]

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            try:
                data = self._body.read(len(buffer))
            except Exception as error:  # noqa: BLE001  # botocore lets several libraries' errors through
                data = b""
                reason = str(error)
            else:
                reason = "the connection ended early"
            if data or self._position == self._size:
                buffer[: len(data)] = data
                self._position += len(data)
                return len(data)
            self._resumes += 1
            if self._resumes > _RESUMES:
                raise StoreError(
                    f"Reading {self._url} failed at byte {self._position} of {self._size}: {reason}.",
                    "Try again.",
                    self._url,
                )
            self._connect()

    def close(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None
        super().close()
