# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was sent and what is still queued: typed records, and their form in the state file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from .. import verdict
from .events import LEVELS, Event, merge

VERSION = 1
#: The year 9999; no later time can be written as a date.
_LAST_SECOND = 253402300799


class Opinion(NamedTuple):
    """How severe one part called a check, and when (seconds since the epoch)."""

    severity: str
    at: float


class Entry(NamedTuple):
    """What is known about one deduplication key; times are seconds since the epoch.

    ``sent`` is the severity last sent and ``sent_at`` its time, 0 for never. ``open``: an alert was
    sent and its end was not. ``bad``: the problem exists, whether or not that was sent.
    ``opinions`` are by part.
    """

    host: str
    check: str
    subject: str
    since: float
    seen_at: float
    incident: str
    sent_at: float = 0.0
    sent: str = verdict.PASS
    open: bool = False
    bad: bool = False
    opinions: Mapping[str, Opinion] = {}

    @property
    def level(self) -> int:
        """Rank of the severity last sent, as of Event.level."""
        return LEVELS[self.sent]

    @property
    def is_of(self) -> tuple[str, str]:
        """Host and check."""
        return self.host, self.check


class Waiting(NamedTuple):
    """An event that a channel has not delivered yet.

    :param queued_at: seconds since the epoch, for people only: a clock may have been wrong then.
    :param age: seconds in the queue by a clock that never steps, without the time in which the host
        was off.
    """

    queued_at: float
    event: Event
    age: float = 0.0


class Refusal(NamedTuple):
    """What a channel refused for good and nobody has looked at yet: keys of events, and why the
    last was refused.
    """

    keys: tuple[str, ...]
    detail: str


class Steady(NamedTuple):
    """A reading of the clock that never steps: seconds since the boot with this identifier."""

    boot: str = ""
    seconds: float = 0.0

    def since(self, earlier: Steady) -> float:
        """Return the seconds that passed at least since an earlier reading; 0 when nothing is known
        of it.
        """
        if not earlier.boot and not earlier.seconds:
            return 0.0
        if self.boot != earlier.boot:
            return self.seconds
        return max(0.0, self.seconds - earlier.seconds)


#: By channel (see Memory.identity) and deduplication key.
Pending = dict[str, dict[str, Waiting]]


