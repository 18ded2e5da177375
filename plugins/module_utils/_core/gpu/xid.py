# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""NVIDIA driver errors (Xid) in the kernel's messages: which there are, and which are over.

Nothing here reads anything.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Optional, Union

from .. import verdict
from ..records import NamedTuple, dataclass
from ..system.text import with_count
from ..verdict import CRITICAL, PASS, WARNING, Check, isoformat
from .case import Finding
from .reading import ADDRESS, BusId, display_bus
from .recovery import recovery
from .xid_catalog import CATALOG, UNNUMBERED, Xid

if TYPE_CHECKING:
    from ..system.kernel_log import Record

#: From this number of application errors on one GPU within the window on, the GPU itself is
#: suspected and not the program: a warning.
REPEATED = 3
#: Lines of one error on one GPU from one process belong together up to this gap, seconds.
BURST_GAP = 300
#: Seconds in which the driver logs in several ways that the same GPU fell off the bus, or that its
#: GSP does not answer.
SAME_FAULT = 60


OFF_THE_BUS, RECOVERY_CHANGED = 79, 154
_NVLINK5 = range(144, 151)
_GSP = frozenset({119, 120})


class Incident(NamedTuple):
    """One logged error: when, on which GPU, its number or name, the rest of the line, the process.

    ``cleared``: a person has dealt with it.
    """

    time: Optional[float]
    bus: Optional[BusId]
    name: str
    text: str = ""
    process: str = ""
    cleared: bool = False


class Recovered(NamedTuple):
    """A reset that was done: of one GPU, or of all (``bus`` None: the driver was loaded)."""

    time: Optional[float]
    bus: Optional[BusId]


Entry = Union[Incident, Recovered]


@dataclass
class Event:
    """All incidents of one error on one GPU within the window.

    ``count`` is how many there were (bursts of lines), ``active`` how many since the last reset,
    ``last`` the time of the newest line in seconds since the epoch. ``level`` and ``action`` are
    the verdict; ``source`` says whose level it is.
    """

    bus: Optional[BusId]
    meaning: Xid
    count: int = 0
    active: int = 0
    last: Optional[float] = None
    level: str = PASS
    action: str = "none"
    text: str = ""
    source: str = "default"

    @property
    def repeats(self) -> bool:
        """Whether it takes part in the rule that repeated application errors are a warning."""
        return self.meaning.repeats and self.source == "default"

    @property
    def label(self) -> str:
        """Its number, or its name where it has none."""
        return self.meaning.name

    @property
    def title(self) -> str:
        """It as one phrase."""
        if self.meaning.number is None:
            return self.text
        return f"Xid {self.meaning.number} ({self.text})"

    def to_dict(self) -> dict[str, Any]:
        """Return the event for the user; ``last`` is None without a readable time."""
        return {
            "code": self.meaning.number,
            "count": self.count,
            "last": None if self.last is None else isoformat(self.last),
            "level": self.level,
            "action": self.action,
            "text": self.text,
        }


# --- finding ----------------------------------------------------------------------------------

# Patterns are compiled when a message of the driver is there to match, which is seldom.
# The parenthesis may hold more (a MIG instance). NVSwitch errors read "SXid (" and are not ours.
_NVRM = r"^NVRM(?:\[\d+\])?: *"
_XID = _NVRM + r"Xid \(" + ADDRESS + r"[^)]*\): *(\d+)\b(.*)"
_PID = r"\bpid='?(\d+|<unknown>)"
_GPU = r"\bGPU (?:at )?" + ADDRESS
_LOST = r"\bfallen off the bus\b"
_LOADED = _NVRM + r"loading NVIDIA UNIX\b"
_TARGET = r"\bto 0x([0-9a-fA-F]+)"


def _bus(match: re.Match[str]) -> BusId:
    return int(match[1], 16), int(match[2], 16), int(match[3], 16)


