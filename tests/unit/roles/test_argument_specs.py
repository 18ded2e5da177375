# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every role's argument specs say the same as its defaults, and what it passes to modules exists there."""

from __future__ import annotations

import pathlib

import pytest

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed for this interpreter")

ROOT = pathlib.Path(__file__).resolve().parents[3]
ROLES = sorted(path for path in (ROOT / "roles").iterdir() if path.is_dir())


def options(role):
    return yaml.safe_load((role / "meta" / "argument_specs.yml").read_text())["argument_specs"][
        "main"
    ]["options"]


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_specs_equal_defaults(role):
    defaults = yaml.safe_load((role / "defaults" / "main.yml").read_text())
    specs = options(role)
    required = {name for name, spec in specs.items() if spec.get("required")}
    assert set(specs) - required == set(defaults)
    for name, default in defaults.items():
        assert specs[name].get("default") == default, name


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_variables_carry_the_roles_name_and_a_description(role):
    for name, spec in options(role).items():
        assert name.startswith(role.name + "_") and spec["description"] and spec["type"], name
        if spec["type"] == "list":
            assert spec["elements"], name


PHASES = {
    "health": "node_health",
    "gpu": "gpu_health",
    "backup": "model_backup",
    "cleanup": "artifact_cleanup",
}


@pytest.mark.parametrize("phase", PHASES)
def test_the_maintenance_role_passes_options_that_the_parts_have(phase):
    from ansible_collections.mlops.fleet.plugins.module_utils._core import config

    table = {option.name: option for option in config.option_set(phase).TABLE}
    tasks = yaml.safe_load((ROOT / "roles" / "maintenance" / "tasks" / "main.yml").read_text())
    (task,) = [task for task in tasks if f"mlops.fleet.{PHASES[phase]}" in task]
    passed = task[f"mlops.fleet.{PHASES[phase]}"]
    specs = options(ROOT / "roles" / "maintenance")
    for name, template in passed.items():
        assert name in table, name
        variable = f"maintenance_{phase}_{name}"
        if variable in specs:
            assert variable in template
            assert (specs[variable]["type"], specs[variable].get("elements")) == (
                table[name].type,
                table[name].elements,
            ), variable
    # Every threshold can be set where the playbook is called by its name. fail_on would turn a sick node into a failed phase.
    assert set(table) - set(passed) <= {"fail_on", "force"}
    handed_over = {f"maintenance_{phase}_{name}" for name in passed}
    assert {name for name in specs if name.startswith(f"maintenance_{phase}_")} <= handed_over | {
        "maintenance_backup_throttle",
        "maintenance_backup_dir",
    }
