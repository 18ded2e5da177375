# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts that are missing: no duration, no number of GPUs, no name."""

from __future__ import annotations

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.gpu import plan
from ansible_collections.mlops.fleet.plugins.module_utils._core.gpu.facts import Facts
from ansible_collections.mlops.fleet.plugins.module_utils._core.gpu.options import GpuOptions
from ansible_collections.mlops.fleet.plugins.module_utils._core.gpu.reading import Gpu, Reading


def check(name, read, **facts):
    checks = plan.decide(GpuOptions.from_mapping({}), Facts(read, **facts)).checks
    return next(check for check in checks if check.check == name)


def gpu(index, name="NVIDIA L40S", vbios="1"):
    return Gpu(index, name=name, bus_id=f"00000000:4{index}:00.0", vbios=vbios)


@pytest.mark.parametrize(
    ("read", "duration", "expected"),
    [
        (Reading(gpus=[gpu(0)], count=1), 1.0, 1000.0),
        (Reading(gpus=[gpu(0)], count=1), None, None),
        (None, 1.0, None),
    ],
)
def test_the_duration_of_the_driver(read, duration, expected):
    assert check("gpu_driver", read, duration=duration).duration_ms == expected


def test_a_driver_that_hung_before_it_said_how_many():
    read = Reading(hung="nvmlDeviceGetCount", hung_gpu=0, count=None)
    assert check("gpu_driver", read).message.endswith("nvmlDeviceGetCount")


@pytest.mark.parametrize(
    ("second", "status"),
    [
        (gpu(1, vbios="2"), "warning"),
        (gpu(1, vbios=None), "pass"),
        (gpu(1, name=None, vbios="2"), "pass"),
        (gpu(1, name="NVIDIA L4", vbios="2"), "pass"),
    ],
)
def test_only_gpus_with_a_known_model_and_vbios_are_compared(second, status):
    assert check("gpu_vbios", Reading(gpus=[gpu(0), gpu(2), second], count=3)).status == status
