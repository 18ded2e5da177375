# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What ``mlfleet status`` knows: runs of the jobs, open problems, the verdict of all of it."""

from __future__ import annotations

import os
import time

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core import last, status
from ansible_collections.mlops.fleet.plugins.module_utils._core.alert import memory, store
from ansible_collections.mlops.fleet.plugins.module_utils._core.ports import CommandResult, World
from ansible_collections.mlops.fleet.plugins.module_utils._core.system import isolate

UNIT = """Id={unit}.service
LoadState=loaded
ActiveState={active}
Result={result}
ExecMainStatus={number}
ExecMainStartTimestamp=Sat 2026-11-28 02:00:00 UTC
ExecMainExitTimestamp=Sat 2026-11-28 02:05:00 UTC

Id={unit}.timer
LoadState=loaded
ActiveState=active
NextElapseUSecRealtime=Sun 2026-11-29 02:00:00 UTC
"""


class Systemctl:
    def __init__(self, **fields):
        self.fields = {"unit": "ml-backup", "active": "inactive", "result": "success", "number": 0}
        self.fields.update(fields)

    def __call__(self, argv, **_keywords):
        if argv[1] == "is-active":
            active = [f"{self.fields['unit']}.timer" == name for name in argv[2:]]
            return CommandResult(0, "\n".join("active" if on else "inactive" for on in active), "")
        return CommandResult(0, UNIT.format(**self.fields), "")


@pytest.mark.parametrize(
    ("fields", "verdict", "result"),
    [
        ({}, "pass", "OK"),
        ({"result": "exit-code", "number": 1}, "critical", "failed (status 1)"),
        ({"number": 75}, "warning", "gave way to another job"),
        ({"result": "timeout", "number": 15}, "critical", "failed (timeout, status 15)"),
        ({"unit": "gpu-monitor", "number": 1}, "warning", "warning"),
        ({"unit": "gpu-monitor", "result": "exit-code", "number": 2}, "critical", "critical"),
        ({"unit": "gpu-monitor", "result": "exit-code", "number": 203}, "critical", "failed"),
    ],
)
def test_the_last_run_of_a_unit(tmp_path, fields, verdict, result):
    backend, jobs = status.jobs(World(run=Systemctl(**fields), root=str(tmp_path)))
    (job,) = [job for job in jobs if job.scheduled]
    assert backend == "systemd" and job.verdict == verdict and result in job.result
    assert time.gmtime(job.last_run)[:5] == (2026, 11, 28, 2, 5)
    assert time.gmtime(job.next_run)[:5] == (2026, 11, 29, 2, 0)
    others = {other.result for other in jobs if other is not job}
    assert others == {"never"} and not job.running


def test_a_unit_that_runs(tmp_path):
    dummy, jobs = status.jobs(World(run=Systemctl(active="activating"), root=str(tmp_path)))
    assert [job.running for job in jobs if job.name == "backup"] == [True]


@pytest.fixture
def utc(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("0 2 * * *", (2026, 11, 29, 2, 0)),
        ("*/5 * * * *", (2026, 11, 28, 7, 5)),
        ("2-59/15 * * * *", (2026, 11, 28, 7, 2)),
        ("0 3 * * 0", (2026, 11, 29, 3, 0)),
        ("0 3 * * 7", (2026, 11, 29, 3, 0)),
        ("30 4 1 * mon", (2026, 11, 30, 4, 30)),
        ("0 0 29 feb *", (2028, 2, 29, 0, 0)),
        ("5,1 7 * * *", (2026, 11, 28, 7, 1)),
        ("@daily", (2026, 11, 29, 0, 0)),
    ],
)
def test_when_cron_comes_to_a_line_next(utc, line, expected):
    now = time.mktime((2026, 11, 28, 7, 0, 0, 0, 0, -1))
    assert time.gmtime(status.next_time(line, now))[:5] == expected


@pytest.mark.parametrize("line", ["", "@reboot", "0 0 30 2 *", "x * * * *"])
def test_a_line_that_never_comes(line):
    assert status.next_time(line, 1e9) is None


