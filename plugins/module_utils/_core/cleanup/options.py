# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of the cleanup part."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ..backup.api import S3Connection, check_s3, default_directory
from ..errors import OptionError
from ..options import OptionSet, option
from ..system.roots import refuse_dangerous
from . import tools
from .guards import CLEANABLE, may_share, refuse_owned
from .layouts import CHOICES, GENERIC
from .targets import BUILT_IN, DAY, BuiltIn, Target, period
from .watermark import Level, parse_level

#: What a unit's age counts from; "newest" is the later one of mtime and ctime, and no tool can set a ctime back.
AGES = ("newest", "mtime", "ctime", "atime")
#: The node's own list of users.
USERS = "/etc/passwd"


def _level(text: str) -> str | None:
    if parse_level(text) is None:
        return "it must be a share of the file system (20%) or a size (500G, or bytes)"
    return None


def _period(text: str) -> str | None:
    if period(text):
        return None
    return "it must be a period (30m, 12h, 3d)"


class TargetOptions(OptionSet):
    """One directory to clean."""

    name: str | None = option(help="Name in results and for C(only); by default the path.")
    path: str = option(
        type="path",
        required=True,
        aliases=("root",),
        help="Directory whose entries are the units.",
    )
    pattern: str = option(
        default="*",
        help="Shell pattern of the units' names; names that begin with a dot need a pattern that does.",
    )
    unit: str = option(
        default="any", choices=("dir", "file", "any"), help="Kind of entry that is a unit."
    )
    retention_days: float | None = option(
        type="float",
        minimum=0,
        help="Age in days from which a unit is removed; 0 = always.",
    )
    age_by: str | None = option(
        choices=AGES, help="What the age counts from; by default the option age_by."
    )
    keep_last: int = option(
        type="int",
        default=0,
        minimum=0,
        help="Keep this many newest units whatever their age.",
    )
    exclude: list[str] = option(
        type="list",
        elements="str",
        default=[],
        help="Name patterns; a unit that has or holds such a name is kept.",
    )
    layout: str = option(
        default=GENERIC,
        choices=CHOICES,
        help="How checkpoints are laid out; generic takes every entry as a unit.",
    )
    keep_best: int = option(
        type="int",
        default=0,
        minimum=0,
        help="Keep this many best units by metric, whatever their age.",
    )
    metric: str | None = option(help="Metric for keep_best.")
    mode: str = option(
        default="min",
        choices=("min", "max"),
        help="Whether the smallest or the largest metric is the best.",
    )
    metric_file: str = option(
        default="metrics.json",
        help="JSON file with the metric, in each unit or beside the units.",
    )
    keep_every: str | None = option(
        help="Keep units whose step is a multiple of this number, or the newest of each period (12h, 7d)."
    )
    group_by: str | None = option(
        choices=("run", "target"),
        help="What keep_last, keep_best and a period of keep_every count in.",
    )
    free_to: str | None = option(check=_level, help="As the option free_to, for this target.")
    when_below: str | None = option(check=_level, help="As the option when_below, for this target.")


class BrakeOptions(OptionSet):
    """Limits above which nothing at all is removed."""

    max_units: int | None = option(type="int", minimum=0, help="Largest number of units to remove.")
    max_bytes: int | None = option(type="int", minimum=0, help="Largest number of bytes to remove.")
    max_share: float | None = option(
        type="float",
        minimum=0,
        maximum=1,
        help="Largest share of a target's units to remove (0 to 1).",
    )
    max_growth: float | None = option(
        type="float",
        minimum=0,
        help="Largest factor by which a target may lose more units or bytes than in any of its last 10 runs.",
    )


class RequireBackupOptions(OptionSet):
    """The backup without which nothing is removed."""

    path: str | None = option(
        type="path",
        help="Backup directory, or the manifest or archive of one backup.",
    )
    s3: S3Connection | None = option(
        type="dict",
        suboptions=S3Connection,
        help="Object storage whose copies count, too, or instead of a directory.",
    )
    check: str = option(
        default="fresh",
        choices=("fresh", "covered"),
        help="Whether a fresh backup must exist, or each file of a unit must be in a verified one.",
    )
    max_age_hours: float = option(
        type="float",
        default=24.0,
        minimum=0,
        help="Oldest backup that counts, in hours.",
    )

    @property
    def place(self) -> str:
        """Where the backups are, for messages."""
        places = [self.path] if self.path else []
        if self.s3 is not None:
            prefix = self.s3.prefix.strip("/")
            places.append(f"s3://{self.s3.bucket}/{prefix}".rstrip("/"))
        return " and ".join(places)

    def check_together(self) -> None:
        self.s3 = check_s3(self.s3)
        if self.path is None and self.s3 is None:
            raise OptionError(
                "Option require_backup.path is required.",
                "Name the directory of the backups, or a bucket with require_backup.s3.",
                "require_backup.path",
            )


