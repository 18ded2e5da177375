# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The age of the newest complete and verified backup of each source in the configured
directories.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from .. import verdict
from ..ports import World
from ..records import NamedTuple, replace
from ..system.text import display_path
from ..verdict import Check, isoformat
from . import thresholds
from .options import BackupAgeOptions, NodeOptions
from .probes import Problem
from .thresholds import fault

if TYPE_CHECKING:
    from ..backup.catalogue import Backup

CHECK = "backup_age"
#: A backup that is newer than the clock by more than this many seconds says nothing about its age.
_AHEAD = 3600.0


class Age(NamedTuple):
    """A backup: when it was made (seconds since the epoch), and whether it was verified.

    ``source`` is what it is of and ``host`` where it was made, None where that is unknown;
    ``unreadable`` why it can't be read.
    """

    created: float
    verified: bool
    source: str | None
    unreadable: str = ""
    host: str | None = None


def subject(wanted: BackupAgeOptions) -> str:
    """Return what a check is about: the backup directory, and the source where one is named."""
    return _about(wanted.path, wanted.source)


def _about(path: str, source: str | None) -> str:
    text = display_path(path)
    if source:
        text = f"{text} of {display_path(source)}"
    return text


def questions(
    world: World,
    options: NodeOptions,
    patience: float,  # noqa: ARG001
) -> dict[str, Callable[[], Any]]:
    """Return the question for each directory: a backup directory may be a network mount."""
    return {
        subject(wanted): partial(_read, world.path(wanted.path), wanted.source, world.hostname)
        for wanted in options.backups
    }


def _read(path: str, source: str | None, hostname: str) -> list[Age]:
    """Return the backups in a directory, of one source where it is given.

    In a directory that several hosts share, those of this host. On a host that has none in it, such
    as a backup server, those of all hosts.

    :raises NotUsable: the directory can't be read. :raises NotPermitted: likewise.
    """
    from ..backup.api import backups_at

    ages = [_age(backup) for backup in backups_at(path)]
    if any(age.host == hostname for age in ages):
        ages = [age for age in ages if age.host in (hostname, None)]
    return [age for age in ages if source is None or age.source in (source, None)]


def _age(backup: Backup) -> Age:
    source = backup.to_dict().get("source")
    host = None
    if backup.manifest is not None:
        host = backup.manifest.get("hostname") or None
    return Age(backup.created, backup.verified, source, backup.unreadable, host)


def decide(answers: Mapping[str, Any], now: float, options: NodeOptions) -> list[Check]:
    """Return backup_age for each source in each configured directory."""
    checks = []
    for wanted in options.backups:
        response = answers.get(subject(wanted), Problem("not asked"))
        others = {
            other.source
            for other in options.backups
            if other is not wanted and other.path == wanted.path
        }
        for about, ages in _divide(wanted, response, others):
            checks.append(_decide_source(wanted, about, ages, now, options))
    return checks


def _divide(
    wanted: BackupAgeOptions, response: list[Age] | Problem, named: set[str | None]
) -> list[tuple[str, list[Age] | Problem]]:
    """Return what to decide for one configured directory: each source of each host by itself, since
    fresh backups of one would hide that those of another stopped.

    :param named: sources in the same directory that have an entry of their own.
    """
    if isinstance(response, Problem):
        return [(subject(wanted), response)]
    unknown = [age for age in response if age.source is None]
    groups: dict[tuple[str, str | None], list[Age]] = {}
    for age in response:
        if age.source is not None and (wanted.source or age.source not in named):
            groups.setdefault((age.source, age.host), []).append(age)
    if len(groups) < 2:
        only = [age for ages in groups.values() for age in ages]
        return [(subject(wanted), only + unknown)]
    several_hosts = len({host for dummy, host in groups}) > 1
    divided: list[tuple[str, list[Age] | Problem]] = []
    for (source, host), ages in sorted(groups.items(), key=str):
        about = _about(wanted.path, source)
        if several_hosts and host:
            about = f"{about} on {display_path(host)}"
        divided.append((about, ages + unknown))
    return divided


def _decide_source(
    wanted: BackupAgeOptions,
    about: str,
    response: list[Age] | Problem,
    now: float,
    options: NodeOptions,
) -> Check:
    """Return backup_age: what can't be read may be a good backup, so it is unknown."""
    if isinstance(response, Problem):
        text = f"Backups in {about}: {response}"
        return fault(CHECK, verdict.UNKNOWN, text, about, unknown_as=verdict.CRITICAL)
    verified = [
        age.created
        for age in response
        if age.verified
        and not age.unreadable
        and age.source is not None
        and age.created <= now + _AHEAD
    ]
    newest = max(verified, default=None)
    hours = None if newest is None else max(0.0, (now - newest) / 3600)
    limits = _limits(wanted, options)
    status = verdict.CRITICAL if hours is None else limits.level(hours)
    hidden = [
        age for age in response if age.unreadable and (newest is None or age.created > newest)
    ]
    if status != verdict.PASS and hidden:
        text = f"Backups in {about}: {hidden[0].unreadable}"
        return fault(CHECK, verdict.UNKNOWN, text, about, unknown_as=status)
    if hours is None or newest is None:
        return fault(CHECK, verdict.CRITICAL, _nothing(about, response, now), about)
    text = f"Newest verified backup in {about}: {hours:.1f} hours old"
    details = {"created": isoformat(newest)}
    return thresholds.evaluate(limits, CHECK, hours, text, status, subject=about, details=details)


def _limits(wanted: BackupAgeOptions, options: NodeOptions) -> thresholds.Limits:
    """Return the limits of a directory: its own, else those of the check."""
    limits = options.limits_in_force[CHECK]
    if wanted.warning is not None:
        limit = thresholds.parse(f"{wanted.warning:g}")
        limits = replace(limits, warning=limit, source="user")
    if wanted.critical is not None:
        limit = thresholds.parse(f"{wanted.critical:g}")
        limits = replace(limits, critical=limit, source="user")
    return limits


def _nothing(about: str, response: list[Age], now: float) -> str:
    """Return why no backup counts."""
    if not response:
        return f"Backups in {about}: none"
    if any(age.verified and age.created > now + _AHEAD for age in response):
        return f"Backups in {about}: the verified ones are dated in the future"
    return f"Backups in {about}: {len(response)}, but none is complete and verified"
