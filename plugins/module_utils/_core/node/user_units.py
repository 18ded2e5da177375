# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Units that the managers of users run, found by their files and control groups."""

from __future__ import annotations

import os

from ..ports import World
from ..system import procfs

_USER_UNITS = ("/etc/systemd/user", "/run/systemd/user", "/usr/lib/systemd/user")
#: Hierarchies of control groups in which systemd keeps its units, by the field "controllers" of
#: /proc/PID/cgroup: version 2, alone or beside others, and systemd's own of version 1.
_HIERARCHIES = {
    "": ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"),
    "name=systemd": ("/sys/fs/cgroup/systemd",),
}


def exists(world: World, name: str) -> bool:
    """Return whether a unit is installed for the managers of users, or runs in one."""
    paths = [f"{directory}/{name}" for directory in _USER_UNITS]
    if any(os.path.exists(world.path(path)) for path in paths):
        return True
    return bool(running(world, name))


def running(world: World, name: str) -> tuple[str, ...]:
    """Return the IDs of the users in whose managers a unit has a control group."""
    users = []
    slices = [
        (root, entry)
        for root in _user_slices(world)
        for entry in procfs.directory(world, root)
        if entry.startswith("user-")
    ]
    for root, slice_name in slices:
        user = slice_name[len("user-") : -len(".slice")]
        manager = f"{root}/{slice_name}/user@{user}.service"
        for group in (manager, f"{manager}/app.slice", f"{manager}/background.slice"):
            if os.path.isdir(world.path(f"{group}/{name}")):
                users.append(user)
                break
    return tuple(dict.fromkeys(users))


def _user_slices(world: World) -> list[str]:
    """Return where the control groups of users may be: beside that of process 1."""
    paths = []
    for line in procfs.lines(world, "/proc/1/cgroup") or ["0::/init.scope"]:
        dummy, controllers, path = [*line.split(":", 2), "", ""][:3]
        above = path[: -len("/init.scope")] if path.endswith("/init.scope") else path.rstrip("/")
        paths += [
            f"{hierarchy}{above}/user.slice" for hierarchy in _HIERARCHIES.get(controllers, ())
        ]
    return paths
