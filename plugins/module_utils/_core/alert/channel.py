# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all channels share: how a delivery ends, repeated attempts within a time budget, and the loop over messages."""

from __future__ import annotations

import contextlib
import random
import signal
import time
from collections.abc import Callable, Iterable, Iterator, MutableSequence, Sequence
from typing import Any, TypeVar

from ..errors import FleetError
from ..ports import World
from .events import Event
from .payloads import Unit
from .secret import hide

SENT = "sent"
SKIPPED = "skipped"
FAILED = "failed"
QUEUED = "queued"
WOULD_SEND = "would_send"

#: Seconds one channel may take for all its messages of a run, attempts and pauses included.
BUDGET = 60.0
_FIRST_PAUSE = 0.5
#: Seconds after the budget at which a message still on its way is given up.
_LATE = 1.0

_T = TypeVar("_T")


class Undelivered(Exception):
    """A message did not arrive.

    :param detail: why, for people; never holds a secret.
    :param passing: it may work later (queue it), as opposed to: it never will like this.
    :param wait: seconds the other side asks us to wait, if it did.
    :param alone: only this message was not taken: the other side is there, and the next message deserves a try.
    :param left: marks of the recipients who still have to get it, when others have it already.
    """

    def __init__(
        self,
        detail: str,
        passing: bool,
        wait: float | None = None,
        alone: bool = False,
        left: Sequence[str] = (),
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.passing = passing
        self.wait = wait
        self.alone = alone
        self.left = tuple(left)


class Absent(Exception):
    """This host has nothing that could take the message (no journal): the channel is skipped."""


class Channel:
    """One way to reach people. Subclasses say how events become messages and send one message."""

    kind = ""

    def __init__(
        self, world: World, name: str, target: str, identity: str, digest_after: int = 5
    ) -> None:
        self.world = world
        #: As shown in results. C(target) is an address without anything secret in it.
        self.name = name
        self.target = target
        #: What the channel's undelivered messages are filed under (after hashing where it is secret).
        self.identity = identity
        self.digest_after = digest_after
        #: Further attempts for each message.
        self.retries = 0
        #: Set by a channel that delivered a message, but not to everybody it should have reached, and never will.
        self.incomplete = ""
        #: Names a recipient in the state file without showing the address.
        self.mark: Callable[[str], str] = str
        #: Texts that must not appear in any detail; filled when the secrets are read.
        self.secrets: set[str] = set()

    @property
    def budget(self) -> float:
        """Seconds for all messages together."""
        return BUDGET

    def wants(self, event: Event) -> bool:  # noqa: ARG002  # pylint: disable=unused-argument
        """Say whether this event goes to this channel at all."""
        return True

    def units(self, events: Sequence[Event], still_open: Iterable[str]) -> list[Unit]:  # noqa: ARG002  # pylint: disable=unused-argument
        """Return the messages that tell these events."""
        from .payloads import separate

        return separate(events, self.digest_after)

    def open(self) -> None:
        """Read secrets, before the first message. :raises FleetError: a secret can't be read."""

    def send(self, unit: Unit, deadline: float) -> str:
        """Send one message; return a short detail. C(deadline) is on the monotonic clock.

        :raises Undelivered: it did not arrive. :raises Absent: nothing there to take it.
        """
        raise NotImplementedError

    def deliver(self, units: Sequence[Unit], arrived: MutableSequence[int]) -> list[dict[str, Any]]:
        """Send all messages; return status, detail and keys for each. Runs in a child process of its own.

        When the other side is away, the rest is queued without trying: it would only add its time-outs to those of the first. When it is
        there and did not take one message, the next ones get one attempt each: a message that it never takes must not hold up all others.

        :param arrived: shared with the parent, which kills a child that hangs: set to 1 for each message as soon as it is sent.
        """
        deadline = time.monotonic() + self.budget
        found: list[dict[str, Any]] = []
        down = ""
        try:
            self.open()
        except FleetError as error:
            return [answer_for(unit, FAILED, hide(str(error), self.secrets)) for unit in units]
        for place, unit in enumerate(units):
            status = SENT
            left: Sequence[str] = ()
            self.incomplete = ""
            if down:
                status, detail = QUEUED, down
            else:
                try:
                    with _alarm(deadline + _LATE):
                        detail = self.send(unit, deadline)
                    arrived[place] = 1
                except Absent as error:
                    status, detail = SKIPPED, str(error)
                except Undelivered as error:
                    status, detail, left = (
                        QUEUED if error.passing else FAILED,
                        error.detail,
                        error.left,
                    )
                    if error.passing:
                        self.retries = 0
                        down = "" if error.alone else detail
                except Exception as error:  # noqa: BLE001  # one channel must never stop the others; texts of strangers may hold secrets
                    status, detail = FAILED, f"unexpected {type(error).__name__} while sending"
            found.append(
                {
                    **answer_for(unit, status, hide(detail, self.secrets)),
                    "left": list(left),
                    "incomplete": self.incomplete,
                }
            )
        return found


def answer_for(unit: Unit, status: str, detail: str) -> dict[str, Any]:
    """Return what became of one message, as plain data. C(left): see Undelivered, C(incomplete): see Channel."""
    return {"status": status, "detail": detail, "keys": unit.keys, "left": [], "incomplete": ""}


@contextlib.contextmanager
def _alarm(end: float) -> Iterator[None]:
    """Interrupt the body at C(end) (monotonic clock): a time-out per answer does not stop a server that sends a byte now and then.

    :raises Undelivered: it was interrupted.
    """

    def ring(*_given: Any) -> None:
        raise Undelivered("no complete answer in time", passing=True)

    before = signal.signal(signal.SIGALRM, ring)
    try:
        # Again every second: what cleans up after the first one may hang as well.
        signal.setitimer(signal.ITIMER_REAL, max(0.01, end - time.monotonic()), 1.0)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def attempts(action: Callable[[], _T], retries: int, deadline: float) -> _T:
    """Call C(action) until it works: C(retries) further times after failures that may pass, pausing 0.5, 1, 2... s with up to half as
    much again at random, so that a thousand nodes do not return in step. A wait that the other side asks for is honoured when it fits.

    :raises Undelivered: the last failure, or the first that can't pass or does not fit into the budget.
    """
    for attempt in range(retries + 1):
        try:
            return action()
        except Undelivered as error:
            pause = _FIRST_PAUSE * 2**attempt * (1 + random.random() / 2)  # noqa: S311  # not for secrecy
            if error.wait is not None:
                pause = error.wait + min(1.0, pause - _FIRST_PAUSE * 2**attempt)
            if not error.passing or attempt == retries or time.monotonic() + pause >= deadline:
                raise
            time.sleep(pause)
    raise Undelivered("no attempt was made", passing=True)
