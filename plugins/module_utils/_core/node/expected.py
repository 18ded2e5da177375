# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hardware and software that a node must have: from the options, and from a file that it learned."""

from __future__ import annotations

import fnmatch
import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .. import verdict
from ..errors import FleetError, NotUsable, OptionError
from ..ports import World
from ..system import files, procfs
from ..system.containers import in_container
from ..system.text import human_size
from ..verdict import Check, isoformat
from . import values
from .options import ExpectedHardware, NodeOptions, parse_size
from .probes import Problem
from .thresholds import fault, passed, skipped

CHECK = "expected_hardware"
#: Share of the memory that may be missing: the kernel reserves some, differently in each version.
#: One of 32 DIMMs is more.
_MEMORY_TOLERANCE = 0.03
#: Disks of one nominal size differ by less.
_DISK_TOLERANCE = 0.02
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
    """What this node has; None = unknown. Sizes in bytes, speeds of the links in Mbit/s."""

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


class ExpectedFacts(NamedTuple):
    """What is expected, a Problem where the file can't be used, and what is there."""

    expected: ExpectedHardware | Problem
    inventory: Inventory | Problem


def load(world: World, options: NodeOptions) -> ExpectedHardware | Problem | None:
    """Return what is expected: the options, completed by the file; None when nothing is."""
    given = options.expected_hardware
    path = world.path(options.expected_hardware_file)
    try:
        content = files.read_json(path)
    except (NotUsable, RecursionError) as error:
        return Problem(f"{path} can't be used: {error}")
    if content is None:
        return given
    try:
        learned = content.get("expected_hardware", {}) if isinstance(content, Mapping) else None
        if not isinstance(learned, Mapping):
            raise OptionError("It has no mapping expected_hardware.")
        from_file = ExpectedHardware.from_mapping(learned)
    except FleetError as error:
        return Problem(f"{path} can't be used: {error}")
    if given is None:
        return from_file
    values = {name: value for name, value in given.given().items() if value is not None}
    return ExpectedHardware({**from_file.given(), **values})


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
    return sum(1 for size in sizes if size) if sizes else None


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


# --- learning ---------------------------------------------------------------------------------


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
    }
    return {name: value for name, value in facts.items() if value is not None}


def _grouped(values: Sequence[int]) -> list[tuple[int, int]]:
    return [(value, values.count(value)) for value in dict.fromkeys(values)]


def learn(world: World, options: NodeOptions, check: bool = False) -> dict[str, Any]:
    """Write what this node has into the file, as what is expected from now on; return its content.

    :param check: write nothing. :raises WriteFailed: the file can't be written.
    :raises NotUsable: the hardware does not answer.
    """
    from ..system import isolate

    outcome = isolate.call(lambda: observe(world), options.timeout)
    if outcome.value is None:
        raise NotUsable(
            f"The hardware gave no answer within {options.timeout:g} s.",
            "Run mlfleet health to see what hangs.",
        )
    content = {
        "learned_at": isoformat(world.clock.now()),
        "hostname": world.hostname,
        "expected_hardware": to_dict(outcome.value),
    }
    if not check:
        path = world.path(options.expected_hardware_file)
        files.atomic_write(path, json.dumps(content, indent=2) + "\n", mode=0o644)
    return content


# --- verdicts ---------------------------------------------------------------------------------


def decide(facts: ExpectedFacts) -> list[Check]:
    """Return expected_hardware for each thing that is expected."""
    if isinstance(facts.expected, Problem):
        return [fault(CHECK, verdict.UNKNOWN, f"Expected hardware: {facts.expected}")]
    if isinstance(facts.inventory, Problem):
        text = f"Expected hardware: {facts.inventory}"
        return [fault(CHECK, verdict.UNKNOWN, text, unknown_as=verdict.CRITICAL)]
    wanted, has = facts.expected, facts.inventory
    checks = [
        *_counts(wanted, has),
        *_sizes(wanted, has),
        *_disk_checks(wanted, has),
        *_link_checks(wanted, has),
        *_present("kernel module", wanted.kernel_modules, has.kernel_modules),
        *_present("library", wanted.libraries, has.libraries),
        *_versions(wanted, has),
    ]
    return checks or [skipped(CHECK, "Expected hardware: nothing is expected")]


