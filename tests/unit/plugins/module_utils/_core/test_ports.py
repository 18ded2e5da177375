# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a node keeps its state, and that the tests of this run keep theirs elsewhere."""

from __future__ import annotations

import os

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.ports import World


@pytest.mark.parametrize(
    ("root", "variable", "path"),
    [
        ("/", None, "/var/lib/mlops-fleet/last"),
        ("/", "", "/var/lib/mlops-fleet/last"),
        ("/", "/srv/state", "/srv/state/last"),
        # What is read of a prepared directory stays in it.
        ("/node", "/srv/state", "/node/var/lib/mlops-fleet/last"),
    ],
)
def test_the_state_directory(root, variable, path):
    environ = {} if variable is None else {"MLOPS_FLEET_STATE_DIR": variable}
    assert World(run=None, root=root, environ=environ).state("last") == path


def test_tests_leave_the_state_of_this_machine_alone():
    path = World(run=None).state("cleanup")
    assert not path.startswith("/var/lib/") and path.startswith(os.environ["MLOPS_FLEET_STATE_DIR"])
