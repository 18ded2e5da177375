# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Memory, swap, load, pressure, processes and kernel tables: read from C(/proc), which never hangs."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .. import verdict
from ..errors import MissingLibrary
from ..ports import World
from ..system import procfs
from ..system.procfs import Process
from ..system.text import human_size
from ..verdict import Check
from . import thresholds
from .options import NodeOptions

#: A GPU tool that the kernel holds is a wedged driver.
GPU_TOOLS = frozenset(
    {"nvidia-smi", "nvidia-persiste", "nvidia-powerd", "dcgmi", "nv-hostengine", "nv-fabricmanage"}
)


def psutil(world: World) -> Any:
    """Return the psutil module, reading this world's C(/proc). :raises MissingLibrary: it is not installed."""
    try:
        import psutil as library
    except ImportError as error:
        raise MissingLibrary(
            "psutil", "to read memory, swap and network interfaces", str(error)
        ) from error
    library.PROCFS_PATH = world.path("/proc")
    return library


def switches(world: World, pid: int) -> tuple[str, ...] | None:
    """Return a process's counters of context switches: while they stand still it has not run. None when it ended."""
    names = ("voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:")
    found = tuple(
        line.split()[-1]
        for line in procfs.lines(world, f"/proc/{pid}/status")
        if line.startswith(names)
    )
    return found or None


def blocked(table: list[Process]) -> list[Process]:
    """Return the processes (no kernel threads) that are in an uninterruptible call."""
    return [process for process in table if process.state == "D" and not process.kernel_thread]


def held(world: World, process: Process) -> bool:
    """Return whether this very process is still in an uninterruptible call."""
    now = procfs.parse_stat(procfs.text(world, f"/proc/{process.pid}/stat") or "")
    return bool(now and now.state == "D" and now.start == process.start)


def pressure(world: World, resource: str) -> dict[str, float]:
    """Return C(some) and C(full) avg60 (percent of time) of a PSI file, {} where the kernel has none or it is switched off."""
    found = {}
    for line in procfs.lines(world, f"/proc/pressure/{resource}"):
        words = line.split()
        fields = dict(word.split("=", 1) for word in words[1:] if "=" in word)
        with contextlib.suppress(KeyError, ValueError):
            found[words[0]] = float(fields["avg60"])
    return found


def _cache_of_zfs(world: World) -> int:
    """Return how many bytes the cache of ZFS would give back: the kernel counts them as used, not as its own cache."""
    rows = [line.split() for line in procfs.lines(world, "/proc/spl/kstat/zfs/arcstats")]
    found = {words[0]: int(words[2]) for words in rows if len(words) == 3 and words[2].isdigit()}
    return max(0, found.get("size", 0) - found.get("c_min", 0))


def observe(world: World, options: NodeOptions) -> dict[str, Any]:
    """Read memory, load, pressure and kernel tables. :raises MissingLibrary: no psutil."""
    facts: dict[str, Any] = {}
    if options.wants("memory"):
        library = psutil(world)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore"
                )  # about fields of other names that a small /proc lacks
                memory, swap = library.virtual_memory(), library.swap_memory()
            facts["memory"] = {
                "total": memory.total,
                "available": min(memory.total, memory.available + _cache_of_zfs(world)),
            }
            facts["swap"] = {"total": swap.total, "used": swap.used}
        except (OSError, LookupError, ValueError) as error:
            facts["memory"] = facts["swap"] = str(error)
    facts["pressure"] = {name: pressure(world, name) for name in ("memory", "io", "cpu")}
    load = (procfs.text(world, "/proc/loadavg") or "").split()
    with contextlib.suppress(ValueError, IndexError):
        facts["load"], facts["tasks"] = (
            [float(word) for word in load[:3]],
            int(load[3].partition("/")[2]),
        )
    facts["cpus"] = (
        sum(
            1
            for line in procfs.lines(world, "/proc/stat")
            if line.startswith("cpu") and line[3:4].isdigit()
        )
        or os.cpu_count()
        or 1
    )
    handles = (procfs.text(world, "/proc/sys/fs/file-nr") or "").split()
    facts["handles"] = (
        [int(handles[0]), int(handles[2])]
        if len(handles) == 3 and all(word.isdigit() for word in handles)
        else None
    )
    facts["pid_limit"] = min(
        (
            n
            for n in (
                procfs.number(world, "/proc/sys/kernel/pid_max"),
                procfs.number(world, "/proc/sys/kernel/threads-max"),
            )
            if n
        ),
        default=None,
    )
    facts["conntrack"] = [
        procfs.number(world, "/proc/sys/net/netfilter/nf_conntrack_count"),
        procfs.number(world, "/proc/sys/net/netfilter/nf_conntrack_max"),
    ]
    return facts


