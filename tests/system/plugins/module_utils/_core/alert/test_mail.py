# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""E-mail against a real SMTP server with TLS and authentication, and through local commands."""

from __future__ import annotations

import email
import email.policy
import json
import shutil
import socket
import stat
import threading
import time

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import (
    CommandFailed,
    OptionError,
)

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
@pytest.mark.parametrize("password", [PASSWORD, "Pferde-Äpfel"])
def test_tls_and_authentication(tell, smtp, authority, mode, password):
    server = smtp(mode, user="bob", password=password)
    result = tell(
        message="GPU 3 is lost",
        severity="critical",
        email=settings(server, authority, security=mode, user="bob", password=password),
    )
    assert result.channels[0]["status"] == "sent", result.channels
    assert server.logins == ["bob"]
    (mail,) = server.mails
    assert mail["tls"] == (
        mode == "starttls"
    )  # the server of the other mode speaks nothing but TLS
    assert mail["to"] == ["ops@example.com", "ml@example.com"]
    found = parsed(mail)
    assert found["From"] == "node@example.com"
    assert found["To"] == "ops@example.com, ml@example.com"
    assert found["Subject"].startswith("[mlops-fleet] CRITICAL ")
    assert found["Auto-Submitted"] == "auto-generated"
    assert found["Message-ID"].startswith("<")
    assert found["Date"].datetime.year == 2049  # the test's clock
    assert "GPU 3 is lost" in found.get_content()
    assert password not in json.dumps(result.to_dict(), ensure_ascii=False)


def test_a_wrong_password_fails_without_being_repeated(tell, smtp, authority):
    server = smtp("starttls", user="bob", password="other-passw0rd")
    result = tell(
        message="x", email=settings(server, authority, user="bob", password=PASSWORD, retries=3)
    )
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
    assert (
        tell(
            message="x",
            email={
                "to": "a@example.com",
                "host": "127.0.0.1",
                "port": server.port,
                "security": "none",
            },
        ).channels[0]["status"]
        == "sent"
    )


def test_line_breaks_make_no_headers(tell, smtp, authority, document, make_check):
    server = smtp()
    evil = "disk\r\nBcc: victim@example.com\r\n\r\nbody"
    tell(
        document=document(
            make_check("disk\nBcc: a@b.c", "critical", evil, "s\r\nX-Evil: 1"),
            host="h\r\nBcc: x@y.z",
        ),
        email=settings(server, authority),
    )
    found = parsed(server.mails[0])
    assert found["Bcc"] is None
    assert found["X-Evil"] is None
    assert server.mails[0]["to"] == ["ops@example.com", "ml@example.com"]
    for name in ("subject_prefix", "to", "sender"):
        with pytest.raises(OptionError):
            tell(
                message="x",
                email={
                    **settings(server, authority),
                    "from": None,
                    name: "a@example.com\r\nBcc: v@example.com",
                },
            )


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
        result = tell(
            message="x",
            email={
                "to": "a@example.com",
                "host": "127.0.0.1",
                "port": port,
                "timeout": 0.5,
                "retries": 0,
            },
        )
        assert (result.channels[0]["status"], result.channels[0]["detail"]) == (
            "queued",
            "no answer in time",
        )
    result = tell(
        message="z",
        email={
            "to": "a@example.com",
            "host": "127.0.0.1",
            "port": port,
            "timeout": 0.5,
            "retries": 0,
        },
    )
    assert result.channels[0]["detail"] == "2 queued; no connection: Connection refused"


def test_a_digest_is_one_mail(tell, smtp, authority, document, make_check):
    server = smtp()
    tell(
        document=document(
            *[make_check("unit", "warning", f"unit{n} failed", f"u{n}") for n in range(7)]
        ),
        email=settings(server, authority),
    )
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


