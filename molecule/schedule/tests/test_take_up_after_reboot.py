# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real reboot: what a node missed while it was off is caught up. The last file, because a node comes back under another address."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
from test_switching import NODES, play

sys.path.insert(0, os.path.join(os.environ["MOLECULE_PROJECT_DIRECTORY"], "scripts"))
import nodes

testinfra_hosts = ["local://"]


def podman(*argv):
    done = subprocess.run(
        ["podman", *argv],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=nodes.environment(),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def container(name):
    return f"mlops-{os.environ.get('MLOPS_NODES_GROUP', 'molecule-schedule')}-{name}"


@pytest.fixture(scope="module")
def installed():
    done = play("mlops.fleet.install", {})
    assert done.returncode == 0, done.said


@pytest.mark.parametrize("name", NODES)
def test_a_missed_backup_is_caught_up_after_a_reboot(installed, name):
    def inside(command):
        return podman("exec", container(name), "sh", "-c", command)

    inside("mkdir -p /etc/systemd/system/ml-backup.timer.d")
    inside(
        "printf '[Timer]\\nRandomizedDelaySec=0\\n' > /etc/systemd/system/ml-backup.timer.d/now.conf"
    )
    # As if the node had been off for two days.
    inside(
        "systemctl stop ml-backup.timer && touch -d '2 days ago' /var/lib/systemd/timers/stamp-ml-backup.timer"
    )
    lines = int(inside("wc -l < /var/log/ml-backup.log"))
    podman("restart", "--time", "30", container(name))
    end = time.monotonic() + 90
    while True:
        shown = subprocess.run(
            [
                "podman",
                "exec",
                container(name),
                "systemctl",
                "show",
                "ml-backup.service",
                "-p",
                "ExecMainStartTimestamp,ActiveState,Result",
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=nodes.environment(),
        ).stdout
        found = dict(line.split("=", 1) for line in shown.splitlines())
        if found.get("ExecMainStartTimestamp") and found["ActiveState"] == "inactive":
            break
        assert time.monotonic() < end, f"the job was not started: {shown}"
        time.sleep(1)
    assert found["Result"] == "success"
    assert int(inside("wc -l < /var/log/ml-backup.log")) > lines
    assert "ml-backup.timer" in inside("systemctl list-timers --no-pager")
