# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The phases of maintenance, their order, and the one rule that decides whether a phase may run.

The maintenance role (through its action plugin), the node command and the fleet report all use this
rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ..registry import Registry
from ..verdict import SKIPPED, Check
from .options import MaintenanceOptions

#: What a phase returned (the module's return values); None where it left nothing.
Result = Mapping[str, Any]


class Phase(NamedTuple):
    """A phase of maintenance.

    :param name: also the section of its options in the node's configuration, and the tag of its
        task.
    :param module: the module that does the work on a node.
    :param switch: the option of MaintenanceOptions that switches the phase off.
    :param withheld: options of the module that maintenance does not offer.
    :param variables: role variables that do not follow the pattern C(maintenance_PHASE_OPTION), by
        option.
    """

    name: str
    module: str
    switch: str
    help: str
    withheld: frozenset[str]
    variables: Mapping[str, str]

    def variable(self, option: str) -> str:
        """Return the name of the role variable that sets an option."""
        return self.variables.get(option, f"maintenance_{self.name}_{option}")


#: The phases in their order. Cleanup comes last, and only after the backup is safe.
#: fail_on would turn the verdict about an unhealthy node into a failed phase, and stop its backup.
PHASES: Registry[Phase] = Registry(
    "phase",
    [
        Phase(
            "health",
            "mlops.fleet.node_health",
            "run_health",
            "Check the node.",
            frozenset({"fail_on"}),
            {},
        ),
        Phase(
            "gpu",
            "mlops.fleet.gpu_health",
            "run_gpu",
            "Check the GPUs.",
            frozenset({"fail_on"}),
            {},
        ),
        Phase(
            "backup",
            "mlops.fleet.model_backup",
            "run_backup",
            "Back up the models.",
            frozenset({"force"}),
            {"source": "maintenance_model_dir", "destination": "maintenance_backup_dir"},
        ),
        Phase(
            "cleanup",
            "mlops.fleet.artifact_cleanup",
            "run_cleanup",
            "Clean up.",
            frozenset(),
            {},
        ),
    ],
    required=("module", "switch", "help"),
)

# Why a phase did not run.
SWITCHED_OFF = "switched_off"
HELD = "held"
UNREACHABLE = "unreachable"
BACKUP_FAILED = "backup_failed"
BACKUP_NOT_RUN = "backup_not_run"
EARLIER_FAILED = "earlier_failed"
BUSY = "busy"

#: Percent of a GPU's time from which it counts as busy where its processes are not reported.
BUSY_UTILIZATION = 5


class Skip(NamedTuple):
    """Why a phase does not run: a stable code, and the same for people."""

    code: str
    text: str


def phase_failed(result: Result | None) -> bool:
    """Say whether a phase did not do its job. An unhealthy node is a result, not a failure."""
    return bool(result and (result.get("failed") or result.get("unreachable")))


def decide(
    phase: str, options: MaintenanceOptions, results: Mapping[str, Result | None], held: str = ""
) -> Skip | None:
    """Return why a phase must not run after the results of those before it, None when it may run.

    Only a phase that could not do its job stops the later ones, unless C(continue_on_error).
    Nothing runs on a host that can't be reached. Cleanup never runs after a backup that failed or
    was kept from running; a backup that was switched off does not prevent it.

    :param results: phase to its result; a phase that was left out by tags has none.
    :param held: why no further host is started, empty when hosts may be started.
    :raises OptionError: there is no such phase.
    """
    if not getattr(options, PHASES[phase].switch):
        return Skip(SWITCHED_OFF, "switched off")
    if held:
        return Skip(HELD, held)
    if any(result and result.get("unreachable") for result in results.values()):
        return Skip(UNREACHABLE, "not run: the host can't be reached")
    failed = [name for name in PHASES.names if phase_failed(results.get(name))]
    if options.skip_busy and phase in ("backup", "cleanup"):
        busy = busy_gpus(results.get("gpu"))
        if busy:
            return Skip(BUSY, f"not run: skip_busy is on and work runs on {busy} of the GPUs")
    waits_for_backup = phase == "cleanup" and options.run_backup
    if waits_for_backup and "backup" in failed:
        return Skip(BACKUP_FAILED, "not run: the backup failed, and cleanup never runs without it")
    if failed and not options.continue_on_error:
        return Skip(EARLIER_FAILED, f"not run: {failed[0]} failed and continue_on_error is off")
    if waits_for_backup and (results.get("backup") or {}).get("skipped"):
        return Skip(
            BACKUP_NOT_RUN, "not run: the backup did not run, and cleanup never runs without it"
        )
    return None


def busy_gpus(result: Result | None) -> int:
    """Return the number of GPUs that a result of the GPU phase shows at work."""
    return sum(
        1
        for gpu in (result or {}).get("gpus") or ()
        if gpu.get("process_count") or (gpu.get("util_gpu") or 0) >= BUSY_UTILIZATION
    )


def leaves_gpus(given: Mapping[str, Any], gpu_phase_runs: bool) -> bool:
    """Say whether the health phase leaves the GPUs to the GPU phase, so that they are read and
    reported once.

    :param given: options of the health phase that somebody set. Who asks for GPU checks in it gets
        them.
    """
    wanted = "gpu" in given or given.get("checks") or "gpu" in (given.get("skip") or ())
    return gpu_phase_runs and not wanted


def note_gpus_left(result: Result) -> dict[str, Any]:
    """Return the result of the health phase with a skipped check that says who checks the GPUs.

    The name of the check is that of the group: no earlier problem of a GPU counts as gone because
    of it.
    """
    if phase_failed(result) or "checks" not in result:
        return dict(result)
    check = Check("gpu", SKIPPED, "The GPUs are checked by the GPU phase of this run")
    summary = dict(result["summary"])
    summary["skipped"] += 1
    return {**result, "checks": [*result["checks"], check.to_dict()], "summary": summary}


def left_gpus(result: Result | None) -> bool:
    """Say whether this result of the health phase left the GPUs to the GPU phase."""
    checks = (result or {}).get("checks") or ()
    return any(check.get("check") == "gpu" and check.get("status") == SKIPPED for check in checks)
