# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The GPU part as a whole: ask, judge, write metrics. What the module, node_health and the node command call."""

from __future__ import annotations

import contextlib
import os
import signal
import time
import zlib
from typing import Any

from .. import verdict
from ..errors import CommandFailed, MissingLibrary, WriteFailed
from ..output import prometheus
from ..ports import World
from ..system import isolate
from ..verdict import Check, Document
from . import checks as judge
from . import driver, metrics, smi, xid
from . import reading as r
from .options import GpuOptions

#: Inode of the first PID namespace (include/linux/proc_ns.h, PROC_PID_INIT_INO); elsewhere the driver's process ids mean others.
_FIRST_PID_NAMESPACE = "pid:[4026531836]"
#: Names of the process that asks the driver: our own, and that of node_health's probe "gpu".
_MARK = "mlfleet-gpu"
_NODE_MARK = f"mlp:{zlib.crc32(b'gpu'):08x}"
#: SIGKILL in a mask of pending signals.
_KILLED = 1 << (signal.SIGKILL - 1)


def run(options: GpuOptions, world: World, write: bool = True) -> Document:
    """Look at all GPUs of this node and return the report.

    C(extra) holds C(gpus) and C(driver). With C(write) the CSV and metrics files that the options name are written; a file that
    can't be written becomes a check, because a full disk must not hide a broken GPU.

    :raises MissingLibrary: this node shows GPUs and neither pynvml nor nvidia-smi can be used, or pynvml was asked for.
    """
    facts = observe(options, world)
    found, gpus = judge.decide(options, facts)
    if write:
        found = found + carry_out(options, found, gpus, facts, world)
    reading = facts.reading or r.Reading()
    about = {
        "backend": reading.backend or None,
        "version": reading.driver_version,
        "nvml_version": reading.nvml_version,
        "cuda_version": reading.cuda_version,
    }
    return Document(
        verdict.isoformat(world.clock.now()),
        world.hostname,
        tuple(found),
        {"gpus": gpus, "driver": about},
    )


def checks(
    options: GpuOptions, world: World, fixed: tuple[float, float] = judge.FIXED_TEMPERATURES
) -> tuple[list[Check], list[dict[str, Any]]]:
    """Return only the checks and the GPUs, and write nothing; for parts that make GPUs a section of their own report.

    :param fixed: (warning, critical) core temperature in °C where neither the device nor the user gives a limit.
    :raises MissingLibrary: as run().
    """
    return judge.decide(options, observe(options, world), fixed)


# --- observing ---------------------------------------------------------------------------------------------------------


def observe(options: GpuOptions, world: World) -> judge.Facts:
    """Ask the driver, the PCI bus and the kernel log, within C(options.timeout) seconds plus at most one.

    :raises MissingLibrary: as run().
    """
    started = time.monotonic()
    # A container sees the whole machine's PCI bus, but has only its own share of GPUs, or none.
    pci = [] if in_container(world) else pci_gpus(world)
    journal = r.Journal()
    stuck = _stuck(world)
    outcome = (
        isolate.Outcome()
        if stuck
        else isolate.call(lambda: _ask(options, world, journal), options.timeout)
    )
    reading: r.Reading | None
    if stuck:
        reading = r.Reading(hung="an earlier check", stuck=stuck)
    elif outcome.timed_out:
        reading = journal.recall()
    elif isinstance(outcome.error, MissingLibrary):
        if (
            options.backend == "nvml"
            or pci
            or options.expected_count
            or isolate.call(driver.library_loads, min(5.0, options.timeout)).value
        ):
            raise outcome.error
        reading = None
    elif outcome.error is not None:
        reading = journal.recall()
        reading.code, reading.text, reading.hung = (
            r.UNREADABLE,
            f"{outcome.error.message} Last question: {reading.hung}.",
            None,
        )
    else:
        reading = outcome.value
    facts = judge.Facts(
        reading,
        [gpu for gpu, _driver in pci],
        timeout=options.timeout,
        duration=None if stuck else outcome.duration,
    )
    if reading is not None:
        _place(reading, facts.pci)
    facts.others = sorted({driver for _gpu, driver in pci} - {"", "nvidia"})
    if reading is None or (
        reading.code == r.LIBRARY_NOT_FOUND and not pci and not options.expected_count
    ):
        return facts
    facts.module_version = _first_line(world.path("/sys/module/nvidia/version"))
    left = max(0.5, min(10.0, options.timeout - (time.monotonic() - started)))
    facts.log = _log(options, left, world)
    if reading.hung is None:
        facts.orphans = _orphans(
            reading, max(0.3, min(10.0, options.timeout - (time.monotonic() - started))), world
        )
    return facts


