# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hardware and software that a node must have: from the options, and from a file that it
learned.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Mapping
from typing import Any

from .. import verdict
from ..errors import FleetError, NotUsable, OptionError
from ..ports import World
from ..records import NamedTuple
from ..system import files
from ..system.text import human_size
from ..verdict import Check, isoformat
from .expectations import ExpectedHardware, parse_size
from .inventory import Inventory, observe, to_dict
from .options import NodeOptions
from .probes import Problem
from .thresholds import fault, passed, skipped

CHECK = "expected_hardware"
#: Share of the memory that may be missing: the kernel reserves some, differently in each version.
#: One of 32 DIMMs is more.
_MEMORY_TOLERANCE = 0.03
#: Disks of one nominal size differ by less.
_DISK_TOLERANCE = 0.02


class ExpectedFacts(NamedTuple):
    """What is expected, a Problem where the file can't be used, and what is there."""

    expected: ExpectedHardware | Problem
    inventory: Inventory | Problem


def load(world: World, options: NodeOptions) -> ExpectedHardware | Problem | None:
    """Return what is expected: the options, completed by the file; None when nothing is."""
    given = options.expected_hardware
    path = world.path(options.expected_hardware_file)
    try:
        content = files.read_json(path)
    except (NotUsable, RecursionError) as error:
        return Problem(f"{path} can't be used: {error}")
    if content is None:
        return given
    try:
        learned = content.get("expected_hardware", {}) if isinstance(content, Mapping) else None
        if not isinstance(learned, Mapping):
            raise OptionError("It has no mapping expected_hardware.")
        from_file = ExpectedHardware.from_mapping(learned)
    except FleetError as error:
        return Problem(f"{path} can't be used: {error}")
    if given is None:
        return from_file
    values = {name: value for name, value in given.given().items() if value is not None}
    return ExpectedHardware({**from_file.given(), **values})


# --- learning ---------------------------------------------------------------------------------


def learn(world: World, options: NodeOptions, check: bool = False) -> dict[str, Any]:
    """Write what this node has into the file, as what is expected from now on; return its content.

    :param check: write nothing. :raises WriteFailed: the file can't be written.
    :raises NotUsable: the hardware does not answer.
    """
    from ..system import isolate

    outcome = isolate.call(lambda: observe(world), options.timeout)
    if outcome.value is None:
        raise NotUsable(
            f"The hardware gave no answer within {options.timeout:g} s.",
            "Run mlfleet health to see what hangs.",
        )
    content = {
        "learned_at": isoformat(world.clock.now()),
        "hostname": world.hostname,
        "expected_hardware": to_dict(outcome.value),
    }
    if not check:
        path = world.path(options.expected_hardware_file)
        files.atomic_write(path, json.dumps(content, indent=2) + "\n", mode=0o644)
    return content


# --- verdicts ---------------------------------------------------------------------------------


def decide(facts: ExpectedFacts) -> list[Check]:
    """Return expected_hardware for each thing that is expected."""
    if isinstance(facts.expected, Problem):
        return [fault(CHECK, verdict.UNKNOWN, f"Expected hardware: {facts.expected}")]
    if isinstance(facts.inventory, Problem):
        text = f"Expected hardware: {facts.inventory}"
        return [fault(CHECK, verdict.UNKNOWN, text, unknown_as=verdict.CRITICAL)]
    wanted, has = facts.expected, facts.inventory
    checks = [
        *_counts(wanted, has),
        *_sizes(wanted, has),
        *_disk_checks(wanted, has),
        *_link_checks(wanted, has),
        *_present("kernel module", wanted.kernel_modules, has.kernel_modules),
        *_present("library", wanted.libraries, has.libraries),
        *_versions(wanted, has),
    ]
    return checks or [skipped(CHECK, "Expected hardware: nothing is expected")]


def _verdict(
    subject: str, good: bool, text: str, status: str = verdict.CRITICAL, **measured: Any
) -> Check:
    if good:
        return passed(CHECK, text, subject, **measured)
    return fault(CHECK, status, text, subject, **measured)


