# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a compression has to offer; the compressions themselves are in the registry ``codecs``.

An archive is compressed in independent chunks, so that threads share the work and any ordinary tool
reads the result. gzip: one member made of chunks that each end in a full flush. Many members would
be legal too, but streaming readers of tar and HTTP clients fail on them or lose data silently.
zstd: one frame per chunk, which its format allows and every reader joins.
"""

from __future__ import annotations

from typing import Protocol

#: Bytes of plain data per chunk.
CHUNK = 4 << 20
#: Bytes of compressed data read at a time, and the most that is unpacked from it at a time.
BLOCK = 1 << 20


class Codec(Protocol):
    """Makes one compressed stream out of chunks. ``pack`` is called by several threads at once."""

    @property
    def header(self) -> bytes:
        """The beginning of the stream."""
        ...  # pylint: disable=unnecessary-ellipsis

    def pack(self, data: bytes | memoryview) -> bytes | bytearray:
        """Return one chunk compressed."""
        ...  # pylint: disable=unnecessary-ellipsis

    def trailer(self, crc: int, size: int) -> bytes:
        """Return the end of the stream for plain data of this CRC-32 and size in bytes."""
        ...  # pylint: disable=unnecessary-ellipsis


class Plain:
    """No compression."""

    header = b""

    def pack(self, data: bytes | memoryview) -> bytes:
        return bytes(data)

    def trailer(self, crc: int, size: int) -> bytes:  # noqa: ARG002
        return b""


class Damaged(Exception):
    """The compressed stream can't be unpacked from here on."""


class Unpacker(Protocol):
    """Unpacks a stream piece by piece."""

    def feed(self, data: bytes) -> bytes:
        """Take more of the stream and return some plain data.

        Call again with ``b""`` while ``pending``.

        :raises Damaged:
        """
        ...  # pylint: disable=unnecessary-ellipsis

    @property
    def pending(self) -> bool:
        """Whether there is more to come without new input."""
        ...  # pylint: disable=unnecessary-ellipsis

    def finish(self) -> None:
        """Say that the stream has ended. :raises Damaged: it ended early."""
        ...  # pylint: disable=unnecessary-ellipsis


class PlainUnpacker:
    """No compression: what comes in goes out."""

    pending = False

    def feed(self, data: bytes) -> bytes:
        return data

    def finish(self) -> None:
        pass
