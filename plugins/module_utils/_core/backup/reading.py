# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading an archive in one pass.

Hash all of it, unpack, parse the tar, hash every file, compare with the manifest.

Verification and restore share this reader. It is independent of the writer: zlib (or libzstd)
checks the compression and the standard library's tarfile the structure.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol

from ..errors import NotPermitted, NotUsable, VerificationFailed
from ..ports import Progress, Tell
from ..system.text import display_path
from . import codec, codecs
from .headers import check_path
from .manifest import Contents, ManifestEntry
from .source import DIRECTORY, FILE, LINK

HARD_LINK = "hard link"
#: More problems than this in one archive are counted, not listed.
MOST_PROBLEMS = 100
#: Bytes that tarfile asks for at a time. It copies up to that much for each header that it reads.
_TAR_BUFFER = 16 << 10
#: The type of GNU tar's label for an archive (tar -V), which holds nothing.
_LABEL = b"V"


@dataclass(frozen=True)
class Problem:
    """What is wrong with a backup.

    ``path`` is the file in it, or None for the archive as a whole.
    """

    message: str
    path: str | None = None

    def __str__(self) -> str:
        return (
            f"{display_path(self.path)}: {self.message}" if self.path is not None else self.message
        )


class Sink(Protocol):
    """Receives what an archive holds.

    Entries have the manifest's keys; a file's ``size`` is known before its content.
    """

    def begin(self, entry: ManifestEntry) -> None:
        """A file, directory or link begins."""
        ...  # pylint: disable=unnecessary-ellipsis

    def data(self, piece: bytes | memoryview) -> None:
        """Content of the file that has begun."""
        ...  # pylint: disable=unnecessary-ellipsis

    def done(self, entry: ManifestEntry) -> None:
        """The entry is complete; a file's ``sha256`` is set."""
        ...  # pylint: disable=unnecessary-ellipsis

    def settle(self) -> None:
        """Return when no content is needed any more that came before the last call of this."""
        ...  # pylint: disable=unnecessary-ellipsis


@dataclass
class Scan:
    """The result of reading an archive.

    ``size`` and ``sha256`` are the archive's; sizes in bytes.
    """

    problems: list[Problem] = field(default_factory=list)
    more_problems: int = 0
    size: int = 0
    sha256: str = ""
    files: int = 0
    bytes: int = 0

    def add(self, message: str, path: str | None = None) -> None:
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(Problem(message, path))
        else:
            self.more_problems += 1

    def raise_for(self, what: str) -> None:
        """Raise VerificationFailed that names the first problems, if there are any."""
        if self.problems:
            shown_ones = "; ".join(str(problem) for problem in self.problems[:5])
            more = len(self.problems) + self.more_problems - 5
            raise VerificationFailed(
                f"{what} is damaged:"
                f" {shown_ones}{f'; and {more} more problems' if more > 0 else ''}.",
                "Use another backup; nothing was changed by this check.",
                what,
            )


class _Plain(io.RawIOBase):
    """The tar inside an archive as a stream, hashing the archive on the way."""

    def __init__(self, raw: BinaryIO, total: int, tell: Tell, phase: str) -> None:
        self._raw, self._total, self._tell, self._phase = raw, total, tell, phase
        self._hash = hashlib.sha256()
        self._unpacker: codec.Unpacker | None = None
        self._buffer = b""
        self._start = 0  # of what was not read yet in the buffer
        self._ended = False
        self.size = 0
        self.plain = 0
        #: Offset behind the last byte that is not zero: whether anything follows the end of the
        #: tar.
        self.last_data = 0

    def readable(self) -> bool:
        return True

    def _more(self) -> bytes:
        """Return some more plain data, b"" at the end. :raises codec.Damaged:"""
        while True:
            if self._unpacker is not None and self._unpacker.pending:
                data = self._unpacker.feed(b"")
            elif self._ended:
                return b""
            else:
                raw = self._raw_block()
                if not raw:
                    self._ended = True
                    if self._unpacker is None:
                        raise codec.Damaged("it is empty")
                    self._unpacker.finish()
                    return b""
                if self._unpacker is None:
                    self._unpacker = codecs.unpacker(raw)
                data = self._unpacker.feed(raw)
            if data:
                kept = len(data.rstrip(b"\0"))
                if kept:
                    self.last_data = self.plain + kept
                self.plain += len(data)
                return data

    def _raw_block(self) -> bytes:
        raw = self._raw.read(codec.BLOCK)
        while 0 < len(raw) < codecs.MAGIC_SIZE:
            more = self._raw.read(codecs.MAGIC_SIZE)
            if not more:
                break
            raw += more
        self._hash.update(raw)
        self.size += len(raw)
        self._tell(Progress(self._phase, self.size, self._total))
        return raw

    def read(self, size: int = -1) -> bytes:
        """Return exactly ``size`` bytes, fewer only at the end and before damage.

        :raises codec.Damaged: the next byte is damaged.
        """
        have = len(self._buffer) - self._start
        if have < size:
            pieces = [self._buffer[self._start :]]
            while have < size:
                try:
                    piece = self._more()
                except codec.Damaged:
                    if not have:
                        raise
                    break
                if not piece:
                    break
                pieces.append(piece)
                have += len(piece)
            self._buffer, self._start = b"".join(pieces), 0
        data = self._buffer[self._start : self._start + size]
        self._start += len(data)
        return data

    def drain(self) -> None:
        """Unpack the rest; it counts for ``plain`` and ``last_data``."""
        self._buffer, self._start = b"", 0
        while self._more():
            pass

    def hash_rest(self) -> str:
        """Read the rest of the archive without unpacking it and return the SHA-256 of all of it."""
        while not self._ended and self._raw_block():
            pass
        return self._hash.hexdigest()


