# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What removing the units of one directory needs, and the decision that is made again right
before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..system.text import display_path
from .held import Compartment
from .inuse import InUse
from .plan import why_put_back
from .root import Root, exists
from .targets import Target, cutoff
from .units import Unit
from .watch import TreeWatch


@dataclass(frozen=True)
class Work:
    """What removing the units of one directory needs.

    ``busy`` reads the process table again (None: what is in use is not asked).
    """

    root: Root
    target: Target
    now: float
    busy: Callable[[], InUse | None]
    #: The unit of the root without which nothing in it may be removed, "" for none.
    anchor: str = ""
    #: Whether the files of units were compared with backups.
    covered: bool = False
    #: Where removed units are kept, None when they are not.
    compartment: Compartment | None = None
    #: Whether nothing but a file's own state decides about it, so that many files can be removed
    #: where they are.
    in_place: bool = False
    #: Watches the units since before they were looked at, None when nothing does.
    watch: TreeWatch | None = None

    @property
    def limit(self) -> int | None:
        """The newest time at which a unit is still due."""
        return cutoff(self.target, self.now)

    def decide(self, planned: Unit, unit: Unit, protected: dict[str, str]) -> str:
        """Return why a unit that was looked at again must stay, empty when it does not."""
        if self.anchor and not exists(self.anchor, self.root.fd):
            return f"{display_path(self.anchor)}, which was to stay, is gone"
        if self.covered and unit.content != planned.content:
            return "it was changed after it was compared with the backups"
        return why_put_back(planned, unit, self.limit, protected.get(planned.name, ""))
