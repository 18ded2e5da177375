# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the doctor makes of systemctl's output, and reads of files.

The output itself is checked on booted nodes (molecule/agent).
"""

from __future__ import annotations

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.doctor import facts, plan


@pytest.fixture
def systemctl(world, tmp_path, monkeypatch):
    """Put a systemctl in the way that says the given properties of one unit, and that the others do
    not exist.
    """

    def say(unit, **properties):
        lines = "\n".join(f"{name}={value}" for name, value in properties.items())
        program = tmp_path / "systemctl"
        program.write_text(
            f'#!/bin/sh\ncase "$*" in *{unit}) cat <<END\n{lines}\nEND\n;; *) echo'
            " LoadState=not-found; echo ExecMainStatus=0;; esac\n"
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        return [plan.last_run(run) for run in facts.last_runs(world)]

    return say


STARTED = "Mon 2026-11-23 22:00:00 UTC"


@pytest.mark.parametrize(
    ("unit", "result", "number", "status"),
    [
        ("ml-backup.service", "success", 0, "pass"),
        ("gpu-monitor.service", "exit-code", 2, "pass"),
        ("ml-health-check.service", "exit-code", 2, "pass"),
        ("ml-backup.service", "exit-code", 2, "warning"),
        ("gpu-monitor.service", "exit-code", 3, "warning"),
        ("gpu-monitor.service", "exit-code", 217, "critical"),
        ("gpu-monitor.service", "exit-code", 0, "critical"),
        ("ml-cleanup.service", "oom-kill", 9, "warning"),
        ("ml-maintenance.service", "timeout", 15, "warning"),
    ],
)
def test_how_a_job_ended(systemctl, unit, result, number, status):
    (check,) = systemctl(
        unit,
        LoadState="loaded",
        Result=result,
        ExecMainStatus=number,
        ExecMainStartTimestamp=STARTED,
    )
    assert (check.status, check.subject) == (status, unit)
    assert status == "pass" or (
        f"{unit} failed when it was last started ({result}, status {number})" in check.message
        and f"journalctl -u {unit}" in check.message
    )


def test_jobs_that_are_not_installed_or_never_ran_have_no_check(systemctl):
    assert systemctl("nothing.service") == []
    assert (
        systemctl(
            "ml-backup.service",
            LoadState="loaded",
            Result="success",
            ExecMainStatus=0,
            ExecMainStartTimestamp="",
        )
        == []
    )


def test_a_log_file_has_its_mode_and_a_missing_one_may_be_made(tmp_path):
    path = tmp_path / "ml-backup.log"
    path.touch(0o600)
    path.chmod(0o642)
    assert facts.log_file(str(path)) == facts.LogFile(str(path), 0o642)
    missing = facts.log_file(str(tmp_path / "ml-cleanup.log"))
    assert (missing.mode, missing.can_be_made) == (None, True)
    assert not facts.log_file("/nowhere/ml-cleanup.log").can_be_made
