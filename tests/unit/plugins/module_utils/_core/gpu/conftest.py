# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A node with simulated GPUs: the NVML double under the unmodified pynvml, a directory for /sys,
/proc and /dev, a log file.
"""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[5]
NOW = 1_800_000_000.0


def _load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


harness = _load(ROOT / "tests" / "nvml_double" / "harness.py")


class Worker:
    def __init__(self, env, flags=()):
        command = [
            sys.executable,
            *flags,
            str(HERE / "worker.py"),
            str(ROOT / ".build" / "collections"),
        ]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
        )

    def ask(self, **request):
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        found = json.loads(self.process.stdout.readline())
        assert "crash" not in found, found["crash"]
        return found

    def close(self):
        self.process.stdin.close()
        self.process.wait(10)


@pytest.fixture(scope="session")
def workers():
    """Start workers on demand; keyed by whether they find the library and pynvml."""
    running = {}

    def get(library=True, pynvml=True):
        key = (library, pynvml)
        if key not in running:
            if library and not harness.compiler():
                pytest.skip(
                    "no C compiler to build the simulated NVML library (Debian package gcc)"
                )
            env = (
                harness.environment(None)
                if library
                else {
                    name: value for name, value in os.environ.items() if name != "LD_LIBRARY_PATH"
                }
            )
            # -S: no site-packages, so pynvml really is not there.
            running[key] = Worker(env, () if pynvml else ("-S",))
        return running[key]

    yield get
    for worker in running.values():
        worker.close()


@pytest.fixture
def environment(workers):
    """Variables for a process that finds the simulated library."""
    workers()
    return harness.environment(None)


class Node:
    """A node to look at. C(run) returns the document, or {"error": ...}."""

    def __init__(self, directory, workers):
        self.directory = directory
        self.root = directory / "root"
        (self.root / "proc").mkdir(parents=True)
        self.bin = directory / "bin"
        self.bin.mkdir()
        self.workers = workers
        self.env = {
            "PATH": f"{self.bin}:/usr/bin:/bin",
            "NVML_DOUBLE_SCENARIO": "",
            "NVIDIA_SMI_ANSWERS": str(directory / "answers.json"),
        }

    def gpus(self, name=None, **changes):
        """Choose a shipped scenario, or write one: C(system), C(gpu), C(gpus), C(base) as in
        harness.write_scenario.
        """
        path = (
            harness.write_scenario(self.directory / "scenario.ini", base=name, **changes)
            if changes
            else harness.scenario_path(name)
        )
        self.env["NVML_DOUBLE_SCENARIO"] = str(path)
        return self

    def pci(self, *addresses, driver="nvidia", vendor="0x10de", kind="0x030200"):
        for address in addresses:
            device = self.root / "sys/bus/pci/devices" / address
            device.mkdir(parents=True)
            (device / "vendor").write_text(vendor + "\n")
            (device / "class").write_text(kind + "\n")
            if driver:
                (device / "driver").symlink_to(f"/sys/bus/pci/drivers/{driver}")
        return self

    def smi(self, **answers):
        (self.directory / "answers.json").write_text(json.dumps(answers))
        program = self.bin / "nvidia-smi"
        program.write_text(
            f'#!/bin/sh\nexec {sys.executable} {HERE / "nvidia_smi_stand_in.py"} "$@"\n'
        )
        program.chmod(0o755)
        return self

    def log(self, *lines):
        """Write a log file; a bare message of the driver is given a time, ten minutes apart."""
        path = self.directory / "kern.log"
        first = NOW - 600 * len(lines)
        with open(path, "w", encoding="utf-8") as stream:
            for number, line in enumerate(lines):
                stamp = f"{first + 600 * number} node kernel: " if line.startswith("NVRM") else ""
                stream.write(f"{stamp}{line}\n")
        return str(path)

    def booted(self, boot="one", uptime=100_000.0):
        """Say which boot this is and how long ago it was."""
        files = {"sys/kernel/random/boot_id": boot, "uptime": f"{uptime} 0"}
        for name, content in files.items():
            (self.root / "proc" / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / "proc" / name).write_text(content + "\n")
        return self

    def run(self, library=True, pynvml=True, write=True, world_env=None, now=NOW, **options):
        options.setdefault("log_source", "none")
        worker = self.workers(library, pynvml)
        return worker.ask(
            what="run",
            options=options,
            root=str(self.root),
            now=now,
            env=self.env,
            write=write,
            world_env=world_env or {},
        )

    def quick(self, **options):
        """One round without fork, PCI or log."""
        return self.workers().ask(
            what="session", options=options, root=str(self.root), now=NOW, env=self.env
        )


@pytest.fixture
def node(tmp_path, workers):
    return Node(tmp_path, workers)


def check(document, name, subject=None):
    """Return the one check of that name (and subject)."""
    found = [
        one
        for one in document["checks"]
        if one["check"] == name and subject in (None, one.get("subject"))
    ]
    assert len(found) == 1, (
        f"{name} {subject}: {found or [one['check'] for one in document['checks']]}"
    )
    return found[0]


@pytest.fixture(name="check")
def check_fixture():
    return check
