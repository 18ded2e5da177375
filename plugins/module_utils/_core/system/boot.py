# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When the kernel and this system started.

All times follow the clock of the world that is asked.
"""

from __future__ import annotations

from ..ports import World
from . import procfs
from .containers import in_container


def uptime(world: World) -> float | None:
    """Return how many seconds ago the kernel booted, None where ``/proc/uptime`` does not say."""
    try:
        seconds = float((procfs.text(world, "/proc/uptime") or "").split()[0])
    except (IndexError, ValueError):
        return None
    if 0 <= seconds < 1e10:
        return seconds
    return None


def boot_time(world: World) -> float | None:
    """Return when the kernel booted in seconds since the epoch, None when unknown.

    The uptime comes first because it does not depend on what the clock read at boot;
    ``btime`` of ``/proc/stat`` serves where it is missing.
    """
    age = uptime(world)
    if age is not None:
        return world.clock.now() - age
    for line in procfs.lines(world, "/proc/stat"):
        key, _space, value = line.partition(" ")
        if key == "btime" and value.strip().isdigit():
            return float(value)
    return None


def boot_id(world: World) -> str | None:
    """Return the identifier of this boot with its dashes, None when unknown."""
    return procfs.text(world, "/proc/sys/kernel/random/boot_id")


def system_age(world: World) -> float | None:
    """Return how many seconds ago this system started, None when unknown.

    In a container that is the age of its first process, elsewhere that of the kernel.
    """
    age = uptime(world)
    if age is None:
        return None
    first = procfs.parse_stat(procfs.text(world, "/proc/1/stat") or "")
    # Where a container has an uptime of its own (lxcfs), its processes may seem to be older.
    if first is not None and in_container(world) and first.start <= age:
        return age - first.start
    return age
