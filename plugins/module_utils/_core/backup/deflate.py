# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""gzip by ISA-L or zlib: writing it in independent chunks, and reading any gzip stream."""

from __future__ import annotations

import struct
import zlib
from typing import Any

from . import isal
from .codec import BLOCK, Damaged

_SAMPLE = 16 << 10


def deflate(data: bytes | memoryview, level: int, strategy: int = zlib.Z_DEFAULT_STRATEGY) -> bytes:
    """Return ``data`` as raw deflate that ends byte-aligned and refers to nothing before it."""
    packer = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS, 9, strategy)
    return packer.compress(data) + packer.flush(zlib.Z_FULL_FLUSH)


class Gzip:
    """gzip, the method chosen per chunk.

    On weights the search for repetitions costs much and gains nothing.

    By zlib three samples decide: stored as it is when nothing saves 3 %; Huffman coding alone when
    the search would gain too little (2 % from level 6 on, 10 % below); else the full method at the
    user's level. Measured on 2 GB of mixed weights: 6 times less CPU than gzip -6 with a better
    ratio.

    ISA-L searches so fast that it always does, at its own level 1 for the user's levels up to 3
    and 2 above. From the user's level 7 on, zlib takes the chunks that it makes 5 % smaller.
    """

    header = b"\x1f\x8b\x08\x00" + b"\0" * 4 + b"\x00\x03"

    def __init__(self, level: int) -> None:
        self._level = level
        self._gain = 0.98 if level >= 6 else 0.90
        self._isal = isal.library()
        self._isal_level = 1 if level <= 3 else 2

    def pack(self, data: bytes | memoryview) -> bytes | bytearray:
        sample = bytes(data)
        if len(data) > 3 * _SAMPLE:
            middle = len(data) // 2
            sample = (
                bytes(data[:_SAMPLE])
                + bytes(data[middle : middle + _SAMPLE])
                + bytes(data[-_SAMPLE:])
            )
        if self._isal is not None:
            return self._by_isal(self._isal, data, sample)
        huffman = len(deflate(sample, self._level, zlib.Z_HUFFMAN_ONLY))
        full = len(deflate(sample, self._level))
        if min(huffman, full) > 0.97 * len(sample):
            return deflate(data, 0)
        if full < self._gain * huffman:
            return deflate(data, self._level)
        return deflate(data, self._level, zlib.Z_HUFFMAN_ONLY)

    def _by_isal(
        self, library: isal.Isal, data: bytes | memoryview, sample: bytes
    ) -> bytes | bytearray:
        fast = len(library.pack(sample, self._isal_level))
        if fast > 0.97 * len(sample):
            return deflate(data, 0)
        if self._level >= 7 and len(deflate(sample, self._level)) < 0.95 * fast:
            return deflate(data, self._level)
        packed = library.pack(data, self._isal_level)
        return packed if len(packed) < len(data) else deflate(data, 0)

    def trailer(self, crc: int, size: int) -> bytes:
        return b"\x03\x00" + struct.pack("<II", crc, size & 0xFFFFFFFF)


def unpack(
    data: bytes | bytearray | memoryview, size: int, room: bytearray | None = None
) -> bytes | bytearray | memoryview:
    """Return the plain data of one chunk that ``Gzip.pack`` has made.

    :param size: bytes of plain data in it. :param room: memory for the result.
    :raises Damaged: the chunk is not what was made.
    """
    library = isal.library()
    plain: bytes | bytearray | memoryview
    if library is not None:
        plain = library.unpack(data, size, room)
    else:
        member = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            plain = member.decompress(data, size + 1)
        except zlib.error as error:
            raise Damaged(str(error)) from error
    if len(plain) != size:
        raise Damaged(f"{len(plain)} bytes come out of it instead of {size}")
    return plain


class GzipUnpacker:
    """gzip, also of several members, whose CRC and length are checked by zlib.

    Archives that were made by pigz or joined have several.
    """

    def __init__(self) -> None:
        self._member: Any = zlib.decompressobj(zlib.MAX_WBITS | 16)
        self._rest = b""
        self._more = False
        self._error: zlib.error | None = None

    def feed(self, data: bytes) -> bytes:
        if self._error is not None:
            raise Damaged(str(self._error)) from self._error
        self._rest += data
        if self._member.eof:
            self._rest = self._rest.lstrip(b"\0")  # padding is allowed after a member
            self._more = False
            if not self._rest:
                return b""
            self._member = zlib.decompressobj(zlib.MAX_WBITS | 16)
        before = self._member.copy()
        try:
            unpacked: bytes = self._member.decompress(self._rest, BLOCK)
        except zlib.error as error:
            self._error = error
            return self._up_to_the_error(before)
        self._rest = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
        self._more = len(unpacked) == BLOCK  # zlib may hold back output although it took all input
        return unpacked

    def _up_to_the_error(self, member: Any) -> bytes:
        """Return what zlib had unpacked when it met the error, which it keeps to itself otherwise.

        Often all but the checksum.
        """
        unpacked, size = b"", BLOCK
        while size:
            further = member.copy()
            try:
                piece = further.decompress(self._rest, size)
            except zlib.error:
                size //= 2
                continue
            if not piece:
                break
            unpacked, member, self._rest = unpacked + piece, further, further.unconsumed_tail
        return unpacked

    @property
    def pending(self) -> bool:
        return self._error is not None or self._more or bool(self._rest)

    def finish(self) -> None:
        if not self._member.eof:
            raise Damaged("the compressed data end early")
