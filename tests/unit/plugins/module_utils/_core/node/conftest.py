# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of the node check share: options from a mapping, and a machine made of files below
a directory.
"""

from __future__ import annotations

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import CommandFailed
from ansible_collections.mlops.fleet.plugins.module_utils._core.node.options import NodeOptions
from ansible_collections.mlops.fleet.plugins.module_utils._core.ports import World


def no_programs(argv, timeout=30.0, env=None, stdin=None):
    """A machine on which no program is installed."""
    raise CommandFailed.missing(argv[0])


@pytest.fixture
def options():
    """Make checked options from keywords."""
    return lambda **given: NodeOptions.from_mapping(given)


class Machine:
    """A machine whose /proc, /sys and /etc are files we write."""

    def __init__(self, root, clock):
        self.root = root
        self.world = World(run=no_programs, clock=clock, root=str(root), hostname="n1", environ={})

    def put(self, path, content):
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content, encoding="utf-8")
        return target


@pytest.fixture
def machine(tmp_path, clock):
    made = Machine(tmp_path / "machine", clock)
    made.put("/proc/uptime", "864000.00 1000.00\n")
    return made
