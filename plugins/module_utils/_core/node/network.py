# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Connectivity: default route and gateway, name resolution, TCP targets, links."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .. import verdict
from ..errors import FleetError
from ..ports import World
from ..records import NamedTuple
from ..system import procfs
from ..verdict import Check
from . import resources
from .options import NodeOptions
from .probes import Problem
from .thresholds import fault, passed, skipped

if TYPE_CHECKING:
    from .infiniband import Port

#: The checks that are made of these facts.
DECIDES = ("network_gateway", "dns", "network_target", "network_link", "infiniband_port")

#: Looked up when no name is given: every public resolver knows it (RFC 7050). Any answer, "no
#: such name" included, proves that the resolver works, so closed networks pass too.
PROBE_NAME = "ipv4only.arpa"
#: What a look-up ended in: an address, the answer that there is no such name, no answer.
RESOLVED, NO_SUCH_NAME, SILENT = "ok", "unknown", "silent"
_IFF_UP = 1
_ATF_COM = 2  # linux/if_arp.h
_RTF_UP = 1
_RTF_REJECT = 0x200
#: Sources of host names that ask no server; mdns asks the neighbours, and for .local only.
_LOCAL_SOURCES = frozenset(
    "files myhostname mymachines altfiles compat db libvirt libvirt_guest mdns mdns4 mdns6"
    " mdns_minimal mdns4_minimal mdns6_minimal".split()
)
_LAST_METRIC = 0xFFFFFFFF
#: IPv6 metrics are compared after all of IPv4.
_AFTER_IPV4 = 1 << 32


class Route(NamedTuple):
    """A default route; ``gateway`` is None for a point-to-point link.

    ``rejects``: packets are not forwarded (types unreachable, prohibit and blackhole).
    """

    metric: int
    device: str
    gateway: str | None
    rejects: bool = False


class RouteFacts(NamedTuple):
    """What the kernel knows: default routes, best first, and whether a neighbour has an address.

    ``alone``: the loopback is the only interface. ``sources`` are those of host names
    (``hosts`` of nsswitch.conf), ``nameservers`` whether resolv.conf names any.
    """

    routes: list[Route]
    neighbours: dict[str, bool]
    alone: bool
    nameservers: bool
    sources: tuple[str, ...]


class NameAnswer(NamedTuple):
    """What a look-up ended in (RESOLVED, NO_SUCH_NAME or SILENT), with the address or reason."""

    kind: str
    text: str


class Link(NamedTuple):
    """A network interface.

    ``wanted``: it is switched on. ``speed`` is in Mbit/s, 0 when unknown. ``ups`` counts how
    often there was a carrier since boot, None before Linux 4.16. ``member``: it belongs to a
    bond or bridge.
    """

    name: str
    hardware: bool
    wanted: bool
    carrier: int | None
    state: str
    speed: int
    ups: int | None
    member: bool

    @property
    def down(self) -> bool:
        """Whether nothing can be sent through it."""
        if not self.wanted or self.carrier == 0:
            return True
        return self.state in ("down", "lowerlayerdown")


class NetworkFacts(NamedTuple):
    """Everything about connectivity; seconds or a Problem for each target."""

    kernel: RouteFacts
    names: dict[str, NameAnswer]
    targets: dict[str, float | Problem]
    links: list[Link] | Problem
    infiniband: list[Port] | Problem | None


def _hex(text: str | None) -> int:
    try:
        return int(text or "", 16)
    except ValueError:
        return 0


def routes(world: World) -> list[Route]:
    """Return the default routes, best first, IPv4 before IPv6 (proc(5))."""
    table = []
    for line in procfs.lines(world, "/proc/net/route")[1:]:
        with contextlib.suppress(ValueError, IndexError):
            route = _ipv4_route(line.split())
            if route is not None:
                table.append(route)
    for line in procfs.lines(world, "/proc/net/ipv6_route"):
        with contextlib.suppress(ValueError, IndexError):
            route = _ipv6_route(line.split())
            if route is not None:
                table.append(route)
    return sorted(table, key=lambda route: (route.metric, route.device))


