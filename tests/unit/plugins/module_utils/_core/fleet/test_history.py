# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs compared with kept ones: whatever is in the directory, from whichever version."""

from __future__ import annotations

import json
import os
import threading

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import NotUsable
from ansible_collections.mlops.fleet.plugins.module_utils._core.fleet import (
    changes,
    history,
    merge,
    record,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.fleet import report as fleet

DAY = 86400
NOW = 1_800_000_000


def check(name, status="critical", message="", subject=None, action="inspect"):
    return {
        "check": name,
        "status": status,
        "message": message or f"{name} is {status}",
        "subject": subject,
        "action": action,
    }


def verdict(*checks):
    order = ["pass", "unknown", "warning", "critical"]
    status = max((c["status"] for c in checks), key=order.index, default="pass")
    return {
        "checks": list(checks),
        "status": "warning" if status == "unknown" else status,
        "summary": {"passed": 0, "total": len(checks), "health_score": 50.0},
        "duration": 1.0,
    }


def run(hosts, phases=("health", "gpu"), at=NOW, groups=None):
    report = fleet.assemble(
        list(hosts), lambda host, phase: hosts[host].get(phase), phases=list(phases), timestamp=at
    )
    return record.extend(report, lambda host, phase: hosts[host].get(phase), groups)


def kinds(result):
    return {
        kind: sorted((fault["host"], fault["check"]) for fault in result[kind])
        for kind in changes.KINDS
        if result[kind]
    }


OK = {"health": verdict(check("disk", "pass")), "gpu": verdict(check("gpu_ecc", "pass"))}


def test_new_gone_worse_better():
    before = run(
        {
            "a": {**OK, "gpu": verdict(check("gpu_ecc"))},
            "b": {**OK, "health": verdict(check("disk", "warning"), check("load", "critical"))},
        }
    )
    now = run(
        {
            "a": {**OK, "health": verdict(check("dns"))},
            "b": {**OK, "health": verdict(check("disk", "critical"), check("load", "unknown"))},
        }
    )
    result = changes.compare(now, [history.upgrade(before)])
    assert kinds(result) == {
        "new": [("a", "dns")],
        "gone": [("a", "gpu_ecc")],
        "worse": [("b", "disk")],
        "better": [("b", "load")],
    }
    assert result["worse"][0]["was"] == "warning" and result["since"] == before["timestamp"]
    assert changes.counts(result) == "1 new, 1 gone, 1 worse, 1 better"


def test_a_run_of_one_phase_or_host_in_between_hides_nothing():
    full = run({"a": {**OK, "gpu": verdict(check("gpu_ecc"))}, "b": OK})
    limited = run({"b": {"health": OK["health"]}}, phases=["health"])
    now = run({"a": {**OK, "gpu": verdict(check("gpu_ecc"))}, "b": OK})
    result = changes.compare(now, [limited, full])
    assert kinds(result) == {} and result["unchanged"] == 1 and result["absent"] == []
    assert changes.compare(run({"b": OK}), [full])["absent"] == ["a"]


@pytest.mark.parametrize(
    "gpu",
    [{"failed": True, "msg": "no answer"}, {"unreachable": True, "msg": "gone"}, None],
)
def test_a_fault_of_a_phase_that_gave_no_checks_is_not_gone(gpu):
    before = run({"a": {**OK, "gpu": verdict(check("gpu_ecc"))}})
    result = changes.compare(run({"a": {**OK, "gpu": gpu}}), [before])
    assert not result["gone"] and len(result["new"]) == 1
    after = changes.compare(run({"a": OK}), [run({"a": {**OK, "gpu": gpu}}), before])
    assert ("a", "gpu_ecc") in kinds(after)["gone"] and len(after["gone"]) == 2


def test_a_run_of_version_1_is_compared_by_phase():
    old = fleet.assemble(
        ["a", "b"],
        lambda host, phase: {**OK, "gpu": verdict(check("gpu_ecc"))}.get(phase),
        phases=["health", "gpu"],
        timestamp=NOW,
    )
    assert old["version"] == 1
    now = run({"a": {**OK, "gpu": verdict(check("gpu_ecc"))}, "b": OK})
    result = changes.compare(now, [history.upgrade(json.loads(json.dumps(old)))])
    assert kinds(result) == {"gone": [("b", "*")]} and result["unchanged"] == 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"version": 3, "hosts": []}', "newer"),
        ("", "JSON"),
        ('{"version": 2, "hosts": [', "JSON"),
        ("[" * 100_000, "JSON"),
        ("[]", "not a report"),
        ('{"version": true}', "version"),
        ('{"version": 2, "timestamp": "x", "phases": [], "hosts": [{"host": 1}]}', "keys"),
        ('{"version": 2, "timestamp": "x", "phases": [], "hosts": [7]}', "keys"),
        ("\udcff".encode("utf-8", "surrogateescape").decode("latin-1"), "JSON"),
    ],
)
def test_documents_that_cant_be_used_are_named_and_left_out(tmp_path, content, reason):
    (tmp_path / "maintenance-20260101T000000Z.json").write_text(content)
    (tmp_path / "maintenance-20250101T000000Z.json").write_text(json.dumps(run({"a": OK})))
    os.mkfifo(tmp_path / "maintenance-20240101T000000Z.json")
    problems = []
    assert len(list(history.earlier(history.Directory(str(tmp_path)), problems))) == 1
    assert reason in problems[0].reason and len(problems) == 2


