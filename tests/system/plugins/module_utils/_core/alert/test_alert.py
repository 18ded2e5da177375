# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When people are told: cooldown, escalation, recovery, digest, undelivered messages, crashes,
clocks, two runs at once.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import stat
import sys
import time

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.alert import execute, plan, store
from ansible_collections.mlops.fleet.plugins.module_utils._core.alert.events import key_of
from ansible_collections.mlops.fleet.plugins.module_utils._core.alert.options import AlertOptions
from ansible_collections.mlops.fleet.plugins.module_utils._core.alert.run import run
from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import OptionError, Refused
from ansible_collections.mlops.fleet.plugins.module_utils._core.ports import World


def messages(web):
    return [(one["status"], one["message"]) for one in web.bodies]


def hook(web, **more):
    return [{"url": web.url("/hooks/s3cr3tT0ken99"), "payload": "plain", "retries": 0, **more}]


def test_a_problem_is_told_once_and_its_end_once(tell, web, document, make_check, clock):
    for dummy in range(3):
        tell(
            document=document(make_check("disk_space", "critical", "Disk usage: 95%", "/data")),
            webhooks=hook(web),
        )
        clock.time += 300
    for dummy in range(2):
        tell(
            document=document(make_check("disk_space", "pass", "Disk usage: 60%", "/data")),
            webhooks=hook(web),
        )
    assert messages(web) == [("firing", "Disk usage: 95%"), ("resolved", "Disk usage: 60%")]


def test_the_cooldown_ends_and_the_reminder_says_so(tell, web, document, make_check, clock):
    verdict = document(make_check("load", "warning"))
    tell(document=verdict, webhooks=hook(web))
    clock.time += 3599
    held = tell(document=verdict, webhooks=hook(web))
    assert held.events[0]["decision"] == "hold"
    assert held.channels[0]["status"] == "skipped"
    assert not held.changed
    clock.time += 1
    again = tell(document=verdict, webhooks=hook(web))
    assert again.events[0]["decision"] == "send"
    assert "still warning" in again.events[0]["reason"]
    assert len(web.requests) == 2


def test_an_escalation_is_never_held_back_and_its_way_down_is(
    tell, web, document, make_check, clock
):
    for status in ("warning", "critical", "warning", "critical"):
        tell(
            document=document(make_check("gpu_temperature", status, subject="GPU 3")),
            webhooks=hook(web),
        )
        clock.time += 60
    assert [one["severity"] for one in web.bodies] == ["warning", "critical"]


def test_what_eased_is_told_as_that_with_the_next_reminder(tell, web, document, make_check, clock):
    tell(document=document(make_check("load", "critical")), webhooks=hook(web))
    clock.time += 4000
    assert (
        tell(document=document(make_check("load", "warning")), webhooks=hook(web)).events[0][
            "reason"
        ]
        == "eased from critical to warning, cooldown of 1 h 00 min is over"
    )


def test_flapping_is_told_once_per_cooldown(tell, web, document, make_check, clock):
    for number in range(40):
        tell(
            document=document(make_check("network", "critical" if number % 2 == 0 else "pass")),
            webhooks=hook(web),
        )
        clock.time += 300
    seconds = 40 * 300
    assert sum(status == "firing" for status, dummy in messages(web)) <= seconds / 3600 + 1
    assert sum(status == "resolved" for status, dummy in messages(web)) <= seconds / 3600 + 1


def test_hosts_checks_and_subjects_have_cooldowns_of_their_own(tell, web, document, make_check):
    one, other = (
        make_check("disk_space", "critical", subject="/a"),
        make_check("disk_space", "critical", subject="/b"),
    )
    for verdict in (document(one), document(one, other), document(one, other, host="node2")):
        tell(document=verdict, webhooks=hook(web))
    assert [len(body["alerts"]) for body in web.bodies] == [1, 1, 2]
    assert len({alert["fingerprint"] for body in web.bodies for alert in body["alerts"]}) == 4


def test_the_state_survives_a_restart(world, web, document, make_check, tmp_path):
    source = """
import json, sys
from ansible_collections.mlops.fleet.plugins.module_utils._core.alert.run import run
from ansible_collections.mlops.fleet.plugins.module_utils._core.alert.options import AlertOptions
from ansible_collections.mlops.fleet.plugins.module_utils._core.ports import World
given = json.load(sys.stdin)
print(json.dumps(run(AlertOptions.from_mapping(given), World(run=None)).to_dict()))
"""
    import subprocess

    given = json.dumps(
        {
            "document": document(make_check("oom", "critical")),
            "webhooks": hook(web),
            "state_dir": str(tmp_path / "state"),
        }
    )
    decisions = []
    for dummy in range(2):
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            [sys.executable, "-c", source],
            input=given,
            capture_output=True,
            text=True,
            check=True,
            env=env,
        )
        decisions.append(json.loads(done.stdout)["events"][0]["decision"])
    assert decisions == ["send", "hold"]
    assert len(web.requests) == 1


