# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of a node check: pure, from typed facts alone."""

from __future__ import annotations

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.node import (
    filesystems,
    hardware,
    journal,
    network,
    plan,
    services,
    system,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.node.certificates import Validity
from ansible_collections.mlops.fleet.plugins.module_utils._core.node.disks import DiskHealth
from ansible_collections.mlops.fleet.plugins.module_utils._core.node.expected import ExpectedFacts
from ansible_collections.mlops.fleet.plugins.module_utils._core.node.facts import (
    Counters,
    NodeFacts,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.node.probes import Probe, Problem
from ansible_collections.mlops.fleet.plugins.module_utils._core.node.resources import (
    Memory,
    ProcessFacts,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.node.state import (
    Memory as Remembered,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.node.values import Fill, Load
from ansible_collections.mlops.fleet.plugins.module_utils._core.registry import Registry
from ansible_collections.mlops.fleet.plugins.module_utils._core.system.mounts import Mount
from ansible_collections.mlops.fleet.plugins.module_utils._core.verdict import Check

NOW, DAY, GIB = 2_000_000_000.0, 86400.0, 2**30
ROOT = Mount(1, "8:1", "/", "/", "ext4", "/dev/sda1", "rw", "rw")
FAR = Mount(2, "0:50", "/", "/far", "nfs4", "server:/x", "rw", "rw")
USAGE = filesystems.Usage(10 * GIB, 90 * GIB, 1000, 10, 990, False)
HEALTHY = NodeFacts(
    now=NOW,
    age=10 * DAY,
    counters=Counters("boot", 5),
    readings={
        "memory_pressure": 0.0,
        "cpu_load": Load((1.0, 1.0, 1.0), 8),
        "cpu_pressure": 0.0,
        "io_pressure": 0.0,
        "file_descriptors": Fill(10, 1000),
        "process_ids": Fill(10, 1000),
        "conntrack": Fill(10, 1000),
    },
    memory=Memory(100 * GIB, 90 * GIB, 0, 0),
    system=system.SystemFacts(
        container=False,
        boot=NOW - 10 * DAY,
        now=NOW,
        taint=0,
        reboot=system.Reboot(False),
        clock=system.KernelClock(True, 0.0, 0.1),
    ),
    processes=ProcessFacts([], []),
    durations={},
    disks={"sda": DiskHealth(True, 3)},
    certificates={"/c.pem": Validity(NOW - DAY, NOW + 90 * DAY)},
    disk=filesystems.DiskFacts([ROOT], frozenset({"/"}), {}, {"/": USAGE}, {}, {}),
    services=services.ServiceFacts(
        True, {"ssh": services.Unit("ssh.service", "loaded", "active", "running")}, []
    ),
    log=journal.LogFacts(journal.JOURNAL, [], {}, False, 3600),
    gpu=[Check("gpu_count", "pass", "GPUs: 8"), Check("gpu_ecc", "pass", "no errors", "0")],
    network=network.NetworkFacts(
        kernel=network.RouteFacts(
            [network.Route(0, "eth0", "10.0.0.1")],
            {"10.0.0.1": True},
            False,
            True,
            ("files", "dns"),
        ),
        names={"a.example": network.NameAnswer(network.RESOLVED, "10.0.0.9")},
        targets={"a:1": 0.01},
        links=[network.Link("eth0", True, True, 1, "up", 1000, 1, False)],
        infiniband=None,
    ),
    hardware=hardware.HardwareFacts([], 0, [], [], []),
    updates=[],
)
GIVEN = {
    "services": ["ssh"],
    "dns_names": ["a.example"],
    "network_targets": ["a:1"],
    "security_updates": True,
}


def _decide(facts, options, memory=None, **given):
    checks = plan.decide(facts, options(**{**GIVEN, **given}), memory).checks
    return {(check.check, check.subject): check for check in checks}


def test_a_healthy_node_passes_everything(options):
    checks = _decide(HEALTHY, options)
    assert {
        key for key, check in checks.items() if check.status not in ("pass", "skipped")
    } == set()
    assert [key[0] for key, check in checks.items() if check.status == "skipped"] == [
        "swap_usage",
        "infiniband_port",
        "memory_errors",
        "raid",
        "zfs_pool",
        "nvme_state",
    ]


#: What is changed: the checks that are no longer fine, with their statuses.
BROKEN = [
    ({"log": Problem("no answer")}, {("journal_errors", None): "unknown"}),
    ({"services": Problem("no answer")}, {("service", None): "unknown"}),
    ({"hardware": Problem("no answer")}, {("raid", None): "unknown"}),
    ({"gpu": Problem("no answer")}, {("gpu_driver", None): "unknown"}),
    ({"updates": Problem("no answer")}, {("security_updates", None): "unknown"}),
    ({"updates": ["libc6"]}, {("security_updates", None): "warning"}),
    ({"disks": {"sda": Problem("no answer")}}, {("disk_health", "sda"): "unknown"}),
    ({"certificates": {"/c.pem": Problem("x")}}, {("certificate", "/c.pem"): "unknown"}),
    (
        {"certificates": {"/c.pem": Validity(NOW - DAY, NOW - 1)}},
        {("certificate", "/c.pem"): "critical"},
    ),
]


@pytest.mark.parametrize(("change", "expected"), BROKEN)
def test_one_fault_is_reported_once(options, change, expected):
    checks = _decide(HEALTHY._replace(**change), options)
    bad = {key: check for key, check in checks.items() if check.status not in ("pass", "skipped")}
    assert {key: check.status for key, check in bad.items()} == expected
    storage = {"raid", "disk_health", "gpu_driver"}
    for (name, _subject), check in bad.items():
        if check.status == "unknown":
            assert check.counts_as == ("critical" if name in storage else "warning"), name


def test_the_other_checks_of_a_lost_probe_say_where_to_look(options):
    checks = _decide(HEALTHY._replace(services=Problem("no answer")), options)
    assert checks[("failed_units", None)].message == "Services: see service"
    assert checks[("service", None)].message == "Services: no answer"
    checks = _decide(HEALTHY._replace(services=Problem("no answer")), options, skip=["service"])
    assert checks[("failed_units", None)].status == "unknown"


def test_durations_are_those_of_the_probes(options):
    durations = {
        Probe("mounts"): 0.001,
        Probe("mount", "/far"): 0.002,
        Probe("systemd"): 0.003,
        Probe("gpu"): 0.004,
        Probe("dns", "a.example"): 0.005,
        Probe("target", "a:1"): 0.006,
        Probe("links"): 0.007,
        Probe("journal"): 0.008,
        Probe("hardware"): 0.009,
        Probe("disk", "sda"): 0.010,
        Probe("certificate", "/c.pem"): 0.011,
        Probe("updates"): 0.012,
    }
    disk = filesystems.DiskFacts(
        [ROOT, FAR], frozenset({"/", "/far"}), {}, {"/": USAGE, "/far": USAGE}, {}, {}
    )
    checks = _decide(HEALTHY._replace(durations=durations, disk=disk), options)
    timed = {key: check.duration_ms for key, check in checks.items()}
    for key, expected in {
        ("disk_usage", "/"): 1.0,
        ("disk_usage", "/far"): 2.0,
        ("service", "ssh"): 3.0,
        ("gpu_ecc", "0"): 4.0,
        ("dns", "a.example"): 5.0,
        ("network_target", "a:1"): 6.0,
        ("network_link", "eth0"): 7.0,
        ("network_gateway", "10.0.0.1"): None,
        ("oom_kills", None): 8.0,
        ("machine_checks", None): 9.0,
        ("disk_wear", "sda"): 10.0,
        ("certificate", "/c.pem"): 11.0,
        ("security_updates", None): 12.0,
        ("uptime", None): None,
        ("memory_usage", None): None,
    }.items():
        assert timed[key] == expected, key


@pytest.mark.parametrize(
    ("boot_id", "before", "now", "value"),
    [
        ("boot", 5, 5, 0),
        ("boot", 3, 5, 2),
        ("boot", 7, 5, 0),  # the counter can't go back
        ("other", 3, 5, 0),
        (None, 3, 5, 0),
        ("boot", None, 5, 0),
        ("boot", 3, None, 0),
    ],
)
def test_oom_kills_are_counted_within_one_boot(options, boot_id, before, now, value):
    facts = HEALTHY._replace(counters=Counters(boot_id and "boot", now))
    memory = Remembered({}, Counters(boot_id, before))
    assert _decide(facts, options, memory)[("oom_kills", None)].value == value


def test_what_is_remembered(options):
    given = options(checks=["limits"])
    assert plan.decide(HEALTHY, given).memory is None
    memory = plan.decide(HEALTHY, given, Remembered({}, Counters())).memory
    assert memory.counters == HEALTHY.counters
    assert set(memory.checks) == {"file_descriptors|", "process_ids|", "conntrack|"}


def test_a_flapping_unit_is_counted_in_the_journal_or_by_systemd(options):
    waiting = services.Unit("x.service", "loaded", "activating", "auto-restart", "exit-code", 4)
    units = HEALTHY.services._replace(bad=[waiting])
    counted = HEALTHY.log._replace(restarts={"y.service": 3})
    facts = HEALTHY._replace(services=units, log=counted)
    assert _decide(facts, options)[("flapping_units", None)].details == {"units": {"y.service": 3}}
    facts = facts._replace(log=None)
    checks = _decide(facts, options, skip=["errors"])
    assert checks[("flapping_units", None)].details == {"units": {"x.service": 4}}


def test_only_wanted_gpu_checks_are_reported(options):
    checks = _decide(HEALTHY, options, checks=["gpu_ecc"])
    assert list(checks) == [("gpu_ecc", "0")]


def test_why_no_disk_is_asked(options):
    facts = HEALTHY._replace(disks={}, why_no_disk_asked="only root may ask the disks")
    check = _decide(facts, options)[("disk_health", None)]
    assert (check.status, check.message) == (
        "skipped",
        "Disk health: only root may ask the disks",
    )
    assert ("disk_health", None) not in _decide(facts, options, skip=["disk_health"])


def test_the_conclusion_counts_what_could_not_be_written():
    passed = Check("raid", "pass", "fine")
    problem = Check("state_file", "warning", "full", action="inspect", domain="node")
    checks, advice = plan.conclude([passed], [problem])
    assert checks == [passed, problem]
    assert advice == ("inspect", ["full"], "node")
    assert plan.conclude([passed], [])[1] == ("none", [], "none")


def test_memory_errors_are_counted_per_day_since_boot(options):
    edac = [hardware.MemoryController("mc0", 1_000_000, 0)]
    facts = HEALTHY._replace(hardware=HEALTHY.hardware._replace(edac=edac))
    check = _decide(facts, options)[("memory_errors", "mc0")]
    assert (check.status, check.value) == ("warning", 100_000.0)
    unknown = facts._replace(system=facts.system._replace(boot=None))
    assert _decide(unknown, options)[("memory_errors", "mc0")].value == 1_000_000.0


def test_durations_are_rounded_and_those_of_the_gpu_part_stay(options):
    own = Check("gpu_ecc", "pass", "no errors", "0", duration_ms=7.0)
    facts = HEALTHY._replace(
        gpu=[own],
        durations={Probe("gpu"): 1.0, Probe("journal"): 0.0012345, Probe("hardware"): 1.0},
    )
    checks = _decide(facts, options)
    assert checks[("gpu_ecc", "0")].duration_ms == 7.0
    assert checks[("oom_kills", None)].duration_ms == 1.2
    assert checks[("machine_checks", None)].duration_ms == 1000.0


def test_what_could_not_be_read_has_no_check(options):
    readings = {key: value for key, value in HEALTHY.readings.items() if key != "conntrack"}
    checks = _decide(HEALTHY._replace(readings=readings), options)
    assert ("conntrack", None) not in checks and ("cpu_load", None) in checks


@pytest.mark.parametrize(
    ("earlier", "kills"), [(5, "0"), (4, "1"), (6, "no state file to compare"), (None, "no state")]
)
def test_oom_kills_since_the_last_run_need_a_counter_that_did_not_fall(options, earlier, kills):
    log = journal.LogFacts(None, [], {}, False, 3600)
    memory = Remembered({}, Counters("boot", earlier))
    checks = _decide(HEALTHY._replace(log=log), options, memory)
    assert kills in checks[("oom_kills", None)].message


def test_groups_that_were_not_read_have_no_checks(options):
    nothing = HEALTHY._replace(
        disk=None, services=None, network=None, log=None, hardware=None, gpu=None, disks={}
    )
    names = {name for name, _subject in _decide(nothing, options)}
    assert names == {name for name, _subject in _decide(HEALTHY, options)} - {
        *filesystems.DECIDES, *services.DECIDES, *network.DECIDES, *journal.DECIDES,
        *hardware.DECIDES, "gpu_count", "gpu_ecc", "disk_health", "disk_wear",
    }  # fmt: skip


def test_updates_are_asked_for(options):
    assert ("security_updates", None) not in _decide(HEALTHY, options, security_updates=False)


def test_only_a_check_with_a_reading_of_its_own_is_made_of_one(options):
    facts = HEALTHY._replace(readings={**HEALTHY.readings, "uptime": 5})
    assert (
        len([check for check in plan.decide(facts, options()).checks if check.check == "uptime"])
        == 1
    )


@pytest.mark.parametrize("answer", [{"0000:00:01.0": 0}, Problem("no answer")])
def test_optional_checks_are_made_where_they_apply_and_timed(options, answer):
    facts = HEALTHY._replace(
        optional={"pci_acs": {"": answer}}, durations={Probe("pci_acs", ""): 0.5}
    )
    check = _decide(facts, options)[("pci_acs", None)]
    assert check.status == ("unknown" if isinstance(answer, Problem) else "pass")
    assert check.duration_ms == 500.0
    assert ("pci_acs", None) not in _decide(HEALTHY, options)


def test_each_subject_of_an_optional_check_has_its_own_duration(options):
    answers = {"nfs a": True, "nfs b": Problem("no answer")}
    durations = {Probe("storage_server", "nfs a"): 0.5, Probe("storage_server", "nfs b"): 2.0}
    facts = HEALTHY._replace(optional={"storage_server": answers}, durations=durations)
    checks = _decide(facts, options)
    assert checks[("storage_server", "nfs a")].duration_ms == 500.0
    assert checks[("storage_server", "nfs b")].duration_ms == 2000.0


@pytest.mark.parametrize("wanted", [True, False])
def test_expected_hardware_is_compared_where_it_is_wanted(options, wanted):
    facts = HEALTHY._replace(
        expected=ExpectedFacts(Problem("no file"), Problem("no answer")),
        durations={Probe("expected"): 0.5},
    )
    skip = [] if wanted else ["expected_hardware"]
    check = _decide(facts, options, skip=skip).get(("expected_hardware", None))
    assert (check is not None) is wanted
    assert not wanted or (check.status, check.duration_ms) == ("unknown", 500.0)


def _deciders(*more, without=""):
    kept = (decider for decider in plan.DECIDERS if decider.name != without)
    return Registry("decider", (*kept, *more), required=("checks", "function"))


@pytest.mark.parametrize(
    ("deciders", "problem"),
    [
        (_deciders(without="memory"), "memory_usage has neither reading nor decider"),
        (
            _deciders(plan.Decider("limits", ("conntrack",), plan._memory)),
            "conntrack has both a reading and a decider",
        ),
        (_deciders(plan.Decider("moon", ("x",), plan._memory)), "no group 'moon' of node checks"),
        (
            _deciders(plan.Decider("memory", ("swap_usage",), plan._memory), without="memory"),
            "memory_usage has neither reading nor decider",
        ),
    ],
)
def test_every_check_has_one_maker(monkeypatch, deciders, problem):
    plan.check_deciders()
    monkeypatch.setattr(plan, "DECIDERS", deciders)
    with pytest.raises(TypeError, match=problem):
        plan.check_deciders()


def test_an_optional_check_needs_its_module(monkeypatch):
    modules = {name: load for name, load in plan.MODULES.items() if name != "pci_acs"}
    monkeypatch.setattr(plan, "MODULES", modules)
    with pytest.raises(TypeError, match="pci_acs has neither reading nor decider"):
        plan.check_deciders()
