# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Results of the command and of modules in recorded situations are the same as before.

A result that changes on purpose is recorded again with ``python tests/situations/record.py NAME``;
the diff of the recorded file is part of the change and says what users will see.
"""

from __future__ import annotations

import json
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import record
from situations import SITUATIONS


@pytest.fixture(scope="session")
def programs(tmp_path_factory):
    return record.Programs(record.ROOT, tmp_path_factory.mktemp("programs"))


@pytest.mark.parametrize("name", sorted(SITUATIONS))
def test_the_result_is_the_recorded_one(name, programs, tmp_path):
    missing = record.missing(SITUATIONS[name])
    if missing:
        pytest.skip(f"needs {missing}")
    expected = json.loads(record.path_of(name).read_text(encoding="utf-8"))
    observed = record.observe(SITUATIONS[name], programs, tmp_path)
    assert observed == expected, "\n" + record.difference(expected, observed, name)


def test_every_recording_belongs_to_a_situation():
    assert {path.stem for path in record.RECORDED.glob("*.json")} == set(SITUATIONS)


def test_a_changed_value_is_reported(programs, tmp_path):
    """A comparison that can't fail is no test: one number of a recording is changed, and the
    difference names it.
    """
    expected = json.loads(record.path_of("backup_dry_run").read_text(encoding="utf-8"))
    observed = record.observe(SITUATIONS["backup_dry_run"], programs, tmp_path)
    assert observed == expected
    expected[0]["stdout"]["plan"]["files"] += 1
    assert observed != expected
    difference = record.difference(expected, observed, "backup_dry_run").splitlines()
    assert [line.split() for line in difference if line[:2] in ("- ", "+ ")] == [
        ["-", '"files":', "4,"],
        ["+", '"files":', "3,"],
    ]