def find(records: Iterable[Record]) -> Iterator[Entry]:
    """Yield the errors and resets among the kernel's messages, in their order.

    Two wordings without a number mean 79: ``GPU 0000:18:00.0: GPU has fallen off the bus`` and a
    block of three lines, which may arrive as one message or as three. Where they come with a
    numbered line, as most often, they are no second error.
    """
    subject: BusId | None = None
    age = 0
    fallen: dict[BusId | None, float | None] = {}
    for record in records:
        when, message = record.time, record.message
        if not message.startswith("NVRM") or "SXid" in message:
            continue
        match = re.match(_XID, message, re.DOTALL)
        if match:
            bus, number, rest = _bus(match), match[4], match[5]
            if int(number) == OFF_THE_BUS:
                fallen[bus] = when
            process = re.search(_PID, rest)
            yield Incident(when, bus, str(int(number)), rest, process[1] if process else "")
            if int(number) == RECOVERY_CHANGED and _target(rest) == 0:
                yield Recovered(when, bus)
            continue
        if re.match(_LOADED, message):
            yield Recovered(when, None)
            continue
        gpu = re.search(_GPU, message)
        if gpu:
            subject, age = _bus(gpu), 0
        elif subject is not None:
            age += 1
            if age > 2:
                subject = None
        if re.search(_LOST, message):
            if subject not in fallen or (when or 0.0) - (fallen[subject] or 0.0) > SAME_FAULT:
                yield Incident(when, subject, str(OFF_THE_BUS), " GPU has fallen off the bus")
            fallen[subject] = when
            subject = None
            continue
        for failure in UNNUMBERED:
            if re.search(failure.pattern, message, re.IGNORECASE):
                yield Incident(when, subject, failure.name, message)
                break


def _target(text: str) -> int | None:
    match = re.search(_TARGET, text)
    if match:
        return int(match[1], 16)
    return None


# --- evaluating -------------------------------------------------------------------------------


def events(
    entries: Iterable[Entry],
    overrides: Mapping[Any, str] | None = None,
    driver_version: str | None = None,
    keep: bool = False,
) -> list[Event]:
    """Group the entries by GPU and error and give each group its level, in order of appearance.

    144 to 150 are what their unit and severity say; 154 is the newest line's target action.
    A reset ends what it cures. A critical one without a readable time is a warning, because it may
    be old. What a person has cleared is history. ``overrides`` (number to ``ignore``, ``warning``
    or ``critical``) has the last word.

    :param keep: no reset ends anything.
    """
    entries = list(entries)
    chosen = {str(int(number)): level for number, level in (overrides or {}).items()}
    groups: dict[tuple[BusId | None, str, str], Event] = {}
    bursts: dict[tuple[BusId | None, str, str], float | None] = {}
    for entry in entries:
        if isinstance(entry, Recovered):
            if not keep:
                _end(groups.values(), entry)
            continue
        if entry.name == "gsp_timeout" and _has_number(entry, entries):
            continue
        meaning = _meaning(entry, driver_version)
        own = _own_number(entry)
        event = groups.setdefault((entry.bus, entry.name, own), Event(entry.bus, meaning))
        burst = (entry.bus, entry.name, own or entry.process)
        if entry.cleared:
            _clear(event, burst not in bursts or _apart(bursts[burst], entry.time))
            bursts[burst] = entry.time
            if entry.time is not None:
                event.last = entry.time
            continue
        newest = entry.name == str(RECOVERY_CHANGED)
        if event.active == 0 or newest or (meaning.level, event.level) == (CRITICAL, WARNING):
            event.level, event.action, event.text = meaning.level, meaning.action, meaning.text
        if event.active == 0 or burst not in bursts or _apart(bursts[burst], entry.time):
            event.count += 1
            event.active += 1
        bursts[burst] = entry.time
        if entry.time is not None:
            event.last = entry.time
        if entry.name in chosen:
            _override(event, chosen[entry.name])
    for event in groups.values():
        _note_missing_time(event)
    return list(groups.values())


def _note_missing_time(event: Event) -> None:
    if event.last is None and event.active and event.source == "default":
        event.text += ", at an unknown time"
        if event.level == CRITICAL:
            event.level = WARNING


def _apart(before: float | None, after: float | None) -> bool:
    return before is not None and after is not None and after - before > BURST_GAP


