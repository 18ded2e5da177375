# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether this node can look after itself: the old pre-deployment checklist as checks.

Reads and rehearses; starts jobs only when asked to.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import stat
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from . import trial
from .environment import Environment
from .errors import CommandFailed, FleetError, LockBusy
from .jobs import JOBS
from .maintenance.options import MaintenanceOptions
from .ports import World
from .system import locks
from .system.text import human_count, human_size
from .verdict import CRITICAL, PASS, SKIPPED, UNKNOWN, WARNING, Check


def configuration(path: str, problems: Sequence[str]) -> list[Check]:
    """Check the configuration: usable, and not readable or writable by others (it may hold
    secrets).
    """
    found = [
        Check(
            "configuration", CRITICAL, f"Configuration: {problem}", subject=path, action="inspect"
        )
        for problem in problems
    ]
    if not problems:
        found = [Check("configuration", PASS, "Configuration can be used", subject=path)]
    try:
        mode = stat.S_IMODE(os.stat(path).st_mode)
    except FileNotFoundError:
        return [
            *found,
            Check(
                "configuration permissions",
                SKIPPED,
                f"There is no {path}: defaults are in force",
                subject=path,
            ),
        ]
    if mode & 0o027:
        text = f"{path} has mode {mode:04o}: it may hold secrets, make it 0640 or stricter"
        return [
            *found,
            Check(
                "configuration permissions",
                CRITICAL,
                text,
                subject=path,
                value=f"{mode:04o}",
                action="inspect",
            ),
        ]
    return [
        *found,
        Check(
            "configuration permissions",
            PASS,
            f"{path} has mode {mode:04o}",
            subject=path,
            value=f"{mode:04o}",
        ),
    ]


def environment_file(environment: Environment, unreadable: str = "") -> Check:
    """Check the file with the old scripts' variables: lines that are not understood set nothing.

    :param unreadable: why this user does not know what is in it.
    """
    path, label = environment.path, "environment file"
    if not path or not (environment.exists or unreadable):
        return Check(label, SKIPPED, f"There is no {path or 'file of variables'}", subject=path)
    lines = [unreadable] if unreadable else environment.lines()
    if lines:
        return Check(label, WARNING, "; ".join(lines), subject=path, action="inspect")
    text = f"{path} sets {human_count(len(environment.variables), 'variable')}"
    return Check(label, PASS, text, subject=path, value=len(environment.variables))


def job(
    name: str, work: Callable[[], Mapping[str, Any]], needed: bool = True
) -> tuple[Check, Mapping[str, Any]]:
    """Rehearse a job and check whether it can do its work; a critical verdict is still work done.

    :param needed: whether something starts it on this node.
    """
    try:
        result = work()
    except FleetError as error:
        status, note = (CRITICAL, "") if needed else (WARNING, " (nothing on this node starts it)")
        return (
            Check(
                f"job {name}",
                status,
                f"{name} can't run{note}: {error}",
                subject=name,
                action="inspect",
            ),
            {},
        )
    return Check(f"job {name}", PASS, f"{name} can run", subject=name), result


def space(destination: str, plan: Mapping[str, Any]) -> Check:
    """Check the free space for the next backup: at least the estimate or, without one, the size of
    the source.
    """
    needed = int(plan.get("estimated_size") or plan.get("bytes") or 0)
    folder = destination
    while not os.path.isdir(folder) and folder != "/":
        folder = os.path.dirname(folder)
    found = os.statvfs(folder)
    free = found.f_bavail * found.f_frsize
    status = PASS if free > 2 * needed else WARNING if free > needed else CRITICAL
    text = f"{human_size(free)} free for backups of about {human_size(needed)} in {destination}"
    return Check(
        "backup space",
        status,
        text,
        subject=destination,
        value=free,
        unit="B",
        warn=2 * needed,
        crit=needed,
    )


def logs(paths: Sequence[str]) -> list[Check]:
    """Check the log files: there, and not open to others."""
    found = []
    for path in sorted(set(paths)):
        try:
            mode = stat.S_IMODE(os.lstat(path).st_mode)
        except FileNotFoundError:
            folder = os.path.dirname(path)
            status = PASS if os.access(folder, os.W_OK) else WARNING
            found.append(
                Check(
                    "log file",
                    status,
                    f"{path} is not there yet"
                    + ("" if status == PASS else " and can't be made by this user"),
                    subject=path,
                )
            )
            continue
        status = WARNING if mode & 0o002 else PASS
        found.append(
            Check(
                "log file", status, f"{path} has mode {mode:04o}", subject=path, value=f"{mode:04o}"
            )
        )
    return found


