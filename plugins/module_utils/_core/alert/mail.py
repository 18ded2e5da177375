# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""E-mail over SMTP, or through the local C(mail) or C(sendmail) command."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

from ..errors import CommandFailed
from ..ports import World
from . import secret
from .channel import Channel, Undelivered, attempts
from .events import one_line
from .payloads import Unit, text_body
from .webhook import _tls

_PORTS = {"starttls": 587, "tls": 465, "none": 25}
_SUBJECT = 200


class Email(Channel):
    """Mail to all recipients, one message per event or digest."""

    kind = "email"

    def __init__(self, world: World, email: Mapping[str, Any], digest_after: int) -> None:
        self.email = email
        target = f"{email['host']}:{email['port'] or _PORTS[email['security']]}" if email["host"] else "local mail command"
        super().__init__(world, "email", target, f"email {target} {' '.join(sorted(email['to']))}", digest_after)
        host = re.sub(r"[^A-Za-z0-9.-]", "-", world.hostname).strip("-.") or "localhost"
        self.domain = host
        self.sender = email["sender"] or f"mlops-fleet@{host}"
        self.password = ""

    def open(self) -> None:
        self.password = secret.read(self.email, "password", self.world) or ""
        if self.password:
            self.secrets |= secret.forms(self.password, self.email["user"] or "")

    def subject(self, unit: Unit) -> str:
        """Return the subject: one line, whatever the message holds."""
        return one_line(f"{self.email['subject_prefix'] or ''} {unit.title}", _SUBJECT)

    def message(self, unit: Unit) -> Any:
        """Return the message (EmailMessage): UTF-8, a date from our clock, an identifier, marked as sent by a machine."""
        from email import policy, utils
        from email.message import EmailMessage

        message = EmailMessage(policy=policy.SMTP)
        message["Subject"] = self.subject(unit)
        message["From"] = self.sender
        message["To"] = ", ".join(self.email["to"])
        message["Date"] = utils.formatdate(self.world.clock.now())
        message["Message-ID"] = utils.make_msgid(domain=self.domain)
        # All mails about one thing form one thread.
        message["References"] = f"<{unit.incident}@mlops-fleet.invalid>"
        message["Auto-Submitted"] = "auto-generated"
        message["X-MLOps-Severity"] = unit.severity
        message["X-MLOps-Key"] = unit.incident
        message.set_content(text_body(unit), charset="utf-8")
        return message

    def send(self, unit: Unit, deadline: float) -> str:
        if not self.email["host"]:
            return self._local(unit, max(1.0, min(self.email["timeout"], deadline - time.monotonic())))
        message = self.message(unit)
        return attempts(lambda: self._smtp(message, deadline), self.email["retries"], deadline)

    def _local(self, unit: Unit, timeout: float) -> str:
        """Hand the message to C(mail), or to C(sendmail) where that is what there is. Arguments hold no secrets: they show in C(ps)."""
        try:
            done = self.world.run(["mail", "-s", self.subject(unit), *self.email["to"]], timeout=timeout, stdin=text_body(unit))
            program = "mail"
        except CommandFailed as first:
            if "did not answer" in first.message:
                raise Undelivered(first.message, passing=True) from None
            program = "sendmail"
            try:
                done = self.world.run([program, "-i", "-t", "-f", self.sender], timeout=timeout, stdin=self.message(unit).as_string().replace("\r\n", "\n"))
            except CommandFailed:
                raise Undelivered("neither mail nor sendmail can be run here; install one, or name an SMTP server in email.host", passing=False) from None
        if done.returncode != 0:
            raise Undelivered(f"{program} ended with {done.returncode}: {one_line(done.stderr or done.stdout, 200)}", passing=True)
        return f"given to {program}"

    def _smtp(self, message: Any, deadline: float) -> str:
        """Send once. :raises Undelivered: with the server's code; its words only where they can't hold what we sent it."""
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
                server: smtplib.SMTP = smtplib.SMTP_SSL(email["host"], port, local_hostname=self.domain, timeout=timeout, context=context)
            else:
                server = smtplib.SMTP(email["host"], port, local_hostname=self.domain, timeout=timeout)
            with server:
                if email["security"] == "starttls":
                    server.starttls(context=context)
                if email["user"]:
                    server.login(email["user"], self.password)
                refused = server.send_message(message, self.sender, email["to"])
        except ssl.SSLCertVerificationError as error:
            raise Undelivered(f"the server's certificate is not trusted: {error.verify_message}", passing=False) from None
        except smtplib.SMTPNotSupportedError:
            raise Undelivered("the server does not offer what was asked for (STARTTLS, authentication, or UTF-8 addresses)", passing=False) from None
        except smtplib.SMTPAuthenticationError as error:
            raise Undelivered(f"{error.smtp_code}: the server refused user or password", passing=400 <= error.smtp_code < 500) from None
        except smtplib.SMTPRecipientsRefused as error:
            codes = {answer[0] for answer in error.recipients.values()}
            raise Undelivered(f"all recipients were refused ({', '.join(map(str, sorted(codes)))})", passing=any(400 <= code < 500 for code in codes)) from None
        except smtplib.SMTPResponseException as error:
            said = error.smtp_error.decode("utf-8", "replace") if isinstance(error.smtp_error, bytes) else str(error.smtp_error)
            words = "" if secret.touches(said, self.secrets) else f": {one_line(said, 200)}"
            raise Undelivered(f"{error.smtp_code}{words}", passing=400 <= error.smtp_code < 500 or error.smtp_code < 0) from None
        except (smtplib.SMTPException, OSError) as error:
            # smtplib tells of a time-out as of a closed connection, with the time-out as its cause.
            if any(isinstance(one, socket.timeout) for one in (error, error.__context__)):  # another class before Python 3.10
                raise Undelivered("no answer in time", passing=True) from None
            why = error.strerror if isinstance(error, OSError) and error.strerror else "the server closed the connection"
            raise Undelivered(f"no connection: {one_line(why, 200)}", passing=True) from None
        except UnicodeError:
            raise Undelivered("an address can't be sent in this form", passing=False) from None
        return f"accepted, but refused for {len(refused)} of {len(email['to'])} recipients" if refused else f"accepted for {len(email['to'])} recipient(s)"