def _entry(member: tarfile.TarInfo) -> ManifestEntry:
    """Return a member with the manifest's keys.

    :raises VerificationFailed: a device, a pipe, or an unsafe name.
    """
    entry: ManifestEntry = {
        "path": check_path(member.name),
        "type": FILE,
        "mode": f"{member.mode & 0o7777:04o}",
        "uid": member.uid,
        "gid": member.gid,
        "mtime_ns": _nanoseconds(member),
    }
    if member.isdir():
        entry["type"] = DIRECTORY
    elif member.issym():
        entry["type"] = LINK
        entry["target"] = member.linkname
    elif member.islnk():
        entry["type"] = HARD_LINK
        entry["target"] = check_path(member.linkname)
    elif member.isreg():
        entry["size"] = member.size
    else:
        raise VerificationFailed(
            f"The archive holds {display_path(member.name)!r}, which is a device or a pipe.",
            "Don't trust this archive.",
            display_path(member.name),
        )
    return entry


def _nanoseconds(member: tarfile.TarInfo) -> int:
    text = member.pax_headers.get("mtime")
    if text is None:
        return int(member.mtime) * 10**9
    sign = -1 if text.startswith("-") else 1
    whole, dummy, fraction = text.lstrip("-").partition(".")
    try:
        return sign * (int(whole or "0") * 10**9 + int((fraction + "0" * 9)[:9]))
    except ValueError:
        return int(member.mtime) * 10**9


_COMPARED = ("type", "mode", "uid", "gid", "mtime_ns", "size", "sha256", "target")
_NOUNS = {"sha256": "content (SHA-256)", "mtime_ns": "modification time", "target": "link target"}


def _compare(
    scan: Scan,
    entry: ManifestEntry,
    wanted: ManifestEntry | None,
    without: tuple[str, ...] = (),
) -> None:
    """Add to the problems how the entry differs from the manifest's.

    :param without: keys that are not known yet.
    """
    if wanted is None:
        scan.add("is in the archive but not in the manifest", entry["path"])
        return
    differ = [
        _NOUNS.get(key, key)
        for key in _COMPARED
        if key not in without and entry.get(key) != wanted.get(key)
    ]
    if differ:
        scan.add(f"differs from the manifest in {', '.join(differ)}", entry["path"])


