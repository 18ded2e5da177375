# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Exit codes of the node command, and what a trial run learns about a job."""

from __future__ import annotations

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core import config, errors, outcome
from ansible_collections.mlops.fleet.plugins.module_utils._core.jobs import JOBS


@pytest.mark.parametrize(
    ("backup", "expected"),
    [
        ({"verified": True}, ("verified", "INFO")),
        ({"problems": ["a", "b"]}, ("DAMAGED: a; b", "CRITICAL")),
        ({}, ("DAMAGED: not verified", "CRITICAL")),
        ({"verified": True, "unreadable": "no"}, ("could not be checked: no", "ERROR")),
    ],
)
def test_the_state_of_a_verified_backup(backup, expected):
    assert outcome.backup_state(backup) == expected


@pytest.mark.parametrize("variables", [{}, {"ALERT_COOLDOWN": "1"}, {"ALERT_WEBHOOK": ""}])
def test_no_channel_is_configured(tmp_path, variables):
    assert not config.Configuration(str(tmp_path / "none"), variables).has_channel()


def test_a_channel_is_configured_by_a_variable_or_the_file(tmp_path):
    path = tmp_path / "c.json"
    assert config.Configuration(str(path), {"ALERT_WEBHOOK": "https://x"}).has_channel()
    path.write_text('{"alert": {"syslog": true}}')
    assert config.Configuration(str(path), {}).has_channel()


@pytest.mark.parametrize(
    "command", ["health", "gpu", "maintenance", "backup", "restore", "cleanup"]
)
@pytest.mark.parametrize(
    ("error", "worker"),
    [
        (errors.OptionError("o"), 3),
        (errors.MissingLibrary("boto3", "for S3"), 3),
        (errors.LockBusy("backup", "/l"), 3),
        (errors.NotUsable("n"), 1),
        (errors.WriteFailed("w"), 1),
        (errors.VerificationFailed("v"), 2),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_exit_code_of_an_error(command, error, worker):
    works = command in ("backup", "restore", "cleanup")
    expected = worker if works or worker == 2 else 3
    assert outcome.exit_code(command, error) == expected


def test_exit_code_of_backups_and_channels():
    good, bad = {"verified": True}, {"verified": False}
    assert [outcome.of_backups(backups) for backups in ([], [good], [good, bad])] == [2, 0, 2]
    denied = {"verified": False, "unreadable": "Permission denied"}
    mixtures = ([denied], [good, denied], [good, denied, bad])
    assert [outcome.of_backups(backups) for backups in mixtures] == [3, 3, 2]
    channels = [{"status": status} for status in ("sent", "skipped", "would_send")]
    assert outcome.of_channels(channels) == 0
    for status in ("failed", "queued"):
        assert outcome.of_channels([*channels, {"status": status}]) == 1


def test_an_outcome_is_read_back_among_other_lines():
    reported = outcome.Outcome("critical", ("backup",), 12, "lock_busy")
    text = f"one\n{outcome.Outcome().line()}\n{reported.line()}\ntwo\nmlfleet-outcome: {{nonsense\n"
    assert outcome.read(text) == (reported, "one\ntwo\n")
    assert outcome.read("one\n") == (None, "one\n")
    assert outcome.of_error(errors.LockBusy("backup", "/l")).error == "lock_busy"
    assert outcome.of_error(errors.NotUsable("n")).error == "NotUsable"


def test_the_jobs_are_those_of_the_old_crontab_and_the_drill():
    assert {job.name: (job.unit, job.cron) for job in JOBS} == {
        "health": ("ml-health-check", "2-59/15 * * * *"),
        "gpu": ("gpu-monitor", "*/5 * * * *"),
        "backup": ("ml-backup", "0 2 * * *"),
        "cleanup": ("ml-cleanup", "0 3 * * 0"),
        "maintenance": ("ml-maintenance", "0 4 * * *"),
        "restore_drill": ("ml-restore-drill", "0 5 1 * *"),
    }
    assert [job.name for job in JOBS if job.removes] == ["cleanup", "maintenance"]
