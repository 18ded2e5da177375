# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes to installed nodes by playbook, in this order: mistakes, upgrade while jobs run,
rollback."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time

import pytest
from playing import (
    ENVIRONMENT,
    EPHEMERAL,
    INVENTORY,
    NODES,
    PROJECT,
    PYTHONS,
    node,
    per_node,
    play,
    role,
    versions,
)

testinfra_hosts = ["local://"]


@pytest.fixture(scope="module")
def newer():
    """A collections path with the next release, 0.2.0, whose backups give another reason."""
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
    """The same checks, verdicts and summary by both ways; only what changes from moment to moment
    is left out."""
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


@pytest.fixture
def no_ensurepip():
    """On one node Python has not what makes virtual environments, as Debian's without
    python3-venv."""
    path = f"/usr/lib/python{PYTHONS['node13']}/ensurepip"
    node("node13").check_output(f"mv {path} {path}.away")
    yield
    node("node13").check_output(f"mv {path}.away {path}")


def test_mistakes_are_named_and_what_was_installed_stays(no_ensurepip):
    """In the configuration of one node, and in what another one needs for a virtual environment."""
    before = [node(name).check_output("md5sum /etc/mlops-fleet/config.json") for name in NODES]
    mistaken = {
        "gpu": {"temperature_warnin": 80},
        "alert": {"webhooks": [{"name": "x", "url": "http://127.0.0.1/hush-hush-new"}]},
    }
    done = role(
        agent_config=mistaken, agent_dependencies=per_node(node12="packages", node13="venv")
    )
    assert done.returncode == 2 and done.stdout.count("failed=1 ") == len(NODES)
    assert "Unknown option temperature_warnin" in done.words
    assert "the old configuration is still in force" in done.words
    assert "hush-hush-new" not in done.stdout + done.stderr
    assert "apt-get install python3-venv" in done.words and "Traceback" not in done.stdout
    assert [
        node(name).check_output("md5sum /etc/mlops-fleet/config.json") for name in NODES
    ] == before


def test_a_wrong_python_is_named_and_the_command_still_runs():
    done = role(agent_python=per_node(node12="/usr/bin/missing", node13="/bin/false"))
    assert done.returncode == 2 and done.stdout.count("failed=1 ") == len(NODES)
    assert (
        "/usr/bin/missing" in done.words and "/bin/false is not a Python that works" in done.words
    )
    assert "Traceback" not in done.stdout
    for name in NODES:
        assert node(name).run("mlfleet config --check").rc == 0


def test_upgrade_while_a_job_runs_and_a_timer_fires(newer):
    before = {name: versions(node(name)) for name in NODES}
    runs = {}
    for name in NODES:
        host = node(name)
        # The GPU job every second, and a backup that waits for the lock of another job: it has
        # started, but not imported what it needs.
        host.check_output(
            "mkdir -p /run/systemd/system/gpu-monitor.timer.d "
            "/run/systemd/system/gpu-monitor.service.d"
            " && printf '[Unit]\\nStartLimitIntervalSec=0\\n' > "
            "/run/systemd/system/gpu-monitor.service.d/test.conf"
            " && printf '[Timer]\\nOnCalendar=\\nOnCalendar=*:*:*\\n"
            "RandomizedDelaySec=0\\nAccuracySec=10ms\\n'"
            " > /run/systemd/system/gpu-monitor.timer.d/test.conf && systemctl daemon-reload "
            "&& systemctl restart gpu-monitor.timer"
        )
        host.check_output(
            "mkdir -p -m 0700 /run/lock/mlops-fleet; systemd-run --unit=holder flock "
            "/run/lock/mlops-fleet/jobs.lock sleep 600"
        )
        host.check_output(
            "systemd-run --unit=running --property=RemainAfterExit=yes /usr/local/bin/mlfleet "
            "backup --force --json --wait 600"
        )
        runs[name] = host.check_output("date +%s")
    done = role(newer)
    assert done.returncode == 0, done.stdout
    assert "changed=0" not in done.stdout.partition("RECAP")[2]
    time.sleep(3)
    for name in NODES:
        host = node(name)
        host.check_output(
            "rm -r /run/systemd/system/gpu-monitor.*.d && systemctl daemon-reload && systemctl "
            "restart gpu-monitor.timer"
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
    # One node goes back; the other has what the collection has.
    done = role(newer, agent_state=per_node(node12="rolled_back", node13="present"))
    assert done.returncode == 0, done.stdout
    done = play("mlops.fleet.maintenance", newer, **variables)
    assert done.words.count("is older than the collection") == 1
    report = json.loads((tmp_path / "latest.json").read_text(encoding="utf-8"))
    hosts = {host["host"]: host for host in report["hosts"]}
    assert "is older than" in hosts["node12"]["notes"][0]
    assert hosts["node12"]["agent_version"].startswith("0.1.0-")
    assert hosts["node13"].get("notes", []) == []


def test_rolled_back_the_old_version_runs_and_installing_it_changes_nothing():
    done = role(agent_state=per_node(node12="present", node13="rolled_back"))
    assert done.returncode == 0, done.stdout
    assert re.search(r"node12 .* changed=0 ", done.words.partition("RECAP")[2])
    for name in NODES:
        now = versions(node(name))
        assert now["current"].startswith("0.1.0-") and now["previous"].startswith("0.2.0-")
        assert node(name).check_output("mlfleet --version") == f"mlfleet {now['current']}"
        assert node(name).run("systemctl start ml-backup.service").rc == 0
