# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the sandbox of a systemd unit is what denied something, and which variable of the
schedule role widens it.

A denial by the sandbox reads like a broken disk or a wrong mode: what this process sees is compared
with what the node sees (the mounts of process 1).
"""

from __future__ import annotations

import errno
import os

from .errors import FleetError
from .jobs import JOBS
from .ports import World
from .system import mounts
from .system.unit import current_unit

#: What systemd mounts over a path that a unit may not see.
_INACCESSIBLE = "/systemd/inaccessible/"
_CAP_DAC_OVERRIDE = 1 << 1
_AGAIN = "and run the role mlops.fleet.schedule again"


def advice(error: FleetError, world: World) -> str:
    """Return what to do about an error that the sandbox of this unit caused, empty where it did
    not.
    """
    cause = error.os_error()
    if cause is None or cause.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
        return ""
    unit = current_unit(world)
    path = _path(error, cause)
    if not unit or not path:
        return ""
    job = next((job.name for job in JOBS if unit == f"{job.unit}.service"), "")
    try:
        mount = mounts.mount_of(path, mounts.read(world.path("/proc/self/mountinfo")))
    except OSError:
        return ""
    if mount is None:
        return ""
    if _INACCESSIBLE in mount.root:
        return _inaccessible(unit, job, mount.point)
    if cause.errno == errno.EROFS:
        if _only_here(path, mount, world):
            return _read_only(unit, job, path)
        return ""
    if _is_limited_root():
        return f"{unit} runs as root with few capabilities: see CapabilityBoundingSet= " + (
            f"in schedule_{job}_directives." if job else f"in systemctl cat {unit}."
        )
    return ""


def _path(error: FleetError, cause: OSError) -> str:
    """Return the full path that was denied, links resolved, empty when it is unknown."""
    for candidate in (cause.filename, error.subject):
        if isinstance(candidate, str) and candidate.startswith("/"):
            return os.path.realpath(candidate)
    return ""


def _only_here(path: str, mount: mounts.Mount, world: World) -> bool:
    """Return whether the mount is read-only for this unit and not for the node."""
    if mount.super_read_only:
        return False
    try:
        outside = mounts.mount_of(path, mounts.read(world.path("/proc/1/mountinfo")))
    except OSError:
        return True
    return outside is None or not outside.mount_read_only


def _read_only(unit: str, job: str, path: str) -> str:
    directory = path if os.path.isdir(path) else os.path.dirname(path)
    start = f"The sandbox of {unit} allows no writing in {directory}, the disk is not the reason."
    if job:
        return f"{start} Add {directory} to schedule_{job}_write_paths {_AGAIN}."
    return f"{start} Add it to ReadWritePaths= (systemctl edit {unit})."


def _inaccessible(unit: str, job: str, point: str) -> str:
    start = f"The sandbox of {unit} hides {point}."
    if job:
        return (
            f"{start} Change ProtectHome or InaccessiblePaths in schedule_{job}_directives"
            f" {_AGAIN}."
        )
    return f"{start} See ProtectHome= and InaccessiblePaths= in systemctl cat {unit}."


def _is_limited_root() -> bool:
    """Return whether this process is root without the right to pass over file modes."""
    if os.geteuid():
        return False
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as stream:
            for line in stream:
                if line.startswith("CapEff:"):
                    return not int(line.split()[1], 16) & _CAP_DAC_OVERRIDE
    except (OSError, ValueError, IndexError):
        pass
    return False