def test_two_controllers_in_the_same_second_lose_nothing(tmp_path):
    directory = str(tmp_path / "reports")

    def write(number):
        with history.adding(directory, NOW) as kept:
            kept.write("json", json.dumps({"number": number}))
            kept.write("html", str(number))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    numbers = {json.load(open(path))["number"] for path in (tmp_path / "reports").glob("m*.json")}
    assert numbers == set(range(8)) and len(history.stems(directory)) == 8
    assert history.stems(directory)[-1].endswith("-8")


def test_count_and_age_limit_the_kept_runs_but_not_this_one(tmp_path):
    directory = str(tmp_path)
    for age in (40, 20, 10, 5, -400):  # one of a controller whose clock is ahead
        with history.adding(directory, NOW - age * DAY) as kept:
            kept.write("json", "{}")
    (tmp_path / "notes.txt").write_text("mine")
    with history.adding(directory, NOW) as kept:
        kept.write("json", "{}")
        kept.prune(30, 15, NOW)
    assert len(history.stems(directory)) == 4
    kept.prune(1, None, NOW)
    assert kept.stem in history.stems(directory) and len(history.stems(directory)) == 2
    assert (tmp_path / "notes.txt").exists() and (tmp_path / "latest.json").is_symlink()


HOSTILE = (
    "<script>alert(1)</script>\x1b[31m\u202e|`*_@here [x](https://e.example) & \"'\n# "
    + "A" * 100_000
)


def test_hostile_text_is_inert_in_chat_markdown_and_text():
    now = run({HOSTILE: {**OK, "gpu": verdict(check(HOSTILE, message=HOSTILE, subject=HOSTILE))}})
    now["changes"] = changes.compare(now, [run({HOSTILE: OK})])
    chat = changes.chat(now)
    markdown = changes.markdown(now, HOSTILE)
    lines = changes.text(now["changes"])
    assert "\n" not in chat and len(chat) < 600 and "<" not in chat and "@" not in chat
    assert "://" not in chat
    assert "<" not in markdown and "](" not in markdown and "https://" not in markdown
    assert "\n# A" not in markdown and len(markdown) < 10_000 and "@" not in markdown
    for text in (chat, markdown, *lines):
        assert "\x1b" not in text and "\u202e" not in text
    assert all("\n" not in line and len(line) <= 600 for line in lines)


