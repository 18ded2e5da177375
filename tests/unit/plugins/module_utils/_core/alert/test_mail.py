# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""E-mail against a real SMTP server with TLS and authentication, and through local commands."""

from __future__ import annotations

import email
import email.policy
import json
import socket
import stat

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import CommandFailed, OptionError

PASSWORD = "c0rrect-Horse"


def settings(server, authority, **more):
    return {
        "to": ["ops@example.com", "ml@example.com"],
        "from": "node@example.com",
        "host": "127.0.0.1",
        "port": server.port,
        "ca_file": authority.ca_file,
        **more,
    }


def parsed(mail):
    return email.message_from_bytes(mail["data"], policy=email.policy.default)


@pytest.mark.parametrize("mode", ["starttls", "tls"])
def test_tls_and_authentication(tell, smtp, authority, mode):
    server = smtp(mode, user="bob", password=PASSWORD)
    result = tell(message="GPU 3 is lost", severity="critical", email=settings(server, authority, security=mode, user="bob", password=PASSWORD))
    assert result.channels[0]["status"] == "sent", result.channels
    assert server.logins == ["bob"]
    (mail,) = server.mails
    assert mail["tls"] == (mode == "starttls")  # the server of the other mode speaks nothing but TLS
    assert mail["to"] == ["ops@example.com", "ml@example.com"]
    found = parsed(mail)
    assert found["From"] == "node@example.com"
    assert found["To"] == "ops@example.com, ml@example.com"
    assert found["Subject"].startswith("[mlops-fleet] CRITICAL ")
    assert found["Auto-Submitted"] == "auto-generated"
    assert found["Message-ID"].startswith("<")
    assert found["Date"].datetime.year == 2027  # the test's clock
    assert "GPU 3 is lost" in found.get_content()
    assert PASSWORD not in json.dumps(result.to_dict())


def test_a_wrong_password_fails_without_being_repeated(tell, smtp, authority):
    server = smtp("starttls", user="bob", password="other-passw0rd")
    result = tell(message="x", email=settings(server, authority, user="bob", password=PASSWORD, retries=3))
    assert result.channels[0]["status"] == "failed"
    assert "refused user or password" in result.channels[0]["detail"]
    assert len(set(server.logins)) == 1
    assert not server.mails
    assert PASSWORD not in json.dumps(result.to_dict())


@pytest.mark.parametrize("mode", ["starttls", "tls"])
def test_a_certificate_nobody_vouches_for_is_refused(tell, smtp, authority, mode):
    server = smtp(mode, user="bob", password=PASSWORD)
    given = settings(server, authority, security=mode, user="bob", password=PASSWORD)
    del given["ca_file"]
    result = tell(message="x", email=given)
    assert result.channels[0]["status"] == "failed"
    assert "certificate is not trusted" in result.channels[0]["detail"]
    assert not server.logins
    assert not server.mails


def test_a_server_without_starttls_gets_nothing(tell, smtp, authority):
    server = smtp("none")
    result = tell(message="x", email=settings(server, authority))
    assert result.channels[0]["status"] == "failed"
    assert "STARTTLS" in result.channels[0]["detail"]
    assert not server.mails
    assert tell(message="x", email={"to": "a@example.com", "host": "127.0.0.1", "port": server.port, "security": "none"}).channels[0]["status"] == "sent"


def test_line_breaks_make_no_headers(tell, smtp, authority, document, make_check):
    server = smtp()
    evil = "disk\r\nBcc: victim@example.com\r\n\r\nbody"
    tell(document=document(make_check("disk\nBcc: a@b.c", "critical", evil, "s\r\nX-Evil: 1"), host="h\r\nBcc: x@y.z"), email=settings(server, authority))
    found = parsed(server.mails[0])
    assert found["Bcc"] is None
    assert found["X-Evil"] is None
    assert server.mails[0]["to"] == ["ops@example.com", "ml@example.com"]
    for name in ("subject_prefix", "to", "sender"):
        with pytest.raises(OptionError):
            tell(message="x", email={**settings(server, authority), "from": None, name: "a@example.com\r\nBcc: v@example.com"})


def test_umlauts_and_emoji_arrive(tell, smtp, authority):
    server = smtp()
    tell(message="Gerät überhitzt 🔥 温度", email=settings(server, authority))
    found = parsed(server.mails[0])
    assert "Gerät überhitzt 🔥 温度" in found["Subject"]
    assert "Gerät überhitzt 🔥 温度" in found.get_content()


