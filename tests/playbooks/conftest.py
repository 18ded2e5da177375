# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet of several names of this machine, each with directories of its own, and the playbooks run
on it as users do.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
COLLECTIONS = ROOT / ".build" / "collections"


@dataclasses.dataclass
class Run:
    """A finished ansible-playbook."""

    rc: int
    out: str
    recap: dict[str, dict[str, int]]

    def __str__(self) -> str:
        return f"exit {self.rc}\n{self.out}"


def _recap(out: str) -> dict[str, dict[str, int]]:
    found = {}
    for line in out.partition("PLAY RECAP")[2].splitlines():
        name, colon, rest = line.partition(":")
        if colon and "=" in rest:
            found[name.strip()] = {
                key: int(value) for key, value in (pair.split("=") for pair in rest.split())
            }
    return found


class Fleet:
    """Hosts n1, n2, ... are this machine (local connection); C(gone) answers to nobody."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self.hosts: dict[str, dict] = {}
        #: Further groups: name to the names of their hosts.
        self.groups: dict[str, list[str]] = {}
        self.reports = directory / "reports"

    def host(self, name: str, models: bool = True, **variables) -> pathlib.Path:
        """Add a host with models, an old and a new experiment; return its directory."""
        home = self.directory / name
        if models:
            (home / "models").mkdir(parents=True)
            (home / "models" / "weights.bin").write_bytes(os.urandom(100_000))
            for age, kind in ((90, "old"), (1, "new")):
                run = home / "experiments" / kind
                run.mkdir(parents=True)
                (run / "metrics.json").write_text('{"loss": 0.1}')
                for path in (run / "metrics.json", run):
                    os.utime(path, (path.stat().st_mtime - age * 86400,) * 2)
        targets = [
            {
                "name": "experiments",
                "path": str(home / "experiments"),
                "retention_days": 30,
                "age_by": "mtime",
            }
        ]
        self.hosts[name] = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "maintenance_model_dir": str(home / "models"),
            "maintenance_backup_dir": str(home / "backups"),
            "maintenance_cleanup_targets": targets,
            "maintenance_health_checks": ["memory"],
            "fleet_report_dir": str(self.reports),
            **variables,
        }
        return home

    def gone(self, name: str = "gone") -> None:
        """Add a host on whose port nothing listens."""
        self.host(
            name,
            models=False,
            ansible_connection="ssh",
            ansible_host="127.0.0.1",
            ansible_port=1,
            ansible_ssh_common_args="-o BatchMode=yes",
        )

    def run(self, playbook: str = "maintenance", *arguments: str) -> Run:
        """Run one of the collection's playbooks by its name, or one of the test's own by its
        path.
        """
        inventory = self.directory / "inventory.json"
        groups = {"fleet": {"hosts": self.hosts}}
        groups.update(
            {name: {"hosts": dict.fromkeys(hosts)} for name, hosts in self.groups.items()}
        )
        inventory.write_text(json.dumps({"all": {"children": groups}}))
        command = [
            str(pathlib.Path(sys.executable).parent / "ansible-playbook"),
            "-i",
            str(inventory),
            playbook if "/" in playbook else f"mlops.fleet.{playbook}",
        ]
        env = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
        env.update(
            ANSIBLE_COLLECTIONS_PATH=str(COLLECTIONS),
            ANSIBLE_NOCOLOR="1",
            ANSIBLE_HOME=str(self.directory / "ansible"),
            ANSIBLE_FORKS="1",
        )  # the hosts share this machine, and so its locks
        done = subprocess.run(
            [*command, *arguments],
            cwd=self.directory,
            env=env,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        out = done.stdout + done.stderr
        assert "DEPRECATION WARNING" not in out, out
        return Run(done.returncode, out, _recap(out))

    def report(self) -> dict:
        return json.loads((self.reports / "latest.json").read_text())

    def phases(self, host: str) -> dict[str, dict]:
        entry = next(one for one in self.report()["hosts"] if one["host"] == host)
        return {one["phase"]: one for one in entry["phases"]}


@pytest.fixture
def fleet(tmp_path):
    here = COLLECTIONS / "ansible_collections" / "mlops"
    here.mkdir(parents=True, exist_ok=True)
    if not (here / "fleet").exists():
        (here / "fleet").symlink_to(ROOT)
    if not shutil.which("ssh"):
        pytest.skip("no ssh client on this machine")
    return Fleet(tmp_path)
