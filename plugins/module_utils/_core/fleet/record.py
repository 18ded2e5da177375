# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is kept of a run beside the report itself: faults, checks, GPUs and numbers for trends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .. import verdict
from . import faults as fleet_faults
from . import hardware, history
from .faults import clean, mapping
from .report import Lookup, Result
from .stats import median
from .storage import age, disks

#: Most checks, GPUs and removed paths that are kept of a host.
CHECKS = 400
GPUS = 64
REMOVED = 5
#: Readings of a GPU that are kept, as gpu_health names them.
GPU_NUMBERS = (
    "id",
    "temp",
    "temp_memory",
    "margin",
    "util_gpu",
    "mem_used",
    "mem_total",
    "power_draw",
    "power_limit",
)


def extend(
    report: dict[str, Any],
    lookup: Lookup,
    groups: Mapping[str, Iterable[str]] | None = None,
) -> dict[str, Any]:
    """Make a report (``assemble``) a run of the history: add what pages and comparisons need.

    :param groups: inventory group to its hosts.
    """
    memberships: dict[str, list[str]] = {}
    for group, hosts in sorted((groups or {}).items()):
        if group not in ("all", "ungrouped"):
            for host in hosts:
                memberships.setdefault(str(host), []).append(clean(group, 100))
    every_fault: list[dict[str, Any]] = []
    for entry in report["hosts"]:
        host = entry["host"]
        results = {phase: lookup(host, phase) or {} for phase in report["phases"]}
        entry["faults"] = fleet_faults.of_host(host, entry, results)
        entry["groups"] = memberships.get(host, [])
        entry["checks"] = _checks(results)
        entry["devices"] = _devices(results.get("gpu", {}))
        entry["software"] = _software(results)
        facts = hardware.facts(results.get("health", {}).get("hardware"))
        if facts:
            entry["hardware"] = facts
        entry["copies"] = _copies(results.get("backup", {}))
        entry["protection"] = _protection(results.get("backup", {}))
        entry["restore_proof"] = _restore_proof(results.get("backup", {}))
        entry["removed"] = _removed(results.get("cleanup", {}))
        entry["disks"] = disks(results.get("health", {}))
        if any(
            phase["phase"] == "backup" and phase["status"] == "pass" for phase in entry["phases"]
        ):
            entry["backed_up"] = report["timestamp"]
        every_fault += entry["faults"]
    report["version"] = history.VERSION
    report["causes"] = fleet_faults.causes(every_fault)
    report["metrics"] = metrics(report)
    return report


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if abs(value) < 1e18:
        return value
    return None


def _checks(results: Mapping[str, Result]) -> list[list[str]]:
    """Return the checks of all phases as rows: phase, check, subject, status, message."""
    rows = [
        [
            phase,
            clean(check.get("check"), 100),
            clean(check.get("subject") or "", 200),
            clean(check.get("status"), 20),
            clean(check.get("message")),
        ]
        for phase, result in results.items()
        for check in result.get("checks") or []
        if isinstance(check, Mapping)
    ]
    rows.sort(key=lambda row: -fleet_faults.severity(row[3]))
    return rows[:CHECKS]


def _devices(result: Result) -> list[dict[str, Any]]:
    devices = []
    for gpu in (result.get("gpus") or [])[:GPUS]:
        if not isinstance(gpu, Mapping):
            continue
        ecc = mapping(gpu.get("ecc"))
        device: dict[str, Any] = {name: _number(gpu.get(name)) for name in GPU_NUMBERS}
        device["corrected"] = _number(ecc.get("aggregate_corrected"))
        device["uncorrected"] = _number(ecc.get("aggregate_uncorrected"))
        device["model"] = clean(gpu.get("name") or "", 80)
        device["vbios"] = clean(gpu.get("vbios") or "", 40)
        device["status"] = clean(gpu.get("status") or "", 20)
        past = gpu.get("history")
        if isinstance(past, Mapping):  # the card's record follows it from node to node
            device["uuid"] = clean(gpu.get("uuid") or "", 60)
            device["serial"] = clean(gpu.get("serial") or "", 40)
            device["incidents"] = _number(past.get("incidents"))
            device["repeat_offender"] = past.get("repeat_offender") is True
        devices.append({name: value for name, value in device.items() if value not in (None, "")})
    return devices


