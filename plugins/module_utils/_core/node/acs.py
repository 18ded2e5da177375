# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PCI Access Control Services: bridges above the GPUs that send peer-to-peer traffic through the
CPU.

Source: NCCL's documentation, "Troubleshooting", "PCI Access Control Services (ACS)"; the registers
are those of linux/pci_regs.h.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from .. import verdict
from ..ports import World
from ..system import procfs
from ..system.containers import in_container
from ..system.text import human_count
from ..verdict import Check
from .optional import peer_gpus
from .options import NodeOptions
from .probes import Problem
from .thresholds import fault, passed, skipped

CHECK = "pci_acs"
_DEVICES = "/sys/bus/pci/devices"
_EXTENDED = 0x100  # PCI_CFG_SPACE_SIZE: where the extended capabilities begin
_ACS = 0x0D  # PCI_EXT_CAP_ID_ACS
_CONTROL = 6  # PCI_ACS_CTRL
#: PCI_ACS_SV (source validation), PCI_ACS_RR and PCI_ACS_CR (requests and completions redirected).
_REDIRECTS = 0x01 | 0x04 | 0x08


def questions(
    world: World,
    dummy: NodeOptions,
    patience: float,  # noqa: ARG001
) -> dict[str, Callable[[], Any]]:
    """Return one question; none in a container or virtual machine, where the host decides."""
    flags = next(
        (line for line in procfs.lines(world, "/proc/cpuinfo") if line.startswith("flags")), ""
    )
    if in_container(world) or "hypervisor" in flags.split():
        return {}
    return {"": partial(observe, world)}


def observe(world: World) -> dict[str, int | None]:
    """Return the control register of each bridge above a GPU; None where it can't be read."""
    bridges: dict[str, int | None] = {}
    for gpu in peer_gpus(world):
        path = os.path.realpath(world.path(f"{_DEVICES}/{gpu.lower()}"))
        for name in path.split("/")[:-1]:
            if os.path.exists(world.path(f"{_DEVICES}/{name}/config")) and name not in bridges:
                bridges[name] = control(world, name)
    return bridges


def control(world: World, device: str) -> int | None:
    """Return the ACS control register, 0 without that capability, None when it can't be read.

    Only root may read more than the first 64 bytes.
    """
    try:
        with open(world.path(f"{_DEVICES}/{device}/config"), "rb") as stream:
            content = stream.read(4096)
    except OSError:
        return None
    if len(content) <= _EXTENDED:
        if len(content) <= 64:
            return None
        return 0
    return parse(content)


def parse(content: bytes) -> int:
    """Return the ACS control register of a configuration space, 0 without that capability."""
    place, seen = _EXTENDED, set()
    while _EXTENDED <= place <= len(content) - 8 and place not in seen:
        seen.add(place)
        (header,) = struct.unpack_from("<I", content, place)
        if header & 0xFFFF == _ACS:
            return int(struct.unpack_from("<H", content, place + _CONTROL)[0])
        place = header >> 20 & 0xFFC
    return 0


def decide(answers: Mapping[str, Any], dummy: float, options: NodeOptions) -> list[Check]:  # noqa: ARG001
    """Return pci_acs."""
    if not answers:
        return [skipped(CHECK, "PCI ACS: in a container or virtual machine the host decides")]
    bridges = answers[""]
    if isinstance(bridges, Problem):
        return [fault(CHECK, verdict.UNKNOWN, f"PCI ACS: {bridges}")]
    if any(value is None for value in bridges.values()):
        return [skipped(CHECK, "PCI ACS: only root may read the configuration of the bridges")]
    redirecting = sorted(name for name, value in bridges.items() if value & _REDIRECTS)
    if redirecting:
        count = human_count(len(redirecting), "bridge")
        verb = "redirect"
        if len(redirecting) == 1:
            verb = "redirects"
        text = (
            f"PCI ACS: {count} above the GPUs {verb} peer-to-peer traffic:"
            f" {', '.join(redirecting[:4])}"
        )
        if len(redirecting) > 4:
            text += " …"
        details = {"bridges": redirecting}
        return [fault(CHECK, verdict.WARNING, text, value=len(redirecting), details=details)]
    text = f"PCI ACS: none of {human_count(len(bridges), 'bridge')} above the GPUs redirects"
    return [passed(CHECK, text, value=0)]
