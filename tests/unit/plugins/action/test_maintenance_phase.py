# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How role variables become the arguments of a phase's module."""

from __future__ import annotations

import pytest

pytest.importorskip("ansible.plugins.action", reason="needs ansible-core")

from ansible_collections.mlops.fleet.plugins.action import maintenance_phase
from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import OptionError
from ansible_collections.mlops.fleet.plugins.module_utils._core.maintenance import plan


class Verbatim:
    """Counts what is templated; the values of these tests hold no templates."""

    def __init__(self):
        self.templated = []

    def template(self, value):
        self.templated.append(value)
        return value


def variables(**task_vars):
    return maintenance_phase.Variables(task_vars, Verbatim())


@pytest.mark.parametrize(
    ("phase", "given", "arguments"),
    [
        ("gpu", {"maintenance_gpu_expected_count": ""}, {}),
        ("gpu", {"maintenance_gpu_expected_count": None}, {}),
        ("gpu", {"maintenance_gpu_expected_count": "8"}, {"expected_count": "8"}),
        ("gpu", {"maintenance_gpu_expected_count": 0}, {"expected_count": 0}),
        ("gpu", {"maintenance_gpu_fail_on": "warning"}, {}),
        ("gpu", {"maintenance_gpu_textfile": ""}, {}),
        (
            "gpu",
            {"maintenance_gpu_xid_overrides": '{"79": "ignore"}'},
            {"xid_overrides": {"79": "ignore"}},
        ),
        ("health", {"maintenance_health_network": False}, {"network": False}),
        ("health", {"maintenance_health_services": []}, {"services": []}),
        ("health", {"maintenance_health_checks": []}, {}),
        ("health", {"maintenance_health_limits": {}}, {}),
        ("backup", {"maintenance_model_dir": "/m"}, {"source": "/m"}),
        ("backup", {"maintenance_backup_force": True}, {}),
        ("backup", {"maintenance_backup_s3": ""}, {}),
        ("backup", {"maintenance_backup_dir": ""}, {"destination": ""}),
        (
            "cleanup",
            {"maintenance_cleanup_targets": '[{"name": "a", "path": "/srv/a"}]'},
            {"targets": [{"name": "a", "path": "/srv/a"}]},
        ),
    ],
)
def test_what_is_set_is_passed(phase, given, arguments):
    assert variables(**given).of_phase(plan.PHASES[phase]) == arguments


def test_only_variables_that_are_set_are_templated():
    given = {"maintenance_gpu_backend": "auto", "maintenance_gpu_timeout": None, "other": "{{ x }}"}
    reader = variables(**given)
    reader.of_phase(plan.PHASES["gpu"])
    assert reader._templar.templated == ["auto"]


@pytest.mark.parametrize(
    ("phase", "given", "words"),
    [
        ("gpu", {"maintenance_gpu_expected_count": "eight"}, "maintenance_gpu_expected_count"),
        ("backup", {"maintenance_model_dir": ""}, "maintenance_model_dir"),
        ("backup", {"maintenance_backup_s3": {"buckt": "b"}}, "maintenance_backup_s3.buckt"),
        ("health", {"maintenance_health_network": "perhaps"}, "maintenance_health_network"),
    ],
)
def test_types_are_checked_and_the_variable_is_named(phase, given, words):
    with pytest.raises(OptionError, match=words):
        variables(**given).check(plan.PHASES[phase])


@pytest.mark.parametrize("given", ['{"secret_key": "canary"', ["canary"], '[1, "canary"]'])
def test_secrets_are_in_no_message(given):
    with pytest.raises(OptionError) as caught:
        variables(maintenance_backup_s3=given).check(plan.PHASES["backup"])
    assert "canary" not in str(caught.value) and "maintenance_backup_s3" in str(caught.value)


def test_an_unanswered_survey_leaves_the_defaults_of_the_run():
    settings = variables(
        maintenance_run_gpu="", maintenance_max_fail_percentage="", maintenance_run_backup="no"
    ).settings()
    assert (settings.run_gpu, settings.run_backup, settings.max_fail_percentage) == (
        True,
        False,
        100.0,
    )
    with pytest.raises(OptionError, match="maintenance_run_gpu"):
        variables(maintenance_run_gpu="perhaps").settings()
