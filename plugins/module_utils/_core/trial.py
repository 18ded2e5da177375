# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starting the scheduled jobs once, as their timers (or cron) start them: in their own units, with
user, sandbox and limits.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from . import outcome
from .errors import CommandFailed, FleetError, LockBusy, NotUsable
from .jobs import JOBS
from .outcome import Outcome
from .ports import World
from .records import NamedTuple
from .system.access import closed_to
from .system.files import atomic_write
from .verdict import CRITICAL, PASS, WARNING

#: What the schedule role installs: unit of each job, the cron lines, and what these call.
UNITS = {job.name: job.unit for job in JOBS}
CRON = "/etc/cron.d/mlops-fleet"
RUNNER = "/usr/local/sbin/mlops-fleet-cron"
ALERT = "mlops-fleet-alert@"
#: Until this time (seconds since the epoch) cleanups only rehearse. A time, so that a setting that
#: is left behind stops no cleanup for good.
REHEARSE = "MLFLEET_REHEARSE_CLEANUP_UNTIL"

_RUNTIME = "/run/systemd/system"
_DROP_IN = "mlops-fleet-trial.conf"
#: Longer than any job, and than a backup that a cleanup waits for: the jobs' own time-outs end
#: them.
_LONG = 86400.0
_PROPERTIES = "LoadState,Result,ExecMainStatus,ExecMainStartTimestamp,InvocationID"


class Schedule(NamedTuple):
    """What runs the jobs of this node (C(systemd), C(cron) or C(none)), and which."""

    backend: str
    jobs: tuple[str, ...]


class Ended(NamedTuple):
    """How a job ended.

    :param status: status of the check about it. :param text: how, in words. :param number: exit
        status.
    :param said: what it printed. :param outcome: what it reported for programs, None when it
        reported nothing.
    """

    status: str
    text: str
    number: int = 0
    said: str = ""
    outcome: Outcome | None = None

    @property
    def last_line(self) -> str:
        """The last thing the job printed: its result, or why it failed (notes begin with
        C(mlfleet:)).
        """
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


def environment_file(world: World, schedule: Schedule) -> str:
    """Return the path of the file from which the scheduled jobs get the old scripts' variables,
    empty when it is unknown.
    """
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
            files = re.findall(
                r"^EnvironmentFiles=(.*) \(ignore_errors=\w+\)$", shown, re.MULTILINE
            )
            return "".join(files[:1])
        if schedule.backend == "cron":
            with open(world.path(RUNNER), encoding="utf-8") as stream:
                assigned = re.findall(r"^variables=(.*)$", stream.read(), re.MULTILINE)
            return "".join(shlex.split("".join(assigned[:1])))
    return ""


def state(world: World, unit: str) -> dict[str, str]:
    """Return what systemd knows of a unit. :raises CommandFailed: there is no systemd to ask."""
    done = world.run(["systemctl", "show", "--property=" + _PROPERTIES, unit], timeout=10)
    return dict(line.partition("=")[::2] for line in done.stdout.splitlines())


def ended(unit: str, found: Mapping[str, str]) -> Ended | None:
    """Return how a unit ended when it was last started; None when it is not there or never was.

    A critical verdict (exit status 2 of the two checks) is work done. Statuses from 200 on are
    systemd's own: it could not set up what the unit asks for (C(EXIT STATUS) in systemd.exec(5)).
    """
    number, result = int(found.get("ExecMainStatus") or 0), found.get("Result", "")
    if found.get("LoadState") != "loaded" or (
        result == "success" and not found.get("ExecMainStartTimestamp")
    ):
        return None
    job = next(job for job in JOBS if unit == job.unit + ".service")
    if result == "success" and number == outcome.GAVE_WAY:
        return Ended(WARNING, "did not run: another job was running for too long", number)
    if result == "success" or (result == "exit-code" and number in job.reports):
        return Ended(PASS, "did its work", number)
    # 0 with another result than success: what comes before the command failed already.
    return Ended(
        CRITICAL if number >= 200 or number == 0 else WARNING,
        f"failed ({result}, status {number})",
        number,
    )


def with_reason(world: World, job: str, ended_run: Ended, backend: str = "systemd") -> Ended:
    """Add which file or directory keeps the user of a job from running the command.

    systemd and cron name the command even when its interpreter, or a directory above that, is what
    the user may not enter.
    """
    if ended_run.number != (126 if backend == "cron" else 203):
        return ended_run
    user = program = ""
    if backend == "cron":
        with contextlib.suppress(OSError), open(world.path(RUNNER), encoding="utf-8") as stream:
            lines = rf"^{job}\)\n\s*user=(\S+).*\n.*\n\s*set -- (\S+)"
            match = re.search(lines, stream.read(), re.MULTILINE)
            if match:
                user, program = match.groups()
    else:
        argv = ["systemctl", "show", "--property=User,ExecStart", UNITS[job] + ".service"]
        text = world.run(argv, timeout=10).stdout
        user = "".join(re.findall(r"^User=(.*)$", text, re.MULTILINE)) or "root"
        program = "".join(re.findall(r"^ExecStart=\{ path=(\S+) ;", text, re.MULTILINE)[:1])
    closed = closed_to(user, program)
    if not closed:
        return ended_run
    return ended_run._replace(text=f"{ended_run.text}: {user} may not use {closed}")