def _place(reading: r.Reading, pci: list[str]) -> None:
    """Give the one GPU that does not even tell its address the one address that is left, so that people and Xids find it."""
    known = {xid.bus_id(gpu["bus_id"]) for gpu in reading.gpus if gpu["bus_id"]}
    mute = [gpu for gpu in reading.gpus if not gpu["bus_id"]]
    left = [bus for bus in pci if xid.bus_id(bus) not in known]
    if reading.hung is None and len(mute) == len(left) == 1:
        mute[0]["bus_id"] = left[0]


def _ask(options: GpuOptions, world: World, journal: r.Journal) -> r.Reading:
    """Runs in the forked child."""
    if _first_line("/proc/self/comm") != _NODE_MARK:
        with contextlib.suppress(OSError), open("/proc/self/comm", "w", encoding="ascii") as stream:
            stream.write(_MARK)
    patience = _inner(options.timeout)
    started = time.monotonic()
    if options.backend == "nvidia_smi":
        return _ask_smi(patience, world) or r.Reading(
            "nvidia_smi", r.LIBRARY_NOT_FOUND, "nvidia-smi is not installed"
        )
    try:
        reading = driver.session(journal)
    except MissingLibrary:
        if options.backend == "nvml":
            raise
        other = _ask_smi(patience - (time.monotonic() - started), world)
        if other is None:
            raise
        return other
    if reading.code == r.LIBRARY_NOT_FOUND and options.backend == "auto":
        return _ask_smi(patience - (time.monotonic() - started), world) or reading
    return reading


def _stuck(world: World) -> tuple[int, float] | None:
    """Return (process id, start) of one who asked earlier, was killed, and still waits in the kernel: another would wait beside it."""
    proc = world.path("/proc")
    for name in os.listdir(proc) if os.path.isdir(proc) else ():
        if not name.isdigit() or _first_line(f"{proc}/{name}/comm") not in (
            _MARK,
            _NODE_MARK,
            "nvidia-smi",
        ):
            continue
        with contextlib.suppress(OSError, ValueError, KeyError, IndexError):
            with open(f"{proc}/{name}/status", encoding="utf-8", errors="replace") as stream:
                status = dict(line.split(":", 1) for line in stream if ":" in line)
            # Anybody can choose a name.
            ours = int(status["Uid"].split()[1]) in (0, os.geteuid())
            if (
                ours
                and status["State"].split()[0] not in "ZX"
                and (int(status["SigPnd"], 16) | int(status["ShdPnd"], 16)) & _KILLED
            ):
                ticks = int(
                    (_first_line(f"{proc}/{name}/stat") or "").rpartition(")")[2].split()[19]
                )
                uptime = float((_first_line(f"{proc}/uptime") or "").split()[0])
                return int(name), world.clock.now() - uptime + ticks / os.sysconf("SC_CLK_TCK")
    return None


def _inner(timeout: float) -> float:
    """Return the seconds for programs inside a child that has C(timeout): it must still be there to kill them, on a busy node as well."""
    return timeout - max(0.05 * timeout, min(0.25, 0.4 * timeout))


def _ask_smi(timeout: float, world: World) -> r.Reading | None:
    try:
        return smi.session(timeout, world)
    except CommandFailed as error:
        import shutil  # costs more than all else here, and is seldom needed

        folders = f"{world.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"
        return (
            r.Reading("nvidia_smi", r.UNREADABLE, error.message)
            if shutil.which("nvidia-smi", path=folders)
            else None
        )


