# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Guards against deletion, called directly."""

from __future__ import annotations

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup import guards
from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup.guards import Place
from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import Refused

USERS = {"/data/bob": "bob", "/tmp": "nobody", "/var/log": "syslog"}


@pytest.mark.parametrize(
    ("pattern", "start", "may_share"),
    [
        ("ml-*", "ml-", True),
        ("ab", "ab", True),
        ("a?b", "a", False),
        ("*", "", False),
        ("[ab]*", "", False),
        ("", "", False),
        ("a", "a", False),
        ("ab*", "ab", True),
        ("?ml", "", False),
    ],
)
def test_only_a_pattern_with_a_beginning_may_share(pattern, start, may_share):
    assert guards.literal_start(pattern) == start
    assert guards.may_share(pattern) is may_share


@pytest.mark.parametrize(
    ("name", "never"),
    [
        ("lost+found", True),
        ("aquota.user", True),
        ("aquota.group", True),
        ("quota.user", True),
        ("quota.group", True),
        (".mlops-fleet-trash-0123456789abcdef", True),
        (".mlops-fleet-trash-", True),
        (".mlops-fleet", False),
        ("run", False),
    ],
)
def test_names_that_are_never_units(name, never):
    assert guards.never_a_unit(name) is never


@pytest.mark.parametrize(
    ("candidates", "message"),
    [
        (["/data/bob"], "home directory of bob"),
        (["/data/runs", "/data/bob"], "home directory of bob"),
        (["/usr/share/models"], "belongs to packages"),
        (["/x/y", "/usr/share/a/b"], "belongs to packages"),
        (["/etc/mlops-fleet"], "this collection itself needs"),
        (["/opt/mlops-fleet/lib"], "this collection itself needs"),
        (["/var/lib/mlops-fleet"], "this collection itself needs"),
    ],
)
def test_what_belongs_to_somebody_is_no_root(candidates, message):
    with pytest.raises(Refused, match=message) as refused:
        guards.refuse_owned("/given", candidates, USERS)
    assert refused.value.subject == "/given"


@pytest.mark.parametrize(
    "path",
    [
        "/data/bob/runs",
        "/data/bobby",
        "/tmp",
        "/var/log",
        "/opt/mlops-fleets",
        "/usr/shared/x",
        "/data",
    ],
)
def test_what_belongs_to_nobody_may_be_a_root(path):
    guards.refuse_owned(path, [path, path], USERS)


@pytest.mark.parametrize(
    ("path", "base", "unit"),
    [
        ("/a/b", "/a", "b"),
        ("/a/b/c", "/a", "b"),
        ("/a", "/a", ""),
        ("/ab/c", "/a", ""),
        ("/x", "/", "x"),
        ("/", "/", ""),
        ("/a/b", "/a/", "b"),
    ],
)
def test_the_unit_that_a_path_is_in(path, base, unit):
    assert guards.unit_of(path, base) == unit


@pytest.mark.parametrize(
    ("path", "located", "unit"),
    [
        ("/real/run", None, "run"),
        ("/link/run/x", None, "run"),
        ("/elsewhere", None, ""),
        ("/bind/run", ("8:1", "/fs/runs/run"), "run"),
        ("/bind/run", ("8:2", "/fs/runs/run"), ""),
        ("/bind", ("8:1", "/fs/runs"), ""),
        ("", None, ""),
    ],
)
def test_the_unit_that_a_link_leads_to(path, located, unit):
    assert guards.unit_at(Place("/real", "/link", ("8:1", "/fs/runs")), path, located) == unit
    if located is not None:
        assert guards.unit_at(Place("/real", "/link", None), path, located) == ""


def _protected(**facts):
    given = {
        "place": Place("/r", "/r", ("8:1", "/fs/r")),
        "directory": "/r",
        "own": {},
        "mount_points": (),
        "mounted": (),
        "links": (),
        "logs": (),
        **facts,
    }
    return guards.protected(**given)


