# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds the NVML double and points a process at it.

The scenario format is in README.md beside this file.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from pathlib import Path

HERE = Path(__file__).resolve().parent
SCENARIOS = HERE / "scenarios"
DEFAULT_OUTPUT = HERE.parent.parent / ".build" / "nvml" / "libnvidia-ml.so.1"
_BUILDING = threading.Lock()


def compiler():
    """Path of the C compiler, or None; a test without one has to be skipped."""
    return shutil.which(os.environ.get("CC") or "cc") or shutil.which("gcc")


def build(output=None, cflags=None):
    """Compile the library where it is missing or older than its source, and return its path.

    ``output`` is the file to write (default ``.build/nvml/libnvidia-ml.so.1`` of the checkout, or
    ``NVML_DOUBLE_LIBRARY``), ``cflags`` a string of compiler flags. Safe to call from several
    processes at once: the file appears by a rename. Raises RuntimeError with the compiler's words
    when it does not build.
    """
    library = Path(output or os.environ.get("NVML_DOUBLE_LIBRARY") or DEFAULT_OUTPUT).resolve()
    source = HERE / "nvml_double.c"
    with _BUILDING:
        if library.exists() and library.stat().st_mtime > source.stat().st_mtime:
            return library
        found = compiler()
        if not found:
            raise RuntimeError(f"no C compiler to build {source}: install gcc, or set CC")
        library.parent.mkdir(parents=True, exist_ok=True)
        # The recipe in the Makefile says the same; this one needs no make on the machine.
        temporary = library.with_name(f"{library.name}.new.{os.getpid()}")
        command = [
            found,
            "-std=gnu11",
            "-Wall",
            "-Wextra",
            "-Werror",
            *(cflags or "-O2").split(),
            "-fvisibility=hidden",
        ]
        command += [
            "-shared",
            "-fPIC",
            "-pthread",
            "-Wl,-soname,libnvidia-ml.so.1",
            "-o",
            str(temporary),
            str(source),
            "-ldl",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
        os.replace(temporary, library)
    return library


def environment(scenario, base=None, library=None):
    """The environment in which a process finds the double and this scenario.

    ``scenario`` is a path, the name of a file in scenarios/ (with or without .ini), or None for no
    scenario at all, which is a machine without driver. ``base`` is the environment to extend, by
    default this process's.
    """
    env = dict(os.environ if base is None else base)
    directory = str(Path(library or build()).parent)
    env["LD_LIBRARY_PATH"] = os.pathsep.join(
        [directory] + [p for p in [env.get("LD_LIBRARY_PATH")] if p]
    )
    env["NVML_DOUBLE_SCENARIO"] = (
        "" if scenario is None else str(scenario_path(scenario))
    )  # empty: none, not even the system-wide one
    return env


def scenario_path(scenario):
    """Absolute path of a scenario given as a path or by the name of a shipped one.

    Raises FileNotFoundError.
    """
    for candidate in (Path(scenario), SCENARIOS / str(scenario), SCENARIOS / f"{scenario}.ini"):
        if candidate.is_file():
            return candidate.resolve()
    raise FileNotFoundError(
        f"no scenario {scenario}: neither a file nor one of"
        f" {sorted(p.stem for p in SCENARIOS.glob('*.ini'))}"
    )


def write_scenario(path, system=None, gpu=None, gpus=(), base=None):
    """Write a scenario file, atomically, and return its path.

    ``system``, ``gpu`` are mappings of key to value for [system] and for the defaults; ``gpus`` is
    a list (or a mapping by number) of mappings for the single GPUs. ``base`` is a shipped scenario,
    or path, whose text comes first; what is given here overrides it, but defaults given here do not
    override what the base says of a single GPU. None as a value stands for ``!NOT_SUPPORTED``,
    which is what a key that is not there gives.
    """
    path = Path(path)
    lines = [scenario_path(base).read_text(encoding="utf-8")] if base else []
    numbered = gpus.items() if hasattr(gpus, "items") else enumerate(gpus)
    for header, keys in [("[system]", system), ("[gpu]", gpu)] + [
        (f"[gpu {number}]", keys) for number, keys in numbered
    ]:
        if keys is not None:
            lines += [
                header,
                *(
                    f"{key} = {'!NOT_SUPPORTED' if value is None else value}"
                    for key, value in keys.items()
                ),
                "",
            ]
    temporary = path.with_name(f"{path.name}.new.{os.getpid()}")
    temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    os.replace(temporary, path)
    return path
