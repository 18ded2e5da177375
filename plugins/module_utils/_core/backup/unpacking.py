# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tar in an archive, whose chunks are unpacked by threads."""

from __future__ import annotations

import collections
import hashlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from . import codecs, isal
from .codec import Damaged
from .headers import SIZE
from .manifest import Chunk, Head, Index


class Changed(Damaged):
    """A chunk is not what was written."""

    def __init__(self, chunk: Chunk) -> None:
        super().__init__(f"its bytes {chunk.offset} to {chunk.offset + chunk.length} were changed")
        self.chunk = chunk


class _Room:
    """Memory for one chunk as it is read, and for what comes out of it.

    It serves one chunk after the other: what is new to the process costs the kernel as much time
    as a hash of it.
    """

    def __init__(self, index: Index) -> None:
        longest = max((chunk.length for chunk in index.chunks), default=0)
        self.packed = memoryview(bytearray(longest))
        self.plain = bytearray(index.chunk_size + 1)


class Tar:
    """The tar in an archive, unpacked by threads.

    :param workers: their number. :param tell: is given the bytes that were read.
    :param whole: hash the archive. :param hashed: compare each chunk with its SHA-256.
    :param settle: returns when what was made of the last chunk but one is needed no more.
    """

    def __init__(
        self,
        raw: BinaryIO,
        head: Head,
        index: Index,
        workers: int,
        tell: Callable[[int], None],
        whole: bool,
        hashed: bool,
        settle: Callable[[], None],
    ) -> None:
        from concurrent.futures import ThreadPoolExecutor

        self._raw, self._index, self._ahead = raw, index, workers + 1
        self._executor = ThreadPoolExecutor(workers, "unpack")
        self._tell, self._hashed, self._settle = tell, hashed, settle
        self._compression = codecs.CODECS[head["compression"]]
        self._plain_size = head["archive"]["plain_size"]
        self._hash = hashlib.sha256() if whole else None
        self._crc = 0
        self._next = 0
        #: Chunks that are unpacked, with their memory.
        self._waiting: collections.deque[tuple[Any, _Room]] = collections.deque()
        self._data = memoryview(b"")
        #: Memory that is free, that of the chunks before and that of ``_data``.
        self._free: list[_Room] = []
        self._used: collections.deque[_Room] = collections.deque()
        #: The number of the chunk that ``_data`` is from, or that is taken next.
        self.number = -1
        #: Bytes of the archive that were read.
        self.size = 0
        self._taken = 0
        self._codec = self._compression.writer(self._compression.default_level)

    def close(self) -> None:
        """End the threads."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def begin(self) -> None:
        """Read the beginning of the archive. :raises Damaged: it is not what was written."""
        codec = self._codec
        if self._exactly(len(codec.header)) != codec.header:
            raise Damaged("its beginning was changed")

    def _exactly(self, count: int) -> bytes:
        data = bytearray(count)
        self._into(memoryview(data))
        return bytes(data)

    def _into(self, room: memoryview) -> None:
        """Fill memory with the next bytes of the archive."""
        position = 0
        while position < len(room):
            count = self._raw.readinto(room[position:])  # type: ignore[attr-defined]
            if not count:
                raise Damaged("it ends early")
            position += count
        if self._hash is not None:
            self._hash.update(room)
        self.size += position
        self._tell(self.size)

    def _fill(self) -> None:
        """Hand chunks to the threads and take the next piece of the tar."""
        self._settle()
        if len(self._used) > 1:
            self._free.append(self._used.popleft())
        chunks, size = self._index.chunks, self._index.chunk_size
        while self._next < len(chunks) and len(self._waiting) < self._ahead:
            chunk = chunks[self._next]
            if chunk.offset != self.size:
                raise Damaged("the index does not fit")
            plain = min(size, self._plain_size - self._next * size)
            if not self._free:
                self._free.append(_Room(self._index))
            room = self._free.pop()
            self._into(room.packed[: chunk.length])
            self._waiting.append((self._executor.submit(self._unpacked, chunk, plain, room), room))
            self._next += 1
        self.number += 1
        if not self._waiting:
            raise Damaged("the tar in it ends early")
        unpacked, room = self._waiting.popleft()
        data = unpacked.result()
        self._used.append(room)
        self._crc = isal.crc32(data, self._crc)
        self._data = memoryview(data)

    def _unpacked(self, chunk: Chunk, size: int, room: _Room) -> codecs.Packed:
        """Return the plain data of a chunk. :raises Damaged: it is not what was written."""
        raw = room.packed[: chunk.length]
        if self._hashed and hashlib.sha256(raw).hexdigest() != chunk.sha256:
            raise Changed(chunk)
        return self._compression.unpack(raw, size, room.plain)

    def pieces(self, count: int) -> Iterator[memoryview]:
        """Give the next ``count`` bytes of the tar. :raises Damaged: they are not what was made."""
        self._taken += count
        while count:
            if not self._data:
                self._fill()
            piece = self._data[:count]
            self._data = self._data[len(piece) :]
            count -= len(piece)
            yield piece

    def read(self, count: int) -> bytes:
        """Return the next ``count`` bytes of the tar. :raises Damaged: likewise."""
        if len(self._data) >= count:
            self._taken += count
            piece, self._data = self._data[:count], self._data[count:]
            return bytes(piece)
        return b"".join(self.pieces(count))

    def peek(self, count: int) -> memoryview | None:
        """Return the next ``count`` bytes if they are unpacked already and in one piece."""
        if len(self._data) < count:
            return None
        return self._data[:count]

    def skip(self, count: int) -> None:
        """Take ``count`` bytes that ``peek`` has returned."""
        self._data = self._data[count:]
        self._taken += count

    def finish(self) -> str:
        """Read the end, which is zeros and the end of the stream.

        Return the archive's SHA-256, "" where it was not computed.

        :raises Damaged: it is not so.
        """
        rest = self._plain_size - self._taken
        if rest < 2 * SIZE or any(bytes(piece).strip(b"\0") for piece in self.pieces(rest)):
            raise Damaged("the end of the tar in it was changed")
        trailer = self._codec.trailer(self._crc, self._plain_size)
        if self._exactly(len(trailer)) != trailer or self._raw.read(1):
            raise Damaged("its end was changed")
        if self._hash is None:
            return ""
        return self._hash.hexdigest()
