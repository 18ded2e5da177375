# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writing what an archive holds below an open directory.

Names stay below it: descriptors only, no link is followed, links are made last.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from ..errors import Refused, VerificationFailed
from ..system.files import write_all
from ..system.text import display_path
from . import behind, reading, source
from .codec import BLOCK
from .manifest import ManifestEntry
from .source import DIRECTORY, LINK

_FILE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
#: Files that are synchronised together, each of which holds a descriptor until then, and their
#: bytes.
_BATCH = 64
_BATCH_BYTES = 256 << 20
#: So many zeros at once become a hole.
_HOLE = 64 << 10
#: Files from this size on are written by another thread.
_BIG = 1 << 20


def permissions(entry: ManifestEntry) -> int:
    """Return the permissions a restored entry gets.

    Never set-user-id or set-group-id, which no model needs.
    """
    return int(entry["mode"], 8) & 0o1777


def check_links(entries: Iterable[ManifestEntry], destination: str, allowed: bool) -> None:
    """:raises Refused: a link leads out of the destination and that is not ``allowed``."""
    if allowed:
        return
    links = {entry["path"]: entry["target"] for entry in entries if entry["type"] == LINK}
    for entry in entries:
        if entry["type"] == LINK and source.points_outside(
            entry["path"], entry["target"], destination, links
        ):
            raise Refused(
                f"The backup holds the link {display_path(entry['path'])} to "
                f"{display_path(entry['target'])}, which is outside of the directory.",
                "Set allow_outside_links to restore such links as they are.",
                display_path(entry["path"]),
            )


class _File:
    """A file that is written.

    :param descriptor: open for writing, at its beginning.
    """

    def __init__(self, path: str, descriptor: int, size: int) -> None:
        self.path, self.descriptor = path, descriptor
        self.big = size >= _BIG
        self._end_open = False

    def put(self, content: bytes | memoryview) -> None:
        """Write the next content; zeros become holes, as they mostly were before."""
        for start in range(0, len(content), BLOCK):
            piece = content[start : start + BLOCK]
            self._end_open = len(piece) >= _HOLE and not piece[0] and not bytes(piece).strip(b"\0")
            if self._end_open:
                os.lseek(self.descriptor, len(piece), os.SEEK_CUR)
            else:
                write_all(self.descriptor, piece)

    def complete(self, entry: ManifestEntry, owned: bool) -> None:
        """Give the file its end, permissions and time, and its owner where that is ``owned``."""
        if self._end_open:
            os.ftruncate(self.descriptor, entry["size"])
        if owned:
            os.fchown(self.descriptor, entry["uid"], entry["gid"])
        os.fchmod(self.descriptor, permissions(entry))
        os.utime(self.descriptor, ns=(entry["mtime_ns"], entry["mtime_ns"]))


