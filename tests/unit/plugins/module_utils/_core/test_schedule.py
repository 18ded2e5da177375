# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a schedule can work.

That systemd says what is assumed here is tested on booted nodes (molecule).
"""

from __future__ import annotations

import os
import pathlib
from dataclasses import replace

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core import schedule
from ansible_collections.mlops.fleet.plugins.module_utils._core.jobs import JOBS
from ansible_collections.mlops.fleet.plugins.module_utils._core.ports import CommandResult, World

ROOT = pathlib.Path(__file__).resolve().parents[5]
JOB = {"name": "backup", "calendar": "daily", "cron": "0 2 * * *", "user": "root", "timeout": "6h"}


def options(job=None, **given):
    jobs = [{**JOB, **(job or {})}]
    return schedule.ScheduleOptions.from_mapping({"jobs": jobs, "alert_user": "root", **given})


@pytest.mark.parametrize("backend", ["systemd", "cron"])
def test_the_defaults_have_no_problem(backend):
    assert schedule.problems_of_variables(options(backend=backend)) == []


@pytest.mark.parametrize(
    ("job", "given", "words"),
    [
        ({"user": "no body"}, {}, "schedule_backup_user 'no body'"),
        ({"user": "1st"}, {}, "schedule_backup_user '1st'"),
        ({"timeout": "0h"}, {}, "schedule_backup_timeout '0h'"),
        ({"timeout": "6"}, {}, "schedule_backup_timeout '6'"),
        ({"arguments": ['a"b']}, {}, "schedule_backup_arguments"),
        ({"arguments": ["a\\b"]}, {}, "schedule_backup_arguments"),
        ({"arguments": ["a\nb"]}, {}, "schedule_backup_arguments"),
        ({"write_paths": ["models"]}, {}, "schedule_backup_write_paths: 'models'"),
        ({"write_paths": ["/a:b"]}, {}, "schedule_backup_write_paths: '/a:b'"),
        ({"directives": {"Memory Max": "1"}}, {}, "schedule_backup_directives: 'Memory Max'"),
        ({"directives": {"MemoryMax": "1\n2"}}, {}, "schedule_backup_directives: 'MemoryMax'"),
        ({"directives": {"MemoryMax": ["1", "2\n"]}}, {}, "schedule_backup_directives"),
        ({}, {"alert_user": "a b"}, "schedule_alert_user 'a b'"),
        ({}, {"command": "mlfleet"}, "schedule_command 'mlfleet'"),
        ({}, {"command": "/opt/a b"}, "schedule_command '/opt/a b'"),
        ({}, {"environment_file": "x"}, "schedule_environment_file 'x'"),
        ({}, {"memory_max": "lots"}, "schedule_memory_max 'lots'"),
        ({}, {"memory_max": "0"}, "schedule_memory_max '0'"),
        ({}, {"memory_max": "0.0G"}, "schedule_memory_max '0.0G'"),
        ({}, {"cpu_quota": "0%"}, "schedule_cpu_quota '0%'"),
        ({}, {"cpu_quota": "50"}, "schedule_cpu_quota '50'"),
        ({}, {"io_weight": "0"}, "schedule_io_weight '0'"),
        ({}, {"io_weight": "10001"}, "schedule_io_weight '10001'"),
        ({}, {"credentials": {"a b": "/x"}}, "schedule_credentials: 'a b'"),
        ({}, {"credentials": {"a": "x"}}, "schedule_credentials: 'a'"),
        ({}, {"occupied": ["/etc/systemd/system/ml-backup.service"]}, "Not written by this role"),
        ({"cron": "0 25 * * *"}, {"backend": "cron"}, "schedule_backup_cron '0 25 * * *'"),
        ({}, {"backend": "cron", "cron_mailto": "a b"}, "schedule_cron_mailto 'a b'"),
    ],
)
def test_a_mistake_is_named(job, given, words):
    (problem,) = schedule.problems_of_variables(options(job, **given))
    assert words in problem


@pytest.mark.parametrize(
    ("memory", "weight", "quota"),
    [("infinity", "1", "1%"), ("80%", "10000", "400%"), ("1.5G", 100, "9%")],
)
def test_limits_that_systemd_takes(memory, weight, quota):
    given = options(memory_max=memory, io_weight=weight, cpu_quota=quota)
    assert schedule.problems_of_variables(given) == []


def test_what_only_systemd_has_is_not_checked_for_cron():
    given = options({"directives": {"x y": 1}}, backend="cron", memory_max="lots")
    assert schedule.problems_of_variables(given) == []


@pytest.mark.parametrize(
    "line",
    [
        "0 2 * * *",
        "*/5 * * * *",
        "2-59/15 * * * *",
        "0 3 * * 0",
        "@daily",
        "@REBOOT",
        "0,30\t1-5 1 jan Mon-Fri",
        "59 23 31 12 7",
    ],
)
def test_times_that_cron_reads(line):
    assert schedule.cron_line_fits(line)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "* * * *",
        "* * * * * *",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * 32 * *",
        "* * * 13 *",
        "* * * * 8",
        "*/0 * * * *",
        "5-1 * * * *",
        "@often",
        "0 2 * * * root",
        "0 2 * * *\n",
        "a * * * *",
    ],
)
def test_times_that_cron_does_not_read(line):
    assert not schedule.cron_line_fits(line)


@pytest.fixture
def node(world, tmp_path):
    """A node with everything that a schedule needs; systemd accepts every time."""
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    command = tmp_path / "usr/local/bin/mlfleet"
    command.parent.mkdir(parents=True)
    command.write_text("")
    command.chmod(0o755)
    answers = {}

    def run(argv, timeout=30.0, env=None, stdin=None):
        return answers.get(argv[2], CommandResult(0, "Next elapse: tomorrow", ""))

    booted = replace(world, run=run, root=str(tmp_path))
    booted.answers = answers
    return booted


def test_a_node_that_has_everything(node):
    assert schedule.problems_of_node(options(), node, check=False) == []


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            CommandResult(1, "", "Failed to parse calendar\n"),
            "schedule_backup_calendar: Failed to parse calendar.",
        ),
        (
            CommandResult(0, "Next elapse: never", ""),
            "schedule_backup_calendar: it never comes: daily.",
        ),
    ],
)
def test_calendars_that_systemd_refuses(node, answer, words):
    node.answers["daily"] = answer
    (problem,) = schedule.problems_of_node(options(), node, check=False)
    assert problem.startswith(words) and "systemd-analyze calendar" in problem


def test_what_a_node_lacks(node, tmp_path):
    (tmp_path / "usr/local/bin/mlfleet").chmod(0o644)
    (tmp_path / "open").write_text("secret")
    (tmp_path / "open").chmod(0o644)
    (tmp_path / "closed").write_text("secret")
    (tmp_path / "closed").chmod(0o600)
    credentials = {"a": "/open", "b": "/closed", "c": "/none"}
    given = options({"user": "nobody-here"}, credentials=credentials)
    command, user, exposed = schedule.problems_of_node(given, node, check=False)
    assert "/usr/local/bin/mlfleet is not there" in command or os.geteuid() == 0
    assert "nobody-here" in user and "/open, /none must be there and closed" in exposed
    assert schedule.problems_of_node(given, node, check=True) == []


def test_a_node_without_systemd_or_cron(node, tmp_path):
    (tmp_path / "run/systemd/system").rmdir()
    (problem,) = schedule.problems_of_node(options(), node, check=False)
    assert "was not booted by systemd" in problem
    (problem,) = schedule.problems_of_node(options(backend="cron"), node, check=False)
    assert "no cron daemon" in problem
    (tmp_path / "etc/cron.d").mkdir(parents=True)
    (tmp_path / "usr/sbin").mkdir()
    (tmp_path / "usr/sbin/crond").write_text("")
    assert schedule.problems_of_node(options(backend="cron"), node, check=False) == []


def test_the_role_has_the_jobs_of_the_catalogue():
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed for this interpreter")
    role = ROOT / "roles" / "schedule"
    variables = yaml.safe_load((role / "vars" / "main.yml").read_text())
    defaults = yaml.safe_load((role / "defaults" / "main.yml").read_text())
    catalogue = {job["name"]: job for job in variables["__schedule_catalogue"]}
    assert set(catalogue) == set(JOBS.names)
    for job in JOBS:
        entry = catalogue[job.name]
        assert (entry["unit"], entry["description"], tuple(entry["fine"])) == (
            job.unit,
            job.description,
            job.fine,
        )
        assert entry["logs"][0] == job.log
        assert defaults[f"schedule_{job.name}_calendar"] == job.calendar
        assert defaults[f"schedule_{job.name}_cron"] == job.cron


def test_what_the_configuration_makes_the_jobs_write_to(tmp_path):
    etc = tmp_path / "etc"
    (etc / "mlops-fleet").mkdir(parents=True)
    (etc / "mlops-fleet/config.json").write_text(
        '{"backup": {"destination": "/from/json"}, "gpu": {"textfile": "/prom/gpu.prom"},'
        ' "cleanup": {"targets": [{"path": "/scratch/run-*/tmp"}, {"root": "/data"}]},'
        ' "alert": {"state_dir": "/state"}}'
    )
    (etc / "ml-automation.conf").write_text(
        "# BACKUP_DIR=/no\nexport"
        ' BACKUP_DIR="/from/conf"\nEXPERIMENTS_DIR=relative\nCHECKPOINTS_DIR=/ckpt\n'
    )
    assert schedule.configured_paths(options(), World(run=None, root=str(tmp_path))) == {
        "health": ["/state"],
        "gpu": ["/prom", "/state"],
        "backup": ["/from/conf"],
        "restore_drill": ["/from/conf"],
        "cleanup": ["/scratch", "/data", "/ckpt"],
    }


def test_no_configuration_names_no_directories(tmp_path):
    paths = schedule.configured_paths(options(), World(run=None, root=str(tmp_path)))
    assert set(paths) == {"health", "gpu", "backup", "cleanup", "restore_drill"} and not any(
        paths.values()
    )
