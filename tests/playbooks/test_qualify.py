# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbook qualify on a node with a simulated GPU, and on a node that does not answer."""

from __future__ import annotations

import importlib.util
import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def _harness():
    path = ROOT / "tests" / "cuda_double" / "harness.py"
    spec = importlib.util.spec_from_file_location("cuda_harness_for_playbooks", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_who_qualifies_is_released_and_who_does_not_stays_drained(tmp_path):
    harness = _harness()
    if not harness.nvml.compiler():
        pytest.skip("no C compiler for the simulated GPUs")
    inventory = tmp_path / "inventory"
    inventory.write_text(
        f"n1 ansible_connection=local ansible_python_interpreter={sys.executable}\n"
        "gone ansible_host=127.0.0.1 ansible_port=1 ansible_ssh_timeout=2\n"
    )
    variables = {
        "qualify_drain": f"touch {tmp_path}/drained_{{{{ inventory_hostname }}}}",
        "qualify_release": f"touch {tmp_path}/released_{{{{ inventory_hostname }}}}",
        "qualify_checks": ["memory_usage"],
        "qualify_log_source": "none",
        "qualify_tests": ["compute"],
        "qualify_timeout": 3,
        "qualify_state_dir": str(tmp_path / "state"),
    }
    locks = tmp_path / "locks"
    locks.mkdir(mode=0o700)
    done = subprocess.run(
        [
            str(pathlib.Path(sys.executable).with_name("ansible-playbook")),
            "-i",
            str(inventory),
            "mlops.fleet.qualify",
            "-e",
            json.dumps(variables),
        ],
        env={
            **harness.environment("captured_h100_idle"),
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".build" / "collections"),
            "ANSIBLE_HOME": str(tmp_path / "home"),
            "ANSIBLE_LOCALHOST_WARNING": "False",
            "LC_ALL": "C.UTF-8",
            "MLOPS_FLEET_LOCK_DIR": str(locks),
        },
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode != 0, done.stdout
    made = {path.name for path in tmp_path.iterdir() if "ed_" in path.name}
    assert made == {"drained_n1", "drained_gone", "released_n1"}, done.stdout + done.stderr
    assert '"msg": "qualified"' in done.stdout
    assert "not qualified: 3 reasons: health: not checked: " in done.stdout
    assert {path.name for path in (tmp_path / "state").glob("*.json")} == {
        "qualify-gpu.json",
        "qualify-figures.json",
    }
