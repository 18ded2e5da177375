# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The door through which other parts check GPUs as a section of their own report."""

from __future__ import annotations

from typing import Any

from ..ports import World
from ..verdict import Check
from .driver import import_pynvml
from .facts import observe
from .options import GpuOptions
from .plan import decide
from .reading import Gpu


def gpu_checks(
    world: World,
    timeout: float,
    expected_count: int | None,
    temperature_warning: float | None,
    temperature_critical: float | None,
    default_temperatures: tuple[float, float],
) -> list[Check]:
    """Return the checks of all GPUs of this node; nothing is written.

    :param timeout: seconds for all queries to the driver.
    :param temperature_warning: core temperature in °C that the user chose, as is
        ``temperature_critical``; None where they did not.
    :param default_temperatures: (warning, critical) in °C where neither device nor user gives one.
    :raises MissingLibrary: this node shows GPUs and nothing can ask them.
    """
    given: dict[str, Any] = {
        "timeout": timeout,
        "expected_count": expected_count,
        "temperature_warning": temperature_warning,
        "temperature_critical": temperature_critical,
    }
    options = GpuOptions.from_mapping(given)
    return list(decide(options, observe(options, world), default_temperatures).checks)


def gpus_and_checks(world: World) -> tuple[list[Gpu], list[Check]]:
    """Return what the driver says of each GPU, and the checks with all limits at their defaults.

    :raises MissingLibrary: this node shows GPUs and nothing can ask them.
    """
    options = GpuOptions.from_mapping({})
    facts = observe(options, world)
    gpus = [] if facts.reading is None else list(facts.reading.gpus)
    return gpus, list(decide(options, facts).checks)


def nvml() -> Any:
    """Return NVML's library. :raises MissingLibrary: nvidia-ml-py is not installed."""
    return import_pynvml()
