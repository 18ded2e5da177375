# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starting jobs, with a systemctl that is told what to say; that the real one says so is tested on
booted nodes (molecule).
"""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core import outcome, trial
from ansible_collections.mlops.fleet.plugins.module_utils._core.doctor import execute, facts, plan
from ansible_collections.mlops.fleet.plugins.module_utils._core.doctor.options import Request
from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import (
    CommandFailed,
    LockBusy,
    NotUsable,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.outcome import Outcome
from ansible_collections.mlops.fleet.plugins.module_utils._core.ports import CommandResult

CRON = """# Written by mlops.fleet.schedule: changes are lost.
MAILTO=""
0 2 * * * root /usr/local/sbin/mlops-fleet-cron backup
#0 3 * * 0 root /usr/local/sbin/mlops-fleet-cron cleanup
@hourly root /usr/local/sbin/mlops-fleet-cron health
"""


class Systemd:
    """Answers as systemctl and journalctl do; C(units) has what C(show) says after a start."""

    def __init__(self, directory):
        self.directory, self.active, self.after, self.said = directory, (), {}, ""
        self.calls, self.drop_ins = [], []
        self.started = False

    def __call__(self, argv, timeout=30.0, env=None, stdin=None):
        self.calls.append((tuple(argv), dict(env or {})))
        answer = {"is-active": self.is_active, "show": self.show, "start": self.start}.get(argv[1])
        if argv[0] == "journalctl":
            return CommandResult(0, "" if "--sync" in argv else self.said, "")
        return answer(argv) if answer else CommandResult(0, self.said, "")

    def is_active(self, argv):
        return CommandResult(
            3,
            "".join(f"{'active' if unit in self.active else 'inactive'}\n" for unit in argv[2:]),
            "",
        )

    def show(self, argv):
        found = {
            "LoadState": "loaded",
            "Result": "success",
            "ExecMainStatus": "0",
            "InvocationID": "1",
            "ExecMainStartTimestamp": "",
        }
        found["Environment"] = " ".join(
            line[12:]
            for path in self.directory.rglob("*.conf")
            for line in path.read_text().split()
            if line[:12] == "Environment="
        )
        if self.started:
            found.update({"ExecMainStartTimestamp": "now", "InvocationID": "2"}, **self.after)
        return CommandResult(0, "".join(f"{name}={value}\n" for name, value in found.items()), "")

    def start(self, argv):
        self.drop_ins += [path.read_text() for path in self.directory.rglob("*.conf")]
        self.started = True
        return CommandResult(
            1 if self.after.get("Result", "success") != "success" else 0, "", "Job failed."
        )


@pytest.fixture
def systemd(tmp_path):
    return Systemd(tmp_path)


@pytest.fixture
def world(world, systemd, tmp_path):
    return replace(world, run=systemd, root=str(tmp_path))


ON = trial.Schedule("systemd", tuple(trial.UNITS))


class Shell:
    """Notes which jobs are started."""

    def __init__(self):
        self.jobs = []

    def starting(self, job):
        self.jobs.append(job)


def trial_run(world, schedule, name, obstacle=""):
    """Start a job as ``doctor --run`` does; return its check and how it ended."""
    request = Request("/etc/config.json", (name,), True, False, "/usr/local/bin/mlfleet")
    start = plan.Start(name, name in schedule.jobs, obstacle)
    shell = Shell()
    (started,) = execute.carry_out(request, plan.Plan((), (start,)), schedule, world, shell)
    assert shell.jobs == [name]
    return plan.trial_run(schedule.backend, started, True), started.ended


def test_what_is_scheduled(world, systemd, tmp_path):
    assert trial.scheduled(world) == trial.Schedule("none", ())
    (tmp_path / "etc/cron.d").mkdir(parents=True)
    (tmp_path / "etc/cron.d/mlops-fleet").write_text(CRON)
    assert trial.scheduled(world) == trial.Schedule("cron", ("health", "backup"))
    systemd.active = ("gpu-monitor.timer", "ml-backup.timer")
    assert trial.scheduled(world) == trial.Schedule("systemd", ("gpu", "backup"))


def test_the_environment_file_of_the_jobs_is_known(world, systemd, tmp_path):
    systemd.after, systemd.started = {"EnvironmentFiles": "/etc/ml.conf (ignore_errors=yes)"}, True
    assert trial.environment_file(world, ON) == "/etc/ml.conf"
    (tmp_path / "usr/local/sbin").mkdir(parents=True)
    (tmp_path / "usr/local/sbin/mlops-fleet-cron").write_text("#!/bin/sh\nvariables=/etc/ml.conf\n")
    assert trial.environment_file(world, trial.Schedule("cron", ("gpu",))) == "/etc/ml.conf"
    assert trial.environment_file(world, trial.Schedule("none", ())) == ""


@pytest.mark.parametrize("job", trial.UNITS)
def test_a_cleanup_is_only_rehearsed_and_nothing_of_that_stays(
    world, systemd, clock, tmp_path, job
):
    assert trial.start(world, ON, job).status == "pass"
    until = int(clock.now()) + 86400
    (drop_in,) = systemd.drop_ins
    lines = drop_in.splitlines()
    assert lines[:2] == ["[Service]", "Environment=MLFLEET_REPORT_OUTCOME=1"]
    rehearsed = [f"Environment=MLFLEET_REHEARSE_CLEANUP_UNTIL={until}"]
    assert lines[2:] == (rehearsed if job in ("cleanup", "maintenance") else [])
    assert not list(tmp_path.rglob("*.d"))
    reloads = [argv for argv, dummy in systemd.calls if argv[1] == "daemon-reload"]
    assert len(reloads) == 2


def test_a_cleanup_that_can_not_be_made_a_rehearsal_is_not_started(world, systemd):
    answer = systemd.show
    systemd.show = lambda argv: CommandResult(
        0, answer(argv).stdout.replace("MLFLEET", "OTHER"), ""
    )
    check, how = trial_run(world, ON, "cleanup")
    assert (check.status, how) == (
        "critical",
        None,
    ) and "systemctl cat ml-cleanup.service" in check.message
    assert not systemd.started and systemd.calls[-1][0] == ("systemctl", "daemon-reload")


def test_a_cleanup_for_real(world, systemd):
    trial.start(world, ON, "cleanup", rehearse_cleanup=False)
    assert not any("REHEARSE" in drop_in for drop_in in systemd.drop_ins)


def test_the_drop_in_goes_when_systemctl_does_not_answer(world, systemd, tmp_path):
    def start(argv):
        raise CommandFailed("systemctl did not answer")

    systemd.start = start
    with pytest.raises(CommandFailed):
        trial.start(world, ON, "cleanup")
    assert not list(tmp_path.rglob("*.conf")) and systemd.calls[-1][0] == (
        "systemctl",
        "daemon-reload",
    )


def test_a_result_is_told_before_the_notes(world, systemd):
    systemd.said = "node1: PASS, score 100\nmlfleet: alert by chat queued: refused\n"
    assert trial.start(world, ON, "health").last_line == "node1: PASS, score 100"


def test_a_failed_job_says_why(world, systemd):
    systemd.after = {"Result": "exit-code", "ExecMainStatus": "1"}
    systemd.said = "mlfleet: The source /srv/models does not exist.\n\n"
    check, how = trial_run(world, ON, "backup")
    assert (check.status, check.value, how.last_line) == (
        "critical",
        1,
        "mlfleet: The source /srv/models does not exist.",
    )
    assert (
        "ml-backup.service, started, failed (exit-code, status 1): mlfleet: The source"
        in check.message
        and "journalctl -u" in check.message
    )


@pytest.mark.parametrize(
    ("reported", "status"),
    [
        (Outcome(status="critical"), "pass"),
        (Outcome(status="critical", failed_phases=("health",)), "critical"),
        (Outcome(status="warning"), "critical"),
        (Outcome(error="OptionError"), "critical"),
        (None, "critical"),
    ],
)
def test_a_maintenance_of_an_unhealthy_node_did_its_work(world, systemd, reported, status):
    systemd.after = {"Result": "exit-code", "ExecMainStatus": "1"}
    systemd.said = "Maintenance: CRITICAL\n" + (f"{reported.line()}\n" if reported else "")
    check, how = trial_run(world, ON, "maintenance")
    assert check.status == status and how.said == "Maintenance: CRITICAL\n"


def test_another_run_in_the_way_says_nothing_of_the_node(world, systemd):
    systemd.after = {"Result": "exit-code", "ExecMainStatus": "3"}
    busy = outcome.of_error(LockBusy("job of mlfleet", "/run/lock/jobs.lock", 4711))
    systemd.said = f"mlfleet: it is busy\n{busy.line()}\n"
    assert trial_run(world, ON, "backup")[0].status == "warning"
    systemd.said, systemd.started = (
        "mlfleet: /etc/mlops-fleet/config.json can't be read by mluser.\n",
        False,
    )
    assert trial_run(world, ON, "gpu")[0].status == "critical"


def test_a_unit_that_a_condition_holds_back_is_no_success(world, systemd):
    systemd.after = {"InvocationID": "1", "ExecMainStartTimestamp": ""}
    check, dummy = trial_run(world, ON, "gpu")
    assert check.status == "critical" and "condition" in check.message


def test_what_is_not_started_says_why(world, systemd):
    assert (
        "not scheduled"
        in trial_run(world, trial.Schedule("systemd", ("gpu",)), "backup")[0].message
    )
    check, how = trial_run(world, ON, "backup", "backup can't run")
    assert (check.status, how) == ("skipped", None) and "backup can't run" in check.message
    assert not systemd.started


def test_cron_jobs_are_started_by_their_runner(world, systemd):
    systemd.said = "Would free 1.0 KiB\n"
    how = trial.start(world, trial.Schedule("cron", ("cleanup",)), "cleanup")
    assert how.status == "pass" and how.last_line == "Would free 1.0 KiB"
    ((argv, env),) = systemd.calls
    assert env[outcome.REPORT_OUTCOME] == "1"
    assert argv == ("/usr/local/sbin/mlops-fleet-cron", "cleanup") and int(env[trial.REHEARSE]) > 0


def test_the_test_message_comes_from_the_alert_unit(world, systemd, tmp_path):
    channels = [
        {"name": "mail", "status": "failed", "detail": "refused"},
        {"name": "chat", "status": "sent", "detail": ""},
    ]
    systemd.said = (
        "mlfleet: Alert not delivered by mail\n"
        + json.dumps({"changed": True, "channels": channels}, indent=1)
        + "\n"
    )
    found = trial.alert_test(world, ON, "/usr/local/bin/mlfleet")
    assert found == channels
    assert systemd.drop_ins == [
        "[Service]\nExecStart=\nExecStart=/usr/local/bin/mlfleet alert --test --json\n"
    ] and not list(tmp_path.rglob("*.d"))


def test_an_alert_unit_that_can_not_start_is_named(world, systemd):
    systemd.after = {"Result": "exit-code", "ExecMainStatus": "243"}
    with pytest.raises(NotUsable, match=r"Job failed\."):
        trial.alert_test(world, ON, "/usr/local/bin/mlfleet")


def test_cron_lines_without_a_cron_are_found(world, tmp_path):
    schedule = trial.Schedule("cron", ("backup",))
    for name, status in (("bash", "critical"), ("cron", "pass"), ("crond", "pass")):
        (tmp_path / "proc/1").mkdir(parents=True, exist_ok=True)
        (tmp_path / "proc/1/comm").write_text(name + "\n")
        assert plan.schedule(schedule, facts.cron(world)).status == status


def test_logs_that_nothing_rotates_are_found(world, tmp_path):
    directory = tmp_path / "etc/logrotate.d"
    assert facts.rotation(world) == ""
    directory.mkdir(parents=True)
    (directory / "old").write_text("# /var/log/ml-backup.log\n/var/log/other.log {\n}\n")
    assert facts.rotation(world) == ""
    (directory / "ml-infrastructure").write_text("/var/log/ml-*.log {\n}\n")
    assert facts.rotation(world) == "/etc/logrotate.d/ml-infrastructure"
