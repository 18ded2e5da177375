# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bodies from the user's own template, filled with the texts of a message."""

from __future__ import annotations

import json
import string
from collections.abc import Mapping
from typing import Any

from ..verdict import isoformat
from .events import Event
from .messages import Message, listing

#: Placeholders beside those of the message: secrets that a service wants in the body.
SECRETS = ("api_key", "routing_key")
#: Characters of a digest's lines in one placeholder.
_LONGEST = 20_000


def placeholders(message: Message) -> dict[str, str]:
    """Return what a template can use, all texts."""
    event = message.worst
    text = event.message
    if len(message.events) > 1:
        text = listing(message, _LONGEST, str, len(message.events))
    return {
        "check": event.check,
        "subject": event.subject,
        "value": event.value,
        "unit": event.unit,
        "action": event.action,
        "reason": event.reason,
        "severity": message.severity,
        "status": event.status,
        "event": message.kind,
        "title": message.title,
        "hostname": event.host,
        "key": message.incident,
        "message": text,
        "since": isoformat(event.since),
        "time": isoformat(event.time),
        "count": str(len(message.events)),
    }


def filled_body(template: Any, message: Message, secrets: Mapping[str, str]) -> Any:
    """Return the template filled with a message; secrets that are not set stay placeholders.

    :raises ValueError: filled in, it is not JSON.
    """
    known = {label: secret for label, secret in secrets.items() if secret}
    return fill(template, {**placeholders(message), **known})


def fill(template: Any, values: Mapping[str, str]) -> Any:
    """Fill a template; unknown placeholders stay as they are, ``$$`` is a dollar sign.

    A structure is walked and its texts are filled. A text is JSON in which the values are escaped
    for use between quotes.

    :raises ValueError: the filled text is not JSON.
    """
    if isinstance(template, str):
        escaped = {
            label: json.dumps(value, ensure_ascii=False)[1:-1] for label, value in values.items()
        }
        return json.loads(string.Template(template).safe_substitute(escaped))
    return _filled(template, values)


def _filled(node: Any, values: Mapping[str, str]) -> Any:
    if isinstance(node, str):
        return string.Template(node).safe_substitute(values)
    if isinstance(node, Mapping):
        return {key: _filled(value, values) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return [_filled(item, values) for item in node]
    return node


def template_problem(template: Any) -> str | None:
    """Return what is wrong with a template, None when it can be used."""
    if not isinstance(template, (str, Mapping, list)):
        return "it is neither text nor a mapping nor a list"
    sample = Event(
        "key", "host", "check", "subject", "critical", "critical", 'a "message"', 0.0, 0.0
    )
    try:
        body = filled_body(template, Message((sample,), "key"), dict.fromkeys(SECRETS, "x"))
        json.dumps(body, allow_nan=False)
    except (TypeError, ValueError) as error:
        # json.loads includes no part of the text in its message.
        return f"filled in, it is not JSON ({error})"
    return None
