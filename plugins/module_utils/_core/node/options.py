# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of the node health check."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import OptionError
from ..options import OptionSet, ReportOptions, option
from . import thresholds
from .checks import GROUPS, NAMES, RULES, group_of
from .expectations import ExpectedHardware

_UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]{1,255}")
_TARGET = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9_.-]+):([0-9]{1,5})")
_HOST = re.compile(r"[A-Za-z0-9_.-]{1,253}")
_DEFAULT_SERVICES = ["docker"]
_MEMORY_CRITICAL = "95"
_LIMIT_KINDS = frozenset({"warning", "critical", "clear"})
_EXPECTED_FILE = "/var/lib/mlops-fleet/expected-hardware.json"


def canonical(name: str) -> str:
    """Return the name of a check or group as it is registered; ``Disk usage`` is disk_usage."""
    return name.strip().lower().replace(" ", "_").replace("-", "_")


def _close_match(name: str, known: Iterable[str]) -> list[str]:
    """Return the known name that is most like a misspelled one, if any is."""
    import difflib  # only a misspelled name needs it

    return difflib.get_close_matches(name, list(known), n=1)


def _names(given: list[str]) -> str | None:
    for name in given:
        known = canonical(name)
        if known not in NAMES and not known.startswith("gpu_"):
            close = _close_match(known, NAMES)
            return f"{name!r} is neither a check nor a group" + (
                f" (did you mean {close[0]}?)" if close else "; groups are " + " ".join(GROUPS)
            )
    return None


def _units(given: list[str]) -> str | None:
    for name in given:
        if not _UNIT.fullmatch(name) or name.startswith((".", "-")):
            return f"{name!r} can't be the name of a systemd unit"
        if name.partition(".")[0].endswith("@"):
            example = name.partition(".")[0] + "1"
            return (
                f"{name!r} is a template and runs as its instances only:"
                f" name one, such as {example}"
            )
    return None


def _targets(given: list[str]) -> str | None:
    for target in given:
        match = _TARGET.fullmatch(target)
        if not match or not 0 < int(match[2]) < 65536:
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


class PatternOptions(OptionSet):
    """A rule of the user's for kernel messages."""

    name: str = option(required=True, help="Name of the rule, shown in messages.")
    pattern: str = option(required=True, help="Regular expression searched in kernel messages.")
    status: str = option(
        choices=("warning", "critical"), default="warning", help="Verdict when it is found."
    )


class LinkOptions(OptionSet):
    """An interface that must be up."""

    name: str = option(required=True, help="Network interface.")
    speed: int | None = option(type="int", minimum=1, help="Least speed in Mbit/s.")


class BackupAgeOptions(OptionSet):
    """A directory that must hold a recent backup."""

    path: str = option(type="path", required=True, help="Directory of the backups.")
    source: str | None = option(type="path", help="Count only backups of this source.")
    warning: float | None = option(type="float", minimum=0, help="Age in hours for a warning.")
    critical: float | None = option(type="float", minimum=0, help="Critical age in hours.")


