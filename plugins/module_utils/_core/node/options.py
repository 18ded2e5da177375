# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of the node health check. One table: module arguments, flags, environment and configuration keys come from it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

from ..errors import OptionError
from ..options import Option, ReportOptions, option
from . import thresholds

#: Groups in the order of the report, each with its checks. C(checks) and C(skip) accept both kinds of names.
GROUPS: dict[str, tuple[str, ...]] = {
    "disk": ("mount_responds", "mount_present", "disk_usage", "inode_usage", "read_only"),
    "memory": ("memory_usage", "swap_usage", "memory_pressure"),
    "load": ("cpu_load", "cpu_pressure", "io_pressure"),
    "services": ("service", "failed_units", "flapping_units"),
    "gpu": (),
    "network": ("network_gateway", "dns", "network_target", "network_link", "infiniband_port"),
    "errors": ("oom_kills", "kernel_errors", "journal_errors"),
    "processes": ("stuck_processes", "zombie_processes"),
    "limits": ("file_descriptors", "process_ids", "conntrack"),
    "hardware": (
        "memory_errors",
        "machine_checks",
        "raid",
        "zfs_pool",
        "nvme_state",
        "disk_health",
        "disk_wear",
    ),
    "system": ("uptime", "reboot_required", "time_sync", "kernel_taint"),
    "certificates": ("certificate",),
    "updates": ("security_updates",),
}
NAMES = frozenset(GROUPS) | frozenset(name for names in GROUPS.values() for name in names)

_UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]{1,255}")
_TARGET = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9_.-]+):([0-9]{1,5})")
_HOST = re.compile(r"[A-Za-z0-9_.-]{1,253}")
_DEFAULT_SERVICES = ["docker"]
_MEMORY_CRITICAL = "95"


def canonical(name: str) -> str:
    """Return a check's or group's name as we write it; the old report's C(Disk usage) is our C(disk_usage)."""
    return name.strip().lower().replace(" ", "_").replace("-", "_")


def group_of(name: str) -> str:
    """Return the group of a check (or the group itself): C(gpu) for all that are not listed."""
    return (
        name
        if name in GROUPS
        else next((group for group, names in GROUPS.items() if name in names), "gpu")
    )


def _names(given: list[str]) -> str | None:
    for name in given:
        known = canonical(name)
        if known not in NAMES and not known.startswith("gpu_"):
            close = difflib.get_close_matches(known, NAMES, n=1)
            return f"{name!r} is neither a check nor a group" + (
                f" (did you mean {close[0]}?)" if close else "; groups are " + " ".join(GROUPS)
            )
    return None


def _units(given: list[str]) -> str | None:
    for name in given:
        if not _UNIT.fullmatch(name) or name.startswith((".", "-")):
            return f"{name!r} can't be the name of a systemd unit"
        if name.partition(".")[0].endswith("@"):
            return f"{name!r} is a template and runs as its instances only: name one, such as {name.partition('.')[0]}1"
    return None


def _targets(given: list[str]) -> str | None:
    for target in given:
        found = _TARGET.fullmatch(target)
        if not found or not 0 < int(found.group(2)) < 65536:
            return f"{target!r} is not HOST:PORT"
    return None


def _hosts(given: list[str]) -> str | None:
    return next(
        (f"{name!r} is not a host name" for name in given if not _HOST.fullmatch(name)), None
    )


def _limit(given: str) -> str | None:
    try:
        thresholds.parse(given)
    except ValueError:
        return "that is neither a number nor a range such as 10:20, ~:5 or @5:10"
    return None


def _is_above(limit: Any, other: str) -> bool:
    try:
        return float(str(limit)) > float(other)
    except ValueError:
        return False  # a range


_PATTERN = (
    Option("name", required=True, help="Name of the rule, shown in messages."),
    Option("pattern", required=True, help="Regular expression searched in kernel messages."),
    Option(
        "status",
        choices=("warning", "critical"),
        default="warning",
        help="Verdict when it is found.",
    ),
)
_LINK = (
    Option("name", required=True, help="Network interface."),
    Option("speed", type="int", minimum=1, help="Least speed in Mbit/s."),
)


