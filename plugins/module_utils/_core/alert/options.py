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
from ..options import Option, OptionSet, option
from ..system.roots import refuse_dangerous

_Set = TypeVar("_Set", bound="OptionSet")

SEVERITIES = ("critical", "warning", "unknown", "info", "pass")
PAYLOADS = (
    "auto",
    "plain",
    "slack",
    "mattermost",
    "teams",
    "pagerduty",
    "opsgenie",
    "alertmanager",
    "template",
)
#: A secret's file may lie in the folder of systemd's credentials; it has another name in every unit, hence the variable.
CREDENTIALS = "$CREDENTIALS_DIRECTORY/"
#: Services whose address is known, so that only the key has to be given.
DEFAULT_URLS = {"pagerduty": "https://events.pagerduty.com", "opsgenie": "https://api.opsgenie.com"}

_ADDRESS = re.compile(r"(?!-)[^\s<>,;:\"()\[\]\\\x00-\x1f\x7f]*\Z")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+\Z")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def _url_problem(url: str) -> str | None:
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


def _variable_problem(name: str) -> str | None:
    return None if _VARIABLE.match(name) else "it is not the name of an environment variable"


def _one_line(value: str) -> str | None:
    return "it contains a line break" if re.search(r"[\r\n]", value) else None


def _file_problem(path: str) -> str | None:
    if os.path.isabs(path) or path.startswith(CREDENTIALS):
        return None
    return f"it must be an absolute path, or begin with {CREDENTIALS}"


def _host_problem(host: str) -> str | None:
    if re.search(r"[\s/@\[\]]", host) or host.count(":") == 1:
        return "it must be a plain host name or address; the port goes into port"
    return None


def _secret(name: str, what: str) -> tuple[Option, ...]:
    """A secret and the two other places it can come from."""
    return (
        Option(name, secret=True, check=_url_problem if name == "url" else _one_line, help=what),
        Option(
            name + "_file",
            type="path",
            relative_ok=True,
            check=_file_problem,
            help=f"File (mode 0600) that holds it: {what}",
        ),
        Option(
            name + "_env",
            check=_variable_problem,
            help=f"Environment variable that holds it: {what}",
        ),
    )


EMAIL = (
    Option(
        "to",
        type="list",
        elements="str",
        required=True,
        env=("ALERT_EMAIL",),
        help="Addresses of the recipients.",
    ),
    Option(
        "sender", aliases=("from",), help="Address of the sender; default mlops-fleet@HOSTNAME."
    ),
    Option(
        "host", check=_host_problem, help="SMTP server; without it the local mail command is used."
    ),
    Option(
        "port",
        type="int",
        minimum=1,
        maximum=65535,
        help="Default 587 (starttls), 465 (tls), 25 (none).",
    ),
    Option(
        "security",
        choices=("starttls", "tls", "none"),
        default="starttls",
        help="How the connection to the SMTP server is protected.",
    ),
    Option("user", help="User name for the SMTP server."),
    *_secret("password", "Password for the SMTP server."),
    Option("ca_file", type="path", help="Certificates to trust instead of the system's."),
    Option(
        "timeout",
        type="float",
        default=10.0,
        minimum=0.1,
        maximum=300,
        help="Seconds to wait for each answer.",
    ),
    Option(
        "retries",
        type="int",
        default=2,
        minimum=0,
        maximum=10,
        help="Further attempts after a failure that may pass.",
    ),
    Option(
        "subject_prefix",
        default="[mlops-fleet]",
        check=_one_line,
        help="Beginning of every subject.",
    ),
)

WEBHOOK = (
    *_secret("url", "Address to POST to; a secret as a whole."),
    Option("name", check=_one_line, help="Name in the result; default: the payload's name."),
    Option(
        "payload",
        choices=PAYLOADS,
        default="auto",
        help="Form of the body; auto goes by the address.",
    ),
    Option(
        "template",
        type="raw",
        help="Body for payload template: JSON text or a structure with $placeholders.",
    ),
    Option("headers", type="dict", secret=True, help="Further HTTP headers."),
    *_secret("routing_key", "Integration key of PagerDuty Events v2."),
    *_secret("api_key", "API key of Opsgenie, or what a template calls $api_key."),
    Option("ca_file", type="path", help="Certificates to trust instead of the system's."),
    Option(
        "timeout",
        type="float",
        default=10.0,
        minimum=0.1,
        maximum=300,
        help="Seconds to wait for each answer.",
    ),
    Option(
        "retries",
        type="int",
        default=2,
        minimum=0,
        maximum=10,
        help="Further attempts after 429, 5xx or a lost connection.",
    ),
    Option("send_resolved", type="bool", default=True, help="Whether recoveries are sent too."),
)


