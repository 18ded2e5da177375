# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Limits: the examples of the plugin guidelines, plain numbers, and what is refused."""

from __future__ import annotations

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import OptionError
from ansible_collections.mlops.fleet.plugins.module_utils._core.node import thresholds
from ansible_collections.mlops.fleet.plugins.module_utils._core.node.checks import RULES


# "Example ranges" of the Monitoring Plugins Development Guidelines; our plain number is "from 10
# on", theirs reads 0:10.
@pytest.mark.parametrize(
    ("text", "good", "bad"),
    [
        ("0:10", [0, 5, 10], [-1, 10.1]),
        ("10:", [10, 1e9], [9.99, -5]),
        ("~:10", [-1e9, 10], [10.5]),
        ("10:20", [10, 15, 20], [9, 21]),
        ("@10:20", [9.9, 20.1], [10, 15, 20]),
        (":10", [0, 10], [-0.1, 11]),
        ("@5", [-1, 6], [0, 5]),
        ("~:", [-1e99, 0, 1e99], []),
        ("80", [79.999, 0, -5], [80, 80.0, 95]),
        ("1.5", [1.49], [1.5]),
    ],
)
def test_what_is_bad(text, good, bad):
    limit = thresholds.parse(text)
    assert [value for value in good if limit.hit(value)] == []
    assert [value for value in bad if not limit.hit(value)] == []


def test_a_plain_number_counts_downwards_where_small_is_bad():
    limit = thresholds.parse("7", below=True)
    assert limit.hit(7) and limit.hit(-3) and not limit.hit(7.1)
    assert limit.reported == "7:", "readers of ranges would take 7 for the most that is allowed"


@pytest.mark.parametrize(
    "text", ["", "x", "20:10", "nan", "1:2:3", "@", "inf", "10 20", "80%", "~"]
)
def test_nonsense_is_refused(text):
    with pytest.raises(ValueError, match="neither a number nor a range"):
        thresholds.parse(text)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"disk_usage": {"warning": "95"}}, "lies beyond its critical limit"),
        ({"disk_usage": {"critical": "120"}}, "between 0 and 100"),
        ({"certificate": {"warning": "3"}}, "lies beyond its critical limit"),
        ({"cpu_load": {"clear": "much"}}, "clear limit of cpu_load"),
    ],
)
def test_limits_that_contradict_are_refused(given, words):
    with pytest.raises(OptionError, match=words):
        thresholds.resolve(RULES, given)


def test_source_says_who_set_the_limit():
    found = thresholds.resolve(
        RULES, {"cpu_load": {"warning": 2, "critical": 3}, "disk_usage": {"warning": "80"}}
    )
    assert (found["cpu_load"].source, found["disk_usage"].source) == ("user", "default")
    assert (
        found["cpu_load"].level(1.9) == "pass"
        and found["cpu_load"].level(2) == "warning"
        and found["cpu_load"].level(3) == "critical"
    )
    assert found["flapping_units"].critical.reported is None, "a limit that is off is not shown"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (65.4, "65%"),
        (79.4, "79%"),
        (79.6, "79.6%"),
        (79.99, "79.9%"),
        (80, "80%"),
        (89.7, "89.7%"),
        (90.2, "90%"),
    ],
)
def test_a_percentage_is_not_rounded_across_a_limit(value, text):
    assert thresholds.percent(value, thresholds.resolve(RULES, {})["disk_usage"]) == text


