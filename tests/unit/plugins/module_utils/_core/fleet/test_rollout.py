# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.fleet import rollout

GROUPS = {"canary": ["c"], "r1": ["a", "b", "c"], "r2": ["d", "e"]}
BAD, GOOD, HELD = [{"failed": True}, None], [{"status": "pass"}, None], [{"skipped": True}, None]
NEW = [None, None]


def test_groups_follow_each_other_and_each_host_is_in_one_batch():
    hosts = ["a", "b", "c", "d", "e", "x"]
    assert rollout.batches(hosts, GROUPS, ["canary", "r2", "r1"]) == (
        ["c", "d", "e", "a", "b", "x"],
        [1, 2, 2, 1],
    )
    assert rollout.batches(hosts, GROUPS, ["canary", "r2"], {"d", "x"}) == (["d", "x"], [1, 1])
    assert rollout.batches([], GROUPS, ["r1"]) == ([], [])


def held(results, **options):
    brake = rollout.hold(results, GROUPS, 40, **options)
    return {host for host in results if rollout.held_host(brake, host, GROUPS)}


def test_without_groups_all_are_counted_together():
    results = {"a": BAD, "b": GOOD, "c": NEW, "x": NEW}
    assert held(results) == {"a", "b", "c", "x"}
    assert held({**results, "d": GOOD}) == set()


def test_hosts_that_were_held_do_not_dilute_the_share():
    assert held({"a": BAD, **dict.fromkeys("bcde", HELD), "x": NEW}) != set()


def test_a_group_holds_only_its_own_hosts():
    results = {"a": BAD, "b": NEW, "c": NEW, "d": GOOD, "e": NEW, "x": GOOD, "y": NEW}
    assert held(results, counted=["r1", "r2"]) == {"a", "b", "c"}
    assert held({**results, "x": BAD}, counted=["r1", "r2"]) == {"a", "b", "c", "x", "y"}


def test_a_failed_canary_holds_all():
    results = {"c": BAD, "a": GOOD, "b": GOOD, "d": NEW}
    assert held(results, counted=["r1"]) == set()
    brake = rollout.hold(results, GROUPS, 40, canary="canary", counted=["r1"])
    assert brake["held"] == (
        "held back: 1 of 1 hosts of the group canary failed, more than the 40 % allowed"
    )
    assert held(results, canary="canary", counted=["r1"]) == set(results)


def test_what_others_registered_holds_nothing():
    for brake in (None, "", [], {"held": ""}, {"held_groups": "x"}):
        assert rollout.held_host(brake, "a", GROUPS) == ""


@pytest.mark.parametrize(
    ("results", "limit", "group", "text"),
    [
        ([], 0, "", ""),
        ([GOOD], 0, "", ""),
        ([BAD, GOOD, GOOD, GOOD, BAD], 40, "", ""),
        (
            [BAD, GOOD, GOOD, GOOD, BAD],
            39.9,
            "",
            "2 of 5 hosts failed, more than the 39.9 % allowed",
        ),
        ([BAD], 100, "", ""),
        ([BAD], 50, "r1", "1 of 1 hosts of the group r1 failed, more than the 50 % allowed"),
        ([HELD, NEW], 0, "", ""),
    ],
)
def test_the_brake_stops_above_its_share_of_the_hosts_that_were_started(
    results, limit, group, text
):
    assert rollout.brake(results, limit, group) == (text and f"held back: {text}")


def test_without_groups_only_one_reason_is_returned():
    brake = rollout.hold({"a": BAD}, GROUPS, 40)
    assert brake == {"held": "held back: 1 of 1 hosts failed, more than the 40 % allowed"}


@pytest.mark.parametrize(
    ("brake", "reasons"),
    [
        ({"held": "x", "held_groups": {"r1": "y"}, "counted": ["r1"]}, {"a": "x", "z": "x"}),
        ({"held": "", "held_groups": {"r1": "y"}, "counted": ["r1"]}, {"a": "y", "z": ""}),
        ({"held": "", "held_groups": {"": "y"}, "counted": ["r1"]}, {"a": "", "z": "y"}),
        ({"held_groups": {"": "y"}}, {"a": "y", "z": "y"}),
        ({"held": "x", "held_groups": {}}, {"a": "x", "z": "x"}),
    ],
)
def test_why_a_host_is_held(brake, reasons):
    for host, reason in reasons.items():
        assert rollout.held_host(brake, host, GROUPS) == reason
