# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kernel messages of real nodes in a journal that journald's own tools wrote and read."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import uuid

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.node import journal
from ansible_collections.mlops.fleet.plugins.module_utils._core.node.kernel_rules import PATTERNS
from ansible_collections.mlops.fleet.plugins.module_utils._core.ports import CommandResult, World
from ansible_collections.mlops.fleet.tests.unit.plugins.module_utils._core.node import (
    test_journal as known,
)

WRITER = "/lib/systemd/systemd-journal-remote"
pytestmark = pytest.mark.skipif(
    not os.access(WRITER, os.X_OK) or not shutil.which("journalctl"),
    reason="needs journalctl and systemd-journal-remote",
)
LINES = [
    *((name, 3, message) for name, message in known.REAL.items()),
    *known.REPORTED,
    *known.MORE,
]


def subsystem(message):
    """Return the subsystem of the device that a message is about, as the kernel notes it."""
    if message.startswith("pciehp "):
        return "pci_express"
    return "pci" if message.startswith(("pcieport ", "mlx5_core ")) else ""


def write(directory, lines):
    """Write a journal of kernel messages: of each the priority, the message and the subsystem."""
    now, boot = int(time.time() * 1e6), uuid.uuid4().hex
    entries = []
    for place, (priority, message, device) in enumerate(lines):
        fields = {
            "__REALTIME_TIMESTAMP": now - 1_000_000 + place,
            "__MONOTONIC_TIMESTAMP": 1_000_000 + place,
            "_BOOT_ID": boot,
            "_TRANSPORT": "kernel",
            "SYSLOG_IDENTIFIER": "kernel",
            "PRIORITY": priority,
            "MESSAGE": message,
        }
        if device:
            fields["_KERNEL_SUBSYSTEM"] = device
        entries.append("".join(f"{name}={value}\n" for name, value in fields.items()) + "\n")
    path = directory / "var" / "log" / "journal" / "m" / "system.journal"
    path.parent.mkdir(parents=True)
    argv = [WRITER, "-o", str(path), "-"]
    subprocess.run(argv, input="".join(entries), text=True, capture_output=True, check=True)
    return path.parent


def reader(directory):
    """Return a way to run programs in which journalctl reads this journal."""

    def run(argv, timeout=30.0, **dummy):
        assert argv[0] == "journalctl"
        done = subprocess.run(
            [argv[0], "-D", str(directory), *argv[1:]],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return CommandResult(done.returncode, done.stdout, done.stderr)

    return run


def observed(machine, options, lines):
    directory = write(machine.root, lines)
    world = World(run=reader(directory), root=str(machine.root), hostname="n1", environ={})
    log = journal.observe(world, options(), 20)
    assert log.source == journal.JOURNAL
    return log


def subjects(log, options):
    checks = journal.decide(log, journal.OomCounter(), options())
    return {check.subject for check in checks if check.check == "kernel_errors"}


def test_every_kernel_rule_in_a_real_journal(machine, options):
    machine.put("/sys/bus/pci/slots/3/address", "0000:b0:00\n")
    machine.put("/proc/self/mountinfo", known.NFS)
    lines = [
        (priority, message, subsystem(message))
        for name, priority, message in LINES
        if not (name is None and message.startswith("nfs"))  # takes the fault back
    ]
    log = observed(machine, options, lines)
    read = {entry.message for entry in log.entries}
    missed = [
        (name, message)
        for name, dummy, message in LINES
        if name and message not in read and name != "neighbour table overflow"
    ]
    assert missed == []
    assert subjects(log, options) == {rule.name for rule in PATTERNS}
    noise = [message for name, priority, message in LINES if name is None and priority == 6]
    assert len(noise) > 5 and not {line for line in noise if not subsystem(line)} & read


def test_a_full_table_of_neighbours_in_a_real_journal(machine, options):
    machine.put("/proc/net/stat/arp_cache", known.OVERFLOWS.format("00000002"))
    line = (6, "neighbour: arp_cache: neighbor table overflow!", "")
    log = observed(machine, options, [line, (6, "usb 1-1: new high-speed USB device", "usb")])
    assert subjects(log, options) == {"neighbour table overflow"}


def test_without_such_devices_only_warnings_are_read(machine, options):
    lines = [(priority, message, subsystem(message)) for name, priority, message in LINES if name]
    log = observed(machine, options, lines)
    assert {entry.priority for entry in log.entries} <= set(range(5))
