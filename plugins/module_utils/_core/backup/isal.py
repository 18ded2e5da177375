# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Deflate by Intel's ISA-L, many times faster than zlib.

By the Python package ``isal`` where it is installed, else by the distribution's ``libisal.so.2``.
Neither is required: without them zlib does the same work.

Only levels 1 to 3 are used. Level 0 makes weights a quarter larger than they are.
"""

from __future__ import annotations

import ctypes
import functools
import threading
import zlib
from typing import Any, Protocol

from .codec import CHUNK, Damaged

#: Levels of ISA-L that never expand weights.
LEVELS = (1, 3)
_FULL_FLUSH = 2
_TOKENS = 4 * (64 << 10)
#: Bytes of working memory that a level asks for at least, and the tokens of a block.
_WORKSPACE = {1: (20 << 10) + _TOKENS, 2: (68 << 10) + _TOKENS, 3: (84 << 10) + _TOKENS}
#: More than the library's private state, which lies behind the fields that are public.
_PRIVATE = 192 << 10
#: What a byte-aligned stream ends with, and an empty last block that ends it for good.
_FLUSHED, _LAST = b"\0\0\xff\xff", b"\x03\x00"


class Isal(Protocol):
    """Packs and unpacks raw deflate. Called by several threads at once."""

    def pack(self, data: bytes | memoryview, level: int) -> bytes | bytearray:
        """Return ``data`` as raw deflate that ends byte-aligned and refers to nothing before it."""
        ...  # pylint: disable=unnecessary-ellipsis

    def unpack(
        self, data: bytes | bytearray | memoryview, size: int, room: bytearray | None = None
    ) -> bytes | bytearray | memoryview:
        """Return the ``size`` bytes that ``pack`` was given.

        :param room: memory of at least ``size + 1`` bytes for the result, which need not use it.
            Memory that was in use before costs a fifth less time than new memory.
        :raises Damaged: it was not this.
        """
        ...  # pylint: disable=unnecessary-ellipsis

    def crc32(self, data: bytes | memoryview, start: int) -> int:
        """Return what zlib.crc32 does, many times as fast."""
        ...  # pylint: disable=unnecessary-ellipsis


class Package:
    """The Python package ``isal``. :raises ImportError: it is not installed."""

    def __init__(self) -> None:
        from isal import isal_zlib  # type: ignore[import-not-found,unused-ignore]

        self._library: Any = isal_zlib

    def pack(self, data: bytes | memoryview, level: int) -> bytes:
        packer = self._library.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
        packed: bytes = packer.compress(data) + packer.flush(self._library.Z_FULL_FLUSH)
        return packed

    def unpack(
        self,
        data: bytes | bytearray | memoryview,
        size: int,
        room: bytearray | None = None,  # noqa: ARG002
    ) -> bytes:
        try:
            whole = b"".join((data, _LAST))
            plain: bytes = self._library.decompress(whole, -zlib.MAX_WBITS, size + 1)
        except self._library.error as error:
            raise Damaged(str(error)) from error
        return plain

    def crc32(self, data: bytes | memoryview, start: int) -> int:
        crc: int = self._library.crc32(data, start)
        return crc


class _Packing(ctypes.Structure):
    _fields_ = [
        ("next_in", ctypes.c_void_p),
        ("avail_in", ctypes.c_uint32),
        ("total_in", ctypes.c_uint32),
        ("next_out", ctypes.c_void_p),
        ("avail_out", ctypes.c_uint32),
        ("total_out", ctypes.c_uint32),
        ("hufftables", ctypes.c_void_p),
        ("level", ctypes.c_uint32),
        ("level_buf_size", ctypes.c_uint32),
        ("level_buf", ctypes.c_void_p),
        ("end_of_stream", ctypes.c_uint16),
        ("flush", ctypes.c_uint16),
        ("gzip_flag", ctypes.c_uint16),
        ("hist_bits", ctypes.c_uint16),
        ("private", ctypes.c_char * _PRIVATE),
    ]


class _Unpacking(ctypes.Structure):
    _fields_ = [
        ("next_out", ctypes.c_void_p),
        ("avail_out", ctypes.c_uint32),
        ("total_out", ctypes.c_uint32),
        ("next_in", ctypes.c_void_p),
        ("read_in", ctypes.c_uint64),
        ("avail_in", ctypes.c_uint32),
        ("read_in_length", ctypes.c_int32),
        ("private", ctypes.c_char * _PRIVATE),
    ]


class _Memory(threading.local):
    """State of one thread, kept for the next chunk."""

    def __init__(self) -> None:
        self.packing = _Packing()
        self.unpacking = _Unpacking()
        self.workspace = ctypes.create_string_buffer(max(_WORKSPACE.values()))


class Library:
    """The system library. :raises OSError: it can't be loaded. :raises AttributeError: too old."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libisal.so.2")
        for function in ("isal_deflate_init", "isal_deflate", "isal_inflate_init", "isal_inflate"):
            getattr(self._library, function).argtypes = (ctypes.c_void_p,)
        self._crc32 = self._library.crc32_gzip_refl
        self._crc32.argtypes = (ctypes.c_uint32, ctypes.c_void_p, ctypes.c_uint64)
        self._crc32.restype = ctypes.c_uint32
        self._memory = _Memory()

    def pack(self, data: bytes | memoryview, level: int) -> bytearray:
        memory, size = self._memory, len(data)
        room = size + size // 8 + (64 << 10)
        # Memory that is not written to costs nothing.
        out, stream = bytearray(room), memory.packing
        held = (ctypes.c_char * room).from_buffer(out)
        given, address = _address(data)
        self._library.isal_deflate_init(ctypes.byref(stream))
        stream.level = level
        stream.level_buf = ctypes.addressof(memory.workspace)
        stream.level_buf_size = _WORKSPACE[level]
        stream.flush = _FULL_FLUSH
        stream.next_in, stream.avail_in = address, size
        stream.next_out, stream.avail_out = ctypes.addressof(held), room
        code = self._library.isal_deflate(ctypes.byref(stream))
        del given, held  # the array can't shrink while it is held
        del out[room - stream.avail_out :]
        if code or stream.avail_in or not out.endswith(_FLUSHED):
            raise RuntimeError(f"libisal could not compress (code {code})")
        return out

    def unpack(
        self, data: bytes | bytearray | memoryview, size: int, room: bytearray | None = None
    ) -> memoryview:
        out, stream = room or bytearray(size + 1), self._memory.unpacking
        held = (ctypes.c_char * (size + 1)).from_buffer(out)
        self._library.isal_inflate_init(ctypes.byref(stream))
        stream.next_out, stream.avail_out = ctypes.addressof(held), size + 1
        code = 0
        for piece in (data, _LAST):
            given, address = _address(piece)
            stream.next_in, stream.avail_in = address, len(piece)
            code = code or self._library.isal_inflate(ctypes.byref(stream))
            del given
        if code or stream.avail_in:
            raise Damaged(f"invalid compressed data (code {code})")
        return memoryview(out)[: size + 1 - stream.avail_out]

    def crc32(self, data: bytes | memoryview, start: int) -> int:
        given, address = _address(data)
        crc: int = self._crc32(start, address, len(data))
        del given
        return crc


