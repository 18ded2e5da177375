# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""IPv6 neighbours from the kernel (rtnetlink(7)): there is no file for them."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

_NETLINK_ROUTE = 0
_RTM_GETNEIGH = 30
_RTM_NEWNEIGH = 28
_NLMSG_DONE = 3
_NLM_F_REQUEST_DUMP = 0x301
_NDA_DST = 1
_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_NEIGHBOUR = struct.Struct("=BBHiHBB")  # ndmsg: family, 2 x padding, index, state, flags, type
_ATTRIBUTE = struct.Struct("=HH")  # rtattr: length, type
#: NUD_INCOMPLETE and NUD_FAILED: nobody answers.
_SILENT = 0x01 | 0x20
_SECONDS = 1.0


def ipv6_neighbours() -> dict[str, bool]:
    """Return for each IPv6 neighbour whether it has answered. :raises OSError: no answer."""
    request = _NEIGHBOUR.pack(socket.AF_INET6, 0, 0, 0, 0, 0, 0)
    length = _HEADER.size + len(request)
    header = _HEADER.pack(length, _RTM_GETNEIGH, _NLM_F_REQUEST_DUMP, 1, 0)
    known: dict[str, bool] = {}
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_ROUTE) as link:
        link.settimeout(_SECONDS)
        link.send(header + request)
        while True:
            for kind, body in messages(link.recv(1 << 16)):
                if kind != _RTM_NEWNEIGH:  # done, or an error
                    return known
                address, answered = neighbour(body)
                known[address] = answered


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield type and body of each message in a datagram."""
    while len(data) >= _HEADER.size:
        length, kind, _flags, _sequence, _port = _HEADER.unpack_from(data)
        if length < _HEADER.size:
            return
        yield kind, data[_HEADER.size : length]
        data = data[length + 3 & ~3 :]


def neighbour(body: bytes) -> tuple[str, bool]:
    """Return the address of a neighbour and whether it has answered."""
    state = _NEIGHBOUR.unpack_from(body)[4]
    rest = body[_NEIGHBOUR.size :]
    address = ""
    while len(rest) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(rest)
        if length < _ATTRIBUTE.size:
            break
        if kind == _NDA_DST:
            address = socket.inet_ntop(socket.AF_INET6, rest[_ATTRIBUTE.size : length])
        rest = rest[length + 3 & ~3 :]
    return address, not state & _SILENT
