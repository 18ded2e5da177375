# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What to send, to whom, and what to remember afterwards. Pure: no file, no clock, no network.

A problem is sent when it is new, when it is worse than what was sent last, and again when the
cooldown has passed. The cooldown counts from the last alert and outlives a recovery, so that a
flapping check is sent once per cooldown and not each time. A recovery is sent once, and only when
its problem was.

Two parts may check the same thing with limits of their own: then the worse opinion counts until the
part that has it takes it back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from .. import verdict
from ..system.text import human_duration
from .channel import SENT, Channel, Receipt
from .events import LEVELS, RECOVERY, Event, digest_key
from .facts import Facts
from .memory import (
    Entry,
    Memory,
    Opinion,
    Pending,
    Refusal,
    Steady,
    Waiting,
    dequeued,
    enqueued,
    narrowed,
)
from .messages import Message
from .options import AlertOptions

#: A queued event is kept as long as its problem lasts. After its end, or without one, it is tried
#: for a day, or a month where somebody has to repair the channel first, and of these at most this
#: many per channel are kept (the newest).
QUEUE_SECONDS = 86400.0
REPAIR_SECONDS = 30 * 86400.0
QUEUE_LENGTH = 200
#: Entries of which nothing was heard for so long are forgotten: those whose end was not sent, and
#: others.
FORGET_OPEN_SECONDS = 30 * 86400.0
FORGET_CLOSED_SECONDS = 86400.0
#: One part's opinion counts for so long against another part that calls the same less severe.
OPINION_SECONDS = 6 * 3600.0
#: At most this many keys are remembered, those of refused events for each channel included.
ENTRIES = 5000


class Decision(NamedTuple):
    """Whether an event is sent; ``event.reason`` says why."""

    event: Event
    send: bool


class Delivery(NamedTuple):
    """The messages for one channel. ``queue`` is its name in the state file."""

    channel: Channel
    queue: str
    messages: tuple[Message, ...]


class Plan(NamedTuple):
    """What to do.

    :param memory: to save before sending: with the new events queued, and entries as they are once
        all is sent.
    :param entries: as they were before, for events that no channel takes.
    :param given_up: queued events that were dropped because they were too old or too many.
    """

    decisions: tuple[Decision, ...]
    deliveries: tuple[Delivery, ...]
    memory: Memory
    entries: Mapping[str, Entry]
    given_up: int = 0

    @property
    def to_send(self) -> list[Event]:
        """The events that are sent now for the first time."""
        return [decision.event for decision in self.decisions if decision.send]


def decide(options: AlertOptions, facts: Facts) -> Plan:
    """Return what to send and what to remember."""
    if options.test:
        return _test_plan(facts)
    known, given_up = expire(
        facts.memory,
        facts.now,
        options.cooldown,
        {event.key for event in facts.events},
        facts.ran,
        facts.steady,
    )
    decisions, entries = decide_events(
        known.entries, facts.events, facts.ran, facts.now, options.cooldown, options.digest_after
    )
    to_send = [decision.event for decision in decisions if decision.send]
    still_open = {entry.incident for entry in entries.values() if entry.open}
    pending = _copied(known.pending)
    queues = [known.identity(channel.identity) for channel in facts.channels]
    labels = {queue: channel.label for queue, channel in zip(queues, facts.channels)}
    inherit(pending, known.broken, labels)
    deliveries = []
    for queue, channel in zip(queues, facts.channels):
        enqueued(pending, queue, [event for event in to_send if channel.wants(event)], facts.now)
        waiting = known._replace(pending=pending).waiting(queue)
        messages = channel.messages(waiting, still_open)
        deliveries.append(Delivery(channel, queue, tuple(messages)))
    return Plan(
        tuple(decisions),
        tuple(deliveries),
        known._replace(entries=entries, pending=pending),
        known.entries,
        given_up,
    )


