# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run prints: a table of hosts, or of groups of like hosts; then verdict, new faults,
page.
"""

from __future__ import annotations

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.fleet import changes, screen
from ansible_collections.mlops.fleet.tests import synthetic_fleet


@pytest.fixture(scope="module")
def thousand():
    """The run over a thousand hosts; no test changes it."""
    return synthetic_fleet.run(1000)


def test_forty_hosts_are_listed_and_more_are_grouped(thousand):
    listed = screen.table(synthetic_fleet.run(40))
    assert sum(line.startswith("gpu00") and "  " in line for line in listed) >= 40
    grouped = screen.table(thousand)
    assert len(grouped) < 12 and grouped[0].split()[:2] == ["HOSTS", "STATE"]
    assert sum(int(line.split()[0]) for line in grouped[2:-1]) == 1000
    assert "and 7 more" in grouped[2] and grouped[-1].startswith("Fleet maintenance: CRITICAL")


def test_the_last_lines_say_what_is_new_and_where_the_page_is(thousand):
    report = synthetic_fleet.compared(synthetic_fleet.run(50), synthetic_fleet.run(50, 0))
    assert changes.last_lines(report, "/r/latest.html") == [
        "Since 2027-01-14T08:00:00+00:00: 1 new",
        "new: 1 host critical: GPU 5: 3 uncorrected memory errors since the driver was loaded"
        " [reset_gpu]: gpu0002",
        "Report: /r/latest.html",
    ]
    causes = changes.cause_lines(thousand["causes"])
    assert len(causes) == 5 and causes[2].startswith("24 hosts critical: GPU 1: Xid 79")


def test_control_characters_and_long_texts_do_not_reach_the_terminal():
    evil = "\x1b[2J\u202e\r" + "A" * 100_000
    for count in (1, 60):
        results = {
            f"{number}{evil}": {"health": {"failed": True, "msg": evil}} for number in range(count)
        }
        report = synthetic_fleet.compared(synthetic_fleet.run(count, results=results))
        lines = [*screen.table(report), *changes.cause_lines(report["causes"])]
        assert all("\x1b" not in line and "\u202e" not in line for line in lines)
        assert all("\r" not in line and len(line) < 2000 for line in lines)
