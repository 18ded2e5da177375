# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The timers and what they start, read from systemd and the files, not from our own commands."""

from __future__ import annotations

import contextlib
import json
import re
import time

import pytest

testinfra_hosts = ["fleet"]

JOBS = {
    "ml-backup": "root",
    "gpu-monitor": "mlops-fleet",
    "ml-cleanup": "root",
    "ml-health-check": "mlops-fleet",
}


def show(host, unit, *names):
    text = host.check_output(f"systemctl show {unit} --property={','.join(names)}")
    return dict(line.partition("=")[::2] for line in text.splitlines())


@contextlib.contextmanager
def drop_in(host, unit, text):
    """Change a unit for a while, as `systemctl edit` does."""
    directory = f"/run/systemd/system/{unit}.d"
    host.check_output(
        f"mkdir -p {directory} && printf '%b' '{text}' > {directory}/test.conf && systemctl "
        "daemon-reload"
    )
    try:
        yield
    finally:
        host.check_output(
            f"rm -r {directory} && systemctl daemon-reload; systemctl reset-failed {unit} || true"
        )


def printed_by_a_run(host, job):
    """Start a job's unit and return what this very run printed: its timer may fire meanwhile, and
    the journal be a little behind."""
    host.check_output(f"systemctl stop {job}.timer {job}.service")
    try:
        host.run(f"systemctl start {job}.service")
        run = host.check_output(f"systemctl show -P InvocationID {job}.service")
        return host.check_output(
            f"journalctl --sync; journalctl -o cat _SYSTEMD_INVOCATION_ID={run}"
        )
    finally:
        host.check_output(f"systemctl start {job}.timer")


def await_true(what, seconds):
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(1)


@pytest.mark.parametrize("unit", JOBS)
def test_timers_wait_and_come_back_at_boot(host, unit):
    timer = host.service(f"{unit}.timer")
    assert timer.is_running and timer.is_enabled


def test_maintenance_is_off_because_it_would_double_the_others(host):
    assert not host.file("/etc/systemd/system/ml-maintenance.timer").exists


@pytest.mark.parametrize("unit", JOBS)
def test_limits_are_in_force(host, unit):
    found = show(
        host,
        f"{unit}.service",
        "MemoryMax",
        "CPUQuotaPerSecUSec",
        "IOWeight",
        "NoNewPrivileges",
        "User",
        "Type",
    )
    assert found == {
        "MemoryMax": str(2 * 1024**3),
        "CPUQuotaPerSecUSec": "500ms",
        "IOWeight": "100",
        "NoNewPrivileges": "yes",
        "User": JOBS[unit],
        "Type": "oneshot",
    }


@pytest.mark.parametrize("unit", ["ml-backup", "ml-cleanup"])
def test_daily_and_weekly_jobs_are_caught_up(host, unit):
    assert show(host, f"{unit}.timer", "Persistent")["Persistent"] == "yes"


def test_a_missed_run_is_caught_up(host):
    """What systemd does at boot: the stamp says that the last run is two days ago."""
    before = show(host, "ml-backup.service", "ExecMainStartTimestampMonotonic")
    with drop_in(host, "ml-backup.timer", "[Timer]\\nRandomizedDelaySec=0\\n"):
        host.check_output(
            "systemctl stop ml-backup.timer && touch -d '2 days ago' "
            "/var/lib/systemd/timers/stamp-ml-backup.timer"
        )
        host.check_output("systemctl start ml-backup.timer")
        await_true(
            lambda: show(host, "ml-backup.service", "ExecMainStartTimestampMonotonic") != before, 20
        )
        await_true(
            lambda: show(host, "ml-backup.service", "ActiveState")["ActiveState"] == "inactive", 60
        )
    assert show(host, "ml-backup.service", "Result")["Result"] == "success"
    archives = host.check_output("ls -1 /srv/ml/backups/models_backup_*.tar.gz").split()
    assert archives
    host.check_output(f"tar -tzf {archives[-1]}")


