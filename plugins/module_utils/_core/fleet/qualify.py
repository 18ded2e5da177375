# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether nodes may go back into service: a verdict for each node and each of its GPUs. Pure.

A GPU is compared with all GPUs of its model in this run: one slow GPU slows a whole job down.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from .. import verdict
from ..system.text import human_count
from .stats import median

#: So many GPUs of one model make a median that a single slow one can't move.
PEERS = 3
#: The parts of a node's result, in the order in which they run.
PARTS = ("health", "gpu", "diagnostics")
#: Test, figure, what it is called, unit.
FIGURES = (
    ("device_bandwidth", "rate", "copies inside the GPU", "GB/s"),
    ("host_bandwidth", "host_to_device", "copies from the host", "GB/s"),
    ("host_bandwidth", "device_to_host", "copies to the host", "GB/s"),
    ("compute", "tflops", "arithmetic", "TFLOP/s"),
)

#: Checks of the diagnostics that find a GPU slow: against the data sheet or the user's figures, its
#: peers in the node, its own record.
SLOW_CHECKS = frozenset(
    {
        "gpu_test_device_bandwidth",
        "gpu_test_host_to_device",
        "gpu_test_device_to_host",
        "gpu_test_compute",
        "gpu_test_peers",
        "gpu_test_record",
    }
)

#: Result of a module.
Result = Mapping[str, Any]


class Rate(NamedTuple):
    """A figure of one GPU."""

    host: str
    number: int
    model: str
    figure: str
    value: float


def rates(host: str, diagnostics: Result) -> list[Rate]:
    """Return all figures that a node's diagnostics measured."""
    measured = (diagnostics.get("measured") or {}).get("gpus") or {}
    figures = []
    for gpu in diagnostics.get("gpus") or []:
        tests = measured.get(str(gpu["id"])) or {}
        for test, figure, dummy, dummy in FIGURES:
            value = (tests.get(test) or {}).get(figure)
            if value is not None:
                name = f"{test}.{figure}"
                figures.append(Rate(host, int(gpu["id"]), str(gpu["name"]), name, float(value)))
    return figures


def slow(
    results: Mapping[str, Mapping[str, Result]], tolerance: float
) -> dict[tuple[str, int], list[str]]:
    """Return why GPUs are slow, by host and number: those below the median of their model."""
    by_kind: dict[tuple[str, str], list[Rate]] = {}
    for host, parts in results.items():
        for rate in rates(host, parts.get("diagnostics") or {}):
            by_kind.setdefault((rate.model, rate.figure), []).append(rate)
    reasons: dict[tuple[str, int], list[str]] = {}
    labels = {f"{test}.{figure}": (label, unit) for test, figure, label, unit in FIGURES}
    for (dummy, figure), same in by_kind.items():
        usual = median([rate.value for rate in same])
        if len(same) < PEERS or not usual:
            continue
        label, unit = labels[figure]
        for rate in same:
            if rate.value < usual * (1 - tolerance / 100):
                share = 100 * rate.value / usual
                text = (
                    f"slow: {label} {rate.value:g} {unit}, {share:.0f} % of the median {usual:g} of"
                    f" {len(same)} GPUs"
                )
                reasons.setdefault((rate.host, rate.number), []).append(text)
    return reasons


def qualify(
    results: Mapping[str, Mapping[str, Result]], tolerance: float = 10.0
) -> dict[str, dict[str, Any]]:
    """Return the verdict of each host.

    :param results: host -> ``health``, ``gpu``, ``diagnostics`` -> result of the module. A part
        that is missing was not asked for; one that failed without a verdict does not qualify.
    :param tolerance: percent by which a GPU may stay below the median of its model.
    """
    slow_gpus = slow(results, tolerance)
    return {host: _host(host, parts, slow_gpus) for host, parts in results.items()}


def _host(
    host: str, parts: Mapping[str, Result], slow_gpus: Mapping[tuple[str, int], list[str]]
) -> dict[str, Any]:
    reasons, statuses = [], []
    for part in PARTS:
        result = parts.get(part)
        if result is None or result.get("skipped"):
            continue
        if "status" not in result or "checks" not in result:
            why = result.get("msg") or "it gave no verdict"
            reasons.append(f"{part}: not checked: {why}")
            statuses.append(verdict.CRITICAL)
            continue
        statuses.append(str(result["status"]))
        reasons += [
            f"{part}: {check['check']}: {check['message']}"
            for check in result["checks"]
            if check["status"] in (verdict.CRITICAL, verdict.UNKNOWN)
        ]
    gpus = _gpus(host, parts, slow_gpus)
    statuses += [gpu["status"] for gpu in gpus]
    reasons += [f"GPU {gpu['id']}: {text}" for gpu in gpus for text in gpu["slow"]]
    status = verdict.worst(statuses)
    slow_count = sum(bool(gpu["slow"]) for gpu in gpus)
    qualified = bool(statuses) and status != verdict.CRITICAL and not slow_count
    summary = "qualified" if qualified else f"not qualified: {human_count(len(reasons), 'reason')}"
    if not statuses:
        summary, reasons = "not qualified: nothing was checked", ["nothing was checked"]
    return {
        "host": host,
        "qualified": qualified,
        "status": status,
        "summary": summary,
        "reasons": reasons,
        "slow_gpus": slow_count,
        "gpus": gpus,
    }


def _gpus(
    host: str, parts: Mapping[str, Result], slow_gpus: Mapping[tuple[str, int], list[str]]
) -> list[dict[str, Any]]:
    """Return the verdict of each GPU: the worst of its checks in all parts, and why it is slow."""
    known: dict[int, dict[str, Any]] = {}
    for part in ("gpu", "diagnostics"):
        for gpu in (parts.get(part) or {}).get("gpus") or []:
            entry = known.setdefault(int(gpu["id"]), {"id": int(gpu["id"])})
            for key in ("name", "uuid", "serial", "bus_id"):
                entry[key] = entry.get(key) or gpu.get(key)
    for number, entry in known.items():
        subject = f"GPU {number}"
        checks = [
            check
            for part in PARTS
            for check in (parts.get(part) or {}).get("checks") or []
            if check.get("subject") == subject
        ]
        entry["slow"] = slow_gpus.get((host, number), []) + [
            f"slow: {check['message'].partition(': ')[2]}"
            for check in checks
            if check["check"] in SLOW_CHECKS and check["status"] == verdict.WARNING
        ]
        statuses = [check["status"] for check in checks] + [verdict.WARNING] * bool(entry["slow"])
        entry["status"] = verdict.worst(statuses)
        entry["problems"] = [
            f"{check['check']}: {check['message']}"
            for check in checks
            if check["status"] not in (verdict.PASS, verdict.SKIPPED)
        ]
        entry["qualified"] = entry["status"] != verdict.CRITICAL and not entry["slow"]
    return [known[number] for number in sorted(known)]
