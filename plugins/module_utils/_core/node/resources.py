# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Memory, swap, load, pressure, processes and kernel tables, from ``/proc``, which never hangs."""

from __future__ import annotations

import contextlib
import os
import warnings
from dataclasses import replace
from typing import Any, NamedTuple

from .. import verdict
from ..errors import MissingLibrary
from ..ports import World
from ..system import procfs
from ..system.procfs import Process
from ..system.text import human_size
from ..verdict import Check
from . import thresholds
from .options import NodeOptions
from .probes import Problem
from .thresholds import skipped

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


class Pressure(NamedTuple):
    """Percent of the last minute in which some task, and all tasks, waited; None = not reported."""

    some: float | None = None
    full: float | None = None


class Fill(NamedTuple):
    """How much of a kernel table is used; None = the kernel does not say."""

    used: int | None
    limit: int | None


class ResourceFacts(NamedTuple):
    """What ``/proc`` says.

    ``memory`` is None when it is not asked for, ``load`` when it can't be read.
    """

    memory: Memory | Problem | None
    memory_pressure: Pressure
    io_pressure: Pressure
    cpu_pressure: Pressure
    load: tuple[float, float, float] | None
    cpus: int
    files: Fill
    tasks: Fill
    conntrack: Fill


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


def pressure(world: World, resource: str) -> Pressure:
    """Return the avg60 of a PSI file; all None where the kernel has none or it is switched off."""
    shares: dict[str, float] = {}
    for line in procfs.lines(world, f"/proc/pressure/{resource}"):
        kind, *pairs = line.split() or [""]
        fields = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        with contextlib.suppress(KeyError, ValueError):
            shares[kind] = float(fields["avg60"])
    return Pressure(shares.get("some"), shares.get("full"))


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

    A limit from ``total`` bytes on is none. What the kernel can take back at once (inactive file pages) is not counted as used.
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


def _load(world: World) -> tuple[tuple[float, float, float] | None, int | None]:
    """Return the load of 1, 5 and 15 minutes and the number of tasks, each None when unreadable."""
    fields = (procfs.text(world, "/proc/loadavg") or "").split()
    try:
        load = float(fields[0]), float(fields[1]), float(fields[2])
        return load, int(fields[3].partition("/")[2])
    except (ValueError, IndexError):
        return None, None


def cpus(world: World) -> int:
    """Return how many CPUs are online."""
    lines = procfs.lines(world, "/proc/stat")
    count = sum(1 for line in lines if line.startswith("cpu") and line[3:4].isdigit())
    return count or os.cpu_count() or 1


def _files(world: World) -> Fill:
    fields = (procfs.text(world, "/proc/sys/fs/file-nr") or "").split()
    if len(fields) != 3 or not all(field.isdigit() for field in fields):
        return Fill(None, None)
    return Fill(int(fields[0]), int(fields[2]))


def _task_limit(world: World) -> int | None:
    limits = (
        procfs.number(world, "/proc/sys/kernel/pid_max"),
        procfs.number(world, "/proc/sys/kernel/threads-max"),
    )
    return min((limit for limit in limits if limit), default=None)


def observe(world: World, options: NodeOptions) -> ResourceFacts:
    """Read memory, load, pressure and kernel tables. :raises MissingLibrary: no psutil."""
    load, tasks = _load(world)
    return ResourceFacts(
        memory=_memory(world) if options.wants("memory") else None,
        memory_pressure=pressure(world, "memory"),
        io_pressure=pressure(world, "io"),
        cpu_pressure=pressure(world, "cpu"),
        load=load,
        cpus=cpus(world),
        files=_files(world),
        tasks=Fill(tasks, _task_limit(world)),
        conntrack=Fill(
            procfs.number(world, "/proc/sys/net/netfilter/nf_conntrack_count"),
            procfs.number(world, "/proc/sys/net/netfilter/nf_conntrack_max"),
        ),
    )


def decide_memory(facts: ResourceFacts, options: NodeOptions) -> list[Check]:
    """Return the checks of memory, swap and memory pressure."""
    checks = []
    memory = facts.memory
    if isinstance(memory, Problem):
        for name in ("memory_usage", "swap_usage"):
            if options.wants(name):
                text = f"Memory: can't be read ({memory})"
                checks.append(Check(name, verdict.UNKNOWN, text))
                break
    elif memory is not None:
        if options.wants("memory_usage"):
            checks.append(_memory_usage(memory, options))
        if options.wants("swap_usage"):
            checks.append(_swap_usage(memory, options))
    if options.wants("memory_pressure"):
        share = facts.memory_pressure.full
        checks.append(_pressure("memory_pressure", "Memory", share, "all tasks", options))
    return checks


def _memory_usage(memory: Memory, options: NodeOptions) -> Check:
    """Return memory_usage: of the host, and of the control group's limit where there is one.

    The fuller of the two decides.
    """
    used = memory.total - memory.available
    value = 100.0 * used / memory.total if memory.total else 0.0
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


def decide_load(facts: ResourceFacts, options: NodeOptions) -> list[Check]:
    """Return the checks of load against CPUs, and of CPU and I/O pressure."""
    checks = []
    if options.wants("cpu_load"):
        checks.append(_cpu_load(facts, options))
    if options.wants("cpu_pressure"):
        share = facts.cpu_pressure.some
        checks.append(_pressure("cpu_pressure", "CPU", share, "some task", options))
    if options.wants("io_pressure"):
        share = facts.io_pressure.full
        checks.append(_pressure("io_pressure", "I/O", share, "all tasks", options))
    return checks


def _cpu_load(facts: ResourceFacts, options: NodeOptions) -> Check:
    if facts.load is None:
        return Check("cpu_load", verdict.UNKNOWN, "CPU load: /proc/loadavg can't be read")
    value = facts.load[2] / facts.cpus
    averages = " ".join(f"{average:.2f}" for average in facts.load)
    text = f"CPU load: {averages} on {facts.cpus} CPUs ({value:.2f} per CPU over 15 minutes)"
    return thresholds.evaluate(options.limits_in_force["cpu_load"], "cpu_load", value, text)


def _pressure(check: str, label: str, share: float | None, who: str, options: NodeOptions) -> Check:
    if share is None:
        return skipped(check, f"{label} pressure: this kernel does not report it")
    text = f"{label} pressure: {share:.1f}% of the last minute {who} waited"
    return thresholds.evaluate(options.limits_in_force[check], check, share, text)


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
    return replace(check, action="reboot") if wedged else check


def decide_limits(facts: ResourceFacts, options: NodeOptions) -> list[Check]:
    """Return how full the kernel's tables of files, processes and connections are."""
    return [
        _fill(check, label, fill, options)
        for check, label, fill in (
            ("file_descriptors", "Open files", facts.files),
            ("process_ids", "Tasks", facts.tasks),
            ("conntrack", "Tracked connections", facts.conntrack),
        )
        if options.wants(check)
    ]


def _fill(check: str, label: str, fill: Fill, options: NodeOptions) -> Check:
    if fill.used is None or not fill.limit:
        if check == "conntrack":
            return skipped(check, f"{label}: no connection tracking in this kernel")
        text = f"{label}: the kernel's counters can't be read"
        return Check(check, verdict.UNKNOWN, text)
    value = 100.0 * fill.used / fill.limit
    limit = f" of {fill.limit}" if fill.limit < 1 << 60 else ", no limit"
    limits = options.limits_in_force[check]
    text = f"{label}: {thresholds.percent(value, limits)} ({fill.used}{limit})"
    return thresholds.evaluate(limits, check, value, text)
