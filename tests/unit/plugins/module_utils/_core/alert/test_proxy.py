# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.alert.proxy import bypasses_proxy


@pytest.mark.parametrize(
    ("host", "no_proxy", "expected"),
    [
        ("10.1.2.3", "10.0.0.0/8", True),
        ("11.1.2.3", "10.0.0.0/8", False),
        ("10.1.2.3", "localhost, 10.1.2.0/24 ,x", True),
        ("10.1.2.3", "10.1.2.99/24", True),
        ("fd00::1", "fd00::/8", True),
        ("fe80::1", "fd00::/8", False),
        ("10.1.2.3", "::/0", False),
        ("node.example", "0.0.0.0/0", False),
        ("10.1.2.3", "", False),
        ("10.1.2.3", "10.1.2.3", False),  # urllib decides
        ("fd00::1", "localhost,fd00::1", True),
        ("fd00::1", "[fd00:0::1]", True),
        ("fd00::1", "fd00::2, [fd00::1", True),
        ("fd00::1:0:0:1", "fd00:0:0:0:1:0:0:1", True),
        ("fd00::1", "fd00::2,example.org:8080", False),
        ("10.1.2.3", "a/b,10.0.0.0/99,10.0.0.0/8", True),
    ],
)
def test_networks_of_no_proxy(host, no_proxy, expected):
    assert bypasses_proxy(host, {"NO_PROXY": no_proxy}) is expected
    assert bypasses_proxy(host, {"no_proxy": no_proxy, "NO_PROXY": "0.0.0.0/0,::/0"}) is expected


def test_without_the_variable_nothing_bypasses():
    assert not bypasses_proxy("10.1.2.3", {})
