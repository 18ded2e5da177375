# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes to installed nodes by playbook, in this order: mistakes, upgrade while jobs run, rollback, virtual environment, removal."""

from __future__ import annotations

import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
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
    """Run the role alone; it starts no job."""
    moment = int(time.time())
    path = EPHEMERAL / "agent_role.yml"
    path.write_text(
        json.dumps([{"hosts": "fleet", "gather_facts": False, "roles": ["mlops.fleet.agent"]}]),
        encoding="utf-8",
    )
    done = play(str(path), collections, words, **variables)
    for name in NODES:
        assert starts_since(node(name), moment) == []
    return done


def per_node(**values):
    """A variable that has another value on each node."""
    return "{{ (" + repr(values) + ")[inventory_hostname] }}"


def starts_since(host, moment):
    """Which of the jobs that change something systemd has started since a moment; none of them is due while these tests run."""
    return host.run(
        f"journalctl --sync; journalctl -o cat _PID=1 --since @{moment} | grep -E 'Starting ml-(backup|cleanup|maintenance)'"
    ).stdout.splitlines()


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


@pytest.fixture
def no_ensurepip():
    """On one node Python has not what makes virtual environments, as Debian's without python3-venv."""
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


@pytest.fixture(scope="module")
def wheels():
    """A directory with the wheels of the libraries for both nodes."""
    directory = EPHEMERAL / "wheels"
    for python in PYTHONS.values():
        argv = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--dest",
            directory,
            "--only-binary=:all:",
            "--python-version",
            python,
        ]
        done = subprocess.run(
            [*argv, "psutil", "nvidia-ml-py", "boto3"], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            pytest.skip("the wheels can't be downloaded here: " + done.stderr.strip()[-200:])
    return directory


@pytest.fixture
def proxy(wheels):
    """A package index that only a proxy reaches; yields its port and what was asked for."""
    asked = []

    class Proxy(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            last = self.path.rstrip("/").rpartition("/")[2]
            body = b""
            if self.path.startswith("http://packages.invalid/files/"):
                body = (wheels / last).read_bytes()
            elif self.path.startswith("http://packages.invalid/simple/"):
                body = "".join(
                    f'<a href="http://packages.invalid/files/{wheel.name}">{wheel.name}</a>\n'
                    for wheel in wheels.iterdir()
                    if wheel.name.partition("-")[0].lower().replace("_", "-") == last
                ).encode()
            self.send_response(200 if body else 404)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("", 0), Proxy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port, asked
    server.shutdown()
    server.server_close()


@pytest.fixture
def package_indexes(proxy):
    """node12 reaches no package index, so the wheels are all there is; node13 has one behind a proxy."""
    port, dummy = proxy
    old = {name: node(name).run("cat /etc/environment").stdout for name in NODES}
    node("node12").check_output(
        "printf '[global]\nindex-url = http://127.0.0.1:9/simple\n' > /etc/pip.conf"
    )
    node("node13").check_output(
        "printf '[global]\nindex-url = http://packages.invalid/simple\ntrusted-host = packages.invalid\n' > /etc/pip.conf;"
        f" controller=$(ip -4 route show default | cut -d' ' -f3); sed -i s,127.0.0.1:9,$controller:{port}, /etc/environment"
    )
    yield
    node("node13").check_output("cat > /etc/environment <<'END'\n%s\nEND", old["node13"].rstrip())
    for name in NODES:
        node(name).check_output("rm /etc/pip.conf")


def test_a_virtual_environment_from_carried_wheels_and_through_a_proxy(
    wheels, proxy, package_indexes
):
    wheelhouse = per_node(node12=str(wheels), node13=None)
    variables = {"agent_dependencies": "venv", "agent_wheelhouse": wheelhouse}
    assert role(**variables, words=["--check"]).returncode == 0
    assert not node("node12").file("/opt/mlops-fleet/venv").exists
    # node12: as an earlier release left it, with everything closed to the service user; and a distribution whose /usr is read-only.
    node("node12").check_output("umask 077; /usr/bin/python3 -m venv /opt/mlops-fleet/venv")
    completion = "/usr/share/bash-completion/completions/mlfleet"
    node("node12").check_output(
        f"rm {completion}; mkdir /var/local-of-usr; cp -a /usr/local/. /var/local-of-usr/; mount --bind /usr /usr"
        " && mount --bind /var/local-of-usr /usr/local && mount -o remount,ro,bind /usr"
    )
    # Distributions close their Python to pip (PEP 668); a virtual environment is nobody's but its own.
    assert node("node13").run(f"ls /usr/lib/python{PYTHONS['node13']}/EXTERNALLY-MANAGED").rc == 0
    done = role(**variables)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path for path in proxy[1] if path.endswith("/psutil/")} == {
        "http://packages.invalid/simple/psutil/"
    }
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
            "logrotate --force --state /tmp/rotation.state /etc/logrotate.d/mlops-fleet; rm /tmp/rotation.state"
        )
        # A backup is running (it waits for its turn), and files of the accounts are left in a directory of ours.
        node(name).check_output(
            "systemd-run --unit=holder flock /run/lock/mlops-fleet/jobs.lock sleep 600; sleep 1; systemctl start --no-block ml-backup.service;"
            " install -o mlops-fleet -g mlops-fleet /dev/null /backup/models/kept"
        )
    node("node12").check_output("touch /opt/mlops-fleet/not-ours")
    moment = int(time.time())
    done = play("mlops.fleet.uninstall")
    assert done.returncode == 0, done.stdout
    for name in NODES:
        assert starts_since(node(name), moment) == []
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
    remaining = node("node12").check_output("find /opt/mlops-fleet/")
    assert remaining == "/opt/mlops-fleet/\n/opt/mlops-fleet/not-ours"
    node("node12").check_output("rm /opt/mlops-fleet/not-ours")
    again = play("mlops.fleet.uninstall")
    assert again.returncode == 0, again.stdout
    assert re.search(r"node13 .* changed=0 ", again.words.partition("RECAP")[2])
    for name in NODES:
        host = node(name)
        difference = host.run("/root/list_files.sh | diff /root/before -").stdout
        assert difference == "", f"{name}:\n{difference}"
        assert host.run("getent passwd mlops-fleet || getent group mlops-fleet").rc != 0
        assert host.run("ls /srv/ml/backups/models_backup_*.tar.gz").rc == 0, "backups stay"


