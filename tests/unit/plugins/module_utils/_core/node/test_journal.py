# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors in the logs: journal entries and kernel records of real machines."""

from __future__ import annotations

import json

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.node import journal
from ansible_collections.mlops.fleet.plugins.module_utils._core.ports import CommandResult, World

#: Kernel messages as they were logged (priority err and worse).
REAL = {
    "file system error": "EXT4-fs (loop0): Remounting filesystem read-only",
    "disk I/O error": "I/O error, dev sda, sector 12345 op 0x0:(READ) flags 0x80700 phys_seg 1 prio class 2",
    "NVMe controller fault": "nvme nvme0: controller is down; will reset: CSTS=0xffffffff, PCI_STATUS=0x10",
    "machine check": "mce: [Hardware Error]: Machine check events logged",
    "lock-up": "watchdog: BUG: soft lockup - CPU#3 stuck for 26s! [python3:4242]",
    "kernel bug": "BUG: unable to handle page fault for address: ffffc90000a3f000",
    "hung task": "INFO: task python3:4242 blocked for more than 120 seconds.",
    "network device fault": "NETDEV WATCHDOG: CPU: 3: transmit queue 7 timed out 5120 ms",
}
OOM = "Memory cgroup out of memory: Killed process 23824 (python3) total-vm:123kB, anon-rss:99kB, UID:0 oom_score_adj:0"
NODE_OOM = "Out of memory: Killed process 77 (trainer) total-vm:1kB, anon-rss:1kB, UID:1000 oom_score_adj:0"


def _facts(*messages, **more):
    entries = [journal._entry(message, 0, True, 3, "kernel") for message in messages]
    return {"source": "journal", "entries": entries, "restarts": {}, "limited": False, "window": 3600, **more}


def _judge(options, facts):
    return {(check.check, check.subject): check for check in journal.judge(facts, options)}


@pytest.mark.parametrize(("name", "message"), REAL.items())
def test_known_kernel_messages(options, name, message):
    found = _judge(options(), _facts(message))
    assert [key for key in found if key[0] == "kernel_errors"] == [("kernel_errors", name)]
    assert found[("kernel_errors", name)].status in ("warning", "critical") and message[:40] in found[("kernel_errors", name)].message


def test_harmless_messages_raise_nothing(options):
    found = _judge(options(), _facts("usb 1-1: device descriptor read/64, error -71", "ACPI Error: AE_NOT_FOUND", "nvidia: module license taints kernel"))
    assert found[("kernel_errors", None)].status == "pass" and found[("journal_errors", None)].status == "pass"


def test_own_patterns(options):
    given = options(error_patterns=[{"name": "my disk", "pattern": "raidcard.*offline", "status": "critical"}])
    assert _judge(given, _facts("raidcard 3: offline"))[("kernel_errors", "my disk")].status == "critical"


@pytest.mark.parametrize(("messages", "status", "value"), [([], "pass", 0), ([OOM], "warning", 1), ([OOM] * 10, "critical", 10)])
def test_oom_kills(options, messages, status, value):
    check = _judge(options(), _facts(*messages))[("oom_kills", None)]
    assert (check.status, check.value) == (status, value)
    if messages:
        assert "python3 (23824)" in check.message and check.details["whole_node"] is False and check.domain == "user"


def test_an_oom_of_the_whole_node_is_told_apart(options):
    check = _judge(options(), _facts(NODE_OOM))[("oom_kills", None)]
    assert check.details == {"victims": ["trainer (77)"], "whole_node": True}


def test_many_errors_warn_and_name_their_sources(options):
    facts = _facts()
    facts["entries"] = [journal._entry("x", 0, False, 3, "noisy.service") for dummy in range(100)]
    check = _judge(options(), facts)[("journal_errors", None)]
    assert check.status == "warning" and check.message == "Recent errors: 100 in the last 60 min: noisy.service 100"


def test_without_any_log_all_is_skipped(machine, options):
    facts = journal.observe(machine.world, options(), 5)
    assert facts["source"] is None and {check.status for check in journal.judge({**facts, "oom_since_boot": 3}, options())} == {"skipped"}


def test_the_kernels_ring_buffer(machine, options):
    machine.put("/dev/kmsg", f"3,1,863999000000,-;{OOM}\n SUBSYSTEM=x\n6,2,863999000000,-;EXT4-fs error but only info\n3,3,100,-;{NODE_OOM}\n")
    facts = journal.observe(machine.world, options(), 5)
    assert facts["source"] == "kernel" and [entry["message"] for entry in facts["entries"]] == [OOM], "one is info, one too old"


def _journalctl(lines, seen):
    def run(argv, timeout=30.0, env=None, stdin=None):
        seen.append((argv, timeout))
        return CommandResult(0, "".join(json.dumps(line) + "\n" for line in reversed(lines)), "")

    return run


def test_the_journal_is_asked_once_bounded_and_by_its_index(machine, options):
    machine.put("/var/log/journal/0123/system.journal", "")
    machine.put("/proc/sys/kernel/random/boot_id", "aaaa-bbbb\n")
    now = machine.world.clock.now()

    def line(age, **more):
        return {"__REALTIME_TIMESTAMP": str(int((now - age) * 1e6)), "PRIORITY": "3", "_BOOT_ID": "aaaabbbb", **more}

    restart = {"MESSAGE_ID": journal.RESTARTED, "UNIT": "loop.service", "PRIORITY": "6"}
    seen = []
    lines = [
        line(3000, MESSAGE=[104, 105, 255], _SYSTEMD_UNIT="a.service"),  # bytes: not UTF-8
        line(10, MESSAGE=OOM, _TRANSPORT="kernel", _SOURCE_MONOTONIC_TIMESTAMP="1000000"),  # written late, but nine days old
        line(500, **restart),
        line(20, **restart),
        line(700, **restart),
        line(5, MESSAGE=None, SYSLOG_IDENTIFIER="cron"),
    ]
    world = World(run=_journalctl(lines, seen), clock=machine.world.clock, root=str(machine.root))
    facts = journal.observe(world, options(), 4)
    assert facts["source"] == "journal" and facts["restarts"] == {"loop.service": 2}, "the third is older than the window"
    assert [entry["source"] for entry in facts["entries"]] == ["a.service", "cron"] and facts["entries"][0]["message"] == "hi\ufffd"
    ((argv, timeout),) = seen
    assert timeout == 4 and "--since=-3600s" in argv and argv[argv.index("-n") + 1] == "1000" and "PRIORITY=3" in argv
    assert not any(word.startswith(("-g", "--grep")) for word in argv), "a text search reads the whole journal"


def test_a_journal_of_others_falls_back_to_the_ring_buffer(machine, options):
    machine.put("/run/log/journal/0123/system.journal", "")
    machine.put("/dev/kmsg", f"3,1,863999000000,-;{OOM}\n")

    def denied(argv, **more):
        return CommandResult(0, "", "Hint: You are currently not seeing messages from other users and the system.\n")

    world = World(run=denied, clock=machine.world.clock, root=str(machine.root))
    assert journal.observe(world, options(), 4)["source"] == "kernel"


def test_the_id_of_restarts_is_systemds():
    try:
        with open("/usr/lib/systemd/catalog/systemd.catalog", encoding="utf-8") as stream:
            catalog = stream.read()
    except OSError:
        pytest.skip("no message catalogue here")
    assert f"-- {journal.RESTARTED}\nSubject: Automatic restarting of a unit has been scheduled\n" in catalog
