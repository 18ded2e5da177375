# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Advice: what is critical decides, users' problems drain no node."""

from __future__ import annotations

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.node.recommend import recommend
from ansible_collections.mlops.fleet.plugins.module_utils._core.verdict import Check


def bad(status, action, domain="node", **more):
    return Check("c", status, f"{status} {action}", action=action, domain=domain, **more)


@pytest.mark.parametrize(
    ("checks", "advice", "domain"),
    [
        ([], "none", "none"),
        ([Check("c", "pass", "fine"), Check("c", "skipped", "absent")], "none", "none"),
        ([bad("critical", "drain"), bad("critical", "reboot")], "reboot", "node"),
        ([bad("critical", "drain"), bad("warning", "reboot")], "drain", "node"),
        ([bad("warning", "reboot")], "reboot", "node"),
        ([bad("critical", "reset_gpu")], "drain", "node"),
        ([bad("critical", "free_space")], "inspect", "node"),
        ([bad("critical", "restart_app", "user")], "inspect", "user"),
        ([bad("warning", "restart_app", "user")], "none", "user"),
        ([bad("warning", "inspect", "user")], "none", "user"),
        ([bad("warning", "inspect")], "inspect", "node"),
        ([bad("warning", "free_space")], "none", "node"),
        ([bad("warning", "none")], "none", "node"),
        ([bad("unknown", "inspect")], "inspect", "node"),
        (
            [bad("unknown", "drain", unknown_as="critical"), bad("warning", "reboot")],
            "drain",
            "node",
        ),
        ([bad("warning", "restart_app", "user"), bad("critical", "inspect")], "inspect", "node"),
    ],
)
def test_advice(checks, advice, domain):
    found = recommend(checks)
    assert (found[0], found[2]) == (advice, domain)
    assert bool(found[1]) == (advice != "none")


def test_reasons_are_those_behind_the_advice():
    assert recommend(
        [bad("critical", "inspect"), bad("critical", "drain"), bad("warning", "reboot")]
    )[1] == ["critical drain"]
