# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Error counters of InfiniBand ports, as errors per day since boot."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from .. import verdict
from ..ports import World
from ..system import boot, procfs
from ..verdict import Check
from . import thresholds
from .options import NodeOptions
from .probes import Problem
from .thresholds import fault, skipped

CHECK = "infiniband_errors"
#: Of ``/sys/class/infiniband/*/ports/*/counters``: what shows a bad cable, module or port
#: (Documentation/ABI/stable/sysfs-class-infiniband). Discards show congestion and do not count.
COUNTERS = (
    "symbol_error",
    "link_error_recovery",
    "link_downed",
    "port_rcv_errors",
    "port_rcv_remote_physical_errors",
    "port_rcv_switch_relay_errors",
    "local_link_integrity_errors",
    "excessive_buffer_overrun_errors",
    "VL15_dropped",
)
_ROOT = "/sys/class/infiniband"


def questions(
    world: World,
    dummy: NodeOptions,
    patience: float,  # noqa: ARG001
) -> dict[str, Callable[[], Any]]:
    """Return one question: the driver asks the adapter's firmware, which may not answer."""
    return {"": partial(observe, world)}


def observe(world: World) -> tuple[float, dict[str, dict[str, int]]]:
    """Return the days since boot, and by port the counters that are not zero."""
    ports = {}
    for device in procfs.directory(world, _ROOT):
        for port in procfs.directory(world, f"{_ROOT}/{device}/ports"):
            base = f"{_ROOT}/{device}/ports/{port}"
            if procfs.text(world, f"{base}/link_layer") == "Ethernet":
                continue  # its errors are those of the network interface
            counts = {name: procfs.number(world, f"{base}/counters/{name}") for name in COUNTERS}
            ports[f"{device}/{port}"] = {name: count for name, count in counts.items() if count}
    return (boot.uptime(world) or 86400.0) / 86400, ports


def decide(answers: Mapping[str, Any], dummy: float, options: NodeOptions) -> list[Check]:
    """Return infiniband_errors for each port."""
    response = answers.get("", Problem("not asked"))
    if isinstance(response, Problem):
        return [fault(CHECK, verdict.UNKNOWN, f"InfiniBand errors: {response}")]
    days, ports = response
    if not ports:
        return [skipped(CHECK, "InfiniBand errors: no InfiniBand port")]
    return [_port(name, counts, days, options) for name, counts in ports.items()]


def _port(name: str, counts: dict[str, int], days: float, options: NodeOptions) -> Check:
    per_day = sum(counts.values()) / max(1.0, days)
    text = f"InfiniBand errors on {name}: {per_day:.1f} per day"
    if counts:
        text += " (" + ", ".join(f"{counter} {count}" for counter, count in counts.items()) + ")"
    limits = options.limits_in_force[CHECK]
    return thresholds.evaluate(
        limits, CHECK, per_day, text, subject=name, details=dict(counts) or None
    )