class AlertOptions(OptionSet):
    """What to tell, to whom, and how often."""

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
    subject: str | None = option(help="Which one of several message is about.")
    email: dict[str, Any] | None = option(type="dict", suboptions=EMAIL, help="Send e-mail.")
    webhooks: list[dict[str, Any]] | None = option(
        type="list",
        elements="dict",
        suboptions=WEBHOOK,
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
    state_dir: str | None = option(type="path", help="Folder that remembers what was sent.")
    test: bool = option(
        type="bool", default=False, help="Send a marked test message to every channel."
    )
    fail_on_undelivered: bool = option(
        type="bool", default=False, help="Fail the task when a channel could not deliver."
    )

    @classmethod
    def from_mapping(cls: type[_Set], given: Mapping[str, Any]) -> _Set:
        """Read the options; the old scripts' plain texts stand for an address (C(ALERT_EMAIL)) or an URL (C(ALERT_WEBHOOK)).

        :raises OptionError: see read_table; no message ever shows an URL.
        """
        values = dict(given)
        # Ansible reserves the plain name; everybody else may use it.
        if "message" in values:
            message = values.pop("message")
            if message is not None and values.get("msg") is not None:
                raise OptionError(
                    "Options msg and message are the same: give one of them.", subject="msg"
                )
            values["msg"] = values.get("msg") if message is None else message
        if isinstance(values.get("email"), (str, list)) and values["email"]:
            values["email"] = {"to": values["email"]}
        if isinstance(values.get("email"), Mapping) and isinstance(values["email"].get("to"), list):
            # Ansible splits "a@x.org, b@x.org" at the comma only.
            values["email"] = {
                **values["email"],
                "to": [
                    one.strip() if isinstance(one, str) else one for one in values["email"]["to"]
                ],
            }
        hooks = values.get("webhooks")
        if isinstance(hooks, str):
            hooks = hooks.replace(",", " ").split()
        if isinstance(hooks, (list, tuple)):
            values["webhooks"] = [
                {"url": one} if isinstance(one, str) and one else one for one in hooks
            ]
            for index, one in enumerate(values["webhooks"]):
                if not isinstance(one, Mapping):
                    raise OptionError(
                        f"Option webhooks[{index}] must be a mapping with an url.",
                        subject="webhooks",
                    )
        elif hooks is not None:
            raise OptionError("Option webhooks must be a list of mappings.", subject="webhooks")
        if isinstance(values.get("command"), str):
            values["command"] = [values["command"]] if values["command"] else None
        return super().from_mapping(values)

    @classmethod
    def from_section(cls: type[_Set], given: Mapping[str, Any]) -> _Set:
        """Read the options of a configuration section: what is told comes with each call."""
        found = cls.from_mapping({"test": True, **given})
        found.__dict__["test"] = bool(given.get("test"))
        return found

    def check_together(self) -> None:
        """Check what the table can't say: sources of secrets, addresses, headers, what is told at all."""
        if self.document is None and self.msg is None and not self.test:
            raise OptionError(
                "There is nothing to tell.",
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
            refuse_dangerous(self.state_dir, "state folder")
        if self.email is not None:
            _verify_email(self.email)
        for index, hook in enumerate(self.webhooks or []):
            _verify_webhook(hook, f"webhooks[{index}]")


def _one_source(values: Mapping[str, Any], name: str, where: str, required: bool = False) -> None:
    found = [key for key in (name, name + "_file", name + "_env") if values[key]]
    if len(found) > 1:
        raise OptionError(
            f"Options {where}.{found[0]} and {where}.{found[1]} exclude each other.",
            "Keep one.",
            f"{where}.{name}",
        )
    if required and not found:
        raise OptionError(
            f"Option {where}.{name} is required.",
            f"Give {name}, {name}_file or {name}_env.",
            f"{where}.{name}",
        )


def _verify_email(email: Mapping[str, Any]) -> None:
    if not email["to"]:
        raise OptionError("Option email.to is empty.", "Name at least one address.", "email.to")
    for address in [*email["to"], *([email["sender"]] if email["sender"] else [])]:
        if not _ADDRESS.match(address):
            raise OptionError(
                f"{address!r} is not a plain e-mail address.",
                "Write it as name@example.com.",
                "email.to",
            )
    _one_source(email, "password", "email", required=bool(email["user"]))
    if not email["host"]:
        for name in ("port", "user", "password", "password_file", "password_env", "ca_file"):
            if email[name]:
                raise OptionError(
                    f"Option email.{name} needs email.host.",
                    "Name the SMTP server, or leave both out for the local mail command.",
                    "email.host",
                )
    if not email["user"] and (email["password"] or email["password_file"] or email["password_env"]):
        raise OptionError("Option email.password needs email.user.", "", "email.user")
    if (
        email["user"]
        and email["security"] == "none"
        and email["host"] not in ("localhost", "127.0.0.1", "::1")
    ):
        raise OptionError(
            "A password is never sent over an unprotected connection.",
            "Use email.security starttls or tls.",
            "email.security",
        )


def _verify_webhook(hook: Mapping[str, Any], where: str) -> None:
    _one_source(hook, "url", where, required=hook["payload"] not in DEFAULT_URLS)
    _one_source(hook, "routing_key", where, required=hook["payload"] == "pagerduty")
    _one_source(hook, "api_key", where, required=hook["payload"] == "opsgenie")
    if (hook["template"] is not None) != (hook["payload"] == "template"):
        raise OptionError(
            f"Options {where}.template and {where}.payload: template belong together.",
            "Give both or neither.",
            f"{where}.template",
        )
    if hook["template"] is not None:
        from .payloads import SECRETS, template_problem

        problem = template_problem(hook["template"])
        if problem:
            raise OptionError(
                f"Option {where}.template can't be used: {problem}.", "", f"{where}.template"
            )
        for name in SECRETS:
            if re.search(rf"\$\{{?{name}\b", str(hook["template"])):
                _one_source(hook, name, where, required=True)
    for name, value in (hook["headers"] or {}).items():
        if (
            not isinstance(name, str)
            or not _HEADER.match(name)
            or name.lower() in ("host", "content-length", "transfer-encoding", "connection")
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
                f"Option {where}.headers: the value of {name} can't be used.",
                "Use one line of Latin-1 text.",
                f"{where}.headers",
            )
