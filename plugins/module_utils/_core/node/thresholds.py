# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Limits: plain numbers and the range syntax of the Nagios plugin guidelines."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from .. import verdict
from ..errors import OptionError
from ..records import dataclass
from ..verdict import Check

#: A range that nothing is outside of: the limit is off.
OFF = "~:"


@dataclass(frozen=True)
class Limit:
    """When a value is bad.

    ``low`` and ``high`` bound the good range, ends included (the bad one when ``inside``).
    A plain number has no range: the value is bad from ``high`` on upwards (from ``low`` on
    downwards where small is bad); ``plain`` then is that number.
    """

    text: str
    low: float
    high: float
    inside: bool = False
    plain: float | None = None

    def hit(self, value: float) -> bool:
        """Return whether ``value`` is bad."""
        if self.plain is not None:
            if math.isinf(self.low):
                return value >= self.high
            return value <= self.low
        return (self.low <= value <= self.high) is self.inside

    @property
    def reported(self) -> Any:
        """The limit as a check reports it.

        A number where it is one (bad from there upwards), else the range as text, None when off.
        """
        if self.plain is not None:
            number = int(self.plain) if self.plain == int(self.plain) else self.plain
            if math.isinf(self.low):
                return number
            return f"{number}:"
        if self.text == OFF:
            return None
        return self.text


def parse(given: Any, below: bool = False) -> Limit:
    """Read a limit.

    ``80``: bad from 80 on (with ``below``: bad at 80 and less). ``start:end``: bad outside;
    ``~`` is minus infinity, a missing end is infinity; ``@`` in front: bad inside. ``~:``
    switches the limit off.
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
    """The default limits of one check in ``unit``; ``below`` where small values are bad.

    ``action`` and ``domain`` are what the check reports when a limit is hit.
    """

    warning: str = OFF
    critical: str = OFF
    unit: str = ""
    below: bool = False
    action: str = "inspect"
    domain: str = "node"
    percent: bool = False


@dataclass(frozen=True)
class Limits:
    """The limits of one check in force.

    A raised state clears only when ``clear``, if given, is no longer hit.
    """

    rule: Rule
    warning: Limit
    critical: Limit
    source: str
    clear: Limit | None = None

    def level(self, value: float) -> str:
        """Return ``pass``, ``warning`` or ``critical`` for a value."""
        if self.critical.hit(value):
            return verdict.CRITICAL
        if self.warning.hit(value):
            return verdict.WARNING
        return verdict.PASS


def _crossed(warning: Limit, critical: Limit, below: bool) -> bool:
    """Return whether two plain limits are in the wrong order."""
    if warning.plain is None or critical.plain is None:
        return False
    if below:
        return warning.plain < critical.plain
    return warning.plain > critical.plain


def resolve(rules: Mapping[str, Rule], given: Mapping[str, Mapping[str, Any]]) -> dict[str, Limits]:
    """Return the limits in force of every check that has any: the given ones, else the defaults.

    :raises OptionError: a limit that can't be read, a percentage beyond 100, or a warning limit
        beyond the critical one.
    """
    return {name: _limits(name, rule, given.get(name, {})) for name, rule in rules.items()}


def _limits(name: str, rule: Rule, given: Mapping[str, Any]) -> Limits:
    warning = _limit(name, rule, "warning", _given(given, "warning", rule.warning))
    critical = _limit(name, rule, "critical", _given(given, "critical", rule.critical))
    clear = None
    if given.get("clear") is not None:
        clear = _limit(name, rule, "clear", given["clear"])
    if _crossed(warning, critical, rule.below):
        raise OptionError(
            f"The warning limit of {name} ({warning.text}) lies beyond its critical limit"
            f" ({critical.text}).",
            "Exchange or correct them.",
            name,
        )
    default = (warning.text, critical.text) == (rule.warning, rule.critical)
    return Limits(rule, warning, critical, "default" if default else "user", clear)


def _given(given: Mapping[str, Any], kind: str, default: str) -> Any:
    value = given.get(kind)
    if value is None:
        return default
    return value


def _limit(name: str, rule: Rule, kind: str, value: Any) -> Limit:
    """Return one limit, read and checked. :raises OptionError: it can't be used."""
    try:
        limit = parse(value, rule.below)
    except ValueError as error:
        raise OptionError(f"The {kind} limit of {name} can't be used: {error}.", "", name) from None
    if rule.percent and limit.plain is not None and not 0 <= limit.plain <= 100:
        raise OptionError(
            f"The {kind} limit of {name} is {limit.text}, but a percentage lies between 0 and 100.",
            "",
            name,
        )
    return limit


def percent(value: float, limits: Limits) -> str:
    """Return a percentage for people, never rounded across a limit: 79.6 is not 80%."""
    text = f"{value:.0f}"
    if limits.level(float(text)) == limits.level(value):
        return f"{text}%"
    return f"{math.floor(value * 10) / 10:.1f}%"


def evaluate(
    limits: Limits, check: str, value: float, message: str, status: str | None = None, **more: Any
) -> Check:
    """Return the check for a measured value, which is rounded to what people read.

    :param status: overrides what the limits say.
    """
    if status is None:
        status = limits.level(value)
    if status in (verdict.WARNING, verdict.CRITICAL):
        more = {"action": limits.rule.action, "domain": limits.rule.domain, **more}
    if isinstance(value, float):  # mutant: equivalent because whole numbers stay as they are
        value = round(value, 2 if abs(value) >= 1 else 6)
    return Check(
        check,
        status,
        message,
        value=value,
        unit=limits.rule.unit or None,
        warn=limits.warning.reported,
        crit=limits.critical.reported,
        threshold_source=limits.source,
        **more,
    )


def fault(
    check: str,
    status: str,
    message: str,
    subject: str | None = None,
    action: str = "inspect",
    domain: str = "node",
    **more: Any,
) -> Check:
    """Return a check that did not pass: by default somebody has to inspect the node."""
    return Check(check, status, message, subject, action=action, domain=domain, **more)


def passed(check: str, message: str, subject: str | None = None, **more: Any) -> Check:
    """Return a check that passed."""
    return Check(check, verdict.PASS, message, subject, **more)


def skipped(check: str, message: str, subject: str | None = None) -> Check:
    """Return a check of something that does not exist here."""
    return Check(check, verdict.SKIPPED, message, subject)
