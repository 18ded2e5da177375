# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a driver said, in one shape for both ways of asking it (NVML through pynvml, and nvidia-smi).

Both give plain data: it crosses from the forked child that asks to the parent that judges. A GPU is a mapping with the keys of
KEYS; None means that the device has no such value (or did not tell), never 0.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

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
#: The device or this driver has no such value: not supported, function not found, vGPU without ECC, other version of a structure,
#: deprecated. Not a fault.
UNSUPPORTED = frozenset({3, 13, 22, 25, 26})
#: From here on the GPU answers nothing useful.
GONE = frozenset({GPU_IS_LOST})

#: What is known of one GPU; units: °C, %, MiB, W, MHz.
KEYS = (
    "id name uuid serial bus_id vbios temp temp_memory margin t_limits thresholds fan util_gpu util_mem mem_used mem_total power_draw power_limit "
    "pstate clock_sm clock_mem clock_reasons ecc sram_threshold remap retired recovery nvlink pcie fabric mig persistence processes"
).split()
#: Their parts; both are always there, so that nobody has to look twice.
ECC = (
    "mode",
    "volatile_corrected",
    "volatile_uncorrected",
    "aggregate_corrected",
    "aggregate_uncorrected",
)
PCIE = ("gen", "gen_max", "width", "width_max", "replays")


@dataclass
class Reading:
    """All that one round of questions gave.

    C(code) is 0, or the NVML code of what stopped the round as a whole (no library, no driver, no list of GPUs) and C(text) says it
    in words. C(gpus) are mappings with the keys of KEYS plus C(faults): the questions the driver failed to answer, as
    (question, NVML code, words). C(hung) is the question that got no answer in time; C(stuck) the
    (process id, start in seconds since the epoch) of an earlier run that still waits for one, when therefore nothing was asked.
    """

    backend: str = ""
    code: int = 0
    text: str = ""
    driver_version: Optional[str] = None
    nvml_version: Optional[str] = None
    cuda_version: Optional[str] = None
    count: Optional[int] = None
    gpus: list[dict[str, Any]] = field(default_factory=list)
    hung: Optional[str] = None
    stuck: Optional[tuple[int, float]] = None


def blank(index: int) -> dict[str, Any]:
    """Return a GPU of which nothing is known yet."""
    gpu: dict[str, Any] = dict.fromkeys(KEYS)
    gpu.update(id=index, faults=[], ecc=dict.fromkeys(ECC), pcie=dict.fromkeys(PCIE))
    return gpu


class Journal:
    """Memory shared with the forked child, so that a driver that stops answering half-way does not take with it what was learnt.

    The child notes the question it is about to ask and each finished GPU; the parent reads it after the deadline.
    """

    SIZE = 1 << 20
    _HEAD = 256

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, self.SIZE)

    def asking(self, question: str) -> None:
        """Note the question about to be asked."""
        self._memory[: self._HEAD] = question.encode("utf-8", "replace")[: self._HEAD].ljust(
            self._HEAD, b"\0"
        )

    def keep(self, reading: Reading) -> None:
        """Keep what is known so far; a reading too large for the memory is not kept."""
        data = json.dumps(vars(reading)).encode("ascii")
        if len(data) < self.SIZE - self._HEAD:
            self._memory[self._HEAD : self._HEAD + len(data) + 1] = data + b"\0"

    def recall(self) -> Reading:
        """Return what was known when the child was given up, with C(hung) set."""
        question = bytes(self._memory[: self._HEAD]).rstrip(b"\0").decode("utf-8", "replace")
        reading = Reading()
        end = self._memory.find(b"\0", self._HEAD)
        if end > self._HEAD:
            try:
                known: Mapping[str, Any] = json.loads(bytes(self._memory[self._HEAD : end]))
                reading = Reading(**known)
            except (ValueError, TypeError):  # caught while it was being written
                reading = Reading()
        reading.hung = question or "loading the driver's library"
        return reading