def _interval(text: str | None, where: str) -> tuple[int, float]:
    """Return an interval as (steps, seconds), one of them 0. :raises OptionError: it is neither."""
    if text is None:
        return 0, 0.0
    if text.isdecimal() and int(text) > 0:
        return int(text), 0.0
    seconds = period(text)
    if not seconds:
        raise OptionError(
            f"Option {where} is {text!r}, but must be a number of steps or a period (30m, 12h, 7d).",
            "",
            where,
        )
    return 0, seconds


def _parsed(text: str | None) -> Level | None:
    if text is None:
        return None
    return parse_level(text)


def _check_levels(
    free_to: str | None,
    when_below: str | None,
    where: str,
    targets: list[TargetOptions] | None = None,
) -> None:
    """:raises OptionError: the levels contradict each other. ``targets``: may have a free_to of their own."""
    if when_below is None:
        return
    if free_to is None and not any(target.free_to for target in targets or ()):
        raise OptionError(
            f"Option {where} needs free_to.", "Say how much is to be free afterwards.", where
        )
    goal, trigger = _parsed(free_to), _parsed(when_below)
    if (
        goal is not None
        and trigger is not None
        and bool(goal.size) == bool(trigger.size)
        and trigger > goal
    ):
        raise OptionError(
            f"Option {where} is {when_below}, but must not be larger than free_to ({free_to}).",
            "",
            where,
        )


def homes() -> dict[str, str]:
    """Return the home directories in the node's own list of users, with their user."""
    users: dict[str, str] = {}
    try:
        with open(USERS, encoding="utf-8", errors="surrogateescape", newline="\n") as lines:
            for line in lines:
                fields = line.split(":")
                if len(fields) > 5 and fields[5].startswith("/"):
                    users.setdefault(os.path.normpath("/" + fields[5].lstrip("/")), fields[0])
    except OSError:
        pass
    return users


def refuse_root(path: str, shared_ok: bool) -> str:
    """Return the path of a cleanup root normalised.

    :raises Refused: it is dangerous, somebody's home, or where this collection is.
    """
    if shared_ok and path in CLEANABLE and path == os.path.realpath(path):
        return path
    normal = refuse_dangerous(path, "cleanup root", shared_ok)
    refuse_owned(path, (normal, os.path.realpath(normal)), homes())
    return normal


