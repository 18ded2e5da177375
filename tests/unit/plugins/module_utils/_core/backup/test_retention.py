# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules only keep; the newest verified backup always stays.

Checked on examples and on thousands of random histories.
"""

from __future__ import annotations

import dataclasses
import random

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.backup import names, retention
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.catalogue import Backup
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.options import (
    RetentionOptions,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.retention import DAY, Rules

NOW = 1_800_000_000.0


def backup(age_days, kind="verified"):
    created = NOW - age_days * DAY
    name = names.stem(created) + ".tar.gz"
    document = {"verifications": []}
    if kind == "verified":
        document["verifications"].append({"result": "ok"})
    if kind in ("legacy", "unknown"):
        document = None
    problems = {
        "damaged": ("the archive is 3 bytes long",),
        "unknown": ("neither manifest nor checksum file",),
    }.get(kind, ())
    return Backup(
        name,
        "/b/" + name,
        created,
        1,
        legacy=kind == "legacy",
        manifest=document,
        problems=problems,
    )


def removed(backups, rules, now=NOW):
    return [
        round((NOW - one.backup.created) / DAY)
        for one in retention.decide(backups, rules, now)
        if not one.keep
    ]


def test_age():
    assert removed([backup(n) for n in (0, 1, 29, 30, 31, 90)], Rules(days=30)) == [31, 90]


def test_the_newest_verified_stays_however_old():
    assert removed([backup(400), backup(500)], Rules(days=30)) == [500]
    assert removed([backup(100, "plain"), backup(400), backup(500)], Rules(days=30)) == [500]


def test_when_all_are_dated_ahead_the_newest_of_them_stays():
    kept = retention.decide([backup(-2, "plain"), backup(-5, "plain")], Rules(days=30), NOW)
    assert kept[0].reason == "newest backup"


def test_without_any_verified_the_newest_complete_stays():
    assert removed([backup(n, "plain") for n in (1, 50, 60)], Rules(days=30)) == [50, 60]
    assert removed([backup(n, "plain") for n in (40, 50, 60)], Rules(days=30)) == [50, 60]


def test_old_archives_wait_for_a_newer_verified_backup():
    old = [backup(n, "legacy") for n in (40, 50)]
    assert removed(old, Rules(days=30)) == []
    assert removed([*old, backup(1, "plain")], Rules(days=30)) == []
    assert removed([*old, backup(60)], Rules(days=30)) == []
    assert removed([*old, backup(1)], Rules(days=30)) == [40, 50]


def test_archives_without_a_checksum_wait_too():
    assert removed([backup(1, "plain"), backup(40, "unknown")], Rules(days=30)) == []
    assert removed([backup(1), backup(40, "unknown")], Rules(days=30)) == [40]


def test_one_dated_ahead_is_never_the_newest():
    assert removed([backup(-400), backup(1), backup(2)], Rules(days=0, last=1)) == [2]
    assert removed([backup(-400), backup(40), backup(50)], Rules(days=30)) == [50]
    assert removed([backup(-400), backup(-300)], Rules(days=0, last=1)) == [-300]


def test_damaged_ones_never_protect():
    assert removed([backup(1, "damaged"), backup(40), backup(50)], Rules(days=30)) == [50]
    assert removed([backup(40, "damaged")], Rules(days=30)) == []


def test_counts_alone():
    assert removed([backup(n) for n in range(6)], Rules(days=0, last=2)) == [2, 3, 4, 5]
    assert removed([backup(n) for n in range(6)], Rules(days=0)) == []


def test_rules_add_up():
    assert removed([backup(n) for n in range(8)], Rules(days=2, last=5)) == [5, 6, 7]


def test_three_years_of_daily_runs():
    """Run every day, remove every day; after three years the periods are all filled."""
    kept: list = []
    for day in range(3 * 365):
        now = NOW - (3 * 365 - day) * DAY
        created = backup((NOW - now) / DAY)
        kept = [
            one.backup
            for one in retention.decide(
                [*kept, created], Rules(days=0, daily=7, weekly=4, monthly=12, yearly=3), now
            )
            if one.keep
        ]
    ages = sorted(round((NOW - one.created) / DAY) for one in kept)
    assert ages[:7] == [1, 2, 3, 4, 5, 6, 7]
    assert 20 <= len(ages) <= 7 + 4 + 12 + 3 + 1
    assert 379 <= ages[-1] <= 381, "the last day of the year before the last"


def histories(count):
    rng = random.Random(7)
    for _turn in range(count):
        ages = rng.sample(range(800), rng.randrange(1, 25))
        backups = [
            backup(age, rng.choice(["verified", "verified", "plain", "legacy", "damaged"]))
            for age in ages
        ]
        picks = [rng.choice([0, 0, 1, 3, 10]) for _turn in range(6)]
        yield backups, Rules(picks[0] * 10, *picks[1:])


def test_properties():
    for backups, rules in histories(1500):
        decisions = retention.decide(backups, rules, NOW)
        keep = {one.backup.name for one in decisions if one.keep}
        assert {one.backup.name for one in decisions} == {one.name for one in backups}
        verified = [one for one in backups if one.verified]
        complete = [one for one in backups if one.complete]
        if verified:
            assert max(verified, key=lambda one: one.created).name in keep
        if complete:
            assert max(complete, key=lambda one: one.created).name in keep
        else:
            assert len(keep) == len(backups)
        shuffled = random.Random(1).sample(backups, len(backups))
        assert [one.backup.name for one in retention.decide(shuffled, rules, NOW) if one.keep] == [
            one.backup.name for one in decisions if one.keep
        ]
        again = retention.decide([one.backup for one in decisions if one.keep], rules, NOW)
        assert all(one.keep for one in again), "a second run removes nothing more"


@pytest.mark.parametrize("field", ["days", "last", "daily", "weekly", "monthly", "yearly"])
def test_a_larger_number_keeps_no_fewer(field):
    for backups, rules in histories(200):
        if getattr(rules, field) == 0:
            continue
        more = dataclasses.replace(rules, **{field: getattr(rules, field) + 1})
        before = {one.backup.name for one in retention.decide(backups, rules, NOW) if one.keep}
        after = {one.backup.name for one in retention.decide(backups, more, NOW) if one.keep}
        # The one exception: the oldest, which stands in while there are too few periods.
        oldest = sorted(
            (one for one in backups if one.complete or one.legacy), key=lambda one: one.created
        )[:1]
        assert before - after <= {one.name for one in oldest}


def test_the_default_rules():
    assert Rules() == Rules(days=30, last=0, daily=0, weekly=0, monthly=0, yearly=0)


def test_the_reasons():
    reasons = [
        (decision.keep, decision.reason)
        for decision in retention.decide(
            [backup(0, "plain"), *(backup(n) for n in (1, 2, 40))], Rules(days=5), NOW
        )
    ]
    assert reasons == [
        (True, "newest backup"),
        (True, "newest verified backup"),
        (True, "at most 5 days old"),
        (False, "40 days old, kept are 5"),
    ]
    (kept, removed_one) = retention.decide([backup(1), backup(3)], Rules(days=0, last=1), NOW)
    assert (kept.keep, removed_one.reason) == (True, "3 days old, no rule keeps it")


def test_periods_that_are_not_asked_for_keep_nothing():
    """0 is no rule, and no reason to keep the oldest either."""
    assert removed([backup(n) for n in (1, 2, 3)], Rules(days=0, last=1)) == [2, 3]
    assert removed([backup(n) for n in (1, 2, 3)], Rules(days=0, last=1, daily=1)) == [2, 3]


def test_the_rules_are_the_defaults_of_the_options():
    assert Rules() == retention.rules(RetentionOptions.from_mapping({}))
    assert Rules() == Rules(days=30, last=0, daily=0, weekly=0, monthly=0, yearly=0)


@pytest.mark.parametrize("age", [40, 60])
def test_what_this_user_may_not_read_stays(age):
    """It may be a perfect backup, so the reason is not its age."""
    denied = dataclasses.replace(backup(age, "unknown"), unreadable="permission denied")
    decisions = retention.decide([backup(50), denied], Rules(days=30), NOW)
    (decision,) = [entry for entry in decisions if entry.backup is denied]
    assert (decision.keep, decision.reason) == (True, "this user may not read it")


def test_archives_of_the_old_scripts_count_for_the_rules():
    aged = [backup(40), backup(50, "legacy"), backup(60, "unknown"), backup(70)]
    assert removed(aged, Rules(days=0, last=2)) == [60, 70]
    assert removed(aged, Rules(days=0, daily=2)) == [60, 70]


@pytest.mark.parametrize("count", [1, 2])
def test_a_rule_of_one_period_keeps_one(count):
    aged = [backup(age) for age in (40, 42, 44)]
    assert removed(aged, Rules(days=0, daily=count)) == [40, 42, 44][count:]
