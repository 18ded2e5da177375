# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A program of the user's, called with severity and message as its last two arguments (the old scripts' custom handler)."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from ..errors import CommandFailed
from ..ports import World
from .channel import Channel, Undelivered
from .events import one_line
from .payloads import Unit, placeholders

#: The kernel takes 128 KiB per argument; nobody reads more than this.
_LONGEST = 8000


class Command(Channel):
    """Runs C(argv) with severity and message added; never through a shell."""

    kind = "command"

    def __init__(
        self,
        world: World,
        argv: Sequence[str],
        timeout: float,
        digest_after: int,
        withheld: Iterable[str] = (),
    ) -> None:
        super().__init__(world, "command", argv[0], "command " + "\0".join(argv), digest_after)
        self.argv = list(argv)
        self.timeout = timeout
        #: Environment variables that hold secrets of other channels; the program sees them empty.
        self.withheld = tuple(withheld)

    @property
    def budget(self) -> float:
        return super().budget + self.timeout

    def send(self, unit: Unit, deadline: float) -> str:
        message = (
            unit.events[0].message
            if len(unit.events) == 1
            else "\n".join([unit.title, *unit.lines])
        )
        environment = dict.fromkeys(
            (name for name in self.withheld if name in self.world.environ), ""
        )
        environment.update(
            {
                f"MLOPS_{name.upper()}": value[:_LONGEST]
                for name, value in placeholders(unit).items()
            }
        )
        timeout = min(self.timeout, deadline - time.monotonic())
        if timeout <= 0:
            raise Undelivered("no time left", passing=True)
        try:
            done = self.world.run(
                [*self.argv, unit.severity, message[:_LONGEST]],
                timeout=timeout,
                env=environment,
                stdin="",
            )
        except CommandFailed as error:
            raise Undelivered(error.message, passing=error.code != CommandFailed.MISSING) from None
        said = one_line(done.stdout[:2000].strip() + " " + done.stderr[:2000], 300)
        if done.returncode != 0:
            raise Undelivered(
                f"ended with {done.returncode}" + (f": {said}" if said else ""),
                passing=True,
                alone=True,
            )
        return "ended with 0" + (f": {said}" if said else "")
