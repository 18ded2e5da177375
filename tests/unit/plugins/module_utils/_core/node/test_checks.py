# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The registry of checks: complete, in the groups it says, and each with a decider and a runbook
section.
"""

from __future__ import annotations

import pathlib
import re

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import OptionError
from ansible_collections.mlops.fleet.plugins.module_utils._core.node import (
    checks,
    kernel_rules,
    plan,
    values,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.node.checks import (
    CHECKS,
    GROUPS,
    RULES,
    NodeCheck,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.node.probes import KINDS
from ansible_collections.mlops.fleet.plugins.module_utils._core.registry import Registry

ROOT = pathlib.Path(__file__).resolve().parents[6]
#: What runs remember longer than a boot's grace, and the limits that were released.
LASTING = {
    "certificate",
    "disk_health",
    "disk_usage",
    "disk_wear",
    "inode_usage",
    "kernel_taint",
    "machine_checks",
    "memory_errors",
    "nvme_state",
    "raid",
    "read_only",
    "security_updates",
    "zfs_pool",
}
LIMITS = {
    "disk_usage": ("80", "90"),
    "inode_usage": ("80", "90"),
    "memory_usage": ("85", "95"),
    "swap_usage": ("80", "~:"),
    "memory_pressure": ("5", "20"),
    "io_pressure": ("50", "~:"),
    "cpu_pressure": ("~:", "~:"),
    "cpu_load": ("1.5", "~:"),
    "failed_units": ("1", "~:"),
    "flapping_units": ("1", "~:"),
    "oom_kills": ("1", "10"),
    "journal_errors": ("100", "~:"),
    "stuck_processes": ("1", "10"),
    "zombie_processes": ("100", "1000"),
    "file_descriptors": ("80", "95"),
    "process_ids": ("80", "95"),
    "conntrack": ("80", "95"),
    "time_sync": ("0.1", "1"),
    "memory_errors": ("100", "~:"),
    "disk_wear": ("90", "100"),
    "uptime": ("~:", "~:"),
    "certificate": ("21", "7"),
    "security_updates": ("1", "~:"),
    "infiniband_errors": ("100", "~:"),
    "backup_age": ("30", "54"),
}


def test_limits_and_lasting_faults_are_the_released_ones():
    assert {name: (rule.warning, rule.critical) for name, rule in RULES.items()} == LIMITS
    assert {check.name for check in CHECKS if check.lasting} == LASTING


@pytest.mark.parametrize("field", ["group", "documentation", "runbook", "metric"])
def test_an_incomplete_check_is_refused(field):
    whole = NodeCheck("fan_speed", "hardware", "Fans turn.", "fan_speed")
    table = Registry("node check", (), CHECKS.required)
    with pytest.raises(TypeError, match=f"fan_speed is incomplete: it has no {field}"):
        table.add(whole._replace(**{field: ""}))
    table.add(whole)
    with pytest.raises(TypeError, match="registered twice"):
        table.add(whole)


def _with(monkeypatch, module, entry):
    table = Registry("node check", (*CHECKS, entry), CHECKS.required)
    monkeypatch.setattr(module, "CHECKS", table)


def test_a_check_that_nothing_makes_is_refused(monkeypatch):
    plan.check_deciders()
    _with(monkeypatch, plan, NodeCheck("fan_speed", "hardware", "Fans turn.", "fan_speed"))
    with pytest.raises(TypeError, match="fan_speed has neither reading nor decider"):
        plan.check_deciders()


def test_a_check_that_is_made_twice_is_refused(monkeypatch):
    raid = CHECKS["raid"]._replace(reading=CHECKS["cpu_load"].reading)
    others = [check for check in CHECKS if check.name != "raid"]
    monkeypatch.setattr(plan, "CHECKS", Registry("node check", (*others, raid)))
    with pytest.raises(TypeError, match="raid has both a reading and a decider"):
        plan.check_deciders()


def test_a_decider_of_an_unknown_group_is_refused(monkeypatch):
    groups = {name: checks for name, checks in GROUPS.items() if name != "disk"}
    monkeypatch.setattr(plan, "GROUPS", groups)
    with pytest.raises(TypeError, match="no group 'disk'"):
        plan.check_deciders()


def test_a_check_in_an_unknown_group_is_refused():
    with pytest.raises(TypeError, match="unknown group 'fans'"):
        checks._in_order([NodeCheck("fan_speed", "fans", "Fans turn.", "fan_speed")])


@pytest.mark.parametrize("field", ["limits", "reading"])
def test_a_check_of_a_value_needs_limits_and_a_reading(field):
    table = Registry("node check", (), values.VALUES.required)
    with pytest.raises(TypeError, match=f"cpu_load is incomplete: it has no {field}"):
        table.add(CHECKS["cpu_load"]._replace(**{field: None}))


def test_deciders_claim_no_check_that_is_not_registered():
    claimed = {name for decider in plan.DECIDERS for name in decider.checks}
    optional = {check.name for check in CHECKS if check.applies is not None}
    assert claimed - {"gpu_"} == set(CHECKS.names) - set(values.VALUES.names) - optional


def test_groups_are_derived():
    assert [name for names in GROUPS.values() for name in names] == list(CHECKS.names)
    assert checks.group_of("disk") == "disk" and checks.group_of("raid") == "hardware"
    assert checks.group_of("gpu_ecc") == "gpu"


def test_each_check_has_its_section_in_the_runbook():
    pages = [path for path in (ROOT / "docs").rglob("runbook.*") if path.suffix in (".md", ".rst")]
    lines = [line for page in pages for line in page.read_text(encoding="utf-8").splitlines()]
    assert pages
    for check in CHECKS:
        sections = [line for line in lines if re.search(rf"\b{check.runbook}\b", line)]
        assert any(re.search(rf"\b{check.name}\b", line) for line in sections), check.name


def test_an_unknown_kind_of_probe_is_an_error():
    with pytest.raises(OptionError, match="Unknown kind of probe"):
        KINDS["fan"]


@pytest.mark.parametrize("rule", list(kernel_rules.PATTERNS), ids=lambda rule: rule.name)
def test_kernel_rules_can_be_used(rule):
    assert re.compile(rule.pattern) and re.search(r"[\w-]+/[\w-]+\.[ch]", rule.source)
    assert rule.status in ("warning", "critical") and rule.action in ("drain", "inspect", "reboot")
