# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs remember of each GPU: its counters and its incidents, by UUID and serial number.

The records are pure data; load() reads the state file, dump() returns its new content. Times are
kept as seconds since the epoch and as seconds since boot, because a clock can be set.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Optional

from .. import verdict
from ..errors import FleetError
from ..records import NamedTuple
from ..system import files
from ..system.text import with_count
from . import xid
from .reading import Gpu, bus_id, display_bus

VERSION = 1
#: Incidents within this time count against a GPU; seconds.
PERIOD = 30 * 86400
#: Incidents at most this far apart are one, seconds: a fault is logged under several numbers.
SAME_INCIDENT = xid.BURST_GAP
#: The newest incidents of a GPU that are kept. Age alone removes none: the clock may be wrong.
MAX_INCIDENTS = 200
#: Records kept, the ones seen last: cards that were taken out stay known.
MAX_RECORDS = 256
#: Samples of counters are kept this long, and at least this far apart; seconds.
KEEP_SAMPLES, SAMPLE_GAP = 2 * 3600, 900
#: Two notes of one log line may differ by this much, seconds.
SAME_TIME = 2.0
#: Times beyond it (the year 5138) are garbage.
_NO_TIME = 1e11
#: Serial numbers that stand for none.
_NO_SERIALS = frozenset({"", "0", "n/a", "unknown", "none"})


class Moment(NamedTuple):
    """When something was: seconds since the epoch, the boot, seconds since that boot."""

    time: float
    boot: Optional[str] = None
    uptime: Optional[float] = None

    def same(self, other: Moment) -> bool:
        """Return whether both are one moment, also when the clock was set in between."""
        if self.boot != other.boot:
            return False
        apart = [abs(self.time - other.time)]
        if self.uptime is not None and other.uptime is not None:
            apart.append(abs(self.uptime - other.uptime))
        return min(apart) <= SAME_TIME

    def seconds_since(self, earlier: Moment) -> float | None:
        """Return the seconds since ``earlier``, None when the clock has gone back meanwhile."""
        same_boot = self.boot is not None and self.boot == earlier.boot
        if same_boot and self.uptime is not None and earlier.uptime is not None:
            return max(0.0, self.uptime - earlier.uptime)
        elapsed = self.time - earlier.time
        if elapsed >= 0:
            return elapsed
        return None


class Sample(NamedTuple):
    """The counters of a GPU at one time, and the recovery action that its driver asked for."""

    moment: Moment
    counters: Mapping[str, int]
    recovery: Optional[int] = None


class Incident(NamedTuple):
    """A fault of a GPU: an Xid (``code`` is its number or name), or a check that became critical.

    ``dated`` is False for a line of the log without a readable time. ``cleared``: a person has
    dealt with it.
    """

    moment: Moment
    code: str
    level: str
    text: str = ""
    dated: bool = True
    cleared: bool = False


class Record(NamedTuple):
    """All that is remembered of one GPU.

    ``faults`` are its checks that were critical last time; ``reset`` is until when what a reset
    cures is over.
    """

    uuid: Optional[str]
    serial: Optional[str]
    name: Optional[str]
    bus_id: Optional[str]
    first_seen: float
    last_seen: float
    samples: tuple[Sample, ...] = ()
    incidents: tuple[Incident, ...] = ()
    faults: tuple[str, ...] = ()
    reset: Optional[Moment] = None

    @property
    def label(self) -> str:
        """What people call it by."""
        return self.uuid or self.serial or display_bus(bus_id(self.bus_id))


class Memory(NamedTuple):
    """The content of the state file."""

    records: tuple[Record, ...] = ()


def counters_of(gpu: Gpu) -> dict[str, int]:
    """Return the counters that are remembered, those the GPU does not have left out."""
    values: dict[str, Optional[int]] = {
        "corrected": gpu.ecc.volatile_corrected,
        "aggregate_corrected": gpu.ecc.aggregate_corrected,
        "aggregate_uncorrected": gpu.ecc.aggregate_uncorrected,
        "replays": gpu.pcie.replays,
        "energy": gpu.energy if gpu.persistence else None,
    }
    if gpu.remap is not None:
        values["remapped_rows"] = gpu.remap.corrected + gpu.remap.uncorrected
    if gpu.retired is not None:
        values["retired_pages"] = (gpu.retired.single_bit or 0) + (gpu.retired.double_bit or 0)
    for link in (gpu.nvlink.errors if gpu.nvlink else None) or ():
        values[f"nvlink_recovery.{link.link}"] = link.recovery
        values[f"nvlink_errors.{link.link}"] = link.replay + link.crc
    return {name: value for name, value in values.items() if value is not None}


# --- whose record -----------------------------------------------------------------------------


def serial_of(gpu: Gpu) -> str | None:
    """Return the board's serial number, None where it stands for none."""
    serial = (gpu.serial or "").strip()
    if serial.lower() in _NO_SERIALS:
        return None
    return serial


def find(memory: Memory, gpu: Gpu, gpus: Sequence[Gpu]) -> Record | None:
    """Return the record of a GPU.

    A card keeps its record in another slot. A serial number finds a card whose UUID has changed,
    unless another GPU of the board has the record's UUID. A GPU that does not answer has neither
    and is found by its address.
    """
    if gpu.uuid:
        for record in memory.records:
            if record.uuid == gpu.uuid:
                return record
        serial = serial_of(gpu)
        present = {other.uuid for other in gpus}
        for record in memory.records:
            if serial and record.serial == serial and record.uuid not in present:
                return record
        return None
    return at_address(memory, gpu.bus_id)


