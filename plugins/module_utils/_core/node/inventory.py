# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Inventory: what hardware and software a node has, read from the kernel and the loader's cache."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..ports import World
from ..records import NamedTuple
from ..system import procfs
from ..system.containers import in_container
from . import values

if TYPE_CHECKING:
    from .expectations import ExpectedHardware

_DISK = re.compile(r"(nvme\d+n\d+|(sd|vd|xvd)[a-z]+)")
_NVIDIA = "0x10de"
#: 3D and VGA controllers (pci_ids.h, PCI_CLASS_DISPLAY_*).
_GPU_CLASSES = ("0x0300", "0x0302")
#: Of the modules and libraries that are there, those of GPUs, fabric and parallel file systems are
#: learned: they are what gets lost with a kernel or a driver.
_LEARNED_MODULES = (
    "nvidia nvidia_uvm nvidia_peermem nvidia_fs gdrdrv amdgpu mlx5_core mlx5_ib ib_core ib_uverbs"
    " ib_ipoib ib_umad rdma_cm rdma_ucm bnxt_re efa irdma lustre lnet mmfs26 beegfs wekafsio knem"
    " xpmem"
).split()
_LEARNED_LIBRARIES = (
    "libcuda.so.1 libnvidia-ml.so.1 libnvidia-nscq.so libcudart.so.12 libnccl.so.2 libibverbs.so.1"
    " librdmacm.so.1 libmlx5.so.1 libgdrapi.so.2 libcufile.so.0 libfabric.so.1 libucp.so.0"
).split()
_LIBRARY_DIRECTORIES = (
    "/lib64",
    "/usr/lib64",
    "/usr/lib",
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib/aarch64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/local/lib",
    "/usr/local/cuda/lib64",
)


class Inventory(NamedTuple):
    """What this node has; None = unknown. Sizes in bytes, speeds of the links in Mbit/s.

    ``firmware`` are versions by component; several of one component are one text.
    """

    cpus: int | None = None
    memory: int | None = None
    dimms: int | None = None
    swap: int | None = None
    disks: tuple[int, ...] = ()
    links: tuple[int, ...] = ()
    gpus: int | None = None
    kernel_modules: frozenset[str] = frozenset()
    libraries: frozenset[str] = frozenset()
    kernel: str | None = None
    driver: str | None = None
    firmware: Mapping[str, str] = {}


def observe(world: World, expected: ExpectedHardware | None = None) -> Inventory:
    """Return what this node has; of modules and libraries the expected ones and those to learn.

    Network drivers are asked for their speed, and a wedged driver may not return: only in a
    child.
    """
    modules, libraries = set(_LEARNED_MODULES), set(_LEARNED_LIBRARIES)
    if expected is not None:
        modules |= set(expected.kernel_modules or ())
        libraries |= set(expected.libraries or ())
    memory = _meminfo(world)
    return Inventory(
        cpus=values.cpus(world),
        memory=memory.get("MemTotal"),
        dimms=_dimms(world),
        swap=memory.get("SwapTotal"),
        disks=_disks(world),
        links=_links(world),
        gpus=_gpus(world),
        kernel_modules=frozenset(name for name in modules if _has_module(world, name)),
        libraries=frozenset(name for name in libraries if _has_library(world, name)),
        kernel=procfs.text(world, "/proc/sys/kernel/osrelease"),
        driver=procfs.text(world, "/sys/module/nvidia/version"),
        firmware=_firmware(world),
    )


def _meminfo(world: World) -> dict[str, int]:
    """Return the fields of ``/proc/meminfo`` in bytes."""
    rows = [line.replace(":", " ").split() for line in procfs.lines(world, "/proc/meminfo")]
    return {row[0]: int(row[1]) * 1024 for row in rows if len(row) == 3 and row[1].isdigit()}


def _dimms(world: World) -> int | None:
    """Return how many memory modules the EDAC driver sees, None without one."""
    base = "/sys/devices/system/edac/mc"
    sizes = [
        procfs.number(world, f"{base}/{controller}/{name}/size") or 0
        for controller in procfs.directory(world, base)
        for name in procfs.directory(world, f"{base}/{controller}")
        if re.fullmatch(r"(dimm|rank)\d+", name)
    ]
    if sizes:
        return sum(1 for size in sizes if size)
    return None


