# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading an archive by its index: chunks are unpacked in parallel, single files from theirs alone.

Only for what is exactly as it was made. At the first difference this ends, and where somebody wants
to know more the archive is read in the thorough way of ``reading``, which needs no index.
"""

from __future__ import annotations

import collections
import hashlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from ..ports import Progress, Tell
from ..system.text import display_path, human_list
from . import codecs, headers, isal
from .codec import BLOCK, Damaged
from .codecs import Compression
from .headers import SIZE
from .manifest import Chunk, Contents, Head, Index, ManifestEntry
from .reading import Scan, Sink, _compare
from .source import FILE

#: Files that are named where a range of the archive is damaged.
_MOST_NAMED = 5


def usable(head: Head | None, contents: Contents | None) -> bool:
    """Say whether there is an index to read by."""
    return (
        head is not None
        and contents is not None
        and contents.index is not None
        and head["compression"] in codecs.CODECS
    )


class _Changed(Damaged):
    """A chunk is not what was written."""

    def __init__(self, chunk: Chunk) -> None:
        super().__init__(f"its bytes {chunk.offset} to {chunk.offset + chunk.length} were changed")
        self.chunk = chunk


def _unpacked(compression: Compression, raw: bytes, chunk: Chunk, size: int) -> bytes | bytearray:
    """Return the plain data of a chunk. :raises Damaged: it is not what was written."""
    if hashlib.sha256(raw).hexdigest() != chunk.sha256:
        raise _Changed(chunk)
    return compression.unpack(raw, size)


class _Tar:
    """The tar in an archive, unpacked by threads. Hashes the archive on the way."""

    def __init__(
        self,
        raw: BinaryIO,
        head: Head,
        index: Index,
        executor: Any,
        ahead: int,
        tell: Callable[[int], None],
        whole: bool,
    ) -> None:
        self._raw, self._index, self._executor, self._ahead = raw, index, executor, ahead
        self._tell = tell
        self._compression = codecs.CODECS[head["compression"]]
        self._plain_size = head["archive"]["plain_size"]
        #: Not needed where every chunk is compared with its own SHA-256, and the rest by itself.
        self._hash = hashlib.sha256() if whole else None
        self._crc = 0
        self._next = 0
        self._waiting: collections.deque[Any] = collections.deque()
        self._data = memoryview(b"")
        #: Bytes of the archive that were read.
        self.size = 0
        self._taken = 0
        codec = self._compression.writer(self._compression.default_level)
        self._trailer = codec.trailer
        if self._exactly(len(codec.header)) != codec.header:
            raise Damaged("its beginning was changed")

    def _exactly(self, count: int) -> bytes:
        pieces = []
        while count:
            piece = self._raw.read(count)
            if not piece:
                raise Damaged("it ends early")
            pieces.append(piece)
            count -= len(piece)
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if self._hash is not None:
            self._hash.update(data)
        self.size += len(data)
        self._tell(self.size)
        return data

    def _fill(self) -> None:
        """Hand chunks to the threads and take the next piece of the tar."""
        chunks, size = self._index.chunks, self._index.chunk_size
        while self._next < len(chunks) and len(self._waiting) < self._ahead:
            chunk = chunks[self._next]
            if chunk.offset != self.size:
                raise Damaged("the index does not fit")
            plain = min(size, self._plain_size - self._next * size)
            raw = self._exactly(chunk.length)
            self._waiting.append(
                self._executor.submit(_unpacked, self._compression, raw, chunk, plain)
            )
            self._next += 1
        if not self._waiting:
            raise Damaged("the tar in it ends early")
        data = self._waiting.popleft().result()
        self._crc = isal.crc32(data, self._crc)
        self._data = memoryview(data)

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
        trailer = self._trailer(self._crc, self._plain_size)
        if self._exactly(len(trailer)) != trailer or self._raw.read(1):
            raise Damaged("its end was changed")
        if self._hash is None:
            return ""
        return self._hash.hexdigest()


def scan(
    raw: BinaryIO,
    head: Head,
    contents: Contents,
    workers: int,
    tell: Tell,
    sink: Sink | None = None,
    phase: str = "verify",
) -> Scan:
    """Read a whole archive by its index and compare it with its manifest.

    The result has one problem at most, the first; the sink gets nothing more then.

    :raises OSError: the archive can't be read.
    """
    from concurrent.futures import ThreadPoolExecutor

    result = Scan()
    current: str | None = None
    executor = ThreadPoolExecutor(workers, "unpack")
    try:
        total = head["archive"]["size"]
        tar = _Tar(
            raw,
            head,
            contents.index or Index(0, (), ()),
            executor,
            workers + 1,
            lambda size: tell(Progress(phase, size, total)),
            whole=phase == "verify",
        )
        for wanted in contents.entries:
            current = wanted["path"]
            if not _member(tar, wanted, result, sink):
                return result
        current = None
        result.sha256, result.size = tar.finish(), tar.size
        if result.sha256 not in ("", head["archive"]["sha256"]):
            raise Damaged("its SHA-256 differs")
    except (Damaged, headers.Unknown) as error:
        result.add(f"the archive is damaged: {error}{_affected(error, contents)}", current)
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
    return result


def _member(tar: _Tar, wanted: ManifestEntry, result: Scan, sink: Sink | None) -> bool:
    """Read the next member, which must be this one; say whether it is."""
    if _is_next(tar, wanted, result, sink):
        return True
    entry = headers.read(tar.read)
    expected = wanted.copy()
    expected.pop("sha256", None)
    if entry != expected:
        _compare(result, entry, wanted, without=("sha256",))
        if entry["path"] != wanted["path"] or not result.problems:
            result.add("is not where the manifest says", wanted["path"])
        return False
    if sink is not None:
        sink.begin(entry)
    if entry["type"] == FILE:
        digest = hashlib.sha256()
        for piece in tar.pieces(entry["size"]):
            digest.update(piece)
            if sink is not None:
                _give(sink, piece)
        entry["sha256"] = digest.hexdigest()
        if tar.read(-entry["size"] % SIZE).strip(b"\0"):
            raise Damaged("what is behind the content was changed")
        if entry["sha256"] != wanted["sha256"]:
            _compare(result, entry, wanted)
            return False
        result.files += 1
        result.bytes += entry["size"]
    if sink is not None:
        sink.done(entry)
    return True


def _is_next(tar: _Tar, wanted: ManifestEntry, result: Scan, sink: Sink | None) -> bool:
    """Take the next member if it is this one to the byte and lies in one chunk.

    Otherwise nothing is taken, and the member has to be read.
    """
    header = headers.expected(wanted)
    if header is None:
        return False
    begin, size = len(header), wanted.get("size", 0)
    end = begin + size
    view = tar.peek(end + -size % SIZE)
    if view is None or bytes(view[:begin]) != header:
        return False
    content = view[begin:end]
    if wanted["type"] == FILE and hashlib.sha256(content).hexdigest() != wanted["sha256"]:
        return False
    if bytes(view[end:]).strip(b"\0"):
        return False
    if sink is not None:
        sink.begin(wanted)
        if size:
            _give(sink, content)
    if wanted["type"] == FILE:
        result.files += 1
        result.bytes += size
    if sink is not None:
        sink.done(wanted)
    tar.skip(len(view))
    return True


def _give(sink: Sink, piece: memoryview) -> None:
    for start in range(0, len(piece), BLOCK):
        sink.data(piece[start : start + BLOCK])


def damage(read: Callable[[int, int], bytes], contents: Contents) -> list[str]:
    """Return which ranges of an archive are damaged, with the files in them.

    :param read: returns a range of the archive, given offset and length.
    """
    index = contents.index
    if index is None:
        return []
    lines = []
    for number, chunk in enumerate(index.chunks):
        if hashlib.sha256(read(chunk.offset, chunk.length)).hexdigest() == chunk.sha256:
            continue
        lines.append(
            f"bytes {chunk.offset} to {chunk.offset + chunk.length} of the archive are damaged; "
            f"in them: {_listed(contents, index, number)}"
        )
    return lines


def _affected(error: Exception, contents: Contents) -> str:
    """Return the files in the damaged range, where that is known: any of them may be damaged."""
    index = contents.index
    if index is None or not isinstance(error, _Changed):
        return ""
    return f"; in them: {_listed(contents, index, index.chunks.index(error.chunk))}"


def _listed(contents: Contents, index: Index, number: int) -> str:
    """Return the files in a chunk as text, the first few by name."""
    paths = [display_path(path) for path in _files_in(contents, index, number)]
    return human_list(paths, _MOST_NAMED) or "no file"


def _files_in(contents: Contents, index: Index, number: int) -> list[str]:
    """Return the files that lie in a chunk, wholly or in part."""
    start, end = number * index.chunk_size, (number + 1) * index.chunk_size
    return [
        entry["path"]
        for entry, place in zip(contents.entries, index.places)
        # The header before the content is at most a few blocks long.
        if place >= 0 and place - SIZE < end and place + entry["size"] > start
    ]


class Single:
    """Reads single files of an archive from the chunks they lie in.

    :param read: returns a range of the archive, given offset and length.
    """

    def __init__(self, read: Callable[[int, int], bytes], head: Head, index: Index) -> None:
        self._read, self._index = read, index
        self._compression = codecs.CODECS[head["compression"]]
        self._plain_size = head["archive"]["plain_size"]
        #: Bytes of the archive that were read.
        self.size = 0
        self._number = -1
        self._chunk: bytes | bytearray = b""

    def _plain(self, number: int) -> bytes | bytearray:
        if number != self._number:
            if not 0 <= number < len(self._index.chunks):
                raise Damaged("the index does not fit")
            chunk, size = self._index.chunks[number], self._index.chunk_size
            raw = self._read(chunk.offset, chunk.length)
            self.size += len(raw)
            plain = min(size, self._plain_size - number * size)
            self._chunk = _unpacked(self._compression, raw, chunk, plain)
            self._number = number
        return self._chunk

    def content(self, entry: ManifestEntry, place: int) -> Iterator[memoryview]:
        """Give the content of a file whose content begins at ``place`` in the tar.

        :raises Damaged: a chunk is not what was written.
        """
        position, remaining, size = place, entry["size"], self._index.chunk_size
        while remaining:
            start = position % size
            data = self._plain(position // size)
            piece = memoryview(data)[start : start + min(remaining, BLOCK)]
            if not piece:
                raise Damaged("the index does not fit")
            yield piece
            position += len(piece)
            remaining -= len(piece)


def extract(
    read: Callable[[int, int], bytes],
    head: Head,
    contents: Contents,
    paths: set[str],
    tell: Tell,
    sink: Sink,
) -> Scan:
    """Give the sink some of what an archive holds, from the chunks that hold it.

    Every file is compared with its SHA-256 in the manifest. The first problem ends this.

    :param read: returns a range of the archive, given offset and length.
    """
    result = Scan()
    index = contents.index or Index(0, (), ())
    single = Single(read, head, index)
    chosen = [
        (entry, place)
        for entry, place in zip(contents.entries, index.places)
        if entry["path"] in paths
    ]
    total = sum(entry["size"] for entry, dummy in chosen if entry["type"] == FILE)
    for entry, place in chosen:
        headers.check_path(entry["path"])
        sink.begin(entry)
        if entry["type"] == FILE:
            digest = hashlib.sha256()
            try:
                for piece in single.content(entry, place):
                    digest.update(piece)
                    sink.data(piece)
            except Damaged as error:
                result.add(
                    f"the archive is damaged: {error}{_affected(error, contents)}", entry["path"]
                )
                return result
            if digest.hexdigest() != entry["sha256"]:
                result.add("differs from the manifest in content (SHA-256)", entry["path"])
                return result
            result.files += 1
            result.bytes += entry["size"]
            tell(Progress("restore", result.bytes, total))
        sink.done(entry)
    return result
