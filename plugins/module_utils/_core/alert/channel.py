# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all channels share: how a delivery ends, repeated attempts within a time budget, and the
loop over messages.
"""

from __future__ import annotations

import contextlib
import random
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum
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


class Outlook(Enum):
    """What becomes of a message that did not arrive."""

    #: It may work soon, without anybody's help: repeat it now, then queue it.
    PASSING = "passing"
    #: Somebody has to repair something (certificate, credentials, address): it has failed, and is
    #: queued.
    CURABLE = "curable"
    #: It will never be accepted like this: drop it, and say so until somebody looks.
    PERMANENT = "permanent"


class Undelivered(Exception):
    """A message did not arrive.

    :param detail: why, for people; never holds a secret.
    :param outlook: whether it can still arrive.
    :param wait: seconds the other side asks us to wait, if it did.
    :param alone: only this message was refused: the other side is up, and the next message deserves
        an attempt.
    :param remaining: marks of the recipients who still have to get it, when others have it already.
    """

    def __init__(
        self,
        detail: str,
        outlook: Outlook = Outlook.PASSING,
        wait: float | None = None,
        alone: bool = False,
        remaining: Sequence[str] = (),
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.outlook = outlook
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
    :param kept: it failed, but stays queued, because a repair can cure that.
    """

    status: str
    detail: str
    keys: tuple[str, ...]
    remaining: tuple[str, ...] = ()
    incomplete: str = ""
    kept: bool = False

    @property
    def is_queued(self) -> bool:
        """Whether the message is sent again by the next run."""
        return self.status == QUEUED or self.kept

    @property
    def is_refused(self) -> bool:
        """Whether the message was refused for good."""
        return self.status == FAILED and not self.kept


class Channel:
    """One way to reach people or a service.

    Subclasses say how events become messages and send one message.
    """

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
        #: Stays the same when the channel's address is corrected; set where channels are made.
        self.label = ""
        self.digest_after = digest_after
        #: Further attempts for each message.
        self.retries = 0
        #: Set by a channel that delivered a message, but never will to some of its recipients.
        self.incomplete = ""
        #: Names a recipient in the state file without showing the address.
        self.mark: Callable[[str], str] = str
        #: Texts that must not appear in any detail; filled when the secrets are read.
        self.secrets: set[str] = set()

    def obstacle(self) -> str:
        """Return why this node can send nothing, as far as that is known without sending."""
        return ""

    @property
    def budget(self) -> float:
        """Seconds for all messages together."""
        return BUDGET

    def wants(self, event: Event) -> bool:  # noqa: ARG002  # pylint: disable=unused-argument
        """Return whether this event goes to this channel at all."""
        return True

    def messages(self, events: Sequence[Event], still_open: Iterable[str]) -> list[Message]:  # noqa: ARG002  # pylint: disable=unused-argument
        """Return the messages for these events.

        :param still_open: the incidents that are not closed.
        """
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

        When the other side is down, the rest is queued without an attempt, which would only add
        more time-outs. When it is up and refused one message, each of the next ones gets one
        attempt: a message that is always refused must not hold up all others.

        :param arrived: shared with the parent, which kills a child that hangs: set to 1 for each
            message that is sent.
        """
        deadline = time.monotonic() + self.budget
        receipts: list[Receipt] = []
        down: Receipt | None = None
        try:
            self.open()
        except FleetError as error:
            detail = hide(str(error), self.secrets)
            return [Receipt(FAILED, detail, message.keys, kept=True) for message in messages]
        for place, message in enumerate(messages):
            if down is not None:
                receipts.append(down._replace(keys=message.keys))
                continue
            self.incomplete, alone = "", False
            receipt = Receipt(SENT, "", message.keys)
            try:
                with _alarm(deadline + _LATE):
                    receipt = receipt._replace(detail=self.send(message, deadline))
                arrived[place] = 1
            except Absent as error:
                receipt = receipt._replace(status=SKIPPED, detail=str(error))
            except Undelivered as error:
                alone = error.alone
                receipt = _receipt_of(error, message)
            except Exception as error:  # noqa: BLE001  # a channel must never stop others; foreign texts may hold secrets
                detail = f"unexpected {type(error).__name__} while sending"
                receipt = receipt._replace(status=FAILED, detail=detail)
            receipt = receipt._replace(
                detail=hide(receipt.detail, self.secrets), incomplete=self.incomplete
            )
            receipts.append(receipt)
            if receipt.is_queued:
                self.retries = 0
                if not alone:
                    down = receipt._replace(remaining=(), incomplete="")
        return receipts


def _receipt_of(error: Undelivered, message: Message) -> Receipt:
    receipt = Receipt(FAILED, error.detail, message.keys, error.remaining)
    if error.outlook is Outlook.PASSING:
        return receipt._replace(status=QUEUED)
    return receipt._replace(kept=error.outlook is Outlook.CURABLE)


@contextlib.contextmanager
def _alarm(end: float) -> Iterator[None]:
    """Interrupt the body at ``end`` (monotonic clock).

    A time-out per answer does not stop a server that sends a byte now and then.

    :raises Undelivered: it was interrupted.
    """

    def ring(*_given: object) -> None:
        raise Undelivered("no complete answer in time")

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

    The pauses are 0.5, 1, 2... s and up to half as much more at random, so that a thousand nodes do
    not return in step. A wait that the other side asks for is honoured when it fits into the
    budget.

    :raises Undelivered: the last failure, or the first that can't pass or does not fit into the
        budget.
    """
    for attempt in range(retries + 1):
        try:
            return action()
        except Undelivered as error:
            pause = _FIRST_PAUSE * 2**attempt * (1 + random.random() / 2)  # noqa: S311  # not for secrecy
            if error.wait is not None:
                pause = error.wait + min(1.0, pause - _FIRST_PAUSE * 2**attempt)
            if (
                error.outlook is not Outlook.PASSING
                or attempt == retries
                or time.monotonic() + pause >= deadline
            ):
                raise
            time.sleep(pause)
    raise Undelivered("no attempt was made")
