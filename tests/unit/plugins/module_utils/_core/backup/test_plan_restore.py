# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which backup is restored, what is refused, and what is done with leftovers, as a function of
options and facts alone.
"""

from __future__ import annotations

import dataclasses

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core import errors
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup import manifest, names
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.catalogue import DAY, Backup
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.manifest import Contents
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.options import (
    BackupOptions,
    RestoreOptions,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.restore import facts, plan
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.restore.facts import (
    Facts,
    Leftovers,
    Origin,
    Place,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.source import DIRECTORY

NOW = 1_800_000_000.0
DESTINATION = "/srv/restored/models"


def options(**given):
    return RestoreOptions.from_mapping({"destination": DESTINATION, **given})


DRILL = RestoreOptions.from_mapping({"drill": True, "backup": "random"})


def record(path, kind="file", size=10, target=None):
    found = {"path": path, "type": kind, "mode": "0644", "uid": 0, "gid": 0, "mtime_ns": 0}
    if kind == "file":
        found.update(size=size, sha256="0")
    if target:
        found.update(target=target)
    return found


ENTRIES = (
    record("bert", DIRECTORY),
    record("bert/v1", DIRECTORY),
    record("bert/v1/weights", size=1000),
    record("bert/notes", size=50),
    record("latest", "link", target="bert"),
    record("run.sh", size=7),
)


def backup(age=0.0, verified=True, source="/opt/ml/models", **changes):
    created = NOW - age
    name = names.stem(created) + ".tar.gz"
    document = manifest.expected(name, created, BackupOptions.from_mapping({"verify": verified}))
    document.update(source=source)
    return dataclasses.replace(
        Backup(name, f"/backup/models/{name}", created, 5, "f" * 64, manifest=document), **changes
    )


def legacy(age=0.0):
    return backup(age, manifest=None, legacy=True)


def place(*backups, **changes):
    return dataclasses.replace(Place(DESTINATION, tuple(backups), "/backup/models", NOW), **changes)


def observed(state=facts.MISSING, wanted=ENTRIES, free=10**9, reason=""):
    origin = Origin(backup(), "/backup/models/x", ())
    return Facts(origin, DESTINATION, wanted, state, free, reason)


def choose(given, where, entries=ENTRIES):
    """Choose a backup, then what of its contents is restored."""
    chosen = plan.choose(given, where)
    contents = None if chosen.manifest is None else Contents(list(entries))
    return plan.narrow(given, where, chosen, contents)


# --- which backup
# ----------------------------------------------------------------------------------------------------

VERIFIED, PLAIN, OLD = backup(300), backup(200, verified=False), legacy(100)
AHEAD, DAMAGED = backup(-2 * DAY), backup(10, problems=("cut off",))


@pytest.mark.parametrize(
    ("backups", "expected"),
    [
        ([DAMAGED, OLD, PLAIN, VERIFIED], VERIFIED),
        ([DAMAGED, OLD, PLAIN], PLAIN),
        ([DAMAGED, OLD], OLD),
        ([backup(50), VERIFIED], backup(50)),
        ([AHEAD, VERIFIED], VERIFIED),
        ([AHEAD, PLAIN], AHEAD),
        ([AHEAD], AHEAD),
        ([backup(-DAY), VERIFIED], backup(-DAY)),
    ],
)
def test_latest_is_the_newest_of_the_best_kind(backups, expected):
    assert choose(options(), place(*backups)).backup == expected


@pytest.mark.parametrize("backups", [[], [DAMAGED]])
def test_without_a_complete_backup_nothing_is_latest(backups):
    with pytest.raises(errors.NotUsable, match="no complete backup in /backup/models"):
        choose(options(), place(*backups))


DENIED = backup(50, manifest=None, problems=("denied",), unreadable="Can't read x: denied.")


@pytest.mark.parametrize("given", [{}, {"backup": DENIED.name}, {"verify": False}])
def test_what_this_user_may_not_read_is_not_absent(given):
    with pytest.raises(errors.NotPermitted, match="Can't read x: denied"):
        choose(options(**given), place(DAMAGED, DENIED))


def test_a_newer_backup_that_can_not_be_read_is_mentioned():
    choice = choose(options(), place(DENIED, VERIFIED))
    assert choice.backup == VERIFIED and f"may not read {DENIED.name}" in choice.note
    older = dataclasses.replace(DENIED, created=VERIFIED.created)
    assert choose(options(), place(VERIFIED, older)).note == ""
    assert choose(options(), place(PLAIN, VERIFIED)).note == ""


def test_a_backup_by_name():
    assert choose(options(backup=PLAIN.name), place(VERIFIED, PLAIN)).backup == PLAIN
    with pytest.raises(
        errors.NotUsable, match=rf"no backup nothing.tar .*newest there: {PLAIN.name}"
    ):
        choose(options(backup="nothing.tar"), place(PLAIN))
    with pytest.raises(errors.NotUsable, match="newest there: none"):
        choose(options(backup="nothing.tar"), place())


def test_a_backup_by_path_is_the_archive_whatever_its_name():
    archive = dataclasses.replace(DAMAGED, name="latest", problems=())
    assert choose(options(backup="/mnt/latest"), place(archive)).backup == archive


def test_a_damaged_backup_is_restored_only_without_verification():
    with pytest.raises(errors.VerificationFailed, match="is damaged: cut off"):
        choose(options(backup=DAMAGED.name), place(DAMAGED))
    assert choose(options(backup=DAMAGED.name, verify=False), place(DAMAGED)).backup == DAMAGED


def kept_set(*models, age=20.0, hostname="", **changes):
    """A set with an archive of each of these models."""
    name = names.stem(NOW - age) + names.SET
    made = backup(age, name=name, path=f"/backup/models/{name}")
    document = {**made.manifest, "name": name, "archives": [{"model": model} for model in models]}
    return dataclasses.replace(made, manifest={**document, "hostname": hostname}, **changes)


@pytest.mark.parametrize(
    ("damaged", "given", "refused"),
    [
        (kept_set("bert", problems=("bert is cut off",)), {}, True),
        (kept_set("bert", problems=("bert is cut off",)), {"model": "bert"}, False),
        (kept_set("bert", problems=("bert is cut off",)), {"verify": False}, False),
        (DAMAGED, {"model": "bert"}, True),
    ],
)
def test_one_model_may_be_sound_in_a_damaged_set(damaged, given, refused):
    asked = options(backup=damaged.name, **given)
    if not refused:
        assert plan.choose(asked, place(damaged)) == damaged
        return
    with pytest.raises(errors.VerificationFailed, match="is damaged"):
        plan.choose(asked, place(damaged))


def of_host(hostname, age=0.0, **changes):
    made = backup(age, **changes)
    made.manifest["hostname"] = hostname
    return made


OURS, THEIRS = of_host("node-a", 400, verified=False), of_host("node-b", 10)


@pytest.mark.parametrize(
    ("backups", "expected", "note"),
    [
        (
            [THEIRS, OURS],
            OURS,
            "this is the latest backup of node-a; there are those of other hosts",
        ),
        ([THEIRS, OLD], THEIRS, ""),
        ([OLD, OURS], OURS, ""),
        ([OURS, of_host("node-a", 500)], of_host("node-a", 500), ""),
        ([OURS, of_host("", 600)], of_host("", 600), ""),
        (
            [THEIRS, OURS, of_host("node-a", 500, verified=False, source="/srv/b")],
            OURS,
            "this is the latest backup of /opt/ml/models; there are backups of /srv/b too",
        ),
    ],
)
def test_in_a_shared_directory_those_of_this_host_come_first(backups, expected, note):
    where = place(*backups, hostname="node-a")
    chosen = plan.choose(options(), where)
    assert chosen == expected
    assert plan.narrow(options(), where, chosen, None).note == note


@pytest.mark.parametrize(
    ("lot", "backups", "expected"),
    [
        (0.0, [DAMAGED, VERIFIED, PLAIN, OLD], VERIFIED),
        (0.49, [DAMAGED, VERIFIED, PLAIN, OLD], VERIFIED),
        (0.5, [DAMAGED, VERIFIED, PLAIN, OLD], PLAIN),
        (0.99, [DAMAGED, VERIFIED, PLAIN, OLD], PLAIN),
        (0.99, [DAMAGED, OLD], OLD),
    ],
)
def test_a_backup_by_lot_is_a_complete_one(lot, backups, expected):
    assert plan.choose(DRILL, place(*backups, lot=lot)) == expected


def test_without_a_usable_backup_none_is_drawn():
    with pytest.raises(errors.NotUsable, match="no complete backup"):
        plan.choose(DRILL, place(DAMAGED))
    with pytest.raises(errors.NotPermitted, match="Can't read x"):
        plan.choose(DRILL, place(DAMAGED, DENIED))


def test_three_of_the_others_are_named():
    present = [backup(age) for age in (1, 2, 3, 4)]
    with pytest.raises(errors.NotUsable) as error:
        plan.choose(options(backup="nothing.tar"), place(*present))
    listed = ", ".join(item.name for item in present[:3])
    assert error.value.todo == f"The newest there: {listed}."


@pytest.mark.parametrize(
    ("given", "backups", "expected"),
    [
        ({}, [VERIFIED], ""),
        ({}, [VERIFIED, backup(400, source="/srv/b")], "there are backups of /srv/b too"),
        ({}, [VERIFIED, backup(400, source="/srv/b", problems=("x",))], ""),
        ({"backup": VERIFIED.name}, [VERIFIED, backup(400, source="/srv/b")], ""),
        ({}, [OLD], ""),
    ],
)
def test_latest_says_when_it_could_have_meant_another_source(given, backups, expected):
    assert choose(options(**given), place(*backups)).note.endswith(expected)
    assert bool(choose(options(**given), place(*backups)).note) is bool(expected)


# --- what of it
# ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ([], [entry["path"] for entry in ENTRIES]),
        (["weights"], ["bert", "bert/v1", "bert/v1/weights"]),
        (["bert/v1"], ["bert", "bert/v1", "bert/v1/weights"]),
        (["bert/notes", "run.sh"], ["bert", "bert/notes", "run.sh"]),
        (["*.sh"], ["run.sh"]),
        (["latest"], ["latest"]),
    ],
)
def test_what_is_restored(patterns, expected):
    assert [entry["path"] for entry in plan.select(Contents(list(ENTRIES)), patterns)] == expected


MIXED = (*ENTRIES, record("bert/v2", size=3), record("llama", DIRECTORY), record("llama/v1"))


@pytest.mark.parametrize(
    ("patterns", "model", "expected"),
    [
        ([], "bert", ["bert", "bert/v1", "bert/v1/weights", "bert/notes", "bert/v2"]),
        ([], "v1", []),
        (["v1"], "llama", ["llama", "llama/v1"]),
        (["v1"], "run.sh", []),
        (["bert/v1/weights"], None, ["bert", "bert/v1", "bert/v1/weights"]),
    ],
)
def test_of_one_model_only_its_own_entries_are_restored(patterns, model, expected):
    chosen = plan.select(Contents(list(MIXED)), patterns, model)
    assert [entry["path"] for entry in chosen] == expected


def test_only_directories_are_restored_for_what_is_in_them():
    """A manifest may list a link at the place of a directory that holds a chosen file."""
    listed = [record("a", "link", target="b"), record("a/x")]
    assert plan.select(Contents(listed), ["a/x"]) == (listed[1],)


ONE = [record("bert", DIRECTORY), record("bert/w")]


@pytest.mark.parametrize(
    ("given", "backup_", "entries", "text", "todo"),
    [
        (
            {"files": ["x", "y"]},
            VERIFIED,
            ONE,
            "Nothing in {} matches x, y.",
            "Check the patterns.",
        ),
        (
            {"files": ["x"], "model": "bert"},
            kept_set("bert"),
            ONE,
            "Nothing in {} matches x.",
            "Check",
        ),
        (
            {"files": ["x"], "model": "no"},
            kept_set("bert"),
            [],
            "no model no in {}",
            "It holds: bert.",
        ),
        ({"files": ["x"]}, VERIFIED, [], "Nothing in {} matches x.", "Check the patterns."),
        ({"model": "no"}, kept_set("bert"), None, "no model no in {}", "It holds: bert."),
        ({"model": "no"}, kept_set("a", "b"), ONE, "no model no in {}", "It holds: a, b."),
        ({"model": "no"}, VERIFIED, ONE, "no model no in {}", "It holds: bert."),
        ({"model": "no"}, VERIFIED, [], "no model no in {}", "It holds: none."),
        ({"model": "no"}, VERIFIED, None, "no model no in {}", "It holds: none."),
        (
            {"model": "no"},
            kept_set(*"abcdefghijklm"),
            None,
            "no model no in {}",
            "It holds: a, b, c, d, e, f, g, h, i, j and 3 more.",
        ),
    ],
)
def test_a_message_about_what_a_backup_lacks_lists_what_it_holds(
    given, backup_, entries, text, todo
):
    contents = None if entries is None else Contents(list(entries))
    with pytest.raises(errors.NotUsable) as error:
        plan._nothing(options(**given), backup_, contents)
    assert text.format(backup_.name) in error.value.message
    assert error.value.todo.startswith(todo)


def test_what_an_old_archive_holds_is_not_known():
    assert plan.select(None, ["x"]) is None
    assert choose(options(files=["x"]), place(OLD)).wanted is None


def test_patterns_that_match_nothing_are_an_error():
    with pytest.raises(errors.NotUsable, match=r"Nothing in .* matches no such"):
        choose(options(files=["no such"]), place(VERIFIED))


@pytest.mark.parametrize("target", ["/etc", "../x", "bert/../../x"])
def test_links_that_leave_the_destination_are_refused(target):
    leaving = [record("out", "link", target=target)]
    with pytest.raises(errors.Refused, match="allow_outside_links"):
        choose(options(), place(VERIFIED), leaving)
    allowed = choose(options(allow_outside_links=True), place(VERIFIED), leaving)
    assert allowed.wanted == tuple(leaving)


# --- where to
# --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"link": True}, "is a symbolic link"),
        ({"mount_point": DESTINATION}, "models is a mount point"),
        ({"mount_point": DESTINATION + "/x"}, "holds the mount point .*/x"),
    ],
)
def test_destinations_that_can_not_be_swapped(change, text):
    with pytest.raises(errors.Refused, match=text):
        choose(options(), place(VERIFIED, **change))


@pytest.mark.parametrize(
    ("archive", "refused"),
    [
        ("/srv/b/x.tar", True),
        ("/srv/b/deep/x.tar", True),
        ("/srv/bb/x.tar", False),
        ("/srv/b", False),
        (None, False),
    ],
)
def test_a_restore_never_replaces_its_own_backup(archive, refused):
    if not refused:
        plan.refuse_own_backup("/b", "/srv/b", archive)
        return
    with pytest.raises(errors.Refused, match="lies inside the restore destination /b"):
        plan.refuse_own_backup("/b", "/srv/b", archive)


# --- whether
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "mode", "restores"),
    [
        ("missing", "new", True),
        ("empty", "new", True),
        ("same", "new", False),
        ("other", "new", None),
        ("missing", "replace", True),
        ("empty", "replace", True),
        ("same", "replace", False),
        ("other", "replace", True),
    ],
)
def test_what_is_there_decides(state, mode, restores):
    seen = observed(state, reason="it differs")
    if restores is None:
        with pytest.raises(
            errors.Refused, match="not empty and differs from the backup: it differs"
        ):
            plan.decide(options(mode=mode), seen)
        return
    planned = plan.decide(options(mode=mode), seen)
    assert planned.restore is restores
    assert (planned.files, planned.size, len(planned.paths)) == (3, 1057, 6)


@pytest.mark.parametrize(("free", "fits"), [(1056, False), (1057, True)])
def test_what_does_not_fit_is_refused(free, fits):
    if fits:
        assert plan.decide(options(), observed(free=free)).restore
        return
    with pytest.raises(errors.WriteFailed, match="Not enough space"):
        plan.decide(options(), observed(free=free))


def test_where_nothing_is_restored_no_space_is_needed():
    assert not plan.decide(options(), observed(facts.SAME, free=0)).restore


@pytest.mark.parametrize(
    ("drill", "wanted", "free", "fits"),
    [
        (True, None, 4, False),
        (True, None, 5, True),
        (False, None, 4, True),
        (True, ENTRIES, 1056, False),
        (True, ENTRIES, 1057, True),
    ],
)
def test_a_drill_of_an_old_archive_needs_at_least_its_size(drill, wanted, free, fits):
    asked = DRILL if drill else options()
    seen = observed(wanted=wanted, free=free)
    if fits:
        assert plan.decide(asked, seen).restore
        return
    with pytest.raises(errors.WriteFailed, match="Not enough space"):
        plan.decide(asked, seen)


def test_an_old_archive_has_no_known_size():
    planned = plan.decide(options(), observed(wanted=None, free=0))
    assert (planned.restore, planned.files, planned.size, planned.paths) == (True, 0, 0, ())


# --- leftovers
# -------------------------------------------------------------------------------------------------------

MOVED, WRITTEN = ".models.mlops-old.0123456789ab", ".models.mlops-restore.0123456789ab"
OTHER_MOVED = ".models.mlops-old.ffffffffffff"


@pytest.mark.parametrize(
    ("present", "missing", "put_back", "remove"),
    [
        ([], True, None, ()),
        (["models", "x"], False, None, ()),
        ([WRITTEN], True, None, (WRITTEN,)),
        ([WRITTEN], False, None, (WRITTEN,)),
        ([MOVED], True, MOVED, ()),
        ([MOVED], False, None, (MOVED,)),
        ([WRITTEN, MOVED], True, MOVED, (WRITTEN,)),
        ([OTHER_MOVED, MOVED], True, MOVED, (OTHER_MOVED,)),
    ],
)
def test_leftovers(present, missing, put_back, remove):
    recovery = plan.decide_recovery(Leftovers(DESTINATION, tuple(present), missing))
    assert (recovery.put_back, recovery.remove) == (put_back, remove)


@pytest.mark.parametrize(
    "name",
    [
        "models.mlops-old.0123456789ab",
        ".models.mlops-old.0123456789a",
        ".models.mlops-old.0123456789abc",
        ".models.mlops-old.0123456789aB",
        ".models.mlops-other.0123456789ab",
        ".modelsXmlops-old.0123456789ab",
        "..models.mlops-old.0123456789ab",
        ".bert.mlops-old.0123456789ab",
    ],
)
def test_what_only_looks_like_a_leftover_is_left_alone(name):
    recovery = plan.decide_recovery(Leftovers(DESTINATION, (name,), True))
    assert (recovery.put_back, recovery.remove) == (None, ())
