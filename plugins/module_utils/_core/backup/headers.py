# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading the tar headers that ``tarstream`` writes, and no others.

Written from the format's description (POSIX pax) and not from the writer, so that each checks the
other. Reading all that other tools write is left to the standard library's tarfile, which takes
ten times as long for a small file.
"""

from __future__ import annotations

import functools
import struct
import zlib
from collections.abc import Callable

from ..errors import VerificationFailed
from ..system.text import display_path
from .manifest import ManifestEntry
from .source import DIRECTORY, FILE, LINK

#: Bytes of a block of a tar.
SIZE = 512
_TYPES = {b"0": FILE, b"2": LINK, b"5": DIRECTORY}
_MAGIC = b"ustar\x0000"
_ZEROS = bytes(SIZE - 265)
#: Most bytes of an extended header: names and targets have 4 KiB at most.
_MOST_EXTENDED = 64 << 10


class Unknown(Exception):
    """A header that is damaged, or that we never write."""


def check_path(path: str) -> str:
    """Return a path in an archive.

    :raises VerificationFailed: absolute, empty, or with ``..``: no archive of ours has such a name.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if path.startswith("/") or ".." in parts or "\0" in path:
        raise VerificationFailed(
            f"The archive holds an entry with the unsafe name {display_path(path)!r}.",
            "Don't trust this archive.",
            display_path(path),
        )
    return "/".join(parts)


def _number(field: bytes) -> int:
    try:
        return int(field.rstrip(b"\0 ") or b"0", 8)
    except ValueError:
        raise Unknown("an entry's header is damaged") from None


def _block(data: bytes) -> bytes:
    """Return a header block whose checksum is right and that has no field we leave empty."""
    counted = sum(data[:148]) + sum(data[156:265]) + 8 * 32  # what is behind must be zeros
    if len(data) != SIZE or _number(data[148:156]) != counted:
        raise Unknown("an entry's header is damaged")
    if data[257:265] != _MAGIC or data[265:] != _ZEROS:
        raise Unknown("an entry's header is not as it was written")
    return data


def _records(data: bytes) -> dict[bytes, bytes]:
    """Return the records of an extended header."""
    records = {}
    while data:
        digits = data.partition(b" ")[0]
        try:
            length = int(digits)
        except ValueError:
            raise Unknown("an entry's extended header is damaged") from None
        record = data[len(digits) + 1 : length]
        key, separator, value = record[:-1].partition(b"=")
        if not separator or record[-1:] != b"\n" or len(data) < length:
            raise Unknown("an entry's extended header is damaged")
        records[key] = value
        data = data[length:]
    return records


def _nanoseconds(text: bytes) -> int:
    sign = -1 if text.startswith(b"-") else 1
    whole, dummy, fraction = text.lstrip(b"-").partition(b".")
    return sign * (int(whole or b"0") * 10**9 + int((fraction + b"0" * 9)[:9]))


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def read(take: Callable[[int], bytes]) -> ManifestEntry:
    """Return the entry that begins here, with the manifest's keys; its content comes next.

    :param take: returns exactly so many of the next bytes.
    :raises Unknown: the header is damaged, or not ours.
    """
    block = _block(take(SIZE))
    records: dict[bytes, bytes] = {}
    if block[156:157] == b"x":
        size = _number(block[124:136])
        if size > _MOST_EXTENDED:
            raise Unknown("an entry's extended header is too long")
        records = _records(take(size + -size % SIZE)[:size])
        block = _block(take(SIZE))
    kind = _TYPES.get(block[156:157])
    if kind is None:
        raise Unknown("an entry is of a kind that we never write")
    try:
        return _entry(block, records, kind)
    except ValueError:
        raise Unknown("an entry's extended header is damaged") from None


def _entry(block: bytes, records: dict[bytes, bytes], kind: str) -> ManifestEntry:
    def value(key: bytes, start: int, end: int) -> int:
        return int(records[key]) if key in records else _number(block[start:end])

    path = records.get(b"path") or block[:100].rstrip(b"\0")
    mtime = records.get(b"mtime")
    entry: ManifestEntry = {
        "path": check_path(_text(path)),
        "type": kind,
        "mode": f"{_number(block[100:108]):04o}",
        "uid": value(b"uid", 108, 116),
        "gid": value(b"gid", 116, 124),
        "mtime_ns": _number(block[136:148]) * 10**9 if mtime is None else _nanoseconds(mtime),
    }
    if kind == FILE:
        entry["size"] = value(b"size", 124, 136)
    elif kind == LINK:
        entry["target"] = _text(records.get(b"linkpath") or block[157:257].rstrip(b"\0"))
    return entry


_FIELDS = struct.Struct("100s24s12s12s8s1s100s8s247x")
_EXTENDED = b"././@PaxHeader".ljust(100, b"\0") + b"0000644\x000000000\x000000000\0"
#: Bits of a number of 7 and of 11 octal digits.
_SHORT, _LONG = 21, 33


def expected(entry: ManifestEntry) -> bytes | None:
    """Return the header of an ordinary file or directory as it must be, None for any other.

    Written from the format's description like the rest of this module. Comparing with it takes a
    fraction of the time of reading a header.
    """
    name = entry["path"]
    if entry["type"] == DIRECTORY:
        name += "/"
    elif entry["type"] != FILE:
        return None
    size, seconds, fraction = entry.get("size", 0), *divmod(entry["mtime_ns"], 10**9)
    ordinary = (
        len(name) <= 100
        and name.isascii()
        and not name.startswith(("/", "./"))
        and ".." not in name
        and "\0" not in name
        and not (entry["uid"] | entry["gid"]) >> _SHORT
        and not (size | seconds) >> _LONG
    )
    if not ordinary:
        return None
    kind = b"5"
    if entry["type"] == FILE:
        kind = b"0"
    owner = b"%07o\0%07o\0%07o\0" % (int(entry["mode"], 8), entry["uid"], entry["gid"])
    block = _packed(name.encode("ascii"), owner, size, seconds, kind)
    if not fraction:
        return block
    record = b" mtime=" + f"{seconds}.{fraction:09d}".rstrip("0").encode("ascii") + b"\n"
    length = len(record) + 2  # between 10 and 99
    return _extended(length) + (b"%d%b" % (length, record)).ljust(SIZE, b"\0") + block


def _packed(name: bytes, owner: bytes, size: int, seconds: int, kind: bytes) -> bytes:
    numbers = b"%011o\0" % size, b"%011o\0" % seconds
    block = _FIELDS.pack(name, owner, *numbers, b" " * 8, kind, b"", _MAGIC)
    # adler32 begins with 1 and adds up all bytes, modulo 65521; there are not so many.
    counted = (zlib.adler32(block) & 0xFFFF) - 1
    return block[:148] + b"%06o\0 " % counted + block[156:]


@functools.lru_cache(maxsize=128)
def _extended(length: int) -> bytes:
    """Return the header of an extended header with one record of this length."""
    return _packed(_EXTENDED[:100], _EXTENDED[100:], length, 0, b"x")