class Memory(NamedTuple):
    """The content of the state file.

    :param saved: counts its versions. :param salt: keys the names of channels in it.
    :param refused: by channel, like ``pending``. :param steady: when it was saved.
    :param broken: label of each channel that somebody has to repair, which may change its address
        and so its name here.
    """

    saved: int = 0
    salt: str = ""
    entries: Mapping[str, Entry] = {}
    pending: Mapping[str, Mapping[str, Waiting]] = {}
    refused: Mapping[str, Refusal] = {}
    steady: Steady = Steady()
    broken: Mapping[str, str] = {}

    def identity(self, secret: str) -> str:
        """Return a short name for a channel or recipient from which it can't be read back (keyed
        hash, 48 bits).
        """
        import hmac

        key = self.salt.encode()
        return hmac.new(key, secret.encode("utf-8", "replace"), "sha256").hexdigest()[:12]

    def waiting(self, channel: str) -> list[Event]:
        """Return what a channel has not delivered yet, oldest first, of one run the worst first."""

        def order(item: Waiting) -> tuple[float, float, int, str, str, str]:
            event = item.event
            worst_first = (-event.level, event.host, event.check, event.subject)
            return (-item.age, item.queued_at, *worst_first)

        return [item.event for item in sorted(self.pending.get(channel, {}).values(), key=order)]

    def to_dict(self) -> dict[str, Any]:
        """Return the content as plain data."""
        return {
            "version": VERSION,
            "saved": self.saved,
            "salt": self.salt,
            "entries": {key: _entry_to_dict(entry) for key, entry in self.entries.items()},
            "pending": {
                channel: {
                    key: {
                        "queued_at": item.queued_at,
                        "age": item.age,
                        "event": item.event.to_dict(),
                    }
                    for key, item in queue.items()
                }
                for channel, queue in self.pending.items()
            },
            "refused": {
                channel: {"keys": list(refusal.keys), "detail": refusal.detail}
                for channel, refusal in self.refused.items()
            },
            "steady": {"boot": self.steady.boot, "seconds": self.steady.seconds},
            "broken": dict(self.broken),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Memory:
        """Return the usable part of a state file's content; whatever else is in it is dropped."""
        salt = content.get("salt")
        return cls(
            int(_number(content.get("saved"))),
            salt if isinstance(salt, str) else "",
            _read_entries(content.get("entries")),
            _read_pending(content.get("pending")),
            _read_refused(content.get("refused")),
            _read_steady(content.get("steady")),
            _read_texts(content.get("broken")),
        )


def enqueued(pending: Pending, channel: str, events: Iterable[Event], now: float) -> None:
    """Add events to a channel's queue; a newer event of a key replaces the older one."""
    queue = pending.setdefault(channel, {})
    for event in events:
        old = queue.get(event.key)
        queue[event.key] = Waiting(now, merge(old.event, event) if old else event)
    if not queue:
        del pending[channel]


def dequeued(pending: Pending, channel: str, keys: Iterable[str]) -> None:
    """Remove events from a channel's queue."""
    queue = pending.get(channel, {})
    for key in keys:
        queue.pop(key, None)
    if not queue:
        pending.pop(channel, None)


def narrowed(
    pending: Pending, channel: str, keys: Iterable[str], recipients: Sequence[str]
) -> None:
    """Note that queued events reached all of a channel's recipients but those with these marks."""
    from dataclasses import replace

    queue = pending[channel]
    for key in keys:
        queue[key] = queue[key]._replace(event=replace(queue[key].event, only=tuple(recipients)))


def _entry_to_dict(entry: Entry) -> dict[str, Any]:
    fields = entry._asdict()
    opinions = fields.pop("opinions")
    fields["by"] = {part: [opinion.severity, opinion.at] for part, opinion in opinions.items()}
    return fields


def _number(value: Any) -> float:
    """Return a number of the file, 0 for what is none or can't be a time."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return 0.0
    if 0 <= value < _LAST_SECOND:
        return float(value)
    return 0.0


def _items(content: Any) -> Iterable[tuple[Any, Any]]:
    """Return the items of what should be a mapping, none where it is something else."""
    if isinstance(content, dict):
        return content.items()
    return ()


def _read_entries(content: Any) -> dict[str, Entry]:
    entries = {}
    for key, fields in _items(content):
        if not isinstance(fields, dict):
            continue
        if not all(isinstance(fields.get(name), str) for name in ("host", "check", "subject")):
            continue
        incident, sent = fields.get("incident"), fields.get("sent")
        entries[key] = Entry(
            host=fields["host"],
            check=fields["check"],
            subject=fields["subject"],
            since=_number(fields.get("since")),
            seen_at=_number(fields.get("seen_at")),
            incident=incident if isinstance(incident, str) else key,
            sent_at=_number(fields.get("sent_at")),
            sent=sent if isinstance(sent, str) and sent in LEVELS else verdict.PASS,
            open=fields.get("open") is True,
            bad=fields.get("bad") is True,
            opinions=_read_opinions(fields.get("by")),
        )
    return entries


def _read_opinions(content: Any) -> dict[str, Opinion]:
    return {
        part: Opinion(pair[0], _number(pair[1]))
        for part, pair in _items(content)
        if isinstance(pair, list)
        and len(pair) == 2
        and isinstance(pair[0], str)
        and pair[0] in LEVELS
    }


def _read_pending(content: Any) -> Pending:
    pending: Pending = {}
    for channel, queue in _items(content):
        for key, item in _items(queue):
            if not isinstance(item, dict) or not isinstance(item.get("event"), dict):
                continue
            try:
                event = Event.from_dict(item["event"])
            except ValueError:
                continue
            pending.setdefault(channel, {})[key] = Waiting(
                _number(item.get("queued_at")), event, _number(item.get("age"))
            )
    return pending


def _read_refused(content: Any) -> dict[str, Refusal]:
    refused = {}
    for channel, fields in _items(content):
        if not isinstance(fields, dict) or not isinstance(fields.get("keys"), list):
            continue
        keys = tuple(key for key in fields["keys"] if isinstance(key, str))
        if keys:
            refused[channel] = Refusal(keys, str(fields.get("detail") or ""))
    return refused


def _read_steady(content: Any) -> Steady:
    if not isinstance(content, dict) or not isinstance(content.get("boot"), str):
        return Steady()
    return Steady(content["boot"], _number(content.get("seconds")))


def _read_texts(content: Any) -> dict[str, str]:
    items = _items(content)
    return {key: text for key, text in items if isinstance(text, str)}
