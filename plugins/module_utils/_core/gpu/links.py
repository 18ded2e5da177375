# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks of NVLink, the NVLink fabric and PCI Express. Pure."""

from __future__ import annotations

import re

from ..verdict import CRITICAL, PASS, WARNING
from .case import Case, Finding
from .reading import Gpu, NvLink

#: From this utilisation in percent on a GPU counts as busy, at P-states up to this one.
BUSY_UTILISATION = 10
BUSY_PSTATE = 4

#: SXM boards, whose NVLinks run through the board; bridges of PCIe cards are optional.
_SXM = r"\bSXM|\b(?:H100 80GB HBM3|H800|H200|H20|B[123]00|GB[23]00)\b"
_BRIDGED = r"\b(?:PCIe|NVL)\b"


def busy(gpu: Gpu) -> bool:
    """Return whether a GPU works, by its load: clock reasons say too little on some cards."""
    if gpu.pstate is not None and gpu.pstate > BUSY_PSTATE:
        return False
    if gpu.util_gpu is not None:
        return gpu.util_gpu >= BUSY_UTILISATION
    return bool(gpu.processes)


def on_sxm_board(gpu: Gpu) -> bool:
    """Return whether NVLinks of this GPU are part of the board, not of an optional bridge."""
    model = gpu.name or ""
    return gpu.fabric is not None or bool(re.search(_SXM, model) and not re.search(_BRIDGED, model))


def _all_down(nvlink: NvLink) -> bool:
    return len(nvlink.down) == nvlink.links


def nvlinks(case: Case) -> Finding | None:
    nvlink = case.gpu.nvlink
    if nvlink is None:
        return None
    if not nvlink.down:
        return Finding(PASS, f"all {nvlink.links} NVLinks up", value=0)
    peers = [gpu for gpu in case.others if gpu.nvlink and gpu.name == case.gpu.name]
    if not _all_down(nvlink):
        numbers = ", ".join(str(link) for link in nvlink.down)
        text = f"NVLink {numbers} of {nvlink.links} down"
    elif not all(_all_down(gpu.nvlink) for gpu in peers if gpu.nvlink):
        text = f"all {nvlink.links} NVLinks down, other GPUs have theirs"
    elif len(peers) > 1 and on_sxm_board(case.gpu):
        text = f"all {nvlink.links} NVLinks down on all GPUs of the board"
    else:  # a card without bridge, or a virtual machine with a single GPU of a board
        return None
    return Finding(CRITICAL, text, "inspect", len(nvlink.down), crit=0, threshold_source="device")


def fabric_registration(case: Case) -> Finding | None:
    fabric = case.gpu.fabric
    if fabric is None:
        return None
    if fabric.state != 3:
        text = "not yet registered with the NVLink fabric: is the fabric manager running?"
        return Finding(WARNING, text, "inspect", threshold_source="device")
    if fabric.status != 0:
        text = f"registration with the NVLink fabric failed (NVML code {fabric.status})"
        return Finding(CRITICAL, text, "inspect", fabric.status, threshold_source="device")
    return Finding(PASS, "registered with the NVLink fabric")


def pcie_link(case: Case) -> Finding | None:
    pcie = case.gpu.pcie
    problems = []
    if pcie.width and pcie.width_max and pcie.width < pcie.width_max:
        problems.append(f"width x{pcie.width} instead of x{pcie.width_max}")
    # Idle GPUs lower the generation to save power.
    if pcie.gen and pcie.gen_max and pcie.gen < pcie.gen_max and busy(case.gpu):
        problems.append(f"generation {pcie.gen} instead of {pcie.gen_max}")
    if problems:
        text = f"PCIe {' and '.join(problems)}"
        return Finding(WARNING, text, "inspect", threshold_source="device")
    if not pcie.width or not pcie.width_max:
        return None
    text = f"PCIe x{pcie.width} of x{pcie.width_max}"
    return Finding(PASS, text + (f", generation {pcie.gen}" if pcie.gen else ""))