def rotation(world: World) -> Check:
    """Check whether anything rotates the logs: ours, or a configuration of the same files under
    another name.
    """
    folder = "/etc/logrotate.d"
    for name in sorted(os.listdir(world.path(folder)) if os.path.isdir(world.path(folder)) else []):
        with (
            contextlib.suppress(OSError),
            open(
                os.path.join(world.path(folder), name), encoding="utf-8", errors="replace"
            ) as stream,
        ):
            if re.search(r"^[^#\n]*/var/log/ml-", stream.read(), re.MULTILINE):
                return Check("log rotation", PASS, f"The logs are rotated by {folder}/{name}")
    return Check(
        "log rotation",
        WARNING,
        f"Nothing rotates the logs: no file in {folder} names /var/log/ml-* (role log_rotation)",
        action="inspect",
    )


def check_schedule(found: trial.Schedule, world: World) -> Check:
    """Check whether anything runs the jobs: an active timer of ours, or the cron file and a cron
    that reads it.
    """
    if found.backend == "systemd":
        return Check(
            "schedule",
            PASS,
            "Active timers: " + ", ".join(trial.UNITS[job] + ".timer" for job in found.jobs),
            value=len(found.jobs),
        )
    if not found.jobs:
        return Check(
            "schedule",
            WARNING,
            "Nothing runs the jobs on this node: no active timer and no cron file",
            action="inspect",
        )
    if not _runs(world, ("cron", "crond")):
        booted = os.path.isdir(world.path("/run/systemd/system"))
        start = "systemctl enable --now cron" if booted else "service cron start"
        text = f"{trial.CRON} exists, but no cron daemon reads it: {start} (Red Hat: crond)"
        return Check("schedule", CRITICAL, text, action="inspect")
    return Check(
        "schedule",
        PASS,
        f"Scheduled by cron: {', '.join(found.jobs)} ({trial.CRON})",
        value=len(found.jobs),
    )


def _runs(world: World, names: Sequence[str]) -> bool:
    """Say whether a process of one of these names runs; where other users' processes are hidden, it
    is taken as given.
    """
    seen = set()
    for number in filter(str.isdigit, os.listdir(world.path("/proc"))):
        with (
            contextlib.suppress(OSError),
            open(world.path(f"/proc/{number}/comm"), encoding="utf-8", errors="replace") as stream,
        ):
            seen.add(stream.read().strip())
    return bool(seen & set(names)) or not os.path.exists(world.path("/proc/1/comm"))


def last_runs(world: World, but: Sequence[str] = ()) -> list[Check]:
    """Check how the jobs ended when their timers last started them: a unit may fail where the same
    job, started by hand, does not.

    :param but: jobs that were checked already.
    """
    found = []
    for name, unit in ((name, unit + ".service") for name, unit in trial.UNITS.items()):
        if name in but:
            continue
        try:
            how = trial.ended(unit, trial.state(world, unit))
            if how is None:
                continue
            how = trial.with_reason(world, name, how)
        except CommandFailed:
            return []
        if how.status == PASS:
            found.append(Check("last run", PASS, f"{unit} {how.text}", subject=unit))
            continue
        text = (
            f"{unit} {how.text.replace('failed', 'failed when it was last started', 1)}: journalctl"
            f" -u {unit}"
        )
        found.append(
            Check("last run", how.status, text, subject=unit, value=how.number, action="inspect")
        )
    return found


