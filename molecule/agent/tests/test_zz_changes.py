# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes to installed nodes by playbook, in this order: mistakes, upgrade while jobs run, rollback, virtual environment, removal."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import testinfra

testinfra_hosts = ["local://"]

NODES = ("node12", "node13")
PYTHONS = {"node12": "3.11", "node13": "3.13"}
EPHEMERAL = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
PROJECT = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])
ENVIRONMENT = {**os.environ, "ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1"}
INVENTORY = EPHEMERAL / "inventory"


def node(name):
    return testinfra.get_host(f"ansible://{name}?ansible_inventory={INVENTORY}")


def play(playbook, collections=None, words=(), **variables):
    """Run a playbook on the nodes as people do; C(collections) is another collections path than the checkout's."""
    env = (
        {**ENVIRONMENT, "ANSIBLE_COLLECTIONS_PATH": str(collections)}
        if collections
        else ENVIRONMENT
    )
    argv = [
        "ansible-playbook",
        "--inventory",
        str(INVENTORY),
        playbook,
        "-e",
        json.dumps({"maintenance_hosts": "fleet", **variables}),
        *words,
    ]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=600, check=False, env=env)
    done.words = re.sub(r"\s+", " ", done.stdout + done.stderr)
    return done


def role(collections=None, words=(), **variables):
    """Run the role alone."""
    path = EPHEMERAL / "agent_role.yml"
    path.write_text(
        json.dumps([{"hosts": "fleet", "gather_facts": False, "roles": ["mlops.fleet.agent"]}]),
        encoding="utf-8",
    )
    return play(str(path), collections, words, **variables)


def versions(host):
    return {
        name: host.run(f"basename $(readlink /opt/mlops-fleet/{name})").stdout.strip()
        for name in ("current", "previous")
    }


@pytest.fixture(scope="module")
def newer():
    """A collections path with the next release: version 0.2.0, whose backups give another reason."""
    place = EPHEMERAL / "newer" / "ansible_collections" / "mlops" / "fleet"
    shutil.rmtree(EPHEMERAL / "newer", ignore_errors=True)
    place.mkdir(parents=True)
    for name in ("plugins", "roles", "playbooks", "meta"):
        shutil.copytree(PROJECT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    text = (PROJECT / "galaxy.yml").read_text(encoding="utf-8")
    (place / "galaxy.yml").write_text(
        re.sub(r"(?m)^version:.*$", "version: 0.2.0", text), encoding="utf-8"
    )
    plan = place / "plugins" / "module_utils" / "_core" / "backup" / "make" / "plan.py"
    old = plan.read_text(encoding="utf-8")
    assert old.count('"forced"') == 1
    plan.write_text(old.replace('"forced"', '"forced by 0.2.0"'), encoding="utf-8")
    return EPHEMERAL / "newer"


def test_the_module_and_the_command_give_the_same_document():
    """The same checks, verdicts and summary by both ways; only what changes from moment to moment is left out."""
    for name in NODES:
        argv = [
            "ansible",
            "--inventory",
            str(INVENTORY),
            name,
            "-m",
            "mlops.fleet.node_health",
            "-a",
            json.dumps({"network": False, "services": ["ssh", "cron"]}),
        ]
        out = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
            env={**ENVIRONMENT, "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"},
        ).stdout
        module = json.loads(out[out.index("{") :])
        command = json.loads(node(name).run("mlfleet health --json").stdout)
        assert set(command) == set(module) - {"changed", "duration", "agent_version"}

        def plain(document):
            return [
                (
                    check["check"],
                    check["status"],
                    check.get("subject"),
                    check.get("warn"),
                    check.get("crit"),
                    check.get("unit"),
                )
                for check in document["checks"]
            ]

        assert plain(module) == plain(command) and len(plain(module)) > 8
        assert (
            module["summary"] == command["summary"]
            and module["recommendation"] == command["recommendation"]
        )
        assert module["agent_version"] == versions(node(name))["current"]


