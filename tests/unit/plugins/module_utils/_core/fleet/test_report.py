# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import time

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.fleet import report as fleet
from ansible_collections.mlops.fleet.plugins.module_utils._core.fleet import rollout, screen

CHECK_OK = {"check": "disk", "status": "pass", "message": "Disk usage: 65%"}
CHECK_BAD = {
    "check": "ecc",
    "status": "critical",
    "message": "GPU 1: 3 uncorrected ECC errors",
    "action": "reset_gpu",
}
CHECK_WARM = {"check": "temp", "status": "warning", "message": "GPU 0: 82 C"}


def verdict(*checks, status="pass", **extra):
    summary = {
        "total": len(checks),
        "passed": sum(c["status"] == "pass" for c in checks),
        "health_score": 100.0 if status == "pass" else 40.0,
    }
    return {
        "changed": False,
        "duration": 0.5,
        "hostname": "n",
        "checks": list(checks),
        "summary": summary,
        "status": status,
        **extra,
    }


def backup(**extra):
    return {
        "changed": True,
        "duration": 2.0,
        "backup": {
            "path": "/b/x.tar.gz",
            "size": 2048,
            "files": 7,
            "verified": True,
            "sha256": "ab",
        },
        **extra,
    }


HEALTHY = {
    "health": verdict(CHECK_OK),
    "gpu": verdict(CHECK_OK, gpus=[{}, {}]),
    "backup": backup(),
    "cleanup": {
        "changed": True,
        "duration": 0.1,
        "removed": ["/a", "/b"],
        "freed_bytes": 3 * 1024**2,
    },
}
SKIPPED = {"skipped": True, "changed": False}
DOWN = {"unreachable": True, "msg": "Connection refused"}


def assemble(fleet_results, **options):
    return fleet.assemble(
        list(fleet_results),
        lambda host, phase: fleet_results[host].get(phase),
        timestamp=1_800_000_000,
        **options,
    )


def entry(report, host):
    return next(one for one in report["hosts"] if one["host"] == host)


def phases(report, host):
    return {one["phase"]: one for one in entry(report, host)["phases"]}


def test_a_healthy_host():
    report = assemble({"n1": HEALTHY})
    assert report["status"] == "pass" and report["exit_code"] == 0 and report["failed_hosts"] == []
    host = entry(report, "n1")
    assert (
        host["health_score"] == 100.0
        and host["gpus"] == 2
        and host["freed_bytes"] == 3 * 1024**2
        and host["duration"] == 3.1
    )
    assert [one["message"] for one in host["phases"]] == [
        "1 of 1 checks passed",
        "1 of 1 checks passed",
        "new backup: 7 files, 2.0 KiB, verified",
        "2 removed, 3.0 MiB freed",
    ]


def test_a_sick_gpu_makes_the_run_critical_and_names_the_host():
    report = assemble(
        {"n1": HEALTHY, "n2": {**HEALTHY, "gpu": verdict(CHECK_BAD, CHECK_WARM, status="critical")}}
    )
    assert report["exit_code"] == 2 and report["failed_hosts"] == ["n2"]
    assert report["summary"]["do_not_schedule"] == ["n2"]
    assert entry(report, "n2")["problems"] == [CHECK_BAD["message"], CHECK_WARM["message"]]
    assert (
        assemble(
            {"n2": {**HEALTHY, "gpu": verdict(CHECK_BAD, status="critical")}}, fail_on="never"
        )["failed_hosts"]
        == []
    )


def test_a_pending_reboot_alone_keeps_no_work_away():
    report = assemble(
        {
            "n1": {
                **HEALTHY,
                "health": verdict(CHECK_WARM, status="warning", recommendation="reboot"),
            }
        }
    )
    assert (
        entry(report, "n1")["recommendation"] == "reboot"
        and report["summary"]["do_not_schedule"] == []
    )


def test_warnings_fail_only_when_asked():
    results = {"n1": {**HEALTHY, "gpu": verdict(CHECK_WARM, status="warning")}}
    assert assemble(results)["failed_hosts"] == [] and assemble(results)["exit_code"] == 1
    assert assemble(results, fail_on="warning")["failed_hosts"] == ["n1"]


def test_cleanup_after_a_failed_backup_says_why_it_did_not_run():
    report = assemble(
        {
            "n1": {
                **HEALTHY,
                "backup": {"failed": True, "msg": "No space left", "duration": 1.0},
                "cleanup": SKIPPED,
            }
        }
    )
    found = phases(report, "n1")
    assert found["backup"]["status"] == "failed" and found["backup"]["message"] == "No space left"
    assert (
        found["cleanup"]["status"] == "skipped" and "backup failed" in found["cleanup"]["message"]
    )
    assert report["failed_hosts"] == ["n1"] and report["exit_code"] == 2


def test_phases_after_a_failure_say_which_one():
    report = assemble(
        {
            "n1": {
                "health": {"failed": True, "msg": "no psutil"},
                "gpu": SKIPPED,
                "backup": SKIPPED,
                "cleanup": SKIPPED,
            }
        }
    )
    assert all(
        "health failed" in phases(report, "n1")[name]["message"]
        for name in ("gpu", "backup", "cleanup")
    )


