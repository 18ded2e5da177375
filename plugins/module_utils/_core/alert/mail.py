# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""E-mail over SMTP, or through the local ``mail`` or ``sendmail`` command."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from ..errors import CommandFailed
from ..ports import World
from ..system.text import human_count
from . import secret
from .channel import Channel, Outlook, Undelivered, attempts
from .events import Event, one_line
from .messages import Message, separate, text_body
from .options import EmailOptions
from .tls import tls_context

if TYPE_CHECKING:
    import smtplib
    from email.message import EmailMessage

_PORTS = {"starttls": 587, "tls": 465, "none": 25}
_SUBJECT = 200
#: Authentication required, mechanism too weak, credentials invalid, encryption required (RFC 4954):
#: the options or the server's accounts can be corrected.
_AUTHENTICATION = (530, 534, 535, 538)


#: The server does not let this host send through it; its configuration decides.
_NOT_FOR_US = re.compile(rb"relay|client host|helo command", re.IGNORECASE)


def _outlook(code: int, text: bytes = b"") -> Outlook:
    """Return what a server's code means for the message; below 0, the connection broke."""
    if code < 0 or 400 <= code < 500:
        return Outlook.PASSING
    if code in _AUTHENTICATION or _NOT_FOR_US.search(text):
        return Outlook.CURABLE
    return Outlook.PERMANENT


def _plain(address: str) -> str:
    """Return an address with its domain in ASCII, which every server takes; only the local part
    needs SMTPUTF8.
    """
    local, mark, domain = address.rpartition("@")
    if not mark or domain.isascii():
        return address
    try:
        return local + mark + domain.encode("idna").decode("ascii")
    except UnicodeError:
        return address


_NO_PROGRAM = (
    "neither mail nor sendmail can be run here; install one, or name an SMTP server in email.host"
)


