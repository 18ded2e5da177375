# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Connectivity: default route and gateway, name resolution, TCP targets, links, InfiniBand ports."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import time
from collections.abc import Mapping
from typing import Any

from .. import verdict
from ..errors import FleetError
from ..ports import World
from ..system import procfs
from ..verdict import Check
from . import resources
from .options import NodeOptions

#: Asked for when no name is given: a name every public resolver knows (RFC 7050). Any answer, "no such name" included, proves that the
#: resolver works, so closed networks pass too.
PROBE_NAME = "ipv4only.arpa"
_RATE = re.compile(r"([0-9.]+) Gb/sec")


def _hex(text: str | None) -> int:
    try:
        return int(text or "", 16)
    except ValueError:
        return 0


def routes(world: World) -> list[dict[str, Any]]:
    """Return the default routes: C(gateway) (None for a point-to-point link) and C(device), IPv4 first (proc(5), /proc/net/route)."""
    found = []
    for line in procfs.lines(world, "/proc/net/route")[1:]:
        words = line.split()
        with contextlib.suppress(ValueError):
            if (
                len(words) > 7
                and words[1] == "00000000"
                and words[7] == "00000000"
                and int(words[3], 16) & 1
            ):
                raw = bytes.fromhex(words[2])[::-1]
                found.append(
                    {
                        "gateway": socket.inet_ntop(socket.AF_INET, raw) if any(raw) else None,
                        "device": words[0],
                        "metric": int(words[6]),
                    }
                )
    for line in procfs.lines(world, "/proc/net/ipv6_route"):
        words = line.split()
        with contextlib.suppress(ValueError):
            if (
                len(words) > 9
                and words[0] == "0" * 32
                and words[1] == "00"
                and words[9] != "lo"
                and int(words[8], 16) & 1
            ):
                raw, metric = bytes.fromhex(words[4]), int(words[5], 16) + (1 << 32)
                found.append(
                    {
                        "gateway": socket.inet_ntop(socket.AF_INET6, raw) if any(raw) else None,
                        "device": words[9],
                        "metric": metric,
                    }
                )
    return sorted(found, key=lambda route: (route["metric"], route["device"]))


def neighbours(world: World) -> dict[str, bool]:
    """Return for each IPv4 neighbour the kernel knows whether its hardware address is known (C(ATF_COM), linux/if_arp.h)."""
    found = {}
    for line in procfs.lines(world, "/proc/net/arp")[1:]:
        words = line.split()
        if len(words) >= 6:
            found[words[0]] = bool(_hex(words[2]) & 2)
    return found


def links(world: World) -> list[dict[str, Any]]:
    """Return the interfaces: C(name hardware wanted carrier state speed ups member); speed in Mbit/s, 0 when unknown.

    C(ups) counts how often there was a carrier since boot (None before Linux 4.16), C(member) says whether it belongs to a bond or bridge.
    Asks the drivers, and one that is wedged may keep us: only in a child. :raises MissingLibrary: no psutil.
    """
    try:
        stats = resources.psutil(world).net_if_stats()
    except (OSError, ValueError):
        stats = {}  # hidden from this user or container; /sys still tells about the carrier
    found = []
    for name in procfs.directory(world, "/sys/class/net"):
        base = f"/sys/class/net/{name}"
        flags = procfs.text(world, f"{base}/flags")
        hardware = bool(procfs.directory(world, f"{base}/device"))
        one = stats.get(name)
        found.append(
            {
                "name": name,
                "hardware": hardware,
                "wanted": bool(_hex(flags) & 1) if flags else bool(one and one.isup),
                "carrier": procfs.number(world, f"{base}/carrier"),
                "state": procfs.text(world, f"{base}/operstate") or "unknown",
                "speed": max(0, one.speed) if one else 0,
                "ups": procfs.number(world, f"{base}/carrier_up_count"),
                "member": os.path.exists(world.path(f"{base}/master")),
            }
        )
    return found


def infiniband(world: World) -> list[dict[str, Any]]:
    """Return the InfiniBand and RoCE ports: C(name state physical rate layer downed); rate in Gbit/s.

    The driver asks the adapter's firmware, which may not answer: only in a child.
    """
    found = []
    for device in procfs.directory(world, "/sys/class/infiniband"):
        for port in procfs.directory(world, f"/sys/class/infiniband/{device}/ports"):
            base = f"/sys/class/infiniband/{device}/ports/{port}"
            rate = _RATE.search(procfs.text(world, f"{base}/rate") or "")
            found.append(
                {
                    "name": f"{device}/{port}",
                    "state": (procfs.text(world, f"{base}/state") or "").rpartition(": ")[2],
                    "physical": (procfs.text(world, f"{base}/phys_state") or "").rpartition(": ")[
                        2
                    ],
                    "rate": float(rate.group(1)) if rate else None,
                    "layer": procfs.text(world, f"{base}/link_layer") or "InfiniBand",
                    "downed": procfs.number(world, f"{base}/counters/link_downed"),
                }
            )
    return found


