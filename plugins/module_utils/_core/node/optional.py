# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks that few nodes need: each is a module that is loaded only where its check applies.

Such a module has two functions. ``questions(world, options, patience)`` returns functions by
subject, which run in children, because they may hang; ``patience`` is in seconds. ``decide``
gets their answers by subject (a Problem where one failed), the time and the options, and returns
the checks. Without questions it is called as well.
"""

from __future__ import annotations

import os
from types import ModuleType
from typing import TYPE_CHECKING

from ..ports import World
from ..system import procfs
from .thresholds import OFF, Rule
from .values import NodeCheck, Optional

if TYPE_CHECKING:
    from .options import NodeOptions

#: Sockets of container runtimes, in the order in which a runtime is looked for.
RUNTIMES = {
    "docker": ("/run/docker.sock",),
    "containerd": ("/run/containerd/containerd.sock", "/run/k3s/containerd/containerd.sock"),
    "cri-o": ("/run/crio/crio.sock",),
}
#: File systems whose servers are asked.
SERVED = ("nfs", "nfs4", "lustre", "gpfs")


def _has_gpus(world: World, dummy: NodeOptions) -> bool:
    return len(procfs.directory(world, "/proc/driver/nvidia/gpus")) > 1


def _has_infiniband(world: World, dummy: NodeOptions) -> bool:
    return bool(procfs.directory(world, "/sys/class/infiniband"))


def _has_runtime(world: World, dummy: NodeOptions) -> bool:
    return any(os.path.exists(world.path(path)) for paths in RUNTIMES.values() for path in paths)


def _has_served_mounts(world: World, dummy: NodeOptions) -> bool:
    table = procfs.text(world, "/proc/self/mountinfo") or ""
    return any(f" - {fstype} " in table for fstype in SERVED)


def _has_backups(dummy: World, options: NodeOptions) -> bool:
    return bool(options.backups)


def _acs() -> ModuleType:
    from . import acs

    return acs


def _infiniband_errors() -> ModuleType:
    from . import infiniband_errors

    return infiniband_errors


def _runtimes() -> ModuleType:
    from . import runtimes

    return runtimes


def _servers() -> ModuleType:
    from . import servers

    return servers


def _backup_age() -> ModuleType:
    from . import backup_age

    return backup_age


OPTIONAL = (
    NodeCheck(
        "container_runtime",
        "services",
        "Container runtimes that are there answer on their sockets.",
        "container_runtime",
        optional=Optional(_has_runtime, _runtimes),
    ),
    NodeCheck(
        "infiniband_errors",
        "network",
        "Error counters of InfiniBand ports.",
        "infiniband_errors",
        Rule("100", OFF, "per day"),
        optional=Optional(_has_infiniband, _infiniband_errors),
    ),
    NodeCheck(
        "storage_server",
        "network",
        "Servers of NFS, Lustre and GPFS mounts answer.",
        "storage_server",
        optional=Optional(_has_served_mounts, _servers),
    ),
    NodeCheck(
        "pci_acs",
        "hardware",
        "PCI bridges between GPUs do not redirect peer-to-peer traffic.",
        "pci_acs",
        optional=Optional(_has_gpus, _acs),
    ),
    NodeCheck(
        "backup_age",
        "backup",
        "The newest verified backup is not too old.",
        "backup_age",
        Rule("30", "54", "h"),
        optional=Optional(_has_backups, _backup_age),
    ),
)