def inherit(pending: Pending, broken: Mapping[str, str], labels: Mapping[str, str]) -> None:
    """Pass on the queues of broken channels that are no longer set up to those that were set up in
    their place.

    :param labels: of the channels that are set up.
    """
    for orphan in [queue for queue in pending if queue in broken and queue not in labels]:
        heirs = [queue for queue, label in labels.items() if label == broken[orphan]]
        for heir in heirs[:1]:
            pending[heir] = {**pending.pop(orphan), **pending.get(heir, {})}


def _test_plan(facts: Facts) -> Plan:
    decisions = tuple(Decision(event, True) for event in facts.events)
    incidents = [event.incident for event in facts.events]
    deliveries = tuple(
        Delivery(channel, "", tuple(channel.messages(facts.events, incidents)))
        for channel in facts.channels
    )
    return Plan(decisions, deliveries, facts.memory, facts.memory.entries)


def settle(plan: Plan, receipts: Mapping[str, Sequence[Receipt]]) -> Memory:
    """Return what to remember after the deliveries: without what arrived, and without what no
    channel took.

    The next run must see an event that no channel took as it was.

    :param receipts: by the channels' names.
    """
    pending = _copied(plan.memory.pending)
    refused = dict(plan.memory.refused)
    broken = {queue: label for queue, label in plan.memory.broken.items() if queue in pending}
    # An event that no channel wants needs no delivery.
    channels = [delivery.channel for delivery in plan.deliveries]
    taken = {
        event.key for event in plan.to_send if not any(channel.wants(event) for channel in channels)
    }
    for delivery in plan.deliveries:
        for receipt in receipts.get(delivery.channel.name, ()):
            if not receipt.is_queued:
                dequeued(pending, delivery.queue, receipt.keys)
            elif receipt.remaining:
                narrowed(pending, delivery.queue, receipt.keys, receipt.remaining)
            if receipt.is_queued or receipt.status == SENT:
                taken.update(receipt.keys)
            _note_refusal(refused, delivery.queue, receipt)
            if receipt.kept:
                broken[delivery.queue] = delivery.channel.label
            elif receipt.status == SENT:
                broken.pop(delivery.queue, None)
    entries = dict(plan.memory.entries)
    for event in plan.to_send:
        if event.key in taken:
            continue
        entries.pop(event.key, None)
        if event.key in plan.entries:
            entries[event.key] = plan.entries[event.key]
    return plan.memory._replace(entries=entries, pending=pending, refused=refused, broken=broken)


def _note_refusal(refused: dict[str, Refusal], queue: str, receipt: Receipt) -> None:
    """Note what was refused for good; what was refused earlier and is sent now needs no attention
    any more.
    """
    known = refused.get(queue, Refusal((), ""))
    if receipt.is_refused:
        keys = dict.fromkeys((*known.keys, *receipt.keys))
        refused[queue] = Refusal(tuple(keys)[-ENTRIES:], receipt.detail)
    elif receipt.status == SENT and known.keys:
        remaining = tuple(key for key in known.keys if key not in receipt.keys)
        refused.pop(queue)
        if remaining:
            refused[queue] = known._replace(keys=remaining)


def acknowledge(memory: Memory, queues: Collection[str]) -> Memory:
    """Forget what these channels refused: somebody has looked, and sent a test message."""
    refused = {queue: refusal for queue, refusal in memory.refused.items() if queue not in queues}
    return memory._replace(refused=refused)


def _copied(pending: Mapping[str, Mapping[str, object]]) -> Pending:
    return {channel: dict(queue) for channel, queue in pending.items()}  # type: ignore[arg-type]


