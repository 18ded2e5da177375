# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start jobs as their timers do, and send a test message."""

from __future__ import annotations

import os

from .. import trial
from ..errors import FleetError
from ..ports import World
from ..system import locks
from .facts import Node
from .options import Request
from .plan import Alerts, Plan, Start, Started


def carry_out(
    request: Request, plan: Plan, schedule: trial.Schedule, world: World, node: Node
) -> tuple[Started, ...]:
    """Start the jobs of the plan, one after the other, and wait for their end."""
    if not plan.starts:
        return ()
    path = os.path.join(locks.lock_directory(), "trial.lock")
    # Two at once would remove each other's drop-ins, and a rehearsal would become a cleanup.
    with locks.lock(path, "trial run of mlfleet"):
        return tuple(_start(start, request, schedule, world, node) for start in plan.starts)


def _start(
    start: Start, request: Request, schedule: trial.Schedule, world: World, node: Node
) -> Started:
    node.starting(start.name)
    if start.obstacle or not start.scheduled:
        return Started(start)
    try:
        return Started(start, trial.start(world, schedule, start.name, request.rehearse_cleanup))
    except FleetError as error:
        return Started(start, error=str(error))


def check_alerts(request: Request, schedule: trial.Schedule, world: World, node: Node) -> Alerts:
    """Read the alert channels; send a test message over them where that is asked for.

    As root it is sent from the unit that alerts about failed jobs, otherwise by this process.
    """
    try:
        channels = node.channels(send=False)
        if channels and request.alert_test:
            sent = None
            if not os.geteuid():
                sent = trial.alert_test(world, schedule, request.command)
            channels = node.channels(send=True) if sent is None else sent
    except FleetError as error:
        return Alerts(error=str(error))
    return Alerts(tuple(channels), tested=request.alert_test)
