# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks that few nodes need, and whether this one does: cheaply, and without hanging.

``modules`` has the modules that make them, which are loaded only where they apply.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..ports import World
from ..system import procfs
from .thresholds import OFF, Rule
from .values import NodeCheck

if TYPE_CHECKING:
    from .options import NodeOptions

#: Sockets of container runtimes, in the order in which a runtime is looked for.
RUNTIMES = {
    "docker": ("/run/docker.sock",),
    "containerd": (
        "/run/containerd/containerd.sock",
        "/run/k3s/containerd/containerd.sock",
        "/run/k0s/containerd.sock",
        "/var/snap/microk8s/common/run/containerd.sock",
    ),
    "cri-o": ("/run/crio/crio.sock",),
}
#: PCI classes of AMD's accelerators; those that drive displays are others (pci_ids.h).
_ACCELERATORS = ("0x0380", "0x1200")
#: File systems whose servers are asked.
SERVED = ("nfs", "nfs4", "lustre", "gpfs")


def peer_gpus(world: World) -> list[str]:
    """Return the PCI addresses of the GPUs that may exchange data directly, NVIDIA's and AMD's."""
    amd = "/sys/bus/pci/drivers/amdgpu"
    return [
        *procfs.directory(world, "/proc/driver/nvidia/gpus"),
        *(
            name
            for name in procfs.directory(world, amd)
            if (procfs.text(world, f"{amd}/{name}/class") or "").startswith(_ACCELERATORS)
        ),
    ]


def _has_gpus(world: World, dummy: NodeOptions) -> bool:
    return len(peer_gpus(world)) > 1


def _has_infiniband(world: World, dummy: NodeOptions) -> bool:
    return bool(procfs.directory(world, "/sys/class/infiniband"))


def _has_runtime(world: World, dummy: NodeOptions) -> bool:
    return any(os.path.exists(world.path(path)) for paths in RUNTIMES.values() for path in paths)


def _has_served_mounts(world: World, dummy: NodeOptions) -> bool:
    table = procfs.text(world, "/proc/self/mountinfo") or ""
    return any(f" - {fstype} " in table for fstype in SERVED)


def _has_backups(dummy: World, options: NodeOptions) -> bool:
    return bool(options.backups)


OPTIONAL = (
    NodeCheck(
        "container_runtime",
        "services",
        "Container runtimes that are there answer on their sockets.",
        "container_runtime",
        applies=_has_runtime,
    ),
    NodeCheck(
        "infiniband_errors",
        "network",
        "Error counters of InfiniBand ports.",
        "infiniband_errors",
        Rule("100", OFF, "per day"),
        applies=_has_infiniband,
    ),
    NodeCheck(
        "storage_server",
        "network",
        "Servers of NFS, Lustre and GPFS mounts answer.",
        "storage_server",
        applies=_has_served_mounts,
    ),
    NodeCheck(
        "pci_acs",
        "hardware",
        "PCI bridges between GPUs do not redirect peer-to-peer traffic.",
        "pci_acs",
        applies=_has_gpus,
    ),
    NodeCheck(
        "backup_age",
        "backup",
        "The newest verified backup is not too old.",
        "backup_age",
        Rule("30", "54", "h"),
        applies=_has_backups,
    ),
)
