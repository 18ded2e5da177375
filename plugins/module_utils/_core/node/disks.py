# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What disks report about themselves, through smartctl or nvme."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from .. import verdict
from ..errors import CommandFailed
from ..ports import World
from ..records import NamedTuple
from ..verdict import Check
from . import thresholds
from .hardware import tool
from .options import NodeOptions
from .probes import Problem
from .thresholds import fault, passed, skipped

#: How smartctl says that it can't reach a disk this way at all: behind a RAID controller or a
#: bridge, without the right, too old for JSON.
_OUT_OF_REACH = re.compile(
    r"megaraid|please try adding|specify device type|USB bridge|Unable to detect device type"
    r"|lacks SMART|Operation not permitted|Permission denied",
    re.IGNORECASE,
)
#: Critical warning bits of the SMART / Health Information log (NVM Express base specification).
_NVME_WARNINGS = (
    "spare below its threshold",
    "temperature beyond its limit",
    "reliability degraded",
    "read-only",
    "backup of volatile memory failed",
    "persistent memory read-only",
)
#: SMART attributes of pending and uncorrectable sectors.
_BAD_SECTORS = (197, 198)


class DiskHealth(NamedTuple):
    """What a disk reports about itself.

    ``healthy`` and ``wear`` (percent used) are None when it does not say. ``skipped`` says why
    it could not be asked.
    """

    healthy: bool | None = None
    wear: int | None = None
    problems: tuple[str, ...] = ()
    skipped: str = ""


def ask_disk(world: World, name: str, timeout: float) -> DiskHealth:
    """Ask one disk for its health through smartctl, or nvme for NVMe; sleeping ones stay asleep.

    :raises CommandFailed: the tool failed or did not answer.
    """
    device = f"/dev/{name}"
    smartctl = tool(world, "smartctl")
    if smartctl:
        result = world.run([smartctl, "-H", "-A", "-j", "-n", "standby", device], timeout=timeout)
        # Bits 0 and 1 of the exit status: the command line was wrong, or the device could not be
        # opened or sleeps (smartctl(8)).
        if result.returncode & 1 and not result.stdout.lstrip().startswith("{"):
            return DiskHealth(skipped="smartctl is too old to answer in JSON (before 7.0)")
        return read_smartctl(_json(result.stdout, "smartctl"), result.returncode & 3)
    nvme = tool(world, "nvme") or "nvme"
    result = world.run([nvme, "smart-log", device, "-o", "json"], timeout=timeout)
    if result.returncode == 0:
        return read_nvme(_json(result.stdout, "nvme"))
    reason = result.stderr.strip()[:200]
    if _OUT_OF_REACH.search(result.stderr):
        return DiskHealth(skipped=f"nvme can't ask it ({reason})")
    raise CommandFailed(f"nvme smart-log {device} failed: {reason}.", "", device)


def _json(text: str, program: str) -> dict[str, Any]:
    try:
        answer = json.loads(text)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise CommandFailed(f"{program} gave no JSON.", f"Update {program}.", program)
    return answer


def read_smartctl(answer: Mapping[str, Any], refused: int) -> DiskHealth:
    """Return what a ``smartctl -j`` answer says.

    :param refused: bits 0 and 1 of the exit status.
    :raises CommandFailed: the device could not be asked.
    """
    if refused:
        return _refused(answer)
    log = answer.get("nvme_smart_health_information_log") or {}
    problems = _nvme_problems(log)
    for attribute in (answer.get("ata_smart_attributes") or {}).get("table") or []:
        raw = (attribute.get("raw") or {}).get("value") or 0
        name = str(attribute.get("name", ""))
        if attribute.get("id") in _BAD_SECTORS and raw:
            problems.append(f"{raw} {name.replace('_', ' ').lower()}")
        elif attribute.get("when_failed") == "now":
            problems.append(f"attribute {attribute.get('name')} is failing")
    # endurance_used: since 7.4, for SATA as well.
    endurance = (answer.get("endurance_used") or {}).get("current_percent")
    return DiskHealth(
        healthy=(answer.get("smart_status") or {}).get("passed"),
        wear=log.get("percentage_used", endurance),
        problems=tuple(problems),
    )


def _refused(answer: Mapping[str, Any]) -> DiskHealth:
    """Return why smartctl did not ask a disk. :raises CommandFailed: it failed."""
    report = (answer.get("smartctl") or {}).get("messages") or []
    messages = [str(message.get("string", "")) for message in report]
    if any("STANDBY" in text.upper() or "SLEEP" in text.upper() for text in messages):
        return DiskHealth(skipped="asleep, not woken")
    reason = "; ".join(messages)[:200]
    if any(_OUT_OF_REACH.search(text) for text in messages):
        return DiskHealth(skipped=f"smartctl can't ask it ({reason})")
    raise CommandFailed(
        f"smartctl could not ask the disk: {reason or 'no reason given'}.", "", "smartctl"
    )


def _nvme_problems(log: Mapping[str, Any]) -> list[str]:
    """Return the problems that an NVMe SMART log reports."""
    warning = int(log.get("critical_warning") or 0)
    problems = [text for bit, text in enumerate(_NVME_WARNINGS) if warning & (1 << bit)]
    if int(log.get("media_errors") or 0):
        problems.append(f"{log['media_errors']} media errors")
    return problems


def read_nvme(log: Mapping[str, Any]) -> DiskHealth:
    """Return what ``nvme smart-log -o json`` says; its names differ between versions."""
    warning = log.get("critical_warning") or 0
    if isinstance(warning, Mapping):
        warning = warning.get("value", 0)
    warning = int(warning)
    return DiskHealth(
        healthy=warning == 0,
        wear=log.get("percent_used", log.get("percentage_used")),
        problems=tuple(_nvme_problems({**log, "critical_warning": warning})),
    )


def decide(disks: Mapping[str, DiskHealth | Problem], options: NodeOptions) -> list[Check]:
    """Return the checks of what the disks reported."""
    checks = []
    for name, health in disks.items():
        if isinstance(health, Problem):
            text = f"Disk {name}: {health}"
            checks.append(
                fault("disk_health", verdict.UNKNOWN, text, name, unknown_as=verdict.CRITICAL)
            )
            continue
        if health.skipped:
            checks.append(skipped("disk_health", f"Disk {name}: {health.skipped}", name))
            continue
        if options.wants("disk_health"):
            checks.append(_disk(name, health))
        if options.wants("disk_wear") and health.wear is not None:
            limits = options.limits_in_force["disk_wear"]
            text = f"Disk wear: {health.wear}% of the rated life of {name} used"
            checks.append(thresholds.evaluate(limits, "disk_wear", health.wear, text, subject=name))
    return checks


def _disk(name: str, health: DiskHealth) -> Check:
    problems = "; ".join(health.problems)
    if health.healthy is False:
        text = f"Disk {name}: says that it is failing"
        if problems:
            text += f" ({problems})"
        return fault("disk_health", verdict.CRITICAL, text, name, "drain")
    if problems:
        return fault("disk_health", verdict.WARNING, f"Disk {name}: {problems}", name)
    if health.healthy is None:
        return skipped("disk_health", f"Disk {name}: does not report its health", name)
    return passed("disk_health", f"Disk {name}: healthy", name)
