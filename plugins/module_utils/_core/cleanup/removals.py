# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a plan consists of: what is removed and why, and what stays."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple, Union

from ..system.text import display_path, human_duration
from .facts import LeftoverFacts, TargetFacts
from .held import HeldUnit
from .targets import DAY
from .tool import Item
from .units import Unit
from .watermark import Watermark

#: Why a unit goes back that a stopped run had moved.
PUT_BACK = "put back: a run was interrupted before its removal, and it is not due"


class Kept(NamedTuple):
    """A unit that stays, and why."""

    target: str
    path: str
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of the result."""
        return {"target": self.target, "path": display_path(self.path), "reason": self.reason}


class UnitRemoval(NamedTuple):
    """A unit of a directory that is removed.

    There may be hundreds of thousands, so that everything but the survey is computed when it is
    asked for.
    """

    place: TargetFacts
    survey: Unit
    now: float
    why: str = ""

    @property
    def target(self) -> str:
        """Name of its target."""
        return self.place.target.name

    @property
    def path(self) -> str:
        """Its path, without symbolic links."""
        return f"{self.place.path.rstrip('/')}/{self.survey.name}"

    @property
    def kind(self) -> str:
        """``dir``, ``link`` or ``file``."""
        return self.survey.kind

    @property
    def size(self) -> int:
        """Allocated bytes as du(1) counts them."""
        return self.survey.disk_usage

    @property
    def age(self) -> float:
        """Seconds since the newest change."""
        return max(0.0, self.now - self.survey.newest / 10**9)

    @property
    def reason(self) -> str:
        """Why it is removed."""
        retention = self.place.target.retention
        reason = f"{days(self.age)} old, kept {days(retention)}"
        if retention == 0:
            reason = "always removed"
            if self.why:
                reason = f"{days(self.age)} old"
        if self.why:
            return f"{reason}; {self.why}"
        return reason

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of the result."""
        return _entry(self)


class NamedRemoval(NamedTuple):
    """Something else that is removed: what a tool cleans, or what a stopped run left.

    ``size`` is in bytes, ``age`` in seconds (None when unknown).
    """

    target: str
    path: str
    kind: str
    size: int
    age: float | None
    reason: str
    survey: Unit | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of the result."""
        return _entry(self)


Removal = Union[UnitRemoval, NamedRemoval]


def _entry(removal: Removal) -> dict[str, Any]:
    return {
        "target": removal.target,
        "path": display_path(removal.path),
        "kind": removal.kind,
        "size": removal.size,
        "files": None if removal.survey is None else removal.survey.files,
        "age_days": None if removal.age is None else round(removal.age / DAY, 3),
        "reason": removal.reason,
    }


class Recovery(NamedTuple):
    """What happens with what a stopped run left in a quarantine directory.

    ``begun``: its removal had begun and continues. ``due``: was only moved, and is removed.
    ``back`` (target, name): was only moved, and is put back.
    """

    facts: LeftoverFacts
    begun: tuple[NamedRemoval, ...]
    due: tuple[NamedRemoval, ...]
    back: tuple[tuple[str, str], ...]


@dataclass
class Plan:
    """What is removed and what stays, in the order of the targets, oldest first.

    ``matched`` counts units by target name. ``units`` are the removals of each directory, ``tools``
    the items by tool name. ``braked`` says what exceeds the brake, empty when nothing does;
    otherwise nothing may be removed, and ``allow`` says how to allow it.
    """

    remove: list[Removal] = field(default_factory=list)
    keep: list[Kept] = field(default_factory=list)
    matched: dict[str, int] = field(default_factory=dict)
    units: list[tuple[TargetFacts, list[UnitRemoval]]] = field(default_factory=list)
    tools: dict[str, list[tuple[Item, NamedRemoval]]] = field(default_factory=dict)
    recoveries: list[Recovery] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    braked: str = ""
    allow: str = ""
    #: Units in quarantine that are removed for good.
    purge: list[tuple[HeldUnit, NamedRemoval]] = field(default_factory=list)
    #: Name of the run whose units are kept in quarantine, and for how many seconds; "" and 0 when
    #: they are not kept.
    run: str = ""
    held_for: int = 0
    #: The levels of file systems, and by st_dev what only its age or a policy keeps, with the
    #: newest time in it.
    watermarks: list[Watermark] = field(default_factory=list)
    following: dict[int, list[tuple[int, Kept]]] = field(default_factory=dict)

    def of(self, target: str) -> list[Removal]:
        """Return what is removed from one target."""
        return [removal for removal in self.remove if removal.target == target]


def days(seconds: float) -> str:
    """Return a time as days, or below one day as hours, minutes or seconds."""
    if seconds >= DAY:
        return f"{seconds / DAY:.1f} days"
    return human_duration(seconds)
