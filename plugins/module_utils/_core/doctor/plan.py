# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which jobs are started, and what is reported about what was read. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .. import trial
from ..environment import Environment
from ..errors import LockBusy
from ..jobs import JOBS
from ..system.text import human_count, human_size
from ..verdict import CRITICAL, PASS, SKIPPED, UNKNOWN, WARNING, Check
from .facts import REHEARSED, ROTATION, Configuration, Cron, Facts, LastRun, LogFile, Space
from .options import Request


class Start(NamedTuple):
    """A job to start.

    :param scheduled: its timer or cron line is there; otherwise it is not started.
    :param obstacle: why it is not started, empty when it is.
    """

    name: str
    scheduled: bool = True
    obstacle: str = ""


class Plan(NamedTuple):
    """What is reported before a job is started, and which jobs are started, in their order."""

    checks: tuple[Check, ...]
    starts: tuple[Start, ...]


class Started(NamedTuple):
    """What became of a start. :param error: why it could not even be asked for."""

    start: Start
    ended: trial.Ended | None = None
    error: str = ""


class Alerts(NamedTuple):
    """The alert channels.

    :param error: why they can't be used.
    :param tested: a test message was sent.
    """

    channels: tuple[Mapping[str, Any], ...] = ()
    error: str = ""
    tested: bool = False


def decide(request: Request, facts: Facts) -> Plan:
    """Evaluate the configuration and the rehearsals, and say which jobs are started."""
    needed = set(facts.schedule.jobs) or set(trial.UNITS)
    if "maintenance" in needed:
        needed |= set(facts.phases)
    checks = configuration(facts.configuration)
    checks.append(environment_file(facts.environment, facts.unreadable))
    obstacles: dict[str, str] = {}
    for rehearsal in facts.rehearsals:
        checks.append(job(rehearsal.name, rehearsal.error, rehearsal.name in needed))
        if rehearsal.error:
            obstacles[rehearsal.name] = f"{rehearsal.name} can't run"
        elif rehearsal.name == "backup" and facts.space is not None:
            checks.append(space(facts.space))
            if checks[-1].status == CRITICAL:
                obstacles[rehearsal.name] = "there is not enough space for a backup"
    starts = _starts(request.start, facts.schedule, needed, obstacles)
    return Plan(tuple(checks), starts)


def _starts(
    named: tuple[str, ...] | None,
    schedule: trial.Schedule,
    needed: set[str],
    obstacles: Mapping[str, str],
) -> tuple[Start, ...]:
    if named is None:
        return ()
    starts = []
    for name in sorted(set(named or schedule.jobs), key=JOBS.names.index):
        phases = [name]
        if name == "maintenance":
            phases = [phase for phase in REHEARSED if phase in needed]
        obstacle = "; ".join(obstacles[phase] for phase in phases if phase in obstacles)
        starts.append(Start(name, name in schedule.jobs, obstacle))
    return tuple(starts)


def configuration(facts: Configuration) -> list[Check]:
    """Check the configuration: usable, and closed to others (it may hold secrets)."""
    path, label = facts.path, "configuration"
    checks = [
        Check(label, CRITICAL, f"Configuration: {problem}", subject=path, action="inspect")
        for problem in facts.problems
    ]
    if not checks:
        checks = [Check(label, PASS, "Configuration can be used", subject=path)]
    label = "configuration permissions"
    if facts.mode is None:
        text = f"There is no {path}: defaults are in force"
        return [*checks, Check(label, SKIPPED, text, subject=path)]
    text, value = f"{path} has mode {facts.mode:04o}", f"{facts.mode:04o}"
    if facts.mode & 0o027:
        text += ": it may hold secrets, make it 0640 or stricter"
        action = "inspect"
        return [*checks, Check(label, CRITICAL, text, subject=path, value=value, action=action)]
    return [*checks, Check(label, PASS, text, subject=path, value=value)]


def environment_file(environment: Environment, unreadable: str = "") -> Check:
    """Check the file with the old scripts' variables: lines that are not understood set nothing."""
    path, label = environment.path, "environment file"
    if not path or not (environment.exists or unreadable):
        return Check(label, SKIPPED, f"There is no {path or 'file of variables'}", subject=path)
    lines = [unreadable] if unreadable else environment.lines()
    if lines:
        return Check(label, WARNING, "; ".join(lines), subject=path, action="inspect")
    text = f"{path} sets {human_count(len(environment.variables), 'variable')}"
    return Check(label, PASS, text, subject=path, value=len(environment.variables))


def job(name: str, error: str, needed: bool) -> Check:
    """Check whether a job can do its work. :param needed: something starts it on this node."""
    label = f"job {name}"
    if not error:
        return Check(label, PASS, f"{name} can run", subject=name)
    if needed:
        text = f"{name} can't run: {error}"
        return Check(label, CRITICAL, text, subject=name, action="inspect")
    text = f"{name} can't run (nothing on this node starts it): {error}"
    return Check(label, WARNING, text, subject=name, action="inspect")


def space(facts: Space) -> Check:
    """Check the free space for the next backup."""
    free, needed = facts.free, facts.needed
    status = CRITICAL
    if free > 2 * needed:
        status = PASS
    elif free > needed:
        status = WARNING
    return Check(
        "backup space",
        status,
        f"{human_size(free)} free for backups of about {human_size(needed)} in {facts.destination}",
        subject=facts.destination,
        value=free,
        unit="B",
        warn=2 * needed,
        crit=needed,
    )