class _Reader:
    """Compares an archive's members with the manifest and hands them to the sink, one at a time."""

    def __init__(
        self, wanted: Mapping[str, ManifestEntry] | None, sink: Sink | None, salvage: bool
    ) -> None:
        self.result = Scan()
        #: What is being read when something goes wrong.
        self.current: str | None = None
        self.seen: set[str] = set()
        self._wanted, self._sink, self._salvage = wanted, sink, salvage
        #: Stop at the first problem: nothing that may be wrong reaches the sink.
        self.strict = sink is not None and not salvage
        #: With a manifest to tell entries from what only looks like an entry, reading may go on
        #: behind a damaged header.
        self.search = salvage and wanted is not None

    def read(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> bool:
        """Read a member; return whether to go on with the next."""
        if member.name.rstrip("/") in ("", ".") or member.type == _LABEL:
            return True
        self.current = member.name
        entry = _entry(member)
        self.current = path = entry["path"]
        if self.search and self._wanted is not None and path not in self._wanted:
            self.result.add("is in the archive but not in the manifest", path)
            return True
        if path in self.seen:
            self.result.add("is in the archive twice", path)
            if self.strict:
                return False
            if self._salvage:
                return True
        self.seen.add(path)
        return self._read(tar, member, entry)

    def _read(self, tar: tarfile.TarFile, member: tarfile.TarInfo, entry: ManifestEntry) -> bool:
        wanted = None if self._wanted is None else self._wanted.get(entry["path"])
        if self.strict and self._wanted is not None:
            _compare(self.result, entry, wanted, without=("sha256",))
            if self.result.problems:
                return False
        if self._sink is not None:
            self._sink.begin(entry)
        if entry["type"] == FILE:
            _content(tar, member, entry, self._sink)
            self.result.files += 1
            self.result.bytes += entry["size"]
        if self._wanted is not None:
            _compare(self.result, entry, wanted)
            if self.result.problems and self.strict:
                return False
        if self._sink is not None:
            self._sink.done(entry)
        self.current = None
        return True


def scan(
    raw: BinaryIO,
    total: int,
    contents: Contents | None,
    sha256: str | None,
    tell: Tell,
    sink: Sink | None = None,
    phase: str = "verify",
    salvage: bool = False,
) -> Scan:
    """Read a whole archive and compare it with its manifest and checksum.

    Every difference becomes a problem.

    :param total: expected size of the archive in bytes.
    :param contents: what its manifest lists, None for archives of the old scripts.
    :param sha256: the archive's expected SHA-256, None when there is none.
    :param sink: gets the content while it is read, before the end has been checked; nothing more
        after the first problem.
    :param salvage: give the sink whatever can be unpacked, problems or not. A file that breaks off
        is begun, never completed.
    :raises VerificationFailed: entries no archive of ours may hold.
    :raises OSError: the archive can't be read.
    """
    wanted = None if contents is None else {entry["path"]: entry for entry in contents.entries}
    reader = _Reader(wanted, sink, salvage)
    plain = _Plain(raw, total, tell, phase)
    result = reader.result
    try:
        _read_members(reader, plain)
    except (tarfile.TarError, codec.Damaged, EOFError, ValueError) as error:
        where = f" at byte {plain.size} of {total}"
        result.add(f"can't be unpacked any further{where}: {error}", reader.current)
    if result.problems and reader.strict:
        return result
    for path in wanted or ():
        if path not in reader.seen:
            result.add("is missing in the archive", path)
    result.sha256 = plain.hash_rest()
    result.size = plain.size
    if sha256 is not None and result.sha256 != sha256:
        result.add(f"the archive's SHA-256 is {result.sha256}, but was {sha256} when it was made")
    if contents is not None and result.size != total:
        result.add(f"the archive is {result.size} bytes long, but was {total} when it was made")
    return result


def _read_members(reader: _Reader, plain: _Plain) -> None:
    """Read all members, and what is behind the last. Raises what tarfile and the unpacker do."""
    with tarfile.open(
        fileobj=plain,
        mode="r|",
        bufsize=_TAR_BUFFER,
        encoding="utf-8",
        errors="surrogateescape",
        ignore_zeros=reader.search,
    ) as tar:
        for member in _members(tar, reader.search):
            if not reader.read(tar, member):
                break
        offset = tar.offset
    if reader.result.problems and reader.strict:
        return
    plain.drain()
    if plain.last_data > offset:
        reader.result.add("the archive goes on behind its end: an entry's header is damaged")
    elif plain.plain < offset + 2 * tarfile.BLOCKSIZE:
        reader.result.add("the archive has no end: it was cut off")


def _members(tar: tarfile.TarFile, search: bool) -> Iterator[tarfile.TarInfo]:
    """Return the archive's members, one at a time.

    :param search: search for the next member behind a damaged header.
    """
    while True:
        try:
            member = tar.next()
        except tarfile.ReadError:
            if not search or tar.fileobj is None:
                raise
            tar.offset = tar.fileobj.tell()
            continue
        tar.members = []  # type: ignore[attr-defined]  # tarfile would keep them all
        if member is None:
            return
        yield member


def _content(
    tar: tarfile.TarFile, member: tarfile.TarInfo, entry: ManifestEntry, sink: Sink | None
) -> None:
    stream = tar.extractfile(member)
    digest = hashlib.sha256()
    remaining = entry["size"]
    while remaining:
        piece = stream.read(min(codec.BLOCK, remaining)) if stream is not None else b""
        if not piece:
            raise EOFError("the content ends early")
        digest.update(piece)
        if sink is not None:
            sink.data(piece)
        remaining -= len(piece)
    entry["sha256"] = digest.hexdigest()


def open_archive(path: str) -> BinaryIO:
    """Open an archive for reading, not through a link in the last component.

    :raises NotUsable: it can't be.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except PermissionError as error:
        raise NotPermitted(
            f"Can't open the archive {display_path(path)}: {error.strerror}.",
            "Run this as root or as the user who made the backups.",
            path,
        ) from error
    except OSError as error:
        raise NotUsable(
            f"Can't open the archive {display_path(path)}: {error.strerror}.",
            "Check its path and permissions.",
            path,
        ) from error
    if not os.path.isfile(f"/proc/self/fd/{fd}"):
        os.close(fd)
        raise NotUsable(f"{display_path(path)} is not a file.", "Name an archive.", path)
    return os.fdopen(fd, "rb", buffering=0)