def _log(options: GpuOptions, timeout: float, world: World) -> xid.Log:
    source = options.log_source
    if source == "none":
        return xid.Log("none")
    outcome = isolate.call(
        lambda: xid.read(source, options.xid_window, _inner(timeout), world), timeout
    )
    if outcome.timed_out:
        return xid.Log("kernel log", f"reading the kernel log took longer than {timeout:.1f} s")
    if outcome.error is not None:
        return xid.Log(source, outcome.error.message)
    log: xid.Log = outcome.value
    return log


def pci_gpus(world: World) -> list[tuple[str, str]]:
    """Return (bus id, kernel driver or "") of the NVIDIA GPUs this system should drive, in the order of the bus.

    Display (0x0300) and 3D (0x0302) controllers of vendor 0x10de; not those handed to virtual machines (vfio-pci, pci-stub) and no
    virtual functions.
    """
    folder = world.path("/sys/bus/pci/devices")
    found = []
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []
    for name in names:
        device = os.path.join(folder, name)
        if _first_line(os.path.join(device, "vendor")) != "0x10de" or (
            _first_line(os.path.join(device, "class")) or ""
        )[:6] not in ("0x0300", "0x0302"):
            continue
        bound = (
            os.path.basename(os.path.realpath(os.path.join(device, "driver")))
            if os.path.islink(os.path.join(device, "driver"))
            else ""
        )
        if bound in ("vfio-pci", "pci-stub") or os.path.lexists(os.path.join(device, "physfn")):
            continue
        found.append((name, bound))
    return found


def in_container(world: World) -> bool:
    """Say whether this is a container."""
    marks = (
        "/run/.containerenv",
        "/.dockerenv",
        "/run/systemd/container",
        "/var/run/secrets/kubernetes.io",
    )
    variables = ("NVIDIA_VISIBLE_DEVICES", "KUBERNETES_SERVICE_HOST", "container")
    return any(os.path.exists(world.path(mark)) for mark in marks) or any(
        name in world.environ for name in variables
    )


def _orphans(reading: r.Reading, timeout: float, world: World) -> frozenset[int] | None:
    """Return process ids on the GPUs that do not exist, None where ids can't be compared.

    A process may have ended between the two looks, so those who seem gone are asked for a second time.
    """
    if _link(world.path("/proc/self/ns/pid")) not in (None, _FIRST_PID_NAMESPACE):
        return None
    pids = {process["pid"] for gpu in reading.gpus for process in gpu["processes"] or ()}
    gone = {pid for pid in pids if not _exists(pid, world)}
    if gone:
        again = isolate.call(driver.running, timeout)
        if not isinstance(again.value, list):
            return None
        gone &= set(again.value)
    return frozenset(gone)


def _exists(pid: int, world: World) -> bool:
    if os.path.exists(world.path(f"/proc/{pid}")):
        return True
    if world.root != "/":
        return False
    # Others' processes may be hidden in /proc (hidepid, ProtectProc=).
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


def _link(path: str) -> str | None:
    try:
        return os.readlink(path)
    except OSError:
        return None


def _first_line(path: str) -> str | None:
    try:
        with open(path, encoding="ascii", errors="replace") as stream:
            return stream.readline().strip() or None
    except OSError:
        return None


# --- writing -----------------------------------------------------------------------------------------------------------


def carry_out(
    options: GpuOptions,
    found: list[Check],
    gpus: list[dict[str, Any]],
    facts: judge.Facts,
    world: World,
) -> list[Check]:
    """Write the files the options name; return a check for each that could not be written."""
    problems = []
    if options.metrics_csv:
        try:
            metrics.append_csv(options.metrics_csv, gpus, world.clock.now())
        except WriteFailed as error:
            problems.append(
                Check(
                    "gpu_metrics_csv",
                    verdict.WARNING,
                    str(error),
                    subject=options.metrics_csv,
                    domain="node",
                )
            )
    if options.textfile:
        try:
            prometheus.write(
                options.textfile,
                metrics.samples(
                    [*found, *problems],
                    gpus,
                    facts.reading or r.Reading(count=0),
                    world.clock.now(),
                ),
            )
        except WriteFailed as error:
            problems.append(
                Check(
                    "gpu_textfile",
                    verdict.WARNING,
                    str(error),
                    subject=options.textfile,
                    domain="node",
                )
            )
    return problems
