# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is sent: grouping of events into messages, their texts, and the bodies that each service wants.

Sources of the forms: Slack C(docs.slack.dev) (incoming webhooks, Block Kit limits), Mattermost C(developers.mattermost.com) (incoming
webhooks, message attachments), Teams C(learn.microsoft.com) (Workflows take a message with one Adaptive Card), PagerDuty C(developer.pagerduty.com)
(Events API v2), Opsgenie C(docs.opsgenie.com) (Alert API), Alertmanager C(api/v2/openapi.yaml) and its webhook version 4.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from ..verdict import isoformat
from .events import ALERT, RECOVERY, TEST, Event, digest_key

_SOURCE = "mlops-fleet"
#: Alertmanager drops an alert it does not hear of again; ours must outlive the time until the next reminder.
_ALERTMANAGER_SECONDS = 86400.0
#: Seconds by which a node's clock may be ahead of Alertmanager's.
_CLOCKS_DIFFER = 60.0
_NEVER = "0001-01-01T00:00:00Z"
_SHOWN = 20
#: What a template can use beside the placeholders: secrets that a service wants in the body.
SECRETS = ("api_key", "routing_key")


@dataclass(frozen=True)
class Unit:
    """One message: the events it tells. C(incident) is its deduplication key; C(resolve) says that it closes that incident."""

    events: tuple[Event, ...]
    incident: str
    resolve: bool = False

    @property
    def only(self) -> tuple[str, ...]:
        """Marks of the recipients who still have to get it, the same for all its events; empty: all."""
        return self.events[0].only

    @property
    def worst(self) -> Event:
        """The event that gives the message its severity."""
        return max(self.events, key=lambda event: event.level)

    @property
    def keys(self) -> list[str]:
        return [event.key for event in self.events]

    @property
    def kind(self) -> str:
        return self.events[0].kind if len(self.events) == 1 else "digest"

    @property
    def severity(self) -> str:
        return self.worst.severity

    @property
    def title(self) -> str:
        """One line that says it all."""
        if len(self.events) == 1:
            return self.events[0].title
        hosts = sorted({event.host for event in self.events})
        where = hosts[0] if len(hosts) == 1 else f"{len(hosts)} hosts"
        counts = []
        for severity in ("critical", "warning", "info"):
            count = sum(event.kind == ALERT and event.severity == severity for event in self.events)
            counts += [f"{count} {severity}"] if count else []
        recovered = sum(event.kind == RECOVERY for event in self.events)
        counts += [f"{recovered} recovered"] if recovered else []
        return f"{self.worst.word} {where}: " + ", ".join(counts)

    @property
    def lines(self) -> list[str]:
        """The events, worst first, one line each."""
        ordered = sorted(
            self.events, key=lambda event: (-event.level, event.host, event.check, event.subject)
        )
        return [f"{event.word} {event.host} {event.label}: {event.message}" for event in ordered]


def separate(events: Sequence[Event], digest_after: int) -> list[Unit]:
    """For people: one message per event, or one digest when there are more than C(digest_after)."""
    if len(events) > digest_after:
        return [Unit(tuple(events), digest_key(events[0].host))]
    return [Unit((event,), event.key, event.kind == RECOVERY) for event in events]


def together(events: Sequence[Event]) -> list[Unit]:
    """For receivers that take lists: everything in one message."""
    return (
        [
            Unit(
                tuple(events),
                digest_key(events[0].host),
                all(event.kind == RECOVERY for event in events),
            )
        ]
        if events
        else []
    )


def by_incident(events: Sequence[Event], still_open: Iterable[str]) -> list[Unit]:
    """For incident services: one message per incident; a digest's incident is closed only when nothing in it is open any more."""
    grouped: dict[str, list[Event]] = {}
    for event in events:
        grouped.setdefault(event.incident or event.key, []).append(event)
    found = []
    for incident, members in grouped.items():
        alerts = [event for event in members if event.kind != RECOVERY]
        if alerts:
            found.append(Unit(tuple(members), incident))
        else:
            found.append(Unit(tuple(members), incident, resolve=incident not in set(still_open)))
    return found


def details(event: Event) -> list[tuple[str, str]]:
    """Return the facts of an event worth showing, named for people."""
    reading = f"{event.value} {event.unit}".strip()
    found = [
        ("Host", event.host),
        ("Check", event.label),
        ("Status", event.status),
        ("Value", reading),
    ]
    found += [
        ("Action", "" if event.action == "none" else event.action),
        ("Since", isoformat(event.since)),
        ("Why now", event.reason),
    ]
    return [(name, value) for name, value in found if value]


