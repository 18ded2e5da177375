# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a schedule can work: what is wrong with the variables of the schedule role, and with the
node they are for.

The checks of the variables are pure; those of the node read it and ask systemd. All problems are
found at once.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterable, Iterator
from typing import Any

from .errors import CommandFailed
from .options import OptionSet, option
from .ports import World

SYSTEMD, CRON = "systemd", "cron"

_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*[$]?")
_TIMEOUT = re.compile(r"[1-9][0-9]*[smhd]")
_PATH = re.compile(r'/[^\n":\\]+')
_COMMAND = re.compile(r'/[^\s%$"\\]+')
_ENVIRONMENT_FILE = re.compile(r'/[^\s%"\\]+')
_MEMORY = re.compile(r"[0-9]+(\.[0-9]+)?[KMGT%]?|infinity")
_NO_MEMORY = re.compile(r"[0.]+[KMGT%]?")
_QUOTA = re.compile(r"[1-9][0-9]*%")
_MAILTO = re.compile(r"[A-Za-z0-9.@_+,-]*")
_CREDENTIAL = re.compile(r"[A-Za-z0-9_.-]+")
_CREDENTIAL_FILE = re.compile(r"/[^:\s]+")
_DIRECTIVE = re.compile(r"[A-Z][A-Za-z]+")

#: cron's five fields: numbers within their limits, or names. One wrong line makes cron ignore the
#: whole file.
_MINUTE = r"[0-5]?\d"
_HOUR = r"1?\d|2[0-3]"
_DAY = r"0?[1-9]|[12]\d|3[01]"
_MONTH = r"0?[1-9]|1[0-2]|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"
_WEEKDAY = r"[0-7]|sun|mon|tue|wed|thu|fri|sat"
_SHORTHAND = re.compile(
    r"@(reboot|yearly|annually|monthly|weekly|daily|midnight|hourly)", re.IGNORECASE
)


def _field(value: str) -> str:
    item = rf"(\*|({value})(-({value}))?)(/[1-9]\d*)?"
    return rf"{item}(,{item})*"


_CRON_LINE = re.compile(
    r"[ \t]+".join(_field(value) for value in (_MINUTE, _HOUR, _DAY, _MONTH, _WEEKDAY)),
    re.IGNORECASE,
)


class JobOptions(OptionSet):
    """What was set for one job."""

    name: str = option(required=True, help="Name of the job.")
    user: str = option(default="root", help="User who runs it.")
    arguments: list[Any] = option(
        type="list", elements="raw", default=[], help="Arguments of the command."
    )
    timeout: str = option(default="1h", help="Time after which it is killed.")
    calendar: str = option(default="", help="When it runs, as OnCalendar= takes it.")
    random_delay: str = option(default="0", help="Random delay of the start.")
    cron: str = option(default="", help="When it runs, for cron.")
    write_paths: list[Any] = option(
        type="list", elements="raw", default=[], help="Directories it writes to."
    )
    directives: dict[str, Any] = option(
        type="dict", default={}, help="Further directives of the unit."
    )


class ScheduleOptions(OptionSet):
    """The variables of the schedule role that are checked."""

    backend: str = option(choices=(SYSTEMD, CRON), default=SYSTEMD, help="What starts the jobs.")
    jobs: list[JobOptions] = option(
        type="list", elements="dict", default=[], suboptions=JobOptions, help="Jobs switched on."
    )
    command: str = option(default="/usr/local/bin/mlfleet", help="The node command.")
    environment_file: str = option(
        default="/etc/ml-automation.conf", help="File with the old scripts' variables."
    )
    alert_user: str = option(default="mlops-fleet", help="User who sends alerts.")
    memory_max: str = option(default="2G", help="Memory that a job may use.")
    cpu_quota: str = option(default="50%", help="Processor time that a job may use.")
    io_weight: str = option(default="100", help="Weight of a job's disk access.")
    credentials: dict[str, Any] = option(
        type="dict", default={}, help="Credentials: name to the file that holds it."
    )
    cron_mailto: str = option(default="", help="Who gets the jobs' output by mail.")
    config: str = option(
        type="path", default="/etc/mlops-fleet/config.json", help="The node's configuration."
    )
    occupied: list[str] = option(
        type="list", elements="str", default=[], help="Files that the role did not write."
    )


def _fits(pattern: re.Pattern[str], value: Any) -> bool:
    return pattern.fullmatch(str(value)) is not None


