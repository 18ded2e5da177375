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
    *known.GPUD,
]


def device_of(message):
    """Return the device that a message is about, as the kernel notes it."""
    driver, dummy, rest = message.partition(" ")
    name = rest.partition(": ")[0]
    subsystem = {"pciehp": "pci_express", "pcieport": "pci", "mlx5_core": "pci"}.get(driver)
    return f"+{subsystem}:{name}" if subsystem else ""


def put_devices(machine):
    """Put the hot-plug ports and the adapters of all known messages."""
    for dummy, dummy, message in LINES:
        subsystem, dummy, name = device_of(message)[1:].partition(":")
        if message.startswith("mlx5_core"):
            machine.put(f"/sys/bus/pci/drivers/mlx5_core/{name}/vendor", "0x15b3\n")
        elif subsystem:
            service = name if subsystem == "pci_express" else f"{name}:pcie204"
            machine.put(f"/sys/bus/pci_express/drivers/pciehp/{service}/uevent", "")


def kernel_entry(priority, message, device=""):
    """Return the fields of a kernel message."""
    fields = {"_TRANSPORT": "kernel", "SYSLOG_IDENTIFIER": "kernel"}
    if device:
        fields["_KERNEL_DEVICE"] = device
    return {**fields, "PRIORITY": priority, "MESSAGE": message}


def write(directory, entries):
    """Write a journal of entries with these fields, of the last second."""
    now, boot = int(time.time() * 1e6), uuid.uuid4().hex
    parts = []
    for place, given in enumerate(entries):
        fields = {
            "__REALTIME_TIMESTAMP": now - 1_000_000 + place,
            "__MONOTONIC_TIMESTAMP": 1_000_000 + place,
            "_BOOT_ID": boot,
            **given,
        }
        parts.append("".join(f"{name}={value}\n" for name, value in fields.items()) + "\n")
    path = directory / "var" / "log" / "journal" / "m" / "system.journal"
    path.parent.mkdir(parents=True)
    argv = [WRITER, "-o", str(path), "-"]
    subprocess.run(argv, input="".join(parts), text=True, capture_output=True, check=True)
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


def observed(machine, options, entries):
    directory = write(machine.root, entries)
    world = World(run=reader(directory), root=str(machine.root), hostname="n1", environ={})
    log = journal.observe(world, options(), 20)
    assert log.source == journal.JOURNAL
    return log


def subjects(log, options):
    checks = journal.decide(log, journal.OomCounter(), options())
    return {check.subject for check in checks if check.check == "kernel_errors"}


def test_every_kernel_rule_in_a_real_journal(machine, options):
    put_devices(machine)
    machine.put("/proc/self/mountinfo", known.NFS)
    lines = [
        kernel_entry(priority, message, device_of(message))
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
    assert len(noise) > 5 and not {line for line in noise if not device_of(line)} & read


def test_a_full_table_of_neighbours_in_a_real_journal(machine, options):
    machine.put("/proc/net/stat/arp_cache", known.OVERFLOWS.format("00000002"))
    line = kernel_entry(6, "neighbour: arp_cache: neighbor table overflow!")
    other = kernel_entry(
        6, "usb 1-1: new high-speed USB device number 2 using xhci_hcd", "+usb:1-1"
    )
    log = observed(machine, options, [line, other])
    assert subjects(log, options) == {"neighbour table overflow"}


def test_without_such_devices_only_warnings_are_read(machine, options):
    lines = [
        kernel_entry(priority, message, device_of(message))
        for name, priority, message in LINES
        if name
    ]
    log = observed(machine, options, lines)
    assert {entry.priority for entry in log.entries} <= set(range(5))


def test_restarts_and_kills_by_oomd_in_a_real_journal(machine, options):
    """As systemd 255 logs them: both by process 1, at info and notice."""
    restart = {
        "MESSAGE_ID": journal.RESTARTED,
        "UNIT": "trainer.service",
        "PRIORITY": 6,
        "_SYSTEMD_UNIT": "init.scope",
        "SYSLOG_IDENTIFIER": "systemd",
        "MESSAGE": "trainer.service: Scheduled restart job, restart counter is at 4.",
    }
    kill = {
        **restart,
        "MESSAGE_ID": journal.OOMD_KILLED,
        "UNIT": "jupyter.service",
        "PRIORITY": 5,
        "MESSAGE": "jupyter.service: systemd-oomd killed 3 process(es) in this unit.",
    }
    error = {"PRIORITY": 3, "SYSLOG_IDENTIFIER": "sshd", "MESSAGE": "error: kex_exchange"}
    chatter = {"PRIORITY": 4, "SYSLOG_IDENTIFIER": "dbus", "MESSAGE": "a warning of a program"}
    log = observed(machine, options, [restart, restart, kill, error, chatter])
    assert (log.restarts, log.oomd_kills) == ({"trainer.service": 2}, {"jupyter.service": 3})
    assert [entry.source for entry in log.entries] == ["sshd"]