def at_address(memory: Memory, address: str | None) -> Record | None:
    """Return the record of the GPU that was seen last at a PCI address."""
    bus = bus_id(address)
    here = [record for record in memory.records if bus is not None and bus_id(record.bus_id) == bus]
    return max(here, key=lambda record: record.last_seen, default=None)


# --- incidents --------------------------------------------------------------------------------


def recent(record: Record | None, now: float) -> list[list[Incident]]:
    """Return the incidents of the last 30 days, those that belong together as one list."""
    if record is None:
        return []
    past = sorted(
        (incident for incident in record.incidents if now - incident.moment.time <= PERIOD),
        key=lambda incident: incident.moment.time,
    )
    groups: list[list[Incident]] = []
    for incident in past:
        if groups and incident.moment.time - groups[-1][-1].moment.time <= SAME_INCIDENT:
            groups[-1].append(incident)
        else:
            groups.append([incident])
    return groups


def known(record: Record | None, moment: Moment, code: str, dated: bool) -> Incident | None:
    """Return the incident that is already recorded for a line of the log."""
    if record is None:
        return None
    for incident in record.incidents:
        if incident.code != code or incident.dated != dated:
            continue
        once_a_boot = not dated and incident.moment.boot == moment.boot
        if once_a_boot or incident.moment.same(moment):
            return incident
    return None


def title_of(code: str) -> str:
    """Return what an incident is called; a fault without an Xid has a name of its own."""
    if code.isdecimal():
        return f"Xid {code}"
    return code


def describe(groups: Iterable[Sequence[Incident]]) -> str:
    """Return the codes of incidents with how often they occurred: ``Xid 79 2 times, Xid 95``."""
    counts: dict[str, int] = {}
    for group in groups:
        for code in dict.fromkeys(incident.code for incident in group):
            title = title_of(code)
            counts[title] = counts.get(title, 0) + 1
    return ", ".join(with_count(title, count) for title, count in counts.items())


# --- the file ---------------------------------------------------------------------------------


class FutureVersion(FleetError):
    """The state file was written by a later release; it is neither used nor replaced."""


def load(path: str, now: float) -> tuple[Memory, str | None]:
    """Return what the state file holds, nothing where there is none, and what is wrong with it.

    :param now: seconds since the epoch; times after it are moved to it.
    :raises FutureVersion: a later release wrote the file.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        return Memory(), f"{path} is not a file."
    try:
        content = files.read_json(path)
    except FleetError as error:
        return Memory(), error.message
    except RecursionError:
        content = []
    if content is None:
        return Memory(), None
    version = content.get("version") if isinstance(content, dict) else None
    if isinstance(version, int) and not isinstance(version, bool) and version > VERSION:
        raise FutureVersion(
            f"{path} was written by a later release (version {version}): it was neither used nor "
            "changed.",
            "Update the collection on this node, or name another state_file.",
            path,
        )
    try:
        if isinstance(version, bool) or version != VERSION:
            raise ValueError(version)
        return Memory(tuple(_record(entry, now) for entry in content["gpus"])), None
    except (KeyError, TypeError, ValueError, AttributeError):
        return Memory(), f"{path} is not a state file of the GPU check."


def _time(value: Any, now: float | None = None) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < _NO_TIME:
        raise ValueError(value)
    if now is None:
        return float(value)
    return min(float(value), now)


def _optional_text(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ValueError(value)
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(value)
    return value


def _moment(values: Mapping[str, Any], now: float) -> Moment:
    uptime = values.get("uptime")
    return Moment(
        _time(values["time"], now),
        _optional_text(values.get("boot")),
        None if uptime is None else _time(uptime),
    )


def _sample(values: Mapping[str, Any], now: float) -> Sample:
    counters = {str(name): int(value) for name, value in values["counters"].items()}
    recovery = values.get("recovery")
    return Sample(_moment(values, now), counters, None if recovery is None else int(recovery))


def _incident(values: Mapping[str, Any], now: float) -> Incident:
    level = values["level"]
    if level not in (verdict.WARNING, verdict.CRITICAL):
        raise ValueError(level)
    return Incident(
        _moment(values, now),
        _text(values["code"]),
        level,
        _text(values.get("text", "")),
        bool(values.get("dated", True)),
        bool(values.get("cleared", False)),
    )


def _record(values: Mapping[str, Any], now: float) -> Record:
    return Record(
        _optional_text(values.get("uuid")),
        _optional_text(values.get("serial")),
        _optional_text(values.get("name")),
        _optional_text(values.get("bus_id")),
        _time(values["first_seen"], now),
        _time(values["last_seen"], now),
        tuple(_sample(entry, now) for entry in values["samples"]),
        tuple(_incident(entry, now) for entry in values["incidents"]),
        tuple(_text(entry) for entry in values.get("faults", ())),
        _moment(values["reset"], now) if values.get("reset") else None,
    )


def to_dict(record: Record) -> dict[str, Any]:
    """Return a record as plain data."""
    return {
        **record._asdict(),
        "faults": list(record.faults),
        "reset": record.reset and record.reset._asdict(),
        "samples": [
            {
                **sample.moment._asdict(),
                "counters": dict(sample.counters),
                "recovery": sample.recovery,
            }
            for sample in record.samples
        ],
        "incidents": [
            {
                **incident.moment._asdict(),
                **{key: value for key, value in incident._asdict().items() if key != "moment"},
            }
            for incident in record.incidents
        ],
    }


def dump(memory: Memory) -> str:
    """Return the content of the state file."""
    newest = sorted(memory.records, key=lambda record: -record.last_seen)[:MAX_RECORDS]
    content = {"version": VERSION, "gpus": [to_dict(record) for record in newest]}
    return json.dumps(content, indent=1) + "\n"
