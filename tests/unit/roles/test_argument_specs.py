# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every role's argument specs say the same as its defaults; what is generated is up to date."""

from __future__ import annotations

import pathlib
import subprocess
import sys

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


def test_generated_files_are_up_to_date():
    script = ROOT / "scripts" / "generate.py"
    check = subprocess.run(
        [sys.executable, script, "--check"], capture_output=True, text=True, check=False
    )
    assert check.returncode == 0, check.stdout + check.stderr
