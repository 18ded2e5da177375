# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every payload as it arrives at a real server, against the service's published form (limits and
required fields from its documentation).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import urllib.request

import pytest

from .conftest import free_port

_TEXT = {"type": "string", "minLength": 1}
_MRKDWN = {
    "type": "object",
    "required": ["type", "text"],
    "additionalProperties": False,
    "properties": {"type": {"const": "mrkdwn"}, "text": _TEXT},
}
_STRINGS = {"type": "object", "additionalProperties": {"type": "string", "minLength": 1}}
_TIME = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)$"}


def _object(required, **properties):
    return {
        "type": "object",
        "required": required,
        "additionalProperties": False,
        "properties": properties,
    }


#: docs.slack.dev, "Sending messages using incoming webhooks", "Block Kit" reference: header,
#: section, context.
SLACK = _object(
    ["text", "blocks"],
    text={**_TEXT, "maxLength": 40000},
    blocks={
        "type": "array",
        "maxItems": 50,
        "items": {
            "oneOf": [
                _object(["type", "text"], type={"const": "header"}, text=_object(
                    ["type", "text"], type={"const": "plain_text"}, text={**_TEXT, "maxLength": 150}, emoji={"type": "boolean"})),
                _object(["type", "text"], type={"const": "section"}, text={"allOf": [_MRKDWN, {"properties": {"text": {"maxLength": 3000}}}]}),
                _object(["type", "fields"], type={"const": "section"}, fields={
                    "type": "array", "minItems": 1, "maxItems": 10, "items": {"allOf": [_MRKDWN, {"properties": {"text": {"maxLength": 2000}}}]}}),
                _object(["type", "elements"], type={"const": "context"}, elements={"type": "array", "minItems": 1, "maxItems": 10, "items": _MRKDWN}),
            ]
        },
    },
)  # fmt: skip
#: developers.mattermost.com, "Incoming webhooks" and "Message attachments"; a post holds 16383
#: characters.
MATTERMOST = _object(
    ["attachments"],
    username=_TEXT,
    text=_TEXT,
    attachments={
        "type": "array",
        "minItems": 1,
        "items": _object(
            ["fallback"],
            fallback=_TEXT,
            color={"type": "string", "pattern": "^#[0-9a-f]{6}$"},
            title=_TEXT,
            text={**_TEXT, "maxLength": 16383},
            fields={
                "type": "array",
                "items": _object(
                    ["title", "value", "short"], title=_TEXT, value=_TEXT, short={"type": "boolean"}
                ),
            },
        ),
    },
)
#: learn.microsoft.com, "Create incoming webhooks with Workflows"; adaptivecards.io schema 1.4:
#: AdaptiveCard, TextBlock, FactSet.
_BLOCK = _object(
    ["type", "text"],
    type={"const": "TextBlock"},
    text=_TEXT,
    weight={"enum": ["Default", "Lighter", "Bolder"]},
    size={"enum": ["Default", "Small", "Medium", "Large", "ExtraLarge"]},
    color={"enum": ["Default", "Dark", "Light", "Accent", "Good", "Warning", "Attention"]},
    wrap={"type": "boolean"},
)
_FACTS = _object(
    ["type", "facts"],
    type={"const": "FactSet"},
    facts={
        "type": "array",
        "minItems": 1,
        "items": _object(["title", "value"], title=_TEXT, value=_TEXT),
    },
)
TEAMS = _object(
    ["type", "attachments"],
    type={"const": "message"},
    attachments={
        "type": "array",
        "minItems": 1,
        "maxItems": 1,
        "items": _object(
            ["contentType", "content"],
            contentType={"const": "application/vnd.microsoft.card.adaptive"},
            contentUrl={"type": "null"},
            content={
                "type": "object",
                "required": ["type", "version", "body"],
                "properties": {
                    "type": {"const": "AdaptiveCard"},
                    "version": {"enum": ["1.0", "1.1", "1.2", "1.3", "1.4", "1.5"]},
                    "body": {"type": "array", "minItems": 1, "items": {"oneOf": [_BLOCK, _FACTS]}},
                },
            },
        ),
    },
)
#: developer.pagerduty.com, "Send an alert event" (Events API v2).
PAGERDUTY = {
    "oneOf": [
        _object(
            ["routing_key", "event_action", "dedup_key", "payload"],
            routing_key={"type": "string", "minLength": 32, "maxLength": 32},
            event_action={"const": "trigger"},
            dedup_key={**_TEXT, "maxLength": 255},
            client=_TEXT,
            payload=_object(
                ["summary", "source", "severity"],
                summary={**_TEXT, "maxLength": 1024},
                source=_TEXT,
                severity={"enum": ["critical", "error", "warning", "info"]},
                timestamp=_TIME,
                component=_TEXT,
                group=_TEXT,
                **{"class": _TEXT},
                custom_details={"type": "object"},
            ),
        ),
        _object(
            ["routing_key", "event_action", "dedup_key"],
            routing_key={"type": "string", "minLength": 32, "maxLength": 32},
            event_action={"enum": ["acknowledge", "resolve"]},
            dedup_key={**_TEXT, "maxLength": 255},
        ),
    ]
}
#: docs.opsgenie.com, "Alert API": Create Alert, Close Alert.
OPSGENIE = _object(
    ["message"],
    message={**_TEXT, "maxLength": 130},
    alias={**_TEXT, "maxLength": 512},
    description={"type": "string", "maxLength": 15000},
    tags={"type": "array", "maxItems": 20, "items": {**_TEXT, "maxLength": 50}},
    details=_STRINGS,
    entity={"type": "string", "maxLength": 512},
    source={"type": "string", "maxLength": 100},
    priority={"enum": ["P1", "P2", "P3", "P4", "P5"]},
)
OPSGENIE_CLOSE = _object(
    [],
    user={"type": "string", "maxLength": 100},
    source={"type": "string", "maxLength": 100},
    note={"type": "string", "maxLength": 25000},
)
_LABELS = {
    "type": "object",
    "required": ["alertname"],
    "propertyNames": {"pattern": "^[a-zA-Z_][a-zA-Z0-9_]*$"},
    "additionalProperties": _TEXT,
}
#: prometheus/alertmanager api/v2/openapi.yaml: postableAlerts.
ALERTMANAGER = {
    "type": "array",
    "items": _object(
        ["labels"],
        labels=_LABELS,
        annotations=_STRINGS,
        startsAt=_TIME,
        endsAt=_TIME,
        generatorURL={"type": "string", "format": "uri"},
    ),
}
#: prometheus.io, Alertmanager configuration, webhook_config (version 4); ours has three keys more.
PLAIN = _object(
    [
        "version",
        "groupKey",
        "truncatedAlerts",
        "status",
        "receiver",
        "groupLabels",
        "commonLabels",
        "commonAnnotations",
        "externalURL",
        "alerts",
    ],
    version={"const": "4"},
    groupKey=_TEXT,
    truncatedAlerts={"type": "integer"},
    status={"enum": ["firing", "resolved"]},
    receiver=_TEXT,
    groupLabels=_STRINGS,
    commonLabels=_STRINGS,
    commonAnnotations=_STRINGS,
    externalURL={"type": "string"},
    hostname=_TEXT,
    severity={"enum": ["critical", "warning", "info", "pass"]},
    message=_TEXT,
    alerts={
        "type": "array",
        "minItems": 1,
        "items": _object(
            [
                "status",
                "labels",
                "annotations",
                "startsAt",
                "endsAt",
                "generatorURL",
                "fingerprint",
            ],
            status={"enum": ["firing", "resolved"]},
            labels=_LABELS,
            annotations=_STRINGS,
            startsAt=_TIME,
            endsAt=_TIME,
            generatorURL={"type": "string"},
            fingerprint={"type": "string", "pattern": "^[0-9a-f]{16}$"},
        ),
    },
)
SCHEMAS = {
    "slack": SLACK,
    "mattermost": MATTERMOST,
    "teams": TEAMS,
    "pagerduty": PAGERDUTY,
    "alertmanager": ALERTMANAGER,
    "plain": PLAIN,
}
SECRETS = {"pagerduty": {"routing_key": "R" * 32}, "opsgenie": {"api_key": "K" * 36}}


