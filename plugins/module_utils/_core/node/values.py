# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks that read a value and compare it with limits: load, pressure, tables of the kernel.

Each is complete in its entry of VALUES: what is read, how it is evaluated, limits, documentation.
What is read here must not hang (``/proc``, ``/sys``); what may hang is a probe of ``facts``.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, TypeVar

from .. import verdict
from ..ports import World
from ..records import NamedTuple, dataclass
from ..registry import Registry
from ..system import procfs
from ..verdict import Check
from . import thresholds
from .thresholds import OFF, Limits, Rule, skipped

Fact = TypeVar("Fact")


@dataclass(frozen=True)
class Reading(Generic[Fact]):
    """How a check is made of one value.

    ``observe`` reads it. ``evaluate`` is pure; it gets the name of the check, the value and the
    limits in force.
    """

    observe: Callable[[World], Fact]
    evaluate: Callable[[str, Fact, Limits], Check]


class NodeCheck(NamedTuple):
    """One check.

    :param group: one of GROUP_NAMES. :param documentation: what it means, for the reference.
    :param runbook: the section of the runbook that says what to do.
    :param limits: default limits, None where the check has none.
    :param lasting: the fault does not go away while a node settles after its boot, so it is
        raised at once, within the grace period as well.
    :param metric: the metric that reports its status, with the labels check and subject.
    :param reading: how it is made of one value. :param applies: whether this node needs it; then
        a module of its own makes it. Without both, the function of its group makes it.
    """

    name: str
    group: str
    documentation: str
    runbook: str
    limits: Rule | None = None
    lasting: bool = False
    metric: str = "mlops_node_check_status"
    reading: Reading[Any] | None = None
    applies: Callable[[World, Any], bool] | None = None


class Fill(NamedTuple):
    """How much of a kernel table is used; None = the kernel does not say."""

    used: int | None
    limit: int | None


class Load(NamedTuple):
    """The load of 1, 5 and 15 minutes, None when it can't be read, and the number of CPUs."""

    averages: tuple[float, float, float] | None
    cpus: int


# --- load and pressure --------------------------------------------------------------------------


def cpus(world: World) -> int:
    """Return how many CPUs are online."""
    lines = procfs.lines(world, "/proc/stat")
    count = sum(1 for line in lines if line.startswith("cpu") and line[3:4].isdigit())
    return count or os.cpu_count() or 1


def _load(world: World) -> Load:
    fields = (procfs.text(world, "/proc/loadavg") or "").split()
    averages = None
    with contextlib.suppress(ValueError, IndexError):
        averages = float(fields[0]), float(fields[1]), float(fields[2])
    return Load(averages, cpus(world))


def _evaluate_load(name: str, load: Load, limits: Limits) -> Check:
    if load.averages is None:
        return Check(name, verdict.UNKNOWN, "CPU load: /proc/loadavg can't be read")
    value = load.averages[2] / load.cpus
    averages = " ".join(f"{average:.2f}" for average in load.averages)
    text = f"CPU load: {averages} on {load.cpus} CPUs ({value:.2f} per CPU over 15 minutes)"
    return thresholds.evaluate(limits, name, value, text)


def _pressure(label: str, resource: str, kind: str) -> Reading[float | None]:
    """Return the reading of a PSI file (avg60).

    :param kind: ``some`` for the time in which some task waited, ``full`` for that of all tasks.
    """
    who = "all tasks"
    if kind == "some":
        who = "some task"

    def observe(world: World) -> float | None:
        for line in procfs.lines(world, f"/proc/pressure/{resource}"):
            first, *pairs = line.split() or [""]
            fields = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
            with contextlib.suppress(KeyError, ValueError):
                if first == kind:
                    return float(fields["avg60"])
        return None  # no such file, or switched off

    def evaluate(name: str, share: float | None, limits: Limits) -> Check:
        if share is None:
            return skipped(name, f"{label} pressure: this kernel does not report it")
        text = f"{label} pressure: {share:.1f}% of the last minute {who} waited"
        return thresholds.evaluate(limits, name, share, text)

    return Reading(observe, evaluate)


# --- tables of the kernel -------------------------------------------------------------------------


