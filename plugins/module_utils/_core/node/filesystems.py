# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mounted file systems: space, inodes, unwanted read-only, silent and missing mounts."""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import os
import stat
from collections.abc import Mapping
from typing import Union

from .. import verdict
from ..ports import World
from ..records import NamedTuple
from ..system import mounts, procfs
from ..system.mounts import Mount
from ..system.text import display_path, human_size
from ..verdict import Check
from . import thresholds
from .options import NodeOptions
from .probes import Problem
from .thresholds import fault, passed, skipped

#: The checks that are made of these facts.
DECIDES = ("mount_responds", "mount_present", "disk_usage", "inode_usage", "read_only")

#: File systems that hold nothing a person could fill, or show what another mount shows.
PSEUDO = frozenset(
    "autofs binder binfmt_misc bpf cgroup cgroup2 configfs debugfs devpts devtmpfs efivarfs"
    " fuse.fuse-overlayfs fuse.gvfsd-fuse fuse.lxcfs fuse.portal fusectl hugetlbfs mqueue nfsd"
    " nsfs overlay proc pstore ramfs rootfs rpc_pipefs securityfs selinuxfs sysfs tracefs".split()
)
#: Always full and read-only by nature.
IMAGES = frozenset({"squashfs", "iso9660", "erofs", "cramfs", "udf"})
#: Served by something that may die: each is asked in a process of its own. Every ``fuse`` type
#: counts as well.
NETWORK = frozenset(
    "nfs nfs4 cifs smb3 smbfs ceph lustre gpfs beegfs glusterfs 9p afs ocfs2 gfs2 ncpfs orangefs"
    " pvfs2 virtiofs weka wekafs".split()
)
#: Small file systems that the system keeps for itself, and those of sessions and containers.
_OWN_TMPFS = frozenset({"/dev", "/run/lock"})
_PRIVATE_TMPFS = ("/proc/", "/run/credentials/", "/run/user/", "/sys/")
#: Single files bound into a container (resolv.conf, hosts, secrets) and what a GPU runtime binds.
_BOUND_FILES = (
    "/etc/",
    "/proc/",
    "/run/.containerenv",
    "/run/secrets",
    "/sys/",
    "/usr/bin/",
    "/usr/lib",
    "/dev/",
)
_SNAPS = ("/snap/", "/var/lib/snapd/snap/")
_OF_CONTAINERS = ("/var/lib/containers/storage/overlay-containers/", "/var/lib/kubelet/pods/")
#: File systems that the kernel, or a person, may turn read-only.
_TURN_READ_ONLY = (
    "ext",
    "xfs",
    "btrfs",
    "f2fs",
    "jfs",
    "reiserfs",
    "zfs",
    "vfat",
    "nfs",
    "bcachefs",
)
#: fstab entries that are not missed when they are not mounted: by type, by option.
_NOT_WANTED = frozenset({"swap", "none", "proc", "sysfs", "devpts", "tmpfs"})
_BIND = frozenset({"bind", "rbind"})  # their type is ``none`` by convention
_ON_DEMAND = frozenset({"noauto", "x-systemd.automount", "comment=systemd.automount"})
#: Where a directory may be read-only on purpose, whatever its file system.
_READ_ONLY_BY_NATURE = ("/boot", "/snap/", "/sysroot", "/usr")


class Usage(NamedTuple):
    """What statvfs returned: bytes and inodes.

    ``avail`` is what an ordinary user may still write, as ``df`` shows it.
    """

    used: int
    avail: int
    inodes: int
    inodes_used: int
    inodes_avail: int
    read_only: bool


class MountError(NamedTuple):
    """The error with which a file system answered."""

    code: int
    reason: str


#: What one mount point answered; a Problem where the probe itself failed.
MountAnswer = Union[Usage, MountError, Problem]


class Automounted(NamedTuple):
    """What is mounted where an automount waits, after it was used.

    ``mounts`` are those to check, with their ``answers``: none where another mount shows the same.
    """

    mounted: bool
    mounts: list[Mount] = []  # noqa: RUF012  # never changed
    answers: dict[str, MountAnswer] = {}  # noqa: RUF012  # never changed


class FstabEntry(NamedTuple):
    """What ``/etc/fstab`` says about a mount point."""

    fstype: str
    options: frozenset[str]


class DiskFacts(NamedTuple):
    """What is known about the mounted file systems.

    ``mounts`` are those to check, ``mount_points`` all there are; ``links`` says where a
    wanted mount point with a link in its path leads to; ``automounted`` what is mounted where an
    automount waits, after it was used.
    """

    mounts: list[Mount]
    mount_points: frozenset[str]
    fstab: dict[str, FstabEntry]
    answers: dict[str, MountAnswer]
    links: dict[str, str]
    automounted: dict[str, Automounted | Problem]


