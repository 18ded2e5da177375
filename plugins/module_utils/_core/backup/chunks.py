# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading an archive by its index: chunks are unpacked in parallel, single files from theirs alone.

Only for what is exactly as it was made. At the first difference this ends, and where somebody wants
to know more the archive is read in the thorough way of ``reading``, which needs no index.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO

from ..ports import Progress, Tell
from ..system.text import display_path, human_list
from . import codecs, headers
from .ahead import Ahead
from .codec import BLOCK, Damaged
from .headers import SIZE
from .manifest import Contents, Head, Index, ManifestEntry
from .reading import Scan, Sink, _compare
from .source import FILE
from .unpacking import Changed, Tar

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


def scan(
    raw: BinaryIO,
    head: Head,
    contents: Contents,
    workers: int,
    tell: Tell,
    sink: Sink | None = None,
    phase: str = "verify",
    read: Callable[[int, int], bytes] | None = None,
) -> Scan:
    """Read a whole archive by its index and compare it with its manifest.

    Every header and every file is compared. The result has one problem at most, the first; the
    sink gets nothing more then.

    :param phase: with ``verify`` the archive's own SHA-256 is compared, too.
    :param read: returns a range of the archive, given offset and length. The chunks are not hashed
        on the way then: those that can be the cause of a problem are read again.
    :raises OSError: the archive can't be read.
    """
    result = Scan()
    current: str | None = None
    first, whole, total = 0, phase == "verify", head["archive"]["size"]
    tar = Tar(
        raw,
        head,
        contents.index or Index(0, (), ()),
        workers,
        lambda size: tell(Progress(phase, size, total)),
        whole=whole,
        hashed=read is None and not whole,
        settle=_nothing if sink is None else sink.settle,
    )
    with contextlib.closing(tar):
        try:
            tar.begin()
            for wanted in contents.entries:
                current, first = wanted["path"], max(0, tar.number)
                if not _member(tar, wanted, result, sink):
                    return _explained(result, tar, first, contents, read, current)
            current = None
            result.sha256, result.size = tar.finish(), tar.size
            if result.sha256 not in ("", head["archive"]["sha256"]):
                raise Damaged("its SHA-256 differs")
        except (Damaged, headers.Unknown) as error:
            result.add(f"the archive is damaged: {error}{_affected(error, contents)}", current)
            return _explained(result, tar, first, contents, read, current)
    return result


def _nothing() -> None:
    pass


def _explained(
    result: Scan,
    tar: Tar,
    first: int,
    contents: Contents,
    read: Callable[[int, int], bytes] | None,
    path: str | None,
) -> Scan:
    """Return the result with the damaged chunk as its problem, where one is the cause.

    :param first: the number of the first chunk that can be. :param path: where this was noticed.
    """
    if read is None or contents.index is None:
        return result
    for chunk in contents.index.chunks[first : tar.number + 1]:
        raw = read(chunk.offset, chunk.length)
        if hashlib.sha256(raw).hexdigest() != chunk.sha256:
            error = Changed(chunk)
            result.problems.clear()
            result.add(f"the archive is damaged: {error}{_affected(error, contents)}", path)
            break
    return result


def _member(tar: Tar, wanted: ManifestEntry, result: Scan, sink: Sink | None) -> bool:
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
                sink.data(piece)
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


def _is_next(tar: Tar, wanted: ManifestEntry, result: Scan, sink: Sink | None) -> bool:
    """Take the next member if it is this one to the byte and is in one chunk.

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
            sink.data(content)
    if wanted["type"] == FILE:
        result.files += 1
        result.bytes += size
    if sink is not None:
        sink.done(wanted)
    tar.skip(len(view))
    return True


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
    if index is None or not isinstance(error, Changed):
        return ""
    return f"; in them: {_listed(contents, index, index.chunks.index(error.chunk))}"


def _listed(contents: Contents, index: Index, number: int) -> str:
    """Return the files in a chunk as text, the first few by name."""
    paths = [display_path(path) for path in _files_in(contents, index, number)]
    return human_list(paths, _MOST_NAMED) or "no file"


def _files_in(contents: Contents, index: Index, number: int) -> list[str]:
    """Return the files of which a chunk holds something."""
    start, end = number * index.chunk_size, (number + 1) * index.chunk_size
    return [
        entry["path"]
        for entry, place in zip(contents.entries, index.places)
        # The header before the content is at most a few blocks long.
        if place >= 0 and place - SIZE < end and place + entry["size"] > start
    ]


class Single:
    """Reads single files of an archive from the chunks that hold them.

    :param read: returns a range of the archive, given offset and length.
    """

    def __init__(self, read: Callable[[int, int], bytes], head: Head, index: Index) -> None:
        self._read, self._index = read, index
        self._compression = codecs.CODECS[head["compression"]]
        self._plain_size = head["archive"]["plain_size"]
        #: Bytes of the archive that were read.
        self.size = 0
        self._number = -1
        self._chunk: codecs.Packed = b""

    def _plain(self, number: int) -> codecs.Packed:
        if number != self._number:
            if not 0 <= number < len(self._index.chunks):
                raise Damaged("the index does not fit")
            chunk, size = self._index.chunks[number], self._index.chunk_size
            raw = self._read(chunk.offset, chunk.length)
            self.size += len(raw)
            plain = min(size, self._plain_size - number * size)
            if hashlib.sha256(raw).hexdigest() != chunk.sha256:
                raise Changed(chunk)
            self._chunk = self._compression.unpack(raw, plain, None)
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
    connections: int = 1,
) -> Scan:
    """Give the sink some of what an archive holds, from the chunks that hold it.

    Every file is compared with its SHA-256 in the manifest. The first problem ends this.

    :param read: returns a range of the archive, given offset and length.
    :param connections: how many ranges may be read at the same time.
    """
    index = contents.index or Index(0, (), ())
    chosen = [
        (entry, place)
        for entry, place in zip(contents.entries, index.places)
        if entry["path"] in paths
    ]
    with contextlib.closing(Ahead(read, _ranges(chosen, index), connections)) as ahead:
        return _extract(Single(ahead.read, head, index), chosen, contents, tell, sink)


def _ranges(chosen: Sequence[tuple[ManifestEntry, int]], index: Index) -> list[tuple[int, int]]:
    """Return offset and length of the chunks that hold these files, in their order, each once."""
    numbers: dict[int, None] = {}
    for entry, place in chosen:
        if entry["type"] == FILE and entry["size"]:
            behind = -(-(place + entry["size"]) // index.chunk_size)
            first, end = max(0, place // index.chunk_size), min(behind, len(index.chunks))
            numbers.update(dict.fromkeys(range(first, end)))
    return [(index.chunks[number].offset, index.chunks[number].length) for number in numbers]


def _extract(
    single: Single,
    chosen: Sequence[tuple[ManifestEntry, int]],
    contents: Contents,
    tell: Tell,
    sink: Sink,
) -> Scan:
    """Give the sink these entries, each with the place of its content in the tar."""
    result = Scan()
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
