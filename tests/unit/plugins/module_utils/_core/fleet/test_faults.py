# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults of a host: a phase that hangs on a dead mount is no second trouble."""

from __future__ import annotations

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.fleet import faults

MOUNT = {
    "check": "mount_responds",
    "subject": "/srv/data",
    "message": "/srv/data does not respond",
    "action": "restart_app",
}
LATE = {"failed": True, "timed_out": True, "msg": "The phase did not end within 60 s."}
FAILED = {"failed": True, "msg": "The source is missing."}


@pytest.mark.parametrize(
    ("status", "backup", "checks"),
    [
        ("critical", LATE, ["mount_responds"]),
        ("critical", FAILED, ["backup_failed", "mount_responds"]),
        ("warning", LATE, ["backup_failed", "mount_responds"]),
        ("pass", LATE, ["backup_failed"]),
    ],
)
def test_a_phase_that_hangs_on_a_dead_mount(status, backup, checks):
    results = {"health": {"checks": [{**MOUNT, "status": status}]}, "backup": backup}
    phases = [
        {"phase": "health", "status": status, "message": ""},
        {"phase": "backup", "status": "failed", "message": backup["msg"]},
    ]
    of_host = faults.of_host("n1", {"phases": phases}, results)
    assert [fault["check"] for fault in of_host] == checks
    named = any("phase that did not end: backup" in fault["message"] for fault in of_host)
    assert named == (checks == ["mount_responds"])