class Writer:
    """The sink that writes what an archive holds below an open directory.

    :param root: the open directory, empty and nobody else's.
    :param destination: its later path, for the test of links.
    :param chosen: paths to write, None where ``patterns`` decide (all without any).
    :param outside: write links that lead out, too. ``restored`` are the paths that were written,
        ``files`` and ``bytes`` count the files and their content.
    """

    def __init__(
        self,
        root: int,
        destination: str,
        chosen: set[str] | None,
        patterns: list[str],
        outside: bool,
    ) -> None:
        self._root = root
        self._destination = destination
        self._chosen = chosen
        self._patterns = patterns
        self._outside = outside
        self._opened = source.Directories(root)
        self._directories: dict[str, ManifestEntry | None] = {}
        self._links: list[ManifestEntry] = []
        self._file: _File | None = None
        #: Descriptors of files that are complete and not synchronised yet.
        self._written: list[int] = []
        self._unsynchronised = 0
        self._behind = behind.Behind()
        self._owner = os.geteuid() == 0
        self.restored: set[str] = set()
        self.files = 0
        self.bytes = 0

    def wants(self, path: str) -> bool:
        """Say whether a path belongs to what is restored."""
        if self._chosen is not None:
            return path in self._chosen
        return not self._patterns or source.selected(path, self._patterns)

    def _parent(self, path: str) -> tuple[int, str]:
        """Return the directory that holds ``path``, and the last part of the path.

        The directory is made where the archive has no entry for it.
        """
        directory, dummy, base = path.rpartition("/")
        missing = []
        while directory and directory not in self._directories:
            missing.append(directory)
            directory = directory.rpartition("/")[0]
        for missed in reversed(missing):
            self._make_directory(missed, None)
        return self._opened.open(path.rpartition("/")[0]), base

    def _make_directory(self, path: str, entry: ManifestEntry | None) -> None:
        if path not in self._directories:
            directory, base = self._parent(path)
            os.mkdir(base, 0o700, dir_fd=directory)
            self.restored.add(path)
        if entry is not None or path not in self._directories:
            self._directories[path] = entry

    def begin(self, entry: ManifestEntry) -> None:
        path, kind = entry["path"], entry["type"]
        if not self.wants(path):
            return
        if kind == DIRECTORY:
            self._make_directory(path, entry)
        elif kind == LINK:
            self._links.append(entry)
        elif kind == reading.HARD_LINK:
            self._hard_link(entry)
        else:
            directory, base = self._parent(path)
            descriptor = os.open(base, _FILE_FLAGS, 0o600, dir_fd=directory)
            self._file = _File(path, descriptor, entry["size"])

    def _hard_link(self, entry: ManifestEntry) -> None:
        """Link to a file of this restore (old archives only).

        Both names are below the tree and no link is on the way.
        """
        if entry["target"] not in self.restored or entry["target"] in self._directories:
            raise VerificationFailed(
                f"The archive links {display_path(entry['path'])} to "
                f"{display_path(entry['target'])}, which was not restored before it.",
                "Restore all files, or don't trust this archive.",
                display_path(entry["path"]),
            )
        directory, base = self._parent(entry["path"])
        with source.below(self._root) as others:
            target_directory, dummy, target_base = entry["target"].rpartition("/")
            os.link(
                target_base,
                base,
                src_dir_fd=others.open(target_directory),
                dst_dir_fd=directory,
                follow_symlinks=False,
            )
        self.restored.add(entry["path"])
        self.files += 1

    def data(self, piece: bytes | memoryview) -> None:
        if self._file is None:
            return
        if self._file.big:
            self._behind.run(self._file.put, piece)
        else:
            self._file.put(piece)

    def done(self, entry: ManifestEntry) -> None:
        if self._file is None:
            return
        if self._file.big:
            self._behind.run(self._file.complete, entry, self._owner)
        else:
            self._file.complete(entry, self._owner)
        self._written.append(self._file.descriptor)
        self._file = None
        self._unsynchronised += entry["size"]
        if len(self._written) >= _BATCH or self._unsynchronised >= _BATCH_BYTES:
            self._synchronise()
        self.restored.add(entry["path"])
        self.files += 1
        self.bytes += entry["size"]

    def settle(self) -> None:
        self._behind.settle()

    def _synchronise(self) -> None:
        """Make the files of a batch durable; many file systems commit once for all of them."""
        written, self._written, self._unsynchronised = self._written, [], 0
        self._behind.synchronise(written)

    def drop_unfinished(self) -> None:
        """Remove the file that was begun and never completed, if any."""
        if self._file is not None:
            self._behind.wait()
            os.close(self._file.descriptor)
            directory, base = self._parent(self._file.path)
            self._file = None
            os.unlink(base, dir_fd=directory)

    def close(self) -> None:
        """Close what is open."""
        self._opened.close()
        self._behind.close()
        if self._file is not None:
            os.close(self._file.descriptor)
            self._file = None
        while self._written:
            os.close(self._written.pop())

    def finish(self, mode: int) -> None:
        """Make the links, then give directories their permissions and times, innermost first.

        Make it all durable.
        """
        self._synchronise()
        self._behind.finish()
        check_links(
            self._links, self._destination, self._outside
        )  # all together: a link may lead through others
        for entry in self._links:
            directory, base = self._parent(entry["path"])
            os.symlink(entry["target"], base, dir_fd=directory)
            if self._owner:
                os.chown(base, entry["uid"], entry["gid"], dir_fd=directory, follow_symlinks=False)
            os.utime(
                base,
                ns=(entry["mtime_ns"], entry["mtime_ns"]),
                dir_fd=directory,
                follow_symlinks=False,
            )
            self.restored.add(entry["path"])
        for path in sorted(self._directories, reverse=True):
            recorded = self._directories[path]
            fd = self._opened.open(path)
            os.fsync(fd)
            if recorded is None:
                os.fchmod(fd, 0o750)
                continue
            if self._owner:
                os.fchown(fd, recorded["uid"], recorded["gid"])
            os.fchmod(fd, permissions(recorded))
            os.utime(fd, ns=(recorded["mtime_ns"], recorded["mtime_ns"]))
        os.fchmod(self._root, mode)
        os.fsync(self._root)
