# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Webhooks: HTTP POST of JSON, verified TLS, no redirects to strangers, and nothing of the URL but its host in any text."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from ..errors import FleetError, NotUsable
from ..ports import World
from . import payloads, secret
from .channel import Channel, Undelivered, attempts
from .events import RECOVERY, Event
from .options import DEFAULT_URLS, _url_problem
from .payloads import Unit

_LONGEST_WAIT = 30.0
_LARGEST_ANSWER = 4096
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
_DOMAINS = {".webhook.office.com": "teams", ".logic.azure.com": "teams", ".api.powerplatform.com": "teams"}


def guess(url: str) -> str:
    """Return the payload that the service at C(url) wants, C(plain) when it is not a known one."""
    host = (urlsplit(url).hostname or "").lower()
    return _HOSTS.get(host) or next((name for end, name in _DOMAINS.items() if host.endswith(end)), "plain")


class Webhook(Channel):
    """One address to POST to. Its secrets are read when the channel is made; a problem with them is told when it is to send."""

    kind = "webhook"

    def __init__(self, world: World, hook: Mapping[str, Any], digest_after: int, cooldown: float) -> None:
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
        target = f"{parts.scheme}://{parts.hostname}" if self.url else ""
        if self.payload == "auto":
            self.payload = guess(self.url) if self.url else "plain"
        identity = f"{self.payload} {self.url}" if not hook["name"] else hook["name"]
        super().__init__(world, hook["name"] or self.payload, target, identity, digest_after)
        if self.url:
            self.secrets |= secret.of_url(self.url)

    def _read_url(self, world: World) -> str:
        url = secret.read(self.hook, "url", world) or DEFAULT_URLS.get(self.payload, "")
        problem = _url_problem(url)
        if problem:
            raise NotUsable(f"The webhook's url can't be used: {problem}.", "Check where it comes from.", "url")
        parts = urlsplit(url)
        path = _PATHS.get(guess(url) if self.payload == "auto" else self.payload)
        if path and not parts.path.rstrip("/").endswith(path):
            return urlunsplit(parts._replace(path=parts.path.rstrip("/") + path))
        return url

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
            raise NotUsable("PagerDuty needs an integration key.", "Give routing_key, routing_key_file or routing_key_env.", "routing_key")
        if self.payload == "opsgenie" and not self.api_key:
            raise NotUsable("Opsgenie needs an API key.", "Give api_key, api_key_file or api_key_env.", "api_key")
        for value in (self.routing_key, self.api_key, *(str(one) for one in (self.hook["headers"] or {}).values())):
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
                return "", payloads.from_template(self.hook["template"], payloads.placeholders(unit))
            except (TypeError, ValueError) as error:
                raise Undelivered(f"the template does not give JSON ({type(error).__name__})", passing=False) from error
        return "", {"slack": payloads.slack, "mattermost": payloads.mattermost, "teams": payloads.teams}.get(self.payload, payloads.plain)(unit)

    def send(self, unit: Unit, deadline: float) -> str:
        if not unit.resolve and self.payload in ("pagerduty", "opsgenie") and all(event.kind == RECOVERY for event in unit.events):
            return "nothing to send: other problems of the same incident are still open"
        suffix, content = self.body(unit)
        data = json.dumps(content, ensure_ascii=False).encode("utf-8", "replace")
        url = self.url
        if suffix:
            parts = urlsplit(url)
            path, _mark, query = suffix.partition("?")
            url = urlunsplit(parts._replace(path=parts.path.rstrip("/") + path, query="&".join(one for one in (parts.query, query) if one)))
        headers = {"Content-Type": "application/json; charset=utf-8", "User-Agent": "mlops-fleet-alert", "Accept": "application/json, */*"}
        if self.payload == "opsgenie":
            headers["Authorization"] = f"GenieKey {self.api_key}"
        headers.update({name: str(value) for name, value in (self.hook["headers"] or {}).items()})
        context = _tls(self.hook["ca_file"]) if url.startswith("https:") else None
        status = attempts(lambda: self._post(url, data, headers, context, deadline), self.hook["retries"], deadline)
        if self.payload == "pagerduty" and unit.events[0].kind == "test":
            # A test must not leave an incident behind.
            closing = json.dumps(payloads.pagerduty(Unit(unit.events, unit.incident, True), self.routing_key)).encode()
            self._post(url, closing, headers, context, deadline)
        elif self.payload == "opsgenie" and unit.events[0].kind == "test":
            suffix, content = payloads.opsgenie(Unit(unit.events, unit.incident, True))
            self._post(self.url + suffix, json.dumps(content).encode(), headers, context, deadline)
        return f"HTTP {status}"

    def _post(self, url: str, data: bytes, headers: Mapping[str, str], context: Any, deadline: float) -> int:
        """POST once; follow a redirect that keeps the method and stays on the same host. Return the HTTP status (2xx)."""
        import http.client
        import urllib.error
        import urllib.request

        class Stay(urllib.request.HTTPRedirectHandler):
            """Never follows: what is posted, and to whom, is decided below."""

            def redirect_request(self, *_given: Any, **_named: Any) -> None:
                return None

        handlers: list[Any] = [Stay()] + ([urllib.request.HTTPSHandler(context=context)] if context is not None else [])
        opener = urllib.request.build_opener(*handlers)
        for _attempt in range(_REDIRECTS + 1):
            timeout = min(self.hook["timeout"], deadline - time.monotonic())
            if timeout <= 0:
                raise Undelivered("no time left", passing=True)
            address, authorization = _without_login(url)
            request = urllib.request.Request(address, data=data, headers={**authorization, **headers}, method="POST")  # noqa: S310  # http(s) only, checked
            try:
                with opener.open(request, timeout=timeout) as answer:
                    return int(answer.status)
            except urllib.error.HTTPError as error:
                with error:
                    target = error.headers.get("Location", "") if error.code in (307, 308) else ""
                    if target and _same_host(url, target):
                        url = _joined(url, target)
                        continue
                    raise self._refusal(error) from None
            except urllib.error.URLError as error:
                raise _trouble(error.reason) from None
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise _trouble(error) from None
        raise Undelivered("too many redirects", passing=False)

    def _refusal(self, error: Any) -> Undelivered:
        """What an HTTP error means. Only the number and its standard name are the server's; its own words only when free of our secrets."""
        import http.client

        name = f"HTTP {error.code} {http.client.responses.get(error.code, '')}".strip()
        if 300 <= error.code < 400:
            return Undelivered(f"{name}: the address redirects, which is not followed for a POST; give the final address", passing=False)
        if error.code == 429 or error.code >= 500:
            wait = _retry_after(error.headers.get("Retry-After"))
            if wait is not None and wait > _LONGEST_WAIT:
                # attempts() gives up at once: no pause fits.
                return Undelivered(f"{name}, wait asked for: {wait:.0f} s", passing=True, wait=float("inf"))
            return Undelivered(name, passing=True, wait=wait)
        if error.code == 408:
            return Undelivered(name, passing=True)
        try:
            said = " ".join(error.read(_LARGEST_ANSWER).decode("utf-8", "replace").split())
        except (OSError, http.client.HTTPException):
            said = ""
        if said and said.isprintable() and not said.startswith("<") and not secret.touches(said, self.secrets):
            name += f": {said[:200]}"
        return Undelivered(name, passing=False)