def test_a_clock_set_back_neither_silences_nor_repeats(tell, web, document, make_check, clock):
    verdict = document(make_check("disk_space", "critical"))
    clock.time += 10 * 86400
    tell(document=verdict, webhooks=hook(web))
    clock.time -= 10 * 86400  # the wrong time was corrected
    for dummy in range(11):
        tell(document=verdict, webhooks=hook(web))
        clock.time += 300
    assert len(web.requests) == 1, "no storm"
    clock.time += 900
    tell(document=verdict, webhooks=hook(web))
    assert len(web.requests) == 2, "never silent for longer than the cooldown"


def test_a_clock_set_forward_gives_at_most_one_more(tell, web, document, make_check, clock):
    verdict = document(make_check("disk_space", "critical"))
    tell(document=verdict, webhooks=hook(web))
    clock.time += 10 * 86400
    for dummy in range(5):
        tell(document=verdict, webhooks=hook(web))
    assert len(web.requests) == 2


def _concurrent(given, barrier):
    barrier.wait()
    run(AlertOptions.from_mapping(given), World(run=None))


def test_two_runs_at_once_send_one_message(web, answer, document, make_check, tmp_path):
    web.answers = [answer(hang=0.3)]
    given = {
        "document": document(make_check("disk_space", "critical")),
        "webhooks": hook(web),
        "state_dir": str(tmp_path / "state"),
    }
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(4)
    runs = [context.Process(target=_concurrent, args=(given, barrier)) for dummy in range(4)]
    for one in runs:
        one.start()
    for one in runs:
        one.join(20)
    assert [one.exitcode for one in runs] == [0, 0, 0, 0]
    assert len(web.requests) == 1


@pytest.mark.parametrize("moment", ["before sending", "after sending"])
def test_a_run_killed_half_way_loses_nothing_and_repeats_at_most_once(
    tell, web, document, make_check, tmp_path, moment, clock, world
):
    verdict = document(make_check("disk_space", "critical"))
    given = {"document": verdict, "webhooks": hook(web), "state_dir": str(tmp_path / "state")}
    pid = os.fork()
    if pid == 0:
        original = execute.deliver

        def deliver(*arguments):
            if moment == "after sending":
                original(*arguments)
            os.kill(os.getpid(), signal.SIGKILL)

        execute.deliver = deliver  # the power goes here
        run(AlertOptions.from_mapping(given), world)
        os._exit(1)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    before = len(web.requests)
    for dummy in range(3):
        clock.time += 60
        tell(document=verdict, webhooks=hook(web))
    assert len(web.requests) - before == 1
    assert len(web.requests) <= 2


def test_what_a_dead_server_missed_is_sent_by_the_next_run(
    tell, web, answer, document, make_check, clock
):
    web.answers = [answer(status=503)]
    first = tell(
        document=document(make_check("disk_space", "critical", "Disk usage: 95%")),
        webhooks=hook(web),
    )
    assert first.channels[0]["status"] == "queued"
    assert "503" in first.channels[0]["detail"]
    clock.time += 300
    second = tell(
        document=document(make_check("disk_space", "critical", "Disk usage: 96%")),
        webhooks=hook(web),
    )
    assert second.channels[0]["status"] == "sent"
    assert web.bodies[-1]["message"] == "Disk usage: 95%"
    third = tell(document=document(make_check("disk_space", "critical")), webhooks=hook(web))
    assert third.channels[0]["status"] == "skipped"


def test_an_end_replaces_the_undelivered_beginning(tell, web, answer, document, make_check, clock):
    web.answers = [answer(status=500)]
    tell(document=document(make_check("disk_space", "critical")), webhooks=hook(web))
    clock.time += 300
    tell(document=document(make_check("disk_space", "pass", "Disk usage: 50%")), webhooks=hook(web))
    assert messages(web)[1:] == [("resolved", "Disk usage: 50%")]


