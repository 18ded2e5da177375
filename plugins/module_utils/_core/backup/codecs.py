# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The compressions an archive can have: the only place that lists them.

The option, file names, writing and reading derive from this registry. A compression is added by one
entry, plus a module that makes its Codec and Unpacker. The modules are imported when they are first
used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Union

from ..registry import Registry
from .codec import Codec, Damaged, Plain, PlainUnpacker, Unpacker

#: Bytes of a chunk, packed or plain.
Packed = Union[bytes, bytearray, memoryview]
#: Bytes at the beginning of an archive that are enough to recognise its compression.
MAGIC_SIZE = 6


class Compression(NamedTuple):
    """One compression.

    :param name: value of the option ``compression``.
    :param suffix: of the archive, with ``.tar``.
    :param help: what it needs or is good for, for the documentation.
    :param levels: smallest and largest level it accepts.
    :param default_level: the level where the user names none.
    :param magic: first bytes of its streams, None when there are none.
    :param writer: makes the codec for a level; raises NotUsable when its library is missing.
    :param reader: makes the unpacker; raises likewise.
    :param unpack: returns the plain data of one chunk that ``writer`` packed, given its size and
        memory of one byte more for the result, which need not use it.
    """

    name: str
    suffix: str
    help: str
    levels: tuple[int, int]
    default_level: int
    magic: bytes | None
    writer: Callable[[int], Codec]
    reader: Callable[[], Unpacker]
    unpack: Callable[[Packed, int, bytearray | None], Packed]


def _gzip_writer(level: int) -> Codec:
    from . import deflate

    return deflate.Gzip(level)


def _gzip_reader() -> Unpacker:
    from . import deflate

    return deflate.GzipUnpacker()


def _gzip_unpack(data: Packed, size: int, room: bytearray | None) -> Packed:
    from . import deflate

    return deflate.unpack(data, size, room)


def _zstd_writer(level: int) -> Codec:
    from . import zstd

    return zstd.Zstd(level)


def _zstd_reader() -> Unpacker:
    from . import zstd

    return zstd.ZstdUnpacker()


def _zstd_unpack(data: Packed, size: int, room: bytearray | None) -> Packed:
    from . import zstd

    return zstd.unpack(data, size, room)


def _plain_writer(level: int) -> Codec:  # noqa: ARG001
    return Plain()


def _plain_unpack(data: Packed, size: int, room: bytearray | None) -> Packed:  # noqa: ARG001
    if len(data) != size:
        raise Damaged(f"it has {len(data)} bytes instead of {size}")
    return data


CODECS: Registry[Compression] = Registry(
    "compression",
    (
        Compression(
            name="gzip",
            suffix=".tar.gz",
            help="The method is chosen per chunk; many times faster with ISA-L, needs nothing.",
            levels=(1, 9),
            default_level=6,
            magic=b"\x1f\x8b",
            writer=_gzip_writer,
            reader=_gzip_reader,
            unpack=_gzip_unpack,
        ),
        Compression(
            name="zstd",
            suffix=".tar.zst",
            help="Needs the system library libzstd 1.4 or later.",
            levels=(1, 9),
            default_level=3,
            magic=b"\x28\xb5\x2f\xfd",
            writer=_zstd_writer,
            reader=_zstd_reader,
            unpack=_zstd_unpack,
        ),
        Compression(
            name="none",
            suffix=".tar",
            help="A plain tar archive.",
            levels=(1, 9),
            default_level=6,
            magic=None,
            writer=_plain_writer,
            reader=PlainUnpacker,
            unpack=_plain_unpack,
        ),
    ),
    required=("suffix", "help", "levels", "default_level", "writer", "reader", "unpack"),
)


def make(compression: str, level: int) -> Codec:
    """Return the codec for the options.

    :raises NotUsable: its library is missing.
    :raises OptionError: unknown.
    """
    return CODECS[compression].writer(level)


def unpacker(beginning: bytes) -> Unpacker:
    """Return the unpacker for a stream that begins so (``MAGIC_SIZE`` bytes are enough).

    :raises NotUsable: its library is missing.
    """
    for compression in CODECS:
        if compression.magic is not None and beginning.startswith(compression.magic):
            return compression.reader()
    return CODECS["none"].reader()
