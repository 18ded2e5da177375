# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A synthetic fleet with the faults of real ones, for tests and pictures of the page."""

from __future__ import annotations

import random
from typing import Any

from ansible_collections.mlops.fleet.plugins.module_utils._core.fleet import (
    changes,
    history,
    peers,
    record,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.fleet import report as fleet

NOW = 1_800_000_000
DAY = 86400
NAMES = (
    "gpu_driver gpu_count gpu_state gpu_remapped_rows gpu_ecc gpu_temperature gpu_throttling"
    " gpu_nvlink gpu_pcie gpu_memory gpu_power gpu_persistence"
).split()
NODE_NAMES = (
    "disk_usage inode_usage read_only mount_responds memory_usage swap_usage cpu_load service"
    " failed_units kernel_errors network_gateway dns time_sync reboot_required uptime"
).split()


def _check(
    check: str, status: str = "pass", message: str = "", subject: str = "", action: str = "none"
) -> dict[str, Any]:
    return {
        "check": check,
        "status": status,
        "message": message or f"{subject or check}: within its limits, read just now",
        "subject": subject or None,
        "action": action,
    }


def _verdict(checks: list[dict[str, Any]], **extra: Any) -> dict[str, Any]:
    warnings = sum(check["status"] in ("warning", "unknown") for check in checks)
    failed = sum(check["status"] == "critical" for check in checks)
    status, score = ("warning", 90.0) if warnings else ("pass", 100.0)
    if failed:
        status, score = "critical", 40.0
    return {
        "changed": False,
        "checks": checks,
        "summary": {
            "total": len(checks),
            "passed": len(checks) - failed - warnings,
            "warnings": warnings,
            "failed": failed,
            "health_score": score,
        },
        "status": status,
        **extra,
    }


def _host(number: int, run: int, rng: random.Random) -> dict[str, Any]:
    name = f"gpu{number:04}"
    if number % 97 == 41:
        return {
            "health": {
                "unreachable": True,
                "msg": f"ssh: connect to host {name} port 22: Connection timed out",
            }
        }
    node = [_check(check) for check in NODE_NAMES]
    if number % 40 == 7:
        node[0] = _check(
            "disk_usage",
            "warning",
            f"Disk usage of /data: {82 + number % 7}%",
            "/data",
            "free_space",
        )
    gpu = [_check("gpu_driver"), _check("gpu_count")]
    devices = []
    for index in range(8):
        gpu += [_check(check, subject=f"GPU {index}") for check in NAMES[2:]]
        devices.append(
            {
                "id": index,
                "name": "NVIDIA H100 80GB HBM3",
                "status": "pass",
                "temp": 52 + rng.randrange(6) + (24 if (number, index) == (2, 5) else 0),
                "margin": 35,
                "mem_used": rng.randrange(81000),
                "mem_total": 81559,
                "power_draw": 560.0 + rng.randrange(60),
                "power_limit": 700.0,
                "vbios": "96.00.89.00.01",
                "ecc": {"aggregate_corrected": rng.randrange(3), "aggregate_uncorrected": 0},
            }
        )
    if number % 42 == 1:
        gpu.append(
            _check(
                "gpu_xid",
                "critical",
                f"GPU {number % 8}: Xid 79, the GPU has fallen off the bus",
                f"GPU {number % 8}",
                "reboot",
            )
        )
        devices[number % 8]["status"] = "critical"
    if number % 60 == 2 and run:
        gpu.append(
            _check(
                "gpu_ecc",
                "critical",
                "GPU 5: 3 uncorrected memory errors since the driver was loaded",
                "GPU 5",
                "reset_gpu",
            )
        )
    backup: dict[str, Any] = {
        "changed": True,
        "duration": 42.0 + rng.randrange(20),
        "backup": {
            "path": "/backup/models/models_backup_20270115_020000.tar.gz",
            "size": 21_000_000_000 + number * 1000,
            "files": 310,
            "verified": True,
            "sha256": "5f" * 32,
            "created": "2027-01-15T02:00:00+00:00",
        },
        "copies": [{"url": f"s3://ml-backups/{name}/models.tar.gz", "verified": "checksum"}],
    }
    if number % 50 == 13:
        backup = {
            "failed": True,
            "msg": "Can't write /backup/models: No space left on device.",
            "duration": 3.0,
        }
    driver = "535.183.01" if number % 200 == 3 else "590.48.01"
    return {
        "health": _verdict(node, duration=1.2 + rng.random(), hostname=name, recommendation="none"),
        "gpu": _verdict(gpu, duration=0.8, hostname=name, gpus=devices, driver={"version": driver}),
        "backup": backup,
        "cleanup": {"skipped": True, "changed": False}
        if backup.get("failed")
        else {
            "changed": True,
            "duration": 2.5,
            "freed_bytes": 5_000_000_000,
            "removed": [{"path": "/opt/ml/experiments/run-2026-11-01", "size": 5_000_000_000}],
        },
    }


def run(hosts: int, number: int = 1, results: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the run of a night (1 is tonight, 0 the night before) over so many hosts."""
    rng = random.Random(number)
    results = results or {f"gpu{index:04}": _host(index, number, rng) for index in range(hosts)}
    report = fleet.assemble(
        list(results),
        lambda host, phase: results[host].get(phase),
        timestamp=NOW - (1 - number) * DAY,
    )
    groups: dict[str, list[str]] = {"h100": list(results)}
    for index, host in enumerate(results):
        groups.setdefault(f"rack{index // 32:02}", []).append(host)
    record.extend(report, lambda host, phase: results[host].get(phase), groups)
    return report


def compared(report: dict[str, Any], *earlier: dict[str, Any]) -> dict[str, Any]:
    """Return a run with its changes and outliers."""
    report["changes"] = changes.compare(report, [history.upgrade(other) for other in earlier])
    report["outliers"] = peers.find(report)
    return report


def trend(report: dict[str, Any], nights: int = 14) -> list[tuple[str, dict[str, float]]]:
    """Return metrics of the nights before, around those of a run."""
    rng = random.Random(7)
    return [
        (
            f"2027-01-{night + 1:02}T02:00:00+00:00",
            {
                name: round(value * (0.85 + 0.25 * rng.random()), 1)
                for name, value in report["metrics"].items()
            },
        )
        for night in range(nights)
    ]
