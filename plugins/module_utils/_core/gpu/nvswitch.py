# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""NVSwitches: their errors (SXid) in the kernel log, and the fabric manager that sets them up.

Levels follow the appendix "NVSwitch SXid errors" of NVIDIA's Fabric Manager user guide: what the
line itself says (fatal or not), and by number. An error of a switch is one of the node: all GPUs
share it. A number that is not in the table is at least a warning.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Optional

from .. import verdict
from ..errors import CommandFailed
from ..ports import World
from ..records import NamedTuple
from ..registry import Registry
from ..system import procfs
from ..system.text import human_count, with_count
from ..verdict import CRITICAL, PASS, WARNING, Check

if TYPE_CHECKING:
    from ..system.kernel_log import Record

#: Where the driver lists the NVSwitches that it drives.
DEVICES = "/proc/driver/nvidia-nvswitch/devices"
LOG = "/var/log/fabricmanager.log"
UNIT = "nvidia-fabricmanager"
#: Name of its process, which the kernel truncates.
PROCESS = "nv-fabricmanager"[:15]
#: How much of the end of its log is read, bytes.
TAIL = 1 << 20
#: Lines of one error of one switch belong together up to this gap, seconds.
BURST_GAP = 300


class SXid(NamedTuple):
    """What a number means: its level where the line says that it is not fatal, action, text.

    ``fatal``: it is fatal even if the line does not say so.
    """

    name: str
    level: str
    action: str
    text: str
    fatal: bool = False


CATALOG: Registry[SXid] = Registry("SXid", required=("level", "action", "text"))


def _register(level: str, action: str, text: str, numbers: str, fatal: bool = False) -> None:
    for part in numbers.split():
        first, dummy, last = part.partition("-")
        for number in range(int(first), int(last or first) + 1):
            CATALOG.add(SXid(str(number), level, action, text, fatal))


_register(
    PASS,
    "none",
    "corrected single-bit ECC error",
    "11012 11021-11023 12021 12023 15008 15011 19049 19055 19057 19059 19062 19065 19068 19071 "
    "24001-24003",
)
_register(PASS, "none", "replayed packet", "20001")
_register(PASS, "none", "link state change", "20012 22013")
_register(PASS, "none", "thermal event ended", "10005")
_register(WARNING, "inspect", "rate of link errors", "20009")
_register(WARNING, "inspect", "thermal event started", "10004")
_register(WARNING, "inspect", "invalid access list of a partition", "11004")
_register(WARNING, "inspect", "privileged access error", "10001 10002 12028")
_register(WARNING, "inspect", "heartbeat timeout", "19084")
_register(WARNING, "inspect", "link microcontroller error", "22012")
_register(
    CRITICAL,
    "drain",
    "fatal to the links of a port",
    "11001 11009 11013 11018-11020 12001 12002 12022 12024-12027 12030-12032 14017 15001 15006 "
    "15009 15010 15012 15013 19047 19048 19054 19056 19058 19060 19061 19063 19064 19066 19067 "
    "19069 19070 20034 24004-24007",
    fatal=True,
)
_register(
    CRITICAL,
    "reboot",
    "always fatal to the whole fabric",
    "10003 12020 22003 22011 23001-23017",
    fatal=True,
)


class Incident(NamedTuple):
    """One logged error: when, which switch, its number, what the line says.

    ``fatal``: as it says.
    """

    time: Optional[float]
    switch: str
    number: str
    fatal: Optional[bool]
    text: str


_LINE = r"(?:NVRM: *)?nvidia-nvswitch(\d+): *SXid \((?:PCI:)?([0-9a-fA-F:.]+)\): *(\d+), *(.*)"
_DETAIL = re.compile(r"Severity \d|Data \{|Engine instance")


