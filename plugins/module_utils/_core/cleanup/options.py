# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of the cleanup part, and the targets they stand for."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..backup import api as backups
from ..errors import OptionError, Refused
from ..options import Option, OptionSet, option
from ..system.roots import SHARED, refuse_dangerous

#: What a unit's age counts from; C(newest) is the later one of mtime and ctime, and no tool can set a ctime back.
AGES = ("newest", "mtime", "ctime", "atime")
#: Targets that exist only with C(aggressive), in their order.
AGGRESSIVE = ("docker", "pip", "apt", "tmp")
#: The old scripts' targets: name, folder, pattern.
DEFAULTS = (
    ("experiments", "/opt/ml/experiments", "*"),
    ("checkpoints", "/opt/ml/checkpoints", "*"),
    ("logs", "/var/log", "ml-*"),
    ("temp", "/tmp", "ml-*"),
)
#: Days after which docker images and files in /tmp go in aggressive mode.
IMAGE_DAYS, TMP_DAYS = 7.0, 3.0
#: Never removed from /tmp in aggressive mode: what belongs to the system's own services.
TMP_KEEP = ("systemd-private-*", "snap-private-tmp", "snap.*", "mlops-fleet-*")
#: Never units: what a filesystem keeps in its top folder.
FILESYSTEMS_OWN = frozenset(
    {"lost+found", "aquota.user", "aquota.group", "quota.user", "quota.group"}
)
#: Never units in C(/var/log): the logs of our own jobs. Log rotation keeps them longer than logs are kept here, and their users could not make them anew.
OWN_LOGS = re.compile(r"ml-(?:backup|cleanup|health-check|maintenance)\.log(?:[-.].*)?", re.S)
#: The node's own list of users.
USERS = "/etc/passwd"
#: Where this collection itself lives.
OWN_TREES = ("/etc/mlops-fleet", "/opt/mlops-fleet", "/var/lib/mlops-fleet")
#: Packages' own files. Some keep models there, which may be restored and backed up, but nothing in it is old by its age.
PACKAGES = "/usr/share"
#: Beginning of the names of our quarantine folders.
TRASH = ".mlops-fleet-trash-"

_TARGET = (
    Option("name", help="Name in results and for C(only); by default the path."),
    Option(
        "path",
        type="path",
        required=True,
        aliases=("root",),
        help="Folder whose entries are the units.",
    ),
    Option(
        "pattern",
        default="*",
        help="Shell pattern of the units' names; names that begin with a dot need a pattern that does.",
    ),
    Option(
        "unit", default="any", choices=("dir", "file", "any"), help="Kind of entry that is a unit."
    ),
    Option(
        "retention_days",
        type="float",
        minimum=0,
        help="Age in days from which a unit goes; 0 = always.",
    ),
    Option("age_by", choices=AGES, help="What the age counts from; by default the option age_by."),
    Option(
        "keep_last",
        type="int",
        default=0,
        minimum=0,
        help="Keep this many newest units whatever their age.",
    ),
    Option(
        "exclude",
        type="list",
        elements="str",
        default=[],
        help="Name patterns; a unit that has or holds such a name is kept.",
    ),
)
_BRAKE = (
    Option("max_units", type="int", minimum=0, help="Largest number of units to remove."),
    Option("max_bytes", type="int", minimum=0, help="Largest number of bytes to remove."),
    Option(
        "max_share",
        type="float",
        minimum=0,
        maximum=1,
        help="Largest share of a target's units to remove (0 to 1).",
    ),
)
_REQUIRE = (
    Option(
        "path",
        type="path",
        required=True,
        help="Backup folder, or the manifest or archive of one backup.",
    ),
    Option(
        "max_age_hours",
        type="float",
        default=24.0,
        minimum=0,
        help="Oldest backup that counts, in hours.",
    ),
)


