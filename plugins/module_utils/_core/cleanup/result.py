# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a cleanup returns."""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass
from itertools import chain
from typing import Any

from ..system.text import display_path, human_count, human_size
from ..verdict import isoformat
from .facts import Facts
from .held import HeldEntry
from .history import Amount
from .options import CleanupOptions
from .outcome import Failure, Outcome
from .removals import Plan, Removal, UnitRemoval

#: Entries of each list in the result; the report has all.
LISTED = 1000
#: Entries of the list of the largest removed units.
LARGEST = 20


@dataclass
class CleanupResult:
    """What a cleanup did, or in check mode would do."""

    options: CleanupOptions
    timestamp: str
    hostname: str
    facts: Facts
    plan: Plan
    outcome: Outcome
    check: bool

    @property
    def changed(self) -> bool:
        """Whether something was removed or put back, or would be."""
        back = any(recovery.back for recovery in self.plan.recoveries)
        return bool(self.outcome.removed or self.outcome.restored or back)

    @property
    def quarantined(self) -> list[HeldEntry]:
        """What is in quarantine afterwards, the oldest first."""
        gone = self.outcome.purged | {unit.path for unit in self.outcome.restored}
        entries = [
            HeldEntry(
                unit.target or held.target.name,
                unit.original,
                held.hold.run,
                max(0, unit.size),
                held.hold.since,
                held.hold.until,
            )
            for held in self.facts.held
            for unit in held.units
            if unit.path not in gone
        ]
        now = float(int(self.facts.now))
        entries.extend(
            HeldEntry(
                removal.target,
                removal.path,
                self.plan.run,
                removal.size,
                now,
                now + self.plan.held_for,
            )
            for removal in self.outcome.held
        )
        return sorted(entries, key=lambda entry: (entry.since, entry.run, entry.path))

    @property
    def failures(self) -> list[Failure]:
        """What could not be done."""
        failures = [
            Failure(place.target.name, place.target.path, place.note)
            for place in self.facts.targets
            if place.state == "failed"
        ]
        return failures + self.outcome.failures

    def to_dict(self, limit: int | None = LISTED) -> dict[str, Any]:
        """Return the module's result; lists end after ``limit`` entries, their lengths are in ``*_count``."""
        kept = self.plan.keep + self.outcome.kept
        failures = self.failures
        result: dict[str, Any] = {
            "changed": self.changed,
            "plan": [removal.to_dict() for removal in self.plan.remove[:limit]],
            "plan_count": len(self.plan.remove),
            "removed": [removal.to_dict() for removal in self.outcome.removed[:limit]],
            "removed_count": len(self.outcome.removed),
            **self._largest(),
            "kept": [unit.to_dict() for unit in kept[:limit]],
            "kept_count": len(kept),
            "failures": [failure.to_dict() for failure in failures[:limit]],
            "freed_bytes": sum(self.outcome.freed.values()),
            "filesystems": self.outcome.filesystems,
            "targets": self._targets(),
            "notes": self.plan.notes,
        }
        if self.plan.watermarks:
            result["watermarks"] = [level.to_dict() for level in self.plan.watermarks]
        if self.options.quarantine or self.options.state == "restored" or self.facts.held:
            held = self.quarantined
            result["quarantined"] = [entry.to_dict() for entry in held[:limit]]
            result["quarantined_count"] = len(held)
            result["quarantined_bytes"] = sum(entry.size for entry in held)
            if held:
                result["notes"] = [*result["notes"], _held_note(held)]
        if self.options.state == "restored":
            restored = self.outcome.restored
            result["restored"] = [
                {
                    "target": unit.target,
                    "path": display_path(unit.original),
                    "run": unit.hold.run,
                    "size": max(0, unit.size),
                }
                for unit in restored[:limit]
            ]
            result["restored_count"] = len(restored)
        if failures:
            result["failed"] = True
            result["msg"] = self.message()
        return result

    def _largest(self) -> dict[str, Any]:
        """Return the largest of the removed units, where there are any."""
        removed = self.outcome.removed
        if not removed:
            return {}
        largest = heapq.nlargest(LARGEST, removed, key=_size)
        return {"largest": [removal.to_dict() for removal in largest]}

    def message(self) -> str:
        """Return one line about what failed."""
        first = self.failures[0]
        more = ""
        if len(self.failures) > 1:
            more = f" (and {len(self.failures) - 1} more)"
        return f"{len(self.failures)} of the cleanup's tasks failed: {display_path(first.path)}: {first.error}{more}."

    def diff(self) -> dict[str, str]:
        """Return the removed units as lines that disappear."""
        lines = "".join(f"{display_path(removal.path)}\n" for removal in self.outcome.removed)
        return {
            "before_header": "units to remove",
            "after_header": "units to remove",
            "before": lines,
            "after": "",
        }

    def report(self, limit: int | None = None) -> dict[str, Any]:
        """Return the whole report, by default nothing left out; otherwise lists end after ``limit`` entries."""
        return {
            "timestamp": self.timestamp,
            "hostname": self.hostname,
            "options": self.options.to_dict(),
            **self.to_dict(limit),
        }

    def _planned(self) -> tuple[Counter[str], Counter[str]]:
        """Return the numbers of units to remove, and their bytes, by target."""
        planned: Counter[str] = Counter()
        sizes: Counter[str] = Counter()
        for place, removals in self.plan.units:
            planned[place.target.name] += len(removals)
            sizes[place.target.name] += sum(map(_size, removals))
        for removal in self.plan.remove:
            if not isinstance(removal, UnitRemoval):
                planned[removal.target] += 1
                sizes[removal.target] += removal.size
        return planned, sizes

    def _targets(self) -> list[dict[str, Any]]:
        failed = {failure.target for failure in self.failures}
        removed = self.outcome.amounts
        nothing = Amount(0, 0)
        kept = Counter(unit.target for unit in chain(self.plan.keep, self.outcome.kept))
        planned, sizes = self._planned()
        rows = [
            (place.target.name, place.path or place.target.path, place.state, place.note)
            for place in self.facts.targets
        ]
        rows += [(tool.name, tool.root, tool.state, tool.note) for tool in self.facts.tools]
        return [
            {
                "name": name,
                "root": display_path(root),
                "status": "failed" if name in failed else state,
                "note": note,
                "matched_count": self.plan.matched.get(name, 0),
                "planned_count": planned[name],
                "planned_bytes": sizes[name],
                "removed_count": removed.get(name, nothing).units,
                "kept_count": kept[name],
                "freed_bytes": self.outcome.freed.get(name, 0),
            }
            for name, root, state, note in rows
        ]


def _size(removal: Removal) -> int:
    """Return the size of a removal; asked for hundreds of thousands of files."""
    if isinstance(removal, UnitRemoval) and removal.survey.linked is None:
        return removal.survey.size
    return removal.size


def _held_note(held: list[HeldEntry]) -> str:
    size = sum(entry.size for entry in held)
    first = min(entry.until for entry in held)
    verb = "use"
    if len(held) == 1:
        verb = "uses"
    return (
        f"{human_count(len(held), 'unit')} in quarantine still {verb} {human_size(size)};"
        f" removal begins after {isoformat(first)}. mlfleet cleanup --undo brings them back."
    )
