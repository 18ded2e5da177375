# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the planned tests in child processes that end at the deadline, or with their parent,
whatever the driver does.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable
from typing import Any

from ..errors import FleetError
from ..ports import Progress, Tell
from ..system import isolate
from ..system.locks import lock, lock_directory
from . import kernels, measure
from .board import Board
from .cuda import CudaError, Driver
from .facts import Failure, Measured, Outcome
from .plan import Plan

#: prctl(2): the signal that this process gets when its parent ends.
_PR_SET_PDEATHSIG = 1
#: Share of the time, and seconds at most, that stay for the test that runs when nothing new is
#: begun any more.
_LAST_SHARE, _LAST_SECONDS = 0.2, 15.0


def carry_out(plan: Plan, pynvml: Any, tell: Tell) -> Outcome:
    """Run the tests, those of all GPUs at the same time, then the copies between them.

    :param pynvml: NVML's library for the sensors, None without it.

    :raises LockBusy: other diagnostics run on this node. :raises NotUsable: libcuda.so.1 is not
        installed.
    """
    if not plan.gpus:
        return Outcome((), (), None)
    with lock(os.path.join(lock_directory(), "gpu-diagnostics.lock"), "GPU diagnostics"):
        started = time.monotonic()
        reserve = min(_LAST_SECONDS, plan.level.timeout * _LAST_SHARE)
        until = started + plan.level.timeout - reserve
        tell(Progress("GPU diagnostics", 0, len(plan.gpus), "GPUs"))
        gpus = _singles(plan, pynvml, until)
        tell(Progress("GPU diagnostics", len(plan.gpus), len(plan.gpus), "GPUs"))
        pairs: tuple[dict[str, Any], ...] = ()
        failure = None
        if plan.peer and not any(gpu.failure for gpu in gpus):
            pairs, failure = _pairs(plan, max(5.0, until - time.monotonic()))
        return Outcome(gpus, pairs, failure)


def _singles(plan: Plan, pynvml: Any, until: float) -> tuple[Measured, ...]:
    boards = {gpu.number: Board() for gpu in plan.gpus}
    jobs: dict[str, Callable[[], Any]] = {}
    for gpu in plan.gpus:
        jobs[f"gpu {gpu.number}"] = _job(plan, gpu.bus_id, boards[gpu.number], until)
    if pynvml is not None:
        jobs["sensors"] = _sensor_job(plan, pynvml, boards, until)
    outcomes = isolate.call_many(jobs, plan.level.timeout)
    readings = outcomes["sensors"].value if "sensors" in outcomes else None
    return tuple(
        _measured(
            gpu.number, outcomes[f"gpu {gpu.number}"], boards[gpu.number].read(), readings or {}
        )
        for gpu in plan.gpus
    )


def _measured(
    index: int, outcome: isolate.Outcome, board: dict[str, Any], readings: dict[str, Any]
) -> Measured:
    failure = None
    test = board.get("test", "start")
    if outcome.timed_out:
        failure = Failure(
            test, f"no answer within {outcome.duration:.0f} s", hung=True, stuck=outcome.alive
        )
    elif outcome.error is not None:
        failure = Failure(test, outcome.error.message, getattr(outcome.error, "cuda_code", 0))
    return Measured(index, board.get("figures", {}), readings.get(str(index), {}), failure)


def die_with_parent() -> None:
    """Let the kernel kill this process when its parent ends: nothing of ours stays on a GPU."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _job(plan: Plan, bus_id: str, board: Board, until: float) -> Callable[[], None]:
    def run() -> None:
        die_with_parent()
        document: dict[str, Any] = {"test": "start", "figures": {}, "finished": False}
        board.write(document)
        try:
            _test_one(plan, bus_id, board, document, until)
        finally:
            document["finished"] = True
            board.write(document)

    return run


def _test_one(
    plan: Plan, bus_id: str, board: Board, document: dict[str, Any], until: float
) -> None:
    driver = _driver()
    with driver.context(driver.by_bus_id(bus_id)) as context:
        context.load(kernels.PTX)
        for name in plan.tests:
            document["test"] = name
            board.write(document)
            if name == "host_bandwidth":
                # GPUs share the way to the host's memory: one at a time.
                gate = os.path.join(lock_directory(), "gpu-diagnostics-bus.lock")
                with lock(gate, "measurement", wait=max(1.0, until - time.monotonic())):
                    figures = measure.SINGLE[name](context, plan.level, until)
            else:
                figures = measure.SINGLE[name](context, plan.level, until)
            document["figures"][name] = figures
            board.write(document)


def _driver() -> Driver:
    try:
        return Driver()
    except OSError as error:
        raise FleetError(
            f"CUDA's library can't be loaded: {error}.", "Install the NVIDIA driver's libcuda."
        ) from error


def _sensor_job(
    plan: Plan, pynvml: Any, boards: dict[int, Board], until: float
) -> Callable[[], Any]:
    def finished() -> bool:
        return time.monotonic() > until or all(
            board.read().get("finished") for board in boards.values()
        )

    def run() -> Any:
        die_with_parent()
        from . import sensors

        return sensors.watch(pynvml, [gpu.number for gpu in plan.gpus], finished)

    return run


def _pairs(plan: Plan, timeout: float) -> tuple[tuple[dict[str, Any], ...], Failure | None]:
    board = Board()

    def run() -> list[dict[str, Any]]:
        die_with_parent()
        driver = _driver()
        devices = {gpu.number: driver.by_bus_id(gpu.bus_id) for gpu in plan.gpus}
        return measure.peer(driver, devices, plan.level, lambda pair: board.write({"pair": pair}))

    outcome = isolate.call(run, timeout)
    pair = board.read().get("pair", "start")
    if outcome.timed_out:
        return (), Failure(
            pair, f"no answer within {timeout:.0f} s", hung=True, stuck=outcome.alive
        )
    if outcome.error is not None:
        code = 0
        if isinstance(outcome.error, CudaError):
            code = outcome.error.cuda_code
        return (), Failure(pair, outcome.error.message, code)
    return tuple(outcome.value), None