def find(records: Iterable[Record]) -> Iterator[Incident]:
    """Yield the errors of NVSwitches among the kernel's messages, without the lines of details."""
    for record in records:
        match = re.match(_LINE, record.message, re.DOTALL)
        if match is None or _DETAIL.match(match[4]):
            continue
        word, dummy, rest = match[4].partition(",")
        fatal = {"fatal": True, "nonfatal": False}.get(re.sub(r"[-_ ]", "", word).lower())
        text = match[4]
        if fatal is not None:
            text = rest
        yield Incident(record.time, match[1], match[3], fatal, text.strip())


class Event(NamedTuple):
    """All incidents of one error of one switch: how many, the newest, level and action."""

    switch: str
    number: str
    incidents: int
    last: Optional[float]
    level: str
    action: str
    text: str
    source: str = "default"


def events(
    incidents: Iterable[Incident], overrides: Mapping[Any, str] | None = None
) -> list[Event]:
    """Group the incidents by switch and number and give each group its level."""
    chosen = {str(int(number)): level for number, level in (overrides or {}).items()}
    groups: dict[tuple[str, str], Event] = {}
    for incident in incidents:
        event = _event(incident, chosen.get(incident.number))
        before = groups.get((incident.switch, incident.number))
        if before is not None:
            apart = (incident.time or 0.0) - (before.last or 0.0) > BURST_GAP
            event = max(
                event, before, key=lambda entry: verdict.STATUSES.index(entry.level)
            )._replace(
                incidents=before.incidents + apart,
                last=before.last if incident.time is None else incident.time,
            )
        groups[incident.switch, incident.number] = event
    return [_undated(event) for event in groups.values()]


def _event(incident: Incident, chosen: str | None) -> Event:
    meaning = CATALOG.get(incident.number) or SXid(
        incident.number, WARNING, "inspect", "not in the catalog"
    )
    level, action = meaning.level, meaning.action
    if incident.fatal is True and level != CRITICAL:
        level, action = CRITICAL, "drain"
    elif incident.fatal is False and level == CRITICAL and action != "reboot":
        level, action = WARNING, "inspect"  # the line of this driver knows better
    word = {True: "fatal, ", False: "nonfatal, ", None: ""}[incident.fatal]
    text = f"SXid {incident.number} ({word}{incident.text or meaning.text})"
    event = Event(incident.switch, incident.number, 1, incident.time, level, action, text)
    if chosen is None:
        return event
    if chosen == "ignore":
        return event._replace(level=PASS, action="none", source="user")
    if action == "none":
        action = "inspect"
    return event._replace(level=chosen, action=action, source="user")


def _undated(event: Event) -> Event:
    """An error without a readable time may be old: it is at most a warning."""
    if event.last is not None or event.source == "user":
        return event
    event = event._replace(text=f"{event.text}, at an unknown time")
    if event.level == CRITICAL:
        return event._replace(level=WARNING)
    return event


# --- the fabric manager -----------------------------------------------------------------------


class FabricManager(NamedTuple):
    """The service that configures the NVSwitches of this node.

    ``switches`` is how many there are. ``state`` is its unit's, empty while its process runs;
    ``errors`` are the lines of its log that report some, within the window.
    """

    switches: int
    state: str = ""
    errors: tuple[str, ...] = ()


def observe(since: float, timeout: float, world: World) -> FabricManager | None:
    """Look at the fabric manager, None on a node without NVSwitches of its own.

    :param since: seconds since the epoch. :param timeout: seconds for systemctl.
    """
    switches = len(procfs.directory(world, DEVICES))
    if not switches:
        return None
    return FabricManager(switches, _state(timeout, world), tuple(_log_errors(since, world)))


def _state(timeout: float, world: World) -> str:
    for entry in procfs.directory(world, "/proc"):
        if entry.isdigit() and procfs.text(world, f"/proc/{entry}/comm") == PROCESS:
            return ""
    try:
        result = world.run(["systemctl", "is-active", UNIT], timeout=timeout)
    except CommandFailed:
        return "not running"
    state = result.stdout.strip().splitlines()[-1:]
    if state and state[0] not in ("active", "unknown"):
        return state[0]
    return "not running"


