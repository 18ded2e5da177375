# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which backups to remove: a pure function of the list, the rules and the time.

A rule only ever keeps; what no rule keeps is removed. Whatever the rules say, these stay: the
newest verified backup, the newest complete one, everything newer than the newest verified backup,
what this user may not read, and archives of the old scripts until a newer verified backup exists. A
backup that a wrong clock has dated more than a day ahead never counts as the newest while there is
another.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .catalogue import DAY, Backup, credible

if TYPE_CHECKING:
    from .options import RetentionOptions

#: Name and date format of the local period that a rule is about.
_PERIODS: tuple[tuple[str, str], ...] = (
    ("daily", "%Y-%m-%d"),
    ("weekly", "%G-%V"),
    ("monthly", "%Y-%m"),
    ("yearly", "%Y"),
)


@dataclass(frozen=True)
class Rules:
    """The retention options; 0 means that there is no such rule.

    Without any rule everything is kept.
    """

    days: int = 30
    last: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0


def rules(options: RetentionOptions) -> Rules:
    """Return the retention options as rules."""
    return Rules(
        days=options.retention_days,
        last=options.keep_last,
        daily=options.keep_daily,
        weekly=options.keep_weekly,
        monthly=options.keep_monthly,
        yearly=options.keep_yearly,
    )


@dataclass(frozen=True)
class Decision:
    """Whether one backup is kept, and why."""

    backup: Backup
    keep: bool
    reason: str


def decide(backups: Sequence[Backup], rules: Rules, now: float) -> list[Decision]:
    """Return a decision for each backup, newest first. :param now: seconds since the epoch."""
    ordered = sorted(backups, key=lambda backup: (backup.created, backup.name), reverse=True)
    reasons: dict[str, str] = {}

    def keep(backup: Backup, reason: str) -> None:
        reasons.setdefault(backup.name, reason)

    complete = [backup for backup in ordered if backup.complete]
    dated = [backup for backup in complete if credible(backup, now)] or complete
    verified = next((backup for backup in (*dated, *complete) if backup.verified), None)
    if verified is not None:
        keep(verified, "newest verified backup")
    if dated:
        keep(dated[0], "newest backup")
    for backup in ordered:
        if backup.unreadable:
            keep(backup, "this user may not read it")
        if verified is None and backup.manifest is None:
            keep(backup, "no newer backup is verified")
        elif verified is not None and (backup.created, backup.name) > (
            verified.created,
            verified.name,
        ):
            keep(backup, "newer than the newest verified backup")
        elif not complete:
            keep(backup, "there is no complete backup")

    if rules.days:
        for backup in ordered:
            if now - backup.created <= rules.days * DAY:
                keep(backup, f"at most {rules.days} days old")
    good = [backup for backup in ordered if backup.complete or backup.legacy]
    for backup in good[: rules.last]:
        keep(backup, f"one of the last {rules.last}")
    counts = (rules.daily, rules.weekly, rules.monthly, rules.yearly)
    for (period_name, date_format), count in zip(_PERIODS, counts):
        _periodic(good, count, period_name, _period(date_format), keep)
    if rules == Rules(days=0):
        for backup in ordered:
            keep(backup, "no retention rule is set")
    return [
        Decision(
            backup, backup.name in reasons, reasons.get(backup.name) or _why_not(backup, rules, now)
        )
        for backup in ordered
    ]


def _period(date_format: str) -> Callable[[Backup], str]:
    return lambda backup: time.strftime(date_format, time.localtime(backup.created))


def _periodic(
    good: Sequence[Backup],
    count: int,
    period_name: str,
    period: Callable[[Backup], str],
    keep: Callable[[Backup, str], None],
) -> None:
    """Keep the newest backup of each of the newest ``count`` periods that have any.

    While there are fewer periods, the oldest of all is kept too.
    """
    if not good:
        return
    seen: list[str] = []
    for backup in good:
        if period(backup) not in seen:
            if len(seen) == count:
                return
            seen.append(period(backup))
            keep(backup, f"one of the last {count} {period_name} backups")
    keep(good[-1], f"oldest backup, while there are fewer than {count} {period_name} ones")


def _why_not(backup: Backup, rules: Rules, now: float) -> str:
    age = int((now - backup.created) // DAY)
    if rules.days:
        return f"{age} days old, kept are {rules.days}"
    return f"{age} days old, no rule keeps it"
