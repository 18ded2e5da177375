# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Progress of a module for the action plugin that runs it in the background.

Private to this collection; no interface is promised to others.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time

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
