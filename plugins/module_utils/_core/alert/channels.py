# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The registry of channels: which options set up each, and how it is made."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ..ports import World
from ..registry import Registry
from .channel import Channel
from .options import AlertOptions


class ChannelKind(NamedTuple):
    """A way to send alerts.

    :param name: value of ``kind`` in results.
    :param option: the option of AlertOptions that sets it up.
    :param make: returns the channels that the options set up, none when they don't.
    """

    name: str
    option: str
    make: Callable[[AlertOptions, World], list[Channel]]


def _email(options: AlertOptions, world: World) -> list[Channel]:
    if not options.email:
        return []
    from .mail import Email

    return [Email(world, options.email, options.digest_after)]


def _webhooks(options: AlertOptions, world: World) -> list[Channel]:
    if not options.webhooks:
        return []
    from .webhook import Webhook

    return [
        Webhook(world, hook, options.digest_after, options.cooldown) for hook in options.webhooks
    ]


def _syslog(options: AlertOptions, world: World) -> list[Channel]:
    if not options.syslog:
        return []
    from .syslog import Syslog

    return [Syslog(world)]


def _command(options: AlertOptions, world: World) -> list[Channel]:
    if not options.command:
        return []
    from .command import Command

    return [
        Command(
            world,
            options.command,
            options.command_timeout,
            options.digest_after,
            _secret_variables(options),
        )
    ]


#: In the order in which results list them.
CHANNELS: Registry[ChannelKind] = Registry(
    "alert channel",
    [
        ChannelKind("email", "email", _email),
        ChannelKind("webhook", "webhooks", _webhooks),
        ChannelKind("syslog", "syslog", _syslog),
        ChannelKind("command", "command", _command),
    ],
    required=("option", "make"),
)


def channels_of(options: AlertOptions, world: World) -> list[Channel]:
    """Return the channels that the options set up, each with a name of its own."""
    channels = []
    for kind in CHANNELS:
        for place, channel in enumerate(kind.make(options, world), 1):
            channel.label = f"{kind.name} {place}"
            channels.append(channel)
    taken: set[str] = set()
    for channel in channels:
        name, place = channel.name, 1
        while channel.name in taken:
            place += 1
            channel.name = f"{name}-{place}"
        taken.add(channel.name)
        if place > 1:  # each of them has a queue of its own
            channel.identity += f" {place}"
    return channels


def _secret_variables(options: AlertOptions) -> set[str]:
    """Return the environment variables that hold secrets: those that options name, and that of the
    old scripts.
    """
    hooks = options.webhooks or []
    sources = [source for hook in hooks for source in hook.sources.values()]
    if options.email:
        sources.append(options.email.password_source)
    variables = {source.variable for source in sources if source.variable}
    if hooks:
        return variables | {"ALERT_WEBHOOK"}
    return variables