def test_undelivered_messages_expire_and_problems_that_last_do_not(
    tell, web, answer, document, make_check, clock, world
):
    warnings = []
    world.warn = warnings.append
    web.answers = [answer(status=429, headers={"Retry-After": "99"})] * 2
    count = plan.QUEUE_LENGTH + 100
    units = [make_check("unit", "critical", subject=f"u{n}") for n in range(count)]
    hooks = hook(web, payload="alertmanager")
    for report in (
        tell(document=document(*units), webhooks=hooks),
        tell(message="unrelated", webhooks=hooks),
    ):
        assert report.channels[0]["status"] == "queued"
        clock.time += 60
    clock.time += plan.QUEUE_SECONDS + 60
    tell(document=document(make_check("x", "pass")), webhooks=hooks)
    sent = [alert for body in web.bodies[2:] for alert in body]
    assert len(sent) == count, "problems that last are still sent, all of them"
    assert "unrelated" not in json.dumps(sent), "nobody wants a message of yesterday"
    assert [text for text in warnings if "given up" in text] == [
        "1 message could not be delivered for a day, or there were too many: given up."
    ]


GPU, NODE = {"gpus": []}, {"recommendation": "none"}


def test_what_one_part_finds_bad_the_other_does_not_end(tell, web, document, make_check, clock):
    """node_health without gpu_expected_count sees nothing wrong with seven GPUs, gpu_health with
    expected_count does.
    """

    def judge(status, kind):
        clock.time += 300
        return tell(document=document(make_check("gpu_count", status), **kind), webhooks=hook(web))

    for status, kind in (
        ("critical", GPU),
        ("pass", NODE),
        ("critical", GPU),
        ("skipped", NODE),
        ("critical", GPU),
    ):
        judge(status, kind)
    assert messages(web) == [("firing", "gpu_count is critical")]
    judge("pass", GPU)
    judge("pass", NODE)
    assert [status for status, dummy in messages(web)] == ["firing", "resolved"]


def test_a_subject_that_one_part_does_not_report_is_not_gone_for_the_other(
    tell, web, document, make_check
):
    tell(
        document=document(
            make_check("gpu_xid", "critical", subject="GPU 3"),
            make_check("gpu_xid", "pass", subject="GPU 4"),
            **GPU,
        ),
        webhooks=hook(web),
    )
    tell(
        document=document(make_check("gpu_xid", "pass", subject="GPU 4"), **NODE),
        webhooks=hook(web),
    )
    assert [status for status, dummy in messages(web)] == ["firing"]


def test_the_worse_of_two_opinions_counts(tell, web, document, make_check, clock):
    def judge(status, kind, seconds=300):
        clock.time += seconds
        result = tell(
            document=document(make_check("gpu_temperature", status, subject="GPU 3"), **kind),
            webhooks=hook(web, send_resolved=True),
        )
        return result.events[0]["reason"] if result.events else ""

    judge("warning", NODE)
    assert judge("critical", GPU) == "escalated from warning to critical"
    assert judge("warning", NODE, 4000) == "gpu_health reports critical"
    assert judge("critical", GPU, 4000).startswith("still critical")
    judge("pass", NODE)
    assert [body["severity"] for body in web.bodies] == ["warning", "critical", "critical"]
    judge("warning", GPU)
    judge("pass", GPU)
    assert [body["severity"] for body in web.bodies] == ["warning", "critical", "critical", "pass"]


def test_the_opinion_of_a_part_that_judges_no_more_is_dropped_in_the_end(
    tell, web, document, make_check, clock
):
    tell(document=document(make_check("gpu_count", "critical"), **GPU), webhooks=hook(web))
    for dummy in range(4):
        clock.time += 86400
        tell(document=document(make_check("gpu_count", "pass"), **NODE), webhooks=hook(web))
    assert [status for status, dummy in messages(web)] == ["firing", "resolved"]


def test_a_message_takes_back_what_any_part_found(tell, web, document, make_check):
    tell(document=document(make_check("gpu_count", "critical"), **GPU), webhooks=hook(web))
    tell(document=document(make_check("gpu_count", "pass")), webhooks=hook(web))
    assert [status for status, dummy in messages(web)] == ["firing", "resolved"]


@pytest.mark.parametrize("reported", [True, False])
def test_the_end_is_told_also_after_months_of_repair(
    tell, web, document, make_check, clock, reported
):
    root = make_check("disk_space", "pass", subject="/")
    tell(
        document=document(make_check("disk_space", "critical", subject="/data"), root),
        webhooks=hook(web),
    )
    clock.time += 4 * plan.FORGET_OPEN_SECONDS
    tell(
        document=document(*[make_check("disk_space", "pass", subject="/data")] * reported, root),
        webhooks=hook(web),
    )
    assert [status for status, dummy in messages(web)] == ["firing", "resolved"]


