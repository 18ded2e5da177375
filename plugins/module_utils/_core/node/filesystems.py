# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mounted file systems: space, inodes, unwanted read-only, mounts that do not answer, mounts that are missing."""

from __future__ import annotations

import errno
import fnmatch
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .. import verdict
from ..ports import World
from ..system import procfs
from ..system.text import human_size
from ..verdict import Check
from . import thresholds
from .options import NodeOptions

#: File systems that hold nothing a person could fill, or show what another mount shows.
PSEUDO = frozenset(
    "autofs binder binfmt_misc bpf cgroup cgroup2 configfs debugfs devpts devtmpfs efivarfs fuse.fuse-overlayfs fuse.gvfsd-fuse fuse.lxcfs fuse.portal"
    " fusectl hugetlbfs mqueue nfsd nsfs overlay proc pstore ramfs rootfs rpc_pipefs securityfs selinuxfs sysfs tracefs".split()
)
#: Always full and read-only by nature.
IMAGES = frozenset({"squashfs", "iso9660", "erofs", "cramfs", "udf"})
#: Served by something that may die: each is asked in a process of its own. Every C(fuse) type counts as one of them.
NETWORK = frozenset(
    "nfs nfs4 cifs smb3 smbfs ceph lustre gpfs beegfs glusterfs 9p afs ocfs2 gfs2 ncpfs orangefs pvfs2 virtiofs weka wekafs".split()
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
_USER_MOUNT = re.compile(r"(?:^|,)user_id=[1-9]")
_OCTAL = re.compile(r"\\([0-7]{3})")
#: Where a folder may be read-only on purpose, whatever its file system.
_READ_ONLY_BY_NATURE = ("/boot", "/snap/", "/sysroot", "/usr")


@dataclass(frozen=True)
class Mount:
    """One line of mountinfo. C(device) is major:minor; C(stopped) says that the kernel forbade writing after an error (ext4 since Linux 6.15)."""

    path: str
    fstype: str
    source: str
    device: str
    root: str
    mount_read_only: bool
    super_read_only: bool
    stopped: bool = False
    user: bool = False  # a FUSE file system that an ordinary user mounted

    @property
    def remote(self) -> bool:
        """Whether it may stop answering while the kernel is well."""
        return self.fstype in NETWORK or self.fstype.split(".")[0] in ("fuse", "fuseblk")


@dataclass(frozen=True)
class Usage:
    """What statvfs said: bytes and inodes. C(avail) is what an ordinary user may still write, as C(df) shows it."""

    used: int
    avail: int
    inodes: int
    inodes_used: int
    inodes_avail: int
    read_only: bool


def _unescape(word: str) -> str:
    return _OCTAL.sub(lambda found: chr(int(found.group(1), 8)), word)


def parse_mountinfo(content: str) -> list[Mount]:
    """Return the mounts of a mountinfo file, in its order (proc(5))."""
    found = []
    for line in content.split("\n"):
        left, _separator, right = line.partition(" - ")
        words, tail = left.split(" "), right.split(" ")
        if len(words) < 6 or len(tail) < 2:
            continue
        found.append(
            Mount(
                path=_unescape(words[4]),
                fstype=tail[0],
                source=_unescape(tail[1]),
                device=words[2],
                root=_unescape(words[3]),
                mount_read_only="ro" in words[5].split(","),
                super_read_only="ro" in tail[-1].split(","),
                stopped=bool({"emergency_ro", "shutdown"} & set(tail[-1].split(","))),
                user=bool(_USER_MOUNT.search(tail[-1])),
            )
        )
    return found


def relevant(mounts: list[Mount], exclude: list[str]) -> list[Mount]:
    """Return the mounts to judge: none twice (bind mounts, one on top of another), no pseudo file systems, no images, not the excluded.

    A container's root is an overlay; it is kept, because there it is the disk.
    """
    visible = {
        mount.path: mount for mount in mounts
    }  # a later mount on the same point hides the earlier one
    chosen: dict[str, Mount] = {}
    for mount in visible.values():
        if mount.fstype in IMAGES or (
            mount.fstype in PSEUDO
            and not (mount.fstype in ("overlay", "fuse.fuse-overlayfs") and mount.path == "/")
        ):
            continue
        if mount.fstype == "tmpfs" and (
            mount.path in _OWN_TMPFS or mount.path.startswith(_PRIVATE_TMPFS)
        ):
            continue
        if mount.fstype == "tmpfs" and mount.source == "shm" and mount.path != "/dev/shm":
            continue  # the /dev/shm of a container, as docker, containerd, cri-o and podman make it
        if mount.source.startswith("/dev/loop") and mount.path.startswith(
            ("/snap/", "/var/lib/snapd/snap/")
        ):
            continue
        if mount.path.startswith(
            "/var/lib/containers/storage/overlay-containers/"
        ) or mount.path.startswith("/var/lib/kubelet/pods/"):
            continue
        if any(fnmatch.fnmatchcase(mount.path, pattern) for pattern in exclude):
            continue
        if mount.root != "/" and mount.path.startswith(_BOUND_FILES):
            continue
        other = chosen.get(mount.device)
        # Of several mounts of one file system the one that shows its root, then the shortest path, stands for all.
        if other is None or (mount.root != "/", len(mount.path), mount.path) < (
            other.root != "/",
            len(other.path),
            other.path,
        ):
            chosen[mount.device] = mount
    return sorted(chosen.values(), key=lambda mount: mount.path)


def fstab(world: World) -> dict[str, tuple[str, frozenset[str]]]:
    """Return what C(/etc/fstab) wants: mount point to (type, options)."""
    found = {}
    for line in procfs.lines(world, "/etc/fstab"):
        words = line.split()
        if len(words) >= 3 and not words[0].startswith("#"):
            path = _unescape(words[1])
            found[os.path.normpath(path) if path.startswith("/") else path] = (
                words[2],
                frozenset("".join(words[3:4]).split(",")),
            )
    return found


def wanted(table: Mapping[str, tuple[str, frozenset[str]]], options: NodeOptions) -> list[str]:
    """Return the mount points that fstab or the user wants to be there."""
    from_fstab = {
        path
        for path, (fstype, how) in table.items()
        if path.startswith("/")
        and fstype not in ("swap", "none", "proc", "sysfs", "devpts", "tmpfs")
        and not how & {"noauto", "x-systemd.automount", "comment=systemd.automount"}
        and not any(fnmatch.fnmatchcase(path, pattern) for pattern in options.disk_exclude)
    }
    return sorted(from_fstab | {os.path.normpath(path) for path in options.expected_mounts})


def resolve(world: World, paths: list[str]) -> dict[str, str]:
    """Return where paths with links in them lead to, as the kernel's list has them. May touch a dead mount: only in a child."""
    cut = 0 if world.root == "/" else len(os.path.realpath(world.root))
    return {path: os.path.realpath(world.path(path))[cut:] or "/" for path in paths}


def usage(path: str) -> Usage:
    """Ask one file system; may hang for ever, so only in a child. :raises OSError: it answered with an error (C(ESTALE), C(EIO), C(EACCES))."""
    found = os.statvfs(path)
    return Usage(
        used=(found.f_blocks - found.f_bfree) * found.f_frsize,
        avail=found.f_bavail * found.f_frsize,
        inodes=found.f_files,
        inodes_used=found.f_files - found.f_ffree,
        inodes_avail=found.f_favail,
        read_only=bool(found.f_flag & os.ST_RDONLY),
    )


def probe(paths: list[str]) -> dict[str, Any]:
    """Return for each mount point its Usage, or the error number and text of the system call; nothing for a file."""
    found: dict[str, Any] = {}
    for path in paths:
        try:
            if stat.S_ISDIR(
                os.stat(path).st_mode
            ):  # a file bound here shows the file system of some folder elsewhere
                found[path] = usage(path)
        except OSError as error:
            found[path] = (error.errno, error.strerror)
    return found


def percent(used: int, avail: int) -> float:
    """Return used / (used + avail) in percent, the way C(df) rounds away the blocks reserved for root; 0 for an empty file system."""
    return 100.0 * used / (used + avail) if used + avail > 0 else 0.0


def judge(facts: Mapping[str, Any], options: NodeOptions) -> list[Check]:
    """Judge C(mounts) (list of Mount), C(answers) (mount point to Usage, (errno, text) or Problem text), C(fstab), C(links) (see resolve)."""
    found: list[Check] = []
    mounted = {mount.path for mount in facts["mounts"]} | set(facts["mount_points"])
    if options.wants("mount_present"):
        found += _missing(facts["fstab"], mounted, facts.get("links") or {}, options)
    for mount in facts["mounts"]:
        answer = facts["answers"].get(mount.path)
        if answer is None:
            continue
        if not isinstance(answer, Usage):
            found += _silent(mount, answer, options)
            continue
        if mount.remote and options.wants("mount_responds"):
            found.append(
                Check(
                    "mount_responds",
                    verdict.PASS,
                    f"{mount.path} ({mount.fstype}) answers",
                    mount.path,
                )
            )
        # Nobody can fill what nobody may write, or what has no size (like df, which does not list it).
        writable = (
            not (answer.read_only and mount.mount_read_only) and answer.used + answer.avail > 0
        )
        if writable and options.wants("disk_usage"):
            found.append(_space(mount, answer, options))
        if (
            writable and options.wants("inode_usage") and answer.inodes > 0
        ):  # btrfs and some network file systems have no fixed number of inodes
            limits = options.limits_in_force["inode_usage"]
            value = percent(answer.inodes_used, answer.inodes_avail)
            message = f"Inode usage: {thresholds.percent(value, limits)} on {mount.path}"
            found.append(
                thresholds.judge(limits, "inode_usage", value, message, subject=mount.path)
            )
        if options.wants("read_only"):
            found += _read_only(mount, answer, facts["fstab"].get(mount.path))
    return found


def _missing(
    table: Mapping[str, tuple[str, frozenset[str]]],
    mounted: set[str],
    links: Mapping[str, str],
    options: NodeOptions,
) -> list[Check]:
    found = []
    expected = {os.path.normpath(path) for path in options.expected_mounts}
    for path in wanted(table, options):
        asked = path in expected
        if path in mounted or links.get(path) in mounted:
            if asked:
                found.append(Check("mount_present", verdict.PASS, f"{path} is mounted", path))
            continue
        soft = not asked and "nofail" in table[path][1]
        origin = "expected_mounts" if asked else "/etc/fstab"
        status = verdict.WARNING if soft else verdict.CRITICAL
        found.append(
            Check(
                "mount_present",
                status,
                f"{path} is not mounted, though {origin} names it",
                path,
                action="inspect",
                domain="node",
            )
        )
    return found


def _silent(mount: Mount, answer: Any, options: NodeOptions) -> list[Check]:
    """The file system did not answer, or with an error."""
    if not options.wants("mount_responds"):
        return []
    name = f"{mount.path} ({mount.fstype})"
    if isinstance(answer, tuple):
        code, reason = answer
        if code in (errno.EACCES, errno.EPERM):
            return [
                Check(
                    "mount_responds",
                    verdict.SKIPPED,
                    f"{name} may not be read by this user",
                    mount.path,
                )
            ]
        if code == errno.ENOENT:
            return [
                Check(
                    "mount_responds",
                    verdict.SKIPPED,
                    f"{name} is hidden below another mount",
                    mount.path,
                )
            ]
        if code in (errno.ENOSYS, errno.EOPNOTSUPP):
            return [
                Check(
                    "mount_responds",
                    verdict.PASS,
                    f"{name} answers, but tells no sizes",
                    mount.path,
                )
            ]
        text = f"{name} answers with an error: {reason}"
    else:
        text = f"{name}: {answer}"
    if mount.user:  # somebody's sshfs is no reason to drain a node
        return [
            Check(
                "mount_responds",
                verdict.CRITICAL,
                text,
                mount.path,
                action="restart_app",
                domain="user",
            )
        ]
    return [
        Check("mount_responds", verdict.CRITICAL, text, mount.path, action="drain", domain="node")
    ]


def _space(mount: Mount, answer: Usage, options: NodeOptions) -> Check:
    """Percentage and floor together: 10 % of 30 TB is no alarm."""
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
    message = f"Disk usage: {thresholds.percent(value, limits)} on {mount.path} ({human_size(answer.avail)} free)"
    return thresholds.judge(
        limits,
        "disk_usage",
        value,
        message,
        status,
        subject=mount.path,
        details={"free_bytes": answer.avail, "used_bytes": answer.used},
    )


def _read_only(
    mount: Mount, answer: Usage, intent: tuple[str, frozenset[str]] | None
) -> list[Check]:
    """A file system that turned read-only: its superblock is, and fstab does not want it so.

    After an error the kernel turns the superblock read-only and leaves the mount's own flag alone (older kernels), or marks it as stopped; people
    turn both flags. A mount point that alone is read-only (bind mount, container) was made so on purpose.
    """
    if not mount.fstype.startswith(
        ("ext", "xfs", "btrfs", "f2fs", "jfs", "reiserfs", "zfs", "vfat", "nfs", "bcachefs")
    ):
        return []
    if mount.stopped or (answer.read_only and mount.super_read_only):
        by_kernel = mount.stopped or not mount.mount_read_only
        by_nature = (
            mount.remote or mount.fstype == "zfs" or mount.path.startswith(_READ_ONLY_BY_NATURE)
        )  # zfs: a property, not fstab, says so
        on_purpose = not by_kernel and ("ro" in intent[1] if intent else by_nature)
        if not on_purpose:
            known = by_kernel or intent is not None
            reason = (
                "the kernel turned it so after an error"
                if by_kernel
                else "/etc/fstab wants it writable"
                if known
                else "/etc/fstab does not say so"
            )
            return [
                Check(
                    "read_only",
                    verdict.CRITICAL if known else verdict.WARNING,
                    f"{mount.path} ({mount.fstype}) is read-only: {reason}",
                    mount.path,
                    action="drain" if known else "inspect",
                    domain="node",
                )
            ]
    return [
        Check(
            "read_only",
            verdict.PASS,
            f"{mount.path} is {'read-only as intended' if answer.read_only else 'writable'}",
            mount.path,
        )
    ]
