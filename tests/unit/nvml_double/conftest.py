# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A clean process with unmodified pynvml on a scenario: NVML is one library per process, so each
test gets its own.
"""

from __future__ import annotations

import importlib.util
import json
import pathlib
import subprocess
import sys

import pytest

_FILE = pathlib.Path(__file__).resolve().parents[2] / "nvml_double" / "harness.py"
_SPEC = importlib.util.spec_from_file_location("nvml_double_harness", _FILE)
_HARNESS = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_HARNESS)

PRELUDE = """
import ctypes, json, os, signal, sys, threading, time
import pynvml as n

def ask(call, *arguments):
    # The value, or the number of the NVML error as a text such as "!15".
    try:
        value = call(*arguments)
    except n.NVMLError as error:
        return "!%d" % error.value
    return value.value if isinstance(value, ctypes._SimpleCData) else value

def plain(value):
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, ctypes.Structure) or hasattr(value, "__dict__"):
        names = [f[0] for f in value._fields_] if hasattr(value, "_fields_") else list(vars(value))
        return {name: plain(getattr(value, name)) for name in names}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value

def say(value):
    print(json.dumps(plain(value)))
"""


@pytest.fixture(scope="session")
def harness():
    pytest.importorskip("pynvml", reason="needs nvidia-ml-py")
    if not _HARNESS.compiler():
        pytest.skip("needs a C compiler (gcc) to build the NVML double")
    _HARNESS.build()
    return _HARNESS


@pytest.fixture
def prelude():
    return PRELUDE


@pytest.fixture
def run(harness, tmp_path):
    """run(scenario, code): the JSON that ``code`` says last, in a process of its own."""

    def go(scenario, code, timeout=30, **extra):
        if isinstance(scenario, dict):
            scenario = harness.write_scenario(tmp_path / "scenario.ini", **scenario)
        env = harness.environment(scenario)
        env.update(extra)
        done = subprocess.run(
            [sys.executable, "-c", PRELUDE + code],
            env=env,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        go.stderr = done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return go