def alone(world: World) -> bool:
    """Whether the loopback is all there is: no other interface has hardware behind it or is switched on."""
    names = procfs.directory(world, "/sys/class/net")
    for name in names:
        base = f"/sys/class/net/{name}"
        if name != "lo" and (
            os.path.exists(world.path(f"{base}/device"))
            or _hex(procfs.text(world, f"{base}/flags")) & 1
        ):
            return False
    return bool(names)


def observe(world: World) -> dict[str, Any]:
    """Read what the kernel itself knows, at once: routes, neighbours, name servers."""
    resolver = world.path("/etc/resolv.conf")
    dangling = os.path.islink(resolver) and not os.path.exists(
        resolver
    )  # whoever should write it (systemd-resolved) did not
    return {
        "routes": routes(world),
        "neighbours": neighbours(world),
        "alone": alone(world),
        "nameservers": dangling
        or any(
            line.split()[:1] == ["nameserver"] for line in procfs.lines(world, "/etc/resolv.conf")
        ),
    }


def resolve(name: str) -> tuple[str, str]:
    """Ask the resolver; may take long, so only in a child. Return C(ok), C(unknown) (it answered: no such name) or C(silent), and a text."""
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        no_data = getattr(socket, "EAI_NODATA", -5)
        if error.errno in (socket.EAI_NONAME, no_data):
            return "unknown", error.strerror or "no such name"
        return "silent", error.strerror or "no answer"
    except UnicodeError:
        return "unknown", "not a host name"
    return "ok", str(found[0][4][0])


def connect(target: str, timeout: float) -> float:
    """Open and close a TCP connection to C(HOST:PORT); return seconds it took. :raises FleetError: it can't be reached."""
    host, _colon, port = target.rpartition(":")
    begun = time.monotonic()
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout).close()
    except OSError as error:
        raise FleetError(error.strerror or str(error) or type(error).__name__) from error
    return time.monotonic() - begun


def judge(facts: Mapping[str, Any], options: NodeOptions) -> list[Check]:
    """Judge routes, C(names) (name to (kind, text)), C(targets) (target to seconds or text), C(links) and C(infiniband) (or a problem's text)."""
    found: list[Check] = []
    if options.wants("network_gateway"):
        found.append(_gateway(facts))
    if options.wants("dns"):
        found += _dns(facts, options)
    if options.wants("network_target"):
        for target in dict.fromkeys(options.network_targets):
            answer = facts["targets"][target]
            if isinstance(answer, float):
                text = f"{target} accepts connections ({answer * 1000:.0f} ms)"
                found.append(
                    Check(
                        "network_target",
                        verdict.PASS,
                        text,
                        target,
                        value=round(answer * 1000, 1),
                        unit="ms",
                    )
                )
            else:
                found.append(
                    Check(
                        "network_target",
                        verdict.CRITICAL,
                        f"{target} can't be reached: {answer}",
                        target,
                        action="inspect",
                        domain="node",
                    )
                )
    if options.wants("network_link"):
        found += _unread("network_link", "Links", facts["links"]) or _links(facts, options)
    if options.wants("infiniband_port"):
        found += _unread("infiniband_port", "InfiniBand", facts["infiniband"]) or _ports(
            facts, options
        )
    return found


def _unread(check: str, what: str, answer: Any) -> list[Check]:
    return (
        [Check(check, verdict.UNKNOWN, f"{what}: {answer}", action="inspect", domain="node")]
        if isinstance(answer, str)
        else []
    )


def _gateway(facts: Mapping[str, Any]) -> Check:
    """Nothing here is worse than a warning: a node without a way out may be meant so."""
    if not facts["routes"]:
        if facts["alone"]:
            return Check(
                "network_gateway", verdict.SKIPPED, "Network: no interface but the loopback"
            )
        return Check(
            "network_gateway",
            verdict.WARNING,
            "Network: no default route",
            action="inspect",
            domain="node",
        )
    route = facts["routes"][0]
    gateway, device = route["gateway"], route["device"]
    if gateway is None:
        return Check(
            "network_gateway", verdict.PASS, f"Network: default route through {device}", device
        )
    if facts["neighbours"].get(gateway) is False:
        text = f"Network: gateway {gateway} on {device} does not answer (no hardware address)"
        return Check(
            "network_gateway", verdict.WARNING, text, gateway, action="inspect", domain="node"
        )
    state = "known" if gateway in facts["neighbours"] else "not contacted lately"
    return Check(
        "network_gateway",
        verdict.PASS,
        f"Network: default route via {gateway} on {device} ({state})",
        gateway,
    )


def _dns(facts: Mapping[str, Any], options: NodeOptions) -> list[Check]:
    if not options.dns_names and not facts["nameservers"]:
        return [Check("dns", verdict.SKIPPED, "DNS: no name server is configured")]
    found = []
    for name in dict.fromkeys(options.dns_names or [PROBE_NAME]):
        kind, text = facts["names"][name]
        if kind == "ok":
            found.append(
                Check("dns", verdict.PASS, f"DNS: {name} resolves", name, details={"address": text})
            )
        elif kind == "unknown" and not options.dns_names:
            found.append(Check("dns", verdict.PASS, "DNS: the resolver answers", name))
        else:
            status = verdict.CRITICAL if options.dns_names else verdict.WARNING
            found.append(
                Check(
                    "dns",
                    status,
                    f"DNS: {name} does not resolve: {text}",
                    name,
                    action="inspect",
                    domain="node",
                )
            )
    return found


