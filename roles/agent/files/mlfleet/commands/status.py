# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``mlfleet status``: what runs when, how it ended, and what is wrong, on one screen."""

from __future__ import annotations

import datetime
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..._core import verdict
from ..._core.errors import FleetError, NotUsable
from .. import parts
from ..context import Context
from . import Command, no_arguments
from .backups import restore_proof_line

if TYPE_CHECKING:
    from ..._core.status import Alerts

#: Problems that are printed without --verbose.
_LIMIT = 10
#: Characters of a result in the table.
_WIDTH = 28


def run(context: Context) -> int:
    """Print the state of the node; the exit status is that of the worst."""
    from ..._core import status

    world = context.world
    backend, states = status.jobs(world)
    directory, backup, unknown, proof = _newest_backup(context)
    alerts = _alerts(context)
    worst = status.overall(
        states,
        alerts,
        any(s.name in ("backup", "maintenance") and s.scheduled for s in states),
        backup,
    )
    now = world.clock.now()
    terminal = context.terminal
    terminal.say(*_lines(context, backend, states, now))
    terminal.say("", *_backup_lines(directory, backup, unknown, now), restore_proof_line(proof))
    terminal.say(*_alert_lines(context, alerts, now))
    terminal.data(
        {
            "timestamp": verdict.isoformat(now),
            "hostname": world.hostname,
            "status": worst,
            "backend": backend,
            "jobs": [_job(state) for state in states],
            "backup": {
                "directory": directory,
                "newest_verified": None if backup is None else dict(backup),
                "unknown": unknown,
                "last_restore_proof": proof,
            },
            "problems": [
                {
                    **problem._asdict(),
                    "since": _date(problem.since),
                    "sent_at": _date(problem.sent_at),
                    "muted_until": _date(problem.muted_until),
                }
                for problem in alerts.problems
            ],
            "undelivered": alerts.undelivered,
            "alerts_unknown": alerts.unknown,
        }
    )
    return {verdict.PASS: 0, verdict.WARNING: 1}.get(worst, 2)


def _alerts(context: Context) -> Alerts:
    """Return what is known of the alerts; a configuration that can't be used hides nothing else."""
    from ..._core import status

    try:
        directory = context.merged("alert", {}).values.get("state_dir")
        return status.alerts(directory, _cooldown(context), context.world)
    except FleetError as error:
        return status.Alerts(unknown=str(error))


def _cooldown(context: Context) -> float:
    from ..._core.alert.options import AlertOptions

    merged = context.merged("alert", {})
    return float(context.configuration.checked(AlertOptions, merged, section=True).cooldown)


def _newest_backup(
    context: Context,
) -> tuple[str, Mapping[str, Any] | None, str, Mapping[str, Any] | None]:
    """Return the configured directory, its newest verified backup, and why that is unknown; and the
    last drill.
    """
    from ..._core import status
    from ..._core.backup import proofs

    try:
        directory = parts.backup_directory(context)
    except FleetError as error:
        return "", None, str(error), None
    proof = proofs.newest(directory)
    try:
        backups = parts.list_backups(context, directory)["backups"]
    except NotUsable as error:
        return directory, None, error.message, proof
    except FleetError as error:
        return directory, None, str(error), proof
    newest = status.newest_verified(backups)
    unreadable = [backup["unreadable"] for backup in backups if backup.get("unreadable")]
    unknown = ""
    if newest is None and unreadable:
        unknown = unreadable[0]
    return directory, newest, unknown, proof


def _job(state: Any) -> dict[str, Any]:
    fields: dict[str, Any] = state._asdict()
    return {**fields, "last_run": _date(state.last_run), "next_run": _date(state.next_run)}


def _date(seconds: float | None) -> str | None:
    if seconds:
        return verdict.isoformat(seconds)
    return None


