# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the figures of GPUs mean beside each other: peers of one model, copies between two. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from .. import verdict
from ..system.text import human_count
from ..verdict import Check
from .facts import GpuFacts, Outcome
from .options import DiagnosticsOptions, Expected

#: So many GPUs of one model make a median that a single slow one can't move.
PEERS = 3

#: Test, its figure, what it is called, and its unit.
_COMPARED = (
    ("device_bandwidth", "rate", "copies inside the GPU", "GB/s"),
    ("host_bandwidth", "host_to_device", "copies from the host", "GB/s"),
    ("host_bandwidth", "device_to_host", "copies to the host", "GB/s"),
    ("compute", "tflops", "arithmetic", "TFLOP/s"),
)


def compared(
    gpus: Sequence[GpuFacts], outcome: Outcome, options: DiagnosticsOptions
) -> list[Check]:
    """Compare the GPUs of one model and name the slow ones."""
    checks: list[Check] = []
    for name in sorted({gpu.name for gpu in gpus}):
        same = {gpu.number for gpu in gpus if gpu.name == name}
        results = [measured for measured in outcome.gpus if measured.number in same]
        for test, key, label, unit in _COMPARED:
            rates = {
                measured.number: measured.figures[test][key]
                for measured in results
                if test in measured.figures
            }
            checks += slow(rates, label, unit, options.tolerance)
    return checks


def slow(
    rates: Mapping[int, float],
    label: str,
    unit: str,
    tolerance: float,
) -> list[Check]:
    if len(rates) < PEERS:
        return []
    median = statistics.median(rates.values())
    limit = median * (1 - tolerance / 100)
    return [
        Check(
            "gpu_test_peers",
            verdict.WARNING,
            f"GPU {index}: {label} {rate:g} {unit}, its {len(rates) - 1} peers have a median of"
            f" {median:g}",
            subject=f"GPU {index}",
            value=rate,
            unit=unit,
            warn=round(limit, 1),
            threshold_source="peers",
            action="inspect",
            domain="node",
        )
        for index, rate in rates.items()
        if rate < limit
    ]


def copies(outcome: Outcome, expected: Expected, options: DiagnosticsOptions) -> list[Check]:
    checks: list[Check] = []
    if outcome.peer_failure is not None:
        failure = outcome.peer_failure
        action = "inspect"
        if failure.stuck:
            action = "reboot"
        checks.append(
            Check(
                "gpu_test_peer",
                verdict.CRITICAL,
                f"Copies between GPUs: {failure.test}: {failure.text}",
                subject=failure.test,
                action=action,
                domain="node",
            )
        )
    typical = {
        direct: statistics.median(
            [pair["rate"] for pair in outcome.pairs if pair["direct"] == direct] or [0.0]
        )
        for direct in (True, False)
    }
    checks += [
        pair_check(pair, typical[pair["direct"]], expected, options) for pair in outcome.pairs
    ]
    return checks


def pair_check(
    pair: Mapping[str, Any], typical: float, expected: Expected, options: DiagnosticsOptions
) -> Check:
    subject = f"GPU {pair['source']} to GPU {pair['target']}"
    way = "through the host"
    if pair["direct"]:
        way = "directly"
    message = f"{subject}: {pair['rate']:g} GB/s {way}"
    if pair["mismatches"]:
        message = f"{subject}: {human_count(pair['mismatches'], 'word')} arrived wrong ({way})"
        return Check(
            "gpu_test_peer",
            verdict.CRITICAL,
            message,
            subject=subject,
            value=pair["mismatches"],
            action="drain",
            domain="node",
        )
    base, source = typical, "peers"
    if expected.peer is not None:
        base, source = expected.peer, "user"
    limit = round(base * (1 - options.tolerance / 100), 1)
    status, action = verdict.PASS, "none"
    if pair["rate"] < limit:
        status, action = verdict.WARNING, "inspect"
        message += f", at least {limit:g} expected"
    return Check(
        "gpu_test_peer",
        status,
        message,
        subject=subject,
        value=pair["rate"],
        unit="GB/s",
        warn=limit,
        threshold_source=source,
        action=action,
        domain="node",
    )
