# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Levels of free space, quarantine and the interlock, decided from facts alone."""

from __future__ import annotations

import stat
from types import SimpleNamespace

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup import plan, scan
from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup.checkpoints import (
    Checkpoint,
    Container,
    RunFacts,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup.facts import (
    Facts,
    HoldFacts,
    LeftoverFacts,
    MovedUnit,
    TargetFacts,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup.held import HeldUnit
from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup.layouts import LAYOUTS
from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup.options import (
    CleanupOptions,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup.targets import Target
from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup.watermark import (
    Level,
    Space,
)

NOW = 1_000_000.0
DAY = 86400
HERE, ELSEWHERE = 1, 2
#: A level of 1000 bytes, of which 400 are free: 600 are needed.
LEVEL, SPACE = Level(0.0, 1000), Space("/r", 400, 5000)


def unit(name, size=100, age=40 * DAY, **fields):
    time = int((NOW - age) * 10**9)
    survey = scan.Survey(name, (1, 2), stat.S_IFREG | 0o644, 0, time, time, time)
    survey.size, survey.files = size, 1
    for field, value in fields.items():
        setattr(survey, field, value)
    return survey


def target(name="t", **more):
    return Target(name, "/r", 30.0 * DAY, **{"free_to": LEVEL, **more})


def place(rule, *units, device=HERE, path="/r", **more):
    return TargetFacts(rule, path, units=list(units), device=device, **more)


def hold(*units, since=NOW - 5 * DAY, until=NOW + DAY, device=HERE, run="r", begun=()):
    """A quarantine; ``units`` are (name, size, fields of HeldUnit)."""
    root = SimpleNamespace(path="/r", device=device)
    own = SimpleNamespace(root=root, path="/q", run=run, since=since, until=until)
    held = [
        HeldUnit(own, 1, name, "", "t", size, unit(name, size))._replace(**more)
        for name, size, more in units
    ]
    return HoldFacts(own, target("first"), device, held, list(begun))


def decide(*places, quarantine_days=0, space=SPACE, **facts):
    given = {"targets": [{"path": "/data/x", "retention_days": 1}]}
    if quarantine_days:
        given["quarantine"] = f"{quarantine_days}d"
    options = CleanupOptions.from_mapping(given)
    return plan.decide(options, Facts(NOW, list(places), space={HERE: space}, **facts))


def names(removals):
    return [removal.path.rpartition("/")[2] for removal in removals]


# --- a level of free space ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("available", "sizes", "removed", "reached"),
    [
        (400, {"a": 599, "b": 1, "c": 1}, ["a", "b"], True),
        (400, {"a": 600, "b": 1}, ["a"], True),
        (999, {"a": 1, "b": 1}, ["a"], True),
        (1000, {"a": 1}, [], True),
        (400, {"a": 100, "b": 100}, ["a", "b"], False),
        (400, {}, [], False),
    ],
)
def test_the_oldest_go_until_the_level_is_reached(available, sizes, removed, reached):
    units = [unit(name, size, (90 - rank) * DAY) for rank, (name, size) in enumerate(sizes.items())]
    decided = decide(place(target(), *units), space=SPACE._replace(available=available))
    assert names(decided.remove) == removed
    (level,) = decided.watermarks
    assert (level.reached, level.moved) == (reached, 0)
    assert level.freed == sum(sizes[name] for name in removed)
    spared = [kept.reason for kept in decided.keep]
    assert spared == ["not needed: 1000 B are free without its removal"] * (
        len(sizes) - len(removed)
    )


@pytest.mark.parametrize(
    ("other", "removed"),
    [
        ({"free_to": None}, ["big", "a"]),
        ({"free_to": None, "device": ELSEWHERE}, ["big", "a", "b"]),
    ],
)
def test_what_other_targets_remove_from_the_file_system_counts(other, removed):
    device = other.pop("device", HERE)
    big = place(target("other", **other), unit("big", 550), device=device, path="/o")
    units = [unit("a", 300, 90 * DAY), unit("b", 300, 80 * DAY), unit("c", 300, 70 * DAY)]
    decided = decide(big, place(target(), *units))
    assert names(decided.remove) == removed
    assert decided.watermarks[0].freed == sum(
        {"big": 550 * (device == HERE), "a": 300, "b": 300}[name] for name in removed
    )


def test_with_quarantine_nothing_is_freed_by_what_is_moved():
    big = place(target("other", free_to=None), unit("big", 550), path="/o")
    units = [unit("a", 300, 90 * DAY), unit("b", 300, 80 * DAY), unit("c", 300, 70 * DAY)]
    decided = decide(big, place(target(), *units), quarantine_days=7)
    (level,) = decided.watermarks
    assert names(decided.remove) == ["big", "a", "b"]
    assert (level.freed, level.moved, level.reached) == (0, 600, False)


def test_an_incomplete_checkpoint_goes_before_a_complete_one():
    run = RunFacts(checkpoints={"whole": Checkpoint(1), "part": Checkpoint(2, "no state")})
    units = [unit("whole", 600, 90 * DAY), unit("part", 600, 80 * DAY)]
    assert names(decide(place(target(), *units, run=run)).remove) == ["part"]


@pytest.mark.parametrize(
    ("quarantine_days", "left", "removed"),
    [
        (0, {"moved": True}, ["a"]),
        (7, {"moved": True}, ["a", "b"]),
        (0, {"begun": True}, ["a"]),
        (7, {"begun": True}, ["a"]),
        (0, {"begun": True, "device": ELSEWHERE}, ["a", "b"]),
    ],
)
def test_what_a_stopped_run_left_counts(quarantine_days, left, removed):
    """Of 600 bytes that are needed it frees 300, unless it is moved to quarantine."""
    root = SimpleNamespace(device=left.get("device", HERE))
    leftover = LeftoverFacts(SimpleNamespace(root=root), target())
    if left.get("moved"):
        leftover.moved.append(MovedUnit("m", "/q/m", target(), unit("m", 300)))
    else:
        leftover.begun += [("/q/m", unit("m", 300)), ("/q/unread", None)]
    units = [unit("a", 300, 90 * DAY), unit("b", 300, 80 * DAY)]
    decided = decide(place(target(), *units), leftovers=[leftover], quarantine_days=quarantine_days)
    assert [name for name in names(decided.remove) if name in "ab"] == removed


def test_the_units_that_would_be_next_are_named_and_those_that_something_else_keeps_are_not():
    units = [
        unit("young", age=DAY),
        unit("younger", age=1),
        unit("used", age=DAY, veto="in use"),
        unit("named", age=DAY),
    ]
    decided = decide(place(target(), *units, protected={"named": "a link names it"}))
    assert [path for path, dummy in decided.watermarks[0].following] == ["/r/young", "/r/younger"]
    assert "Next would be /r/young (newest change 1.0 days ago" in decided.notes[0]


# --- quarantine -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("until", "fields", "purged", "reason"),
    [
        (NOW, {}, True, "its 5.0 days in quarantine are over"),
        (NOW - 1, {}, True, "in quarantine are over"),
        (NOW + 1, {}, False, ""),
        (NOW, {"stays": "in use"}, False, "in use"),
        (NOW, {"survey": None}, False, ""),
        (NOW, {"survey": None, "stays": "unreadable"}, False, "unreadable"),
    ],
)
def test_units_leave_quarantine_when_their_time_is_over(until, fields, purged, reason):
    quarantine = hold(("a", 7, fields), since=NOW - 5 * DAY, until=until)
    decided = decide(held=[quarantine], space=SPACE._replace(available=5000))
    assert names(decided.remove) == ["a"] * purged
    if purged:
        (removal,) = decided.remove
        assert (removal.target, removal.size, removal.kind, removal.age) == (
            "t",
            7,
            "file",
            5 * DAY,
        )
        assert reason in removal.reason
    else:
        kept = [("t", reason)] * (until <= NOW)
        assert [(unit.target, unit.reason) for unit in decided.keep] == kept


def test_a_unit_without_a_target_belongs_to_the_first_of_its_root():
    over = hold(("a", 7, {"target": ""}), ("b", 7, {"target": "", "stays": "x"}), until=NOW)
    decided = decide(held=[over])
    assert [removal.target for removal in decided.remove] == ["first"]
    assert [kept.target for kept in decided.keep] == ["first"]


@pytest.mark.parametrize(
    ("given", "removed"),
    [
        ([{}], ["a"]),
        ([{"size": 100}], ["a"]),
        ([{"size": 100}, {"name": "b", "size": 500}, {"name": "c"}], ["a", "b"]),
        ([{}, {"name": "older", "since": NOW - 9 * DAY}], ["older"]),
        ([{"name": "z", "run": "1"}, {"run": "0"}], ["a"]),
        ([{"stays": "in use"}, {"name": "b"}], ["b"]),
        ([{"survey": None}, {"name": "b"}], ["b"]),
        ([{"device": ELSEWHERE}], []),
    ],
)
def test_space_that_is_needed_is_taken_from_quarantine_the_oldest_first(given, removed):
    held = []
    for fields in given:
        options = {"name": "a", "size": 600, **fields}
        of_hold = {key: options.pop(key) for key in ("since", "run", "device") if key in options}
        held.append(hold((options.pop("name"), options.pop("size"), options), **of_hold))
    decided = decide(place(target()), held=held)
    assert names(decided.remove) == removed
    assert all("its space is needed" in removal.reason for removal in decided.remove)


def test_quarantine_is_emptied_before_another_unit_is_removed():
    decided = decide(place(target(), unit("new", 600)), held=[hold(("a", 600, {}))])
    assert names(decided.remove) == ["a"]
    assert decided.watermarks[0].freed == 600


def test_what_leaves_quarantine_anyway_is_counted_once_and_only_where_it_is():
    for device, removed in ((HERE, ["a"]), (ELSEWHERE, ["new", "a"])):
        over = hold(("a", 600, {}), until=NOW, device=device)
        decided = decide(place(target(), unit("new", 600)), held=[over])
        assert names(decided.remove) == removed
        assert decided.watermarks[0].freed == 600


@pytest.mark.parametrize(("device", "removed"), [(HERE, []), (ELSEWHERE, ["new"])])
def test_an_interrupted_removal_from_quarantine_goes_on_and_counts(device, removed):
    half = hold(begun=[("half", unit("half", 600)), ("unread", None)], device=device)
    decided = decide(place(target(), unit("new", 600)), held=[half])
    assert names(decided.remove) == [*removed, "half", "unread"]
    assert [removal.reason for removal in decided.remove[-2:]] == [
        "its removal was interrupted"
    ] * 2


def test_a_run_has_a_name_that_no_other_has():
    first = decide(quarantine_days=7)
    second = decide(quarantine_days=7, held=[hold(run=first.run)])
    assert first.held_for == 7 * DAY and second.run == f"{first.run}-2"
    assert (decide().run, decide().held_for) == ("", 0)


# --- the interlock with backups -------------------------------------------------------------------


class Coverage:
    """Backups that hold every unit but these."""

    def __init__(self, *missing):
        self.names, self.asked = missing, []

    def missing(self, fd, name):
        assert fd == 7
        self.asked.append(name)
        return "not in a backup" if name in self.names else ""


def cover(*missing):
    return {"coverage": Coverage(*missing), "roots": {"t": SimpleNamespace(fd=7)}}


def test_what_no_backup_holds_stays():
    rule = target(free_to=None)
    decided = decide(place(rule, unit("a"), unit("b")), **cover("b"))
    assert names(decided.remove) == ["a"]
    assert [(kept.path, kept.reason) for kept in decided.keep] == [("/r/b", "not in a backup")]


def test_where_a_level_decides_only_what_would_go_is_compared():
    units = [unit(name, 300, (90 - rank) * DAY) for rank, name in enumerate("abcd")]
    facts = cover("a")
    decided = decide(place(target(), *units), **facts)
    assert names(decided.remove) == ["b", "c"] and facts["coverage"].asked == ["a", "b", "c"]
    reasons = {kept.path: kept.reason for kept in decided.keep}
    assert reasons["/r/a"] == "not in a backup" and reasons["/r/d"].startswith("not needed")


# --- policies -------------------------------------------------------------------------------------


def checkpoints(*steps, incomplete=(), **rule):
    """A container of one run with a checkpoint of each step, written in this order."""
    layout = LAYOUTS["transformers"]
    found = Container("", (1, 1), layout, [], "run")
    units = [unit(f"checkpoint-{step}", age=(90 - rank) * DAY) for rank, step in enumerate(steps)]
    run = RunFacts("run", 0, False)
    for step in steps:
        missing = "no state" if step in incomplete else ""
        run.checkpoints[f"checkpoint-{step}"] = Checkpoint(
            step, missing, float(step) if rule.get("metric") else None
        )
    given = target(free_to=None, layout="transformers", **rule)
    inner = place(given, *units, container=found, run=run)
    return TargetFacts(given, "/r", containers=[inner], device=HERE), run


@pytest.mark.parametrize(
    ("rule", "removed", "reason"),
    [
        ({}, ["1", "2"], "step 1"),
        ({"keep_last": 2}, ["1"], "step 1 beyond the 2 newest"),
        ({"every_steps": 2}, ["1"], "step 1 beyond those kept at intervals"),
        ({"every_seconds": 1.0, "keep_last": 1}, [], ""),
        (
            {"keep_best": 1, "metric": "loss", "mode": "max", "keep_last": 1},
            ["1", "2"],
            "step 1 beyond the 1 newest and the 1 best (loss is 1)",
        ),
    ],
)
def test_checkpoints_beyond_the_policies_go_and_say_which(rule, removed, reason):
    found, run = checkpoints(1, 2, 3, **rule)
    decided = decide(found)
    assert [name.rpartition("-")[2] for name in names(decided.remove)] == removed
    assert not removed or decided.remove[0].reason.endswith(f"; {reason}")
    assert run.anchor == "checkpoint-3"


def test_a_checkpoint_that_is_removed_whatever_its_age_says_so():
    found, dummy = checkpoints(1, 2, keep_last=1)
    rule = Target("t", "/r", 0.0, layout="transformers", keep_last=1)
    inner = found.containers[0]
    inner.target = rule
    decided = decide(TargetFacts(rule, "/r", containers=[inner], device=HERE))
    assert decided.remove[0].reason == "90.0 days old; step 1 beyond the 1 newest"


def test_the_anchor_is_the_newest_complete_checkpoint_that_stays():
    found, run = checkpoints(1, 2, 3, 4, incomplete=(4,), keep_last=2)
    decided = decide(found)
    assert run.anchor == "checkpoint-3"
    assert names(decided.remove) == ["checkpoint-1", "checkpoint-4"]
    assert decided.remove[1].reason.endswith("; incomplete (no state) and abandoned")


# --- several file systems -------------------------------------------------------------------------


def test_a_level_of_one_file_system_leaves_the_others_alone():
    here = place(target("here"), unit("h1", 600, 90 * DAY), unit("h2", 600))
    old = 99 * DAY
    there = place(
        target("there"), unit("t1", 600, old), unit("t2", 600), device=ELSEWHERE, path="/t"
    )
    other = place(target("other", free_to=None), unit("o1", 1), path="/o")
    decided = decide(here, there, other)
    assert sorted(names(decided.remove)) == ["h1", "o1", "t1", "t2"]
    assert [kept.path for kept in decided.keep] == ["/r/h2"]
    (level,) = decided.watermarks
    assert (level.freed, decided.notes) == (601, [])


@pytest.mark.parametrize(
    ("device", "until", "removed"),
    [
        (HERE, NOW + 1, ["q"]),
        (HERE, NOW, ["q"]),
        (ELSEWHERE, NOW + 1, ["new"]),
    ],
)
def test_only_quarantine_of_the_same_file_system_is_emptied_for_space(device, until, removed):
    quarantine = hold(("q", 600, {}), until=until, device=device)
    decided = decide(place(target(), unit("new", 600)), held=[quarantine])
    assert names(decided.remove) == removed
    assert len(decided.purge) == len(removed) - ("new" in removed)


def test_a_unit_of_quarantine_that_could_not_be_read_is_a_directory_of_no_size():
    over = hold(("q", 600, {"survey": None, "stays": "unreadable"}), until=NOW)
    decided = decide(held=[over])
    assert not decided.purge and [kept.reason for kept in decided.keep] == ["unreadable"]


def test_without_an_interlock_nothing_is_compared():
    decided = decide(place(target(free_to=None), unit("a")), coverage=None)
    assert names(decided.remove) == ["a"]


@pytest.mark.parametrize("moved", [0, 7])
def test_what_the_interlock_spares_says_so(moved):
    units = [unit(name, 600, (90 - rank) * DAY) for rank, name in enumerate("ab")]
    decided = decide(place(target(), *units), quarantine_days=moved, **cover("a", "b"))
    assert not decided.remove
    assert [kept.reason for kept in decided.keep] == ["not in a backup"] * 2


@pytest.mark.parametrize("until", [NOW, NOW - 1])
def test_what_leaves_quarantine_anyway_is_not_removed_for_space_again(until):
    decided = decide(place(target()), held=[hold(("q", 100, {}), until=until)])
    assert names(decided.remove) == ["q"] and len(decided.purge) == 1


def test_a_checkpoint_without_a_metric_says_so():
    rule = {"keep_best": 1, "metric": "loss", "keep_last": 1}
    found, run = checkpoints(1, 2, 3, **rule)
    run.checkpoints["checkpoint-1"] = Checkpoint(1)
    (first, *_others) = decide(found).remove
    assert first.reason.endswith("step 1 beyond the 1 newest and the 1 best (loss is unknown)")


def test_an_incomplete_checkpoint_that_stays_is_no_anchor():
    """What was kept instead of the others must be a checkpoint from which a training can resume."""
    found, run = checkpoints(1, 2, 3, incomplete=(3,))
    found.containers[0].units[-1].keep("in use")
    decided = decide(found)
    assert [kept.path for kept in decided.keep] == ["/r/checkpoint-3", "/r/checkpoint-2"]
    assert (run.anchor, names(decided.remove)) == ("checkpoint-2", ["checkpoint-1"])


def test_what_protects_a_unit_is_said_before_what_a_policy_says():
    found, dummy = checkpoints(1, 2, keep_last=2)
    found.containers[0].protected["checkpoint-2"] = "a link names it"
    reasons = {kept.path: kept.reason for kept in decide(found).keep}
    assert reasons["/r/checkpoint-2"] == "a link names it"
    assert reasons["/r/checkpoint-1"] == "one of the 2 newest"


def test_a_checkpoint_without_a_step_and_one_beyond_intervals_say_so():
    found, run = checkpoints(1, 2, 3, every_seconds=40.0 * DAY, keep_last=1)
    run.checkpoints["checkpoint-1"] = Checkpoint(None)
    reasons = [removal.reason.rpartition("; ")[2] for removal in decide(found).remove]
    assert reasons == [
        "a checkpoint beyond the 1 newest and those kept at intervals",
        "step 2 beyond the 1 newest and those kept at intervals",
    ]
