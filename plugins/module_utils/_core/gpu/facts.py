# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be observed of the GPUs: the driver's answers, the PCI bus, the kernel's messages."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING, Optional

from ..errors import MissingLibrary
from ..ports import World
from ..records import NamedTuple
from ..system import boot, isolate, procfs
from ..system.containers import in_container
from . import driver, reading
from .options import GpuOptions
from .reading import Journal, Reading

if TYPE_CHECKING:
    from . import nvswitch, xid

#: Inode of the first PID namespace (include/linux/proc_ns.h, PROC_PID_INIT_INO); elsewhere the
#: driver's process ids mean other processes.
_FIRST_PID_NAMESPACE = "pid:[4026531836]"
#: Names of the process that asks the driver: our own, and that of node_health's probe "gpu".
_MARK = "mlfleet-gpu"
_NODE_MARK = "mlp:bd89f8f2"  # with the CRC-32 of "gpu"
#: What to look for in the journal. Of a line that a program wrote to /dev/kmsg, the journal takes
#: "NVRM:" for the program's name and off the message.
LOG_PATTERN = r"NVRM|Xid \(|NVIDIA GPU|fallen off the bus|bad state|RmInitAdapter|RecvPoll"
#: SIGKILL in a mask of pending signals.
_KILLED = 1 << (signal.SIGKILL - 1)
#: The part of the time that the first round may take where there are several GPUs; the rest is for
#: asking each of those that a hung one hides.
_FIRST_ROUND = 0.7


class DriverErrors(NamedTuple):
    """The driver's errors in the kernel's messages. ``problem`` is why nothing could be read."""

    source: str
    entries: tuple[xid.Entry, ...] = ()
    problem: str = ""
    switch: tuple[nvswitch.Incident, ...] = ()


class PciGpu(NamedTuple):
    """A GPU on the PCI bus: its address and the kernel driver that holds it (empty: none)."""

    address: str
    driver: str


class OtherGpu(NamedTuple):
    """A GPU or accelerator of another vendor on the PCI bus."""

    address: str
    vendor: str


class Facts(NamedTuple):
    """What was observed.

    ``reading`` is None on a node where nothing can ask a GPU and nothing indicates one. ``pci`` are
    the NVIDIA GPUs that this system should drive, none where that is unknown (containers).
    ``orphans`` are process ids that hold GPU memory and do not exist, None where ids can't be
    compared. ``module_version`` is the loaded kernel module's. ``duration`` of the queries to the
    driver is in seconds, as is ``now``, since the epoch. ``uptime`` in seconds is None in
    containers, which may have one of their own.
    """

    reading: Optional[Reading]
    pci: tuple[PciGpu, ...] = ()
    errors: DriverErrors = DriverErrors("none")
    orphans: Optional[frozenset[int]] = None
    module_version: Optional[str] = None
    duration: Optional[float] = None
    now: float = 0.0
    boot_id: Optional[str] = None
    uptime: Optional[float] = None
    hostname: str = ""
    fabric_manager: Optional[nvswitch.FabricManager] = None
    others: tuple[OtherGpu, ...] = ()


def _on_bus(world: World, contained: bool) -> tuple[tuple[PciGpu, ...], tuple[OtherGpu, ...]]:
    if contained:
        return (), ()
    return pci_gpus(world), other_gpus(world)


