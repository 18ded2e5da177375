# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Guards against deletion: what is never a cleanup root and what is never removed. Pure functions."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ..errors import Refused
from ..system.roots import SHARED
from ..system.text import display_path

#: Where this collection itself is.
OWN_TREES = ("/etc/mlops-fleet", "/opt/mlops-fleet", "/var/lib/mlops-fleet")
#: Packages' own files. Models kept there may be backed up and restored, but nothing in it is old by its age.
PACKAGES = "/usr/share"
#: Where POSIX shared memory is, and the core dumps of systemd-coredump.
SHARED_MEMORY, CORE_DUMPS = "/dev/shm", "/var/lib/systemd/coredump"
#: The only directories in the system's own trees that are ever cleaned, and only of names that a pattern begins.
CLEANABLE = frozenset({SHARED_MEMORY, CORE_DUMPS})
#: Never units: what a file system keeps in its top directory.
FILE_SYSTEMS_OWN = frozenset(
    {"lost+found", "aquota.user", "aquota.group", "quota.user", "quota.group"}
)
#: Never units in ``/var/log``: the logs of our own jobs. Log rotation keeps them longer than logs are kept here.
OWN_LOGS = re.compile(r"ml-(?:backup|cleanup|health-check|maintenance)\.log(?:[-.].*)?", re.S)
#: Beginning of the names of our quarantine directories.
TRASH = ".mlops-fleet-trash-"
#: Beginning of the names of the directories that keep removed units until their time is over.
HELD = ".mlops-fleet-quarantine-"
#: Why a unit that holds a mount point stays.
MOUNT = "holds a mount point or another filesystem"
#: Characters that a pattern must begin with before it may be used in a directory that many programs share.
LITERAL_START = 2


def literal_start(pattern: str) -> str:
    """Return what every name that matches the pattern begins with."""
    return re.split(r"[*?\[]", pattern)[0]


def may_share(pattern: str) -> bool:
    """Return whether a pattern says clearly enough what is meant in a directory that many programs share."""
    return len(literal_start(pattern)) >= LITERAL_START


def own_directory(name: str) -> bool:
    """Return whether an entry of this name is one of our directories."""
    return name.startswith((TRASH, HELD))


def never_a_unit(name: str) -> bool:
    """Return whether an entry of this name is never a unit, whatever the pattern."""
    return own_directory(name) or name in FILE_SYSTEMS_OWN


def refuse_owned(path: str, candidates: Iterable[str], users: Mapping[str, str]) -> None:
    """Refuse a cleanup root that belongs to a user, to packages or to this collection.

    :param path: the root as it was given, for messages.
    :param candidates: the root's paths: normalised, and with links resolved.
    :param users: home directories with their user.
    :raises Refused: one of the candidates belongs to somebody.
    """
    for candidate in dict.fromkeys(candidates):
        if candidate in users and candidate not in SHARED:
            raise Refused(
                f"The cleanup root {path} is the home directory of {users[candidate]}.",
                "Name a directory of its own below it.",
                path,
            )
        if candidate.startswith(PACKAGES + "/"):
            raise Refused(
                f"The cleanup root {path} is in {PACKAGES}, which belongs to packages.",
                "Name another directory.",
                path,
            )
        for tree in OWN_TREES:
            if candidate == tree or candidate.startswith(tree + "/"):
                raise Refused(
                    f"The cleanup root {path} is in {tree}, which this collection itself needs.",
                    "Name another directory.",
                    path,
                )


class Place(NamedTuple):
    """Where a cleanup root is: its real path, its path as configured, and (major:minor, path inside that file system)."""

    path: str
    given: str
    source: tuple[str, str] | None


def unit_of(path: str, base: str) -> str:
    """Return the first component of ``path`` below ``base``, empty when it is not below it."""
    base = base.rstrip("/") + "/"
    if path.startswith(base):
        return path[len(base) :].split("/")[0]
    return ""


def unit_at(place: Place, path: str, located: tuple[str, str] | None) -> str:
    """Return the name in the root of the unit that a path leads into, empty when it leads elsewhere.

    :param located: (major:minor, path inside that file system) of the path.
    """
    unit = unit_of(path, place.path) or unit_of(path, place.given)
    if not unit and place.source is not None and located is not None:
        device, inside = located
        if device == place.source[0]:
            unit = unit_of(inside, place.source[1])
    return unit


def protected(
    place: Place,
    directory: str,
    own: Mapping[str, str],
    mount_points: Iterable[str],
    mounted: Iterable[tuple[str, str]],
    links: Iterable[tuple[str, str]],
    logs: Iterable[str],
) -> dict[str, str]:
    """Return the names in a directory that must stay whatever their age, and why.

    :param directory: the root itself, or the compartment of its quarantine.
    :param own: paths that this run itself needs, and why.
    :param mount_points: of this mount namespace; ``mounted``: (major:minor, path inside that file system) of all namespaces.
    :param links: names of symbolic links in the root, each with the name of the unit that it leads to.
    :param logs: names of the root's entries that are logs of our own jobs.
    """
    reasons: dict[str, str] = {}

    def protect(unit: str, reason: str) -> None:
        if unit:
            reasons.setdefault(unit, reason)

    for path, reason in own.items():
        protect(unit_of(path, place.path), reason)
    for point in mount_points:
        protect(unit_of(point, directory), MOUNT)
    if place.source is not None:
        inside = place.source[1].rstrip("/") + directory[len(place.path) :]
        for device, path in mounted:
            if device == place.source[0]:
                protect(unit_of(path, inside), "in use: it is mounted elsewhere")
    for link, unit in links:
        if unit != link:
            protect(unit, f"the link {display_path(link)} names it")
            protect(link, f"it names {display_path(unit)}")
    # Last and by force: log rotation removes these, whatever else protects them.
    reasons.update((log, "a log of our own jobs; log rotation removes it") for log in logs)
    return reasons


def own_paths(
    homes: Mapping[str, str],
    roots: Iterable[str],
    lock_directories: Iterable[str],
    report: str | None,
    backup: str | None,
) -> dict[str, str]:
    """Return the paths that must not be removed, and why: homes, and what this run itself needs. All paths are real paths."""
    own = {path: f"is or holds the home directory of {user}" for path, user in homes.items()}
    own.update((root, "holds a cleanup root") for root in roots)
    own.update((directory, "holds our locks") for directory in lock_directories)
    if report:
        own[os.path.normpath(report)] = "is or holds the report"
    if backup:
        own[os.path.normpath(backup)] = "is or holds the backup"
    return own
