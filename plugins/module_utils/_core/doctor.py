# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether this node can look after itself: the old pre-deployment checklist as checks. Reads, and rehearses; changes nothing."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .errors import CommandFailed, FleetError
from .fsutil import human_size
from .ports import World
from .verdict import CRITICAL, PASS, SKIPPED, WARNING, Check

#: Timer units of the schedule role and the file of its cron lines.
TIMERS = ("ml-backup.timer", "gpu-monitor.timer", "ml-cleanup.timer", "ml-health-check.timer", "ml-maintenance.timer")
CRON = "/etc/cron.d/mlops-fleet"


def configuration(path: str, problems: Sequence[str]) -> list[Check]:
    """Judge the configuration: usable, and not readable or writable by others (it may hold secrets)."""
    found = [Check("configuration", CRITICAL, f"Configuration: {problem}", subject=path, action="inspect") for problem in problems]
    if not problems:
        found = [Check("configuration", PASS, "Configuration can be used", subject=path)]
    try:
        mode = stat.S_IMODE(os.stat(path).st_mode)
    except FileNotFoundError:
        return [*found, Check("configuration permissions", SKIPPED, f"There is no {path}: defaults are in force", subject=path)]
    if mode & 0o027:
        text = f"{path} has mode {mode:04o}: it may hold secrets, make it 0640 or stricter"
        return [*found, Check("configuration permissions", CRITICAL, text, subject=path, value=f"{mode:04o}", action="inspect")]
    return [*found, Check("configuration permissions", PASS, f"{path} has mode {mode:04o}", subject=path, value=f"{mode:04o}")]


def job(name: str, work: Callable[[], Mapping[str, Any]]) -> tuple[Check, Mapping[str, Any]]:
    """Run a job once and judge whether it can do its work; a sick verdict is still work done."""
    try:
        result = work()
    except FleetError as error:
        return Check(f"job {name}", CRITICAL, f"{name} can't run: {error}", subject=name, action="inspect"), {}
    return Check(f"job {name}", PASS, f"{name} can run", subject=name), result


def space(destination: str, plan: Mapping[str, Any]) -> Check:
    """Judge the free space for the next backup: at least the estimate or, without one, the size of the source."""
    needed = int(plan.get("estimated_size") or plan.get("bytes") or 0)
    folder = destination
    while not os.path.isdir(folder) and folder != "/":
        folder = os.path.dirname(folder)
    found = os.statvfs(folder)
    free = found.f_bavail * found.f_frsize
    status = PASS if free > 2 * needed else WARNING if free > needed else CRITICAL
    text = f"{human_size(free)} free for backups of about {human_size(needed)} in {destination}"
    return Check("backup space", status, text, subject=destination, value=free, unit="B", warn=2 * needed, crit=needed)


def logs(paths: Sequence[str]) -> list[Check]:
    """Judge the log files: there, and not open to others."""
    found = []
    for path in sorted(set(paths)):
        try:
            mode = stat.S_IMODE(os.lstat(path).st_mode)
        except FileNotFoundError:
            folder = os.path.dirname(path)
            status = PASS if os.access(folder, os.W_OK) else WARNING
            found.append(Check("log file", status, f"{path} is not there yet" + ("" if status == PASS else " and can't be made by this user"), subject=path))
            continue
        status = WARNING if mode & 0o002 else PASS
        found.append(Check("log file", status, f"{path} has mode {mode:04o}", subject=path, value=f"{mode:04o}"))
    return found


def schedule(world: World) -> Check:
    """Judge whether anything runs the jobs: an active timer of ours, or the cron file."""
    try:
        done = world.run(["systemctl", "is-active", *TIMERS], timeout=10)
        active = [unit for unit, state in zip(TIMERS, done.stdout.split()) if state == "active"]
    except CommandFailed:
        active = []
    if active:
        return Check("schedule", PASS, f"Active timers: {', '.join(active)}", value=len(active))
    if os.path.exists(world.path(CRON)):
        return Check("schedule", PASS, f"Scheduled by cron: {CRON}")
    return Check("schedule", WARNING, "Nothing runs the jobs on this node: no active timer and no cron file", action="inspect")


def last_runs(world: World) -> list[Check]:
    """Judge how the jobs ended when their timers last started them: a unit may fail where the same job, started by hand, does not.

    A critical verdict (exit status 2 of the two that judge) is a job well done. Statuses from 200 on are systemd's own: it could not
    set up what the unit asks for (C(EXIT STATUS) in systemd.exec(5)).
    """
    found = []
    for timer in TIMERS:
        unit = timer.replace(".timer", ".service")
        try:
            done = world.run(["systemctl", "show", "--property=LoadState,Result,ExecMainStatus,ExecMainStartTimestamp", unit], timeout=10)
        except CommandFailed:
            return []
        state = dict(line.partition("=")[::2] for line in done.stdout.splitlines())
        number, result = int(state.get("ExecMainStatus") or 0), state.get("Result", "")
        if state.get("LoadState") != "loaded" or (result == "success" and not state.get("ExecMainStartTimestamp")):
            continue
        judged = unit.startswith(("gpu-", "ml-health")) and result == "exit-code" and number == 2
        if result == "success" or judged:
            found.append(Check("last run", PASS, f"{unit} did its work", subject=unit))
            continue
        # 0 with another result than success: what comes before the command failed already.
        status = CRITICAL if number >= 200 or number == 0 else WARNING
        text = f"{unit} failed when it was last started ({result}, status {number}): journalctl -u {unit}"
        found.append(Check("last run", status, text, subject=unit, value=number, action="inspect"))
    return found


def alerts(channels: Sequence[Mapping[str, Any]] | None, problem: str = "") -> Check:
    """Judge whether anybody would be told."""
    if problem:
        return Check("alerts", CRITICAL, f"Alerts can't be sent: {problem}", action="inspect")
    if not channels:
        return Check("alerts", WARNING, "Nobody is told: no alert channel is configured")
    return Check("alerts", PASS, "Alerts go to: " + ", ".join(str(channel["name"]) for channel in channels), value=len(channels))


def proven(backups: Sequence[Mapping[str, Any]], destination: str) -> Check:
    """Judge whether there is a verified backup to go back to."""
    good = [backup for backup in backups if backup.get("verified")]
    if good:
        return Check("verified backup", PASS, f"{len(good)} verified backups in {destination}", subject=destination, value=len(good))
    return Check("verified backup", WARNING, f"There is no verified backup in {destination} yet", subject=destination, value=0)
