# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""InfiniBand and RoCE ports.

Without an expected rate a port is slow only where that is certain: it runs on one lane of four, it
is slower than another active port of the same card, or the card has fewer PCIe lanes, or slower
ones, than it and its slot could use.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

from .. import verdict
from ..ports import World
from ..records import NamedTuple
from ..system import procfs
from ..verdict import Check
from .options import NodeOptions
from .thresholds import fault, passed, skipped

_RATE = re.compile(r"([0-9.]+) Gb/sec(?: \(([0-9]+)X)?")
_FUNCTION = re.compile(r"([0-9a-f:]+)\.[0-7]")


class Port(NamedTuple):
    """An InfiniBand or RoCE port; ``rate`` is in Gbit/s, None when unknown.

    ``lanes`` are those of its cable. ``card`` is the PCI address of the card without the function,
    ``slot`` says what of its PCIe connection is slower than possible.
    """

    name: str
    state: str
    physical: str
    rate: float | None
    layer: str
    downed: int | None
    lanes: int | None = None
    card: str = ""
    slot: str = ""


def observe(world: World) -> list[Port]:
    """Return the InfiniBand and RoCE ports.

    The driver asks the adapter's firmware, which may not answer: only in a child.
    """
    root = "/sys/class/infiniband"
    ports = []
    for device in procfs.directory(world, root):
        path = os.path.realpath(world.path(f"{root}/{device}/device"))
        function = _FUNCTION.fullmatch(os.path.basename(path))
        for port in procfs.directory(world, f"{root}/{device}/ports"):
            read = _port(world, f"{device}/{port}", f"{root}/{device}/ports/{port}")
            if function:
                read = read._replace(card=function[1], slot=_slower_slot(path))
            ports.append(read)
    return ports


def _slower_slot(path: str) -> str:
    """Return what of a PCIe connection is slower than both of its ends, empty when nothing is.

    :param path: directory of the device in sysfs, below that of the bridge above it.
    """
    above = os.path.dirname(path)
    for what, unit in (("width", "lanes"), ("speed", "GT/s")):
        present = _first_number(f"{path}/current_link_{what}")
        possible = min(_first_number(f"{end}/max_link_{what}") for end in (path, above))
        if 0 < present < possible:
            return f"{present:g} of {possible:g} {unit} of its PCIe slot"
    return ""


def _first_number(path: str) -> float:
    """Return the number that a file of sysfs begins with, 0 when there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return float(stream.read().split()[0])
    except (OSError, ValueError, IndexError):
        return 0.0


def _port(world: World, name: str, base: str) -> Port:
    rate = _RATE.search(procfs.text(world, f"{base}/rate") or "")
    return Port(
        name=name,
        state=(procfs.text(world, f"{base}/state") or "").rpartition(": ")[2],
        physical=(procfs.text(world, f"{base}/phys_state") or "").rpartition(": ")[2],
        rate=float(rate.group(1)) if rate else None,
        layer=procfs.text(world, f"{base}/link_layer") or "InfiniBand",
        downed=procfs.number(world, f"{base}/counters/link_downed"),
        lanes=int(rate.group(2)) if rate and rate.group(2) else None,
    )


def decide(ports: list[Port], options: NodeOptions) -> list[Check]:
    """Return infiniband_port for each port, and for the number that is expected."""
    expected = options.infiniband_ports
    if not ports and not expected:
        return [skipped("infiniband_port", "InfiniBand: no port")]
    checks = []
    for port in ports:
        if port.state == "ACTIVE":
            checks.append(_active_port(port, options.infiniband_rate, _slow(port, ports)))
        else:
            checks.append(_inactive_port(port, expected is not None))
    if expected is not None:
        active = sum(1 for port in ports if port.state == "ACTIVE")
        text = f"InfiniBand: {active} of {expected} expected ports active"
        measured: dict[str, Any] = {"value": active, "crit": f"{expected}:"}
        if active >= expected:
            checks.append(passed("infiniband_port", text, **measured))
        else:
            checks.append(
                fault("infiniband_port", verdict.CRITICAL, text, action="drain", **measured)
            )
    return checks


def _slow(port: Port, ports: Sequence[Port]) -> str:
    """Return why an active port is certainly slower than it could be, empty when it is not."""
    if port.layer == "InfiniBand":
        if port.lanes == 1:
            return "on 1 of 4 lanes of its cable"
        others = [
            other.rate
            for other in ports
            if other.card == port.card and other.layer == port.layer and other.state == "ACTIVE"
        ]
        fastest = max((rate or 0.0 for rate in others), default=0.0)
        if port.card and port.rate is not None and port.rate < fastest:
            return f"another port of its card is active at {fastest:g}"
    if port.slot:
        return f"with {port.slot}"
    return ""


def _active_port(port: Port, rate: float | None, slow: str) -> Check:
    text = f"{port.layer} port {port.name}: active"
    if port.rate is not None:
        text += f" at {port.rate:g} Gbit/s"
    measured: dict[str, Any] = {"value": port.rate, "unit": "Gbit/s"}
    if rate is not None:
        measured["crit"] = f"{rate:g}:"
        if port.rate is not None and port.rate < rate:
            text += f", expected {rate:g}"
            return fault("infiniband_port", verdict.CRITICAL, text, port.name, "drain", **measured)
    elif slow:
        text += f", {slow}"
        return fault("infiniband_port", verdict.WARNING, text, port.name, **measured)
    return passed("infiniband_port", text, port.name, **measured)


def _inactive_port(port: Port, counted: bool) -> Check:
    """Return the check of a port that is down; ``counted``: the expected number decides."""
    text = f"{port.layer} port {port.name}: {port.state.lower()} ({port.physical})"
    # Switched off on purpose, counted by its number, or never cabled.
    if port.physical == "Disabled" or counted or port.downed == 0:
        return skipped("infiniband_port", text, port.name)
    return fault("infiniband_port", verdict.WARNING, text, port.name)
