# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Connectivity: real sockets and the real resolver, routes and ports of other machines."""

from __future__ import annotations

import socket
import struct
import time

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import FleetError
from ansible_collections.mlops.fleet.plugins.module_utils._core.node import (
    infiniband,
    netlink,
    network,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.node.run import run

ROUTE = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
DEFAULT = "eth0\t00000000\t0100000A\t0003\t0\t0\t100\t00000000\t0\t0\t0\n"
ARP = "IP address   HW type  Flags    HW address          Mask  Device\n10.0.0.1     0x1      {flags}      02:fc:00:00:00:05   *     eth0\n"


KERNEL = network.RouteFacts([], {}, False, True, ("files", "dns"))


def _run(machine, given):
    return {
        (check["check"], check.get("subject")): check
        for check in run(given, machine.world).to_dict()["checks"]
    }


@pytest.fixture
def wired(machine):
    machine.put("/proc/net/dev", "Inter-|\n face |\n")
    machine.put("/proc/net/route", ROUTE + DEFAULT)
    machine.put("/proc/net/arp", ARP.format(flags="0x2"))
    return machine


def test_gateway(wired, options):
    given = options(checks=["network_gateway"])
    check = _run(wired, given)[("network_gateway", "10.0.0.1")]
    assert (check["status"], check["message"]) == (
        "pass",
        "Network: default route via 10.0.0.1 on eth0 (known)",
    )
    wired.put("/proc/net/arp", ARP.format(flags="0x0"))
    assert _run(wired, given)[("network_gateway", "10.0.0.1")]["status"] == "warning"
    wired.put("/proc/net/arp", "")
    assert _run(wired, given)[("network_gateway", "10.0.0.1")]["status"] == "pass", (
        "not contacted lately"
    )
    wired.put("/proc/net/route", ROUTE)
    assert _run(wired, given)[("network_gateway", None)]["status"] == "warning"
    fe80 = "fe80" + "0" * 27 + "1"
    wired.put(
        "/proc/net/ipv6_route",
        f"{'0' * 32} 00 {'0' * 32} 00 {fe80} 00000400 00000001 00000000 00000003     eth0\n",
    )
    assert _run(wired, given)[("network_gateway", "fe80::1")]["status"] == "pass"


def test_real_targets(wired, options):
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_server(("127.0.0.1", 0)) as closed,
    ):
        good, bad = (f"127.0.0.1:{one.getsockname()[1]}" for one in (server, closed))
        closed.close()
        found = _run(wired, options(checks=["network_target"], network_targets=[good, bad]))
    assert (
        found[("network_target", good)]["status"] == "pass"
        and found[("network_target", good)]["unit"] == "ms"
    )
    assert (
        found[("network_target", bad)]["status"] == "critical"
        and "refused" in found[("network_target", bad)]["message"]
    )


