# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changing the schedule by playbook: refused mistakes, the cron back end, back again, and nothing left at the end."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from pathlib import Path

import pytest
import testinfra

testinfra_hosts = ["local://"]

ENVIRONMENT = {**os.environ, "ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1"}
INVENTORY = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "inventory"
NODES = ("node1", "gpu1")


def node(name):
    return testinfra.get_host(f"ansible://{name}?ansible_inventory={INVENTORY}")


def play(playbook, variables):
    argv = [
        "ansible-playbook",
        "--inventory",
        str(INVENTORY),
        playbook,
        "-e",
        json.dumps({"maintenance_hosts": "fleet", **variables}),
    ]
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=300, check=False, env=ENVIRONMENT
    )
    done.said = done.stdout + done.stderr
    return done


def role(name, **variables):
    """Run one role on all nodes by a playbook of its own."""
    directory = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
    (directory / "one_role.yml").write_text(
        json.dumps([{"hosts": "fleet", "gather_facts": False, "roles": [name]}]), encoding="utf-8"
    )
    return play(str(directory / "one_role.yml"), variables)


def units(host):
    return set(
        host.run(
            "cd /etc/systemd/system && find . -name 'ml-*' -o -name 'gpu-*' -o -name 'mlops-*'"
        ).stdout.split()
    )


def state(host):
    return host.check_output(
        "cd /etc && find systemd cron.d logrotate.d -type f -exec md5sum {} + | sort"
    )


def starts_since(host, moment):
    """Which jobs systemd has started since a moment (seconds since the epoch)."""
    return host.run(
        f"journalctl --sync; journalctl -o cat _PID=1 --since @{moment} | grep -E '^Starting (ml-|gpu-)'"
    ).stdout.splitlines()


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        (
            {"schedule_backup_calendar": "Sun 33:00"},
            "schedule_backup_calendar: Failed to parse calendar specification 'Sun 33:00'",
        ),
        (
            {"schedule_backup_calendar": "2020-01-01"},
            "schedule_backup_calendar: it never comes: 2020-01-01",
        ),
        (
            {"schedule_credentials": {"token": "/root/none"}},
            "/root/none must be there and closed to others",
        ),
        ({"schedule_memory_max": "0"}, "schedule_memory_max '0'"),
        ({"schedule_gpu_directives": {"MemoryMaxx": "1G"}}, "gpu-monitor.service:"),
        ({"schedule_memory_max": "lots"}, "schedule_memory_max 'lots'"),
        (
            {"schedule_backend": "cron", "schedule_backup_cron": "0 25 * * *"},
            "schedule_backup_cron '0 25 * * *'",
        ),
        ({"schedule_gpu_user": "nobody-here"}, "nobody-here"),
        ({"schedule_command": "/usr/local/bin/missing"}, "/usr/local/bin/missing is not there"),
    ],
)
def test_a_mistake_is_named_and_changes_nothing(variables, words):
    before = [state(node(name)) for name in NODES]
    done = role("mlops.fleet.schedule", **variables)
    assert done.returncode == 2
    assert words in done.said
    assert [state(node(name)) for name in NODES] == before


def test_a_unit_of_someone_else_is_not_touched():
    host, path = node("node1"), "/etc/systemd/system/ml-maintenance.timer"
    host.check_output(f"printf '[Timer]\\nOnCalendar=daily\\n' > {path}")
    try:
        done = role("mlops.fleet.schedule", schedule_maintenance_enabled=True)
        assert done.returncode == 2 and path in done.said
        assert role("mlops.fleet.schedule").returncode == 0
        assert "OnCalendar=daily" in host.check_output(f"cat {path}")
    finally:
        host.check_output(f"rm {path}")
    # The other node had no such file, so it got the job; the run without it took it away again.
    assert not node("gpu1").file(path).exists


def test_a_competing_rotation_is_named():
    host, path = node("node1"), "/etc/logrotate.d/ml-infrastructure"
    before = host.check_output("cat /etc/logrotate.d/mlops-fleet")
    host.check_output(f"printf '/var/log/ml-*.log {{\\n weekly\\n}}\\n' > {path}")
    try:
        done = role("mlops.fleet.log_rotation", log_rotation_overrides=[{"name": "gpu", "keep": 5}])
        assert done.returncode == 2 and f"{path}:1 rotates /var/log/ml-*.log" in done.said
        assert host.check_output("cat /etc/logrotate.d/mlops-fleet") == before
    finally:
        host.check_output(f"rm {path}")