def _disks(world: World) -> tuple[int, ...]:
    """Return the sizes of the disks, largest first.

    A container sees all disks of its host, but only those with a device file are its own.
    """
    inside = in_container(world)
    sizes = []
    for name in procfs.directory(world, "/sys/block"):
        base = f"/sys/block/{name}"
        if not _DISK.fullmatch(name) or procfs.number(world, f"{base}/removable"):
            continue
        if not inside or os.path.exists(world.path(f"/dev/{name}")):
            sizes.append((procfs.number(world, f"{base}/size") or 0) * 512)
    return tuple(sorted((size for size in sizes if size), reverse=True))


def _links(world: World) -> tuple[int, ...]:
    """Return the speeds of the interfaces with hardware and a carrier, fastest first.

    Virtual functions of an adapter are left out.
    """
    speeds = []
    for name in procfs.directory(world, "/sys/class/net"):
        base = f"/sys/class/net/{name}"
        hardware = os.path.exists(world.path(f"{base}/device"))
        if hardware and not os.path.exists(world.path(f"{base}/device/physfn")):
            speeds.append(procfs.number(world, f"{base}/speed") or 0)
    return tuple(sorted((speed for speed in speeds if speed > 0), reverse=True))


def _gpus(world: World) -> int | None:
    """Return how many NVIDIA GPUs are on the PCI bus, whatever their driver says."""
    base = "/sys/bus/pci/devices"
    devices = procfs.directory(world, base)
    if not devices:
        return None
    return sum(
        1
        for device in devices
        if procfs.text(world, f"{base}/{device}/vendor") == _NVIDIA
        and (procfs.text(world, f"{base}/{device}/class") or "").startswith(_GPU_CLASSES)
    )


def _firmware(world: World) -> dict[str, str]:
    """Return the versions of firmware: of the machine, adapters (by board) and disks (by model)."""
    versions: dict[str, set[str]] = {}
    bios = procfs.text(world, "/sys/class/dmi/id/bios_version")
    if bios:
        versions["bios"] = {bios}
    for root, name, file in (
        ("/sys/class/infiniband", "board_id", "fw_ver"),
        ("/sys/class/nvme", "model", "firmware_rev"),
    ):
        for device in procfs.directory(world, root):
            component = procfs.text(world, f"{root}/{device}/{name}")
            version = procfs.text(world, f"{root}/{device}/{file}")
            if component and version:
                versions.setdefault(component, set()).add(version)
    return {component: ", ".join(sorted(several)) for component, several in versions.items()}


def _has_module(world: World, name: str) -> bool:
    """Return whether a kernel module is loaded or built in."""
    name = name.replace("-", "_")
    if os.path.isdir(world.path(f"/sys/module/{name}")):
        return True
    release = procfs.text(world, "/proc/sys/kernel/osrelease")
    builtin = procfs.lines(world, f"/lib/modules/{release}/modules.builtin")
    return any(os.path.basename(line).replace("-", "_") == f"{name}.ko" for line in builtin)


def _has_library(world: World, name: str) -> bool:
    """Return whether the dynamic loader finds a library: a path, or a name that it knows."""
    if name.startswith("/"):
        return os.path.exists(world.path(name))
    paths = [f"{directory}/{name}" for directory in _LIBRARY_DIRECTORIES]
    try:
        with open(world.path("/etc/ld.so.cache"), "rb") as stream:
            known = re.findall(
                rb"/[^\0]*/" + re.escape(os.fsencode(name)) + rb"(?=\0)", stream.read()
            )
        paths += [os.fsdecode(path) for path in known]
    except OSError:
        pass
    return any(os.path.exists(world.path(path)) for path in paths)


def to_dict(inventory: Inventory) -> dict[str, Any]:
    """Return the inventory as a value of the option ``expected_hardware``."""
    facts: dict[str, Any] = {
        "cpus": inventory.cpus,
        "memory": inventory.memory,
        "dimms": inventory.dimms,
        "swap": inventory.swap,
        "disks": [{"size": size, "count": count} for size, count in _grouped(inventory.disks)],
        "links": [{"speed": speed, "count": count} for speed, count in _grouped(inventory.links)],
        "gpus": inventory.gpus,
        "kernel_modules": sorted(inventory.kernel_modules),
        "libraries": sorted(inventory.libraries),
        "kernel": inventory.kernel,
        "driver": inventory.driver,
        "firmware": dict(inventory.firmware) or None,
    }
    return {name: value for name, value in facts.items() if value is not None}


def _grouped(values: Sequence[int]) -> list[tuple[int, int]]:
    return [(value, values.count(value)) for value in dict.fromkeys(values)]
