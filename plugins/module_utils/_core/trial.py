# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starting the scheduled jobs once, as their timers (or cron) start them: in their own units, with user, sandbox and limits."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .errors import CommandFailed, FleetError, NotUsable
from .ports import World
from .system.files import atomic_write
from .verdict import CRITICAL, PASS, WARNING

#: What the schedule role installs: unit of each job in the order in which they are started, the cron lines, and what these call.
UNITS = {
    "health": "ml-health-check",
    "gpu": "gpu-monitor",
    "backup": "ml-backup",
    "cleanup": "ml-cleanup",
    "maintenance": "ml-maintenance",
}
CRON = "/etc/cron.d/mlops-fleet"
RUNNER = "/usr/local/sbin/mlops-fleet-cron"
ALERT = "mlops-fleet-alert@"
#: Until this time (seconds since the epoch) cleanups only rehearse. A time, so that one that is left behind stops no cleanup for good.
REHEARSE = "MLFLEET_REHEARSE_CLEANUP_UNTIL"

_RUNTIME = "/run/systemd/system"
_DROP_IN = "mlops-fleet-trial.conf"
#: Longer than any job, and than a backup that a cleanup waits for: the jobs' own time-outs end them.
_LONG = 86400.0
_PROPERTIES = "LoadState,Result,ExecMainStatus,ExecMainStartTimestamp,InvocationID"


@dataclass(frozen=True)
class Schedule:
    """What runs the jobs of this node (C(systemd), C(cron) or C(none)), and which."""

    backend: str
    jobs: tuple[str, ...]


@dataclass(frozen=True)
class Ended:
    """How a job ended: the verdict's status, how in words, its exit status, and what it printed."""

    status: str
    text: str
    number: int = 0
    said: str = ""

    @property
    def last_line(self) -> str:
        """The last thing the job printed: its result, or why it failed (notes begin with C(mlfleet:))."""
        lines = [line.strip() for line in self.said.splitlines() if line.strip()]
        results = [line for line in lines if not line.startswith("mlfleet: ")]
        return ((self.status == PASS and results) or lines or [""])[-1][:300]


def scheduled(world: World) -> Schedule:
    """Return which jobs have an active timer of ours or, where there is none, a cron line."""
    timers = [unit + ".timer" for unit in UNITS.values()]
    try:
        states = world.run(["systemctl", "is-active", *timers], timeout=10).stdout.split()
    except CommandFailed:
        states = []
    active = tuple(job for job, state in zip(UNITS, states) if state == "active")
    if active:
        return Schedule("systemd", active)
    try:
        with open(world.path(CRON), encoding="utf-8", errors="replace") as stream:
            lines = re.findall(
                rf"^[^#\n].*\s{re.escape(RUNNER)}\s+(\w+)\s*$", stream.read(), re.MULTILINE
            )
    except OSError:
        return Schedule("none", ())
    return Schedule("cron", tuple(job for job in UNITS if job in lines))


def variables(world: World, schedule: Schedule) -> dict[str, str]:
    """Return the old scripts' variables that the scheduled jobs get from their file: who judges them must know them too."""
    path = ""
    with contextlib.suppress(CommandFailed, OSError, ValueError):
        if schedule.backend == "systemd":
            shown = world.run(
                [
                    "systemctl",
                    "show",
                    "--property=EnvironmentFiles",
                    UNITS[schedule.jobs[0]] + ".service",
                ],
                timeout=10,
            ).stdout
            path = "".join(
                re.findall(r"^EnvironmentFiles=(.*) \(ignore_errors=\w+\)$", shown, re.MULTILINE)[
                    :1
                ]
            )
        elif schedule.backend == "cron":
            with open(world.path(RUNNER), encoding="utf-8") as stream:
                path = "".join(
                    shlex.split(
                        "".join(re.findall(r"^variables=(.*)$", stream.read(), re.MULTILINE)[:1])
                    )
                )
        if path:
            with open(world.path(path), encoding="utf-8", errors="replace") as stream:
                return dict(_assignments(stream.read()))
    return {}


