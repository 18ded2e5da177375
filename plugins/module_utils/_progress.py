# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the action plugin asks of a module that it runs: progress, and an end before its own.

Private to this collection; no interface is promised to others.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import time
import typing as t
from types import FrameType

from ansible.module_utils.basic import AnsibleModule

from ._core.errors import FleetError
from ._core.ports import Progress, Tell, silent
from ._core.system.files import atomic_write

#: Variables that the action plugin sets: the file for the progress, and seconds until the end.
_FILE, _LIMIT = "MLOPS_FLEET_PROGRESS", "MLOPS_FLEET_TIME_LIMIT"
#: Seconds between two writes.
PAUSE = 1.0


def writer() -> Tell:
    """Return what writes progress, as JSON, to the file that the action plugin names, if it names
    one.
    """
    path = os.environ.get(_FILE)
    if not path:
        return silent
    last = -PAUSE

    def tell(step: Progress) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < PAUSE:
            return
        last = now
        # A full disk must not stop the work.
        with contextlib.suppress(OSError, FleetError):
            atomic_write(path, json.dumps(dataclasses.asdict(step)), durable=False)

    return tell


@contextlib.contextmanager
def stoppable(module: AnsibleModule) -> t.Iterator[None]:
    """Interrupt the body, as Ctrl-C does, when it is to end early: it then clears up behind itself,
    which it can't when it is killed.

    That is at SIGTERM, at SIGHUP (the connection is lost), and at the time limit that the action
    plugin sets, if it sets one. The return code of the last is that of coreutils' timeout.
    """
    seconds = float(os.environ.get(_LIMIT) or 0)
    ends = (signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)
    reason, code = "", 0

    def stop(number: int, _frame: FrameType | None) -> None:
        nonlocal reason, code
        reason, code = signal.Signals(number).name, 128 + number
        if number == signal.SIGALRM:
            reason, code = f"the time limit of {seconds:g} s", 124
        for end in ends:  # a second one must not interrupt the clearing up
            signal.signal(end, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in ends:
        if signal.getsignal(number) == signal.SIG_DFL:  # nohup ignores SIGHUP, and so do we then
            signal.signal(number, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except KeyboardInterrupt:
        if not reason:
            raise
        module.fail_json(msg=f"Stopped by {reason}.", rc=code)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        with contextlib.suppress(OSError):  # the controller may be gone
            os.unlink(os.environ.get(_FILE, ""))