@pytest.mark.parametrize(
    ("name", "given", "accepted"),
    [
        ("cpu_load", {"warning": 2, "critical": 2}, True),
        ("cpu_load", {"warning": 2.1, "critical": 2}, False),
        ("certificate", {"warning": 7, "critical": 7}, True),
        ("certificate", {"warning": 6, "critical": 7}, False),
        ("cpu_load", {"warning": "0:9", "critical": 2}, True),  # ranges are not compared
        ("cpu_load", {"warning": 9, "critical": "0:2"}, True),
        ("disk_usage", {"warning": 0, "critical": 100}, True),
        ("disk_usage", {"critical": 100.1}, False),
        ("disk_usage", {"warning": -0.1}, False),
        ("cpu_load", {"warning": -1, "critical": 200}, True),  # no percentage
        ("cpu_load", {"warning": "5:5"}, True),
        ("cpu_load", {"warning": "5:4"}, False),
    ],
)
def test_what_limits_are_accepted(name, given, accepted):
    if accepted:
        assert name in thresholds.resolve(RULES, {name: given})
    else:
        with pytest.raises(OptionError):
            thresholds.resolve(RULES, {name: given})


@pytest.mark.parametrize(
    ("value", "rounded"), [(0.1234567, 0.123457), (1.0, 1.0), (1.2345, 1.23), (-3.456, -3.46)]
)
def test_values_are_rounded_for_people(value, rounded):
    limits = thresholds.resolve(RULES, {})["uptime"]
    assert thresholds.evaluate(limits, "uptime", value, "x").value == rounded


@pytest.mark.parametrize(
    ("value", "status", "action", "domain"),
    [
        (1.4, "pass", "none", None),
        (1.5, "warning", "inspect", "user"),
        (9.0, "warning", "inspect", "user"),
    ],
)
def test_only_what_hits_a_limit_asks_for_an_action(value, status, action, domain):
    limits = thresholds.resolve(RULES, {})["cpu_load"]
    check = thresholds.evaluate(limits, "cpu_load", value, "x")
    assert (check.status, check.action, check.domain) == (status, action, domain)
    assert (check.warn, check.crit, check.unit) == (1.5, None, None)
    forced = thresholds.evaluate(limits, "cpu_load", value, "x", "critical")
    assert (forced.status, forced.action) == ("critical", "inspect")


def test_a_whole_number_stays_one_and_limits_keep_their_source():
    limits = thresholds.resolve(RULES, {"oom_kills": {"warning": 3}})
    check = thresholds.evaluate(limits["oom_kills"], "oom_kills", 3, "x")
    assert (check.status, check.threshold_source) == ("warning", "user")
    assert check.value == 3 and isinstance(check.value, int)
    assert limits["uptime"].source == "default"
    assert thresholds.parse("@5").hit(5) and not thresholds.parse("@5").hit(6)


@pytest.mark.parametrize(
    ("limit", "below", "bad", "good"),
    [
        ("80", False, (80, 81), (79,)),
        ("80", True, (80, 79), (81,)),
        ("10:20", False, (9, 21), (10, 20)),
        ("@10:20", False, (10, 20), (9, 21)),
        ("@20", False, (0, 20), (-1, 21)),
        ("~:5", False, (6,), (-100, 5)),
        ("5:", False, (4,), (5, 1e9)),
    ],
)
def test_which_values_a_limit_hits(limit, below, bad, good):
    parsed = thresholds.parse(limit, below)
    assert [value for value in (*bad, *good) if parsed.hit(value)] == [*bad]


def test_limits_are_reported_as_they_are_read():
    assert thresholds.parse("@5:10").reported == "@5:10"
    assert thresholds.parse("~:").reported is None
    assert thresholds.parse("7").reported == 7
    assert isinstance(thresholds.parse("7.0").reported, int)
    assert thresholds.parse("7.5").reported == 7.5


@pytest.mark.parametrize("text", ["nan:5", "5:nan", "@nan:1", "10:5", "nan:nan"])
def test_a_range_needs_two_numbers_in_their_order(text):
    with pytest.raises(ValueError, match="neither a number nor a range"):
        thresholds.parse(text)


def test_a_value_has_the_unit_of_its_limits():
    limits = thresholds.resolve(RULES, {})
    assert thresholds.evaluate(limits["disk_usage"], "disk_usage", 1, "x").unit == "%"
    assert thresholds.evaluate(limits["cpu_load"], "cpu_load", 1, "x").unit is None
