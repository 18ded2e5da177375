# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command people type, with its gate: the exit code says that something failed, and the others
were maintained all the same.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

testinfra_hosts = ["local://"]

# molecule asks for colours, which would be mixed with the output
ENVIRONMENT = {**os.environ, "ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1"}
INVENTORY = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "inventory"


def play(directory, *arguments):
    argv = [
        "ansible-playbook",
        "--inventory",
        str(INVENTORY),
        "mlops.fleet.maintenance",
        "-e",
        f"fleet_report_dir={directory}",
        *arguments,
    ]
    start = time.monotonic()
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=300, check=False, env=ENVIRONMENT
    )
    done.seconds = time.monotonic() - start
    return done


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    directory = tmp_path_factory.mktemp("reports")
    done = play(directory, "-e", "maintenance_hosts=fleet")
    reports = sorted(directory.glob("maintenance-*.json"))
    assert reports, done.stdout + done.stderr
    return done, json.loads(reports[-1].read_text(encoding="utf-8"))


def test_a_fleet_with_an_unhealthy_and_a_lost_host_fails(whole):
    done, report = whole
    # Ansible's own meaning: 2 = hosts failed, 4 = hosts unreachable, 6 = both
    assert done.returncode in (2, 4, 6), done.stdout + done.stderr
    assert {"gone1", "gpu1"} <= set(report["failed_hosts"])


def test_it_says_per_host_what_happened(whole):
    done, _report = whole
    for name in ("node1", "gpu1", "gone1"):
        assert f"\n{name} " in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_a_refusing_host_costs_no_time(whole):
    done, _report = whole
    assert done.seconds < 120


def test_the_healthy_part_alone_backs_up_without_change(tmp_path):
    done = play(
        tmp_path,
        "-e",
        "maintenance_hosts=node1",
        "-e",
        "maintenance_run_health=false",
        "-e",
        "maintenance_run_gpu=false",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "latest.json").read_text(encoding="utf-8"))
    assert [one["host"] for one in report["hosts"]] == ["node1"]
    assert report["failed_hosts"] == [] and report["hosts"][0]["backup"]["verified"] is True


def test_only_lost_hosts_are_an_error(tmp_path):
    done = play(tmp_path, "-e", "maintenance_hosts=gone1")
    assert done.returncode != 0
    assert "could be reached" in done.stdout


def test_no_matching_host_is_an_error(tmp_path):
    done = play(tmp_path, "-e", "maintenance_hosts=nobody")
    assert done.returncode != 0
    assert "No host matched" in done.stdout + done.stderr


def test_ad_hoc_call_of_the_gpu_module():
    argv = [
        "ansible",
        "gpu1",
        "--inventory",
        str(INVENTORY),
        "--one-line",
        "-m",
        "mlops.fleet.gpu_health",
    ]
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=60, check=False, env=ENVIRONMENT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("gpu1 |")]
    result = json.loads(line.partition("=>")[2])
    assert result["status"] == "critical" and result["exit_code"] == 2 and len(result["gpus"]) == 2