@dataclass(frozen=True)
class Target:
    """One folder and the rule for what in it goes. C(retention) is in seconds."""

    name: str
    path: str
    pattern: str = "*"
    unit: str = "any"
    retention: float = 0.0
    age_by: str = "newest"
    keep_last: int = 0
    exclude: tuple[str, ...] = ()
    shared_ok: bool = False  # the folder may be one that many programs share: a pattern or our own exclusions limit what is meant

    def matches(self, name: str) -> bool:
        """Say whether an entry of this name can be a unit; as in a shell, C(*) does not match a leading dot."""
        if (
            name.startswith(TRASH)
            or name in FILESYSTEMS_OWN
            or (name.startswith(".") and not self.pattern.startswith("."))
        ):
            return False
        return fnmatch.fnmatchcase(name, _pattern(self.pattern))

    def fits(self, kind: str) -> bool:
        """Say whether an entry of this kind can be a unit; all that is no folder counts as a file."""
        return self.unit == "any" or (kind == "dir") == (self.unit == "dir")

    @property
    def excluded(self) -> re.Pattern[str] | None:
        """The names that protect a unit, as one expression."""
        return (
            re.compile("|".join(fnmatch.translate(_pattern(pattern)) for pattern in self.exclude))
            if self.exclude
            else None
        )


def _pattern(given: str) -> str:
    """Return a shell pattern in fnmatch's words: it takes C([^k]*) for names that begin with k, of all things."""
    return given.replace("[^", "[!")


def literal_start(pattern: str) -> str:
    """Return what every name that matches the pattern begins with."""
    match = re.match(r"[^*?\[]*", pattern)
    return match.group() if match else ""


def is_backup(name: str) -> bool:
    """Say whether a file of this name is a backup of M(mlops.fleet.model_backup) or stands beside one; its own retention removes those."""
    return backups.is_backup_file(name)


def homes() -> dict[str, str]:
    """Return the home folders that the node's own list of users names, with their user."""
    found: dict[str, str] = {}
    try:
        with open(USERS, encoding="utf-8", errors="surrogateescape", newline="\n") as lines:
            for line in lines:
                words = line.split(":")
                if len(words) > 5 and words[5].startswith("/"):
                    found.setdefault(os.path.normpath("/" + words[5].lstrip("/")), words[0])
    except OSError:
        pass
    return found


def refuse_root(path: str, shared_ok: bool) -> str:
    """Return the path of a cleanup root normalised. :raises Refused: it is dangerous, somebody's home, or where this collection lives."""
    normal = refuse_dangerous(path, "cleanup root", shared_ok)
    users = homes()
    for candidate in dict.fromkeys((normal, os.path.realpath(normal))):
        if candidate in users and candidate not in SHARED:
            raise Refused(
                f"The cleanup root {path} is the home folder of {users[candidate]}.",
                "Name a folder of its own below it.",
                path,
            )
        if candidate.startswith(PACKAGES + "/"):
            raise Refused(
                f"The cleanup root {path} lies in {PACKAGES}, which belongs to packages.",
                "Name another folder.",
                path,
            )
        for tree in OWN_TREES:
            if candidate == tree or candidate.startswith(tree + "/"):
                raise Refused(
                    f"The cleanup root {path} lies in {tree}, which this collection itself needs.",
                    "Name another folder.",
                    path,
                )
    return normal


