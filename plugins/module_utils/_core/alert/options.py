# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of the alert part."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, TypeVar

from ..errors import OptionError
from ..options import OptionSet, option
from ..system.roots import refuse_dangerous
from . import payloads
from .secret import CREDENTIALS, SecretSource

_Set = TypeVar("_Set", bound="OptionSet")

SEVERITIES = ("critical", "warning", "unknown", "info", "pass")

_ADDRESS = re.compile(r"(?!-)[^\s<>,;:\"()\[\]\\\x00-\x1f\x7f]*\Z")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+\Z")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
#: Headers that the HTTP library sets itself.
_RESERVED_HEADERS = frozenset({"host", "content-length", "transfer-encoding", "connection"})
_THIS_HOST = ("localhost", "127.0.0.1", "::1")


def url_problem(url: str) -> str | None:
    """Return what is wrong with the address of a webhook, None when it can be used."""
    from urllib.parse import urlsplit

    if re.search(r"[\x00-\x20\x7f\ud800-\udfff]", url):
        return "it contains blanks or control characters"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "it is not a valid address"
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        return "it must begin with https:// (or http://) and name a host"
    return None


def _variable_problem(variable: str) -> str | None:
    if _VARIABLE.match(variable):
        return None
    return "it is not the name of an environment variable"


def _line_problem(value: str) -> str | None:
    if re.search(r"[\r\n]", value):
        return "it contains a line break"
    return None


def _file_problem(path: str) -> str | None:
    if os.path.isabs(path) or path.startswith(CREDENTIALS):
        return None
    return f"it must be an absolute path, or begin with {CREDENTIALS}"


def _host_problem(host: str) -> str | None:
    if re.search(r"[\s/@\[\]]", host) or host.count(":") == 1:
        return "it must be a plain host name or address; the port goes into port"
    return None


def _check_source(source: SecretSource, where: str, required: bool = False) -> None:
    """Check that a secret comes from one place.

    :raises OptionError: from several, or from none though required.
    """
    if len(source.given) > 1:
        raise OptionError(
            f"Options {where}.{source.given[0]} and {where}.{source.given[1]} exclude each other.",
            "Keep one.",
            f"{where}.{source.name}",
        )
    if required and not source.given:
        raise OptionError(
            f"Option {where}.{source.name} is required.",
            f"Give {source.name}, {source.name}_file or {source.name}_env.",
            f"{where}.{source.name}",
        )


class EmailOptions(OptionSet):
    """Where e-mail goes and which server takes it."""

    to: list[str] = option(
        type="list",
        elements="str",
        required=True,
        env=("ALERT_EMAIL",),
        help="Addresses of the recipients.",
    )
    sender: str | None = option(
        aliases=("from",), help="Address of the sender; default mlops-fleet@HOSTNAME."
    )
    host: str | None = option(
        check=_host_problem, help="SMTP server; without it the local mail command is used."
    )
    port: int | None = option(
        type="int",
        minimum=1,
        maximum=65535,
        help="Default 587 (starttls), 465 (tls), 25 (none).",
    )
    security: str = option(
        choices=("starttls", "tls", "none"),
        default="starttls",
        help="How the connection to the SMTP server is protected.",
    )
    user: str | None = option(help="User name for the SMTP server.")
    password: str | None = option(
        secret=True, check=_line_problem, help="Password for the SMTP server."
    )
    password_file: str | None = option(
        type="path",
        relative_ok=True,
        check=_file_problem,
        help="File (mode 0600) with the password for the SMTP server.",
    )
    password_env: str | None = option(
        check=_variable_problem,
        help="Environment variable with the password for the SMTP server.",
    )
    ca_file: str | None = option(type="path", help="Certificates to trust instead of the system's.")
    timeout: float = option(
        type="float",
        default=10.0,
        minimum=0.1,
        maximum=300,
        help="Seconds to wait for each answer.",
    )
    retries: int = option(
        type="int",
        default=2,
        minimum=0,
        maximum=10,
        help="Further attempts after a temporary failure.",
    )
    subject_prefix: str = option(
        default="[mlops-fleet]", check=_line_problem, help="Beginning of every subject."
    )

    @property
    def password_source(self) -> SecretSource:
        """Where the password comes from."""
        return SecretSource("password", self.password, self.password_file, self.password_env)

    def check_together(self) -> None:
        """Check addresses, the source of the password, and what needs a server.

        :raises OptionError:
        """
        if not self.to:
            raise OptionError("Option email.to is empty.", "Name at least one address.", "email.to")
        for address in [*self.to, self.sender or ""]:
            if not _ADDRESS.match(address):
                raise OptionError(
                    f"{address!r} is not a plain e-mail address.",
                    "Write it as name@example.com.",
                    "email.to",
                )
        _check_source(self.password_source, "email", required=bool(self.user))
        if not self.host:
            self._check_local()
        if self.password_source.given and not self.user:
            raise OptionError("Option email.password needs email.user.", "", "email.user")
        if self.user and self.security == "none" and self.host not in _THIS_HOST:
            raise OptionError(
                "A password is never sent over an unprotected connection.",
                "Use email.security starttls or tls.",
                "email.security",
            )

    def _check_local(self) -> None:
        needs_server = {
            "port": self.port,
            "user": self.user,
            "password": self.password,
            "password_file": self.password_file,
            "password_env": self.password_env,
            "ca_file": self.ca_file,
        }
        for name, value in needs_server.items():
            if value:
                raise OptionError(
                    f"Option email.{name} needs email.host.",
                    "Name the SMTP server, or leave both out for the local mail command.",
                    "email.host",
                )


