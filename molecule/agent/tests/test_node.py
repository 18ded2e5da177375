# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the installation left on the nodes, asked of the system's own tools."""

from __future__ import annotations

import json

import pytest

testinfra_hosts = ["fleet"]

CONFIG = "/etc/mlops-fleet/config.json"


@pytest.mark.parametrize(
    ("path", "mode", "user", "group"),
    [
        (CONFIG, 0o640, "root", "mlops-fleet"),
        ("/etc/mlops-fleet", 0o750, "root", "mlops-fleet"),
        ("/var/lib/mlops-fleet", 0o750, "mlops-fleet", "mlops-fleet"),
        ("/opt/mlops-fleet", 0o755, "root", "root"),
        ("/opt/mlops-fleet/current/mlops_fleet/mlfleet/entry.py", 0o644, "root", "root"),
        ("/usr/local/bin/mlfleet", 0o755, "root", "root"),
        ("/usr/share/bash-completion/completions/mlfleet", 0o644, "root", "root"),
        ("/usr/local/share/man/man1/mlfleet.1", 0o644, "root", "root"),
        ("/var/log/ml-backup.log", 0o640, "root", "mlops-fleet"),
        ("/var/log/gpu-monitor.log", 0o640, "mlops-fleet", "mlops-fleet"),
        ("/var/log/ml-health-check.log", 0o640, "mlops-fleet", "mlops-fleet"),
        ("/run/lock/mlops-fleet/jobs.lock", 0o660, "root", "mlops-fleet"),
        ("/var/lib/mlops-fleet/alert", 0o700, "mlops-fleet", "mlops-fleet"),
        ("/var/lib/mlops-fleet/last", 0o750, "mlops-fleet", "mlops-fleet"),
        ("/backup", 0o755, "root", "root"),
        ("/backup/models", 0o750, "root", "mlops-fleet"),
    ],
)
def test_owners_and_modes(host, path, mode, user, group):
    found = host.file(path)
    assert (oct(found.mode), found.user, found.group) == (oct(mode), user, group)


def test_the_user_can_not_log_in_and_is_nobody_special(host):
    user = host.user("mlops-fleet")
    assert (
        user.shell == "/usr/sbin/nologin"
        and user.home == "/var/lib/mlops-fleet"
        and not host.file("/home/mlops-fleet").exists
    )
    assert set(user.groups) <= {"mlops-fleet", "adm", "systemd-journal", "video", "render"}
    assert host.check_output("getent shadow mlops-fleet").split(":")[1].startswith(("!", "*"))
    assert not host.run("find / -xdev -user mlops-fleet -perm /6000").stdout


def test_no_package_was_installed(host):
    """Python was asked first: without a repository, apt would have failed, and its Ansible module
    needs python3-apt."""
    assert host.check_output("umask") in ("0077", "0027")
    no_cache = "-o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache="
    assert host.run(f"apt-get {no_cache} install -y python3-apt").rc != 0
    assert host.run("dpkg-query --show python3-apt").rc != 0


def test_the_user_who_installed_has_no_home_and_no_sudo_without_a_terminal(host):
    """The installation went through it (converge.yml), so the conditions must be real."""
    if host.check_output("hostname") != "node13":
        pytest.skip("this node was installed by root")
    assert not host.file(host.user("deploy").home).exists
    refused = host.run("runuser -u deploy -- setsid sudo -n true < /dev/null")
    assert refused.rc != 0 and "tty" in refused.stderr
    said = host.check_output("journalctl --sync; journalctl -o cat -t sudo")
    assert "deploy" in said and "COMMAND" in said
    # A member of the group needs no home either.
    host.check_output("usermod --append --groups mlops-fleet deploy")
    try:
        for arguments in ("health --json", "status", "config", "gpu --no-alert"):
            done = host.run(f"runuser -u deploy -- mlfleet {arguments}")
            assert done.rc in (0, 1, 2), (arguments, done.stderr)
            assert "nonexistent" not in done.stdout + done.stderr
        # The lock is one for the node, whoever holds it.
        host.check_output(
            "systemd-run --unit=holder --uid=deploy --gid=mlops-fleet"
            " flock /run/lock/mlops-fleet/jobs.lock sleep 600; sleep 1"
        )
        refused = host.run("mlfleet cleanup")
        host.check_output("systemctl stop holder.service")
        assert refused.rc == 3
        assert "Another job of mlfleet is running (process " in refused.stderr
        assert "flock /run/lock/mlops-fleet/jobs.lock" in refused.stderr
    finally:
        host.check_output("gpasswd --delete deploy mlops-fleet")