def _ipv4_route(fields: list[str]) -> Route | None:
    if fields[1] != "00000000" or fields[7] != "00000000" or not int(fields[3], 16) & _RTF_UP:
        return None
    raw = bytes.fromhex(fields[2])[::-1]
    gateway = socket.inet_ntop(socket.AF_INET, raw) if any(raw) else None
    # A blackhole has no device, and unlike unreachable and prohibit it has no flag either.
    rejects = bool(int(fields[3], 16) & _RTF_REJECT) or fields[0] == "*"
    return Route(int(fields[6]), fields[0], gateway, rejects)


def _ipv6_route(fields: list[str]) -> Route | None:
    default = fields[0] == "0" * 32 and fields[1] == "00"
    metric, flags = int(fields[5], 16), int(fields[8], 16)
    # The last one is the kernel's own and rejects what no other route takes.
    rejects = bool(flags & _RTF_REJECT) and metric != _LAST_METRIC
    if not default or (not rejects and (fields[9] == "lo" or not flags & _RTF_UP)):
        return None
    raw = bytes.fromhex(fields[4])
    gateway = socket.inet_ntop(socket.AF_INET6, raw) if any(raw) else None
    return Route(metric + _AFTER_IPV4, fields[9], gateway, rejects)


def neighbours(world: World) -> dict[str, bool]:
    """Return for each IPv4 neighbour whether the kernel knows its hardware address."""
    rows = [line.split() for line in procfs.lines(world, "/proc/net/arp")[1:]]
    return {row[0]: bool(_hex(row[2]) & _ATF_COM) for row in rows if len(row) >= 6}


def links(world: World) -> list[Link]:
    """Return the interfaces. :raises MissingLibrary: no psutil.

    Asks the drivers, and a wedged driver may not return: only in a child.
    """
    try:
        stats = resources.psutil(world).net_if_stats()
    except (OSError, ValueError):
        stats = {}  # hidden from this user or container; /sys still reports the carrier
    names = procfs.directory(world, "/sys/class/net")
    return [_link(world, name, stats.get(name)) for name in names]


def _link(world: World, name: str, stats: Any) -> Link:
    base = f"/sys/class/net/{name}"
    flags = procfs.text(world, f"{base}/flags")
    switched_on = _hex(flags) & _IFF_UP if flags else stats and stats.isup
    return Link(
        name=name,
        hardware=bool(procfs.directory(world, f"{base}/device")),
        wanted=bool(switched_on),
        carrier=procfs.number(world, f"{base}/carrier"),
        state=procfs.text(world, f"{base}/operstate") or "unknown",
        speed=max(0, stats.speed) if stats else 0,
        ups=procfs.number(world, f"{base}/carrier_up_count"),
        member=os.path.exists(world.path(f"{base}/master")),
    )


def alone(world: World) -> bool:
    """Return whether the loopback is the only interface that has hardware or is switched on."""
    names = procfs.directory(world, "/sys/class/net")
    for name in names:
        base = f"/sys/class/net/{name}"
        if name == "lo":
            continue
        if os.path.exists(world.path(f"{base}/device")):
            return False
        if _hex(procfs.text(world, f"{base}/flags")) & _IFF_UP:
            return False
    return bool(names)


def _nameservers(world: World) -> bool:
    """Return whether the resolver is configured.

    A link that leads nowhere counts: whoever should write the file (systemd-resolved) did not.
    """
    path = world.path("/etc/resolv.conf")
    if os.path.islink(path) and not os.path.exists(path):
        return True
    lines = procfs.lines(world, "/etc/resolv.conf")
    return any(line.split()[:1] == ["nameserver"] for line in lines)


def observe(world: World) -> RouteFacts:
    """Read what the kernel itself knows, at once: routes, neighbours, name servers."""
    table = routes(world)
    known = neighbours(world)
    # IPv6 neighbours are not in /proc, so the kernel has to be asked for them.
    if table and ":" in (table[0].gateway or "") and world.root == "/":
        from . import netlink

        with contextlib.suppress(OSError):
            known.update(netlink.ipv6_neighbours())
    return RouteFacts(table, known, alone(world), _nameservers(world), _sources(world))


