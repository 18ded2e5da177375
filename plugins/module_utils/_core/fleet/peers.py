# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts and GPUs that differ from their peers: readings far from the median, versions that most do
not have.

Peers are the hosts of the smallest inventory group that is large enough, otherwise the whole fleet.
A reading is an outlier when its distance from the median is more than ``limit`` times the scaled
median absolute deviation (MAD / 0.6745), and more than the rule's smallest distance that matters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ..system.text import human_count, human_duration
from . import hardware
from .stats import median
from .storage import age

#: Default of the factor, as Iglewicz and Hoaglin (1993) recommend.
LIMIT = 3.5
#: Default of the smallest number of peers, the host itself included.
MINIMUM = 5
#: Share of the peers that must have the same version before others count as drift.
MAJORITY = 0.6


class Reading(NamedTuple):
    """A value of a host or GPU: the host, how the value's owner is called, the value."""

    host: str
    label: str
    value: float


def peer_groups(
    hosts: Sequence[Mapping[str, Any]], minimum: int
) -> dict[str, list[Mapping[str, Any]]]:
    """Return the hosts by peer group; hosts whose groups are too small are peers of each other."""
    sizes = Counter(group for entry in hosts for group in entry["groups"])
    result: dict[str, list[Mapping[str, Any]]] = {}
    for entry in hosts:
        large = [group for group in entry["groups"] if sizes[group] >= minimum]
        result.setdefault(
            min(large, key=lambda group: (sizes[group], group), default="fleet"), []
        ).append(entry)
    return result


def deviations(
    readings: Sequence[Reading], limit: float, floor: float, minimum: int
) -> list[tuple[Reading, float]]:
    """Return the readings far above the median of all, with the median, farthest first.

    :param floor: smallest distance that counts, in the unit of the values.
    """
    middle = median([reading.value for reading in readings])
    if middle is None or len(readings) < minimum:
        return []
    mad = median([abs(reading.value - middle) for reading in readings]) or 0.0
    bound = max(floor, limit * mad / 0.6745)
    far = [(reading, middle) for reading in readings if reading.value - middle > bound]
    return sorted(far, key=lambda pair: -pair[0].value)


def find(
    report: Mapping[str, Any],
    *,
    limit: float = LIMIT,
    minimum: int = MINIMUM,
    before: Mapping[str, Mapping[str, float]] | None = None,
) -> list[dict[str, Any]]:
    """Return what differs, as ``kind group hosts text`` per outlier or drift.

    :param before: host to GPU number to corrected memory errors in the run before.
    """
    result: list[dict[str, Any]] = []
    for group, members in peer_groups(report["hosts"], minimum).items():
        place = "the fleet" if group == "fleet" else f"the group {group}"
        entries = (
            *_temperatures(members, limit, minimum),
            *_slow(members, limit, minimum, place),
            *_old_backups(members, limit, minimum, place, report["timestamp"]),
            *_fewer_gpus(members, minimum, place),
            *_versions(members, minimum, place),
            *_hardware(members, minimum, place),
        )
        result += [{**entry, "group": group} for entry in entries]
    result += [{**entry, "group": ""} for entry in _growing(report["hosts"], before or {})]
    return result


def _load(device: Mapping[str, Any]) -> str:
    """Return how hard a GPU works: GPUs are compared at like power."""
    power, top = device.get("power_draw"), device.get("power_limit")
    if not power or not top:
        return "unknown power"
    share = power / top
    if share < 0.35:
        return "low power"
    if share < 0.7:
        return "medium power"
    return "high power"


def _temperatures(
    members: Iterable[Mapping[str, Any]], limit: float, minimum: int
) -> Iterable[dict[str, Any]]:
    alike: dict[tuple[str, str], list[Reading]] = {}
    for entry in members:
        for device in entry["devices"]:
            if "temp" in device:
                title = "A GPU"
                if isinstance(device.get("id"), (int, float)):
                    title = f"GPU {device['id']:g}"
                readings = alike.setdefault((device.get("model", ""), _load(device)), [])
                readings.append(Reading(entry["host"], title, device["temp"]))
    for (model, load), readings in alike.items():
        for reading, middle in deviations(readings, limit, 5.0, minimum):
            yield {
                "kind": "temperature",
                "hosts": [reading.host],
                "text": (
                    f"{reading.label} of {reading.host} is at {reading.value:g} °C, "
                    f"{reading.value - middle:g} °C above the median of"
                    f" {len(readings)} GPUs {model or ''} at {load}".replace("  ", " ")
                ),
            }