def test_a_mistake_in_the_configuration_is_named_and_the_old_one_stays():
    before = [node(name).check_output("md5sum /etc/mlops-fleet/config.json") for name in NODES]
    done = role(
        agent_config={
            "gpu": {"temperature_warnin": 80},
            "alert": {"webhooks": [{"name": "x", "url": "http://127.0.0.1/hush-hush-new"}]},
        }
    )
    assert done.returncode != 0
    assert (
        "Unknown option temperature_warnin" in done.words
        and "the old configuration is still in force" in done.words
    )
    assert "hush-hush-new" not in done.stdout + done.stderr
    assert [
        node(name).check_output("md5sum /etc/mlops-fleet/config.json") for name in NODES
    ] == before


@pytest.mark.parametrize(
    ("python", "words"),
    [
        ("/usr/bin/missing", "/usr/bin/missing"),
        ("/bin/false", "/bin/false is not a Python that works"),
    ],
)
def test_a_wrong_python_is_named_and_the_command_still_runs(python, words):
    done = role(agent_python=python)
    assert done.returncode != 0 and words in done.words and "Traceback" not in done.stdout
    for name in NODES:
        assert node(name).run("mlfleet config --check").rc == 0


def test_upgrade_while_a_job_runs_and_a_timer_fires(newer):
    before = {name: versions(node(name)) for name in NODES}
    runs = {}
    for name in NODES:
        host = node(name)
        # The GPU job every second, and a backup that waits for the lock of another job: it has started, but not imported what it needs.
        host.check_output(
            "mkdir -p /run/systemd/system/gpu-monitor.timer.d /run/systemd/system/gpu-monitor.service.d"
            " && printf '[Unit]\\nStartLimitIntervalSec=0\\n' > /run/systemd/system/gpu-monitor.service.d/test.conf"
            " && printf '[Timer]\\nOnCalendar=\\nOnCalendar=*:*:*\\nRandomizedDelaySec=0\\nAccuracySec=10ms\\n'"
            " > /run/systemd/system/gpu-monitor.timer.d/test.conf && systemctl daemon-reload && systemctl restart gpu-monitor.timer"
        )
        host.check_output(
            "mkdir -p -m 0700 /run/lock/mlops-fleet; systemd-run --unit=holder flock /run/lock/mlops-fleet/jobs.lock sleep 600"
        )
        host.check_output(
            "systemd-run --unit=running --property=RemainAfterExit=yes /usr/local/bin/mlfleet backup --force --json --wait 600"
        )
        runs[name] = host.check_output("date +%s")
    done = role(newer)
    assert done.returncode == 0, done.stdout
    assert "changed=0" not in done.stdout.partition("RECAP")[2]
    time.sleep(3)
    for name in NODES:
        host = node(name)
        host.check_output(
            "rm -r /run/systemd/system/gpu-monitor.*.d && systemctl daemon-reload && systemctl restart gpu-monitor.timer"
        )
        now = versions(host)
        assert now["current"].startswith("0.2.0-") and now["previous"] == before[name]["current"]
        assert host.check_output("mlfleet --version") == f"mlfleet {now['current']}"
        fired = host.check_output(
            f"journalctl --sync; journalctl -u gpu-monitor.service -o cat --since @{runs[name]}"
        )
        assert fired.count("Finished") + fired.count("Deactivated successfully") >= 3
        assert "Traceback" not in fired and "Failed" not in fired, fired
        # The waiting backup goes on, on the version it was started with.
        host.check_output("systemctl stop holder.service")
        deadline = time.monotonic() + 60
        while host.check_output("systemctl show -p SubState --value running.service") != "exited":
            assert time.monotonic() < deadline, host.check_output(
                "systemctl status running.service || true"
            )
            time.sleep(0.5)
        said = host.check_output("journalctl --sync; journalctl -u running.service -o cat")
        assert '"reason": "forced"' in said and "0.2.0" not in said
        host.check_output("systemctl stop running.service")
        assert '"reason": "forced by 0.2.0"' in host.check_output("mlfleet backup --force --json")
        assert host.check_output("ls /opt/mlops-fleet/versions").split() == sorted(
            [now["current"], now["previous"]]
        )