def test_what_nobody_speaks_of_is_forgotten(tell, web, document, make_check, clock, tmp_path):
    tell(document=document(make_check("disk_space", "critical")), webhooks=hook(web))
    clock.time += 2 * plan.FORGET_OPEN_SECONDS
    tell(document=document(make_check("load", "warning")), webhooks=hook(web))
    assert [
        one["check"]
        for one in json.loads((tmp_path / "state" / "state.json").read_text())["entries"].values()
    ] == ["load"]


def test_channels_of_one_name_are_kept_apart(tell, web, web2, answer, tmp_path):
    web2.answers = [answer(status=500)] * 2
    hooks = [
        *hook(web, payload="slack"),
        *hook(web2, name="slack-2"),
        *hook(web, payload="slack"),
        *hook(web2, name="slack"),
    ]
    result = tell(message="x", webhooks=hooks)
    assert [(one["name"], one["status"]) for one in result.channels] == [
        ("slack", "sent"),
        ("slack-2", "queued"),
        ("slack-3", "sent"),
        ("slack-4", "queued"),
    ]
    assert [one["status"] for one in tell(message="x", webhooks=hooks).channels] == [
        "skipped",
        "sent",
        "skipped",
        "sent",
    ]
    assert (len(web.requests), len(web2.requests)) == (2, 4)


def test_a_refusal_for_good_is_failed_and_not_kept(tell, web, answer, document, make_check, clock):
    web.answers = [answer(status=410), answer(status=410)]
    verdict = document(make_check("disk_space", "critical"))
    first = tell(document=verdict, webhooks=hook(web))
    assert first.channels[0]["status"] == "failed"
    assert not first.changed
    # No channel took it, so the next run tries again instead of staying silent for an hour.
    second = tell(document=verdict, webhooks=hook(web))
    assert second.events[0]["decision"] == "send"
    assert len(web.requests) == 2


def test_a_failing_channel_does_not_stop_the_others(tell, web, web2, answer, document, make_check):
    web.answers = [answer(status=403)]
    hooks = hook(web, name="first") + hook(web2, name="second")
    result = tell(document=document(make_check("disk_space", "critical")), webhooks=hooks)
    assert [(report["name"], report["status"]) for report in result.channels] == [
        ("first", "failed"),
        ("second", "sent"),
    ]


@pytest.mark.parametrize("status", [401, 403, 404, 302])
def test_what_a_repair_can_cure_is_sent_to_that_channel_after_the_repair(
    tell, web, web2, answer, document, make_check, clock, status
):
    """The pager is broken and the chat works: the pager gets the problem once it is repaired, the
    chat not again.
    """
    web.answers = [answer(status=status)] * 2
    hooks = hook(web, name="pager") + hook(web2, name="chat")
    verdict = document(make_check("disk_space", "critical", "Disk usage: 95%"))
    statuses = []
    for dummy in range(4):
        result = tell(document=verdict, webhooks=hooks, cooldown=10 * 86400)
        statuses.append([report["status"] for report in result.channels])
        clock.time += 2 * 86400  # longer than a queued message without a problem is kept
    assert statuses == [
        ["failed", "sent"],
        ["failed", "skipped"],
        ["sent", "skipped"],
        ["skipped", "skipped"],
    ]
    assert messages(web)[-1] == ("firing", "Disk usage: 95%")
    assert len(web2.requests) == 1


@pytest.mark.parametrize(("status", "kept"), [(401, True), (404, True), (429, False)])
def test_what_has_no_end_waits_longer_for_a_repair_than_for_a_server(
    tell, web, answer, document, make_check, clock, status, kept
):
    """A message, and the end of a problem that was sent before the channel broke."""
    broken = answer(status=status, headers={"Retry-After": "99"})
    tell(document=document(make_check("disk_space", "critical")), webhooks=hook(web))
    web.answers = [broken] * 3
    tell(message="backup failed", webhooks=hook(web))
    tell(document=document(make_check("disk_space", "pass")), webhooks=hook(web))
    clock.time += 7 * 86400
    tell(document={"checks": []}, webhooks=hook(web))
    before = len(web.bodies)
    web.answers = []
    tell(document={"checks": []}, webhooks=hook(web))
    sent = [alert["status"] for body in web.bodies[before:] for alert in body["alerts"]]
    assert sorted(sent) == (["firing", "resolved"] if kept else [])


