# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The user's own program, called with severity and message as its last two arguments."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from ..errors import CommandFailed
from ..ports import World
from .channel import Channel, Outlook, Undelivered
from .events import one_line
from .messages import Message, listing
from .template import placeholders

#: Characters of an argument; the kernel takes 128 KiB.
_LONGEST = 8000


class Command(Channel):
    """Runs ``argv`` with severity and message added; never through a shell."""

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

    def send(self, message: Message, deadline: float) -> str:
        text = message.events[0].message
        if len(message.events) > 1:
            lines = listing(message, _LONGEST - len(message.title) - 1, str, len(message.events))
            text = f"{message.title}\n{lines}"
        environment = {name: "" for name in self.withheld if name in self.world.environ}
        for name, value in placeholders(message).items():
            environment[f"MLOPS_{name.upper()}"] = value[:_LONGEST]
        timeout = min(self.timeout, deadline - time.monotonic())
        if timeout <= 0:
            raise Undelivered("no time left")
        argv = [*self.argv, message.severity, text[:_LONGEST]]
        try:
            result = self.world.run(argv, timeout=timeout, env=environment, stdin="")
        except CommandFailed as error:
            missing = error.code == CommandFailed.MISSING
            outlook = Outlook.CURABLE if missing else Outlook.PASSING
            raise Undelivered(error.message, outlook) from None
        output = one_line(result.stdout[:2000].strip() + " " + result.stderr[:2000], 300)
        detail = f"ended with {result.returncode}"
        if output:
            detail += f": {output}"
        if result.returncode != 0:
            raise Undelivered(detail, alone=True)
        return detail