#: Takes psutil from the node and leaves it in a repository of its own, the only one that there is.
LOCAL_REPOSITORY = """
set -e
umask 022
mkdir -p /srv/repository/psutil/DEBIAN
cd /srv/repository
dpkg-query --listfiles python3-psutil | while read -r path; do
    [ -f "$path" ] || continue
    mkdir -p "psutil${path%/*}"
    cp -a "$path" "psutil$path"
done
dpkg-query --status python3-psutil | grep -v ^Status: > psutil/DEBIAN/control
dpkg-deb --build psutil psutil.deb
{
    dpkg-deb --field psutil.deb
    echo "Filename: ./psutil.deb"
    echo "Size: $(stat --format=%s psutil.deb)"
    echo "SHA256: $(sha256sum < psutil.deb | cut -d' ' -f1)"
} > Packages
dpkg --purge python3-psutil
rm -f /etc/apt/sources.list.d/*
echo "deb [trusted=yes] file:/srv/repository ./" > /etc/apt/sources.list
"""


def test_zzz_a_missing_library_is_installed_as_a_package():
    """Together with the next test; after the removal, because packages stay."""
    node("node12").check_output("sh -c %s", LOCAL_REPOSITORY)
    assert node("node12").run("/usr/bin/python3 -c 'import psutil'").rc != 0


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
                assert node(name).run("/usr/bin/python3 -c 'import psutil'").rc == 0
                assert node(name).run("dpkg-query --show python3-apt").rc != 0
                assert "can be used (/etc/my-fleet/config.json)" in node(name).check_output(
                    "mlfleet config --check"
                )
    for name in NODES:
        assert (
            not node(name).file("/etc/my-fleet").exists
            and not node(name).file("/usr/local/bin/mlfleet").exists
        )
        node(name).check_output("userdel --remove mluser; groupdel mlteam; rmdir /srv/mine")
