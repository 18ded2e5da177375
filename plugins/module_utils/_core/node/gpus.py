# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""GPUs of a node: whether anything indicates one, and what the gpu part says about it."""

from __future__ import annotations

import os

from ..ports import World
from ..system import procfs
from ..verdict import Check
from . import hardware
from .options import NodeOptions
from .thresholds import skipped

_DEVICES = ("/dev/nvidiactl", "/proc/driver/nvidia", "/sys/module/nvidia")
_NVIDIA = "0x10de"


def checks(options: NodeOptions, world: World) -> list[Check]:
    """Ask the gpu part, which is loaded only where something indicates a GPU.

    Loading it costs more than all other checks together. Our own default temperatures count
    only where the device has no limits of its own.
    """
    if options.gpu_expected_count is None and not traces(world):
        text = "No NVIDIA GPU on this node: no device, no driver, no nvidia-smi"
        return [skipped("gpu_driver", text)]
    from ..gpu.api import gpu_checks as checks_of_gpu_part

    def chosen(name: str) -> float | None:
        value: float = getattr(options, name)
        if value == options.default(name):
            return None
        return value

    return checks_of_gpu_part(
        world,
        max(0.5, options.timeout * 0.7),
        options.gpu_expected_count,
        chosen("gpu_temperature_warning"),
        chosen("gpu_temperature_critical"),
        (options.gpu_temperature_warning, options.gpu_temperature_critical),
    )


def traces(world: World) -> bool:
    """Return whether anything here indicates an NVIDIA GPU: a device, driver, library or tool."""
    if any(os.path.exists(world.path(path)) for path in _DEVICES):
        return True
    directories = [*world.environ.get("PATH", "").split(":"), *hardware.TOOL_DIRECTORIES]
    for directory in directories:
        path = os.path.join(world.path(directory), "nvidia-smi")
        if directory.startswith("/") and os.access(path, os.X_OK):
            return True
    devices = "/sys/bus/pci/devices"
    for name in procfs.directory(world, devices):
        if procfs.text(world, f"{devices}/{name}/vendor") == _NVIDIA:
            return True
    import ctypes

    try:
        ctypes.CDLL("libnvidia-ml.so.1")  # may be anywhere the loader looks
    except OSError:
        return False
    return True
