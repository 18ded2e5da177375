# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Log sources and limits that the GPU options accept."""

from __future__ import annotations

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import OptionError
from ansible_collections.mlops.fleet.plugins.module_utils._core.gpu.options import GpuOptions


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"log_source": "journal"}, None),
        ({"log_source": "/var/log/kern.log"}, None),
        ({"log_source": "kern.log"}, "absolute path"),
        ({"xid_overrides": {"63": "ignore"}}, None),
        ({"xid_overrides": {"x": "ignore"}}, "not an Xid number"),
        ({"xid_overrides": {"63": "bad"}}, "must be one of"),
        ({"keep_xids": True}, "needs state_file"),
        ({"keep_xids": True, "state_file": "/var/lib/gpu.json"}, None),
        ({"temperature_critical": 50}, None),
        ({"temperature_warning": 50}, None),
        ({"temperature_warning": 50, "temperature_critical": 50}, None),
        ({"temperature_warning": 50, "temperature_critical": 49}, "below temperature_warning"),
    ],
)
def test_what_is_accepted(given, problem):
    if problem is None:
        GpuOptions.from_mapping(given)
    else:
        with pytest.raises(OptionError, match=problem):
            GpuOptions.from_mapping(given)
