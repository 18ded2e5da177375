# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts about a node: everything that the checks need, read once; what may hang in children."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from ..ports import World
from ..records import NamedTuple
from ..system import boot, procfs
from ..system.mounts import Mount
from ..verdict import Check
from . import filesystems, hardware, journal, network, resources, services, system
from .checks import CHECKS
from .expectations import ExpectedHardware
from .filesystems import DiskFacts
from .hardware import HardwareFacts, tool
from .journal import LogFacts
from .modules import MODULES
from .network import NetworkFacts
from .options import NodeOptions
from .probes import Probe, Prober, Problem, Suspects
from .resources import Memory, ProcessFacts
from .services import ServiceFacts
from .system import SystemFacts

if TYPE_CHECKING:
    from .certificates import CertificateAnswer
    from .disks import DiskHealth
    from .expected import ExpectedFacts
    from .inventory import Inventory

#: Seconds that a child keeps for itself, to kill a program before its own deadline.
_MARGIN = 0.5

Jobs = dict[Probe, Callable[[], Any]]


class Counters(NamedTuple):
    """Counters of the kernel and the boot that they belong to, None when unknown."""

    boot_id: str | None = None
    oom_kill: int | None = None


class NodeFacts(NamedTuple):
    """What is known about a node; a group is None where it is not asked for.

    ``now`` is in seconds since the epoch, ``age`` seconds since this system started (None =
    unknown). ``readings`` are what the checks of ``values`` read, by their names, ``durations`` the
    seconds that each probe took.
    """

    now: float
    age: float | None
    counters: Counters
    readings: dict[str, Any]
    memory: Memory | Problem | None
    system: SystemFacts
    processes: ProcessFacts
    durations: dict[Probe, float]
    disks: dict[str, DiskHealth | Problem]
    certificates: dict[str, CertificateAnswer]
    disk: DiskFacts | None = None
    services: ServiceFacts | Problem | None = None
    log: LogFacts | Problem | None = None
    gpu: list[Check] | Problem | None = None
    network: NetworkFacts | None = None
    hardware: HardwareFacts | Problem | None = None
    why_no_disk_asked: str | None = None
    updates: list[str] | Problem | None = None
    expected: ExpectedFacts | None = None
    inventory: Inventory | Problem | None = None
    optional: dict[str, dict[str, Any]] = {}  # noqa: RUF012  # never changed


def observe(options: NodeOptions, world: World) -> NodeFacts:
    """Read everything that the wanted checks need.

    :raises MissingLibrary: psutil (or, on a node with GPUs, a way to ask them) is missing.
    """
    processes: list[procfs.Process] = []
    with contextlib.suppress(OSError):
        processes = procfs.processes(world)
    prober = Prober(world, options.timeout, options.total_timeout, processes)
    suspects = Suspects(world, processes if options.wants("stuck_processes") else [])
    readings = {
        check.name: check.reading.observe(world)
        for check in CHECKS
        if check.reading is not None and options.wants(check.name)
    }
    memory = resources.observe(world, options)
    own = system.observe(world, options)
    routes = network.observe(world) if options.wants("network") else None
    counters = Counters(boot.boot_id(world), journal.oom_counter(world))
    disk = _disk(world, options) if options.wants("disk") else None
    why_not_asked: str | None = None
    disks: list[str] = []
    if options.wants("hardware"):
        why_not_asked, disks = hardware.disks_to_ask(options, world)
    wanted = _wanted_hardware(world, options)
    jobs = _jobs(options, world, own, disk, routes, disks)
    if options.hardware_facts or (wanted is not None and not isinstance(wanted, Problem)):
        jobs[Probe("expected")] = partial(_inventory, world, wanted)
    asked = _questions(world, options)
    for name, questions in asked.items():
        jobs.update({Probe(name, subject): job for subject, job in questions.items()})
    answers = prober.run(jobs)
    if disk is not None:
        disk = _with_answers(disk, prober, answers)
    return NodeFacts(
        now=world.clock.now(),
        age=boot.system_age(world),
        counters=counters,
        readings=readings,
        memory=memory,
        system=_with_tools(own, answers),
        processes=resources.ProcessFacts(processes, suspects.stuck()),
        disk=disk,
        services=answers.get(Probe("systemd")),
        log=answers.get(Probe("journal")),
        gpu=answers.get(Probe("gpu")),
        network=None if routes is None else _network(routes, answers),
        hardware=answers.get(Probe("hardware")),
        why_no_disk_asked=why_not_asked,
        disks=_by_subject(answers, "disk"),
        certificates=_by_subject(answers, "certificate"),
        updates=answers.get(Probe("updates")),
        expected=_expected(wanted, answers.get(Probe("expected"))),
        inventory=answers.get(Probe("expected")),
        optional={name: _by_subject(answers, name) for name in asked},
        durations=prober.durations,
    )