def test_a_temporary_refusal_is_tried_again_then_kept(tell, smtp, authority):
    server = smtp(replies=["451 try later"])
    assert tell(message="x", email=settings(server, authority)).channels[0]["status"] == "sent"
    server = smtp(replies=["451 try later"] * 5)
    result = tell(message="y", email=settings(server, authority, retries=0))
    assert result.channels[0]["status"] == "queued"
    assert "451" in result.channels[0]["detail"]


def test_a_permanent_refusal_fails(tell, smtp, authority):
    server = smtp(replies=["554 no"] * 5)
    result = tell(message="y", email=settings(server, authority))
    assert result.channels[0]["status"] == "failed"
    assert "554" in result.channels[0]["detail"]


def test_a_dead_and_a_silent_server(tell, authority):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        result = tell(message="x", email={"to": "a@example.com", "host": "127.0.0.1", "port": port, "timeout": 0.5, "retries": 0})
        assert (result.channels[0]["status"], result.channels[0]["detail"]) == ("queued", "no answer in time")
    result = tell(message="z", email={"to": "a@example.com", "host": "127.0.0.1", "port": port, "timeout": 0.5, "retries": 0})
    assert result.channels[0]["detail"] == "2 queued; no connection: Connection refused"


def test_a_digest_is_one_mail(tell, smtp, authority, document, make_check):
    server = smtp()
    tell(document=document(*[make_check("unit", "warning", f"unit{n} failed", f"u{n}") for n in range(7)]), email=settings(server, authority))
    (mail,) = server.mails
    text = parsed(mail).get_content()
    assert "7 warning" in parsed(mail)["Subject"]
    assert all(f"unit{n} failed" in text for n in range(7))


def test_mails_about_one_thing_form_a_thread(tell, smtp, authority, document, make_check):
    server = smtp()
    for status in ("critical", "pass"):
        tell(document=document(make_check("disk_space", status)), email=settings(server, authority))
    first, second = map(parsed, server.mails)
    assert first["References"] == second["References"]
    assert first["Message-ID"] != second["Message-ID"]
    assert "RECOVERED" in second["Subject"]


def program(folder, name, text):
    path = folder / name
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def local(world, tmp_path):
    """Only programs of this folder exist."""
    folder = tmp_path / "bin"
    folder.mkdir()
    original = world.run

    def run(argv, **more):
        if not argv[0].startswith("/"):
            if not (folder / argv[0]).exists():
                raise CommandFailed(f"The program {argv[0]} is not installed on this host.")
            argv = [str(folder / argv[0]), *argv[1:]]
        return original(argv, **more)

    world.run = run
    return folder


def test_the_local_mail_command(tell, local, tmp_path):
    program(local, "mail", f'for one in "$@"; do echo "arg: $one"; done > {tmp_path}/out; cat >> {tmp_path}/out\n')
    result = tell(message="Line one\n~!touch /tmp/x", email={"to": ["root", "a@example.com"]})
    assert (result.channels[0]["status"], result.channels[0]["detail"]) == ("sent", "given to mail")
    lines = (tmp_path / "out").read_text().splitlines()
    assert lines[0] == "arg: -s"
    assert lines[1].startswith("arg: [mlops-fleet] WARNING")
    assert lines[2:4] == ["arg: root", "arg: a@example.com"]
    assert not any(line.startswith("~") for line in lines), "mail's escapes can't be smuggled in"


def test_sendmail_where_there_is_no_mail(tell, local, tmp_path):
    program(local, "sendmail", f'echo "$@" > {tmp_path}/args; cat > {tmp_path}/out\n')
    result = tell(message="Gerät", email={"to": "root", "from": "node@example.com"})
    assert result.channels[0]["detail"] == "given to sendmail"
    assert (tmp_path / "args").read_text() == "-i -t -f node@example.com\n"
    found = email.message_from_string((tmp_path / "out").read_text(), policy=email.policy.default)
    assert found["To"] == "root"
    assert "Gerät" in found.get_content()


def test_neither(tell, local):
    result = tell(message="x", email={"to": "root"})
    assert result.channels[0]["status"] == "failed"
    assert "neither mail nor sendmail" in result.channels[0]["detail"]


def test_a_failing_mail_command_is_tried_by_the_next_run(tell, local):
    program(local, "mail", "echo no route >&2; exit 75\n")
    result = tell(message="x", email={"to": "root"})
    assert result.channels[0]["status"] == "queued"
    assert "no route" in result.channels[0]["detail"]
