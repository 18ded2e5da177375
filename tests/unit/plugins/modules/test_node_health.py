# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node_health module: its documentation says what its options are, and it runs as Ansible runs it."""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
import sys

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
ANSIBLE = pathlib.Path(sys.executable).parent / "ansible"
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


def _ansible(tmp_path, interpreter, given):
    """Run the module as Ansible runs it: packed, in a process of its own; return its result."""
    argv = [
        str(ANSIBLE),
        "localhost",
        "-m",
        "mlops.fleet.node_health",
        "-a",
        json.dumps(given),
        "-e",
        f"ansible_python_interpreter={interpreter}",
    ]
    env = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".build" / "collections"),
        "LC_ALL": "C.UTF-8",
    }
    done = subprocess.run(argv, capture_output=True, text=True, env=env, timeout=120, check=False)
    _head, arrow, text = done.stdout.partition(" => ")
    assert arrow, done.stdout + done.stderr
    return {**json.loads(text), "failed": done.returncode != 0}


@pytest.mark.skipif(not ANSIBLE.exists(), reason="no ansible beside this Python")
def test_as_ansible_runs_it(tmp_path):
    pytest.importorskip("psutil")
    result = _ansible(tmp_path, sys.executable, {"network": False, "disk_warning": 60})
    assert (
        result["changed"] is False
        and result["failed"] is False
        and {"timestamp", "hostname", "recommendation", "reasons", "domain"} <= set(result)
    )
    assert next(check["warn"] for check in result["checks"] if check["check"] == "disk_usage") == 60
    assert not {"rc", "items", "keys", "values"} & set(result)
    failed = _ansible(tmp_path, sys.executable, {"services": ["a b"]})
    assert (
        failed["failed"] is True
        and "can't be the name of a systemd unit" in failed["msg"]
        and "checks" not in failed
    )


@pytest.mark.skipif(not ANSIBLE.exists(), reason="no ansible beside this Python")
def test_a_python_without_psutil_is_named(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True
    )
    bare = tmp_path / "venv" / "bin" / "python"
    result = _ansible(tmp_path, bare, {"network": False})
    assert (
        result["failed"] is True
        and "psutil" in result["msg"]
        and str(bare) in result["msg"]
        and "Traceback" not in result["msg"]
    )
