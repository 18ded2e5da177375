# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pickle

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import (
    CommandFailed,
    LockBusy,
    OptionError,
)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OptionError("x is wrong.", "Correct it.", "x"), {"kind": "OptionError", "subject": "x"}),
        (
            CommandFailed.missing("dcgmi"),
            {"kind": "CommandFailed", "subject": "dcgmi", "code": "missing"},
        ),
        (
            CommandFailed.timed_out("dcgmi", 3),
            {"kind": "CommandFailed", "subject": "dcgmi", "code": "timed_out"},
        ),
        (CommandFailed("dcgmi crashed."), {"kind": "CommandFailed", "code": "failed"}),
        (
            LockBusy("backup", "/run/lock/x", 42),
            {"kind": "LockBusy", "subject": "/run/lock/x", "code": "lock_busy"},
        ),
    ],
)
def test_errors_of_one_type_are_told_apart_by_their_code_also_in_json_and_after_a_fork(
    error, expected
):
    for same in (error, pickle.loads(pickle.dumps(error))):
        fields = same.to_dict()
        assert {
            key: value for key, value in fields.items() if key not in ("message", "todo")
        } == expected
        assert fields["message"] == error.message and fields["todo"] == error.todo
        assert type(same) is type(error) and vars(same) == vars(error)


def test_a_busy_lock_names_its_holder_in_fields_too():
    error = LockBusy("backup", "/run/lock/x", 42)
    assert (error.purpose, error.path, error.holder) == ("backup", "/run/lock/x", 42)
    assert "process 42 holds /run/lock/x" in str(error)
    assert "process unknown" in str(LockBusy("backup", "/run/lock/x"))
