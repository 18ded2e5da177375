# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Probes: what may hang, each in a child of its own, none twice at a time."""

from __future__ import annotations

import contextlib
import math
import os
import time
import zlib
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import MissingLibrary
from ..ports import World
from ..records import NamedTuple
from ..registry import Registry
from ..system import boot, isolate, procfs
from ..system.procfs import Process
from ..verdict import isoformat

#: A process that the kernel holds and that does not run for so long (seconds) is stuck; a slow
#: disk keeps one for a second or two.
STUCK_SECONDS = 3.0
#: How often the suspects are looked at in that time; the wait ends when none remains.
_LOOK_SECONDS = 0.25
#: How long a program that the kernel holds is watched (seconds), to see whether it runs at all.
_WATCH_SECONDS = 0.5


class Problem(str):
    """Why a probe gave no answer, in one line; distinguished from an answer by its type."""


class Kind(NamedTuple):
    """A kind of probe: what it asks, and the programs it starts."""

    name: str
    documentation: str
    programs: tuple[str, ...] = ()


KINDS = Registry(
    "kind of probe",
    (
        Kind("mounts", "all local file systems"),
        Kind("mount", "one file system"),
        Kind("links of mount points", "the paths of mount points that seem to be missing"),
        Kind("automount", "one automount, by using it"),
        Kind("systemd", "the units", ("systemctl",)),
        Kind("journal", "the log", ("journalctl",)),
        Kind("gpu", "the GPUs", ("nvidia-smi",)),
        Kind("dns", "the resolver, about one name"),
        Kind("target", "one TCP target"),
        Kind("links", "the network drivers"),
        Kind("infiniband", "the InfiniBand adapters"),
        Kind("hardware", "the kernel's counters of hardware errors"),
        Kind("expected", "what hardware there is"),
        Kind("container_runtime", "one container runtime"),
        Kind("infiniband_errors", "the counters of the InfiniBand adapters"),
        Kind("storage_server", "one server of network mounts", ("lfs", "mmgetstate")),
        Kind("pci_acs", "the PCI bridges"),
        Kind("backup_age", "one backup directory"),
        Kind("disk", "the health of one disk", ("smartctl", "nvme")),
        Kind("reboot", "the package manager, about a reboot", ("needs-restarting",)),
        Kind("chrony", "the time service", ("chronyc",)),
        Kind("certificate", "one certificate file"),
        Kind("updates", "the package manager, about updates", ("apt-get", "dnf")),
    ),
    required=("documentation",),
)


class Probe(NamedTuple):
    """One question: its kind, and what it is about where there are several."""

    kind: str
    subject: str = ""

    @property
    def label(self) -> str:
        """The kind and the subject as one text, unique among the probes."""
        if self.subject:
            return f"{self.kind} {self.subject}"
        return self.kind

    @property
    def mark(self) -> str:
        """The process name of the probe's child, at most 15 bytes.

        By it the next run recognises a probe that still hangs.
        """
        return f"mlp:{zlib.crc32(os.fsencode(self.label)):08x}"


def switches(world: World, pid: int) -> tuple[str, ...] | None:
    """Return a process's counters of context switches, None when it has ended.

    While they do not change it has not run.
    """
    names = ("voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:")
    counters = tuple(
        line.split()[-1]
        for line in procfs.lines(world, f"/proc/{pid}/status")
        if line.startswith(names)
    )
    return counters or None


def blocked(table: list[Process]) -> list[Process]:
    """Return the processes (no kernel threads) that are in an uninterruptible call."""
    return [process for process in table if process.state == "D" and not process.kernel_thread]


def held(world: World, process: Process) -> bool:
    """Return whether this very process is still in an uninterruptible call."""
    now = procfs.parse_stat(procfs.text(world, f"/proc/{process.pid}/stat") or "")
    return bool(now and now.state == "D" and now.start == process.start)


def marked(probe: Probe, function: Callable[[], Any]) -> Callable[[], Any]:
    """Return the function with the probe's mark as the name of the process that calls it."""

    def run() -> Any:
        with contextlib.suppress(OSError):
            with open("/proc/self/comm", "w", encoding="ascii") as stream:
                stream.write(probe.mark)
        return function()

    return run


