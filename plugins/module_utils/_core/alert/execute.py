# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Carry out a plan: save the state, let all channels send at once, save what became of it."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..ports import World
from ..system import isolate
from ..system.text import human_count
from .channel import FAILED, QUEUED, SENT, Receipt
from .memory import Memory
from .messages import Message
from .plan import Delivery, Plan, settle
from .store import Store

#: A channel's child process gets this much longer than its budget before it is killed.
_GRACE = 5.0

#: By the channels' names, in the order of their messages.
Receipts = dict[str, list[Receipt]]


class Outcome(NamedTuple):
    """What became of the messages, and what is remembered of it."""

    receipts: Receipts
    memory: Memory


def carry_out(plan: Plan, world: World, store: Store) -> Outcome:
    """Send, and remember what was sent.

    Recipients that were left out are reported to ``world.warn``.
    """
    if plan.given_up:
        world.warn(
            f"{human_count(plan.given_up, 'message')} could not be delivered for a day, or there"
            " were too many: given up."
        )
    busy = [delivery for delivery in plan.deliveries if delivery.messages]
    if busy or plan.memory.entries or plan.entries:
        store.save(plan.memory)
    receipts = deliver(busy)
    for delivery in busy:
        for receipt in receipts[delivery.channel.name]:
            if receipt.incomplete:
                world.warn(f"Alert by {delivery.channel.name}: {receipt.incomplete}")
    memory = settle(plan, receipts)
    if busy:
        store.save(memory)
    return Outcome(receipts, memory)


def carry_out_test(plan: Plan) -> Receipts:
    """Send a test message; it is not queued, so what is not delivered now has failed."""
    return {
        name: [
            receipt._replace(status=FAILED) if receipt.status == QUEUED else receipt
            for receipt in receipts
        ]
        for name, receipts in deliver(plan.deliveries).items()
    }


def _receipt_after_hang(message: Message, sent: int, detail: str) -> Receipt:
    """Return what became of a message of a channel that gave no answer."""
    if sent:
        return Receipt(SENT, "sent before the channel hung", message.keys)
    return Receipt(QUEUED, detail, message.keys)


def deliver(deliveries: Sequence[Delivery]) -> Receipts:
    """Let all channels send at once, each in a child process of its own.

    So neither a dead server nor a dead resolver holds up the other channels.
    """
    # Memory that parent and child share: what arrived is known even of a child that had to be
    # killed.
    arrived = {
        delivery.channel.name: mmap.mmap(-1, max(1, len(delivery.messages)))
        for delivery in deliveries
    }
    jobs = {
        delivery.channel.name: _job(delivery, arrived[delivery.channel.name])
        for delivery in deliveries
    }
    longest = max((delivery.channel.budget for delivery in deliveries), default=0.0) + _GRACE
    outcomes = isolate.call_many(jobs, longest)
    receipts: Receipts = {}
    for delivery in deliveries:
        name = delivery.channel.name
        outcome = outcomes[name]
        if outcome.value is not None:
            receipts[name] = outcome.value
            continue
        detail = "the sending process died"
        if outcome.timed_out:
            detail = f"no answer within {longest:.0f} s"
        receipts[name] = [
            _receipt_after_hang(message, sent, detail)
            for message, sent in zip(delivery.messages, arrived[name])
        ]
    return receipts


def _job(delivery: Delivery, arrived: mmap.mmap) -> Callable[[], list[Receipt]]:
    return lambda: delivery.channel.deliver(delivery.messages, arrived)