def test_a_target_that_swallows_packets_has_a_deadline():
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        place = full.getsockname()
        waiting = [socket.socket() for dummy in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(place)
        with pytest.raises(FleetError, match="timed out"):
            network.connect(f"127.0.0.1:{place[1]}", 0.5)
        for one in waiting:
            one.close()


def test_real_names():
    assert network.resolve("localhost")[0] == "ok"
    assert network.resolve("a" * 64 + ".invalid")[0] == "unknown"


@pytest.mark.parametrize(
    ("names", "answer", "status"),
    [
        ([], ("ok", "192.0.0.170"), "pass"),
        (
            [],
            ("unknown", "Name or service not known"),
            "pass",
        ),  # a closed network whose resolver answers
        ([], ("silent", "Temporary failure in name resolution"), "warning"),
        (["git.example.org"], ("ok", "10.0.0.9"), "pass"),
        (["git.example.org"], ("unknown", "Name or service not known"), "critical"),
        (["git.example.org"], ("silent", "no answer within 5 s"), "critical"),
    ],
)
def test_what_the_resolver_says(options, names, answer, status):
    given = options(checks=["dns"], dns_names=names)
    looked_up = {(names or [network.PROBE_NAME])[0]: network.NameAnswer(*answer)}
    assert [check.status for check in network.decide_dns(looked_up, KERNEL, given)] == [status]


@pytest.mark.parametrize("content", [None, "", "# written by nobody\nsearch example.org\n"])
def test_a_resolver_without_a_server_is_asked_and_reported(wired, options, monkeypatch, content):
    """The C library then asks 127.0.0.1, and a resolver of nsswitch.conf may need no file."""
    answers = [
        network.NameAnswer(network.SILENT, "Temporary failure in name resolution"),
        network.NameAnswer(network.RESOLVED, "192.0.0.170"),
    ]
    if content is not None:
        wired.put("/etc/resolv.conf", content)
    given = options(checks=["dns"])
    monkeypatch.setattr(network, "resolve", lambda name: answers[0])
    check = _run(wired, given)[("dns", network.PROBE_NAME)]
    assert check["status"] == "warning"
    assert check["message"].endswith("(/etc/resolv.conf names no server)")
    monkeypatch.setattr(network, "resolve", lambda name: answers[1])
    assert _run(wired, given)[("dns", network.PROBE_NAME)]["status"] == "pass"


@pytest.mark.parametrize(
    ("hosts", "asked"),
    [
        ("hosts: files", False),
        ("hosts:\tfiles myhostname # dns", False),
        ("hosts: files mdns4_minimal [NOTFOUND=return] dns", True),
        ("hosts: mymachines resolve [!UNAVAIL=return] files", True),
        ("passwd: files", True),
        ("hosts:files mdns4_minimal [NOTFOUND=return]", False),
        ("hosts: files [ NOTFOUND=return ] myhostname", False),
        ("hosts: files [NOTFOUND=return] dns", False),
        ("hosts: files [!SUCCESS = return] resolve dns", False),
        ("hosts: files[SUCCESS=continue !TRYAGAIN=return]dns", False),
        ("hosts: files [SUCCESS=return UNAVAIL=return] dns", True),
        ("hosts: files [!NOTFOUND=return] dns", True),
        ("hosts: dns [NOTFOUND=return] files", True),
    ],
)
def test_names_from_files_only_prove_no_resolver(wired, options, monkeypatch, hosts, asked):
    wired.put("/etc/nsswitch.conf", hosts + "\n")
    wired.put("/etc/resolv.conf", "nameserver 10.0.0.2\n")
    unknown = network.NameAnswer(network.NO_SUCH_NAME, "Name or service not known")
    monkeypatch.setattr(network, "resolve", lambda name: unknown)
    (check,) = _run(wired, options(checks=["dns"])).values()
    assert check["status"] == ("pass" if asked else "warning")
    if not asked:
        assert "in /etc/nsswitch.conf" in check["message"]


OF_IPV6 = "{zero} 00 {zero} 00 {via} {metric} 00000001 00000000 {flags} {device}\n"
UNREACHABLE6 = OF_IPV6.format(
    zero="0" * 32, via="0" * 32, metric="00000064", flags="00200200", device="      lo"
)
OF_KERNEL6 = UNREACHABLE6.replace("00000064", "ffffffff")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (UNREACHABLE6 + OF_KERNEL6, "the default route rejects packets (unreachable or blackhole)"),
        (OF_KERNEL6, "no default route"),
        (
            OF_IPV6.format(
                zero="0" * 32, via="fe80" + "0" * 28, metric="00000400", flags="3", device="eth0"
            )
            + UNREACHABLE6,
            "the default route rejects packets (unreachable or blackhole)",
        ),
    ],
)
def test_a_default_route_of_ipv6_that_rejects(wired, options, table, message):
    wired.put("/proc/net/route", ROUTE)
    wired.put("/proc/net/ipv6_route", table)
    ((_name, check),) = _run(wired, options(checks=["network_gateway"])).items()
    assert (check["status"], check["message"]) == ("warning", f"Network: {message}")


