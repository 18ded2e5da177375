# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hardware: memory errors (EDAC), machine checks, md and ZFS, NVMe controllers, disk health."""

from __future__ import annotations

import os
import re

from .. import verdict
from ..ports import World
from ..records import NamedTuple
from ..system import procfs
from ..system.containers import in_container
from ..verdict import Check
from . import thresholds
from .options import NodeOptions
from .thresholds import fault, passed, skipped

#: The checks of this group. ``disks`` and ``expected`` make those of their subjects.
DECIDES = (
    "memory_errors",
    "machine_checks",
    "raid",
    "zfs_pool",
    "nvme_state",
    "disk_health",
    "disk_wear",
    "expected_hardware",
)

_EXTERNAL = re.compile(r"external:[^/-]")
_DISK = re.compile(r"(nvme\d+n\d+|sd[a-z]+)")
_EDAC = "/sys/devices/system/edac/mc"
#: Directories of the system's programs. Not ``/usr/local``: on clusters it is often a network
#: mount, and looking into a dead one hangs.
TOOL_DIRECTORIES = ("/usr/sbin", "/usr/bin", "/sbin", "/bin")


class MemoryController(NamedTuple):
    """Corrected and uncorrected errors since the driver was loaded."""

    name: str
    corrected: int
    uncorrected: int


class Raid(NamedTuple):
    """An md array; ``missing`` disks of ``disks``, ``action`` is what it does now."""

    name: str
    level: str
    state: str | None
    missing: int
    action: str
    disks: int | None


class Device(NamedTuple):
    """A ZFS pool or NVMe controller with the state that the kernel reports."""

    name: str
    state: str | None


class HardwareFacts(NamedTuple):
    """The kernel's counters; ``machine_checks`` is None where they are not counted."""

    edac: list[MemoryController]
    machine_checks: int | None
    raids: list[Raid]
    pools: list[Device]
    controllers: list[Device]


def tool(world: World, name: str) -> str | None:
    """Return the path of an installed program, None when it is not there."""
    for directory in TOOL_DIRECTORIES:
        path = f"{directory}/{name}"
        if os.access(world.path(path), os.X_OK):
            return path
    return None


def disks(world: World) -> list[str]:
    """Return the names of the real disks (``nvme0n1``, ``sda``): virtual ones report no health.

    A container sees all disks of its host, but only those with a device file are its own.
    """
    names = [name for name in procfs.directory(world, "/sys/block") if _DISK.fullmatch(name)]
    if names and in_container(world):
        return [name for name in names if os.path.exists(world.path(f"/dev/{name}"))]
    return names


def disks_to_ask(options: NodeOptions, world: World) -> tuple[str | None, list[str]]:
    """Return why no disk is asked (None when some are), and the disks."""
    if not options.disk_health:
        return "switched off by disk_health", []
    names = disks(world)
    if not names:
        return "no disk that could tell", []
    if not tool(world, "smartctl"):
        if not tool(world, "nvme"):
            return "neither smartctl nor nvme is installed", []
        names = [name for name in names if name.startswith("nvme")]
        if not names:
            return "smartctl is not installed", []
    if os.geteuid() != 0:
        return "only root may ask the disks", []
    return None, names


def observe(world: World) -> HardwareFacts:
    """Read the counters that the kernel keeps; no program is started.

    An array or pool in trouble may hold its locks: only in a child.
    """
    return HardwareFacts(
        edac=[
            MemoryController(
                name,
                procfs.number(world, f"{_EDAC}/{name}/ce_count") or 0,
                procfs.number(world, f"{_EDAC}/{name}/ue_count") or 0,
            )
            for name in procfs.directory(world, _EDAC)
            if re.fullmatch(r"mc\d+", name)
        ],
        machine_checks=_machine_checks(world),
        raids=_raids(world),
        pools=[
            Device(name, state)
            for name in procfs.directory(world, "/proc/spl/kstat/zfs")
            if (state := procfs.text(world, f"/proc/spl/kstat/zfs/{name}/state"))
        ],
        controllers=[
            Device(name, procfs.text(world, f"/sys/class/nvme/{name}/state"))
            for name in procfs.directory(world, "/sys/class/nvme")
        ],
    )


def _machine_checks(world: World) -> int | None:
    count = None
    for line in procfs.lines(world, "/proc/interrupts"):
        if line.strip().startswith("MCE:"):
            count = sum(int(field) for field in line.split()[1:] if field.isdigit())
    return count


