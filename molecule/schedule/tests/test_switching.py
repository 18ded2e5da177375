# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changing the schedule by playbook.

Refused mistakes, another calendar, one job instead of four, the cron back end, and back again. The
order matters, and every run takes its time: nodes make different mistakes in the same run, and work
at the same time.
"""

from __future__ import annotations

import concurrent.futures
import json
import os
import re
import subprocess
import time
from pathlib import Path

import pytest
import testinfra

testinfra_hosts = ["local://"]

EPHEMERAL = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
ENVIRONMENT = {**os.environ, "ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1"}
INVENTORY = EPHEMERAL / "inventory"
NODES = ("node1", "gpu1")
#: Neither is due while these tests run, so whatever starts them is a fault.
RARE = "ml-backup|ml-cleanup|ml-maintenance"


def node(name):
    return testinfra.get_host(f"ansible://{name}?ansible_inventory={INVENTORY}")


def on_each_node(work):
    """Do something with both nodes at the same time; the jobs wait more than they compute."""
    with concurrent.futures.ThreadPoolExecutor(len(NODES)) as pool:
        return list(pool.map(lambda name: work(node(name), name), NODES))


def per_node(**values):
    """A variable that has another value on each node."""
    return "{{ (" + repr(values) + ")[inventory_hostname] }}"


def play(*roles, **variables):
    """Run roles on all nodes; no job may start that is not due. Ends with Ansible's exit code, and
    has the output in C(said)."""
    path = EPHEMERAL / "roles.yml"
    path.write_text(
        json.dumps([{"hosts": "fleet", "gather_facts": False, "roles": list(roles)}]),
        encoding="utf-8",
    )
    argv = ["ansible-playbook", "--inventory", str(INVENTORY), str(path)]
    # The journal is asked by whole seconds, and what happened before must not count.
    moment = int(time.time()) + 1
    time.sleep(moment - time.time())
    done = subprocess.run(
        [*argv, "--extra-vars", json.dumps(variables)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=ENVIRONMENT,
    )
    done.said = done.stdout + done.stderr
    assert on_each_node(lambda host, name: starts_since(host, moment, RARE)) == [[], []]
    return done


def schedule(**variables):
    """Run the role; it must not fail."""
    done = play("mlops.fleet.schedule", **variables)
    assert done.returncode == 0, done.said
    return done


def starts_since(host, moment, jobs):
    """Which jobs systemd has started since a moment (seconds since the epoch)."""
    return host.run(
        f"journalctl --sync; journalctl -o cat _PID=1 --since @{moment} | grep -E 'Starting "
        f"({jobs})'"
    ).stdout.splitlines()


def units(host):
    return set(
        host.run(
            "cd /etc/systemd/system && find . -name 'ml-*' -o -name 'gpu-*' -o -name 'mlops-*'"
        ).stdout.split()
    )


def state(host, name=""):
    """What the node has of schedules and rotation: every file with mode, owner, target and
    checksum."""
    return host.check_output(
        "cd /etc && find systemd cron.d logrotate.d ! -type d -printf '%p %m %u %g %l\\n' | sort;"
        " find systemd cron.d logrotate.d -type f -exec md5sum {} + | sort; ls -l /usr/local/sbin"
    )


@pytest.fixture(scope="module")
def installed():
    """What the nodes hold before anything is switched."""
    return on_each_node(state)


#: In one run each: the roles, the variables, and what the output says.
MISTAKES = [
    (
        ["mlops.fleet.log_rotation", "mlops.fleet.schedule"],
        {
            "log_rotation_overrides": per_node(node1=[{"name": "gpu", "keep": 5}], gpu1=[]),
            "schedule_backend": "cron",
            "schedule_backup_cron": "0 25 * * *",
        },
        [
            "/etc/logrotate.d/ml-infrastructure:1 rotates /var/log/ml-*.log",
            "schedule_backup_cron '0 25 * * *'",
        ],
    ),
    (
        ["mlops.fleet.schedule"],
        {
            "schedule_maintenance_enabled": per_node(node1=True, gpu1=False),
            "schedule_memory_max": per_node(node1="lots", gpu1="2G"),
            "schedule_gpu_directives": per_node(node1={}, gpu1={"MemoryMaxx": "1G"}),
        },
        [
            "Not written by this role: /etc/systemd/system/ml-maintenance.timer",
            "schedule_memory_max 'lots'",
            "gpu-monitor.service:",
        ],
    ),
    (
        ["mlops.fleet.schedule"],
        {
            "schedule_backup_calendar": "Sun 33:00",
            "schedule_cleanup_calendar": "2020-01-01",
            "schedule_credentials": {"token": "/root/none"},
            "schedule_gpu_user": "nobody-here",
            "schedule_command": per_node(
                node1="/usr/local/bin/missing", gpu1="/usr/local/bin/mlfleet"
            ),
        },
        [
            "schedule_backup_calendar: Failed to parse calendar specification 'Sun 33:00'",
            "schedule_cleanup_calendar: it never comes: 2020-01-01",
            "/root/none must be there and closed to others",
            "The user nobody-here does not exist",
            "/usr/local/bin/missing is not there",
        ],
    ),
]


class TestBesideFilesOfOthers:
    @pytest.fixture(scope="class")
    def files_of_others(self, installed):
        """On one node a timer and a rotation that somebody else wrote."""
        timer, rotation = (
            "/etc/systemd/system/ml-maintenance.timer",
            "/etc/logrotate.d/ml-infrastructure",
        )
        node("node1").check_output(f"printf '[Timer]\\nOnCalendar=daily\\n' > {timer}")
        node("node1").check_output(f"printf '/var/log/ml-*.log {{\\n weekly\\n}}\\n' > {rotation}")
        yield [timer, rotation]
        node("node1").check_output(f"rm {timer} {rotation}")

    @pytest.mark.parametrize(("roles", "variables", "messages"), MISTAKES)
    def test_mistakes_are_named_and_change_nothing(
        self, files_of_others, roles, variables, messages
    ):
        before = on_each_node(state)
        done = play(*roles, **variables)
        assert done.returncode == 2
        assert done.stdout.count("failed=1 ") == len(NODES)
        for message in messages:
            assert message in done.said
        assert on_each_node(state) == before

    def test_a_changed_calendar_starts_no_job_that_was_not_due(self, files_of_others):
        """The new time has passed today, after each job's last run: the next one is tomorrow's."""
        moment = int(node("node1").check_output("date +%s"))
        passed = time.strftime("*-*-* %H:%M:%S", time.gmtime(moment + 1))
        variables = {
            f"schedule_{job}_{option}": value
            for job in ("backup", "gpu", "cleanup", "health")
            for option, value in (("calendar", passed), ("random_delay", "0"))
        }
        stamp = "/var/lib/systemd/timers/stamp-ml-backup.timer"
        stop = f"systemctl stop ml-backup.timer; touch -d '2 days ago' {stamp}"
        on_each_node(lambda host, name: host.check_output(stop))
        # A stopped timer, timers that make up for missed runs, and timers that do not.
        schedule(**variables, schedule_cleanup_persistent=False)

        def verify(host, name):
            assert int(host.check_output("date +%s")) > moment + 1
            assert starts_since(host, moment + 2, "ml-|gpu-") == []
            # Nor when systemd reads its units again, as the installation of any package may cause.
            host.check_output("systemctl daemon-reload; sleep 1")
            assert starts_since(host, moment + 2, "ml-|gpu-") == []
            waiting = host.check_output("systemctl list-timers --no-legend 'ml-*' 'gpu-*' | wc -l")
            assert int(waiting) == 4
            assert host.run("find /run/systemd/system -name 'mlops-fleet-*'").stdout == ""

        on_each_node(verify)
        assert "OnCalendar=daily" in node("node1").check_output(f"cat {files_of_others[0]}")


#: Holds the job's process as soon as it has written a line more to its log. It works for a fraction
#: of a second only, so it may take some tries.
STOP_WHILE_IT_WORKS = """
for try in $(seq 20); do
    lines=$(wc -l < /var/log/ml-maintenance.log)
    systemctl start --no-block ml-maintenance.service
    for n in $(seq 500); do
        [ $(wc -l < /var/log/ml-maintenance.log) = $lines ] || break
        sleep 0.01
    done
    systemctl kill --signal=STOP ml-maintenance.service
    process=$(systemctl show -P MainPID ml-maintenance.service)
    [ $process = 0 ] || exit 0