def _slow(
    members: Iterable[Mapping[str, Any]], limit: float, minimum: int, place: str
) -> Iterable[dict[str, Any]]:
    by_phase: dict[str, list[Reading]] = {}
    for entry in members:
        for phase in entry["phases"]:
            if phase["phase"] in ("health", "gpu") and phase["duration"]:
                by_phase.setdefault(phase["phase"], []).append(
                    Reading(entry["host"], phase["phase"], phase["duration"])
                )
    for readings in by_phase.values():
        for reading, middle in deviations(readings, limit, 2.0, minimum):
            yield {
                "kind": "slow",
                "hosts": [reading.host],
                "text": (
                    f"The {reading.label} phase of {reading.host} took"
                    f" {human_duration(reading.value)}; the median of {place} is"
                    f" {human_duration(middle)}"
                ),
            }


def _old_backups(
    members: Iterable[Mapping[str, Any]], limit: float, minimum: int, place: str, now: str
) -> Iterable[dict[str, Any]]:
    readings = []
    for entry in members:
        seconds = age(entry["backup"].get("created"), now)
        if seconds is not None:
            readings.append(Reading(entry["host"], "backup", seconds))
    for reading, middle in deviations(readings, limit, 86400.0, minimum):
        yield {
            "kind": "backup",
            "hosts": [reading.host],
            "text": (
                f"The backup of {reading.host} is {reading.value / 86400:.1f} days old; the"
                f" median of {place} is {middle / 86400:.1f} days"
            ),
        }


def _fewer_gpus(
    members: Sequence[Mapping[str, Any]], minimum: int, place: str
) -> Iterable[dict[str, Any]]:
    counts = {entry["host"]: len(entry["devices"]) for entry in members if entry["devices"]}
    common = _majority(list(counts.values()), minimum)
    if common is None:
        return
    for host, count in counts.items():
        if count < common:
            yield {
                "kind": "gpu_count",
                "hosts": [host],
                "text": (
                    f"{host} has {human_count(count, 'GPU')}; most hosts of {place} have {common}"
                ),
            }


def _majority(values: Sequence[Any], minimum: int) -> Any:
    if len(values) < minimum:
        return None
    value, count = Counter(values).most_common(1)[0]
    if count / len(values) >= MAJORITY:
        return value
    return None


def _versions(
    members: Sequence[Mapping[str, Any]], minimum: int, place: str
) -> Iterable[dict[str, Any]]:
    versions: dict[str, dict[str, str]] = {}
    for entry in members:
        for what, version in entry["software"].items():
            versions.setdefault(what, {})[entry["host"]] = version
        for device in entry["devices"]:
            if device.get("vbios"):
                what = f"VBIOS of {device.get('model') or 'GPUs'}"
                common = versions.setdefault(what, {})
                # A host with several versions shows the one that differs from its first GPU's.
                if entry["host"] not in common or common[entry["host"]] == device["vbios"]:
                    common[entry["host"]] = device["vbios"]
                else:
                    common[entry["host"]] += ", " + device["vbios"]
    for what, value, hosts, common_version in _drift(versions, minimum):
        yield {
            "kind": "version",
            "hosts": hosts,
            "text": f"{what} {value} on {_who(hosts)}; most hosts of {place} have {common_version}",
        }


def _hardware(
    members: Sequence[Mapping[str, Any]], minimum: int, place: str
) -> Iterable[dict[str, Any]]:
    known = hardware.table((entry["host"], entry.get("hardware") or {}) for entry in members)
    for what, value, hosts, common in _drift(known, minimum):
        text = f"{what} {value} on {_who(hosts)}; most hosts of {place} have {common}"
        if value == hardware.MISSING:
            text = f"{what} is missing on {_who(hosts)}; most hosts of {place} have it"
        elif common == hardware.MISSING:
            text = f"{what} is on {_who(hosts)}; most hosts of {place} do not have it"
        yield {"kind": "hardware", "hosts": hosts, "text": text}


def _drift(
    table: Mapping[str, Mapping[str, str]], minimum: int
) -> Iterable[tuple[str, str, list[str], str]]:
    """Return thing, value, hosts and the majority's value, for each value that is not that one.

    :param table: by thing and host.
    """
    for what, by_host in table.items():
        common = _majority(list(by_host.values()), minimum)
        if common is None:
            continue
        others: dict[str, list[str]] = {}
        for host, value in by_host.items():
            if value != common:
                others.setdefault(value, []).append(host)
        for value, hosts in others.items():
            yield what, value, hosts, common


def _who(hosts: Sequence[str]) -> str:
    if len(hosts) == 1:
        return hosts[0]
    return human_count(len(hosts), "host")


def _growing(
    hosts: Iterable[Mapping[str, Any]], before: Mapping[str, Mapping[str, float]]
) -> Iterable[dict[str, Any]]:
    for entry in hosts:
        known = before.get(entry["host"], {})
        for device in entry["devices"]:
            number = str(device.get("id"))
            growth = device.get("corrected", 0) - known.get(number, float("inf"))
            if growth > 0:
                yield {
                    "kind": "corrected_errors",
                    "hosts": [entry["host"]],
                    "text": (
                        f"GPU {number} of {entry['host']} corrected"
                        f" {growth:g} more memory errors since the last run"
                    ),
                }
