# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Webhooks: HTTP POST of JSON, verified TLS, no redirects to strangers, and nothing of the URL but its host in any text."""

from __future__ import annotations

import functools
import json
import re
import string
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from ..errors import FleetError, NotUsable
from ..ports import World
from . import payloads, secret
from .channel import Channel, Undelivered, attempts
from .events import RECOVERY, TEST, Event
from .options import DEFAULT_URLS, _url_problem
from .payloads import Unit

_LONGEST_WAIT = 30.0
_LARGEST_ANSWER = 4096
#: docs.slack.dev, "Handling errors" of incoming webhooks.
_SLACK_ERRORS = frozenset(
    "action_prohibited channel_is_archived channel_not_found invalid_payload invalid_token no_active_hooks no_service no_service_id no_team no_text"
    " posting_to_general_channel_denied rollup_error team_disabled too_many_attachments user_not_found".split()
)
#: Seconds for the words of an answer; then what has come must do.
_READING = 2.0
_REDIRECTS = 3
_PATHS = {"pagerduty": "/v2/enqueue", "opsgenie": "/v2/alerts", "alertmanager": "/api/v2/alerts"}
_HOSTS = {
    "hooks.slack.com": "slack",
    "hooks.slack-gov.com": "slack",
    "events.pagerduty.com": "pagerduty",
    "events.eu.pagerduty.com": "pagerduty",
    "api.opsgenie.com": "opsgenie",
    "api.eu.opsgenie.com": "opsgenie",
}
_DOMAINS = {
    ".webhook.office.com": "teams",
    ".logic.azure.com": "teams",
    ".api.powerplatform.com": "teams",
}


def guess(url: str) -> str:
    """Return the payload that the service at C(url) wants, C(plain) when it is not a known one."""
    host = (urlsplit(url).hostname or "").lower()
    return _HOSTS.get(host) or next(
        (name for end, name in _DOMAINS.items() if host.endswith(end)), "plain"
    )


