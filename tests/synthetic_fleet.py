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
#: Largest values of metrics.
TOP = {"score_median": 100.0, "score_min": 100.0}
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


def _disk(mount: str, used: int, size: int) -> dict[str, Any]:
    status, action = ("warning", "free_space") if used > 80 else ("pass", "none")
    check = _check("disk_usage", status, f"Disk usage of {mount}: {used}%", mount, action)
    details = {"free_bytes": size * (100 - used) // 100, "used_bytes": size * used // 100}
    return {**check, "value": used, "details": details}


def _hardware(number: int) -> dict[str, Any]:
    bios = "1.2" if number % 150 == 4 else "1.4"
    return {
        "cpus": 192,
        "memory": (2 << 40) - ((64 << 30) if number % 120 == 5 else 0),
        "disks": [{"size": 3840755982336, "count": 8}],
        "links": [{"speed": 400000, "count": 8}, {"speed": 25000, "count": 2}],
        "firmware": {"BIOS": bios, "mlx5_0": "28.39.1002"},
        "kernel": "6.8.0-85-generic",
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
    node = [_check(check) for check in NODE_NAMES[1:]]
    used = 82 + number % 7 if number % 40 == 7 else 30 + rng.randrange(30)
    node += [_disk("/data", used, 28 << 40), _disk("/", 20 + number % 9, 400 << 30)]
    node.append(_check("gpu", "skipped", "The GPUs are checked by the GPU phase of this run"))
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
    if number % 70 == 9:
        backup["copies"][0]["verified"] = "size_only"
    if number % 3 == 0:
        backup["last_restore_proof"] = {
            "at": "2027-01-09T03:00:00+00:00",
            "backup": "models_backup_20270109_020000",
            "place": "s3://ml-backups",
            "seconds": 340.0,
        }
    if number % 50 == 13:
        backup = {
            "failed": True,
            "msg": "Can't write /backup/models: No space left on device.",
            "duration": 3.0,
        }
    driver = "535.183.01" if number % 200 == 3 else "590.48.01"
    return {
        "health": _verdict(
            node,
            duration=1.2 + rng.random(),
            hostname=name,
            recommendation="none",
            agent_version="0.3.0-5f1e",
            hardware=_hardware(number),
        ),
        "gpu": _verdict(gpu, duration=0.8, hostname=name, gpus=devices, driver={"version": driver}),
        "backup": backup,
        "cleanup": {"skipped": True, "changed": False}
        if backup.get("failed")
        else {
            "changed": True,
            "duration": 2.5,
            "freed_bytes": 5_000_000_000,
            "removed": [
                {"path": "/opt/ml/experiments/run-2026-11-01", "size": 4_000_000_000 + number * 7},
                {"path": "/opt/ml/checkpoints/step-900", "size": 1_000_000_000},
            ],
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
                name: round(min(value * (0.85 + 0.25 * rng.random()), TOP.get(name, value * 2)), 1)
                for name, value in report["metrics"].items()
            },
        )
        for night in range(nights)
    ]
