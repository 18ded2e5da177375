# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is removed and what stays, decided from facts alone: one table for each rule."""

from __future__ import annotations

import re
import stat

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup import brake, plan, scan
from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup.checkpoints import (
    Checkpoint,
    RunFacts,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup.cover import BackupFacts
from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup.facts import (
    Facts,
    LeftoverFacts,
    MovedUnit,
    TargetFacts,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup.inuse import InUse
from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup.options import (
    BrakeOptions,
    CleanupOptions,
    RequireBackupOptions,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup.targets import (
    Target,
    cutoff,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup.tool import (
    Item,
    ToolFacts,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import Refused

NOW = 1_000_000.0
DAY = 86400
SECOND = 10**9
FILE, DIRECTORY = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755


def _unit(name="u", age=40 * DAY, content_age=None, mode=FILE, **fields):
    """A unit whose own time is ``age`` seconds ago, and whose newest content ``content_age`` (as old, by default)."""
    own = int((NOW - age) * SECOND)
    content = own if content_age is None else int((NOW - content_age) * SECOND)
    unit = scan.Survey(name, (1, 2), mode, 0, own, own, content)
    unit.files = 1
    for field, value in fields.items():
        setattr(unit, field, value)
    return unit


def _target(name="t", retention=30 * DAY, **more):
    return Target(name, "/r", float(retention), **more)


@pytest.mark.parametrize(
    ("age", "content_age", "retention", "due"),
    [
        (30 * DAY, None, 30 * DAY, True),
        (30 * DAY - 1e-6, None, 30 * DAY, False),
        (31 * DAY, None, 30 * DAY, True),
        (31 * DAY, 30 * DAY, 30 * DAY, True),
        (31 * DAY, 1, 30 * DAY, False),
        (1, 31 * DAY, 30 * DAY, False),
        (0, None, 0, True),
        (-5 * DAY, None, 0, True),
        (-5 * DAY, None, 1, False),
        (0.5, None, 1e-6, True),
        (0, None, 1e-6, False),
    ],
)
def test_due(age, content_age, retention, due):
    limit = cutoff(_target(retention=retention), NOW)
    assert plan.due(_unit(age=age, content_age=content_age), limit) is due


@pytest.mark.parametrize(
    ("unit", "why"),
    [
        ({}, ""),
        ({"veto": "in use"}, "in use"),
        ({"veto": "in use", "stopped": True}, ""),
        ({"stopped": True}, ""),
    ],
)
def test_vetoed(unit, why):
    assert plan.vetoed(_unit(**unit)) == why


@pytest.mark.parametrize(
    ("unit", "target", "protected", "rank", "why"),
    [
        ({}, {}, "", 0, ""),
        ({}, {}, "the link latest names it", 9, "the link latest names it"),
        ({"veto": "excluded"}, {"retention": 0}, "", 9, "excluded"),
        ({"age": DAY}, {}, "", 9, "newest change 1.0 days ago, kept 30.0 days"),
        (
            {"age": DAY, "veto": "in use", "stopped": True},
            {},
            "",
            9,
            "newest change 1.0 days ago, kept 30.0 days",
        ),
        ({"age": 0}, {}, "", 9, "newest change 0 ms ago, kept 30.0 days"),
        (
            {"content_age": DAY, "content_path": "logs/x"},
            {},
            "",
            9,
            "newest change 1.0 days ago (logs/x), kept 30.0 days",
        ),
        (
            {"content_age": DAY, "content_path": "a/" + "x" * 200},
            {},
            "",
            9,
            f"newest change 1.0 days ago ({'x' * 200}), kept 30.0 days",
        ),
        (
            {"age": -2 * DAY},
            {},
            "",
            9,
            "newest change is dated 2.0 days in the future, kept 30.0 days",
        ),
        ({"age": 60}, {"retention": 3600}, "", 9, "newest change 1 min 00 s ago, kept 1 h 00 min"),
        ({}, {"keep_last": 2}, "", 0, "one of the 2 newest"),
        ({}, {"keep_last": 2}, "", 1, "one of the 2 newest"),
        ({}, {"keep_last": 2}, "", 2, ""),
        ({}, {"retention": 0}, "", 0, ""),
        ({}, {"retention": 0, "keep_last": 1}, "", 0, "one of the 1 newest"),
    ],
)
def test_why_a_unit_stays(unit, target, protected, rank, why):
    rule = _target(**target)
    limit = cutoff(rule, NOW)
    assert plan.why_kept(_unit(**unit), rule, limit, protected, rank, NOW) == why


@pytest.mark.parametrize(
    ("change", "target", "protected", "why"),
    [
        ({}, {}, "", ""),
        ({}, {}, "mounted", "mounted"),
        ({"inode": 3}, {}, "", "replaced"),
        ({"device": 3}, {}, "", "replaced"),
        ({"mode": DIRECTORY}, {}, "", "replaced"),
        ({"mode": FILE | 0o1000}, {}, "", "replaced"),
        ({"veto": "in use: it is open"}, {}, "", "in use: it is open"),
        ({"veto": "in use: it is open"}, {"retention": 0}, "", "in use: it is open"),
        ({"mtime_ns": 5}, {}, "", "changed"),
        ({"mtime_ns": 5}, {"retention": 0}, "", "changed"),
        ({"content": int(NOW) * SECOND}, {}, "", "changed"),
        ({"content": int(NOW) * SECOND}, {"retention": 0}, "", ""),
        ({"own": int(NOW) * SECOND}, {}, "", "changed"),
    ],
)
def test_why_a_unit_goes_back(change, target, protected, why):
    planned, unit = _unit(), _unit(**change)
    limit = cutoff(_target(**target), NOW)
    reason = plan.why_put_back(planned, unit, limit, protected)
    assert (why in reason) if why else reason == ""


@pytest.mark.parametrize(
    ("unit", "target", "may"),
    [
        ({}, {}, True),
        ({}, {"keep_last": 1}, False),
        ({}, {"unit": "dir"}, False),
        ({"mode": DIRECTORY}, {"unit": "dir"}, True),
        ({"veto": "in use"}, {}, False),
        ({"veto": "in use", "stopped": True, "age": 1}, {}, False),
        ({"age": 1}, {}, False),
        ({"age": 1}, {"retention": 0}, True),
    ],
)
def test_what_a_stopped_run_moved_may_be_removed(unit, target, may):
    assert plan.may_finish(_unit(**unit), _target(**target), NOW) is may


@pytest.mark.parametrize(
    ("item", "retention", "why"),
    [
        ({"made": NOW - 7 * DAY}, 7 * DAY, ""),
        ({"made": NOW - 7 * DAY + 1}, 7 * DAY, "created 7.0 days ago, kept 7.0 days"),
        ({"made": None}, 7 * DAY, "its creation time is unknown"),
        ({"made": None, "in_use": "busy"}, 7 * DAY, "its creation time is unknown"),
        ({"made": NOW - 99 * DAY, "in_use": "busy"}, 7 * DAY, "busy"),
        ({"made": NOW + 5}, 7 * DAY, "created -0.0 days ago, kept 7.0 days"),
        ({"kind": "cache"}, 0, ""),
        ({"kind": "cache", "in_use": "busy"}, 0, "busy"),
        ({"kind": "cache"}, 7 * DAY, "its creation time is unknown"),
        ({"kind": "image"}, 0, "its creation time is unknown"),
    ],
)
def test_items_of_tools(item, retention, why):
    given = {"path": "p", "kind": "image", "size": 1, **item}
    assert plan.decide_item(Item(**given), retention, NOW)[1] == why


def test_entries_of_the_result():
    (removal,) = _decide(_place(_target(), _unit("a", age=40.0004 * DAY, size=7))).remove
    assert removal.to_dict() == {
        "target": "t",
        "path": "/r/a",
        "kind": "file",
        "size": 7,
        "files": 1,
        "age_days": 40.0,
        "reason": "40.0 days old, kept 30.0 days",
    }
    cache = Item("/cache", "cache", 5, files=3)
    (removal,) = _decide(tools=[ToolFacts("pip", items=(cache,))]).remove
    assert (removal.to_dict()["files"], removal.to_dict()["age_days"]) == (None, None)


# --- the whole plan -------------------------------------------------------------------------------------------------------


def _decide(*places, brake=None, **facts):
    options = CleanupOptions.from_mapping(
        {"targets": [{"path": "/data/x", "retention_days": 1}], "brake": brake}
    )
    return plan.decide(options, Facts(NOW, list(places), **facts))


def _place(target, *units, path="/r", **more):
    return TargetFacts(target, path, units=list(units), **more)


def _paths(entries):
    return [entry.path for entry in entries]


def test_oldest_first_and_the_newest_are_kept():
    units = [_unit(f"u{age}", age=age * DAY) for age in (35, 50, 40, 60)]
    decided = _decide(_place(_target(keep_last=1), *units))
    assert _paths(decided.remove) == ["/r/u60", "/r/u50", "/r/u40"]
    assert [(kept.path, kept.reason) for kept in decided.keep] == [
        ("/r/u35", "one of the 1 newest")
    ]
    assert decided.matched == {"t": 4}


def test_the_newest_is_known_by_what_is_in_it():
    """A unit that was only moved has a new ctime; it is not newer than the others for that."""
    moved, other = _unit("moved", age=31 * DAY, content_age=90 * DAY), _unit("other", age=60 * DAY)
    decided = _decide(_place(_target(keep_last=1), moved, other))
    assert _paths(decided.keep) == ["/r/other"] and _paths(decided.remove) == ["/r/moved"]


def test_a_unit_belongs_to_the_first_target_that_matches_it():
    first, second = _target("first", retention=60 * DAY), _target("second", retention=0)
    decided = _decide(_place(first, _unit("a")), _place(second, _unit("a"), _unit("b")))
    assert _paths(decided.remove) == ["/r/b"] and _paths(decided.keep) == ["/r/a"]
    assert decided.matched == {"first": 1, "second": 1}
    elsewhere = _decide(_place(first, _unit("a")), _place(second, _unit("a"), path="/other"))
    assert _paths(elsewhere.remove) == ["/other/a"]


def test_what_could_not_be_looked_at_stays_and_counts():
    place = _place(_target(retention=0), _unit("a"), unread={"b": "holds a mount point"})
    decided = _decide(place)
    assert [(kept.path, kept.reason) for kept in decided.keep] == [("/r/b", "holds a mount point")]
    assert decided.matched == {"t": 2}


def test_protected_names_stay():
    place = _place(_target(retention=0), _unit("a"), _unit("b"), protected={"b": "why"})
    assert _paths(_decide(place).remove) == ["/r/a"]


def test_tools_are_part_of_the_plan():
    items = (
        Item("old:1", "image", 10, made=NOW - 8 * DAY),
        Item("new:1", "image", 10, made=NOW),
    )
    decided = _decide(tools=[ToolFacts("docker", items=items)])
    assert _paths(decided.remove) == ["old:1"] and _paths(decided.keep) == ["new:1"]
    assert decided.matched == {"docker": 2} and decided.remove[0].age == 8 * DAY
    assert decided.remove[0].reason == "created 8.0 days ago, kept 7.0 days"
    cache = Item("/cache", "cache", 5, files=3)
    assert (
        _decide(tools=[ToolFacts("pip", items=(cache,))]).remove[0].reason == "a cache of 3 files"
    )


def _leftover(*moved, begun=()):
    return LeftoverFacts(None, _target(), list(begun), list(moved))


def test_what_a_stopped_run_left():
    target = _target()
    leftover = _leftover(
        MovedUnit("due", "/q/new/due", target, _unit("due")),
        MovedUnit("young", "/q/new/young", target, _unit("young", age=1)),
        MovedUnit("linked", "/q/new/linked", target, _unit("linked"), protected=True),
        MovedUnit("unknown", "/q/new/unknown", target, None),
        MovedUnit("nobodys", "/q/new/nobodys", None, _unit("nobodys")),
        begun=[("/q/doomed/half", _unit("half", age=1)), ("/q/doomed/unread", None)],
    )
    decided = _decide(_place(target), leftovers=[leftover])
    (recovery,) = decided.recoveries
    assert _paths(recovery.due) == ["/q/new/due"]
    assert [name for dummy, name in recovery.back] == ["young", "linked", "unknown", "nobodys"]
    assert _paths(recovery.begun) == ["/q/doomed/half", "/q/doomed/unread"]
    assert _paths(decided.remove) == ["/q/new/due", "/q/doomed/half", "/q/doomed/unread"]
    assert decided.matched == {"t": 1}
    assert [removal.size for removal in recovery.begun] == [0, 0]


@pytest.mark.parametrize(
    ("brake", "count", "braked"),
    [
        (None, 9, ""),
        ({}, 9, ""),
        ({"max_units": 3}, 3, ""),
        ({"max_units": 3}, 4, "4 units would be removed, the brake allows 3"),
        ({"max_units": 0}, 1, "1 units"),
        ({"max_bytes": 30}, 3, ""),
        ({"max_bytes": 29}, 3, "30 B would be removed, the brake allows 29 B"),
        ({"max_bytes": 0}, 1, "10 B"),
        ({"max_share": 0.5}, 5, ""),
        (
            {"max_share": 0.5},
            6,
            "6 of 10 units of t would be removed, the brake allows a share of 0.5",
        ),
        ({"max_share": 0}, 1, "1 of 10"),
        ({"max_share": 1}, 10, ""),
        ({"max_units": 9, "max_bytes": 5}, 1, "10 B"),
        ({"max_bytes": 900, "max_share": 0.1}, 2, "2 of 10"),
    ],
)
def test_the_brake(brake, count, braked):
    units = [
        _unit(f"u{number}", age=40 * DAY if number < count else 1, size=10) for number in range(10)
    ]
    decided = _decide(_place(_target(), *units), brake=brake)
    assert braked in decided.braked and bool(decided.braked) is bool(braked)


def test_the_share_of_each_target_that_keeps_anything_counts():
    emptied = _place(_target("emptied", retention=0), _unit("a"), path="/a")
    calm = _place(_target("calm"), _unit("a"), _unit("b", age=1), path="/b")
    wild = _place(_target("wild"), _unit("a"), path="/c")
    assert not _decide(emptied, calm, brake={"max_share": 0.5}).braked
    assert "1 of 1 units of wild" in _decide(calm, emptied, wild, brake={"max_share": 0.5}).braked
    assert not _decide(_place(_target()), brake={"max_share": 0}).braked


def test_what_was_only_moved_counts_for_the_brake_and_what_had_begun_does_not():
    moved = MovedUnit("due", "/q/due", _target(), _unit("due"))
    begun = [("/q/doomed/half", None)]
    facts = {"leftovers": [_leftover(moved, begun=begun)]}
    assert not _decide(_place(_target()), brake={"max_units": 1}, **facts).braked
    braked = _decide(_place(_target()), brake={"max_units": 0}, **facts)
    assert braked.braked and _paths(braked.remove) == ["/q/due"]


@pytest.mark.parametrize(
    ("busy", "note"),
    [
        (None, ""),
        (InUse(), ""),
        (
            InUse(unseen=2),
            "2 processes could not be examined; only locks and mounts tell what they use.",
        ),
        (InUse(unseen=1, strangers=frozenset({7})), "units that hold files of their users stay"),
        (InUse(unseen=1), "1 process could not be examined;"),
        (InUse(strangers=None), "Some processes"),
    ],
)
def test_a_note_about_processes_that_could_not_be_examined(busy, note):
    notes = _decide(busy=busy).notes
    assert note in "".join(notes) and bool(notes) is bool(note)


@pytest.mark.parametrize(
    ("unit", "target", "protected"),
    [
        ({}, {}, {}),
        ({}, {}, {"u": "a link names it"}),
        ({"veto": "in use"}, {"retention": 0}, {}),
        ({"veto": "in use", "stopped": True}, {"retention": 0}, {}),
        ({"age": 30 * DAY}, {}, {}),
        ({"age": 30 * DAY, "content_age": 31 * DAY}, {}, {}),
        ({"age": 31 * DAY, "content_age": 30 * DAY}, {}, {}),
        ({"age": DAY, "content_age": 31 * DAY}, {}, {}),
        ({"age": 31 * DAY, "content_age": DAY}, {}, {}),
        ({}, {"keep_last": 1}, {}),
        ({"age": 1}, {"retention": 0}, {}),
    ],
)
def test_a_plan_removes_exactly_what_nothing_keeps(unit, target, protected):
    rule = _target(**target)
    why = plan.why_kept(_unit(**unit), rule, cutoff(rule, NOW), protected.get("u", ""), 0, NOW)
    decided = _decide(_place(rule, _unit(**unit), protected=protected))
    assert [kept.reason for kept in decided.keep] == [why] * bool(why)
    assert _paths(decided.remove) == ["/r/u"] * (not why)


def test_the_share_counts_for_policies_although_they_have_no_age():
    rule = _target(retention=0, layout="torch_dcp", keep_last=1)
    run = RunFacts("a", checkpoints={name: Checkpoint(1) for name in ("u1", "u2")})
    for share, braked in ((0.4, True), (0.5, False)):
        inner = _place(rule, _unit("u1"), _unit("u2", age=50 * DAY), run=run)
        outer = TargetFacts(rule, "/r", containers=[inner])
        decided = _decide(outer, brake={"max_share": share})
        assert ("1 of 2 units of t" in decided.braked) is braked


def test_what_allows_a_plan_is_written_in_full():
    decided = _decide(_place(_target(), _unit("a", size=12_345_678)), brake={"max_bytes": 5})
    assert "--brake-max-bytes 12345678," in decided.allow
    decided = _decide(_place(_target(), _unit("a")), brake={"max_share": 0.5})
    assert "--brake-max-share 1," in decided.allow


@pytest.mark.parametrize(("age", "seconds"), [(0, 0.0), (-5 * DAY, 0.0), (3 * DAY, 3.0 * DAY)])
def test_what_is_dated_ahead_has_no_negative_age(age, seconds):
    (removal,) = _decide(_place(_target(retention=0), _unit("a", age=age))).remove
    assert (removal.age, removal.reason) == (seconds, "always removed")


# --- the interlock with backups -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backups", "refusal"),
    [
        ([], "holds no verified backup."),
        ([(1, False, ())], "holds no verified backup (b0: it was not verified)"),
        ([(1, False, ("no manifest", "x"))], "(b0: no manifest; x)"),
        ([(24, True, ())], ""),
        ([(24 + 0.5 / 3600, True, ())], "is 24 h 00 min old, 24 h are allowed"),
        ([(1, False, ()), (2, True, ())], ""),
        ([(-1, True, ())], ""),
        ([(-1 - 0.5 / 3600, True, ())], "is dated in the future"),
        ([(-2, True, ()), (30, True, ())], "is 30 h 00 min old"),
        ([(-2, True, ()), (3, True, ())], ""),
        ([(1, False, ()), (99, True, ())], "is 99 h 00 min old"),
    ],
)
def test_without_a_fresh_verified_backup_nothing_is_removed(backups, refusal):
    """Each backup: its age in hours, whether it was verified, its problems."""
    required = RequireBackupOptions.from_mapping({"path": "/backup"})
    facts = [
        BackupFacts(f"b{number}", NOW - hours * 3600, verified, problems)
        for number, (hours, verified, problems) in enumerate(backups)
    ]
    if not refusal:
        brake.refuse_without_backup(required, facts, NOW)
        return
    with pytest.raises(Refused, match=re.escape(refusal)):
        brake.refuse_without_backup(required, facts, NOW)


def test_where_each_file_is_compared_the_age_of_the_backup_does_not_count():
    required = RequireBackupOptions.from_mapping({"path": "/backup", "check": "covered"})
    old = [BackupFacts("b", NOW - 99 * DAY, True, ())]
    brake.refuse_without_backup(required, old, NOW)
    with pytest.raises(Refused, match="holds no verified backup"):
        brake.refuse_without_backup(required, [], NOW)


def test_the_default_limits_of_brake_and_interlock():
    assert brake.SKEW == 3600
    assert BrakeOptions.from_mapping({}).given() == dict.fromkeys(
        ("max_units", "max_bytes", "max_share", "max_growth")
    )
    assert RequireBackupOptions.from_mapping({"path": "/b"}).max_age_hours == 24


# --- a file that is looked at again ---------------------------------------------------------------------------------------


@pytest.fixture
def surveyed(tmp_path):
    import os

    path = tmp_path / "f"
    path.write_bytes(b"x" * 5000)
    fd = os.open(tmp_path, os.O_RDONLY)
    state = path.stat()
    look = scan.Look(scan.STAMPS["newest"], state.st_dev, None, busy=frozenset())
    yield fd, path, look
    os.close(fd)


def test_a_file_in_which_nothing_changed_is_the_one_that_was_planned(surveyed):
    fd, dummy, look = surveyed
    planned = scan.survey(fd, "f", look)
    assert scan.survey_again(fd, planned, look) is planned


@pytest.mark.parametrize("change", ["content", "mode", "owner", "replaced", "link", "time", "open"])
def test_a_file_that_changed_is_surveyed_again(surveyed, change):
    import os

    fd, path, look = surveyed
    planned = scan.survey(fd, "f", look)
    if change == "content":
        path.write_bytes(b"y" * 900_000)
        os.utime(path, ns=(planned.mtime_ns, planned.mtime_ns))
    elif change == "mode":
        path.chmod(0o600)
    elif change == "owner":
        if os.geteuid() != 0:
            pytest.skip("needs root")
        os.chown(path, 7, 7)
    elif change == "replaced":
        other = path.with_name("g")
        other.write_bytes(b"x" * 5000)
        os.utime(other, ns=(planned.mtime_ns, planned.mtime_ns))
        os.replace(other, path)
    elif change == "link":
        os.link(path, path.with_name("g"))
    elif change == "time":
        os.utime(path, ns=(1, 1))
    else:
        state = path.stat()
        look = scan.Look(
            look.stamp,
            look.device,
            None,
            busy=frozenset({(state.st_dev, state.st_ino)}),
            inodes=frozenset({state.st_ino}),
        )
    unit = scan.survey_again(fd, planned, look)
    assert unit is not planned
    assert (unit.veto or "").startswith("in use") is (change == "open")