class Webhook(Channel):
    """One address to POST to. Its secrets are read when the channel is made; a problem with them is told when it is to send."""

    kind = "webhook"

    def __init__(
        self, world: World, hook: Mapping[str, Any], digest_after: int, cooldown: float
    ) -> None:
        self.hook = hook
        self.cooldown = cooldown
        self.problem: FleetError | None = None
        self.url = ""
        self.payload = hook["payload"]
        try:
            self.url = self._read_url(world)
        except FleetError as error:
            self.problem = error
        parts = urlsplit(self.url)
        host = parts.hostname or ""
        target = (
            f"{parts.scheme}://[{host}]"
            if ":" in host
            else f"{parts.scheme}://{host}"
            if host
            else ""
        )
        if self.payload == "auto":
            self.payload = guess(self.url) if self.url else "plain"
        identity = f"{self.payload} {self.url}" if not hook["name"] else hook["name"]
        super().__init__(world, hook["name"] or self.payload, target, identity, digest_after)
        self.retries = hook["retries"]
        if self.url:
            self.secrets |= secret.of_url(self.url)

    def _read_url(self, world: World) -> str:
        url = secret.read(self.hook, "url", world) or DEFAULT_URLS.get(self.payload, "")
        problem = _url_problem(url)
        if problem:
            raise NotUsable(
                f"The webhook's url can't be used: {problem}.", "Check where it comes from.", "url"
            )
        parts = urlsplit(_wire(url))
        path = _PATHS.get(guess(url) if self.payload == "auto" else self.payload)
        if path:
            base = parts.path.rstrip("/")
            parts = parts._replace(path=base if base.endswith(path) else base + path)
        return urlunsplit(parts)

    def wants(self, event: Event) -> bool:
        return bool(self.hook["send_resolved"]) or event.kind != RECOVERY

    def units(self, events: Sequence[Event], still_open: Iterable[str]) -> list[Unit]:
        if self.payload in ("pagerduty", "opsgenie"):
            return payloads.by_incident(events, still_open)
        if self.payload in ("alertmanager", "plain"):
            return payloads.together(events)
        return super().units(events, still_open)

    def open(self) -> None:
        if self.problem is not None:
            raise self.problem
        self.routing_key = secret.read(self.hook, "routing_key", self.world) or ""
        self.api_key = secret.read(self.hook, "api_key", self.world) or ""
        if self.payload == "pagerduty" and not self.routing_key:
            raise NotUsable(
                "PagerDuty needs an integration key.",
                "Give routing_key, routing_key_file or routing_key_env.",
                "routing_key",
            )
        if self.payload == "opsgenie" and not self.api_key:
            raise NotUsable(
                "Opsgenie needs an API key.",
                "Give api_key, api_key_file or api_key_env.",
                "api_key",
            )
        for value in (
            self.routing_key,
            self.api_key,
            *(str(one) for one in (self.hook["headers"] or {}).values()),
        ):
            if value:
                self.secrets |= secret.forms(value)

    def body(self, unit: Unit) -> tuple[str, Any]:
        """Return what to append to the URL, and the JSON to send. :raises Undelivered: the user's template does not give JSON."""
        if self.payload == "pagerduty":
            return "", payloads.pagerduty(unit, self.routing_key)
        if self.payload == "opsgenie":
            return payloads.opsgenie(unit)
        if self.payload == "alertmanager":
            return "", payloads.alertmanager(unit, 2 * self.cooldown)
        if self.payload == "template":
            try:
                secrets = {"api_key": self.api_key, "routing_key": self.routing_key}
                return "", payloads.from_template(
                    self.hook["template"],
                    {**payloads.placeholders(unit), **{k: v for k, v in secrets.items() if v}},
                )
            except (TypeError, ValueError) as error:
                raise Undelivered(
                    f"the template does not give JSON ({type(error).__name__})", passing=False
                ) from error
        return "", {
            "slack": payloads.slack,
            "mattermost": payloads.mattermost,
            "teams": payloads.teams,
        }.get(self.payload, payloads.plain)(unit)

    def send(self, unit: Unit, deadline: float) -> str:
        if (
            not unit.resolve
            and self.payload in ("pagerduty", "opsgenie")
            and all(event.kind == RECOVERY for event in unit.events)
        ):
            return "nothing to send: other problems of the same incident are still open"
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "User-Agent": "mlops-fleet-alert",
            "Accept": "application/json, */*",
        }
        if self.payload == "opsgenie":
            headers["Authorization"] = f"GenieKey {self.api_key}"
        headers.update({name: str(value) for name, value in (self.hook["headers"] or {}).items()})
        context = _tls(self.hook["ca_file"]) if self.url.startswith("https:") else None
        units = [unit]
        if unit.kind == TEST and self.payload in ("pagerduty", "opsgenie"):
            units.append(
                Unit(unit.events, unit.incident, True)
            )  # a test must not leave an incident behind
        for one in units:
            url, data = self._request(one)
            status = attempts(
                functools.partial(self._post, url, data, headers, context, deadline),
                self.retries,
                deadline,
            )
        return f"HTTP {status}"

    def _request(self, unit: Unit) -> tuple[str, bytes]:
        """Return where to post a message, and its bytes. :raises Undelivered: see body."""
        suffix, content = self.body(unit)
        parts = urlsplit(self.url)
        path, _mark, query = suffix.partition("?")
        if suffix:
            parts = parts._replace(
                path=parts.path + path, query="&".join(one for one in (parts.query, query) if one)
            )
        try:
            return urlunsplit(parts), json.dumps(
                content, ensure_ascii=False, allow_nan=False
            ).encode("utf-8", "replace")
        except ValueError as error:
            raise Undelivered(
                f"the template does not give JSON ({type(error).__name__})", passing=False
            ) from error

    def _post(
        self, url: str, data: bytes, headers: Mapping[str, str], context: Any, deadline: float
    ) -> int:
        """POST once; follow a redirect that keeps the method and stays on the same host. Return the HTTP status (2xx)."""
        import http.client
        import urllib.error
        import urllib.request

        class Stay(urllib.request.HTTPRedirectHandler):
            """Never follows: what is posted, and to whom, is decided below."""

            def http_error_302(self, *_given: Any) -> None:
                return None

            http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302  # type: ignore[assignment]

        handlers: list[Any] = [Stay()] + (
            [urllib.request.HTTPSHandler(context=context)] if context is not None else []
        )
        opener = urllib.request.build_opener(*handlers)
        for _attempt in range(_REDIRECTS + 1):
            timeout = min(self.hook["timeout"], deadline - time.monotonic())
            if timeout <= 0:
                raise Undelivered("no time left", passing=True)
            address, authorization = _without_login(url)
            sent = {**authorization, **headers}
            request = urllib.request.Request(address, data, sent, method="POST")  # noqa: S310 (http(s) only, checked)
            try:
                with opener.open(request, timeout=timeout) as answer:
                    self._judge(answer)
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
        raise Undelivered("too many redirects", passing=False)

    def _judge(self, answer: Any) -> None:
        """Chat services may say only in words that a message was not taken. :raises Undelivered: it was not."""
        if self.payload not in ("slack", "mattermost", "teams", "template"):
            return
        try:
            said = _said(answer)
        except Undelivered:  # the time is over, but the message has been taken
            return
        told = re.search(
            r"returned HTTP error (\d{3})", said
        )  # Teams passes on what its own inside answered
        code = int(told.group(1)) if told else 0
        if told or said in _SLACK_ERRORS or _denies(said):
            detail = f"HTTP {answer.status}, but not taken" + self._quoted(said)
            raise Undelivered(detail, passing=code == 429 or code >= 500, alone=code >= 500)

    def _quoted(self, said: str) -> str:
        """Return the server's own words for a detail: only when they are free of our secrets."""
        return (
            f": {said[:200]}"
            if said
            and said.isprintable()
            and not said.startswith("<")
            and not secret.touches(said, self.secrets)
            else ""
        )

    def _refusal(self, error: Any) -> Undelivered:
        """What an HTTP error means. Only the number and its standard name are the server's; its own words only when free of our secrets."""
        import http.client

        name = f"HTTP {error.code} {http.client.responses.get(error.code, '')}".strip()
        if 300 <= error.code < 400:
            return Undelivered(
                f"{name}: the address redirects, which is not followed for a POST; give the final address",
                passing=False,
            )
        if error.code in (408, 425, 429) or error.code >= 500:
            wait = _retry_after(error.headers.get("Retry-After"))
            if wait is not None and wait > _LONGEST_WAIT:
                # attempts() gives up at once: no pause fits.
                return Undelivered(
                    f"{name}, wait asked for: {wait:.0f} s", passing=True, wait=float("inf")
                )
            # 429 and the gateway's numbers are about the service, others may be about this message.
            return Undelivered(
                name, passing=True, wait=wait, alone=error.code not in (429, 502, 503, 504)
            )
        return Undelivered(name + self._quoted(_said(error.fp)), passing=False)


