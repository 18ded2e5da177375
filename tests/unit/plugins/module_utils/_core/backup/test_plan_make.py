# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which backup is made and which are removed, as a function of options and facts alone."""

from __future__ import annotations

import dataclasses
import time

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core import errors
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup import (
    catalogue,
    manifest,
    names,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.catalogue import (
    DAY,
    Backup,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.make import facts, plan
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.make.facts import (
    CopyFacts,
    Facts,
    Place,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.options import BackupOptions
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.source import (
    FILE,
    LINK,
    Entry,
    Tree,
)

NOW = 1_800_000_000.0
SOURCE, DESTINATION = "/opt/ml/models", "/backup/models"


def options(**given):
    return BackupOptions.from_mapping({"source": SOURCE, "destination": DESTINATION, **given})


def entry(path, size=0, allocated=None, target=""):
    kind = LINK if target else FILE
    return Entry(
        path, kind, 0o644, 0, 0, size, 0, 0, 0, size if allocated is None else allocated, target
    )


def tree(*entries, skipped=()):
    return Tree(entries or (entry("weights", 1_000_000),), tuple(skipped))


def kept_set(*archives, **changes):
    """A complete set of archives, one per model."""
    name = names.stem(NOW - 60) + names.SET
    document = manifest.expected(name, NOW - 60, options())
    document.update(source=SOURCE, fingerprint="same", archives=list(archives))
    document["totals"]["bytes"] = 1000
    return dataclasses.replace(
        Backup(name, f"{DESTINATION}/{name}", NOW - 60, 500, manifest=document), **changes
    )


def member(model, fingerprint, verified=True):
    """An archive of a model as a set names it."""
    return {"model": model, "fingerprint": fingerprint, "verified": verified}


def backup(age=0.0, verified=True, source=SOURCE, fingerprint="same", **changes):
    """A complete backup; ``age`` in seconds."""
    created = NOW - age
    name = names.stem(created) + ".tar.gz"
    document = manifest.expected(name, created, options(verify=verified))
    document.update(source=source, fingerprint=fingerprint)
    document["totals"]["bytes"] = 1_000_000
    return dataclasses.replace(
        Backup(name, f"{DESTINATION}/{name}", created, 500_000, manifest=document), **changes
    )


def observed(*backups, free=10**12, source=None, present=()):
    ordered = tuple(catalogue.newest_first(backups))
    known = {item.name for item in ordered} | set(present)
    return Facts(source or tree(), "same", tuple(known), ordered, free, NOW)


# --- is a new backup needed
# ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backups", "given", "reason"),
    [
        ([], {}, "there is no complete backup"),
        ([backup()], {}, None),
        ([backup()], {"force": True}, "forced"),
        ([backup(fingerprint="other")], {}, "the source has changed"),
        ([backup(verified=False)], {}, "the newest backup was never verified"),
        ([backup(verified=False)], {"verify": False}, None),
        ([backup(problems=("damaged",))], {}, "there is no complete backup"),
        ([backup(source="/srv/other")], {}, "there is no complete backup"),
        ([backup(60, fingerprint="other"), backup()], {}, None),
        ([backup(60), backup(fingerprint="other")], {}, "the source has changed"),
        ([backup(-2 * DAY, fingerprint="other"), backup(60)], {}, None),
        ([backup(-2 * DAY)], {}, None),
    ],
)
def test_a_new_backup_is_made_when_the_newest_one_will_not_do(backups, given, reason):
    planned = plan.decide(options(**given), observed(*backups))
    assert planned.make is (reason is not None)
    assert planned.reason == (reason or f"nothing has changed since {planned.current.name}")
    assert planned.estimate == 0 or planned.make


@pytest.mark.parametrize(
    ("newest", "layout", "reason"),
    [
        (backup(), "single", None),
        (backup(), "per_model", "the layout has changed"),
        (kept_set(), "single", "the layout has changed"),
        (kept_set(), "per_model", None),
        (backup(manifest=None), "single", "there is no complete backup"),
    ],
)
def test_a_backup_of_the_other_layout_will_not_do(newest, layout, reason):
    assert plan.why_needed(options(layout=layout), observed(), newest) == reason


def _models(*archives, written=(), newest=None, **given):
    """Which archives would be kept, by model."""
    source = tree(entry("a/x", 100), entry("b", 10))
    if newest is None:
        newest = kept_set(*archives)
    planned = plan.models(options(layout="per_model", **given), source, newest, written)
    assert [item.model for item in planned] == ["a", "b"]
    return {item.model: item.keep for item in planned if item.keep is not None}


FINGERPRINTS = {
    item.model: item.fingerprint
    for item in plan.models(options(), tree(entry("a/x", 100), entry("b", 10)), None)
}
MODEL_A, UNVERIFIED_A = member("a", FINGERPRINTS["a"]), member("a", FINGERPRINTS["a"], False)


@pytest.mark.parametrize(
    ("archives", "given", "kept"),
    [
        ([MODEL_A], {}, {"a": MODEL_A}),
        ([MODEL_A], {"force": True}, {}),
        ([UNVERIFIED_A], {}, {}),
        ([UNVERIFIED_A], {"verify": False}, {"a": UNVERIFIED_A}),
        ([MODEL_A], {"verify": False}, {"a": MODEL_A}),
        ([member("a", "other")], {}, {}),
        ([member("b", FINGERPRINTS["a"])], {}, {}),
        ([MODEL_A], {"newest": kept_set(MODEL_A, problems=("damaged",))}, {}),
        ([], {"written": [MODEL_A], "force": True}, {"a": MODEL_A}),
    ],
)
def test_an_archive_of_the_last_set_is_kept_while_it_matches(archives, given, kept):
    assert _models(*archives, **given) == kept


def test_without_an_earlier_set_every_model_is_written():
    assert [item.keep for item in plan.models(options(), tree(), None)] == [None]


def test_the_backup_that_will_do_is_the_current_one():
    newest, older = backup(60), backup(120)
    planned = plan.decide(options(), observed(older, newest))
    assert planned.current == newest and not planned.removals


def test_a_damaged_or_foreign_archive_never_counts_as_the_newest():
    good = backup(60)
    planned = plan.decide(
        options(), observed(good, backup(0, problems=("damaged",)), backup(1, source="/srv/x"))
    )
    assert planned.current == good


# --- name and time
# ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "suffix"),
    [
        ({"compression": "gzip"}, ".tar.gz"),
        ({"compression": "zstd"}, ".tar.zst"),
        ({"compression": "none"}, ".tar"),
        ({"layout": "per_model"}, names.SET),
    ],
)
def test_the_new_backup_is_named_after_now(given, suffix):
    coming = plan.decide(options(**given), observed()).current
    stamp = time.strftime("models_backup_%Y%m%d_%H%M%S", time.localtime(NOW))
    assert (coming.name, coming.created) == (stamp + suffix, NOW)
    assert coming.path == f"{DESTINATION}/{coming.name}" and coming.verified
    assert coming.size == 0


def test_a_second_that_is_taken_is_left_out():
    """By anything with that name: an archive of another compression, or a manifest alone."""
    taken = [names.stem(NOW) + ".tar", names.stem(NOW + 1) + ".tar.gz.manifest.json"]
    coming = plan.decide(options(), observed(present=taken)).current
    assert (coming.name, coming.created) == (names.stem(NOW + 2) + ".tar.gz", NOW + 2)


@pytest.mark.parametrize(
    ("ahead", "expected"), [(0, 0), (1, 2), (3600, 3601), (DAY, DAY + 1), (DAY + 1, 0)]
)
def test_a_clock_that_was_set_back_a_little_keeps_the_order(ahead, expected):
    seen = observed(backup(-ahead, fingerprint="other"))
    assert plan.creation_time(seen) == NOW + expected


def test_the_next_free_second_is_taken():
    coming = plan.decide(options(), observed(present=[names.stem(NOW) + ".tar.gz"])).current
    assert coming.created == NOW + 1


def test_a_damaged_backup_does_not_move_the_time():
    assert plan.creation_time(observed(backup(-60, problems=("damaged",)))) == NOW


# --- space
# -----------------------------------------------------------------------------------------------------------

OVERHEAD = 2048 + 65536


@pytest.mark.parametrize(
    ("source", "newest", "compression", "expected"),
    [
        (tree(entry("a", 1000)), None, "none", 1000),
        (tree(entry("a", 1000, allocated=10)), None, "none", 1000),
        (tree(entry("a", 1000, allocated=10)), None, "gzip", 10),
        (tree(entry("a", 1000, allocated=10)), backup(), "zstd", 10),
        (tree(entry("a", 1000, allocated=10)), backup(), "gzip", 550),
        (tree(entry("a", 1000, allocated=10)), backup(size=5_000_000), "gzip", 1000),
    ],
)
def test_the_estimate_follows_the_last_ratio(source, newest, compression, expected):
    given = options(compression=compression)
    assert plan.estimate(given, observed(source=source), newest) == expected + OVERHEAD


def test_of_a_set_only_the_models_that_are_written_count():
    seen = observed(source=tree(entry("a/x", 100), entry("b", 10)))
    given = options(layout="per_model", compression="none")
    assert plan.estimate(given, seen, kept_set(MODEL_A)) == 10 + OVERHEAD
    assert plan.estimate(options(compression="none"), seen, kept_set(MODEL_A)) == (
        110 + 2048 + OVERHEAD
    )


def test_an_archive_without_a_manifest_has_no_ratio():
    seen = observed(source=tree(entry("a", 1000, allocated=10)))
    assert plan.estimate(options(), seen, backup(manifest=None)) == 10 + OVERHEAD


@pytest.mark.parametrize("before", [0, 1])
def test_an_empty_predecessor_has_no_ratio(before):
    empty = backup()
    empty.manifest["totals"]["bytes"] = before
    assert plan.estimate(options(), observed(), empty) == 1_000_000 + OVERHEAD


@pytest.mark.parametrize(("missing", "fits"), [(1, False), (0, True)])
def test_what_does_not_fit_is_refused(missing, fits):
    seen = observed(free=1_000_000 + OVERHEAD - missing)
    if fits:
        assert plan.decide(options(), seen).estimate == 1_000_000 + OVERHEAD
        return
    with pytest.raises(errors.WriteFailed, match="Not enough space"):
        plan.decide(options(), seen)


def test_where_nothing_is_made_no_space_is_needed():
    assert not plan.decide(options(), observed(backup(), free=0)).make


# --- what is removed
# -------------------------------------------------------------------------------------------------


def removed(planned):
    return [round((NOW - decision.backup.created) / DAY) for decision in planned.removals]


def test_the_coming_backup_counts_for_the_rules():
    old = backup(40 * DAY, fingerprint="other")
    assert removed(plan.decide(options(), observed(old))) == [40]
    assert removed(plan.decide(options(verify=False), observed(old))) == []


def test_each_retention_option_is_its_own_rule():
    seen = observed(*(backup(days * DAY) for days in range(0, 800, 5)))
    kept = {}
    for rule, count in (
        ("retention_days", 11),
        ("keep_last", 2),
        ("keep_daily", 4),
        ("keep_weekly", 3),
        ("keep_monthly", 5),
        ("keep_yearly", 2),
    ):
        planned = plan.decide(options(**{"retention_days": 0, rule: count}), seen)
        kept[rule] = 160 - len(planned.removals)
    assert kept == {
        "retention_days": 3,
        "keep_last": 2,
        "keep_daily": 4,
        "keep_weekly": 3,
        "keep_monthly": 5,
        "keep_yearly": 2,
    }


def test_backups_of_another_source_are_left_alone():
    seen = observed(backup(), backup(90 * DAY), backup(91 * DAY, source="/srv/other"))
    assert removed(plan.decide(options(), seen)) == [90]


def test_the_runs_own_backup_is_never_removed():
    """Whatever the clock says: nothing verified may push the current one out."""
    for verified in (True, False):
        current = backup(90 * DAY, verified=verified)
        seen = observed(current, backup(80 * DAY, problems=("damaged",)))
        planned = plan.decide(options(verify=False), seen)
        assert planned.current == current and current.name not in [
            decision.backup.name for decision in planned.removals
        ]


def test_what_this_user_may_not_read_stays():
    denied = backup(90 * DAY, manifest=None, problems=("denied",), unreadable="denied")
    planned = plan.decide(options(), observed(denied))
    assert planned.make and planned.reason == plan.NONE_READABLE and not planned.removals
    assert not plan.decide(options(), observed(denied, backup())).removals
    (line,) = plan.notes(options(), tree(), [denied], NOW)
    assert line == f"1 backups can't be read by this user ({denied.name}); they stay"


# --- copies
# ----------------------------------------------------------------------------------------------------------

COPY = {"url": "s3://b/x", "size": 1, "sha256": "", "verified": "checksum"}


@pytest.mark.parametrize("present", [None, COPY])
def test_a_missing_copy_is_uploaded(present):
    todo = plan.decide_copies(options(), CopyFacts(present), backup(), NOW)
    assert (todo.upload, todo.removals) == (present is None, ())


def test_copies_are_removed_where_they_were_listed():
    current, old, other = backup(), backup(40 * DAY), backup(50 * DAY, source="/srv/other")
    for listed in ((old, other), (current, old, other)):
        todo = plan.decide_copies(options(), CopyFacts(None, listed), current, NOW)
        assert [decision.backup for decision in todo.removals] == [old]


def test_the_copy_of_the_current_backup_stays():
    current = backup(90 * DAY, verified=False)
    listed = (current, backup(80 * DAY))
    todo = plan.decide_copies(options(), CopyFacts(COPY, listed), current, NOW)
    assert todo.removals == ()


# --- source and destination
# ------------------------------------------------------------------------------------------

GOOD = Place(facts.DIRECTORY, facts.MISSING, "/backup/models")


@pytest.mark.parametrize("destination", [facts.MISSING, facts.DIRECTORY])
def test_a_good_place(destination):
    plan.check_place(options(), dataclasses.replace(GOOD, destination=destination))


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        ({"source": facts.MISSING}, errors.NotUsable, "models does not exist"),
        ({"source": facts.DENIED}, errors.NotPermitted, "/opt/ml/models: permission denied"),
        ({"destination": facts.DENIED}, errors.NotPermitted, "/backup/models: permission denied"),
        ({"source": facts.OTHER}, errors.NotUsable, "models is not a directory"),
        ({"dangling": "/mnt/disk"}, errors.NotUsable, "leads to /mnt/disk, which does not exist"),
        ({"destination": facts.OTHER}, errors.NotUsable, "destination .* is not a directory"),
        ({"real_destination": "/"}, errors.Refused, "system directory"),
        ({"real_destination": "/etc"}, errors.Refused, "system directory"),
        ({"real_destination": "/usr/lib/backups"}, errors.Refused, "system directory"),
        ({"destination_in_source": True}, errors.Refused, "backups would contain backups"),
        ({"source_in_destination": True}, errors.Refused, "source .* lies inside"),
    ],
)
def test_places_that_are_refused(change, kind, text):
    with pytest.raises(kind, match=text):
        plan.check_place(options(), dataclasses.replace(GOOD, **change))


