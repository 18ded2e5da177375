# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nagios output, taken apart as the plugin guidelines say it must be readable."""

from __future__ import annotations

import re

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.output import nagios
from ansible_collections.mlops.fleet.plugins.module_utils._core.verdict import Check, Document

#: 'label'=value[UOM];[warn];[crit];[min];[max]
PERF = re.compile(
    r"'(?P<label>[^'=|]+)'=(?P<value>-?[0-9.]+)(?P<unit>s|ms|us|%|[KMGT]?B|c)?"
    r"(?P<limits>(?:;[-0-9.:@~]*){0,4})(?: |$)"
)


def _parse(text):
    first, *rest = text.splitlines()
    said, _bar, data = first.partition(" | ")
    found, at = {}, 0
    while at < len(data):
        match = PERF.match(data, at)
        assert match, f"unreadable performance data: {data[at:]!r}"
        found[match["label"]] = (match["value"], match["unit"], match["limits"])
        at = match.end()
    return said, found, rest


def _document(*checks):
    return Document("2026-01-31T14:30:00+00:00", "n1", checks).to_dict()


def test_a_sick_node():
    said, data, rest = _parse(
        nagios.render(
            _document(
                Check(
                    "disk_usage",
                    "warning",
                    "Disk usage: 85% on /",
                    "/",
                    value=85.5,
                    unit="%",
                    warn=80,
                    crit=90,
                ),
                Check(
                    "cpu_load",
                    "pass",
                    "CPU load: 1 | fine\nreally",
                    value=0.25,
                    warn=1.5,
                    crit="~:4",
                ),
                Check("service", "critical", "Service docker: failed", "docker", value="failed"),
                Check("raid", "skipped", "RAID: no md array"),
                Check("it's=odd", "pass", "x", "a|b", value=7),
            )
        )
    )
    assert said == "NODE CRITICAL - Service docker: failed; Disk usage: 85% on /, score 31.25"
    assert data == {
        "disk_usage /": ("85.5", "%", ";80;90"),
        "cpu_load": ("0.25", None, ";1.5;~:4"),
        "it_s_odd a_b": ("7", None, ""),
        "health_score": ("31.25", None, ";;;0;100"),
    }
    assert rest[1] == "[PASS] CPU load: 1 / fine really" and len(rest) == 4, (
        "skipped ones are left out"
    )


@pytest.mark.parametrize(
    ("checks", "words"),
    [
        ([Check("a", "pass", "x")], "NODE OK - 1 checks passed, score 100"),
        ([], "NODE OK - nothing to check here"),
        ([Check("a", "unknown", "no answer")], "NODE WARNING - no answer, score 50"),
        (
            [Check(f"c{n}", "warning", f"m{n}") for n in range(6)],
            "NODE WARNING - m0; m1; m2; m3; and 2 more, score 50",
        ),
    ],
)
def test_first_lines(checks, words):
    assert _parse(nagios.render(_document(*checks)))[0] == words


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.000012, "0.000012"),
        (1e-12, "0"),
        (12345678901, "12345678901"),
        (1e15, "1000000000000000"),
        (-0.5, "-0.5"),
        (99.99, "99.99"),
        (3.0, "3"),
    ],
)
def test_numbers_have_no_exponent(value, text):
    _said, data, _rest = _parse(
        nagios.render(
            _document(Check("time_sync", "pass", "x", value=value, unit="s", warn=0.1, crit=1.0))
        )
    )
    assert data["time_sync"] == (text, "s", ";0.1;1")


def test_no_number_no_data():
    for value in (float("nan"), float("inf"), True, "text", None):
        assert set(_parse(nagios.render(_document(Check("a", "pass", "x", value=value))))[1]) == {
            "health_score"
        }
