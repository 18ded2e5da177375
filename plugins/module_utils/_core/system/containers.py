# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Detection of containers, where clock, kernel and hardware belong to the host."""

from __future__ import annotations

import os

from ..ports import World
from . import procfs

#: Files that podman, docker, systemd (container_interface) and kubelet put into a container.
_MARKS = (
    "/run/.containerenv",
    "/.dockerenv",
    "/run/systemd/container",
    "/var/run/secrets/kubernetes.io",
)
#: Variables that a container's processes inherit: from its manager, kubelet and the NVIDIA images.
_VARIABLES = ("container", "KUBERNETES_SERVICE_HOST", "NVIDIA_VISIBLE_DEVICES")


def in_container(world: World) -> bool:
    """Return whether this system is a container.

    The environment of process 1 counts as well: a login inside a container does not inherit it.
    """
    if any(os.path.exists(world.path(mark)) for mark in _MARKS):
        return True
    if any(variable in world.environ for variable in _VARIABLES):
        return True
    inherited = (procfs.text(world, "/proc/1/environ") or "").split("\0")
    return any(entry.startswith("container=") for entry in inherited)
