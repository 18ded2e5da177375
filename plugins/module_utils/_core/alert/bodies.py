# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The bodies that each webhook service wants, one function per service.

``payloads`` registers them.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from ..verdict import isoformat
from .events import RECOVERY, TEST, Event
from .messages import LISTED, Message, details, listing, shorten, text_body
from .template import filled_body

_SOURCE = "mlops-fleet"
#: Alertmanager drops an alert when nobody repeats it; ours must outlast the time until the next
#: reminder.
_ALERTMANAGER_SECONDS = 86400.0
#: Seconds by which a node's clock may be ahead of Alertmanager's.
_CLOCKS_DIFFER = 60.0
_NEVER = "0001-01-01T00:00:00Z"
_COLOURS = {"critical": "#c62828", "warning": "#f9a825", "info": "#1565c0", "pass": "#2e7d32"}


class Context(NamedTuple):
    """What a body needs beside the message.

    :param template: the user's own body. :param lifetime: seconds an alert stays when nobody
        repeats it.
    :param now: when it is sent, seconds since the epoch: the event may have waited in a queue, or
        its clock was wrong then.
    """

    routing_key: str = ""
    api_key: str = ""
    template: Any = None
    lifetime: float = 0.0
    now: float = 0.0


class Request(NamedTuple):
    """What is posted: the JSON content, and what is appended to the URL."""

    content: Any
    suffix: str = ""