def _raids(world: World) -> list[Raid]:
    raids = []
    for name in procfs.directory(world, "/sys/block"):
        base = f"/sys/block/{name}/md"
        # No array, but the disks of a firmware RAID, always inactive; its arrays are listed too.
        if _EXTERNAL.match(procfs.text(world, f"{base}/metadata_version") or ""):
            continue
        level = procfs.text(world, f"{base}/level")
        if name.startswith("md") and level:
            raids.append(
                Raid(
                    name,
                    level,
                    procfs.text(world, f"{base}/array_state"),
                    procfs.number(world, f"{base}/degraded") or 0,
                    procfs.text(world, f"{base}/sync_action") or "idle",
                    procfs.number(world, f"{base}/raid_disks"),
                )
            )
    return raids


def decide(facts: HardwareFacts, days: float | None, options: NodeOptions) -> list[Check]:
    """Return the checks of the kernel's counters. :param days: since boot, None when unknown."""
    checks: list[Check] = []
    if options.wants("memory_errors"):
        checks += _memory_errors(facts.edac, days, options)
    if options.wants("machine_checks"):
        checks.append(_machine_check(facts.machine_checks))
    if options.wants("raid"):
        checks += [_raid(raid) for raid in facts.raids] or [skipped("raid", "RAID: no md array")]
    if options.wants("zfs_pool"):
        checks += [_pool(pool) for pool in facts.pools] or [skipped("zfs_pool", "ZFS: no pool")]
    if options.wants("nvme_state"):
        checks += [_controller(controller) for controller in facts.controllers] or [
            skipped("nvme_state", "NVMe: no controller")
        ]
    return checks


def _memory_errors(
    edac: list[MemoryController], days: float | None, options: NodeOptions
) -> list[Check]:
    if not edac:
        text = "Memory errors: not counted on this machine (no EDAC driver)"
        return [skipped("memory_errors", text)]
    checks = []
    limits = options.limits_in_force["memory_errors"]
    for name, corrected, uncorrected in edac:
        per_day = corrected / max(1.0, days or 1.0)
        text = (
            f"Memory errors on {name}: {uncorrected} uncorrected,"
            f" {corrected} corrected ({per_day:.1f} per day)"
        )
        if uncorrected:
            checks.append(
                fault(
                    "memory_errors",
                    verdict.CRITICAL,
                    text,
                    name,
                    "drain",
                    value=uncorrected,
                    crit=1,
                )
            )
        else:
            checks.append(thresholds.evaluate(limits, "memory_errors", per_day, text, subject=name))
    return checks


def _machine_check(count: int | None) -> Check:
    if count is None:
        return skipped("machine_checks", "Machine checks: not counted on this machine")
    text = f"Machine checks: {count} since boot"
    if count:
        return fault("machine_checks", verdict.WARNING, text, value=count)
    return passed("machine_checks", text, value=count)


def _raid(raid: Raid) -> Check:
    head = f"RAID {raid.name} ({raid.level})"
    if raid.state in ("inactive", "broken", "clear"):
        return fault("raid", verdict.CRITICAL, f"{head}: {raid.state}", raid.name, "drain")
    if not raid.missing:
        return passed("raid", f"{head}: {raid.state}, complete", raid.name, value=0)
    text = f"{head}: degraded, {raid.missing} of {raid.disks} disks missing"
    status = verdict.CRITICAL
    if raid.action in ("recover", "resync", "reshape"):
        text, status = text + ", being rebuilt", verdict.WARNING
    return fault("raid", status, text, raid.name, value=raid.missing)


def _pool(pool: Device) -> Check:
    text = f"ZFS pool {pool.name}: {pool.state}"
    if pool.state == "ONLINE":
        return passed("zfs_pool", text, pool.name)
    # A degraded one still works; faulted, unavailable or suspended it does not.
    action = "drain"
    if pool.state == "DEGRADED":
        action = "inspect"
    return fault("zfs_pool", verdict.CRITICAL, text, pool.name, action)


def _controller(controller: Device) -> Check:
    state = controller.state or "state can not be read"
    text = f"NVMe controller {controller.name}: {state}"
    if controller.state == "live":
        return passed("nvme_state", text, controller.name)
    status = verdict.UNKNOWN if controller.state is None else verdict.CRITICAL
    return fault("nvme_state", status, text, controller.name, "drain", unknown_as=verdict.CRITICAL)