def is_remote(mount: Mount) -> bool:
    """Return whether it may stop answering while the kernel is well."""
    return mount.fstype in NETWORK or mount.fstype.split(".")[0] in ("fuse", "fuseblk")


def read(world: World) -> list[Mount]:
    """Return all mounts, [] when the kernel does not list them."""
    try:
        return mounts.read(world.path("/proc/self/mountinfo"))
    except OSError:
        return []


def relevant(table: list[Mount], exclude: list[str]) -> list[Mount]:
    """Return the mounts to check, sorted by path, each file system once.

    Left out are pseudo file systems, images, what the system and containers keep for
    themselves, and the excluded ones. A mount that another one hides does not count.
    """
    visible = {mount.point: mount for mount in table}
    chosen: dict[str, Mount] = {}
    for mount in visible.values():
        if _left_out(mount) or any(
            fnmatch.fnmatchcase(mount.point, pattern) for pattern in exclude
        ):
            continue
        other = chosen.get(mount.device)
        if other is None or _preference(mount) < _preference(other):
            chosen[mount.device] = mount
    return sorted(chosen.values(), key=lambda mount: mount.point)


def _preference(mount: Mount) -> tuple[bool, int, str]:
    """Return a sort key: of several mounts of one file system its root, then the shortest path."""
    return mount.root != "/", len(mount.point), mount.point


def _left_out(mount: Mount) -> bool:
    """Return whether a mount holds nothing that a person could fill."""
    if mount.fstype in IMAGES:
        return True
    if mount.fstype in PSEUDO:
        # A container's root is an overlay; it counts, because there it is the disk.
        return mount.point != "/" or mount.fstype not in ("overlay", "fuse.fuse-overlayfs")
    if mount.fstype == "tmpfs":
        if mount.point in _OWN_TMPFS or mount.point.startswith(_PRIVATE_TMPFS):
            return True
        # The /dev/shm of a container, as docker, containerd, cri-o and podman make it.
        if mount.source == "shm" and mount.point != "/dev/shm":
            return True
    if mount.source.startswith("/dev/loop") and mount.point.startswith(_SNAPS):
        return True
    if mount.point.startswith(_OF_CONTAINERS):
        return True
    return _is_bound(mount) and mount.point.startswith(_BOUND_FILES)


def _is_bound(mount: Mount) -> bool:
    """Return whether it shows a part of a file system, other than a btrfs subvolume."""
    if mount.root == "/":
        return False
    subvolume = f"subvol={mount.root}" in mount.super_options.split(",")
    return not (mount.fstype == "btrfs" and subvolume)


def fstab(world: World) -> dict[str, FstabEntry]:
    """Return what ``/etc/fstab`` wants, by mount point."""
    table = {}
    for line in procfs.lines(world, "/etc/fstab", errors="surrogateescape"):
        fields = line.split()
        if len(fields) < 3 or fields[0].startswith("#"):
            continue
        path = mounts.unescape(fields[1])
        if path.startswith("/"):
            path = _normal(path)
        table[path] = FstabEntry(fields[2], frozenset("".join(fields[3:4]).split(",")))
    return table


def wanted(table: Mapping[str, FstabEntry], options: NodeOptions) -> list[str]:
    """Return the mount points that must be there according to fstab or the user."""
    from_fstab = {
        path
        for path, entry in table.items()
        if path.startswith("/")
        and (entry.fstype not in _NOT_WANTED or entry.options & _BIND)
        and not entry.options & _ON_DEMAND
        and not any(fnmatch.fnmatchcase(path, pattern) for pattern in options.disk_exclude)
    }
    return sorted(from_fstab | {_normal(path) for path in options.expected_mounts})


def _normal(path: str) -> str:
    """Return an absolute path as the kernel writes it."""
    return os.path.normpath("/" + path.lstrip("/"))


def resolve(world: World, paths: list[str]) -> dict[str, str]:
    """Return where paths with links in them lead to, as the kernel lists them.

    May touch a dead mount: only in a child.
    """
    cut = 0 if world.root == "/" else len(os.path.realpath(world.root))
    return {path: os.path.realpath(world.path(path))[cut:] or "/" for path in paths}


def mount_points(table: list[Mount]) -> frozenset[str]:
    """Return where something is mounted.

    An automount that waits there is nothing yet, and what another mount hides is nothing any more.
    """
    hidden = mounts.hidden(table)
    return frozenset(
        mount.point for mount in table if mount.fstype != "autofs" and mount.id not in hidden
    )