def test_the_fleet_report_says_whose_agent_is_not_the_collections(tmp_path, newer):
    variables = {
        "maintenance_run_gpu": False,
        "maintenance_run_backup": False,
        "maintenance_run_cleanup": False,
        "maintenance_health_network": False,
    }
    variables.update(
        maintenance_health_services=["ssh"], fleet_report_dir=str(tmp_path), fleet_report_gate=False
    )
    done = play("mlops.fleet.maintenance", **variables)
    assert done.words.count("is newer than the collection") >= len(NODES), done.stdout
    done = play("mlops.fleet.maintenance", newer, **variables)
    assert ": note: " not in done.words
    assert role(agent_state="rolled_back").returncode == 0
    done = play("mlops.fleet.maintenance", newer, **variables)
    assert done.words.count("is older than the collection") >= len(NODES)
    report = json.loads((tmp_path / "latest.json").read_text(encoding="utf-8"))
    assert all(
        "is older than" in host["notes"][0] and host["agent_version"].startswith("0.1.0-")
        for host in report["hosts"]
    )


def test_rolled_back_the_old_version_runs_and_installing_it_changes_nothing():
    for name in NODES:
        now = versions(node(name))
        assert now["current"].startswith("0.1.0-") and now["previous"].startswith("0.2.0-")
        assert node(name).check_output("mlfleet --version") == f"mlfleet {now['current']}"
        assert node(name).run("systemctl start ml-backup.service").rc == 0
    done = role()
    assert done.returncode == 0 and done.stdout.count("changed=0 ") == len(NODES), done.stdout


def test_without_the_means_for_a_virtual_environment_the_role_says_what_to_install():
    for name in NODES:
        node(name).check_output(
            f"mv /usr/lib/python{PYTHONS[name]}/ensurepip /usr/lib/python{PYTHONS[name]}/ensurepip.away"
        )
    try:
        done = role(agent_dependencies="venv")
        assert (
            done.returncode != 0
            and done.words.count("apt-get install python3-venv") >= len(NODES)
            and "Traceback" not in done.stdout
        )
    finally:
        for name in NODES:
            node(name).check_output(
                f"mv /usr/lib/python{PYTHONS[name]}/ensurepip.away /usr/lib/python{PYTHONS[name]}/ensurepip"
            )


@pytest.fixture
def no_index():
    """Nothing can be fetched by the nodes, so the wheels are all there is."""
    for name in NODES:
        node(name).check_output(
            "printf '[global]\\nindex-url = http://127.0.0.1:9/simple\\n' > /etc/pip.conf"
        )
    yield
    for name in NODES:
        node(name).check_output("rm /etc/pip.conf")


