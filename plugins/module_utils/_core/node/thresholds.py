# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Limits: plain numbers and the range syntax of the Nagios plugin guidelines, and the default limits of every check."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .. import verdict
from ..errors import OptionError
from ..verdict import Check

#: A range that nothing is outside of: the limit is off.
OFF = "~:"


@dataclass(frozen=True)
class Limit:
    """When a value is bad.

    C(low) and C(high) bound the good range, ends included (the bad one when C(inside)). A plain number has no range: the value is bad
    from C(high) on upwards (C(low) on downwards where small is bad); C(plain) then is that number.
    """

    text: str
    low: float
    high: float
    inside: bool = False
    plain: float | None = None

    def hit(self, value: float) -> bool:
        """Say whether C(value) is bad."""
        if self.plain is not None:
            return value >= self.high if math.isinf(self.low) else value <= self.low
        return (self.low <= value <= self.high) is self.inside

    @property
    def shown(self) -> Any:
        """The limit as a check carries it: a number where it is one (bad from there upwards), else the range as text, None when it is off."""
        if self.plain is not None:
            number = int(self.plain) if self.plain == int(self.plain) else self.plain
            return number if math.isinf(self.low) else f"{number}:"
        return None if self.text == OFF else self.text


def parse(given: Any, below: bool = False) -> Limit:
    """Read a limit.

    C(80): bad from 80 on (with C(below): bad at 80 and less). C(start:end): bad outside; C(~) is minus infinity, a missing end is
    infinity; C(@) in front: bad inside. C(~:) switches the limit off.
    Source: Monitoring Plugins Development Guidelines, "Threshold and Ranges".

    :raises ValueError: it is none of these.
    """
    text = str(given).strip()
    inside = text.startswith("@")
    body = text[1:] if inside else text
    start, colon, end = body.partition(":")
    try:
        if not colon:
            number = float(start)
            if not math.isfinite(number):
                raise ValueError
            if inside:
                return Limit(text, 0.0, number, True)
            return Limit(
                text, number if below else -math.inf, math.inf if below else number, plain=number
            )
        low = -math.inf if start == "~" else float(start or 0)
        high = float(end) if end else math.inf
        if math.isnan(low) or math.isnan(high) or low > high:
            raise ValueError
    except ValueError:
        raise ValueError(
            f"{text!r} is neither a number nor a range such as 10:20, ~:5 or @5:10"
        ) from None
    return Limit(text, low, high, inside)


@dataclass(frozen=True)
class Rule:
    """How one check is judged: limits in C(unit), C(below) where small values are bad; C(action) and C(domain) when they are hit."""

    warning: str = OFF
    critical: str = OFF
    unit: str = ""
    below: bool = False
    action: str = "inspect"
    domain: str = "node"
    percent: bool = False


#: Default limits. Those with an option of their own (disk, memory) get them from there.
RULES: dict[str, Rule] = {
    "disk_usage": Rule("80", "90", "%", action="free_space", percent=True),
    "inode_usage": Rule("80", "90", "%", action="free_space", percent=True),
    "memory_usage": Rule("85", "95", "%", action="restart_app", domain="user", percent=True),
    "swap_usage": Rule("80", OFF, "%", action="restart_app", domain="user", percent=True),
    "memory_pressure": Rule("5", "20", "%", action="restart_app", domain="user", percent=True),
    "io_pressure": Rule("50", OFF, "%", domain="user", percent=True),
    "cpu_pressure": Rule(OFF, OFF, "%", domain="user", percent=True),
    "cpu_load": Rule("1.5", OFF, domain="user"),
    "failed_units": Rule("1"),
    "flapping_units": Rule("1"),
    "oom_kills": Rule("1", "10", action="restart_app", domain="user"),
    "journal_errors": Rule("100"),
    "stuck_processes": Rule("1", "10"),
    "zombie_processes": Rule("100", "1000", action="restart_app", domain="user"),
    "file_descriptors": Rule("80", "95", "%", action="restart_app", domain="user", percent=True),
    "process_ids": Rule("80", "95", "%", action="restart_app", domain="user", percent=True),
    "conntrack": Rule("80", "95", "%", domain="user", percent=True),
    "time_sync": Rule("0.1", "1", "s"),
    "memory_errors": Rule("100", OFF, "per day"),
    "disk_wear": Rule("90", "100", "%", percent=True),
    "uptime": Rule(unit="days"),
    "certificate": Rule("21", "7", "days", below=True),
    "security_updates": Rule("1"),
}


