# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole examination, with the shell's part played by a class."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core import trial
from ansible_collections.mlops.fleet.plugins.module_utils._core.doctor import run
from ansible_collections.mlops.fleet.plugins.module_utils._core.doctor.options import Request
from ansible_collections.mlops.fleet.plugins.module_utils._core.environment import Environment
from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import NotUsable
from ansible_collections.mlops.fleet.plugins.module_utils._core.maintenance.options import (
    MaintenanceOptions,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.outcome import Outcome
from ansible_collections.mlops.fleet.plugins.module_utils._core.ports import CommandResult


class Shell:
    """The shell of a node whose GPUs can't be checked."""

    def __init__(self, directory):
        self.directory = directory
        self.started, self.sent = [], 0

    def problems(self):
        return []

    def environment(self):
        return Environment(), ""

    def maintenance_options(self):
        return MaintenanceOptions.from_mapping({})

    def rehearse(self, job):
        if job == "gpu":
            raise NotUsable("There is no driver.")
        return {"plan": {"bytes": 1}}

    def starting(self, job):
        self.started.append(job)

    def backup_directory(self):
        return str(self.directory)

    def backups(self, directory):
        return [
            {"path": str(path), "verified": True} for path in sorted(self.directory.glob("*.gz"))
        ]

    def channels(self, send):
        self.sent += send
        return [{"name": "chat", "status": "sent"}]


@pytest.fixture
def shell(tmp_path):
    (tmp_path / "backups").mkdir()
    return Shell(tmp_path / "backups")


@pytest.fixture
def examine(world, tmp_path, shell):
    """Return a function that examines a node with cron; ``runner`` is called for a job."""
    (tmp_path / "proc/1").mkdir(parents=True)
    (tmp_path / "proc/1/comm").write_text("cron\n")

    def call(runner=None, start=None, rehearse=True):
        def command(argv, timeout=30.0, env=None, stdin=None):
            if argv[0] != trial.RUNNER or argv[1] == "alert":
                return CommandResult(64, "", "")
            return runner(argv[1])

        schedule = trial.Schedule("cron", ("backup", "cleanup"))
        request = Request(str(tmp_path / "none.json"), start, rehearse, False, "/bin/mlfleet")
        on_node = replace(world, run=command, root=str(tmp_path))
        return run.run(request, schedule, on_node, shell, [str(tmp_path / "ml.log")])

    return call


def names(result):
    return [check.check for check in result.checks]


def test_checks_come_in_their_order_and_nothing_is_started(examine, shell):
    result = examine()
    assert names(result) == [
        "configuration",
        "configuration permissions",
        "environment file",
        "job health",
        "job gpu",
        "job backup",
        "backup space",
        "job cleanup",
        "verified backup",
        "log file",
        "log rotation",
        "schedule",
        "alerts",
    ]
    assert (result.changed, shell.started, shell.sent) == (False, [], 0)


def test_a_new_backup_is_a_change(examine, shell):
    def runner(job):
        (shell.directory / "new.tar.gz").touch()
        return CommandResult(0, "done\n", "")

    result = examine(runner, ("backup",))
    assert result.changed and shell.started == ["backup"]
    assert names(result).count("trial run") == 1


@pytest.mark.parametrize(
    ("freed", "rehearse", "changed"), [(0, False, False), (1, False, True), (1, True, False)]
)
def test_a_cleanup_that_removed_something_is_a_change(examine, freed, rehearse, changed):
    def runner(job):
        return CommandResult(0, "", Outcome(freed_bytes=freed).line() + "\n")

    assert examine(runner, ("cleanup",), rehearse).changed is changed


def test_a_cleanup_without_a_report_may_have_removed_something(examine):
    assert examine(lambda job: CommandResult(0, "", ""), ("cleanup",), rehearse=False).changed
