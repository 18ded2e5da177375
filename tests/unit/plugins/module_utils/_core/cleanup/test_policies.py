# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which checkpoints the policies of a target keep, and why: tables over facts alone."""

from __future__ import annotations

import stat

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup import policies
from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup.checkpoints import (
    Checkpoint,
    RunFacts,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup.policies import Member
from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup.targets import Target
from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup.units import Survey

DAY = 86400
NOW = 1000 * DAY
LAYOUT = "torch_dcp"


def _target(**more):
    return Target("t", "/r", 0.0, **{"layout": LAYOUT, "by_run": True, **more})


def _member(name, day=0.0, run=None, own=0.0, **checkpoint):
    """A unit whose content was written on a day, and which itself changed ``own`` days later."""
    written = int(day * DAY * 10**9)
    unit = Survey(
        name, (1, 2), stat.S_IFDIR | 0o755, 0, written, written + int(own * DAY * 10**9), written
    )
    return Member((1, name), unit, Checkpoint(**checkpoint), run or RunFacts("a"))


def _reasons(target, members, now=NOW):
    return {
        key[1]: (why.fixed, why.chosen)
        for key, why in policies.reasons(target, members, now).items()
    }


@pytest.mark.parametrize(
    ("layout", "name", "group"),
    [
        (LAYOUT, "step-100", "a"),
        ("generic", "llama-step-100", "llama-step-*"),
        ("generic", "llama-step-00100", "llama-step-*"),
        ("generic", "v2-step-100.ckpt", "v2-step-*.ckpt"),
        ("generic", "no number", "no number"),
    ],
)
def test_group_name(layout, name, group):
    assert policies.group_name(_target(layout=layout), RunFacts("a"), name) == group


@pytest.mark.parametrize(
    ("members", "order"),
    [
        ([("x", 9, 1), ("y", 1, 2), ("z", 5, 3)], "zyx"),
        ([("x", 9, 0), ("y", 1, 1)], "yx"),
        ([("x", 9, 1), ("y", 1, None), ("z", 5, 3)], "xzy"),
        ([("x", 1, 7), ("y", 2, 7)], "yx"),
        ([("x", 1, 7), ("y", 1, 7)], "yx"),
        ([("y", 1, None), ("x", 1, None)], "yx"),
    ],
)
def test_newest_first(members, order):
    members = [_member(name, day, step=step) for name, day, step in members]
    assert "".join(member.key[1] for member in policies.newest_first(members)) == order


@pytest.mark.parametrize(
    ("mode", "order"),
    [
        ("min", ["zero", "lo", "hi-new", "hi-step", "hi-one", "hi-old"]),
        ("max", ["hi-new", "hi-step", "hi-one", "hi-old", "lo", "zero"]),
    ],
)
def test_best_first(mode, order):
    members = [
        _member("hi-one", 1, step=1, metric=2.0),
        _member("hi-step", 5, step=3, metric=2.0),
        _member("lo", 1, step=9, metric=0.5),
        _member("zero", 1, step=1, metric=0.0),
        _member("unknown", 9, step=99),
        _member("hi-old", 6, metric=2.0),
        _member("hi-new", 6, step=3, metric=2.0),
    ]
    names = [member.key[1] for member in policies.best_first(_target(mode=mode), members)]
    assert names == order


def test_the_newest_the_best_and_the_last_written_stay_whatever_the_options():
    members = [
        _member("s1", 8, step=1, metric=0.1),
        _member("s2", 9, step=2, metric=0.2),
        _member("s3", 1, step=3, metric=0.3),
        _member("s4", 2, step=4, missing="no index"),
    ]
    assert _reasons(_target(metric="loss"), members) == {
        "s1": (["the best checkpoint of a (loss 0.1)"], []),
        "s2": (["the complete checkpoint of a that was written last"], []),
        "s3": (["the newest complete checkpoint of a"], []),
    }
    assert _reasons(_target(layout="generic", by_run=False), members) == {}


def test_one_checkpoint_may_be_kept_for_one_reason_only():
    assert _reasons(_target(), [_member("s1", 8, step=1), _member("s2", 9, step=2)]) == {
        "s2": (["the newest complete checkpoint of a"], [])
    }


def test_each_run_has_its_own_newest_one():
    a, b = RunFacts("a"), RunFacts("b")
    members = [
        _member("s1", 1, a, step=1),
        _member("s2", 2, b, step=2),
        _member("s3", 3, b, step=3),
    ]
    newest = "the newest complete checkpoint of"
    assert _reasons(_target(by_run=False, keep_last=2), members) == {
        "s1": ([f"{newest} a"], []),
        "s2": ([], ["one of the 2 newest"]),
        "s3": ([f"{newest} b"], ["one of the 2 newest"]),
    }
    assert _reasons(_target(keep_last=1), members) == {
        "s1": ([f"{newest} a"], ["one of the 1 newest of a"]),
        "s3": ([f"{newest} b"], ["one of the 1 newest of b"]),
    }


def test_the_best_are_counted():
    members = [_member(f"m{step}", step, metric=step / 10) for step in (1, 2, 3)]
    members.append(_member("half", 4, metric=0.0, missing="torn"))
    target = _target(layout="generic", by_run=False, keep_best=2, metric="loss")
    assert _reasons(target, members) == {
        "m1": ([], ["number 1 of the 2 best (loss 0.1)"]),
        "m2": ([], ["number 2 of the 2 best (loss 0.2)"]),
    }


def _half(day, changed=0.0, in_use=False, own=0.0, name="half"):
    run = RunFacts("a", int(changed * DAY * 10**9), in_use)
    return _member(name, day, run, own, step=5, missing="torn")


@pytest.mark.parametrize(
    ("half", "why"),
    [
        (_half(1, in_use=True), ["incomplete (torn), and a process uses its run a"]),
        (
            _half(999.5),
            ["incomplete (torn), and its run a changed 12 h 00 min ago: it may still be written"],
        ),
        (_half(999), []),
        (
            _half(1, own=998.5),
            ["incomplete (torn), and its run a changed 12 h 00 min ago: it may still be written"],
        ),
        (
            _half(1, changed=999.5),
            ["incomplete (torn), and its run a changed 12 h 00 min ago: it may still be written"],
        ),
        (_half(1, changed=999), []),
        (
            _half(1, changed=1000),
            ["incomplete (torn), and its run a changed 0 ms ago: it may still be written"],
        ),
        (
            _half(1, changed=1001),
            ["incomplete (torn), and its run a changed 0 ms ago: it may still be written"],
        ),
    ],
)
def test_an_incomplete_checkpoint_stays_while_its_run_may_write(half, why):
    whole = _member("whole", 2, RunFacts("a"), step=1)
    assert _reasons(_target(), [whole, half]).get("half", ([], []))[0] == why


@pytest.mark.parametrize("same_run", [True, False])
def test_a_fresh_neighbour_of_the_same_run_keeps_an_incomplete_one(same_run):
    half = _half(1)
    other = _member("whole", 999.5, half.run if same_run else RunFacts("a"), step=1)
    assert ("half" in _reasons(_target(), [other, half])) is same_run


def test_without_a_complete_one_the_newest_incomplete_stays():
    members = [_half(1, name="old"), _half(2, name="new")]
    assert _reasons(_target(), members) == {
        "new": (["incomplete (torn), but a has no complete one"], [])
    }


@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        (
            {"every_steps": 2},
            {"s0": "step 0 is a multiple of 2", "s4": "step 4 is a multiple of 2"},
        ),
        (
            {"every_steps": 3},
            {"s0": "step 0 is a multiple of 3", "s3": "step 3 is a multiple of 3"},
        ),
        (
            {"every_seconds": 2.0 * DAY},
            {
                "s0": "the newest of its 2 days",
                "s3": "the newest of its 2 days",
                "none": "the newest of its 2 days",
            },
        ),
        (
            {"every_seconds": 1.0 * DAY},
            dict.fromkeys(("s0", "s1", "s3", "none"), "the newest of its 1 days"),
        ),
        (
            {"every_seconds": DAY / 2},
            dict.fromkeys(("s0", "s1", "s3", "s4", "none"), "the newest of its 12 h 00 min"),
        ),
    ],
)
def test_one_of_every_so_many(rule, kept):
    members = [
        _member("s0", 1.0, step=0),
        _member("s1", 2.0, step=1),
        _member("s3", 3.75, step=3),
        _member("s4", 3.25, step=4),
        _member("none", 5.5),
        _member("half", 7, step=6, missing="torn"),
    ]
    target = _target(layout="generic", by_run=False, **rule)
    assert _reasons(target, members) == {name: ([], [why]) for name, why in kept.items()}


def test_a_group_is_named_where_runs_are_counted_apart():
    members = [_member("x-1", 1, step=1), _member("y-1", 1, step=1)]
    rules = {"layout": "generic", "every_seconds": 3600.0, "keep_best": 1, "metric": "loss"}
    assert _reasons(_target(**rules), members) == {
        "x-1": ([], ["the newest of its 1 h 00 min of x-*"]),
        "y-1": ([], ["the newest of its 1 h 00 min of y-*"]),
    }


def test_reasons_as_text_begin_with_the_fixed_ones():
    assert str(policies.Reasons(["a", "b"], ["c"])) == "a; b; c"
