# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Memory, swap and processes, from ``/proc``, which never hangs."""

from __future__ import annotations

import warnings
from typing import Any

from .. import verdict
from ..errors import MissingLibrary
from ..ports import World
from ..records import NamedTuple, replace
from ..system import procfs
from ..system.procfs import Process
from ..system.text import human_size
from ..verdict import Check
from . import thresholds
from .options import NodeOptions
from .probes import Problem
from .thresholds import skipped

#: The checks that are made here.
MEMORY_DECIDES = ("memory_usage", "swap_usage")
PROCESSES_DECIDES = ("stuck_processes", "zombie_processes")
#: A GPU tool that the kernel holds is a wedged driver.
GPU_TOOLS = frozenset(
    {"nvidia-smi", "nvidia-persiste", "nvidia-powerd", "dcgmi", "nv-hostengine", "nv-fabricmanage"}
)


#: By version of the control groups: where they are, the files of limit and use, and the
#: statistic of what can be taken back.
_GROUP_FILES = {
    1: (
        "/sys/fs/cgroup/memory",
        ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        "total_inactive_file",
    ),
    2: ("/sys/fs/cgroup", ("memory.max", "memory.current"), "inactive_file"),
}


class Memory(NamedTuple):
    """Bytes of main memory and swap.

    Huge pages are not part of it: they are set aside, whether in use or not. ``limit`` is that
    of the control group this check runs in, ``limit_used`` what the group uses; None = no limit.
    """

    total: int
    available: int
    swap_total: int
    swap_used: int
    limit: int | None = None
    limit_used: int = 0


class ProcessFacts(NamedTuple):
    """All processes, and those that did not run for a while in an uninterruptible call."""

    table: list[Process]
    stuck: list[Process]


def psutil(world: World) -> Any:
    """Return the psutil module, reading this world's ``/proc``.

    :raises MissingLibrary: it is not installed.
    """
    try:
        import psutil as library
    except ImportError as error:
        raise MissingLibrary(
            "psutil", "to read memory, swap and network interfaces", str(error)
        ) from error
    library.PROCFS_PATH = world.path("/proc")
    return library


def _zfs_cache(world: World) -> int:
    """Return how many bytes the cache of ZFS would give back: the kernel counts them as used."""
    rows = [line.split() for line in procfs.lines(world, "/proc/spl/kstat/zfs/arcstats")]
    counters = {row[0]: int(row[2]) for row in rows if len(row) == 3 and row[2].isdigit()}
    return max(0, counters.get("size", 0) - counters.get("c_min", 0))


def _memory(world: World) -> Memory | Problem:
    library = psutil(world)
    try:
        with warnings.catch_warnings():
            # About fields of other names that a small /proc lacks.
            warnings.simplefilter("ignore")
            memory, swap = library.virtual_memory(), library.swap_memory()
    except (OSError, LookupError, ValueError) as error:
        return Problem(error)
    total = max(0, memory.total - _huge_pages(world))
    available = min(total, memory.available + _zfs_cache(world))
    limit, used = _group_limit(world, memory.total)
    return Memory(total, available, swap.total, swap.used, limit, used)


def _huge_pages(world: World) -> int:
    """Return the bytes that are set aside for huge pages of all sizes, in use or not."""
    fields: dict[str, int] = {}
    for line in procfs.lines(world, "/proc/meminfo"):
        name, _colon, value = line.partition(":")
        number = value.split()[:1]
        if number and number[0].isdigit():
            fields[name] = int(number[0])
    default = fields.get("HugePages_Total", 0) * fields.get("Hugepagesize", 0)
    return fields.get("Hugetlb", default) * 1024  # Hugetlb: since Linux 4.16


def _group_limit(world: World, total: int) -> tuple[int | None, int]:
    """Return the memory limit of our control group, or of one above, that is nearest, and its use.

    A limit from ``total`` bytes on is none. What the kernel can take back at once (inactive file
    pages) is not counted as used.
    """
    rows = [line.split(":", 2) for line in procfs.lines(world, "/proc/self/cgroup")]
    groups = {
        1 if "memory" in row[1].split(",") else 2: row[2].strip("/")
        for row in rows
        if len(row) == 3 and (row[0] == "0" or "memory" in row[1].split(","))
    }
    version = min(groups, default=2)
    group = groups.get(version, "")
    base, names, cache = _GROUP_FILES[version]
    best: tuple[int | None, int] = (None, 0)
    while True:
        directory = f"{base}/{group}".rstrip("/")
        limit = procfs.number(world, f"{directory}/{names[0]}")
        used = procfs.number(world, f"{directory}/{names[1]}")
        if limit and limit < total and used is not None:
            used = max(0, used - _statistic(world, f"{directory}/memory.stat", cache))
            if best[0] is None or used / limit > best[1] / best[0]:
                best = limit, used
        if not group:
            return best
        group = group.rpartition("/")[0]