class CleanupOptions(OptionSet):
    """Freeing disk space. ``directories`` are the checked targets, ``tools`` the names of those that other programs clean."""

    targets: list[TargetOptions] | None = option(
        type="list",
        elements="dict",
        suboptions=TargetOptions,
        help="What to clean instead of the four usual places.",
    )
    aggressive: bool = option(
        type="bool",
        default=False,
        env=("AGGRESSIVE",),
        help="Also container images, caches, core dumps, ended sessions, old files in /tmp.",
    )
    only: list[str] | None = option(
        type="list", elements="str", help="Names of the targets to clean; all by default."
    )
    experiments_dir: str = option(
        type="path",
        default=BUILT_IN["experiments"].path,
        env=("EXPERIMENTS_DIR",),
        help="Directory of the target experiments.",
    )
    checkpoints_dir: str = option(
        type="path",
        default=BUILT_IN["checkpoints"].path,
        env=("CHECKPOINTS_DIR",),
        help="Directory of the target checkpoints.",
    )
    experiments_retention: float = option(
        type="float",
        default=30.0,
        minimum=0,
        env=("EXPERIMENTS_RETENTION",),
        help="Days to keep experiments.",
    )
    checkpoints_retention: float = option(
        type="float",
        default=7.0,
        minimum=0,
        env=("CHECKPOINTS_RETENTION",),
        help="Days to keep checkpoints.",
    )
    logs_retention: float = option(
        type="float", default=14.0, minimum=0, env=("LOGS_RETENTION",), help="Days to keep logs."
    )
    age_by: str = option(
        default="newest", choices=AGES, help="What ages count from, for targets that do not say."
    )
    quarantine: str | None = option(
        check=_period,
        help="Keep removed units for this long (3d, 12h), so that they can be brought back.",
    )
    state: str = option(
        default="cleaned",
        choices=("cleaned", "restored"),
        help="Clean up, or bring back what is in quarantine.",
    )
    undo: list[str] | None = option(
        type="list",
        elements="str",
        help="With state=restored: paths of units, or runs, to bring back; by default all.",
    )
    in_use: str = option(
        default="skip", choices=("skip", "ignore"), help="Whether units in use are kept."
    )
    free_to: str | None = option(
        check=_level,
        help="Remove only until this is free: a share of the file system, or a size (500G).",
    )
    when_below: str | None = option(
        check=_level,
        help="Remove only when less than this is free; by default free_to.",
    )
    brake: BrakeOptions | None = option(
        type="dict",
        suboptions=BrakeOptions,
        help="Remove nothing at all when more than this would be removed.",
    )
    require_backup: RequireBackupOptions | None = option(
        type="dict",
        suboptions=RequireBackupOptions,
        help="Remove nothing unless there is a fresh verified backup.",
    )
    state_dir: str | None = option(
        type="path",
        help="Directory for reports and for the numbers of brake.max_growth; by default the agent's.",
    )
    report_days: float = option(
        type="float",
        default=90.0,
        minimum=0,
        help="Days to keep a report of each cleanup that removed something, on nodes with the agent.",
    )
    report_path: str | None = option(type="path", help="File for the whole report as JSON (0640).")

    @property
    def held_for(self) -> int | None:
        """Seconds for which removed units are kept, None when they are not."""
        seconds = None if self.quarantine is None else period(self.quarantine)
        if seconds is None:
            return None
        return max(1, int(seconds))

    directories: tuple[Target, ...]
    tools: tuple[str, ...]

    @classmethod
    def expand(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return options as they are given; ``require_backup: covered`` as a mapping."""
        if given.get("require_backup") == "covered":
            return {
                **given,
                "require_backup": {"check": "covered", "path": default_directory()},
            }
        return given

    def check_together(self) -> None:
        if self.targets is not None and not self.targets:
            raise OptionError(
                "Option targets is an empty list.",
                "Name what to clean, or leave the option out for the usual places.",
                "targets",
            )
        _check_levels(self.free_to, self.when_below, "when_below", self.targets)
        if self.require_backup is not None:
            self.require_backup.check_together()
        if self.undo and self.state != "restored":
            raise OptionError("Option undo needs state=restored.", "", "undo")
        entries = [entry for entry in BUILT_IN if not entry.aggressive and self.targets is None]
        directories = [self._built_in(entry) for entry in entries]
        for number, target in enumerate(self.targets or ()):
            directories.append(self._configured(number, target))
        programs = list(tools.TOOLS.names) if self.aggressive else []
        entries = [entry for entry in BUILT_IN if entry.aggressive and self.aggressive]
        known = [target.name for target in directories] + [entry.name for entry in entries]
        known += programs
        for name in known:
            if known.count(name) > 1:
                raise OptionError(
                    f"Two targets are named {name}.", "Give each a name of its own.", "targets"
                )
        if self.only is not None:
            self._check_only(self.only, known)
            directories = [target for target in directories if target.name in self.only]
            entries = [entry for entry in entries if entry.name in self.only]
            programs = [name for name in programs if name in self.only]
        directories.extend(self._built_in(entry) for entry in entries)
        self.directories, self.tools = tuple(directories), tuple(programs)

    def _check_only(self, only: list[str], known: list[str]) -> None:
        if not only:
            raise OptionError(
                "Option only is an empty list.",
                "Name targets, or leave the option out for all.",
                "only",
            )
        for name in only:
            if name in known:
                continue
            built_in = BUILT_IN.get(name)
            hint = "Known: " + ", ".join(known) + "."
            if name in tools.TOOLS or (built_in is not None and built_in.aggressive):
                hint = "It exists only with aggressive."
            raise OptionError(
                f"Option only names the target {name}, which does not exist.", hint, "only"
            )

    def _days(self, entry: BuiltIn) -> float:
        """Return the retention of a built-in target."""
        if isinstance(entry.retention, str):
            days: float = self.given()[entry.retention]
            return days
        return entry.retention

    def _built_in(self, entry: BuiltIn) -> Target:
        path = entry.place(os.environ)
        if entry.path_option:
            path = self.given()[entry.path_option]
        shared_ok = entry.shared_ok or may_share(entry.pattern)
        return Target(
            entry.name,
            refuse_root(path, shared_ok),
            self._days(entry) * DAY,
            entry.pattern,
            entry.unit,
            entry.age_by if entry.aggressive else self.age_by,
            exclude=entry.exclude,
            shared_ok=shared_ok,
            free_to=None if entry.aggressive else _parsed(self.free_to),
            when_below=None if entry.aggressive else _parsed(self.when_below or self.free_to),
        )

    def _configured(self, number: int, given: TargetOptions) -> Target:
        where = f"targets[{number}]"
        if not given.pattern or "/" in given.pattern or given.pattern in (".", ".."):
            raise OptionError(
                f"Option {where}.pattern is {given.pattern!r}, but must match names of entries (no slash).",
                "",
                f"{where}.pattern",
            )
        if any("/" in pattern for pattern in given.exclude):
            raise OptionError(
                f"Option {where}.exclude must hold patterns of names (no slash).",
                "",
                f"{where}.exclude",
            )
        name = given.name or given.path
        days = given.retention_days
        built_in = BUILT_IN.get(name)
        # A number that nobody can change was meant for the built-in directory only.
        if days is None and built_in is not None and isinstance(built_in.retention, str):
            days = self._days(built_in)
        policies = given.keep_last or given.keep_best or given.keep_every
        freeing = (given.free_to or self.free_to) and given.layout != GENERIC
        if days is None and (policies or freeing):
            days = 0.0  # the policies say what is kept
        if days is None:
            raise OptionError(
                f"Option {where}.retention_days is required.",
                "Say how many days to keep units; 0 removes all.",
                f"{where}.retention_days",
            )
        self._check_policies(where, given)
        free_to, when_below = given.free_to or self.free_to, given.when_below or self.when_below
        _check_levels(free_to, when_below, f"{where}.when_below")
        steps, seconds = _interval(given.keep_every, f"{where}.keep_every")
        shared_ok = may_share(given.pattern)
        by_run = given.group_by == "run" or (given.group_by is None and given.layout != GENERIC)
        return Target(
            name,
            refuse_root(given.path, shared_ok),
            days * DAY,
            given.pattern,
            given.unit,
            given.age_by or self.age_by,
            given.keep_last,
            tuple(given.exclude),
            shared_ok,
            layout=given.layout,
            keep_best=given.keep_best,
            metric=given.metric or "",
            mode=given.mode,
            metric_file=given.metric_file,
            every_steps=steps,
            every_seconds=seconds,
            by_run=by_run,
            free_to=_parsed(free_to),
            when_below=_parsed(when_below or free_to),
        )

    @staticmethod
    def _check_policies(where: str, given: TargetOptions) -> None:
        """:raises OptionError: the policies of a target contradict each other."""
        if given.keep_best and not given.metric:
            raise OptionError(
                f"Option {where}.keep_best needs {where}.metric.",
                "Name the metric, for example val_loss.",
                f"{where}.metric",
            )
        parts = given.metric_file.split("/")
        if given.metric_file.startswith("/") or ".." in parts or "" in parts:
            raise OptionError(
                f"Option {where}.metric_file is {given.metric_file!r}, but must be a path below a unit.",
                "",
                f"{where}.metric_file",
            )


def check_built_in(entry: BuiltIn) -> None:
    """:raises TypeError: a built-in target names an option that does not exist."""
    known = {declared.name for declared in CleanupOptions.TABLE}
    if isinstance(entry.retention, str) and entry.retention not in known:
        raise TypeError(
            f"The built-in cleanup target {entry.name} has no retention: there is no option {entry.retention}"
        )
    if entry.path_option and entry.path_option not in known:
        raise TypeError(
            f"The built-in cleanup target {entry.name}: there is no option {entry.path_option}"
        )


for _entry in BUILT_IN:
    check_built_in(_entry)
