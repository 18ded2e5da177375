# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rotation forced by logrotate itself while somebody writes."""

from __future__ import annotations

import pytest

testinfra_hosts = ["fleet"]

ROTATE = "logrotate --force --state /tmp/rotation.state /etc/logrotate.d/mlops-fleet"
#: Opens the log for every line, as mlfleet does, and says how many lines went out.
REOPENED = "for n in $(seq 1 3000); do echo line-$n >> {log}; done"
#: Opens the log once and holds it.
HELD = "exec >> {log}; for n in $(seq 1 3000); do echo line-$n; sleep 0.001; done"


def test_the_configuration_is_accepted_with_all_others(host):
    done = host.run("logrotate --debug /etc/logrotate.conf")
    assert done.rc == 0 and "error" not in done.stderr, done.stderr


@pytest.mark.parametrize(("writer", "rotations"), [(REOPENED, 3), (HELD, 1)])
def test_no_line_is_lost_while_somebody_writes(host, writer, rotations):
    log = "/var/log/ml-backup.log"
    host.check_output(
        f"rm -f {log}* /tmp/rotation.state; install -m 0640 -g mlops-fleet /dev/null {log}"
    )
    script = writer.format(log=log)
    done = host.run(
        f"sh -c '{script}' & for i in $(seq {rotations}); do sleep 0.5; {ROTATE} || exit 1; "
        "done; wait"
    )
    assert done.rc == 0, done.stderr
    lines = host.check_output(f"zcat --force {log}*").splitlines()
    assert sorted(lines) == sorted(f"line-{n}" for n in range(1, 3001))
    assert len(host.check_output(f"ls {log}*").split()) >= 2


@pytest.mark.parametrize(
    ("path", "owner"),
    [
        ("/var/log/ml-backup.log", "root"),
        ("/var/log/gpu-monitor.log", "mlops-fleet"),
        ("/var/log/ml-health-check.log", "mlops-fleet"),
    ],
)
def test_the_new_log_is_right_for_its_writer(host, path, owner):
    host.check_output(f"echo x >> {path}; {ROTATE}")
    new = host.file(path)
    assert (new.user, new.group, new.mode, new.size) == (owner, "mlops-fleet", 0o640, 0)
    host.check_output(f"runuser -u {owner} -- sh -c 'echo y >> {path}'")


def test_old_logs_are_compressed_one_rotation_later(host):
    log = "/var/log/gpu-monitor.log"
    for dummy in range(2):
        host.check_output(f"echo x >> {log}; {ROTATE}")
    assert host.file(f"{log}.1").exists and host.file(f"{log}.2.gz").exists


def test_the_metrics_keep_their_header(host):
    if host.check_output("hostname") != "gpu1":
        pytest.skip("this node has no GPU, so no metrics")
    metrics = "/var/log/gpu-metrics.csv"
    for dummy in range(2):
        host.run("systemctl start gpu-monitor.service")
        host.check_output(ROTATE)
    host.run("systemctl start gpu-monitor.service")
    heads = [
        host.check_output(f"head -1 {path}") for path in (metrics, metrics + ".1", metrics + ".2")
    ]
    assert set(heads) == {
        "timestamp,gpu_id,name,temp,util_gpu,util_mem,mem_used,mem_total,power_draw,power_limit"
    }
    assert int(host.check_output(f"grep -c ^timestamp {metrics}")) == 1