@pytest.mark.parametrize("real", ["/etcetera", "/backup/etc"])
def test_a_name_that_only_begins_like_a_system_directory(real):
    plan.check_place(options(), dataclasses.replace(GOOD, real_destination=real))


# --- notes
# -----------------------------------------------------------------------------------------------------------


def test_nothing_to_note():
    inside = tree(entry("weights", 1), entry("latest", target="weights"))
    assert plan.notes(options(), inside, [backup()], NOW) == []


def test_what_is_not_backed_up_is_listed_up_to_a_limit():
    for count, expected in ((20, 20), (21, 21), (25, 21)):
        lines = plan.notes(
            options(), tree(skipped=[f"pipe{n} (pipe)" for n in range(count)]), [], NOW
        )
        assert len(lines) == expected and lines[19] == "not backed up: pipe19 (pipe)"
    assert lines[-1] == "not backed up: 5 more sockets, pipes and devices"


def test_links_that_leave_the_source_are_counted():
    links = [entry("a", target="/mnt/big"), entry("b", target="../x"), entry("c", target="a/y")]
    (line,) = plan.notes(options(), tree(entry("w", 1), *links), [], NOW)
    assert line.startswith("3 links point out of the source (a -> /mnt/big)")


def test_other_backups_are_mentioned():
    lines = plan.notes(
        options(), tree(), [backup(-2 * DAY), backup(), backup(1, source="/srv/x")], NOW
    )
    assert lines[0].startswith("1 backups are dated in the future")
    assert lines[1].startswith("the directory holds backups of /srv/x too")


