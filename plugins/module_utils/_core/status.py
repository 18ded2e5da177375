# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a node is doing by itself: its jobs with their last and next runs, backups, open problems,
muted alerts.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from . import last, trial
from .errors import CommandFailed, FleetError
from .jobs import JOBS, Job
from .outcome import GAVE_WAY
from .ports import World
from .records import NamedTuple
from .verdict import CRITICAL, PASS, SKIPPED, UNKNOWN, WARNING

_PROPERTIES = (
    "Id,LoadState,ActiveState,Result,ExecMainStatus,ExecMainStartTimestamp,"
    "ExecMainExitTimestamp,NextElapseUSecRealtime"
)
_DATE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")
#: Verdicts of the exit codes of a check.
_CHECK = {0: PASS, 1: WARNING, 2: CRITICAL}
_MINUTES_A_DAY = 24 * 60
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_SHORTHANDS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


class JobStatus(NamedTuple):
    """A job of the node; times are seconds since the epoch, None when there is or is known none.

    :param verdict: status of the last run; ``skipped`` when it never ran. :param result: the same
        as text.
    """

    name: str
    scheduled: bool
    running: bool
    last_run: float | None
    verdict: str
    result: str
    next_run: float | None


class Problem(NamedTuple):
    """A problem that the checks found and that has not ended.

    :param muted_until: time until which it is not reported again, 0 when it is not muted.
    """

    check: str
    subject: str
    severity: str
    since: float
    sent_at: float
    muted_until: float


class Alerts(NamedTuple):
    """What is known of this node's alerts.

    :param unknown: why nothing is known. :param undelivered: number of messages in queues.
    """

    problems: tuple[Problem, ...] = ()
    undelivered: int = 0
    unknown: str = ""


def jobs(world: World) -> tuple[str, list[JobStatus]]:
    """Return what starts the jobs (``systemd``, ``cron``, ``none``) and the state of each job."""
    schedule = trial.scheduled(world)
    if schedule.backend == "cron":
        lines = _cron_lines(world)
        return "cron", [_of_cron(job, lines.get(job.name), world) for job in JOBS]
    units = _units(world)
    return schedule.backend, [_of_systemd(job, units, job.name in schedule.jobs) for job in JOBS]


# --- systemd


def _units(world: World) -> dict[str, dict[str, str]]:
    names = [f"{job.unit}.{kind}" for job in JOBS for kind in ("service", "timer")]
    try:
        output = world.run(["systemctl", "show", f"--property={_PROPERTIES}", *names], timeout=10)
    except CommandFailed:
        return {}
    units = {}
    for block in output.stdout.split("\n\n"):
        fields = dict(line.partition("=")[::2] for line in block.splitlines())
        units[fields.get("Id", "")] = fields
    return units


def _of_systemd(job: Job, units: Mapping[str, Mapping[str, str]], scheduled: bool) -> JobStatus:
    service = units.get(f"{job.unit}.service", {})
    timer = units.get(f"{job.unit}.timer", {})
    last = _time(service.get("ExecMainExitTimestamp", "")) or _time(
        service.get("ExecMainStartTimestamp", "")
    )
    verdict, result = _verdict(job, service, last)
    running = service.get("ActiveState") in ("activating", "active")
    following = _time(timer.get("NextElapseUSecRealtime", "")) if scheduled else None
    return JobStatus(job.name, scheduled, running, last, verdict, result, following)


def _verdict(job: Job, service: Mapping[str, str], last: float | None) -> tuple[str, str]:
    number, result = int(service.get("ExecMainStatus") or 0), service.get("Result", "")
    if service.get("LoadState") != "loaded" or (last is None and result in ("", "success")):
        return SKIPPED, "never"
    if result not in ("success", "exit-code") or number >= 200:
        return CRITICAL, f"failed ({result}, status {number})"
    return _of_number(job, number)