def test_a_timer_set_to_seconds_fires_and_its_job_leaves_log_and_metrics(host):
    log, metrics = "/var/log/gpu-monitor.log", "/var/log/gpu-metrics.csv"
    lines = int(host.check_output(f"wc -l < {log}"))
    rows = int(host.check_output(f"wc -l < {metrics}"))
    with drop_in(
        host,
        "gpu-monitor.timer",
        "[Timer]\\nOnCalendar=\\nOnCalendar=*:*:0/3\\nRandomizedDelaySec=0\\n",
    ):
        host.check_output("systemctl restart gpu-monitor.timer")
        await_true(lambda: int(host.check_output(f"wc -l < {log}")) >= lines + 2, 40)
    host.check_output("systemctl restart gpu-monitor.timer")
    if host.check_output("hostname") == "gpu1":
        assert int(host.check_output(f"wc -l < {metrics}")) >= rows + 2
        assert host.check_output(f"head -1 {metrics}").startswith("timestamp,gpu_id,name,temp,")


def test_a_job_can_write_only_where_it_must(host):
    text = (
        '[Service]\\nExecStart=\\nExecStart=/bin/sh -c "id -un; touch /var/log/ml-x; touch /srv/x;'
        ' touch /etc/x; cat /proc/self/status"\\n'
    )
    with drop_in(host, "gpu-monitor.service", text):
        said = printed_by_a_run(host, "gpu-monitor")
    for path in ("/srv/x", "/etc/x", "/var/log/ml-x"):
        assert f"cannot touch '{path}'" in said
        assert not host.file(path).exists
    assert "CapEff:\t0000000000000000" in said


def test_a_directory_that_only_the_sandbox_closes_is_reported_with_the_variable_that_opens_it(host):
    host.check_output("mkdir -p /srv/closed")
    command = "/usr/local/bin/mlfleet backup --force --destination /srv/closed"
    text = f"[Service]\\nExecStart=\\nExecStart={command}\\n"
    with drop_in(host, "ml-backup.service", text):
        printed = printed_by_a_run(host, "ml-backup")
    assert "/srv/closed" in printed and "schedule_backup_write_paths" in printed
    assert host.run(f"{command} --dry-run").rc == 0, "nothing but the sandbox is in the way"


def test_a_warning_is_no_failed_unit_but_more_is(host):
    for status, result in ((1, "success"), (2, "exit-code"), (3, "exit-code")):
        with drop_in(
            host,
            "gpu-monitor.service",
            f'[Service]\\nExecStart=\\nExecStart=/bin/sh -c "exit {status}"\\n',
        ):
            host.run("systemctl start gpu-monitor.service")
            assert show(host, "gpu-monitor.service", "Result")["Result"] == result, status
    with drop_in(
        host, "ml-backup.service", '[Service]\\nExecStart=\\nExecStart=/bin/sh -c "exit 1"\\n'
    ):
        host.run("systemctl start ml-backup.service")
        assert show(host, "ml-backup.service", "Result")["Result"] == "exit-code"


def test_a_job_killed_by_its_limit_sends_an_alert_and_the_next_run_recovers(host):
    command = "journalctl -o cat _SYSTEMD_UNIT=mlops-fleet-alert@ml-backup.service"
    before = len(host.run(command).stdout.splitlines())
    hog = (
        "[Service]\\nMemoryMax=40M\\nMemorySwapMax=0\\nExecStart=\\nExecStart=/usr/bin/python3 -c"
        ' "x = bytearray(300 * 1024 * 1024)"\\n'
    )
    with drop_in(host, "ml-backup.service", hog):
        assert host.run("systemctl start ml-backup.service").rc != 0
        assert show(host, "ml-backup.service", "Result")["Result"] in ("oom-kill", "signal")
        await_true(lambda: len(host.run(command).stdout.splitlines()) > before, 20)
    everything = host.check_output("journalctl --sync; journalctl -o cat --since -1min")
    assert "ml-backup.service" in everything and "failed" in everything
    host.check_output("systemctl start ml-backup.service")
    assert show(host, "ml-backup.service", "Result")["Result"] == "success"


