# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Recent errors: one bounded, indexed query of the journal, else the kernel's ring buffer."""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING, Any

from ..ports import World
from ..records import NamedTuple
from ..system import journal, procfs
from ..verdict import Check
from . import thresholds
from .options import NodeOptions
from .thresholds import fault, passed, skipped

if TYPE_CHECKING:
    from .kernel_rules import KernelRule

#: The checks that are made of these facts.
DECIDES = ("oom_kills", "kernel_errors", "journal_errors")

#: Most entries one query may return; newest first, so what is left out is the oldest.
MOST = 1000
#: systemd's catalogue id of "a unit's restart was scheduled"
#: (sd-messages.h, SD_MESSAGE_UNIT_RESTART_SCHEDULED).
RESTARTED = "5eb03494b6584870a536b337290809b3"
#: systemd's catalogue id of "systemd-oomd killed processes of a unit"
#: (sd-messages.h, SD_MESSAGE_UNIT_OOMD_KILL).
OOMD_KILLED = "d989611b15e44c9dbf31e3c81256e4ed"
_OOMD = re.compile(r"systemd-oomd killed (\d+) process")
_OOM = re.compile(
    r"(?P<cgroup>Memory cgroup out of memory|Out of memory)"
    r"(?:: Killed process|: Kill process|.*Killed process) (?P<pid>\d+),? \((?P<name>[^)]*)\)"
)


