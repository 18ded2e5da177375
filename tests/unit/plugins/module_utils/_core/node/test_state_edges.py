# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""State files that are not one, and what counts as better or worse."""

from __future__ import annotations

import json

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.node import state
from ansible_collections.mlops.fleet.plugins.module_utils._core.verdict import Check

NOW = 1_800_000_000.0
EMPTY = state.Memory({}, state.Counters())


def test_what_is_no_state_file(tmp_path):
    assert state.load(str(tmp_path / "gone"), 1.0) == (EMPTY, None)
    assert state.load(str(tmp_path), 1.0) == (EMPTY, f"{tmp_path} is not a file.")
    path = tmp_path / "state.json"
    for content in ([], {}, {"version": state.VERSION + 1, "checks": {}, "counters": {}}):
        path.write_text(json.dumps(content))
        memory, problem = state.load(str(path), 1.0)
        assert memory == EMPTY
        assert "not a state file of this version" in problem
    path.write_text(json.dumps({"version": state.VERSION, "checks": {}, "counters": {}}))
    assert state.load(str(path), 1.0) == (EMPTY, None)


@pytest.mark.parametrize(
    ("before", "unknown_as", "reported"),
    [
        ("warning", "critical", "warning"),
        ("warning", "warning", "unknown"),
        ("critical", "critical", "unknown"),
        ("critical", "warning", "unknown"),
        ("pass", "warning", "pass"),
    ],
)
def test_an_unknown_check_is_as_bad_as_what_it_counts_as(options, before, unknown_as, reported):
    """What is worse waits for a second observation, what is not replaces the old status at once."""
    memory = {"service|x": state.Remembered(before, NOW, NOW)}
    seen = Check("service", "unknown", "no answer", "x", unknown_as=unknown_as)
    given = options(raise_after=2, clear_after=1)
    (check,), dummy = state.steady([seen], memory, NOW, None, given)
    assert check.status == reported


def _one(options, seen, before="pass", **given):
    memory = {
        f"{seen.check}|{seen.subject or ''}": state.Remembered(before, NOW, NOW, action="drain")
    }
    (check,), kept = state.steady([seen], memory, NOW, None, options(**{"clear_after": 1, **given}))
    return check, kept


LIMITS = {"cpu_load": {"warning": 2, "critical": 4, "clear": 1}}


@pytest.mark.parametrize(
    ("before", "status", "value", "reported", "noted"),
    [
        ("warning", "pass", 1.5, "warning", True),
        ("warning", "pass", 0.5, "pass", False),
        ("critical", "pass", 1.5, "warning", True),
        ("critical", "warning", 2.5, "warning", False),
        ("critical", "critical", 4.5, "critical", False),
        ("pass", "pass", 1.5, "pass", False),
        ("warning", "pass", True, "pass", False),
        ("warning", "pass", "1.5", "pass", False),
        ("warning", "pass", None, "pass", False),
    ],
)
def test_a_check_with_a_clear_limit_stays_raised_until_its_value_is_past_it(
    options, before, status, value, reported, noted
):
    seen = Check("cpu_load", status, "load", value=value)
    check, dummy = _one(options, seen, before, limits=LIMITS)
    assert check.status == reported
    assert ("(not below 1 yet, not cleared)" in check.message) is noted


def test_without_a_clear_limit_a_value_is_not_held_back(options):
    seen = Check("cpu_load", "pass", "load", value=1.5)
    check, dummy = _one(options, seen, "warning", limits={"cpu_load": {"warning": 2}})
    assert (check.status, check.message) == ("pass", "load")


def test_details_stay_beside_what_was_observed(options):
    for details, expected in (
        ({"a": 1}, {"a": 1, "observed": "warning"}),
        (None, {"observed": "warning"}),
    ):
        seen = Check("service", "warning", "bad", "x", details=details)
        check, dummy = _one(options, seen, raise_after=2)
        assert (check.status, check.details) == ("pass", expected)


@pytest.mark.parametrize(("name", "reported"), [("service", "pass"), ("not registered", "pass")])
def test_after_boot_a_check_that_is_not_registered_waits_too(options, name, reported):
    seen = Check(name, "critical", "bad", "x")
    (check,), dummy = state.steady([seen], {}, NOW, 1.0, options(boot_grace=60))
    assert check.status == reported


GOOD = {"status": "pass", "since": 1.0}


@pytest.mark.parametrize(
    "entry",
    [
        [],
        {},
        {**GOOD, "status": "fine"},
        {"status": "pass"},
        {**GOOD, "since": True},
        {**GOOD, "since": "1"},
        {**GOOD, "since": 1e11},
        {**GOOD, "since": -1e11},
        {**GOOD, "since": float("nan")},
        {**GOOD, "seen": "1"},
        {**GOOD, "seen": False},
        {**GOOD, "count": None},
        {**GOOD, "direction": "up"},
        {**GOOD, "action": "dance"},
        {**GOOD, "domain": "moon"},
    ],
)
def test_entries_that_nobody_wrote_make_no_state_file(tmp_path, entry):
    path = tmp_path / "state.json"
    content = {"version": 1, "checks": {"raid|": GOOD, "x|": entry}, "counters": {}}
    path.write_text(json.dumps(content))
    assert state.load(str(path), 9.0) == (EMPTY, f"{path} is not a state file of this version.")


@pytest.mark.parametrize(
    ("counters", "expected"),
    [
        ({"boot_id": "b", "oom_kill": 3}, ("b", 3)),
        ({"boot_id": 3, "oom_kill": "3"}, (None, None)),
        ({}, (None, None)),
    ],
)
def test_what_an_older_state_file_lacks_has_a_default(tmp_path, counters, expected):
    path = tmp_path / "state.json"
    path.write_text(json.dumps({"version": 1, "checks": {"raid|": GOOD}, "counters": counters}))
    memory, problem = state.load(str(path), 9.0)
    assert problem is None
    assert memory.checks == {"raid|": state.Remembered("pass", 1.0, 9.0, 0, None, "none", None)}
    assert memory.counters[:2] == expected


def test_the_state_file_is_readable_text(tmp_path):
    memory = state.Memory({"raid|": state.Remembered("pass", 1.0, 2.0)}, state.Counters("b", 3))
    text = state.dump(memory)
    assert text.startswith('{\n "checks": {\n') and text.endswith("}\n")
    assert text.index('"checks"') < text.index('"counters"') < text.index('"version"')
    path = tmp_path / "state.json"
    path.write_text(text)
    assert state.load(str(path), 9.0) == (memory, None)


@pytest.mark.parametrize(("age", "kept"), [(7 * 86400 - 1, True), (7 * 86400, False)])
def test_what_was_not_checked_for_a_week_is_forgotten(options, age, kept):
    memory = {"raid|": state.Remembered("pass", 1.0, NOW - age)}
    dummy, after = state.steady([], memory, NOW, None, options(skip=["raid"]))
    assert ("raid|" in after) is kept