@dataclass(frozen=True)
class Limits:
    """The limits of one check in force. C(clear), when given, must not be hit any more before a raised state may clear."""

    rule: Rule
    warning: Limit
    critical: Limit
    source: str
    clear: Limit | None = None

    def level(self, value: float) -> str:
        """Return C(pass), C(warning) or C(critical) for a value."""
        if self.critical.hit(value):
            return verdict.CRITICAL
        return verdict.WARNING if self.warning.hit(value) else verdict.PASS


def _crossed(warning: Limit, critical: Limit, below: bool) -> bool:
    """Whether two plain limits stand in the wrong order."""
    if warning.plain is None or critical.plain is None:
        return False
    return warning.plain < critical.plain if below else warning.plain > critical.plain


def resolve(given: Mapping[str, Mapping[str, Any]]) -> dict[str, Limits]:
    """Return the limits in force for every check of RULES, the given ones laid over the defaults.

    :raises OptionError: a limit that can't be read, a percentage beyond 100, or a warning limit beyond the critical one.
    """
    found = {}
    for name, rule in RULES.items():
        own = given.get(name, {})
        read: dict[str, Limit | None] = {}
        for kind, default in (
            ("warning", rule.warning),
            ("critical", rule.critical),
            ("clear", None),
        ):
            value = own.get(kind)
            value = default if value is None else value
            if value is None:
                read[kind] = None
                continue
            try:
                limit = parse(value, rule.below)
            except ValueError as error:
                raise OptionError(
                    f"The {kind} limit of {name} can't be used: {error}.", "", name
                ) from None
            if rule.percent and limit.plain is not None and not 0 <= limit.plain <= 100:
                raise OptionError(
                    f"The {kind} limit of {name} is {limit.text}, but a percentage lies between 0 and 100.",
                    "",
                    name,
                )
            read[kind] = limit
        warning, critical = read["warning"], read["critical"]
        if warning is None or critical is None:  # both have defaults; said for the type checker
            continue
        if _crossed(warning, critical, rule.below):
            raise OptionError(
                f"The warning limit of {name} ({warning.text}) lies beyond its critical limit ({critical.text}).",
                "Exchange or correct them.",
                name,
            )
        source = (
            "user" if (warning.text, critical.text) != (rule.warning, rule.critical) else "default"
        )
        found[name] = Limits(rule, warning, critical, source, read["clear"])
    return found


def percent(value: float, limits: Limits) -> str:
    """Return a percentage as people read it, but never rounded across a limit: 79.6 does not read 80% where 80% would be a warning."""
    text = f"{value:.0f}"
    return (
        f"{text}%"
        if limits.level(float(text)) == limits.level(value)
        else f"{math.floor(value * 10) / 10:.1f}%"
    )


def judge(
    limits: Limits, check: str, value: float, message: str, status: str | None = None, **more: Any
) -> Check:
    """Return the check for a measured value; C(status) overrules what the limits say. C(value) is rounded to what people read."""
    status = limits.level(value) if status is None else status
    bad = status in (verdict.WARNING, verdict.CRITICAL)
    return Check(
        check,
        status,
        message,
        value=round(value, 2 if abs(value) >= 1 else 6) if isinstance(value, float) else value,
        unit=limits.rule.unit or None,
        warn=limits.warning.shown,
        crit=limits.critical.shown,
        threshold_source=limits.source,
        action=limits.rule.action if bad else "none",
        domain=limits.rule.domain if bad else None,
        **more,
    )