def test_files_are_labelled_where_selinux_has_its_tool(host):
    if host.check_output("hostname") != "node13":
        pytest.skip("this node has no restorecon")
    labelled = host.check_output("journalctl --sync; journalctl -o cat -t restorecon")
    assert "-R -v /opt/mlops-fleet /usr/local/bin/mlfleet /etc/mlops-fleet" in labelled


def test_current_names_one_version_and_the_command_runs_it(host):
    version = host.check_output("cat /opt/mlops-fleet/current/mlops_fleet/VERSION")
    link = host.check_output("realpath /opt/mlops-fleet/current")
    assert link == host.check_output(f"realpath /opt/mlops-fleet/versions/{version}")
    assert host.check_output("ls /opt/mlops-fleet/versions") == version
    assert host.check_output("mlfleet --version") == f"mlfleet {version}"
    files = host.check_output("cd /opt/mlops-fleet/current && find -L . -type f").split()
    assert files and all(path.endswith((".py", ".pyc", "/VERSION")) for path in files)


def test_others_read_no_configuration_and_write_nothing(host):
    assert "hush-hush" in host.check_output(f"cat {CONFIG}")
    assert host.run(f"runuser -u nobody -- cat {CONFIG}").rc != 0
    assert "hush-hush" in host.check_output(f"runuser -u mlops-fleet -- cat {CONFIG}")
    for user in ("nobody", "mlops-fleet"):
        writable = host.check_output(
            f"runuser -u {user} -- find -L /etc/mlops-fleet /opt/mlops-fleet /usr/local/bin "
            "/usr/share/bash-completion"
            " /etc/systemd/system /etc/logrotate.d -xdev '(' -type f -o -type d ')' -writable "
            "2>/dev/null || true"
        )
        assert writable == ""
    for path in ("/var/log/ml-backup.log", "/var/log/gpu-monitor.log", "/var/log/gpu-metrics.csv"):
        assert host.run(f"runuser -u nobody -- cat {path}").rc != 0
    assert host.run("runuser -u mlops-fleet -- sh -c 'echo x >> /var/log/ml-backup.log'").rc != 0


def test_the_service_user_gets_json_and_nothing_else(host):
    done = host.run("runuser -u mlops-fleet -- mlfleet gpu --json")
    document = json.loads(done.stdout)
    assert done.rc == 0 and document["gpus"] == [] and document["summary"]["status"] == "skipped"
    done = host.run("runuser -u mlops-fleet -- mlfleet health --json")
    # The kernel log is the whole machine's, so others' tests may make this node look unhealthy.
    assert done.rc in (0, 1, 2) and json.loads(done.stdout)["summary"]["total"] > 3
    # The journal is open to it through its groups.
    assert not [
        check for check in json.loads(done.stdout)["checks"] if "ermission" in check["message"]
    ]
    assert "no log is written" not in done.stderr


def test_the_message_names_who_may_read_the_configuration(host):
    done = host.run("runuser -u nobody -- mlfleet gpu")
    assert (
        done.rc == 3
        and "can't be read by nobody" in done.stderr
        and "member of the group mlops-fleet" in done.stderr
    )