def _assignments(text: str) -> Iterator[tuple[str, str]]:
    """Yield the NAME=value lines as systemd's EnvironmentFile= reads them: nothing in a value is expanded."""
    for line in text.replace("\\\n", "").splitlines():
        name, sign, value = (part.strip() for part in line.partition("="))
        if sign and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            yield (
                name,
                value[1:-1]
                if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
                else value,
            )


def state(world: World, unit: str) -> dict[str, str]:
    """Return what systemd knows of a unit. :raises CommandFailed: there is no systemd to ask."""
    done = world.run(["systemctl", "show", "--property=" + _PROPERTIES, unit], timeout=10)
    return dict(line.partition("=")[::2] for line in done.stdout.splitlines())


def ended(unit: str, found: Mapping[str, str]) -> Ended | None:
    """Judge how a unit ended when it was last started; None when it is not there or never was.

    A critical verdict (exit status 2 of the two that judge) is a job well done. Statuses from 200 on are systemd's own: it could not
    set up what the unit asks for (C(EXIT STATUS) in systemd.exec(5)).
    """
    number, result = int(found.get("ExecMainStatus") or 0), found.get("Result", "")
    if found.get("LoadState") != "loaded" or (
        result == "success" and not found.get("ExecMainStartTimestamp")
    ):
        return None
    judged = (
        unit.startswith((UNITS["gpu"], UNITS["health"])) and result == "exit-code" and number == 2
    )
    if result == "success" or judged:
        return Ended(PASS, "did its work", number)
    # 0 with another result than success: what comes before the command failed already.
    return Ended(
        CRITICAL if number >= 200 or number == 0 else WARNING,
        f"failed ({result}, status {number})",
        number,
    )


def start(world: World, schedule: Schedule, job: str, rehearse_cleanup: bool = True) -> Ended:
    """Start a job as its timer or cron line does, and wait for its end.

    :param rehearse_cleanup: a cleanup says what it would remove and removes nothing.
    :raises FleetError: it could not even be asked for.
    """
    until = (
        str(int(world.clock.now() + _LONG))
        if rehearse_cleanup and job in ("cleanup", "maintenance")
        else ""
    )
    if schedule.backend == "cron":
        done = world.run([RUNNER, job], timeout=_LONG, env={REHEARSE: until})
        said = done.stdout + done.stderr
        judged = (
            done.returncode == 0
            or (job in ("gpu", "health") and done.returncode == 2)
            or _sick(job, done.returncode, said)
        )
        text = "did its work" if judged else f"failed (status {done.returncode})"
        return Ended(
            PASS if judged else CRITICAL if done.returncode > 3 else WARNING,
            text,
            done.returncode,
            said,
        )
    unit = UNITS[job] + ".service"
    before = state(world, unit)
    setting = f"[Service]\nEnvironment={REHEARSE}={until}\n" if until else ""
    with _changed_for_now(world, unit, setting):
        # A setting of the administrator's may undo ours, and then the cleanup would be a real one.
        if (
            setting
            and f"{REHEARSE}={until}"
            not in world.run(
                ["systemctl", "show", "--property=Environment", unit], timeout=10
            ).stdout
        ):
            raise NotUsable(
                f"{unit} can't be made a rehearsal: a drop-in of its own undoes Environment=.",
                f"See: systemctl cat {unit}",
                unit,
            )
        asked = world.run(["systemctl", "start", unit], timeout=_LONG)
    after = state(world, unit)
    if after.get("InvocationID") == before.get("InvocationID") and asked.returncode == 0:
        return Ended(
            WARNING,
            "was not started: a condition of the unit holds it back (systemctl status says which)",
        )
    found = ended(unit, after)
    if found is None:
        return Ended(CRITICAL, f"could not be started: {' '.join(asked.stderr.split())}")
    said = _said(world, f"_SYSTEMD_INVOCATION_ID={after.get('InvocationID')}")
    if _sick(job, found.number, said):
        return Ended(PASS, "did its work", found.number, said)
    return Ended(found.status, found.text, found.number, said)