@pytest.mark.parametrize(
    ("facts", "protected"),
    [
        ({}, {}),
        ({"own": {"/r/a": "why", "/r": "x", "/s/b": "y", "/r/b/c": "z"}}, {"a": "why", "b": "z"}),
        (
            {"mount_points": ["/", "/r", "/r/a", "/r/b/c", "/ra/x"]},
            {"a": guards.MOUNT, "b": guards.MOUNT},
        ),
        (
            {
                "mounted": [
                    ("8:1", "/fs/r/a/data"),
                    ("8:2", "/fs/r/b"),
                    ("8:1", "/fs/r"),
                    ("8:1", "/fs/q/c"),
                ]
            },
            {"a": "in use: it is mounted elsewhere"},
        ),
        (
            {"links": [("latest", "run-7")]},
            {"run-7": "the link latest names it", "latest": "it names run-7"},
        ),
        ({"links": [("self", "self")]}, {}),
        (
            {"logs": ["ml-backup.log"], "own": {"/r/ml-backup.log": "x"}},
            {"ml-backup.log": "a log of our own jobs; log rotation removes it"},
        ),
        ({"own": {"/r/a": "first"}, "mount_points": ["/r/a/b"]}, {"a": "first"}),
    ],
)
def test_names_that_must_stay(facts, protected):
    assert _protected(**facts) == protected


def test_names_that_must_stay_in_quarantine():
    quarantine = "/r/.mlops-fleet-trash-0/new"
    assert _protected(
        directory=quarantine,
        mount_points=[quarantine + "/a/data", "/r/b"],
        mounted=[("8:1", "/fs" + quarantine + "/c")],
    ) == {"a": guards.MOUNT, "c": "in use: it is mounted elsewhere"}


def test_without_the_mount_table_mounts_elsewhere_are_unknown():
    assert _protected(place=Place("/r", "/r", None), mounted=[("8:1", "/fs/r/a")]) == {}


def test_what_a_run_needs_itself():
    assert guards.own_paths({"/home/a": "ann"}, ["/r"], ["/locks"], "/rep/x.json", "/backup") == {
        "/home/a": "is or holds the home directory of ann",
        "/r": "holds a cleanup root",
        "/locks": "holds our locks",
        "/rep/x.json": "is or holds the report",
        "/backup": "is or holds the backup",
    }
    assert guards.own_paths({}, [], [], None, None) == {}


@pytest.mark.parametrize("name", ["backup", "cleanup", "health-check", "maintenance"])
def test_our_own_logs(name):
    for own in (f"ml-{name}.log", f"ml-{name}.log.1", f"ml-{name}.log-20260101.gz"):
        assert guards.OWN_LOGS.fullmatch(own)
    assert not guards.OWN_LOGS.fullmatch(f"ml-{name}.logs")
    assert not guards.OWN_LOGS.fullmatch(f"x-ml-{name}.log")


@pytest.mark.parametrize(
    ("path", "located", "unit"),
    [
        ("/data/runs/a/x", None, "a"),
        ("/given/b/x", None, "b"),
        ("/elsewhere/x", None, ""),
        ("/bind/c/x", ("8:1", "/runs/c/x"), "c"),
        ("/bind/c/x", ("8:2", "/runs/c/x"), ""),
        ("/bind/x", ("8:1", "/other/x"), ""),
        # Named by its own path, it is that unit, wherever else the path leads.
        ("/data/runs/a/x", ("8:1", "/runs/other/x"), "a"),
    ],
)
def test_the_unit_that_a_path_leads_into(path, located, unit):
    assert (
        guards.unit_at(guards.Place("/data/runs", "/given", ("8:1", "/runs")), path, located)
        == unit
    )


def test_without_a_known_source_only_paths_count():
    assert (
        guards.unit_at(guards.Place("/data/runs", "/given", None), "/bind/c", ("8:1", "/runs/c"))
        == ""
    )