def _questions(world: World, options: NodeOptions) -> dict[str, dict[str, Callable[[], Any]]]:
    """Return what the optional checks that apply to this node ask, by check and subject."""
    patience = max(0.3, options.timeout - _MARGIN)
    return {
        check.name: MODULES[check.name]().questions(world, options, patience)
        for check in CHECKS
        if check.applies is not None and options.wants(check.name) and check.applies(world, options)
    }


def _wanted_hardware(world: World, options: NodeOptions) -> ExpectedHardware | Problem | None:
    """Return what hardware is expected, None when nothing is."""
    given = options.expected_hardware is not None
    if not given and not os.path.exists(world.path(options.expected_hardware_file)):
        return None
    if not options.wants("expected_hardware"):
        return None
    from . import expected

    return expected.load(world, options)


def _inventory(world: World, wanted: ExpectedHardware | Problem | None) -> Inventory:
    from . import inventory

    return inventory.observe(world, None if isinstance(wanted, Problem) else wanted)


def _expected(
    wanted: ExpectedHardware | Problem | None, inventory: Inventory | Problem | None
) -> ExpectedFacts | None:
    if wanted is None:
        return None
    from .expected import ExpectedFacts

    return ExpectedFacts(wanted, inventory if inventory is not None else Problem("not asked"))


def _by_subject(answers: Mapping[Probe, Any], kind: str) -> dict[str, Any]:
    """Return the answers of one kind of probe by their subjects."""
    return {probe.subject: answer for probe, answer in answers.items() if probe.kind == kind}


def _disk(world: World, options: NodeOptions) -> filesystems.DiskFacts:
    table = filesystems.read(world)
    fstab = filesystems.fstab(world)
    return filesystems.DiskFacts(
        mounts=filesystems.relevant(table, options.disk_exclude),
        mount_points=filesystems.mount_points(table),
        fstab=fstab,
        answers={},
        links={},
        automounted=dict.fromkeys(
            _automounts(table, fstab, options), filesystems.Automounted(False)
        ),
    )


def _automounts(
    table: list[Mount], fstab: dict[str, filesystems.FstabEntry], options: NodeOptions
) -> list[str]:
    """Return the wanted mount points where only an automount waits."""
    if not options.wants("mount_present"):
        return []
    wanted = set(filesystems.wanted(fstab, options)) - filesystems.mount_points(table)
    return filesystems.automounts(sorted(wanted), table)


def _with_answers(
    disk: filesystems.DiskFacts, prober: Prober, answers: Mapping[Probe, Any]
) -> filesystems.DiskFacts:
    """Return the facts with what each mount point answered.

    When the probe of all local ones hangs, each is asked alone, to find the one at fault.
    """
    by_point: dict[str, filesystems.MountAnswer] = {}
    local = answers.get(Probe("mounts"))
    if isinstance(local, Problem):
        alone = [mount for mount in disk.mounts if not filesystems.is_remote(mount)]
        answers = {**answers, **prober.run(_mount_jobs(alone))}
    elif local is not None:
        by_point.update(local)
    for point, answer in _by_subject(answers, "mount").items():
        if isinstance(answer, Problem):
            by_point[point] = answer
        else:
            by_point.update(answer)
    links = answers.get(Probe("links of mount points"))
    automounted = {**disk.automounted, **_by_subject(answers, "automount")}
    mounts = {mount.point: mount for mount in disk.mounts}
    for looked_through in automounted.values():
        if isinstance(looked_through, filesystems.Automounted):
            mounts.update({mount.point: mount for mount in looked_through.mounts})
            by_point.update(looked_through.answers)
    return disk._replace(
        mounts=sorted(mounts.values(), key=lambda mount: mount.point),
        answers=by_point,
        links=links if isinstance(links, dict) else {},
        automounted=automounted,
    )


def _with_tools(own: system.SystemFacts, answers: Mapping[Probe, Any]) -> system.SystemFacts:
    """Return the facts with what the package manager and the time service said, if asked."""
    reboot = answers.get(Probe("reboot"))
    if reboot is not None:
        own = own._replace(reboot=reboot)
    clock = answers.get(Probe("chrony"))
    if isinstance(clock, system.KernelClock):
        own = own._replace(clock=clock)
    return own


def _network(routes: network.RouteFacts, answers: Mapping[Probe, Any]) -> network.NetworkFacts:
    names = {
        name: network.NameAnswer(network.SILENT, str(answer))
        if isinstance(answer, Problem)
        else answer
        for name, answer in _by_subject(answers, "dns").items()
    }
    return network.NetworkFacts(
        kernel=routes,
        names=names,
        targets=_by_subject(answers, "target"),
        links=answers.get(Probe("links"), []),
        infiniband=answers.get(Probe("infiniband")),
    )