def valid(body, schema):
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(body, schema, cls=jsonschema.Draft202012Validator)


def hooks(web, payload, **more):
    return [{"url": web.url("/"), "payload": payload, **SECRETS.get(payload, {}), **more}]


HARD = '"quotes" \\ <!channel> @all & <b>*bold*</b> $HOME {{x}} ünïcode 温度 ' + "long " * 400


def life(document, make_check):
    """Documents of a whole story: one problem, worse, very many, all well again.

    Texts are as unkind as they get.
    """
    one = make_check(
        "disk_space",
        "warning",
        HARD,
        "/data/ä b",
        value=91.5,
        unit="%",
        action="free_space",
        since="2026-12-01T00:00:00Z",
    )
    many = [
        make_check("unit", ("critical", "warning", "unknown")[n % 3], HARD, f"u{n}")
        for n in range(60)
    ]
    yield document(one)
    yield document({**one, "status": "critical", "message": ""})
    yield document(make_check("disk_space", "pass", "fine", "/data/ä b"))
    yield document(*many)
    yield document(*[{**check, "status": "pass"} for check in many])


@pytest.mark.parametrize("payload", sorted(SCHEMAS))
def test_payloads_are_what_the_service_publishes(tell, web, document, make_check, clock, payload):
    for verdict in life(document, make_check):
        tell(document=verdict, webhooks=hooks(web, payload))
        clock.time += 60
    assert len(web.bodies) == 5
    for body in web.bodies:
        valid(body, SCHEMAS[payload])
        assert len(json.dumps(body, ensure_ascii=False).encode()) < (
            28000 if payload != "plain" and payload != "alertmanager" else 1_000_000
        )
    tell(test=True, webhooks=hooks(web, payload))
    valid(web.bodies[-1], SCHEMAS[payload])