def test_a_changed_calendar_starts_no_job_that_was_not_due():
    """The new time has passed today, after each job's last run: the next one is tomorrow's."""
    moment = int(node("node1").check_output("date +%s"))
    passed = time.strftime("*-*-* %H:%M:%S", time.gmtime(moment + 1))
    variables = {
        f"schedule_{job}_{option}": value
        for job in ("backup", "gpu", "cleanup", "health")
        for option, value in (("calendar", passed), ("random_delay", "0"))
    }
    stop = "systemctl stop ml-backup.timer; touch -d '2 days ago' /var/lib/systemd/timers/stamp-ml-backup.timer"
    for name in NODES:
        node(name).check_output(stop)
    # A stopped timer, timers that make up for missed runs, and timers that do not.
    done = role("mlops.fleet.schedule", **variables, schedule_cleanup_persistent=False)
    assert done.returncode == 0, done.said
    for name in NODES:
        host = node(name)
        assert int(host.check_output("date +%s")) > moment + 1
        assert starts_since(host, moment + 2) == []
        # Nor when systemd reads its units again, as the installation of any package may cause.
        host.check_output("systemctl daemon-reload; sleep 1")
        assert starts_since(host, moment + 2) == []
        waiting = host.check_output("systemctl list-timers --no-legend 'ml-*' 'gpu-*' | wc -l")
        assert int(waiting) == 4
        assert host.run("find /run/systemd/system -name 'mlops-fleet-*'").stdout == ""


def test_cron_runs_a_job_and_leaves_no_trace_of_timers():
    done = role("mlops.fleet.schedule", schedule_backend="cron", schedule_gpu_cron="* * * * *")
    assert done.returncode == 0, done.stdout
    assert (
        "changed=0"
        in role(
            "mlops.fleet.schedule", schedule_backend="cron", schedule_gpu_cron="* * * * *"
        ).stdout
    )
    before = {}
    for name in NODES:
        assert units(node(name)) == set()
        assert "ml-backup" not in node(name).check_output(
            "systemctl list-units --all; ls /var/lib/systemd/timers"
        )
        before[name] = int(node(name).check_output("wc -l < /var/log/gpu-monitor.log"))
    deadline = time.monotonic() + 100
    for name in NODES:
        while int(node(name).check_output("wc -l < /var/log/gpu-monitor.log")) == before[name]:
            assert time.monotonic() < deadline, "cron did not run the job"
            time.sleep(2)
        assert node(name).file("/var/log/gpu-monitor.log").user == "mlops-fleet"


def test_a_job_of_cron_reads_the_old_variables_and_tells_failures():
    host = node("node1")
    host.check_output("printf 'MODEL_DIR=/nowhere $(touch /tmp/run)\\n' >> /etc/ml-automation.conf")
    done = host.run("/usr/local/sbin/mlops-fleet-cron backup")
    assert done.rc == 1
    assert "/nowhere $(touch /tmp/run)" in done.stdout + done.stderr
    assert not host.file("/tmp/run").exists
    assert "ended with status 1" in host.check_output(
        "journalctl --sync; journalctl -o cat -t ml-backup -n 1"
    )
    # The alert command ran: the channel that can't be reached says so, whatever the cool-down of the other one.
    assert "nobody: queued" in done.stdout
    host.check_output("sed -i /MODEL_DIR/d /etc/ml-automation.conf")


def test_back_to_timers_leaves_no_trace_of_cron_and_starts_nothing():
    moment = int(node("node1").check_output("date +%s"))
    passed = time.strftime("*-*-* %H:%M:%S", time.gmtime(moment))
    done = role(
        "mlops.fleet.schedule", schedule_backup_calendar=passed, schedule_cleanup_calendar=passed
    )
    assert done.returncode == 0, done.said
    for name in NODES:
        host = node(name)
        started = starts_since(host, moment)
        assert not [line for line in started if "ml-backup" in line or "ml-cleanup" in line]
        assert (
            not host.file("/etc/cron.d/mlops-fleet").exists
            and not host.file("/usr/local/sbin/mlops-fleet-cron").exists
        )
        assert host.service("ml-backup.timer").is_running


#: Holds the job's process as soon as it has written a line more to its log. It works for a fraction of a second only, so it may take some tries.
STOP_WHILE_IT_WORKS = """
for try in $(seq 20); do
    lines=$(wc -l < /var/log/ml-maintenance.log)
    systemctl start --no-block ml-maintenance.service
    for n in $(seq 500); do [ $(wc -l < /var/log/ml-maintenance.log) = $lines ] || break; sleep 0.01; done
    systemctl kill --signal=STOP ml-maintenance.service
    process=$(systemctl show -P MainPID ml-maintenance.service)
    [ $process = 0 ] || exit 0
done
exit 1
"""