def _links(facts: Mapping[str, Any], options: NodeOptions) -> list[Check]:
    """Named links must be up and fast enough; others with hardware that are switched on should keep the carrier they had.

    Network managers switch on every port they find, plugged in or not: one that never had a carrier since boot is no fault.
    """
    found = []
    known = {link["name"]: link for link in facts["links"]}
    speeds = {one["name"]: one["speed"] for one in options.network_links}
    for name, speed in speeds.items():
        link = known.get(name)
        if link is None:
            found.append(
                Check(
                    "network_link",
                    verdict.CRITICAL,
                    f"Link {name}: there is no such interface",
                    name,
                    action="inspect",
                    domain="node",
                )
            )
        elif (
            not link["wanted"]
            or link["carrier"] == 0
            or link["state"] in ("down", "lowerlayerdown")
        ):
            found.append(
                Check(
                    "network_link",
                    verdict.CRITICAL,
                    f"Link {name}: down ({link['state']})",
                    name,
                    action="inspect",
                    domain="node",
                )
            )
        elif speed and link["speed"] < speed:
            shown = f"{link['speed']} Mbit/s" if link["speed"] else "unknown speed"
            text = f"Link {name}: {shown}, expected {speed} Mbit/s"
            status = verdict.CRITICAL if link["speed"] else verdict.UNKNOWN
            measured = {
                "value": link["speed"],
                "unit": "Mbit/s",
                "crit": f"{speed}:",
                "threshold_source": "user",
            }
            found.append(
                Check(
                    "network_link", status, text, name, action="inspect", domain="node", **measured
                )
            )
        else:
            found.append(_link_up(link))
    for link in facts["links"]:
        if link["name"] in speeds or not link["hardware"] or not link["wanted"]:
            continue
        if link["carrier"] == 0 and link["ups"] == 0 and not link["member"]:
            found.append(
                Check(
                    "network_link",
                    verdict.SKIPPED,
                    f"Link {link['name']}: no carrier since boot, nothing is plugged in",
                    link["name"],
                )
            )
        elif link["carrier"] == 0:
            text = f"Link {link['name']}: switched on, but without carrier"
            found.append(
                Check(
                    "network_link",
                    verdict.WARNING,
                    text,
                    link["name"],
                    action="inspect",
                    domain="node",
                )
            )
        else:
            found.append(_link_up(link))
    return found or [
        Check("network_link", verdict.SKIPPED, "Links: no interface with hardware behind it")
    ]


def _link_up(link: Mapping[str, Any]) -> Check:
    speed = f" at {link['speed']} Mbit/s" if link["speed"] else ""
    return Check(
        "network_link",
        verdict.PASS,
        f"Link {link['name']}: up{speed}",
        link["name"],
        value=link["speed"] or None,
        unit="Mbit/s" if link["speed"] else None,
    )


def _ports(facts: Mapping[str, Any], options: NodeOptions) -> list[Check]:
    ports = facts["infiniband"]
    expected, rate = options.infiniband_ports, options.infiniband_rate
    if not ports and not expected:
        return [Check("infiniband_port", verdict.SKIPPED, "InfiniBand: no port")]
    found = []
    active = 0
    for port in ports:
        name = port["name"]
        if port["state"] == "ACTIVE":
            active += 1
            value = port["rate"]
            slow = rate is not None and value is not None and value < rate
            text = (
                f"{port['layer']} port {name}: active"
                + (f" at {value:g} Gbit/s" if value is not None else "")
                + (f", expected {rate:g}" if slow else "")
            )
            found.append(
                Check(
                    "infiniband_port",
                    verdict.CRITICAL if slow else verdict.PASS,
                    text,
                    name,
                    value=value,
                    unit="Gbit/s",
                    crit=None if rate is None else f"{rate:g}:",
                    action="drain" if slow else "none",
                    domain="node" if slow else None,
                )
            )
        elif port["physical"] == "Disabled" or expected is not None or port["downed"] == 0:
            # Switched off on purpose, counted below, or never cabled.
            found.append(
                Check(
                    "infiniband_port",
                    verdict.SKIPPED,
                    f"{port['layer']} port {name}: {port['state'].lower()} ({port['physical']})",
                    name,
                )
            )
        else:
            text = f"{port['layer']} port {name}: {port['state'].lower()} ({port['physical']})"
            found.append(
                Check(
                    "infiniband_port", verdict.WARNING, text, name, action="inspect", domain="node"
                )
            )
    if expected is not None:
        good = active >= expected
        text = f"InfiniBand: {active} of {expected} expected ports active"
        status = verdict.PASS if good else verdict.CRITICAL
        advice: dict[str, Any] = {} if good else {"action": "drain", "domain": "node"}
        found.append(
            Check("infiniband_port", status, text, value=active, crit=f"{expected}:", **advice)
        )
    return found
