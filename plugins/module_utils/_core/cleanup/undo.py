# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring units back from quarantine."""

from __future__ import annotations

import errno
from collections.abc import Sequence

from ..system.text import display_path
from .facts import Facts
from .held import HeldUnit
from .outcome import Outcome
from .removals import NamedRemoval


def restore(units: Sequence[HeldUnit], facts: Facts, check: bool, outcome: Outcome) -> None:
    """Bring units back from quarantine, or with ``check`` say which would come back.

    What can't be brought back stays where it is.
    """
    seen: set[str] = set()
    for unit in units:
        target = unit.target or next(
            held.target.name for held in facts.held if held.hold is unit.hold
        )
        try:
            if check:
                unit.hold.check(unit)
                if unit.original in seen:
                    raise FileExistsError(errno.EEXIST, "the path exists again")
                seen.add(unit.original)
            else:
                unit.hold.bring_back(unit)
        except OSError as error:
            why = f"it stays in quarantine ({display_path(unit.path)}): {error.strerror}"
            outcome.fail(target, unit.original, why)
            continue
        outcome.restored.append(unit._replace(target=target))
        if outcome.record is not None:
            why = f"run {unit.hold.run}"
            entry = NamedRemoval(target, unit.original, "", max(0, unit.size), None, why)
            outcome.record(entry, "brought back")
