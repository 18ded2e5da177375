# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Load, pressure and tables of the kernel, read from a machine made of files."""

from __future__ import annotations

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.node.values import VALUES

PSI = (
    "some avg10=1.00 avg60={some} avg300=0.00 total=1\nfull avg10=0.00 avg60={full} avg300=0.00"
    " total=1\n"
)


def evaluate(name, machine, options, **given):
    reading = VALUES[name].reading
    return reading.evaluate(
        name, reading.observe(machine.world), options(**given).limits_in_force[name]
    )


def test_every_value_of_a_machine_made_of_files(machine, options):
    machine.put("/proc/pressure/memory", PSI.format(some=9, full=20))
    machine.put("/proc/pressure/io", PSI.format(some=80, full=49.9))
    machine.put("/proc/pressure/cpu", PSI.format(some=99, full=0))
    machine.put("/proc/loadavg", "90.0 70.0 48.0 3/950 12345\n")
    machine.put(
        "/proc/stat", "cpu  1 2\n" + "".join(f"cpu{n} 1 2\n" for n in range(32)) + "intr 1\n"
    )
    machine.put("/proc/sys/fs/file-nr", "960 0 1000\n")
    machine.put("/proc/sys/kernel/pid_max", "1000\n")
    machine.put("/proc/sys/kernel/threads-max", "5000\n")
    machine.put("/proc/sys/net/netfilter/nf_conntrack_count", "85\n")
    machine.put("/proc/sys/net/netfilter/nf_conntrack_max", "100\n")
    checks = [evaluate(name, machine, options) for name in VALUES.names]
    assert {check.check: (check.status, check.value) for check in checks} == {
        "memory_pressure": ("critical", 20.0),
        "cpu_load": ("warning", 1.5),  # 48 on 32 CPUs
        "cpu_pressure": ("pass", 99.0),
        "io_pressure": ("pass", 49.9),
        "file_descriptors": ("critical", 96.0),
        "process_ids": ("critical", 95.0),  # the lower limit counts
        "conntrack": ("warning", 85.0),
    }


def test_a_machine_without_any_of_it(machine, options):
    checks = [evaluate(name, machine, options) for name in VALUES.names]
    assert {check.check: check.status for check in checks} == {
        "memory_pressure": "skipped",
        "cpu_load": "unknown",
        "cpu_pressure": "skipped",
        "io_pressure": "skipped",
        "file_descriptors": "unknown",
        "process_ids": "unknown",
        "conntrack": "skipped",
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("5 0 9223372036854775807", "Open files: 0% (5, no limit)"),
        ("5 0 50", "Open files: 10% (5 of 50)"),
        ("796 0 1000", "Open files: 79.6% (796 of 1000)"),  # not rounded across a limit
        ("5 0", "Open files: the kernel's counters can't be read"),
    ],
)
def test_messages_of_a_table(machine, options, content, message):
    machine.put("/proc/sys/fs/file-nr", content)
    assert evaluate("file_descriptors", machine, options).message == message


def test_a_damaged_pressure_file_is_skipped(machine, options):
    machine.put("/proc/pressure/memory", "\nfull avg10 avg60=x\nsome avg60=3\n")
    assert evaluate("memory_pressure", machine, options).status == "skipped"
    machine.put("/proc/loadavg", "a b c d\n")
    assert evaluate("cpu_load", machine, options).status == "unknown"