def observe(options: GpuOptions, world: World) -> Facts:
    """Ask driver, PCI bus and kernel log, within ``options.timeout`` seconds plus at most one.

    :raises MissingLibrary: this node shows GPUs and neither pynvml nor nvidia-smi can be used, or
        pynvml was asked for.
    """
    started = time.monotonic()
    # A container sees the whole machine's PCI bus, but has only its own share of GPUs, or none.
    contained = in_container(world)
    pci, others = _on_bus(world, contained)
    if options.backend == "amd_smi":
        answers, duration = _ask_amd(options.timeout, world, required=True)
    else:
        answers, duration = _driver_answers(options, pci, world)
        nothing = answers is None or answers.code == reading.LIBRARY_NOT_FOUND
        of_amd = any(gpu.vendor == "AMD" for gpu in others) and not pci
        if options.backend == "auto" and nothing and of_amd:
            remaining_time = max(1.0, options.timeout - (time.monotonic() - started))
            theirs, their_duration = _ask_amd(remaining_time, world)
            if theirs is not None:
                answers, duration = theirs, their_duration
    facts = Facts(
        answers,
        pci,
        duration=duration,
        now=world.clock.now(),
        boot_id=boot.boot_id(world),
        uptime=None if contained else boot.uptime(world),
        hostname=world.hostname,
        others=others,
    )
    if answers is None:
        return facts
    _place(answers, pci)
    reading.refuse_impossible(answers)
    no_gpu = answers.code == reading.LIBRARY_NOT_FOUND and not pci and not options.expected_count
    if no_gpu or answers.backend == "amd_smi":
        return facts

    def remaining(least: float) -> float:
        return max(least, min(10.0, options.timeout - (time.monotonic() - started)))

    return facts._replace(
        module_version=procfs.text(world, "/sys/module/nvidia/version"),
        errors=_driver_errors(options, remaining(0.5), world),
        orphans=None if answers.hung else _orphans(answers, remaining(0.3), world),
        fabric_manager=None if contained else _fabric_manager(options, remaining(0.3), world),
    )


# --- the driver -------------------------------------------------------------------------------


def _driver_answers(
    options: GpuOptions, pci: tuple[PciGpu, ...], world: World
) -> tuple[Reading | None, float | None]:
    """Return the reading, None without any sign of a GPU, and how long it took in seconds."""
    stuck = _stuck(world)
    if stuck is not None:
        return Reading(hung="an earlier check", stuck=stuck), None
    started = time.monotonic()
    several = max(len(pci), len(procfs.directory(world, "/proc/driver/nvidia/gpus"))) > 1
    by_nvml = options.backend != "nvidia_smi"
    first = options.timeout
    if several and by_nvml:
        first *= _FIRST_ROUND
    journal = Journal()
    outcome = isolate.call(lambda: _ask(options.backend, first, world, journal), first)
    if outcome.timed_out:
        answers = _recalled(journal)
        if answers.count is not None and len(answers.gpus) < answers.count:
            answers.hung_gpu = len(answers.gpus)
        if first < options.timeout:
            from . import fallback

            remaining = options.timeout - (time.monotonic() - started)
            fallback.ask_each(answers, remaining, _mark_process)
        return answers, time.monotonic() - started
    if isinstance(outcome.error, MissingLibrary):
        if options.backend == "nvml" or _gpu_indicated(options, pci):
            raise outcome.error
        return None, outcome.duration
    if outcome.error is not None:
        answers = _recalled(journal)
        answers.code = reading.UNREADABLE
        answers.text = f"{outcome.error.message} Last query: {answers.hung}."
        answers.hung = None
        return answers, outcome.duration
    asked: Reading = outcome.value
    return asked, outcome.duration


def _recalled(journal: Journal) -> Reading:
    from . import recall  # most drivers answer

    return recall.of(journal)


def _gpu_indicated(options: GpuOptions, pci: tuple[PciGpu, ...]) -> bool:
    if pci or options.expected_count:
        return True
    return bool(isolate.call(driver.library_loads, min(5.0, options.timeout)).value)


def _ask(backend: str, timeout: float, world: World, journal: Journal) -> Reading:
    """Ask by NVML, else by nvidia-smi. Runs in the forked child."""
    _mark_process()
    deadline = time.monotonic() + _inner(timeout)
    if backend == "nvidia_smi":
        absent = Reading("nvidia_smi", reading.LIBRARY_NOT_FOUND, "nvidia-smi is not installed")
        return _ask_smi(deadline, world) or absent
    try:
        answers = driver.session(journal)
    except MissingLibrary:
        fallback = None if backend == "nvml" else _ask_smi(deadline, world)
        if fallback is None:
            raise
        return fallback
    if answers.code == reading.LIBRARY_NOT_FOUND and backend == "auto":
        return _ask_smi(deadline, world) or answers
    return answers