class NodeOptions(ReportOptions):
    """Checked options of the node health check; C(limits_in_force) holds the limits of every check."""

    disk_warning: str = option(
        default="80",
        env=("DISK_WARN_THRESHOLD",),
        flags=("--disk-warn",),
        check=_limit,
        help="Disk usage, percent.",
    )
    disk_critical: str = option(
        default="90",
        env=("DISK_CRIT_THRESHOLD",),
        flags=("--disk-crit",),
        check=_limit,
        help="Disk usage, percent.",
    )
    disk_floor_warning: float = option(
        type="float",
        default=500.0,
        minimum=0,
        help="GiB free from which on disk_warning does not count; 0 = always counts.",
    )
    disk_floor_critical: float = option(
        type="float",
        default=200.0,
        minimum=0,
        help="GiB free from which on disk_critical does not count; 0 = always counts.",
    )
    disk_exclude: list[str] = option(
        type="list", elements="str", default=[], help="Mount points left out, shell patterns."
    )
    expected_mounts: list[str] = option(
        type="list", elements="path", default=[], help="Mount points that must be mounted."
    )
    memory_warning: str = option(
        default="85",
        env=("MEM_WARN_THRESHOLD",),
        flags=("--mem-warn",),
        check=_limit,
        help="Memory in use, percent.",
    )
    memory_critical: str = option(
        default=_MEMORY_CRITICAL, check=_limit, help="Memory in use, percent."
    )
    limits: dict[str, Any] = option(
        type="dict", default={}, help="Limits of single checks: name -> warning, critical, clear."
    )
    services: list[str] = option(
        type="list",
        elements="str",
        default=_DEFAULT_SERVICES,
        env=("SERVICES_TO_CHECK",),
        check=_units,
        help="Units that must be active.",
    )
    flapping_restarts: int = option(
        type="int",
        default=3,
        minimum=1,
        help="Restarts within flapping_window that make a unit flapping.",
    )
    flapping_window: int = option(type="int", default=600, minimum=1, help="Seconds.")
    gpu: bool = option(type="bool", default=True, env=("CHECK_GPU",), help="Judge the GPUs.")
    gpu_expected_count: int | None = option(type="int", minimum=0, help="GPUs this node must have.")
    gpu_temperature_warning: float = option(
        type="float", default=75.0, env=("GPU_TEMP_WARN",), help="Degrees Celsius."
    )
    gpu_temperature_critical: float = option(
        type="float", default=85.0, env=("GPU_TEMP_CRIT",), help="Degrees Celsius."
    )
    network: bool = option(type="bool", default=True, help="Judge connectivity.")
    network_targets: list[str] = option(
        type="list",
        elements="str",
        default=[],
        check=_targets,
        help="HOST:PORT that must accept a TCP connection.",
    )
    dns_names: list[str] = option(
        type="list", elements="str", default=[], check=_hosts, help="Names that must resolve."
    )
    network_links: list[dict[str, Any]] = option(
        type="list",
        elements="dict",
        default=[],
        suboptions=_LINK,
        help="Interfaces that must be up, with their least speed.",
    )
    infiniband_ports: int | None = option(
        type="int", minimum=0, help="InfiniBand ports that must be active."
    )
    infiniband_rate: float | None = option(
        type="float", minimum=0, help="Least rate of an active port, Gbit/s."
    )
    error_window: int = option(
        type="int", default=3600, minimum=60, help="Seconds of log that are searched."
    )
    error_patterns: list[dict[str, Any]] = option(
        type="list",
        elements="dict",
        default=[],
        suboptions=_PATTERN,
        help="Further kernel messages to find.",
    )
    disk_health: bool = option(
        type="bool", default=True, help="Ask smartctl or nvme where they are installed."
    )
    certificates: list[str] = option(
        type="list", elements="path", default=[], help="PEM or DER files whose expiry is judged."
    )
    security_updates: bool = option(
        type="bool", default=False, help="Count pending security updates."
    )
    checks: list[str] = option(
        type="list", elements="str", default=[], check=_names, help="Only these checks or groups."
    )
    skip: list[str] = option(
        type="list", elements="str", default=[], check=_names, help="Checks or groups left out."
    )
    timeout: float = option(
        type="float", default=5.0, minimum=0.5, maximum=60, help="Seconds for each probe."
    )
    total_timeout: float = option(
        type="float", default=30.0, minimum=1, maximum=300, help="Seconds for all probes together."
    )
    state_file: str | None = option(type="path", help="File in which verdicts are remembered.")
    raise_after: int = option(
        type="int",
        default=1,
        minimum=1,
        help="Observations in a row until a state gets worse (needs state_file).",
    )
    clear_after: int = option(
        type="int",
        default=2,
        minimum=1,
        help="Observations in a row until a state gets better (needs state_file).",
    )
    boot_grace: int = option(
        type="int",
        default=600,
        minimum=0,
        help="Seconds after boot in which nothing new is raised (needs state_file).",
    )

    limits_in_force: dict[str, thresholds.Limits]

    def check_together(self) -> None:
        """Check the limits and patterns as a whole. :raises OptionError: they contradict each other or can't be used."""
        given: dict[str, dict[str, Any]] = {}
        for name, own in self.limits.items():
            known = canonical(str(name))
            if known not in thresholds.RULES:
                close = difflib.get_close_matches(known, thresholds.RULES, n=1)
                hint = (
                    f"Did you mean {close[0]}?"
                    if close
                    else "Known: " + ", ".join(thresholds.RULES) + "."
                )
                raise OptionError(
                    f"Option limits names the check {name!r}, which has no limits.", hint, "limits"
                )
            if not isinstance(own, Mapping) or not set(own) <= {"warning", "critical", "clear"}:
                raise OptionError(
                    f"Option limits.{name} is {own!r}, but must be a mapping of warning, critical and clear.",
                    "",
                    "limits",
                )
            given[known] = dict(own)
        for name, prefix in (("disk_usage", "disk"), ("memory_usage", "memory")):
            own = given.setdefault(name, {})
            for kind in ("warning", "critical"):
                if own.get(kind) is None:
                    own[kind] = getattr(self, f"{prefix}_{kind}")
        # The old script had a warning for memory and nothing beyond it: our own critical limit makes way for a higher one.
        memory = given["memory_usage"]
        if memory["critical"] == _MEMORY_CRITICAL and _is_above(
            memory["warning"], _MEMORY_CRITICAL
        ):
            memory["critical"] = "100"
        self.limits_in_force = thresholds.resolve(given)
        if self.disk_floor_warning and self.disk_floor_critical > self.disk_floor_warning:
            raise OptionError(
                "Option disk_floor_critical is larger than disk_floor_warning.",
                "Less free space is worse: exchange them.",
                "disk_floor_critical",
            )
        if self.gpu_temperature_warning > self.gpu_temperature_critical:
            raise OptionError(
                "Option gpu_temperature_warning is above gpu_temperature_critical.",
                "Exchange or correct them.",
                "gpu_temperature_warning",
            )
        for rule in self.error_patterns:
            if sum(rule["name"] == other["name"] for other in self.error_patterns) > 1:
                raise OptionError(
                    f"Option error_patterns has the name {rule['name']!r} twice.",
                    "Each needs a name of its own.",
                    "error_patterns",
                )
            try:
                re.compile(rule["pattern"])
            except re.error as error:
                raise OptionError(
                    f"Option error_patterns: {rule['pattern']!r} is no regular expression: {error}.",
                    "",
                    "error_patterns",
                ) from None

    def wants(self, name: str) -> bool:
        """Say whether a check or a group is asked for. Group C(gpu) covers every check whose name begins with C(gpu_)."""
        group = group_of(name)
        if (group == "gpu" and not self.gpu) or (group == "network" and not self.network):
            return False
        skip = {canonical(one) for one in self.skip}
        if name in skip or group in skip:
            return False
        only = {canonical(one) for one in self.checks}
        if not only or group in only or name in only:
            return True
        return name == group and (
            any(one in only for one in GROUPS[group])
            or (group == "gpu" and any(one.startswith("gpu_") for one in only))
        )

    def services_are_default(self) -> bool:
        """Whether nobody named any service: a unit of the default list that is not installed is then no fault."""
        return bool(self.services == _DEFAULT_SERVICES)
