# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From documents to events: keys, what unknown counts as, duplicates, odd input; and the hiding of
secrets.
"""

from __future__ import annotations

import re

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.alert import secret
from ansible_collections.mlops.fleet.plugins.module_utils._core.alert.events import (
    Event,
    from_document,
    from_message,
    key_of,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import OptionError
from ansible_collections.mlops.fleet.plugins.module_utils._core.verdict import (
    CRITICAL,
    UNKNOWN,
    Check,
    Document,
)


def judged(*checks, **more):
    return from_document({"hostname": "n", "checks": list(checks), **more}, "other", 1000.0)


def test_a_core_document_goes_straight_in():
    document = Document(
        "2025-01-31T14:30:00+00:00",
        "n",
        (
            Check(
                "gpu", CRITICAL, "lost", subject="GPU 1", value=1, since="1970-01-01T00:05:00+00:00"
            ),
        ),
    )
    (event,), problems = from_document(document.to_dict(), "other", 1000.0)
    assert (event.host, event.check, event.subject, event.severity, event.value, event.since) == (
        "n",
        "gpu",
        "GPU 1",
        "critical",
        "1",
        300.0,
    )
    assert problems == []


@pytest.mark.parametrize(
    ("unknown_as", "severity"), [("critical", "critical"), ("warning", "warning")]
)
def test_unknown_counts_as_the_summary_counted_it(unknown_as, severity):
    checks = (
        Check("gpu", UNKNOWN, "no answer", unknown_as=unknown_as),
        Check("other", CRITICAL, "bad"),
    )
    events, dummy = from_document(Document("t", "n", checks).to_dict(), "n", 1000.0)
    assert events[0].severity == severity


def test_the_worst_of_equal_names_counts():
    events, dummy = judged(
        *[
            {"check": "disk", "status": status, "message": status}
            for status in ("pass", "critical", "warning")
        ]
    )
    assert [(event.severity, event.message) for event in events] == [("critical", "critical")]


def test_odd_checks_are_ignored_and_counted():
    odd = ({"status": "critical"}, "text", None, {"check": 5, "status": "pass"})
    events, problems = judged({"check": "a", "status": "critical"}, *odd)
    assert [event.check for event in events] == ["a"]
    assert problems == ["4 of 5 checks have no name and were ignored."]


@pytest.mark.parametrize("status", ["FAILED", None, ["critical"], 2])
def test_a_status_nobody_knows_is_no_reason_to_keep_quiet(status):
    events, problems = judged(
        {"check": "a", "status": status, "message": "odd"}, {"check": "b", "status": "pass"}
    )
    assert [(event.check, event.status, event.severity) for event in events] == [
        ("a", "unknown", "warning"),
        ("b", "pass", "pass"),
    ]
    assert problems == ["1 of 2 checks have no known status and count as unknown."]


@pytest.mark.parametrize("document", [{}, {"checks": None}, {"checks": "x"}, {"msg": "hello"}])
def test_no_verdict(document):
    with pytest.raises(OptionError):
        from_document(document, "n", 0.0)


@pytest.mark.parametrize(
    ("result", "why"),
    [
        (
            {"unreachable": True, "msg": "Failed to connect\nto host"},
            "failed: Failed to connect to host.",
        ),
        ({"failed": True, "msg": "no driver"}, "failed: no driver."),
        ({"results": [{"checks": []}], "changed": False}, "the result of a loop. Give one entry"),
    ],
)
def test_a_result_without_a_verdict_is_refused_with_what_to_do(result, why):
    with pytest.raises(OptionError) as caught:
        from_document(result, "n", 0.0)
    assert why in str(caught.value)


def test_keys_are_stable_safe_and_distinct():
    assert key_of("n1", "disk_space", "/data") == "n1.disk_space.e340f6cce10873a7"
    odd = [
        key_of(*names)
        for names in (
            ("a", "b", "c"),
            ("a", "bc", ""),
            ("ab", "c", ""),
            ("ä" * 400, "b/../%2F?", "x\ny"),
            ("", "", ""),
        )
    ]
    assert len(set(odd)) == len(odd)
    assert all(re.match(r"[A-Za-z0-9_.-]{1,140}\Z", key) for key in odd)


def test_texts_are_one_bounded_line():
    (event,), dummy = judged(
        {
            "check": "a",
            "status": "critical",
            "message": "one\r\ntwo\x00\x1b[31m \u202eevil " + "x" * 5000,
        }
    )
    assert event.message.startswith("one two [31m  evil x")
    assert len(event.message) <= 1000
    assert from_message("", None, None, None, "n", 0.0).message


def test_since_in_the_future_or_unreadable_is_now():
    for since in ("2099-01-01T00:00:00Z", "yesterday", 5, ""):
        (event,), dummy = judged({"check": "a", "status": "critical", "since": since})
        assert event.since == 1000.0


def test_events_survive_being_kept():
    event = from_message("hello", "critical", "c", "s", "n", 5.0)
    assert Event.from_dict(event.to_dict()) == event
    for broken in (
        {"key": 5},
        {"severity": "x"},
        {"time": "now"},
        {"previous": "x"},
        {"host": None},
    ):
        with pytest.raises(ValueError):
            Event.from_dict({**event.to_dict(), **broken})


def test_parts_of_an_url_that_give_access():
    words = secret.of_url(
        "https://us%40er:pass%20word@hooks.example.com/services/T024BE7LD/abcdefghijklmnopqrst?sig=a%2Bbcdefg&x=1#fragment"
    )
    for part in (
        "T024BE7LD",
        "abcdefghijklmnopqrst",
        "pass%20word",
        "pass word",
        "us%40er",
        "a%2Bbcdefg",
        "a+bcdefg",
        "fragment",
    ):
        assert part in words
    for part in ("services", "hooks.example.com", "1"):
        assert part not in words


def test_any_piece_of_a_secret_is_noticed():
    assert secret.touches("the token bcdefghi was wrong", {"abcdefghij"})
    assert not secret.touches("all is fine", {"abcdefghij"})
    assert secret.hide("key abcdefghij!", {"abcdefghij"}) == "key ********!"


def test_secret_files(world, tmp_path):
    from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import NotUsable

    path = tmp_path / "secret"
    path.write_text("s3cret\n")
    path.chmod(0o440)
    with pytest.raises(NotUsable, match="chmod 0600"):
        secret.read(secret.SecretSource("x", file=str(path)), world)
    world.environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}  # as systemd gives it
    assert secret.read(secret.SecretSource("x", file=str(path)), world) == "s3cret"
    path.chmod(0o444)
    for odd in (path, tmp_path, tmp_path / "missing"):
        with pytest.raises(NotUsable) as error:
            secret.read(secret.SecretSource("x", file=str(odd)), world)
        assert "s3cret" not in str(error.value)
    path.chmod(0o600)
    path.write_text("")
    with pytest.raises(NotUsable, match="empty"):
        secret.read(secret.SecretSource("x", file=str(path)), world)