class CleanupOptions(OptionSet):
    """Freeing disk space. C(folders) are the checked targets, C(tools) the names of those that other programs clean."""

    targets: list[dict[str, Any]] | None = option(
        type="list",
        elements="dict",
        suboptions=_TARGET,
        help="What to clean instead of the four usual places.",
    )
    aggressive: bool = option(
        type="bool",
        default=False,
        env=("AGGRESSIVE",),
        help="Also docker images, pip and apt caches, old files in /tmp.",
    )
    only: list[str] | None = option(
        type="list", elements="str", help="Names of the targets to clean; all by default."
    )
    experiments_dir: str = option(
        type="path",
        default=DEFAULTS[0][1],
        env=("EXPERIMENTS_DIR",),
        help="Folder of the target experiments.",
    )
    checkpoints_dir: str = option(
        type="path",
        default=DEFAULTS[1][1],
        env=("CHECKPOINTS_DIR",),
        help="Folder of the target checkpoints.",
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
    in_use: str = option(
        default="skip", choices=("skip", "ignore"), help="Whether units in use are kept."
    )
    brake: dict[str, Any] | None = option(
        type="dict", suboptions=_BRAKE, help="Remove nothing at all when more than this would go."
    )
    require_backup: dict[str, Any] | None = option(
        type="dict",
        suboptions=_REQUIRE,
        help="Remove nothing unless there is a fresh verified backup.",
    )
    report_path: str | None = option(type="path", help="File for the whole report as JSON (0640).")

    folders: tuple[Target, ...]
    tools: tuple[str, ...]

    def check_together(self) -> None:
        if self.targets is not None and not self.targets:
            raise OptionError(
                "Option targets is an empty list.",
                "Name what to clean, or leave the option out for the usual places.",
                "targets",
            )
        folders = (
            self._defaults()
            if self.targets is None
            else [self._given(number, one) for number, one in enumerate(self.targets)]
        )
        tools: list[str] = []
        if self.aggressive:
            folders.append(
                Target("tmp", "/tmp", retention=TMP_DAYS * 86400, exclude=TMP_KEEP, shared_ok=True)
            )
            tools = [name for name in AGGRESSIVE if name != "tmp"]
        names = [one.name for one in folders] + tools
        for name in names:
            if names.count(name) > 1:
                raise OptionError(
                    f"Two targets are named {name}.", "Give each a name of its own.", "targets"
                )
        if self.only is not None:
            self._check_only(names)
            folders = [one for one in folders if one.name in self.only]
            tools = [name for name in tools if name in self.only]
        self.folders, self.tools = tuple(folders), tuple(tools)

    def _check_only(self, names: list[str]) -> None:
        if not self.only:
            raise OptionError(
                "Option only is an empty list.",
                "Name targets, or leave the option out for all.",
                "only",
            )
        for name in self.only:
            if name not in names:
                hint = (
                    "It exists only with aggressive."
                    if name in AGGRESSIVE
                    else "Known: " + ", ".join(names) + "."
                )
                raise OptionError(
                    f"Option only names the target {name}, which does not exist.", hint, "only"
                )

    def _retention(self, name: str) -> float | None:
        """Return the days that an option of its own sets for a target of this name."""
        found: Mapping[str, Any] = {
            "experiments": self.experiments_retention,
            "checkpoints": self.checkpoints_retention,
            "logs": self.logs_retention,
            "temp": 0.0,
        }
        return found.get(name)

    def _defaults(self) -> list[Target]:
        paths = {"experiments": self.experiments_dir, "checkpoints": self.checkpoints_dir}
        found = []
        for name, usual, pattern in DEFAULTS:
            shared_ok = len(literal_start(pattern)) >= 2
            path = refuse_root(paths.get(name, usual), shared_ok)
            found.append(
                Target(
                    name,
                    path,
                    pattern,
                    "any",
                    (self._retention(name) or 0.0) * 86400,
                    self.age_by,
                    shared_ok=shared_ok,
                )
            )
        return found

    def _given(self, number: int, given: Mapping[str, Any]) -> Target:
        where = f"targets[{number}]"
        pattern = given["pattern"]
        if not pattern or "/" in pattern or pattern in (".", ".."):
            raise OptionError(
                f"Option {where}.pattern is {pattern!r}, but must match names of entries (no slash).",
                "",
                f"{where}.pattern",
            )
        if any("/" in one for one in given["exclude"]):
            raise OptionError(
                f"Option {where}.exclude must hold patterns of names (no slash).",
                "",
                f"{where}.exclude",
            )
        name = given["name"] or given["path"]
        days = given["retention_days"]
        if days is None:
            days = self._retention(name) if name != "temp" else None
        if days is None:
            raise OptionError(
                f"Option {where}.retention_days is required.",
                "Say how many days to keep units; 0 removes all.",
                f"{where}.retention_days",
            )
        shared_ok = len(literal_start(pattern)) >= 2
        path = refuse_root(given["path"], shared_ok)
        age_by = given["age_by"] or self.age_by
        return Target(
            name,
            path,
            pattern,
            given["unit"],
            days * 86400,
            age_by,
            given["keep_last"],
            tuple(given["exclude"]),
            shared_ok,
        )