# --- probes -----------------------------------------------------------------------------------


def _mount_jobs(mounts: list[Mount]) -> Jobs:
    return {
        Probe("mount", mount.point): partial(filesystems.probe, [mount.point]) for mount in mounts
    }


def _jobs(
    options: NodeOptions,
    world: World,
    own: system.SystemFacts,
    disk: filesystems.DiskFacts | None,
    routes: network.RouteFacts | None,
    disks: list[str],
) -> Jobs:
    """Return the probes that may hang.

    One for each network mount, one for all local ones, one for each program or name asked.
    """
    patience = max(0.3, options.timeout - _MARGIN)
    jobs: Jobs = {}
    if disk is not None:
        jobs.update(_disk_jobs(disk, options, world))
    if options.wants("services"):
        jobs[Probe("systemd")] = lambda: services.observe(world, options, patience)
    if options.wants("errors") or options.wants("flapping_units"):
        jobs[Probe("journal")] = lambda: journal.observe(world, options, patience)
    if options.wants("gpu"):
        jobs[Probe("gpu")] = lambda: _gpu_checks(options, world)
    if routes is not None:
        jobs.update(_network_jobs(routes, options, world, patience))
    if options.wants("hardware"):
        jobs[Probe("hardware")] = lambda: hardware.observe(world)
        for name in disks:
            jobs[Probe("disk", name)] = partial(_disk_health, world, name, patience)
    jobs.update(_system_jobs(own, options, world, patience))
    return jobs


def _gpu_checks(options: NodeOptions, world: World) -> list[Check]:
    from . import gpus

    return gpus.checks(options, world)


def _infiniband(world: World) -> Any:
    from . import infiniband  # modules that few nodes need are loaded by the child only

    return infiniband.observe(world)


def _disk_health(world: World, name: str, timeout: float) -> Any:
    from . import disks

    return disks.ask_disk(world, name, timeout)


def _certificate(world: World, path: str) -> Any:
    from . import certificates

    return certificates.certificate(world, path)


def _disk_jobs(disk: filesystems.DiskFacts, options: NodeOptions, world: World) -> Jobs:
    jobs: Jobs = {}
    local = [mount.point for mount in disk.mounts if not filesystems.is_remote(mount)]
    if local:
        jobs[Probe("mounts")] = lambda: filesystems.probe(local)
    if options.wants("mount_present"):
        wanted = set(filesystems.wanted(disk.fstab, options))
        missing = sorted(wanted - disk.mount_points - set(disk.automounted))
        if missing:
            jobs[Probe("links of mount points")] = lambda: filesystems.resolve(world, missing)
    for path in disk.automounted:
        jobs[Probe("automount", path)] = partial(
            filesystems.automount, world, path, options.disk_exclude
        )
    remote = [mount for mount in disk.mounts if filesystems.is_remote(mount)]
    return {**jobs, **_mount_jobs(remote)}


def _network_jobs(
    routes: network.RouteFacts, options: NodeOptions, world: World, patience: float
) -> Jobs:
    jobs: Jobs = {}
    if options.wants("dns"):
        for name in network.names_to_resolve(options, routes):
            jobs[Probe("dns", name)] = partial(network.resolve, name)
    if options.wants("network_target"):
        for target in dict.fromkeys(options.network_targets):
            jobs[Probe("target", target)] = partial(network.connect, target, patience)
    if options.wants("network_link"):
        jobs[Probe("links")] = lambda: network.links(world)
    if options.wants("infiniband_port") and procfs.directory(world, "/sys/class/infiniband"):
        jobs[Probe("infiniband")] = lambda: _infiniband(world)
    return jobs


def _system_jobs(
    own: system.SystemFacts, options: NodeOptions, world: World, patience: float
) -> Jobs:
    jobs: Jobs = {}
    flagged = isinstance(own.reboot, system.Reboot) and own.reboot.needed
    if options.wants("reboot_required") and not flagged and tool(world, "needs-restarting"):
        jobs[Probe("reboot")] = lambda: system.needs_restarting(world, patience)
    if options.wants("time_sync") and not own.container and tool(world, "chronyc"):
        jobs[Probe("chrony")] = lambda: system.chrony_offset(world, patience)
    if options.wants("certificate"):
        for path in dict.fromkeys(options.certificates):
            jobs[Probe("certificate", path)] = partial(_certificate, world, path)
    if options.wants("security_updates") and options.security_updates:
        jobs[Probe("updates")] = lambda: system.security_updates(world, patience)
    return jobs
