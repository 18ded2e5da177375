# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run knows before it decides: the events, the state, the channels and the time."""

from __future__ import annotations

from typing import NamedTuple

from ..ports import World
from ..system import boot
from . import events
from .channel import Channel
from .channels import channels_of
from .events import Event
from .memory import Memory, Steady
from .options import AlertOptions


class Facts(NamedTuple):
    """What a run read.

    :param now: seconds since the epoch. :param channels: where to send.
    :param events: what the document and the message report.
    :param ran: host and check of all checks in the document; of these, a subject that it leaves out
        is gone.
    :param problems: what in the document could not be used.
    :param steady: the time by the clock that never steps.
    """

    now: float
    channels: tuple[Channel, ...]
    events: tuple[Event, ...] = ()
    ran: frozenset[tuple[str, str]] = frozenset()
    problems: tuple[str, ...] = ()
    memory: Memory = Memory()
    steady: Steady = Steady()


def observe(options: AlertOptions, world: World) -> Facts:
    """Return the facts without the state, whose file is read under its lock.

    :raises OptionError: the document is no verdict.
    """
    now = world.clock.now()
    channels = tuple(channels_of(options, world))
    if options.test:
        return Facts(now, channels, (_test_event(options, world, now),))
    seen: list[Event] = []
    problems: list[str] = []
    if options.document is not None:
        seen, problems = events.from_document(options.document, world.hostname, now)
    ran = frozenset((event.host, event.check) for event in seen)
    if options.msg is not None:
        seen.append(
            events.from_message(
                options.msg, options.severity, options.check, options.subject, world.hostname, now
            )
        )
    steady = Steady(boot.boot_id(world) or "", world.clock.monotonic())
    return Facts(now, channels, tuple(seen), ran, tuple(problems), steady=steady)


def _test_event(options: AlertOptions, world: World, now: float) -> Event:
    text = "[TEST] " + (options.msg or "This is a test of mlops.fleet alerts; nothing is wrong.")
    return events.test_message(text, world.hostname, now)
