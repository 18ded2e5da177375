# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The shape in which every part reports: checks, their summary, and the document around them.

Status order, counting rules and the score are fixed. ``skipped`` means that the thing does not
exist here; it is not in ``total``. ``unknown`` means that it exists and could not be checked; it
counts as a warning, or as critical where a check says so (GPU, storage).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from .records import dataclass, field
from .system.text import one_line

PASS = "pass"
WARNING = "warning"
CRITICAL = "critical"
UNKNOWN = "unknown"
SKIPPED = "skipped"

#: All statuses a check can have, best first.
STATUSES = (SKIPPED, PASS, UNKNOWN, WARNING, CRITICAL)
#: Actions, mildest first; the order decides which one a summary recommends.
ACTIONS = ("none", "restart_app", "free_space", "inspect", "reset_gpu", "drain", "reboot")
EXIT_CODES = {SKIPPED: 0, PASS: 0, WARNING: 1, CRITICAL: 2}


@dataclass(frozen=True)
class Check:
    """The result of one check.

    ``check`` is a stable name; ``subject`` says which GPU, mount or unit. ``value``, ``warn`` and
    ``crit`` are numbers in ``unit``, or text. ``unknown_as`` says what ``unknown`` counts as.
    ``domain`` is ``node`` (the machine is at fault) or ``user`` (a workload is). ``since`` is when
    the state began (ISO 8601).
    """

    check: str
    status: str
    message: str
    subject: str | None = None
    value: Any = None
    unit: str | None = None
    warn: Any = None
    crit: Any = None
    threshold_source: str | None = None
    action: str = "none"
    domain: str | None = None
    since: str | None = None
    duration_ms: float | None = None
    details: Mapping[str, Any] | None = None
    unknown_as: str = WARNING

    def __post_init__(self) -> None:
        for name, allowed in (
            ("status", STATUSES),
            ("action", ACTIONS),
            ("unknown_as", (WARNING, CRITICAL)),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"{name} of check {self.check!r} is {getattr(self, name)!r},"
                    f" not one of {', '.join(allowed)}"
                )
        object.__setattr__(self, "message", one_line(self.message))

    @property
    def counts_as(self) -> str:
        """The status for counting: what ``unknown`` counts as, else the status itself."""
        if self.status == UNKNOWN:
            return self.unknown_as
        return self.status

    def to_dict(self) -> dict[str, Any]:
        """Return the check without the fields that do not apply to it (None)."""
        return {
            name: value
            for name, value in vars(self).items()
            if value is not None and name != "unknown_as"
        }


def score(passed: int, warnings: int, failed: int) -> float | None:
    """Return the health score, 0 to 100 with two decimals; None without any check.

    Any critical: 50 (P + W/2) / N. Only warnings: max(50, 100 P / N). Else 100. Rounding never
    crosses a band: 100 means that all passed, [50, 100) that there are warnings only, and below 50
    that something is critical.
    """
    total = passed + warnings + failed
    if total == 0:
        return None
    if failed:
        return min(49.99, round(50.0 * (passed + warnings / 2.0) / total, 2))
    if warnings:
        return min(99.99, max(50.0, round(100.0 * passed / total, 2)))
    return 100.0


@dataclass(frozen=True)
class Summary:
    """Counts, score and overall verdict of a list of checks."""

    total: int
    passed: int
    warnings: int
    failed: int
    skipped: int
    health_score: float | None
    status: str
    exit_code: int

    @classmethod
    def of(cls, checks: Iterable[Check]) -> Summary:
        """Count the checks. ``status`` is the worst of them, ``skipped`` when none counts."""
        counts = dict.fromkeys(STATUSES, 0)
        for check in checks:
            counts[check.counts_as] += 1
        status = next((s for s in (CRITICAL, WARNING, PASS) if counts[s]), SKIPPED)
        return cls(
            total=counts[PASS] + counts[WARNING] + counts[CRITICAL],
            passed=counts[PASS],
            warnings=counts[WARNING],
            failed=counts[CRITICAL],
            skipped=counts[SKIPPED],
            health_score=score(counts[PASS], counts[WARNING], counts[CRITICAL]),
            status=status,
            exit_code=EXIT_CODES[status],
        )

    def to_dict(self) -> dict[str, Any]:
        """Return all eight fields by name."""
        return dict(vars(self))


def worst(statuses: Iterable[str]) -> str:
    """Return the worst of the statuses, ``skipped`` for none."""
    return max(statuses, key=STATUSES.index, default=SKIPPED)


def isoformat(epoch: float) -> str:
    """Return seconds since the epoch as ISO 8601 in UTC, whole seconds:
    ``2025-01-31T14:30:00+00:00``.
    """
    return time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(int(epoch)))


@dataclass(frozen=True)
class Document:
    """A complete report of one part on one host; ``extra`` has what only that part returns."""

    timestamp: str
    hostname: str
    checks: tuple[Check, ...]
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def summary(self) -> Summary:
        return Summary.of(self.checks)

    def to_dict(self) -> dict[str, Any]:
        """Return ``timestamp hostname checks summary status exit_code`` and the part's own keys."""
        summary = self.summary
        document: dict[str, Any] = {
            "timestamp": self.timestamp,
            "hostname": self.hostname,
            "checks": [check.to_dict() for check in self.checks],
            "summary": summary.to_dict(),
            "status": summary.status,
            "exit_code": summary.exit_code,
        }
        document.update(self.extra)
        return document


def fails(status: str, fail_on: str) -> bool:
    """Return whether a verdict of ``status`` is a failure for ``fail_on``."""
    if fail_on == "never":
        return False
    if fail_on == WARNING:
        return status not in (SKIPPED, PASS)
    return status not in (SKIPPED, PASS, WARNING)