def _counts(wanted: ExpectedHardware, has: Inventory) -> list[Check]:
    checks = []
    for subject, label, expected, present in (
        ("cpus", "CPUs", wanted.cpus, has.cpus),
        ("dimms", "Memory modules", wanted.dimms, has.dimms),
        ("gpus", "GPUs on the PCI bus", wanted.gpus, has.gpus),
    ):
        if expected is None:
            continue
        if present is None:
            text = f"{label}: {expected} expected, but they can't be counted here"
            checks.append(fault(CHECK, verdict.UNKNOWN, text, subject))
            continue
        text = f"{label}: {present} of {expected} expected"
        checks.append(
            _verdict(subject, present >= expected, text, value=present, crit=f"{expected}:")
        )
    return checks


def _sizes(wanted: ExpectedHardware, has: Inventory) -> list[Check]:
    checks = []
    for subject, label, size, present, status in (
        ("memory", "Memory", wanted.memory, has.memory, verdict.CRITICAL),
        ("swap", "Swap", wanted.swap, has.swap, verdict.WARNING),
    ):
        if size is None:
            continue
        expected = parse_size(size)
        if present is None:
            text = f"{label}: {human_size(expected)} expected, but it can't be read here"
            checks.append(fault(CHECK, verdict.UNKNOWN, text, subject))
            continue
        text = f"{label}: {human_size(present)} of {human_size(expected)} expected"
        good = present >= expected * (1 - _MEMORY_TOLERANCE)
        checks.append(_verdict(subject, good, text, status, value=present, unit="bytes"))
    return checks


def _disk_checks(wanted: ExpectedHardware, has: Inventory) -> list[Check]:
    checks = []
    remaining = list(has.disks)
    for entry in wanted.disks or []:
        size = parse_size(entry.size)
        near = [disk for disk in remaining if abs(disk - size) <= size * _DISK_TOLERANCE]
        for disk in near[: entry.count]:
            remaining.remove(disk)
        text = f"Disks of {human_size(size)}: {len(near)} of {entry.count} expected"
        measured: dict[str, Any] = {"value": len(near), "crit": f"{entry.count}:"}
        subject = f"disks {human_size(size)}"
        checks.append(_verdict(subject, len(near) >= entry.count, text, **measured))
    return checks


def _link_checks(wanted: ExpectedHardware, has: Inventory) -> list[Check]:
    checks = []
    remaining = list(has.links)
    for entry in sorted(wanted.links or [], key=lambda link: -link.speed):
        fast = [speed for speed in remaining if speed >= entry.speed]
        remaining = remaining[min(len(fast), entry.count) :]
        text = (
            f"Network interfaces of {entry.speed} Mbit/s or more: {len(fast)} of {entry.count}"
            " expected"
        )
        measured: dict[str, Any] = {"value": len(fast), "crit": f"{entry.count}:"}
        subject = f"links {entry.speed} Mbit/s"
        checks.append(_verdict(subject, len(fast) >= entry.count, text, **measured))
    return checks


def _present(label: str, wanted: list[str] | None, has: frozenset[str]) -> list[Check]:
    checks = []
    for name in dict.fromkeys(wanted or []):
        state = "missing"
        if name in has:
            state = "present"
        text = f"{label.capitalize()} {name}: {state}"
        checks.append(_verdict(f"{label} {name}", name in has, text))
    return checks


def _versions(wanted: ExpectedHardware, has: Inventory) -> list[Check]:
    checks = []
    for subject, label, pattern, present in (
        ("kernel", "Kernel", wanted.kernel, has.kernel),
        ("driver", "NVIDIA driver", wanted.driver, has.driver),
    ):
        if pattern is None:
            continue
        text = f"{label}: {present or 'none'}"
        good = present is not None and fnmatch.fnmatchcase(present, pattern)
        if not good:
            text += f", expected {pattern}"
        status = verdict.WARNING if present else verdict.CRITICAL
        checks.append(_verdict(subject, good, text, status, value=present))
    for component, pattern in (wanted.firmware or {}).items():
        present = has.firmware.get(component)
        good = present is not None and fnmatch.fnmatchcase(present, pattern)
        text = f"Firmware of {component}: {present or 'none'}"
        if not good:
            text += f", expected {pattern}"
        subject = f"firmware {component}"
        checks.append(_verdict(subject, good, text, verdict.WARNING, value=present))
    return checks
