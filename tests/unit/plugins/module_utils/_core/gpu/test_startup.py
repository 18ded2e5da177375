# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a check of healthy GPUs loads: most of its cost is compiling and importing these files."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import zlib

from ansible_collections.mlops.fleet.plugins.module_utils._core.gpu import facts

COLLECTIONS = pathlib.Path(__file__).resolve().parents[6] / ".build" / "collections"

PROBE = """
import json, sys, typing
sys.path.insert(0, sys.argv[1])
PACKAGE = "ansible_collections.mlops.fleet.plugins.module_utils._core"
from ansible_collections.mlops.fleet.plugins.module_utils._core.gpu.options import GpuOptions
from ansible_collections.mlops.fleet.plugins.module_utils._core.gpu.run import run
from ansible_collections.mlops.fleet.plugins.module_utils._core.ports import World

UNWANTED = "csv dataclasses datetime difflib inspect pickle shutil subprocess zlib"
options = GpuOptions.from_mapping({"log_source": "none"})
document = run(options, World(run=None)).to_dict()
loaded = {name[len(PACKAGE) + 1:]: module for name, module in sys.modules.items()
          if name.startswith(PACKAGE + ".")}
print(json.dumps({
    "gpus": len(document["gpus"]),
    "files": sorted(name for name, module in loaded.items() if not hasattr(module, "__path__")),
    "others": sorted(set(UNWANTED.split()) & sys.modules.keys()),
    "dear": sorted(name for name, module in loaded.items()
                   if getattr(module, "NamedTuple", None) is typing.NamedTuple),
}))
"""
#: A new file here costs every check of every node: load it where it is needed instead.
FILES = {
    "errors",
    "gpu.case",
    "gpu.checks",
    "gpu.driver",
    "gpu.facts",
    "gpu.links",
    "gpu.options",
    "gpu.plan",
    "gpu.reading",
    "gpu.recovery",
    "gpu.run",
    "gpu.state",
    "gpu.temperature",
    "options",
    "ports",
    "records",
    "registry",
    "system.boot",
    "system.containers",
    "system.isolate",
    "system.procfs",
    "system.text",
    "verdict",
}


def test_a_healthy_check_loads_only_what_it_needs(node, environment):
    node.gpus("h100x8")
    scenario = {"NVML_DOUBLE_SCENARIO": node.env["NVML_DOUBLE_SCENARIO"]}
    argv = [sys.executable, "-c", PROBE, str(COLLECTIONS)]
    process = subprocess.run(
        argv, capture_output=True, text=True, check=False, env={**environment, **scenario}
    )
    assert process.returncode == 0, process.stderr
    seen = json.loads(process.stdout)
    assert seen["gpus"] == 8
    assert set(seen["files"]) == FILES
    assert (seen["others"], seen["dear"]) == ([], [])


def test_the_name_of_the_probe_of_node_health():
    assert f"mlp:{zlib.crc32(b'gpu'):08x}" == facts._NODE_MARK