def test_jobs_of_cron(tmp_path):
    (tmp_path / "etc/cron.d").mkdir(parents=True)
    (tmp_path / "etc/cron.d/mlops-fleet").write_text(
        "SHELL=/bin/sh\n# Back up\n0 2 * * * root /usr/local/sbin/mlops-fleet-cron backup\n"
    )
    (tmp_path / "var/log").mkdir(parents=True)
    (tmp_path / "var/log/ml-backup.log").write_text(
        "2026-11-28 02:00:00 [INFO] backup started\n2026-11-28 02:01:00 [ERROR] The disk is full.\n"
    )
    world = World(run=lambda argv, **_: CommandResult(1, "", ""), root=str(tmp_path))
    backend, jobs = status.jobs(world)
    (job,) = [job for job in jobs if job.scheduled]
    assert (backend, job.name, job.verdict) == ("cron", "backup", "critical")
    assert job.result == "The disk is full." and job.last_run and job.next_run
    # The drill writes the same log: the line says nothing about it.
    assert [job.result for job in jobs if job.name == "restore_drill"] == ["never"]


@pytest.mark.parametrize(
    ("end", "verdict", "result"),
    [
        ({"exit_code": 0, "message": ""}, "pass", "OK"),
        ({"exit_code": 1, "message": "No space."}, "critical", "No space."),
        ({"exit_code": 75, "message": "Another job."}, "warning", "gave way to another job"),
        ({"exit_code": 137, "message": ""}, "critical", "failed (status 137)"),
        ({"exit_code": "x"}, "critical", "By hand."),
    ],
)
def test_what_cron_started_is_shown_not_calls_by_hand(tmp_path, end, verdict, result):
    (tmp_path / "etc/cron.d").mkdir(parents=True)
    (tmp_path / "etc/cron.d/mlops-fleet").write_text(
        "0 2 * * * root /usr/local/sbin/mlops-fleet-cron backup\n"
    )
    (tmp_path / "var/log").mkdir(parents=True)
    (tmp_path / "var/log/ml-backup.log").write_text("2026-11-28 02:00:00 [ERROR] By hand.\n")
    world = World(run=lambda argv, **_: CommandResult(1, "", ""), root=str(tmp_path))
    os.makedirs(os.path.dirname(world.state("last")))
    assert not last.keep_all({last.job_phase("backup"): end}, 1e9, world.state("last"))
    (job,) = [job for job in status.jobs(world)[1] if job.scheduled]
    assert (job.verdict, job.result) == (verdict, result)
    assert (job.last_run == 1e9) == (result != "By hand.")


class Clock:
    def now(self):
        return 1000.0


def test_open_problems_are_muted_until_their_cooldown_has_passed(tmp_path):
    world = World(run=None, root=str(tmp_path), clock=Clock())
    state = store.Store(str(tmp_path / "alert"), world)
    (tmp_path / "alert").mkdir(mode=0o700)

    def entry(check, sent, at, **fields):
        return memory.Entry("h", check, "", 10.0, 990.0, "i", at, sent, **fields)

    entries = {
        "a": entry("temperature", "warning", 100.0, open=True, bad=True),
        "b": entry("disk_space", "critical", 900.0, open=True, bad=True),
        "c": entry("load", "critical", 900.0, open=True, bad=False),
    }
    state.save(memory.Memory(salt="s", entries=entries))
    known = status.alerts(str(tmp_path / "alert"), 500.0, world)
    assert [(p.check, p.severity, p.muted_until) for p in known.problems] == [
        ("disk_space", "critical", 1400.0),
        ("temperature", "warning", 0.0),
    ]
    assert status.alerts(str(tmp_path / "none"), 500.0, world) == status.Alerts()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become other users")
def test_alerts_that_another_user_keeps_are_unknown_and_not_none(tmp_path):
    world = World(run=None, root=str(tmp_path), environ={"HOME": "/nowhere"})
    (tmp_path / "var/lib/mlops-fleet/alert").mkdir(parents=True)
    assert status.alerts(None, 1.0, world) == status.Alerts()

    def as_nobody():
        os.setuid(65534)
        return status.alerts(None, 1.0, world).unknown

    assert "can't be read by this user" in isolate.call(as_nobody, 30).value


@pytest.mark.parametrize(
    ("verdict", "backup", "expected"),
    [
        ("pass", {}, "pass"),
        ("pass", None, "warning"),
        ("critical", {}, "critical"),
        ("skipped", {}, "pass"),
    ],
)
def test_the_worst_of_a_node(verdict, backup, expected):
    job = status.JobStatus("backup", True, False, 1.0, verdict, "", 2.0)
    assert status.overall([job], status.Alerts(), True, backup) == expected
    assert status.overall([], status.Alerts(), False, None) == "warning"