class Scripted:
    """An SMTP server that answers each command as told: a text, or a function of the line; the end
    of the data is the command C(.).
    """

    def __init__(self, **answers):
        self.answers, self.mails, self.sessions = answers, [], 0
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            connection, dummy = self.socket.accept()
            self.sessions += 1
            threading.Thread(target=self.talk, args=(connection,), daemon=True).start()

    def reply(self, connection, verb, line, usual):
        told = self.answers.get(verb, usual)
        told = (told(line) if callable(told) else told) or usual
        for part in [told] if isinstance(told, str) else told:
            connection.sendall(part.encode() + (b"\r\n" if isinstance(told, str) else b""))
        return told

    def talk(self, connection):
        recipients, lines = [], connection.makefile("rb")
        usual = {
            "EHLO": "250 hi",
            "MAIL": "250 ok",
            "RCPT": "250 ok",
            "DATA": "354 go",
            "QUIT": "221 bye",
            "RSET": "250 ok",
        }
        try:
            self.reply(connection, "greeting", "", "220 hi")
            for raw in lines:
                line = raw.decode(errors="replace").strip()
                verb = line.split()[0].upper()
                told = self.reply(connection, verb, line, usual.get(verb, "502 no"))
                if verb == "RCPT" and told.startswith("250"):
                    recipients.append(line.partition("<")[2].rstrip(">"))
                if verb == "DATA":
                    data = b"".join(iter(lines.readline, b".\r\n"))
                    if self.reply(connection, ".", "", "250 queued").startswith("250"):
                        self.mails.append({"to": recipients, "data": data})
                    recipients = []
        except OSError:
            pass


def scripted(server, **more):
    return {
        "to": ["a@example.com", "b@example.com"],
        "host": "127.0.0.1",
        "port": server.port,
        "security": "none",
        "retries": 0,
        "timeout": 2,
        **more,
    }


@pytest.mark.parametrize("password", [PASSWORD, "Pferde-Äpfel"])
def test_a_server_that_knows_no_way_to_log_in_is_named_as_that(tell, password):
    server = Scripted(EHLO="250-hi\r\n250 AUTH XOAUTH2")
    found = tell(
        message="x", email=scripted(server, host="localhost", user="bob", password=password)
    ).channels[0]
    assert (found["status"], found["detail"]) == (
        "failed",
        "the server offers no way to log in that is known here (PLAIN, LOGIN, CRAM-MD5)",
    )


def test_md5_is_not_tried_where_there_is_another_way(tell):
    ways = []
    server = Scripted(
        EHLO="250-hi\r\n250 AUTH CRAM-MD5 PLAIN LOGIN",
        AUTH=lambda line: ways.append(line.split()[1]) or "235 ok",
    )
    assert (
        tell(
            message="x", email=scripted(server, host="localhost", user="bob", password=PASSWORD)
        ).channels[0]["status"]
        == "sent"
    )
    assert ways == ["PLAIN"]


def test_tls_where_there_is_none_says_what_to_check(tell):
    found = tell(message="x", email=scripted(Scripted(), security="tls")).channels[0]
    assert found["detail"].startswith("TLS failed: ")
    assert found["detail"].endswith("check email.security and email.port")


@pytest.mark.parametrize("farewell", ["421 busy", "250 what?", "554 no"])
def test_what_was_accepted_is_not_sent_again_whatever_the_server_says_to_the_good_bye(
    tell, farewell
):
    server = Scripted(QUIT=farewell)
    for dummy in range(2):
        tell(message="x", email=scripted(server, retries=2))
    assert len(server.mails) == 1


def test_who_was_refused_for_now_gets_it_later_and_nobody_twice(tell, tmp_path):
    refusals = ["451 greylisted"] * 3
    server = Scripted(RCPT=lambda line: refusals.pop() if "<b@" in line and refusals else None)
    given = {"message": "x", "email": scripted(server, retries=1)}
    first = tell(**given).channels[0]
    assert (first["status"], first["detail"]) == (
        "queued",
        "1 of 2 recipients were refused for now (451)",
    )
    assert "example.com" not in (tmp_path / "state" / "state.json").read_text()
    assert [tell(**given).channels[0]["status"] for dummy in range(2)] == ["sent", "skipped"]
    assert [mail["to"] for mail in server.mails] == [["a@example.com"], ["b@example.com"]]
    assert len({parsed(mail)["Message-ID"] for mail in server.mails}) == 1


