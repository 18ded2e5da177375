# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hardware: memory errors (EDAC), machine checks, md and ZFS, NVMe controllers, and what the disks say of themselves."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Any

from .. import verdict
from ..errors import CommandFailed
from ..ports import World
from ..system import procfs
from ..system.containers import in_container
from ..verdict import Check
from . import thresholds
from .options import NodeOptions

_EXTERNAL = re.compile(r"external:[^/-]")
_DISK = re.compile(r"(nvme\d+n\d+|sd[a-z]+)")
#: Where the system keeps its programs. Not C(/usr/local): on clusters it is often a network mount, and looking into a dead one hangs.
TOOL_FOLDERS = ("/usr/sbin", "/usr/bin", "/sbin", "/bin")
#: So smartctl says that it can't reach a disk this way at all: behind a RAID controller or a bridge, without the right, too old for JSON.
_OUT_OF_REACH = re.compile(
    r"megaraid|please try adding|specify device type|USB bridge|Unable to detect device type|lacks SMART|Operation not permitted|Permission denied",
    re.IGNORECASE,
)


def tool(world: World, name: str) -> str | None:
    """Return the path of an installed program, None when it is not there."""
    return next(
        (
            path
            for path in (f"{folder}/{name}" for folder in TOOL_FOLDERS)
            if os.access(world.path(path), os.X_OK)
        ),
        None,
    )


def disks(world: World) -> list[str]:
    """Return the names of the real disks (C(nvme0n1 sda)); virtual ones have no health to tell.

    A container sees all disks of its host, but only those it has a device file for are its own.
    """
    names = [name for name in procfs.directory(world, "/sys/block") if _DISK.fullmatch(name)]
    return (
        [name for name in names if os.path.exists(world.path(f"/dev/{name}"))]
        if names and in_container(world)
        else names
    )


def observe(world: World) -> dict[str, Any]:
    """Read the counters the kernel keeps; no program is started. An array or pool in trouble may hold its locks: only in a child."""
    edac = []
    for name in procfs.directory(world, "/sys/devices/system/edac/mc"):
        if re.fullmatch(r"mc\d+", name):
            base = f"/sys/devices/system/edac/mc/{name}"
            edac.append(
                {
                    "name": name,
                    "ce": procfs.number(world, f"{base}/ce_count") or 0,
                    "ue": procfs.number(world, f"{base}/ue_count") or 0,
                }
            )
    machine_checks = None
    for line in procfs.lines(world, "/proc/interrupts"):
        if line.strip().startswith("MCE:"):
            machine_checks = sum(int(word) for word in line.split()[1:] if word.isdigit())
    raids = []
    for name in procfs.directory(world, "/sys/block"):
        base = f"/sys/block/{name}/md"
        if _EXTERNAL.match(procfs.text(world, f"{base}/metadata_version") or ""):
            continue  # no array, but the disks of a firmware RAID, always inactive; its arrays are listed by themselves
        if name.startswith("md") and procfs.text(world, f"{base}/level"):
            raids.append(
                {
                    "name": name,
                    "level": procfs.text(world, f"{base}/level"),
                    "state": procfs.text(world, f"{base}/array_state"),
                    "degraded": procfs.number(world, f"{base}/degraded") or 0,
                    "action": procfs.text(world, f"{base}/sync_action") or "idle",
                    "disks": procfs.number(world, f"{base}/raid_disks"),
                }
            )
    pools = [
        {"name": name, "state": state}
        for name in procfs.directory(world, "/proc/spl/kstat/zfs")
        if (state := procfs.text(world, f"/proc/spl/kstat/zfs/{name}/state"))
    ]
    controllers = [
        {"name": name, "state": procfs.text(world, f"/sys/class/nvme/{name}/state")}
        for name in procfs.directory(world, "/sys/class/nvme")
    ]
    return {
        "edac": edac,
        "machine_checks": machine_checks,
        "raids": raids,
        "pools": pools,
        "controllers": controllers,
    }


def ask_disk(world: World, name: str, timeout: float) -> dict[str, Any]:
    """Ask one disk for its health through smartctl, or nvme for NVMe; sleeping disks are left asleep.

    :return: C(healthy) (None when it does not say), C(wear) (percent used, None), C(problems) (texts), or C(skipped) (why it can't be asked).
    :raises CommandFailed: the tool failed or did not answer.
    """
    device = f"/dev/{name}"
    smartctl = tool(world, "smartctl")
    if smartctl:
        done = world.run([smartctl, "-H", "-A", "-j", "-n", "standby", device], timeout=timeout)
        # Bits 0 and 1 of the exit status: the command line was wrong, or the device could not be opened or sleeps (smartctl(8)).
        if done.returncode & 1 and not done.stdout.lstrip().startswith("{"):
            return {"skipped": "smartctl is too old to answer in JSON (before 7.0)"}
        return read_smartctl(_json(done.stdout, "smartctl"), done.returncode & 3)
    done = world.run(
        [tool(world, "nvme") or "nvme", "smart-log", device, "-o", "json"], timeout=timeout
    )
    if done.returncode != 0 and _OUT_OF_REACH.search(done.stderr):
        return {"skipped": f"nvme can't ask it ({done.stderr.strip()[:200]})"}
    if done.returncode != 0:
        raise CommandFailed(
            f"nvme smart-log {device} failed: {done.stderr.strip()[:200]}.", "", device
        )
    return read_nvme(_json(done.stdout, "nvme"))