_ERROR, _WARNING, _NOTICE, _INFO = 3, 4, 5, 6  # syslog priorities
#: What tells of a fault although it is less than a warning (see kernel_rules).
_INFORMATIONAL = re.compile(r"pciehp|table overflow|Port module event|nfs: server")
_PCI = re.compile(r"[0-9a-f]+:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
#: Where the entries come from.
JOURNAL, KERNEL = "journal", "kernel"


class LogEntry(NamedTuple):
    """One entry of a log; ``priority`` is syslog's, ``this_boot``: written since the last boot."""

    message: str
    time: float
    kernel: bool
    priority: int
    source: str
    this_boot: bool = True


class LogFacts(NamedTuple):
    """What the log says.

    ``source`` is JOURNAL, KERNEL or None (no log can be read). ``entries`` are those of priority
    err and worse, and less severe ones of the kernel that may tell of a fault, newest last.
    ``restarts`` counts by unit what systemd restarted within the flapping window, None where no
    journal counts it. ``limited``: older entries were left out. ``oomd_kills`` counts by unit what
    systemd-oomd killed.
    """

    source: str | None
    entries: list[LogEntry]
    restarts: dict[str, int] | None
    limited: bool
    window: int
    oomd_kills: dict[str, int] = {}  # noqa: RUF012  # never changed


class OomCounter(NamedTuple):
    """The kernel's counter of OOM kills: since boot, and since the run before (None = unknown)."""

    since_boot: int | None = None
    delta: int | None = None


def observe(world: World, options: NodeOptions, timeout: float) -> LogFacts:
    """Read the journal, else the kernel's own buffer.

    :raises CommandFailed: journalctl did not answer in time, or not in JSON.
    """
    if journal.readable(world):
        log = _journal(world, options, timeout)
        if log is not None:
            return log
    nothing = LogFacts(None, [], None, False, options.error_window)
    if not os.access(world.path("/dev/kmsg"), os.R_OK):
        return nothing
    from ..system import kernel_log  # costly, and needed only where there is no journal

    since = world.clock.now() - options.error_window
    buffer = kernel_log.ring_buffer(since, world, cleared=False)
    if buffer.problem:
        return nothing
    entries = [
        LogEntry(record.message, record.time or 0.0, True, record.level, "kernel")
        for record in buffer.records
        if record.level is not None
        and (record.level <= _WARNING or _INFORMATIONAL.search(record.message))
    ]
    return LogFacts(KERNEL, entries, None, False, options.error_window)


def _journal(world: World, options: NodeOptions, timeout: float) -> LogFacts | None:
    """Ask the journal; None when this user may not read it."""
    errors = [f"PRIORITY={level}" for level in range(_ERROR + 1)]
    kernel = ["_TRANSPORT=kernel", f"PRIORITY={_WARNING}"]
    # Two values of one field are alternatives.
    restarted = [f"MESSAGE_ID={RESTARTED}", f"MESSAGE_ID={OOMD_KILLED}"]
    window = max(options.error_window, options.flapping_window)
    begun = time.monotonic()
    matches = [*errors, "+", *kernel, "+", *restarted, *_informational(world)]
    entries = journal.query(world, matches, window, MOST, timeout)
    if entries is None:
        return None
    log = _sort(entries, options, world.clock.now())
    if not log.limited:
        return log
    # A source that complains a thousand times must not hide what the kernel and systemd say.
    rest_of_time = max(0.1, timeout - (time.monotonic() - begun))
    matches = ["_TRANSPORT=kernel", *errors, "+", *restarted]
    more = journal.query(world, matches, window, MOST, rest_of_time)
    rest = _sort(more or [], options, world.clock.now())
    others = [entry for entry in log.entries if not entry.kernel or entry.priority > _ERROR]
    both = sorted([*others, *rest.entries], key=lambda entry: entry.time)
    return log._replace(entries=both, restarts=rest.restarts, oomd_kills=rest.oomd_kills)


def _informational(world: World) -> list[str]:
    """Return matches for kernel messages that tell of a fault below priority warning.

    There are too many to read them all. A PCI device that is lost is reported by its hot-plug port,
    a cable by the adapter; a full table of neighbours has counters; an NFS server has mounts.
    """
    matches = []
    devices = _reporting_devices(world)
    if _neighbours_refused(world):
        matches += ["+", "_TRANSPORT=kernel", f"PRIORITY={_INFO}"]
    elif devices:
        names = [f"_KERNEL_DEVICE={device}" for device in devices]
        matches += ["+", "_TRANSPORT=kernel", f"PRIORITY={_INFO}", *names]
    if re.search(" - nfs4? ", procfs.text(world, "/proc/self/mountinfo") or ""):
        matches += ["+", "_TRANSPORT=kernel", f"PRIORITY={_NOTICE}"]
    return matches


def _reporting_devices(world: World) -> list[str]:
    """Return hot-plug ports and mlx5 adapters, as the journal names devices.

    A port is two: before Linux 5.2 its service logged. Virtual functions have no cable.
    """
    devices = []
    for service in procfs.directory(world, "/sys/bus/pci_express/drivers/pciehp"):
        port, separator, _number = service.rpartition(":pcie")
        if separator:
            devices += [f"+pci:{port}", f"+pci_express:{service}"]
    adapters = "/sys/bus/pci/drivers/mlx5_core"
    for adapter in procfs.directory(world, adapters):
        virtual = os.path.exists(world.path(f"{adapters}/{adapter}/physfn"))
        if _PCI.fullmatch(adapter) and not virtual:
            devices.append(f"+pci:{adapter}")
    return devices


def _neighbours_refused(world: World) -> bool:
    """Return whether the kernel had no room for a neighbour since boot."""
    for table in ("arp_cache", "ndisc_cache"):
        head, *rows = procfs.lines(world, f"/proc/net/stat/{table}") or [""]
        if head.split()[-1:] == ["table_fulls"] and any(row.split()[-1].strip("0") for row in rows):
            return True
    return False


def _sort(entries: list[journal.Entry], options: NodeOptions, now: float) -> LogFacts:
    """Return the entries of the journal as facts: restarts counted, the others as they are."""
    restarts: dict[str, int] = {}
    oomd_kills: dict[str, int] = {}
    kept = []
    for entry in entries:
        if OOMD_KILLED in entry.message_id:
            if entry.time >= now - options.error_window:
                match = _OOMD.search(entry.message)
                count = 1
                if match:
                    count = int(match[1])
                # Of a user's unit only the manager that reports it is known.
                unit = entry.unit or entry.source
                oomd_kills[unit] = oomd_kills.get(unit, 0) + count
            continue
        if RESTARTED in entry.message_id:
            if entry.unit and entry.time >= now - options.flapping_window:
                restarts[entry.unit] = restarts.get(entry.unit, 0) + 1
        elif entry.time >= now - options.error_window:
            kept.append(
                LogEntry(
                    entry.message,
                    entry.time,
                    entry.kernel,
                    entry.priority,
                    entry.source,
                    entry.this_boot,
                )
            )
    limited = len(entries) >= MOST
    return LogFacts(JOURNAL, kept, restarts, limited, options.error_window, oomd_kills)


def _excerpt(message: str) -> str:
    line = " ".join(message.split())
    if len(line) <= 120:
        return line
    return line[:119] + "…"


def decide(log: LogFacts, counter: OomCounter, options: NodeOptions) -> list[Check]:
    """Return the checks of the log."""
    checks = []
    span = f"the last {log.window // 60} min"
    kernel = [entry for entry in log.entries if entry.kernel]
    if options.wants("oom_kills"):
        checks.append(_oom(log, counter, kernel, span, options))
    if options.wants("kernel_errors"):
        if log.source is None:
            text = "Kernel messages: neither journal nor kernel log can be read by this user"
            checks.append(skipped("kernel_errors", text))
        else:
            checks += _kernel(kernel, span, options)
    if options.wants("journal_errors"):
        if log.source == JOURNAL:
            checks.append(_errors(log, span, options))
        else:
            text = "Recent errors: no journal that this user may read"
            checks.append(skipped("journal_errors", text))
    return checks


def _errors(log: LogFacts, span: str, options: NodeOptions) -> Check:
    by_source: dict[str, int] = {}
    for entry in log.entries:
        if entry.priority <= _ERROR:
            by_source[entry.source] = by_source.get(entry.source, 0) + 1
    count = sum(by_source.values())
    top = sorted(by_source.items(), key=lambda pair: (-pair[1], pair[0]))
    more = ""
    if log.limited:
        more = f" or more (only the newest {MOST} were read)"
    text = f"Recent errors: {count}{more} in {span}"
    if top:
        text += ": " + ", ".join(f"{source} {number}" for source, number in top[:5])
    return thresholds.evaluate(
        options.limits_in_force["journal_errors"],
        "journal_errors",
        count,
        text,
        details={"by_source": dict(top[:20])} if top else None,
    )


def _oom(
    log: LogFacts, counter: OomCounter, kernel: list[LogEntry], span: str, options: NodeOptions
) -> Check:
    limits = options.limits_in_force["oom_kills"]
    kills = [match for entry in kernel if (match := _OOM.search(entry.message))]
    if log.source is None and counter.delta is None:
        if counter.since_boot == 0:
            return thresholds.evaluate(limits, "oom_kills", 0, "OOM kills: 0 since boot")
        text = "OOM kills: no log to read, and no state file to compare the kernel's counter with"
        return skipped("oom_kills", text)
    by_oomd = sum(log.oomd_kills.values())
    count = max(len(kills), counter.delta or 0) + by_oomd
    in_log = counter.delta is None or len(kills) >= counter.delta
    text = f"OOM kills: {count} " + (f"in {span}" if in_log else "since the last check")
    details: dict[str, Any] | None = None
    if kills:
        victims = [f"{match['name']} ({match['pid']})" for match in kills]
        text += ": " + ", ".join(dict.fromkeys(victims[-5:]))
        whole_node = any(match["cgroup"] == "Out of memory" for match in kills)
        details = {"victims": victims[-20:], "whole_node": whole_node}
    if by_oomd:
        units = ", ".join(log.oomd_kills)
        text += f"; {by_oomd} of them by systemd-oomd ({units})"
        details = {**(details or {}), "oomd": dict(log.oomd_kills)}
    return thresholds.evaluate(limits, "oom_kills", count, text, details=details)


def _rules(options: NodeOptions) -> list[KernelRule]:
    """Return our rules, those of the same name replaced by the user's, then the user's."""
    from .kernel_rules import PATTERNS, KernelRule

    own = [
        KernelRule(rule.name, rule.pattern, rule.status, "inspect", "error_patterns")
        for rule in options.error_patterns
    ]
    names = {rule.name for rule in own}
    return [*(rule for rule in PATTERNS if rule.name not in names), *own]


def _kernel(kernel: list[LogEntry], span: str, options: NodeOptions) -> list[Check]:
    checks = []
    if kernel:  # compiling the patterns costs more than all the rest here
        own = {rule.name for rule in options.error_patterns}
        taken: set[int] = set()
        for rule in _rules(options):
            hits = _hits(rule, kernel, taken, rule.name in own)
            if hits:
                text = f"Kernel: {rule.name}, {len(hits)} in {span}, last: {_excerpt(hits[-1])}"
                checks.append(
                    fault(
                        "kernel_errors",
                        rule.status,
                        text,
                        rule.name,
                        rule.action,
                        value=len(hits),
                    )
                )
    text = f"Kernel messages: no known fault in {span}"
    return checks or [passed("kernel_errors", text, value=0)]


def _hits(rule: KernelRule, kernel: list[LogEntry], taken: set[int], own: bool) -> list[str]:
    """Return the messages that a rule matches, and add their indexes to ``taken``.

    Of our rules the first that matches takes a message; the user's ``own`` see all.
    """
    pattern = re.compile(rule.pattern)
    hits: list[str] = []
    for index, entry in enumerate(kernel):
        if entry.priority > rule.level:
            continue
        if index in taken and not own:
            continue
        # What a reboot cures is cured by the last one.
        if rule.action == "reboot" and not entry.this_boot:
            continue
        over = re.search(rule.over, entry.message) if rule.over else None
        if over:
            hits = [message for message in hits if over[1] not in message.split()]
        elif pattern.search(entry.message):
            hits.append(entry.message)
            taken.add(index)
    return hits


def oom_counter(world: World) -> int | None:
    """Return how many processes the kernel has killed for want of memory since boot.

    It is ``oom_kill`` of ``/proc/vmstat``, None where the kernel does not count.
    """
    for line in procfs.lines(world, "/proc/vmstat"):
        name, _space, value = line.partition(" ")
        if name == "oom_kill" and value.strip().isdigit():
            return int(value)
    return None