def _lines(context: Context, backend: str, states: Any, now: float) -> list[str]:
    from ..._core.output import human

    rows = [["JOB", "LAST RUN", "RESULT", "NEXT RUN"]]
    for state in states:
        result = "running" if state.running else state.result
        following = "not scheduled"
        if state.scheduled:
            following = "unknown" if state.next_run is None else _distance(state.next_run, now)
        rows.append([state.name, _distance(state.last_run, now), _short(result), following])
    lines = human.table(rows)
    colour = context.terminal.colour
    painted = [human.paint(line, s.verdict, colour) for line, s in zip(lines[1:], states)]
    started = {"systemd": "timers", "cron": "cron"}.get(backend, "nothing starts the jobs")
    heading = [f"{context.world.hostname}: {started}", lines[0]]
    return [*heading, *painted, *_long_results(states)]


def _long_results(states: Any) -> list[str]:
    """Return the results that the table has no room for."""
    import textwrap

    lines = []
    for state in states:
        if _short(state.result) != state.result:
            lines += textwrap.wrap(f"{state.name}: {state.result}", 100, subsequent_indent="  ")
    return lines


def _short(result: str) -> str:
    """Return a result as long as fits into its column; the whole text is below the table."""
    if len(result) <= _WIDTH:
        return result
    return f"{result[: _WIDTH - 3]}..."


def _distance(moment: float | None, now: float) -> str:
    from ..._core.system.text import human_duration

    if moment is None:
        return "never"
    seconds = round(abs(now - moment))
    text = human_duration(seconds) if seconds >= 60 else f"{seconds} s"
    if seconds >= 2 * 86400:
        text = f"{seconds / 86400:.0f} days"
    clock = time.strftime("%a %H:%M", time.localtime(moment))
    if moment <= now:
        return f"{text} ago ({clock})"
    return f"in {text} ({clock})"


def _backup_lines(
    directory: str, backup: Mapping[str, Any] | None, unknown: str, now: float
) -> list[str]:
    from ..._core.system.text import human_size

    if backup is None:
        reason = ""
        if unknown:
            reason = f": {unknown}"
        where = directory and f" in {directory}"
        return [f"Newest verified backup: none known{where}{reason}"]
    created = datetime.datetime.fromisoformat(str(backup["created"]).replace("Z", "+00:00"))
    age = _distance(created.timestamp(), now)
    size = human_size(backup.get("size") or 0)
    return [f"Newest verified backup: {backup['path']} ({size}), {age}"]


def _alert_lines(context: Context, alerts: Any, now: float) -> list[str]:
    from ..._core.output import human
    from ..._core.system.text import human_count

    if alerts.unknown:
        return [f"Open problems: unknown, {alerts.unknown}"]
    lines = [f"Open problems: {len(alerts.problems) or 'none'}"]
    limit = len(alerts.problems) if context.arguments.verbose else _LIMIT
    for problem in alerts.problems[:limit]:
        text = f"  {problem.severity.upper():<9} {problem.check}"
        if problem.subject:
            text += f" {problem.subject}"
        text += f", since {_distance(problem.since, now)}"
        lines.append(human.paint(text, problem.severity, context.terminal.colour))
    if len(alerts.problems) > limit:
        lines.append(f"  and {len(alerts.problems) - limit} more (--verbose)")
    muted = [problem for problem in alerts.problems if problem.muted_until]
    if muted:
        first = min(problem.muted_until for problem in muted)
        lines.append(
            f"Muted alerts: {len(muted)}, sent before; the first is repeated"
            f" {_distance(first, now)} at the earliest"
        )
    else:
        lines.append("Muted alerts: none")
    if alerts.undelivered:
        lines.append(f"Not delivered yet: {human_count(alerts.undelivered, 'message')}")
    return lines


COMMAND = Command(
    name="status",
    help="show what runs when, how it ended, and what is wrong, on one screen",
    examples=("mlfleet status", "mlfleet status --json | jq '.jobs[] | .name, .next_run'"),
    arguments=no_arguments,
    run=run,
    part="",
    leave_out=(),
    log="",
    dry_run=False,
    waits=False,
)
