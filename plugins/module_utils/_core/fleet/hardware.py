# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hardware of hosts in a form that can be compared: what node_health returns as ``hardware``.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..system.text import human_size
from .faults import clean

#: What a host has of something that another one lacks, and the other way round.
PRESENT = "present"
MISSING = "missing"
#: Sizes that differ by less are the same: kernels reserve different amounts of memory, and disks of
#: one nominal size differ. One of 32 memory modules is more.
TOLERANCE = 0.03
#: Most entries that are kept of a list.
_MOST = 64
_NUMBERS = {"cpus": "CPUs", "dimms": "memory modules", "gpus": "GPUs on the PCI bus"}
_SIZES = {"memory": "memory", "swap": "swap"}
_NAMES = {"kernel_modules": "kernel module", "libraries": "library"}


def facts(hardware: object) -> dict[str, Any]:
    """Return what of ``hardware`` is compared, without what is not of the documented form."""
    if not isinstance(hardware, Mapping):
        return {}
    kept: dict[str, Any] = {
        name: hardware[name] for name in (*_NUMBERS, *_SIZES) if _is_count(hardware.get(name))
    }
    for name, key in (("disks", "size"), ("links", "speed")):
        groups = hardware.get(name)
        if isinstance(groups, (list, tuple)):
            kept[name] = [
                [group[key], group["count"]]
                for group in groups[:_MOST]
                if isinstance(group, Mapping)
                and _is_count(group.get(key))
                and _is_count(group.get("count"))
            ]
    for name in _NAMES:
        names = hardware.get(name)
        if isinstance(names, (list, tuple)):
            kept[name] = [clean(entry, 100) for entry in names[:_MOST]]
    firmware = hardware.get("firmware")
    if isinstance(firmware, Mapping):
        pairs = list(firmware.items())[:_MOST]
        kept["firmware"] = {clean(name, 100): clean(version, 80) for name, version in pairs}
    return kept


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 60


def table(hosts: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, dict[str, str]]:
    """Return by thing and host what each host has, as texts that are equal where hosts are alike.

    :param hosts: names and facts. A host that says nothing about a thing is left out of it.
    """
    known = [(host, entry) for host, entry in hosts if entry]
    result: dict[str, dict[str, str]] = {}
    for name, label in _NUMBERS.items():
        result[label] = {host: str(entry[name]) for host, entry in known if name in entry}
    for name, label in _SIZES.items():
        nominal = _nominal(entry[name] for dummy, entry in known if name in entry)
        result[label] = {
            host: human_size(nominal[entry[name]]) for host, entry in known if name in entry
        }
    sizes = _nominal(size for dummy, entry in known for size, dummy in entry.get("disks", ()))
    result["disks"] = {
        host: _listing([(human_size(sizes[size]), count) for size, count in entry["disks"]])
        for host, entry in known
        if "disks" in entry
    }
    result["network interfaces"] = {
        host: _listing([(f"{speed} Mbit/s", count) for speed, count in entry["links"]])
        for host, entry in known
        if "links" in entry
    }
    for name, label in _NAMES.items():
        listed = [(host, entry[name]) for host, entry in known if name in entry]
        for thing in sorted({thing for dummy, names in listed for thing in names}):
            result[f"{label} {thing}"] = {
                host: PRESENT if thing in names else MISSING for host, names in listed
            }
    for host, entry in known:
        for name, version in entry.get("firmware", {}).items():
            result.setdefault(f"firmware of {name}", {})[host] = version
    return result


def _nominal(sizes: Iterable[int]) -> dict[int, int]:
    """Return for each size the largest of those that differ by less than the tolerance."""
    groups: list[list[int]] = []
    for size in sorted(set(sizes)):
        if groups and size <= groups[-1][0] * (1 + TOLERANCE):
            groups[-1].append(size)
        else:
            groups.append([size])
    return {size: group[-1] for group in groups for size in group}


def _listing(pairs: Sequence[tuple[str, int]]) -> str:
    """Return counts by label, in the order of the labels: ``8 x 3.5 TiB, 2 x 447.1 GiB``."""
    counts: dict[str, int] = {}
    for label, count in pairs:
        counts[label] = counts.get(label, 0) + count
    return ", ".join(f"{count} x {label}" for label, count in counts.items() if count) or "none"