def _address(data: bytes | bytearray | memoryview) -> tuple[Any, Any]:
    """Return an object that keeps ``data`` where it is, and its address."""
    if isinstance(data, bytearray) or (isinstance(data, memoryview) and not data.readonly):
        held = (ctypes.c_char * len(data)).from_buffer(data)
        return held, ctypes.addressof(held)
    kept = ctypes.c_char_p(bytes(data))
    return kept, ctypes.cast(kept, ctypes.c_void_p)


@functools.cache
def library() -> Isal | None:
    """Return what ISA-L there is and works, None when there is none."""
    for kind in (Package, Library):
        try:
            candidate: Isal = kind()
        except (ImportError, OSError, AttributeError):
            continue
        if _works(candidate):
            return candidate
    return None


def _works(candidate: Isal) -> bool:
    """Say whether zlib agrees with it about a few bytes.

    A build that lays out its state in another way must not touch a backup.
    """
    data = bytes(range(256)) * 300 + b"\0" * 5000
    try:
        for level in range(LEVELS[0], LEVELS[1] + 1):
            packed = candidate.pack(data, level)
            if zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed) != data:
                return False
            if candidate.unpack(packed, len(data)) != data:
                return False
        if candidate.crc32(data, candidate.crc32(b"x", 0)) != zlib.crc32(b"x" + data):
            return False
    except (Damaged, RuntimeError, ValueError, zlib.error):
        return False
    return len(data) < CHUNK


def crc32(data: bytes | memoryview, start: int) -> int:
    """Return the CRC-32 of ``data`` behind what has the CRC-32 ``start``."""
    fast = library()
    if fast is None:
        return zlib.crc32(data, start)
    return fast.crc32(data, start)
