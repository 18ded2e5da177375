# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the action plugin asks of a module that it runs in the background: progress, a time limit.

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

from ansible.module_utils.basic import AnsibleModule

from ._core.errors import FleetError
from ._core.ports import Progress, Tell, silent
from ._core.system.files import atomic_write

#: Seconds between two writes.
PAUSE = 1.0


def writer() -> Tell:
    """Return what writes progress, as JSON, to the file that the action plugin names, if it names
    one.
    """
    path = os.environ.get("MLOPS_FLEET_PROGRESS")
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
def within_limit(module: AnsibleModule) -> t.Iterator[None]:
    """Interrupt the body, as Ctrl-C does, at the time limit that the action plugin sets, if it sets
    one: the module then clears up behind itself, which it can't when it is killed.

    The exit code of the result is that of coreutils' timeout.
    """
    seconds = float(os.environ.get("MLOPS_FLEET_TIME_LIMIT") or 0)
    if not seconds:
        yield
        return
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except KeyboardInterrupt:
        module.fail_json(msg=f"The time limit of {seconds:g} s is over.", rc=124)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
