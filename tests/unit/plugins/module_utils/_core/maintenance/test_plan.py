# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rule that decides whether a phase may run, and how the GPUs are divided between two
phases.
"""

from __future__ import annotations

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import OptionError
from ansible_collections.mlops.fleet.plugins.module_utils._core.maintenance import plan
from ansible_collections.mlops.fleet.plugins.module_utils._core.maintenance.options import (
    MaintenanceOptions,
)

GOOD = {"changed": True}
FAILED = {"failed": True, "msg": "no"}
SKIPPED = {"skipped": True}
DOWN = {"unreachable": True}


def decide(phase, results=None, held="", **options):
    skip = plan.decide(phase, MaintenanceOptions.from_mapping(options), results or {}, held)
    return skip and skip.code


@pytest.mark.parametrize("phase", plan.PHASES.names)
def test_a_phase_runs_first_and_after_good_ones(phase):
    assert decide(phase) is None
    earlier = plan.PHASES.names[: plan.PHASES.names.index(phase)]
    assert decide(phase, dict.fromkeys(earlier, GOOD)) is None
    assert decide(phase, dict.fromkeys(earlier)) is None  # left out by tags


@pytest.mark.parametrize("phase", plan.PHASES.names)
@pytest.mark.parametrize("go_on", [False, True])
def test_what_stops_every_phase(phase, go_on):
    assert decide(phase, **{f"run_{phase}": False}, continue_on_error=go_on) == plan.SWITCHED_OFF
    assert decide(phase, held="too many failed", continue_on_error=go_on) == plan.HELD
    assert decide(phase, {"health": DOWN}, continue_on_error=go_on) == plan.UNREACHABLE


@pytest.mark.parametrize(
    ("phase", "results", "options", "code"),
    [
        ("gpu", {"health": FAILED}, {}, plan.EARLIER_FAILED),
        ("gpu", {"health": FAILED}, {"continue_on_error": True}, None),
        ("backup", {"health": GOOD, "gpu": FAILED}, {}, plan.EARLIER_FAILED),
        ("backup", {"health": FAILED, "gpu": SKIPPED}, {"continue_on_error": True}, None),
        ("cleanup", {"backup": FAILED}, {}, plan.BACKUP_FAILED),
        ("cleanup", {"backup": FAILED}, {"continue_on_error": True}, plan.BACKUP_FAILED),
        ("cleanup", {"backup": SKIPPED}, {"continue_on_error": True}, plan.BACKUP_NOT_RUN),
        ("cleanup", {"health": FAILED, "backup": SKIPPED}, {}, plan.EARLIER_FAILED),
        (
            "cleanup",
            {"health": FAILED, "backup": SKIPPED},
            {"continue_on_error": True},
            plan.BACKUP_NOT_RUN,
        ),
        ("cleanup", {"backup": SKIPPED}, {"run_backup": False}, None),
        ("cleanup", {"backup": FAILED}, {"run_backup": False, "continue_on_error": True}, None),
        ("gpu", {"backup": FAILED}, {"continue_on_error": True}, None),
        ("gpu", {"backup": SKIPPED}, {}, None),
        ("cleanup", {"health": FAILED, "backup": GOOD}, {"continue_on_error": True}, None),
    ],
)
def test_after_failures(phase, results, options, code):
    assert decide(phase, results, **options) == code


def test_an_unhealthy_node_stops_nothing():
    assert decide("backup", {"health": {"status": "critical", "exit_code": 2}}) is None


def test_an_unknown_phase_is_an_error():
    with pytest.raises(OptionError, match="health, gpu, backup, cleanup"):
        decide("healt")


@pytest.mark.parametrize(
    ("given", "gpu_phase_runs", "leaves"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"skip": ["network"]}, True, True),
        ({"gpu": True}, True, False),
        ({"gpu": False}, True, False),
        ({"checks": ["gpu"]}, True, False),
        ({"checks": ["memory"]}, True, False),
        ({"skip": ["gpu"]}, True, False),
    ],
)
def test_who_checks_the_gpus(given, gpu_phase_runs, leaves):
    assert plan.leaves_gpus(given, gpu_phase_runs) is leaves


def test_the_health_result_says_who_checks_the_gpus():
    result = {"checks": [], "summary": {"total": 0, "skipped": 1}, "status": "skipped"}
    noted = plan.note_gpus_left(result)
    assert plan.left_gpus(noted) and not plan.left_gpus(result) and not plan.left_gpus(None)
    assert noted["summary"] == {"total": 0, "skipped": 2} and result["checks"] == []
    assert "GPU phase" in noted["checks"][0]["message"]
    for other in (FAILED, {**result, "failed": True}, GOOD):
        assert plan.note_gpus_left(other) == other


@pytest.mark.parametrize(
    ("check", "left"),
    [
        ({"check": "gpu", "status": "skipped"}, True),
        ({"check": "gpu", "status": "pass"}, False),
        ({"check": "swap", "status": "skipped"}, False),
    ],
)
def test_only_a_skipped_check_of_the_gpus_says_that_they_were_left(check, left):
    assert plan.left_gpus({"checks": [check]}) is left


@pytest.mark.parametrize(
    ("result", "failed"),
    [(None, False), ({}, False), (GOOD, False), (FAILED, True), (DOWN, True), (SKIPPED, False)],
)
def test_a_phase_that_could_not_do_its_job(result, failed):
    assert plan.phase_failed(result) is failed


def test_skip_busy_leaves_out_backup_and_cleanup_where_gpus_work():
    busy = {"gpus": [{"process_count": 0, "util_gpu": 0}, {"process_count": 2}, {"util_gpu": 5}]}
    idle = {"gpus": [{"process_count": 0, "util_gpu": 4}, {"process_count": None}]}
    careful = MaintenanceOptions.from_mapping({"skip_busy": True})
    for phase in ("backup", "cleanup"):
        skip = plan.decide(phase, careful, {"gpu": busy})
        assert skip is not None and skip.code == plan.BUSY and "2 of the GPUs" in skip.text
        assert plan.decide(phase, careful, {"gpu": idle}) is None
        assert plan.decide(phase, careful, {"gpu": None}) is None
        assert plan.decide(phase, MaintenanceOptions.from_mapping({}), {"gpu": busy}) is None
    assert plan.decide("health", careful, {"gpu": busy}) is None
