# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import time

import pytest

from ansible_collections.mlops.fleet.plugins.action import agent_install
from ansible_collections.mlops.fleet.plugins.module_utils._core import agent
from ansible_collections.mlops.fleet.plugins.module_utils._core.system import locks

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tests" / "nvml_double"))
import harness


@pytest.fixture(scope="session")
def command(tmp_path_factory):
    """The installed command's path."""
    directory = tmp_path_factory.mktemp("agent")
    version, data = agent_install.bundle()
    agent.install(str(directory / "opt"), str(directory / "bin"), sys.executable, version, data)
    return directory / "bin" / "mlfleet"


@pytest.fixture
def node(command, tmp_path):
    """Start mlfleet on a node of its own: directories, configuration and a clean environment."""

    class Node:
        directory = tmp_path
        config = tmp_path / "config.json"
        settings: dict = {
            "backup": {
                "source": str(tmp_path / "models"),
                "destination": str(tmp_path / "backups"),
            },
            "cleanup": {
                "targets": [
                    {
                        "name": "experiments",
                        "path": str(tmp_path / "experiments"),
                        "retention_days": 30,
                        "age_by": "mtime",
                    }
                ]
            },
            "health": {"checks": ["memory"], "network": False},
            "gpu": {"log_source": "none"},
            "alert": {"state_dir": str(tmp_path / "alert")},
        }

        def run(self, *words, env=None, check=None, **options):
            self.config.write_text(json.dumps(self.settings))
            environment = {
                "PATH": os.environ["PATH"],
                "HOME": str(tmp_path),
                "MLOPS_FLEET_LOCK_DIR": locks.lock_directory(),
                "MLOPS_FLEET_STATE_DIR": os.environ["MLOPS_FLEET_STATE_DIR"],
                **(env or {}),
            }
            argv = [str(command), words[0], "--config", str(self.config), *words[1:]]
            if words[0] not in ("alert", "backups", "config", "doctor", "status"):
                argv += ["--log-file", str(tmp_path / "job.log")]
            done = subprocess.run(
                argv,
                env=environment,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
                **options,
            )
            if check is not None:
                assert done.returncode == check, (
                    f"{argv}: exit {done.returncode}\n{done.stdout}{done.stderr}"
                )
            return done

        def json(self, *words, **options):
            return json.loads(self.run(*words, "--json", **options).stdout)

        @property
        def log(self):
            return (tmp_path / "job.log").read_text()

    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "weights.bin").write_bytes(os.urandom(200_000))
    for kind, age in (("old", 90), ("new", 1)):
        directory = tmp_path / "experiments" / kind
        directory.mkdir(parents=True)
        (directory / "metrics.json").write_text("{}")
        for path in (directory / "metrics.json", directory):
            os.utime(path, (time.time() - age * 86400,) * 2)
    return Node()


@pytest.fixture
def gpus():
    """Environments with simulated GPUs, by scenario name."""
    if not harness.compiler():
        pytest.skip("no C compiler for the simulated GPUs")
    harness.build()
    return lambda scenario: {
        key: value
        for key, value in harness.environment(scenario).items()
        if key.startswith(("LD_", "NVML_"))
    }