def _sick(job: str, number: int, said: str) -> bool:
    """Say whether a maintenance ended with 1 only because the node is sick: every phase did its work."""
    return (
        job == "maintenance"
        and number == 1
        and re.search(r"^Maintenance: CRITICAL - 1 host \(1 critical\)", said, re.MULTILINE)
        is not None
    )


def alert_test(world: World, schedule: Schedule, command: str) -> list[dict[str, Any]] | None:
    """Send a test message as a failed job would: from the alert unit or the cron runner. Returns the channels, None when neither is there.

    :param command: full path of mlfleet.
    :raises NotUsable: it gave no answer.
    """
    if schedule.backend == "cron":
        done = world.run([RUNNER, "alert", "--test", "--json"], timeout=300)
        if done.returncode == 64:  # alerts of failed jobs are switched off
            return None
        return _channels(done.stdout, done.stderr)
    # An instance of its own: no job's failure starts it, and what it prints is found by its name.
    unit = f"{ALERT}trial-{int(world.clock.now() * 1000)}.service"
    try:
        if state(world, unit).get("LoadState") != "loaded":
            return None
    except CommandFailed:
        return None
    with _changed_for_now(
        world, unit, f"[Service]\nExecStart=\nExecStart={command} alert --test --json\n"
    ):
        asked = world.run(["systemctl", "start", unit], timeout=300)
    with contextlib.suppress(CommandFailed):
        world.run(["systemctl", "reset-failed", unit], timeout=30)
    return _channels(_said(world, f"_SYSTEMD_UNIT={unit}"), asked.stderr)


def _channels(text: str, why: str) -> list[dict[str, Any]]:
    """Return the channels of the document that mlfleet printed, among notes of its own perhaps."""
    document = re.search(r"^\{$.*?^\}$", text, re.MULTILINE | re.DOTALL)
    try:
        found = json.loads(document[0] if document else "")
    except ValueError:
        raise NotUsable(
            f"The alert test gave no answer: {' '.join((text or why).split())[-300:]}",
            "Try: mlfleet alert --test",
            "alert",
        ) from None
    if "error" in found:
        raise NotUsable(
            str(found["error"].get("message")), str(found["error"].get("todo") or ""), "alert"
        )
    return list(found["channels"])


@contextlib.contextmanager
def _changed_for_now(world: World, unit: str, text: str) -> Iterator[None]:
    """Give a unit a drop-in while the body runs, and take it away again whatever happens."""
    if not text:
        yield
        return
    folder = world.path(f"{_RUNTIME}/{unit}.d")
    path = os.path.join(folder, _DROP_IN)
    old_umask = os.umask(0o022)
    try:
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError as error:
            raise NotUsable(
                f"Can't change {unit} for a trial: {error}.", "Check /run.", folder
            ) from error
        atomic_write(path, text, mode=0o644, durable=False)
        world.run(["systemctl", "daemon-reload"], timeout=60)
        yield
    finally:
        os.umask(old_umask)
        with contextlib.suppress(OSError):
            os.unlink(path)
        with contextlib.suppress(OSError):
            os.rmdir(folder)
        with contextlib.suppress(FleetError):
            world.run(["systemctl", "daemon-reload"], timeout=60)


def _said(world: World, match: str) -> str:
    """Return what the processes that match have printed, from the journal."""
    try:
        world.run(["journalctl", "--sync"], timeout=60)
        return world.run(
            ["journalctl", "--quiet", "--no-pager", "--output=cat", match], timeout=60
        ).stdout
    except CommandFailed:
        return ""