def encode(content: Any) -> bytes:
    """Return content as JSON in UTF-8. :raises ValueError: a number in it is not finite."""
    return json.dumps(content, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")


def _slack_text(text: str) -> str:
    # Slack's three control characters; unescaped, a message could mention @channel or hide a link.
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def slack(message: Message, _context: Context) -> Request:
    """Slack incoming webhook: Block Kit, with ``text`` for notifications.

    Limits: text 40,000, header 150, section 3000, field 2000 characters.
    """
    mark = {
        "critical": ":red_circle:",
        "warning": ":large_yellow_circle:",
        "info": ":large_blue_circle:",
        "pass": ":large_green_circle:",
    }[message.severity]
    blocks: list[dict[str, Any]] = [
        {
            "type": "header",
            "text": {
                "type": "plain_text",
                "text": shorten(f"{mark} {message.title}", 150),
                "emoji": True,
            },
        }
    ]
    if len(message.events) == 1:
        facts = [("Message", message.events[0].message), *details(message.events[0])]
        fields = [
            {"type": "mrkdwn", "text": f"*{label}*\n{_slack_text(shorten(value, 350))}"}
            for label, value in facts
        ]
        blocks.append({"type": "section", "fields": fields[:10]})
    else:
        blocks.append(
            {
                "type": "section",
                "text": {
                    "type": "mrkdwn",
                    "text": listing(
                        message, 3000, lambda line: "• " + _slack_text(shorten(line, 300))
                    ),
                },
            }
        )
    blocks.append(
        {
            "type": "context",
            "elements": [{"type": "mrkdwn", "text": f"{_SOURCE} · `{message.incident}`"}],
        }
    )
    return Request({"text": shorten(_slack_text(message.title), 3000), "blocks": blocks})


def _mattermost_text(text: str) -> str:
    # A zero-width space keeps @channel, @all and @here from notifying everybody; the rest is
    # Markdown.
    return re.sub(r"([\\`*_\[\]|~<>#])", r"\\\1", text.replace("@", "@\u200b"))


def mattermost(message: Message, _context: Context) -> Request:
    """Mattermost incoming webhook with one message attachment.

    Limit: 16,383 characters in a post.
    """
    attachment: dict[str, Any] = {
        "fallback": shorten(message.title, 1000),
        "color": _COLOURS[message.severity],
        "title": shorten(message.title.replace("@", "@\u200b"), 1000),
    }
    if len(message.events) == 1:
        facts = [("Message", message.events[0].message), *details(message.events[0])]
        attachment["fields"] = [
            {"title": label, "value": _mattermost_text(value), "short": len(value) < 40}
            for label, value in facts
        ]
    else:
        attachment["text"] = listing(
            message, 7000, lambda line: "- " + _mattermost_text(shorten(line, 300))
        )
    return Request({"username": _SOURCE, "attachments": [attachment]})


def _card_text(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>#])", r"\\\1", text)


def teams(message: Message, _context: Context) -> Request:
    """Teams Workflows: a message with one Adaptive Card.

    Limit: 28 KB, which this stays below even when every character takes four bytes.
    """
    colour = {"critical": "Attention", "warning": "Warning", "info": "Accent", "pass": "Good"}[
        message.severity
    ]
    title = {
        "type": "TextBlock",
        "text": _card_text(shorten(message.title, 500)),
        "weight": "Bolder",
        "size": "Medium",
        "color": colour,
        "wrap": True,
    }
    body: list[dict[str, Any]] = [title]
    if len(message.events) == 1:
        facts = [("Message", message.events[0].message), *details(message.events[0])]
        body.append(
            {
                "type": "FactSet",
                "facts": [
                    {"title": label, "value": _card_text(shorten(value, 1000))}
                    for label, value in facts
                ],
            }
        )
    else:
        body.append(
            {
                "type": "TextBlock",
                "text": listing(message, 7000, lambda line: "- " + _card_text(shorten(line, 300))),
                "wrap": True,
            }
        )
    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": body,
        "msteams": {"width": "Full"},
    }
    attachment = {
        "contentType": "application/vnd.microsoft.card.adaptive",
        "contentUrl": None,
        "content": card,
    }
    return Request({"type": "message", "attachments": [attachment]})


def _facts(message: Message) -> dict[str, str]:
    """Return the details of an event, or the events of a digest and how many more there are."""
    if len(message.events) == 1:
        return {
            label.lower().replace(" ", "_"): shorten(value, 500)
            for label, value in details(message.events[0])
        }
    facts = {
        f"{place:02d} {event.label}"[:100]: shorten(f"{event.headline} {event.message}", 200)
        for place, event in enumerate(message.worst_first[:LISTED], 1)
    }
    rest = len(message.events) - len(facts)
    if rest:
        facts["more"] = f"… and {rest} more"
    return facts


def pagerduty(message: Message, context: Context) -> Request:
    """PagerDuty Events API v2: trigger, or resolve by the same ``dedup_key``.

    Limits: 512 KB, summary 1024, dedup_key 255 characters.
    """
    content: dict[str, Any] = {
        "routing_key": context.routing_key,
        "event_action": "resolve" if message.resolve else "trigger",
        "dedup_key": message.incident,
    }
    if message.resolve:
        return Request(content)
    event = message.worst
    content["client"] = _SOURCE
    content["payload"] = {
        "summary": shorten(message.title, 1024),
        "source": event.host,
        "severity": {"pass": "info"}.get(event.severity, event.severity),
        "timestamp": isoformat(event.time),
        "component": event.subject or event.check,
        "group": _SOURCE,
        "class": event.check,
        "custom_details": _facts(message),
    }
    return Request(content)


def opsgenie(message: Message, _context: Context) -> Request:
    """Opsgenie Alert API: create by alias, or close that alias.

    Limits: message 130, alias 512, description 15,000, details 8000, note 25,000 characters.
    """
    event = message.worst
    if message.resolve:
        from urllib.parse import quote

        content: dict[str, Any] = {
            "source": shorten(event.host, 100),
            "note": shorten(message.title, 25000),
        }
        suffix = f"/{quote(message.incident, safe='')}/close?identifierType=alias"
        return Request(content, suffix)
    if len(message.events) == 1:
        description = shorten(text_body(message), 15000)
    else:
        lines = listing(message, 14000, str, len(message.events))
        description = f"{shorten(message.title, 900)}\n\n{lines}\n"
    return Request(
        {
            "message": shorten(message.title, 130),
            "alias": message.incident,
            "description": description,
            "priority": {"critical": "P1", "warning": "P3"}.get(event.severity, "P5"),
            "source": shorten(event.host, 100),
            "entity": shorten(event.host, 512),
            "tags": [_SOURCE, shorten(event.check, 50), event.severity],
            "details": _facts(message),
        }
    )


def _labels(event: Event, severity: str) -> dict[str, str]:
    parts = [part for part in re.split(r"[^A-Za-z0-9]+", event.check) if part]
    labels = {
        "alertname": "Mlops" + "".join(part[:1].upper() + part[1:] for part in parts),
        "instance": event.host,
        "check": event.check,
        "subject": event.subject,
        "severity": severity,
        "source": _SOURCE,
    }
    # To Prometheus, an empty label does not exist.
    return {label: value for label, value in labels.items() if value}


def _annotations(event: Event) -> dict[str, str]:
    annotations = {
        "summary": event.title,
        "description": event.message,
        "key": event.key,
        "value": f"{event.value} {event.unit}".strip(),
        "action": event.wanted_action,
        "reason": event.reason,
    }
    return {label: value for label, value in annotations.items() if value}


def _zulu(epoch: float) -> str:
    return isoformat(epoch).replace("+00:00", "Z")


def alertmanager(message: Message, context: Context) -> Request:
    """Alertmanager v2 ``POST /api/v2/alerts``.

    The severity is one of the labels that identify an alert, so a change of it ends the former
    alert.
    """
    alerts: list[dict[str, Any]] = []
    for event in message.events:
        annotations = _annotations(event)
        for severity in event.previous:
            if severity == event.severity:
                continue
            # An end in the future of Alertmanager's clock would keep the alert for its whole
            # lifetime.
            end = min(event.time, context.now or event.time) - _CLOCKS_DIFFER
            alerts.append(
                {
                    "labels": _labels(event, severity),
                    "annotations": annotations,
                    "startsAt": _zulu(min(event.since, end)),
                    "endsAt": _zulu(end),
                }
            )
        if event.kind != RECOVERY:
            seconds = max(_ALERTMANAGER_SECONDS, context.lifetime)
            if event.kind == TEST:
                seconds = 300.0
            # An end in the past would be taken for that of a problem that is over.
            now = context.now or event.time
            alerts.append(
                {
                    "labels": _labels(event, event.severity),
                    "annotations": annotations,
                    "startsAt": _zulu(min(event.since, now)),
                    "endsAt": _zulu(now + seconds),
                }
            )
    return Request(alerts)


def _plain_alert(event: Event) -> dict[str, Any]:
    over = event.kind == RECOVERY
    severity = event.severity
    if over and event.previous:
        severity = event.previous[0]
    return {
        "status": "resolved" if over else "firing",
        "labels": _labels(event, severity),
        "annotations": _annotations(event),
        "startsAt": _zulu(event.since),
        "endsAt": _zulu(event.time) if over else _NEVER,
        "generatorURL": "",
        "fingerprint": event.key.rpartition(".")[2],
    }


def plain(message: Message, _context: Context) -> Request:
    """Our plain form: Alertmanager's webhook version 4 (so that its receivers work) plus ``hostname
    severity message``.
    """
    alerts = [_plain_alert(event) for event in message.events]
    shared = {
        label: value
        for label, value in alerts[0]["labels"].items()
        if all(alert["labels"].get(label) == value for alert in alerts)
    }
    return Request(
        {
            "version": "4",
            "groupKey": message.incident,
            "truncatedAlerts": 0,
            "status": "resolved" if message.resolve else "firing",
            "receiver": _SOURCE,
            "groupLabels": {"source": _SOURCE},
            "commonLabels": shared,
            "commonAnnotations": {},
            "externalURL": "",
            "alerts": alerts,
            "hostname": message.worst.host,
            "severity": message.severity,
            "message": message.title if len(alerts) > 1 else message.events[0].message,
        }
    )


def from_user_template(message: Message, context: Context) -> Request:
    """The user's own body.

    :raises ValueError: filled in, it is not JSON. :raises TypeError: likewise.
    """
    secrets = {"api_key": context.api_key, "routing_key": context.routing_key}
    return Request(filled_body(context.template, message, secrets))