def text_body(unit: Unit) -> str:
    """Return the plain text of a message (e-mail)."""
    if len(unit.events) == 1:
        event = unit.events[0]
        facts = "\n".join(f"{name + ':':<9} {value}" for name, value in details(event))
        return f"{event.title}\n\n{facts}\nKey:      {event.key}\n"
    return unit.title + "\n\n" + "\n".join(unit.lines) + "\n"


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _listed(unit: Unit, longest: int, line: Callable[[str], str]) -> str:
    """Return the lines that fit into C(longest) characters, and how many more there are."""
    room, found = longest - 20, []
    for one in unit.lines[:_SHOWN]:
        shown = line(one)
        if len(shown) + 1 > room:
            break
        found.append(shown)
        room -= len(shown) + 1
    rest = len(unit.events) - len(found)
    return "\n".join([*found, f"… and {rest} more"] if rest else found)


_COLOURS = {"critical": "#c62828", "warning": "#f9a825", "info": "#1565c0", "pass": "#2e7d32"}


def _slack_text(text: str) -> str:
    # Slack's own three characters; without them a message could mention @channel or hide a link.
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def slack(unit: Unit) -> dict[str, Any]:
    """Slack incoming webhook: Block Kit, with C(text) for notifications. Limits: header 150, section 3000, field 2000 characters."""
    mark = {
        "critical": ":red_circle:",
        "warning": ":large_yellow_circle:",
        "info": ":large_blue_circle:",
        "pass": ":large_green_circle:",
    }[unit.severity]
    blocks: list[dict[str, Any]] = [
        {
            "type": "header",
            "text": {
                "type": "plain_text",
                "text": _cut(f"{mark} {unit.title}", 150),
                "emoji": True,
            },
        }
    ]
    if len(unit.events) == 1:
        facts = [("Message", unit.events[0].message), *details(unit.events[0])]
        fields = [
            {"type": "mrkdwn", "text": f"*{name}*\n{_slack_text(_cut(value, 350))}"}
            for name, value in facts
        ]
        blocks.append({"type": "section", "fields": fields[:10]})
    else:
        blocks.append(
            {
                "type": "section",
                "text": {
                    "type": "mrkdwn",
                    "text": _listed(unit, 3000, lambda one: "• " + _slack_text(_cut(one, 300))),
                },
            }
        )
    blocks.append(
        {
            "type": "context",
            "elements": [{"type": "mrkdwn", "text": f"{_SOURCE} · `{unit.incident}`"}],
        }
    )
    return {"text": _cut(_slack_text(unit.title), 3000), "blocks": blocks}


def _mattermost_text(text: str) -> str:
    # A zero-width space keeps @channel, @all and @here from calling everybody; the rest is Markdown's own signs.
    return re.sub(r"([\\`*_\[\]|~<>#])", r"\\\1", text.replace("@", "@\u200b"))


def mattermost(unit: Unit) -> dict[str, Any]:
    """Mattermost incoming webhook with one message attachment."""
    attachment: dict[str, Any] = {
        "fallback": _cut(unit.title, 1000),
        "color": _COLOURS[unit.severity],
        "title": _cut(unit.title.replace("@", "@\u200b"), 1000),
    }
    if len(unit.events) == 1:
        facts = [("Message", unit.events[0].message), *details(unit.events[0])]
        attachment["fields"] = [
            {"title": name, "value": _mattermost_text(value), "short": len(value) < 40}
            for name, value in facts
        ]
    else:
        attachment["text"] = _listed(
            unit, 7000, lambda one: "- " + _mattermost_text(_cut(one, 300))
        )
    return {"username": _SOURCE, "attachments": [attachment]}