def cron_line_fits(line: str) -> bool:
    """Return whether cron accepts a time: five fields, or a shorthand such as ``@daily``."""
    if _SHORTHAND.fullmatch(line):
        return True
    backwards = any(int(first) > int(last) for first, last in re.findall(r"(\d+)-(\d+)", line))
    return _CRON_LINE.fullmatch(line) is not None and not backwards


def problems_of_variables(options: ScheduleOptions) -> list[str]:
    """Return what is wrong with the variables themselves; pure."""
    problems = list(_common_problems(options))
    if options.backend == CRON:
        problems += [
            f"cron can't read schedule_{job.name}_cron '{job.cron}'."
            for job in options.jobs
            if not cron_line_fits(job.cron)
        ]
        if not _fits(_MAILTO, options.cron_mailto):
            problems.append(
                f"schedule_cron_mailto '{options.cron_mailto}' must be one or more addresses,"
                " separated by commas without blanks."
            )
        return problems
    return [*problems, *_systemd_problems(options)]


def _common_problems(options: ScheduleOptions) -> Iterator[str]:
    if options.occupied:
        yield (
            f"Not written by this role: {', '.join(options.occupied)}. Move them away, or set "
            "schedule_replace_existing to true to replace them (a copy is kept beside each)."
        )
    if not _fits(_USER, options.alert_user):
        yield f"schedule_alert_user '{options.alert_user}' must be a user name."
    for variable, pattern, value in (
        ("schedule_command", _COMMAND, options.command),
        ("schedule_environment_file", _ENVIRONMENT_FILE, options.environment_file),
    ):
        if not _fits(pattern, value):
            yield (
                f"{variable} '{value}' must be a full path without blanks, double quotes, '%' and"
                " backslashes."
            )
    for job in options.jobs:
        prefix = f"schedule_{job.name}_"
        if not _fits(_USER, job.user):
            yield f"{prefix}user '{job.user}' must be a user name."
        if not _fits(_TIMEOUT, job.timeout):
            yield f"{prefix}timeout '{job.timeout}' must be like 30s, 10m, 6h or 1d."
        if any(re.search(r'[\n"\\]', str(argument)) for argument in job.arguments):
            yield f"{prefix}arguments must have neither line breaks, double quotes nor backslashes."
        for path in job.write_paths:
            if not _fits(_PATH, path):
                yield (
                    f"{prefix}write_paths: '{path}' must be a full path without line breaks,"
                    " quotes, colons and backslashes."
                )


def _systemd_problems(options: ScheduleOptions) -> Iterator[str]:
    if not _fits(_MEMORY, options.memory_max) or _fits(_NO_MEMORY, options.memory_max):
        yield f"schedule_memory_max '{options.memory_max}' must be like 2G, 80% or infinity."
    if not _fits(_QUOTA, options.cpu_quota):
        yield f"schedule_cpu_quota '{options.cpu_quota}' must be like 50%."
    if not options.io_weight.isdigit() or not 1 <= int(options.io_weight) <= 10000:
        yield f"schedule_io_weight '{options.io_weight}' must be from 1 to 10000."
    for credential, path in options.credentials.items():
        if not _fits(_CREDENTIAL, credential) or not _fits(_CREDENTIAL_FILE, path):
            yield (
                f"schedule_credentials: '{credential}' must have a name of letters, digits, '_',"
                " '.', '-' and a full path without blanks and colons."
            )
    for job in options.jobs:
        for directive, value in job.directives.items():
            values = value if isinstance(value, list) else [value]
            if not _fits(_DIRECTIVE, directive) or any("\n" in str(item) for item in values):
                yield (
                    f"schedule_{job.name}_directives: '{directive}' must be a name like MemoryMax"
                    " with values of one line (a list for several)."
                )


