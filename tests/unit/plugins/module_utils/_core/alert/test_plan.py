# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables of decisions: when a problem and its end are sent, whose opinion counts, what is
forgotten, what stays queued.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.alert import plan
from ansible_collections.mlops.fleet.plugins.module_utils._core.alert.channel import (
    FAILED,
    QUEUED,
    SENT,
    SKIPPED,
    Channel,
    Receipt,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.alert.events import (
    RECOVERY,
    Event,
    digest_key,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.alert.facts import Facts
from ansible_collections.mlops.fleet.plugins.module_utils._core.alert.memory import (
    Entry,
    Memory,
    Opinion,
    Refusal,
    Steady,
    Waiting,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.alert.options import AlertOptions
from ansible_collections.mlops.fleet.plugins.module_utils._core.ports import World

NOW = 1_000_000.0
HOUR = 3600.0
DAY = 86400.0
COOLDOWN = 3600
KEY = "node1.disk.1"


def event(severity="critical", key=KEY, subject="/data", source="", **more):
    return Event(
        key, "node1", more.pop("check", "disk"), subject, severity, severity, "full", NOW, NOW,
        source=source, **more,
    )  # fmt: skip


def entry(**fields):
    """An entry of a problem that was sent as critical ten minutes ago."""
    known = Entry(
        "node1", "disk", "/data", NOW - 600, NOW - 600, KEY,
        sent_at=NOW - 600, sent="critical", open=True, bad=True,
    )  # fmt: skip
    return known._replace(**fields)


def decide(seen, entries=(), ran=frozenset(), cooldown=COOLDOWN, digest_after=5, now=NOW):
    known = {KEY: entries} if isinstance(entries, Entry) else dict(entries)
    return plan.decide_events(known, seen, ran, now, cooldown, digest_after)


@pytest.mark.parametrize(
    ("severity", "known", "cooldown", "send", "reason"),
    [
        ("critical", None, COOLDOWN, True, "new problem"),
        ("info", None, COOLDOWN, True, "new problem"),
        ("critical", {}, COOLDOWN, False, "last sent 10 min 00 s ago, within the cooldown for another 50 min 00 s"),
        ("critical", {"sent_at": NOW - HOUR + 1}, COOLDOWN, False, "within the cooldown for another 1.0 s"),
        ("critical", {"sent_at": NOW - HOUR}, COOLDOWN, True, "still critical, cooldown of 1 h 00 min is over"),
        ("critical", {}, 0, True, "still critical"),
        ("critical", {"sent": "warning"}, COOLDOWN, True, "escalated from warning to critical"),
        ("warning", {"sent": "info"}, COOLDOWN, True, "escalated from info to warning"),
        ("warning", {}, COOLDOWN, False, "within the cooldown"),
        ("warning", {"sent_at": NOW - HOUR}, COOLDOWN, True, "eased from critical to warning, cooldown"),
        # It ended within the cooldown: the cooldown outlives the recovery.
        ("critical", {"open": False, "bad": False}, COOLDOWN, False, "within the cooldown"),
        ("critical", {"open": False, "bad": False, "sent_at": NOW - HOUR}, COOLDOWN, True, "new problem"),
        ("critical", {"open": False, "bad": False, "sent": "warning"}, COOLDOWN, True, "escalated"),
        ("critical", {"sent_at": 0.0, "open": False}, COOLDOWN, True, "new problem"),
        ("critical", {"sent_at": 0.0}, COOLDOWN, True, "new problem"),
        ("critical", {"sent_at": 1.0}, COOLDOWN, True, "still critical, cooldown"),
        # The clock was set back since.
        ("critical", {"sent_at": NOW + DAY}, COOLDOWN, False, "last sent 0 ms ago"),
    ],
)  # fmt: skip
def test_when_a_problem_is_sent(severity, known, cooldown, send, reason):
    decisions, entries = decide(
        [event(severity)], {} if known is None else entry(**known), cooldown=cooldown
    )
    assert [decision.send for decision in decisions] == [send]
    assert reason in decisions[0].event.reason
    after = entries[KEY]
    assert after.bad and after.seen_at == NOW
    if send:
        assert (after.sent_at, after.sent, after.open) == (NOW, severity, severity != "info")
    else:
        before = entry(**known)
        assert after.sent_at == min(before.sent_at, NOW)
        assert (after.sent, after.open) == (before.sent, before.open)


@pytest.mark.parametrize(
    ("known", "decisions"),
    [
        (None, []),
        ({}, ["recovered, was critical"]),
        ({"sent": "warning"}, ["recovered, was warning"]),
        ({"open": False}, []),  # its problem was never sent
        ({"bad": False}, []),
    ],
)
def test_an_end_is_sent_once_and_only_when_its_problem_was(known, decisions):
    decided, entries = decide([event("pass")], {} if known is None else entry(**known))
    assert [decision.event.reason for decision in decided] == decisions
    assert all(decision.send and decision.event.kind == RECOVERY for decision in decided)
    if known is None:
        assert entries == {}
        return
    assert not entries[KEY].bad
    assert entries[KEY].sent_at == NOW - 600
    for decision in decided:
        assert decision.event.previous == (entries[KEY].sent,)
        assert decision.event.since == NOW - 600
    again, dummy = decide([event("pass")], entries)
    assert again == []


@pytest.mark.parametrize(
    ("sent", "open_", "severity", "previous"),
    [
        ("warning", True, "critical", ("warning",)),
        ("critical", True, "critical", ()),
        ("warning", False, "critical", ()),
        ("pass", True, "critical", ()),
    ],
)
def test_services_learn_which_severity_an_alert_had(sent, open_, severity, previous):
    decided, dummy = decide([event(severity)], entry(sent=sent, open=open_, sent_at=NOW - 2 * HOUR))
    assert decided[0].event.previous == previous


@pytest.mark.parametrize(
    ("opinions", "source", "severity", "expected"),
    [
        # The other part's worse opinion holds an alert and an end back, as long as it is fresh.
        ({"gpu": ("critical", 0)}, "node", "warning", "gpu_health reports critical"),
        ({"gpu": ("critical", plan.OPINION_SECONDS)}, "node", "warning", "gpu_health reports critical"),
        ({"gpu": ("critical", plan.OPINION_SECONDS + 1)}, "node", "warning", "within the cooldown"),
        ({"gpu": ("warning", 0)}, "node", "warning", "within the cooldown"),
        ({"gpu": ("critical", 0)}, "gpu", "warning", "within the cooldown"),
        ({"gpu": ("critical", 0)}, "", "warning", "within the cooldown"),
        ({"": ("critical", 0)}, "node", "warning", "within the cooldown"),
        ({"gpu": ("critical", 0)}, "node", "pass", None),
        ({"gpu": ("warning", 0), "x": ("info", 0)}, "node", "info", "gpu_health reports warning"),
        ({"gpu": ("critical", plan.OPINION_SECONDS + 1)}, "node", "pass", "recovered"),
        ({"gpu": ("critical", 0)}, "gpu", "pass", "recovered"),
        ({"gpu": ("critical", 0)}, "", "pass", "recovered"),
    ],
)  # fmt: skip
def test_the_worse_of_two_opinions_counts(opinions, source, severity, expected):
    known = entry(
        opinions={part: Opinion(level, NOW - age) for part, (level, age) in opinions.items()}
    )
    decided, entries = decide([event(severity, source=source)], known)
    if expected is None:
        assert decided == [] and entries[KEY].open
        return
    assert expected in decided[0].event.reason
    if severity != "pass":
        assert not decided[0].send
        assert entries[KEY].opinions[source] == Opinion(severity, NOW)


def test_the_numbers_that_are_promised():
    assert (plan.QUEUE_SECONDS, plan.QUEUE_LENGTH, plan.OPINION_SECONDS) == (DAY, 200, 6 * HOUR)
    assert (plan.FORGET_OPEN_SECONDS, plan.FORGET_CLOSED_SECONDS) == (30 * DAY, DAY)
    assert (plan.ENTRIES, plan.REPAIR_SECONDS) == (5000, 30 * DAY)


@pytest.mark.parametrize(("count", "digest"), [(5, False), (6, True)])
def test_more_new_problems_than_digest_after_are_one_incident(count, digest):
    seen = [event(key=f"k{number}", subject=str(number)) for number in range(count)]
    decided, entries = decide(seen)
    incidents = {decision.event.incident for decision in decided}
    assert incidents == ({digest_key("node1")} if digest else {f"k{n}" for n in range(count)})
    assert {known.incident for known in entries.values()} == incidents


def test_what_is_still_open_keeps_its_incident():
    known = entry(incident="old", sent_at=NOW - 2 * HOUR)
    decided, dummy = decide([event()], known)
    assert decided[0].event.incident == "old"
    decided, dummy = decide([event()], known._replace(open=False))
    assert decided[0].event.incident == KEY


OTHER = event("pass", key="node1.disk.2", subject="/")
RAN = frozenset({("node1", "disk")})


@pytest.mark.parametrize(
    ("seen", "ran", "known", "ends"),
    [
        ([OTHER], RAN, {}, True),
        ([], RAN, {}, True),
        ([OTHER], frozenset(), {}, False),
        ([OTHER], frozenset({("node1", "load")}), {}, False),
        ([OTHER], frozenset({("node2", "disk")}), {}, False),
        ([OTHER], RAN, {"bad": False}, False),
        # The check failed as a whole: it says nothing about its subjects.
        ([event("critical", key="k", subject="")], RAN, {}, False),
        ([event("pass", key="k", subject="")], RAN, {}, True),
        ([event("critical", key="k", subject="/x")], RAN, {}, True),
    ],
)
def test_a_subject_that_is_no_longer_reported_ends(seen, ran, known, ends):
    decided, dummy = decide(seen, entry(**known), ran)
    ended = [decision.event for decision in decided if decision.event.key == KEY]
    assert [one.message for one in ended] == (["disk /data is no longer reported"] if ends else [])


@pytest.mark.parametrize(
    ("fields", "seen", "ran", "cooldown", "kept"),
    [
        ({"seen_at": NOW - 30 * DAY}, (), (), COOLDOWN, True),
        ({"seen_at": NOW - 30 * DAY - 1}, (), (), COOLDOWN, False),
        ({"seen_at": NOW - 30 * DAY - 1}, (KEY,), (), COOLDOWN, True),
        ({"seen_at": NOW - 30 * DAY - 1}, (), RAN, COOLDOWN, True),
        ({"seen_at": NOW - DAY, "open": False}, (), (), COOLDOWN, True),
        ({"seen_at": NOW - DAY - 1, "open": False}, (), (), COOLDOWN, False),
        ({"seen_at": NOW - DAY - 1, "open": False}, (), (), 2 * DAY, True),
        ({"seen_at": NOW + 90 * DAY}, (), (), COOLDOWN, True),
    ],
)
def test_what_nobody_reports_is_forgotten(fields, seen, ran, cooldown, kept):
    memory, given_up = plan.expire(Memory(entries={KEY: entry(**fields)}), NOW, cooldown, seen, ran)
    assert (KEY in memory.entries, given_up) == (kept, 0)
    if kept:
        expected = NOW if seen or ran else min(fields["seen_at"], NOW)
        assert memory.entries[KEY].seen_at == expected


def test_the_oldest_of_too_many_entries_are_forgotten():
    entries = {str(number): entry(seen_at=NOW - number) for number in range(plan.ENTRIES + 2)}
    memory, dummy = plan.expire(Memory(entries=entries), NOW, COOLDOWN)
    assert len(memory.entries) == plan.ENTRIES
    assert set(entries) - set(memory.entries) == {str(plan.ENTRIES), str(plan.ENTRIES + 1)}


def queue(**ages):
    return {key: Waiting(NOW, event(key=key), age) for key, age in ages.items()}


@pytest.mark.parametrize(
    ("age", "passed", "known", "kept"),
    [
        (0.0, DAY, None, True),
        (1.0, DAY, None, False),
        (DAY, 0.0, None, True),
        (DAY, 1.0, None, False),
        (DAY, 1.0, {}, True),  # the problem lasts
        (30 * DAY, DAY, {}, True),
        (DAY, 1.0, {"open": False}, False),
    ],
)
def test_how_long_an_event_stays_queued(age, passed, known, kept):
    memory = Memory(
        entries={} if known is None else {KEY: entry(seen_at=NOW, **known)},
        pending={"c": {KEY: Waiting(0.0, event(), age)}},
        steady=Steady("b", 100.0),
    )
    after, given_up = plan.expire(memory, NOW, COOLDOWN, steady=Steady("b", 100.0 + passed))
    assert given_up == (0 if kept else 1)
    assert after.pending == ({"c": {KEY: Waiting(0.0, event(), age + passed)}} if kept else {})
    assert after.steady == Steady("b", 100.0 + passed)


@pytest.mark.parametrize(
    ("broken", "age", "kept"),
    [
        ({}, DAY + 1, False),
        ({"c": "chat 1"}, DAY + 1, True),
        ({"c": "chat 1"}, 30 * DAY, True),
        ({"c": "chat 1"}, 30 * DAY + 1, False),
        ({"other": "chat 1"}, DAY + 1, False),
    ],
)
def test_a_broken_channel_keeps_its_queue_until_it_is_repaired(broken, age, kept):
    memory = Memory(pending={"c": {KEY: Waiting(0.0, event(), age)}}, broken=broken)
    after, given_up = plan.expire(memory, NOW, COOLDOWN)
    assert (bool(after.pending), given_up) == (kept, 0 if kept else 1)


def test_the_oldest_of_too_many_queued_events_are_given_up():
    waiting = queue(**{f"k{number}": float(number) for number in range(plan.QUEUE_LENGTH + 3)})
    after, given_up = plan.expire(Memory(pending={"c": waiting}), NOW, COOLDOWN)
    assert given_up == 3
    assert list(after.pending["c"]) == [f"k{number}" for number in range(plan.QUEUE_LENGTH)]


def test_problems_that_last_are_never_too_many():
    """A channel that was broken while hundreds of problems began gets all of them."""
    lasting = {f"p{number}": event(key=f"p{number}") for number in range(3000)}
    memory = Memory(
        entries={key: entry(seen_at=NOW, open=True) for key in lasting},
        pending={"c": {key: Waiting(NOW, known) for key, known in lasting.items()}},
    )
    memory = memory._replace(
        pending={
            "c": {**queue(**{f"k{n}": float(n + 1) for n in range(201)}), **memory.pending["c"]}
        }
    )
    after, given_up = plan.expire(memory, NOW, COOLDOWN)
    assert given_up == 1
    assert set(after.pending["c"]) == {*lasting, *(f"k{number}" for number in range(200))}


@pytest.mark.parametrize(
    ("earlier", "later", "passed"),
    [
        (Steady("a", 10.0), Steady("a", 25.0), 15.0),
        (Steady("a", 10.0), Steady("a", 5.0), 0.0),
        (Steady("a", 10.0), Steady("b", 5.0), 5.0),  # a reboot: at least since it
        (Steady(), Steady("b", 5.0), 0.0),  # a file of an earlier version
        (Steady("", 10.0), Steady("", 12.0), 2.0),  # no boot identifier here
    ],
)
def test_time_by_the_clock_that_never_steps(earlier, later, passed):
    assert later.since(earlier) == passed


WORLD = World(run=None)


class Choosy(Channel):
    """A channel that wants no recoveries."""

    def wants(self, event):
        return event.kind != RECOVERY


def facts(*seen, channels=None, memory=None):
    if channels is None:
        channels = (Channel(WORLD, "chat", "", "chat"), Channel(WORLD, "pager", "", "pager"))
    for channel in channels:
        channel.label = channel.name + " 1"
    return Facts(NOW, channels, seen, memory=memory or Memory(salt="s"), steady=Steady("b", 1.0))


def planned(*seen, **more):
    return plan.decide(AlertOptions.from_mapping({"msg": "x"}), facts(*seen, **more))


def test_every_channel_gets_what_is_new_and_what_it_missed():
    memory = Memory(salt="s")
    missed = memory.identity("pager")
    memory = memory._replace(pending={missed: queue(missed=5.0)})
    made = planned(event(), memory=memory)
    chat, pager = made.deliveries
    assert [message.keys for message in chat.messages] == [(KEY,)]
    assert [message.keys for message in pager.messages] == [("missed",), (KEY,)]
    assert {name: set(waiting) for name, waiting in made.memory.pending.items()} == {
        chat.queue: {KEY},
        pager.queue: {"missed", KEY},
    }
    assert memory.pending == {missed: queue(missed=5.0)}, "what was read is not changed"
    assert made.entries == {} and made.memory.entries[KEY].open


def receipt(status, **more):
    return Receipt(status, "why", (KEY,), **more)


@pytest.mark.parametrize(
    ("chat", "pager", "queued", "remembered"),
    [
        (receipt(SENT), receipt(SENT), [], True),
        (receipt(SENT), receipt(QUEUED), ["pager"], True),
        (receipt(QUEUED), receipt(QUEUED), ["chat", "pager"], True),
        (receipt(SENT), receipt(FAILED, kept=True), ["pager"], True),
        (receipt(FAILED, kept=True), receipt(FAILED, kept=True), ["chat", "pager"], True),
        (receipt(SENT), receipt(FAILED), [], True),
        (receipt(FAILED), receipt(FAILED), [], False),
        (receipt(FAILED), receipt(SKIPPED), [], False),
        (receipt(FAILED), receipt(QUEUED), ["pager"], True),
    ],
)
@pytest.mark.parametrize("known", [None, {"sent": "warning"}])
def test_what_is_remembered_of_a_delivery(chat, pager, queued, remembered, known):
    memory = Memory(salt="s", entries={} if known is None else {KEY: entry(**known)})
    made = planned(event(), memory=memory)
    after = plan.settle(made, {"chat": [chat], "pager": [pager]})
    names = {delivery.queue: delivery.channel.name for delivery in made.deliveries}
    assert sorted(names[name] for name in after.pending) == queued
    if remembered:
        assert after.entries[KEY] == made.memory.entries[KEY]
    else:  # the next run sees it as it was
        assert after.entries == made.entries
    refused = {names[name]: refusal for name, refusal in after.refused.items()}
    expected = {
        name: Refusal((KEY,), "why")
        for name, given in (("chat", chat), ("pager", pager))
        if given.status == FAILED and not given.kept
    }
    assert refused == expected
    broken = [name for name, given in (("chat", chat), ("pager", pager)) if given.kept]
    assert {names[name]: label for name, label in after.broken.items()} == {
        name: name + " 1" for name in broken
    }


def test_an_end_that_no_channel_wants_is_remembered():
    memory = Memory(salt="s", entries={KEY: entry()})
    channels = (Choosy(WORLD, "chat", "", "chat"),)
    made = planned(event("pass"), channels=channels, memory=memory)
    assert made.deliveries[0].messages == ()
    assert not plan.settle(made, {}).entries[KEY].open


def test_a_mail_stays_queued_for_those_who_did_not_get_it():
    made = planned(event())
    after = plan.settle(made, {"chat": [receipt(QUEUED, remaining=("m1", "m2"))]})
    assert after.pending[made.deliveries[0].queue][KEY].event.only == ("m1", "m2")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (receipt(SENT), {"q": Refusal(("other",), "old")}),
        (receipt(FAILED), {"q": Refusal((KEY, "other"), "why")}),
        (receipt(QUEUED), {"q": Refusal((KEY, "other"), "old")}),
        (receipt(FAILED, kept=True), {"q": Refusal((KEY, "other"), "old")}),
    ],
)
def test_refusals_are_kept_until_the_event_is_sent(given, expected):
    refused = {"q": Refusal((KEY, "other"), "old")}
    plan._note_refusal(refused, "q", given)
    assert refused == expected
    refused = {"q": Refusal((KEY,), "old")}
    plan._note_refusal(refused, "q", receipt(SENT))
    assert refused == {}


def test_a_test_message_acknowledges_refusals_of_its_channel_only():
    refusal = Refusal((KEY,), "old")
    memory = Memory(refused={"a": refusal, "b": refusal})
    assert plan.acknowledge(memory, {"a"}).refused == {"b": refusal}


@pytest.mark.parametrize(
    ("broken", "labels", "expected"),
    [
        ({"old": "webhook 1"}, {"new": "webhook 1"}, {"new": {"a", "b"}}),
        ({"old": "webhook 1"}, {"new": "webhook 2"}, {"old": {"a"}, "new": {"b"}}),
        ({"old": "webhook 1"}, {"old": "webhook 1", "new": "webhook 1"}, {"old": {"a"}, "new": {"b"}}),
        ({}, {"new": "webhook 1"}, {"old": {"a"}, "new": {"b"}}),
    ],
)  # fmt: skip
def test_a_channel_inherits_the_queue_of_a_broken_one_in_its_place(broken, labels, expected):
    pending = {"old": queue(a=1.0), "new": queue(b=1.0)}
    plan.inherit(pending, broken, labels)
    assert {name: set(waiting) for name, waiting in pending.items()} == expected


def test_a_newer_event_of_the_heir_is_kept():
    newer = Waiting(NOW, replace(event(key="a"), message="newer"))
    pending = {"old": queue(a=1.0), "new": {"a": newer}}
    plan.inherit(pending, {"old": "webhook 1"}, {"new": "webhook 1"})
    assert pending == {"new": {"a": newer}}


def test_a_test_message_goes_to_every_channel_and_changes_nothing():
    options = AlertOptions.from_mapping({"test": True})
    memory = Memory(salt="s", entries={KEY: entry()})
    made = plan.decide(options, facts(event("info"), memory=memory))
    assert [len(delivery.messages) for delivery in made.deliveries] == [1, 1]
    assert [decision.send for decision in made.decisions] == [True]
    assert made.memory == memory and made.given_up == 0


@pytest.mark.parametrize(
    ("known", "began", "since"),
    [({}, NOW, NOW - 600), ({}, NOW - 900, NOW - 900), ({"bad": False}, NOW, NOW)],
)
@pytest.mark.parametrize("opinions", [{}, {"gpu": Opinion("critical", NOW)}])
def test_a_problem_began_when_it_was_first_seen(known, began, since, opinions):
    seen = replace(event("warning", source="node"), since=began)
    if opinions:  # held back: nothing is known of an earlier end
        since = min(began, NOW - 600)
    decided, dummy = decide([seen], entry(opinions=opinions, **known))
    assert decided[0].event.since == since


def test_without_a_cooldown_the_reason_names_none():
    assert decide([event()], entry(), cooldown=0)[0][0].event.reason == "still critical"


def test_problems_that_are_open_already_are_no_flood():
    known = {f"k{n}": entry(sent_at=NOW - 2 * HOUR, incident=f"k{n}") for n in range(6)}
    seen = [event(key=key, subject=key) for key in known]
    decided, dummy = decide(seen, known)
    assert {decision.event.incident for decision in decided} == set(known)


@pytest.mark.parametrize(("status", "known"), [(SENT, False), (QUEUED, True), (FAILED, False)])
def test_a_channel_that_sends_again_is_not_broken(status, known):
    made = planned(event())
    queue_name = made.deliveries[0].queue
    made = made._replace(memory=made.memory._replace(broken={queue_name: "chat 1", "x": "y"}))
    after = plan.settle(made, {"chat": [receipt(status)]})
    assert ("x" in after.broken, queue_name in after.broken) == (False, known or status == FAILED)


def test_who_has_a_mail_already_does_not_get_it_again():
    waiting = Waiting(NOW, replace(event(key="old"), only=("m1",)))
    memory = Memory(salt="s")
    name = memory.identity("chat")
    made = planned(event(), memory=memory._replace(pending={name: {"old": waiting}}))
    after = plan.settle(made, {"chat": [receipt(QUEUED)._replace(keys=("old",))]})
    assert after.pending[name]["old"].event.only == ("m1",)


@pytest.mark.parametrize(
    ("broken", "labels", "expected"),
    [
        ({"old": "w 1"}, {"a": "w 1", "b": "w 1"}, {"a": {"k"}}),
        ({"old": "w 1"}, {"a": "w 1", "old": "w 1"}, {"old": {"k"}}),
        ({}, {"a": "w 1"}, {"old": {"k"}}),
    ],
)
def test_one_channel_inherits_from_one_that_is_gone(broken, labels, expected):
    pending = {"old": queue(k=1.0)}
    plan.inherit(pending, broken, labels)
    assert {name: set(waiting) for name, waiting in pending.items()} == expected


RAN = frozenset({("node1", "disk")})


def test_a_subject_that_is_still_reported_has_not_vanished():
    decided, dummy = decide([event("warning")], entry(sent="warning"), RAN)
    assert [decision.event.severity for decision in decided] == ["warning"]


def test_what_ended_long_ago_does_not_vanish_again():
    before = entry(bad=False, open=False, seen_at=NOW - 600)
    decided, after = decide([], before, RAN)
    assert decided == [] and after[KEY] == before
