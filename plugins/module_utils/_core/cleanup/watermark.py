# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Free a file system to a level: how much is needed, and which units go first. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from ..system.removal import Identity
from ..system.text import display_path, human_size
from .units import Unit

_FACTORS = {"k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
#: Units that would be next, in the result.
NEXT = 10


class Level(NamedTuple):
    """Free space: a share of the file system (0 to 1) or a number of bytes; the other is 0."""

    share: float
    size: int

    def of(self, total: int) -> int:
        """Return the level in bytes for a file system of this size."""
        return self.size or int(self.share * total)


class Space(NamedTuple):
    """A file system: a path on it, the bytes available to users, and those together with the used ones, as df(1) counts."""

    path: str
    available: int
    total: int


class Watermark(NamedTuple):
    """What freeing one file system to a level takes.

    ``goal`` and ``trigger`` are in bytes; ``freed`` is what is removed from it, ``moved`` what is moved to quarantine, where it still
    uses space. ``following`` are the units that would be next, and why they stay.
    """

    space: Space
    goal: int
    trigger: int
    freed: int = 0
    moved: int = 0
    following: tuple[tuple[str, str], ...] = ()

    @property
    def below(self) -> bool:
        """Whether so little is available that units are removed."""
        return self.space.available < self.trigger

    @property
    def needed(self) -> int:
        """The bytes to free."""
        if self.below:
            return max(0, self.goal - self.space.available)
        return 0

    @property
    def reached(self) -> bool:
        """Whether the level is reached when all that is planned is removed."""
        return self.freed >= self.needed

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of the result."""
        return {
            "path": display_path(self.space.path),
            "available": self.space.available,
            "free_to": self.goal,
            "when_below": self.trigger,
            "needed": self.needed,
            "freed": self.freed,
            "quarantined": self.moved,
            "reached": self.reached,
            "next": [
                {"path": display_path(path), "reason": reason}
                for path, reason in self.following[:NEXT]
            ],
        }

    def note(self) -> str:
        """Return what to know about it as one line."""
        space = f"{human_size(self.space.available)} of {display_path(self.space.path)}"
        if not self.below:
            return f"{space} are available, which is not below {human_size(self.trigger)}."
        if self.reached:
            return ""
        if self.moved:
            return (
                f"{space} are available; {human_size(self.moved)} were chosen for quarantine to reach {human_size(self.goal)}"
                " and use that space until their time is over, or the next cleanup needs it."
            )
        why = (
            f"{space} are available, and all that may be removed frees {human_size(self.freed)}:"
            f" the level of {human_size(self.goal)} can't be reached."
        )
        if self.following:
            path, reason = self.following[0]
            why += f" Next would be {display_path(path)} ({reason})."
        return why


def parse_level(text: str) -> Level | None:
    """Return ``20%``, ``500G``, ``1.5 TiB``, ``200GB`` or a number of bytes as a level, None when it is none of them."""
    text = text.strip()
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", text)
    if match:
        share = float(match.group(1)) / 100
        if 0 < share < 1:
            return Level(share, 0)
        return None
    match = re.fullmatch(r"(?i)(\d+(?:\.\d+)?)\s*([kmgtp]?)(ib|b)?", text)
    if match is None:
        return None
    base = 1024
    if (match.group(3) or "").lower() == "b":
        base = 1000
    factor = 1
    if match.group(2):
        factor = base ** _FACTORS[match.group(2).lower()]
    size = int(float(match.group(1)) * factor)
    if size > 0:
        return Level(0.0, size)
    return None


class Freed:
    """Counts the bytes that removals free: a file with several links when its last one goes."""

    def __init__(self) -> None:
        self.links: dict[Identity, int] = {}

    def add(self, unit: Unit) -> int:
        """Return the bytes that this unit frees after those before it."""
        size = unit.size
        if unit.linked is not None:
            for key, (count, seen, allocated) in unit.linked.items():
                self.links[key] = self.links.get(key, 0) + seen
                if self.links[key] >= count:
                    size += allocated
        return size


def needed_first(
    units: Iterable[tuple[bool, Unit, int]],
    needed: int,
    usable: Callable[[int], bool] = lambda number: True,
) -> tuple[list[int], int]:
    """Return the numbers of the units to remove until so many bytes are free, and how many bytes that frees.

    :param units: whether it is complete, what it holds, and its number. Incomplete ones go first, then the oldest.
    :param usable: whether the unit of a number may be removed; asked only where it would be.
    """
    order: Sequence[tuple[bool, Unit, int]] = sorted(
        units, key=lambda unit: (unit[0], unit[1].newest, unit[1].name)
    )
    freed, chosen, count = 0, [], Freed()
    for dummy, survey, number in order:
        if freed >= needed:
            break
        if not usable(number):
            continue
        freed += count.add(survey)
        chosen.append(number)
    return chosen, freed
