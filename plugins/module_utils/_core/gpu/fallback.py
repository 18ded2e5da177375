# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is asked where NVML does not answer: nvidia-smi, amd-smi, each GPU by itself."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from ..errors import CommandFailed
from ..ports import World
from ..system import isolate
from . import driver, reading, recall
from .reading import Gpu, Journal, Reading


def ask_smi(deadline: float, world: World) -> Reading | None:
    from . import smi  # most nodes have pynvml

    try:
        return smi.session(deadline - time.monotonic(), world)
    except CommandFailed as error:
        import shutil

        path = f"{world.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"
        if shutil.which("nvidia-smi", path=path) is None:
            return None
        return Reading("nvidia_smi", reading.UNREADABLE, error.message)


def ask_amd(
    timeout: float, world: World, required: bool = False
) -> tuple[Reading | None, float | None]:
    from . import amd  # seldom needed

    started = time.monotonic()
    answers = amd.session(timeout, world)
    if answers is None and required:
        answers = amd.absent()
    return answers, time.monotonic() - started


def ask_each(answers: Reading, timeout: float, begin: Callable[[], None]) -> None:
    """Ask about each GPU that has not answered in a child of its own, all at the same time.

    :param begin: what each child calls first.
    """
    if answers.hung_gpu is None or answers.count is None or timeout < 0.2:
        return
    missing = range(answers.hung_gpu, answers.count)
    journals = {index: Journal() for index in missing}

    def ask(index: int) -> Gpu | None:
        begin()
        return driver.single_gpu(index, journals[index])

    jobs = {str(index): (lambda index=index: ask(index)) for index in missing}
    outcomes = isolate.call_many(jobs, timeout)
    for index in missing:
        outcome = outcomes[str(index)]
        gpu = outcome.value
        if not isinstance(gpu, Gpu):
            gpu = Gpu(index)
            query = recall.of(journals[index]).hung or ""
            gpu.fail("no reply", reading.NO_REPLY, f"no reply to {query.partition(' on ')[0]}")
        answers.gpus.append(gpu)
    if all(gpu.replied for gpu in answers.gpus):  # it was only slow
        answers.hung = answers.hung_gpu = None