def _sources(world: World) -> tuple[str, ...]:
    """Return where host names are looked up, in the order of nsswitch.conf(5)."""
    for line in procfs.lines(world, "/etc/nsswitch.conf"):
        key, _colon, value = line.partition("#")[0].partition(":")
        if key.strip() == "hosts":
            return tuple(_reached(re.findall(r"\[[^]]*\]|[^\s[]+", value)))
    return ("files", "dns")


def _reached(parts: list[str]) -> list[str]:
    """Return the sources that a name is looked up in which is not in the files.

    After ``files [NOTFOUND=return]`` or ``[!SUCCESS=return]`` no other source is asked.
    """
    sources: list[str] = []
    for part in parts:
        if not part.startswith("["):
            sources.append(part)
        elif sources[-1:] == ["files"]:
            for negated, status in re.findall(r"(!?)(\w+)\s*=\s*return", part.lower()):
                if (status == "notfound") != bool(negated):
                    return sources
    return sources


def resolve(name: str) -> NameAnswer:
    """Ask the resolver; may take long, so only in a child."""
    try:
        addresses = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        no_data = getattr(socket, "EAI_NODATA", -5)
        if error.errno in (socket.EAI_NONAME, no_data):
            return NameAnswer(NO_SUCH_NAME, error.strerror or "no such name")
        return NameAnswer(SILENT, error.strerror or "no answer")
    except UnicodeError:
        return NameAnswer(NO_SUCH_NAME, "not a host name")
    return NameAnswer(RESOLVED, str(addresses[0][4][0]))


def connect(target: str, timeout: float) -> float:
    """Open and close a TCP connection to ``HOST:PORT``; return the seconds it took.

    :raises FleetError: it can't be reached.
    """
    host, _colon, port = target.rpartition(":")
    begun = time.monotonic()
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout).close()
    except OSError as error:
        raise FleetError(error.strerror or str(error) or type(error).__name__) from error
    return time.monotonic() - begun


def names_to_resolve(options: NodeOptions, facts: RouteFacts) -> list[str]:
    """Return the names to look up: the user's, else a name that proves that the resolver works."""
    if options.dns_names:
        return list(dict.fromkeys(options.dns_names))
    if facts.alone or not set(facts.sources) - _LOCAL_SOURCES:
        return []
    return [PROBE_NAME]


def decide(facts: NetworkFacts, options: NodeOptions) -> list[Check]:
    """Return the checks of connectivity."""
    checks: list[Check] = []
    if options.wants("network_gateway"):
        checks.append(decide_gateway(facts.kernel))
    if options.wants("dns"):
        checks += decide_dns(facts.names, facts.kernel, options)
    if options.wants("network_target"):
        for target in dict.fromkeys(options.network_targets):
            checks.append(_target(target, facts.targets[target]))
    if options.wants("network_link"):
        if isinstance(facts.links, Problem):
            checks.append(_unread("network_link", f"Links: {facts.links}"))
        else:
            checks += decide_links(facts.links, options)
    if options.wants("infiniband_port"):
        if facts.infiniband is None and not options.infiniband_ports:
            checks.append(skipped("infiniband_port", "InfiniBand: no port"))
        elif isinstance(facts.infiniband, Problem):
            checks.append(_unread("infiniband_port", f"InfiniBand: {facts.infiniband}"))
        else:
            from . import infiniband  # only where there are ports, or should be

            checks += infiniband.decide(facts.infiniband or [], options)
    return checks


def _unread(check: str, text: str) -> Check:
    return fault(check, verdict.UNKNOWN, text)


def decide_gateway(facts: RouteFacts) -> Check:
    """Return network_gateway, at worst a warning: a node without a way out may be meant so."""
    if not facts.routes:
        if facts.alone:
            return skipped("network_gateway", "Network: no interface but the loopback")
        return fault("network_gateway", verdict.WARNING, "Network: no default route")
    _metric, device, gateway, rejects = facts.routes[0]
    if rejects:
        text = "Network: the default route rejects packets (unreachable or blackhole)"
        return fault("network_gateway", verdict.WARNING, text)
    if gateway is None:
        return passed("network_gateway", f"Network: default route through {device}", device)
    if facts.neighbours.get(gateway) is False:
        text = f"Network: gateway {gateway} on {device} does not answer (no hardware address)"
        return fault("network_gateway", verdict.WARNING, text, gateway)
    state = "not contacted lately"
    if gateway in facts.neighbours:
        state = "known"
    text = f"Network: default route via {gateway} on {device} ({state})"
    return passed("network_gateway", text, gateway)