def _log_errors(since: float, world: World) -> Iterator[str]:
    """Yield the errors of the log: ``[Nov 08 2025 17:07:22] [ERROR] [tid 1234] text``."""
    text = ""
    with contextlib.suppress(OSError):
        with open(world.path(LOG), "rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - TAIL))
            text = stream.read(TAIL).decode("utf-8", "replace")
    for line in text.splitlines():
        match = re.match(r"\[(\w{3} +\d+ \d{4} [\d:]{8})\] \[(ERROR|CRITICAL|FATAL)\] *(.*)", line)
        if match is None:
            continue
        with contextlib.suppress(ValueError, OverflowError):
            if time.mktime(time.strptime(match[1], "%b %d %Y %H:%M:%S")) >= since:
                yield re.sub(r"^\[tid \d+\] *", "", match[3])


# --- verdicts ---------------------------------------------------------------------------------


class SwitchCheck(NamedTuple):
    """A check of the node's NVSwitches; the fields are those of case.GpuCheck."""

    name: str
    limit: str
    actions: tuple[str, ...]
    runbook: str
    metric: str
    documentation: str


SWITCH_CHECKS: Registry[SwitchCheck] = Registry(
    "NVSwitch check",
    (
        SwitchCheck(
            "gpu_sxid",
            "the catalog; option xid_overrides",
            ("inspect", "drain", "reboot"),
            "gpu_sxid",
            "mlops_gpu_check_status",
            "errors of NVSwitches in the kernel log",
        ),
        SwitchCheck(
            "gpu_fabric_manager",
            "running, no error in its log",
            ("inspect",),
            "gpu_fabric_manager",
            "mlops_gpu_check_status",
            "the service that configures the NVSwitches, and its log",
        ),
    ),
    required=("limit", "actions", "runbook", "metric", "documentation"),
)


def evaluate(
    incidents: Iterable[Incident],
    manager: FabricManager | None,
    overrides: Mapping[Any, str] | None = None,
) -> list[Check]:
    """Return a check for each switch with errors, and one for the fabric manager. Pure."""
    by_switch: dict[str, list[Event]] = {}
    for event in events(incidents, overrides):
        by_switch.setdefault(event.switch, []).append(event)
    results = [_switch(switch, own) for switch, own in sorted(by_switch.items())]
    if manager is not None:
        results.append(_fabric_manager(manager))
    return results


def _switch(switch: str, own: list[Event]) -> Check:
    worst = max((event.level for event in own), key=verdict.STATUSES.index)
    deciding = [event for event in own if event.level == worst]
    others = [event for event in own if event.level != worst]
    text = ", ".join(with_count(event.text, event.incidents) for event in [*deciding, *others][:6])
    action = max((event.action for event in deciding), key=verdict.ACTIONS.index)
    return Check(
        "gpu_sxid",
        worst,
        f"NVSwitch {switch}: {text}",
        subject=f"NVSwitch {switch}",
        value=sum(event.incidents for event in own),
        threshold_source="user" if any(event.source == "user" for event in deciding) else "default",
        action="none" if worst == PASS else action,
        domain=None if worst == PASS else "node",
    )


def _fabric_manager(manager: FabricManager) -> Check:
    name, switches = "gpu_fabric_manager", human_count(manager.switches, "NVSwitch")
    switches = switches.replace("NVSwitchs", "NVSwitches")
    if manager.state:
        text = f"{switches}, but the fabric manager is {manager.state}: jobs can't use NVLink"
        return Check(name, CRITICAL, text, action="inspect", domain="node")
    if manager.errors:
        count = human_count(len(manager.errors), "error")
        text = f"{count} in {LOG}, the last: {manager.errors[-1][:200]}"
        value = len(manager.errors)
        return Check(name, WARNING, text, value=value, action="inspect", domain="node")
    return Check(name, PASS, f"the fabric manager runs ({switches})", value=0)