def expire(
    memory: Memory,
    now: float,
    cooldown: float,
    seen: Collection[str] = (),
    ran: Collection[tuple[str, str]] = (),
    steady: Steady = Steady(),  # noqa: B008  # it can't be changed
) -> tuple[Memory, int]:
    """Forget old entries and queued events; return the rest and how many queued ones were given up.

    What this run reports (``seen`` keys, ``ran`` as in Facts) is kept: after weeks of repair its
    end is still to be sent.
    """
    entries: dict[str, Entry] = {}
    for key, entry in memory.entries.items():
        reported = key in seen or entry.is_of in ran
        # A time in the future is that of a clock that was set back since.
        seen_at = min(entry.seen_at, now)
        if reported:
            seen_at = now
        current = entry._replace(seen_at=seen_at)
        longest = FORGET_OPEN_SECONDS if entry.open else max(FORGET_CLOSED_SECONDS, cooldown)
        if now - current.seen_at <= longest:
            entries[key] = current
    oldest_first = sorted(entries, key=lambda key: entries[key].seen_at)
    for key in oldest_first[: max(0, len(entries) - ENTRIES)]:
        del entries[key]
    pending, given_up = _expire_queues(memory, entries, steady.since(memory.steady))
    return memory._replace(entries=entries, pending=pending, steady=steady), given_up


def _expire_queues(
    memory: Memory, entries: Mapping[str, Entry], passed: float
) -> tuple[Pending, int]:
    """Return the queues after ``passed`` seconds, and how many events were given up."""
    pending: Pending = {}
    given_up = 0
    for channel, queue in memory.pending.items():
        kept: dict[str, Waiting] = {}
        others = 0
        longest = REPAIR_SECONDS if channel in memory.broken else QUEUE_SECONDS
        newest_first = sorted(queue.items(), key=lambda pair: (pair[1].age, -pair[1].queued_at))
        for key, item in newest_first:
            aged = item._replace(age=item.age + passed)
            if key in entries and entries[key].open:
                kept[key] = aged
            elif others < QUEUE_LENGTH and aged.age <= longest:
                kept[key] = aged
                others += 1
        given_up += len(queue) - len(kept)
        if kept:
            pending[channel] = kept
    return pending, given_up


def decide_events(
    entries: Mapping[str, Entry],
    seen: Iterable[Event],
    ran: frozenset[tuple[str, str]],
    now: float,
    cooldown: float,
    digest_after: int,
) -> tuple[list[Decision], dict[str, Entry]]:
    """Decide for each event whether it is sent.

    :param ran: host and check of each check in the document: a subject that it leaves out is gone.
    :return: every problem and recovery, and the entries as they are once all that is sent.
    """
    after = dict(entries)
    decisions: list[Decision] = []
    new_incidents: list[str] = []
    for event in _with_vanished(after, list(seen), ran, now):
        outcome = _decide_event(event, after.get(event.key), now, cooldown)
        if outcome.entry is not None:
            after[event.key] = outcome.entry
        if outcome.decision is not None:
            decisions.append(outcome.decision)
        if outcome.opens_incident:
            new_incidents.append(event.key)
    if len(new_incidents) > digest_after:
        for key in new_incidents:
            after[key] = after[key]._replace(incident=digest_key(after[key].host))
    return [
        Decision(replace(event, incident=after[event.key].incident), send)
        for event, send in decisions
    ], after


class _Outcome(NamedTuple):
    entry: Entry | None
    decision: Decision | None = None
    opens_incident: bool = False


def _decide_event(event: Event, entry: Entry | None, now: float, cooldown: float) -> _Outcome:
    others = None
    if entry is not None:
        entry = _at(entry, event.source, now)
        others = _worst_opinion(entry, now)
    if event.severity == verdict.PASS:
        if entry is None or others is not None:
            return _Outcome(entry)
        return _recover(event, entry)
    if entry is None:
        entry = Entry(event.host, event.check, event.subject, event.since, now, event.key)
    entry = entry._replace(opinions={**entry.opinions, event.source: Opinion(event.severity, now)})
    if others is not None and LEVELS[others[1]] > event.level:
        held = replace(
            event,
            reason=f"{others[0]}_health reports {others[1]}",
            since=min(entry.since, event.since),
        )
        return _Outcome(entry, Decision(held, False))
    if not entry.bad:
        entry = entry._replace(bad=True, since=event.since)
    send, reason = _when(event, entry, now, cooldown)
    changed = entry.open and entry.sent not in (event.severity, verdict.PASS)
    decided = replace(
        event,
        reason=reason,
        since=min(entry.since, event.since),
        previous=(entry.sent,) if changed else (),
    )
    if not send:
        return _Outcome(entry, Decision(decided, False))
    opens = not entry.open
    entry = entry._replace(
        incident=event.key if opens else entry.incident,
        sent_at=now,
        sent=event.severity,
        open=event.has_end,
    )
    return _Outcome(entry, Decision(decided, True), opens)


