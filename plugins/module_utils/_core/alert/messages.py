# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Messages: events grouped for the people or the service that receive them, and their plain
texts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ..verdict import isoformat
from .events import ALERT, RECOVERY, Event, digest_key

#: Further lines of a digest are counted, not listed.
LISTED = 20
#: Characters of the lines in a plain text.
LONGEST_TEXT = 100_000
#: Room for the line that counts what is not listed.
_REST = 20


@dataclass(frozen=True)
class Message:
    """One message and the events in it.

    ``incident`` is its deduplication key; ``resolve`` says that it closes that incident.
    """

    events: tuple[Event, ...]
    incident: str
    resolve: bool = False

    @property
    def only(self) -> tuple[str, ...]:
        """Marks of the recipients who still have to get it, the same for all its events; empty:
        all.
        """
        return self.events[0].only

    @property
    def worst(self) -> Event:
        """The event that gives the message its severity."""
        return max(self.events, key=lambda event: event.level)

    @property
    def keys(self) -> tuple[str, ...]:
        """The deduplication keys of its events."""
        return tuple(event.key for event in self.events)

    @property
    def kind(self) -> str:
        """The kind of its only event, or ``digest``."""
        if len(self.events) == 1:
            return self.events[0].kind
        return "digest"

    @property
    def severity(self) -> str:
        """The worst severity in it."""
        return self.worst.severity

    @property
    def title(self) -> str:
        """One line that sums it up."""
        if len(self.events) == 1:
            return self.events[0].title
        hosts = sorted({event.host for event in self.events})
        where = hosts[0] if len(hosts) == 1 else f"{len(hosts)} hosts"
        counts = []
        for severity in ("critical", "warning", "info"):
            count = sum(event.kind == ALERT and event.severity == severity for event in self.events)
            if count:
                counts.append(f"{count} {severity}")
        recovered = sum(event.kind == RECOVERY for event in self.events)
        if recovered:
            counts.append(f"{recovered} recovered")
        return f"{self.worst.headline} {where}: " + ", ".join(counts)

    @property
    def worst_first(self) -> list[Event]:
        """The events in the order in which people should read them."""
        return sorted(
            self.events, key=lambda event: (-event.level, event.host, event.check, event.subject)
        )

    @property
    def lines(self) -> list[str]:
        """The events, worst first, one line each."""
        return [
            f"{event.headline} {event.host} {event.label}: {event.message}"
            for event in self.worst_first
        ]


def separate(events: Sequence[Event], digest_after: int) -> list[Message]:
    """For people: one message per event, or one digest when there are more than
    ``digest_after``.
    """
    if len(events) > digest_after:
        return [Message(tuple(events), digest_key(events[0].host))]
    return [Message((event,), event.key, event.kind == RECOVERY) for event in events]


def together(events: Sequence[Event]) -> list[Message]:
    """For receivers of lists: everything in one message."""
    if not events:
        return []
    resolve = all(event.kind == RECOVERY for event in events)
    return [Message(tuple(events), digest_key(events[0].host), resolve)]


def by_incident(events: Sequence[Event], still_open: Iterable[str]) -> list[Message]:
    """For incident services: one message per incident.

    The incident of a digest is closed only when nothing in it is open any more.
    """
    open_incidents = set(still_open)
    grouped: dict[str, list[Event]] = {}
    for event in events:
        grouped.setdefault(event.incident or event.key, []).append(event)
    messages = []
    for incident, members in grouped.items():
        ended = all(event.kind == RECOVERY for event in members)
        messages.append(
            Message(tuple(members), incident, resolve=ended and incident not in open_incidents)
        )
    return messages


def details(event: Event) -> list[tuple[str, str]]:
    """Return the facts of an event with their labels, without those that it does not have."""
    facts = [
        ("Host", event.host),
        ("Check", event.label),
        ("Status", event.status),
        ("Value", f"{event.value} {event.unit}".strip()),
        ("Action", event.wanted_action),
        ("Since", isoformat(event.since)),
        ("Why now", event.reason),
    ]
    return [(label, value) for label, value in facts if value]


def text_body(message: Message) -> str:
    """Return the plain text of a message (e-mail)."""
    if len(message.events) == 1:
        event = message.events[0]
        facts = "\n".join(f"{label + ':':<9} {value}" for label, value in details(event))
        return f"{event.title}\n\n{facts}\nKey:      {event.key}\n"
    lines = listing(message, LONGEST_TEXT, str, len(message.events))
    return f"{message.title}\n\n{lines}\n"


def shorten(text: str, longest: int) -> str:
    """Return ``text``, cut with an ellipsis when it is longer than ``longest`` characters."""
    if len(text) <= longest:
        return text
    return text[: longest - 1] + "…"


def listing(
    message: Message, longest: int, format_line: Callable[[str], str], most: int = LISTED
) -> str:
    """Return the lines that fit into ``longest`` characters, and how many more there are."""
    room, lines = longest - _REST, []
    for line in message.lines[:most]:
        formatted = format_line(line)
        if len(formatted) + 1 > room:
            break
        lines.append(formatted)
        room -= len(formatted) + 1
    rest = len(message.events) - len(lines)
    if rest:
        lines.append(f"… and {rest} more")
    return "\n".join(lines)