REJECTED = "*\t00000000\t00000000\t{flags}\t0\t0\t{metric}\t00000000\t0\t0\t0\n"


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (REJECTED.format(flags="0201", metric=0), "warning"),  # unreachable, prohibit
        (REJECTED.format(flags="0001", metric=0), "warning"),  # blackhole
        (DEFAULT + REJECTED.format(flags="0201", metric=4278198272), "pass"),  # the last resort
        (DEFAULT + REJECTED.format(flags="0201", metric=0), "warning"),
    ],
)
def test_a_default_route_that_rejects_is_no_way_out(wired, options, lines, status):
    wired.put("/proc/net/route", ROUTE + lines)
    (check,) = _run(wired, options(checks=["network_gateway"])).values()
    assert check["status"] == status
    assert ("rejects packets" in check["message"]) == (status == "warning")


def test_an_ipv6_gateway_that_does_not_answer():
    route = network.Route(1 << 32, "eth0", "fe80::1")
    for known, status in (
        ({}, "pass"),
        ({"fe80::1": True}, "pass"),
        ({"fe80::1": False}, "warning"),
    ):
        facts = network.RouteFacts([route], known, False, True, ("dns",))
        assert network.decide_gateway(facts).status == status


@pytest.mark.parametrize(
    ("state", "answered"), [(0x01, False), (0x20, False), (0x02, True), (0x04, True), (0x80, True)]
)
def test_neighbours_of_the_kernel(state, answered):
    address = socket.inet_pton(socket.AF_INET6, "fe80::1")
    body = struct.pack("=BBHiHBB", 10, 0, 0, 2, state, 0, 1)
    body += struct.pack("=HH", 10, 2) + b"\x02" * 6 + b"\0\0"  # the hardware address, padded
    body += struct.pack("=HH", 20, 1) + address
    data = struct.pack("=IHHII", 16 + len(body), 28, 2, 1, 0) + body
    data += struct.pack("=IHHII", 20, 3, 2, 1, 0) + b"\0" * 4
    (first, second) = netlink.messages(data)
    assert (first[0], second[0]) == (28, 3)
    assert netlink.neighbour(first[1]) == ("fe80::1", answered)


def test_the_kernel_answers_about_its_neighbours():
    assert all(":" in address for address in netlink.ipv6_neighbours())


def test_a_resolver_that_did_not_write_its_file_is_asked_all_the_same(wired, options, monkeypatch):
    monkeypatch.setattr(
        network,
        "resolve",
        lambda name: network.NameAnswer(network.SILENT, "Temporary failure in name resolution"),
    )
    (wired.root / "etc").mkdir()
    (wired.root / "etc/resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")
    assert _run(wired, options(checks=["dns"]))[("dns", network.PROBE_NAME)]["status"] == "warning"


def test_network_false_switches_everything_off(wired, options):
    assert not [
        key
        for key in _run(wired, options(network=False, checks=["network", "limits"]))
        if key[0] not in ("file_descriptors", "process_ids", "conntrack")
    ]


def _link(name, **more):
    return network.Link(name, True, True, 1, "up", 100000, 1, False)._replace(**more)


@pytest.mark.parametrize(
    ("links", "wanted", "status"),
    [
        ([_link("a")], [], {"a": "pass"}),
        (
            [
                _link("a", carrier=0, state="down"),
                _link("b", wanted=False),
                _link("veth", hardware=False),
            ],
            [],
            {"a": "warning"},
        ),
        (
            [_link("a")],
            [{"name": "a", "speed": 100000}, {"name": "b"}],
            {"a": "pass", "b": "critical"},
        ),
        ([_link("a", speed=25000)], [{"name": "a", "speed": 100000}], {"a": "critical"}),
        ([_link("a", speed=0)], [{"name": "a", "speed": 100000}], {"a": "unknown"}),
        ([_link("bond0", hardware=False, carrier=0)], [{"name": "bond0"}], {"bond0": "critical"}),
        (
            [_link("a", carrier=0, ups=0)],
            [],
            {"a": "skipped"},
        ),  # a network manager switched it on, nobody ever plugged it in
        ([_link("a", carrier=0, ups=None)], [], {"a": "warning"}),
        ([_link("a", carrier=0, ups=0, member=True)], [], {"a": "warning"}),  # one leg of a bond
        ([], [], {None: "skipped"}),
    ],
)
def test_links(options, links, wanted, status):
    given = options(checks=["network_link"], network_links=wanted)
    assert {check.subject: check.status for check in network.decide_links(links, given)} == status


