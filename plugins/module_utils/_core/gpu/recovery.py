# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The recovery actions that the driver asks for: NVML field 230, the target of Xid 154."""

from __future__ import annotations

from ..records import NamedTuple
from ..registry import Registry
from ..verdict import CRITICAL, PASS, WARNING


class Recovery(NamedTuple):
    """One action: its number in branch 615 (nvmlDeviceGpuRecoveryAction_t), and its meaning."""

    name: str
    number: int
    level: str
    action: str
    text: str


RECOVERIES = Registry(
    "recovery action",
    (
        Recovery("none", 0, PASS, "none", "none"),
        Recovery("gpu_reset", 1, CRITICAL, "reset_gpu", "reset the GPU"),
        Recovery("node_reboot", 2, CRITICAL, "reboot", "reboot the node"),
        Recovery("drain_p2p", 3, WARNING, "drain", "drain peer-to-peer work"),
        Recovery("drain_and_reset", 4, CRITICAL, "drain", "drain the node and reset the GPU"),
        Recovery("recover_imex_domain", 5, CRITICAL, "inspect", "recover the IMEX domain"),
        Recovery("bus_reset", 6, CRITICAL, "reboot", "reset the GPU's bus"),
        Recovery("system_reboot", 7, CRITICAL, "reboot", "reboot the system"),
    ),
    required=("number", "level", "action", "text"),
)
_BY_NUMBER = {entry.number: entry for entry in RECOVERIES}
#: Of these branches on, number 5 is the IMEX domain (nvidia-ml-py 13.615); in branch 580 it is the
#: bus reset (nvidia-ml-py 13.580), and 590 and 595 define neither.
_IMEX_BRANCH = 600


def branch(driver_version: str | None) -> int | None:
    """Return the branch of a driver version (``580.95.05`` is of 580), None when unknown."""
    number = (driver_version or "").partition(".")[0]
    if number.isdecimal():
        return int(number)
    return None


def recovery(number: int, driver_version: str | None) -> Recovery:
    """Return what a number means to this driver; an unknown one is critical."""
    release = branch(driver_version)
    if number == 5 and release is None:
        text = "recover the IMEX domain or reset the GPU's bus, depending on the driver's branch"
        return Recovery("number_5", 5, CRITICAL, "inspect", text)
    if number == 5 and release is not None and release < _IMEX_BRANCH:
        return RECOVERIES["bus_reset"]
    unknown = Recovery(f"number_{number}", number, CRITICAL, "inspect", f"unknown action {number}")
    return _BY_NUMBER.get(number, unknown)
