# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""E-mail over SMTP, or through the local C(mail) or C(sendmail) command."""

from __future__ import annotations

import contextlib
import hashlib
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..errors import CommandFailed
from ..ports import World
from . import secret
from .channel import Channel, Undelivered, attempts
from .events import Event, one_line
from .payloads import Unit, separate, text_body
from .webhook import _tls

_PORTS = {"starttls": 587, "tls": 465, "none": 25}
_SUBJECT = 200


def _plain(address: str) -> str:
    """Return an address with its domain in ASCII, which every server takes; only the part before the @ needs SMTPUTF8."""
    name, mark, domain = address.rpartition("@")
    try:
        return (
            name + mark + domain.encode("idna").decode("ascii")
            if mark and not domain.isascii()
            else address
        )
    except UnicodeError:
        return address


class Email(Channel):
    """Mail to all recipients, one message per event or digest."""

    kind = "email"

    def __init__(self, world: World, email: Mapping[str, Any], digest_after: int) -> None:
        self.email = {
            **email,
            "to": [_plain(address) for address in email["to"]],
            "sender": _plain(email["sender"] or ""),
        }
        host = f"[{email['host']}]" if ":" in (email["host"] or "") else email["host"]
        target = (
            f"{host}:{email['port'] or _PORTS[email['security']]}" if host else "local mail command"
        )
        super().__init__(
            world, "email", target, f"email {target} {' '.join(sorted(email['to']))}", digest_after
        )
        self.domain = re.sub(r"[^A-Za-z0-9.-]", "-", world.hostname).strip("-.") or "localhost"
        self.sender = self.email["sender"] or f"mlops-fleet@{self.domain}"
        self.password = ""
        self.retries = email["retries"]

    def units(self, events: Sequence[Event], still_open: Iterable[str]) -> list[Unit]:  # noqa: ARG002
        """Return the messages; what some recipients have already is apart from what all have to get."""
        groups: dict[tuple[str, ...], list[Event]] = {}
        for event in events:
            groups.setdefault(event.only, []).append(event)
        return [unit for group in groups.values() for unit in separate(group, self.digest_after)]

    def open(self) -> None:
        self.password = secret.read(self.email, "password", self.world) or ""
        if self.password:
            self.secrets |= secret.forms(self.password, self.email["user"] or "")

    def subject(self, unit: Unit) -> str:
        """Return the subject: one line, whatever the message holds. "=?" would begin an encoded word, in which line breaks may hide."""
        return one_line(
            f"{self.email['subject_prefix'] or ''} {unit.title}".replace("=?", "= ?"), _SUBJECT
        )

    def message(self, unit: Unit) -> Any:
        """Return the message (EmailMessage): UTF-8 in 7 bits, which every server takes, a date from our clock, marked as sent by a machine."""
        from email import policy, utils
        from email.message import EmailMessage

        message = EmailMessage(policy=policy.SMTP.clone(cte_type="7bit"))
        message["Subject"] = self.subject(unit)
        message["From"] = self.sender
        message["To"] = ", ".join(self.email["to"])
        message["Date"] = utils.formatdate(self.world.clock.now())
        # A message that is sent again, because its answer was lost or the run was killed, is known to be the same one.
        same = "\0".join(
            f"{event.key} {event.kind} {event.severity} {event.time}" for event in unit.events
        )
        message["Message-ID"] = f"<{hashlib.sha256(same.encode()).hexdigest()[:32]}@{self.domain}>"
        # All mails about one thing form one thread. Only the end of the key: an identifier that has to be folded would be garbled.
        message["References"] = f"<{unit.incident.rpartition('.')[2]}@mlops-fleet.invalid>"
        message["Auto-Submitted"] = "auto-generated"
        message["X-MLOps-Severity"] = unit.severity
        message["X-MLOps-Key"] = unit.incident
        message.set_content(text_body(unit), charset="utf-8")
        return message

    def send(self, unit: Unit, deadline: float) -> str:
        if not self.email["host"]:
            return self._local(
                unit, max(1.0, min(self.email["timeout"], deadline - time.monotonic()))
            )
        message = self.message(unit)
        left = [
            address
            for address in self.email["to"]
            if not unit.only or self.mark(address) in unit.only
        ]
        if not left:
            return "nothing to send: nobody who still had to get it is a recipient any more"
        try:
            return attempts(lambda: self._smtp(message, left, deadline), self.retries, deadline)
        except Undelivered as error:
            if len(left) == len(self.email["to"]):
                raise
            # Some have it: neither must they get it again, nor the others never.
            if error.passing:
                error.left = tuple(self.mark(address) for address in left)
                raise
            self.incomplete = (
                f"{len(left)} of {len(self.email['to'])} recipients did not get it: {error.detail}"
            )
            return f"accepted, but {self.incomplete}"

    def _local(self, unit: Unit, timeout: float) -> str:
        """Hand the message to C(mail), or to C(sendmail) where that is what there is. Arguments hold no secrets: they show in C(ps)."""
        from email.header import Header

        subject = self.subject(unit)
        if not subject.isascii():
            # No mail command encodes it in every setting; all of them pass on what is encoded.
            subject = Header(subject, "utf-8").encode(linesep="").replace("\t", " ")
        sender = ["-r", self.email["sender"]] if self.email["sender"] else []
        try:
            # In the plain C locale s-nail refuses a text with umlauts, and bsd-mailx declares it as ASCII.
            argv = ["mail", *sender, "-s", subject, *self.email["to"]]
            done = self.world.run(
                argv, timeout=timeout, env={"LC_ALL": "C.UTF-8"}, stdin=text_body(unit)
            )
            program = "mail"
        except CommandFailed as first:
            if first.code == CommandFailed.TIMED_OUT:
                raise Undelivered(first.message, passing=True) from None
            program = "sendmail"
            try:
                done = self.world.run(
                    [program, "-i", "-t", "-f", self.sender],
                    timeout=timeout,
                    stdin=self.message(unit).as_string().replace("\r\n", "\n"),
                )
            except CommandFailed:
                raise Undelivered(
                    "neither mail nor sendmail can be run here; install one, or name an SMTP server in email.host",
                    passing=False,
                ) from None
        if done.returncode != 0:
            raise Undelivered(
                f"{program} ended with {done.returncode}: {one_line(done.stderr or done.stdout, 200)}",
                passing=True,
                alone=True,
            )
        return f"given to {program}"

    def _smtp(self, message: Any, left: list[str], deadline: float) -> str:
        """Send once to those C(left), and keep in it only those whom a further attempt may reach.

        :raises Undelivered: with the server's code; its words only where they can't hold what we sent it.
        """
        import smtplib
        import socket
        import ssl

        email = self.email
        timeout = min(email["timeout"], deadline - time.monotonic())
        if timeout <= 0:
            raise Undelivered("no time left", passing=True)
        port = email["port"] or _PORTS[email["security"]]
        context = _tls(email["ca_file"]) if email["security"] != "none" else None
        try:
            # A name of our own: smtplib would ask the resolver for one, without a deadline.
            if email["security"] == "tls":
                server: smtplib.SMTP = smtplib.SMTP_SSL(
                    email["host"],
                    port,
                    local_hostname=self.domain,
                    timeout=timeout,
                    context=context,
                )
            else:
                server = smtplib.SMTP(
                    email["host"], port, local_hostname=self.domain, timeout=timeout
                )
            with contextlib.closing(server):
                if email["security"] == "starttls":
                    server.starttls(context=context)
                if email["user"]:
                    self._login(server)
                refused = server.send_message(message, self.sender, left)
                # The message is the server's now: an answer to the good-bye could only make us send it again.
                with contextlib.suppress(smtplib.SMTPException, OSError):
                    server.putcmd("quit")
        except ssl.SSLCertVerificationError as error:
            raise Undelivered(
                f"the server's certificate is not trusted: {error.verify_message}", passing=False
            ) from None
        except smtplib.SMTPNotSupportedError:
            raise Undelivered(
                "the server does not offer what was asked for (STARTTLS, authentication, or UTF-8 addresses)",
                passing=False,
            ) from None
        except smtplib.SMTPAuthenticationError as error:
            raise Undelivered(
                f"{error.smtp_code}: the server refused user or password",
                passing=400 <= error.smtp_code < 500,
            ) from None
        except smtplib.SMTPRecipientsRefused as error:
            codes = {answer[0] for answer in error.recipients.values()}
            if len(left) == len(email["to"]):
                shown, passing = (
                    ", ".join(map(str, sorted(codes))),
                    any(400 <= code < 500 for code in codes),
                )
                raise Undelivered(f"all recipients were refused ({shown})", passing) from None
            # After 421 the server has said nothing about the rest.
            refused = {address: error.recipients.get(address, (421, b"")) for address in left}
        except smtplib.SMTPResponseException as error:
            said = (
                error.smtp_error.decode("utf-8", "replace")
                if isinstance(error.smtp_error, bytes)
                else str(error.smtp_error)
            )
            words = "" if secret.touches(said, self.secrets) else f": {one_line(said, 200)}"
            passing = 400 <= error.smtp_code < 500 or error.smtp_code < 0
            raise Undelivered(
                f"{error.smtp_code}{words}",
                passing,
                alone=passing and error.smtp_code not in (421, -1),
            ) from None
        except ssl.SSLError as error:
            raise Undelivered(
                f"TLS failed: {error.reason or 'connection broken'}; check email.security and email.port",
                passing=True,
            ) from None
        except (smtplib.SMTPException, OSError) as error:
            if isinstance(error, smtplib.SMTPException) and not isinstance(
                error, smtplib.SMTPServerDisconnected
            ):
                raise Undelivered(
                    "the server offers no way to log in that is known here (PLAIN, LOGIN, CRAM-MD5)",
                    passing=False,
                ) from None
            # smtplib tells of a time-out as of a closed connection, with the time-out as its cause.
            if any(
                isinstance(one, socket.timeout) for one in (error, error.__context__)
            ):  # another class before Python 3.10
                raise Undelivered("no answer in time", passing=True) from None
            why = (
                error.strerror
                if isinstance(error, OSError) and error.strerror
                else "the server closed the connection"
            )
            raise Undelivered(f"no connection: {one_line(why, 200)}", passing=True) from None
        except UnicodeError:
            raise Undelivered(
                "an address or the server's name has characters that can't be sent", passing=False
            ) from None
        return self._settle(refused, left)

    def _login(self, server: Any) -> None:
        """Log in. smtplib knows only ASCII; for other letters AUTH PLAIN in UTF-8, as RFC 4616 has it."""
        import base64
        import smtplib

        server.ehlo_or_helo_if_needed()
        ways = server.esmtp_features.get("auth", "").upper().split()
        if "PLAIN" in ways or "LOGIN" in ways:
            # smtplib would begin with CRAM-MD5, which a host in FIPS mode can't; inside TLS it protects nothing.
            server.esmtp_features["auth"] = " ".join(way for way in ways if way != "CRAM-MD5")
        login = f"\0{self.email['user']}\0{self.password}"
        if login.isascii():
            server.login(self.email["user"], self.password)
            return
        if "PLAIN" not in ways:
            raise smtplib.SMTPException
        code, said = server.docmd("AUTH", "PLAIN " + base64.b64encode(login.encode()).decode())
        if code != 235:
            raise smtplib.SMTPAuthenticationError(code, said)

    def _settle(self, refused: Mapping[str, tuple[int, bytes]], left: list[str]) -> str:
        """Judge a message that somebody has. :raises Undelivered: some of the others may take it later; they are what is C(left)."""
        everybody = len(self.email["to"])
        codes = ", ".join(sorted({str(code) for code, dummy in refused.values()}))
        taken = len(left) - len(refused)
        left[:] = [address for address in left if 400 <= refused.get(address, (0, b""))[0] < 500]
        if len(refused) > len(left):
            self.incomplete = f"{len(refused) - len(left)} of {everybody} recipients were refused for good ({codes})"
        if left:
            raise Undelivered(
                f"{len(left)} of {everybody} recipients were refused for now ({codes})",
                passing=True,
                alone=True,
            )
        return (
            f"accepted, but {self.incomplete}"
            if self.incomplete
            else f"accepted for {taken} recipient(s)"
        )
