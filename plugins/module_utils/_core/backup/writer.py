# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writing what an archive holds below an open folder. Names stay below it: descriptors only, no link is followed, links are made last."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import Refused, VerificationFailed
from ..system.text import display_path
from . import reading, source
from .source import FOLDER, LINK

_FILE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
#: So many zeros at once become a hole.
_HOLE = 64 << 10


def permissions(entry: Mapping[str, Any]) -> int:
    """Return the permissions a restored entry gets: never set-user-id or set-group-id, which no model needs."""
    return int(entry["mode"], 8) & 0o1777


def check_links(entries: Iterable[Mapping[str, Any]], destination: str, allowed: bool) -> None:
    """:raises Refused: one of the links leads out of the destination and that is not C(allowed)."""
    if allowed:
        return
    links = {entry["path"]: entry["target"] for entry in entries if entry["type"] == LINK}
    for entry in entries:
        if entry["type"] == LINK and source.points_outside(
            entry["path"], entry["target"], destination, links
        ):
            raise Refused(
                f"The backup holds the link {display_path(entry['path'])} to {display_path(entry['target'])}, which is outside of the folder.",
                "Set allow_outside_links to restore such links as they are.",
                display_path(entry["path"]),
            )


class Writer:
    """The sink that writes what an archive holds below an open folder.

    :param root: the open folder, empty and nobody else's. :param destination: its later path, for the test of links.
    :param chosen: paths to write, None where C(patterns) decide (all without any). :param outside: write links that lead out, too.
    C(restored) are the paths that were written, C(files) and C(bytes) count the files and their content.
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
        self._opened = source.Folders(root)
        self._folders: dict[str, Mapping[str, Any] | None] = {}
        self._links: list[Mapping[str, Any]] = []
        self._fd = -1
        self._begun = ""
        self._end_open = False
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
        """Return the folder in which C(path) lies, made where the archive has no entry for it, and the last part of the path."""
        folder, _slash, base = path.rpartition("/")
        missing = []
        while folder and folder not in self._folders:
            missing.append(folder)
            folder = folder.rpartition("/")[0]
        for one in reversed(missing):
            self._make_folder(one, None)
        return self._opened.open(path.rpartition("/")[0]), base

    def _make_folder(self, path: str, entry: Mapping[str, Any] | None) -> None:
        if path not in self._folders:
            folder, base = self._parent(path)
            os.mkdir(base, 0o700, dir_fd=folder)
            self.restored.add(path)
        if entry is not None or path not in self._folders:
            self._folders[path] = entry

    def begin(self, entry: Mapping[str, Any]) -> None:
        path, kind = entry["path"], entry["type"]
        if not self.wants(path):
            return
        if kind == FOLDER:
            self._make_folder(path, entry)
        elif kind == LINK:
            self._links.append(entry)
        elif kind == reading.HARD_LINK:
            self._hard_link(entry)
        else:
            folder, base = self._parent(path)
            self._fd, self._begun = os.open(base, _FILE_FLAGS, 0o600, dir_fd=folder), path

    def _hard_link(self, entry: Mapping[str, Any]) -> None:
        """Link to a file of this restore (old archives only); both names lie below the tree and no link is on the way."""
        if entry["target"] not in self.restored or entry["target"] in self._folders:
            raise VerificationFailed(
                f"The archive links {display_path(entry['path'])} to {display_path(entry['target'])}, which was not restored before it.",
                "Restore all files, or don't trust this archive.",
                display_path(entry["path"]),
            )
        folder, base = self._parent(entry["path"])
        with source.below(self._root) as others:
            where, _slash, name = entry["target"].rpartition("/")
            os.link(
                name, base, src_dir_fd=others.open(where), dst_dir_fd=folder, follow_symlinks=False
            )
        self.restored.add(entry["path"])
        self.files += 1

    def data(self, piece: bytes) -> None:
        if self._fd < 0:
            return
        if len(piece) >= _HOLE and not piece.strip(b"\0"):
            os.lseek(self._fd, len(piece), os.SEEK_CUR)  # a hole, as it mostly was before
            self._end_open = True
            return
        self._end_open = False
        view = memoryview(piece)
        while view:
            view = view[os.write(self._fd, view) :]

    def done(self, entry: Mapping[str, Any]) -> None:
        if self._fd < 0:
            return
        try:
            if self._end_open:
                os.ftruncate(self._fd, entry["size"])
                self._end_open = False
            if self._owner:
                os.fchown(self._fd, entry["uid"], entry["gid"])
            os.fchmod(self._fd, permissions(entry))
            os.utime(self._fd, ns=(entry["mtime_ns"], entry["mtime_ns"]))
            os.fsync(self._fd)
        finally:
            os.close(self._fd)
            self._fd = -1
        self.restored.add(entry["path"])
        self.files += 1
        self.bytes += entry["size"]

    def drop_unfinished(self) -> None:
        """Remove the file that was begun and never done, if there is one."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd, self._end_open = -1, False
            folder, base = self._parent(self._begun)
            os.unlink(base, dir_fd=folder)

    def close(self) -> None:
        """Close what is open."""
        self._opened.close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def finish(self, mode: int) -> None:
        """Make the links, then give folders their permissions and times, innermost first; make it all durable."""
        check_links(
            self._links, self._destination, self._outside
        )  # all together: one may lead through others
        for entry in self._links:
            folder, base = self._parent(entry["path"])
            os.symlink(entry["target"], base, dir_fd=folder)
            if self._owner:
                os.chown(base, entry["uid"], entry["gid"], dir_fd=folder, follow_symlinks=False)
            os.utime(
                base,
                ns=(entry["mtime_ns"], entry["mtime_ns"]),
                dir_fd=folder,
                follow_symlinks=False,
            )
            self.restored.add(entry["path"])
        for path in sorted(self._folders, reverse=True):
            found = self._folders[path]
            fd = self._opened.open(path)
            os.fsync(fd)
            if found is None:
                os.fchmod(fd, 0o750)
                continue
            if self._owner:
                os.fchown(fd, found["uid"], found["gid"])
            os.fchmod(fd, permissions(found))
            os.utime(fd, ns=(found["mtime_ns"], found["mtime_ns"]))
        os.fchmod(self._root, mode)
        os.fsync(self._root)
