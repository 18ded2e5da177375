# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the diagnostics know of each GPU before and after the tests: typed, reads only."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..errors import NotUsable
from ..gpu.api import gpus_and_checks
from ..gpu.reading import Gpu
from ..ports import World
from ..verdict import Check
from .options import DiagnosticsOptions

#: Memory in use (MiB) that a GPU may have without a process: what the driver itself takes.
IDLE_MEMORY = 1024


class GpuFacts(NamedTuple):
    """One GPU as the passive check sees it.

    C(processes) are process ids, None where they can't be asked.
    """

    number: int
    name: str
    uuid: str
    bus_id: str
    mig: bool
    processes: tuple[int, ...] | None
    memory_used: int
    utilization: int
    pcie_generation: int | None
    pcie_width: int | None
    uncorrected: int
    corrected: int

    @property
    def busy(self) -> str:
        """Why the GPU counts as in use, empty when it does not."""
        if self.processes:
            return "process " + ", ".join(map(str, self.processes[:5])) + " uses it"
        if self.processes is None and self.memory_used > IDLE_MEMORY:
            return f"{self.memory_used} MiB of its memory are in use"
        if self.processes is None and self.utilization > 0:
            return f"its utilization is {self.utilization} %"
        return ""


class Facts(NamedTuple):
    """All GPUs, and the checks of the passive look that did not pass."""

    gpus: tuple[GpuFacts, ...]
    problems: tuple[Check, ...]
    timestamp: float


class Failure(NamedTuple):
    """A test that did not end as it should.

    C(hung): it did not end at all; C(stuck): its process can't be killed.
    """

    test: str
    text: str
    code: int = 0
    hung: bool = False
    stuck: bool = False


class Measured(NamedTuple):
    """What the tests of one GPU gave: figures by the name of the test, readings of the sensors,
    what failed.
    """

    number: int
    figures: dict[str, dict[str, Any]]
    sensors: dict[str, Any]
    failure: Failure | None


class Outcome(NamedTuple):
    """Everything that was measured.

    C(pairs) are the copies between GPUs, C(peer_failure) what ended them early.
    """

    gpus: tuple[Measured, ...]
    pairs: tuple[dict[str, Any], ...]
    peer_failure: Failure | None


def observe(options: DiagnosticsOptions, world: World) -> Facts:
    """Look at the GPUs without loading them.

    :raises MissingLibrary: neither nvidia-ml-py nor nvidia-smi is there.
    :raises NotUsable: C(options.gpus) names a GPU that does not exist.
    """
    gpus, checks = gpus_and_checks(world)
    problems = tuple(check for check in checks if check.status not in ("pass", "skipped"))
    facts = tuple(_gpu(gpu) for gpu in gpus)
    missing = sorted(set(options.gpus or ()) - {gpu.number for gpu in facts})
    if missing:
        numbers = ", ".join(map(str, missing))
        raise NotUsable(
            f"Option gpus names GPU {numbers}, but the driver shows {len(facts)} GPUs.",
            "Count from 0, or leave the option out to test all.",
            "gpus",
        )
    return Facts(facts, problems, world.clock.now())


def _gpu(gpu: Gpu) -> GpuFacts:
    return GpuFacts(
        number=gpu.id,
        name=gpu.name or "unknown GPU",
        uuid=gpu.uuid or "",
        bus_id=gpu.bus_id or "",
        mig=bool(gpu.mig),
        processes=None if gpu.processes is None else tuple(entry.pid for entry in gpu.processes),
        memory_used=gpu.mem_used or 0,
        utilization=gpu.util_gpu or 0,
        pcie_generation=gpu.pcie.gen_max,
        pcie_width=gpu.pcie.width_max,
        uncorrected=gpu.ecc.volatile_uncorrected or 0,
        corrected=gpu.ecc.volatile_corrected or 0,
    )
