# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node health check as a whole: observe (in children with a deadline where it may hang), judge, remember, advise."""

from __future__ import annotations

import contextlib
import math
import os
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from .. import verdict
from ..errors import FleetError, LockBusy, MissingLibrary, WriteFailed
from ..ports import World
from ..system import boot, isolate, procfs
from ..system.procfs import Process
from ..verdict import Check, Document, isoformat
from . import filesystems, hardware, journal, network, recommend, resources, services, state, system
from .options import NodeOptions
from .probes import Problem

#: A process that the kernel holds and that does not run for so long (seconds) is stuck; a slow disk keeps one for a second or two.
STUCK_SECONDS = 3.0
#: How often the suspects are looked at in that time; the wait ends when none is left.
_LOOK_SECONDS = 0.25
#: Programs that probes start, by the first word of the probe's name.
_PROGRAMS = {
    "chrony": ("chronyc",),
    "disk": ("smartctl", "nvme"),
    "gpu": ("nvidia-smi",),
    "journal": ("journalctl",),
    "reboot": ("needs-restarting",),
    "systemd": ("systemctl",),
    "updates": ("apt-get", "dnf"),
}


# --- observing ------------------------------------------------------------------------------------------------------------------------------


def _mark(name: str) -> str:
    """Return the process name of a probe's child, at most 15 bytes: by it the next run knows the probe that still hangs."""
    return f"mlp:{zlib.crc32(name.encode()):08x}"


def _marked(name: str, function: Callable[[], Any]) -> Callable[[], Any]:
    def run() -> Any:
        with contextlib.suppress(OSError):
            with open("/proc/self/comm", "w", encoding="ascii") as stream:
                stream.write(_mark(name))
        return function()

    return run


