# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""InfiniBand and RoCE ports."""

from __future__ import annotations

import re
from typing import Any

from .. import verdict
from ..ports import World
from ..records import NamedTuple
from ..system import procfs
from ..verdict import Check
from .options import NodeOptions
from .thresholds import fault, passed, skipped

_RATE = re.compile(r"([0-9.]+) Gb/sec")


class Port(NamedTuple):
    """An InfiniBand or RoCE port; ``rate`` is in Gbit/s, None when unknown."""

    name: str
    state: str
    physical: str
    rate: float | None
    layer: str
    downed: int | None


def observe(world: World) -> list[Port]:
    """Return the InfiniBand and RoCE ports.

    The driver asks the adapter's firmware, which may not answer: only in a child.
    """
    root = "/sys/class/infiniband"
    return [
        _port(world, f"{device}/{port}", f"{root}/{device}/ports/{port}")
        for device in procfs.directory(world, root)
        for port in procfs.directory(world, f"{root}/{device}/ports")
    ]


def _port(world: World, name: str, base: str) -> Port:
    rate = _RATE.search(procfs.text(world, f"{base}/rate") or "")
    return Port(
        name=name,
        state=(procfs.text(world, f"{base}/state") or "").rpartition(": ")[2],
        physical=(procfs.text(world, f"{base}/phys_state") or "").rpartition(": ")[2],
        rate=float(rate.group(1)) if rate else None,
        layer=procfs.text(world, f"{base}/link_layer") or "InfiniBand",
        downed=procfs.number(world, f"{base}/counters/link_downed"),
    )


def decide(ports: list[Port], options: NodeOptions) -> list[Check]:
    """Return infiniband_port for each port, and for the number that is expected."""
    expected = options.infiniband_ports
    if not ports and not expected:
        return [skipped("infiniband_port", "InfiniBand: no port")]
    checks = []
    for port in ports:
        if port.state == "ACTIVE":
            checks.append(_active_port(port, options.infiniband_rate))
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


def _active_port(port: Port, rate: float | None) -> Check:
    text = f"{port.layer} port {port.name}: active"
    if port.rate is not None:
        text += f" at {port.rate:g} Gbit/s"
    measured: dict[str, Any] = {"value": port.rate, "unit": "Gbit/s"}
    if rate is not None:
        measured["crit"] = f"{rate:g}:"
        if port.rate is not None and port.rate < rate:
            text += f", expected {rate:g}"
            return fault("infiniband_port", verdict.CRITICAL, text, port.name, "drain", **measured)
    return passed("infiniband_port", text, port.name, **measured)


def _inactive_port(port: Port, counted: bool) -> Check:
    """Return the check of a port that is down; ``counted``: the expected number decides."""
    text = f"{port.layer} port {port.name}: {port.state.lower()} ({port.physical})"
    # Switched off on purpose, counted by its number, or never cabled.
    if port.physical == "Disabled" or counted or port.downed == 0:
        return skipped("infiniband_port", text, port.name)
    return fault("infiniband_port", verdict.WARNING, text, port.name)
