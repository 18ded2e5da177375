# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``mlfleet health --for``, and the files in docs/examples that use it, run as they are shipped."""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess

import pytest

EXAMPLES = pathlib.Path(__file__).resolve().parents[3] / "docs" / "examples"
#: Limits of the memory in use that make the check what its key says.
LIMITS = {
    "pass": {"memory_warning": "~:", "memory_critical": "~:"},
    "warning": {"memory_warning": "@0:100", "memory_critical": "~:"},
    "critical": {"memory_warning": "@0:100", "memory_critical": "@0:100"},
}


def health(node, verdict):
    node.settings["health"] = {"checks": ["memory_usage"], "network": False, **LIMITS[verdict]}


@pytest.mark.parametrize("scheduler", ["slurm", "npd"])
@pytest.mark.parametrize(
    ("verdict", "code", "line"),
    [
        ("pass", 0, "ok: 1 checks passed"),
        ("warning", 0, "ok, but: memory_usage: Memory usage: "),
        ("critical", 1, "critical: memory_usage: Memory usage: "),
    ],
)
def test_one_line_and_the_expected_exit_code(node, scheduler, verdict, code, line):
    health(node, verdict)
    done = node.run("health", "--for", scheduler, check=code)
    assert done.stdout.startswith(line) and done.stdout.count("\n") == 1


@pytest.mark.parametrize(("scheduler", "code"), [("slurm", 0), ("npd", 2)])
def test_a_mistake_in_the_configuration_drains_no_node(node, scheduler, code):
    node.settings["health"] = {"memory_warning": "nonsense"}
    done = node.run("health", "--for", scheduler, check=code)
    assert re.fullmatch(r"unknown: .*memory_warning.*\n", done.stdout)


@pytest.fixture
def scripted(node, command):
    """Run a script of docs/examples with this node's configuration and a stand-in for scontrol."""
    node.run("health")
    directory = node.directory / "bin"
    directory.mkdir()
    programs = {
        "mlfleet": f'exec {command} "$@" --config {node.config} --log-file {node.directory}/log\n',
        "scontrol": f'echo "$@" >> {node.directory}/scontrol\n',
    }
    for name, text in programs.items():
        (directory / name).write_text("#!/bin/sh\n" + text)
        (directory / name).chmod(0o755)

    def start(name):
        node.config.write_text(json.dumps(node.settings))
        done = subprocess.run(
            [str(EXAMPLES / "slurm" / name)],
            env={"PATH": f"{directory}:{os.environ['PATH']}", "SLURMD_NODENAME": "gpu-17"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        called = node.directory / "scontrol"
        return done.returncode, done.stdout, called.read_text() if called.exists() else ""

    return start


@pytest.mark.parametrize("script", ["prolog.sh", "epilog.sh", "health_check.sh"])
def test_scripts_for_slurm(node, scripted, script):
    health(node, "warning")
    code, dummy, called = scripted(script)
    assert (code, called) == (0, "")
    health(node, "critical")
    code, output, called = scripted(script)
    assert code == 1 and output.startswith("critical: memory_usage")
    if script == "health_check.sh":
        assert called.startswith("update NodeName=gpu-17 State=DRAIN Reason=mlfleet: critical: mem")
    else:
        assert called == "", "Slurm forbids its own commands there"
    node.settings["health"] = {"memory_warning": "nonsense"}
    assert scripted(script)[0] == 0


def test_the_plugin_for_node_problem_detector_names_the_command(node):
    plugin = json.loads((EXAMPLES / "node-problem-detector" / "mlfleet.json").read_text())
    (rule,) = plugin["rules"]
    assert rule["condition"] == plugin["conditions"][0]["type"]
    assert plugin["plugin"] == "custom" and rule["type"] == "permanent"
    health(node, "critical")
    arguments = rule["args"]
    done = node.run(*arguments, check=1)
    assert len(done.stdout.rstrip("\n")) <= plugin["pluginConfig"]["max_output_length"]
