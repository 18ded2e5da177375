# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core import verdict
from ansible_collections.mlops.fleet.plugins.module_utils._core.verdict import (
    Check,
    Document,
    Summary,
    score,
)

COMBINATIONS = [
    (p, w, n - p - w) for n in range(1, 41) for p in range(n + 1) for w in range(n - p + 1)
]


def _exit_code(warnings: int, failed: int) -> int:
    if failed:
        return 2
    return 1 if warnings else 0


def test_the_old_example_keeps_its_score():
    assert score(13, 2, 0) == 86.67


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((15, 0, 0), 100.0),
        ((14, 0, 1), 46.67),
        ((13, 1, 1), 45.0),
        ((0, 15, 0), 50.0),
        ((99, 0, 1), 49.5),
        ((0, 0, 15), 0.0),
        ((0, 0, 0), None),
    ],
)
def test_published_examples(counts, expected):
    assert score(*counts) == expected


def test_score_and_exit_code_imply_each_other():
    for p, w, f in [*COMBINATIONS, (100_000, 1, 0), (1_000_000, 0, 1), (10**9, 1, 0)]:
        found = score(p, w, f)
        assert 0 <= found <= 100
        bands = (found < 50, 50 <= found < 100, found == 100)
        assert bands.index(True) == 2 - _exit_code(w, f), (p, w, f, found)


def test_a_downgrade_never_raises_and_a_failure_strictly_lowers():
    for p, w, f in COMBINATIONS:
        here = score(p, w, f)
        if p:
            assert score(p - 1, w + 1, f) <= here
            assert score(p - 1, w, f + 1) < here
        if w:
            assert score(p, w - 1, f + 1) < here


def test_more_passing_checks_never_leave_the_band():
    for p, w, f in COMBINATIONS:
        here, more = score(p, w, f), score(p + 1, w, f)
        assert more >= here
        assert (here < 50) == (more < 50) and (here == 100) == (more == 100)


def _checks(**counts: int) -> list[Check]:
    return [Check(f"c{i}", status, "m") for status, n in counts.items() for i in range(n)]


def test_summary_counts():
    found = Summary.of(
        [*_checks(**{"pass": 13, "warning": 1, "unknown": 1, "skipped": 4})]
    ).to_dict()
    assert found == {
        "total": 15,
        "passed": 13,
        "warnings": 2,
        "failed": 0,
        "skipped": 4,
        "health_score": 86.67,
        "status": "warning",
        "exit_code": 1,
    }


def test_unknown_can_count_as_critical():
    assert Summary.of([Check("gpu", "unknown", "m", unknown_as="critical")]).exit_code == 2


def test_nothing_judged_is_skipped_not_healthy():
    found = Summary.of(_checks(skipped=3))
    assert (found.status, found.exit_code, found.health_score, found.total) == (
        "skipped",
        0,
        None,
        0,
    )


def test_document_keeps_the_old_keys_and_is_plain_json():
    document = Document(
        verdict.isoformat(1_738_333_800.9),
        "ml-node-01",
        (Check("Disk usage", "pass", "Disk usage: 65%", value=65),),
        {"gpus": []},
    )
    found = json.loads(json.dumps(document.to_dict()))
    assert found["timestamp"] == "2025-01-31T14:30:00+00:00"
    assert list(found)[:4] == ["timestamp", "hostname", "checks", "summary"]
    assert found["checks"] == [
        {
            "check": "Disk usage",
            "status": "pass",
            "message": "Disk usage: 65%",
            "value": 65,
            "action": "none",
        }
    ]
    assert {"total", "passed", "warnings", "failed", "health_score"} <= set(found["summary"])


def test_wrong_status_is_a_programming_error():
    with pytest.raises(ValueError, match="healthy"):
        Check("x", "healthy", "m")


@pytest.mark.parametrize(
    ("status", "fail_on", "expected"),
    [
        ("critical", "never", False),
        ("critical", "critical", True),
        ("warning", "critical", False),
        ("warning", "warning", True),
        ("skipped", "warning", False),
    ],
)
def test_fail_on(status, fail_on, expected):
    assert verdict.fails(status, fail_on) is expected


def test_a_message_is_one_line_that_no_name_of_a_process_can_break():
    check = Check("stuck_processes", "warning", "stuck: a\nb\t\x1b[2Jc\x00\ud800\u2028d – é 漢")
    assert check.message == "stuck: a b \ufffd[2Jc\ufffd\ufffd d – é 漢"
    assert replace(check, message="x\ry").message == "x y"