def test_a_virtual_environment_from_carried_wheels(no_index):
    wheels = EPHEMERAL / "wheels"
    for python in PYTHONS.values():
        argv = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--dest",
            wheels,
            "--only-binary=:all:",
            "--python-version",
            python,
        ]
        done = subprocess.run(
            [*argv, "psutil", "nvidia-ml-py", "boto3"], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            pytest.skip("the wheels can't be downloaded here: " + done.stderr.strip()[-200:])
    variables = {"agent_dependencies": "venv", "agent_wheelhouse": str(wheels)}
    assert role(**variables, words=["--check"]).returncode == 0
    assert not node("node12").file("/opt/mlops-fleet/venv").exists
    # node12: as an earlier release left it, with everything closed to the service user; and a distribution whose /usr is read-only.
    node("node12").check_output("umask 077; /usr/bin/python3 -m venv /opt/mlops-fleet/venv")
    completion = "/usr/share/bash-completion/completions/mlfleet"
    node("node12").check_output(
        f"rm {completion}; mkdir /var/local-of-usr; cp -a /usr/local/. /var/local-of-usr/; mount --bind /usr /usr"
        " && mount --bind /var/local-of-usr /usr/local && mount -o remount,ro,bind /usr"
    )
    done = role(**variables)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.words.count("WARNING: no completion of mlfleet") == 1
    assert not node("node12").file(completion).exists and node("node13").file(completion).exists
    python = "/opt/mlops-fleet/venv/bin/python3"
    for name in NODES:
        host = node(name)
        assert host.check_output("head -1 /usr/local/bin/mlfleet") == f"#!{python} -I"
        places = host.check_output(
            f"{python} -c 'import psutil, pynvml, boto3; print(psutil.__file__, pynvml.__file__, boto3.__file__)'"
        )
        assert places.count("/opt/mlops-fleet/venv/") == 3
        assert host.run("runuser -u mlops-fleet -- mlfleet health --json").rc in (0, 1, 2)
        assert host.run("systemctl start gpu-monitor.service ml-backup.service").rc == 0
    done = role(**variables)
    assert done.returncode == 0 and done.stdout.count("changed=0 ") == len(NODES), done.stdout
    host = node("node12")
    host.check_output(
        "umount --lazy /usr/local; umount --lazy /usr; cp -a /var/local-of-usr/. /usr/local/; rm -r /var/local-of-usr"
    )
    # What closes the command to the service user is named; the command itself is open.
    host.check_output("chmod 0700 /opt/mlops-fleet/venv")
    assert host.run("systemctl start gpu-monitor.service").rc != 0
    said = host.run("mlfleet doctor").stdout
    assert "mlops-fleet may not use /opt/mlops-fleet/venv (root:root, mode 0700)" in said
    host.check_output("systemctl reset-failed gpu-monitor.service")


def test_zz_uninstalled_the_node_is_as_before():
    for name in NODES:
        # Rotated logs are ours too; a file of another program in our directory is not.
        node(name).check_output(
            "logrotate --force --state /tmp/rotation.state /etc/logrotate.d/mlops-fleet; rm /tmp/rotation.state; touch /opt/mlops-fleet/not-ours"
        )
        # A backup is running (it waits for its turn), and files of the accounts are left in a directory of ours.
        node(name).check_output(
            "systemd-run --unit=holder flock /run/lock/mlops-fleet/jobs.lock sleep 600; sleep 1; systemctl start --no-block ml-backup.service;"
            " install -o mlops-fleet -g mlops-fleet /dev/null /backup/models/kept"
        )
    done = play("mlops.fleet.uninstall")
    assert done.returncode == 0, done.stdout
    for name in NODES:
        node(name).check_output("systemctl stop holder.service")
        assert (
            node(name).check_output("systemctl list-units --all --no-legend 'ml-*' 'gpu-*'") == ""
        )
        kept = "stat --format='%U:%G %a' /backup /backup/models /backup/models/kept"
        assert node(name).check_output(kept).splitlines() == [
            "root:root 755",
            "root:root 750",
            "root:root 755",
        ]
        assert node(name).run("find / -xdev '(' -nouser -o -nogroup ')'").stdout == ""
        node(name).check_output("rm -r /backup/models")
        assert (
            node(name).check_output("find /opt/mlops-fleet/")
            == "/opt/mlops-fleet/\n/opt/mlops-fleet/not-ours"
        )
        node(name).check_output("rm /opt/mlops-fleet/not-ours")
    assert play("mlops.fleet.uninstall").returncode == 0
    assert play("mlops.fleet.uninstall").stdout.count("changed=0 ") == len(NODES)
    for name in NODES:
        host = node(name)
        difference = host.run("/root/list_files.sh | diff /root/before -").stdout
        assert difference == "", f"{name}:\n{difference}"
        assert host.run("getent passwd mlops-fleet || getent group mlops-fleet").rc != 0
        assert host.run("ls /srv/ml/backups/models_backup_*.tar.gz").rc == 0, "backups stay"


def test_zzz_accounts_and_directories_that_were_there_before_stay_as_they_are():
    own = {
        "agent_user": "mluser",
        "agent_group": "mlteam",
        "agent_backup_dir": "/srv/mine",
        "agent_config_dir": "/etc/my-fleet",
    }
    look = "getent passwd mluser; getent group; stat -c '%U %G %a' /srv/mine"
    before = {}
    for name in NODES:
        node(name).check_output(
            "useradd --create-home --comment Person --shell /bin/bash mluser; groupadd mlteam; install -d -o mluser -g mluser /srv/mine"
        )
        before[name] = node(name).check_output(look)
    for state in ("present", "absent"):
        done = role(agent_state=state, **own)
        assert done.returncode == 0, done.stdout
        for name in NODES:
            assert node(name).check_output(look) == before[name], state
            if state == "present":
                assert "can be used (/etc/my-fleet/config.json)" in node(name).check_output(
                    "mlfleet config --check"
                )
    for name in NODES:
        assert (
            not node(name).file("/etc/my-fleet").exists
            and not node(name).file("/usr/local/bin/mlfleet").exists
        )
        node(name).check_output("userdel --remove mluser; groupdel mlteam; rmdir /srv/mine")