class NodeOptions(ReportOptions):
    """Checked options; ``limits_in_force`` holds the limits of every check that has any."""

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
    gpu: bool = option(type="bool", default=True, env=("CHECK_GPU",), help="Check the GPUs.")
    gpu_expected_count: int | None = option(type="int", minimum=0, help="GPUs this node must have.")
    gpu_temperature_warning: float = option(
        type="float", default=75.0, env=("GPU_TEMP_WARN",), help="Degrees Celsius."
    )
    gpu_temperature_critical: float = option(
        type="float", default=85.0, env=("GPU_TEMP_CRIT",), help="Degrees Celsius."
    )
    network: bool = option(type="bool", default=True, help="Check connectivity.")
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
    network_links: list[LinkOptions] = option(
        type="list",
        elements="dict",
        default=[],
        suboptions=LinkOptions,
        help="Interfaces that must be up, with their least speed.",
    )
    infiniband_ports: int | None = option(
        type="int", minimum=0, help="InfiniBand ports that must be active."
    )
    infiniband_rate: float | None = option(
        type="float", minimum=0, help="Least rate of an active port, Gbit/s."
    )
    expected_hardware: ExpectedHardware | None = option(
        type="dict", suboptions=ExpectedHardware, help="What this node must have."
    )
    expected_hardware_file: str = option(
        type="path",
        default=_EXPECTED_FILE,
        help="File with what this node must have, as --learn writes it.",
    )
    hardware_facts: bool = option(
        type="bool", default=False, help="Return what this node has as hardware."
    )
    error_window: int = option(
        type="int", default=3600, minimum=60, help="Seconds of log that are searched."
    )
    error_patterns: list[PatternOptions] = option(
        type="list",
        elements="dict",
        default=[],
        suboptions=PatternOptions,
        help="Further kernel messages to find.",
    )
    disk_health: bool = option(
        type="bool", default=True, help="Ask smartctl or nvme where they are installed."
    )
    certificates: list[str] = option(
        type="list", elements="path", default=[], help="PEM or DER files whose expiry is checked."
    )
    backups: list[BackupAgeOptions] = option(
        type="list",
        elements="dict",
        default=[],
        suboptions=BackupAgeOptions,
        help="Directories that must hold a recent verified backup.",
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
        """Check the limits and patterns as a whole.

        :raises OptionError: they contradict each other or can't be used.
        """
        self.limits_in_force = thresholds.resolve(RULES, self._given_limits())
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
        self._check_patterns()

    def _given_limits(self) -> dict[str, dict[str, Any]]:
        """Return the limits that the user gave, by check; those of disk and memory included."""
        given: dict[str, dict[str, Any]] = {}
        for name, limits in self.limits.items():
            known = canonical(str(name))
            if known not in RULES:
                close = _close_match(known, RULES)
                hint = f"Did you mean {close[0]}?" if close else f"Known: {', '.join(RULES)}."
                raise OptionError(
                    f"Option limits names the check {name!r}, which has no limits.", hint, "limits"
                )
            if not isinstance(limits, Mapping) or not set(limits) <= _LIMIT_KINDS:
                raise OptionError(
                    f"Option limits.{name} is {limits!r}, but must be a mapping of warning,"
                    " critical and clear.",
                    "",
                    "limits",
                )
            given[known] = dict(limits)
        disk = given.setdefault("disk_usage", {})
        memory = given.setdefault("memory_usage", {})
        for limits, warning, critical in (
            (disk, self.disk_warning, self.disk_critical),
            (memory, self.memory_warning, self.memory_critical),
        ):
            if limits.get("warning") is None:
                limits["warning"] = warning
            if limits.get("critical") is None:
                limits["critical"] = critical
        # The old script warned about memory and did nothing beyond: our own critical limit makes
        # way for a higher warning.
        if memory["critical"] == _MEMORY_CRITICAL and _is_above(
            memory["warning"], _MEMORY_CRITICAL
        ):
            memory["critical"] = "100"
        return given

    def _check_patterns(self) -> None:
        names = [rule.name for rule in self.error_patterns]
        for rule in self.error_patterns:
            if names.count(rule.name) > 1:
                raise OptionError(
                    f"Option error_patterns has the name {rule.name!r} twice.",
                    "Each needs a name of its own.",
                    "error_patterns",
                )
            try:
                re.compile(rule.pattern)
            except re.error as error:
                raise OptionError(
                    f"Option error_patterns: {rule.pattern!r} is no regular expression: {error}.",
                    "",
                    "error_patterns",
                ) from None

    def wants(self, name: str) -> bool:
        """Return whether a check or a group is requested.

        Group ``gpu`` covers every check whose name begins with ``gpu_``.
        """
        group = group_of(name)
        if (group == "gpu" and not self.gpu) or (group == "network" and not self.network):
            return False
        skip = {canonical(entry) for entry in self.skip}
        if name in skip or group in skip:
            return False
        only = {canonical(entry) for entry in self.checks}
        if not only or group in only or name in only:
            return True
        if name != group:
            return False
        if group == "gpu" and any(entry.startswith("gpu_") for entry in only):
            return True
        return any(check in only for check in GROUPS[group])

    def services_are_default(self) -> bool:
        """Return whether nobody named a service: a missing one is then no fault."""
        return self.services == _DEFAULT_SERVICES