def trial_run(
    world: World, found: trial.Schedule, name: str, rehearse_cleanup: bool, obstacle: str = ""
) -> tuple[Check, trial.Ended | None]:
    """Start a job once as its timer or cron line does, and check how it ended.

    :param obstacle: why it is not tried.
    """
    what = (
        trial.UNITS[name] + ".service" if found.backend == "systemd" else f"{trial.RUNNER} {name}"
    )
    if name not in found.jobs:
        return (
            Check(
                "trial run",
                SKIPPED,
                f"{name} was not started: it is not scheduled on this node",
                subject=name,
            ),
            None,
        )
    if obstacle:
        return (
            Check("trial run", SKIPPED, f"{what} was not started: {obstacle}", subject=name),
            None,
        )
    try:
        how = trial.start(world, found, name, rehearse_cleanup)
    except FleetError as error:
        return (
            Check(
                "trial run",
                CRITICAL,
                f"{what} can't be started: {error}",
                subject=name,
                action="inspect",
            ),
            None,
        )
    rehearsed = (
        " (the cleanup only as a rehearsal)" if rehearse_cleanup and JOBS[name].removes else ""
    )
    text = f"{what}, started{rehearsed}, {how.text}" + (
        f": {how.last_line}" if how.last_line else ""
    )
    if how.status == PASS:
        return Check("trial run", PASS, text, subject=name), how
    more = f" (journalctl -u {what})" if found.backend == "systemd" else ""
    # Rehearsed by hand it can work, in its unit it does not: user, sandbox or limits. That another
    # run was in its way says nothing of that.
    busy = how.outcome is not None and how.outcome.error == LockBusy.code
    status = WARNING if busy else CRITICAL
    return (
        Check("trial run", status, text + more, subject=name, value=how.number, action="inspect"),
        how,
    )


def alerts(
    channels: Sequence[Mapping[str, Any]] | None, problem: str = "", tested: bool = False
) -> Check:
    """Check whether anybody would be told; C(tested): a test message was sent."""
    if problem:
        return Check("alerts", CRITICAL, f"Alerts can't be sent: {problem}", action="inspect")
    if not channels:
        return Check("alerts", WARNING, "Nobody is told: no alert channel is configured")
    names = ", ".join(str(channel["name"]) for channel in channels)
    if not tested:
        return Check("alerts", PASS, f"Alerts go to: {names}", value=len(channels))
    failed = [
        f"{channel['name']}: {channel.get('detail') or channel['status']}"
        for channel in channels
        if channel["status"] != "sent"
    ]
    if not failed:
        return Check("alerts", PASS, f"A test message went to: {names}", value=len(channels))
    status, who = (
        (CRITICAL, "Nobody can be told")
        if len(failed) == len(channels)
        else (WARNING, "Not everybody can be told")
    )
    return Check(
        "alerts",
        status,
        f"{who}: a test message could not be sent by {'; '.join(failed)}",
        value=len(channels) - len(failed),
        action="inspect",
    )


def proven(backups: Sequence[Mapping[str, Any]], destination: str) -> Check:
    """Check whether there is a verified backup to go back to."""
    good = [backup for backup in backups if backup.get("verified")]
    if good:
        return Check(
            "verified backup",
            PASS,
            f"{human_count(len(good), 'verified backup')} in {destination}",
            subject=destination,
            value=len(good),
        )
    unreadable = [backup["unreadable"] for backup in backups if backup.get("unreadable")]
    if unreadable:
        return Check(
            "verified backup",
            UNKNOWN,
            f"The backups in {destination} can't be checked: {unreadable[0]}",
            subject=destination,
        )
    return Check(
        "verified backup",
        WARNING,
        f"There is no verified backup in {destination} yet",
        subject=destination,
        value=0,
    )


class Request(NamedTuple):
    """What the doctor is asked to do beside looking.

    :param start: jobs to start; none of them named: all that are scheduled; None: start none.
    :param rehearse_cleanup: a cleanup that is started removes nothing.
    :param alert_test: send a test message over each channel. :param command: full path of mlfleet.
    """

    config_path: str
    start: tuple[str, ...] | None
    rehearse_cleanup: bool
    alert_test: bool
    command: str


class Node(Protocol):
    """What the doctor needs of the shell that calls it."""

    def problems(self) -> list[str]:
        """Return what is wrong with the configuration."""
        ...  # pylint: disable=unnecessary-ellipsis

    def environment(self) -> tuple[Environment, str]:
        """Return the file with the old scripts' variables, and why it can't be read."""
        ...  # pylint: disable=unnecessary-ellipsis

    def maintenance_options(self) -> MaintenanceOptions:
        """Return which phases a maintenance runs."""
        ...  # pylint: disable=unnecessary-ellipsis

    def rehearse(self, job: str) -> Mapping[str, Any]:
        """Rehearse a job and return its result. :raises FleetError: it can't do its work."""
        ...  # pylint: disable=unnecessary-ellipsis

    def starting(self, job: str) -> None:
        """Tell the person who waits that a job is started."""
        ...  # pylint: disable=unnecessary-ellipsis

    def backup_directory(self) -> str:
        """Return the configured directory of the backups."""
        ...  # pylint: disable=unnecessary-ellipsis

    def backups(self, directory: str) -> list[dict[str, Any]]:
        """Return the backups in a directory."""
        ...  # pylint: disable=unnecessary-ellipsis

    def channels(self, send: bool) -> list[dict[str, Any]]:
        """Return the alert channels that a test message goes to; ``send`` it."""
        ...  # pylint: disable=unnecessary-ellipsis


