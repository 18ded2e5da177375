# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""systemd units: the named services, failed ones, flapping ones.

Two short calls of systemctl, whatever the number of units.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from .. import verdict
from ..errors import CommandFailed
from ..ports import World
from ..records import NamedTuple
from ..system import boot, journal
from ..verdict import Check
from . import thresholds
from .options import NodeOptions
from .thresholds import fault, passed, skipped

#: The checks that are made of these facts.
DECIDES = ("service", "failed_units", "flapping_units")

_SUFFIXES = (
    ".service",
    ".socket",
    ".timer",
    ".mount",
    ".target",
    ".path",
    ".automount",
    ".swap",
    ".slice",
    ".scope",
    ".device",
)
_PROPERTIES = (
    "Id,Names,LoadState,LoadError,ActiveState,SubState,Result,NRestarts,UnitFileState,Type"
    ",TriggeredBy,InactiveExitTimestampMonotonic,ConditionResult,ConditionTimestampMonotonic"
    ",BusName"
)
#: systemd's catalogue id of "a start job finished" (sd-messages.h, SD_MESSAGE_UNIT_STARTED).
_STARTED = "39f53479d3a045ac8e11786248231fbf"
#: Socket of the system bus, and where it reads which names it starts (dbus-daemon(1)).
_BUS = "/run/dbus/system_bus_socket"
_BUS_SERVICES = (
    "/etc/dbus-1/system-services",
    "/usr/local/share/dbus-1/system-services",
    "/usr/share/dbus-1/system-services",
)
_RUNNING = frozenset({"active", "reloading", "refreshing"})
_CHANGING = frozenset({"activating", "deactivating", "maintenance"})


class Unit(NamedTuple):
    """What systemd says about a unit; the names are those of its properties.

    ``triggers`` are the units that start it (sockets, timers), ``started`` whether it was
    started since boot, None when systemd does not say. ``unmet``: its last start was given up
    because a condition was not met. ``bus_name`` is the name that it takes on the system bus.
    """

    id: str
    load: str = ""
    active: str = ""
    sub: str = ""
    result: str = "success"
    restarts: int = 0
    type: str = ""
    triggers: tuple[str, ...] = ()
    started: bool | None = None
    unmet: bool = False
    bus_name: str = ""

    @property
    def restarting(self) -> bool:
        """Whether systemd waits before it starts the unit again."""
        return self.sub.startswith("auto-restart")


class ServiceFacts(NamedTuple):
    """The units of the option services, and the bad ones, which failed or wait for a restart.

    ``active`` are those triggers of named units that are active. ``of_users`` are the named
    units that only user managers know, with the IDs of the users where they run. ``ran`` are
    the units that ran since boot by the journal, ``by_bus`` those that the bus starts.
    """

    booted: bool
    named: dict[str, Unit]
    bad: list[Unit]
    active: frozenset[str] = frozenset()
    of_users: dict[str, tuple[str, ...]] = {}  # noqa: RUF012  # never changed
    ran: frozenset[str] = frozenset()
    by_bus: frozenset[str] = frozenset()


def booted(world: World) -> bool:
    """Return whether systemd runs this system (sd_booted(3))."""
    return os.path.isdir(world.path("/run/systemd/system"))


def unit(name: str) -> str:
    """Return the full unit name: ``docker`` is ``docker.service``."""
    if name.endswith(_SUFFIXES):
        return name
    return name + ".service"


def parse_show(content: str) -> list[Unit]:
    """Return the units that ``systemctl show`` describes, in their order."""
    blocks = [
        dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        for block in content.split("\n\n")
    ]
    return [_unit(block) for block in blocks if "Id" in block]


def _unit(block: Mapping[str, str]) -> Unit:
    restarts = block.get("NRestarts", "")
    return Unit(
        id=block["Id"],
        load=block.get("LoadState", ""),
        active=block.get("ActiveState", ""),
        sub=block.get("SubState", ""),
        result=block.get("Result", "success"),
        restarts=int(restarts) if restarts.isdigit() else 0,
        type=block.get("Type", ""),
        triggers=tuple(block.get("TriggeredBy", "").split()),
        started=_started(block.get("InactiveExitTimestampMonotonic", "")),
        unmet=block.get("ConditionResult") == "no"
        and _started(block.get("ConditionTimestampMonotonic", "")) is True,
        bus_name=block.get("BusName", ""),
    )


def _started(stamp: str) -> bool | None:
    """Return whether a time stamp of systemd is set, None when it is not reported."""
    if stamp.isdigit():
        return stamp != "0"
    return None