def test_infiniband_ports(wired, options):
    for name, state, physical, rate in (
        ("mlx5_0", "4: ACTIVE", "5: LinkUp", "400 Gb/sec (4X NDR)"),
        ("mlx5_1", "1: DOWN", "3: Disabled", "10 Gb/sec (4X)"),
    ):
        base = f"/sys/class/infiniband/{name}/ports/1"
        for file, text in (
            ("state", state),
            ("phys_state", physical),
            ("rate", rate),
            ("link_layer", "InfiniBand"),
        ):
            wired.put(f"{base}/{file}", text + "\n")

    def found(**given):
        return {
            subject: check["status"]
            for (_name, subject), check in _run(
                wired, options(checks=["infiniband_port"], **given)
            ).items()
        }

    assert found() == {"mlx5_0/1": "pass", "mlx5_1/1": "skipped"}
    assert found(infiniband_ports=2) == {
        "mlx5_0/1": "pass",
        "mlx5_1/1": "skipped",
        None: "critical",
    }
    assert found(infiniband_ports=1, infiniband_rate=400) == {
        "mlx5_0/1": "pass",
        "mlx5_1/1": "skipped",
        None: "pass",
    }
    assert found(infiniband_rate=800)["mlx5_0/1"] == "critical"
    wired.put("/sys/class/infiniband/mlx5_1/ports/1/phys_state", "2: Polling\n")
    assert found()["mlx5_1/1"] == "warning"
    wired.put("/sys/class/infiniband/mlx5_1/ports/1/counters/link_downed", "0\n")
    assert found()["mlx5_1/1"] == "skipped", (
        "it never was up: the second port of an adapter, without a cable"
    )


BRIDGE = "/sys/devices/pci0000:50/0000:50:01.0"


def _adapter(machine, name, function, rate, layer="InfiniBand", **links):
    """Put an adapter with one active port; ``links`` are pairs of width and speed."""
    card = f"{BRIDGE}/{function}"
    for directory, width, speed in (
        (f"{card}/current", *links.get("now", (16, 32))),
        (f"{card}/max", *links.get("card", (16, 32))),
        (f"{BRIDGE}/max", *links.get("above", (16, 32))),
    ):
        machine.put(f"{directory}_link_width", f"{width}\n")
        machine.put(f"{directory}_link_speed", f"{speed}.0 GT/s PCIe\n")
    base = f"/sys/class/infiniband/{name}"
    for file, text in (("state", "4: ACTIVE"), ("rate", rate), ("link_layer", layer)):
        machine.put(f"{base}/ports/1/{file}", f"{text}\n")
    (machine.root / base[1:] / "device").symlink_to(machine.root / card[1:])