def _ask_smi(deadline: float, world: World) -> Reading | None:
    from . import fallback  # most nodes have pynvml

    return fallback.ask_smi(deadline, world)


def _ask_amd(
    timeout: float, world: World, required: bool = False
) -> tuple[Reading | None, float | None]:
    from . import fallback  # seldom needed

    return fallback.ask_amd(timeout, world, required)


def _mark_process() -> None:
    """Give this process the name by which a later check recognises it."""
    path = "/proc/self/comm"
    with contextlib.suppress(OSError):
        with open(path, encoding="ascii", errors="replace") as stream:
            if stream.readline().strip() == _NODE_MARK:
                return
        with open(path, "w", encoding="ascii") as stream:
            stream.write(_MARK)


def _inner(timeout: float) -> float:
    """Return the seconds for programs inside a child that has ``timeout``.

    The child must still be there to kill them, on a busy node as well.
    """
    return timeout - max(0.05 * timeout, min(0.25, 0.4 * timeout))


def _stuck(world: World) -> tuple[int, float] | None:
    """Return (process id, start) of an earlier check that was killed and still waits in the kernel.

    Another one would only wait beside it.
    """
    proc = world.path("/proc")
    marks = (_MARK, _NODE_MARK, "nvidia-smi")
    for name in procfs.directory(world, "/proc"):
        if not name.isdigit() or procfs.text(world, f"/proc/{name}/comm") not in marks:
            continue
        with contextlib.suppress(OSError, ValueError, KeyError, IndexError):
            with open(f"{proc}/{name}/status", encoding="utf-8", errors="replace") as stream:
                status = dict(line.split(":", 1) for line in stream if ":" in line)
            # Anybody can choose a name.
            ours = int(status["Uid"].split()[1]) in (0, os.geteuid())
            pending = int(status["SigPnd"], 16) | int(status["ShdPnd"], 16)
            if ours and status["State"].split()[0] not in "ZX" and pending & _KILLED:
                process = procfs.parse_stat(procfs.text(world, f"/proc/{name}/stat") or "")
                age = boot.uptime(world)
                if process is not None and age is not None:
                    return int(name), world.clock.now() - age + process.start
    return None


# --- PCI bus, processes, kernel log -----------------------------------------------------------


def pci_gpus(world: World) -> tuple[PciGpu, ...]:
    """Return the NVIDIA GPUs that this system should drive, in the order of the bus.

    Display (0x0300) and 3D (0x0302) controllers of vendor 0x10de; not those handed to virtual
    machines (vfio-pci, pci-stub) and no virtual functions.
    """
    base = "/sys/bus/pci/devices"
    gpus = []
    for address in procfs.directory(world, base):
        device = f"{base}/{address}"
        if procfs.text(world, f"{device}/vendor") != "0x10de":
            continue
        if (procfs.text(world, f"{device}/class") or "")[:6] not in ("0x0300", "0x0302"):
            continue
        link = world.path(f"{device}/driver")
        bound = ""
        if os.path.islink(link):
            bound = os.path.basename(os.path.realpath(link))
        virtual = os.path.lexists(world.path(f"{device}/physfn"))
        if bound not in ("vfio-pci", "pci-stub") and not virtual:
            gpus.append(PciGpu(address, bound))
    return tuple(gpus)


#: Vendors of GPUs and accelerators that this check can't read, but AMD's.
_VENDORS = {"0x1002": "AMD", "0x8086": "Intel", "0x1da3": "Intel Habana"}
#: 3D and display controllers, and processing accelerators. Plain VGA (0x0300) counts only of a
#: vendor of GPUs: the others are consoles of management controllers and virtual machines.
_ACCELERATORS = ("0x0302", "0x0380", "0x1200")


