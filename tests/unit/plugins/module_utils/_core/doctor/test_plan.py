# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The doctor's checks and which jobs it starts, as tables."""

from __future__ import annotations

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core import trial
from ansible_collections.mlops.fleet.plugins.module_utils._core.doctor import facts, plan
from ansible_collections.mlops.fleet.plugins.module_utils._core.doctor.options import Request
from ansible_collections.mlops.fleet.plugins.module_utils._core.environment import (
    Assignment,
    Environment,
    Problem,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import LockBusy
from ansible_collections.mlops.fleet.plugins.module_utils._core.outcome import Outcome

ALL = trial.Schedule("systemd", ("maintenance", "health", "gpu", "backup", "cleanup"))
MIB = 1 << 20


def known(schedule=ALL, phases=facts.REHEARSED, errors=(), space=(100 * MIB, MIB)):
    """Facts of a node; ``errors`` are the jobs that can't run, ``space`` is free and needed."""
    rehearsals = [facts.Rehearsal(name, "x" * (name in errors)) for name in facts.REHEARSED]
    return facts.Facts(
        schedule,
        facts.Configuration("/etc/c", (), 0o640),
        Environment(),
        "",
        tuple(phases),
        tuple(rehearsals),
        facts.Space("/b", *space),
    )


def request(start=None):
    return Request("/etc/c", start, True, False, "/usr/local/bin/mlfleet")


@pytest.mark.parametrize(
    ("start", "schedule", "names"),
    [
        (None, ALL, []),
        ((), ALL, ["health", "gpu", "backup", "cleanup", "maintenance"]),
        (("cleanup", "health", "cleanup"), ALL, ["health", "cleanup"]),
        ((), trial.Schedule("none", ()), []),
        ((), trial.Schedule("cron", ("backup",)), ["backup"]),
    ],
)
def test_jobs_to_start(start, schedule, names):
    planned = plan.decide(request(start), known(schedule))
    assert [job.name for job in planned.starts] == names
    assert all(job.scheduled and not job.obstacle for job in planned.starts)


def test_a_job_that_is_not_scheduled_is_not_started():
    (start,) = plan.decide(request(("gpu",)), known(trial.Schedule("cron", ("backup",)))).starts
    assert not start.scheduled


@pytest.mark.parametrize(
    ("job", "given", "obstacle"),
    [
        ("gpu", {"errors": ["backup"]}, ""),
        ("backup", {"errors": ["backup"]}, "backup can't run"),
        ("backup", {"space": (MIB, MIB)}, "there is not enough space for a backup"),
        ("backup", {"space": (MIB + 1, MIB)}, ""),
        ("maintenance", {"errors": ["gpu", "backup"]}, "gpu can't run; backup can't run"),
        (
            "maintenance",
            {
                "errors": ["gpu", "backup"],
                "phases": ["backup"],
                "schedule": trial.Schedule("systemd", ("maintenance",)),
            },
            "backup can't run",
        ),
    ],
)
def test_what_keeps_a_job_from_being_started(job, given, obstacle):
    (start,) = plan.decide(request((job,)), known(**given)).starts
    assert start.obstacle == obstacle


@pytest.mark.parametrize(
    ("jobs", "phases", "status"),
    [
        (("backup",), (), "critical"),
        (("gpu",), ("backup",), "warning"),
        (("maintenance",), ("backup",), "critical"),
        (("maintenance",), ("gpu",), "warning"),
        ((), (), "critical"),
    ],
)
def test_a_job_that_nothing_starts_may_be_unable(jobs, phases, status):
    planned = plan.decide(
        request(), known(trial.Schedule("cron", jobs), phases=phases, errors=["backup"])
    )
    (check,) = [check for check in planned.checks if check.check == "job backup"]
    assert check.status == status
    assert ("nothing on this node starts it" in check.message) == (status == "warning")


@pytest.mark.parametrize(
    ("free", "status"), [(200, "warning"), (201, "pass"), (101, "warning"), (100, "critical")]
)
def test_space_for_a_backup(free, status):
    check = plan.space(facts.Space("/b", free, 100))
    assert (check.status, check.value, check.warn, check.crit) == (status, free, 200, 100)


@pytest.mark.parametrize(
    ("mode", "status"),
    [
        (None, "skipped"),
        (0o600, "pass"),
        (0o640, "pass"),
        (0o644, "critical"),
        (0o660, "critical"),
        (0o641, "critical"),
    ],
)
def test_permissions_of_the_configuration(mode, status):
    usable, permissions = plan.configuration(facts.Configuration("/etc/c", (), mode))
    assert (usable.status, permissions.status) == ("pass", status)


def test_each_problem_of_the_configuration_is_critical():
    checks = plan.configuration(facts.Configuration("/etc/c", ("a", "b"), None))
    assert [check.status for check in checks] == ["critical", "critical", "skipped"]


@pytest.mark.parametrize(
    ("environment", "unreadable", "status"),
    [
        (Environment(), "", "skipped"),
        (Environment("/etc/v", exists=False), "", "skipped"),
        (Environment("/etc/v", exists=False), "can't be read", "warning"),
        (Environment("/etc/v", True, variables={"A": Assignment("1", 1, False)}), "", "pass"),
        (Environment("/etc/v", True, problems=(Problem(2, "odd", True),)), "", "warning"),
    ],
)
def test_the_file_of_variables(environment, unreadable, status):
    assert plan.environment_file(environment, unreadable).status == status


@pytest.mark.parametrize(
    ("log", "status"),
    [
        (facts.LogFile("/l", None, True), "pass"),
        (facts.LogFile("/l", None, False), "warning"),
        (facts.LogFile("/l", 0o644), "pass"),
        (facts.LogFile("/l", 0o646), "warning"),
    ],
)
def test_logs(log, status):
    assert plan.log_file(log).status == status


def test_rotation():
    assert plan.rotation("/etc/logrotate.d/x").status == "pass"
    assert plan.rotation("").status == "warning"


@pytest.mark.parametrize(
    ("schedule", "cron", "status", "text"),
    [
        (ALL, (False, True), "pass", "gpu-monitor.timer"),
        (trial.Schedule("none", ()), (True, True), "warning", "Nothing runs the jobs"),
        (trial.Schedule("cron", ("gpu",)), (True, False), "pass", "by cron: gpu"),
        (trial.Schedule("cron", ("gpu",)), (False, True), "critical", "systemctl enable --now"),
        (trial.Schedule("cron", ("gpu",)), (False, False), "critical", "service cron start"),
    ],
)
def test_the_schedule(schedule, cron, status, text):
    check = plan.schedule(schedule, facts.Cron(*cron))
    assert check.status == status and text in check.message


DONE = trial.Ended("pass", "did its work", said="fine\n")
FAILED = trial.Ended("warning", "failed (exit-code, status 1)", 1)
BUSY = FAILED._replace(outcome=Outcome(error=LockBusy.code))


@pytest.mark.parametrize(
    ("backend", "start", "ended", "status", "text"),
    [
        (
            "systemd",
            plan.Start("gpu"),
            DONE,
            "pass",
            "gpu-monitor.service, started, did its work: fine",
        ),
        ("cron", plan.Start("gpu"), DONE, "pass", "mlops-fleet-cron gpu, started, did its work"),
        (
            "systemd",
            plan.Start("cleanup"),
            DONE,
            "pass",
            "started (the cleanup only as a rehearsal)",
        ),
        ("systemd", plan.Start("gpu"), FAILED, "critical", "(journalctl -u gpu-monitor.service)"),
        ("cron", plan.Start("gpu"), FAILED, "critical", "failed (exit-code, status 1)"),
        ("systemd", plan.Start("gpu"), BUSY, "warning", "failed"),
        ("systemd", plan.Start("gpu"), None, "critical", "can't be started: no systemctl"),
        ("systemd", plan.Start("gpu", obstacle="gpu can't run"), None, "skipped", "gpu can't run"),
        (
            "systemd",
            plan.Start("gpu", False, "x"),
            None,
            "skipped",
            "gpu was not started: it is not",
        ),
    ],
)
def test_trial_runs(backend, start, ended, status, text):
    error = "" if ended else "no systemctl"
    check = plan.trial_run(backend, plan.Started(start, ended, error), True)
    assert check.status == status and text in check.message
    assert ("journalctl" in check.message) == (
        backend == "systemd" and status in ("warning", "critical") and ended is not None
    )


def test_a_job_that_printed_nothing_has_no_last_line():
    ended = trial.Ended("pass", "did its work")
    check = plan.trial_run("systemd", plan.Started(plan.Start("gpu"), ended), True)
    assert check.message == "gpu-monitor.service, started, did its work"


def test_a_cleanup_for_real_is_not_called_a_rehearsal():
    check = plan.trial_run("systemd", plan.Started(plan.Start("cleanup"), DONE), False)
    assert "rehearsal" not in check.message


MAIL = {"name": "mail", "status": "failed", "detail": "refused"}
CHAT = {"name": "chat", "status": "sent", "detail": ""}
READY = {"name": "pager", "status": "would_send", "detail": ""}


@pytest.mark.parametrize(
    ("alerts", "status", "text", "value"),
    [
        (plan.Alerts(error="no such file"), "critical", "no such file", None),
        (plan.Alerts(), "warning", "no alert channel is configured", None),
        (plan.Alerts((READY,)), "pass", "Alerts go to: pager", 1),
        (plan.Alerts((MAIL, READY)), "warning", "mail: refused", 1),
        (plan.Alerts((MAIL,)), "critical", "mail: refused", 0),
        (plan.Alerts((MAIL, CHAT), tested=True), "warning", "mail: refused", 1),
        (plan.Alerts((MAIL,), tested=True), "critical", "mail: refused", 0),
        (plan.Alerts((CHAT,), tested=True), "pass", "went to: chat", 1),
    ],
)
def test_alerts(alerts, status, text, value):
    check = plan.alerts(alerts)
    assert (check.status, check.value) == (status, value) and text in check.message


GOOD, DAMAGED = {"verified": True}, {"verified": False, "problems": ["cut off"]}
DENIED = {"verified": False, "unreadable": "Can't read x: Permission denied."}


@pytest.mark.parametrize(
    ("backups", "status", "text"),
    [
        ([], "warning", "There is no verified backup"),
        ([DAMAGED], "warning", "There is no verified backup"),
        ([DENIED], "unknown", "can't be checked: Can't read x: Permission denied"),
        ([DAMAGED, DENIED], "unknown", "can't be checked"),
        ([DENIED, GOOD, GOOD], "pass", "2 verified backups in /b"),
    ],
)
def test_backups_that_can_not_be_read_are_not_absent(backups, status, text):
    check = plan.proven(backups, "/b")
    assert check.status == status and text in check.message
