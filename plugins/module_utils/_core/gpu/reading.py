# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a driver answered, in one shape for both back ends (NVML through pynvml, and nvidia-smi).

The records cross from the forked child that asks to the parent that evaluates. None means that the
device has no such value (or did not answer), never 0.
"""

from __future__ import annotations

import json
import mmap
import re
from typing import Optional

from ..records import NamedTuple, dataclass, field

# NVML return codes (nvml.h, nvmlReturn_t) that mean something of their own here.
NO_PERMISSION = 4
NOT_FOUND = 6
DRIVER_NOT_LOADED = 9
LIBRARY_NOT_FOUND = 12
CORRUPTED_INFOROM = 14
GPU_IS_LOST = 15
RESET_REQUIRED = 16
MISMATCH = 18
UNKNOWN_ERROR = 999
#: Ours: the program or library answered in a way that can't be understood.
UNREADABLE = -1
#: Ours: the GPU did not answer in time.
NO_REPLY = -2
#: The device or this driver has no such value: not supported, function not found, vGPU without ECC,
#: other version of a structure, deprecated. Not a fault.
UNSUPPORTED = frozenset({3, 13, 22, 25, 26})


#: A GPU's place on the PCI bus: domain, bus, device.
BusId = tuple[int, int, int]
#: An address as the kernel (4-digit domain, no function) and NVML (8-digit domain) write it.
ADDRESS = r"(?:PCI:)?([0-9a-fA-F]{4,8}):([0-9a-fA-F]{2}):([0-9a-fA-F]{2})(?:\.[0-7])?"


def bus_id(text: str | None) -> BusId | None:
    """Read a PCI address in any form; None when it is none."""
    match = re.fullmatch(ADDRESS, (text or "").strip())
    if match:
        return (int(match[1], 16), int(match[2], 16), int(match[3], 16))
    return None


def display_bus(bus: BusId | None) -> str:
    """Return a PCI address as ``lspci -D`` writes it, without the function."""
    if bus is None:
        return "unknown GPU"
    return f"{bus[0]:04x}:{bus[1]:02x}:{bus[2]:02x}"


class Fault(NamedTuple):
    """A query that the driver did not answer: its name, the NVML code, the driver's explanation."""

    query: str
    code: int
    text: str


class Ecc(NamedTuple):
    """Error correction: whether it is on, and errors since the driver was loaded and in all."""

    mode: Optional[bool] = None
    volatile_corrected: Optional[int] = None
    volatile_uncorrected: Optional[int] = None
    aggregate_corrected: Optional[int] = None
    aggregate_uncorrected: Optional[int] = None


class Pcie(NamedTuple):
    """The PCIe link: generation and number of lanes, now and at most, and replays."""

    gen: Optional[int] = None
    gen_max: Optional[int] = None
    width: Optional[int] = None
    width_max: Optional[int] = None
    replays: Optional[int] = None


class Limits(NamedTuple):
    """Temperatures in °C: absolute, or (T.Limit) as the margin left when each is reached."""

    shutdown: Optional[int] = None
    slowdown: Optional[int] = None
    mem_max: Optional[int] = None
    gpu_max: Optional[int] = None


class Remap(NamedTuple):
    """Remapped memory rows by cause, and whether a remapping is pending or has failed."""

    corrected: int
    uncorrected: int
    pending: bool
    failure: bool


class Retired(NamedTuple):
    """Retired memory pages (GPUs before Ampere) by cause, and whether some are pending."""

    single_bit: Optional[int] = None
    double_bit: Optional[int] = None
    pending: Optional[bool] = None


class LinkErrors(NamedTuple):
    """Errors of one NVLink since the driver was loaded: replays, recoveries, CRC errors."""

    link: int
    replay: int = 0
    recovery: int = 0
    crc: int = 0


class NvLink(NamedTuple):
    """The number of links, the numbers of those that are down, and the errors of each."""

    links: int
    down: list[int]
    errors: Optional[list[LinkErrors]] = None


class Fabric(NamedTuple):
    """Registration with the NVSwitch fabric: state 1 not started, 2 in progress, 3 completed.

    ``status`` is an NVML code.
    """

    state: int
    status: int


class Process(NamedTuple):
    """A process on a GPU and the memory that it holds, MiB."""

    pid: int
    mem_used: Optional[int]


_NO_LIMITS, _NO_ECC, _NO_PCIE = Limits(), Ecc(), Pcie()


