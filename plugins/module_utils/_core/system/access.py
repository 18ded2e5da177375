# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a user can't run a program: the directory or file that is closed to them, which neither shell
nor systemd names.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Collection


def closed_to(user: str, program: str) -> str:
    """Return the first path that keeps a user from running a program, with owner and mode; empty
    when there is none.

    The interpreter of a script and what links point to are looked at as well. Permission bits only,
    no access lists.
    """
    try:
        entry = pwd.getpwnam(user)
        groups = os.getgrouplist(user, entry.pw_gid)
    except (KeyError, OSError):
        return ""
    for path in (program, _interpreter(program)):
        for step in _steps(path) if path else ():
            try:
                status = os.stat(step)
            except FileNotFoundError:
                return f"{step}, which does not exist"
            except OSError:
                continue
            if not _executable(status, entry.pw_uid, groups):
                mode = stat.S_IMODE(status.st_mode)
                return f"{step} ({_owner(status)}, mode {mode:04o})"
    return ""


def _executable(status: os.stat_result, uid: int, groups: Collection[int]) -> bool:
    if uid == 0:
        return stat.S_ISDIR(status.st_mode) or bool(status.st_mode & 0o111)
    if status.st_uid == uid:
        return bool(status.st_mode & stat.S_IXUSR)
    if status.st_gid in groups:
        return bool(status.st_mode & stat.S_IXGRP)
    return bool(status.st_mode & stat.S_IXOTH)


def _steps(path: str) -> list[str]:
    """Return the directories on the way to a path and the path, as it is written and with links
    resolved.
    """
    steps: list[str] = []
    for spelling in dict.fromkeys((os.path.abspath(path), os.path.realpath(path))):
        step = spelling
        below = [step]
        while step != "/":
            step = os.path.dirname(step)
            below.append(step)
        steps += reversed(below)
    return steps


def _interpreter(program: str) -> str:
    try:
        with open(program, "rb") as stream:
            line = stream.readline(256)
    except OSError:
        return ""
    parts = line[2:].split() if line.startswith(b"#!") else []
    if parts:
        return os.fsdecode(parts[0])
    return ""


def _owner(status: os.stat_result) -> str:
    try:
        user = pwd.getpwuid(status.st_uid).pw_name
    except KeyError:
        user = str(status.st_uid)
    try:
        group = grp.getgrgid(status.st_gid).gr_name
    except KeyError:
        group = str(status.st_gid)
    return f"{user}:{group}"
