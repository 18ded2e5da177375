# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""JUnit XML, read back by an XML parser."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from ansible_collections.mlops.fleet.plugins.module_utils._core.output import junit
from ansible_collections.mlops.fleet.plugins.module_utils._core.verdict import Check, Document

CHECKS = (
    Check("disk_usage", "pass", "Disk usage: 5%", "/", duration_ms=12.5),
    Check(
        "service",
        "critical",
        'Service "a<b>&": failed\x1b[0m',
        "a",
        value="failed",
        action="restart_app",
    ),
    Check("dns", "unknown", "no answer", duration_ms=5000.0),
    Check("raid", "skipped", "no md array"),
    Check("cpu_load", "warning", "busy", value=3.5),
)


def _suite(**more):
    text = junit.render(Document("2026-01-31T14:30:00+00:00", "n1", CHECKS).to_dict(), **more)
    return ET.fromstring(text.encode("utf-8"))[0]


def test_every_status_has_its_place():
    suite = _suite()
    assert {
        name: suite.get(name)
        for name in ("tests", "failures", "errors", "skipped", "hostname", "time", "timestamp")
    } == {
        "tests": "5",
        "failures": "1",
        "errors": "1",
        "skipped": "1",
        "hostname": "n1",
        "time": "5.000",
        "timestamp": "2026-01-31T14:30:00",
    }
    assert [(case.get("classname"), case.get("name"), case[0].tag) for case in suite] == [
        ("node_health.disk_usage", "disk_usage /", "system-out"),
        ("node_health.service", "service a", "failure"),
        ("node_health.dns", "dns", "error"),
        ("node_health.raid", "raid", "skipped"),
        ("node_health.cpu_load", "cpu_load", "system-out"),
    ]
    failure = suite[1][0]
    assert (
        failure.get("message") == 'Service "a<b>&": failed\ufffd[0m'
        and "action: restart_app" in failure.text
    )


def test_warnings_can_fail():
    assert _suite(warnings_fail=True).get("failures") == "2"
