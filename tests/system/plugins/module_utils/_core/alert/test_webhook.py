# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Webhooks against real HTTP and HTTPS servers: answers, time-outs, redirects, certificates, and no
secret in any text.
"""

from __future__ import annotations

import json
import socket
import threading
import time

import pytest

TOKEN = "T0KEN1abcDEF2ghi"


def one(web, **more):
    return [{"url": web.url(f"/hooks/{TOKEN}"), "payload": "plain", "timeout": 5, **more}]


def send(tell, hooks):
    result = tell(message="disk is full", severity="critical", webhooks=hooks)
    assert TOKEN not in json.dumps(result.to_dict())
    return result.channels[0]


def test_delivery(tell, web):
    found = send(tell, one(web, headers={"X-Team": "ml-platform"}))
    assert (found["status"], found["detail"]) == ("sent", "HTTP 200")
    assert found["target"] == "http://127.0.0.1"
    request = web.requests[0]
    assert request["path"] == f"/hooks/{TOKEN}"
    assert request["headers"]["Content-Type"].startswith("application/json")
    assert request["headers"]["X-Team"] == "ml-platform"


def test_429_waits_as_long_as_asked(tell, web, answer):
    web.answers = [answer(status=429, headers={"Retry-After": "1"})]
    assert send(tell, one(web))["status"] == "sent"
    assert 1.0 <= web.requests[1]["at"] - web.requests[0]["at"] < 2.6


def test_429_with_a_date(tell, web, answer):
    from email.utils import formatdate

    web.answers = [
        answer(status=429, headers={"Retry-After": formatdate(time.time() + 2, usegmt=True)})
    ]
    assert send(tell, one(web))["status"] == "sent"
    assert web.requests[1]["at"] - web.requests[0]["at"] < 3.6


def test_429_that_asks_for_too_long_is_left_to_the_next_run(tell, web, answer):
    web.answers = [answer(status=429, headers={"Retry-After": "600"})]
    start = time.monotonic()
    found = send(tell, one(web, retries=5))
    assert time.monotonic() - start < 2
    assert found["status"] == "queued"
    assert "600 s" in found["detail"]
    assert len(web.requests) == 1


def test_500_is_tried_again_with_growing_pauses_and_then_kept(tell, web, answer):
    web.answers = [answer(status=500)] * 3
    found = send(tell, one(web, retries=2))
    assert found["status"] == "queued"
    assert "HTTP 500" in found["detail"]
    first, second, third = (request["at"] for request in web.requests)
    assert 0.45 < second - first < 1.2
    assert 0.95 < third - second < 2.2


def test_500_then_200(tell, web, answer):
    web.answers = [answer(status=502)]
    assert send(tell, one(web))["status"] == "sent"
    assert len(web.requests) == 2


def test_silence(tell, web, answer):
    web.answers = [answer(hang=3)]
    start = time.monotonic()
    found = send(tell, one(web, timeout=0.5, retries=0))
    assert time.monotonic() - start < 2
    assert (found["status"], found["detail"]) == ("queued", "no answer in time")


def test_a_reset_connection_is_tried_again(tell, web, answer):
    web.answers = [answer(reset=True)]
    assert send(tell, one(web))["status"] == "sent"
    web.answers = [answer(reset=True)]
    assert tell(message="other", webhooks=one(web, retries=0)).channels[0]["status"] == "queued"


def test_nobody_listening(tell):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    found = send(tell, [{"url": f"http://127.0.0.1:{port}/{TOKEN}", "retries": 0}])
    assert (found["status"], found["detail"]) == ("queued", "no connection: Connection refused")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_another_host_is_not_followed(tell, web, web2, answer, status):
    web.answers = [answer(status=status, headers={"Location": web2.url(f"/stolen/{TOKEN}")})]
    found = send(tell, one(web))
    assert found["status"] == "failed"
    assert f"HTTP {status}" in found["detail"]
    assert "redirect" in found["detail"]
    assert not web2.requests
    assert len(web.requests) == 1


def test_a_redirect_on_the_same_host_that_keeps_the_method_is_followed(tell, web, answer):
    web.answers = [answer(status=308, headers={"Location": "/moved"})]
    assert send(tell, one(web))["status"] == "sent"
    assert web.requests[1]["path"] == "/moved"
    assert web.requests[1]["json"] == web.requests[0]["json"]


def test_a_redirect_loop_ends(tell, web, answer):
    web.answers = [answer(status=307, headers={"Location": "/again"})] * 20
    assert send(tell, one(web))["status"] == "failed"
    assert len(web.requests) <= 5


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 413])
def test_a_refusal_is_for_good(tell, web, answer, status):
    web.answers = [answer(status=status, body='{"message": "bad event"}')]
    found = send(tell, one(web, retries=3))
    assert found["status"] == "failed"
    assert "bad event" in found["detail"]
    assert len(web.requests) == 1


@pytest.mark.parametrize(
    "echo", [TOKEN, TOKEN[3:13], f"/hooks/{TOKEN}", "h3aderSecret", "aDerU3Iz"]
)
def test_an_answer_that_echoes_a_secret_is_not_repeated(tell, web, answer, echo):
    web.answers = [answer(status=400, body=f"unknown token {echo}")]
    result = tell(
        message="x",
        webhooks=one(web, headers={"Authorization": "Bearer h3aderSecret", "X-Two": "aDerU3Iz"}),
    )
    assert echo not in json.dumps(result.to_dict())
    assert result.channels[0]["detail"] == "HTTP 400 Bad Request"


def test_an_answer_with_a_link_is_shown(tell, web, answer):
    web.answers = [
        answer(status=400, body="bad event, see https://docs.example/events and http://127.0.0.1/")
    ]
    assert send(tell, one(web))["detail"].endswith(
        "see https://docs.example/events and http://127.0.0.1/"
    )


def test_tls_is_verified(tell, secure_web, authority):
    refused = send(tell, one(secure_web, retries=0))
    assert refused["status"] == "failed"
    assert "certificate is not trusted" in refused["detail"]
    assert not secure_web.requests
    trusted = send(tell, one(secure_web, ca_file=authority.ca_file))
    assert trusted["status"] == "sent"
    assert trusted["target"] == "https://127.0.0.1"


def test_a_certificate_for_another_name_is_refused(tell, authority):
    import ssl

    import trustme

    from .conftest import WebServer

    other = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    other.issue_cert("elsewhere.example").configure_cert(context)
    server = WebServer(context)
    try:
        with other.cert_pem.tempfile() as path:
            assert (
                "certificate is not trusted"
                in send(tell, one(server, ca_file=path, retries=0))["detail"]
            )
    finally:
        server.close()


def test_user_and_password_in_the_url_become_a_header(tell, web):
    url = web.url("/x").replace("http://", "http://bob:pa%40ss-w0rd@")
    result = tell(message="x", webhooks=[{"url": url, "payload": "plain"}])
    assert web.requests[0]["headers"]["Authorization"] == "Basic Ym9iOnBhQHNzLXcwcmQ="
    assert result.channels[0]["target"] == "http://127.0.0.1"
    assert "bob" not in json.dumps(result.to_dict())


def test_secrets_from_file_and_environment(tell, web, world, tmp_path):
    path = tmp_path / "url"
    path.write_text(web.url(f"/{TOKEN}") + "\n")
    path.chmod(0o644)
    refused = send(tell, [{"url_file": str(path)}])
    assert refused["status"] == "failed"
    assert "chmod 0600" in refused["detail"]
    path.chmod(0o600)
    assert send(tell, [{"url_file": str(path)}])["status"] == "sent"
    world.environ = {"HOOK": web.url("/from-env")}
    assert tell(message="y", webhooks=[{"url_env": "HOOK"}]).channels[0]["status"] == "sent"
    assert (
        "is not set" in tell(message="z", webhooks=[{"url_env": "MISSING"}]).channels[0]["detail"]
    )
    assert [request["path"] for request in web.requests] == [f"/{TOKEN}", "/from-env"]


def test_an_unusable_url_from_a_file_is_reported_without_it(tell, tmp_path):
    path = tmp_path / "url"
    path.write_text(f"ftp://host/{TOKEN}")
    path.chmod(0o600)
    assert "must begin with https://" in send(tell, [{"url_file": str(path)}])["detail"]


def test_base_addresses_get_the_path_of_their_service(tell, web):
    for payload, more in (
        ("pagerduty", {"routing_key": "R" * 32}),
        ("opsgenie", {"api_key": "K" * 32}),
        ("alertmanager", {}),
    ):
        tell(message=f"to {payload}", webhooks=[{"url": web.url("/"), "payload": payload, **more}])
    assert [request["path"] for request in web.requests] == [
        "/v2/enqueue",
        "/v2/alerts",
        "/api/v2/alerts",
    ]
    assert web.requests[1]["headers"]["Authorization"] == "GenieKey " + "K" * 32


def test_everything_after_a_dead_server_is_kept_without_waiting_for_each(
    tell, web, answer, document, make_check
):
    web.answers = [answer(hang=2)]
    start = time.monotonic()
    verdict = document(*[make_check("unit", "critical", subject=f"u{n}") for n in range(5)])
    found = tell(
        document=verdict, webhooks=one(web, payload="slack", timeout=0.5, retries=0)
    ).channels[0]
    assert time.monotonic() - start < 1.8
    assert found["status"] == "queued"
    assert found["events"] == 5
    assert len(web.requests) == 1


@pytest.mark.parametrize("status", [408, 425])
def test_what_may_pass_is_tried_again(tell, web, answer, status):
    web.answers = [answer(status=status)]
    assert send(tell, one(web))["status"] == "sent"


@pytest.mark.parametrize(
    "asked", ["\xb2", "-1", "soon", "9" * 400, "Wed, 99 Oct 99999 07:28:00 GMT"]
)
def test_a_nonsensical_wait_is_no_reason_to_give_up(tell, web, answer, asked):
    web.answers = [answer(status=429, headers={"Retry-After": asked})] * 2
    assert send(tell, one(web, retries=1))["status"] == "queued"


@pytest.mark.parametrize(
    ("payload", "said", "status"),
    [
        ("slack", "ok", "sent"),
        ("slack", "invalid_payload", "failed"),
        ("slack", '{"success": true}', "sent"),
        ("slack", '{"success": false, "error": "no room"}', "failed"),
        ("teams", "1", "sent"),
        ("teams", "", "sent"),
        (
            "teams",
            (
                "Webhook message delivery failed with error: Microsoft Teams endpoint returned HTTP"
                " error 429 with ContextId x"
            ),
            "queued",
        ),
        (
            "teams",
            (
                "Webhook message delivery failed with error: Microsoft Teams endpoint returned HTTP"
                " error 400 with ContextId x"
            ),
            "failed",
        ),
        ("template", '{"ok": false, "error": "invalid_auth"}', "failed"),
        ("template", "message_accepted", "sent"),
        ("plain", "invalid_payload", "sent"),
    ],
)
def test_a_refusal_in_words_is_no_delivery(tell, web, answer, payload, said, status):
    web.answers = [answer(body=said)]
    more = {"template": {"text": "$title"}} if payload == "template" else {}
    found = send(tell, one(web, payload=payload, retries=0, **more))
    assert found["status"] == status
    assert status == "sent" or "HTTP 200, but not taken: " in found["detail"]


def test_a_refusal_in_words_shows_no_secret(tell, web, answer):
    web.answers = [answer(body=json.dumps({"ok": False, "error": f"token {TOKEN} is wrong"}))]
    assert send(tell, one(web, payload="slack"))["detail"] == "HTTP 200, but not taken"


class Drip:
    """Answers with C(head) and then a byte now and then, for ever."""

    def __init__(self, head):
        self.head = head
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            connection, dummy = self.socket.accept()
            threading.Thread(target=self.talk, args=(connection,), daemon=True).start()

    def talk(self, connection):
        try:
            connection.recv(65536)
            connection.sendall(self.head)
            while True:
                connection.sendall(b"x")
                time.sleep(0.2)
        except OSError:
            pass

    def url(self, path="/"):
        return f"http://127.0.0.1:{self.port}{path}"


@pytest.mark.parametrize(("status", "expected"), [(b"200 OK", "sent"), (b"400 Bad", "failed")])
def test_an_endless_answer_is_not_read_to_its_end(tell, status, expected):
    start = time.monotonic()
    found = send(tell, one(Drip(b"HTTP/1.1 " + status + b"\r\n\r\n"), payload="slack"))
    assert time.monotonic() - start < 8
    assert found["status"] == expected


def test_headers_that_never_end_are_given_up_in_time(tell, monkeypatch):
    from ansible_collections.mlops.fleet.plugins.module_utils._core.alert import channel

    monkeypatch.setattr(channel, "BUDGET", 1.0)
    start = time.monotonic()
    found = send(tell, one(Drip(b"HTTP/1.1 200 OK\r\nX: "), retries=0))
    assert time.monotonic() - start < 8
    assert (found["status"], found["detail"]) == ("queued", "no complete answer in time")


def test_a_message_the_server_never_takes_holds_up_no_other(
    tell, web, answer, document, make_check
):
    web.answers = [answer(status=500)]
    verdict = document(*[make_check("unit", "critical", subject=f"u{n}") for n in range(4)])
    found = tell(document=verdict, webhooks=one(web, payload="slack", retries=0)).channels[0]
    assert (found["status"], found["detail"]) == (
        "queued",
        "1 queued, 3 sent; HTTP 500 Internal Server Error",
    )


@pytest.mark.parametrize(
    "location",
    ["http://[bad", "//elsewhere.example/x", "file:///etc/passwd", "http://127.0.0.1:99999/"],
)
@pytest.mark.parametrize("status", [302, 307])
def test_a_redirect_to_no_address_is_a_refusal(tell, web, answer, location, status):
    web.answers = [answer(status=status, headers={"Location": location})]
    found = send(tell, one(web))
    assert found["status"] == "failed"
    assert "the address redirects" in found["detail"]


def test_letters_beyond_ascii_in_an_address(tell, web):
    assert (
        send(tell, [{"url": web.url(f"/hööks/{TOKEN}?täg=ü%20"), "payload": "plain"}])["status"]
        == "sent"
    )
    assert web.requests[0]["path"] == f"/h%C3%B6%C3%B6ks/{TOKEN}?t%C3%A4g=%C3%BC%20"
    found = tell(message="x", webhooks=[{"url": f"http://no..host/{TOKEN}"}]).channels[0]
    assert (found["status"], found["target"]) == ("failed", "http://no..host")


def test_a_literal_address_is_shown_as_one(tell):
    assert (
        tell(dry=True, message="x", webhooks=[{"url": f"http://[::1]:9/{TOKEN}"}]).channels[0][
            "target"
        ]
        == "http://[::1]"
    )


def test_a_proxy_that_refuses_is_named(tell, web, monkeypatch):
    monkeypatch.setenv("https_proxy", web.url().replace("://", f"://bob:{TOKEN}@"))
    monkeypatch.setenv("no_proxy", "")
    found = send(tell, [{"url": f"https://service.example/{TOKEN}", "retries": 0}])
    assert (found["status"], found["detail"]) == (
        "queued",
        "the proxy (https_proxy) refused the connection: HTTP 501",
    )


@pytest.mark.parametrize(
    ("no_proxy", "direct"),
    [("", False), ("10.0.0.0/8,example.com", False), ("10.0.0.0/8, 127.0.0.0/8", True)],
)
def test_a_network_in_no_proxy_is_reached_without_the_proxy(
    tell, web, web2, monkeypatch, no_proxy, direct
):
    for name in ("NO_PROXY", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", web2.url())
    monkeypatch.setenv("no_proxy", no_proxy)
    assert send(tell, one(web))["status"] == "sent"
    assert (len(web.requests), len(web2.requests)) == ((1, 0) if direct else (0, 1))


@pytest.mark.parametrize("payload", ["plain", "alertmanager"])
def test_a_list_that_a_server_calls_too_large_is_sent_in_parts(
    tell, web, document, make_check, payload
):
    web.largest = 20_000
    checks = [make_check("unit", "critical", "x" * 900, f"u{n}") for n in range(40)]
    result = tell(document=document(*checks), webhooks=[{"url": web.url(), "payload": payload}])
    assert result.channels[0]["status"] == "sent"
    taken = [body for body, status in zip(web.bodies, web.statuses) if status == 200]
    alerts = [alert for body in taken for alert in (body["alerts"] if payload == "plain" else body)]
    assert sorted(alert["labels"]["subject"] for alert in alerts) == sorted(
        check["subject"] for check in checks
    )


def test_hundreds_of_events_reach_a_server_that_takes_half_a_megabyte(
    tell, web, document, make_check
):
    web.largest = 512 * 1024
    checks = [make_check("unit", "critical", "x" * 990, f"u{n}") for n in range(300)]
    result = tell(document=document(*checks), webhooks=[{"url": web.url(), "payload": "plain"}])
    assert result.channels[0]["status"] == "sent"
    assert set(web.statuses) == {200}
    assert sum(len(body["alerts"]) for body in web.bodies) == 300


def test_a_single_event_that_is_too_large_is_reported(tell, web, document, make_check):
    web.largest = 2_000
    checks = [make_check("unit", "critical", "x" * (990 if n == 1 else 9), f"u{n}") for n in (1, 2)]
    warned = tell(document=document(*checks), webhooks=[{"url": web.url(), "payload": "plain"}])
    assert warned.channels[0]["status"] == "sent"
    assert "too large for the server: HTTP 413" in warned.channels[0]["detail"]
