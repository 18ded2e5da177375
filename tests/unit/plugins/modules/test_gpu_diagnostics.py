# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import yaml

from ansible_collections.mlops.fleet.plugins.module_utils import _shell
from ansible_collections.mlops.fleet.plugins.module_utils._core.diagnostics.options import (
    DiagnosticsOptions,
)
from ansible_collections.mlops.fleet.plugins.modules import gpu_diagnostics


def _compare(documented, spec):
    assert set(documented) == set(spec)
    for name, entry in documented.items():
        for key in ("type", "default", "choices", "elements"):
            expected = spec[name].get(key)
            assert entry.get(key) == (
                list(expected) if isinstance(expected, tuple) else expected
            ), f"{name}.{key}"
        if "suboptions" in entry:
            _compare(entry["suboptions"], spec[name]["options"])


def test_documentation_and_options_say_the_same():
    documented = yaml.safe_load(gpu_diagnostics.DOCUMENTATION)["options"]
    _compare(documented, _shell.argument_spec(DiagnosticsOptions.TABLE))
