# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Levels of free space: how they are written, how much is needed, and which units go first."""

from __future__ import annotations

import stat

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup import watermark
from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup.units import Survey
from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup.watermark import (
    Level,
    Space,
    Watermark,
)

KIB = 1024


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("20%", Level(0.2, 0)),
        (" 2.5 % ", Level(0.025, 0)),
        ("0%", None),
        ("100%", None),
        ("500", Level(0.0, 500)),
        ("500b", Level(0.0, 500)),
        ("1.5k", Level(0.0, 1536)),
        ("1K", Level(0.0, KIB)),
        ("1M", Level(0.0, KIB**2)),
        ("1G", Level(0.0, KIB**3)),
        ("1T", Level(0.0, KIB**4)),
        ("1P", Level(0.0, KIB**5)),
        ("1GiB", Level(0.0, KIB**3)),
        ("1 gib", Level(0.0, KIB**3)),
        ("1kB", Level(0.0, 1000)),
        ("2GB", Level(0.0, 2 * 1000**3)),
        ("1PB", Level(0.0, 1000**5)),
        ("0", None),
        ("0.5", None),
        ("1", Level(0.0, 1)),
        ("-5", None),
        ("", None),
        ("much", None),
    ],
)
def test_a_level_is_a_share_or_a_size(text, level):
    assert watermark.parse_level(text) == level


@pytest.mark.parametrize(("level", "size"), [(Level(0.25, 0), 250), (Level(0.0, 7), 7)])
def test_a_level_in_bytes(level, size):
    assert level.of(1000) == size


def _mark(available=400, goal=1000, trigger=1000, **more):
    return Watermark(Space("/r", available, 5000), goal, trigger, **more)


@pytest.mark.parametrize(
    ("mark", "below", "needed", "reached"),
    [
        (_mark(), True, 600, False),
        (_mark(freed=599), True, 600, False),
        (_mark(freed=600), True, 600, True),
        (_mark(available=1000), False, 0, True),
        (_mark(available=999), True, 1, False),
        (_mark(available=900, trigger=500), False, 0, True),
        (_mark(available=400, goal=300, trigger=500), True, 0, True),
        (_mark(moved=600), True, 600, False),
    ],
)
def test_how_much_is_needed(mark, below, needed, reached):
    assert (mark.below, mark.needed, mark.reached) == (below, needed, reached)


NEXT = (("/r/a", "in use"), ("/r/b", "young"))


@pytest.mark.parametrize(
    ("mark", "note"),
    [
        (_mark(available=1000), "1000 B of /r are available, which is not below 1000 B."),
        (_mark(available=1000, moved=5), "1000 B of /r are available, which is not below 1000 B."),
        (_mark(freed=600), ""),
        (_mark(freed=600, moved=5), ""),
        (
            _mark(moved=600),
            "400 B of /r are available; 600 B were chosen for quarantine to reach 1000 B and use"
            " that space until their time is over, or the next cleanup needs it.",
        ),
        (
            _mark(freed=5),
            "400 B of /r are available, and all that may be removed frees 5 B: the level of 1000 B"
            " can't be reached.",
        ),
        (
            _mark(freed=5, following=NEXT),
            "400 B of /r are available, and all that may be removed frees 5 B: the level of 1000 B"
            " can't be reached. Next would be /r/a (in use).",
        ),
    ],
)
def test_the_note_says_what_remains_to_be_known(mark, note):
    assert mark.note() == note


def test_the_entry_of_the_result_names_ten_that_would_be_next():
    entry = _mark(following=tuple((f"/r/{number}", "young") for number in range(12))).to_dict()
    assert [item["path"] for item in entry.pop("next")] == [f"/r/{number}" for number in range(10)]
    assert entry == {
        "path": "/r",
        "available": 400,
        "free_to": 1000,
        "when_below": 1000,
        "needed": 600,
        "freed": 0,
        "quarantined": 0,
        "reached": False,
    }


def _unit(name, size=100, day=0, linked=None):
    time = day * 86400 * 10**9
    unit = Survey(name, (1, 2), stat.S_IFREG | 0o644, 0, time, time, time)
    unit.size, unit.linked = size, linked
    return unit


def test_a_file_with_several_links_is_freed_with_the_last():
    count = watermark.Freed()
    assert count.add(_unit("a", 10)) == 10
    assert count.add(_unit("b", 10, linked={(1, 7): (3, 2, 500)})) == 10
    assert count.add(_unit("c", 10, linked={(1, 8): (2, 2, 50)})) == 60
    assert count.add(_unit("d", 10, linked={(1, 7): (3, 1, 500)})) == 510


@pytest.mark.parametrize(
    ("needed", "unusable", "chosen", "freed"),
    [
        (0, (), [], 0),
        (-5, (), [], 0),
        (1, (), [2], 100),
        (100, (), [2], 100),
        (101, (), [2, 1], 200),
        (250, (), [2, 1, 3], 300),
        (250, (1,), [2, 3, 0], 300),
        (999, (), [2, 1, 3, 0], 400),
    ],
)
def test_incomplete_ones_go_first_then_the_oldest(needed, unusable, chosen, freed):
    units = [
        (True, _unit("young", day=9), 0),
        (True, _unit("a", day=2), 1),
        (False, _unit("half", day=9), 2),
        (True, _unit("b", day=2), 3),
    ]
    usable = (lambda number: number not in unusable,) if unusable else ()
    assert watermark.needed_first(units, needed, *usable) == (chosen, freed)