def test_a_problem_that_ended_before_the_repair_is_sent_as_that(
    tell, web, web2, answer, document, make_check
):
    web.answers = [answer(status=401)]
    hooks = hook(web, name="pager") + hook(web2, name="chat")
    for status in ("critical", "pass"):
        tell(document=document(make_check("disk_space", status)), webhooks=hooks)
    assert [status for status, dummy in messages(web)] == ["firing", "resolved"]
    assert len(web.bodies[-1]["alerts"]) == 1


def test_a_channel_that_moved_gets_what_its_old_address_refused(
    tell, web, web2, answer, document, make_check
):
    web.answers = [answer(status=404)]
    verdict = document(make_check("disk_space", "critical", "Disk usage: 95%"))
    assert tell(document=verdict, webhooks=hook(web)).channels[0]["status"] == "failed"
    assert tell(document=verdict, webhooks=hook(web2)).channels[0]["status"] == "sent"
    assert messages(web2) == [("firing", "Disk usage: 95%")]


def test_what_was_refused_for_good_is_reported_until_somebody_sends_a_test(
    tell, web, web2, answer, document, make_check
):
    web.answers = [answer(status=400, body="malformed")]
    hooks = hook(web, name="pager") + hook(web2, name="chat")
    ill = document(make_check("disk_space", "critical"))
    well = document(make_check("load", "pass"))
    assert (
        tell(document=ill, webhooks=hooks).channels[0]["detail"]
        == "HTTP 400 Bad Request: malformed"
    )
    for dummy in range(2):
        report = tell(document=well, webhooks=hooks).channels[0]
        assert report["status"] == "failed"
        assert (
            "1 event refused for good before (HTTP 400 Bad Request: malformed)"
            in (report["detail"])
        )
    assert tell(test=True, webhooks=hooks).channels[0]["status"] == "sent"
    assert [report["status"] for report in tell(document=well, webhooks=hooks).channels] == [
        "skipped",
        "skipped",
    ]


@pytest.mark.parametrize("step", [50 * 365 * 86400, 2 * 86400, -2 * 86400])
def test_a_clock_that_steps_does_not_make_a_queued_message_old(tell, web, answer, world, step):
    class Stepped:
        def __init__(self):
            self.time, self.uptime = 1_000_000.0, 500.0

        def now(self):
            return self.time

        def monotonic(self):
            return self.uptime

    world.clock = Stepped()
    web.answers = [answer(status=503)]
    assert tell(message="backup failed", webhooks=hook(web)).channels[0]["status"] == "queued"
    world.clock.time += step
    world.clock.uptime += 60
    assert tell(document={"checks": []}, webhooks=hook(web)).channels[0]["status"] == "sent"
    assert messages(web)[-1][1] == "backup failed"


@pytest.mark.parametrize(("uptime", "sent"), [(3600.0, True), (2 * 86400.0, False)])
def test_after_a_reboot_a_queued_message_is_as_old_as_the_system_is_up(
    tell, web, answer, world, clock, tmp_path, uptime, sent
):
    boot = tmp_path / "root/proc/sys/kernel/random/boot_id"
    boot.parent.mkdir(parents=True)
    boot.write_text("first\n")
    world.root = str(tmp_path / "root")
    web.answers = [answer(status=503)]
    tell(message="backup failed", webhooks=hook(web))
    boot.write_text("second\n")
    clock.time = uptime
    tell(document={"checks": []}, webhooks=hook(web))
    assert (len(web.requests) == 2) is sent


def test_a_silent_server_does_not_hold_up_the_others(tell, web, web2, answer, document, make_check):
    web.answers = [answer(hang=3)]
    start = time.monotonic()
    result = tell(
        document=document(make_check("disk_space", "critical")),
        webhooks=hook(web, name="silent", timeout=1) + hook(web2, name="good"),
    )
    assert time.monotonic() - start < 2.5
    assert [one["status"] for one in result.channels] == ["queued", "sent"]
    assert web2.requests[0]["at"] - start < 0.8


def test_many_at_once_become_one_digest_for_people(tell, web, document, make_check):
    checks = [make_check("unit", "critical", f"unit{n} failed", f"unit{n}") for n in range(6)]
    result = tell(document=document(*checks), webhooks=hook(web, payload="slack"))
    assert len(web.requests) == 1
    assert "6 critical" in web.bodies[0]["text"]
    assert result.channels[0]["events"] == 6


