# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A pager that is broken and then repaired, beside a chat that works: real TLS and SMTP servers."""

from __future__ import annotations

import datetime
import json
import ssl

import pytest

from ansible_collections.mlops.fleet.tests.system.plugins.module_utils._core.alert import test_mail
from ansible_collections.mlops.fleet.tests.unit.plugins.module_utils._core.alert.conftest import (
    WebServer,
)

EVENTS = 300


@pytest.fixture
def ill(document, make_check):
    return document(*[make_check("unit", "critical", subject=f"u{n}") for n in range(EVENTS)])


@pytest.fixture
def chat():
    server = WebServer()
    yield {"url": f"http://127.0.0.1:{server.port}/", "payload": "plain", "name": "chat"}
    server.close()


def statuses(result):
    return {report["name"]: report["status"] for report in result.channels}


def test_an_expired_certificate_that_is_renewed(tell, ill, chat, tmp_path):
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    ca_file = str(tmp_path / "ca.pem")
    authority.cert_pem.write_to_path(ca_file)

    def context(**validity):
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1", **validity).configure_cert(made)
        return made

    now = datetime.datetime.now(datetime.timezone.utc)
    day = datetime.timedelta(days=1)
    for validity in (
        {"not_before": now - 2 * day, "not_after": now - day},
        {"not_before": now + day, "not_after": now + 2 * day},  # or the clock is wrong
    ):
        broken = WebServer(context(**validity))
        pager = {"url": f"https://127.0.0.1:{broken.port}/pager", "ca_file": ca_file}
        state = str(tmp_path / f"state{broken.port}")
        hooks = [{**pager, "name": "pager", "payload": "plain"}, chat]
        for dummy in range(2):
            result = tell(document=ill, webhooks=hooks, cooldown=0, state_dir=state)
            assert statuses(result) == {"pager": "failed", "chat": "sent"}
            assert "certificate" in result.channels[0]["detail"]
        broken.close()
        renewed = WebServer(context())
        hooks[0]["url"] = f"https://127.0.0.1:{renewed.port}/pager"
        result = tell(document=ill, webhooks=hooks, cooldown=86400, state_dir=state)
        assert statuses(result) == {"pager": "sent", "chat": "skipped"}
        assert sum(len(body["alerts"]) for body in renewed.bodies) == EVENTS
        renewed.close()


def test_a_wrong_password_that_is_corrected(tell, ill, chat, smtp, authority):
    server = smtp("starttls", user="ops", password="right")
    mail = {
        "to": ["ops@example.com"],
        "host": "127.0.0.1",
        "port": server.port,
        "ca_file": authority.ca_file,
        "user": "ops",
    }
    for password, expected in (("wrong", "failed"), ("right", "sent")):
        result = tell(document=ill, email={**mail, "password": password}, webhooks=[chat])
        assert statuses(result)["email"] == expected
    assert len(server.mails) == 1
    assert f"{EVENTS} critical".encode() in server.mails[0]["data"]


#: How services call a wrong key, token or hook: with a status that others use for a bad message.
WRONG_KEYS = [
    ("pagerduty", 400, {"status": "invalid event", "errors": ["'routing_key' is invalid"]}),
    ("opsgenie", 422, {"message": "Key format is not valid!", "took": 0.0}),
    (
        "mattermost",
        400,
        {"id": "web.incoming_webhook.invalid.app_error", "message": "Invalid webhook."},
    ),
    ("template", 200, {"ok": False, "error": "invalid_auth"}),
    ("slack", 200, "no_service"),
]


@pytest.mark.parametrize(("payload", "status", "body"), WRONG_KEYS)
def test_a_wrong_key_that_is_corrected(
    tell, chat, web, answer, document, make_check, payload, status, body
):
    keys = {
        "pagerduty": {"routing_key": "R" * 32},
        "opsgenie": {"api_key": "K" * 36},
        "template": {"template": {"text": "$title"}},
    }
    text = body if isinstance(body, str) else json.dumps(body)
    web.answers = [answer(status=status, body=text)] * 2
    pager = {"url": f"http://127.0.0.1:{web.port}/", "name": "pager", "payload": payload}
    hooks = [{**pager, **keys.get(payload, {})}, chat]
    problem = document(make_check("disk_usage", "critical"))
    for expected in ("failed", "failed", "sent", "skipped"):
        result = tell(document=problem, webhooks=hooks, cooldown=86400)
        assert statuses(result)["pager"] == expected


@pytest.mark.parametrize("verb", ["RCPT", "MAIL"])
def test_a_mail_server_that_learns_to_relay_for_this_host(tell, chat, document, make_check, verb):
    refusal = "554 5.7.1 <ops@example.com>: Relay access denied"
    server = test_mail.Scripted(**{verb: lambda dummy: refusal if server.sessions < 3 else None})
    problem = document(make_check("disk_usage", "critical"))
    for expected in ("failed", "failed", "sent", "skipped"):
        email = test_mail.scripted(server)
        result = tell(document=problem, email=email, webhooks=[chat], cooldown=86400)
        assert statuses(result)["email"] == expected
    assert len(server.mails) == 1


def test_a_name_that_does_not_resolve_for_a_while(tell, ill, chat, web):
    for host, expected in (("pager.invalid", "queued"), ("127.0.0.1", "sent")):
        pager = {"url": f"http://{host}:{web.port}/", "name": "pager", "payload": "plain"}
        result = tell(document=ill, webhooks=[{**pager, "retries": 0}, chat])
        assert statuses(result)["pager"] == expected
    assert sum(len(body["alerts"]) for body in web.bodies) == EVENTS


def test_a_receiver_that_is_gone_is_reported_until_somebody_looks(
    tell, ill, chat, web, answer, document, make_check
):
    web.answers = [answer(status=410)] * 2
    pager = {"url": f"http://127.0.0.1:{web.port}/", "name": "pager", "payload": "plain"}
    hooks = [pager, chat]
    assert statuses(tell(document=ill, webhooks=hooks)) == {"pager": "failed", "chat": "sent"}
    for dummy in range(2):
        result = tell(document=ill, webhooks=hooks)
        assert statuses(result) == {"pager": "failed", "chat": "skipped"}
        assert f"{EVENTS} events refused for good" in result.channels[0]["detail"]
    assert tell(test=True, webhooks=hooks).channels[0]["status"] == "failed", "410 again"
    assert tell(test=True, webhooks=hooks).channels[0]["status"] == "sent"
    assert statuses(tell(document=ill, webhooks=hooks)) == {"pager": "skipped", "chat": "skipped"}