class Email(Channel):
    """Mail to all recipients, one message per event or digest."""

    kind = "email"

    def __init__(self, world: World, email: EmailOptions, digest_after: int) -> None:
        self.email = email
        self.to = [_plain(address) for address in email.to]
        self.port = email.port or _PORTS[email.security]
        target = "local mail command"
        if email.host:
            host = f"[{email.host}]" if ":" in email.host else email.host
            target = f"{host}:{self.port}"
        super().__init__(
            world, "email", target, f"email {target} {' '.join(sorted(email.to))}", digest_after
        )
        self.domain = re.sub(r"[^A-Za-z0-9.-]", "-", world.hostname).strip("-.") or "localhost"
        self.given_sender = _plain(email.sender or "")
        self.sender = self.given_sender or f"mlops-fleet@{self.domain}"
        self.password = ""
        self.retries = email.retries

    def messages(self, events: Sequence[Event], still_open: Iterable[str]) -> list[Message]:  # noqa: ARG002
        """Return the messages; what some recipients have already is apart from what all have to
        get.
        """
        groups: dict[tuple[str, ...], list[Event]] = {}
        for event in events:
            groups.setdefault(event.only, []).append(event)
        return [
            message for group in groups.values() for message in separate(group, self.digest_after)
        ]

    def open(self) -> None:
        self.password = secret.read(self.email.password_source, self.world) or ""
        self.secrets |= secret.forms(self.password, self.email.user or "")

    def subject(self, message: Message) -> str:
        """Return the subject: one line, whatever the message holds.

        "=?" would begin an encoded word, which may hide line breaks.
        """
        text = f"{self.email.subject_prefix or ''} {message.title}"
        return one_line(text.replace("=?", "= ?"), _SUBJECT)

    def mail(self, message: Message) -> EmailMessage:
        """Return the mail: UTF-8 in 7 bits, which every server takes, marked as sent by a
        machine.
        """
        import hashlib
        from email import policy, utils
        from email.message import EmailMessage

        mail = EmailMessage(policy=policy.SMTP.clone(cte_type="7bit"))
        mail["Subject"] = self.subject(message)
        mail["From"] = self.sender
        mail["To"] = ", ".join(self.to)
        mail["Date"] = utils.formatdate(self.world.clock.now())
        # A mail that is sent again, because its answer was lost or the run was killed, has the same
        # identifier.
        identity = "\0".join(
            f"{event.key} {event.kind} {event.severity} {event.time}" for event in message.events
        )
        digest = hashlib.sha256(identity.encode()).hexdigest()[:32]
        mail["Message-ID"] = f"<{digest}@{self.domain}>"
        # All mails of one incident form one thread. Only the end of its key: a folded identifier
        # would be garbled.
        mail["References"] = f"<{message.incident.rpartition('.')[2]}@mlops-fleet.invalid>"
        mail["Auto-Submitted"] = "auto-generated"
        mail["X-MLOps-Severity"] = message.severity
        mail["X-MLOps-Key"] = message.incident
        mail.set_content(text_body(message), charset="utf-8")
        return mail

    def obstacle(self) -> str:
        if self.email.host:
            return ""
        directories = [*os.get_exec_path(), "/usr/local/sbin", "/usr/sbin", "/sbin"]
        programs = ("mail", "sendmail")
        paths = [os.path.join(path, program) for path in directories for program in programs]
        if any(os.access(path, os.X_OK) for path in paths):
            return ""
        return _NO_PROGRAM

    def send(self, message: Message, deadline: float) -> str:
        if not self.email.host:
            seconds = min(self.email.timeout, deadline - time.monotonic())
            return self._local(message, max(1.0, seconds))
        mail = self.mail(message)
        remaining = [
            address for address in self.to if not message.only or self.mark(address) in message.only
        ]
        if not remaining:
            return "nothing to send: nobody who still had to get it is a recipient any more"
        try:
            return attempts(lambda: self._smtp(mail, remaining, deadline), self.retries, deadline)
        except Undelivered as error:
            if len(remaining) == len(self.to):
                raise
            # Some have it: they must not get it again, and the others must not be forgotten.
            if error.outlook is not Outlook.PERMANENT:
                error.remaining = tuple(self.mark(address) for address in remaining)
                raise
            self.incomplete = (
                f"{len(remaining)} of {len(self.to)} recipients did not get it: {error.detail}"
            )
            return f"accepted, but {self.incomplete}"

    def _local(self, message: Message, timeout: float) -> str:
        """Pass the message to ``mail``, or to ``sendmail`` where that is installed.

        Arguments hold no secrets: everybody can see them in ``ps``.
        """
        from email.header import Header

        subject = self.subject(message)
        if not subject.isascii():
            # No mail command encodes it in every setting; all of them pass on what is encoded.
            subject = Header(subject, "utf-8").encode(linesep="").replace("\t", " ")
        sender = ["-r", self.given_sender] if self.given_sender else []
        program = "mail"
        try:
            # In the plain C locale s-nail refuses a text with umlauts, and bsd-mailx declares it as
            # ASCII.
            result = self.world.run(
                [program, *sender, "-s", subject, *self.to],
                timeout=timeout,
                env={"LC_ALL": "C.UTF-8"},
                stdin=text_body(message),
            )
        except CommandFailed as first:
            if first.code == CommandFailed.TIMED_OUT:
                raise Undelivered(first.message) from None
            program = "sendmail"
            try:
                result = self.world.run(
                    [program, "-i", "-t", "-f", self.sender],
                    timeout=timeout,
                    stdin=self.mail(message).as_string().replace("\r\n", "\n"),
                )
            except CommandFailed:
                raise Undelivered(_NO_PROGRAM, Outlook.CURABLE) from None
        if result.returncode != 0:
            output = one_line(result.stderr or result.stdout, 200)
            raise Undelivered(f"{program} ended with {result.returncode}: {output}", alone=True)
        return f"given to {program}"

    def _smtp(self, mail: EmailMessage, remaining: list[str], deadline: float) -> str:
        """Send once to the ``remaining`` recipients, and keep in it only those whom a further
        attempt may reach.

        :raises Undelivered: with the server's code; its text only where it can't hold what we sent
            it.
        """
        import smtplib

        timeout = min(self.email.timeout, deadline - time.monotonic())
        if timeout <= 0:
            raise Undelivered("no time left")
        try:
            with contextlib.closing(self._connect(timeout)) as server:
                if self.email.user:
                    self._login(server, self.email.user)
                refused = server.send_message(mail, self.sender, remaining)
                # The server has accepted the mail: after an error in the good-bye it would only be
                # sent again.
                with contextlib.suppress(smtplib.SMTPException, OSError):
                    server.putcmd("quit")
        except smtplib.SMTPRecipientsRefused as error:
            if len(remaining) == len(self.to):
                codes = {code for code, dummy in error.recipients.values()}
                texts = b" ".join(text for dummy, text in error.recipients.values())
                raise Undelivered(
                    f"all recipients were refused ({', '.join(map(str, sorted(codes)))})",
                    _outlook(max(codes, key=lambda code: 400 <= code < 500, default=550), texts),
                ) from None
            # After 421 the server has said nothing about the rest.
            refused = {address: error.recipients.get(address, (421, b"")) for address in remaining}
        except (smtplib.SMTPException, OSError, UnicodeError) as error:
            raise self._failure(error) from None
        return self._check_refused(refused, remaining)

    def _connect(self, timeout: float) -> smtplib.SMTP:
        """Return a connection, protected as the options say."""
        import smtplib

        host = self.email.host or ""
        if self.email.security == "tls":
            # The name is ours: smtplib would ask the resolver for one, without a deadline.
            return smtplib.SMTP_SSL(
                host,
                self.port,
                local_hostname=self.domain,
                timeout=timeout,
                context=tls_context(self.email.ca_file),
            )
        if self.email.security == "none":
            return smtplib.SMTP(host, self.port, local_hostname=self.domain, timeout=timeout)
        context = tls_context(self.email.ca_file)
        server = smtplib.SMTP(host, self.port, local_hostname=self.domain, timeout=timeout)
        try:
            server.starttls(context=context)
        except BaseException:
            server.close()
            raise
        return server

    def _failure(self, error: Exception) -> Undelivered:
        """Return what a failed conversation with the server means."""
        import smtplib
        import socket
        import ssl

        if isinstance(error, ssl.SSLCertVerificationError):
            return Undelivered(
                f"the server's certificate is not trusted: {error.verify_message}", Outlook.CURABLE
            )
        if isinstance(error, smtplib.SMTPNotSupportedError):
            return Undelivered(
                "the server does not offer what was asked for"
                " (STARTTLS, authentication, or UTF-8 addresses)",
                Outlook.CURABLE,
            )
        if isinstance(error, smtplib.SMTPAuthenticationError):
            return Undelivered(
                f"{error.smtp_code}: the server refused user or password",
                Outlook.PASSING if 400 <= error.smtp_code < 500 else Outlook.CURABLE,
            )
        if isinstance(error, smtplib.SMTPResponseException):
            return self._response(error)
        if isinstance(error, ssl.SSLError):
            reason = error.reason or "connection broken"
            return Undelivered(f"TLS failed: {reason}; check email.security and email.port")
        if isinstance(error, UnicodeError):
            return Undelivered(
                "an address or the server's name has characters that can't be sent", Outlook.CURABLE
            )
        if isinstance(error, smtplib.SMTPException) and not isinstance(
            error, smtplib.SMTPServerDisconnected
        ):
            return Undelivered(
                "the server offers no way to log in that is known here (PLAIN, LOGIN, CRAM-MD5)",
                Outlook.CURABLE,
            )
        # smtplib reports a time-out as a closed connection, with the time-out as its cause.
        # socket.timeout is another class before Python 3.10.
        if any(isinstance(cause, socket.timeout) for cause in (error, error.__context__)):
            return Undelivered("no answer in time")
        why = "the server closed the connection"
        if isinstance(error, OSError) and error.strerror:
            why = error.strerror
        return Undelivered(f"no connection: {one_line(why, 200)}")

    def _response(self, error: smtplib.SMTPResponseException) -> Undelivered:
        text = error.smtp_error
        if isinstance(text, bytes):
            text = text.decode("utf-8", "replace")
        quoted = "" if secret.touches(text, self.secrets) else f": {one_line(text, 200)}"
        outlook = _outlook(error.smtp_code, text.encode())
        alone = outlook is Outlook.PASSING and error.smtp_code not in (421, -1)
        return Undelivered(f"{error.smtp_code}{quoted}", outlook, alone=alone)

    def _login(self, server: smtplib.SMTP, user: str) -> None:
        """Log in. smtplib knows only ASCII; other characters go by AUTH PLAIN in UTF-8 (RFC
        4616).
        """
        import base64
        import smtplib

        server.ehlo_or_helo_if_needed()
        mechanisms = server.esmtp_features.get("auth", "").upper().split()
        if "PLAIN" in mechanisms or "LOGIN" in mechanisms:
            # smtplib would begin with CRAM-MD5, which fails on a host in FIPS mode; inside TLS it
            # protects nothing.
            server.esmtp_features["auth"] = " ".join(
                mechanism for mechanism in mechanisms if mechanism != "CRAM-MD5"
            )
        login = f"\0{user}\0{self.password}"
        if login.isascii():
            server.login(user, self.password)
            return
        if "PLAIN" not in mechanisms:
            raise smtplib.SMTPException
        code, text = server.docmd("AUTH", "PLAIN " + base64.b64encode(login.encode()).decode())
        if code != 235:
            raise smtplib.SMTPAuthenticationError(code, text)

    def _check_refused(self, refused: Mapping[str, tuple[int, bytes]], remaining: list[str]) -> str:
        """Return the detail of a mail that some recipient has; keep in ``remaining`` who may get it
        later.

        :raises Undelivered: somebody may.
        """
        codes = ", ".join(sorted({str(code) for code, dummy in refused.values()}))
        accepted = len(remaining) - len(refused)
        remaining[:] = [
            address for address in remaining if 400 <= refused.get(address, (0, b""))[0] < 500
        ]
        for_good = len(refused) - len(remaining)
        if for_good:
            self.incomplete = (
                f"{for_good} of {len(self.to)} recipients were refused for good ({codes})"
            )
        if remaining:
            raise Undelivered(
                f"{len(remaining)} of {len(self.to)} recipients were refused for now ({codes})",
                alone=True,
            )
        if self.incomplete:
            return f"accepted, but {self.incomplete}"
        return f"accepted for {human_count(accepted, 'recipient')}"