class Prober:
    """Runs probes and keeps how long each took, in seconds.

    :param timeout: seconds for each probe. :param total: seconds for all together.
    """

    def __init__(
        self, world: World, timeout: float, total: float, processes: list[Process]
    ) -> None:
        programs = {program for kind in KINDS for program in kind.programs}
        self.world = world
        self.timeout = timeout
        self.total = total
        self.candidates = [
            process
            for process in processes
            if process.name.startswith("mlp:") or process.name in programs
        ]
        self.started = time.monotonic()
        self.uptime = boot.uptime(world) or 0.0
        self.durations: dict[Probe, float] = {}
        self.held: dict[int, bool] = {}

    def still_hanging(self, probe: Probe) -> Process | None:
        """Return the process of an earlier run's probe that outlived its deadline.

        A program that the kernel does not let go of is recognised by its own name, whoever
        started it: another one would hang as well. Only our own user's processes count, because
        somebody else's may have any name.
        """
        programs = KINDS[probe.kind].programs
        for process in self.candidates:
            ours = process.name == probe.mark and process.state not in "ZX"
            program = process.name in programs and process.state == "D"
            if not (ours or program) or self.uptime - process.start <= self.timeout:
                continue
            with contextlib.suppress(OSError):
                owner = os.stat(self.world.path(f"/proc/{process.pid}")).st_uid
                if owner == os.geteuid() and (ours or self._stuck(process, probe.subject)):
                    return process
        return None

    def _stuck(self, process: Process, subject: str) -> bool:
        """Return whether the kernel holds a program, because of ``subject`` if there is one.

        A long-lived one (nvidia-smi -l, journalctl -f) may just be waiting for a disk as we look.
        """
        pid = process.pid
        if pid not in self.held:
            before = switches(self.world, pid)
            time.sleep(min(_WATCH_SECONDS, STUCK_SECONDS))
            self.held[pid] = held(self.world, process) and switches(self.world, pid) == before
        if not self.held[pid] or not subject:
            return self.held[pid]
        # Asking the kernel for the arguments of such a process may hang as well. Without an
        # answer it may be about any subject.
        arguments = isolate.call(lambda: procfs.text(self.world, f"/proc/{pid}/cmdline"), 0.2).value
        return not arguments or f"/dev/{subject}" in arguments.split("\0")

    def run(self, jobs: Mapping[Probe, Callable[[], Any]]) -> dict[Probe, Any]:
        """Return what each probe returned, or the Problem.

        :raises MissingLibrary: a probe misses a library.
        """
        answers: dict[Probe, Any] = {}
        fresh: dict[Probe, Callable[[], Any]] = {}
        for probe, function in jobs.items():
            old = self.still_hanging(probe)
            if old is None:
                fresh[probe] = marked(probe, function)
            else:
                answers[probe] = self._hanging(old)
        if not fresh:
            return answers
        remaining = self.total - (time.monotonic() - self.started)
        if remaining <= 0.1:
            answers.update(dict.fromkeys(fresh, self._not_asked()))
            return answers
        labels = {probe.label: function for probe, function in fresh.items()}
        outcomes = isolate.call_many(labels, self.timeout, remaining)
        for probe in fresh:
            outcome = outcomes[probe.label]
            self.durations[probe] = outcome.duration
            answers[probe] = self._answer(outcome, remaining)
        return answers

    def _answer(self, outcome: isolate.Outcome, remaining: float) -> Any:
        if outcome.timed_out and not outcome.pid:
            return self._not_asked()
        if outcome.timed_out:
            stuck = ""
            if outcome.alive:
                stuck = f"; process {outcome.pid} can't be killed"
            return Problem(f"no answer within {min(self.timeout, remaining):.3g} s{stuck}")
        if isinstance(outcome.error, MissingLibrary):
            raise outcome.error
        if outcome.error is not None:
            return Problem(outcome.error.message.rstrip("."))
        return outcome.value

    def _not_asked(self) -> Problem:
        return Problem(f"not asked, the {self.total:g} s for all probes are used up")

    def _hanging(self, process: Process) -> Problem:
        since = isoformat(self.world.clock.now() - (self.uptime - process.start))
        return Problem(
            f"hung since {since} (process {process.pid} of an earlier check still waits,"
            " so no new one was started)"
        )


class Suspects:
    """The processes that can't be interrupted, watched while the probes run."""

    def __init__(self, world: World, processes: list[Process]) -> None:
        self.world = world
        self.first_look = time.monotonic()
        # Our own probes have checks of their own.
        self.processes = [
            process for process in blocked(processes) if not process.name.startswith("mlp:")
        ]
        self.switches = {process.pid: switches(world, process.pid) for process in self.processes}

    def stuck(self) -> list[Process]:
        """Return those that do not run until STUCK_SECONDS after the first look."""
        remaining = self.processes
        patience = max(0.0, STUCK_SECONDS - (time.monotonic() - self.first_look))
        looks = max(1, math.ceil(patience / _LOOK_SECONDS))
        for dummy in range(looks):
            if not remaining:
                break
            time.sleep(patience / looks)
            remaining = [process for process in remaining if self._unmoved(process)]
        return remaining

    def _unmoved(self, process: Process) -> bool:
        now = switches(self.world, process.pid)
        return held(self.world, process) and now == self.switches[process.pid]
