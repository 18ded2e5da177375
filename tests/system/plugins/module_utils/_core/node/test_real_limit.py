# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Memory under a limit that the kernel enforces on a control group, or on one above it."""

from __future__ import annotations

import contextlib
import os
import pathlib

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.node.run import run
from ansible_collections.mlops.fleet.plugins.module_utils._core.system import isolate

ROOT = pathlib.Path("/sys/fs/cgroup")
MIB = 1 << 20


@pytest.fixture
def group():
    """Return the directory of a new control group and the file of its limit (version 1 or 2)."""
    for base, file in ((ROOT / "memory", "memory.limit_in_bytes"), (ROOT, "memory.max")):
        directory = base / f"mlops-test-{os.getpid()}"
        with contextlib.suppress(OSError):
            directory.mkdir()
            if (directory / file).exists():
                yield directory, file
                directory.rmdir()
                return
            directory.rmdir()
    pytest.skip("no control group for memory can be made here")


def used_inside(directory, options, world, size):
    """Use so much memory in a control group and check it there; return status and details."""

    def check():
        (directory / "cgroup.procs").write_text(str(os.getpid()))
        memory = bytearray(size)
        memory[::4096] = b"x" * len(memory[::4096])
        (found,) = run(options(checks=["memory_usage"]), world).checks
        return found.status, found.details

    outcome = isolate.call(check, 60)
    assert outcome.error is None
    return outcome.value


def test_the_limit_of_a_control_group_decides(group, options, world):
    directory, file = group
    (directory / file).write_text(str(400 * MIB))
    status, details = used_inside(directory, options, world, 360 * MIB)
    assert status in ("warning", "critical") and 85 <= details["limit_percent"] <= 100
    assert details["host_percent"] < 85
    (directory / file).write_text(str(4000 * MIB))
    status, details = used_inside(directory, options, world, 40 * MIB)
    assert status == "pass" and details["limit_percent"] < 85


def test_the_limit_of_the_slice_above_decides(group, options, world):
    directory, file = group
    (directory / file).write_text(str(400 * MIB))
    if file == "memory.max":
        (directory / "cgroup.subtree_control").write_text("+memory")
    inner = directory / "inner"
    inner.mkdir()
    try:
        status, details = used_inside(inner, options, world, 360 * MIB)
    finally:
        inner.rmdir()
    assert status in ("warning", "critical") and 85 <= details["limit_percent"] <= 100
