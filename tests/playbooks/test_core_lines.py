# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks print no warning and no deprecation.

The session ``integration`` runs these with every ansible-core line.
"""

from __future__ import annotations

import json
import time

import pytest


def warnings(out: str) -> list[str]:
    """Return the lines with a warning or deprecation."""
    return [line for line in out.splitlines() if "WARNING]" in line or "DEPRECAT" in line.upper()]


@pytest.fixture
def two(fleet):
    """A good host with a backup and last results, and a host that is gone."""
    home = fleet.host("n1")
    fleet.gone()
    state = fleet.directory / "state"
    (state / "last").mkdir(parents=True)
    result = {"status": "pass", "checks": [], "summary": {"health_score": 100.0}}
    for phase in ("health", "gpu", "backup", "cleanup"):
        document = {"version": 1, "phase": phase, "time": time.time(), "result": result}
        (state / "last" / f"{phase}.json").write_text(json.dumps(document) + "\n")
    return home


def test_no_playbook_warns(fleet, two):
    variables = {
        "collect_state_dir": str(fleet.directory / "state"),
        "restore_drill_scratch": str(fleet.directory),
        "qualify_checks": ["memory_usage"],
        "qualify_log_source": "none",
        "qualify_tests": ["compute"],
        "qualify_timeout": 3,
        "qualify_state_dir": str(fleet.directory / "qualify"),
        "merge_reports_from": str(fleet.reports),
    }
    (fleet.directory / "qualify").mkdir()
    playbooks = ("maintenance", "collect", "verify_backups", "restore_drill", "qualify")
    for playbook in (*playbooks, "merge_reports"):
        run = fleet.run(playbook, "-e", json.dumps(variables), "--diff")
        assert warnings(run.out) == [], run
        if playbook == "merge_reports":
            assert run.recap["localhost"]["ok"] == 1, run
        else:
            assert run.recap["n1"]["ok"] and run.recap["gone"]["ok"] < run.recap["n1"]["ok"], run
    assert fleet.report()["failed_hosts"] == ["gone"]


def test_check_mode_does_not_warn(fleet, two):
    run = fleet.run("maintenance", "--check", "--diff")
    assert warnings(run.out) == [] and run.recap["n1"]["failed"] == 0, run
