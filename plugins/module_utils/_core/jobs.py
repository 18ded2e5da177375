# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The jobs that a node can run by itself: their units, logs, exit codes and default times.

The node command, its doctor and the schedule role use this table; ``scripts/generate.py`` writes
the role's part of it.
"""

from __future__ import annotations

from .outcome import GAVE_WAY
from .records import NamedTuple
from .registry import Registry


class Job(NamedTuple):
    """A job.

    :param name: also the subcommand of mlfleet that does the work, unless there is a
        ``command``.
    :param unit: systemd unit, without ``.service`` and ``.timer``.
    :param log: file that the command appends to.
    :param fine: exit codes beside 0 with which the unit counts as successful (1 of a check is a
        warning, 75 of the others means that another job was running).
    :param reports: exit codes beside 0 with which the job did its work, although it reports
        something critical.
    :param removes: whether the job deletes anything, so that a trial only rehearses that.
    :param calendar: default time, as ``OnCalendar=`` takes it. :param cron: the same for cron.
    :param command: arguments of mlfleet that do the work, empty for the name.
    """

    name: str
    unit: str
    description: str
    log: str
    fine: tuple[int, ...]
    reports: tuple[int, ...]
    removes: bool
    calendar: str
    cron: str
    command: tuple[str, ...] = ()


#: In the order in which a trial starts them: what later jobs need comes first.
JOBS: Registry[Job] = Registry(
    "job",
    [
        Job(
            "health",
            "ml-health-check",
            "Check the health of this ML node",
            "/var/log/ml-health-check.log",
            (1,),
            (2,),
            False,
            "*:2/15",
            "2-59/15 * * * *",
        ),
        Job(
            "gpu",
            "gpu-monitor",
            "Check the GPUs",
            "/var/log/gpu-monitor.log",
            (1,),
            (2,),
            False,
            "*:0/5",
            "*/5 * * * *",
        ),
        Job(
            "backup",
            "ml-backup",
            "Back up the ML models",
            "/var/log/ml-backup.log",
            (GAVE_WAY,),
            (),
            False,
            "*-*-* 02:00:00",
            "0 2 * * *",
        ),
        Job(
            "cleanup",
            "ml-cleanup",
            "Clean up old ML artifacts",
            "/var/log/ml-cleanup.log",
            (GAVE_WAY,),
            (),
            True,
            "Sun *-*-* 03:00:00",
            "0 3 * * 0",
        ),
        Job(
            "maintenance",
            "ml-maintenance",
            "Health, GPU check, backup and cleanup of this ML node",
            "/var/log/ml-maintenance.log",
            (GAVE_WAY,),
            (),
            True,
            "*-*-* 04:00:00",
            "0 4 * * *",
        ),
        Job(
            "restore_drill",
            "ml-restore-drill",
            "Rehearse the restore of a backup",
            "/var/log/ml-backup.log",
            (GAVE_WAY,),
            (),
            False,
            "*-*-01 05:00:00",
            "0 5 1 * *",
            ("restore", "--drill"),
        ),
    ],
    required=("unit", "description", "log", "calendar", "cron"),
)