def _list_bad(world: World, timeout: float) -> list[str]:
    """Return the names of the units that failed or wait for a restart."""
    argv = ["systemctl", "list-units", "--all", "--plain", "--no-legend", "--no-pager", "--full"]
    listed = world.run([*argv, "--state=failed,auto-restart"], timeout=timeout)
    if listed.returncode != 0:
        raise CommandFailed(
            f"systemctl list-units failed: {listed.stderr.strip()[:200]}.", "", "systemctl"
        )
    return [line.split()[0] for line in listed.stdout.splitlines() if line.split()]


def observe(world: World, options: NodeOptions, timeout: float) -> ServiceFacts:
    """Ask systemd for the named units and the bad ones.

    :param timeout: seconds for both calls together.
    :raises CommandFailed: systemctl is missing, failed or did not answer.
    """
    if not booted(world):
        return ServiceFacts(False, {}, [])
    half = timeout / 2
    bad: list[str] = []
    if options.wants("failed_units") or options.wants("flapping_units"):
        bad = _list_bad(world, half)
    wanted = {name: unit(name) for name in options.services} if options.wants("service") else {}
    names = list(dict.fromkeys([*wanted.values(), *bad]))
    units = _show(world, names, half)
    named = {name: units[full] for name, full in wanted.items()}
    idle = [entry for entry in named.values() if entry.active == "inactive"]
    triggers = list(dict.fromkeys(trigger for entry in idle for trigger in entry.triggers))
    trigger_units = _show(world, triggers, half)
    return ServiceFacts(
        True,
        named,
        [units[name] for name in bad if name in units],
        frozenset(name for name, entry in trigger_units.items() if entry.active == "active"),
        _of_users(world, [name for name, entry in named.items() if entry.load == "not-found"]),
        _ran(world, [entry.id for entry in idle if _may_be_forgotten(entry)], half),
        frozenset(entry.id for entry in idle if _started_by_bus(world, entry)),
    )


def _of_users(world: World, names: list[str]) -> dict[str, tuple[str, ...]]:
    """Return those of the units that are for the managers of users, and who runs them."""
    if not names:
        return {}
    from . import user_units  # only where systemd does not know a unit

    return {
        name: user_units.running(world, unit(name))
        for name in names
        if user_units.exists(world, unit(name))
    }


def _started_by_bus(world: World, entry: Unit) -> bool:
    """Return whether the system bus starts a unit when somebody calls it."""
    if not entry.bus_name or not os.path.exists(world.path(_BUS)):
        return False
    paths = [f"{directory}/{entry.bus_name}.service" for directory in _BUS_SERVICES]
    return any(os.path.exists(world.path(path)) for path in paths)


def _may_be_forgotten(entry: Unit) -> bool:
    """Return whether a unit may have run since boot although systemd does not know of it.

    systemd unloads a unit that is at rest and that no other one refers to, with its history.
    """
    return entry.type == "oneshot" and entry.started is False and not entry.unmet


def _ran(world: World, units: list[str], timeout: float) -> frozenset[str]:
    """Return those of the units whose start finished since boot, by the journal."""
    if not units or not journal.readable(world):
        return frozenset()
    window = boot.system_age(world) or 0.0
    ran = []
    for name in units:
        matches = [f"UNIT={name}", f"MESSAGE_ID={_STARTED}"]
        if journal.query(world, matches, window, 1, timeout / len(units)):
            ran.append(name)
    return frozenset(ran)


def _show(world: World, names: list[str], timeout: float) -> dict[str, Unit]:
    """Return the units of these names. :raises CommandFailed: systemctl failed."""
    if not names:
        return {}
    argv = ["systemctl", "show", "--no-pager", f"--property={_PROPERTIES}", "--", *names]
    result = world.run(argv, timeout=timeout)
    described = parse_show(result.stdout)
    if len(described) < len(names):
        reason = result.stderr.strip()[:200] or "incomplete answer"
        raise CommandFailed(f"systemctl show failed: {reason}.", "", "systemctl")
    return dict(zip(names, described))


def decide(
    facts: ServiceFacts, options: NodeOptions, restarts: Mapping[str, int] | None
) -> list[Check]:
    """Return the checks of the units.

    :param restarts: restarts of each unit within the window, None where no journal counts them.
    """
    if not facts.booted:
        return [
            skipped(name, "systemd does not run here")
            for name in ("service", "failed_units", "flapping_units")
            if options.wants(name)
        ]
    checks = []
    if options.wants("service"):
        checks += [_service(name, entry, facts, options) for name, entry in facts.named.items()]
    if options.wants("failed_units"):
        checks.append(_failed(facts, options))
    if options.wants("flapping_units"):
        checks.append(_flapping(facts, options, restarts))
    return checks


