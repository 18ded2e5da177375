# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether this node can look after itself: the old pre-deployment checklist as checks.

Reads and rehearses; starts jobs only when asked to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .. import trial
from ..jobs import JOBS
from ..ports import World
from ..verdict import Check
from . import execute, facts, plan
from .facts import Node
from .options import Request


class Result(NamedTuple):
    """The checks, and whether a job that was started changed anything."""

    checks: tuple[Check, ...]
    changed: bool


def run(
    request: Request, schedule: trial.Schedule, world: World, node: Node, log_files: Sequence[str]
) -> Result:
    """Check the node, and start the jobs that the request names."""
    before = facts.observe(request, schedule, node)
    backups = facts.backups(before, node)
    planned = plan.decide(request, before)
    started = execute.carry_out(request, planned, schedule, world, node)
    known = [job.start.name for job in started if job.start.name in schedule.jobs]
    after = facts.observe_afterwards(before, known, log_files, world, node)
    alerts = execute.check_alerts(request, schedule, world, node)
    checks = [*planned.checks]
    checks += [plan.trial_run(schedule.backend, job, request.rehearse_cleanup) for job in started]
    if before.space is not None and after.backups is not None:
        checks.append(plan.proven(after.backups, before.space.destination))
    checks += [plan.log_file(log) for log in after.logs]
    checks += [plan.rotation(after.rotation), plan.schedule(schedule, after.cron)]
    checks += [plan.last_run(last) for last in after.last_runs]
    checks.append(plan.alerts(alerts))
    changed = after.backups is not None and _paths(backups) != _paths(after.backups)
    changed |= not request.rehearse_cleanup and any(_removed(job) for job in started)
    return Result(tuple(checks), changed)


def _paths(backups: Sequence[facts.BackupData] | None) -> list[str]:
    return [backup["path"] for backup in backups or ()]


def _removed(job: plan.Started) -> bool:
    """Say whether a job that was started removed anything; one without a report may have."""
    if job.ended is None or not JOBS[job.start.name].removes:
        return False
    return job.ended.outcome is None or job.ended.outcome.freed_bytes > 0