def _json(text: str, program: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise CommandFailed(f"{program} gave no JSON.", f"Update {program}.", program)
    return found


def read_smartctl(answer: Mapping[str, Any], refused: int) -> dict[str, Any]:
    """Return what a C(smartctl -j) answer says (see ask_disk). :raises CommandFailed: the device could not be asked."""
    messages = [
        str(one.get("string", "")) for one in (answer.get("smartctl") or {}).get("messages") or []
    ]
    if refused:
        if any("STANDBY" in text.upper() or "SLEEP" in text.upper() for text in messages):
            return {"skipped": "asleep, not woken"}
        if any(_OUT_OF_REACH.search(text) for text in messages):
            return {"skipped": f"smartctl can't ask it ({'; '.join(messages)[:200]})"}
        raise CommandFailed(
            f"smartctl could not ask the disk: {'; '.join(messages)[:200] or 'no reason given'}.",
            "",
            "smartctl",
        )
    problems = []
    log = answer.get("nvme_smart_health_information_log") or {}
    wear = log.get(
        "percentage_used", (answer.get("endurance_used") or {}).get("current_percent")
    )  # the latter since 7.4, also for SATA
    problems += _nvme_problems(log)
    for attribute in (answer.get("ata_smart_attributes") or {}).get("table") or []:
        raw = (attribute.get("raw") or {}).get("value") or 0
        if attribute.get("id") in (197, 198) and raw:
            problems.append(f"{raw} {str(attribute.get('name', '')).replace('_', ' ').lower()}")
        elif attribute.get("when_failed") == "now":
            problems.append(f"attribute {attribute.get('name')} is failing")
    return {
        "healthy": (answer.get("smart_status") or {}).get("passed"),
        "wear": wear,
        "problems": problems,
    }


def _nvme_problems(log: Mapping[str, Any]) -> list[str]:
    """NVM Express base specification, SMART / Health Information log: critical warning bits, media errors, spare."""
    warning = int(log.get("critical_warning") or 0)
    names = (
        "spare below its threshold",
        "temperature beyond its limit",
        "reliability degraded",
        "read-only",
        "backup of volatile memory failed",
        "persistent memory read-only",
    )
    found = [name for bit, name in enumerate(names) if warning & (1 << bit)]
    if int(log.get("media_errors") or 0):
        found.append(f"{log['media_errors']} media errors")
    return found


def read_nvme(log: Mapping[str, Any]) -> dict[str, Any]:
    """Return what C(nvme smart-log -o json) says (see ask_disk); its names differ from smartctl's between versions."""
    warning = log.get("critical_warning") or 0
    warning = int(warning.get("value", 0)) if isinstance(warning, Mapping) else int(warning)
    wear = log.get("percent_used", log.get("percentage_used"))
    return {
        "healthy": warning == 0,
        "wear": wear,
        "problems": _nvme_problems({**log, "critical_warning": warning}),
    }


def judge(facts: Mapping[str, Any], options: NodeOptions) -> list[Check]:
    """Judge C(edac machine_checks raids pools controllers); C(days) since boot."""
    found: list[Check] = []
    if options.wants("memory_errors"):
        found += _memory(facts, options)
    if options.wants("machine_checks"):
        count = facts["machine_checks"]
        if count is None:
            found.append(
                Check(
                    "machine_checks", verdict.SKIPPED, "Machine checks: not counted on this machine"
                )
            )
        else:
            status = verdict.WARNING if count else verdict.PASS
            found.append(
                Check(
                    "machine_checks",
                    status,
                    f"Machine checks: {count} since boot",
                    value=count,
                    action="inspect" if count else "none",
                    domain="node" if count else None,
                )
            )
    if options.wants("raid"):
        found += _raids(facts["raids"])
    if options.wants("zfs_pool"):
        found += _pools(facts["pools"])
    if options.wants("nvme_state"):
        found += _controllers(facts["controllers"])
    return found


def _memory(facts: Mapping[str, Any], options: NodeOptions) -> list[Check]:
    if not facts["edac"]:
        return [
            Check(
                "memory_errors",
                verdict.SKIPPED,
                "Memory errors: not counted on this machine (no EDAC driver)",
            )
        ]
    found = []
    limits = options.limits_in_force["memory_errors"]
    for controller in facts["edac"]:
        name, uncorrected = controller["name"], controller["ue"]
        per_day = controller["ce"] / max(1.0, facts["days"] or 1.0)
        text = f"Memory errors on {name}: {uncorrected} uncorrected, {controller['ce']} corrected ({per_day:.1f} per day)"
        if uncorrected:
            found.append(
                Check(
                    "memory_errors",
                    verdict.CRITICAL,
                    text,
                    name,
                    value=uncorrected,
                    crit=1,
                    action="drain",
                    domain="node",
                )
            )
        else:
            found.append(thresholds.judge(limits, "memory_errors", per_day, text, subject=name))
    return found


def _raids(raids: list[dict[str, Any]]) -> list[Check]:
    if not raids:
        return [Check("raid", verdict.SKIPPED, "RAID: no md array")]
    found = []
    for raid in raids:
        name, missing, action = raid["name"], raid["degraded"], raid["action"]
        head = f"RAID {name} ({raid['level']})"
        if raid["state"] in ("inactive", "broken", "clear"):
            found.append(
                Check(
                    "raid",
                    verdict.CRITICAL,
                    f"{head}: {raid['state']}",
                    name,
                    action="drain",
                    domain="node",
                )
            )
        elif missing:
            rebuilding = action in ("recover", "resync", "reshape")
            text = f"{head}: degraded, {missing} of {raid['disks']} disks missing" + (
                ", being rebuilt" if rebuilding else ""
            )
            status = verdict.WARNING if rebuilding else verdict.CRITICAL
            found.append(
                Check("raid", status, text, name, value=missing, action="inspect", domain="node")
            )
        else:
            found.append(
                Check("raid", verdict.PASS, f"{head}: {raid['state']}, complete", name, value=0)
            )
    return found


def _pools(pools: list[dict[str, Any]]) -> list[Check]:
    if not pools:
        return [Check("zfs_pool", verdict.SKIPPED, "ZFS: no pool")]
    found = []
    for pool in pools:
        good = pool["state"] == "ONLINE"
        degraded = (
            pool["state"] == "DEGRADED"
        )  # it still works; faulted, unavailable or suspended it does not
        status = verdict.PASS if good else verdict.CRITICAL
        found.append(
            Check(
                "zfs_pool",
                status,
                f"ZFS pool {pool['name']}: {pool['state']}",
                pool["name"],
                action="none" if good else "inspect" if degraded else "drain",
                domain=None if good else "node",
            )
        )
    return found


def _controllers(controllers: list[dict[str, Any]]) -> list[Check]:
    if not controllers:
        return [Check("nvme_state", verdict.SKIPPED, "NVMe: no controller")]
    found = []
    for one in controllers:
        status = (
            verdict.PASS
            if one["state"] == "live"
            else verdict.UNKNOWN
            if one["state"] is None
            else verdict.CRITICAL
        )
        bad = status != verdict.PASS
        text = f"NVMe controller {one['name']}: {one['state'] or 'state can not be read'}"
        found.append(
            Check(
                "nvme_state",
                status,
                text,
                one["name"],
                action="drain" if bad else "none",
                domain="node" if bad else None,
                unknown_as=verdict.CRITICAL,
            )
        )
    return found


def judge_disks(
    asked: Mapping[str, Any], why_not_asked: str | None, options: NodeOptions
) -> list[Check]:
    """Judge what the disks said (see ask_disk), or a problem's text."""
    if why_not_asked:
        return (
            [Check("disk_health", verdict.SKIPPED, f"Disk health: {why_not_asked}")]
            if options.wants("disk_health")
            else []
        )
    found = []
    for name, answer in asked.items():
        if not isinstance(answer, Mapping):
            found.append(
                Check(
                    "disk_health",
                    verdict.UNKNOWN,
                    f"Disk {name}: {answer}",
                    name,
                    unknown_as=verdict.CRITICAL,
                    action="inspect",
                    domain="node",
                )
            )
            continue
        if answer.get("skipped"):
            found.append(
                Check("disk_health", verdict.SKIPPED, f"Disk {name}: {answer['skipped']}", name)
            )
            continue
        if options.wants("disk_health"):
            found.append(_disk(name, answer))
        if options.wants("disk_wear") and answer["wear"] is not None:
            text = f"Disk wear: {answer['wear']}% of the rated life of {name} used"
            found.append(
                thresholds.judge(
                    options.limits_in_force["disk_wear"],
                    "disk_wear",
                    answer["wear"],
                    text,
                    subject=name,
                )
            )
    return found


def _disk(name: str, answer: Mapping[str, Any]) -> Check:
    problems = "; ".join(answer["problems"])
    if answer["healthy"] is False:
        text = f"Disk {name}: says that it is failing" + (f" ({problems})" if problems else "")
        return Check("disk_health", verdict.CRITICAL, text, name, action="drain", domain="node")
    if problems:
        return Check(
            "disk_health",
            verdict.WARNING,
            f"Disk {name}: {problems}",
            name,
            action="inspect",
            domain="node",
        )
    if answer["healthy"] is None:
        return Check(
            "disk_health", verdict.SKIPPED, f"Disk {name}: does not report its health", name
        )
    return Check("disk_health", verdict.PASS, f"Disk {name}: healthy", name)
