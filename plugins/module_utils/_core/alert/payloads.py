# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The registry of webhook payloads: the form in which each service takes messages.

A payload that lacks its body, grouping, limit or documentation is an error at import: it must never
go out in the form of another service. CONTRIBUTING shows how to add a payload.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from ..registry import Registry
from . import bodies
from .bodies import Context, Request, encode
from .events import Event
from .messages import Message, by_incident, separate, together

#: Bytes for receivers that document no limit: a quarter of what nginx, the usual proxy before them,
#: accepts by default.
_UNDOCUMENTED = 256 * 1024


class Payload(NamedTuple):
    """The form in which a service takes messages.

    :param name: value of the option ``payload``.
    :param service: name of the service, for messages.
    :param documentation: where the service documents the form and its limits.
    :param body: makes the content of a message.
    :param grouping: makes messages of events; arguments are the events, ``digest_after`` and the
        open incidents.
    :param limit: most bytes of a body, as documented, or a value that common receivers accept.
    :param hosts: hosts that payload ``auto`` recognises; with a leading dot, all hosts of that
        domain.
    :param default_url: address to use when none is given.
    :param path: appended to the address unless it is there already.
    :param required_option: secret that must be given.
    :param authorization: header ``Authorization``, filled with the fields of Context.
    :param answers_in_text: whether status 200 can come with an error in the answer's text.
    """

    name: str
    service: str
    documentation: str
    body: Callable[[Message, Context], Request]
    grouping: Callable[[Sequence[Event], int, Iterable[str]], list[Message]]
    limit: int
    hosts: tuple[str, ...] = ()
    default_url: str = ""
    path: str = ""
    required_option: str = ""
    authorization: str = ""
    answers_in_text: bool = False

    @property
    def has_incidents(self) -> bool:
        """Whether the service keeps incidents, which only a message with ``resolve`` closes."""
        return self.grouping is _by_incident

    def recognises(self, host: str) -> bool:
        """Return whether this is a host of the service."""
        return any(
            host.endswith(known) if known.startswith(".") else host == known for known in self.hosts
        )

    def messages(
        self, events: Sequence[Event], digest_after: int, still_open: Iterable[str]
    ) -> list[Message]:
        """Return the messages for these events, split where the body would be larger than the
        limit.
        """
        messages = self.grouping(events, digest_after, still_open)
        return [part for message in messages for part in self._split(message)]

    def _split(self, message: Message) -> list[Message]:
        halves = self.halves(message)
        if not halves or len(encode(self.body(message, Context()).content)) <= self.limit:
            return [message]
        return [part for half in halves for part in self._split(half)]

    def halves(self, message: Message) -> list[Message]:
        """Return a list of events as two messages; nothing for a form that lists only a few
        events.
        """
        count = len(message.events)
        if count == 1 or self.grouping is not _as_list:
            return []
        return together(message.events[: count // 2]) + together(message.events[count // 2 :])


def _individually(
    events: Sequence[Event], digest_after: int, _still_open: Iterable[str]
) -> list[Message]:
    return separate(events, digest_after)


def _as_list(
    events: Sequence[Event], _digest_after: int, _still_open: Iterable[str]
) -> list[Message]:
    return together(events)


def _by_incident(
    events: Sequence[Event], _digest_after: int, still_open: Iterable[str]
) -> list[Message]:
    return by_incident(events, still_open)


PAYLOADS: Registry[Payload] = Registry(
    "payload",
    [
        Payload(
            name="plain",
            service="receivers of Alertmanager's webhook",
            documentation=(
                "https://prometheus.io/docs/alerting/latest/configuration/#webhook_config"
            ),
            body=bodies.plain,
            grouping=_as_list,
            limit=_UNDOCUMENTED,
        ),
        Payload(
            name="slack",
            service="Slack",
            documentation=(
                "https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks"
            ),
            body=bodies.slack,
            grouping=_individually,
            limit=40_000,
            hosts=("hooks.slack.com", "hooks.slack-gov.com"),
            answers_in_text=True,
        ),
        Payload(
            name="mattermost",
            service="Mattermost",
            documentation="https://developers.mattermost.com/integrate/webhooks/incoming/",
            body=bodies.mattermost,
            grouping=_individually,
            limit=4 * 16_383,
            answers_in_text=True,
        ),
        Payload(
            name="teams",
            service="Microsoft Teams",
            documentation=(
                "https://learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors"
            ),
            body=bodies.teams,
            grouping=_individually,
            limit=28 * 1024,
            hosts=(".webhook.office.com", ".logic.azure.com", ".api.powerplatform.com"),
            answers_in_text=True,
        ),
        Payload(
            name="pagerduty",
            service="PagerDuty",
            documentation="https://developer.pagerduty.com/docs/send-alert-event",
            body=bodies.pagerduty,
            grouping=_by_incident,
            limit=512_000,
            hosts=("events.pagerduty.com", "events.eu.pagerduty.com"),
            default_url="https://events.pagerduty.com",
            path="/v2/enqueue",
            required_option="routing_key",
        ),
        Payload(
            name="opsgenie",
            service="Opsgenie",
            documentation="https://docs.opsgenie.com/docs/alert-api",
            body=bodies.opsgenie,
            grouping=_by_incident,
            limit=_UNDOCUMENTED,
            hosts=("api.opsgenie.com", "api.eu.opsgenie.com"),
            default_url="https://api.opsgenie.com",
            path="/v2/alerts",
            required_option="api_key",
            authorization="GenieKey {api_key}",
        ),
        Payload(
            name="alertmanager",
            service="Alertmanager",
            documentation=(
                "https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml"
            ),
            body=bodies.alertmanager,
            grouping=_as_list,
            limit=_UNDOCUMENTED,
            path="/api/v2/alerts",
        ),
        Payload(
            name="template",
            service="the receiver of the template",
            documentation="https://docs.python.org/3/library/string.html#template-strings",
            body=bodies.from_user_template,
            grouping=_individually,
            limit=_UNDOCUMENTED,
            answers_in_text=True,
        ),
    ],
    required=("service", "documentation", "body", "grouping", "limit"),
)
#: The payload for hosts of no known service.
DEFAULT = "plain"
#: Value of the option ``payload`` that recognises the service by the host.
AUTO = "auto"
#: Values of the option ``payload``.
CHOICES = (AUTO, *PAYLOADS.names)


def of_host(host: str) -> Payload:
    """Return the payload of the service at ``host``, the plain payload when it is no known
    service.
    """
    return next((payload for payload in PAYLOADS if payload.recognises(host)), PAYLOADS[DEFAULT])