def automounts(paths: list[str], table: list[Mount]) -> list[str]:
    """Return those of the paths that an automount would mount when they are used."""
    nearest = {path: mounts.mount_of(path, table) for path in paths}
    return [path for path, mount in nearest.items() if mount and mount.fstype == "autofs"]


def automount(world: World, path: str, exclude: list[str]) -> Automounted:
    """Use a path that an automount waits for; return what is mounted there then.

    It may be gone again at the next run, so its file system is asked at once. May hang: only in a
    child.
    """
    with contextlib.suppress(OSError):
        os.stat(f"{world.path(path)}/.")
    table = read(world)
    if path not in mount_points(table):
        return Automounted(False)
    mounted = [mount for mount in relevant(table, exclude) if mount.point == path]
    return Automounted(True, mounted, probe([mount.point for mount in mounted]))


def usage(path: str) -> Usage:
    """Ask one file system; may hang for ever, so only in a child.

    :raises OSError: it answered with an error (``ESTALE``, ``EIO``, ``EACCES``).
    """
    numbers = os.statvfs(path)
    return Usage(
        used=(numbers.f_blocks - numbers.f_bfree) * numbers.f_frsize,
        avail=numbers.f_bavail * numbers.f_frsize,
        inodes=numbers.f_files,
        inodes_used=numbers.f_files - numbers.f_ffree,
        inodes_avail=numbers.f_favail,
        read_only=bool(numbers.f_flag & os.ST_RDONLY),
    )


def probe(paths: list[str]) -> dict[str, MountAnswer]:
    """Return what each mount point answers; nothing for a file.

    A file that is bound here shows the file system of some directory elsewhere.
    """
    answers: dict[str, MountAnswer] = {}
    for path in paths:
        try:
            if stat.S_ISDIR(os.stat(path).st_mode):
                answers[path] = usage(path)
        except OSError as error:
            answers[path] = MountError(error.errno or 0, error.strerror or "unknown error")
    return answers


def percent(used: int, avail: int) -> float:
    """Return used / (used + avail) in percent, without root's reserve as ``df`` counts it."""
    if used + avail > 0:
        return 100.0 * used / (used + avail)
    return 0.0


def _name(mount: Mount) -> str:
    """Return the mount point as valid text: file names may hold any bytes."""
    return display_path(mount.point)


def decide(facts: DiskFacts, options: NodeOptions) -> list[Check]:
    """Return the checks of the mounted and the missing file systems."""
    checks: list[Check] = []
    if options.wants("mount_present"):
        checks += _missing(facts, options)
    for mount in facts.mounts:
        answer = facts.answers.get(mount.point)
        if answer is None:
            continue
        if isinstance(answer, Usage):
            checks += _mounted(mount, answer, facts.fstab.get(mount.point), options)
        elif options.wants("mount_responds"):
            checks.append(_silent(mount, answer))
    return checks


def _mounted(
    mount: Mount, answer: Usage, intent: FstabEntry | None, options: NodeOptions
) -> list[Check]:
    """Return the checks of a file system that answers."""
    checks = []
    if is_remote(mount) and options.wants("mount_responds"):
        text = f"{_name(mount)} ({mount.fstype}) answers"
        checks.append(passed("mount_responds", text, _name(mount)))
    # Nobody can fill what nobody may write, or what has no size (df does not list it either).
    frozen = answer.read_only and mount.mount_read_only
    writable = not frozen and answer.used + answer.avail > 0
    if writable and options.wants("disk_usage"):
        checks.append(_space(mount, answer, options))
    # btrfs and some network file systems have no fixed number of inodes.
    if writable and options.wants("inode_usage") and answer.inodes > 0:
        limits = options.limits_in_force["inode_usage"]
        value = percent(answer.inodes_used, answer.inodes_avail)
        text = f"Inode usage: {thresholds.percent(value, limits)} on {_name(mount)}"
        checks.append(thresholds.evaluate(limits, "inode_usage", value, text, subject=_name(mount)))
    if options.wants("read_only") and mount.fstype.startswith(_TURN_READ_ONLY):
        checks.append(_read_only(mount, answer, intent))
    return checks


