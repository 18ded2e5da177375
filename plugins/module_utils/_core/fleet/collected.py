# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The results of a fleet whose nodes run their jobs by themselves, as the playbook ``collect``
fetched them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import last
from ..errors import NotUsable
from ..maintenance import plan
from ..system.text import human_duration

#: Before the name of a phase, as the playbook prints it; its file follows, unless the line says
#: that it is missing or unreadable.
MARK = "mlops-fleet "
NOT_YET = "no result: no timer or cron has run it with this agent yet"
#: Default of the oldest result that counts, in hours, by phase.
MAX_AGE = {"health": 2.0, "gpu": 2.0, "backup": 26.0, "cleanup": 170.0}

#: The keys of a registered result of the playbook's task that are used.
USED = ("unreachable", "skipped", "failed", "skip_reason", "msg", "stdout")


def results(
    fetched: Mapping[str, Any], now: float, max_age: Mapping[str, float]
) -> dict[str, dict[str, Any]]:
    """Return the results by phase, as a run would have registered them.

    What is missing, unreadable, damaged or too old is a failed phase: nobody knows how the node is.

    :param fetched: the registered result of the task of the playbook that printed them.
    :param now: seconds since the epoch. :param max_age: hours by phase.
    """
    if fetched.get("unreachable") or fetched.get("skipped"):
        return {phase: dict(fetched) for phase in plan.PHASES.names}
    lines = str(fetched.get("stdout") or "").splitlines()
    by_phase: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(lines):
        if not line.startswith(MARK):
            continue
        state, dummy, phase = line[len(MARK) :].rpartition(" ")
        if state == "missing":
            by_phase[phase] = _failed(NOT_YET)
        elif state == "unreadable":
            by_phase[phase] = _failed("this user may not read the last result: use become")
        elif number + 1 < len(lines):
            by_phase[phase] = _checked(lines[number + 1], phase, now, max_age)
    nothing = _failed(str(fetched.get("msg") or "nothing was fetched").strip())
    return {phase: by_phase.get(phase, nothing) for phase in plan.PHASES.names}


def _failed(message: str) -> dict[str, Any]:
    return {"failed": True, "msg": message}


def _checked(text: str, phase: str, now: float, max_age: Mapping[str, float]) -> dict[str, Any]:
    try:
        kept = last.parse(text, phase)
    except NotUsable as error:
        return _failed(error.message)
    age, limit = now - kept.time, max_age.get(phase, MAX_AGE[phase]) * 3600
    if age > limit:
        return _failed(
            f"the last result is {human_duration(age)} old, at most {human_duration(limit)} are"
            " allowed"
        )
    return kept.result