class Probes:
    """Runs what may hang, each probe in a child of its own, none twice at a time."""

    def __init__(self, world: World, options: NodeOptions, table: list[Process]) -> None:
        names = {program for programs in _PROGRAMS.values() for program in programs}
        self.world = world
        self.options = options
        self.table = [one for one in table if one.name.startswith("mlp:") or one.name in names]
        self.started = time.monotonic()
        self.uptime = boot.uptime(world) or 0.0
        self.durations: dict[str, float] = {}
        self.held: dict[int, bool] = {}

    def still_hanging(self, name: str) -> Process | None:
        """Return the process of an earlier run's probe C(name) that outlived its deadline; None when there is none.

        A program that the kernel does not let go of is known by its own name, whoever started it: another would hang as well.
        Only our own user's processes count, because somebody else's may carry any name.
        """
        mark = _mark(name)
        kind, _space, subject = name.partition(" ")
        programs = _PROGRAMS.get(kind, ())
        for one in self.table:
            ours = one.name == mark and one.state not in "ZX"
            program = one.name in programs and one.state == "D"
            if (ours or program) and self.uptime - one.start > self.options.timeout:
                with contextlib.suppress(OSError):
                    if os.stat(self.world.path(f"/proc/{one.pid}")).st_uid == os.geteuid() and (
                        ours or self._stands_still(one, subject)
                    ):
                        return one
        return None

    def _stands_still(self, one: Process, subject: str) -> bool:
        """Whether the kernel holds a program, and because of C(subject) where it was asked about one of several (a disk).

        A long-lived one (nvidia-smi -l, journalctl -f) may just be waiting for a disk as we look.
        """
        pid = one.pid
        if pid not in self.held:
            before = resources.switches(self.world, pid)
            time.sleep(min(0.5, STUCK_SECONDS))
            self.held[pid] = (
                resources.held(self.world, one) and resources.switches(self.world, pid) == before
            )
        if not self.held[pid] or not subject:
            return self.held[pid]
        # Asking the kernel for the words of such a process may hang as well. Without an answer it may be about any of them.
        words = isolate.call(lambda: procfs.text(self.world, f"/proc/{pid}/cmdline"), 0.2).value
        return not words or f"/dev/{subject}" in words.split("\0")

    def run(self, jobs: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
        """Return by name what each job returned, or the Problem. :raises MissingLibrary: a job misses a library."""
        found: dict[str, Any] = {}
        fresh: dict[str, Callable[[], Any]] = {}
        for name, job in jobs.items():
            old = self.still_hanging(name)
            if old is None:
                fresh[name] = _marked(name, job)
            else:
                since = isoformat(self.world.clock.now() - (self.uptime - old.start))
                found[name] = Problem(
                    f"hung since {since} (process {old.pid} of an earlier check still waits, so no new one was started)"
                )
        left = self.options.total_timeout - (time.monotonic() - self.started)
        if fresh and left <= 0.1:
            found.update(
                dict.fromkeys(
                    fresh,
                    Problem(
                        f"not asked, the {self.options.total_timeout:g} s for all probes are used up"
                    ),
                )
            )
            fresh = {}
        for name, outcome in (
            isolate.call_many(fresh, self.options.timeout, left).items() if fresh else ()
        ):
            self.durations[name] = outcome.duration
            if outcome.timed_out and not outcome.pid:
                found[name] = Problem(
                    f"not asked, the {self.options.total_timeout:g} s for all probes are used up"
                )
            elif outcome.timed_out:
                stuck = f"; process {outcome.pid} can't be killed" if outcome.alive else ""
                found[name] = Problem(
                    f"no answer within {min(self.options.timeout, left):.3g} s{stuck}"
                )
            elif isinstance(outcome.error, MissingLibrary):
                raise outcome.error
            elif outcome.error is not None:
                found[name] = Problem(outcome.error.message.rstrip("."))
            else:
                found[name] = outcome.value
        return found


def observe(options: NodeOptions, world: World) -> dict[str, Any]:
    """Read everything the wanted checks need; return plain data for judge().

    :raises MissingLibrary: psutil (or, on a node with GPUs, a way to ask them) is not installed.
    """
    facts: dict[str, Any] = {"table": [], "now": world.clock.now(), "age": boot.system_age(world)}
    with contextlib.suppress(OSError):
        facts["table"] = procfs.processes(world)
    probes = Probes(world, options, facts["table"])
    looked = time.monotonic()
    suspects = {}
    if options.wants("stuck_processes"):
        blocked = (
            one.pid for one in resources.blocked(facts["table"]) if not one.name.startswith("mlp:")
        )  # our own are told elsewhere
        suspects = {pid: resources.switches(world, pid) for pid in blocked}
    facts["resources"] = resources.observe(world, options)
    facts["system"] = system.observe(world, options)
    facts["network"] = network.observe(world) if options.wants("network") else None
    facts["counters"] = {
        "boot_id": boot.boot_id(world),
        "oom_kill": journal.oom_counter(world),
    }
    mounts = _mounts(world, options, facts) if options.wants("disk") else []
    answers = probes.run(_jobs(options, world, facts, mounts))
    facts["answers"] = answers
    facts["mount_answers"] = _mount_answers(probes, answers, mounts)
    facts["stuck"] = _stuck(world, facts["table"], suspects, looked)
    facts["durations"] = probes.durations
    return facts


def _mounts(world: World, options: NodeOptions, facts: dict[str, Any]) -> list[filesystems.Mount]:
    every = filesystems.parse_mountinfo(procfs.text(world, "/proc/self/mountinfo") or "")
    facts["mounts"] = filesystems.relevant(every, options.disk_exclude)
    facts["mount_points"] = sorted({mount.path for mount in every})
    facts["fstab"] = filesystems.fstab(world)
    found: list[filesystems.Mount] = facts["mounts"]
    return found


def _jobs(
    options: NodeOptions, world: World, facts: dict[str, Any], mounts: list[filesystems.Mount]
) -> dict[str, Callable[[], Any]]:
    """Return the probes that may hang: one per network mount, one for all local ones, one per program or name asked."""
    # Programs are killed by their own child, a little before this one's deadline.
    patience = max(0.3, options.timeout - 0.5)
    jobs: dict[str, Callable[[], Any]] = {}
    local = [mount.path for mount in mounts if not mount.remote]
    if local:
        jobs["mounts"] = lambda: filesystems.probe(local)
    if options.wants("mount_present"):
        missing = sorted(
            set(filesystems.wanted(facts["fstab"], options)) - set(facts["mount_points"])
        )
        if missing:
            jobs["links of mount points"] = lambda: filesystems.resolve(world, missing)
    for mount in mounts:
        if mount.remote:
            jobs[f"mount {mount.path}"] = lambda path=mount.path: filesystems.probe([path])  # type: ignore[misc]
    if options.wants("services"):
        jobs["systemd"] = lambda: services.observe(world, options, patience)
    if options.wants("errors") or options.wants("flapping_units"):
        jobs["journal"] = lambda: journal.observe(world, options, patience)
    if options.wants("gpu"):
        jobs["gpu"] = lambda: _gpu(options, world)
    if options.wants("dns"):
        for name in options.dns_names or (
            [network.PROBE_NAME] if facts["network"]["nameservers"] else []
        ):
            jobs[f"dns {name}"] = lambda name=name: network.resolve(name)  # type: ignore[misc]
    if options.wants("network_target"):
        for target in dict.fromkeys(options.network_targets):
            jobs[f"target {target}"] = lambda target=target: network.connect(target, patience)  # type: ignore[misc]
    if options.wants("network_link"):
        jobs["links"] = lambda: network.links(world)
    if options.wants("infiniband_port") and procfs.directory(world, "/sys/class/infiniband"):
        jobs["infiniband"] = lambda: network.infiniband(world)
    if options.wants("hardware"):
        jobs["hardware"] = lambda: hardware.observe(world)
        facts["why_not_asked"], names = _disks_to_ask(options, world)
        for name in names:
            jobs[f"disk {name}"] = lambda name=name: hardware.ask_disk(world, name, patience)  # type: ignore[misc]
    found = facts["system"]
    if (
        options.wants("reboot_required")
        and not found["reboot"]["needed"]
        and hardware.tool(world, "needs-restarting")
    ):
        jobs["reboot"] = lambda: system.needs_restarting(world, patience)
    if options.wants("time_sync") and not found["container"] and hardware.tool(world, "chronyc"):
        jobs["chrony"] = lambda: system.chrony_offset(world, patience)
    if options.wants("certificate"):
        for path in dict.fromkeys(options.certificates):
            jobs[f"certificate {path}"] = lambda path=path: system.certificate(world, path)  # type: ignore[misc]
    if options.wants("security_updates") and options.security_updates:
        jobs["updates"] = lambda: system.security_updates(world, patience)
    return jobs


def _disks_to_ask(options: NodeOptions, world: World) -> tuple[str | None, list[str]]:
    """Return why no disk is asked, or the disks."""
    if not options.disk_health:
        return "switched off by disk_health", []
    names = hardware.disks(world)
    if not names:
        return "no disk that could tell", []
    if not hardware.tool(world, "smartctl"):
        if not hardware.tool(world, "nvme"):
            return "neither smartctl nor nvme is installed", []
        names = [name for name in names if name.startswith("nvme")]
        if not names:
            return "smartctl is not installed", []
    if os.geteuid() != 0:
        return "only root may ask the disks", []
    return None, names


def _gpu(options: NodeOptions, world: World) -> list[Check]:
    """Ask the GPU part; our own default temperatures count only where the device has no limits of its own.

    Loading that part costs more than all other checks together, so it is loaded only where something speaks for a GPU.
    """
    if options.gpu_expected_count is None and not _gpu_traces(world):
        return [
            Check(
                "gpu_driver",
                verdict.SKIPPED,
                "No NVIDIA GPU on this node: no device, no driver, no nvidia-smi",
            )
        ]
    from ..gpu import health as gpu_health
    from ..gpu.options import GpuOptions

    warning, critical = options.gpu_temperature_warning, options.gpu_temperature_critical
    given: dict[str, Any] = {
        "timeout": max(0.5, options.timeout * 0.7),
        "expected_count": options.gpu_expected_count,
    }
    usual = {option.name: option.default for option in options.TABLE}
    for name in ("temperature_warning", "temperature_critical"):
        value = getattr(options, "gpu_" + name)
        if value != usual["gpu_" + name]:
            given[name] = value
    checks, _gpus = gpu_health.checks(GpuOptions.from_mapping(given), world, (warning, critical))
    return checks


def _gpu_traces(world: World) -> bool:
    """Whether anything here speaks for an NVIDIA GPU: a device, a driver, its library (which may live anywhere the loader looks), its tool."""
    if any(
        os.path.exists(world.path(path))
        for path in ("/dev/nvidiactl", "/proc/driver/nvidia", "/sys/module/nvidia")
    ):
        return True
    folders = [*world.environ.get("PATH", "").split(":"), *hardware.TOOL_FOLDERS]
    if any(
        os.access(os.path.join(world.path(folder), "nvidia-smi"), os.X_OK)
        for folder in folders
        if folder.startswith("/")
    ):
        return True
    devices = "/sys/bus/pci/devices"
    if any(
        procfs.text(world, f"{devices}/{name}/vendor") == "0x10de"
        for name in procfs.directory(world, devices)
    ):
        return True
    import ctypes

    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return False
    return True


def _mount_answers(
    probes: Probes, answers: Mapping[str, Any], mounts: list[filesystems.Mount]
) -> dict[str, Any]:
    """Return by mount point what it answered. When the probe of all local ones hangs, each is asked alone, to name the guilty."""
    found: dict[str, Any] = {}
    local = answers.get("mounts")
    if isinstance(local, Problem):
        alone = {
            f"mount {mount.path}": (lambda path=mount.path: filesystems.probe([path]))
            for mount in mounts
            if not mount.remote
        }
        answers = {**answers, **probes.run(alone)}
    elif local is not None:
        found.update(local)
    for mount in mounts:
        answer = answers.get(f"mount {mount.path}")
        if isinstance(answer, Problem):
            found[mount.path] = answer
        elif answer is not None:
            found.update(answer)
    return found


def _stuck(
    world: World, table: list[Process], suspects: Mapping[int, Any], looked: float
) -> list[Process]:
    """Return those of the suspects that do not run until STUCK_SECONDS after the first look and still can't be interrupted."""
    left = [one for one in table if one.pid in suspects]
    patience = max(0.0, STUCK_SECONDS - (time.monotonic() - looked))
    looks = max(1, math.ceil(patience / _LOOK_SECONDS))
    for dummy in range(looks):
        if not left:
            break
        time.sleep(patience / looks)
        left = [
            one
            for one in left
            if resources.held(world, one)
            and resources.switches(world, one.pid) == suspects[one.pid]
        ]
    return left


# --- judging --------------------------------------------------------------------------------------------------------------------------------


def judge(
    facts: Mapping[str, Any], options: NodeOptions, baseline: Mapping[str, Any] | None = None
) -> list[Check]:
    """Return all checks in the order of the groups; pure.

    :param baseline: the kernel's counters at the last run of this boot, None without one.
    """
    answers, durations = facts["answers"], facts["durations"]
    found: list[Check] = []
    if options.wants("disk"):
        timed = {
            mount.path: durations.get(f"mount {mount.path}", durations.get("mounts"))
            for mount in facts["mounts"]
        }
        links = answers.get("links of mount points", {})
        checks = filesystems.judge(
            {
                **facts,
                "answers": facts["mount_answers"],
                "links": {} if isinstance(links, Problem) else links,
            },
            options,
        )
        found += [_timed(check, timed.get(check.subject or "")) for check in checks]
    if options.wants("memory"):
        found += resources.judge_memory(facts["resources"], options)
    if options.wants("load"):
        found += resources.judge_load(facts["resources"], options)
    if options.wants("services"):
        found += [_timed(check, durations.get("systemd")) for check in _services(answers, options)]
    if options.wants("gpu"):
        answer = answers["gpu"]
        if isinstance(answer, Problem):
            answer = [
                Check(
                    "gpu_driver",
                    verdict.UNKNOWN,
                    f"GPU: {answer}",
                    action="inspect",
                    domain="node",
                    unknown_as=verdict.CRITICAL,
                )
            ]
        found += [
            _timed(check, durations.get("gpu")) for check in answer if options.wants(check.check)
        ]
    if options.wants("network"):
        found += _network(facts, options)
    if options.wants("errors"):
        found += [
            _timed(check, durations.get("journal")) for check in _errors(facts, options, baseline)
        ]
    if options.wants("processes"):
        found += resources.judge_processes(facts, options)
    if options.wants("limits"):
        found += resources.judge_limits(facts["resources"], options)
    if options.wants("hardware"):
        found += _hardware(facts, options)
    if options.wants("system"):
        found += _system(facts, options)
    if options.wants("certificates"):
        read = {
            job[12:]: answer for job, answer in answers.items() if job.startswith("certificate ")
        }
        checks = system.judge_certificates(read, facts["now"], options)
        found += [_timed(check, durations.get(f"certificate {check.subject}")) for check in checks]
    if options.wants("updates") and options.security_updates:
        found += [
            _timed(check, durations.get("updates"))
            for check in system.judge_updates(answers["updates"], options)
        ]
    return found


def _timed(check: Check, seconds: float | None) -> Check:
    return (
        check
        if seconds is None or check.duration_ms is not None
        else replace(check, duration_ms=round(seconds * 1000, 1))
    )


def _lost(
    names: tuple[str, ...],
    options: NodeOptions,
    what: str,
    problem: Problem,
    unknown_as: str = verdict.WARNING,
) -> list[Check]:
    """One C(unknown) for a probe that failed; the other checks that needed it are skipped, so that one cause counts once."""
    wanted = [name for name in names if options.wants(name)]
    found = [
        Check(
            name,
            verdict.UNKNOWN,
            f"{what}: {problem}",
            action="inspect",
            domain="node",
            unknown_as=unknown_as,
        )
        for name in wanted[:1]
    ]
    return found + [Check(name, verdict.SKIPPED, f"{what}: see {wanted[0]}") for name in wanted[1:]]


def _services(answers: Mapping[str, Any], options: NodeOptions) -> list[Check]:
    answer = answers["systemd"]
    if isinstance(answer, Problem):
        return _lost(("service", "failed_units", "flapping_units"), options, "Services", answer)
    log = answers.get("journal")
    restarts = None if log is None or isinstance(log, Problem) else log["restarts"]
    return services.judge({**answer, "restarts": restarts}, options)


def _errors(
    facts: Mapping[str, Any], options: NodeOptions, baseline: Mapping[str, Any] | None
) -> list[Check]:
    answer = facts["answers"]["journal"]
    if isinstance(answer, Problem):
        return _lost(("journal_errors", "kernel_errors", "oom_kills"), options, "Journal", answer)
    now = facts["counters"]["oom_kill"]
    before = (baseline or {}).get("oom_kill")
    delta = (
        now - before if isinstance(now, int) and isinstance(before, int) and before <= now else None
    )
    return journal.judge({**answer, "oom_delta": delta, "oom_since_boot": now}, options)


def _network(facts: Mapping[str, Any], options: NodeOptions) -> list[Check]:
    answers = facts["answers"]
    names, targets = {}, {}
    for job, answer in answers.items():
        kind, _space, rest = job.partition(" ")
        if kind == "dns":
            names[rest] = ("silent", str(answer)) if isinstance(answer, Problem) else answer
        elif kind == "target":
            targets[rest] = answer
    ports = {"links": answers.get("links", []), "infiniband": answers.get("infiniband", [])}
    checks = network.judge(
        {**facts["network"], **ports, "names": names, "targets": targets}, options
    )
    job = {
        "dns": "dns {}",
        "network_target": "target {}",
        "network_link": "links",
        "infiniband_port": "infiniband",
    }
    return [
        _timed(check, facts["durations"].get(job.get(check.check, "").format(check.subject)))
        for check in checks
    ]


def _hardware(facts: Mapping[str, Any], options: NodeOptions) -> list[Check]:
    found: list[Check] = []
    kernel = facts["answers"]["hardware"]
    if isinstance(kernel, Problem):
        found = _lost(
            ("raid", "zfs_pool", "nvme_state", "memory_errors", "machine_checks"),
            options,
            "Hardware",
            kernel,
            verdict.CRITICAL,
        )
    else:
        booted = facts["system"]["boot"]
        found = hardware.judge(
            {**kernel, "days": (facts["now"] - booted) / 86400 if booted is not None else None},
            options,
        )
        found = [_timed(check, facts["durations"].get("hardware")) for check in found]
    if options.wants("disk_health") or options.wants("disk_wear"):
        asked = {
            job[5:]: answer for job, answer in facts["answers"].items() if job.startswith("disk ")
        }
        disks = hardware.judge_disks(asked, facts["why_not_asked"], options)
        found += [_timed(check, facts["durations"].get(f"disk {check.subject}")) for check in disks]
    return found


def _system(facts: Mapping[str, Any], options: NodeOptions) -> list[Check]:
    own = dict(facts["system"])
    answers = facts["answers"]
    if "reboot" in answers:
        own["reboot"] = (
            str(answers["reboot"]) if isinstance(answers["reboot"], Problem) else answers["reboot"]
        )
    if isinstance(answers.get("chrony"), dict):
        own["clock"] = answers["chrony"]
    return system.judge(own, options)


# --- the whole ------------------------------------------------------------------------------------------------------------------------------


def run(options: NodeOptions, world: World, write: bool = True) -> Document:
    """Judge this node and return the report.

    C(extra) holds C(recommendation) (C(none inspect drain reboot)), C(reasons) (texts) and C(domain) (C(none user node)). With C(write) the
    state file and the metrics file that the options name are written; one that can't be becomes a check, so that a full disk does
    not hide the rest.

    :raises MissingLibrary: as observe().
    """
    facts = observe(options, world)
    checks = (
        _remembered(options, world, facts, write) if options.state_file else judge(facts, options)
    )
    if write and options.textfile:
        from ..output import prometheus

        try:
            prometheus.write(options.textfile, prometheus.of_checks("node", checks, facts["now"]))
        except WriteFailed as error:
            checks.append(
                Check(
                    "textfile",
                    verdict.WARNING,
                    str(error),
                    options.textfile,
                    action="inspect",
                    domain="node",
                )
            )
    advice, reasons, domain = recommend.recommend(checks)
    extra = {"recommendation": advice, "reasons": reasons, "domain": domain}
    return Document(isoformat(facts["now"]), world.hostname, tuple(checks), extra)


def _remembered(
    options: NodeOptions, world: World, facts: Mapping[str, Any], write: bool
) -> list[Check]:
    """Judge with the state file; a run that can't have it judges without and says so."""
    counters = facts["counters"]
    try:
        with state.opened(options.state_file or "", write) as memory:
            if memory["problem"]:
                world.warn(f"The state file starts anew: {memory['problem']}")
            same_boot = (
                memory["counters"].get("boot_id") == counters["boot_id"]
                and counters["boot_id"] is not None
            )
            found = judge(facts, options, memory["counters"] if same_boot else None)
            found, memory["checks"] = state.steady(
                found, memory["checks"], facts["now"], facts["age"], options
            )
            memory["counters"] = counters
        return found
    except (LockBusy, WriteFailed, FleetError) as error:
        return [
            *judge(facts, options),
            Check(
                "state_file",
                verdict.WARNING,
                str(error),
                options.state_file,
                action="inspect",
                domain="node",
            ),
        ]