def judge_memory(facts: Mapping[str, Any], options: NodeOptions) -> list[Check]:
    """Judge memory, swap and memory pressure."""
    found = []
    if isinstance(facts.get("memory"), str):
        wanted = [check for check in ("memory_usage", "swap_usage") if options.wants(check)]
        found += [
            Check(check, verdict.UNKNOWN, f"Memory: can't be read ({facts['memory']})")
            for check in wanted[:1]
        ]
    elif options.wants("memory_usage"):
        total, available = facts["memory"]["total"], facts["memory"]["available"]
        value = 100.0 * (total - available) / total if total else 0.0
        limits = options.limits_in_force["memory_usage"]
        message = f"Memory usage: {thresholds.percent(value, limits)} ({human_size(available)} of {human_size(total)} available)"
        found.append(thresholds.judge(limits, "memory_usage", value, message))
    if options.wants("swap_usage") and not isinstance(facts.get("swap"), str):
        total, used = facts["swap"]["total"], facts["swap"]["used"]
        if total:
            value = 100.0 * used / total
            limits = options.limits_in_force["swap_usage"]
            message = f"Swap usage: {thresholds.percent(value, limits)} ({human_size(used)} of {human_size(total)})"
            found.append(thresholds.judge(limits, "swap_usage", value, message))
        else:
            found.append(Check("swap_usage", verdict.SKIPPED, "No swap is configured"))
    if options.wants("memory_pressure"):
        found.append(_pressure("memory_pressure", facts["pressure"]["memory"], "full", options))
    return found


def judge_load(facts: Mapping[str, Any], options: NodeOptions) -> list[Check]:
    """Judge load against CPUs, and CPU and I/O pressure."""
    found = []
    if options.wants("cpu_load"):
        if "load" in facts:
            value = facts["load"][2] / facts["cpus"]
            shown = " ".join(f"{one:.2f}" for one in facts["load"])
            message = (
                f"CPU load: {shown} on {facts['cpus']} CPUs ({value:.2f} per CPU over 15 minutes)"
            )
            found.append(
                thresholds.judge(options.limits_in_force["cpu_load"], "cpu_load", value, message)
            )
        else:
            found.append(
                Check("cpu_load", verdict.UNKNOWN, "CPU load: /proc/loadavg can't be read")
            )
    if options.wants("cpu_pressure"):
        found.append(_pressure("cpu_pressure", facts["pressure"]["cpu"], "some", options))
    if options.wants("io_pressure"):
        found.append(_pressure("io_pressure", facts["pressure"]["io"], "full", options))
    return found


def _pressure(check: str, values: Mapping[str, float], kind: str, options: NodeOptions) -> Check:
    label = {"memory_pressure": "Memory", "io_pressure": "I/O", "cpu_pressure": "CPU"}[check]
    if kind not in values:
        return Check(check, verdict.SKIPPED, f"{label} pressure: this kernel does not report it")
    who = "all tasks" if kind == "full" else "some task"
    message = f"{label} pressure: {values[kind]:.1f}% of the last minute {who} waited"
    return thresholds.judge(options.limits_in_force[check], check, values[kind], message)


def judge_processes(facts: Mapping[str, Any], options: NodeOptions) -> list[Check]:
    """Judge C(table) (all processes) and C(stuck): those in an uninterruptible call that did not run for C(stuck_seconds)."""
    found = []
    if options.wants("stuck_processes"):
        stuck = facts["stuck"]
        limits = options.limits_in_force["stuck_processes"]
        names = ", ".join(f"{process.name} ({process.pid})" for process in stuck[:5]) + (
            " …" if len(stuck) > 5 else ""
        )
        tool = any(
            process.name in GPU_TOOLS for process in stuck
        )  # then the driver is wedged, and only a reboot helps
        message = f"Processes stuck in the kernel: {len(stuck)}" + (f": {names}" if stuck else "")
        status = verdict.CRITICAL if tool else None
        details = (
            {"processes": [{"pid": process.pid, "name": process.name} for process in stuck]}
            if stuck
            else None
        )
        check = thresholds.judge(
            limits, "stuck_processes", len(stuck), message, status, details=details
        )
        found.append(replace(check, action="reboot") if tool else check)
    if options.wants("zombie_processes"):
        count = sum(1 for process in facts["table"] if process.state == "Z")
        found.append(
            thresholds.judge(
                options.limits_in_force["zombie_processes"],
                "zombie_processes",
                count,
                f"Zombie processes: {count}",
            )
        )
    return found


def judge_limits(facts: Mapping[str, Any], options: NodeOptions) -> list[Check]:
    """Judge how full the kernel's tables of files, processes and connections are."""
    found = []
    used_of = {
        "file_descriptors": ("Open files", facts["handles"]),
        "process_ids": (
            "Tasks",
            [facts["tasks"], facts["pid_limit"]] if "tasks" in facts else None,
        ),
        "conntrack": ("Tracked connections", facts["conntrack"]),
    }
    for check, (label, pair) in used_of.items():
        if not options.wants(check):
            continue
        if not pair or pair[0] is None or not pair[1]:
            absent = check == "conntrack"
            text = (
                "no connection tracking in this kernel"
                if absent
                else "the kernel's counters can't be read"
            )
            found.append(
                Check(check, verdict.SKIPPED if absent else verdict.UNKNOWN, f"{label}: {text}")
            )
            continue
        value = 100.0 * pair[0] / pair[1]
        of = f" of {pair[1]}" if pair[1] < 1 << 60 else ", no limit"
        limits = options.limits_in_force[check]
        found.append(
            thresholds.judge(
                limits,
                check,
                value,
                f"{label}: {thresholds.percent(value, limits)} ({pair[0]}{of})",
            )
        )
    return found