#: Jobs that are rehearsed; maintenance consists of them.
_REHEARSED = ("health", "gpu", "backup", "cleanup")


class _Examination:
    """The doctor's work in its order; ``checks`` grows with each step."""

    def __init__(
        self, request: Request, schedule: trial.Schedule, world: World, node: Node
    ) -> None:
        self.request, self.schedule, self.world, self.node = request, schedule, world, node
        self.checks: list[Check] = []
        self.wanted = set(schedule.jobs) or set(trial.UNITS)
        self.obstacles: dict[str, str] = {}
        self.destination = ""
        self.changed = False

    def rehearse(self) -> None:
        """Check the configuration, and what each job would do."""
        self.checks += configuration(self.request.config_path, self.node.problems())
        self.checks.append(environment_file(*self.node.environment()))
        with contextlib.suppress(FleetError):  # reported by the check before
            options = self.node.maintenance_options()
            if "maintenance" in self.wanted:
                self.wanted |= {name for name in _REHEARSED if getattr(options, f"run_{name}")}
        for name in _REHEARSED:
            work = functools.partial(self.node.rehearse, name)
            check, result = job(name, work, name in self.wanted)
            self.checks.append(check)
            if check.status != PASS:
                self.obstacles[name] = f"{name} can't run"
            elif name == "backup":
                self.destination = self.node.backup_directory()
                self.checks.append(space(self.destination, result["plan"]))
                if self.checks[-1].status == CRITICAL:
                    self.obstacles[name] = "there is not enough space for a backup"

    def start_jobs(self) -> list[str]:
        """Start the jobs that were asked for; return their names."""
        if self.request.start is None:
            return []
        started = sorted(set(self.request.start or self.schedule.jobs), key=JOBS.names.index)
        if not started:
            return []
        path = os.path.join(locks.lock_directory(), "trial.lock")
        # Two at once would remove each other's drop-ins, and a rehearsal would become a cleanup.
        with locks.lock(path, "trial run of mlfleet"):
            for name in started:
                self._start(name)
        return started

    def _start(self, name: str) -> None:
        needs = [name]
        if name == "maintenance":
            needs = [phase for phase in _REHEARSED if phase in self.wanted]
        obstacle = "; ".join(self.obstacles[need] for need in needs if need in self.obstacles)
        rehearse = self.request.rehearse_cleanup
        self.node.starting(name)
        check, how = trial_run(self.world, self.schedule, name, rehearse, obstacle)
        self.checks.append(check)
        if how is not None and JOBS[name].removes and not rehearse:
            self.changed |= how.outcome is None or how.outcome.freed_bytes > 0

    def backups(self) -> list[dict[str, Any]]:
        """Return the backups that are there now."""
        if not self.destination or not os.path.isdir(self.destination):
            return []
        return self.node.backups(self.destination)

    def alerts(self) -> Check:
        """Check the alert channels; send a test message where that is asked for."""
        try:
            channels: list[dict[str, Any]] | None = self.node.channels(send=False)
            if channels and self.request.alert_test:
                channels = None
                if not os.geteuid():
                    channels = trial.alert_test(self.world, self.schedule, self.request.command)
                if channels is None:
                    channels = self.node.channels(send=True)
        except FleetError as error:
            return alerts(None, str(error))
        return alerts(channels, tested=self.request.alert_test)


def examine(
    request: Request, schedule: trial.Schedule, world: World, node: Node, log_files: Sequence[str]
) -> tuple[list[Check], bool]:
    """Check the node; return the checks, and whether a job that was started changed anything."""
    examination = _Examination(request, schedule, world, node)
    examination.rehearse()
    before = [backup["path"] for backup in examination.backups()]
    started = examination.start_jobs()
    checks = examination.checks
    if examination.destination and os.path.isdir(examination.destination):
        backups = examination.backups()
        checks.append(proven(backups, examination.destination))
        examination.changed |= before != [backup["path"] for backup in backups]
    checks += logs(log_files)
    checks += [rotation(world), check_schedule(schedule, world)]
    checks += last_runs(world, [name for name in started if name in schedule.jobs])
    checks.append(examination.alerts())
    return checks, examination.changed