def test_opsgenie_creates_and_closes_by_alias(tell, web, document, make_check, clock):
    for verdict in life(document, make_check):
        tell(document=verdict, webhooks=hooks(web, "opsgenie"))
        clock.time += 60
    create, worse, close, flood, over = web.requests
    for request in (create, worse, flood):
        assert request["path"] == "/v2/alerts"
        valid(request["json"], OPSGENIE)
    assert [create["json"]["priority"], worse["json"]["priority"]] == ["P3", "P1"]
    assert create["json"]["alias"] == worse["json"]["alias"]
    for opened, closed in ((create, close), (flood, over)):
        assert closed["path"] == f"/v2/alerts/{opened['json']['alias']}/close?identifierType=alias"
        valid(closed["json"], OPSGENIE_CLOSE)


def test_nobody_is_paged_by_a_message(tell, web):
    text = "<!channel> <@U1> @channel @here [x](http://evil)"
    for payload in ("slack", "mattermost", "teams"):
        tell(message=text, check=payload, webhooks=hooks(web, payload))
    slack, mattermost, teams = (json.dumps(body, ensure_ascii=False) for body in web.bodies)
    assert "&lt;!channel&gt;" in slack
    header = web.bodies[0]["blocks"][0]["text"]
    assert header["type"] == "plain_text"
    assert "<!channel>" not in web.bodies[0]["text"]
    assert "@channel" not in web.bodies[1]["attachments"][0]["title"]
    assert "@here" not in json.dumps(web.bodies[1]["attachments"][0]["fields"])
    assert "[x](" not in mattermost.replace(
        web.bodies[1]["attachments"][0]["fallback"], ""
    ).replace(web.bodies[1]["attachments"][0]["title"], "")
    assert "[x](" not in teams


def test_alertmanager_ends_the_former_severity(tell, web, document, make_check, clock):
    for status in ("warning", "critical", "pass"):
        tell(
            document=document(make_check("disk_space", status, subject="/data")),
            webhooks=hooks(web, "alertmanager"),
        )
        clock.time += 60
    first, second, third = web.bodies
    assert [alert["labels"]["severity"] for alert in second] == ["warning", "critical"]
    assert second[0]["labels"] == first[0]["labels"]
    assert second[0]["endsAt"] < second[1]["endsAt"]
    assert [alert["labels"] for alert in third] == [second[1]["labels"]]
    assert third[0]["endsAt"] < first[0]["endsAt"]


@pytest.fixture
def alertmanager(tmp_path):
    """A real Alertmanager whose receiver is nobody; yields its address."""
    program = (
        os.environ.get("MLOPS_ALERTMANAGER")
        or shutil.which("prometheus-alertmanager")
        or shutil.which("alertmanager")
    )
    if not program:
        pytest.skip("no Alertmanager here (apt-get install prometheus-alertmanager)")
    (tmp_path / "am.yml").write_text("route: {receiver: none}\nreceivers: [{name: none}]\n")
    port = free_port()
    arguments = [
        f"--config.file={tmp_path}/am.yml",
        f"--storage.path={tmp_path}/data",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    ]
    share = os.path.join(os.path.dirname(os.path.dirname(program)), "share")
    inside = []
    if (
        os.geteuid() == 0
        and os.path.isdir(f"{share}/prometheus")
        and not os.path.exists("/usr/share/prometheus")
    ):
        # Unpacked, not installed: Debian's looks for its template under /usr/share only, so it gets
        # a view of its own.
        mount = f"mount -t overlay overlay -o ro,lowerdir={share}:/usr/share /usr/share"
        inside = ["unshare", "--mount", "sh", "-c", f'{mount}; exec "$@"', "sh"]
    with (
        open(tmp_path / "log", "w") as log,
        subprocess.Popen([*inside, program, *arguments], stdout=log, stderr=log) as process,
    ):
        address = f"http://127.0.0.1:{port}"
        for dummy in range(100):
            try:
                urllib.request.urlopen(f"{address}/-/ready", timeout=1).close()
                break
            except OSError:
                if process.poll() is not None:
                    said = (tmp_path / "log").read_text()[-500:]
                    if "default.tmpl: no such file" in said:
                        pytest.skip(
                            "this Alertmanager was unpacked without being installed:"
                            " /usr/share/prometheus is missing"
                        )
                    pytest.fail(said)
                time.sleep(0.05)
        yield address
        process.kill()


