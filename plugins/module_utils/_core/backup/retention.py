# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which backups to remove: a pure function of the list, the rules and the time. A rule only ever keeps; what no rule keeps goes.

Whatever the rules say, these stay: the newest verified backup, the newest complete one, everything newer than the newest
verified one, and archives of the old scripts until a newer verified backup exists. One that a wrong clock has dated more than a
day ahead is never taken for the newest while there is another.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .catalogue import DAY, Backup, credible

#: Rule -> the local period a time lies in.
_PERIODS: tuple[tuple[str, str], ...] = (
    ("daily", "%Y-%m-%d"),
    ("weekly", "%G-%V"),
    ("monthly", "%Y-%m"),
    ("yearly", "%Y"),
)


@dataclass(frozen=True)
class Rules:
    """The retention options; 0 means that there is no such rule. With no rule at all everything is kept."""

    days: int = 30
    last: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0


@dataclass(frozen=True)
class Decision:
    """Whether one backup is kept, and why."""

    backup: Backup
    keep: bool
    reason: str


def decide(backups: Sequence[Backup], rules: Rules, now: float) -> list[Decision]:
    """Return a decision for each backup, newest first. :param now: seconds since the epoch."""
    ordered = sorted(backups, key=lambda one: (one.created, one.name), reverse=True)
    reasons: dict[str, str] = {}

    def keep(backup: Backup, reason: str) -> None:
        reasons.setdefault(backup.name, reason)

    complete = [one for one in ordered if one.complete]
    dated = [one for one in complete if credible(one, now)] or complete
    verified = next((one for one in (*dated, *complete) if one.verified), None)
    if verified is not None:
        keep(verified, "newest verified backup")
    if dated:
        keep(dated[0], "newest backup")
    for one in ordered:
        if one.unreadable:
            keep(one, "this user may not read it")
        if verified is None and one.manifest is None:
            keep(one, "no newer backup is verified")
        elif verified is not None and (one.created, one.name) > (verified.created, verified.name):
            keep(one, "newer than the newest verified backup")
        elif not complete:
            keep(one, "there is no complete backup")

    if rules.days:
        for one in ordered:
            if now - one.created <= rules.days * DAY:
                keep(one, f"at most {rules.days} days old")
    good = [one for one in ordered if one.complete or one.legacy]
    for one in good[: rules.last]:
        keep(one, f"one of the last {rules.last}")
    for name, form in _PERIODS:
        _periodic(good, getattr(rules, name), name, _period(form), keep)
    if rules == Rules(days=0):
        for one in ordered:
            keep(one, "no retention rule is set")
    return [
        Decision(one, one.name in reasons, reasons.get(one.name) or _why_not(one, rules, now))
        for one in ordered
    ]


def _period(form: str) -> Callable[[Backup], str]:
    return lambda one: time.strftime(form, time.localtime(one.created))


def _periodic(
    good: Sequence[Backup],
    count: int,
    name: str,
    period: Callable[[Backup], str],
    keep: Callable[[Backup, str], None],
) -> None:
    """Keep the newest backup of each of the newest C(count) periods that have one; the oldest of all while there are fewer."""
    if count <= 0 or not good:
        return
    seen: list[str] = []
    for one in good:
        if period(one) not in seen:
            if len(seen) == count:
                return
            seen.append(period(one))
            keep(one, f"one of the last {count} {name} backups")
    keep(good[-1], f"oldest backup, while there are fewer than {count} {name} ones")


def _why_not(backup: Backup, rules: Rules, now: float) -> str:
    age = int((now - backup.created) // DAY)
    return (
        f"{age} days old, kept are {rules.days}"
        if rules.days
        else f"{age} days old, no rule keeps it"
    )
