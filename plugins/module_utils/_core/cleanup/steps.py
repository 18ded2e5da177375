# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps that a unit takes once it was moved to the quarantine directory: back, into quarantine
for a time, or away.
"""

from __future__ import annotations

import os
from collections.abc import MutableSequence

from ..system.removal import remove
from .held import Compartment
from .outcome import Outcome
from .quarantine import Quarantine
from .removals import NamedRemoval, Removal, UnitRemoval
from .units import Unit


def updated(removal: UnitRemoval, unit: Unit) -> Removal:
    """Return a removal as it was planned, with what the unit held when it was looked at last."""
    if unit is removal.survey:
        return removal
    return NamedRemoval(
        removal.target, removal.path, removal.kind, removal.size, removal.age, removal.reason, unit
    )


def remove_directory(quarantine: Quarantine, name: str, removal: Removal, outcome: Outcome) -> None:
    """Remove a unit that is in ``new``."""
    try:
        os.rename(name, name, src_dir_fd=quarantine.new, dst_dir_fd=quarantine.doomed)
    except OSError as error:
        outcome.fail(removal.target, removal.path, error)
        return
    finish(quarantine, name, removal, outcome)


def keep(
    quarantine: Quarantine,
    compartment: Compartment,
    approved: MutableSequence[tuple[UnitRemoval, Unit]]
    | MutableSequence[tuple[NamedRemoval, Unit]],
    outcome: Outcome,
) -> None:
    """Move approved units from ``new`` to where they can be brought back from."""
    compartment.announce(
        [(unit.name, removal.target, unit.disk_usage) for removal, unit in approved]
    )
    while approved:
        removal, unit = approved.pop()
        try:
            os.rename(unit.name, unit.name, src_dir_fd=quarantine.new, dst_dir_fd=compartment.fd)
        except OSError as error:
            outcome.fail(removal.target, quarantine.place("new", unit.name), error)
        else:
            outcome.hold(removal)


def finish(quarantine: Quarantine, name: str, removal: Removal, outcome: Outcome) -> None:
    """Remove a unit that is in ``doomed``."""
    root = quarantine.root
    problems = remove(quarantine.doomed, name, root.device, root.mount)
    if problems:
        outcome.fail(removal.target, quarantine.place("doomed", name), "; ".join(problems))
    else:
        outcome.gone(removal)


def give_back(
    quarantine: Quarantine, name: str, removal: Removal, reason: str, outcome: Outcome
) -> None:
    try:
        quarantine.put_back(name)
    except OSError as error:
        outcome.fail(
            removal.target,
            quarantine.place("new", name),
            f"{reason}; and it could not be put back: {error.strerror}",
        )
    else:
        outcome.keep(removal, reason)
