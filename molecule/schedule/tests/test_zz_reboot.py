# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real reboot: what a node missed while it was off is caught up.

The last file, because a node comes back under another address.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from test_switching import NODES

sys.path.insert(0, os.path.join(os.environ["MOLECULE_PROJECT_DIRECTORY"], "scripts"))
import nodes

testinfra_hosts = ["local://"]


def podman(*argv, check=True):
    done = subprocess.run(
        ["podman", *argv],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=nodes.environment(),
    )
    assert done.returncode == 0 or not check, done.stderr
    return done.stdout


def container(name):
    return f"mlops-{os.environ.get('MLOPS_NODES_GROUP', 'molecule-schedule')}-{name}"


def test_a_missed_backup_is_caught_up_after_a_reboot_and_nothing_else():
    with ThreadPoolExecutor(len(NODES)) as pool:
        list(pool.map(reboot, NODES))


def reboot(name):
    def inside(command, **options):
        return podman("exec", container(name), "sh", "-c", command, **options)

    directory = "/etc/systemd/system/ml-backup.timer.d"
    inside(
        f"mkdir -p {directory}; printf '[Timer]\\nRandomizedDelaySec=0\\n' > {directory}/now.conf"
    )
    # As if the node had been off for two days; the cleanup's last run is not that long ago.
    stamp = "/var/lib/systemd/timers/stamp-ml-backup.timer"
    inside(f"systemctl stop ml-backup.timer && touch -d '2 days ago' {stamp}")
    lines = int(inside("wc -l < /var/log/ml-backup.log"))
    podman("restart", "--time", "30", container(name))
    end = time.monotonic() + 90
    while True:
        properties = inside(
            "systemctl show ml-backup.service -p ExecMainStartTimestamp,ActiveState,Result",
            check=False,
        )
        backup = dict(line.split("=", 1) for line in properties.splitlines())
        if backup.get("ExecMainStartTimestamp") and backup["ActiveState"] == "inactive":
            break
        assert time.monotonic() < end, f"the job was not started: {properties}"
        time.sleep(1)
    assert backup["Result"] == "success"
    assert int(inside("wc -l < /var/log/ml-backup.log")) > lines
    assert "ml-backup.timer" in inside("systemctl list-timers --no-pager")
    assert not inside("systemctl show -P ExecMainStartTimestamp ml-cleanup.service").strip()
