# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One line and an exit code for schedulers."""

from __future__ import annotations

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core import verdict
from ansible_collections.mlops.fleet.plugins.module_utils._core.output import hooks


def document(*statuses, message="Disk usage: 97%"):
    checks = tuple(
        verdict.Check(f"check_{number}", status, message) for number, status in enumerate(statuses)
    )
    return verdict.Document("now", "node", checks).to_dict()


@pytest.mark.parametrize(
    ("statuses", "slurm", "npd", "line"),
    [
        (["pass", "pass"], 0, 0, "ok: 2 checks passed"),
        ([], 0, 0, "ok: 0 checks passed"),
        (["skipped"], 0, 0, "ok: 0 checks passed"),
        (["pass", "warning"], 0, 0, "ok, but: check_1: Disk usage: 97%"),
        (["unknown"], 0, 0, "ok, but: check_0: Disk usage: 97%"),
        (["warning", "critical"], 1, 1, "critical: check_1: Disk usage: 97% (+1 more)"),
    ],
)
def test_only_critical_is_a_failure(statuses, slurm, npd, line):
    assert hooks.answer(document(*statuses), "slurm") == (line, slurm)
    assert hooks.answer(document(*statuses), "npd") == (line, npd)


@pytest.mark.parametrize(("name", "length"), [("slurm", 200), ("npd", 80)])
def test_the_line_is_one_and_as_long_as_it_may_be(name, length):
    line, dummy = hooks.answer(document("critical", "critical", message="a b\nc " * 99), name)
    assert length - 1 <= len(line) <= length and line.endswith("… (+1 more)") and "\n" not in line


def test_nothing_could_be_checked():
    assert hooks.unknown("Bad option.", "slurm") == ("unknown: Bad option.", 0)
    assert hooks.unknown("Bad option.", "npd") == ("unknown: Bad option.", 2)
