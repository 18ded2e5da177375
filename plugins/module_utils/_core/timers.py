# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Loading changed timers into systemd without starting a job that was not due.

systemd computes the next time of a timer from its last run, or from its last start. When a calendar
changes, a new time that lies between then and now counts as missed, and the job starts at once.
This holds for ``Persistent=`` timers (the last run is the time stamp of a file), for other timers,
and for a plain ``daemon-reload``. So changed timers are stopped first, and count from now when they
start again, unless a run was already due by the old calendar.
"""

from __future__ import annotations

import calendar
import contextlib
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .errors import CommandFailed, NotUsable
from .options import OptionSet, option
from .ports import World
from .records import NamedTuple

STAMPS = "/var/lib/systemd/timers"
_RUNTIME = "/run/systemd/system"
_DROP_IN = "mlops-fleet-start.conf"
_PROPERTIES = (
    "Id,LoadState,ActiveState,UnitFileState,NeedDaemonReload,Persistent,TimersCalendar".split(",")
)
_ELAPSE = re.compile(r"OnCalendar=(.*?) ; next_elapse=(.*?) }")
_TIME = "%a %Y-%m-%d %H:%M:%S UTC"


class TimerOptions(OptionSet):
    """Options of the module."""

    units: list[str] = option(
        type="list", elements="str", default=[], help="File names of the units."
    )


class Timer(NamedTuple):
    """A timer as systemd has loaded it.

    :param stale: its file has changed since.
    :param elapses: its calendars, each with the next time (seconds since the epoch, 0 = never)
        without random delay.
    """

    unit: str
    active: bool
    enabled: bool
    stale: bool
    persistent: bool
    elapses: tuple[tuple[str, float], ...]

    @property
    def calendars(self) -> tuple[str, ...]:
        """Return the expressions in systemd's normal form."""
        return tuple(expression for expression, dummy in self.elapses)

    def is_due(self, now: float) -> bool:
        """Return whether a run is due that has not started yet, such as during its random delay."""
        return self.active and any(0 < elapse <= now for dummy, elapse in self.elapses)


def counts_from_now(before: Timer, after: Timer, now: float) -> bool:
    """Return whether a timer that starts again must ignore when its job last ran.

    :param before: before it was stopped. :param after: stopped, with its new file loaded.
    """
    if before.is_due(now):
        return False
    unchanged = before.persistent and before.calendars == after.calendars
    return not (before.active and after.persistent and unchanged)


def timer_of(properties: Sequence[tuple[str, str]]) -> Timer:
    """Return the timer that ``systemctl show`` has described."""
    single = dict(properties)
    return Timer(
        unit=single.get("Id", ""),
        active=single.get("ActiveState") == "active",
        enabled=single.get("UnitFileState") == "enabled",
        stale=single.get("NeedDaemonReload") == "yes",
        persistent=single.get("Persistent") == "yes",
        elapses=tuple(
            (match[1], _seconds(match[2]))
            for key, value in properties
            if key == "TimersCalendar"
            for match in _ELAPSE.finditer(value)
        ),
    )


def _seconds(text: str) -> float:
    try:
        return float(calendar.timegm(time.strptime(text, _TIME)))
    except ValueError:
        return 0.0


