# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""zstd through the system's libzstd, which dpkg, rpm and systemd bring along.

No Python package is needed.

Only the stable interface of libzstd 1.4 and later is used (ZSTD_compress2, ZSTD_decompressStream).
"""

from __future__ import annotations

import ctypes
import functools
import threading
from typing import Any

from ..errors import NotUsable
from .codec import BLOCK, Damaged

_COMPRESSION_LEVEL = 100
_CHECKSUM_FLAG = 201


class _In(ctypes.Structure):
    _fields_ = [("src", ctypes.c_void_p), ("size", ctypes.c_size_t), ("pos", ctypes.c_size_t)]


class _Out(ctypes.Structure):
    _fields_ = [("dst", ctypes.c_void_p), ("size", ctypes.c_size_t), ("pos", ctypes.c_size_t)]


@functools.cache
def _library() -> Any:
    try:
        library = ctypes.CDLL("libzstd.so.1")
        pointer, size = ctypes.c_void_p, ctypes.c_size_t
        for name, result, arguments in (
            ("ZSTD_createCCtx", pointer, ()),
            ("ZSTD_freeCCtx", size, (pointer,)),
            ("ZSTD_CCtx_setParameter", size, (pointer, ctypes.c_int, ctypes.c_int)),
            ("ZSTD_compress2", size, (pointer, pointer, size, pointer, size)),
            ("ZSTD_compressBound", size, (size,)),
            ("ZSTD_isError", ctypes.c_uint, (size,)),
            ("ZSTD_getErrorName", ctypes.c_char_p, (size,)),
            ("ZSTD_decompress", size, (pointer, size, pointer, size)),
            ("ZSTD_createDStream", pointer, ()),
            ("ZSTD_freeDStream", size, (pointer,)),
            ("ZSTD_decompressStream", size, (pointer, ctypes.POINTER(_Out), ctypes.POINTER(_In))),
        ):
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise NotUsable(
            "Compression zstd needs the system library libzstd 1.4 or later, which can't be"
            f" loaded: {error}.",
            "Install libzstd1 (Debian, Ubuntu) or libzstd (Red Hat, SUSE), or use compression"
            " gzip.",
            "libzstd.so.1",
        ) from error
    return library


def _checked(library: Any, result: int) -> int:
    if library.ZSTD_isError(result):
        raise Damaged(library.ZSTD_getErrorName(result).decode("ascii", "replace"))
    return result


class _Packer:
    """A compression context and its output buffer; one per thread."""

    def __init__(self, library: Any, level: int) -> None:
        self._library = library
        self._context = library.ZSTD_createCCtx()
        if not self._context:
            raise MemoryError("no memory for a zstd context")
        for name, value in ((_COMPRESSION_LEVEL, level), (_CHECKSUM_FLAG, 1)):
            _checked(library, library.ZSTD_CCtx_setParameter(self._context, name, value))

    def pack(self, data: bytes) -> bytes:
        limit = self._library.ZSTD_compressBound(len(data))
        out = ctypes.create_string_buffer(limit)
        size = _checked(
            self._library, self._library.ZSTD_compress2(self._context, out, limit, data, len(data))
        )
        return ctypes.string_at(out, size)

    def __del__(self) -> None:
        if getattr(self, "_context", None):
            self._library.ZSTD_freeCCtx(self._context)


class Zstd:
    """One frame with a checksum per chunk."""

    header = b""

    def __init__(self, level: int) -> None:
        self._library = _library()
        self._level = level
        self._local = threading.local()

    def pack(self, data: bytes | memoryview) -> bytes:
        packer: _Packer | None = getattr(self._local, "packer", None)
        if packer is None:
            packer = self._local.packer = _Packer(self._library, self._level)
        return packer.pack(bytes(data))

    def trailer(self, crc: int, size: int) -> bytes:  # noqa: ARG002
        return b""


def unpack(
    data: bytes | bytearray | memoryview, size: int, room: bytearray | None = None
) -> memoryview:
    """Return the plain data of one chunk that ``Zstd.pack`` has made.

    :param size: bytes of plain data in it.
    :param room: memory of at least ``size + 1`` bytes for the result.
    :raises Damaged: the chunk is not what was made.
    """
    library = _library()
    out = room or bytearray(size + 1)
    held = (ctypes.c_char * (size + 1)).from_buffer(out)
    given: Any = data
    if not isinstance(data, bytes):
        given = (ctypes.c_char * len(data)).from_buffer(data)
    count = _checked(library, library.ZSTD_decompress(held, size + 1, given, len(data)))
    if count != size:
        raise Damaged(f"{count} bytes come out of it instead of {size}")
    return memoryview(out)[:count]


class ZstdUnpacker:
    """Any number of frames, with their checksums checked by the library."""

    def __init__(self) -> None:
        self._library = _library()
        self._stream = self._library.ZSTD_createDStream()
        if not self._stream:
            raise MemoryError("no memory for a zstd stream")
        self._buffer = ctypes.create_string_buffer(BLOCK)
        self._rest = b""
        self._more = False
        self._wanted = 0

    def feed(self, data: bytes) -> bytes:
        self._rest += data
        text = self._rest
        given = _In(ctypes.cast(ctypes.c_char_p(text), ctypes.c_void_p), len(text), 0)
        out = _Out(ctypes.cast(self._buffer, ctypes.c_void_p), BLOCK, 0)
        if text or self._more:
            self._wanted = _checked(
                self._library,
                self._library.ZSTD_decompressStream(
                    self._stream, ctypes.byref(out), ctypes.byref(given)
                ),
            )
        self._rest = text[given.pos :]
        self._more = out.pos == BLOCK
        return self._buffer.raw[: out.pos] if out.pos else b""

    @property
    def pending(self) -> bool:
        return self._more or bool(self._rest)

    def finish(self) -> None:
        if self._wanted:
            raise Damaged("the compressed data end early")

    def __del__(self) -> None:
        if getattr(self, "_stream", None):
            self._library.ZSTD_freeDStream(self._stream)
