# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of the alert part: defaults, the old scripts' variables, what is refused, and secrets in
messages.
"""

from __future__ import annotations

import json

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core import config
from ansible_collections.mlops.fleet.plugins.module_utils._core.alert.options import AlertOptions
from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import (
    FleetError,
    OptionError,
)

SECRET = "T0kenInTheUrl99"


def options(**given):
    return AlertOptions.from_mapping({"message": "x", **given})


def test_defaults():
    found = options()
    assert (found.cooldown, found.digest_after, found.syslog, found.test) == (3600, 5, False, False)
    hook = options(webhooks=[{"url": "https://example.com/x"}]).webhooks[0]
    assert (hook.payload, hook.timeout, hook.retries, hook.send_resolved) == (
        "auto",
        10.0,
        2,
        True,
    )
    assert options(email={"to": "a@example.com"}).email.security == "starttls"


def test_the_old_scripts_variables():
    environ = {
        "ALERT_EMAIL": "ops@example.com,ml@example.com",
        "ALERT_WEBHOOK": "https://hooks.slack.com/services/A/B/C",
        "ALERT_COOLDOWN": "60",
    }
    values, origin = config.merge(AlertOptions, {"cooldown": 5}, environ, {"message": "x"})
    found = AlertOptions.from_mapping(values)
    assert found.email.to == ["ops@example.com", "ml@example.com"]
    assert found.webhooks[0].url == "https://hooks.slack.com/services/A/B/C"
    assert found.cooldown == 60
    assert origin["cooldown"] == "environment ALERT_COOLDOWN"


def test_recipients_as_ansible_splits_them():
    assert options(email={"to": ["a@example.com", " b@example.com "]}).email.to == [
        "a@example.com",
        "b@example.com",
    ]


def test_from_is_an_alias_of_sender():
    assert (
        options(email={"to": "a@example.com", "from": "b@example.com", "sender": None}).email.sender
        == "b@example.com"
    )


@pytest.mark.parametrize(
    "given",
    [
        {"message": None},
        {"msg": "y"},
        {"message": None, "severity": "critical"},
        *(
            {"message": None, "document": {"checks": []}, name: "x"}
            for name in ("check", "subject")
        ),
        {"severity": "pass"},
        {"severity": "fatal"},
        {"cooldown": -1},
        {"digest_after": 0},
        {"state_dir": "relative"},
        {"state_dir": "/"},
        {"state_dir": "/var/lib"},
        {"command": ["handler.sh"]},
        {"email": {"to": []}},
        {"email": {"to": ["-oQ/tmp"]}},
        {"email": {"to": ["a@b.c\nBcc: x"]}},
        {"email": {"to": ["a b@c.d"]}},
        {"email": {"to": ["a@b.c"], "user": "bob", "host": "smtp.example.com"}},
        {
            "email": {
                "to": ["a@b.c"],
                "user": "bob",
                "password": "p",
                "host": "smtp.example.com",
                "security": "none",
            }
        },
        {"email": {"to": ["a@b.c"], "password": "p", "host": "smtp.example.com"}},
        {"email": {"to": ["a@b.c"], "port": 25}},
        {"email": {"to": ["a@b.c"], "host": "h", "port": 70000}},
        {"email": {"to": ["a@b.c"], "host": "smtp.example.com:587"}},
        {"email": {"to": ["a@b.c"], "host": "smtp://h"}},
        {"webhooks": [{}]},
        {"webhooks": [5]},
        {"webhooks": {"url": "https://example.com"}},
        {"webhooks": [{"url": "file:///etc/passwd"}]},
        {"webhooks": [{"url": "https://"}]},
        {"webhooks": [{"url": "https://host/a b"}]},
        {"webhooks": [{"url": "https://host:99999/"}]},
        {"webhooks": [{"url": "https://host/\r\nX: y"}]},
        {"webhooks": [{"url": "https://host/", "url_file": "/etc/x"}]},
        {"webhooks": [{"url": "https://host/", "url_env": "not a name"}]},
        {"webhooks": [{"payload": "pagerduty"}]},
        {"webhooks": [{"payload": "opsgenie"}]},
        {"webhooks": [{"payload": "slack"}]},
        {"webhooks": [{"url": "https://host/", "payload": "fax"}]},
        {"webhooks": [{"url": "https://host/", "payload": "template"}]},
        {"webhooks": [{"url": "https://host/", "template": "{}"}]},
        {
            "webhooks": [
                {"url": "https://host/", "payload": "template", "template": '{"a": $message}'}
            ]
        },
        {"webhooks": [{"url": "https://host/", "payload": "template", "template": 5}]},
        {
            "webhooks": [
                {"url": "https://host/", "payload": "template", "template": {"a": float("nan")}}
            ]
        },
        {
            "webhooks": [
                {"url": "https://host/", "payload": "template", "template": {"a": ["${api_key}"]}}
            ]
        },
        {"webhooks": [{"url": "https://host/", "name": "a\nb"}]},
        {"webhooks": [{"url": "https://host/", "headers": {"X-A": "a\r\nX-B: b"}}]},
        {"webhooks": [{"url": "https://host/", "headers": {"X A": "a"}}]},
        {"webhooks": [{"url": "https://host/", "headers": {"Host": "evil"}}]},
        {"webhooks": [{"url": "https://host/", "headers": {"X-A": ["a"]}}]},
        {"unknown": 1},
    ],
)
def test_what_can_not_work_is_refused_before_anything_is_sent(given):
    with pytest.raises(FleetError):
        options(**given)


@pytest.mark.parametrize(
    "hook",
    [
        f"ftp://host/{SECRET}",
        {"url": f"ftp://host/{SECRET}"},
        {"url": f"https://host/{SECRET}", "url_file": "/x"},
        {"url": "https://host/", "headers": {"X-A": f"{SECRET}\n"}},
        {"url": "https://host/", "headers": SECRET},
        {"url": [f"https://host/{SECRET}"]},
        {"payload": "pagerduty", "routing_key": f"{SECRET}\n"},
        {"url": f"https://host/{SECRET}", "timeout": "x"},
    ],
)
def test_no_message_shows_a_secret(hook):
    with pytest.raises(OptionError) as error:
        options(webhooks=[hook])
    assert SECRET not in str(error.value)
    assert SECRET not in json.dumps(error.value.to_dict())


def test_to_dict_hides_secrets():
    found = options(
        webhooks=[{"url": f"https://h/{SECRET}", "headers": {"X": SECRET}}],
        email={"to": "a@b.c", "host": "h", "user": "u", "password": SECRET},
    )
    assert SECRET not in json.dumps(found.to_dict())
