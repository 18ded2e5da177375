# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a cleanup did."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .held import HeldUnit
from .history import Amount
from .removals import Kept, Removal, UnitRemoval
from .watermark import Freed

_NOTHING = Amount(0, 0)


class Failure(NamedTuple):
    """A unit that could not be removed, and why; ``path`` is where what remains of it is."""

    target: str
    path: str
    error: str

    def to_dict(self) -> dict[str, str]:
        """Return the entry of the result."""
        return {"target": self.target, "path": self.path, "error": self.error}


@dataclass
class Outcome:
    """What was done. ``freed`` is in bytes, by target name."""

    removed: list[Removal] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    freed: dict[str, int] = field(default_factory=dict)
    filesystems: list[dict[str, Any]] = field(default_factory=list)
    counted: Freed = field(default_factory=Freed)
    #: Units and bytes by target name, those in quarantine included.
    amounts: dict[str, Amount] = field(default_factory=dict)
    #: Called for everything that was removed, at once.
    record: Callable[[Removal, str], None] | None = None
    #: What was moved to quarantine, removed from it (by its path there), and brought back.
    held: list[Removal] = field(default_factory=list)
    purged: set[str] = field(default_factory=set)
    restored: list[HeldUnit] = field(default_factory=list)

    def hold(self, removal: Removal) -> None:
        """Note what was moved to quarantine, where it still uses its space."""
        self.count(removal.target, removal.size)
        self.removed.append(removal)
        self.held.append(removal)
        if self.record is not None:
            self.record(removal, "moved to quarantine")

    def all_gone(self, removals: Sequence[UnitRemoval]) -> None:
        """Count units of one target that were removed and recorded before; there may be hundreds of
        thousands.
        """
        if not removals:
            return
        size = 0
        for removal in removals:
            unit = removal.survey
            size += unit.size if unit.linked is None else self.counted.add(unit)
        target = removals[0].target
        self.freed[target] = self.freed.get(target, 0) + size
        units, total = self.amounts.get(target, _NOTHING)
        self.amounts[target] = Amount(units + len(removals), total + size)
        self.removed.extend(removals)

    def gone(self, removal: Removal) -> None:
        """Count what was removed; a file with several links when its last one was."""
        unit = removal.survey
        size = removal.size if unit is None else unit.size
        if unit is not None and unit.linked is not None:
            size = self.counted.add(unit)
        target = removal.target
        self.freed[target] = self.freed.get(target, 0) + size
        self.count(target, size)
        self.removed.append(removal)
        if self.record is not None:
            self.record(removal, "removed")

    def count(self, target: str, size: int) -> None:
        """Count a unit and its bytes."""
        units, total = self.amounts.get(target, _NOTHING)
        self.amounts[target] = Amount(units + 1, total + size)

    def keep(self, removal: Removal, reason: str) -> None:
        """Note that something stays after all."""
        self.kept.append(Kept(removal.target, removal.path, reason))

    def fail(self, target: str, path: str, error: object) -> None:
        """Note what could not be done."""
        text = str(error)
        if isinstance(error, OSError) and error.strerror:
            text = error.strerror
        self.failures.append(Failure(target, path, text))