def test_a_server_lost_after_one_recipient_repeats_nothing_to_that_one(tell):
    moods = [None, "421 closing", None]
    server = Scripted(
        MAIL=lambda line: moods.pop(0),
        RCPT=lambda line: "451 later" if "<b@" in line and len(moods) > 1 else None,
    )
    assert (
        tell(message="x", email=scripted(server, retries=1)).channels[0]["detail"] == "421: closing"
    )
    assert tell(message="x", email=scripted(server)).channels[0]["status"] == "sent"
    assert [mail["to"] for mail in server.mails] == [["a@example.com"], ["b@example.com"]]


def test_who_was_refused_for_good_is_told_about_and_not_tried_again(tell, world):
    warnings = []
    world.warn = warnings.append
    server = Scripted(RCPT=lambda line: "550 unknown" if "<b@" in line else None)
    result = tell(message="x", email=scripted(server)).channels[0]
    assert (result["status"], result["detail"]) == (
        "sent",
        "accepted, but 1 of 2 recipients were refused for good (550)",
    )
    assert warnings == ["Alert by email: 1 of 2 recipients were refused for good (550)"]
    assert tell(message="x", email=scripted(server)).channels[0]["status"] == "skipped"
    assert server.sessions == 1


def test_a_message_the_server_never_takes_holds_up_no_other(tell, document, make_check):
    server = Scripted(
        MAIL="250 ok", **{".": lambda line: "451 can't scan" if server.sessions == 1 else None}
    )
    found = tell(
        document=document(*[make_check("unit", "critical", subject=f"u{n}") for n in range(3)]),
        email=scripted(server),
    ).channels[0]
    assert (found["status"], found["detail"]) == ("queued", "1 queued, 2 sent; 451: can't scan")
    assert len(server.mails) == 2


def test_a_server_that_answers_a_byte_now_and_then_is_left_in_time(
    tell, document, make_check, monkeypatch
):
    from ansible_collections.mlops.fleet.plugins.module_utils._core.alert import channel

    def drip():
        for dummy in range(100):
            yield "2"
            time.sleep(0.2)

    monkeypatch.setattr(channel, "BUDGET", 1.0)
    server = Scripted(MAIL=lambda line: drip() if server.sessions == 2 else None)
    given = {
        "document": document(*[make_check("unit", "critical", subject=f"u{n}") for n in range(2)])
    }
    start = time.monotonic()
    found = tell(**given, email=scripted(server, to="a@example.com")).channels[0]
    assert time.monotonic() - start < 8
    assert found["detail"] == "1 queued, 1 sent; no complete answer in time"
    tell(**given, email=scripted(server, to="a@example.com"))
    assert len(server.mails) == 2, "the first one was not sent again"


def test_it_is_in_seven_bits_for_a_server_that_takes_no_more(tell):
    server = Scripted()
    tell(message="Gerät überhitzt 🔥" + "x" * 2000, email=scripted(server))
    assert server.mails[0]["data"].isascii()
    assert max(map(len, server.mails[0]["data"].splitlines())) < 998
    assert "Gerät überhitzt 🔥" in parsed(server.mails[0]).get_content()


def test_a_domain_beyond_ascii_needs_nothing_of_the_server(tell):
    server = Scripted()
    assert (
        tell(
            message="x", email=scripted(server, to="ops@bücher.example", sender="node@köln.example")
        ).channels[0]["status"]
        == "sent"
    )
    assert server.mails[0]["to"] == ["ops@xn--bcher-kva.example"]
    assert parsed(server.mails[0])["From"] == "node@xn--kln-sna.example"