def activate(options: TimerOptions, world: World, check: bool) -> dict[str, Any]:
    """Load changed units, and enable and start timers.

    :return: ``changed``, ``loaded`` (whether systemd read the units again), ``started`` (timers)
        and ``counting_from_now``.
    :raises CommandFailed: systemd refused; the message has its reason.
    """
    # Of a run that was killed; what is loaded differs from the files then, so the timer starts
    # again below.
    if not check:
        _remove_drop_ins(options.units, world)
    # An instance stands for a template.
    names = [unit.replace("@.", "@check.") for unit in options.units]
    units = _properties_of(names, world)
    timers = {unit: timer_of(units[unit]) for unit in names if unit.endswith(".timer")}
    load = any(("NeedDaemonReload", "yes") in properties for properties in units.values())
    restart = [unit for unit, timer in timers.items() if timer.stale or not timer.active]
    disabled = [unit for unit, timer in timers.items() if not timer.enabled]
    result: dict[str, Any] = {
        "changed": bool(load or restart or disabled),
        "loaded": load,
        "started": restart,
        "counting_from_now": [],
    }
    if check or not result["changed"]:
        return result
    now = world.clock.now()
    running = [unit for unit in restart if timers[unit].active]
    if running:
        _systemctl(["stop", *running], world)
    if load:
        _systemctl(["daemon-reload"], world)
    if disabled:
        _systemctl(["enable", *disabled], world)
    if restart:
        after = {
            unit: timer_of(properties)
            for unit, properties in _properties_of(restart, world).items()
        }
        result["counting_from_now"] = [
            unit for unit in restart if counts_from_now(timers[unit], after[unit], now)
        ]
        _start([after[unit] for unit in restart], result["counting_from_now"], world)
    return result


def _start(timers: Sequence[Timer], fresh: Iterable[str], world: World) -> None:
    """Start timers; those in ``fresh`` as if their jobs had run just now.

    systemd reads the stamp only of a persistent timer, so the others are persistent while they
    start.
    """
    others = [timer.unit for timer in timers if not timer.persistent and timer.unit in fresh]
    for unit in fresh:
        _touch(world.path(f"{STAMPS}/stamp-{unit}"))
    try:
        for unit in others:
            _write_drop_in(unit, world)
        if others:
            _systemctl(["daemon-reload"], world)
        _systemctl(["start", *(timer.unit for timer in timers)], world)
    finally:
        if others:
            _remove_drop_ins(others, world)
            _systemctl(["daemon-reload"], world)
            for unit in others:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(world.path(f"{STAMPS}/stamp-{unit}"))


def _touch(path: str) -> None:
    old_umask = os.umask(0o022)
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "ab"):
            os.utime(path)
    finally:
        os.umask(old_umask)


def _write_drop_in(unit: str, world: World) -> None:
    old_umask = os.umask(0o022)
    try:
        directory = world.path(f"{_RUNTIME}/{unit}.d")
        os.makedirs(directory, exist_ok=True)
        with open(os.path.join(directory, _DROP_IN), "w", encoding="ascii") as stream:
            stream.write("[Timer]\nPersistent=yes\n")
    finally:
        os.umask(old_umask)


def _remove_drop_ins(units: Iterable[str], world: World) -> None:
    for unit in units:
        directory = world.path(f"{_RUNTIME}/{unit}.d")
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(directory, _DROP_IN))
            os.rmdir(directory)


def _properties_of(units: Sequence[str], world: World) -> Mapping[str, list[tuple[str, str]]]:
    """Return the properties of units, in the order in which systemd gives them; some come several
    times.
    """
    if not units:
        return {}
    properties = ",".join(_PROPERTIES)
    text = _systemctl(["show", f"--property={properties}", *units], world)
    blocks = [
        [(key, value) for key, dummy, value in (line.partition("=") for line in block.splitlines())]
        for block in text.strip().split("\n\n")
    ]
    if len(blocks) != len(units):
        raise NotUsable(
            f"systemctl show described {len(blocks)} of {len(units)} units.",
            "Run it by hand: systemctl show " + " ".join(units),
            "systemctl",
        )
    return dict(zip(units, blocks))


def _systemctl(arguments: Sequence[str], world: World) -> str:
    response = world.run(["systemctl", *arguments], timeout=120, env={"TZ": "UTC"})
    if response.returncode != 0:
        reason = response.stderr.strip() or f"exit status {response.returncode}"
        raise CommandFailed(
            f"systemctl {' '.join(arguments)} failed: {reason}.",
            "Correct the cause and run the role again; the timers that were stopped start then.",
            arguments[-1],
        )
    return response.stdout
