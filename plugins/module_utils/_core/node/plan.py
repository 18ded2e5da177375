# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Verdicts: which checks a node's facts amount to, and what has to be remembered. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from .. import verdict
from ..records import NamedTuple, replace
from ..registry import Registry
from ..system.text import display_path
from ..verdict import Check
from . import filesystems, hardware, journal, network, resources, services, system
from .checks import CHECKS, GROUPS
from .facts import Counters, NodeFacts
from .modules import MODULES
from .options import NodeOptions
from .probes import Probe, Problem
from .recommend import Advice, recommend
from .thresholds import fault, skipped

if TYPE_CHECKING:
    from .state import Memory


class Plan(NamedTuple):
    """The checks to report, and what has to be remembered (None without a state file)."""

    checks: list[Check]
    memory: Memory | None


class Decider(NamedTuple):
    """The function that makes the checks of one group; ``checks`` names those it can make."""

    name: str
    checks: tuple[str, ...]
    function: Callable[[NodeFacts, NodeOptions, Counters], list[Check]]


def decide(facts: NodeFacts, options: NodeOptions, memory: Memory | None = None) -> Plan:
    """Return the checks in the order of the groups, and what to remember.

    :param memory: what the runs before remembered; None = there is no state file.
    """
    before = Counters()
    boot_id = facts.counters.boot_id
    if memory is not None and boot_id is not None and memory.counters.boot_id == boot_id:
        before = memory.counters
    checks: list[Check] = []
    for group, names in GROUPS.items():
        decider = DECIDERS.get(group)
        if decider is not None and options.wants(group):
            checks += decider.function(facts, options, before)
        checks += _values(names, facts, options)
        checks += _optional(names, facts, options)
    if memory is None:
        return Plan(checks, None)
    from .state import Memory, steady  # without a state file they are not loaded

    lasting, kept = steady(checks, memory.checks, facts.now, facts.age, options)
    return Plan(lasting, Memory(kept, facts.counters))


def conclude(checks: list[Check], problems: list[Check]) -> tuple[list[Check], Advice]:
    """Return all checks and the recommendation.

    :param problems: checks of what could not be written.
    """
    checks = [*checks, *problems]
    return checks, recommend(checks)


def _values(names: tuple[str, ...], facts: NodeFacts, options: NodeOptions) -> list[Check]:
    """Return the checks of what was read for them."""
    checks = []
    for name in names:
        reading = CHECKS[name].reading
        if reading is not None and name in facts.readings and options.wants(name):
            limits = options.limits_in_force[name]
            checks.append(reading.evaluate(name, facts.readings[name], limits))
    return checks


def _optional(names: tuple[str, ...], facts: NodeFacts, options: NodeOptions) -> list[Check]:
    """Return the checks of the modules that apply to this node."""
    checks = []
    for name in names:
        if name not in facts.optional:
            continue
        for check in MODULES[name]().decide(facts.optional[name], facts.now, options):
            seconds = facts.durations.get(Probe(name, check.subject or ""))
            checks += _timed([check], seconds)
    return checks


def _timed(checks: list[Check], seconds: float | None) -> list[Check]:
    """Return the checks with how long their probe took."""
    if seconds is None:
        return checks
    duration = round(seconds * 1000, 1)
    return [
        check if check.duration_ms is not None else replace(check, duration_ms=duration)
        for check in checks
    ]


def _lost(
    names: tuple[str, ...],
    options: NodeOptions,
    what: str,
    problem: Problem,
    unknown_as: str = verdict.WARNING,
) -> list[Check]:
    """Return the checks of a probe that failed.

    The first is unknown, the others are skipped, so that one cause counts once.
    """
    wanted = [name for name in names if options.wants(name)]
    checks: list[Check] = []
    for name in wanted:
        if checks:
            checks.append(skipped(name, f"{what}: see {wanted[0]}"))
        else:
            text = f"{what}: {problem}"
            checks.append(fault(name, verdict.UNKNOWN, text, unknown_as=unknown_as))
    return checks


def _disk(facts: NodeFacts, options: NodeOptions, dummy: Counters) -> list[Check]:
    if facts.disk is None:
        return []
    together = facts.durations.get(Probe("mounts"))
    timed = {
        display_path(mount.point): facts.durations.get(Probe("mount", mount.point), together)
        for mount in facts.disk.mounts
    }
    checks = []
    for check in filesystems.decide(facts.disk, options):
        checks += _timed([check], timed.get(check.subject or ""))
    return checks


def _memory(facts: NodeFacts, options: NodeOptions, dummy: Counters) -> list[Check]:
    return resources.decide_memory(facts.memory, options)


def _services(facts: NodeFacts, options: NodeOptions, dummy: Counters) -> list[Check]:
    seconds = facts.durations.get(Probe("systemd"))
    if facts.services is None:
        return []
    if isinstance(facts.services, Problem):
        return _timed(_lost(services.DECIDES, options, "Services", facts.services), seconds)
    restarts = facts.log.restarts if isinstance(facts.log, journal.LogFacts) else None
    return _timed(services.decide(facts.services, options, restarts), seconds)


def _gpu(facts: NodeFacts, options: NodeOptions, dummy: Counters) -> list[Check]:
    checks = facts.gpu
    if isinstance(checks, Problem):
        text = f"GPU: {checks}"
        checks = [fault("gpu_driver", verdict.UNKNOWN, text, unknown_as=verdict.CRITICAL)]
    wanted = [check for check in checks or () if options.wants(check.check)]
    return _timed(wanted, facts.durations.get(Probe("gpu")))