def test_chat_says_what_is_new_and_what_is_known():
    faulty = {**OK, "gpu": verdict(check("gpu_ecc", message="GPU 1: 3 ECC errors"))}
    before = run({"a": OK, "b": OK, "c": {**OK, "health": verdict(check("dns"))}})
    now = run({"a": faulty, "b": faulty, "c": OK})
    now["changes"] = changes.compare(now, [before])
    assert changes.chat(now).startswith("2 new, 1 gone: GPU 1: 3 ECC errors (2 hosts)")
    now["changes"] = changes.compare(now, [now])
    assert changes.chat(now).startswith("no change, 2 known faults")
    now["changes"] = changes.compare(now, [])
    assert changes.chat(now).startswith("first run, 2 faults: GPU 1: 3 ECC errors (2 hosts)")


def test_causes_group_hosts_and_order_by_severity():
    xid = [
        check("gpu_xid", message=f"GPU {n}: Xid {x}", subject=f"GPU {n}")
        for n, x in ((1, 79), (2, 79), (3, 48))
    ]
    hosts = {f"h{n}": {**OK, "gpu": verdict(xid[n % 2])} for n in range(4)}
    hosts["h9"] = {**OK, "gpu": verdict(xid[2])}
    hosts["w"] = {**OK, "health": verdict(check("disk", "warning"))}
    hosts["gone"] = {"health": {"unreachable": True, "msg": "no route"}}
    for name in ("x", "y"):
        msg = "Task failed: The host hangs: the backup phase did not end."
        hosts[name] = {"health": {"unreachable": True, "msg": msg}}
    causes = run(hosts)["causes"]
    assert [(cause["check"], len(cause["hosts"])) for cause in causes] == [
        ("unreachable", 2),
        ("unreachable", 1),
        ("gpu_xid", 4),
        ("gpu_xid", 1),
        ("disk", 1),
    ]
    assert causes[0]["title"].startswith("The host hangs") and causes[2]["variants"] == 2


def test_slices_are_merged_into_one_run(tmp_path):
    directory = str(tmp_path)
    store = history.Directory(directory)
    faulty = {**OK, "gpu": verdict(check("gpu_ecc"))}
    for at, hosts in (
        (NOW - 2 * DAY, {"old": OK}),
        (NOW, {"a": OK, "b": faulty}),
        (NOW, {"c": faulty, "a": faulty}),
    ):
        with history.adding(directory, at) as kept:
            kept.write("json", json.dumps(run(hosts, at=at)))
    options = {"timestamp": NOW, "title": "t", "fail_on": "critical"}
    report = merge.combine(merge.recent(store, NOW, 24), **options)
    assert report["failed_hosts"] == ["a", "b", "c"] and report["summary"]["hosts"] == 3
    assert report["causes"][0]["hosts"] == ["a", "b", "c"] and report["metrics"]["faults"] == 3
    with pytest.raises(NotUsable, match="no run of the last 24 hours"):
        merge.recent(store, NOW + 3 * DAY, 24)
    (tmp_path / "maintenance-20270115T080001Z.json").write_text("{")
    with pytest.raises(NotUsable, match="JSON"):
        merge.combine(merge.recent(store, NOW, 24), **options)


def test_the_record_of_a_gpu_is_in_the_data():
    past = {"incidents": 4, "repeat_offender": True, "codes": ["79"]}
    gpus = [
        {"uuid": "GPU-a", "serial": "7", "status": "warning", "history": past},
        {"uuid": "GPU-b", "status": "pass", "history": None},
    ]
    hosts = {"a": {"gpu": {**verdict(check("gpu_history", "warning")), "gpus": gpus}}}
    first, second = run(hosts)["hosts"][0]["devices"]
    assert (first["uuid"], first["serial"], first["incidents"], first["repeat_offender"]) == (
        "GPU-a",
        "7",
        4,
        True,
    )
    assert "repeat_offender" not in second