def _of_number(job: Job, number: int, message: str = "") -> tuple[str, str]:
    """Return verdict and result of a job by its exit code.

    :param message: of the error that ended it.
    """
    if job.reports and number in _CHECK:
        return _CHECK[number], {PASS: "OK"}.get(_CHECK[number], _CHECK[number])
    if number == GAVE_WAY:
        return WARNING, "gave way to another job"
    if number == 0:
        return (PASS, "OK")
    return (CRITICAL, message or f"failed (status {number})")


def _time(text: str) -> float | None:
    """Return the time that systemctl shows, in seconds since the epoch."""
    date = _DATE.search(text)
    if date is None:
        return None
    with contextlib.suppress(ValueError, OverflowError):
        if text.endswith("UTC"):
            import calendar

            return float(calendar.timegm(time.strptime(date[0], "%Y-%m-%d %H:%M:%S")))
        return time.mktime(time.strptime(date[0], "%Y-%m-%d %H:%M:%S"))
    return None


# --- cron


def _cron_lines(world: World) -> dict[str, str]:
    """Return the times of the jobs in the cron file of the schedule role."""
    with (
        contextlib.suppress(OSError),
        open(world.path(trial.CRON), encoding="utf-8", errors="replace") as stream,
    ):
        pattern = (
            rf"^(@\w+|\S+(?:[ \t]+\S+){{4}})[ \t]+\S+[ \t]+{re.escape(trial.RUNNER)}[ \t]+(\w+)["
            r" \t]*$"
        )
        return {job: line for line, job in re.findall(pattern, stream.read(), re.MULTILINE)}
    return {}


def _of_cron(job: Job, line: str | None, world: World) -> JobStatus:
    ended, verdict, result = _kept(job, world) or _logged(job, world)
    following = next_time(line, world.clock.now()) if line else None
    return JobStatus(job.name, line is not None, False, ended, verdict, result, following)


def _kept(job: Job, world: World) -> tuple[float, str, str] | None:
    """Return when and how a scheduled run of a job ended, None where that is not known."""
    try:
        kept = last.read(last.job_phase(job.name), world.state("last"))
    except FleetError:
        return None
    if kept is None:
        return None
    number, message = kept.result.get("exit_code"), str(kept.result.get("message") or "")
    if not isinstance(number, int):
        return None
    return (kept.time, *_of_number(job, number, message))


def _logged(job: Job, world: World) -> tuple[float | None, str, str]:
    """Return the same from the log, for runs of earlier versions.

    A log of several jobs says nothing about the later ones.
    """
    path = world.path(job.log)
    if next(other for other in JOBS if other.log == job.log) is not job:
        return None, SKIPPED, "never"
    try:
        if os.path.getsize(path):
            return (os.path.getmtime(path), *_last_line(path))
    except PermissionError:
        return None, UNKNOWN, "can't be read by this user"
    except OSError:
        pass
    return None, SKIPPED, "never"


def _last_line(path: str) -> tuple[str, str]:
    """Return the level and the text of the last line of a log as verdict and result."""
    with open(path, "rb") as stream:
        stream.seek(max(0, os.path.getsize(path) - 4096))
        line = stream.read().decode("utf-8", "replace").rstrip().rpartition("\n")[2]
    levels = {"INFO": PASS, "WARNING": WARNING, "ERROR": CRITICAL, "CRITICAL": CRITICAL}
    fields = re.match(r"\S+ \S+ \[(\w+)\] (.*)", line)
    if fields is None:
        return UNKNOWN, "unknown"
    return levels.get(fields[1], UNKNOWN), fields[2]