def test_the_installation_started_every_job_in_its_own_unit(host):
    """The backup for real, the cleanup as a rehearsal, a test message to everybody; nothing of the
    trial stays."""
    for unit in ("ml-health-check", "gpu-monitor", "ml-backup", "ml-cleanup"):
        shown = host.check_output(
            f"systemctl show {unit}.service -p "
            "Result,ExecMainStartTimestamp,Environment,NeedDaemonReload"
        )
        assert "Result=success" in shown and "ExecMainStartTimestamp=\n" not in shown + "\n", shown
        assert "NeedDaemonReload=no" in shown and "REHEARSE" not in shown
    assert host.check_output("find /run/systemd -name '*trial*'") == ""
    # Converging twice made one backup: the second time nothing had changed.
    assert len(host.check_output("ls /srv/ml/backups/models_backup_*.tar.gz").split()) == 1
    assert "cleanup started (dry run)" in host.check_output("cat /var/log/ml-cleanup.log")
    assert len(host.check_output("ls /srv/ml/experiments").split()) == 5
    tests = host.check_output(
        "journalctl --sync; journalctl -o json -u 'mlops-fleet-alert@trial-*' | grep -c "
        "'Connection refused' || true"
    )
    assert int(tests) >= 1, "the alert unit sent no test message"
    assert host.check_output("systemctl --failed --no-legend") == ""


def test_the_doctor_finds_the_node_ready(host):
    done = host.run("mlfleet doctor --json")
    checks = {
        (check["check"], check.get("subject", "")): check["status"]
        for check in json.loads(done.stdout)["checks"]
    }
    assert done.rc in (0, 1), done.stdout
    for name in ("health", "gpu", "backup", "cleanup"):
        assert checks[f"job {name}", name] == "pass"
    assert (
        checks["configuration permissions", CONFIG] == "pass"
        and checks["schedule", ""] == "pass"
        and checks["alerts", ""] == "pass"
    )
    assert (
        checks["last run", "gpu-monitor.service"] == "pass"
        and checks["last run", "ml-health-check.service"] == "pass"
    )
    assert "critical" not in checks.values()


def test_the_doctor_finds_a_unit_that_systemd_can_not_start(host):
    directory = "/run/systemd/system/gpu-monitor.service.d"
    host.check_output(
        f"mkdir -p {directory} && printf '[Service]\\nWorkingDirectory=/nowhere\\n' > "
        f"{directory}/test.conf && systemctl daemon-reload"
    )
    try:
        assert host.run("systemctl start gpu-monitor.service").rc != 0
        done = host.run("mlfleet doctor")
        assert (
            done.rc == 2
            and "gpu-monitor.service failed when it was last started (exit-code, status "
            in done.stdout
        )
    finally:
        host.check_output(
            f"rm -r {directory} && systemctl daemon-reload && systemctl reset-failed "
            "gpu-monitor.service && systemctl start gpu-monitor.service"
        )


def test_the_doctor_uses_the_old_variables_that_the_jobs_get(host):
    host.check_output("echo MODEL_DIR=/nowhere/models >> /etc/ml-automation.conf")
    try:
        done = host.run("mlfleet doctor --run backup")
        assert done.rc == 2 and "The source /nowhere/models does not exist" in done.stdout
        assert (
            "ml-backup.service was not started: backup can't run"
            in host.run("mlfleet doctor --run backup --verbose").stdout
        )
    finally:
        host.check_output("sed -i /MODEL_DIR/d /etc/ml-automation.conf")