def _statistic(world: World, path: str, key: str) -> int:
    for line in procfs.lines(world, path):
        name, _space, value = line.partition(" ")
        if name == key and value.isdigit():
            return int(value)
    return 0


def observe(world: World, options: NodeOptions) -> Memory | Problem | None:
    """Read memory and swap; None when they are not asked for. :raises MissingLibrary: no psutil."""
    if options.wants("memory"):
        return _memory(world)
    return None


def decide_memory(memory: Memory | Problem | None, options: NodeOptions) -> list[Check]:
    """Return the checks of memory and swap."""
    if memory is None:
        return []
    if isinstance(memory, Problem):
        wanted = [name for name in MEMORY_DECIDES if options.wants(name)]
        text = f"Memory: can't be read ({memory})"
        return [Check(name, verdict.UNKNOWN, text) for name in wanted[:1]]
    checks = []
    if options.wants("memory_usage"):
        checks.append(_memory_usage(memory, options))
    if options.wants("swap_usage"):
        checks.append(_swap_usage(memory, options))
    return checks


def _memory_usage(memory: Memory, options: NodeOptions) -> Check:
    """Return memory_usage: of the host, and of the control group's limit where there is one.

    The fuller of the two decides.
    """
    used = memory.total - memory.available
    value = 0.0
    if memory.total:
        value = 100.0 * used / memory.total
    limits = options.limits_in_force["memory_usage"]
    text = (
        f"Memory usage: {thresholds.percent(value, limits)}"
        f" ({human_size(memory.available)} of {human_size(memory.total)} available)"
    )
    if not memory.limit:
        return thresholds.evaluate(limits, "memory_usage", value, text)
    of_limit = 100.0 * memory.limit_used / memory.limit
    text += (
        f", {thresholds.percent(of_limit, limits)} of the limit of this control group"
        f" ({human_size(memory.limit)})"
    )
    details = {"host_percent": round(value, 2), "limit_percent": round(of_limit, 2)}
    return thresholds.evaluate(limits, "memory_usage", max(value, of_limit), text, details=details)


def _swap_usage(memory: Memory, options: NodeOptions) -> Check:
    if not memory.swap_total:
        return skipped("swap_usage", "No swap is configured")
    value = 100.0 * memory.swap_used / memory.swap_total
    limits = options.limits_in_force["swap_usage"]
    text = (
        f"Swap usage: {thresholds.percent(value, limits)}"
        f" ({human_size(memory.swap_used)} of {human_size(memory.swap_total)})"
    )
    return thresholds.evaluate(limits, "swap_usage", value, text)


def decide_processes(facts: ProcessFacts, options: NodeOptions) -> list[Check]:
    """Return the checks of stuck processes and zombies."""
    checks = []
    if options.wants("stuck_processes"):
        checks.append(_stuck(facts.stuck, options))
    if options.wants("zombie_processes"):
        count = sum(1 for process in facts.table if process.state == "Z")
        limits = options.limits_in_force["zombie_processes"]
        text = f"Zombie processes: {count}"
        checks.append(thresholds.evaluate(limits, "zombie_processes", count, text))
    return checks


def _stuck(stuck: list[Process], options: NodeOptions) -> Check:
    limits = options.limits_in_force["stuck_processes"]
    text = f"Processes stuck in the kernel: {len(stuck)}"
    if not stuck:
        return thresholds.evaluate(limits, "stuck_processes", 0, text)
    text += ": " + ", ".join(f"{process.name} ({process.pid})" for process in stuck[:5])
    if len(stuck) > 5:
        text += " …"
    details = {"processes": [{"pid": process.pid, "name": process.name} for process in stuck]}
    # Where a GPU tool is among them the driver is wedged, and only a reboot helps.
    wedged = any(process.name in GPU_TOOLS for process in stuck)
    status = verdict.CRITICAL if wedged else None
    check = thresholds.evaluate(
        limits, "stuck_processes", len(stuck), text, status, details=details
    )
    if wedged:
        return replace(check, action="reboot")
    return check