def test_a_job_waits_for_another_one_or_gives_way(host):
    """Neither is a failure, so nobody is woken up."""
    alerts = "journalctl -o cat _SYSTEMD_UNIT=mlops-fleet-alert@ml-cleanup.service | wc -l"
    before = host.check_output(alerts)
    hold = "systemd-run --unit=holder flock /run/lock/mlops-fleet/jobs.lock sleep %s; sleep 1"
    host.check_output(hold % 5)
    said = printed_by_a_run(host, "ml-cleanup")
    assert "waiting up to 3600 s for /usr/bin/flock /run/lock/mlops-fleet/jobs.lock" in said
    result = ("Result", "ExecMainStatus")
    assert list(show(host, "ml-cleanup.service", *result).values()) == ["success", "0"]
    host.check_output(hold % 60)
    text = "[Service]\\nExecStart=\\nExecStart=/usr/local/bin/mlfleet cleanup --wait 1\\n"
    try:
        with drop_in(host, "ml-cleanup.service", text):
            assert "Another job of mlfleet is running (process" in printed_by_a_run(
                host, "ml-cleanup"
            )
            assert list(show(host, "ml-cleanup.service", *result).values()) == ["success", "75"]
    finally:
        host.check_output("systemctl stop holder.service")
    assert host.check_output(alerts) == before


def test_the_old_variables_take_effect(host):
    with drop_in(
        host,
        "ml-backup.service",
        "[Service]\\nExecStart=\\nExecStart=/usr/local/bin/mlfleet config --json\\n",
    ):
        said = printed_by_a_run(host, "ml-backup")
    document = json.loads(said[said.index("{\n") : said.rindex("}") + 1])["options"]
    source = "/etc/ml-automation.conf"
    assert document["backup"]["retention_days"] == {"value": 7, "from": source}
    assert document["health"]["services"] == {"value": ["ssh", "cron"], "from": source}


def test_the_unit_and_calls_by_hand_use_the_same_directory(host):
    """It is named by a line with "export", which systemd alone would ignore."""
    assert "/srv/ml/backups" in show(host, "ml-backup.service", "ReadWritePaths")["ReadWritePaths"]
    # The run makes a backup, or names the latest if it still matches.
    archive = re.search(r"models_backup_\w+\.tar\.gz", printed_by_a_run(host, "ml-backup"))
    assert archive is not None and host.file(f"/srv/ml/backups/{archive[0]}").is_file
    assert host.run("ls /srv/ml/elsewhere/models_backup_*").rc != 0
    assert host.file("/srv/ml/elsewhere").mode == 0o750  # the role created it for the jobs
    line = next(
        line
        for line in host.check_output("mlfleet config").splitlines()
        if line.split()[:1] == ["backup.destination"]
    )
    assert "/srv/ml/backups" in line
    assert "/srv/ml/backups/models_backup_" in host.check_output("mlfleet verify")


def test_others_read_no_secret_and_write_no_configuration(host):
    config = "/etc/mlops-fleet/config.json"
    assert "only-root-and-the-agent" in host.check_output(f"cat {config}")
    assert host.run(f"runuser -u nobody -- cat {config}").rc != 0
    for path in (
        config,
        "/etc/systemd/system/ml-backup.service",
        "/etc/systemd/system/gpu-monitor.timer",
        "/etc/logrotate.d/mlops-fleet",
    ):
        for user in ("nobody", "mlops-fleet"):
            assert host.run(f"runuser -u {user} -- sh -c 'echo x >> {path}'").rc != 0, (path, user)
    assert "only-root" not in host.check_output(
        "systemctl cat 'ml-*' 'gpu-*' 'mlops-*'; journalctl -o cat -u 'ml-*' -u 'mlops-*'"
    )


def test_a_credential_reaches_the_job_and_nobody_else(host):
    host.check_output("umask 077; echo s3cret > /root/token")
    assert host.run("runuser -u mlops-fleet -- cat /root/token").rc != 0
    script = "wc -c < $$CREDENTIALS_DIRECTORY/token; id -un; sleep 4"
    text = (
        "[Service]\\nLoadCredential=token:/root/token\\nExecStart=\\nExecStart=/bin/sh -c"
        f' "{script}"\\n'
    )
    with drop_in(host, "gpu-monitor.service", text):
        host.check_output("systemctl start --no-block gpu-monitor.service; sleep 2")
        place = "/run/credentials/gpu-monitor.service/token"
        assert host.check_output(f"cat {place}") == "s3cret"
        assert host.run(f"runuser -u nobody -- cat {place}").rc != 0
        said = printed_by_a_run(host, "gpu-monitor").split()
        assert "7" in said and "mlops-fleet" in said
    assert not host.file(place).exists
