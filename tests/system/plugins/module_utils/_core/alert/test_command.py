# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The user's own command: two arguments, no shell, a deadline, bounded output."""

from __future__ import annotations

import os
import time

import pytest


@pytest.fixture
def handler(tmp_path):
    def make(text):
        path = tmp_path / "custom alert.sh"
        path.write_text("#!/bin/sh\n" + text)
        path.chmod(0o755)
        return str(path)

    return make


def test_severity_and_message_are_the_two_arguments(tell, handler, tmp_path, document, make_check):
    path = handler(
        'printf "%s|" "$#" "$1" "$2" "$MLOPS_CHECK" "$MLOPS_SUBJECT" "$MLOPS_HOSTNAME"'
        f' "$MLOPS_EVENT" > {tmp_path}/out\n'
    )
    evil = "$(touch /tmp/x) `id` \"; rm -rf /; 'q'"
    result = tell(
        document=document(make_check("disk_space", "critical", evil, "/data")), command=[path]
    )
    assert result.channels[0]["status"] == "sent"
    assert (tmp_path / "out").read_text() == f"2|critical|{evil}|disk_space|/data|node1|alert|"


def test_own_arguments_come_first(tell, handler, tmp_path):
    path = handler(f'echo "$@" > {tmp_path}/out\n')
    tell(message="hello", severity="warning", command=[path, "--team", "ml"])
    assert (tmp_path / "out").read_text() == "--team ml warning hello\n"


def test_a_recovery_is_told_as_pass(tell, handler, tmp_path, document, make_check):
    path = handler(f'echo "$1 $MLOPS_EVENT" >> {tmp_path}/out\n')
    for status in ("warning", "pass"):
        tell(document=document(make_check("disk_space", status)), command=[path])
    assert (tmp_path / "out").read_text() == "warning alert\npass recovery\n"


def test_a_digest_is_one_call(tell, handler, tmp_path, document, make_check):
    path = handler(f'echo "$1 $2" >> {tmp_path}/out; echo end >> {tmp_path}/out\n')
    tell(
        document=document(*[make_check("unit", "warning", subject=f"u{n}") for n in range(8)]),
        command=[path],
    )
    text = (tmp_path / "out").read_text()
    assert text.count("end") == 1
    assert all(f"u{n}" in text for n in range(8))


def test_it_is_stopped_at_its_deadline(tell, handler):
    path = handler("exec sleep 20\n")
    start = time.monotonic()
    result = tell(message="x", command=[path], command_timeout=0.5)
    assert time.monotonic() - start < 3
    assert result.channels[0]["status"] == "queued"


def test_its_failure_is_told_with_bounded_output_and_tried_again(tell, handler, tmp_path):
    path = handler(f"[ -e {tmp_path}/ok ] && exit 0; yes complaint | head -c 100000 >&2; exit 3\n")
    first = tell(message="x", command=[path])
    assert first.channels[0]["status"] == "queued"
    assert first.channels[0]["detail"].startswith("ended with 3: complaint")
    assert len(first.channels[0]["detail"]) < 400
    (tmp_path / "ok").touch()
    assert tell(message="x", command=[path]).channels[0]["status"] == "sent"


def test_a_missing_program_stops_nobody_else(tell, web):
    result = tell(message="x", command=["/no/such/program"], webhooks=[{"url": web.url()}])
    assert result.channels[0]["status"] == "sent"
    assert result.channels[1]["status"] in ("failed", "queued")


def test_secrets_of_other_channels_do_not_reach_it(tell, handler, tmp_path, web):
    path = handler(f'env > {tmp_path}/out; echo "$@" >> {tmp_path}/out\n')
    tell(message="x", command=[path], webhooks=[{"url": web.url("/s3cr3tT0ken99")}])
    assert "s3cr3tT0ken99" not in (tmp_path / "out").read_text()


def test_variables_that_hold_secrets_of_other_channels_are_empty_for_it(
    tell, handler, tmp_path, web, world, monkeypatch
):
    for name, value in {
        "HOOK": web.url("/s3cr3tT0ken99"),
        "ALERT_WEBHOOK": "https://host/s3cr3tT0ken99",
        "PAGERDUTY_KEY": "the handler's own",
    }.items():
        monkeypatch.setenv(name, value)
    world.environ = dict(os.environ)
    tell(message="x", command=[handler(f"env > {tmp_path}/out\n")], webhooks=[{"url_env": "HOOK"}])
    assert web.requests[0]["path"] == "/s3cr3tT0ken99"
    assert "s3cr3tT0ken99" not in (tmp_path / "out").read_text()
    assert "PAGERDUTY_KEY=the handler's own" in (tmp_path / "out").read_text()


def test_one_message_it_refuses_holds_up_no_other(tell, handler, tmp_path, document, make_check):
    path = handler(
        f'[ "$MLOPS_SUBJECT" = u0 ] && exit 1; echo "$MLOPS_SUBJECT" >> {tmp_path}/out\n'
    )
    found = tell(
        document=document(*[make_check("unit", "critical", subject=f"u{n}") for n in range(3)]),
        command=[path],
    ).channels[0]
    assert (found["status"], (tmp_path / "out").read_text().split()) == ("queued", ["u1", "u2"])
