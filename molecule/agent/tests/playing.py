# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changing the nodes by playbook, as people do."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from pathlib import Path

import testinfra

NODES = ("node12", "node13")
PYTHONS = {"node12": "3.11", "node13": "3.13"}
EPHEMERAL = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
PROJECT = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])
ENVIRONMENT = {**os.environ, "ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1"}
INVENTORY = EPHEMERAL / "inventory"


def node(name):
    return testinfra.get_host(f"ansible://{name}?ansible_inventory={INVENTORY}")


def play(playbook, collections=None, words=(), **variables):
    """Run a playbook on the nodes as people do; C(collections) is another collections path than
    the checkout's."""
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
    moment = next_second()
    path = EPHEMERAL / "agent_role.yml"
    path.write_text(
        json.dumps([{"hosts": "fleet", "gather_facts": False, "roles": ["mlops.fleet.agent"]}]),
        encoding="utf-8",
    )
    done = play(str(path), collections, words, **variables)
    for name in NODES:
        assert starts_since(node(name), moment) == []
    return done


def next_second():
    """Wait for the next whole second and return it: the journal is asked by whole seconds, and
    what happened before must not count.
    """
    moment = int(time.time()) + 1
    time.sleep(moment - time.time())
    return moment


def per_node(**values):
    """A variable that has another value on each node."""
    return "{{ (" + repr(values) + ")[inventory_hostname] }}"


def starts_since(host, moment):
    """Which of the jobs that change something systemd has started since a moment; none of them is
    due while these tests run."""
    return host.run(
        f"journalctl --sync; journalctl -o cat _PID=1 --since @{moment} | grep -E 'Starting "
        "ml-(backup|cleanup|maintenance)'"
    ).stdout.splitlines()


def versions(host):
    return {
        name: host.run(f"basename $(readlink /opt/mlops-fleet/{name})").stdout.strip()
        for name in ("current", "previous")
    }
