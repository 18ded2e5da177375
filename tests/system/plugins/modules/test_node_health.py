# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node_health module as Ansible runs it: packed, in a process of its own."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import pytest

pytest.importorskip("ansible")

ROOT = pathlib.Path(__file__).resolve().parents[4]
ANSIBLE = pathlib.Path(sys.executable).parent / "ansible"


def _ansible(tmp_path, interpreter, given):
    """Run the module as Ansible runs it: packed, in a process of its own; return its result."""
    argv = [
        str(ANSIBLE),
        "localhost",
        "-m",
        "mlops.fleet.node_health",
        "-a",
        json.dumps(given),
        "-e",
        f"ansible_python_interpreter={interpreter}",
    ]
    env = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".build" / "collections"),
        "LC_ALL": "C.UTF-8",
    }
    done = subprocess.run(argv, capture_output=True, text=True, env=env, timeout=120, check=False)
    _head, arrow, text = done.stdout.partition(" => ")
    assert arrow, done.stdout + done.stderr
    return {**json.loads(text), "failed": done.returncode != 0}


@pytest.mark.skipif(not ANSIBLE.exists(), reason="no ansible beside this Python")
def test_as_ansible_runs_it(tmp_path):
    pytest.importorskip("psutil")
    result = _ansible(tmp_path, sys.executable, {"network": False, "disk_warning": 60})
    assert (
        result["changed"] is False
        and result["failed"] is False
        and {"timestamp", "hostname", "recommendation", "reasons", "domain"} <= set(result)
    )
    assert next(check["warn"] for check in result["checks"] if check["check"] == "disk_usage") == 60
    assert not {"rc", "items", "keys", "values"} & set(result)
    failed = _ansible(tmp_path, sys.executable, {"services": ["a b"]})
    assert (
        failed["failed"] is True
        and "can't be the name of a systemd unit" in failed["msg"]
        and "checks" not in failed
    )


@pytest.mark.skipif(not ANSIBLE.exists(), reason="no ansible beside this Python")
def test_a_python_without_psutil_is_named(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True
    )
    bare = tmp_path / "venv" / "bin" / "python"
    result = _ansible(tmp_path, bare, {"network": False})
    assert (
        result["failed"] is True
        and "psutil" in result["msg"]
        and str(bare) in result["msg"]
        and "Traceback" not in result["msg"]
    )
