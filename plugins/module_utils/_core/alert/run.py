# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The alert part as one call: read what happened and what was sent, decide, deliver, remember."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ..errors import WriteFailed
from ..ports import World
from ..system.text import human_count
from .channel import FAILED, QUEUED, SENT, SKIPPED, WOULD_SEND, Receipt
from .execute import carry_out, carry_out_test
from .facts import Facts, observe
from .memory import Memory, Refusal
from .options import AlertOptions
from .plan import Decision, Delivery, Plan, acknowledge, decide
from .store import Store, default_directory


class ChannelReport(NamedTuple):
    """What became of the messages of one channel; ``events`` counts the events in them."""

    name: str
    kind: str
    target: str
    status: str
    detail: str
    events: int

    def to_dict(self) -> dict[str, Any]:
        """Return all fields by name."""
        return self._asdict()


class Result(NamedTuple):
    """What became of the whole run."""

    changed: bool
    channels: tuple[ChannelReport, ...]
    decisions: tuple[Decision, ...]

    @property
    def undelivered(self) -> list[str]:
        """The channels that failed or have to be tried again, as ``name: detail``."""
        return [
            f"{report.name}: {report.detail}"
            for report in self.channels
            if report.status in (FAILED, QUEUED)
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return ``changed``, ``channels`` and ``events`` as plain data."""
        return {
            "changed": self.changed,
            "channels": [report.to_dict() for report in self.channels],
            "events": [_event_to_dict(decision) for decision in self.decisions],
        }


def _event_to_dict(decision: Decision) -> dict[str, Any]:
    event = decision.event
    return {
        "host": event.host,
        "check": event.check,
        "subject": event.subject,
        "status": event.status,
        "severity": event.severity,
        "message": event.message,
        "kind": event.kind,
        "reason": event.reason,
        "key": event.key,
        "incident": event.incident,
        "decision": "send" if decision.send else "hold",
    }


def run(options: AlertOptions, world: World, check: bool = False) -> Result:
    """Send what has to be sent. In check mode nothing is sent or written, and the result says what
    would be.

    :raises OptionError: the document is no verdict. :raises Refused: the state directory is not
        safe.
    :raises LockBusy: another run holds the state directory for too long.
    """
    facts = observe(options, world)
    for problem in facts.problems:
        world.warn(problem)
    if not facts.channels:
        world.warn(
            "No alert channel is set up (email, webhooks, syslog, command): nothing is sent."
        )
    if options.test:
        return _run_test(options, facts, world, check)
    store = Store(options.state_dir or default_directory(world), world)
    if check or not facts.channels:
        return preview(decide(options, _with_memory(facts, store, repair=False)))
    try:
        store.prepare()
    except WriteFailed as error:
        # A read-only disk is a reason to send an alert, not to stay silent: the runtime file system
        # keeps the state.
        world.warn(str(error))
    with store.locked():
        plan = decide(options, _with_memory(facts, store))
        outcome = carry_out(plan, world, store)
        return _reported(plan, outcome.receipts, outcome.memory, world)


def _run_test(options: AlertOptions, facts: Facts, world: World, check: bool) -> Result:
    """Send one marked message through every channel; cooldown and queues are neither read nor
    written.

    Whoever sends a test looks at its result, so what a channel refused before is not reported any
    more.
    """
    plan = decide(options, facts)
    if check:
        return _preview_test(plan)
    result = _reported(plan, carry_out_test(plan), Memory(), world)
    store = Store(options.state_dir or default_directory(world), world)
    sent = {report.name for report in result.channels if report.status == SENT}
    if sent and store.exists:
        store.prepare()
        with store.locked():
            memory = store.load()
            queues = {
                memory.identity(channel.identity)
                for channel in facts.channels
                if channel.name in sent
            }
            acknowledged = acknowledge(memory, queues)
            if acknowledged != memory:
                store.save(acknowledged)
    return result


def _preview_test(plan: Plan) -> Result:
    """Return the result of a test message that is not sent: channels that can't work are known."""
    result = preview(plan, "would send a test message")
    reports = []
    for delivery, report in zip(plan.deliveries, result.channels):
        obstacle = delivery.channel.obstacle()
        if obstacle:
            report = report._replace(status=FAILED, detail=obstacle)  # noqa: PLW2901
        reports.append(report)
    changed = any(report.status == WOULD_SEND for report in reports)
    return result._replace(changed=changed, channels=tuple(reports))


def _with_memory(facts: Facts, store: Store, repair: bool = True) -> Facts:
    memory = store.load(repair)
    for channel in facts.channels:
        channel.mark = memory.identity
    return facts._replace(memory=memory)


def preview(plan: Plan, detail: str = "") -> Result:
    """Return the result of a plan that is not carried out."""
    reports = []
    for delivery in plan.deliveries:
        count = sum(len(message.events) for message in delivery.messages)
        text = detail or f"would send {human_count(len(delivery.messages), 'message')}"
        reports.append(_report(delivery, WOULD_SEND if count else SKIPPED, text, count))
    changed = any(report.status == WOULD_SEND for report in reports)
    return Result(changed, tuple(reports), plan.decisions)


def _reported(
    plan: Plan, receipts: dict[str, list[Receipt]], memory: Memory, world: World
) -> Result:
    reports = tuple(
        summarise(
            delivery,
            receipts.get(delivery.channel.name, ()),
            memory.refused.get(delivery.queue),
        )
        for delivery in plan.deliveries
    )
    changed = any(report.status == SENT for report in reports)
    result = Result(changed, reports, plan.decisions)
    for problem in result.undelivered:
        world.warn(f"Alert not delivered by {problem}")
    return result


def summarise(
    delivery: Delivery, receipts: Sequence[Receipt], refusal: Refusal | None = None
) -> ChannelReport:
    """Return the worst that happened to a channel's messages, with how many of them ended how.

    :param refusal: what the channel refused for good, now or earlier.
    """
    counts = {
        status: sum(receipt.status == status for receipt in receipts)
        for status in (FAILED, QUEUED, SENT, SKIPPED)
    }
    worst = next((status for status, count in counts.items() if count), SKIPPED)
    detail = next((receipt.detail for receipt in receipts if receipt.status == worst), "")
    if len(receipts) > 1:
        numbers = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
        detail = f"{numbers}; {detail}"
    report = _report(delivery, worst, detail, sum(len(receipt.keys) for receipt in receipts))
    if refusal is None or any(receipt.is_refused for receipt in receipts):
        return report
    earlier = (
        f"{human_count(len(refusal.keys), 'event')} refused for good before ({refusal.detail}),"
        " until a test message is sent"
    )
    return report._replace(status=FAILED, detail=f"{earlier}; {report.detail}")


def _report(delivery: Delivery, status: str, detail: str, count: int) -> ChannelReport:
    channel = delivery.channel
    if not count:
        detail = "nothing to send"
    return ChannelReport(channel.name, channel.kind, channel.target, status, detail, count)
