# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Memory and processes: against the tools of this machine, real zombies, and machines made of
files.
"""

from __future__ import annotations

import os
import subprocess
import time

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.node import probes, resources
from ansible_collections.mlops.fleet.plugins.module_utils._core.node.resources import (
    Memory,
    ProcessFacts,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.system import boot, procfs
from ansible_collections.mlops.fleet.plugins.module_utils._core.system.procfs import Process


def _statuses(checks):
    return {check.check: check.status for check in checks}


def test_memory_is_what_free_says(world, options):
    pytest.importorskip("psutil")
    memory = resources.observe(world, options())
    words = (
        subprocess.run(["free", "-b"], capture_output=True, text=True, check=True)
        .stdout.splitlines()[1]
        .split()
    )
    assert memory.total == int(words[1]) and abs(memory.available - int(words[6])) < 2**29
    check = resources.decide_memory(memory, options())[0]
    assert check.message.startswith(f"Memory usage: {check.value:.0f}%")


@pytest.mark.parametrize(
    ("available", "swap", "status"),
    [
        (30, 0, ("pass", "skipped")),
        (15, 50, ("warning", "pass")),
        (5, 85, ("critical", "warning")),
        (15.1, 100, ("pass", "warning")),
    ],
)
def test_memory_and_swap(options, available, swap, status):
    memory = Memory(1000, available * 10, 100 if swap else 0, swap)
    statuses = _statuses(resources.decide_memory(memory, options()))
    assert (statuses["memory_usage"], statuses["swap_usage"]) == status


def test_unreadable_memory_counts_once(options):
    problem = probes.Problem("no such file")
    assert _statuses(resources.decide_memory(problem, options())) == {"memory_usage": "unknown"}
    given = options(checks=["swap_usage"])
    assert _statuses(resources.decide_memory(problem, given)) == {"swap_usage": "unknown"}


def test_a_missing_psutil_has_its_own_error(world, options, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "psutil", None)
    with pytest.raises(resources.MissingLibrary, match="psutil"):
        resources.observe(world, options())
    assert resources.observe(world, options(checks=["load"])) is None, "only where it is needed"


def test_stat_lines_with_odd_names():
    tail = " D 1 1 1 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 4200 0"
    found = procfs.parse_stat("77 (a) b (c) )" + tail)
    assert (found.pid, found.name, found.state, found.parent) == (
        77,
        "a) b (c) ",
        "D",
        1,
    )
    assert found.start == 4200 / os.sysconf("SC_CLK_TCK")
    assert procfs.parse_stat("") is None and procfs.parse_stat("12 (x) R 1") is None


def test_real_zombies_are_counted(world, options):
    children = [subprocess.Popen(["true"]) for dummy in range(3)]
    time.sleep(0.3)
    table = procfs.processes(world)
    mine = {child.pid for child in children}
    assert {process.pid for process in table if process.state == "Z"} >= mine
    given = options(limits={"zombie_processes": {"warning": 3}})
    check = resources.decide_processes(ProcessFacts(table, []), given)[1]
    assert check.status == "warning" and check.value >= 3 and check.domain == "user"
    for child in children:
        child.wait()


def test_stuck_processes(options):
    stuck = [Process(5, "python3", "D", 1, 0, 0.0)]
    assert resources.decide_processes(ProcessFacts([], []), options())[0].status == "pass"
    assert resources.decide_processes(ProcessFacts([], stuck), options())[0].status == "warning"
    check = resources.decide_processes(
        ProcessFacts([], [Process(6, "nvidia-smi", "D", 1, 0, 0.0)]), options()
    )[0]
    assert (
        check.status == "critical"
        and "nvidia-smi (6)" in check.message
        and check.action == "reboot"
    )


def test_kernel_threads_are_not_stuck():
    table = [
        Process(1, "a", "D", 1, 0, 0.0),
        Process(2, "kworker", "D", 2, 0x00200000, 0.0),
        Process(3, "b", "S", 1, 0, 0.0),
    ]
    assert [process.pid for process in probes.blocked(table)] == [1]


def test_start_of_a_container_is_that_of_its_first_process(machine):
    ticks = 863900 * os.sysconf("SC_CLK_TCK")
    machine.put("/proc/1/stat", f"1 (init) S 0 1 1 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 {ticks} 0")
    assert boot.system_age(machine.world) == 864000
    machine.put("/run/.containerenv", "")
    assert boot.system_age(machine.world) == 100


ARC = (
    "13 1 0x01 147 39984 6 7\nname                            type data\nc_min 4 {keeps}\nsize     "
    "                       4    {size}\nhits 4 9\n"
)


def test_the_cache_of_zfs_is_memory_to_be_had(machine, options):
    pytest.importorskip("psutil")
    gib = 2**30
    machine.put(
        "/proc/meminfo",
        f"MemTotal: {100 * 2**20} kB\nMemFree: {2**20} kB\nMemAvailable: {4 * 2**20} kB\nCached: 0"
        " kB\nBuffers: 0 kB\n",
    )
    machine.put("/proc/vmstat", "pswpin 0\npswpout 0\n")
    assert resources.observe(machine.world, options()).available == 4 * gib
    machine.put("/proc/spl/kstat/zfs/arcstats", ARC.format(keeps=3 * gib, size=63 * gib))
    assert resources.observe(machine.world, options()).available == 64 * gib


def test_age_in_a_container_with_an_uptime_of_its_own(machine):
    """lxcfs shows the container's uptime, but processes start relative to the host's boot."""
    machine.put("/run/.containerenv", "")
    machine.put(
        "/proc/1/stat", f"1 (init) S 0 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 {9_000_000 * 100} 0"
    )
    assert boot.system_age(machine.world) == 864000
    machine.put(
        "/proc/1/stat", f"1 (init) S 0 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 {863000 * 100} 0"
    )
    assert boot.system_age(machine.world) == 1000


MEMINFO = """MemTotal: 1000000 kB
MemFree: 10000 kB
MemAvailable: {available} kB
Buffers: 0 kB
Cached: 0 kB
SwapTotal: 0 kB
SwapFree: 0 kB
"""


@pytest.mark.parametrize(
    "pages",
    [
        "HugePages_Total: 400\nHugepagesize: 2048 kB\nHugetlb: 900000 kB\n",
        "HugePages_Total: 900\nHugePages_Free: 900\nHugepagesize: 1000 kB\n",
    ],
)
def test_huge_pages_are_not_memory_in_use(machine, options, pages):
    pytest.importorskip("psutil")
    machine.put("/proc/meminfo", MEMINFO.format(available=70_000) + pages)
    machine.put("/proc/vmstat", "pswpin 0\npswpout 0\n")
    given = options(checks=["memory_usage"])
    memory = resources.observe(machine.world, given)
    assert memory.total == 100_000 * 1024
    (check,) = resources.decide_memory(memory, given)
    assert (check.status, check.value) == ("pass", 30.0), "it was 93 %"


GIB = 2**30


def _limited(machine, options, files, group):
    pytest.importorskip("psutil")
    machine.put("/proc/meminfo", MEMINFO.format(available=970_000))
    machine.put("/proc/vmstat", "pswpin 0\npswpout 0\n")
    machine.put("/proc/self/cgroup", group)
    for path, content in files.items():
        machine.put(path, content)
    given = options(checks=["memory_usage"])
    (check,) = resources.decide_memory(resources.observe(machine.world, given), given)
    return check


V2, V1 = "/sys/fs/cgroup", "/sys/fs/cgroup/memory"
MB = 1_000_000


@pytest.mark.parametrize(
    ("files", "group", "status", "value"),
    [
        ({}, "0::/\n", "pass", 3.0),
        ({f"{V2}/memory.max": "max\n", f"{V2}/memory.current": "5\n"}, "0::/\n", "pass", 3.0),
        (
            {f"{V2}/memory.max": f"{100 * MB}\n", f"{V2}/memory.current": f"{96 * MB}\n"},
            "0::/\n",
            "critical",
            96.0,
        ),
        (
            {
                f"{V2}/memory.max": f"{100 * MB}\n",
                f"{V2}/memory.current": f"{96 * MB}\n",
                f"{V2}/memory.stat": f"anon 1\ninactive_file {20 * MB}\n",
            },
            "0::/\n",
            "pass",
            76.0,
        ),
        (  # the slice above has the limit
            {
                f"{V2}/a.slice/b.service/memory.max": "max\n",
                f"{V2}/a.slice/b.service/memory.current": "1\n",
                f"{V2}/a.slice/memory.max": f"{100 * MB}\n",
                f"{V2}/a.slice/memory.current": f"{88 * MB}\n",
            },
            "0::/a.slice/b.service\n",
            "warning",
            88.0,
        ),
        (  # the wider limit of the slice above is nearer than its own
            {
                f"{V2}/a.slice/b.service/memory.max": f"{100 * MB}\n",
                f"{V2}/a.slice/b.service/memory.current": f"{25 * MB}\n",
                f"{V2}/a.slice/memory.max": f"{200 * MB}\n",
                f"{V2}/a.slice/memory.current": f"{192 * MB}\n",
            },
            "0::/a.slice/b.service\n",
            "critical",
            96.0,
        ),
        (
            {
                f"{V1}/docker/x/memory.limit_in_bytes": f"{100 * MB}\n",
                f"{V1}/docker/x/memory.usage_in_bytes": f"{97 * MB}\n",
                f"{V1}/memory.limit_in_bytes": "9223372036854771712\n",
                f"{V1}/memory.usage_in_bytes": "1\n",
            },
            "5:cpu:/\n4:memory:/docker/x\n0::/\n",
            "critical",
            97.0,
        ),
        (  # more than there is: no limit
            {f"{V2}/memory.max": f"{9 * GIB}\n", f"{V2}/memory.current": f"{9 * GIB}\n"},
            "0::/\n",
            "pass",
            3.0,
        ),
    ],
)
def test_the_limit_of_the_control_group_counts(machine, options, files, group, status, value):
    check = _limited(machine, options, files, group)
    assert (check.status, check.value) == (status, value)
    assert ("of the limit of this control group" in check.message) == (value != 3.0)
    if value != 3.0:
        assert check.details == {"host_percent": 3.0, "limit_percent": value}
