# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the options of backup and restore accept together."""

from __future__ import annotations

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.options import (
    BackupOptions,
    RestoreOptions,
    S3Connection,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import OptionError


@pytest.mark.parametrize(
    ("given", "rate"),
    [
        (None, None),
        ("16384", 16 << 10),
        ("16K", 16 << 10),
        ("16383", None),
        ("1.5m", 3 << 19),
        ("20M", 20 << 20),
        ("1g", 1 << 30),
        ("15K", None),
        ("fast", None),
        ("-5M", None),
        ("5T", None),
    ],
)
def test_a_limit_of_the_bandwidth(given, rate):
    if given is None or rate is not None:
        asked = S3Connection.from_mapping({"bucket": "b", "bandwidth_limit": given})
        assert asked.bytes_per_second == rate
        return
    with pytest.raises(OptionError, match="bandwidth_limit"):
        S3Connection.from_mapping({"bucket": "b", "bandwidth_limit": given})


@pytest.mark.parametrize(
    ("engine", "restic", "good"),
    [
        (None, None, True),
        ("restic", None, False),
        ("restic", {"password": "p"}, True),
        ("restic", {"password_file": "/etc/restic.key"}, True),
        ("restic", {"password": "p", "password_file": "/etc/restic.key"}, False),
        ("restic", {}, False),
    ],
)
def test_restic_needs_one_password(engine, restic, good):
    given = {"source": "/opt/ml/models", "destination": "/backup/models", "restic": restic}
    if engine:
        given["engine"] = engine
    if good:
        assert BackupOptions.from_mapping(given).engine == (
            engine or BackupOptions.default("engine")
        )
        return
    with pytest.raises(OptionError, match=r"either restic\.password or restic\.password_file"):
        BackupOptions.from_mapping(given)


NEW = {"destination": "/srv/x"}


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (NEW, None),
        ({}, "Option destination is required"),
        ({"drill": True}, None),
        ({"drill": True, "backup": "random"}, None),
        ({**NEW, "backup": "random"}, "only a drill takes"),
        ({"drill": True, **NEW}, "drill and destination contradict"),
        ({"drill": True, "files": ["x"]}, "drill and files contradict"),
        ({"drill": True, "mode": "replace"}, "drill and mode contradict"),
        ({"drill": True, "verify": False}, "drill and verify contradict"),
        ({**NEW, "model": "bert"}, None),
        ({**NEW, "model": ".bert"}, None),
        ({**NEW, "model": "."}, "name of a top-level entry"),
        ({**NEW, "model": ".."}, "name of a top-level entry"),
        ({**NEW, "model": "bert/v1"}, "name of a top-level entry"),
        ({**NEW, "model": "/"}, "name of a top-level entry"),
        ({**NEW, "model": "bert", "mode": "replace"}, "model and mode=replace contradict"),
        ({**NEW, "files": ["x"], "mode": "replace"}, "files and mode=replace contradict"),
        ({**NEW, "mode": "replace"}, None),
        ({**NEW, "backup": "/mnt/x.tar"}, None),
        ({**NEW, "backup": "x.tar"}, None),
        ({**NEW, "backup": "sub/x.tar"}, "or an absolute path"),
        ({**NEW, "backup": "/mnt/x.tar", "s3": {"bucket": "b"}}, "named by its file name"),
        ({**NEW, "backup": "x.tar", "s3": {"bucket": "b"}}, None),
    ],
)
def test_what_a_restore_may_be_asked(given, problem):
    if problem is None:
        assert RestoreOptions.from_mapping(given).target == given.get("destination", "")
        return
    with pytest.raises(OptionError, match=problem):
        RestoreOptions.from_mapping(given)
