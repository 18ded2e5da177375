# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet report that the run left on the controller."""

from __future__ import annotations

import json
import os
import stat
from html.parser import HTMLParser
from pathlib import Path

import pytest

testinfra_hosts = ["local://"]

REPORTS = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "reports"


@pytest.fixture(scope="module")
def report():
    return json.loads((REPORTS / "latest.json").read_text(encoding="utf-8"))


def entry(report, name):
    (found,) = [one for one in report["hosts"] if one["host"] == name]
    return found


def phases(report, name):
    return {phase["phase"]: phase["status"] for phase in entry(report, name)["phases"]}


def test_every_targeted_host_is_there(report):
    assert {one["host"] for one in report["hosts"]} == {"node1", "gpu1", "gone1"}
    assert report["summary"]["hosts"] == 3


def test_the_plain_node_did_all_phases(report):
    found = phases(report, "node1")
    assert found["backup"] == "pass" and found["cleanup"] == "pass"
    assert found["health"] in ("pass", "warning", "critical")
    assert found["gpu"] == "skipped", "a node without GPUs says so, and is not unhealthy for that"
    assert entry(report, "node1")["backup"]["verified"] is True


def test_the_faulty_gpu_is_found(report):
    found = entry(report, "gpu1")
    assert phases(report, "gpu1")["gpu"] == "critical"
    assert found["gpus"] == 2
    assert phases(report, "gpu1")["backup"] == "pass", (
        "models are backed up on a node with an unhealthy GPU"
    )


def test_the_host_that_is_gone_is_reported_and_stopped_nobody(report):
    assert entry(report, "gone1")["status"] == "unreachable"
    assert "gone1" in report["failed_hosts"]
    assert report["status"] == "critical" and report["exit_code"] == 2


def test_the_page_is_one_file_that_names_every_host():
    text = (REPORTS / "latest.html").read_text(encoding="utf-8")
    loaded = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attrs):
            loaded.extend(
                value
                for name, value in attrs
                if name in ("src", "href") and value and not value.startswith(("#", "data:"))
            )

    Reader().feed(text)
    assert all(name in text for name in ("node1", "gpu1", "gone1"))
    assert loaded == []


def test_the_report_is_not_for_everybody():
    for path in REPORTS.glob("maintenance-*"):
        assert not stat.S_IMODE(path.stat().st_mode) & stat.S_IRWXO, path