def test_a_phase_that_was_switched_off_is_no_failure():
    report = assemble({"n1": {**HEALTHY, "backup": SKIPPED}})
    assert phases(report, "n1")["backup"]["message"] == "switched off" and report["exit_code"] == 0


def test_an_unreachable_host_does_not_hide_and_does_not_stop_the_others():
    report = assemble(
        {
            "n1": HEALTHY,
            "n2": {"health": DOWN, "gpu": SKIPPED, "backup": SKIPPED, "cleanup": SKIPPED},
        }
    )
    assert (
        entry(report, "n2")["status"] == "unreachable"
        and report["failed_hosts"] == ["n2"]
        and report["errors"] == []
    )
    assert phases(report, "n2")["cleanup"]["message"] == "not run: the host can't be reached"
    assert entry(report, "n1")["status"] == "pass"


def test_none_reachable_and_no_host_are_errors():
    assert "None of the 1 targeted hosts" in assemble({"n2": {"health": DOWN}})["errors"][0]
    empty = assemble({})
    assert empty["errors"] == ["No host matched."] and empty["exit_code"] == 2


def test_a_host_without_data_is_listed():
    report = assemble({"n1": HEALTHY, "n2": {}})
    assert entry(report, "n2")["status"] == "no_data" and report["failed_hosts"] == ["n2"]


def test_check_mode_predicts_instead_of_failing():
    report = assemble(
        {"n1": {**HEALTHY, "backup": {"failed": True, "msg": "no /opt/ml/models"}}}, check_mode=True
    )
    assert phases(report, "n1")["backup"] == {
        "phase": "backup",
        "duration": None,
        "changed": False,
        "status": "warning",
        "message": "would fail: no /opt/ml/models",
    }
    assert report["failed_hosts"] == []


def test_hosts_held_back_by_the_brake_count_as_failed():
    report = assemble(
        {"n1": dict.fromkeys(fleet.PHASES, SKIPPED)}, held={"n1": "held back: 1 of 2 hosts failed"}
    )
    assert entry(report, "n1")["status"] == "held" and report["failed_hosts"] == ["n1"]


@pytest.mark.parametrize(
    ("failed", "good", "limit", "stops"),
    [(1, 1, 50, False), (1, 1, 49, True), (0, 3, 0, False), (1, 99, 0, True), (0, 0, 0, False)],
)
def test_brake(failed, good, limit, stops):
    hosts = (
        [[{"failed": True}, None]] * failed
        + [[HEALTHY["health"], None]] * good
        + [[None, None]] * 5
    )
    assert bool(rollout.brake(hosts, limit)) is stops


def test_each_failed_host_is_told_why():
    report = assemble(
        {
            "n1": HEALTHY,
            "n2": {**HEALTHY, "backup": {"failed": True, "msg": "No space left."}},
            "n3": {"health": DOWN},
        }
    )
    assert fleet.attention(report) == {
        "n2": "backup failed: No space left.",
        "n3": "health unreachable: Connection refused",
    }


def test_the_table_lines_up_and_ends_with_the_headline():
    lines = screen.table(assemble({"n1": HEALTHY, "a-much-longer-name": {"health": DOWN}}))
    assert lines[0].split() == [
        "HOST",
        "STATE",
        "SCORE",
        "HEALTH",
        "GPU",
        "BACKUP",
        "CLEANUP",
        "TIME",
    ]
    assert lines[2].startswith("n1 ") and lines[2].index("pass") == lines[3].index(
        "unreachable"
    ) == lines[0].index("STATE")
    assert lines[-1].startswith("Fleet maintenance: CRITICAL - 2 hosts (1 pass, 1 unreachable)")
    assert "a-much-longer-name: health unreachable: Connection refused" in lines


def test_a_large_fleet_is_quick_and_plain_json():
    start = time.process_time()
    report = assemble({f"n{i}": HEALTHY if i % 10 else {"health": DOWN} for i in range(1000)})
    assert time.process_time() - start < 5
    assert json.loads(json.dumps(report)) == report


def test_an_agent_that_is_not_the_collections_is_said_and_changes_no_verdict():
    mine, wanted = "0.1.0-aaaaaaaaaaaa", "0.2.0-bbbbbbbbbbbb"
    results = {
        name: {**HEALTHY, "health": verdict(CHECK_OK, agent_version=one)}
        for name, one in (("old", mine), ("same", wanted), ("none", None))
    }
    report = assemble(results, version=wanted)
    assert {
        host["host"]: [note.split(" is ")[1].split(" (")[0] for note in host["notes"]]
        for host in report["hosts"]
    } == {
        "old": ["older than the collection"],
        "same": [],
        "none": [],
    }
    assert (
        report["status"] == "pass"
        and report["failed_hosts"] == []
        and entry(report, "old")["agent_version"] == mine
    )
    (line,) = [line for line in screen.table(report) if ": note: " in line]
    assert line.startswith("old: note: the agent on this node (0.1.0-aaaaaaaaaaaa) is older")
