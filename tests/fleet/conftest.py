# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Booted nodes, reached over SSH, and the playbooks run on them as users and AWX do."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
COLLECTIONS = ROOT / ".build" / "collections"
BIN = pathlib.Path(sys.executable).parent
GROUP = os.environ.get("MLOPS_NODES_GROUP", "fleet")


@dataclasses.dataclass
class Run:
    """A finished run: exit code, output, and per host the counts of changed tasks."""

    rc: int
    out: str
    changed: dict[str, int]
    artifact: dict | None = None

    def __str__(self) -> str:
        return f"exit {self.rc}\n{self.out}"


def _changed(out: str) -> dict[str, int]:
    recap = out.partition("PLAY RECAP")[2]
    return {host: int(n) for host, n in re.findall(r"^(\S+) .*changed=(\d+)", recap, re.M)}


def command(*argv: object, check: bool = True, **options) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(part) for part in argv],
        text=True,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        check=False,
        **options,
    )
    assert not check or done.returncode == 0, (argv, done.stdout[-2000:], done.stderr[-2000:])
    return done


class Fleet:
    """The booted nodes of this session, with an inventory that a test can extend."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self.reports = directory / "reports"
        self.names: list[str] = []

    def up(self, nodes: dict[str, str]) -> None:
        self.names += nodes
        wanted = [f"{name}={release}" for name, release in nodes.items()]
        if wanted:
            command(sys.executable, ROOT / "scripts/nodes.py", "up", "--group", GROUP, *wanted)

    def on(self, name: str, script: str, check: bool = True) -> str:
        """Run a shell script on a node, past SSH; return its output."""
        return command(
            "podman", "exec", f"mlops-{GROUP}-{name}", "sh", "-c", script, check=check
        ).stdout

    def copy(self, source: object, name: str, target: str) -> None:
        command("podman", "cp", source, f"mlops-{GROUP}-{name}:{target}")

    def inventory(self, path: pathlib.Path, variables: dict, hosts: dict[str, dict]) -> None:
        """Write an inventory of the named hosts; those that are no nodes stand for themselves."""
        argv = [sys.executable, ROOT / "scripts/nodes.py", "inventory", "--group", GROUP]
        raw = json.loads(command(*argv).stdout)["all"]
        entries = {name: {**raw["hosts"].get(name, {}), **hosts[name]} for name in hosts}
        groups = {"fleet": {"hosts": entries}}
        document = {"all": {"vars": {**raw["vars"], **variables}, "children": groups}}
        path.write_text(json.dumps(document))

    @property
    def environment(self) -> dict[str, str]:
        env = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
        env.update(
            PATH=f"{BIN}:{env['PATH']}",
            ANSIBLE_COLLECTIONS_PATH=str(COLLECTIONS),
            ANSIBLE_NOCOLOR="1",
            ANSIBLE_HOME=str(self.directory / "ansible"),
            ANSIBLE_SSH_CONTROL_PATH_DIR=str(self.directory / "cp"),
            ANSIBLE_FORKS="20",
            ANSIBLE_HOST_KEY_CHECKING="0",
            ANSIBLE_PIPELINING="1",
        )
        return env

    def command_line(self, inventory: pathlib.Path, playbook: str, *arguments: str) -> list[str]:
        return [str(BIN / "ansible-playbook"), "-i", str(inventory), playbook, *arguments]

    def run(self, inventory: pathlib.Path, playbook: str, *arguments: str) -> Run:
        done = command(
            *self.command_line(inventory, playbook, *arguments),
            check=False,
            env=self.environment,
            cwd=self.directory,
            timeout=600,
        )
        out = done.stdout + done.stderr
        assert "DEPRECATION" not in out, out
        return Run(done.returncode, out, _changed(out))

    def run_as_awx(self, inventory: pathlib.Path, playbook: str) -> Run:
        """Run a playbook of the collection from a private data directory, by ansible-runner."""
        private = self.directory / "private"
        for part in ("inventory", "env", "project"):
            (private / part).mkdir(parents=True, exist_ok=True)
        # AWX writes its inventory as a script.
        script = private / "inventory" / "hosts"
        script.write_text(f"#!/bin/sh\ncat '{self._listed(inventory)}'\n")
        script.chmod(0o755)
        (private / "project" / "run.yml").write_text(
            f"- name: Run\n  ansible.builtin.import_playbook: {playbook}\n"
        )
        variables = {k: v for k, v in self.environment.items() if k.startswith("ANSIBLE_")}
        (private / "env" / "envvars").write_text(json.dumps(variables))
        ident = f"job{time.monotonic_ns()}"
        argv = [BIN / "ansible-runner", "run", private, "-p", "run.yml", "-i", ident, "-q"]
        done = command(*argv, check=False, env=self.environment, timeout=600)
        job = private / "artifacts" / ident
        events = [json.loads(path.read_text()) for path in (job / "job_events").glob("*.json")]
        (stats,) = (e["event_data"] for e in events if e["event"] == "playbook_on_stats")
        out = (job / "stdout").read_text() + done.stderr
        assert (job / "status").read_text() == ("failed" if done.returncode else "successful")
        return Run(done.returncode, out, stats["changed"], stats["artifact_data"]["mlops_fleet"])

    def _listed(self, inventory: pathlib.Path) -> pathlib.Path:
        argv = [BIN / "ansible-inventory", "-i", inventory, "--list"]
        path = self.directory / "listed.json"
        path.write_text(command(*argv, env=self.environment, cwd=self.directory).stdout)
        return path

    def report(self) -> dict:
        return json.loads((self.reports / "latest.json").read_text())

    def down(self) -> None:
        command(sys.executable, ROOT / "scripts/nodes.py", "down", "--group", GROUP)


@pytest.fixture(scope="session")
def fleet(tmp_path_factory):
    check = command(sys.executable, ROOT / "scripts/nodes.py", "check", check=False)
    if check.returncode:
        pytest.skip(check.stdout + check.stderr)
    if not (BIN / "ansible-runner").exists():
        pytest.skip("needs ansible-runner (scripts/setup.py fleet)")
    link = COLLECTIONS / "ansible_collections" / "mlops" / "fleet"
    assert link.resolve() == ROOT, "run scripts/setup.py fleet"
    nodes = Fleet(tmp_path_factory.mktemp("fleet"))
    try:
        yield nodes
    finally:
        nodes.down()
