# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The mount table (mountinfo, proc(5)), and questions that it answers without touching a file
system that may hang.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterable, Mapping, Sequence

from ..records import NamedTuple

#: File systems of this machine: looking at a file on them never waits for a network or another
#: program.
ANSWERING = frozenset(
    "bcachefs btrfs erofs ext2 ext3 ext4 f2fs overlay ramfs rootfs squashfs tmpfs xfs zfs".split()
)

_OCTAL = re.compile(r"\\([0-7]{3})")
_USER_MOUNT = re.compile(r"(?:^|,)user_id=[1-9]")
_LINKS_MAX = 40


class Mount(NamedTuple):
    """One line of mountinfo.

    ``device`` is major:minor as text, ``root`` the path inside that file system which is mounted at
    ``point``, ``source`` the file system's device or server; ``mount_options`` and
    ``super_options`` are comma-separated. ``parent`` is the id of the mount that it is on.
    """

    id: int
    device: str
    root: str
    point: str
    fstype: str
    source: str = ""
    mount_options: str = ""
    super_options: str = ""
    parent: int = 0

    @property
    def mount_read_only(self) -> bool:
        """Whether this mount forbids writing."""
        return "ro" in self.mount_options.split(",")

    @property
    def super_read_only(self) -> bool:
        """Whether the file system itself forbids writing, through every mount."""
        return "ro" in self.super_options.split(",")

    @property
    def stopped(self) -> bool:
        """Whether the kernel forbade writing after an error (ext4 since Linux 6.15)."""
        return bool({"emergency_ro", "shutdown"} & set(self.super_options.split(",")))

    @property
    def user(self) -> bool:
        """Whether it is a FUSE file system that an ordinary user mounted."""
        return bool(_USER_MOUNT.search(self.super_options))


def unescape(text: str) -> str:
    """Return a field of mountinfo, fstab or /proc/swaps with its octal escapes resolved."""
    if "\\" not in text:
        return text
    return _OCTAL.sub(lambda match: chr(int(match.group(1), 8)), text)


def parse(content: str) -> list[Mount]:
    """Return the mounts of a mountinfo file, in its order. Lines that are none are skipped."""
    mounts = []
    # Newline only: file names may hold other characters that Python takes for line ends.
    for line in content.split("\n"):
        head, dummy, tail = line.partition(" - ")
        fields, extra = head.split(" "), tail.split(" ")
        if len(fields) < 6 or not fields[0].isdigit():
            continue
        mounts.append(
            # Without keywords: there may be hundreds of mounts, and records are slow to make with.
            Mount(
                int(fields[0]),
                fields[2],
                unescape(fields[3]),
                unescape(fields[4]),
                extra[0],
                unescape(extra[1]) if len(extra) > 1 else "",
                fields[5],
                extra[-1] if len(extra) > 1 else "",
                int(fields[1]) if fields[1].isdigit() else 0,
            )
        )
    return mounts


def read(path: str = "/proc/self/mountinfo") -> list[Mount]:
    """Return the mounts in a mountinfo file. :raises OSError: it can't be read."""
    with open(path, encoding="utf-8", errors="surrogateescape", newline="\n") as stream:
        return parse(stream.read())


def parts(path: str) -> set[tuple[str, str]]:
    """Return the device and the directory of each mount in a mountinfo file that shows only a part
    of a file system. :raises OSError: it can't be read.
    """
    shown = set()
    with open(path, encoding="utf-8", errors="surrogateescape", newline="\n") as stream:
        for line in stream:
            fields = line.split(" ", 4)
            if len(fields) == 5 and fields[0].isdigit() and fields[3] != "/":
                shown.add((fields[2], unescape(fields[3])))
    return shown


def hidden(mounts: Sequence[Mount]) -> set[int]:
    """Return the ids of mounts that can't be reached, because another one lies over them.

    It is mounted on the same mount, on a directory above; or on the mount itself; or the mount
    below is hidden. What is mounted over the root hides nothing from who has that root.
    """
    on: dict[int, dict[str, int]] = {}
    for mount in mounts:
        if mount.point != "/":
            on.setdefault(mount.parent, {})[mount.point] = mount.id
    points = {mount.id: mount.point for mount in mounts}
    covered = {
        mount.id
        for mount in mounts
        if on.get(mount.id, {}).get(mount.point, mount.id) != mount.id  # a root is on itself
    }
    lost = {mount.id for mount in mounts if _lies_below(mount, on.get(mount.parent, {}))}
    lost |= {
        mount.id
        for mount in mounts
        if mount.parent in covered and mount.point != points[mount.parent]
    }
    while True:
        more = {mount.id for mount in mounts if mount.parent in lost} - lost
        if not more:
            return covered | lost
        lost |= more


def _lies_below(mount: Mount, beside: Mapping[str, int]) -> bool:
    """Return whether one of the mounts ``beside`` it is on a directory above it."""
    above = os.path.dirname(mount.point)
    while above not in ("", "/"):
        if above in beside:
            return True
        above = os.path.dirname(above)
    return False


def mount_of(path: str, mounts: Iterable[Mount]) -> Mount | None:
    """Return the mount that an absolute path without links is on, by the mount table alone."""
    best: Mount | None = None
    for mount in mounts:
        point = mount.point.rstrip("/") + "/"
        if (path + "/").startswith(point) and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best


def located(path: str, mounts: Iterable[Mount]) -> tuple[str, str] | None:
    """Return device (major:minor) and path inside that file system of an absolute path, by the
    mount table alone.
    """
    best = mount_of(path, mounts) if path else None
    if best is None:
        return None
    inside = os.path.join(best.root, os.path.relpath(path, best.point))
    return best.device, os.path.normpath(inside)


def follow(path: str, mounts: Sequence[Mount], own: int | None) -> str:
    """Return where an absolute path leads.

    Empty when it leads beyond a mount that may not answer (other than the one with the id ``own``),
    or into a loop.
    """
    pending, real, links = deque(path.split("/")), "", 0
    while pending:
        part = pending.popleft()
        if part in ("", "."):
            continue
        if part == "..":
            real = os.path.dirname(real).rstrip("/")
            continue
        here = f"{real}/{part}"
        mount = mount_of(here, mounts)
        if mount is None or (mount.fstype not in ANSWERING and mount.id != own):
            return ""
        try:
            target = os.readlink(here)
        except OSError:  # no link, or nothing at all
            real = here
            continue
        links += 1
        if links > _LINKS_MAX:
            return ""
        if target.startswith("/"):
            real = ""
        pending.extendleft(reversed(target.split("/")))
    return real or "/"


def available(path: str | int) -> int:
    """Return the bytes that an ordinary user may still write where a path or an open file is.

    Of a path that does not exist yet the nearest directory above it counts. May hang on a dead
    network mount.
    """
    if isinstance(path, str):
        while not os.path.isdir(path) and os.path.dirname(path) != path:
            path = os.path.dirname(path)
    state = os.statvfs(path)
    return state.f_bavail * state.f_frsize
