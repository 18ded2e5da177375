# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node_health module: its documentation says what its options are, and it is a thin shell."""

from __future__ import annotations

import pathlib
import re

import pytest

from ansible_collections.mlops.fleet.tests import docs_pages

yaml = pytest.importorskip("yaml")
pytest.importorskip("ansible")

from ansible_collections.mlops.fleet.plugins.doc_fragments import verdict as fragment
from ansible_collections.mlops.fleet.plugins.module_utils._core.node.checks import (
    GROUPS,
    RULES,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.node.options import NodeOptions
from ansible_collections.mlops.fleet.plugins.modules import node_health

ROOT = pathlib.Path(__file__).resolve().parents[4]
EVERY = {name for names in GROUPS.values() for name in names}


def _described(option):
    found = {"type": option.type}
    if option.default is not None:
        found["default"] = option.default
    for name in ("elements", "required"):
        if getattr(option, name):
            found[name] = getattr(option, name)
    if option.choices:
        found["choices"] = list(option.choices)
    if option.suboptions:
        found["suboptions"] = {one.name: _described(one) for one in option.subtable}
    return found


def _documented(option):
    found = {
        name: option[name]
        for name in ("type", "default", "elements", "required", "choices")
        if name in option
    }
    if "suboptions" in option:
        found["suboptions"] = {name: _documented(one) for name, one in option["suboptions"].items()}
    return found


def test_documentation_and_option_table_say_the_same():
    documented = yaml.safe_load(node_health.DOCUMENTATION)["options"]
    documented.update(yaml.safe_load(fragment.ModuleDocFragment.DOCUMENTATION)["options"])
    assert {name: _documented(option) for name, option in documented.items()} == {
        option.name: _described(option) for option in NodeOptions.TABLE
    }


def test_all_checks_with_limits_are_named_in_the_documentation():
    words = " ".join(yaml.safe_load(node_health.DOCUMENTATION)["options"]["limits"]["description"])
    assert set(re.findall(r"V\(([a-z_]+)\)", words)) - {"warning", "critical", "clear"} == set(
        RULES
    )


def test_table_and_runbook_have_every_check():
    rows = docs_pages.rows("node_health")
    names = set(re.findall(r"``([a-z_]+)``", " ".join(row[1] for row in rows)))
    assert names >= EVERY and docs_pages.runbook_entries() >= EVERY


def test_the_examples_are_valid_options():
    tasks = []
    for one in yaml.safe_load(node_health.EXAMPLES):
        tasks += one.get("tasks", [one])
    given = [
        task["mlops.fleet.node_health"] or {} for task in tasks if "mlops.fleet.node_health" in task
    ]
    assert len(given) >= 5
    for options in given:
        NodeOptions.from_mapping(options)


def test_the_module_is_a_thin_shell():
    lines = pathlib.Path(node_health.__file__).read_text().splitlines()
    code = lines[
        lines.index("from ansible_collections.mlops.fleet.plugins.module_utils import _shell") :
    ]
    assert len([line for line in code if line.strip()]) < 40