def _missing(facts: DiskFacts, options: NodeOptions) -> list[Check]:
    checks = []
    mounted, listed = facts.mount_points, {mount.point for mount in facts.mounts}
    expected = {_normal(path) for path in options.expected_mounts}
    for path in wanted(facts.fstab, options):
        asked = path in expected
        automounted = facts.automounted.get(path)
        looked_through = isinstance(automounted, Automounted) and automounted.mounted
        if path in mounted or facts.links.get(path) in mounted or looked_through:
            if asked:
                checks.append(
                    passed("mount_present", f"{display_path(path)} is mounted", display_path(path))
                )
            continue
        origin = "/etc/fstab"
        if asked:
            origin = "expected_mounts"
        status = verdict.CRITICAL
        if not asked and "nofail" in facts.fstab[path].options:
            status = verdict.WARNING
        text = f"{display_path(path)} is not mounted, though {origin} names it"
        if isinstance(automounted, Problem):
            text += f" (its automount: {automounted})"
        elif path in facts.automounted:
            text += " (its automount mounts nothing)"
        elif path in listed:
            text += " (another mount hides it)"
        checks.append(fault("mount_present", status, text, display_path(path)))
    return checks


def _silent(mount: Mount, answer: MountError | Problem) -> Check:
    """Return the check of a file system that gave no answer, or answered with an error."""
    label = f"{_name(mount)} ({mount.fstype})"
    if isinstance(answer, MountError):
        if answer.code in (errno.EACCES, errno.EPERM):
            return skipped("mount_responds", f"{label} may not be read by this user", _name(mount))
        if answer.code == errno.ENOENT:
            return skipped("mount_responds", f"{label} is hidden below another mount", _name(mount))
        if answer.code in (errno.ENOSYS, errno.EOPNOTSUPP):
            return passed("mount_responds", f"{label} answers, but tells no sizes", _name(mount))
        text = f"{label} answers with an error: {answer.reason}"
    else:
        text = f"{label}: {answer}"
    if mount.user:  # somebody's sshfs is no reason to drain a node
        return fault("mount_responds", verdict.CRITICAL, text, _name(mount), "restart_app", "user")
    return fault("mount_responds", verdict.CRITICAL, text, _name(mount), "drain")


def _space(mount: Mount, answer: Usage, options: NodeOptions) -> Check:
    """Return disk_usage. Percentage and floor count together: 10 % of 30 TB is no alarm."""
    limits = options.limits_in_force["disk_usage"]
    value = percent(answer.used, answer.avail)
    status = limits.level(value)
    free_gib = answer.avail / 2**30
    for level, floor, milder in (
        (verdict.CRITICAL, options.disk_floor_critical, verdict.WARNING),
        (verdict.WARNING, options.disk_floor_warning, verdict.PASS),
    ):
        if status == level and floor and free_gib >= floor:
            status = milder
    usage_text = thresholds.percent(value, limits)
    return thresholds.evaluate(
        limits,
        "disk_usage",
        value,
        f"Disk usage: {usage_text} on {_name(mount)} ({human_size(answer.avail)} free)",
        status,
        subject=_name(mount),
        details={"free_bytes": answer.avail, "used_bytes": answer.used},
    )


def _read_only(mount: Mount, answer: Usage, intent: FstabEntry | None) -> Check:
    """Return read_only: a superblock that is read-only although fstab does not want it.

    After an error the kernel turns the superblock read-only and leaves the mount's own flag
    alone (older kernels), or marks it as stopped; people turn both flags. A mount point that
    alone is read-only (bind mount, container) was made so on purpose.
    """
    if mount.stopped or (answer.read_only and mount.super_read_only):
        by_kernel = mount.stopped or not mount.mount_read_only
        if by_kernel or not _meant_read_only(mount, intent):
            return _turned_read_only(mount, by_kernel, intent is not None)
    state = "writable"
    if answer.read_only:
        state = "read-only as intended"
    return passed("read_only", f"{_name(mount)} is {state}", _name(mount))


def _meant_read_only(mount: Mount, intent: FstabEntry | None) -> bool:
    """Return whether fstab, or the nature of the mount, says that it is read-only."""
    if intent is not None:
        return "ro" in intent.options
    if is_remote(mount) or mount.fstype == "zfs":  # zfs: a property, not fstab, says so
        return True
    return mount.point.startswith(_READ_ONLY_BY_NATURE)


def _turned_read_only(mount: Mount, by_kernel: bool, in_fstab: bool) -> Check:
    head = f"{_name(mount)} ({mount.fstype}) is read-only: "
    if by_kernel:
        text = head + "the kernel turned it so after an error"
    elif in_fstab:
        text = head + "/etc/fstab wants it writable"
    else:
        text = head + "/etc/fstab does not say so"
        return fault("read_only", verdict.WARNING, text, _name(mount))
    return fault("read_only", verdict.CRITICAL, text, _name(mount), "drain")