def test_a_stopped_trial_leaves_the_cleanup_as_it_was(host):
    """Stopped while the cleanup's unit waits for the lock of another job."""
    host.check_output("systemd-run --unit=holder flock /run/lock/mlops-fleet/jobs.lock sleep 600")
    text = "[Service]\\nExecStart=\\nExecStart=/usr/local/bin/mlfleet cleanup --wait 600\\n"
    host.check_output(
        f"mkdir -p /run/systemd/system/ml-cleanup.service.d && printf '{text}' > "
        "/run/systemd/system/ml-cleanup.service.d/wait.conf"
    )
    host.check_output(
        "systemctl daemon-reload; systemd-run --unit=trial /usr/local/bin/mlfleet doctor --run "
        "cleanup"
    )
    try:
        host.check_output(
            "for n in $(seq 60); do pgrep -f '[m]lfleet cleanup --wait' && break; sleep 0.5; done"
        )
        assert "MLFLEET_REHEARSE_CLEANUP_UNTIL=" in host.check_output(
            "systemctl cat ml-cleanup.service"
        )
        host.check_output("systemctl stop trial.service")
        assert "MLFLEET_REHEARSE" not in host.check_output("systemctl cat ml-cleanup.service")
        reload = "systemctl show -P NeedDaemonReload ml-cleanup.service"
        assert host.check_output(reload) == "no"
    finally:
        host.check_output(
            "systemctl stop holder.service ml-cleanup.service; rm -r "
            "/run/systemd/system/ml-cleanup.service.d; systemctl daemon-reload"
        )
        host.check_output("systemctl reset-failed; systemctl start ml-cleanup.service")


def test_the_doctor_finds_a_node_that_is_not(host):
    host.check_output(f"chmod 0644 {CONFIG}")
    try:
        done = host.run("mlfleet doctor")
        assert done.rc == 2 and "0644" in done.stdout
    finally:
        host.check_output(f"chmod 0640 {CONFIG}")


def test_no_secret_in_process_lists_journal_or_output(host):
    """Every command line of the node while the jobs run, sampled; the journal has Ansible's own
    record of its modules too."""
    watch = (
        "while [ ! -e /tmp/stop ]; do cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ "
        "2>/dev/null | tr '\\0' '\\n' | grep -c [h]ush-hush; done > /tmp/seen & "
        "mlfleet doctor --verbose > /tmp/said 2>&1; mlfleet config >> /tmp/said; mlfleet "
        "backup >> /tmp/said 2>&1;"
        " mlfleet alert --test >> /tmp/said 2>&1; touch /tmp/stop; wait"
    )
    host.check_output(
        f"rm -f /tmp/stop /tmp/seen /tmp/said; cat > /tmp/watch.sh <<'END'\n{watch}\nEND\nbash "
        "/tmp/watch.sh"
    )
    samples = host.check_output("cat /tmp/seen").split()
    assert len(samples) > 5 and set(samples) == {"0"}
    assert "hush-hush" not in host.check_output(
        "cat /tmp/said"
    ) and "HUSH" not in host.check_output("cat /tmp/said")
    journal = host.check_output("journalctl --output=verbose --no-pager | grep -ci [h]ush || true")
    assert host.run("journalctl | grep -c Invoked").stdout.strip() != "0" and journal == "0"
    host.check_output("rm /tmp/watch.sh /tmp/stop /tmp/seen /tmp/said")


def test_bash_finds_the_completion(host):
    program = (
        "source /usr/share/bash-completion/completions/mlfleet; COMP_WORDS=(mlfleet backup "
        "--s3-bu); COMP_CWORD=2; _mlfleet;"
        ' echo "${COMPREPLY[*]}"; complete -p mlfleet'
    )
    assert host.check_output("bash -c %s", program).splitlines() == [
        "--s3-bucket",
        "complete -F _mlfleet mlfleet",
    ]


def test_old_variables_take_effect_in_the_timers_jobs(host):
    """A limit that every disk breaks, in the old scripts' file: the health job that its timer
    starts warns."""
    assert "DISK_WARN_THRESHOLD=80" in host.check_output("cat /etc/ml-automation.conf")
    log = "/var/log/ml-health-check.log"
    host.check_output(
        "sed -i s/DISK_WARN_THRESHOLD=80/DISK_WARN_THRESHOLD=0.001/ /etc/ml-automation.conf"
    )
    try:
        before = int(host.check_output(f"grep -c 'Disk usage' {log} || true"))
        host.run("systemctl start ml-health-check.service")
        assert int(host.check_output(f"grep -c 'WARNING. Disk usage' {log}")) > before
    finally:
        host.check_output(
            "sed -i s/DISK_WARN_THRESHOLD=0.001/DISK_WARN_THRESHOLD=80/ /etc/ml-automation.conf"
        )
