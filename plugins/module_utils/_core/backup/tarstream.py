# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tar headers (POSIX pax) made by hand.

Exact times, any name, any size, and nothing extra for the ordinary file.

The plain header always carries what fits, so that readers without pax still get whole seconds and
short names right.
"""

from __future__ import annotations

import functools
import os
import struct
import zlib

from .source import DIRECTORY, FILE, LINK, Entry

BLOCK = 512
#: Archives end with two empty blocks and are filled up to whole records, as tar(1) does.
RECORD = 10240

_TYPES = {FILE: b"0", LINK: b"2", DIRECTORY: b"5"}


#: Name, numbers with the checksum's place, type, target, magic; the rest is zeros.
_FIELDS = struct.Struct("100s56s1s100s8s247x")
_NUMBERS = b"%07o\0%07o\0%07o\0%011o\0%011o\0        "


def _fitting(value: int, width: int) -> int:
    """Return a number, 0 where its field is too small: then a pax record carries it."""
    if 0 <= value < 8 ** (width - 1):
        return value
    return 0


def _ustar(
    name: bytes, mode: int, uid: int, gid: int, size: int, mtime: int, kind: bytes, target: bytes
) -> bytes:
    if (mode | uid | gid) >> 21 or (size | mtime) >> 33:
        mode, uid, gid = _fitting(mode, 8), _fitting(uid, 8), _fitting(gid, 8)
        size, mtime = _fitting(size, 12), _fitting(mtime, 12)
    numbers = _NUMBERS % (mode, uid, gid, size, mtime)
    fields = _FIELDS.pack(name[:100], numbers, kind, target[:100], b"ustar\x0000")
    # The sum of all bytes, which stays below 65521: adler32 adds them up a hundred times as fast.
    counted = (zlib.adler32(fields) & 0xFFFF) - 1
    return b"%b%06o\0 %b" % (fields[:148], counted, fields[156:])


@functools.lru_cache(maxsize=1024)
def _pax_header(size: int) -> bytes:
    """Return the header of an extended header of ``size`` bytes."""
    return _ustar(b"././@PaxHeader", 0o644, 0, 0, size, 0, b"x", b"")


def _record(key: bytes, value: bytes) -> bytes:
    """Return one pax record; its decimal length counts itself."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest) + 1
    while len(str(length)) + len(rest) != length:
        length = len(str(length)) + len(rest)
    return str(length).encode("ascii") + rest


def _decimal(time_ns: int) -> bytes:
    """Return nanoseconds as decimal seconds, exact, also before 1970."""
    sign, rest = ("-", -time_ns) if time_ns < 0 else ("", time_ns)
    text = f"{sign}{rest // 10**9}.{rest % 10**9:09d}"
    return text.rstrip("0").rstrip(".").encode("ascii")


def pad(size: int, to: int = BLOCK) -> bytes:
    """Return the zeros that fill ``size`` bytes up to a multiple of ``to``."""
    return b"\0" * (-size % to)


def _needs_record(value: bytes) -> bool:
    """Say whether a name does not fit the plain header, or depends on the reader's locale there.

    A name that is no UTF-8 is better off in the plain header, byte for byte: libarchive complains
    about such a record.
    """
    if len(value) > 100:
        return True
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return not value.isascii()


def header(entry: Entry) -> bytes:
    """Return the header blocks of an entry.

    Names that are no UTF-8 are stored byte for byte, as GNU tar does.
    """
    return _ordinary(entry) or _any(entry)


def _ordinary(entry: Entry) -> bytes | None:
    """Return the header of a file or directory that needs no record but its time, None for others.

    It is what ``_any`` returns, in a fraction of the time.
    """
    path, kind, mode, uid, gid, size, mtime_ns = entry[:7]
    if kind == LINK or len(path) > 99 or not path.isascii():
        return None
    seconds, fraction = divmod(mtime_ns, 10**9)
    if (uid | gid) >> 21 or (size | seconds) >> 33:
        return None
    if kind == DIRECTORY:
        path += "/"
    block = _ustar(path.encode("ascii"), mode, uid, gid, size, seconds, _TYPES[kind], b"")
    if not fraction:
        return block
    record = _record(b"mtime", f"{seconds}.{fraction:09d}".rstrip("0").encode("ascii"))
    return b"%b%b%b" % (_pax_header(len(record)), record.ljust(BLOCK, b"\0"), block)


def _any(entry: Entry) -> bytes:
    name = os.fsencode(entry.path) + (b"/" if entry.type == DIRECTORY else b"")
    target = os.fsencode(entry.target)
    records = []
    for key, value in ((b"path", name), (b"linkpath", target)):
        if _needs_record(value):
            records.append(_record(key, value))
    for key, number, width in (
        (b"uid", entry.uid, 8),
        (b"gid", entry.gid, 8),
        (b"size", entry.size, 12),
    ):
        if number >= 8 ** (width - 1):
            records.append(_record(key, str(number).encode("ascii")))
    seconds = entry.mtime_ns // 10**9
    if entry.mtime_ns % 10**9 or not 0 <= seconds < 8**11:
        records.append(_record(b"mtime", _decimal(entry.mtime_ns)))
    extended = b""
    if records:
        body = b"".join(records)
        extended = _pax_header(len(body)) + body + pad(len(body))
    return extended + _ustar(
        name, entry.mode, entry.uid, entry.gid, entry.size, seconds, _TYPES[entry.type], target
    )


def end(size: int) -> bytes:
    """Return the end of an archive that is ``size`` bytes long so far."""
    return b"\0" * (2 * BLOCK) + pad(size + 2 * BLOCK, RECORD)