def test_up_to_digest_after_are_told_one_by_one(tell, web, document, make_check):
    tell(
        document=document(*[make_check("unit", "critical", subject=f"unit{n}") for n in range(5)]),
        webhooks=hook(web, payload="slack"),
    )
    assert len(web.requests) == 5
    tell(
        document=document(*[make_check("unit", "warning", subject=f"x{n}") for n in range(3)]),
        digest_after=2,
        webhooks=hook(web, payload="slack"),
    )
    assert len(web.requests) == 6


def test_a_digest_opens_one_incident_and_closes_it_with_the_last_problem(
    tell, web, document, make_check, clock
):
    hooks = [{"url": web.url(), "payload": "pagerduty", "routing_key": "R" * 32}]
    names = [f"unit{n}" for n in range(6)]
    for bad in (6, 3, 0):
        checks = [
            make_check("unit", "critical" if n < bad else "pass", subject=name)
            for n, name in enumerate(names)
        ]
        tell(document=document(*checks), webhooks=hooks)
        clock.time += 60
    assert [body["event_action"] for body in web.bodies] == ["trigger", "resolve"]
    assert len({body["dedup_key"] for body in web.bodies}) == 1


def test_one_problem_is_one_incident_with_a_stable_key(tell, web, document, make_check, clock):
    hooks = [{"url": web.url(), "payload": "pagerduty", "routing_key": "R" * 32}]
    for status in ("warning", "critical", "critical", "pass"):
        tell(document=document(make_check("disk_space", status, subject="/data")), webhooks=hooks)
        clock.time += 1800
    assert [body["event_action"] for body in web.bodies] == ["trigger", "trigger", "resolve"]
    assert len({body["dedup_key"] for body in web.bodies}) == 1


def test_a_subject_that_is_gone_closes_its_problem(tell, web, document, make_check):
    tell(
        document=document(
            make_check("disk_space", "critical", subject="/old"),
            make_check("disk_space", "pass", subject="/"),
        ),
        webhooks=hook(web),
    )
    tell(document=document(make_check("other", "pass")), webhooks=hook(web))
    assert len(web.requests) == 1, "a document without that check says nothing about it"
    tell(
        document=document(make_check("disk_space", "unknown", "no answer from df")),
        webhooks=hook(web),
    )
    assert [alert["status"] for body in web.bodies for alert in body["alerts"]] == [
        "firing",
        "firing",
    ], "nor does a check that could not be made"
    tell(document=document(make_check("disk_space", "pass", subject="/")), webhooks=hook(web))
    assert messages(web)[-1][0] == "resolved"
    assert "no longer reported" in json.dumps(web.bodies[-1])


def test_a_skipped_check_closes_its_problem(tell, web, document, make_check):
    tell(document=document(make_check("gpu", "critical")), webhooks=hook(web))
    tell(document=document(make_check("gpu", "skipped")), webhooks=hook(web))
    assert [status for status, dummy in messages(web)] == ["firing", "resolved"]


def test_recoveries_can_be_left_out(tell, web, document, make_check, clock):
    for status in ("critical", "pass"):
        tell(document=document(make_check("gpu", status)), webhooks=hook(web, send_resolved=False))
    assert len(web.requests) == 1
    clock.time += 3600
    result = tell(
        document=document(make_check("gpu", "warning")), webhooks=hook(web, send_resolved=False)
    )
    assert result.events[0]["reason"] == "new problem"


def test_plain_messages(tell, web, clock):
    def say(**given):
        return tell(webhooks=hook(web), **given).channels[0]["status"]

    assert say(message="backup failed") == "sent"
    assert say(message="backup failed") == "skipped"
    assert say(message="cleanup failed") == "sent"
    assert say(message="backup failed", severity="critical") == "sent"
    assert say(message="slow", severity="warning", check="backup", subject="a") == "sent"
    assert say(message="slower, 12 s", severity="warning", check="backup", subject="a") == "skipped"
    assert say(message="slow", severity="warning", check="backup", subject="b") == "sent"
    assert say(message="fine", severity="pass", check="backup", subject="a") == "sent"
    assert say(message="fine", severity="pass", check="backup", subject="a") == "skipped"
    assert web.bodies[0]["hostname"] == World(run=None).hostname
    assert [one["status"] for one in web.bodies].count("resolved") == 1