def _verdict(
    subject: str, good: bool, text: str, status: str = verdict.CRITICAL, **measured: Any
) -> Check:
    if good:
        return passed(CHECK, text, subject, **measured)
    return fault(CHECK, status, text, subject, **measured)


def _counts(wanted: ExpectedHardware, has: Inventory) -> list[Check]:
    checks = []
    for subject, label, expected, present in (
        ("cpus", "CPUs", wanted.cpus, has.cpus),
        ("dimms", "Memory modules", wanted.dimms, has.dimms),
        ("gpus", "GPUs on the PCI bus", wanted.gpus, has.gpus),
    ):
        if expected is None:
            continue
        if present is None:
            text = f"{label}: {expected} expected, but they can't be counted here"
            checks.append(fault(CHECK, verdict.UNKNOWN, text, subject))
            continue
        text = f"{label}: {present} of {expected} expected"
        checks.append(
            _verdict(subject, present >= expected, text, value=present, crit=f"{expected}:")
        )
    return checks


def _sizes(wanted: ExpectedHardware, has: Inventory) -> list[Check]:
    checks = []
    for subject, label, size, present, status in (
        ("memory", "Memory", wanted.memory, has.memory, verdict.CRITICAL),
        ("swap", "Swap", wanted.swap, has.swap, verdict.WARNING),
    ):
        if size is None:
            continue
        expected = parse_size(size)
        if present is None:
            text = f"{label}: {human_size(expected)} expected, but it can't be read here"
            checks.append(fault(CHECK, verdict.UNKNOWN, text, subject))
            continue
        text = f"{label}: {human_size(present)} of {human_size(expected)} expected"
        good = present >= expected * (1 - _MEMORY_TOLERANCE)
        checks.append(_verdict(subject, good, text, status, value=present, unit="bytes"))
    return checks


def _disk_checks(wanted: ExpectedHardware, has: Inventory) -> list[Check]:
    checks = []
    remaining = list(has.disks)
    for entry in wanted.disks or []:
        size = parse_size(entry.size)
        near = [disk for disk in remaining if abs(disk - size) <= size * _DISK_TOLERANCE]
        for disk in near[: entry.count]:
            remaining.remove(disk)
        text = f"Disks of {human_size(size)}: {len(near)} of {entry.count} expected"
        measured: dict[str, Any] = {"value": len(near), "crit": f"{entry.count}:"}
        subject = f"disks {human_size(size)}"
        checks.append(_verdict(subject, len(near) >= entry.count, text, **measured))
    return checks


def _link_checks(wanted: ExpectedHardware, has: Inventory) -> list[Check]:
    checks = []
    remaining = list(has.links)
    for entry in sorted(wanted.links or [], key=lambda link: -link.speed):
        fast = [speed for speed in remaining if speed >= entry.speed]
        remaining = remaining[min(len(fast), entry.count) :]
        text = (
            f"Network interfaces of {entry.speed} Mbit/s or more: {len(fast)} of {entry.count}"
            " expected"
        )
        measured: dict[str, Any] = {"value": len(fast), "crit": f"{entry.count}:"}
        subject = f"links {entry.speed} Mbit/s"
        checks.append(_verdict(subject, len(fast) >= entry.count, text, **measured))
    return checks


def _present(label: str, wanted: list[str] | None, has: frozenset[str]) -> list[Check]:
    checks = []
    for name in dict.fromkeys(wanted or []):
        state = "present" if name in has else "missing"
        text = f"{label.capitalize()} {name}: {state}"
        checks.append(_verdict(f"{label} {name}", name in has, text))
    return checks


def _versions(wanted: ExpectedHardware, has: Inventory) -> list[Check]:
    checks = []
    for subject, label, pattern, present in (
        ("kernel", "Kernel", wanted.kernel, has.kernel),
        ("driver", "NVIDIA driver", wanted.driver, has.driver),
    ):
        if pattern is None:
            continue
        text = f"{label}: {present or 'none'}"
        good = present is not None and fnmatch.fnmatchcase(present, pattern)
        if not good:
            text += f", expected {pattern}"
        status = verdict.WARNING if present else verdict.CRITICAL
        checks.append(_verdict(subject, good, text, status, value=present))
    return checks
