# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every place that repeats a supported version agrees with scripts/versions.py."""

from __future__ import annotations

import importlib.util
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SPEC = importlib.util.spec_from_file_location("versions", ROOT / "scripts" / "versions.py")
versions = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(versions)
OLDEST, NEWEST = versions.TARGET_PYTHONS[0], versions.TARGET_PYTHONS[-1]
BOTO3 = [f"plugins/modules/model_{name}.py" for name in ("backup", "restore", "backup_info")]
PLACES = [
    *((path, r"boto3 ([\d.]+) or later", versions.LIBRARIES["boto3"]) for path in BOTO3),
    *(("requirements.txt", rf"^{n}>=([\d.]+)$", v) for n, v in versions.LIBRARIES.items()),
    ("meta/runtime.yml", r'requires_ansible: ">=([\d.]+)\.0"', versions.ANSIBLE_FLOOR),
    ("tests/config.yml", r'python_requires: ">=([\d.]+)"', OLDEST),
    ("ruff.toml", r'target-version = "py(\d+)"', OLDEST.replace(".", "")),
    ("README.md", r"ansible-core ([\d.]+) or later", versions.ANSIBLE_FLOOR),
    ("README.md", r"Python ([\d.]+ to [\d.]+)", f"{OLDEST} to {NEWEST}"),
    *(
        (str(path.relative_to(ROOT)), r'min_ansible_version: "([\d.]+)"', versions.ANSIBLE_FLOOR)
        for path in sorted(ROOT.glob("roles/*/meta/main.yml"))
    ),
    *(
        (f"tests/requirements/{name}.txt", r"^ansible-core>=([\d.]+),", line)
        for name, (line, _python) in versions.ANSIBLE_LINES.items()
    ),
]


@pytest.mark.parametrize(("path", "pattern", "version"), PLACES)
def test_stated_versions_agree(path, pattern, version):
    stated = re.findall(pattern, (ROOT / path).read_text(encoding="utf-8"), re.M)
    assert stated and set(stated) == {version}


def test_the_workflow_runs_every_line():
    yaml = pytest.importorskip("yaml")
    workflow = yaml.safe_load(
        (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    )
    matrix = workflow["jobs"]["core"]["strategy"]["matrix"]
    left_out = {(entry["core"], entry["python"]) for entry in matrix["exclude"]}
    pairs = {(c, p) for c in matrix["core"] for p in matrix["python"]} - left_out
    assert pairs == {(c, p) for c, ps in versions.ANSIBLE_MATRIX.items() for p in ps}