def log_file(facts: LogFile) -> Check:
    """Check a log file: there, and not open to others."""
    label, path = "log file", facts.path
    if facts.mode is None:
        if facts.can_be_made:
            return Check(label, PASS, f"{path} is not there yet", subject=path)
        text = f"{path} is not there yet and can't be made by this user"
        return Check(label, WARNING, text, subject=path)
    status = WARNING if facts.mode & 0o002 else PASS
    value = f"{facts.mode:04o}"
    return Check(label, status, f"{path} has mode {value}", subject=path, value=value)


def rotation(path: str) -> Check:
    """Check whether anything rotates the logs. :param path: the file that does, or empty."""
    label = "log rotation"
    if path:
        return Check(label, PASS, f"The logs are rotated by {path}")
    text = f"Nothing rotates the logs: no file in {ROTATION} names /var/log/ml-*"
    return Check(label, WARNING, f"{text} (role log_rotation)", action="inspect")


def schedule(facts: trial.Schedule, cron: Cron) -> Check:
    """Check whether anything runs the jobs.

    That is an active timer of ours, or the cron file and a cron daemon that reads it.
    """
    label = "schedule"
    if facts.backend == "systemd":
        timers = ", ".join(f"{trial.UNITS[name]}.timer" for name in facts.jobs)
        return Check(label, PASS, f"Active timers: {timers}", value=len(facts.jobs))
    if not facts.jobs:
        text = "Nothing runs the jobs on this node: no active timer and no cron file"
        return Check(label, WARNING, text, action="inspect")
    if not cron.runs:
        start = "service cron start"
        if cron.by_systemd:
            start = "systemctl enable --now cron"
        text = f"{trial.CRON} exists, but no cron daemon reads it: {start} (Red Hat: crond)"
        return Check(label, CRITICAL, text, action="inspect")
    text = f"Scheduled by cron: {', '.join(facts.jobs)} ({trial.CRON})"
    return Check(label, PASS, text, value=len(facts.jobs))


def last_run(facts: LastRun) -> Check:
    """Check how a job ended when its timer last started it."""
    label, unit, ended = "last run", facts.unit, facts.ended
    if ended.status == PASS:
        return Check(label, PASS, f"{unit} {ended.text}", subject=unit)
    how = ended.text.replace("failed", "failed when it was last started", 1)
    text = f"{unit} {how}: journalctl -u {unit}"
    return Check(label, ended.status, text, subject=unit, value=ended.number, action="inspect")


def trial_run(backend: str, started: Started, rehearse_cleanup: bool) -> Check:
    """Check how a job that was started for this report ended."""
    label, (name, scheduled, obstacle) = "trial run", started.start
    unit = trial.UNITS[name] + ".service" if backend == "systemd" else f"{trial.RUNNER} {name}"
    if not scheduled:
        text = f"{name} was not started: it is not scheduled on this node"
        return Check(label, SKIPPED, text, subject=name)
    if obstacle:
        return Check(label, SKIPPED, f"{unit} was not started: {obstacle}", subject=name)
    ended = started.ended
    if ended is None:
        text = f"{unit} can't be started: {started.error}"
        return Check(label, CRITICAL, text, subject=name, action="inspect")
    text = f"{unit}, started"
    if rehearse_cleanup and JOBS[name].removes:
        text += " (the cleanup only as a rehearsal)"
    text += f", {ended.text}"
    if ended.last_line:
        text += f": {ended.last_line}"
    if ended.status == PASS:
        return Check(label, PASS, text, subject=name)
    if backend == "systemd":
        text += f" (journalctl -u {unit})"
    # Rehearsed by hand it can work, in its unit it does not: user, sandbox or limits. That another
    # run was in its way says nothing of that.
    busy = ended.outcome is not None and ended.outcome.error == LockBusy.code
    status = WARNING if busy else CRITICAL
    return Check(label, status, text, subject=name, value=ended.number, action="inspect")


def alerts(facts: Alerts) -> Check:
    """Check whether anybody would be notified."""
    label, channels = "alerts", facts.channels
    if facts.error:
        return Check(label, CRITICAL, f"Alerts can't be sent: {facts.error}", action="inspect")
    if not channels:
        return Check(label, WARNING, "Nobody is notified: no alert channel is configured")
    names = ", ".join(str(channel["name"]) for channel in channels)
    fine = "would_send"
    if facts.tested:
        fine = "sent"
    failed = [
        f"{channel['name']}: {channel.get('detail') or channel['status']}"
        for channel in channels
        if channel["status"] != fine
    ]
    if not failed and not facts.tested:
        return Check(label, PASS, f"Alerts go to: {names}", value=len(channels))
    if not failed:
        return Check(label, PASS, f"A test message went to: {names}", value=len(channels))
    status, which = WARNING, "Some alert channels do not work"
    if len(failed) == len(channels):
        status, which = CRITICAL, "No alert channel works"
    text = f"{which}: a test message could not be sent by {'; '.join(failed)}"
    return Check(label, status, text, value=len(channels) - len(failed), action="inspect")


def proven(backups: Sequence[Mapping[str, Any]], destination: str) -> Check:
    """Check whether there is a verified backup to go back to."""
    label = "verified backup"
    good = [backup for backup in backups if backup.get("verified")]
    if good:
        text = f"{human_count(len(good), 'verified backup')} in {destination}"
        return Check(label, PASS, text, subject=destination, value=len(good))
    unreadable = [backup["unreadable"] for backup in backups if backup.get("unreadable")]
    if unreadable:
        text = f"The backups in {destination} can't be checked: {unreadable[0]}"
        return Check(label, UNKNOWN, text, subject=destination)
    text = f"There is no verified backup in {destination} yet"
    return Check(label, WARNING, text, subject=destination, value=0)