def test_a_real_alertmanager_opens_one_alert_and_closes_it(
    tell, alertmanager, document, make_check, clock
):
    def active():
        with urllib.request.urlopen(
            f"{alertmanager}/api/v2/alerts?active=true", timeout=5
        ) as answer:
            return sorted(
                (alert["labels"]["check"], alert["labels"]["severity"])
                for alert in json.load(answer)
            )

    clock.time = time.time() - 200
    expected = {
        "warning": [("disk_space", "warning")],
        "critical": [("disk_space", "critical")],
        "pass": [],
    }
    for status, alerts in expected.items():
        result = tell(
            document=document(make_check("disk_space", status, HARD, "/data")),
            webhooks=[{"url": alertmanager, "payload": "alertmanager"}],
        )
        assert result.channels[0]["status"] == "sent", result.channels
        assert active() == alerts
        clock.time += 60


TEXT = (
    '{"who": "$hostname", "what": "$message", "level": "$severity", "price": "$$5", "other":'
    ' "$nothing"}'
)


@pytest.mark.parametrize(
    "template",
    [
        TEXT,
        json.loads(TEXT),
        {"nested": [{"deep": "${check}/${subject}"}, 5, None, True], "text": "$message"},
    ],
)
def test_templates(tell, web, document, make_check, template):
    message = 'a "quote", a back\\slash, a $dollar and ü'
    tell(
        document=document(make_check("disk_space", "critical", message, "/data")),
        webhooks=hooks(web, "template", template=template),
    )
    (body,) = web.bodies
    if "who" in body:
        assert body == {
            "who": "node1",
            "what": message,
            "level": "critical",
            "price": "$5",
            "other": "$nothing",
        }
    else:
        assert body == {"nested": [{"deep": "disk_space//data"}, 5, None, True], "text": message}


@pytest.mark.parametrize(
    ("begin", "seconds"),
    [(-270, 300), (0, 0), (20, -10)],
    ids=["30 s ahead", "at once", "set back"],
)
def test_a_real_alertmanager_closes_it_whatever_the_clocks_say(
    tell, alertmanager, document, make_check, clock, begin, seconds
):
    clock.time = time.time() + begin
    for status in ("critical", "pass"):
        result = tell(
            document=document(make_check("disk_space", status)),
            webhooks=[{"url": alertmanager, "payload": "alertmanager"}],
        )
        assert result.channels[0]["status"] == "sent"
        clock.time += seconds
    with urllib.request.urlopen(f"{alertmanager}/api/v2/alerts?active=true", timeout=5) as answer:
        assert json.load(answer) == []


@pytest.mark.parametrize("wrong", [1000.0, 4e9], ids=["1970", "2096"])
def test_a_real_alertmanager_takes_what_was_queued_with_a_wrong_clock(
    tell, alertmanager, clock, wrong, monkeypatch
):
    """It ignores an alert whose end is in the past."""
    monkeypatch.setattr(clock, "monotonic", lambda: 500.0, raising=False)
    dead = {"url": f"http://127.0.0.1:{free_port()}", "payload": "alertmanager", "name": "am"}
    clock.time = wrong
    assert tell(message="backup failed", webhooks=[dead]).channels[0]["status"] == "queued"
    clock.time = time.time()
    hook = {**dead, "url": alertmanager}
    assert tell(document={"checks": []}, webhooks=[hook]).channels[0]["status"] == "sent"
    with urllib.request.urlopen(f"{alertmanager}/api/v2/alerts?active=true", timeout=5) as answer:
        assert [alert["labels"]["check"] for alert in json.load(answer)] == ["message"]


def test_a_secret_in_a_template(tell, web, tmp_path):
    (tmp_path / "key").write_text("t0ken-In-The-Body\n")
    (tmp_path / "key").chmod(0o600)
    hook = {"url": web.url(), "payload": "template", "api_key_file": str(tmp_path / "key")}
    for template in (
        '{"token": "$api_key", "text": "$message"}',
        {"token": "${api_key}", "text": "$message"},
    ):
        result = tell(
            message=f"${{api_key}} and {type(template)}", webhooks=[{**hook, "template": template}]
        )
        assert web.bodies[-1]["token"] == "t0ken-In-The-Body"
        assert "t0ken" not in web.bodies[-1]["text"] + json.dumps(result.to_dict())
    assert len(web.requests) == 2
