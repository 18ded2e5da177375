# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the doctor reads: configuration, rehearsals of the jobs, logs, schedule, last runs."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from .. import trial
from ..environment import Environment
from ..errors import CommandFailed, FleetError
from ..maintenance.options import MaintenanceOptions
from ..ports import World
from .options import Request

#: Jobs that are rehearsed; maintenance consists of them.
REHEARSED = ("health", "gpu", "backup", "cleanup")
ROTATION = "/etc/logrotate.d"
#: A backup as the shell lists it.
BackupData = Mapping[str, Any]


class Node(Protocol):
    """What the doctor needs of the shell that calls it."""

    def problems(self) -> list[str]:
        """Return what is wrong with the configuration."""
        ...  # pylint: disable=unnecessary-ellipsis

    def environment(self) -> tuple[Environment, str]:
        """Return the file with the old scripts' variables, and why it can't be read."""
        ...  # pylint: disable=unnecessary-ellipsis

    def maintenance_options(self) -> MaintenanceOptions:
        """Return which phases a maintenance runs. :raises FleetError: they can't be read."""
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


class Rehearsal(NamedTuple):
    """The rehearsal of a job.

    :param error: why it can't do its work, empty when it can; a critical verdict is still work.
    """

    name: str
    error: str = ""


class Space(NamedTuple):
    """Free and needed bytes for the next backup."""

    destination: str
    free: int
    needed: int


class Configuration(NamedTuple):
    """The configuration file; ``mode`` is None where there is no file."""

    path: str
    problems: tuple[str, ...]
    mode: int | None


class LogFile(NamedTuple):
    """A log file.

    :param mode: None where it is not there.
    :param can_be_made: this user may make it.
    """

    path: str
    mode: int | None
    can_be_made: bool = True


class Cron(NamedTuple):
    """Whether a cron daemon runs, and whether systemd starts it."""

    runs: bool
    by_systemd: bool


class LastRun(NamedTuple):
    """How a job ended when its timer last started it."""

    unit: str
    ended: trial.Ended


class Facts(NamedTuple):
    """What is known before a job is started.

    :param unreadable: why this user does not know what is in the file of variables.
    :param phases: the phases of maintenance that are switched on.
    :param space: None where a backup can't be made.
    """

    schedule: trial.Schedule
    configuration: Configuration
    environment: Environment
    unreadable: str
    phases: tuple[str, ...]
    rehearsals: tuple[Rehearsal, ...]
    space: Space | None


class Aftermath(NamedTuple):
    """What is read after jobs were started.

    :param backups: None where the directory of the backups is unknown or not there.
    :param rotation: path of the file that has the logs rotated, empty when there is none.
    """

    backups: tuple[BackupData, ...] | None
    logs: tuple[LogFile, ...]
    rotation: str
    cron: Cron
    last_runs: tuple[LastRun, ...]


def observe(request: Request, schedule: trial.Schedule, node: Node) -> Facts:
    """Read the configuration, and rehearse each job."""
    environment, unreadable = node.environment()
    phases: tuple[str, ...] = ()
    configuration = _configuration(request.config_path, node)
    with contextlib.suppress(FleetError):  # reported as a problem of the configuration
        options = node.maintenance_options()
        phases = tuple(name for name in REHEARSED if getattr(options, f"run_{name}"))
    rehearsals, space = [], None
    for name in REHEARSED:
        try:
            result = node.rehearse(name)
        except FleetError as error:
            rehearsals.append(Rehearsal(name, str(error)))
            continue
        rehearsals.append(Rehearsal(name))
        if name == "backup":
            space = _space(node.backup_directory(), result["plan"])
    return Facts(schedule, configuration, environment, unreadable, phases, tuple(rehearsals), space)


def _configuration(path: str, node: Node) -> Configuration:
    problems = tuple(node.problems())
    try:
        return Configuration(path, problems, stat.S_IMODE(os.stat(path).st_mode))
    except FileNotFoundError:
        return Configuration(path, problems, None)


def _space(destination: str, plan: Mapping[str, Any]) -> Space:
    """Read the free space; needed is the estimate or, without one, the size of the source."""
    directory = destination
    while not os.path.isdir(directory) and directory != "/":
        directory = os.path.dirname(directory)
    status = os.statvfs(directory)
    needed = int(plan.get("estimated_size") or plan.get("bytes") or 0)
    return Space(destination, status.f_bavail * status.f_frsize, needed)


def backups(facts: Facts, node: Node) -> tuple[BackupData, ...] | None:
    """Return the backups that are there now, None where there is no directory for them."""
    if facts.space is None or not os.path.isdir(facts.space.destination):
        return None
    return tuple(node.backups(facts.space.destination))


def observe_afterwards(
    facts: Facts, started: Sequence[str], log_files: Sequence[str], world: World, node: Node
) -> Aftermath:
    """Read what jobs change or leave. :param started: jobs whose end is known already."""
    return Aftermath(
        backups(facts, node),
        tuple(log_file(path) for path in sorted(set(log_files))),
        rotation(world),
        cron(world),
        last_runs(world, started),
    )


def log_file(path: str) -> LogFile:
    """Return whether a log file is there, and who may write to it."""
    try:
        return LogFile(path, stat.S_IMODE(os.lstat(path).st_mode))
    except FileNotFoundError:
        return LogFile(path, None, os.access(os.path.dirname(path), os.W_OK))


def rotation(world: World) -> str:
    """Return the file that has the logs rotated: ours, or one of the same under another name."""
    directory = world.path(ROTATION)
    for name in sorted(os.listdir(directory) if os.path.isdir(directory) else []):
        path = os.path.join(directory, name)
        with (
            contextlib.suppress(OSError),
            open(path, encoding="utf-8", errors="replace") as stream,
        ):
            if re.search(r"^[^#\n]*/var/log/ml-", stream.read(), re.MULTILINE):
                return f"{ROTATION}/{name}"
    return ""


def cron(world: World) -> Cron:
    """Return whether a cron daemon runs.

    Where other users' processes are hidden, it is taken as given.
    """
    names = set()
    for number in filter(str.isdigit, os.listdir(world.path("/proc"))):
        with (
            contextlib.suppress(OSError),
            open(world.path(f"/proc/{number}/comm"), encoding="utf-8", errors="replace") as stream,
        ):
            names.add(stream.read().strip())
    hidden = not os.path.exists(world.path("/proc/1/comm"))
    return Cron(
        hidden or bool(names & {"cron", "crond"}),
        os.path.isdir(world.path("/run/systemd/system")),
    )


def last_runs(world: World, but: Sequence[str] = ()) -> tuple[LastRun, ...]:
    """Return how the jobs ended when their timers last started them.

    A unit may fail where the same job, started by hand, does not. :param but: jobs to leave out.
    """
    runs = []
    for name, unit in ((name, unit + ".service") for name, unit in trial.UNITS.items()):
        if name in but:
            continue
        try:
            ended = trial.ended(unit, trial.state(world, unit))
            if ended is not None:
                runs.append(LastRun(unit, trial.with_reason(world, name, ended)))
        except CommandFailed:
            return ()
    return tuple(runs)
