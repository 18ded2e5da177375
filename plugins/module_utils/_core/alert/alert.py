# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The alert part as one call: read what happened and what was told, decide, deliver, remember."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import WriteFailed
from ..ports import World
from ..system import isolate
from . import events as happenings
from .channel import FAILED, QUEUED, SENT, SKIPPED, WOULD_SEND, Channel, answer_for
from .events import TEST, Event
from .options import AlertOptions
from .state import Store, decide, default_folder

#: A channel's child process gets this much longer than its budget before it is killed.
_GRACE = 5.0


@dataclass
class Result:
    """What became of it: per channel C(name kind target status detail events), per event the decision and its reason."""

    changed: bool = False
    channels: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def undelivered(self) -> list[str]:
        """The channels that failed or have to be tried again, as C(name: detail)."""
        return [
            f"{one['name']}: {one['detail']}"
            for one in self.channels
            if one["status"] in (FAILED, QUEUED)
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return C(changed), C(channels) and C(events)."""
        return {"changed": self.changed, "channels": self.channels, "events": self.events}


def channels_of(options: AlertOptions, world: World) -> list[Channel]:
    """Return the channels that the options name, in the order e-mail, webhooks, syslog, command."""
    found: list[Channel] = []
    if options.email:
        from .mail import Email

        found.append(Email(world, options.email, options.digest_after))
    if options.webhooks:
        from .webhook import Webhook

        found += [
            Webhook(world, hook, options.digest_after, options.cooldown)
            for hook in options.webhooks
        ]
    if options.syslog:
        from .syslog import Syslog

        found.append(Syslog(world))
    if options.command:
        from .command import Command

        found.append(
            Command(
                world,
                options.command,
                options.command_timeout,
                options.digest_after,
                _variables(options),
            )
        )
    taken: set[str] = set()
    for channel in found:
        name, place = channel.name, 1
        while channel.name in taken:
            place += 1
            channel.name = f"{name}-{place}"
        taken.add(channel.name)
        if place > 1:  # what one could not deliver is not what the other could not
            channel.identity += f" {place}"
    return found


def _variables(options: AlertOptions) -> set[str]:
    """Return the environment variables that hold secrets: those that options name, and the old scripts' own."""
    found = {"ALERT_WEBHOOK"} if options.webhooks else set()
    for values in [*(options.webhooks or []), *([options.email] if options.email else [])]:
        found |= {value for name, value in values.items() if name.endswith("_env") and value}
    return found


def observe(options: AlertOptions, world: World) -> tuple[list[Event], frozenset[tuple[str, str]]]:
    """Return what the document and the message say, and which checks the document reports as a whole.

    :raises OptionError: the document is no verdict.
    """
    now = world.clock.now()
    seen: list[Event] = []
    ran: frozenset[tuple[str, str]] = frozenset()
    if options.document is not None:
        seen, problems = happenings.from_document(options.document, world.hostname, now)
        ran = frozenset((event.host, event.check) for event in seen)
        for problem in problems:
            world.warn(problem)
    if options.msg is not None:
        seen.append(
            happenings.from_message(
                options.msg, options.severity, options.check, options.subject, world.hostname, now
            )
        )
    return seen, ran


def run(options: AlertOptions, world: World, check: bool = False) -> Result:
    """Tell what has to be told. In check mode nothing is sent or written, and the result says what would be.

    :raises OptionError: the document is no verdict. :raises LockBusy: another run holds the state folder for too long.
    :raises Refused: the state folder is not safe.
    """
    channels = channels_of(options, world)
    if not channels:
        world.warn("No alert channel is set up (email, webhooks, syslog, command): nobody is told.")
    if options.test:
        return _test(options, world, channels, check)
    seen, ran = observe(options, world)
    store = Store(options.state_dir or default_folder(world), world)
    if check or not channels:
        store.load(repair=False)
        return _carry_out(options, world, store, channels, seen, ran, dry=True, would=check)
    try:
        store.prepare()
    except WriteFailed as error:
        # A read-only disk is something to tell about, not a reason to keep quiet: the runtime file system remembers.
        world.warn(str(error))
    with store.locked():
        store.load()
        return _carry_out(options, world, store, channels, seen, ran)


def _carry_out(
    options: AlertOptions,
    world: World,
    store: Store,
    channels: Sequence[Channel],
    seen: Sequence[Event],
    ran: frozenset[tuple[str, str]],
    dry: bool = False,
    would: bool = True,
) -> Result:
    now = world.clock.now()
    lost = store.expire(now, options.cooldown, {event.key for event in seen}, ran)
    before = store.data["entries"]
    decided, after = decide(before, seen, ran, now, options.cooldown, options.digest_after)
    to_send = [event for event, send in decided if send]
    result = Result(events=[_shown(event, "send" if send else "hold") for event, send in decided])
    if lost and not dry:
        world.warn(
            f"{lost} message(s) could not be delivered for a day, or were too many, and are given up."
        )
    filed = {channel.name: store.identity(channel.identity) for channel in channels}
    for channel in channels:
        channel.mark = store.identity
        store.enqueue(
            filed[channel.name], [event for event in to_send if channel.wants(event)], now
        )
    still_open = {entry["incident"] for entry in after.values() if entry["open"]}
    units = {
        channel.name: channel.units(store.waiting(filed[channel.name]), still_open)
        for channel in channels
    }
    if dry:
        for channel in channels:
            count = sum(len(unit.events) for unit in units[channel.name])
            result.channels.append(
                _line(
                    channel,
                    WOULD_SEND if count else SKIPPED,
                    f"would send {len(units[channel.name])} message(s)",
                    count,
                )
            )
        result.changed = would and any(one["status"] == WOULD_SEND for one in result.channels)
        return result
    store.data["entries"] = after
    busy = [channel for channel in channels if units[channel.name]]
    if busy or after or before:
        store.save()
    outcomes = _deliver(busy, units)
    # A recovery that no channel wants is settled too.
    told = {event.key for event in to_send if not any(channel.wants(event) for channel in channels)}
    for channel in channels:
        answers = outcomes.get(channel.name, [])
        for answer in answers:
            if answer["status"] != QUEUED:
                store.done(filed[channel.name], answer["keys"])
            elif answer["left"]:
                store.narrow(filed[channel.name], answer["keys"], answer["left"])
            if answer["incomplete"]:
                world.warn(f"Alert by {channel.name}: {answer['incomplete']}")
            if answer["status"] in (SENT, QUEUED):
                told.update(answer["keys"])
        result.channels.append(_summed(channel, answers))
    # What no channel has taken was not told: the next run must see it as it was.
    for event in to_send:
        if event.key not in told:
            after.pop(event.key, None)
            if event.key in before:
                after[event.key] = before[event.key]
    if busy:
        store.save()
    result.changed = any(one["status"] == SENT for one in result.channels)
    for one in result.undelivered:
        world.warn(f"Alert not delivered by {one}")
    return result


def _deliver(
    channels: Sequence[Channel], units: dict[str, list[Any]]
) -> dict[str, list[dict[str, Any]]]:
    """Let all channels send at once, each in a child of its own, so that neither a dead server nor a dead resolver holds up the others."""
    # Memory that parent and child share: what arrived is known even of a child that had to be killed.
    arrived = {
        channel.name: mmap.mmap(-1, max(1, len(units[channel.name]))) for channel in channels
    }
    jobs = {
        channel.name: _job(channel, units[channel.name], arrived[channel.name])
        for channel in channels
    }
    longest = max((channel.budget for channel in channels), default=0.0) + _GRACE
    found = {
        channel.name: [answer_for(unit, QUEUED, "") for unit in units[channel.name]]
        for channel in channels
    }
    for name, outcome in isolate.call_many(jobs, longest).items():
        if outcome.value is not None:
            found[name] = outcome.value
        else:
            detail = (
                f"no answer within {longest:.0f} s"
                if outcome.timed_out
                else "the sending process died"
            )
            for one, sent in zip(found[name], arrived[name]):
                one.update(
                    {"status": SENT, "detail": "sent before the channel hung"}
                    if sent
                    else {"detail": detail}
                )
    return found


def _job(channel: Channel, units: Sequence[Any], arrived: Any) -> Any:
    return lambda: channel.deliver(units, arrived)


def _line(channel: Channel, status: str, detail: str, count: int) -> dict[str, Any]:
    return {
        "name": channel.name,
        "kind": channel.kind,
        "target": channel.target,
        "status": status,
        "detail": detail if count else "nothing to send",
        "events": count,
    }


def _summed(channel: Channel, answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return a channel's result line: the worst that happened, with how many messages fared how."""
    counts = {
        status: sum(one["status"] == status for one in answers)
        for status in (FAILED, QUEUED, SENT, SKIPPED)
    }
    status = next((one for one, count in counts.items() if count), SKIPPED)
    detail = next((one["detail"] for one in answers if one["status"] == status), "")
    if len(answers) > 1:
        detail = (
            ", ".join(f"{count} {one}" for one, count in counts.items() if count) + f"; {detail}"
        )
    return _line(channel, status, detail, sum(len(one["keys"]) for one in answers))


def _shown(event: Event, decision: str) -> dict[str, Any]:
    found = {
        name: getattr(event, name)
        for name in (
            "host",
            "check",
            "subject",
            "status",
            "severity",
            "message",
            "kind",
            "reason",
            "key",
            "incident",
        )
    }
    return {**found, "decision": decision}


def _test(options: AlertOptions, world: World, channels: Sequence[Channel], check: bool) -> Result:
    """Send one marked message through every channel; state and cooldown are neither read nor written."""
    now = world.clock.now()
    text = "[TEST] " + (options.msg or "This is a test of mlops.fleet alerts; nothing is wrong.")
    event = happenings.from_message(text, "info", "alert_test", str(int(now)), world.hostname, now)
    event = replace(event, kind=TEST, reason="test", incident=event.key)
    result = Result(events=[_shown(event, "send")])
    units = {channel.name: channel.units([event], [event.key]) for channel in channels}
    if check:
        result.channels = [
            _line(channel, WOULD_SEND, "would send a test message", 1) for channel in channels
        ]
    else:
        outcomes = _deliver(channels, units)
        for answers in outcomes.values():
            for answer in answers:
                answer["status"] = FAILED if answer["status"] == QUEUED else answer["status"]
        result.channels = [_summed(channel, outcomes[channel.name]) for channel in channels]
        for one in result.undelivered:
            world.warn(f"Alert not delivered by {one}")
    result.changed = any(one["status"] in (SENT, WOULD_SEND) for one in result.channels)
    return result