def _files(world: World) -> Fill:
    fields = (procfs.text(world, "/proc/sys/fs/file-nr") or "").split()
    if len(fields) != 3 or not all(field.isdigit() for field in fields):
        return Fill(None, None)
    return Fill(int(fields[0]), int(fields[2]))


def _tasks(world: World) -> Fill:
    fields = (procfs.text(world, "/proc/loadavg") or "").split()
    count = None
    with contextlib.suppress(ValueError, IndexError):
        count = int(fields[3].partition("/")[2])
    limits = (
        procfs.number(world, "/proc/sys/kernel/pid_max"),
        procfs.number(world, "/proc/sys/kernel/threads-max"),
    )
    return Fill(count, min((limit for limit in limits if limit), default=None))


def _connections(world: World) -> Fill:
    return Fill(
        procfs.number(world, "/proc/sys/net/netfilter/nf_conntrack_count"),
        procfs.number(world, "/proc/sys/net/netfilter/nf_conntrack_max"),
    )


def _evaluate_fill(label: str, name: str, fill: Fill, limits: Limits) -> Check:
    if fill.used is None or not fill.limit:
        text = f"{label}: the kernel's counters can't be read"
        return Check(name, verdict.UNKNOWN, text)
    value = 100.0 * fill.used / fill.limit
    limit = ", no limit"
    if fill.limit < 1 << 60:
        limit = f" of {fill.limit}"
    text = f"{label}: {thresholds.percent(value, limits)} ({fill.used}{limit})"
    return thresholds.evaluate(limits, name, value, text)


def _evaluate_connections(name: str, fill: Fill, limits: Limits) -> Check:
    if fill.used is None or not fill.limit:
        text = "Tracked connections: no connection tracking in this kernel"
        return skipped(name, text)
    return _evaluate_fill("Tracked connections", name, fill, limits)


# --- the entries ----------------------------------------------------------------------------------

VALUES = Registry(
    "node check",
    (
        NodeCheck(
            name="memory_pressure",
            group="memory",
            documentation="Time in which all tasks waited for memory.",
            runbook="memory_usage",
            limits=Rule("5", "20", "%", action="restart_app", domain="user", percent=True),
            reading=_pressure("Memory", "memory", "full"),
        ),
        NodeCheck(
            name="cpu_load",
            group="load",
            documentation="Load of 15 minutes for each CPU.",
            runbook="cpu_load",
            limits=Rule("1.5", OFF, domain="user"),
            reading=Reading(_load, _evaluate_load),
        ),
        NodeCheck(
            name="cpu_pressure",
            group="load",
            documentation="Time in which some task waited for a CPU.",
            runbook="cpu_load",
            limits=Rule(OFF, OFF, "%", domain="user", percent=True),
            reading=_pressure("CPU", "cpu", "some"),
        ),
        NodeCheck(
            name="io_pressure",
            group="load",
            documentation="Time in which all tasks waited for I/O.",
            runbook="cpu_load",
            limits=Rule("50", OFF, "%", domain="user", percent=True),
            reading=_pressure("I/O", "io", "full"),
        ),
        NodeCheck(
            name="file_descriptors",
            group="limits",
            documentation="Open files against the kernel's limit.",
            runbook="file_descriptors",
            limits=Rule("80", "95", "%", action="restart_app", domain="user", percent=True),
            reading=Reading(_files, partial(_evaluate_fill, "Open files")),
        ),
        NodeCheck(
            name="process_ids",
            group="limits",
            documentation="Tasks against the kernel's limit.",
            runbook="file_descriptors",
            limits=Rule("80", "95", "%", action="restart_app", domain="user", percent=True),
            reading=Reading(_tasks, partial(_evaluate_fill, "Tasks")),
        ),
        NodeCheck(
            name="conntrack",
            group="limits",
            documentation="Tracked connections against the kernel's limit.",
            runbook="file_descriptors",
            limits=Rule("80", "95", "%", domain="user", percent=True),
            reading=Reading(_connections, _evaluate_connections),
        ),
    ),
    required=("group", "documentation", "runbook", "limits", "metric", "reading"),
)
