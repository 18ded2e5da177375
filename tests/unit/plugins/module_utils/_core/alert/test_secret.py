# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets from systemd's credentials: one configuration serves every unit, whatever the directory
of its credentials is called.
"""

from __future__ import annotations

import os

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.alert import secret
from ansible_collections.mlops.fleet.plugins.module_utils._core.alert.options import AlertOptions
from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import NotUsable, OptionError


@pytest.fixture
def email():
    given = {
        "to": ["a@example.com"],
        "host": "smtp.example.com",
        "user": "u",
        "password_file": "$CREDENTIALS_DIRECTORY/smtp",
    }
    return AlertOptions.from_section({"email": given}).email


def test_a_credential_is_read_where_systemd_put_it(email, world, tmp_path):
    (tmp_path / "smtp").write_text("hush-hush\n")
    (tmp_path / "smtp").chmod(0o440)  # as systemd makes them for a service's user
    world.environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert secret.read(email.password_source, world) == "hush-hush"


def test_without_credentials_the_message_says_who_gives_them(email, world):
    world.environ = {}
    with pytest.raises(NotUsable, match="schedule_credentials"):
        secret.read(email.password_source, world)


@pytest.mark.parametrize("data", [b"p\xe4ssword", b"line one\nline two", b"a\x07b"])
def test_what_is_not_one_line_of_text_is_refused(world, tmp_path, data):
    path = tmp_path / "secret"
    path.write_bytes(data)
    path.chmod(0o600)
    with pytest.raises(NotUsable, match="text"):
        secret.read(secret.SecretSource("password", file=str(path)), world)
    world.environ = {"SECRET": os.fsdecode(data)}
    with pytest.raises(NotUsable, match="SECRET"):
        secret.read(secret.SecretSource("password", variable="SECRET"), world)


def test_another_relative_path_is_refused():
    with pytest.raises(OptionError, match="absolute path"):
        AlertOptions.from_section({"email": {"to": ["a@example.com"], "password_file": "smtp"}})
