# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a run of the node command ended: its exit code, and the same in a form that other programs
read.

Exit codes: 0 all well, 1 warning (backup, cleanup, maintenance: failed), 2 critical (a backup is
damaged), 3 could not run, 75 a scheduled job gave way to another job that held the lock for too
long.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .errors import FleetError, LockBusy, MissingLibrary, OptionError, VerificationFailed
from .records import NamedTuple

OK, FAILED, BAD_BACKUP, NOT_RUN = 0, 1, 2, 3
#: A scheduled job gave way to another one: a warning, no failure (EX_TEMPFAIL of sysexits.h).
GAVE_WAY = 75
#: Set by what starts jobs without systemd: the run is a scheduled one.
SCHEDULED = "MLFLEET_SCHEDULED"
#: Seconds that a scheduled job waits for another one, unless --wait says otherwise.
PATIENCE = 3600.0

#: Jobs whose own failure is 1, so that 3 is left for a job that could not even begin.
_WORKERS = frozenset({"backup", "restore", "cleanup"})
#: Asks the command to print its Outcome as the last line on standard error; set by a trial run.
REPORT_OUTCOME = "MLFLEET_REPORT_OUTCOME"
_MARK = "mlfleet-outcome: "


def exit_code(command: str, error: FleetError, scheduled: bool = False) -> int:
    """Return the exit code of a command that ended with an error; ``scheduled``: a timer or cron
    started it.
    """
    if scheduled and isinstance(error, LockBusy):
        return GAVE_WAY
    if isinstance(error, VerificationFailed):
        return BAD_BACKUP
    could_not_begin = isinstance(error, (OptionError, MissingLibrary, LockBusy))
    if command in _WORKERS and not could_not_begin:
        return FAILED
    return NOT_RUN


def of_backups(backups: Sequence[Mapping[str, Any]]) -> int:
    """Return the exit code for backups that were verified: a damaged one is bad, and so is none at
    all.

    Where the others are good, a backup that could not be read for lack of permission is no verdict
    about it.
    """
    bad = [backup for backup in backups if not backup.get("verified")]
    if not backups or any(not backup.get("unreadable") for backup in bad):
        return BAD_BACKUP
    if bad:
        return NOT_RUN
    return OK


def backup_state(backup: Mapping[str, Any]) -> tuple[str, str]:
    """Return what a verified backup turned out to be, and the level of the log line about it."""
    if backup.get("unreadable"):
        return f"could not be checked: {backup['unreadable']}", "ERROR"
    if backup.get("verified"):
        return "verified", "INFO"
    problems = "; ".join(backup.get("problems") or []) or "not verified"
    return f"DAMAGED: {problems}", "CRITICAL"


def of_channels(channels: Iterable[Mapping[str, Any]]) -> int:
    """Return the exit code after alerts were sent: FAILED when a channel did not deliver."""
    if any(channel["status"] in ("failed", "queued") for channel in channels):
        return FAILED
    return OK


class Outcome(NamedTuple):
    """What a trial run has to know about a job.

    :param status: the verdict of a job that has one, else empty.
    :param failed_phases: phases of a maintenance that could not do their work.
    :param freed_bytes: what was removed. :param error: code or type of the error that ended the
        job, or empty.
    """

    status: str = ""
    failed_phases: tuple[str, ...] = ()
    freed_bytes: int = 0
    error: str = ""

    def line(self) -> str:
        """Return the outcome as the line that ``read`` understands."""
        return _MARK + json.dumps(self._asdict())


def of_error(error: FleetError) -> Outcome:
    """Return the outcome of a job that an error ended."""
    return Outcome(error=error.code or type(error).__name__)


def read(text: str) -> tuple[Outcome | None, str]:
    """Return the last outcome among the lines a job printed, None without one; and the text without
    such lines.
    """
    outcome, lines = None, []
    for line in text.splitlines(keepends=True):
        if not line.startswith(_MARK):
            lines.append(line)
            continue
        try:
            fields = json.loads(line[len(_MARK) :])
            outcome = Outcome(
                str(fields["status"]),
                tuple(map(str, fields["failed_phases"])),
                int(fields["freed_bytes"]),
                str(fields["error"]),
            )
        except (ValueError, TypeError, KeyError):
            continue
    return outcome, "".join(lines)