def _at(entry: Entry, source: str, now: float) -> Entry:
    """Return an entry as the event of a part meets it now: without the part's former opinion.

    A time in the future is that of a clock that was set back: it counts from now, or nothing would
    be sent until the clock is there again. Nobody knows whose opinion an event without a source is,
    so it replaces all.
    """
    opinions: dict[str, Opinion] = {}
    if source:
        opinions = {
            part: opinion for part, opinion in entry.opinions.items() if part not in ("", source)
        }
    return entry._replace(
        sent_at=min(entry.sent_at, now), since=min(entry.since, now), seen_at=now, opinions=opinions
    )


def _worst_opinion(entry: Entry, now: float) -> tuple[str, str] | None:
    """Return the part with the most severe opinion that still counts, and that severity."""
    current = [
        (part, opinion.severity)
        for part, opinion in entry.opinions.items()
        if now - opinion.at <= OPINION_SECONDS
    ]
    return max(current, key=lambda pair: LEVELS[pair[1]], default=None)


def _when(event: Event, entry: Entry, now: float, cooldown: float) -> tuple[bool, str]:
    """Return whether a problem is sent now, and why."""
    age = now - entry.sent_at
    if entry.sent_at <= 0 or (age >= cooldown and not entry.open):
        return True, "new problem"
    if event.level > entry.level:
        return True, f"escalated from {entry.sent} to {event.severity}"
    if age < cooldown:
        rest = human_duration(cooldown - age)
        return False, f"last sent {human_duration(age)} ago, within the cooldown for another {rest}"
    change = f"eased from {entry.sent} to {event.severity}"
    if event.severity == entry.sent:
        change = f"still {event.severity}"
    if not cooldown:
        return True, change
    return True, f"{change}, cooldown of {human_duration(cooldown)} is over"


def _recover(event: Event, entry: Entry) -> _Outcome:
    """End a problem; the end is sent when the problem was."""
    if not entry.bad:
        return _Outcome(entry)
    ended = entry._replace(bad=False, open=False)
    if not entry.open:
        return _Outcome(ended)
    recovery = replace(
        event,
        kind=RECOVERY,
        reason=f"recovered, was {entry.sent}",
        since=entry.since,
        previous=(entry.sent,),
    )
    return _Outcome(ended, Decision(recovery, True))


def _with_vanished(
    entries: Mapping[str, Entry],
    seen: list[Event],
    ran: frozenset[tuple[str, str]],
    now: float,
) -> list[Event]:
    """Add a ``pass`` for subjects that a check no longer reports (a mount or GPU that is gone), so
    that they end.

    Only where the check itself ran: a document without that check says nothing, nor does a check
    that failed as a whole.
    """
    keys = {event.key for event in seen}
    sources = {(event.host, event.check): event.source for event in seen}
    failed = {
        (event.host, event.check)
        for event in seen
        if not event.subject and event.severity != verdict.PASS
    }
    vanished = [
        Event(
            key,
            entry.host,
            entry.check,
            entry.subject,
            verdict.SKIPPED,
            verdict.PASS,
            f"{entry.check} {entry.subject}".strip() + " is no longer reported",
            now,
            now,
            source=sources.get(entry.is_of, ""),
        )
        for key, entry in entries.items()
        if entry.bad and key not in keys and entry.is_of in ran - failed
    ]
    return seen + vanished
