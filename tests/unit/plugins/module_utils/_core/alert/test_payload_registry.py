# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The registry of payloads: complete entries, recognised hosts, and bodies within each service's
limit.
"""

from __future__ import annotations

import json
import re

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.alert.bodies import Context, encode
from ansible_collections.mlops.fleet.plugins.module_utils._core.alert.channels import CHANNELS
from ansible_collections.mlops.fleet.plugins.module_utils._core.alert.events import Event, key_of
from ansible_collections.mlops.fleet.plugins.module_utils._core.alert.messages import (
    LONGEST_TEXT,
    separate,
    text_body,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.alert.options import AlertOptions
from ansible_collections.mlops.fleet.plugins.module_utils._core.alert.payloads import (
    PAYLOADS,
    of_host,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import OptionError

TEMPLATE = {"text": "$title $message"}


@pytest.mark.parametrize("field", ["service", "documentation", "body", "grouping", "limit"])
def test_a_payload_that_lacks_something_can_not_be_registered(field):
    incomplete = PAYLOADS["slack"]._replace(name="ntfy", **{field: None})
    with pytest.raises(TypeError, match=f"payload ntfy is incomplete: it has no {field}"):
        PAYLOADS.add(incomplete)
    assert "ntfy" not in PAYLOADS


def test_a_payload_that_is_not_registered_is_an_error_before_anything_is_sent():
    hook = {"url": "http://127.0.0.1:9/x", "payload": "ntfy"}
    with pytest.raises(OptionError, match="must be one of auto, plain, slack"):
        AlertOptions.from_mapping({"msg": "x", "webhooks": [hook]})


def test_every_channel_is_set_up_by_an_option():
    assert {kind.option for kind in CHANNELS} <= {entry.name for entry in AlertOptions.TABLE}


@pytest.mark.parametrize(
    ("host", "payload"),
    [
        ("events.pagerduty.com", "pagerduty"),
        ("events.eu.pagerduty.com", "pagerduty"),
        ("api.opsgenie.com", "opsgenie"),
        ("hooks.slack.com", "slack"),
        ("prod-1.westeurope.logic.azure.com", "teams"),
        ("x.webhook.office.com", "teams"),
        ("hooks.slack.com.evil.example", "plain"),
        ("evilhooks.slack.com", "plain"),
        ("logic.azure.com", "plain"),
        ("alertmanager.example.com", "plain"),
        ("", "plain"),
    ],
)
def test_auto_recognises_the_hosts_of_a_service_and_no_others(host, payload):
    assert of_host(host).name == payload


def _events(count: int, letter: str) -> list[Event]:
    return [
        Event(
            key=key_of("node1", "unit", f"u{number}"),
            host="node1",
            check="unit",
            subject=f"u{number}",
            status="critical",
            severity="critical",
            message=f"#{number} " + letter * 990,
            time=0.0,
            since=0.0,
            reason=letter * 400,
            incident="node1.digest.0123456789abcdef",
        )
        for number in range(count)
    ]


# One event alone, more than fit into the largest body (the fewest letters per byte), and for each
# letter that a service writes in a longer way a list that is cut.
@pytest.mark.parametrize(
    ("letter", "count"),
    [("x", 1), ("x", 300), *((letter, 200) for letter in ("\U0001f525", '"', "&", "@"))],
)
@pytest.mark.parametrize("name", PAYLOADS.names)
def test_no_body_is_larger_than_its_limit_and_what_it_leaves_out_is_counted(name, letter, count):
    payload = PAYLOADS[name]
    messages = payload.messages(_events(count, letter), 5, ())
    assert sum(len(message.events) for message in messages) == count
    for message in messages:
        data = encode(payload.body(message, Context(template=TEMPLATE)).content)
        assert len(data) <= payload.limit
        text = json.dumps(json.loads(data), ensure_ascii=False)
        listed = len({number for number in range(count) if f"#{number} " in text})
        more = [int(number) for number in re.findall(r"… and (\d+) more", text)]
        assert listed >= 1
        assert listed + min(more, default=0) == len(message.events)


@pytest.mark.parametrize(("count", "more"), [(50, 0), (300, 1)])
def test_the_text_of_a_mail_is_bounded_and_counts_what_it_leaves_out(count, more):
    (message,) = separate(_events(count, "x"), 5)
    text = text_body(message)
    assert len(text) < LONGEST_TEXT + 200
    left_out = [int(number) for number in re.findall(r"… and (\d+) more", text)]
    assert len(left_out) == more
    assert text.count("CRITICAL node1 unit") + sum(left_out) == count


def test_a_list_is_split_only_where_it_has_to_be():
    assert len(PAYLOADS["plain"].messages(_events(20, "x"), 5, ())) == 1
    sizes = [len(m.events) for m in PAYLOADS["alertmanager"].messages(_events(300, "x"), 5, ())]
    assert sum(sizes) == 300 and 1 < len(sizes) <= 8