@pytest.mark.parametrize(
    ("rate", "other", "layer", "links", "reason"),
    [
        ("400 Gb/sec (4X NDR)", "400 Gb/sec (4X NDR)", "InfiniBand", {}, None),
        ("100 Gb/sec (2X HDR)", "100 Gb/sec (2X HDR)", "InfiniBand", {}, None),
        (
            "50 Gb/sec (1X HDR)",
            "50 Gb/sec (1X HDR)",
            "InfiniBand",
            {},
            "active at 50 Gbit/s, on 1 of 4 lanes of its cable",
        ),
        (
            "100 Gb/sec (4X EDR)",
            "200 Gb/sec (4X HDR)",
            "InfiniBand",
            {},
            "active at 100 Gbit/s, another port of its card is active at 200",
        ),
        ("25 Gb/sec (1X EDR)", "100 Gb/sec (4X EDR)", "Ethernet", {}, None),
        (
            "400 Gb/sec (4X NDR)",
            "400 Gb/sec (4X NDR)",
            "InfiniBand",
            {"now": (8, 32)},
            "active at 400 Gbit/s, with 8 of 16 lanes of its PCIe slot",
        ),
        (
            "400 Gb/sec (4X NDR)",
            "400 Gb/sec (4X NDR)",
            "Ethernet",
            {"now": (16, 16)},
            "active at 400 Gbit/s, with 16 of 32 GT/s of its PCIe slot",
        ),
        # An adapter in a slot with fewer lanes, or of an older generation, by design.
        (
            "100 Gb/sec (4X EDR)",
            "100 Gb/sec (4X EDR)",
            "InfiniBand",
            {"now": (8, 16), "above": (8, 16)},
            None,
        ),
        ("100 Gb/sec (4X EDR)", "100 Gb/sec (4X EDR)", "InfiniBand", {"now": (0, 0)}, None),
    ],
)
def test_a_port_that_is_certainly_slow(wired, options, rate, other, layer, links, reason):
    _adapter(wired, "mlx5_0", "0000:51:00.0", rate, layer, **links)
    _adapter(wired, "mlx5_1", "0000:51:00.1", other, layer, **links)
    given = options(checks=["infiniband_port"])
    check = _run(wired, given)[("infiniband_port", "mlx5_0/1")]
    assert check["status"] == ("warning" if reason else "pass")
    assert reason is None or check["message"] == f"{layer} port mlx5_0/1: {reason}"
    if reason:  # who gives a rate decides
        given = options(checks=["infiniband_port"], infiniband_rate=10)
        assert _run(wired, given)[("infiniband_port", "mlx5_0/1")]["status"] == "pass"


def test_ports_of_other_cards_may_be_slower(wired, options):
    _adapter(wired, "mlx5_0", "0000:51:00.0", "400 Gb/sec (4X NDR)")
    _adapter(wired, "mlx5_1", "0000:52:00.0", "200 Gb/sec (4X HDR)")
    checks = _run(wired, options(checks=["infiniband_port"]))
    assert {check["status"] for check in checks.values()} == {"pass"}


def test_a_driver_that_does_not_answer_costs_its_own_check_only(wired, options, monkeypatch):
    monkeypatch.setattr(network, "links", lambda world: time.sleep(30))
    monkeypatch.setattr(infiniband, "observe", lambda world: time.sleep(30))
    wired.put("/sys/class/infiniband/mlx5_0/ports/1/state", "4: ACTIVE\n")
    begun = time.monotonic()
    found = _run(
        wired, options(checks=["network_gateway", "network_link", "infiniband_port"], timeout=0.5)
    )
    assert time.monotonic() - begun < 3
    assert {name: check["status"] for (name, _subject), check in found.items()} == {
        "network_gateway": "pass",
        "network_link": "unknown",
        "infiniband_port": "unknown",
    }


def test_no_network_at_all_is_skipped_and_names_given_twice_are_asked_once(machine, options):
    machine.put("/sys/class/net/lo/flags", "0x9\n")
    machine.put("/sys/class/net/sit0/flags", "0x80\n")
    assert (
        _run(machine, options(checks=["network_gateway"]))[("network_gateway", None)]["status"]
        == "skipped"
    )
    machine.put("/sys/class/net/eth0/flags", "0x1003\n")
    assert (
        _run(machine, options(checks=["network_gateway"]))[("network_gateway", None)]["status"]
        == "warning"
    )
    document = run(
        options(
            checks=["dns", "network_target"],
            dns_names=["localhost"] * 2,
            network_targets=["127.0.0.1:1"] * 2,
        ),
        machine.world,
    )
    assert [check.check for check in document.checks] == ["dns", "network_target"]