def start(world: World, schedule: Schedule, job: str, rehearse_cleanup: bool = True) -> Ended:
    """Start a job as its timer or cron line does, and wait for its end.

    :param rehearse_cleanup: a cleanup says what it would remove and removes nothing.
    :raises FleetError: it could not even be asked for.
    """
    entry = JOBS[job]
    until = ""
    if rehearse_cleanup and entry.removes:
        until = str(int(world.clock.now() + _LONG))
    if schedule.backend == "cron":
        env = {REHEARSE: until, outcome.REPORT_OUTCOME: "1"}
        result = world.run([RUNNER, job], timeout=_LONG, env=env)
        reported, text = outcome.read(result.stdout + result.stderr)
        number = result.returncode
        if reported is not None and reported.error == LockBusy.code:
            text_of_end = "did not run: another job was running for too long"
            return Ended(WARNING, text_of_end, number, text, reported)
        if number == 0 or number in entry.reports or _only_unhealthy(job, number, reported):
            return Ended(PASS, "did its work", number, text, reported)
        status = CRITICAL if number > 3 else WARNING
        failed = Ended(status, f"failed (status {number})", number, text, reported)
        return with_reason(world, job, failed, "cron")
    unit = entry.unit + ".service"
    before = state(world, unit)
    setting = f"[Service]\nEnvironment={outcome.REPORT_OUTCOME}=1\n"
    if until:
        setting += f"Environment={REHEARSE}={until}\n"
    with _changed_for_now(world, unit, setting):
        if until:
            _make_sure_it_rehearses(world, unit, until)
        asked = world.run(["systemctl", "start", unit], timeout=_LONG)
    after = state(world, unit)
    if after.get("InvocationID") == before.get("InvocationID") and asked.returncode == 0:
        return Ended(
            WARNING,
            "was not started: a condition of the unit holds it back (systemctl status says which)",
        )
    how = ended(unit, after)
    if how is None:
        return Ended(CRITICAL, f"could not be started: {' '.join(asked.stderr.split())}")
    reported, text = outcome.read(
        _said(world, f"_SYSTEMD_INVOCATION_ID={after.get('InvocationID')}")
    )
    if _only_unhealthy(job, how.number, reported):
        return Ended(PASS, "did its work", how.number, text, reported)
    return with_reason(world, job, how._replace(said=text, outcome=reported))


def _make_sure_it_rehearses(world: World, unit: str, until: str) -> None:
    """Check that the unit gets our setting: one of the administrator's may undo it, and the cleanup
    would be a real one.

    :raises NotUsable: it does not get it.
    """
    shown = world.run(["systemctl", "show", "--property=Environment", unit], timeout=10).stdout
    if f"{REHEARSE}={until}" not in shown:
        raise NotUsable(
            f"{unit} can't be made a rehearsal: a drop-in of its own undoes Environment=.",
            f"See: systemctl cat {unit}",
            unit,
        )


def _only_unhealthy(job: str, number: int, reported: Outcome | None) -> bool:
    """Return whether a maintenance ended with 1 only because the node is critical: every phase did
    its work.
    """
    return (
        job == "maintenance"
        and number == outcome.FAILED
        and reported is not None
        and reported.status == CRITICAL
        and not reported.failed_phases
        and not reported.error
    )


def alert_test(world: World, schedule: Schedule, command: str) -> list[dict[str, Any]] | None:
    """Send a test message as a failed job would: from the alert unit or the cron runner.

    Returns the channels, None when neither is there.

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
    directory = world.path(f"{_RUNTIME}/{unit}.d")
    path = os.path.join(directory, _DROP_IN)
    old_umask = os.umask(0o022)
    try:
        try:
            os.makedirs(directory, exist_ok=True)
        except OSError as error:
            raise NotUsable(
                f"Can't change {unit} for a trial: {error}.", "Check /run.", directory
            ) from error
        atomic_write(path, text, mode=0o644, durable=False)
        world.run(["systemctl", "daemon-reload"], timeout=60)
        yield
    finally:
        os.umask(old_umask)
        with contextlib.suppress(OSError):
            os.unlink(path)
        with contextlib.suppress(OSError):
            os.rmdir(directory)
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
