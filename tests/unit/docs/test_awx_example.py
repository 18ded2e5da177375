# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The example for AWX: what it names exists, and the survey's answers are text that the role
takes.
"""

from __future__ import annotations

import pathlib

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[3]


class Loader(yaml.SafeLoader):
    """Reads Ansible's tag for text that is no template."""


Loader.add_constructor("!unsafe", lambda loader, node: loader.construct_scalar(node))


def play():
    text = (ROOT / "docs/examples/awx/setup.yml").read_text(encoding="utf-8")
    return yaml.load(text, Loader)[0]


def options():
    known = {}
    for role in ("maintenance", "fleet_report"):
        path = ROOT / "roles" / role / "meta" / "argument_specs.yml"
        known |= yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"]["main"][
            "options"
        ]
    return known


def test_survey_variables_exist_and_their_defaults_are_text():
    known = options()
    for question in play()["vars"]["awx_survey"]["spec"]:
        spec = known[question["variable"]]
        assert isinstance(question["default"], str) and spec["type"] in ("str", "raw")
        assert question["default"] in (
            "",
            str(spec.get("default", "")),
            str(spec.get("default")).lower(),
        )
        if "choices" in spec:
            assert sorted(question["choices"]) == sorted(spec["choices"])


def test_playbooks_and_nodes_of_the_workflow_exist():
    content = play()
    templates = content["vars"]["awx_templates"]
    for template in templates:
        assert (ROOT / "playbooks" / template["playbook"]).is_file()
    (workflow,) = [
        task["awx.awx.workflow_job_template"]
        for task in content["tasks"]
        if "awx.awx.workflow_job_template" in task
    ]
    nodes = {node["identifier"]: node for node in workflow["workflow_nodes"]}
    for node in nodes.values():
        template = node["unified_job_template"]
        if template["type"] == "job_template":
            assert template["name"] in [entry["name"] for entry in templates]
        for following in node.get("related", {}).values():
            assert all(entry["identifier"] in nodes for entry in following)


def test_injected_variables_exist_and_secret_fields_are_secret():
    known = options()
    for task in play()["tasks"]:
        kind = task.get("awx.awx.credential_type")
        if kind:
            assert set(kind["injectors"]["extra_vars"]) <= set(known)
            for field in kind["inputs"]["fields"]:
                assert field.get("secret", False) == (field["id"] in ("secret_key", "url"))