def test_backups_of_other_hosts_are_mentioned():
    stranger = backup(60)
    stranger.manifest["hostname"] = "node-b"
    for others in ([], [backup(90, manifest=None)]):
        (line,) = plan.notes(options(), tree(), [stranger, *others], NOW, "node-a")
        assert line == "the directory holds backups made on node-b; this run leaves them alone"
    assert plan.notes(options(), tree(), [stranger], NOW, "node-b") == []


OUT = entry("a", target="/mnt/big")


def test_followed_links_are_mentioned():
    followed = Tree((entry("w", 1),), (), followed=("a",), outside=("b -> /gone",))
    lines = plan.notes(options(outside_links="follow"), followed, [], NOW)
    assert lines[0].startswith("1 links point out of the source (b -> /gone)")
    assert lines[1].startswith("1 link out of the source followed (a)")


@pytest.mark.parametrize(
    ("policy", "links"),
    [("warn", ("a -> /mnt/big",)), ("fail", ("a -> /mnt/big",)), ("follow", ())],
)
def test_what_is_not_in_the_backup_is_a_warning(policy, links):
    seen = plan.outside(options(outside_links=policy), tree(OUT, entry("w", 1)))
    assert (seen, plan.status(seen)) == (links, "warning" if links else "pass")


@pytest.mark.parametrize(
    ("policy", "link", "refused"),
    [
        ("fail", OUT, True),
        ("fail", entry("a", target="w"), False),
        ("warn", OUT, False),
        ("follow", OUT, False),
    ],
)
def test_a_link_out_of_the_source_may_be_refused(policy, link, refused):
    seen = observed(source=tree(entry("w", 1), link))
    if not refused:
        assert plan.decide(options(outside_links=policy), seen).make
        return
    with pytest.raises(errors.Refused, match="1 link of /opt/ml/models point"):
        plan.decide(options(outside_links=policy), seen)
