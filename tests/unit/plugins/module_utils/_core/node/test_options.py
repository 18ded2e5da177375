# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options: the old defaults and variables, and bad values that end in one clear message."""

from __future__ import annotations

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.config import merge
from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import OptionError
from ansible_collections.mlops.fleet.plugins.module_utils._core.node.checks import GROUPS
from ansible_collections.mlops.fleet.plugins.module_utils._core.node.options import NodeOptions


def test_defaults_are_those_of_the_old_script(options):
    made = options()
    limits = made.limits_in_force
    assert (
        limits["disk_usage"].warning.plain,
        limits["disk_usage"].critical.plain,
        limits["memory_usage"].warning.plain,
    ) == (80, 90, 85)
    assert (
        made.gpu_temperature_warning,
        made.gpu_temperature_critical,
        made.services,
        made.gpu,
        made.network,
    ) == (75, 85, ["docker"], True, True)


def test_old_variables_set_the_options():
    environ = {
        "DISK_WARN_THRESHOLD": "70",
        "DISK_CRIT_THRESHOLD": "75",
        "MEM_WARN_THRESHOLD": "60",
        "GPU_TEMP_WARN": "66",
        "GPU_TEMP_CRIT": "77",
        "SERVICES_TO_CHECK": "docker nginx postgresql",
        "CHECK_GPU": "no",
    }
    values, origin = merge(NodeOptions, {"disk_warning": 50}, environ, {})
    made = NodeOptions.from_mapping(values)
    assert made.limits_in_force["disk_usage"].warning.plain == 70, (
        "the environment goes before the file"
    )
    assert (
        made.limits_in_force["disk_usage"].critical.plain == 75
        and made.limits_in_force["memory_usage"].warning.plain == 60
    )
    assert (made.gpu_temperature_warning, made.gpu_temperature_critical) == (66, 77)
    assert made.services == ["docker", "nginx", "postgresql"] and made.gpu is False
    assert origin["disk_warning"] == "environment DISK_WARN_THRESHOLD"


def test_a_memory_warning_beyond_our_own_critical_limit_is_what_it_was_in_the_old_script(options):
    limits = options(memory_warning=99).limits_in_force["memory_usage"]
    assert [limits.level(value) for value in (98, 99, 99.9)] == ["pass", "warning", "warning"]
    assert options(memory_warning=90).limits_in_force["memory_usage"].level(96) == "critical"
    assert (
        options(limits={"memory_usage": {"warning": 97}}).limits_in_force["memory_usage"].level(98)
        == "warning"
    )
    assert options(memory_warning="~:99").limits_in_force["memory_usage"].level(96) == "critical"
    with pytest.raises(OptionError, match="lies beyond its critical limit"):
        options(memory_warning=97, memory_critical=96)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"services": ["a b"]}, "'a b' can't be the name of a systemd unit"),
        ({"services": ["../x"]}, "can't be the name"),
        ({"services": [""]}, r"services\[0\] is empty"),
        ({"services": ["ssh", "getty@"]}, "name one, such as getty@1"),
        ({"services": ["getty@.service"]}, "is a template"),
        ({"services": ["*.service"]}, "can't be the name"),
        ({"services": ["--help"]}, "can't be the name"),
        ({"disk_warning": 95}, "warning limit of disk_usage"),
        ({"disk_warning": "lots"}, "neither a number nor a range"),
        ({"disk_warning": -5}, "between 0 and 100"),
        ({"memory_warning": "101"}, "between 0 and 100"),
        ({"limits": {"disk_usag": {"warning": 1}}}, "Did you mean disk_usage"),
        ({"limits": {"cpu_load": 4}}, "must be a mapping"),
        ({"limits": {"cpu_load": {"warn": 4}}}, "must be a mapping of warning, critical and clear"),
        ({"checks": ["disk_usge"]}, "did you mean disk_usage"),
        ({"skip": ["everything"]}, "neither a check nor a group"),
        ({"timeout": 0}, "at least 0.5"),
        ({"raise_after": 0}, "at least 1"),
        ({"state_file": "relative/state.json"}, "absolute path"),
        ({"network_targets": ["example.org"]}, "is not HOST:PORT"),
        ({"network_targets": ["example.org:99999"]}, "is not HOST:PORT"),
        ({"network_targets": ["example.org:65536"]}, "is not HOST:PORT"),
        ({"network_targets": ["example.org:0"]}, "is not HOST:PORT"),
        ({"dns_names": ["bad host"]}, "is not a host name"),
        ({"error_patterns": [{"name": "x", "pattern": "("}]}, "no regular expression"),
        (
            {"error_patterns": [{"name": "x", "pattern": "a"}, {"name": "x", "pattern": "b"}]},
            "has the name 'x' twice",
        ),
        ({"gpu_temperature_warning": 95}, "above gpu_temperature_critical"),
        ({"disk_floor_warning": 10, "disk_floor_critical": 20}, "larger than disk_floor_warning"),
        ({"disk_warnig": 3}, "Did you mean disk_warning"),
    ],
)
def test_bad_options_end_in_one_clear_message(given, words):
    with pytest.raises(OptionError, match=words):
        NodeOptions.from_mapping(given)


