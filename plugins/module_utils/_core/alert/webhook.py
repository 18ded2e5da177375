# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Webhooks: HTTP POST of JSON with verified TLS; redirects stay on the host, and no text shows more
of the URL than that.
"""

from __future__ import annotations

import functools
import os
import re
import string
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from ..errors import FleetError, NotUsable
from ..ports import World
from . import secret
from .bodies import Context, encode
from .channel import Channel, Outlook, Undelivered, attempts
from .events import RECOVERY, TEST, Event
from .messages import Message
from .options import WebhookOptions, url_problem
from .payloads import AUTO, DEFAULT, PAYLOADS, of_host
from .proxy import bypasses_proxy
from .tls import tls_context

_LONGEST_WAIT = 30.0
_LARGEST_ANSWER = 4096
#: docs.slack.dev, "Handling errors" of incoming webhooks.
_SLACK_ERRORS = frozenset(
    (
        "action_prohibited channel_is_archived channel_not_found invalid_payload "
        "invalid_token no_active_hooks no_service no_service_id no_team no_text "
        "posting_to_general_channel_denied rollup_error team_disabled too_many_attachments "
        "user_not_found"
    ).split()
)
#: Seconds for reading the text of an answer.
_READING = 2.0
_REDIRECTS = 3

#: About this very message: malformed, too large, of a kind that is not accepted (RFC 9110), or the
#: receiver is gone (410).
_PERMANENT = frozenset({400, 406, 410, 411, 413, 414, 415, 422, 431})
#: Services that answer a wrong key, token or hook with 400, 422 or even 200 as they do a malformed
#: message: PagerDuty, Opsgenie, Mattermost, Slack's methods.
_CREDENTIALS = re.compile(
    r"routing.?key|integration.?key|service.?key|api.?key|key format"
    r"|(invalid|unknown|bad|wrong).(auth|token|credential|webhook)|token.(expired|revoked|invalid)"
    r"|no_service|no_active_hooks|no_team|team_disabled|channel_not_found|not_authed"
    r"|unauthori[sz]ed",
    re.I,
)


def _outlook(status: int, text: str = "") -> Outlook:
    """Return what an HTTP status other than 2xx means for the message.

    :param text: of the answer.
    """
    if status in (408, 425, 429) or status >= 500:
        return Outlook.PASSING
    if status in _PERMANENT and not _CREDENTIALS.search(text):
        return Outlook.PERMANENT
    return Outlook.CURABLE


class TooLarge(Undelivered):
    """The server refused a body because of its size."""


class Webhook(Channel):
    """One address to POST to.

    Its address is read when the channel is made, because its name depends on it; a problem with it
    is reported when there is something to send.
    """

    kind = "webhook"

    def __init__(
        self, world: World, hook: WebhookOptions, digest_after: int, cooldown: float
    ) -> None:
        self.hook = hook
        self.problem: FleetError | None = None
        self.url = ""
        self.payload = PAYLOADS[DEFAULT if hook.payload == AUTO else hook.payload]
        self.context = Context(template=hook.template, lifetime=2 * cooldown)
        try:
            self._read_url(world)
        except FleetError as error:
            self.problem = error
        identity = hook.name or f"{self.payload.name} {self.url}"
        super().__init__(
            world, hook.name or self.payload.name, _target(self.url), identity, digest_after
        )
        self.retries = hook.retries
        if self.url:
            self.secrets |= secret.of_url(self.url)

    def _read_url(self, world: World) -> None:
        """Set the address and, where it depends on that, the payload.

        :raises NotUsable: the address can't be used.
        """
        url = secret.read(self.hook.url_source, world) or self.payload.default_url
        problem = url_problem(url)
        if problem:
            raise NotUsable(
                f"The webhook's url can't be used: {problem}.", "Check where it comes from.", "url"
            )
        parts = urlsplit(_wire(url))
        if self.hook.payload == AUTO:
            self.payload = of_host((parts.hostname or "").lower())
        path = self.payload.path
        if path:
            base = parts.path.rstrip("/")
            parts = parts._replace(path=base if base.endswith(path) else base + path)
        self.url = urlunsplit(parts)

    def wants(self, event: Event) -> bool:
        return self.hook.send_resolved or event.kind != RECOVERY

    def messages(self, events: Sequence[Event], still_open: Iterable[str]) -> list[Message]:
        return self.payload.messages(events, self.digest_after, still_open)

    def open(self) -> None:
        if self.problem is not None:
            raise self.problem
        self.context = self.context._replace(
            routing_key=secret.read(self.hook.routing_key_source, self.world) or "",
            api_key=secret.read(self.hook.api_key_source, self.world) or "",
            now=self.world.clock.now(),
        )
        required = self.payload.required_option
        if required and not getattr(self.context, required):
            raise NotUsable(
                f"{self.payload.service} needs the option {required}.",
                f"Give {required}, {required}_file or {required}_env.",
                required,
            )
        headers = (str(value) for value in (self.hook.headers or {}).values())
        for value in (self.context.routing_key, self.context.api_key, *headers):
            self.secrets |= secret.forms(value)

    def send(self, message: Message, deadline: float) -> str:
        over = all(event.kind == RECOVERY for event in message.events)
        if self.payload.has_incidents and over and not message.resolve:
            return "nothing to send: other problems of the same incident are still open"
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "User-Agent": "mlops-fleet-alert",
            "Accept": "application/json, */*",
        }
        if self.payload.authorization:
            headers["Authorization"] = self.payload.authorization.format(**self.context._asdict())
        headers.update({name: str(value) for name, value in (self.hook.headers or {}).items()})
        context = tls_context(self.hook.ca_file) if self.url.startswith("https:") else None
        posts = [message]
        if message.kind == TEST and self.payload.has_incidents:
            # A test must not leave an incident behind.
            posts.append(Message(message.events, message.incident, True))
        for post in posts:
            status = self._post_message(post, headers, context, deadline)
        return f"accepted, but {self.incomplete}" if self.incomplete else f"HTTP {status}"

    def _post_message(
        self, message: Message, headers: Mapping[str, str], context: Any, deadline: float
    ) -> int:
        """Post a message, in halves where the server calls it too large; return the HTTP status."""
        url, data = self._request(message)
        try:
            return attempts(
                functools.partial(self._post, url, data, headers, context, deadline),
                self.retries,
                deadline,
            )
        except TooLarge as error:
            halves = self.payload.halves(message)
            if not halves:
                raise
            refused = error
        status = 0
        for half in halves:
            try:
                status = self._post_message(half, headers, context, deadline)
            except TooLarge as error:
                refused = error
                self.incomplete = f"an event is too large for the server: {error.detail}"
        if not status:
            raise refused
        return status

    def _request(self, message: Message) -> tuple[str, bytes]:
        """Return where to post a message, and its bytes.

        :raises Undelivered: the user's template does not give JSON.
        """
        try:
            request = self.payload.body(message, self.context)
            data = encode(request.content)
        except (TypeError, ValueError) as error:
            raise Undelivered(
                f"the template does not give JSON ({type(error).__name__})", Outlook.PERMANENT
            ) from error
        parts = urlsplit(self.url)
        path, dummy, query = request.suffix.partition("?")
        queries = [part for part in (parts.query, query) if part]
        return urlunsplit(parts._replace(path=parts.path + path, query="&".join(queries))), data

    def _post(
        self, url: str, data: bytes, headers: Mapping[str, str], context: Any, deadline: float
    ) -> int:
        """POST once; follow a redirect that keeps the method and stays on the same host.

        Return the HTTP status (2xx).
        """
        import http.client
        import urllib.error
        import urllib.request

        class Stay(urllib.request.HTTPRedirectHandler):
            """Never follows: what is posted, and where to, is decided below."""

            def http_error_302(self, *_given: Any) -> None:
                return None

            http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302  # type: ignore[assignment]

        handlers: list[Any] = [Stay()]
        if context is not None:
            handlers.append(urllib.request.HTTPSHandler(context=context))
        if bypasses_proxy(urlsplit(url).hostname or "", os.environ):
            handlers.append(urllib.request.ProxyHandler({}))
        opener = urllib.request.build_opener(*handlers)
        for dummy in range(_REDIRECTS + 1):
            timeout = min(self.hook.timeout, deadline - time.monotonic())
            if timeout <= 0:
                raise Undelivered("no time left")
            address, authorization = _without_login(url)
            sent = {**authorization, **headers}
            request = urllib.request.Request(address, data, sent, method="POST")  # noqa: S310 (http(s) only, checked)
            try:
                with opener.open(request, timeout=timeout) as answer:
                    self._check_text(answer)
                    return int(answer.status)
            except urllib.error.HTTPError as error:
                with error:
                    target = error.headers.get("Location", "") if error.code in (307, 308) else ""
                    onward = _onward(url, target) if target else None
                    if onward:
                        url = onward
                        continue
                    raise self._refusal(error) from None
            except urllib.error.URLError as error:
                raise _trouble(error.reason) from None
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise _trouble(error) from None
        raise Undelivered("too many redirects", Outlook.CURABLE)

    def _check_text(self, answer: Any) -> None:
        """Read an answer with status 2xx: chat services may report an error only in its text.

        :raises Undelivered: it does.
        """
        if not self.payload.answers_in_text:
            return
        try:
            text = _text(answer)
        except Undelivered:  # the time is over, but the message was accepted
            return
        # Teams passes on the status of the service behind it.
        inner = re.search(r"returned HTTP error (\d{3})", text)
        code = int(inner.group(1)) if inner else 0
        if inner or text in _SLACK_ERRORS or _denies(text):
            detail = f"HTTP {answer.status}, but not taken" + self._quoted(text)
            raise Undelivered(detail, _outlook(code or 400, text), alone=code >= 500)

    def _quoted(self, text: str) -> str:
        """Return the server's text for a detail, nothing when it is no plain text or may hold our
        secrets.
        """
        if not text or not text.isprintable() or text.startswith("<"):
            return ""
        return "" if secret.touches(text, self.secrets) else f": {text[:200]}"

    def _refusal(self, error: Any) -> Undelivered:
        """Return what an HTTP error means, with the server's text only where it is free of our
        secrets.
        """
        import http.client

        name = f"HTTP {error.code} {http.client.responses.get(error.code, '')}".strip()
        if 300 <= error.code < 400:
            return Undelivered(
                f"{name}: the address redirects, which is not followed for a POST;"
                " give the final address",
                Outlook.CURABLE,
            )
        if _outlook(error.code) is Outlook.PASSING:
            wait = _retry_after(error.headers.get("Retry-After"))
            if wait is not None and wait > _LONGEST_WAIT:
                # attempts() gives up at once: no pause fits.
                return Undelivered(f"{name}, wait asked for: {wait:.0f} s", wait=float("inf"))
            # 429 and a gateway's errors are about the service, others may be about this message.
            return Undelivered(name, wait=wait, alone=error.code not in (429, 502, 503, 504))
        text = _text(error.fp)
        kind = TooLarge if error.code == 413 else Undelivered
        return kind(name + self._quoted(text), _outlook(error.code, text))


def _target(url: str) -> str:
    """Return the part of an URL that is no secret: scheme and host."""
    parts = urlsplit(url)
    if not parts.hostname:
        return ""
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}"


def _text(answer: Any) -> str:
    """Return the text of an answer in one line, as far as it comes soon: it may be endless, or a
    byte now and then.
    """
    import http.client

    data, end = b"", time.monotonic() + _READING
    try:
        while len(data) < _LARGEST_ANSWER and time.monotonic() < end:
            more = answer.read1(_LARGEST_ANSWER)
            if not more:
                break
            data += more
    except (OSError, http.client.HTTPException, ValueError):
        pass
    return " ".join(data.decode("utf-8", "replace").split())


def _denies(text: str) -> bool:
    import json

    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(content, dict) and (
        content.get("ok") is False or content.get("success") is False
    )


def _trouble(error: Any) -> Undelivered:
    """Return what a failed connection means, without the HTTP library's texts: those hold URLs and
    header values.
    """
    import http.client
    import socket
    import ssl

    if isinstance(error, ssl.SSLCertVerificationError):
        return Undelivered(
            f"the server's certificate is not trusted: {error.verify_message}", Outlook.CURABLE
        )
    if isinstance(error, ssl.SSLError):
        return Undelivered(f"TLS failed: {error.reason or 'connection broken'}")
    if isinstance(error, socket.timeout):  # another class before Python 3.10
        return Undelivered("no answer in time")
    if isinstance(error, OSError) and error.strerror:
        return Undelivered(f"no connection: {error.strerror}")
    refused = re.match(r"Tunnel connection failed: (\d{3})", str(error))
    if refused:
        return Undelivered(
            f"the proxy (https_proxy) refused the connection: HTTP {refused.group(1)}"
        )
    if isinstance(error, (UnicodeError, http.client.InvalidURL)):
        return Undelivered(
            "the host name of the address, or of the proxy, can't be used", Outlook.CURABLE
        )
    if isinstance(error, str):
        return Undelivered(
            "the request can't be made; check http_proxy and https_proxy", Outlook.CURABLE
        )
    return Undelivered(f"the connection broke ({type(error).__name__})")


def _retry_after(value: str | None) -> float | None:
    """Return the seconds that a Retry-After header asks for (number or HTTP date), None for
    none.
    """
    if not value:
        return None
    if re.fullmatch(r"\s*[0-9]+\s*", value):
        return float(value.strip()[:9])
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None


def _without_login(url: str) -> tuple[str, dict[str, str]]:
    """Move ``user:password@`` of an URL into an Authorization header: urllib would take it for a
    part of the host.
    """
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return url, {}
    import base64
    from urllib.parse import unquote

    login, dummy, host = parts.netloc.rpartition("@")
    user, dummy, password = login.partition(":")
    token = base64.b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode()
    return urlunsplit(parts._replace(netloc=host)), {"Authorization": f"Basic {token}"}


def _wire(url: str) -> str:
    """Return an URL with everything but ASCII quoted, host and login apart, which have other
    rules.
    """
    parts = urlsplit(url)
    return urlunsplit(
        parts._replace(
            path=quote(parts.path, safe=string.punctuation),
            query=quote(parts.query, safe=string.punctuation),
        )
    )


def _onward(url: str, location: str) -> str | None:
    """Return where a redirect leads; None when that is another host or no address at all."""
    from urllib.parse import urljoin

    try:
        target = _wire(urljoin(url, location))
        old, new = urlsplit(url), urlsplit(target)
        same = (old.scheme, old.hostname, old.port) == (new.scheme, new.hostname, new.port)
    except ValueError:
        return None
    return target if same and url_problem(target) is None else None