@dataclass(eq=False, repr=False)  # a third of the cost of loading it
class Gpu:
    """All that is known of one GPU; units: °C, %, MiB, W, MHz, and mJ since the driver was
    loaded.
    """

    id: int
    name: Optional[str] = None
    uuid: Optional[str] = None
    serial: Optional[str] = None
    bus_id: Optional[str] = None
    vbios: Optional[str] = None
    temp: Optional[int] = None
    temp_memory: Optional[int] = None
    margin: Optional[int] = None
    t_limits: Limits = _NO_LIMITS
    thresholds: Limits = _NO_LIMITS
    fan: Optional[int] = None
    util_gpu: Optional[int] = None
    util_mem: Optional[int] = None
    mem_used: Optional[int] = None
    mem_total: Optional[int] = None
    power_draw: Optional[float] = None
    power_limit: Optional[float] = None
    pstate: Optional[int] = None
    clock_sm: Optional[int] = None
    clock_mem: Optional[int] = None
    clock_reasons: Optional[int] = None
    ecc: Ecc = _NO_ECC
    sram_threshold: Optional[bool] = None
    remap: Optional[Remap] = None
    retired: Optional[Retired] = None
    recovery: Optional[int] = None
    nvlink: Optional[NvLink] = None
    pcie: Pcie = _NO_PCIE
    fabric: Optional[Fabric] = None
    mig: Optional[bool] = None
    persistence: Optional[bool] = None
    energy: Optional[int] = None
    processes: Optional[list[Process]] = None
    faults: list[Fault] = field(default_factory=list)

    def fail(self, query: str, code: int, text: str) -> None:
        """Note a query that was not answered."""
        self.faults.append(Fault(query, code, text))

    @property
    def lost(self) -> bool:
        """Whether it answers nothing useful any more."""
        return any(fault.code == GPU_IS_LOST for fault in self.faults)

    @property
    def replied(self) -> bool:
        """Whether the driver replied in time when it was asked about this GPU."""
        return all(fault.code != NO_REPLY for fault in self.faults)

    def failed(self, query: str) -> bool:
        """Return whether a query has failed already."""
        return any(fault.query == query for fault in self.faults)


@dataclass(eq=False, repr=False)
class Reading:
    """All that one round of queries gave.

    ``code`` is 0, or the NVML code of what stopped the round as a whole (no library, no driver, no
    list of GPUs), which ``text`` explains. ``hung`` is the query without an answer in time,
    ``hung_gpu`` the index of the GPU that it was about; ``stuck`` the (process id, start in seconds
    since the epoch) of an earlier run that still waits for one, when therefore nothing was asked.
    """

    backend: str = ""
    code: int = 0
    text: str = ""
    driver_version: Optional[str] = None
    nvml_version: Optional[str] = None
    cuda_version: Optional[str] = None
    count: Optional[int] = None
    gpus: list[Gpu] = field(default_factory=list)
    hung: Optional[str] = None
    hung_gpu: Optional[int] = None
    stuck: Optional[tuple[int, float]] = None


#: Smallest and largest value that a GPU can have; anything else is a broken answer.
_POSSIBLE = {
    "temp": (-50, 200),
    "temp_memory": (-50, 200),
    "margin": (-100, 250),
    "util_gpu": (0, 100),
    "util_mem": (0, 100),
    "mem_used": (0, 1 << 30),
    "mem_total": (0, 1 << 30),
    "power_draw": (0, 10_000),
    "power_limit": (0, 10_000),
    "clock_sm": (0, 20_000),
    "clock_mem": (0, 50_000),
}
#: Largest value of a process id's type; NVML's "none" is beyond it.
_MAX_PID = (1 << 31) - 1


def refuse_impossible(reading: Reading) -> None:
    """Turn values that no GPU has into faults: not known is safer than wrong."""
    for gpu in reading.gpus:
        for field_name, (least, most) in _POSSIBLE.items():
            value = getattr(gpu, field_name)
            if value is not None and not least <= value <= most:
                _refuse(gpu, field_name, value)
        if gpu.mem_used is not None and gpu.mem_total is not None and gpu.mem_used > gpu.mem_total:
            gpu.fail("mem_used", UNREADABLE, f"impossible: {gpu.mem_used} of {gpu.mem_total} MiB")
            gpu.mem_used = gpu.mem_total = None
        processes = gpu.processes or []
        bad = [process.pid for process in processes if not 0 < process.pid <= _MAX_PID]
        if bad:
            gpu.fail("processes", UNREADABLE, f"impossible process id: {bad[0]}")
            gpu.processes = [process for process in processes if process.pid not in bad]


def _refuse(gpu: Gpu, field_name: str, value: float) -> None:
    gpu.fail(field_name, UNREADABLE, f"impossible: {value:g}")
    setattr(gpu, field_name, None)


def to_json(reading: Reading) -> str:
    """Return a reading as JSON."""
    return json.dumps(vars(reading), default=vars)


class Journal:
    """Memory shared with the forked child, so that a driver that hangs does not take all with it.

    The child notes the query that it is about to make and each finished GPU; the parent reads both
    after the deadline.
    """

    SIZE = 1 << 20
    _HEAD = 256

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, self.SIZE)

    def asking(self, query: str) -> None:
        """Note the query that is about to be made."""
        head = query.encode("utf-8", "replace")[: self._HEAD]
        self._memory[: self._HEAD] = head.ljust(self._HEAD, b"\0")

    def keep(self, reading: Reading) -> None:
        """Keep what is known so far; a reading too large for the memory is not kept."""
        data = to_json(reading).encode("ascii")
        if len(data) < self.SIZE - self._HEAD:
            self._memory[self._HEAD : self._HEAD + len(data) + 1] = data + b"\0"

    def content(self) -> tuple[str, bytes]:
        """Return the last query, and the JSON of what was known when it was made."""
        query = bytes(self._memory[: self._HEAD]).rstrip(b"\0").decode("utf-8", "replace")
        end = self._memory.find(b"\0", self._HEAD)
        return query, bytes(self._memory[self._HEAD : max(end, self._HEAD)])