def test_check_mode_sends_and_writes_nothing_and_says_what_it_would(
    tell, web, document, make_check, tmp_path
):
    verdict = document(make_check("disk_space", "critical"))
    would = tell(
        dry=True, document=verdict, webhooks=hook(web), syslog=True, command=["/bin/false"]
    )
    assert [one["status"] for one in would.channels] == ["would_send"] * 3
    assert would.changed
    assert not web.requests
    assert not (tmp_path / "state").exists()
    assert tell(document=verdict, webhooks=hook(web)).changed
    before = (tmp_path / "state" / "state.json").read_bytes()
    after = tell(dry=True, document=verdict, webhooks=hook(web))
    assert not after.changed
    assert after.channels[0]["status"] == "skipped"
    assert (tmp_path / "state" / "state.json").read_bytes() == before


def test_a_test_message_is_marked_and_leaves_no_trace(tell, web, tmp_path):
    for dummy in range(2):
        result = tell(test=True, webhooks=hook(web))
        assert result.channels[0]["status"] == "sent"
    assert len(web.requests) == 2
    assert all("[TEST]" in body["message"] for body in web.bodies)
    assert not (tmp_path / "state").exists()
    assert tell(test=True, dry=True, webhooks=hook(web)).channels[0]["status"] == "would_send"
    assert len(web.requests) == 2


def test_a_test_at_pagerduty_and_opsgenie_leaves_no_incident(tell, web):
    tell(test=True, webhooks=[{"url": web.url(), "payload": "pagerduty", "routing_key": "R" * 32}])
    assert [body["event_action"] for body in web.bodies] == ["trigger", "resolve"]
    tell(test=True, webhooks=[{"url": web.url(), "payload": "opsgenie", "api_key": "K" * 32}])
    assert web.requests[-1]["path"].endswith("/close?identifierType=alias")


def test_the_state_is_private_and_holds_no_secret(
    tell, web, answer, document, make_check, tmp_path
):
    web.answers = [answer(status=500)] * 2
    pager = {
        "url": web.url("/pd"),
        "payload": "pagerduty",
        "routing_key": "R0ut1ngK3y" * 3,
        "retries": 0,
    }
    hooks = [*hook(web, headers={"X-Auth": "h3aderSecret"}), pager]
    result = tell(document=document(make_check("disk_space", "critical")), webhooks=hooks)
    directory = tmp_path / "state"
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    texts = [json.dumps(result.to_dict())]
    for path in directory.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        texts.append(path.read_text())
    assert "disk_space" in "".join(texts)
    for secret in ("s3cr3tT0ken99", "h3aderSecret", "R0ut1ngK3y", f":{web.port}"):
        assert secret not in "".join(texts)


def test_a_damaged_state_is_set_aside_and_the_alert_goes_out(
    tell, web, document, make_check, tmp_path, world
):
    warnings = []
    world.warn = warnings.append
    directory = tmp_path / "state"
    directory.mkdir(mode=0o700)
    for damaged in (
        "{",
        "[]",
        (
            '{"version": 1, "entries": {"k": 5}, "pending": {"c": {"k": {"event": {"key": 1}}}},'
            ' "saved": "x"}'
        ),
    ):
        (directory / "state.json").write_text(damaged)
        assert (
            tell(message=f"after {len(damaged)}", webhooks=hook(web)).channels[0]["status"]
            == "sent"
        )
    assert (directory / "state.json.broken").read_text() == "[]"
    assert len(warnings) == 2


@pytest.mark.parametrize(
    "damaged",
    [
        "[" * 100_000,
        '{"version": 1, "saved": 1e999}',
        (
            '{"version": 1, "saved": NaN, "entries": {"KEY": {"host": "h", "check": "c", "subject":'
            ' "", "sent_at": Infinity, "since": -1e300}}}'
        ),
        '{"version": 1, "saved": 1%s}' % ("0" * 400),
        (
            '{"version": 1, "entries": {"KEY": {"host": "h", "check": "disk_space", "subject": "",'
            ' "by": {"gpu": [[], 1], "x": 5}}}}'
        ),
        (
            '{"version": 1, "entries": {"KEY": {"host": "h", "check": "disk_space", "subject": "",'
            ' "sent": [], "by": 5}}}'
        ),
        '{"version": 9, "entries": {}}',
    ],
    ids=["deep", "infinite", "odd times", "long", "opinions", "severity", "later version"],
)
def test_whatever_the_state_file_holds_the_alert_goes_out_once(
    tell, web, document, make_check, tmp_path, damaged
):
    (tmp_path / "state").mkdir(mode=0o700)
    verdict = document(make_check("disk_space", "critical"), host="h")
    (tmp_path / "state" / "state.json").write_text(
        damaged.replace("KEY", key_of("h", "disk_space", ""))
    )
    for dummy in range(2):
        tell(document=verdict, webhooks=hook(web))
    assert len(web.requests) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small file system")