def test_what_is_wanted(options):
    every = options()
    assert all(every.wants(name) for name in GROUPS)
    some = options(
        checks=["Disk usage", "network"], skip=["dns"]
    )  # the old report's names are understood
    assert some.wants("disk") and some.wants("disk_usage") and not some.wants("inode_usage")
    assert (
        some.wants("network")
        and some.wants("network_gateway")
        and not some.wants("dns")
        and not some.wants("memory")
    )
    assert not options(network=False).wants("dns") and not options(network=False).wants("network")
    assert not options(gpu=False).wants("gpu") and not options(gpu=False).wants("gpu_temperature")
    assert options(checks=["gpu_temperature"]).wants("gpu") and not options(
        checks=["gpu_temperature"]
    ).wants("gpu_ecc")


def test_only_an_untouched_service_list_is_lenient(options):
    assert (
        options().services_are_default()
        and not options(services=["docker", "nginx"]).services_are_default()
    )


def test_the_first_and_the_last_port_are_ports(options):
    targets = ["example.org:1", "example.org:65535"]
    assert options(network_targets=targets).network_targets == targets


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, {"disk_usage", "dns", "gpu_ecc"}),
        ({"network": False}, {"disk_usage", "gpu_ecc"}),
        ({"gpu": False}, {"disk_usage", "dns"}),
        ({"checks": ["network"]}, {"dns"}),
        ({"skip": ["network"]}, {"disk_usage", "gpu_ecc"}),
        ({"checks": ["disk_usage", "gpu_ecc"], "skip": ["gpu"]}, {"disk_usage"}),
    ],
)
def test_checks_that_are_wanted(options, given, wanted):
    names = ("disk_usage", "dns", "gpu_ecc")
    assert {name for name in names if options(**given).wants(name)} == wanted


@pytest.mark.parametrize(
    ("given", "name", "wanted"),
    [
        ({"checks": ["gpu_ecc"]}, "memory", False),
        ({"checks": ["gpu_ecc"]}, "gpu", True),
        ({"checks": ["disk_usage"]}, "gpu", False),
        ({"checks": ["disk_usage"]}, "disk", True),
        ({"checks": ["disk_usage"]}, "disk_inodes", False),
        ({"skip": ["disk_usage"]}, "disk", True),
    ],
)
def test_a_group_is_wanted_with_one_of_its_checks(options, given, name, wanted):
    assert options(**given).wants(name) is wanted


@pytest.mark.parametrize(
    "given",
    [
        {"disk_floor_warning": 10, "disk_floor_critical": 10},
        {"disk_floor_warning": 0, "disk_floor_critical": 20},
        {"gpu_temperature_warning": 85, "gpu_temperature_critical": 85},
        {"limits": {"cpu_load": {"warning": 2, "critical": 4, "clear": 1}}},
    ],
)
def test_limits_that_touch_are_no_contradiction(options, given):
    made = options(**given)
    assert {name: getattr(made, name) for name in given} == given


def test_limits_of_a_check_go_before_the_old_options(options):
    made = options(limits={"disk_usage": {"warning": 91, "critical": 97}})
    limits = made.limits_in_force["disk_usage"]
    assert (limits.warning.plain, limits.critical.plain) == (91, 97)
    assert (
        options(limits={"disk_usage": {"warning": 85}}).limits_in_force["disk_usage"].critical.plain
        == 90
    )


def test_a_check_that_resembles_none_is_answered_with_all(options):
    with pytest.raises(OptionError, match=r"which has no limits\. Known: "):
        options(limits={"zzzzzz": {"warning": 1}})


@pytest.mark.parametrize(
    ("warning", "critical"), [(94, 95), (95, 95), (95.1, 100), (96, 100), (99, 100)]
)
def test_a_higher_memory_warning_moves_our_own_critical_limit(options, warning, critical):
    limits = options(memory_warning=warning).limits_in_force["memory_usage"]
    assert (limits.warning.plain, limits.critical.plain) == (warning, critical)
