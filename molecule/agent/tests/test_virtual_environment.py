# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Libraries in a virtual environment: from wheels that the role carries, and from an index behind
a proxy."""

from __future__ import annotations

import http.server
import subprocess
import sys
import threading

import pytest
from playing import ENVIRONMENT, EPHEMERAL, NODES, PYTHONS, node, per_node, role

testinfra_hosts = ["local://"]


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
def package_indexes(proxy, monkeypatch):
    """node12 reaches no package index, so the wheels are all there is; node13 has one behind a
    proxy."""
    port, dummy = proxy
    # A login has the proxies; an open connection keeps those that it has.
    monkeypatch.setitem(ENVIRONMENT, "ANSIBLE_SSH_CONTROL_PATH_DIR", str(EPHEMERAL / "cp"))
    node("node12").check_output(
        "printf '[global]\\nindex-url = http://127.0.0.1:9/simple\\n' > /etc/pip.conf"
    )
    node("node13").check_output(
        "printf '[global]\\nindex-url = http://packages.invalid/simple\\n"
        "trusted-host = packages.invalid\\n' > /etc/pip.conf;"
        " controller=$(ip -4 route show default | cut -d' ' -f3);"
        f" sed -i.old s,127.0.0.1:9,$controller:{port}, /etc/environment"
    )
    yield
    node("node13").check_output("mv /etc/environment.old /etc/environment")
    for name in NODES:
        node(name).check_output("rm /etc/pip.conf")


def test_a_virtual_environment_from_carried_wheels_and_through_a_proxy(
    wheels, proxy, package_indexes
):
    wheelhouse = per_node(node12=str(wheels), node13=None)
    variables = {"agent_dependencies": "venv", "agent_wheelhouse": wheelhouse}
    assert role(**variables, words=["--check"]).returncode == 0
    assert not node("node12").file("/opt/mlops-fleet/venv").exists
    # node12: as an earlier release left it, with everything closed to the service user; and a
    # distribution whose /usr is read-only.
    node("node12").check_output("umask 077; /usr/bin/python3 -m venv /opt/mlops-fleet/venv")
    completion = "/usr/share/bash-completion/completions/mlfleet"
    node("node12").check_output(
        f"rm {completion}; mkdir /var/local-of-usr; cp -a /usr/local/. /var/local-of-usr/; "
        "mount --bind /usr /usr"
        " && mount --bind /var/local-of-usr /usr/local && mount -o remount,ro,bind /usr"
    )
    # Distributions close their Python to pip (PEP 668); a virtual environment is nobody's but its
    # own.
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
            f"{python} -c 'import psutil, pynvml, boto3; print(psutil.__file__, "
            "pynvml.__file__, boto3.__file__)'"
        )
        assert places.count("/opt/mlops-fleet/venv/") == 3
        assert host.run("runuser -u mlops-fleet -- mlfleet health --json").rc in (0, 1, 2)
        assert host.run("systemctl start gpu-monitor.service ml-backup.service").rc == 0
    done = role(**variables)
    assert done.returncode == 0 and done.stdout.count("changed=0 ") == len(NODES), done.stdout
    host = node("node12")
    host.check_output(
        "umount --lazy /usr/local; umount --lazy /usr; cp -a /var/local-of-usr/. /usr/local/; "
        "rm -r /var/local-of-usr"
    )
    # What closes the command to the service user is named; the command itself is open.
    host.check_output("chmod 0700 /opt/mlops-fleet/venv")
    assert host.run("systemctl start gpu-monitor.service").rc != 0
    said = host.run("mlfleet doctor").stdout
    assert "mlops-fleet may not use /opt/mlops-fleet/venv (root:root, mode 0700)" in said
    host.check_output("systemctl reset-failed gpu-monitor.service")
