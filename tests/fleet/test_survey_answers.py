# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Maintenance as AWX runs it: ansible-runner, survey answers as text in env/extravars, artifacts
from the events.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
RUNNER = shutil.which("ansible-runner") or shutil.which(
    "ansible-runner", path=str(pathlib.Path(sys.executable).parent)
)
pytestmark = pytest.mark.skipif(not RUNNER, reason="needs ansible-runner")
SECRET = "canary-5f1e"


def run(private: pathlib.Path, number: int) -> tuple[dict, str]:
    """Run the playbook; return the job's artifacts and all that the run left as text."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
    env["PATH"] = f"{pathlib.Path(sys.executable).parent}:{env['PATH']}"
    # The hosts are this machine, whose own directories a test leaves alone.
    env.update(
        MLOPS_FLEET_LOCK_DIR=str(private / "locks"), MLOPS_FLEET_STATE_DIR=str(private / "state")
    )
    command = [RUNNER, "run", str(private), "-p", "maintenance.yml", "-i", f"job{number}", "-q"]
    done = subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=300, check=False
    )
    job = private / "artifacts" / f"job{number}"
    text = "".join(path.read_text() for path in job.rglob("*") if path.is_file())
    events = [json.loads(path.read_text()) for path in (job / "job_events").glob("*.json")]
    (stats,) = [event for event in events if event["event"] == "playbook_on_stats"]
    assert (job / "status").read_text() == "failed", done.stdout + done.stderr
    return stats["event_data"]["artifact_data"]["mlops_fleet"], text


def test_survey_answers_artifacts_and_the_run_before(tmp_path):
    for name in ("inventory", "env", "project", "locks", "state"):
        (tmp_path / name).mkdir(mode=0o700)
    hosts = {
        "good": {"maintenance_model_dir": str(tmp_path / "models")},
        "bad": {"maintenance_model_dir": str(tmp_path / "missing")},
    }
    for name, variables in hosts.items():
        variables.update(
            ansible_connection="local",
            ansible_python_interpreter=sys.executable,
            maintenance_backup_dir=str(tmp_path / "backups" / name),
        )
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "weights.bin").write_bytes(b"w" * 1000)
    (tmp_path / "inventory" / "hosts.json").write_text(json.dumps({"all": {"hosts": hosts}}))
    (tmp_path / "project" / "maintenance.yml").write_text(
        "- name: Maintain\n  ansible.builtin.import_playbook: mlops.fleet.maintenance\n"
    )
    answers = {
        "maintenance_run_gpu": "false",
        "maintenance_run_cleanup": "false",
        "maintenance_continue_on_error": "false",
        "maintenance_health_checks": "memory",
        "maintenance_health_memory_warning": "100",
        "maintenance_health_memory_critical": "",
        "maintenance_backup_compression_level": "1",
        "maintenance_backup_throttle": "1",
        "maintenance_max_fail_percentage": "100",
        "fleet_report_dir": "",
        "fleet_report_keep": "5",
        "fleet_report_alert": {"webhooks": [{"url": f"http://127.0.0.1:9/{SECRET}"}]},
        "fleet_report_alert_when": "always",
    }
    extravars = tmp_path / "env" / "extravars"
    extravars.write_text(json.dumps(answers))
    environment = {"ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".build" / "collections")}
    (tmp_path / "env" / "envvars").write_text(json.dumps(environment))
    artifact, text = run(tmp_path, 1)
    assert artifact["failed_hosts"] == ["bad"] and artifact["exit_code"] == 2
    assert artifact["chat"].startswith("first run, 1 fault") and artifact["run"]["version"] == 2
    assert SECRET not in text

    extravars.write_text(json.dumps({**answers, "fleet_report_previous": artifact["run"]}))
    (tmp_path / "models" / "weights.bin").unlink()
    (tmp_path / "models").rmdir()
    artifact, text = run(tmp_path, 2)
    assert artifact["failed_hosts"] == ["good", "bad"]
    assert artifact["changes"] == {"new": 1, "gone": 0, "worse": 0, "better": 0}
    assert SECRET not in text