def other_gpus(world: World) -> tuple[OtherGpu, ...]:
    """Return the GPUs and accelerators of other vendors, in the order of the bus."""
    base = "/sys/bus/pci/devices"
    gpus = []
    for address in procfs.directory(world, base):
        vendor = procfs.text(world, f"{base}/{address}/vendor") or ""
        kind = (procfs.text(world, f"{base}/{address}/class") or "")[:6]
        if vendor in ("", "0x10de"):
            continue
        if kind in _ACCELERATORS or (kind == "0x0300" and vendor in _VENDORS):
            gpus.append(OtherGpu(address, _VENDORS.get(vendor, f"vendor {vendor}")))
    return tuple(gpus)


def _place(answers: Reading, pci: tuple[PciGpu, ...]) -> None:
    """Give GPUs without an address theirs, so that people and Xids find them.

    A single one has the address that is left. Where the driver lists all, it lists them in the
    order of the bus.
    """
    silent = [gpu for gpu in answers.gpus if not gpu.bus_id]
    known = {reading.bus_id(gpu.bus_id) for gpu in answers.gpus if gpu.bus_id}
    free = [device.address for device in pci if reading.bus_id(device.address) not in known]
    if len(silent) == len(free) == 1 and (answers.hung is None or answers.hung_gpu is not None):
        silent[0].bus_id = free[0]
    elif answers.hung_gpu is not None and len(pci) == answers.count:
        for gpu in silent:
            gpu.bus_id = pci[gpu.id].address


def _orphans(answers: Reading, timeout: float, world: World) -> frozenset[int] | None:
    """Return process ids on the GPUs that do not exist, None where ids can't be compared.

    A process may have ended between the two looks, so those who seem gone are checked again.
    """
    with contextlib.suppress(OSError):
        if os.readlink(world.path("/proc/self/ns/pid")) != _FIRST_PID_NAMESPACE:
            return None
    pids = {process.pid for gpu in answers.gpus for process in gpu.processes or ()}
    gone = {pid for pid in pids if not process_exists(pid, world)}
    if gone:
        again = isolate.call(driver.running, timeout)
        if not isinstance(again.value, list):
            return None
        gone &= set(again.value)
    return frozenset(gone)


def process_exists(pid: int, world: World) -> bool:
    """Return whether a process exists, hidden ones (hidepid, ProtectProc=) included."""
    if os.path.exists(world.path(f"/proc/{pid}")):
        return True
    if world.root != "/":
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


def _driver_errors(options: GpuOptions, timeout: float, world: World) -> DriverErrors:
    source = options.log_source
    if source == "none":
        return DriverErrors("none")
    outcome = isolate.call(
        lambda: read_errors(source, options.xid_window, _inner(timeout), world), timeout
    )
    if outcome.timed_out:
        problem = f"reading the kernel log took longer than {timeout:.1f} s"
        return DriverErrors("kernel log", problem=problem)
    if outcome.error is not None:
        return DriverErrors(source, problem=outcome.error.message)
    errors: DriverErrors = outcome.value
    return errors


def read_errors(source: str, window: float, timeout: float, world: World) -> DriverErrors:
    """Look for driver errors not older than ``window`` seconds and not before the last boot.

    :param source: as of kernel_log.read(). :param timeout: seconds.
    """
    from ..system import kernel_log  # only the child reads it

    since = max(boot.boot_time(world) or 0.0, world.clock.now() - window)
    log = kernel_log.read(source, since, LOG_PATTERN, timeout, world)
    entries: tuple[xid.Entry, ...] = ()
    switch: tuple[nvswitch.Incident, ...] = ()
    # A healthy node loads neither.
    if any(record.message.startswith("NVRM") for record in log.records):
        from . import xid

        entries = tuple(xid.find(log.records))
    if any("SXid (" in record.message for record in log.records):
        from . import nvswitch

        switch = tuple(nvswitch.find(log.records))
    return DriverErrors(log.source, entries, log.problem, switch)


def _fabric_manager(
    options: GpuOptions, timeout: float, world: World
) -> nvswitch.FabricManager | None:
    """Look at the fabric manager where the driver drives NVSwitches."""
    if not procfs.directory(world, "/proc/driver/nvidia-nvswitch/devices"):
        return None
    from . import nvswitch

    return nvswitch.observe(world.clock.now() - options.xid_window, timeout, world)
