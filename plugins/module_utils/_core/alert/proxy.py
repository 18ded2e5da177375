# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which hosts are reached without the proxy: networks and IPv6 addresses in ``no_proxy``, which
Python's urllib does not know.
"""

from __future__ import annotations

from collections.abc import Mapping


def bypasses_proxy(host: str, environ: Mapping[str, str]) -> bool:
    """Return whether ``host`` is an address in a network of ``no_proxy`` (``10.0.0.0/8``,
    ``fd00::/8``), or an IPv6 address that it names.

    As in curl and Go, a network applies to addresses, never to names: those would have to be
    resolved first. urllib decides about all other entries. As there, the lower-case variable has
    precedence.
    """
    entries = environ.get("no_proxy", environ.get("NO_PROXY", "")).split(",")
    networks = [
        entry.strip().strip("[]") for entry in entries if "/" in entry or entry.count(":") > 1
    ]
    if not networks:
        return False
    import ipaddress

    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    for network in networks:
        try:
            if address in ipaddress.ip_network(network, strict=False):
                return True
        except ValueError:  # no network
            continue
    return False
