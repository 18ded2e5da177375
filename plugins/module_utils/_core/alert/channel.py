# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all channels share: how a delivery ends, repeated attempts within a time budget, and the loop over messages."""

from __future__ import annotations

import contextlib
import random
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from ..errors import FleetError
from ..ports import World
from .events import Event
from .messages import Message, separate
from .secret import hide

if TYPE_CHECKING:
    import mmap

SENT = "sent"
SKIPPED = "skipped"
FAILED = "failed"
QUEUED = "queued"
WOULD_SEND = "would_send"

#: Seconds one channel may take for all its messages of a run, attempts and pauses included.
BUDGET = 60.0
_FIRST_PAUSE = 0.5
#: Seconds after the budget at which a message that is being sent is interrupted.
_LATE = 1.0

_T = TypeVar("_T")


class Undelivered(Exception):
    """A message did not arrive.

    :param detail: why, for people; never holds a secret.
    :param passing: it may work later (queue it), as opposed to: it never will like this.
    :param wait: seconds the other side asks us to wait, if it did.
    :param alone: only this message was refused: the other side is up, and the next message deserves an attempt.
    :param remaining: marks of the recipients who still have to get it, when others have it already.
    """

    def __init__(
        self,
        detail: str,
        passing: bool,
        wait: float | None = None,
        alone: bool = False,
        remaining: Sequence[str] = (),
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.passing = passing
        self.wait = wait
        self.alone = alone
        self.remaining = tuple(remaining)


class Absent(Exception):
    """This host has nothing that could take the message (no journal): the channel is skipped."""


class Receipt(NamedTuple):
    """How the delivery of one message ended.

    :param status: ``SENT``, ``SKIPPED``, ``FAILED`` or ``QUEUED``. :param detail: why, for people.
    :param keys: of the events in the message.
    :param remaining: marks of the recipients who still have to get it, when others have it already.
    :param incomplete: which recipients will never get it, empty when all did.
    """

    status: str
    detail: str
    keys: tuple[str, ...]
    remaining: tuple[str, ...] = ()
    incomplete: str = ""


class Channel:
    """One way to reach people or a service. Subclasses say how events become messages and send one message."""

    kind = ""

    def __init__(
        self, world: World, name: str, target: str, identity: str, digest_after: int = 5
    ) -> None:
        self.world = world
        #: Name in results. ``target`` is an address without anything secret in it.
        self.name = name
        self.target = target
        #: The channel's queue is filed under its hash, because it may be secret.
        self.identity = identity
        self.digest_after = digest_after
        #: Further attempts for each message.
        self.retries = 0
        #: Set by a channel that delivered a message, but never will to some of its recipients.
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
        """Return whether this event goes to this channel at all."""
        return True

    def messages(self, events: Sequence[Event], still_open: Iterable[str]) -> list[Message]:  # noqa: ARG002  # pylint: disable=unused-argument
        """Return the messages for these events. :param still_open: the incidents that are not closed."""
        return separate(events, self.digest_after)

    def open(self) -> None:
        """Read secrets, before the first message. :raises FleetError: a secret can't be read."""

    def send(self, message: Message, deadline: float) -> str:
        """Send one message; return a short detail. ``deadline`` is on the monotonic clock.

        :raises Undelivered: it did not arrive. :raises Absent: nothing on this host could take it.
        """
        raise NotImplementedError

    def deliver(self, messages: Sequence[Message], arrived: mmap.mmap) -> list[Receipt]:
        """Send all messages; runs in a child process of its own.

        When the other side is down, the rest is queued without an attempt, which would only add more time-outs. When it is
        up and refused one message, each of the next ones gets one attempt: a message that is always refused must not
        hold up all others.

        :param arrived: shared with the parent, which kills a child that hangs: set to 1 for each message that is sent.
        """
        deadline = time.monotonic() + self.budget
        receipts: list[Receipt] = []
        down = ""
        try:
            self.open()
        except FleetError as error:
            detail = hide(str(error), self.secrets)
            return [Receipt(FAILED, detail, message.keys) for message in messages]
        for place, message in enumerate(messages):
            if down:
                receipts.append(Receipt(QUEUED, hide(down, self.secrets), message.keys))
                continue
            self.incomplete = ""
            status = SENT
            remaining: tuple[str, ...] = ()
            try:
                with _alarm(deadline + _LATE):
                    detail = self.send(message, deadline)
                arrived[place] = 1
            except Absent as error:
                status, detail = SKIPPED, str(error)
            except Undelivered as error:
                detail, remaining = error.detail, error.remaining
                status = QUEUED if error.passing else FAILED
                if error.passing:
                    self.retries = 0
                    down = "" if error.alone else detail
            except Exception as error:  # noqa: BLE001  # a channel must never stop others; foreign texts may hold secrets
                status, detail = FAILED, f"unexpected {type(error).__name__} while sending"
            receipts.append(
                Receipt(
                    status, hide(detail, self.secrets), message.keys, remaining, self.incomplete
                )
            )
        return receipts


@contextlib.contextmanager
def _alarm(end: float) -> Iterator[None]:
    """Interrupt the body at ``end`` (monotonic clock).

    A time-out per answer does not stop a server that sends a byte now and then.

    :raises Undelivered: it was interrupted.
    """

    def ring(*_given: object) -> None:
        raise Undelivered("no complete answer in time", passing=True)

    before = signal.signal(signal.SIGALRM, ring)
    try:
        # Repeated every second: the clean-up after the first interruption may hang as well.
        signal.setitimer(signal.ITIMER_REAL, max(0.01, end - time.monotonic()), 1.0)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def attempts(action: Callable[[], _T], retries: int, deadline: float) -> _T:
    """Call ``action`` until it works, up to ``retries`` further times after temporary failures.

    The pauses are 0.5, 1, 2... s and up to half as much more at random, so that a thousand nodes do not return in step.
    A wait that the other side asks for is honoured when it fits into the budget.

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