def _network(facts: NodeFacts, options: NodeOptions, dummy: Counters) -> list[Check]:
    if facts.network is None:
        return []
    checks = []
    for check in network.decide(facts.network, options):
        probe = _NETWORK_PROBES.get(check.check)
        if probe is not None:
            subject = ""
            if probe.subject:
                subject = check.subject or ""
            checks += _timed([check], facts.durations.get(Probe(probe.kind, subject)))
        else:
            checks.append(check)
    return checks


def _errors(facts: NodeFacts, options: NodeOptions, before: Counters) -> list[Check]:
    seconds = facts.durations.get(Probe("journal"))
    if facts.log is None:
        return []
    if isinstance(facts.log, Problem):
        names = ("journal_errors", "kernel_errors", "oom_kills")
        return _timed(_lost(names, options, "Journal", facts.log), seconds)
    now, earlier, delta = facts.counters.oom_kill, before.oom_kill, None
    if now is not None and earlier is not None and earlier <= now:
        delta = now - earlier
    return _timed(journal.decide(facts.log, journal.OomCounter(now, delta), options), seconds)


def _processes(facts: NodeFacts, options: NodeOptions, dummy: Counters) -> list[Check]:
    return resources.decide_processes(facts.processes, options)


def _hardware(facts: NodeFacts, options: NodeOptions, dummy: Counters) -> list[Check]:
    checks: list[Check] = []
    if isinstance(facts.hardware, Problem):
        names = ("raid", "zfs_pool", "nvme_state", "memory_errors", "machine_checks")
        checks = _lost(names, options, "Hardware", facts.hardware, verdict.CRITICAL)
    elif facts.hardware is not None:
        booted = facts.system.boot
        days = None if booted is None else (facts.now - booted) / 86400
        checks = hardware.decide(facts.hardware, days, options)
        checks = _timed(checks, facts.durations.get(Probe("hardware")))
    if facts.why_no_disk_asked and options.wants("disk_health"):
        checks.append(skipped("disk_health", f"Disk health: {facts.why_no_disk_asked}"))
    elif facts.disks:
        from . import disks  # only where a disk was asked

        for check in disks.decide(facts.disks, options):
            probe = Probe("disk", check.subject or "")
            checks += _timed([check], facts.durations.get(probe))
    if facts.expected is not None and options.wants("expected_hardware"):
        from . import expected  # only where something is expected

        seconds = facts.durations.get(Probe("expected"))
        checks += _timed(expected.decide(facts.expected), seconds)
    return checks


def _system(facts: NodeFacts, options: NodeOptions, dummy: Counters) -> list[Check]:
    return system.decide(facts.system, options)


def _certificates(facts: NodeFacts, options: NodeOptions, dummy: Counters) -> list[Check]:
    if not facts.certificates:  # mutant: equivalent because it only saves an import
        return []
    from . import certificates  # only where one is to be checked

    checks = []
    for check in certificates.decide(facts.certificates, facts.now, options):
        probe = Probe("certificate", check.subject or "")
        checks += _timed([check], facts.durations.get(probe))
    return checks


def _updates(facts: NodeFacts, options: NodeOptions, dummy: Counters) -> list[Check]:
    if not options.security_updates:
        return []
    seconds = facts.durations.get(Probe("updates"))
    return _timed([system.decide_updates(facts.updates, options)], seconds)


#: The probe that a network check waited for; the subject "*" stands for the check's own.
_NETWORK_PROBES = {
    "dns": Probe("dns", "*"),
    "network_target": Probe("target", "*"),
    "network_link": Probe("links"),
    "infiniband_port": Probe("infiniband"),
}

DECIDERS = Registry(
    "decider",
    (
        Decider("disk", filesystems.DECIDES, _disk),
        Decider("memory", resources.MEMORY_DECIDES, _memory),
        Decider("services", services.DECIDES, _services),
        Decider("gpu", ("gpu_",), _gpu),
        Decider("network", network.DECIDES, _network),
        Decider("errors", journal.DECIDES, _errors),
        Decider("processes", resources.PROCESSES_DECIDES, _processes),
        Decider("hardware", hardware.DECIDES, _hardware),
        Decider("system", system.DECIDES, _system),
        Decider("certificates", ("certificate",), _certificates),
        Decider("updates", ("security_updates",), _updates),
    ),
    required=("checks", "function"),
)


def check_deciders() -> None:
    """Compare the deciders with the registered checks.

    :raises TypeError: nothing makes a check, or a decider is of an unknown group.
    """
    for decider in DECIDERS:
        if decider.name not in GROUPS:
            raise TypeError(f"There is no group {decider.name!r} of node checks to decide")
    for check in CHECKS:
        decider_of_group = DECIDERS.get(check.group)
        makers: list[object] = [check.reading, MODULES.get(check.name) and check.applies]
        if decider_of_group is not None and check.name in decider_of_group.checks:
            makers.append(decider_of_group)
        count = sum(maker is not None for maker in makers)
        if count != 1:
            problem = "neither reading nor decider"
            if count:
                problem = "both a reading and a decider"
            raise TypeError(f"The node check {check.name} has {problem}")


check_deciders()