def _has_number(entry: Incident, entries: list[Entry]) -> bool:
    """Return whether an unnumbered GSP timeout was also logged as an Xid."""
    return any(
        isinstance(other, Incident)
        and other.name.isdecimal()
        and int(other.name) in _GSP
        and entry.bus in (None, other.bus)
        and (
            None in (entry.time, other.time)
            or abs((entry.time or 0) - (other.time or 0)) < SAME_FAULT
        )
        for other in entries
    )


def _end(group: Iterable[Event], reset: Recovered) -> None:
    """End what a reset cures; it stays in the result as history."""
    for event in group:
        here = reset.bus is None or event.bus in (None, reset.bus)
        if here and event.active and event.meaning.cured_by_reset:
            if event.level != PASS:
                event.text += ", over since the reset"
            event.level, event.action, event.active = PASS, "none", 0


def _clear(event: Event, new: bool) -> None:
    """Count an incident that a person has cleared; it decides nothing."""
    event.count += new
    if not event.active:
        event.level, event.action, event.source = PASS, "none", "default"
        event.text = f"{event.meaning.text}, cleared"


def _override(event: Event, level: str) -> None:
    event.level, event.source = level, "user"
    if level == "ignore":
        event.level, event.action = PASS, "none"
    elif event.action == "none":
        event.action = "inspect"


def _own_number(entry: Incident) -> str:
    """Return the GPU as the driver numbers it where the line has no address, else nothing.

    NVML counts only the GPUs that it shows, so this is not its index.
    """
    if entry.bus or entry.name.isdecimal():
        return ""
    match = re.search(r"\bGPU\d+\b", entry.text)
    if match:
        return match[0]
    return ""


def _meaning(entry: Incident, driver_version: str | None) -> Xid:
    failure = UNNUMBERED.get(entry.name)
    if failure is not None:
        own = _own_number(entry)
        text = failure.meaning.text
        if own:
            return failure.meaning._replace(text=f"{own}: {text}")
        return failure.meaning
    number = int(entry.name)
    unlisted = Xid(entry.name, number, WARNING, "inspect", "not in the catalog", False)
    meaning = CATALOG.get(entry.name) or unlisted
    if number in _NVLINK5:
        from . import nvlink5  # seldom needed

        return nvlink5.meaning(meaning, entry.text)
    target = _target(entry.text) if number == RECOVERY_CHANGED else None
    if target is not None:
        wanted = recovery(target, driver_version)
        text = f"recovery action is now: {wanted.text}"
        return meaning._replace(level=wanted.level, action=wanted.action, text=text)
    return meaning


def finding(events: Sequence[Event]) -> Finding:
    """Return the verdict on the events of one GPU."""
    worst = max(events, key=lambda event: verdict.STATUSES.index(event.level))
    repeated = sum(event.active for event in events if event.repeats)
    text = ", ".join(with_count(event.title, event.count) for event in events[:6])
    value = sum(event.count for event in events)
    if worst.level == PASS and repeated >= REPEATED:
        text = f"{repeated} application errors on this GPU: {text}"
        return Finding(WARNING, text, "inspect", value, threshold_source="default")
    deciding = [event for event in events if event.level == worst.level]
    by_user = any(event.source == "user" for event in deciding)
    action = max((event.action for event in deciding), key=verdict.ACTIONS.index)
    return Finding(
        worst.level,
        text,
        "none" if worst.level == PASS else action,
        value,
        threshold_source="user" if by_user else "default",
    )


def elsewhere(events: Sequence[Event], known: Collection[BusId | None]) -> list[Check]:
    """Return checks for the errors of GPUs that the driver does not list.

    :param known: the addresses of those that it lists.
    """
    strangers: dict[str, list[Event]] = {}
    for event in events:
        if event.bus is None or event.bus not in known:
            strangers.setdefault(display_bus(event.bus), []).append(event)
    results = []
    for place, own in strangers.items():
        verdict_on = finding(own)
        which = place
        if own[0].bus is not None:
            which += ", which the driver does not show"
        results.append(
            Check(
                "gpu_xid",
                verdict_on.status,
                f"{which}: {verdict_on.message}",
                subject=place,
                value=verdict_on.value,
                action=verdict_on.action,
                domain=None if verdict_on.status == PASS else "node",
            )
        )
    return results
