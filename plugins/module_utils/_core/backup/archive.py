# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writing an archive in one pass.

Read, hash every file, make tar, compress in threads, hash all of it, write.
"""

from __future__ import annotations

import collections
import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..errors import NotUsable
from ..ports import Progress, Tell, silent
from ..system.files import write_all
from ..system.text import display_path
from . import isal, tarstream
from .codec import CHUNK, Codec
from .manifest import Chunk
from .source import FILE, GONE, Directories, Entry, Tree, below, stat_when_stable

#: Most threads that compress by default; more gain little and each costs 16 MiB.
MOST_WORKERS = 8
#: Files up to this size in bytes are read at once.
_SMALL = 256 << 10


class Changed(Exception):
    """A file was changed while it was read, so what was read is no state it ever had.

    ``args[0]`` is its path.
    """


@dataclass(frozen=True)
class Written:
    """A finished archive.

    Its size and SHA-256, bytes of tar in it, what it holds (as it was read) and each file's
    SHA-256; its chunks, and where in the tar the content of each entry begins (-1: no file).
    """

    size: int
    sha256: str
    plain: int
    entries: tuple[Entry, ...]
    digests: dict[str, str]
    chunks: tuple[Chunk, ...]
    places: tuple[int, ...]
    chunk_size: int = CHUNK


def cpus(workers: int) -> int:
    """Return the number of threads for the option ``workers``."""
    return workers or max(1, min(MOST_WORKERS, len(os.sched_getaffinity(0))))


class _Pipe:
    """Takes tar bytes, gives chunks to the threads and writes their results in order.

    Memory is bounded by the threads.
    """

    def __init__(
        self, write: Callable[[bytes | bytearray], None], codec: Codec, executor: Any, workers: int
    ) -> None:
        self._write, self._codec, self._executor = write, codec, executor
        #: Chunks that are compressed or wait for it; each holds twice its size at most.
        self._limit = workers + 1
        self._waiting: collections.deque[Any] = collections.deque()
        self._buffer = bytearray(CHUNK)
        self._filled = 0
        self._crc = 0
        self._offset = len(codec.header)
        self.plain = 0
        self.chunks: list[Chunk] = []
        write(codec.header)

    def space(self, wanted: int) -> memoryview:
        """Return room for up to ``wanted`` bytes; ``advance`` takes how many were put there."""
        return memoryview(self._buffer)[self._filled : min(CHUNK, self._filled + wanted)]

    def advance(self, count: int) -> None:
        self._filled += count
        self.plain += count
        if self._filled == CHUNK:
            self._submit()

    def put(self, data: bytes) -> None:
        end = self._filled + len(data)
        if end < CHUNK:
            self._buffer[self._filled : end] = data
            self._filled = end
            self.plain += len(data)
            return
        view = memoryview(data)
        while view:
            room = self.space(len(view))
            count = len(room)
            room[:] = view[:count]
            view = view[count:]
            self.advance(count)

    def _submit(self) -> None:
        chunk = memoryview(self._buffer)[: self._filled]
        self._crc = isal.crc32(chunk, self._crc)
        self._waiting.append(self._executor.submit(self._packed, chunk))
        while len(self._waiting) > self._limit:
            self._take()
        self._buffer, self._filled = bytearray(CHUNK), 0

    def _packed(self, chunk: memoryview) -> tuple[bytes | bytearray, str]:
        packed = self._codec.pack(chunk)
        return packed, hashlib.sha256(packed).hexdigest()

    def _take(self) -> None:
        packed, sha256 = self._waiting.popleft().result()
        self._write(packed)
        self.chunks.append(Chunk(self._offset, len(packed), sha256))
        self._offset += len(packed)

    def finish(self) -> None:
        if self._filled:
            self._submit()
        while self._waiting:
            self._take()
        self._write(self._codec.trailer(self._crc, self.plain))


def write(
    tree: Tree, root: int, name: str, fd: int, codec: Codec, workers: int, tell: Tell
) -> Written:
    """Write the archive of ``tree`` to ``fd`` (not synchronised).

    :param root: the source, open.
    :param name: its path, for messages.
    :param workers: threads, at least 1.
    :raises Changed: a file changed meanwhile.
    :raises NotUsable: a file can't be read.
    :raises OSError: writing failed.
    """
    from concurrent.futures import ThreadPoolExecutor

    digest = hashlib.sha256()
    size = 0

    def out(data: bytes | bytearray) -> None:
        nonlocal size
        write_all(fd, data)
        digest.update(data)
        size += len(data)

    executor = ThreadPoolExecutor(workers, "compress")
    try:
        pipe = _Pipe(out, codec, executor, workers)
        with below(root) as directories, _Elsewhere() as elsewhere:
            members = _Members(pipe, name, directories, elsewhere, tell, tree.size)
            for entry in tree.entries:
                members.add(entry)
        pipe.put(tarstream.end(pipe.plain))
        pipe.finish()
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
    tell(Progress("archive", members.done, tree.size))
    return Written(
        size,
        digest.hexdigest(),
        pipe.plain,
        tuple(members.entries),
        members.digests,
        tuple(pipe.chunks),
        tuple(members.places),
    )


class _Members:
    """Puts entries into the tar, as they are when they are read.

    :param name: path of the source, for messages. :param total: bytes of all files, for progress.
    """

    def __init__(
        self,
        pipe: _Pipe,
        name: str,
        directories: Directories,
        elsewhere: _Elsewhere,
        tell: Tell,
        total: int,
    ) -> None:
        self._pipe, self._name, self._tell, self._total = pipe, name, tell, total
        self._directories, self._elsewhere = directories, elsewhere
        self.entries: list[Entry] = []
        self.digests: dict[str, str] = {}
        self.places: list[int] = []
        #: Bytes of files that were read.
        self.done = 0

    def add(self, entry: Entry) -> None:
        """Put one entry into the tar. :raises Changed: it changed. :raises NotUsable:"""
        place = -1
        if entry.type == FILE:
            source = self._open(entry)
            try:
                entry = _current(entry, stat_when_stable(source))
                header = tarstream.header(entry)
                place = self._pipe.plain + len(header)
                if entry.size <= _SMALL:
                    self._small(source, entry, header)
                else:
                    self._large(source, entry, header)
                _require_unchanged(source, entry)
            finally:
                os.close(source)
            self.done += entry.size
        else:
            self._pipe.put(tarstream.header(entry))
        self.entries.append(entry)
        self.places.append(place)

    def _small(self, source: int, entry: Entry, header: bytes) -> None:
        """Put a file that is read at once into the tar."""
        try:
            data = os.read(source, entry.size) if entry.size else b""
        except OSError as error:
            raise self._unreadable(entry, error) from error
        if len(data) != entry.size:
            raise Changed(entry.path)
        self._pipe.put(b"%b%b%b" % (header, data, tarstream.pad(entry.size)))
        self.digests[entry.path] = hashlib.sha256(data).hexdigest()
        if self._tell is not silent:
            subject = display_path(entry.path)
            self._tell(Progress("archive", self.done + entry.size, self._total, subject=subject))

    def _large(self, source: int, entry: Entry, header: bytes) -> None:
        """Put the file into the tar, read to where it is compressed from."""
        self._pipe.put(header)
        subject = display_path(entry.path)
        digest = hashlib.sha256()
        remaining = entry.size
        while remaining:
            room = self._pipe.space(remaining)
            try:
                count = os.readv(source, [room])
            except OSError as error:
                raise self._unreadable(entry, error) from error
            if count == 0:
                raise Changed(entry.path)
            digest.update(room[:count])
            self._pipe.advance(count)
            remaining -= count
            done = self.done + entry.size - remaining
            self._tell(Progress("archive", done, self._total, subject=subject))
        self._pipe.put(tarstream.pad(entry.size))
        self.digests[entry.path] = digest.hexdigest()

    def _unreadable(self, entry: Entry, error: OSError) -> NotUsable:
        full = display_path(f"{self._name}/{entry.path}")
        return NotUsable(f"Can't read {full}: {error.strerror}.", "Check its disk.", full)

    def _open(self, entry: Entry) -> int:
        open_directory, path = self._directories.open, entry.path
        if entry.origin:
            open_directory, path = self._elsewhere.open, entry.origin
        directory, dummy, base = path.rpartition("/")
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            return os.open(base, flags, dir_fd=open_directory(directory))
        except OSError as error:
            if error.errno in GONE:
                raise Changed(entry.path) from None
            full = display_path(f"{self._name}/{entry.path}")
            raise NotUsable(
                f"Can't read {full}: {error.strerror}.",
                "Give this user access to it, or exclude it.",
                full,
            ) from error


class _Elsewhere:
    """Opens directories by real paths, never through a link that has come into being since."""

    def __init__(self) -> None:
        self._root = -1
        self._directories: Directories | None = None

    def __enter__(self) -> _Elsewhere:
        return self

    def __exit__(self, *error: object) -> None:
        if self._directories is not None:
            self._directories.close()
            os.close(self._root)

    def open(self, path: str) -> int:
        """Return a descriptor of a directory, valid until the next call. :raises OSError:"""
        if self._directories is None:
            self._root = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._directories = Directories(self._root)
        return self._directories.open(path.lstrip("/"))


def _current(entry: Entry, status: os.stat_result) -> Entry:
    """Return the entry as the file is now.

    What was replaced since the walk is stored whole as it is.
    """
    if not stat.S_ISREG(status.st_mode):
        raise Changed(entry.path)
    current = Entry.of(entry.path, FILE, status, "", entry.origin)
    if current == entry:
        return entry
    return current


def _require_unchanged(source: int, entry: Entry) -> None:
    """:raises Changed: the file was changed since its entry was made."""
    after = os.fstat(source)
    # The change time too: copying tools set the modification time back, but nobody can set this
    # time.
    if (after.st_size, after.st_mtime_ns, after.st_ctime_ns) != (
        entry.size,
        entry.mtime_ns,
        entry.ctime_ns,
    ):
        raise Changed(entry.path)