done
exit 1
"""


def expected_result(host):
    """How the unit has to end by what its log says.

    A critical verdict gives exit status 1, though every phase did its work. Nodes share kernel and
    disk with the machine they run on, so nothing says that one is well.
    """
    headline = host.check_output("grep 'Maintenance: ' /var/log/ml-maintenance.log | tail -1")
    return "exit-code" if "Maintenance: CRITICAL" in headline else "success"


def test_maintenance_instead_of_the_single_jobs():
    """Its unit does the four jobs in order, with the limits of all, and takes turns with single
    jobs."""
    others = dict.fromkeys(
        (f"schedule_{job}_enabled" for job in ("backup", "gpu", "cleanup", "health")), False
    )
    schedule(schedule_maintenance_enabled=True, **others)
    on_each_node(maintain)


def maintain(host, name):
    log = "/var/log/ml-maintenance.log"
    assert units(host) >= {"./ml-maintenance.service", "./ml-maintenance.timer"}
    assert not [unit for unit in units(host) if "backup" in unit or "gpu" in unit]
    host.check_output(
        "mkdir -p /run/systemd/system/ml-maintenance.service.d && cd "
        "/run/systemd/system/ml-maintenance.service.d"
        " && printf '[Unit]\\nStartLimitIntervalSec=0\\n' > often.conf && systemctl daemon-reload"
    )
    # As the playbook does it at the end of an installation: the cleanup in it only as a rehearsal.
    trial = json.loads(host.run("mlfleet doctor --json --run --cleanup rehearse").stdout)
    messages = " ".join(check["message"] for check in trial["checks"])
    assert "ml-maintenance.service, started (the cleanup only as a rehearsal)" in messages
    host.run(f"truncate -s 0 {log}; systemctl start ml-maintenance.service")
    properties = host.check_output(
        "systemctl show ml-maintenance.service -p Result,MemoryMax,CPUQuotaPerSecUSec,User"
    )
    assert set(properties.split()) == {
        f"Result={expected_result(host)}",
        "User=root",
        f"MemoryMax={2 * 1024**3}",
        "CPUQuotaPerSecUSec=500ms",
    }
    lines = [
        line.split("] ", 1)[1]
        for line in host.check_output(f"grep -v 'alert by' {log}").splitlines()
    ]
    phases = ["health", "gpu", "backup", "cleanup"]
    assert lines[:4] == [f"{phase} started" for phase in phases]
    assert [line.split(":")[0] for line in lines[4:]] == [*phases, "Maintenance"]
    assert name != "gpu1" or "CRITICAL" in lines[-1], "one of its GPUs is faulty"
    assert all(
        re.search(r": (pass|warning|critical|skipped) in [0-9.]+ m?s: ", line)
        for line in lines[4:8]
    ), lines
    printed = host.check_output(
        "journalctl --sync; journalctl -u ml-maintenance.service -o cat -n 12"
    )
    assert "HEALTH" in printed and "TIME" in printed and "Maintenance: " in printed
    # It holds the lock of all jobs while it works.
    host.check_output("bash -c %s", STOP_WHILE_IT_WORKS)
    try:
        for arguments in ("backup", "cleanup", "maintenance", "restore /srv/ml/back"):
            refused = host.run(f"mlfleet {arguments}")
            assert refused.rc == 3, arguments
            assert "Another job of mlfleet is running" in refused.stderr, arguments
        assert host.run("mlfleet gpu").rc in (0, 1, 2), "a check needs no turn"
    finally:
        host.run(
            "systemctl kill --signal=CONT ml-maintenance.service; systemctl start "
            "ml-maintenance.service"
        )
    result = host.check_output("systemctl show -P Result ml-maintenance.service")
    assert result == expected_result(host)
    host.check_output("rm -r /run/systemd/system/ml-maintenance.service.d; systemctl daemon-reload")


GPU_LOG = "/var/log/gpu-monitor.log"


@pytest.fixture(scope="module")
def cron():
    """The nodes with cron instead of timers, and how long their logs were then."""
    schedule(schedule_backend="cron", schedule_gpu_cron="* * * * *")
    return on_each_node(lambda host, name: int(host.check_output(f"wc -l < {GPU_LOG}")))


def test_cron_leaves_no_trace_of_timers(cron):
    for name in NODES:
        assert units(node(name)) == set()
        known = node(name).check_output("systemctl list-units --all; ls /var/lib/systemd/timers")
        assert "ml-backup" not in known and "ml-maintenance" not in known
    again = schedule(schedule_backend="cron", schedule_gpu_cron="* * * * *")
    assert again.stdout.count("changed=0 ") == len(NODES)


RUNNER = "/usr/local/sbin/mlops-fleet-cron"


def test_a_job_of_cron_reads_the_old_variables_and_reports_failures(cron):
    host = node("node1")
    host.check_output("printf 'MODEL_DIR=/nowhere $(touch /tmp/run)\\n' >> /etc/ml-automation.conf")
    done = host.run(f"{RUNNER} backup")
    assert done.rc == 1
    assert "/nowhere $(touch /tmp/run)" in done.stdout + done.stderr
    assert not host.file("/tmp/run").exists
    assert "ended with status 1" in host.check_output(
        "journalctl --sync; journalctl -o cat -t ml-backup -n 1"
    )
    # The alert command ran: the channel that can't be reached says so, whatever the cool-down of
    # the other one.
    assert "nobody: queued" in done.stdout
    host.check_output("sed -i /MODEL_DIR/d /etc/ml-automation.conf")


def test_a_job_of_cron_waits_for_another_one_or_gives_way(cron):
    """Neither is a failure, so cron sends no alert; giving way leaves a warning in the log that
    names who held the lock."""

    def verify(host, name):
        host.check_output(
            "systemd-run --unit=holder flock /run/lock/mlops-fleet/jobs.lock sleep 600; sleep 1"
        )
        host.check_output(
            f"systemd-run --unit=waiting --property=RemainAfterExit=yes {RUNNER} backup; sleep 2"
        )
        giving_way = f"sed 's/mlfleet backup/mlfleet backup --wait 1/' {RUNNER} > /root/runner"
        host.check_output(giving_way)
        gave_way = host.run("sh /root/runner backup")
        host.check_output("rm /root/runner; systemctl stop holder.service")
        assert gave_way.rc == 0
        assert "ml-backup did not run: another job was running for too long" in gave_way.stdout
        assert re.search(
            r"Another job of mlfleet is running \(process [0-9]+.*flock /run/lock",
            gave_way.stdout + gave_way.stderr,
        )
        assert "nobody:" not in gave_way.stdout + gave_way.stderr, "an alert was sent"
        logged = host.check_output("journalctl --sync; journalctl -o cat -t ml-backup -p warning")
        assert "did not run: another job was running for too long" in logged
        end = time.monotonic() + 60
        while host.check_output("systemctl show -P SubState waiting.service") != "exited":
            assert time.monotonic() < end, "the waiting backup did not go on"
            time.sleep(0.5)
        printed = host.check_output("journalctl --sync; journalctl -o cat -u waiting.service")
        assert "waiting up to 3600 s for /usr/bin/flock" in printed and "models_backup_" in printed
        host.check_output("systemctl stop waiting.service")

    on_each_node(verify)


def test_cron_runs_a_job_as_its_user(cron):
    """By now its minute has come."""
    end = time.monotonic() + 100
    for name, lines in zip(NODES, cron):
        while int(node(name).check_output(f"wc -l < {GPU_LOG}")) == lines:
            assert time.monotonic() < end, "cron did not run the job"
            time.sleep(1)
        assert node(name).file(GPU_LOG).user == "mlops-fleet"


def test_back_to_timers_the_nodes_are_as_before_and_nothing_is_started(installed, cron):
    """Timers with the usual times: what the role writes is what it wrote in the beginning."""
    schedule()
    assert on_each_node(state) == installed
    for name in NODES:
        assert node(name).service("ml-backup.timer").is_running