def _card_text(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>#])", r"\\\1", text)


def teams(unit: Unit) -> dict[str, Any]:
    """Teams Workflows: a message with one Adaptive Card (28 KB at most; this stays below, even when every letter takes four bytes)."""
    colour = {"critical": "Attention", "warning": "Warning", "info": "Accent", "pass": "Good"}[
        unit.severity
    ]
    title = {
        "type": "TextBlock",
        "text": _card_text(_cut(unit.title, 500)),
        "weight": "Bolder",
        "size": "Medium",
        "color": colour,
        "wrap": True,
    }
    body: list[dict[str, Any]] = [title]
    if len(unit.events) == 1:
        facts = [("Message", unit.events[0].message), *details(unit.events[0])]
        body.append(
            {
                "type": "FactSet",
                "facts": [
                    {"title": name, "value": _card_text(_cut(value, 1000))} for name, value in facts
                ],
            }
        )
    else:
        body.append(
            {
                "type": "TextBlock",
                "text": _listed(unit, 7000, lambda one: "- " + _card_text(_cut(one, 300))),
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
    return {
        "type": "message",
        "attachments": [
            {
                "contentType": "application/vnd.microsoft.card.adaptive",
                "contentUrl": None,
                "content": card,
            }
        ],
    }


def _facts(unit: Unit) -> dict[str, str]:
    if len(unit.events) > 1:
        return {
            f"{place:02d} {event.label}"[:100]: _cut(f"{event.word} {event.message}", 200)
            for place, event in enumerate(unit.events[:_SHOWN], 1)
        }
    return {
        name.lower().replace(" ", "_"): _cut(value, 500) for name, value in details(unit.events[0])
    }


def pagerduty(unit: Unit, routing_key: str) -> dict[str, Any]:
    """PagerDuty Events API v2: trigger, or resolve by the same C(dedup_key). Limits: summary 1024, dedup_key 255 characters."""
    if unit.resolve:
        return {"routing_key": routing_key, "event_action": "resolve", "dedup_key": unit.incident}
    event = unit.worst
    payload = {
        "summary": _cut(unit.title, 1024),
        "source": event.host,
        "severity": event.severity if event.severity != "pass" else "info",
        "timestamp": isoformat(event.time),
        "component": event.subject or event.check,
        "group": _SOURCE,
        "class": event.check,
        "custom_details": _facts(unit),
    }
    return {
        "routing_key": routing_key,
        "event_action": "trigger",
        "dedup_key": unit.incident,
        "client": _SOURCE,
        "payload": payload,
    }


def opsgenie(unit: Unit) -> tuple[str, dict[str, Any]]:
    """Opsgenie Alert API: path below C(/v2/alerts) and body; create by alias, or close it. Limits: message 130, alias 512, description 15000."""
    event = unit.worst
    if unit.resolve:
        return f"/{quote(unit.incident, safe='')}/close?identifierType=alias", {
            "source": _cut(event.host, 100),
            "note": _cut(unit.title, 25000),
        }
    priority = {"critical": "P1", "warning": "P3"}.get(event.severity, "P5")
    tags = [_SOURCE, _cut(event.check, 50), event.severity]
    body: dict[str, Any] = {
        "message": _cut(unit.title, 130),
        "alias": unit.incident,
        "description": _cut(text_body(unit), 15000),
        "priority": priority,
    }
    body.update(
        source=_cut(event.host, 100), entity=_cut(event.host, 512), tags=tags, details=_facts(unit)
    )
    return "", body


def _labels(event: Event, severity: str) -> dict[str, str]:
    name = "Mlops" + "".join(
        word[:1].upper() + word[1:] for word in re.split(r"[^A-Za-z0-9]+", event.check) if word
    )
    labels = {
        "alertname": name,
        "instance": event.host,
        "check": event.check,
        "subject": event.subject,
        "severity": severity,
        "source": _SOURCE,
    }
    # An empty label is no label to Prometheus.
    return {name: value for name, value in labels.items() if value}


def _annotations(event: Event) -> dict[str, str]:
    found = {
        "summary": event.title,
        "description": event.message,
        "key": event.key,
        "value": f"{event.value} {event.unit}".strip(),
    }
    found.update(action="" if event.action == "none" else event.action, reason=event.reason)
    return {name: value for name, value in found.items() if value}


def _zulu(epoch: float) -> str:
    return isoformat(epoch).replace("+00:00", "Z")


def alertmanager(unit: Unit, lifetime: float = 0.0) -> list[dict[str, Any]]:
    """Alertmanager v2 C(POST /api/v2/alerts). The severity is one of the labels that make an alert, so a change of it ends the former alert.

    :param lifetime: seconds an alert stays when nothing more is heard; at least a day.
    """
    found = []
    for event in unit.events:
        gone = [one for one in event.previous if one != event.severity]
        for severity in gone:
            ended = {"labels": _labels(event, severity), "annotations": _annotations(event)}
            # An end that lies in the future by Alertmanager's clock is no end to it: the alert would stay for its whole lifetime.
            end = event.time - _CLOCKS_DIFFER
            found.append({**ended, "startsAt": _zulu(min(event.since, end)), "endsAt": _zulu(end)})
        if event.kind != RECOVERY:
            seconds = 300.0 if event.kind == TEST else max(_ALERTMANAGER_SECONDS, lifetime)
            alert: dict[str, Any] = {
                "labels": _labels(event, event.severity),
                "annotations": _annotations(event),
            }
            found.append(
                {**alert, "startsAt": _zulu(event.since), "endsAt": _zulu(event.time + seconds)}
            )
    return found


def plain(unit: Unit) -> dict[str, Any]:
    """Our plain form: Alertmanager's webhook version 4 (so that its receivers work) plus C(hostname severity message)."""
    alerts = []
    for event in unit.events:
        over = event.kind == RECOVERY
        severity = event.previous[0] if over and event.previous else event.severity
        alert: dict[str, Any] = {
            "status": "resolved" if over else "firing",
            "labels": _labels(event, severity),
            "annotations": _annotations(event),
        }
        alert.update(
            startsAt=_zulu(event.since),
            endsAt=_zulu(event.time) if over else _NEVER,
            generatorURL="",
            fingerprint=event.key.rpartition(".")[2],
        )
        alerts.append(alert)
    shared = {
        name: value
        for name, value in alerts[0]["labels"].items()
        if all(alert["labels"].get(name) == value for alert in alerts)
    }
    found: dict[str, Any] = {
        "version": "4",
        "groupKey": unit.incident,
        "truncatedAlerts": 0,
        "status": "resolved" if unit.resolve else "firing",
    }
    found.update(
        receiver=_SOURCE,
        groupLabels={"source": _SOURCE},
        commonLabels=shared,
        commonAnnotations={},
        externalURL="",
        alerts=alerts,
    )
    found.update(
        hostname=unit.worst.host,
        severity=unit.severity,
        message=unit.title if len(alerts) > 1 else unit.events[0].message,
    )
    return found


def placeholders(unit: Unit) -> dict[str, str]:
    """Return what a user's template can use, all texts."""
    event = unit.worst
    found = {
        name: getattr(event, name)
        for name in ("check", "subject", "value", "unit", "action", "reason")
    }
    found.update(
        severity=unit.severity,
        status=event.status,
        event=unit.kind,
        title=unit.title,
        hostname=event.host,
        key=unit.incident,
    )
    found["message"] = event.message if len(unit.events) == 1 else "\n".join(unit.lines)
    found.update(
        since=isoformat(event.since), time=isoformat(event.time), count=str(len(unit.events))
    )
    return found


def from_template(template: Any, values: Mapping[str, str]) -> Any:
    """Fill a user's template; unknown placeholders stay as they are, C($$) is a dollar sign.

    A structure is walked and its texts are filled. A text is JSON in which the values are escaped for use between quotes.

    :raises ValueError: the filled text is not JSON.
    """
    if isinstance(template, str):
        escaped = {
            name: json.dumps(value, ensure_ascii=False)[1:-1] for name, value in values.items()
        }
        return json.loads(string.Template(template).safe_substitute(escaped))
    return _filled(template, values)


def _filled(node: Any, values: Mapping[str, str]) -> Any:
    if isinstance(node, str):
        return string.Template(node).safe_substitute(values)
    if isinstance(node, Mapping):
        return {name: _filled(value, values) for name, value in node.items()}
    if isinstance(node, (list, tuple)):
        return [_filled(one, values) for one in node]
    return node


def template_problem(template: Any) -> str | None:
    """Say what is wrong with a template, None when it can be used."""
    if not isinstance(template, (str, Mapping, list)):
        return "it is neither text nor a mapping nor a list"
    sample = Event(
        "key", "host", "check", "subject", "critical", "critical", 'a "message"', 0.0, 0.0
    )
    try:
        json.dumps(
            from_template(
                template, {**placeholders(Unit((sample,), "key")), **dict.fromkeys(SECRETS, "x")}
            ),
            allow_nan=False,
        )
    except (TypeError, ValueError) as error:
        # json.loads shows no part of the text in its message.
        return f"filled in, it is not JSON ({error})"
    return None
