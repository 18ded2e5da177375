# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Directories that may be changed: dangerous ones are refused, and none is opened through a
symbolic link.
"""

from __future__ import annotations

import errno
import os

from ..errors import NotUsable, Refused

#: Directories that are never a cleanup root or a restore target, whatever the options say. Their
#: children may be.
DANGEROUS = frozenset(
    {
        "/",
        "/bin",
        "/boot",
        "/dev",
        "/etc",
        "/home",
        "/lib",
        "/lib32",
        "/lib64",
        "/libx32",
        "/lost+found",
        "/media",
        "/mnt",
        "/opt",
        "/proc",
        "/root",
        "/run",
        "/sbin",
        "/srv",
        "/sys",
        "/tmp",
        "/usr",
        "/usr/bin",
        "/usr/lib",
        "/usr/local",
        "/usr/sbin",
        "/usr/share",
        "/var",
        "/var/cache",
        "/var/lib",
        "/var/lib/dpkg",
        "/var/lib/rpm",
        "/var/log",
        "/var/run",
        "/var/spool",
        "/var/tmp",
    }
)
#: Of these, the ones many programs share: acceptable where a pattern limits what is meant
#: (C(/var/log) with C(ml-*)).
SHARED = frozenset({"/tmp", "/var/log", "/var/tmp"})
#: Trees in which nothing is ever ours: neither they nor anything below them is accepted.
FORBIDDEN_TREES = (
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/proc",
    "/sbin",
    "/sys",
    "/usr/bin",
    "/usr/games",
    "/usr/include",
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/libexec",
    "/usr/libx32",
    "/usr/sbin",
    "/usr/src",
    "/var/lib/apt",
    "/var/lib/containerd",
    "/var/lib/containers",
    "/var/lib/docker",
    "/var/lib/dpkg",
    "/var/lib/etcd",
    "/var/lib/kubelet",
    "/var/lib/mongodb",
    "/var/lib/mysql",
    "/var/lib/postgresql",
    "/var/lib/redis",
    "/var/lib/rpm",
    "/var/lib/snapd",
    "/var/lib/systemd",
    "/var/mail",
    "/var/spool/cron",
)

_DIR_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def refuse_dangerous(path: str, what: str, shared_ok: bool = False) -> str:
    """Return C(path) normalised, when it may be the C(what) (C("cleanup root"), C("restore
    target"), ...).

    Links are resolved for the test, so that a link to C(/home) is refused like C(/home).
    C(shared_ok) accepts the directories in SHARED; pass it only when a pattern with a literal
    beginning limits what inside them is meant.

    :raises Refused: empty, relative, C(/), a system directory, a home directory itself, or less
        than two levels deep.
    """
    if not os.path.isabs(path):
        raise Refused(
            f"The {what} {path!r} is not an absolute path.",
            "Name a directory by its full path.",
            path,
        )
    if ".." in path.split("/"):
        raise Refused(f"The {what} {path} contains '..'.", "Name the directory directly.", path)
    normal = os.path.normpath("/" + path.lstrip("/"))
    for candidate in dict.fromkeys((normal, os.path.realpath(normal))):
        if shared_ok and candidate in SHARED:
            continue
        leads = path if candidate == normal else f"{path} leads to {candidate}, which"
        is_home = os.path.dirname(candidate) == "/home" or candidate == os.path.expanduser("~")
        if candidate in DANGEROUS or is_home:
            raise Refused(
                f"The {what} {leads} is a system or home directory.",
                "Name a directory of its own below it.",
                path,
            )
        if candidate.count("/") < 2:
            raise Refused(
                f"The {what} {leads} is directly below /, like system directories and whole disks.",
                "Name a directory of its own below it.",
                path,
            )
        for tree in FORBIDDEN_TREES:
            if candidate == tree or candidate.startswith(tree + "/"):
                raise Refused(
                    f"The {what} {leads} lies in {tree}.",
                    "Name a directory outside the system's own trees.",
                    path,
                )
    return normal


def open_directory(path: str) -> int:
    """Open the directory C(path) component by component without following any symbolic link; return
    its descriptor.

    :raises NotUsable: it does not exist, is no directory, or a component is a symbolic link.
    """
    fd = os.open("/", _DIR_FLAGS)
    walked = ""
    try:
        for part in os.path.normpath(path).split("/"):
            if not part:
                continue
            walked += "/" + part
            child = os.open(part, _DIR_FLAGS, dir_fd=fd)
            os.close(fd)
            fd = child
    except OSError as error:
        os.close(fd)
        reason = f": {error.strerror}"
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            reason = " is a symbolic link or not a directory"
        raise NotUsable(
            f"Can't open directory {path}: {walked}{reason}.",
            "Name an existing directory by its real path.",
            path,
        ) from error
    return fd
