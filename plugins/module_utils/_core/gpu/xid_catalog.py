# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What NVIDIA's driver errors (Xid) mean, and the failures that it logs without a number.

Levels follow the immediate actions of NVIDIA's "Analyzing Xid Errors with the Xid Catalog"
(https://docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html), not one of the tools that
contradict it: 63, 121 and others are informational there, 109 needs a reset. A number that is not
in the table is a warning, never silent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Optional

from ..records import NamedTuple
from ..registry import Registry
from ..verdict import CRITICAL, PASS, WARNING


class Xid(NamedTuple):
    """What an error means: level, action, a short text, whether repetition makes it a warning.

    ``cured_by_reset``: a reset of the GPU or a reload of the driver ends it. ``number`` is None for
    failures that the driver logs without one.
    """

    name: str
    number: Optional[int]
    level: str
    action: str
    text: str
    cured_by_reset: bool
    repeats: bool = False


CATALOG: Registry[Xid] = Registry("Xid", required=("level", "action", "text", "cured_by_reset"))


def _register(
    level: str, action: str, texts: Mapping[int, str], cured: bool, repeats: bool = False
) -> None:
    for number, text in sorted(texts.items()):
        CATALOG.add(Xid(str(number), number, level, action, text, cured, repeats))


def _numbers(text: str, *ranges: tuple[int, int]) -> dict[int, str]:
    return {number: text for first, last in ranges for number in range(first, last + 1)}


_register(
    PASS,
    "restart_app",
    {
        **_numbers(
            "application error",
            (11, 11),
            (25, 25),
            (32, 32),
            (39, 41),
            (60, 60),
            (68, 72),
            (75, 77),
            (80, 80),
            (82, 86),
            (88, 89),
            (96, 105),
            (126, 135),
            (139, 139),
        ),
        8: "GPU stopped processing",
        13: "graphics engine exception",
        31: "GPU memory page fault",
    },
    cured=True,
    repeats=True,
)
_register(WARNING, "restart_app", {94: "contained memory error"}, cured=True, repeats=True)
_register(
    PASS,
    "none",
    {
        **_numbers(
            "informational",
            (14, 14),
            (37, 38),
            (44, 44),
            (66, 67),
            (93, 93),
            (106, 108),
            (137, 137),
            (141, 141),
            (152, 153),
            (160, 161),
        ),
        43: "GPU stopped processing",
        45: "preemptive cleanup",
        63: "row remapped",
    },
    cured=False,
)
_register(
    WARNING,
    "inspect",
    {
        92: "high rate of corrected memory errors",
        121: "corrected C2C link error",
        157: "informational",
        78: "vGPU start error",
        159: "CHI non-data error",
        **_numbers("no action published", (162, 166), (168, 168), (170, 170)),
    },
    cured=False,
)
_register(WARNING, "inspect", _numbers("NVLink5 error", (144, 150)), cured=True)
_register(WARNING, "reset_gpu", {154: "recovery action changed"}, cured=True)
_register(CRITICAL, "reboot", {79: "GPU has fallen off the bus"}, cured=False)
_register(CRITICAL, "reset_gpu", {64: "row remapping failure"}, cured=False)
_register(
    CRITICAL,
    "reset_gpu",
    {
        46: "GPU stopped answering",
        48: "double-bit ECC error",
        62: "PMU halt",
        95: "uncontained memory error",
        109: "context switch timeout",
        110: "security fault",
        119: "GSP RPC timeout",
        120: "GSP error",
        136: "link training failed",
        140: "unrecovered ECC error",
        143: "GPU initialization failed",
        155: "NVLink software error",
        156: "resource retirement",
        158: "fatal timeout",
    },
    cured=True,
)
_register(CRITICAL, "drain", {151: "key rotation error"}, cured=False)
_register(
    CRITICAL,
    "inspect",
    {
        54: "auxiliary power not connected",
        74: "NVLink error",
        167: "PCIe fatal timeout",
        169: "SEC2 halt",
        171: "uncorrectable DRAM error",
        172: "uncorrectable SRAM error",
        173: "C2C link error",
    },
    cured=False,
)


class Unnumbered(NamedTuple):
    """A failure that the driver logs without an Xid, and how its message reads."""

    name: str
    pattern: str
    meaning: Xid


def _unnumbered(name: str, pattern: str, text: str) -> Unnumbered:
    meaning = Xid(name, None, CRITICAL, "reset_gpu", text, cured_by_reset=True)
    return Unnumbered(name, pattern, meaning)


UNNUMBERED = Registry(
    "failure without Xid",
    (
        _unnumbered("rm_init_failed", r"\bRmInitAdapter failed\b", "GPU initialization failed"),
        _unnumbered(
            "bad_state",
            r"\bGPU is (?:likely )?in (?:a )?bad state\b|\bWPR2 already up\b",
            "GPU in a bad state, may need to be reset",
        ),
        _unnumbered(
            "gsp_timeout",
            r"RecvPoll:? .*tim(?:ed ?|e-?)out|\bGSP RPC timeout\b",
            "GSP RPC timeout",
        ),
    ),
    required=("pattern", "meaning"),
)