def _tls(ca_file: str | None) -> Any:
    import ssl

    try:
        context = ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise Undelivered(
            f"ca_file {ca_file} can't be used ({type(error).__name__})", passing=False
        ) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _said(answer: Any) -> str:
    """Return the words of an answer in one line, as far as they come soon: a body may be endless, or a byte now and then."""
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


def _denies(said: str) -> bool:
    try:
        found = json.loads(said)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and (found.get("ok") is False or found.get("success") is False)


def _trouble(error: Any) -> Undelivered:
    """What a failed connection means, in our own words: exception texts of the HTTP library hold URLs and header values."""
    import http.client
    import socket
    import ssl

    if isinstance(error, ssl.SSLCertVerificationError):
        return Undelivered(
            f"the server's certificate is not trusted: {error.verify_message}", passing=False
        )
    if isinstance(error, ssl.SSLError):
        return Undelivered(f"TLS failed: {error.reason or 'connection broken'}", passing=True)
    if isinstance(error, socket.timeout):  # another class before Python 3.10
        return Undelivered("no answer in time", passing=True)
    if isinstance(error, OSError) and error.strerror:
        return Undelivered(f"no connection: {error.strerror}", passing=True)
    refused = re.match(r"Tunnel connection failed: (\d{3})", str(error))
    if refused:
        return Undelivered(
            f"the proxy (https_proxy) refused the connection: HTTP {refused.group(1)}", passing=True
        )
    if isinstance(error, (UnicodeError, http.client.InvalidURL)):
        return Undelivered(
            "the host name of the address, or of the proxy, can't be used", passing=False
        )
    if isinstance(error, str):
        return Undelivered(
            "the request can't be made; check http_proxy and https_proxy", passing=False
        )
    return Undelivered(f"the connection broke ({type(error).__name__})", passing=True)


def _retry_after(value: str | None) -> float | None:
    """Return the seconds that a Retry-After header asks for (number or HTTP date)."""
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
    """Take C(user:password@) out of an URL (urllib would ask the resolver for it) into an Authorization header."""
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return url, {}
    import base64
    from urllib.parse import unquote

    login, _mark, place = parts.netloc.rpartition("@")
    user, _mark, password = login.partition(":")
    token = base64.b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode()
    return urlunsplit(parts._replace(netloc=place)), {"Authorization": f"Basic {token}"}


def _wire(url: str) -> str:
    """Return an URL with everything but ASCII quoted, host and login apart, which have other rules."""
    parts = urlsplit(url)
    return urlunsplit(
        parts._replace(
            path=quote(parts.path, safe=string.punctuation),
            query=quote(parts.query, safe=string.punctuation),
        )
    )


def _onward(url: str, target: str) -> str | None:
    """Return where a redirect leads; None when that is another host or no address at all."""
    from urllib.parse import urljoin

    try:
        found = _wire(urljoin(url, target))
        old, new = urlsplit(url), urlsplit(found)
        return (
            found
            if (old.scheme, old.hostname, old.port) == (new.scheme, new.hostname, new.port)
            and _url_problem(found) is None
            else None
        )
    except ValueError:
        return None
