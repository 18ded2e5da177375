# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copies counted against 3-2-1: what is planned or removed is no copy."""

from __future__ import annotations

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.backup import protection

LOCAL = {
    "path": "/backup/models/models_backup_20250131_020000.tar.gz",
    "created": "2025-01-31T02:00:00+00:00",
    "size": 5,
    "verified": True,
}
NOW = 1738288800.0 + 3 * 3600  # 2025-01-31 05:00 UTC
AWAY = {"url": "s3://b/x", "verified": "checksum"}


@pytest.mark.parametrize(
    ("backup", "copies", "separate", "counts", "satisfied", "verified"),
    [
        (None, [], False, (1, 1, 0), False, 0),
        (LOCAL, [], True, (2, 2, 0), False, 1),
        (LOCAL, [AWAY], False, (3, 2, 1), True, 2),
        (LOCAL, [AWAY], True, (3, 3, 1), True, 2),
        (LOCAL, [{**AWAY, "verified": "size_only"}], True, (3, 3, 1), True, 1),
        (LOCAL, [{**AWAY, "verified": "planned"}], True, (2, 2, 0), False, 1),
        (LOCAL, [{**AWAY, "removed": True}], True, (2, 2, 0), False, 1),
        (
            {**LOCAL, "path": "s3:https://x/b/ab12", "verified": False},
            [],
            True,
            (2, 2, 1),
            False,
            0,
        ),
    ],
)
def test_counts(backup, copies, separate, counts, satisfied, verified):
    counted = protection.count(backup, copies, separate, NOW)
    assert (counted["copies"], counted["storages"], counted["elsewhere"]) == counts
    assert (counted["satisfied"], counted["verified"]) == (satisfied, verified)
    age = None if backup is None else 3.0
    assert (counted["age_hours"], counted["size"]) == (age, None if backup is None else 5)


def test_a_file_system_of_its_own_is_another_storage(tmp_path):
    assert protection.on_other_storage(str(tmp_path), "/proc")
    assert not protection.on_other_storage(str(tmp_path), str(tmp_path))
    assert not protection.on_other_storage(str(tmp_path), str(tmp_path / "missing"))
