# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Steady verdicts: what lasts is raised, what flaps is not, a planned reboot is quiet, two runs at
once keep one state.
"""

from __future__ import annotations

import json
import os
import random
import stat

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import LockBusy, WriteFailed
from ansible_collections.mlops.fleet.plugins.module_utils._core.node import execute, state
from ansible_collections.mlops.fleet.plugins.module_utils._core.node.run import run
from ansible_collections.mlops.fleet.plugins.module_utils._core.system import isolate
from ansible_collections.mlops.fleet.plugins.module_utils._core.verdict import Check, isoformat

NOW = 1_800_000_000.0
EMPTY = state.Memory({}, state.Counters())


class Series:
    """Feeds statuses of one check, a minute apart, and tells what is reported."""

    def __init__(self, options, check="service", age=1e6):
        self.options, self.check, self.age, self.memory, self.now = options, check, age, {}, NOW
        self.last = None

    def feed(self, *statuses, value=None):
        reported = []
        for status in statuses:
            self.now += 60
            seen = Check(
                self.check,
                status,
                f"it is {status}",
                "x",
                value=value,
                action="none" if status == "pass" else "drain",
                domain="node",
            )
            found, self.memory = state.steady([seen], self.memory, self.now, self.age, self.options)
            self.last = found[0]
            reported.append(found[0].status)
        return reported


def test_raised_after_n_and_cleared_after_m(options):
    series = Series(options(raise_after=3, clear_after=2))
    assert series.feed("pass", "critical", "critical") == ["pass", "pass", "pass"]
    assert (
        "seen 2 of 3 times, not raised yet" in series.last.message
        and series.last.details["observed"] == "critical"
        and series.last.action == "none"
    )
    assert (
        series.feed("critical") == ["critical"] and series.last.since == "2027-01-15T08:04:00+00:00"
    )
    assert series.feed("critical", "pass") == ["critical", "critical"]
    assert (
        series.last.since == "2027-01-15T08:04:00+00:00"
        and series.last.action == "drain"
        and "not cleared yet" in series.last.message
    )
    assert series.feed("pass") == ["pass"] and series.last.since == "2027-01-15T08:07:00+00:00"


@pytest.mark.parametrize("length", [2, 3, 5])
def test_flapping_never_changes_the_state(options, length):
    series = Series(options(raise_after=length, clear_after=length))
    pattern = ["critical"] * (length - 1) + ["pass"]
    assert set(series.feed(*pattern * 4)) == {"pass"}
    assert series.feed(*["critical"] * length)[-1] == "critical"
    assert set(series.feed(*(["pass"] * (length - 1) + ["critical"]) * 4)) == {"critical"}


def test_an_escalation_has_to_last_as_well_and_defaults_raise_at_once(options):
    series = Series(options(raise_after=2, clear_after=1))
    assert series.feed("warning", "warning", "critical", "critical", "warning") == [
        "pass",
        "warning",
        "warning",
        "critical",
        "warning",
    ]
    assert Series(options()).feed("critical", "pass", "pass") == ["critical", "critical", "pass"]


def test_a_planned_reboot_raises_nothing_in_its_grace(options):
    series = Series(options(), age=30)
    assert series.feed("critical", "critical", "unknown") == ["pass", "pass", "pass"]
    assert "within 600 s after boot" in series.last.message
    series.age = 601
    assert series.feed("critical") == ["critical"]
    series.age = 10
    assert series.feed("critical", "pass", "pass") == ["critical", "critical", "pass"], (
        "what was wrong before stays wrong until it clears"
    )
    assert Series(options(), check="disk_usage", age=30).feed("critical") == ["critical"], (
        "a full disk does not settle"
    )
    assert Series(options(boot_grace=0), age=30).feed("critical") == ["critical"]


def test_different_limits_to_raise_and_to_clear(options):
    series = Series(
        options(clear_after=1, limits={"disk_usage": {"clear": 75}}), check="disk_usage"
    )
    assert series.feed("warning", value=81) == ["warning"]
    assert (
        series.feed("pass", value=78) == ["warning"] and "not below 75 yet" in series.last.message
    )
    assert series.feed("pass", value=75) == ["warning"]
    assert series.feed("pass", value=74.9) == ["pass"]
    assert series.feed("pass", value=78) == ["pass"], "it is no limit to raise"


def test_skipped_is_reported_at_once_and_forgotten(options):
    series = Series(options(raise_after=2))
    assert series.feed("critical", "skipped", "critical") == ["pass", "skipped", "pass"]


def test_what_was_not_checked_is_kept_for_a_week(options):
    given = options(skip=["dns"])  # another run with other options, on the same file
    _found, memory = state.steady([Check("dns", "critical", "x", "a")], {}, NOW, None, given)
    _found, later = state.steady([], memory, NOW + 6 * 86400, None, given)
    assert "dns|a" in later
    assert state.steady([], memory, NOW + 8 * 86400, None, given)[1] == {}


def test_what_is_gone_is_forgotten(options):
    """Three lock-ups in a row raised an alarm; a single one days later has to last again."""
    given = options(raise_after=2)
    memory, reported = {}, []
    errors = [["lock-up"], ["lock-up"], [], ["lock-up"], ["lock-up"]]
    for number, subjects in enumerate(errors):
        checks = [Check("kernel_errors", "critical", "x", one) for one in subjects] or [
            Check("kernel_errors", "pass", "none")
        ]
        found, memory = state.steady(checks, memory, NOW + number * 3600, None, given)
        reported.append((found[0].status, found[0].since[11:16]))
    assert reported == [
        ("pass", "08:00"),
        ("critical", "09:00"),
        ("pass", "10:00"),
        ("pass", "11:00"),
        ("critical", "12:00"),
    ]


def test_what_could_not_be_looked_at_is_not_forgotten(options):
    """The driver does not answer once, or systemctl: what was raised before is raised again as soon
    as it is seen.
    """
    given = options(raise_after=3)
    memory = {}
    ecc, unit = Check("gpu_ecc", "critical", "x", "0"), Check("failed_units", "critical", "x")
    for number in range(3):
        _found, memory = state.steady([ecc, unit], memory, NOW + number * 60, None, given)
    silent = [
        Check("gpu_driver", "unknown", "no answer"),
        Check("service", "unknown", "no answer"),
        Check("failed_units", "skipped", "see service"),
    ]
    _found, memory = state.steady(silent, memory, NOW + 240, None, given)
    found, _memory = state.steady([ecc, unit], memory, NOW + 300, None, given)
    assert [(check.status, check.since) for check in found] == [
        ("critical", isoformat(NOW + 120))
    ] * 2


def test_a_clock_set_back_leaves_no_state_that_began_in_the_future(options):
    given = options(clear_after=1)
    _found, memory = state.steady([Check("dns", "critical", "x")], {}, NOW, None, given)
    found, memory = state.steady([Check("dns", "critical", "x")], memory, NOW - 9000, None, given)
    assert found[0].status == "critical" and found[0].since == isoformat(NOW - 9000)
    assert (
        state.steady([Check("dns", "pass", "x")], memory, NOW - 8000, None, given)[0][0].status
        == "pass"
    )


def test_between_warning_and_clear_a_critical_state_becomes_a_warning(options):
    limits = {"disk_usage": {"warning": 80, "critical": 90, "clear": 75}}
    series = Series(options(clear_after=1, limits=limits), check="disk_usage")
    reported = [
        series.feed(status, value=value)[0]
        for status, value in (("critical", 91), ("warning", 85), ("pass", 78), ("pass", 74))
    ]
    assert reported == ["critical", "warning", "warning", "pass"]
    series = Series(options(clear_after=1, limits=limits), check="disk_usage")
    assert series.feed("critical", value=91) + series.feed("pass", value=78) + series.feed(
        "pass", value=74
    ) == ["critical", "warning", "pass"]
    only = {"disk_usage": {"warning": "~:", "critical": 90, "clear": 75}}
    series = Series(options(clear_after=1, limits=only), check="disk_usage")
    assert series.feed("critical", value=91) + series.feed("pass", value=78) == [
        "critical",
        "critical",
    ]
    series = Series(
        options(clear_after=1, limits={"certificate": {"clear": 30}}), check="certificate"
    )
    assert (
        series.feed("warning", value=20) + series.feed("pass", value=25) == ["warning", "warning"]
        and "not above 30 yet" in series.last.message
    )


@pytest.mark.parametrize("seed", range(40))
def test_any_series_keeps_the_rules(options, seed):
    """Against a plain model: worse only after raise_after in a row, better only after clear_after,
    and since is when it changed.
    """
    dice = random.Random(seed)
    raise_after, clear_after = dice.randint(1, 4), dice.randint(1, 4)
    series = Series(options(raise_after=raise_after, clear_after=clear_after))
    rank = {"pass": 0, "warning": 1, "critical": 2}
    shown, way, run, since = "pass", None, 0, None
    for status in dice.choices(list(rank), k=60):
        (reported,) = series.feed(status)
        since = since or series.now
        if rank[status] == rank[shown]:
            way, run = None, 0
        else:
            direction = rank[status] > rank[shown]
            way, run = direction, run + 1 if way is direction else 1
            if run >= (raise_after if direction else clear_after):
                shown, way, run, since = status, None, 0, series.now
        assert reported == shown and series.last.since == isoformat(since)


JUNK = [
    None,
    True,
    "x",
    "",
    -1,
    0,
    3.5,
    1e300,
    float("nan"),
    float("inf"),
    [],
    {},
    [1],
    {"a": 1},
    "critical",
    "worse",
    "explode",
    10**30,
]


def content_with_junk(seed):
    """The text of a state file with something in it that does not belong there."""
    if seed % 10 == 0:
        return "[" * 100_000
    dice = random.Random(seed)
    one = {
        "status": "critical",
        "since": NOW,
        "seen": NOW,
        "count": 0,
        "direction": None,
        "action": "drain",
        "domain": "node",
    }
    for dummy in range(dice.randint(1, 3)):
        one[dice.choice(list(one))] = dice.choice(JUNK)
    content = {
        "version": 1,
        "checks": {"process_ids|": one},
        "counters": {"boot_id": "b", "oom_kill": dice.choice(JUNK)},
    }
    if seed % 3 == 0:
        content[dice.choice(list(content))] = dice.choice(JUNK)
    return json.dumps(content)


def test_no_content_of_the_file_breaks_a_run(tmp_path, machine, options):
    path = tmp_path / "state.json"
    machine.put("/proc/sys/kernel/random/boot_id", "b\n")
    machine.put("/proc/vmstat", "oom_kill 7\n")
    given = options(state_file=str(path), checks=["limits", "oom_kills"])
    names = ["oom_kills", "file_descriptors", "process_ids", "conntrack"]
    for seed in range(60):
        path.write_text(content_with_junk(seed))
        # What a run has written is read by the next one: the same for each seed.
        for dummy in range(2 if seed < 3 else 1):
            document = run(given, machine.world).to_dict()
            assert [check["check"] for check in document["checks"]] == names, seed
        assert json.loads(path.read_text())["version"] == 1, seed


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"version": 9}',
        '{"version": 1, "checks": {"a|": {"status": "odd", "since": 1}}, "counters": {}}',
    ],
)
def test_a_damaged_file_starts_over(tmp_path, content):
    path = tmp_path / "state.json"
    path.write_text(content)
    memory, problem = state.load(str(path), NOW)
    assert problem and memory == EMPTY
    execute.store(str(path), memory)
    assert json.loads(path.read_text()) == {
        "version": 1,
        "checks": {},
        "counters": {"boot_id": None, "oom_kill": None},
    }


def test_what_is_stored_is_what_is_loaded(tmp_path):
    path = str(tmp_path / "state.json")
    entry = state.Remembered("critical", NOW, NOW + 1, 2, state.BETTER, "drain", "node")
    memory = state.Memory({"dns|a": entry, "raid|": entry}, state.Counters("b", 7))
    execute.store(path, memory)
    assert state.load(path, NOW) == (memory, None)


def test_the_file_is_private_and_its_directory_is_made(tmp_path):
    path = tmp_path / "new" / "state.json"
    with execute.locked(str(path)):
        execute.store(str(path), EMPTY)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    with (
        pytest.raises(WriteFailed, match="Can't make"),
        execute.locked(str(tmp_path / "no" / "such" / "state.json")),
    ):
        pass


def test_nothing_is_written_in_check_mode(tmp_path, machine, options):
    path = tmp_path / "new" / "state.json"
    given = options(state_file=str(path), checks=["limits"])
    before = sorted(os.listdir(tmp_path))
    run(given, machine.world, check=True)
    assert sorted(os.listdir(tmp_path)) == before


def test_two_runs_at_once_lose_nothing(tmp_path):
    path = str(tmp_path / "state.json")

    def count():
        for dummy in range(20):
            with execute.locked(path):
                memory, _problem = state.load(path, NOW)
                kills = (memory.counters.oom_kill or 0) + 1
                execute.store(path, memory._replace(counters=state.Counters("b", kills)))

    outcomes = isolate.call_many({str(number): count for number in range(3)}, 20)
    assert [outcome.error for outcome in outcomes.values()] == [None] * 3
    assert state.load(path, NOW)[0].counters.oom_kill == 60


def test_a_run_that_does_not_get_the_state_checks_all_the_same(
    tmp_path, machine, options, monkeypatch
):
    path = str(tmp_path / "state.json")
    monkeypatch.setattr(execute, "PATIENCE", 0.1)
    with execute.locked(path):
        with pytest.raises(LockBusy), execute.locked(path):
            pass
        document = run(options(state_file=path, checks=["limits"]), machine.world).to_dict()
    statuses = {check["check"]: check["status"] for check in document["checks"]}
    assert statuses["state_file"] == "warning" and "file_descriptors" in statuses


def test_oom_kills_are_counted_from_run_to_run(tmp_path, machine, options):
    machine.put("/proc/sys/kernel/random/boot_id", "one\n")
    machine.put("/proc/vmstat", "oom_kill 7\n")
    given = options(state_file=str(tmp_path / "state.json"), checks=["oom_kills"], clear_after=1)

    def first():
        return run(given, machine.world).to_dict()["checks"][0]

    assert first()["status"] == "skipped", "seven kills, nobody knows when"
    assert (first()["status"], first()["message"]) == ("pass", "OOM kills: 0 in the last 60 min")
    machine.put("/proc/vmstat", "oom_kill 9\n")
    check = first()
    assert (check["status"], check["value"], check["message"]) == (
        "warning",
        2,
        "OOM kills: 2 since the last check",
    )
    machine.put("/proc/sys/kernel/random/boot_id", "two\n")
    machine.put("/proc/vmstat", "oom_kill 0\n")
    assert first()["status"] == "pass"


def test_times_beyond_any_date_are_garbage(tmp_path):
    entry = {"status": "critical", "since": NOW, "seen": NOW}
    path = tmp_path / "state.json"
    for since, accepted in ((99_999_999_999, True), (1e11, False), (-1e11, False), (True, False)):
        content = {"version": 1, "checks": {"a|": {**entry, "since": since}}, "counters": {}}
        path.write_text(json.dumps(content))
        assert (state.load(str(path), NOW)[1] is None) == accepted, since


def test_the_grace_and_the_week_end_on_the_second(options):
    given = options(boot_grace=600)
    fault = Check("dns", "critical", "x")
    for age, status in ((599.9, "pass"), (600.0, "critical"), (None, "critical")):
        assert state.steady([fault], {}, NOW, age, given)[0][0].status == status
    skipped = options(skip=["dns"])
    old = {"dns|": state.Remembered("critical", NOW, NOW)}
    assert state.steady([], old, NOW + state.FORGET - 1, None, skipped)[1] == old
    assert state.steady([], old, NOW + state.FORGET, None, skipped)[1] == {}


def test_a_week_is_a_week():
    assert state.FORGET == 7 * 24 * 3600


def test_a_dead_mount_keeps_what_is_known_about_disks(options):
    """Only a mount that is silent keeps the group: a critical disk does not, a passed mount
    neither.
    """
    old = {"disk_usage|/far": state.Remembered("critical", NOW, NOW)}
    for check, kept in (
        (Check("mount_responds", "critical", "x", "/far"), True),
        (Check("mount_responds", "pass", "x", "/far"), False),
        (Check("disk_usage", "critical", "x", "/"), False),
        (Check("disk_usage", "unknown", "x", "/"), True),
    ):
        memory = state.steady([check], old, NOW, None, options())[1]
        assert ("disk_usage|/far" in memory) == kept, check


def test_counts_begin_again(options):
    given = options(raise_after=2, clear_after=2)
    key, bad, good = "dns|", Check("dns", "critical", "x"), Check("dns", "pass", "x")
    memory, counts = {}, []
    for check, age in ((bad, 1), (bad, 1), (bad, 1e6), (bad, 1e6), (good, 1e6), (bad, 1e6)):
        memory = state.steady([check], memory, NOW, age, given)[1]
        counts.append((memory[key].status, memory[key].repeats))
    assert counts == [
        ("pass", 0),  # within the grace nothing is counted
        ("pass", 0),
        ("pass", 1),
        ("critical", 0),
        ("critical", 1),
        ("critical", 0),
    ]


@pytest.mark.parametrize(
    ("checks", "counters", "accepted"),
    [
        ({}, {}, True),
        ([], {}, False),
        ({}, [], False),
        ({"a|": {"status": "pass", "since": 1}}, {}, True),
        ({"a|": {"status": "pass", "since": 1, "count": 1e11}}, {}, False),
        ({"a|": {"status": "pass", "since": 1, "seen": 1e11}}, {}, False),
    ],
)
def test_what_content_is_accepted(tmp_path, checks, counters, accepted):
    path = tmp_path / "state.json"
    path.write_text(json.dumps({"version": 1, "checks": checks, "counters": counters}))
    memory, problem = state.load(str(path), NOW)
    assert (problem is None) == accepted
    if checks and accepted:
        assert memory.checks == {"a|": state.Remembered("pass", 1.0, NOW, 0)}
