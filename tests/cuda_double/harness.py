# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds the CUDA double and points a process at it; what can be planted is described in
cuda_double.c.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
DEFAULT_OUTPUT = HERE.parent.parent / ".build" / "cuda" / "libcuda.so.1"


def _load_nvml_harness():
    path = HERE.parent / "nvml_double" / "harness.py"
    spec = importlib.util.spec_from_file_location("nvml_harness", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


nvml = _load_nvml_harness()


def build(output=None):
    """Compile the library where it is missing or older than its source, and return its path.

    Safe to call from several processes at once: the file appears by a rename. Raises RuntimeError
    when it does not build.
    """
    library = Path(output or DEFAULT_OUTPUT).resolve()
    source = HERE / "cuda_double.c"
    if library.exists() and library.stat().st_mtime > source.stat().st_mtime:
        return library
    compiler = nvml.compiler()
    if not compiler:
        raise RuntimeError(f"no C compiler to build {source}: install gcc, or set CC")
    library.parent.mkdir(parents=True, exist_ok=True)
    temporary = library.with_name(f"{library.name}.new.{os.getpid()}")
    command = [
        compiler,
        "-std=gnu11",
        "-O2",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-fvisibility=hidden",
        "-shared",
        "-fPIC",
    ]
    command += ["-Wl,-soname,libcuda.so.1", "-o", str(temporary), str(source), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
    os.replace(temporary, library)
    return library


def environment(scenario, planted="", base=None):
    """Return the environment of a process that finds both doubles.

    ``scenario`` is one of the NVML double; its GPUs are the devices, in the same order. ``planted``
    are faults.
    """
    env = nvml.environment(scenario, base)
    env["LD_LIBRARY_PATH"] = os.pathsep.join([str(build().parent), env["LD_LIBRARY_PATH"]])
    addresses = [
        line.partition("=")[2].strip()
        for line in nvml.scenario_path(scenario).read_text(encoding="utf-8").splitlines()
        if line.startswith("pci.bus_id")
    ]
    env["CUDA_DOUBLE_BUS"] = ",".join(addresses)
    env["CUDA_DOUBLE"] = f"devices={len(addresses)} {planted}".strip()
    return env