def configured_paths(options: ScheduleOptions, world: World) -> dict[str, list[str]]:
    """Return the directories that each job writes to because the node's configuration names them.

    They come from the configuration file and the file with the old scripts' variables, by
    precedence. A path with a pattern counts up to the pattern.

    :raises FleetError: the configuration can't be read.
    """
    from . import config, environment
    from .alert.options import AlertOptions
    from .backup.options import BackupOptions
    from .cleanup.options import CleanupOptions
    from .gpu.options import GpuOptions
    from .node.options import NodeOptions

    variables = environment.read(world.path(options.environment_file))
    node = config.Configuration(world.path(options.config), {}, variables)

    def values(part: str, table: type[OptionSet]) -> dict[str, Any]:
        return config.merge(table, node.file.get(part, {}), node.environ, {})[0]

    backup, cleanup = values("backup", BackupOptions), values("cleanup", CleanupOptions)
    gpu, health = values("gpu", GpuOptions), values("health", NodeOptions)
    state = values("alert", AlertOptions).get("state_dir")
    targets = cleanup.get("targets")
    roots = [
        re.sub(r"/[^/]*[*?\[].*$", "", str(target.get("path") or target.get("root") or ""))
        for target in (targets if isinstance(targets, list) else ())
        if isinstance(target, dict)
    ]
    cleaned = [cleanup.get("experiments_dir"), cleanup.get("checkpoints_dir")]
    paths = {
        "health": [_parent(health.get("state_file")), _parent(health.get("textfile")), state],
        "gpu": [_parent(gpu.get("metrics_csv")), _parent(gpu.get("textfile")), state],
        "backup": [backup.get("destination")],
        "restore_drill": [backup.get("destination")],
        "cleanup": [*roots, _parent(cleanup.get("report_path")), *cleaned],
    }
    return {
        job: _unique(path for path in named if _is_directory(path)) for job, named in paths.items()
    }


def _parent(path: Any) -> str:
    if isinstance(path, str):
        return os.path.dirname(path)
    return ""


def _is_directory(path: Any) -> bool:
    """Return whether this can be the full path of a directory other than /."""
    return isinstance(path, str) and path.startswith("/") and path.strip("/") != ""


def problems_of_node(options: ScheduleOptions, world: World, check: bool) -> list[str]:
    """Return what this node lacks, and which times systemd does not accept.

    :param check: the role may only be about to make users, command and credentials: they are not
        looked for.
    """
    problems: list[str] = []
    if not check:
        problems += _missing(options, world)
    if options.backend == CRON:
        daemons = ("/usr/sbin/cron", "/usr/sbin/crond")
        has_cron = any(os.path.exists(world.path(daemon)) for daemon in daemons)
        if not has_cron or not os.path.isdir(world.path("/etc/cron.d")):
            problems.append(
                "This node has no cron daemon with /etc/cron.d. Install cron (Debian, Ubuntu) or"
                " cronie (Red Hat), or set schedule_backend to systemd."
            )
        return problems
    if not os.path.isdir(world.path("/run/systemd/system")):
        return [
            *problems,
            (
                "This node was not booted by systemd (there is no /run/systemd/system), so it has"
                " no timers. Set schedule_backend to cron."
            ),
        ]
    for job in options.jobs:
        problems += _time_problems(job, world)
    return problems


def _missing(options: ScheduleOptions, world: World) -> Iterator[str]:
    import pwd

    if not os.access(world.path(options.command), os.X_OK):
        yield (
            f"{options.command} is not there. Run the role mlops.fleet.agent first, or set"
            " schedule_command."
        )
    for user in _unique([*(job.user for job in options.jobs), options.alert_user]):
        try:
            pwd.getpwnam(user)
        except KeyError:
            yield f"The user {user} does not exist on this node."
    if options.backend == SYSTEMD:
        exposed = [
            path for path in _unique(options.credentials.values()) if not _closed(world, path)
        ]
        if exposed:
            yield (
                f"schedule_credentials: {', '.join(exposed)} must be there and closed to others"
                " (chmod 0600): without it no job can start."
            )


def _unique(values: Iterable[Any]) -> list[str]:
    return list(dict.fromkeys(str(value) for value in values))


def _closed(world: World, path: str) -> bool:
    with contextlib.suppress(OSError):
        return not stat.S_IMODE(os.stat(world.path(path)).st_mode) & 0o007
    return False


def _time_problems(job: JobOptions, world: World) -> Iterator[str]:
    for option_name, verb, value in (
        ("calendar", "calendar", job.calendar),
        ("random_delay", "timespan", job.random_delay),
    ):
        try:
            result = world.run(["systemd-analyze", verb, value], timeout=30)
        except CommandFailed as error:
            reason = str(error)
        else:
            never = "Next elapse: never" in result.stdout
            if result.returncode == 0 and not never:
                continue
            reason = result.stderr.strip() or f"it never comes: {value}"
        yield (
            f"schedule_{job.name}_{option_name}: {reason}. Try: systemd-analyze {verb} EXPRESSION."
        )