class WebhookOptions(OptionSet):
    """One address to POST to, and the form of what is posted."""

    url: str | None = option(
        secret=True, check=url_problem, help="Address to POST to; a secret as a whole."
    )
    url_file: str | None = option(
        type="path",
        relative_ok=True,
        check=_file_problem,
        help="File (mode 0600) with the address to POST to; a secret as a whole.",
    )
    url_env: str | None = option(
        check=_variable_problem,
        help="Environment variable with the address to POST to; a secret as a whole.",
    )
    name: str | None = option(
        check=_line_problem, help="Name in the result; default: the payload's name."
    )
    payload: str = option(
        choices=payloads.CHOICES,
        default=payloads.AUTO,
        help="Form of the body; auto goes by the address.",
    )
    template: Any = option(
        type="raw", help="Body for payload template: JSON text or a structure with $placeholders."
    )
    headers: dict[str, Any] | None = option(type="dict", secret=True, help="Further HTTP headers.")
    routing_key: str | None = option(
        secret=True, check=_line_problem, help="Integration key of PagerDuty Events v2."
    )
    routing_key_file: str | None = option(
        type="path",
        relative_ok=True,
        check=_file_problem,
        help="File (mode 0600) with the integration key of PagerDuty Events v2.",
    )
    routing_key_env: str | None = option(
        check=_variable_problem,
        help="Environment variable with the integration key of PagerDuty Events v2.",
    )
    api_key: str | None = option(
        secret=True,
        check=_line_problem,
        help="API key of Opsgenie, or what a template calls $api_key.",
    )
    api_key_file: str | None = option(
        type="path",
        relative_ok=True,
        check=_file_problem,
        help="File (mode 0600) with the API key of Opsgenie, or $api_key of a template.",
    )
    api_key_env: str | None = option(
        check=_variable_problem,
        help="Environment variable with the API key of Opsgenie, or $api_key of a template.",
    )
    ca_file: str | None = option(type="path", help="Certificates to trust instead of the system's.")
    timeout: float = option(
        type="float",
        default=10.0,
        minimum=0.1,
        maximum=300,
        help="Seconds to wait for each answer.",
    )
    retries: int = option(
        type="int",
        default=2,
        minimum=0,
        maximum=10,
        help="Further attempts after 429, 5xx or a lost connection.",
    )
    send_resolved: bool = option(type="bool", default=True, help="Whether recoveries are sent too.")

    @property
    def url_source(self) -> SecretSource:
        """Where the url comes from."""
        return SecretSource("url", self.url, self.url_file, self.url_env)

    @property
    def routing_key_source(self) -> SecretSource:
        """Where the routing key comes from."""
        return SecretSource(
            "routing_key", self.routing_key, self.routing_key_file, self.routing_key_env
        )

    @property
    def api_key_source(self) -> SecretSource:
        """Where the api key comes from."""
        return SecretSource("api_key", self.api_key, self.api_key_file, self.api_key_env)

    @property
    def sources(self) -> dict[str, SecretSource]:
        """Where each of its secrets comes from."""
        return {
            source.name: source
            for source in (self.url_source, self.routing_key_source, self.api_key_source)
        }

    def verify(self, where: str) -> None:
        """Check the sources of secrets, the template and the headers.

        :raises OptionError: see ``where`` (``webhooks[0]``).
        """
        payload = payloads.PAYLOADS.get(self.payload)  # None: auto
        for name, source in self.sources.items():
            required = payload is not None and name == payload.required_option
            if name == "url":
                required = payload is None or not payload.default_url
            _check_source(source, where, required)
        if (self.template is not None) != (self.payload == "template"):
            raise OptionError(
                f"Options {where}.template and {where}.payload: template belong together.",
                "Give both or neither.",
                f"{where}.template",
            )
        if self.template is not None:
            self._verify_template(where)
        for header, value in (self.headers or {}).items():
            _verify_header(header, value, where)

    def _verify_template(self, where: str) -> None:
        from .template import SECRETS, template_problem

        problem = template_problem(self.template)
        if problem:
            raise OptionError(
                f"Option {where}.template can't be used: {problem}.", "", f"{where}.template"
            )
        for name in SECRETS:
            if re.search(rf"\$\{{?{name}\b", str(self.template)):
                _check_source(self.sources[name], where, required=True)


