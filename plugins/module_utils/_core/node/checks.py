# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The checks of a node: one complete entry each, from which groups, names and limits are derived.

A check that reads one value is an entry of ``values``, with the functions that read and evaluate
it; a check that few nodes need is an entry of ``optional``, with a module that is loaded where it
applies. The others are made by the function of their group, in the module that declares them in its
DECIDES; a check that nothing makes fails at import. The GPU checks are registered by the gpu
part; here they are the group ``gpu``.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..registry import Registry
from .optional import OPTIONAL
from .thresholds import OFF, Rule
from .values import VALUES, NodeCheck

#: In the order of the report.
GROUP_NAMES = (
    "disk",
    "memory",
    "load",
    "services",
    "gpu",
    "network",
    "errors",
    "processes",
    "limits",
    "hardware",
    "system",
    "certificates",
    "updates",
    "backup",
)

_BY_GROUP = (
    NodeCheck(
        "mount_responds",
        "disk",
        "The file system answers within the timeout.",
        "mount_responds",
    ),
    NodeCheck(
        "mount_present",
        "disk",
        "What fstab or expected_mounts names is mounted.",
        "mount_present",
    ),
    NodeCheck(
        "disk_usage",
        "disk",
        "Space in use, as df counts it.",
        "disk_usage",
        Rule("80", "90", "%", action="free_space", percent=True),
        lasting=True,
    ),
    NodeCheck(
        "inode_usage",
        "disk",
        "Inodes in use.",
        "disk_usage",
        Rule("80", "90", "%", action="free_space", percent=True),
        lasting=True,
    ),
    NodeCheck(
        "read_only",
        "disk",
        "No file system turned read-only against its purpose.",
        "read_only",
        lasting=True,
    ),
    NodeCheck(
        "memory_usage",
        "memory",
        "Memory that is neither free nor reclaimable.",
        "memory_usage",
        Rule("85", "95", "%", action="restart_app", domain="user", percent=True),
    ),
    NodeCheck(
        "swap_usage",
        "memory",
        "Swap in use.",
        "memory_usage",
        Rule("80", OFF, "%", action="restart_app", domain="user", percent=True),
    ),
    NodeCheck("service", "services", "The named units are active.", "service"),
    NodeCheck("failed_units", "services", "Units that failed.", "failed_units", Rule("1")),
    NodeCheck(
        "flapping_units",
        "services",
        "Units that systemd restarts again and again.",
        "flapping_units",
        Rule("1"),
    ),
    NodeCheck(
        "network_gateway",
        "network",
        "There is a default route, and its gateway is reachable.",
        "network_gateway",
    ),
    NodeCheck("dns", "network", "The resolver answers, names resolve.", "dns"),
    NodeCheck(
        "network_target",
        "network",
        "The targets accept TCP connections.",
        "network_target",
    ),
    NodeCheck(
        "network_link",
        "network",
        "Interfaces have their carrier and speed.",
        "network_link",
    ),
    NodeCheck(
        "infiniband_port",
        "network",
        "InfiniBand ports are active at their rate.",
        "infiniband_port",
    ),
    NodeCheck(
        "oom_kills",
        "errors",
        "Processes that were killed because memory ran out.",
        "oom_kills",
        Rule("1", "10", action="restart_app", domain="user"),
    ),
    NodeCheck(
        "kernel_errors",
        "errors",
        "Kernel messages that indicate a known fault.",
        "kernel_errors",
    ),
    NodeCheck(
        "journal_errors",
        "errors",
        "Journal entries of priority err and worse.",
        "journal_errors",
        Rule("100"),
    ),
    NodeCheck(
        "stuck_processes",
        "processes",
        "Processes that the kernel does not let run.",
        "stuck_processes",
        Rule("1", "10"),
    ),
    NodeCheck(
        "zombie_processes",
        "processes",
        "Processes that ended and were not collected.",
        "zombie_processes",
        Rule("100", "1000", action="restart_app", domain="user"),
    ),
    NodeCheck(
        "memory_errors",
        "hardware",
        "ECC errors of the main memory.",
        "memory_errors",
        Rule("100", OFF, "per day"),
        lasting=True,
    ),
    NodeCheck(
        "machine_checks",
        "hardware",
        "Machine check exceptions since boot.",
        "memory_errors",
        lasting=True,
    ),
    NodeCheck("raid", "hardware", "md arrays are complete.", "raid", lasting=True),
    NodeCheck("zfs_pool", "hardware", "ZFS pools are online.", "raid", lasting=True),
    NodeCheck("nvme_state", "hardware", "NVMe controllers are live.", "nvme_state", lasting=True),
    NodeCheck(
        "disk_health",
        "hardware",
        "What disks report about themselves.",
        "nvme_state",
        lasting=True,
    ),
    NodeCheck(
        "disk_wear",
        "hardware",
        "Rated life of an SSD that is used up.",
        "nvme_state",
        Rule("90", "100", "%", percent=True),
        lasting=True,
    ),
    NodeCheck(
        "expected_hardware",
        "hardware",
        "CPUs, memory, disks, links, modules and versions are as expected.",
        "expected_hardware",
    ),
    NodeCheck("uptime", "system", "Time since boot.", "uptime", Rule(unit="days")),
    NodeCheck("reboot_required", "system", "An update waits for a reboot.", "reboot_required"),
    NodeCheck(
        "time_sync",
        "system",
        "The clock is synchronised.",
        "time_sync",
        Rule("0.1", "1", "s"),
    ),
    NodeCheck(
        "kernel_taint",
        "system",
        "The kernel recorded no fault of its own.",
        "kernel_taint",
        lasting=True,
    ),
    NodeCheck(
        "certificate",
        "certificates",
        "Certificates are valid for a while longer.",
        "certificate",
        Rule("21", "7", "days", below=True),
        lasting=True,
    ),
    NodeCheck(
        "security_updates",
        "updates",
        "Pending security updates.",
        "security_updates",
        Rule("1"),
        lasting=True,
    ),
)


def _in_order(checks: Iterable[NodeCheck]) -> list[NodeCheck]:
    """Return checks in the order of their groups. :raises TypeError: a group is unknown."""
    for check in checks:
        if check.group not in GROUP_NAMES:
            raise TypeError(f"The node check {check.name} is in an unknown group {check.group!r}")
    return sorted(checks, key=lambda check: GROUP_NAMES.index(check.group))


CHECKS = Registry(
    "node check",
    _in_order((*_BY_GROUP, *VALUES, *OPTIONAL)),
    required=("group", "documentation", "runbook", "metric"),
)


def _grouped() -> dict[str, tuple[str, ...]]:
    groups: dict[str, tuple[str, ...]] = dict.fromkeys(GROUP_NAMES, ())
    for check in CHECKS:
        groups[check.group] += (check.name,)
    return groups


#: Groups in the order of the report, each with its checks.
GROUPS = _grouped()
#: What the options checks and skip accept, beside the checks of the gpu part.
NAMES = frozenset(GROUP_NAMES) | frozenset(CHECKS.names)
#: Default limits. Those with an option of their own (disk, memory) get them from there.
RULES = {check.name: check.limits for check in CHECKS if check.limits is not None}


def group_of(name: str) -> str:
    """Return the group of a check, or the group itself; ``gpu`` for a check of the gpu part."""
    if name in GROUPS:
        return name
    check = CHECKS.get(name)
    if check is None:
        return "gpu"
    return check.group