def test_encoded_words_make_no_headers(tell):
    server = Scripted()
    tell(
        message="=?utf-8?q?disk=0D=0ABcc:_victim=40example.com=0D=0A=0D=0Abody?=",
        email=scripted(server),
    )
    found = parsed(server.mails[0])
    assert found["Bcc"] is None
    assert found["To"] == "a@example.com, b@example.com"
    assert "disk" in found["Subject"]


def test_a_long_name_leaves_the_thread_identifier_whole(tell):
    server = Scripted()
    tell(message="x", check="check_" * 20, subject="/data/" * 20, email=scripted(server))
    lines = server.mails[0]["data"].decode().splitlines()
    assert [
        line.startswith("References: <") and line.endswith("@mlops-fleet.invalid>")
        for line in lines
        if line.startswith("References")
    ] == [True]


def program(directory, name, text):
    path = directory / name
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def local(world, tmp_path):
    """Only programs of this directory exist."""
    directory = tmp_path / "bin"
    directory.mkdir()
    original = world.run

    def run(argv, **more):
        if not argv[0].startswith("/"):
            if not (directory / argv[0]).exists():
                raise CommandFailed.missing(argv[0])
            argv = [str(directory / argv[0]), *argv[1:]]
        return original(argv, **more)

    world.run = run
    return directory


def test_the_local_mail_command(tell, local, tmp_path):
    program(
        local,
        "mail",
        f'for one in "$@"; do echo "arg: $one"; done > {tmp_path}/out; cat >> {tmp_path}/out\n',
    )
    result = tell(message="Line one\n~!touch /tmp/x", email={"to": ["root", "a@example.com"]})
    assert (result.channels[0]["status"], result.channels[0]["detail"]) == ("sent", "given to mail")
    lines = (tmp_path / "out").read_text().splitlines()
    assert lines[0] == "arg: -s"
    assert lines[1].startswith("arg: [mlops-fleet] WARNING")
    assert lines[2:4] == ["arg: root", "arg: a@example.com"]
    assert not any(line.startswith("~") for line in lines), "mail's escapes can't be smuggled in"


def test_the_mail_command_gets_umlauts_in_a_form_that_each_of_them_passes_on(tell, local, tmp_path):
    program(local, "mail", f'echo "$LC_ALL|$*" > {tmp_path}/out; cat > {tmp_path}/body\n')
    tell(message="Gerät überhitzt 🔥", email={"to": "root", "from": "node@example.com"})
    locale, dummy, arguments = (tmp_path / "out").read_text().partition("|")
    assert locale == "C.UTF-8"
    assert arguments.startswith("-r node@example.com -s =?utf-8?")
    assert arguments.isascii()
    subject = email.message_from_string(
        "Subject: " + arguments.partition("-s ")[2], policy=email.policy.default
    )["Subject"]
    assert "Gerät überhitzt 🔥" in subject
    assert "Gerät überhitzt 🔥" in (tmp_path / "body").read_text(encoding="utf-8")


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


@pytest.mark.parametrize(
    ("email", "known"), [({"to": "a@x.org"}, True), ({"to": "a@x.org", "host": "h"}, False)]
)
def test_a_test_that_is_not_sent_knows_that_there_is_no_mail_command(
    tell, monkeypatch, tmp_path, email, known
):
    if shutil.which("sendmail", path="/usr/local/sbin:/usr/sbin:/sbin"):
        pytest.skip("this machine has sendmail")
    monkeypatch.setenv("PATH", str(tmp_path))
    (report,) = tell(test=True, dry=True, email=email).channels
    assert (report["status"] == "failed") == known
    program(tmp_path, "mail", "exit 0\n")
    (report,) = tell(test=True, dry=True, email=email).channels
    assert report["detail"] == "would send a test message"


def test_a_failing_mail_command_is_tried_by_the_next_run(tell, local):
    program(local, "mail", "echo no route >&2; exit 75\n")
    result = tell(message="x", email={"to": "root"})
    assert result.channels[0]["status"] == "queued"
    assert "no route" in result.channels[0]["detail"]