def _software(results: Mapping[str, Result]) -> dict[str, str]:
    health, gpu = results.get("health", {}), results.get("gpu", {})
    inventory, driver = mapping(health.get("hardware")), mapping(gpu.get("driver"))
    versions = {
        "agent": health.get("agent_version"),
        "kernel": inventory.get("kernel"),
        "driver": driver.get("version") or inventory.get("driver"),
        "cuda": driver.get("cuda_version"),
    }
    return {name: clean(value, 80) for name, value in versions.items() if value}


def _copies(result: Result) -> list[dict[str, str]]:
    return [
        {"url": clean(copy.get("url"), 200), "verified": clean(copy.get("verified"), 20)}
        for copy in (result.get("copies") or [])[:20]
        if isinstance(copy, Mapping) and not copy.get("removed")
    ]


def _protection(result: Result) -> dict[str, Any]:
    """Return the count of copies against 3-2-1, age (hours) and size of the newest backup."""
    counted = result.get("protection")
    if not isinstance(counted, Mapping):
        return {}
    numbers = ("copies", "storages", "elsewhere", "verified", "age_hours", "size")
    values: dict[str, Any] = {name: _number(counted.get(name)) for name in numbers}
    values["satisfied"] = counted.get("satisfied") is True
    return {name: value for name, value in values.items() if value is not None}


def _restore_proof(result: Result) -> dict[str, Any]:
    """Return the last restore drill: when, of what, and how long; empty when there is none.

    Only ``unreadable`` where the host could not read its record.
    """
    proof = result.get("last_restore_proof")
    if not isinstance(proof, Mapping):
        return {}
    texts = {
        name: clean(proof.get(name) or "", 200) for name in ("at", "backup", "place", "unreadable")
    }
    known: dict[str, Any] = {name: text for name, text in texts.items() if text}
    seconds = _number(proof.get("seconds"))
    if seconds is not None:
        known["seconds"] = seconds
    return known


def _removed(result: Result) -> list[dict[str, Any]]:
    """Return the largest of what the cleanup removed."""
    removed = [
        {"path": clean(unit.get("path"), 200), "size": _number(unit.get("size")) or 0}
        for unit in result.get("removed") or []
        if isinstance(unit, Mapping)
    ]
    return sorted(removed, key=lambda unit: -float(unit["size"]))[:REMOVED]


def metrics(report: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a run that trends show; those without a value are left out."""
    hosts = report["hosts"]
    scores = [float(entry["health_score"]) for entry in hosts if entry["health_score"] is not None]
    temperatures = [
        float(device["temp"]) for entry in hosts for device in entry["devices"] if "temp" in device
    ]
    ages = [
        seconds
        for entry in hosts
        for seconds in [age(entry["backup"].get("created"), report["timestamp"])]
        if seconds is not None
    ]
    middle = median(temperatures)
    values = {
        "hosts": len(hosts),
        "critical_hosts": sum(
            1
            for entry in hosts
            if entry["status"] not in (verdict.PASS, verdict.WARNING, verdict.SKIPPED)
        ),
        "faults": sum(len(entry["faults"]) for entry in hosts),
        "score_median": median(scores),
        "score_min": min(scores, default=None),
        "temperature_spread": None if middle is None else round(max(temperatures) - middle, 1),
        "backup_bytes": sum(_number(entry["backup"].get("size")) or 0 for entry in hosts)
        if ages
        else None,
        "backup_age_max": max(ages, default=None),
        "freed_bytes": report["summary"]["freed_bytes"] if "cleanup" in report["phases"] else None,
        "duration_max": max((entry["duration"] for entry in hosts), default=None),
    }
    return {name: value for name, value in values.items() if value is not None}