def test_a_full_disk_neither_silences_nor_storms(tell, web, document, make_check, tmp_path, world):
    directory = tmp_path / "state"
    directory.mkdir()
    if os.system(f"mount -t tmpfs -o size=16k,mode=0700 tmpfs {directory}") != 0:
        pytest.skip("mounting is not allowed here")
    world.root = str(tmp_path)
    (tmp_path / "run").mkdir()
    try:
        (directory / "lock").touch()
        try:
            (directory / "filler").write_bytes(b"x" * 100_000)
        except OSError:
            pass
        for dummy in range(3):
            result = tell(
                document=document(make_check("disk_space", "critical")), webhooks=hook(web)
            )
        assert len(web.requests) == 1
        assert result.events[0]["decision"] == "hold"
        (directory / "filler").unlink()
        tell(document=document(make_check("disk_space", "pass")), webhooks=hook(web))
        assert [status for status, dummy in messages(web)] == ["firing", "resolved"]
        assert list((tmp_path / "run").iterdir()) == [], (
            "the spare copy is gone once the directory works again"
        )
    finally:
        os.system(f"umount {directory}")


def test_a_directory_that_can_not_be_made_silences_nobody(
    tell, web, document, make_check, tmp_path, world
):
    warnings = []
    world.warn = warnings.append
    world.root, world.environ = str(tmp_path), {"XDG_RUNTIME_DIR": str(tmp_path / "run")}
    (tmp_path / "run").mkdir()
    (tmp_path / "file").touch()
    verdict = document(make_check("root_filesystem", "critical"))
    decisions = [
        tell(
            document=verdict, webhooks=hook(web), state_dir=str(tmp_path / "file" / "state")
        ).events[0]["decision"]
        for dummy in range(2)
    ]
    assert decisions == ["send", "hold"]
    assert len(web.requests) == 1
    assert any("Can't make the state directory" in one for one in warnings)


def test_a_directory_others_may_write_to_is_refused(tell, web, tmp_path):
    directory = tmp_path / "state"
    directory.mkdir()
    directory.chmod(0o777)
    with pytest.raises(Refused):
        tell(message="x", webhooks=hook(web))
    with pytest.raises(Refused, match="is not a directory"):
        (tmp_path / "file").write_text("")
        tell(message="x", webhooks=hook(web), state_dir=str(tmp_path / "file"))
    assert not web.requests


def test_a_system_directory_is_no_state_directory(tell):
    with pytest.raises(Refused):
        tell(message="x", state_dir="/tmp", syslog=True)


def test_a_link_planted_as_state_file_is_not_followed(tell, web, tmp_path):
    directory = tmp_path / "state"
    directory.mkdir(mode=0o700)
    victim = tmp_path / "victim"
    victim.write_text("{}")
    (directory / "state.json").symlink_to(victim)
    tell(message="x", webhooks=hook(web))
    assert victim.read_text() == "{}"


def test_without_channels_there_is_a_warning(tell, world, document, make_check, tmp_path):
    warnings = []
    world.warn = warnings.append
    result = tell(document=document(make_check("disk_space", "critical")))
    assert result.channels == []
    assert not result.changed
    assert "nothing is sent" in warnings[0]
    assert not (tmp_path / "state").exists()


def test_a_result_that_is_no_verdict_is_refused_with_its_reason(tell, web):
    with pytest.raises(OptionError, match="No driver"):
        tell(document={"failed": True, "msg": "No driver"}, webhooks=hook(web))
    assert tell(document={"skipped": True, "changed": False}, webhooks=hook(web)).events == []


def test_default_directory(world):
    world.root = "/sandbox"
    expected = "/sandbox/var/lib/mlops-fleet/alert" if os.geteuid() == 0 else None
    assert expected is None or store.default_directory(world) == expected


def test_nothing_is_told_when_all_is_well(tell, web, document, make_check):
    result = tell(
        document=document(make_check("a", "pass"), make_check("b", "skipped")), webhooks=hook(web)
    )
    assert result.to_dict()["events"] == []
    assert result.channels[0]["detail"] == "nothing to send"
    assert not web.requests