def expected_result(host):
    """How the unit has to end by what its log says: a critical verdict gives exit status 1, though every phase did its work.

    Nodes share kernel and disk with the machine they run on, so nothing says that one is well.
    """
    headline = host.check_output("grep 'Maintenance: ' /var/log/ml-maintenance.log | tail -1")
    return "exit-code" if "Maintenance: CRITICAL" in headline else "success"


def test_maintenance_instead_of_the_single_jobs():
    """Its unit does the four jobs in order, with the limits of all, and takes turns with single jobs."""
    others = dict.fromkeys(
        (f"schedule_{job}_enabled" for job in ("backup", "gpu", "cleanup", "health")), False
    )
    # All of it through the playbook, which starts the unit too: the cleanup in it only as a rehearsal.
    done = play("mlops.fleet.install", {"schedule_maintenance_enabled": True, **others})
    assert done.returncode == 0, done.said
    assert done.said.count(
        "ml-maintenance.service, started (the cleanup only as a rehearsal)"
    ) == len(NODES)
    again = play("mlops.fleet.install", {"schedule_maintenance_enabled": True, **others})
    assert again.said.count("changed=0 ") == len(NODES), again.said
    for name in NODES:
        host, log = node(name), "/var/log/ml-maintenance.log"
        assert units(host) >= {"./ml-maintenance.service", "./ml-maintenance.timer"} and not [
            one for one in units(host) if "backup" in one or "gpu" in one
        ]
        host.check_output(
            "mkdir -p /run/systemd/system/ml-maintenance.service.d && cd /run/systemd/system/ml-maintenance.service.d"
            " && printf '[Unit]\\nStartLimitIntervalSec=0\\n' > often.conf && systemctl daemon-reload"
        )
        host.run(f"truncate -s 0 {log}; systemctl start ml-maintenance.service")
        shown = host.check_output(
            "systemctl show ml-maintenance.service -p Result,MemoryMax,CPUQuotaPerSecUSec,User"
        )
        assert set(shown.split()) == {
            f"Result={expected_result(host)}",
            "User=root",
            f"MemoryMax={2 * 1024**3}",
            "CPUQuotaPerSecUSec=500ms",
        }
        lines = [
            line.split("] ", 1)[1]
            for line in host.check_output(f"grep -v 'alert by' {log}").splitlines()
        ]
        assert lines[:4] == ["health started", "gpu started", "backup started", "cleanup started"]
        assert [line.split(":")[0] for line in lines[4:]] == [
            "health",
            "gpu",
            "backup",
            "cleanup",
            "Maintenance",
        ]
        assert name != "gpu1" or "CRITICAL" in lines[-1], "one of its GPUs is faulty"
        assert all(
            re.search(r": (pass|warning|critical|skipped) in [0-9.]+ m?s: ", line)
            for line in lines[4:8]
        ), lines
        said = host.check_output(
            "journalctl --sync; journalctl -u ml-maintenance.service -o cat -n 12"
        )
        assert "HEALTH" in said and "TIME" in said and "Maintenance: " in said
        # It holds the lock of all jobs while it works.
        host.check_output("bash -c %s", STOP_WHILE_IT_WORKS)
        try:
            for words in ("backup", "cleanup", "maintenance", "restore /srv/ml/back"):
                refused = host.run(f"mlfleet {words}")
                assert refused.rc == 3 and "Another job of mlfleet is running" in refused.stderr, (
                    words
                )
            assert host.run("mlfleet gpu").rc in (0, 1, 2), "a check needs no turn"
        finally:
            host.run(
                "systemctl kill --signal=CONT ml-maintenance.service; systemctl start ml-maintenance.service"
            )
        assert host.check_output(
            "systemctl show -P Result ml-maintenance.service"
        ) == expected_result(host)
        host.check_output(
            "rm -r /run/systemd/system/ml-maintenance.service.d; systemctl daemon-reload"
        )
    assert role("mlops.fleet.schedule").returncode == 0
    for name in NODES:
        assert (
            "./ml-maintenance.timer" not in units(node(name))
            and node(name).service("ml-backup.timer").is_running
        )


def test_zz_uninstalled_the_node_is_as_before():
    done = play("mlops.fleet.uninstall", {})
    assert done.returncode == 0, done.stdout
    assert "changed=0" in play("mlops.fleet.uninstall", {}).stdout
    listing = "{ find /etc /opt /usr/local /var/lib /var/spool/cron -xdev | LC_ALL=C sort; cut -d: -f1 /etc/passwd /etc/group; }"
    for name in NODES:
        host = node(name)
        assert host.run(f"{listing} | diff /root/before -").stdout == "", name
        assert (
            host.check_output("systemctl list-units --all --no-legend 'ml-*' 'gpu-*' 'mlops-*'")
            == ""
        )
        assert host.run("ls /srv/ml/backups/models_backup_*.tar.gz").rc == 0