def _tls(ca_file: str | None) -> Any:
    import ssl

    try:
        context = ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise Undelivered(f"ca_file {ca_file} can't be used ({type(error).__name__})", passing=False) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _trouble(error: Any) -> Undelivered:
    """What a failed connection means, in our own words: exception texts of the HTTP library hold URLs and header values."""
    import socket
    import ssl

    if isinstance(error, ssl.SSLCertVerificationError):
        return Undelivered(f"the server's certificate is not trusted: {error.verify_message}", passing=False)
    if isinstance(error, ssl.SSLError):
        return Undelivered(f"TLS failed: {error.reason or 'connection broken'}", passing=True)
    if isinstance(error, socket.timeout):  # another class before Python 3.10
        return Undelivered("no answer in time", passing=True)
    if isinstance(error, OSError) and error.strerror:
        return Undelivered(f"no connection: {error.strerror}", passing=True)
    return Undelivered(f"the connection broke ({type(error).__name__})", passing=True)


def _retry_after(value: str | None) -> float | None:
    """Return the seconds that a Retry-After header asks for (number or HTTP date)."""
    if not value:
        return None
    if value.strip().isdigit():
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


def _joined(url: str, target: str) -> str:
    from urllib.parse import urljoin

    return urljoin(url, target)


def _same_host(url: str, target: str) -> bool:
    try:
        old, new = urlsplit(url), urlsplit(_joined(url, target))
        return (old.scheme, old.hostname, old.port) == (new.scheme, new.hostname, new.port)
    except ValueError:
        return False