def _verify_header(header: Any, value: Any, where: str) -> None:
    if (
        not isinstance(header, str)
        or not _HEADER.match(header)
        or header.lower() in _RESERVED_HEADERS
    ):
        raise OptionError(
            f"Option {where}.headers has a name that can't be used.",
            "Use plain HTTP header names.",
            f"{where}.headers",
        )
    if (
        isinstance(value, (Mapping, list))
        or value is None
        or re.search(r"[\x00-\x08\x0a-\x1f\x7f]|[^\x00-\xff]", str(value))
    ):
        raise OptionError(
            f"Option {where}.headers: the value of {header} can't be used.",
            "Use one line of Latin-1 text.",
            f"{where}.headers",
        )


class AlertOptions(OptionSet):
    """What to send, over which channels, and how often."""

    document: dict[str, Any] | None = option(
        type="dict", help="Verdict of gpu_health, node_health or any other part."
    )
    severity: str | None = option(choices=SEVERITIES, help="Severity of message; default warning.")
    msg: str | None = option(
        flags=("--message",), help="Text to send instead of, or beside, a document."
    )
    check: str | None = option(
        help="Stable name of what message is about; with it a later severity pass closes it."
    )
    subject: str | None = option(help="Which GPU, path or unit message is about.")
    email: EmailOptions | None = option(type="dict", suboptions=EmailOptions, help="Send e-mail.")
    webhooks: list[WebhookOptions] | None = option(
        type="list",
        elements="dict",
        suboptions=WebhookOptions,
        env=("ALERT_WEBHOOK",),
        help="POST JSON to these addresses.",
    )
    syslog: bool = option(type="bool", default=False, help="Write to the journal, or to /dev/log.")
    command: list[str] | None = option(
        type="list",
        elements="str",
        help="Program (absolute path) and arguments; severity and message are added.",
    )
    command_timeout: float = option(
        type="float", default=30.0, minimum=0.1, maximum=600, help="Seconds the command may take."
    )
    cooldown: int = option(
        type="int",
        default=3600,
        minimum=0,
        env=("ALERT_COOLDOWN",),
        help="Seconds between two messages about the same thing.",
    )
    digest_after: int = option(
        type="int", default=5, minimum=1, help="More messages than this at once become one digest."
    )
    state_dir: str | None = option(
        type="path",
        help="Directory of what was sent and is queued; by default /var/lib/mlops-fleet/alert.",
    )
    test: bool = option(
        type="bool", default=False, help="Send a marked test message to every channel."
    )
    fail_on_undelivered: bool = option(
        type="bool", default=False, help="Fail the task when a channel could not deliver."
    )

    @classmethod
    def from_mapping(cls: type[_Set], given: Mapping[str, Any]) -> _Set:
        """Read the options; a plain text stands for an address (``ALERT_EMAIL``) or an URL
        (``ALERT_WEBHOOK``).

        :raises OptionError: see read_table; no message ever contains an URL.
        """
        values = dict(given)
        # Ansible reserves the name "message"; everybody else may use it.
        if "message" in values:
            message = values.pop("message")
            if message is not None and values.get("msg") is not None:
                raise OptionError(
                    "Options msg and message are the same: give one of them.", subject="msg"
                )
            values["msg"] = values.get("msg") if message is None else message
        values["email"] = _email_mapping(values.get("email"))
        values["webhooks"] = _webhook_mappings(values.get("webhooks"))
        if isinstance(values.get("command"), str):
            values["command"] = [values["command"]] if values["command"] else None
        return super().from_mapping(values)

    @classmethod
    def from_section(cls: type[_Set], given: Mapping[str, Any]) -> _Set:
        """Read the options of a configuration section: what to send comes with each call."""
        options = cls.from_mapping({"test": True, **given})
        options.__dict__["test"] = bool(given.get("test"))
        return options

    def check_together(self) -> None:
        """Check what a single option can't: sources of secrets, addresses, headers, and that there
        is something to send.
        """
        if self.document is None and self.msg is None and not self.test:
            raise OptionError(
                "There is nothing to send.",
                "Give document (a registered verdict), message, or test: true.",
                "document",
            )
        if self.msg is None and (self.severity or self.check or self.subject) and not self.test:
            raise OptionError(
                "severity, check and subject describe message, but there is none.",
                "Add message.",
                "message",
            )
        if self.severity == "pass" and not self.check:
            raise OptionError(
                "severity pass needs check, to know which message it takes back.",
                "Use the same check for the problem and its end.",
                "check",
            )
        if self.command is not None and (not self.command or not os.path.isabs(self.command[0])):
            raise OptionError(
                "Option command must begin with the absolute path of a program.",
                "Give the arguments as further list entries.",
                "command",
            )
        if self.state_dir is not None:
            refuse_dangerous(self.state_dir, "state directory")
        if self.email is not None:
            self.email.check_together()
        for index, hook in enumerate(self.webhooks or []):
            hook.verify(f"webhooks[{index}]")


def _email_mapping(email: Any) -> Any:
    """Return the option email as a mapping where it is an address or a list of them."""
    if isinstance(email, (str, list)) and email:
        return _email_mapping({"to": email})
    if isinstance(email, Mapping) and isinstance(email.get("to"), list):
        # Ansible splits "a@x.org, b@x.org" at the comma only.
        addresses = [
            address.strip() if isinstance(address, str) else address for address in email["to"]
        ]
        return {**email, "to": addresses}
    return email


def _webhook_mappings(hooks: Any) -> Any:
    """Return the option webhooks as a list of mappings where entries are plain addresses."""
    if hooks is None:
        return None
    if isinstance(hooks, str):
        hooks = hooks.replace(",", " ").split()
    if not isinstance(hooks, (list, tuple)):
        raise OptionError("Option webhooks must be a list of mappings.", subject="webhooks")
    mappings = [{"url": hook} if isinstance(hook, str) and hook else hook for hook in hooks]
    for index, hook in enumerate(mappings):
        if not isinstance(hook, (Mapping, OptionSet)):
            raise OptionError(
                f"Option webhooks[{index}] must be a mapping with an url.", subject="webhooks"
            )
    return mappings