def decide_dns(
    names: Mapping[str, NameAnswer], facts: RouteFacts, options: NodeOptions
) -> list[Check]:
    """Return dns for each name that was looked up."""
    if not names:
        if facts.alone:
            return [skipped("dns", "DNS: no interface but the loopback")]
        sources = " ".join(facts.sources)
        text = f"DNS: no server is asked (hosts: {sources} in /etc/nsswitch.conf)"
        return [fault("dns", verdict.WARNING, text)]
    return [_dns(name, answer, facts, options) for name, answer in names.items()]


def _dns(name: str, answer: NameAnswer, facts: RouteFacts, options: NodeOptions) -> Check:
    """Return dns for one name, the user's or our own."""
    given = bool(options.dns_names)
    if answer.kind == RESOLVED:
        return passed("dns", f"DNS: {name} resolves", name, details={"address": answer.text})
    if answer.kind == NO_SUCH_NAME and not given:
        return passed("dns", "DNS: the resolver answers", name)
    status = verdict.CRITICAL if given else verdict.WARNING
    text = f"DNS: {name} does not resolve: {answer.text}"
    if not facts.nameservers:
        text += " (/etc/resolv.conf names no server)"
    return fault("dns", status, text, name)


def _target(target: str, answer: float | Problem) -> Check:
    if isinstance(answer, Problem):
        text = f"{target} can't be reached: {answer}"
        return fault("network_target", verdict.CRITICAL, text, target)
    milliseconds = answer * 1000
    text = f"{target} accepts connections ({milliseconds:.0f} ms)"
    return passed("network_target", text, target, value=round(milliseconds, 1), unit="ms")


def decide_links(observed: list[Link], options: NodeOptions) -> list[Check]:
    """Return network_link for the named interfaces, and for others with hardware behind them.

    Network managers switch on every port they find, plugged in or not: one that never had a
    carrier since boot is no fault.
    """
    known = {link.name: link for link in observed}
    speeds = {link.name: link.speed for link in options.network_links}
    checks = [_named_link(name, speed, known.get(name)) for name, speed in speeds.items()]
    checks += [
        _other_link(link)
        for link in observed
        if link.name not in speeds and link.hardware and link.wanted
    ]
    return checks or [skipped("network_link", "Links: no interface with hardware behind it")]


def _named_link(name: str, speed: int | None, link: Link | None) -> Check:
    if link is None:
        text = f"Link {name}: there is no such interface"
        return fault("network_link", verdict.CRITICAL, text, name)
    if link.down:
        text = f"Link {name}: down ({link.state})"
        return fault("network_link", verdict.CRITICAL, text, name)
    if speed and link.speed < speed:
        measured = "unknown speed"
        if link.speed:
            measured = f"{link.speed} Mbit/s"
        return fault(
            "network_link",
            verdict.CRITICAL if link.speed else verdict.UNKNOWN,
            f"Link {name}: {measured}, expected {speed} Mbit/s",
            name,
            value=link.speed,
            unit="Mbit/s",
            crit=f"{speed}:",
            threshold_source="user",
        )
    return _link_up(link)


def _other_link(link: Link) -> Check:
    if link.carrier != 0:
        return _link_up(link)
    if link.ups == 0 and not link.member:
        text = f"Link {link.name}: no carrier since boot, nothing is plugged in"
        return skipped("network_link", text, link.name)
    text = f"Link {link.name}: switched on, but without carrier"
    return fault("network_link", verdict.WARNING, text, link.name)


def _link_up(link: Link) -> Check:
    if not link.speed:
        return passed("network_link", f"Link {link.name}: up", link.name)
    text = f"Link {link.name}: up at {link.speed} Mbit/s"
    return passed("network_link", text, link.name, value=link.speed, unit="Mbit/s")
