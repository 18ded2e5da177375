# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Values at the edge of what the alert options accept."""

from __future__ import annotations

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.alert import options as alert
from ansible_collections.mlops.fleet.plugins.module_utils._core.alert.options import AlertOptions
from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import OptionError


@pytest.mark.parametrize(
    ("url", "good"),
    [
        ("https://h:1/x", True),
        ("https://h:0/x", False),
        ("https://h:65535/x", True),
        ("https:///x", False),
        ("ftp://h/x", False),
    ],
)
def test_address_of_a_webhook(url, good):
    assert (alert.url_problem(url) is None) is good


@pytest.mark.parametrize(
    ("host", "good"),
    [
        ("mail.example.com", True),
        ("fe80::1", True),
        ("mail:25", False),
        ("mail example", False),
        ("user@mail", False),
        ("[fe80::1]", False),
        ("mail/x", False),
    ],
)
def test_host_of_a_mail_server(host, good):
    given = {
        "email": {"to": ["a@example.com"], "sender": "b@example.com", "host": host},
        "msg": "x",
    }
    if good:
        AlertOptions.from_mapping(given)
    else:
        with pytest.raises(OptionError, match="plain host name"):
            AlertOptions.from_mapping(given)


@pytest.mark.parametrize(
    ("more", "good"),
    [
        ({}, True),
        ({"user": "u", "password": "p"}, False),
        ({"user": "u", "password": "p", "security": "tls"}, True),
        ({"user": "u", "password": "p", "host": "localhost"}, True),
    ],
)
def test_an_unprotected_connection_takes_no_password(more, good):
    email = {
        "to": ["a@example.com"],
        "sender": "b@example.com",
        "host": "mail.example.com",
        "security": "none",
        **more,
    }
    if good:
        AlertOptions.from_mapping({"email": email, "msg": "x"})
    else:
        with pytest.raises(OptionError, match="unprotected"):
            AlertOptions.from_mapping({"email": email, "msg": "x"})


def test_a_good_template_is_accepted():
    hook = {"url": "https://h/", "payload": "template", "template": '{"text": "$message"}'}
    try:
        AlertOptions.from_mapping({"webhooks": [hook], "msg": "x"})
    except OptionError as error:
        pytest.fail(str(error))
    with pytest.raises(OptionError, match="template"):
        AlertOptions.from_mapping(
            {"webhooks": [{**hook, "template": "$nothing_like_this"}], "msg": "x"}
        )


@pytest.mark.parametrize(("command", "wanted"), [("/bin/x", ["/bin/x"]), ("", None)])
def test_a_command_as_text(command, wanted):
    assert AlertOptions.from_mapping({"command": command, "test": True}).command == wanted


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({}, "nothing to send"),
        ({"test": True}, None),
        ({"msg": "x"}, None),
        ({"document": {}}, None),
        ({"document": {}, "severity": "warning"}, "there is none"),
        ({"document": {}, "subject": "GPU 0"}, "there is none"),
        ({"test": True, "severity": "warning"}, None),
        ({"msg": "x", "severity": "warning"}, None),
    ],
)
def test_something_to_send(given, problem):
    if problem is None:
        AlertOptions.from_mapping(given)
    else:
        with pytest.raises(OptionError, match=problem):
            AlertOptions.from_mapping(given)


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({}, None),
        ({"port": 25}, "email.port needs email.host"),
        ({"user": "u", "password": "p"}, "email.user needs email.host"),
        ({"password": "p"}, "email.password needs email.host"),
        ({"password_env": "P"}, "email.password_env needs email.host"),
        ({"ca_file": "/etc/ca.pem"}, "email.ca_file needs email.host"),
        ({"host": "h", "password": "p"}, "email.password needs email.user"),
        ({"host": "h", "user": "u"}, "password"),
        ({"host": "h", "port": 25}, None),
    ],
)
def test_what_only_a_server_needs(more, problem):
    email = {"to": ["a@example.com"], "sender": "b@example.com", **more}
    if problem is None:
        assert AlertOptions.from_mapping({"email": email, "msg": "x"}).email.to == email["to"]
        return
    with pytest.raises(OptionError, match=problem):
        AlertOptions.from_mapping({"email": email, "msg": "x"})


@pytest.mark.parametrize(
    ("path", "good"),
    [("/etc/key", True), (alert.CREDENTIALS + "key", True), ("key", False), ("./key", False)],
)
def test_a_file_with_a_secret_has_a_full_path_or_is_a_credential(path, good):
    given = {"webhooks": [{"url_file": path}], "msg": "x"}
    if good:
        (hook,) = AlertOptions.from_mapping(given).webhooks
        assert hook.url_file == path
        return
    with pytest.raises(OptionError, match="url_file"):
        AlertOptions.from_mapping(given)


@pytest.mark.parametrize("hook", [7, ["https://h/"], True])
def test_a_webhook_is_an_address_or_a_mapping(hook):
    with pytest.raises(OptionError, match=r"webhooks\[0\] must be a mapping with an url"):
        AlertOptions.from_mapping({"webhooks": [hook], "msg": "x"})
