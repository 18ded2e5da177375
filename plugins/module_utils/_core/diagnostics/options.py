# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of the GPU diagnostics, and what each level does."""

from __future__ import annotations

from typing import NamedTuple

from ..options import OptionSet, option
from ..registry import Registry


class Level(NamedTuple):
    """How thorough a run is. Times are in seconds, sizes in bytes.

    :param memory_share: share of the free memory that is written and read, 0 to 0.95.
    :param patterns: how often the memory is written with another pattern and read back.
    :param compute: how long the arithmetic runs; a soak gives its own time.
    :param copy: bytes of each copy. :param repeats: copies that are timed together.
    :param timeout: time for everything, unless the caller gives one.
    """

    name: str
    documentation: str
    memory_share: float
    patterns: int
    compute: float
    copy: int
    repeats: int
    timeout: float


LEVELS: Registry[Level] = Registry(
    "level",
    (
        Level("quick", "At most 20 seconds for eight GPUs.", 0.5, 2, 2.0, 256 << 20, 5, 60.0),
        Level("standard", "At most three minutes.", 0.95, 8, 20.0, 1 << 30, 10, 300.0),
        Level("soak", "As long as soak_time says.", 0.95, 8, 600.0, 1 << 30, 10, 300.0),
    ),
    required=("documentation", "memory_share", "patterns", "compute", "copy", "repeats", "timeout"),
)
#: What can be tested, in the order in which it runs. Copies are timed before the memory is filled:
#: the driver clears freed memory in the background, which made copies on an H100 15 % slower.
TESTS = ("device_bandwidth", "host_bandwidth", "memory", "compute", "peer")
#: Share of the device's memory that always stays free.
RESERVE = 0.05


class Expected(OptionSet):
    """Figures that each GPU must reach."""

    device_bandwidth: float | None = option(
        type="float", minimum=0, help="Copies inside the GPU, GB/s read and written together."
    )
    host_to_device: float | None = option(
        type="float", minimum=0, help="Copies from page-locked host memory, GB/s."
    )
    device_to_host: float | None = option(
        type="float", minimum=0, help="Copies to page-locked host memory, GB/s."
    )
    peer: float | None = option(type="float", minimum=0, help="Copies to another GPU, GB/s.")
    compute: float | None = option(
        type="float", minimum=0, help="Single-precision arithmetic of the test kernel, TFLOP/s."
    )


class DiagnosticsOptions(OptionSet):
    """Checked options of the GPU diagnostics; documented in the module gpu_diagnostics."""

    level: str = option(choices=LEVELS.names, default="quick", help="How thorough the tests are.")
    tests: list[str] = option(
        type="list", elements="str", choices=TESTS, default=list(TESTS), help="Tests to run."
    )
    engine: str = option(
        choices=("builtin", "dcgm", "nvbandwidth"),
        default="builtin",
        help="What tests the GPUs: our own tests, or a program of NVIDIA that is installed.",
    )
    gpus: list[int] | None = option(
        type="list", elements="int", minimum=0, help="Numbers of the GPUs to test; all by default."
    )
    when_busy: str = option(
        choices=("fail", "skip"), default="fail", help="What to do when a process uses a GPU."
    )
    expected: Expected | None = option(
        type="dict", suboptions=Expected, help="Figures that each GPU must reach."
    )
    tolerance: float = option(
        type="float",
        default=10.0,
        minimum=0,
        maximum=90,
        help="Percent by which a GPU may stay below the expected figure or below its peers.",
    )
    soak_time: int = option(
        type="int", default=600, minimum=10, maximum=86400, help="Seconds of a soak."
    )
    state_file: str | None = option(
        type="path", help="File in which the figures of each GPU are remembered."
    )
    timeout: float | None = option(
        type="float", minimum=1, help="Seconds for everything; the level's own by default."
    )

    fail_on: str = option(
        choices=("critical", "warning", "never"),
        default="never",
        help="Minimum verdict that fails the task.",
    )

    @property
    def effort(self) -> Level:
        """The level with the times that were given."""
        level = LEVELS[self.level]
        if level.name == "soak":
            level = level._replace(
                compute=float(self.soak_time), timeout=self.soak_time + level.timeout
            )
        if self.timeout is None:
            return level
        return level._replace(timeout=self.timeout)