def _failed(facts: ServiceFacts, options: NodeOptions) -> Check:
    """Return failed_units; the named ones have a check of their own."""
    named = {entry.id for entry in facts.named.values()}
    failed = sorted(entry.id for entry in facts.bad if entry.active == "failed")
    others = [name for name in failed if name not in named]
    text = f"Failed units: {len(others)}"
    if others:
        text += f": {', '.join(others[:8])}"
    if len(others) > 8:
        text += " …"
    return thresholds.evaluate(
        options.limits_in_force["failed_units"],
        "failed_units",
        len(others),
        text,
        details={"units": others} if others else None,
    )


def _flapping(
    facts: ServiceFacts, options: NodeOptions, restarts: Mapping[str, int] | None
) -> Check:
    """Return flapping_units.

    Without a journal to count in, it is what waits for its next start now, by systemd's counter.
    """
    if restarts is None:
        restarts = {entry.id: entry.restarts for entry in facts.bad if entry.restarting}
    flapping = sorted(
        (name, count) for name, count in restarts.items() if count >= options.flapping_restarts
    )
    text = f"Flapping units: {len(flapping)}"
    if flapping:
        text += ": " + ", ".join(f"{name} ({count} restarts)" for name, count in flapping[:8])
    return thresholds.evaluate(
        options.limits_in_force["flapping_units"],
        "flapping_units",
        len(flapping),
        text,
        details={"units": dict(flapping)} if flapping else None,
    )


def _service(name: str, entry: Unit, facts: ServiceFacts, options: NodeOptions) -> Check:
    if name in facts.of_users:
        return _user_unit(name, facts.of_users[name])
    if entry.load != "loaded":
        return _not_loaded(name, entry.load, options)
    active, sub = entry.active, entry.sub
    if active in _RUNNING:
        return passed("service", f"Service {name}: {active} ({sub})", name, value=active)
    if active == "inactive" and entry.result == "success":
        check = _idle(name, entry, facts)
        if check is not None:
            return check
    if active == "activating" and entry.type == "oneshot" and not entry.restarting:
        return passed("service", f"Service {name}: a run is under way", name, value=active)
    if active in _CHANGING and not entry.restarting:
        text = f"Service {name}: {active} ({sub})"
        return fault("service", verdict.WARNING, text, name, value=active)
    reason = "" if entry.result in ("success", "") else f", {entry.result}"
    if active == "inactive" and entry.unmet:
        reason += ", a condition of its unit is not met"
    text = f"Service {name}: {active} ({sub}{reason})"
    return fault("service", verdict.CRITICAL, text, name, "restart_app", value=active)


def _idle(name: str, entry: Unit, facts: ServiceFacts) -> Check | None:
    """Return the check of a unit that is at rest by design, None when it should be active."""
    triggers = [trigger for trigger in entry.triggers if trigger in facts.active]
    if entry.type == "oneshot":
        if entry.unmet:
            text = f"Service {name}: at rest, a condition of its unit is not met"
        elif entry.started is not False or entry.id in facts.ran:
            text = f"Service {name}: at rest, last run succeeded"
        elif triggers:
            text = f"Service {name}: at rest, not run since boot, started by {triggers[0]}"
        else:
            text = f"Service {name}: has not run since boot"
            return fault("service", verdict.WARNING, text, name, value=entry.active)
        return passed("service", text, name, value=entry.active)
    if not triggers and entry.id in facts.by_bus:
        text = f"Service {name}: idle, started by D-Bus when it is used"
        return passed("service", text, name, value=entry.active)
    if not triggers:
        return None
    when = "when it is due"
    if triggers[0].endswith(".socket"):
        when = "when it is used"
    text = f"Service {name}: idle, started by {triggers[0]} {when}"
    return passed("service", text, name, value=entry.active)


def _user_unit(name: str, users: tuple[str, ...]) -> Check:
    """Return the check of a unit that only the managers of users know."""
    if users:
        text = f"Service {name}: active in the user manager of {', '.join(users)}"
        return passed("service", text, name, value="active")
    text = f"Service {name}: a user unit, and no user manager runs it"
    return fault("service", verdict.CRITICAL, text, name, "restart_app", value="inactive")


def _not_loaded(name: str, load: str, options: NodeOptions) -> Check:
    """Return the check of a unit that systemd has not loaded."""
    if load == "not-found":
        if options.services_are_default():
            return skipped("service", f"Service {name}: not installed", name)
        text = f"Unknown service {name}: systemd knows no unit {unit(name)}"
    elif load == "masked":
        if options.services_are_default():
            return skipped("service", f"Service {name}: masked, switched off for good", name)
        text = f"Service {name}: masked"
    else:
        text = f"Service {name}: its unit can't be loaded ({load})"
    return fault("service", verdict.CRITICAL, text, name, value=load)