def next_time(line: str, now: float) -> float | None:
    """Return when cron comes to a line next, in seconds since the epoch; None for never and for
    what is no time.
    """
    fields = _SHORTHANDS.get(line.lower(), line).split()
    if len(fields) != 5:
        return None
    try:
        minutes, hours = _values(fields[0], 0, 59), _values(fields[1], 0, 23)
        days = _values(fields[2], 1, 31)
        months = _values(fields[3], 1, 12, _MONTHS, 1)
        weekdays = {day % 7 for day in _values(fields[4], 0, 7, _WEEKDAYS)}
    except ValueError:
        return None
    # Where both are restricted, cron takes a day that matches either.
    either = fields[2][:1] != "*" and fields[4][:1] != "*"
    start = time.localtime(now)
    for offset in range(366 * 5):
        noon = time.localtime(
            time.mktime((start.tm_year, start.tm_mon, start.tm_mday + offset, 12, 0, 0, 0, 0, -1))
        )
        by_date, by_weekday = noon.tm_mday in days, (noon.tm_wday + 1) % 7 in weekdays
        if noon.tm_mon not in months or not (
            (by_date or by_weekday) if either else (by_date and by_weekday)
        ):
            continue
        for hour in sorted(hours):
            for minute in sorted(minutes):
                moment = (noon.tm_year, noon.tm_mon, noon.tm_mday, hour, minute, 0, 0, 0, -1)
                if time.mktime(moment) > now:
                    return time.mktime(moment)
    return None


def _values(field: str, low: int, high: int, names: Sequence[str] = (), first: int = 0) -> set[int]:
    """Return the numbers that a field of cron stands for. :raises ValueError: it is none."""
    values: set[int] = set()
    numbers = {name: number for number, name in enumerate(names, first)}
    for item in field.lower().split(","):
        span, dummy, step = item.partition("/")
        begin, dummy, end = span.partition("-")
        if span == "*":
            begin, end = str(low), str(high)
        lower = int(numbers.get(begin, begin))
        upper = high if step else lower
        if end:
            upper = int(numbers.get(end, end))
        values |= set(range(lower, upper + 1, int(step or 1)))
    return values


# --- alerts


def alerts(directory: str | None, cooldown: float, world: World) -> Alerts:
    """Return the open problems that the alert state knows of.

    :param directory: the state directory, None for the default. :param cooldown: as of the alert
        options.
    """
    from .alert import store

    path = directory or store.default_directory(world)
    of_node = world.state(store.NODE)
    if directory is None and path != of_node and not _is_missing(of_node):
        return Alerts(unknown=f"{of_node} can't be read by this user")
    state = store.Store(path, world)
    try:
        os.stat(state.path)
    except FileNotFoundError:
        return Alerts()
    except OSError as error:
        return Alerts(unknown=f"{path} can't be read: {error.strerror}")
    if not os.access(state.path, os.R_OK):
        return Alerts(unknown=f"{state.path} can't be read by this user")
    try:
        memory = state.load(repair=False)
    except FleetError as error:
        return Alerts(unknown=str(error))
    now = world.clock.now()
    problems = []
    for entry in memory.entries.values():
        if not entry.bad:
            continue
        until = entry.sent_at + cooldown
        severity = entry.sent
        if severity == PASS and entry.opinions:
            severity = max((item.severity for item in entry.opinions.values()), key=_rank)
        muted = 0.0
        if entry.open and until > now:
            muted = until
        problems.append(
            Problem(entry.check, entry.subject, severity, entry.since, entry.sent_at, muted)
        )
    problems.sort(key=lambda problem: (-_rank(problem.severity), problem.since))
    undelivered = sum(len(queue) for queue in memory.pending.values())
    return Alerts(tuple(problems), undelivered)


def _is_missing(path: str) -> bool:
    """Return whether a path is known not to exist; what this user may not look at may be there."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _rank(severity: str) -> int:
    return (PASS, SKIPPED, UNKNOWN, WARNING, CRITICAL).index(severity)


def newest_verified(backups: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the newest verified backup of a listing, which is ordered newest first."""
    return next((backup for backup in backups if backup.get("verified")), None)


def overall(states: Sequence[JobStatus], known: Alerts, backup_needed: bool, backup: object) -> str:
    """Return the worst of a node: a job that failed, an open problem, a missing backup."""
    statuses = [state.verdict for state in states if state.scheduled]
    statuses += [problem.severity for problem in known.problems]
    if backup_needed and backup is None:
        statuses.append(WARNING)
    if known.undelivered or not any(state.scheduled for state in states):
        statuses.append(WARNING)
    worst = max((status for status in statuses if status != SKIPPED), key=_rank, default=PASS)
    if worst == UNKNOWN:
        return WARNING
    return worst
