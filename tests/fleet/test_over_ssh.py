# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Git repositories over SSH, and a run that is interrupted, with nodes behind a real sshd."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import time

import pytest
from conftest import ROOT

NODES = ["n1", "n2"]


@pytest.fixture(scope="module")
def nodes(fleet):
    fleet.up({name: "bookworm" for name in NODES if name not in fleet.names})
    for name in NODES:
        fleet.copy(ROOT / "scripts/sample.py", name, "/root/sample.py")
        fleet.on(name, "rm -rf /srv/ml; python3 /root/sample.py /srv/ml && mkdir /srv/ml/backups")
    return fleet


def ssh_of(fleet, inventory) -> tuple[str, str]:
    """Return the ssh command line with the nodes' key, and the address of the first node."""
    shared = json.loads(inventory.read_text())["all"]
    key = shared["vars"]["ansible_ssh_private_key_file"]
    host = shared["children"]["fleet"]["hosts"][NODES[0]]
    options = f"{shared['vars']['ansible_ssh_common_args']} -p {host['ansible_port']}"
    return f"ssh -i {shlex.quote(key)} {options}", host["ansible_host"]


def start(nodes, argv: list[str], env: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        argv,
        env=env,
        cwd=nodes.directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
    )


def test_two_controllers_push_their_runs_over_ssh_at_once(nodes):
    git = shutil.which("git")
    nodes.copy(git, NODES[0], "/usr/bin/git")
    links = "cd /usr/bin && ln -sf git git-upload-pack && ln -sf git git-receive-pack"
    if "git version" not in nodes.on(NODES[0], f"{links} && git --version", check=False):
        pytest.skip("this machine's git does not run on the node")
    nodes.on(NODES[0], "rm -rf /srv/reports.git; git init -q --bare -b main /srv/reports.git")
    inventory = nodes.directory / "two.json"
    nodes.inventory(inventory, {}, {name: {} for name in NODES})
    ssh, address = ssh_of(nodes, inventory)
    variables = {
        "fleet_report_history": f"git+ssh://root@{address}/srv/reports.git#main:nightly",
        "fleet_report_dir": "",
    }
    env = {**nodes.environment, "GIT_SSH_COMMAND": ssh}
    arguments = ["mlops.fleet.gpu", "-e", json.dumps(variables), "--limit"]
    for count in (1, 2):
        runs = [
            start(nodes, nodes.command_line(inventory, *arguments, host), env) for host in NODES
        ]
        outputs = [process.communicate(timeout=300)[0] for process in runs]
        assert [process.returncode for process in runs] == [0, 0], "\n".join(outputs)
        log = nodes.on(NODES[0], "git -C /srv/reports.git log --format=%s main")
        assert log.count("Add the run") == 2 * count, log
    listed = nodes.on(NODES[0], "git -C /srv/reports.git ls-tree --name-only main nightly/")
    kept = [name for name in listed.split() if name.endswith(".json") and "latest" not in name]
    assert len(kept) == 4, listed
    for name in kept:
        run = json.loads(nodes.on(NODES[0], f"git -C /srv/reports.git show main:{name}"))
        assert run["version"] == 2 and run["hosts"][0]["host"] in NODES
    nodes.on(NODES[0], "git -C /srv/reports.git fsck --strict")


@pytest.mark.parametrize("progress", [0, 1])
def test_an_interrupted_run_leaves_nothing_on_the_node(nodes, progress):
    """Ctrl-C in the middle of a backup: SIGINT to all processes of the run on the controller."""
    inventory = nodes.directory / "interrupted.json"
    variables = {
        "maintenance_model_dir": "/srv/ml/models",
        "maintenance_backup_dir": "/srv/ml/backups",
        "maintenance_backup_compression": "gzip",
        "maintenance_backup_compression_level": 9,
        "maintenance_backup_progress": progress,
        "fleet_report_dir": str(nodes.reports),
    }
    nodes.inventory(inventory, variables, {"n2": {}})
    large = f"head -c 300000000 /dev/urandom > /srv/ml/models/large{progress}.bin"
    nodes.on("n2", large)
    before = nodes.on("n2", "ls /srv/ml/backups/models_backup_*.tar.gz | wc -l", check=False)
    argv = nodes.command_line(inventory, "mlops.fleet.backup")
    process = start(nodes, argv, nodes.environment)
    end = time.monotonic() + 120
    while not nodes.on("n2", "ls -A /srv/ml/backups | grep tmp", check=False):
        assert time.monotonic() < end and process.poll() is None, process.communicate()[0]
    os.killpg(process.pid, signal.SIGINT)
    out = process.communicate(timeout=60)[0]
    assert process.returncode != 0, out
    end = time.monotonic() + 180
    while nodes.on("n2", "pgrep -a ^python", check=False):  # a module is not named by its process
        assert time.monotonic() < end, nodes.on("n2", "ps axo pid,etimes,args")
        time.sleep(1)
    assert nodes.on("n2", "ls -A /srv/ml/backups | grep tmp", check=False) == ""
    check = "cd /srv/ml/backups; for f in *.sha256; do sha256sum --check --quiet $f; done"
    nodes.on("n2", f"ls /srv/ml/backups/*.sha256 2>/dev/null || exit 0; {check}")
    again = nodes.run(inventory, "mlops.fleet.backup")
    assert again.rc == 0 and nodes.report()["failed_hosts"] == [], again
    after = nodes.on("n2", "ls /srv/ml/backups/models_backup_*.tar.gz | wc -l")
    assert int(after) == int(before or 0) + 1
    left = nodes.on("n2", "ls -A /root/.ansible/tmp /root/.ansible_async 2>/dev/null", check=False)
    assert "mlops" not in left, left
    # Of a task in the background, Ansible keeps its own files.
    assert progress or "ansible-tmp" not in left, left
