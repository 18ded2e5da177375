# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which settings of a bucket change, and which lifecycle is refused because retention still wants
what it removes.
"""

from __future__ import annotations

import dataclasses
import datetime

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core import errors
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup import manifest, names
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.bucket import plan
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.bucket.facts import Facts
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.bucket.options import (
    BucketOptions,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.catalogue import Backup
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.options import BackupOptions

NOW = 1_800_000_000.0
DAY = 86400


def options(**given):
    return BucketOptions.from_mapping({"s3": {"bucket": "b", "prefix": "node1"}, **given})


def rule(days=10, prefix="", status="Enabled", **more):
    return {
        "ID": "theirs",
        "Status": status,
        "Filter": {"Prefix": prefix},
        "Expiration": {"Days": days},
        **more,
    }


def old(*ages):
    backups = []
    for age in ages:
        created = NOW - age * DAY
        name = names.stem(created) + ".tar.gz"
        backups.append(Backup(name, f"s3://b/node1/{name}", created, 1, legacy=True))
    return (("node1", tuple(backups)),)


def matching(given):
    wanted = plan.decide(given, Facts(True, NOW))
    return Facts(
        True,
        NOW,
        wanted.lifecycle,
        "Enabled",
        "AES256",
        None,
        public_access_blocked=True,
    )


def test_a_missing_bucket_gets_everything():
    planned = plan.decide(options(), Facts(False, NOW))
    assert planned.create
    assert planned.changes == ("block_public_access", "encryption", "versioning", "lifecycle")
    moves, expires, versions, uploads = planned.lifecycle
    assert moves["Transitions"] == [{"Days": 30, "StorageClass": "GLACIER"}]
    assert moves["Filter"] == {
        "And": {"Prefix": "node1/", "ObjectSizeGreaterThan": 16 * 1024 * 1024}
    }
    assert (expires["Expiration"], expires["Filter"]) == ({"Days": 90}, {"Prefix": "node1/"})
    assert versions["NoncurrentVersionExpiration"] == {"NoncurrentDays": 30}
    assert uploads["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}
    assert "charges 90 days" in planned.notes[0]


def test_nothing_changes_twice_and_one_difference_changes_one_setting():
    given = options()
    facts = matching(given)
    assert plan.decide(given, facts).changes == ()
    assert plan.decide(options(expire_days=120), facts).changes == ("lifecycle",)
    assert plan.decide(options(encryption="aws:kms"), facts).changes == ("encryption",)


def test_what_is_not_asked_for_stays():
    given = options(
        versioning=False,
        encryption="keep",
        block_public_access=False,
        transition_days=0,
        expire_days=0,
        noncurrent_days=0,
        abort_incomplete_days=0,
    )
    assert plan.decide(given, Facts(True, NOW)).changes == ()
    ours_goes = Facts(True, NOW, lifecycle=(rule(ID="mlops.fleet expire node1/", prefix="node1/"),))
    assert plan.decide(given, ours_goes).lifecycle == ()


def test_without_a_prefix_the_rules_are_for_all_objects():
    given = BucketOptions.from_mapping({"s3": {"bucket": "b"}})
    expires = plan.rules(given)[1]
    assert (expires["ID"], expires["Filter"]) == ("mlops.fleet expire", {"Prefix": ""})


def test_two_spellings_of_a_rule_are_the_same():
    given = options(transition_days=0, noncurrent_days=0, abort_incomplete_days=0)
    (rule_of_ours,) = plan.rules(given)
    old_form = {**rule_of_ours, "Prefix": "node1/", "Transitions": []}
    del old_form["Filter"]
    facts = Facts(True, NOW, (old_form,), "Enabled", "AES256", None, public_access_blocked=True)
    assert plan.decide(given, facts).changes == ()


@pytest.mark.parametrize("given", [{}, {"Prefix": ""}, {"Filter": {}}, {"Filter": {"Prefix": ""}}])
def test_a_rule_without_a_prefix_is_for_all_objects(given):
    theirs = {"ID": "theirs", "Status": "Disabled", **given}
    planned = plan.decide(options(), Facts(True, NOW, lifecycle=(theirs,)))
    assert planned.before["lifecycle"] == [
        {"ID": "theirs", "Status": "Disabled", "Filter": {"Prefix": ""}}
    ]


@pytest.mark.parametrize(("prefix", "refused"), [("node1", True), ("node2", False)])
def test_a_rule_is_held_against_backups_below_its_prefix_only(prefix, refused):
    (dummy, backups), *_rest = old(40)
    given = options(expire_days=0, transition_days=0, retention_days=30)
    facts = Facts(True, NOW, lifecycle=(rule(days=35, prefix="node1/"),), aged=((prefix, backups),))
    if refused:
        with pytest.raises(errors.Refused, match="would remove"):
            plan.decide(given, facts)
    else:
        assert plan.decide(given, facts).lifecycle


@pytest.mark.parametrize(
    ("encryption", "key", "stored", "changes"),
    [
        ("aws:kms", None, "any", ()),
        ("aws:kms", "k1", "k1", ()),
        ("aws:kms", "k1", "k2", ("encryption",)),
        ("aws:kms", "k1", None, ("encryption",)),
    ],
)
def test_keys_of_the_encryption(encryption, key, stored, changes):
    given = options(encryption=encryption, kms_key_id=key)
    facts = dataclasses.replace(matching(given), encryption=encryption, kms_key_id=stored)
    assert plan.decide(given, facts).changes == changes


def test_a_bucket_without_versions_or_encryption_is_described_in_words():
    before = plan.decide(options(), Facts(True, NOW)).before
    assert (before["versioning"], before["encryption"]) == ("off", "none")
    assert before["block_public_access"] is False


@pytest.mark.parametrize(
    ("setting", "wanted"),
    [("block_public_access", True), ("versioning", "Enabled"), ("encryption", "AES256")],
)
def test_what_the_bucket_has_afterwards(setting, wanted):
    assert plan.decide(options(), Facts(True, NOW)).after[setting] == wanted
    assert plan.decide(options(), Facts(False, NOW)).after["exists"] is True


@pytest.mark.parametrize(("key", "name"), [("k1", "aws:kms k1"), (None, "aws:kms")])
def test_an_encryption_is_named_with_its_key(key, name):
    given = options(encryption="aws:kms", kms_key_id=key)
    assert plan.decide(given, Facts(True, NOW)).after["encryption"] == name


def test_our_rules_are_named_after_their_prefix():
    assert [rule_["ID"] for rule_ in plan.rules(options())] == [
        "mlops.fleet move node1/",
        "mlops.fleet expire node1/",
        "mlops.fleet versions node1/",
        "mlops.fleet uploads node1/",
    ]
    assert plan.rules(options())[2]["Expiration"] == {"ExpiredObjectDeleteMarker": True}


def test_a_rule_with_a_filter_keeps_it_beside_an_old_prefix():
    theirs = {"ID": "theirs", "Prefix": "a", "Filter": {"Prefix": "b"}}
    planned = plan.decide(options(), Facts(True, NOW, lifecycle=(theirs,)))
    assert planned.before["lifecycle"] == [theirs]


def test_a_server_without_lifecycle_rules_is_refused():
    with pytest.raises(errors.NotUsable, match="no lifecycle rules; nothing was changed"):
        plan.decide(options(), Facts(True, NOW, unsupported=frozenset({"lifecycle"})))


def listed(age, source=None, verified=True):
    """A backup as a bucket lists it; without a source an archive of the old scripts."""
    created = NOW - age * DAY
    name = names.stem(created) + ".tar.gz"
    document = None
    if source is not None:
        given = BackupOptions.from_mapping({"source": source, "verify": verified})
        document = manifest.expected(name, created, given)
    path = f"s3://b/node1/{name}"
    return Backup(name, path, created, 1, legacy=document is None, manifest=document)


@pytest.mark.parametrize(
    ("backups", "days", "refused"),
    [
        ([listed(40, "/a")], 40, True),
        ([listed(40, "/a")], 41, False),
        ([listed(1, "/a"), listed(50, "/a")], 40, False),
        ([listed(1, "/a"), listed(50, "/b")], 40, True),
        ([listed(1, "/a"), listed(50)], 40, False),
        ([listed(1, "/a"), listed(2, "/b"), listed(60, "/b"), listed(70, "/a")], 40, False),
    ],
)
def test_the_newest_backup_of_each_source_is_not_left_to_expire(backups, days, refused):
    given = options(expire_days=days, transition_days=0)
    facts = Facts(True, NOW, aged=(("node1", tuple(backups)),))
    if refused:
        with pytest.raises(errors.Refused, match="days old and kept: newest verified backup"):
            plan.decide(given, facts)
    else:
        assert plan.decide(given, facts).lifecycle


@pytest.mark.parametrize(
    ("within", "touches"),
    [
        ({"Filter": {"And": {"Prefix": "", "Tags": [{"Key": "k", "Value": "v"}]}}}, False),
        ({"Filter": {"And": {"Prefix": "", "Tag": {"Key": "k", "Value": "v"}}}}, False),
        ({"Filter": {"And": {"Prefix": "node2/"}}}, False),
        ({"Filter": {"And": {"Prefix": "node1/"}}}, True),
        ({"Filter": {"Prefix": None}}, True),
        ({"Prefix": "node2"}, False),
        ({}, True),
    ],
)
def test_what_a_rule_is_about(within, touches):
    assert plan._touches(within, "/node1/") is touches


@pytest.mark.parametrize(
    ("expiration", "days"),
    [
        ({"Days": 7}, 7.0),
        ({"Date": datetime.datetime.fromtimestamp(NOW + 5 * DAY, datetime.timezone.utc)}, 5.0),
        ({"Date": datetime.datetime.fromtimestamp(NOW - 5 * DAY, datetime.timezone.utc)}, 0.0),
        ({"Date": "2020-01-01"}, None),
        ({"ExpiredObjectDeleteMarker": True}, None),
    ],
)
def test_when_a_rule_removes_objects(expiration, days):
    assert plan._expires_after({"Status": "Enabled", "Expiration": expiration}, NOW) == days
    assert plan._expires_after({"Status": "Disabled", "Expiration": expiration}, NOW) is None
    assert plan._expires_after({"Status": "Enabled"}, NOW) is None


@pytest.mark.parametrize(
    ("storage_class", "days"),
    [
        ("STANDARD_IA", 30),
        ("ONEZONE_IA", 30),
        ("GLACIER_IR", 90),
        ("GLACIER", 90),
        ("DEEP_ARCHIVE", 180),
        ("INTELLIGENT_TIERING", 0),
    ],
)
def test_the_shortest_time_of_each_storage_class(storage_class, days):
    for stays, noted in ((days - 1, True), (days, False), (days + 1, False)):
        if stays > 0:
            given = options(
                transition_class=storage_class, transition_days=30, expire_days=30 + stays
            )
            assert bool(plan.decide(given, Facts(True, NOW)).notes) is noted


@pytest.mark.parametrize(
    ("given", "needed"),
    [
        ({"keep_daily": 2}, 2),
        ({"keep_weekly": 2}, 14),
        ({"keep_monthly": 2}, 62),
        ({"keep_yearly": 2}, 732),
    ],
)
def test_how_long_each_rule_keeps_a_backup(given, needed):
    for days, refused in ((needed - 1, True), (needed, False)):
        asked = options(retention_days=0, transition_days=0, expire_days=days, **given)
        if refused:
            with pytest.raises(errors.Refused, match=f"keeps backups for up to {needed} days"):
                plan.decide(asked, Facts(True, NOW))
        else:
            assert plan.decide(asked, Facts(True, NOW)).lifecycle


@pytest.mark.parametrize(
    ("given", "noted"),
    [
        ({}, True),
        ({"transition_days": 0, "expire_days": 60}, False),
        ({"expire_days": 119}, True),
        ({"expire_days": 120}, False),
        ({"expire_days": 0}, False),
        ({"transition_days": 0}, False),
        ({"transition_class": "INTELLIGENT_TIERING"}, False),
        ({"transition_class": "STANDARD_IA", "expire_days": 60}, False),
        ({"transition_class": "DEEP_ARCHIVE", "expire_days": 209}, True),
    ],
)
def test_the_shortest_time_that_is_charged_is_noted(given, noted):
    assert bool(plan.decide(options(**given), Facts(True, NOW)).notes) is noted


def test_what_is_left_alone_is_not_among_the_settings():
    given = options(versioning=False, encryption="keep", block_public_access=False)
    assert set(plan.decide(given, Facts(True, NOW)).before) == {"exists", "lifecycle"}


def test_rules_of_others_stay():
    theirs = rule(prefix="logs/")
    planned = plan.decide(options(), Facts(True, NOW, lifecycle=(theirs,)))
    assert planned.lifecycle[0] == theirs
    assert len(planned.lifecycle) == 5


@pytest.mark.parametrize(
    "given",
    [
        {"expire_days": 29, "transition_days": 1},
        {"keep_daily": 91},
        {"keep_weekly": 13},
        {"keep_monthly": 3},
        {"keep_yearly": 1},
    ],
)
def test_a_lifecycle_shorter_than_retention_is_refused(given):
    with pytest.raises(
        errors.Refused, match=r"keeps backups for up to \d+ days.*Raise expire_days"
    ):
        plan.decide(options(**given), Facts(True, NOW))


@pytest.mark.parametrize(
    "given", [{"expire_days": 30, "transition_days": 1}, {"keep_daily": 90}, {"keep_weekly": 12}]
)
def test_a_lifecycle_as_long_as_retention_is_accepted(given):
    plan.decide(options(**given), Facts(True, NOW))


@pytest.mark.parametrize(
    ("lifecycle", "refused"),
    [
        (rule(), True),
        (rule(prefix="node1/"), True),
        (rule(prefix="node1/models"), True),
        (rule(prefix="node2/"), False),
        (rule(status="Disabled"), False),
        (rule(days=30), False),
        ({**rule(), "Filter": {"Tag": {"Key": "k", "Value": "v"}}}, False),
        ({"ID": "old form", "Status": "Enabled", "Prefix": "", "Expiration": {"Days": 1}}, True),
        ({**rule(), "Expiration": {"ExpiredObjectDeleteMarker": True}}, False),
        (
            {
                **rule(),
                "Expiration": {"Date": datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)},
            },
            True,
        ),
    ],
)
def test_rules_of_others_are_held_against_retention(lifecycle, refused):
    facts = Facts(True, NOW, lifecycle=(lifecycle,))
    if refused:
        with pytest.raises(errors.Refused, match="Remove or change that rule of the bucket"):
            plan.decide(options(), facts)
    else:
        plan.decide(options(), facts)


def test_the_last_backups_are_not_left_to_expire():
    with pytest.raises(errors.Refused, match="95 days old and kept: no newer backup is verified"):
        plan.decide(options(), Facts(True, NOW, aged=old(95)))
    plan.decide(options(expire_days=96), Facts(True, NOW, aged=old(95)))
    plan.decide(options(expire_days=0), Facts(True, NOW, aged=old(95)))


def test_a_setting_that_the_server_lacks_stops_before_anything_is_written():
    for name, off in (
        ("block_public_access", {"block_public_access": False}),
        ("encryption", {"encryption": "keep"}),
        ("versioning", {"versioning": False}),
    ):
        facts = Facts(True, NOW, unsupported=frozenset({name}))
        with pytest.raises(errors.NotUsable, match=f"no setting {name}; nothing was changed"):
            plan.decide(options(), facts)
        assert name not in plan.decide(options(**off), facts).changes


@pytest.mark.parametrize(
    ("given", "option"),
    [
        ({"s3": {"bucket": ""}}, "s3.bucket"),
        ({"kms_key_id": "k"}, "kms_key_id"),
        ({"transition_days": 90}, "transition_days"),
        ({"expire_days": -1}, "expire_days"),
        ({"transition_class": "STANDARD"}, "transition_class"),
    ],
)
def test_options_that_cannot_work(given, option):
    with pytest.raises(errors.OptionError) as error:
        options(**given)
    assert error.value.subject == option


def a_set(age, *archives):
    """A set of this age in days, with archives by name and their ages; and when they were sent."""
    created = NOW - age * DAY
    members = [
        {"model": model, "name": names.member(NOW - old_age * DAY, model, ".tar.gz")}
        for model, old_age in archives
    ]
    head = {
        "hostname": "node1",
        "source": "/opt/ml/models",
        "created": created,
        "archives": members,
        "verifications": [],
    }
    name = names.stem(created) + names.SET
    backup = Backup(name, f"s3://b/node1/{name}", created, 1, "0" * 64, manifest=head)
    uploaded = {
        f"node1/{member['name']}": NOW - old_age * DAY
        for member, (dummy, old_age) in zip(members, archives)
    }
    return backup, uploaded


def with_sets(*sets):
    uploaded = {key: written for dummy, written_by in sets for key, written in written_by.items()}
    backups = tuple(backup for backup, dummy in sets)
    return Facts(True, NOW, aged=(("node1", backups),), uploaded=uploaded)


@pytest.mark.parametrize(
    ("age", "archive_age", "refused"),
    [
        (0, 0, False),  # both are removed long after the set is
        (0, 59, False),
        (0, 62, True),  # the archive goes after 90 days, when the set is 28 days old
        (0, 100, True),  # the archive goes at once
        (20, 75, False),  # when the archive goes, no rule keeps the set any more
        (20, 95, True),
    ],
)
def test_archives_that_a_kept_set_names_count(age, archive_age, refused):
    given = options(expire_days=90, retention_days=30)
    facts = with_sets(a_set(age, ("llama", archive_age), ("bert", age)))
    if refused:
        with pytest.raises(errors.Refused, match=r"would remove node1/.*llama.*names it") as error:
            plan.decide(given, facts)
        assert "expire_days" in error.value.todo and "s3.prune" in error.value.todo
    else:
        assert "layout: per_model" in plan.decide(given, facts).notes[-1]


def test_archives_that_only_sets_name_which_go_do_not_count():
    """The newer set has archives of its own; no rule keeps the older one."""
    given = options(expire_days=90, retention_days=30)
    older, newer = a_set(50, ("llama", 100)), a_set(0, ("llama", 0))
    verified = [{"depth": "full", "result": "ok", "at": "", "files": 1, "bytes": 1}]
    newer[0].manifest["verifications"] = verified
    assert plan.decide(given, with_sets(older, newer)).changes
    with pytest.raises(errors.Refused, match="names it"):
        plan.decide(options(expire_days=90, retention_days=60), with_sets(older, newer))
