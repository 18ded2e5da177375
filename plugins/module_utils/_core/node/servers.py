# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Servers of network file systems: NFS by an empty call, Lustre and GPFS by their own tools."""

from __future__ import annotations

import os
import re
import socket
import struct
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from .. import verdict
from ..errors import CommandFailed, FleetError
from ..ports import World
from ..records import NamedTuple
from ..system.mounts import Mount
from ..verdict import Check
from . import filesystems, hardware
from .options import NodeOptions
from .probes import Problem
from .thresholds import fault, passed, skipped

CHECK = "storage_server"
_NFS_PORT = 2049
_NFS_PROGRAM = 100003
#: A call of procedure 0 without credentials (RFC 5531): identifier, call, RPC version.
_CALL = b"mlfl" + struct.pack(">II", 0, 2)
_GETSTATE = "/usr/lpp/mmfs/bin/mmgetstate"
_ACTIVE = re.compile(r"\bactive\.?$", re.IGNORECASE)


class Server(NamedTuple):
    """An NFS server and the version that is spoken to it."""

    address: str
    port: int
    version: int

    @property
    def label(self) -> str:
        """Name for people."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"NFS server {host}:{self.port}"


class Asked(NamedTuple):
    """What a tool said: the parts that do not work, or why it was not asked."""

    faults: list[str]
    skipped: str = ""


def questions(world: World, options: NodeOptions, patience: float) -> dict[str, Callable[[], Any]]:
    """Return the question for each server, and for each file system that has a tool."""
    table = filesystems.relevant(filesystems.read(world), options.disk_exclude)
    jobs: dict[str, Callable[[], Any]] = {}
    for mount in table:
        server = nfs_server(mount)
        if server is not None:
            jobs[server.label] = partial(ask_nfs, server, patience)
    types = {mount.fstype for mount in table}
    if "lustre" in types:
        jobs["Lustre"] = partial(ask_lustre, world, patience)
    if "gpfs" in types:
        jobs["GPFS"] = partial(ask_gpfs, world, patience)
    return jobs


def nfs_server(mount: Mount) -> Server | None:
    """Return the server of a mount, None for other file systems and for transports but TCP."""
    if mount.fstype not in ("nfs", "nfs4"):
        return None
    given = dict(
        option.partition("=")[::2] for option in mount.super_options.split(",") if "=" in option
    )
    address = given.get("addr", "")
    if not address or given.get("proto", "tcp") not in ("tcp", "tcp6"):
        return None
    port = given.get("port", "")
    version = given.get("vers", "4")[:1]
    return Server(
        address,
        int(port) if port.isdigit() and int(port) else _NFS_PORT,
        int(version) if version.isdigit() else 4,
    )


def ask_nfs(server: Server, patience: float) -> bool:
    """Call the procedure that does nothing, and wait for its reply.

    Any reply with the identifier of the call is one: the server handles calls.

    :raises FleetError: there is none.
    """
    call = _CALL + struct.pack(">III", _NFS_PROGRAM, server.version, 0) + bytes(16)
    try:
        with socket.create_connection((server.address, server.port), patience) as line:
            line.settimeout(patience)
            line.sendall(struct.pack(">I", 1 << 31 | len(call)) + call)
            reply = b""
            while len(reply) < 12:
                more = line.recv(12 - len(reply))
                if not more:
                    raise FleetError("it closed the connection")
                reply += more
    except socket.timeout:
        raise FleetError(f"no reply within {patience:g} s") from None
    except OSError as error:
        raise FleetError(error.strerror or type(error).__name__) from error
    if reply[4:12] != _CALL[:4] + struct.pack(">I", 1):
        raise FleetError("what it replies is no RPC")
    return True


def ask_lustre(world: World, patience: float) -> Asked:
    """Ask ``lfs check servers`` for the targets that are not active.

    :raises CommandFailed: it gave no response.
    """
    if not hardware.tool(world, "lfs"):
        return Asked([], "lfs is not installed")
    if os.geteuid() != 0:
        return Asked([], "only root may ask the servers")
    result = world.run(["lfs", "check", "servers"], timeout=patience)
    lines = [line.strip() for line in (result.stdout + result.stderr).splitlines() if line.strip()]
    faults = [line for line in lines if not _ACTIVE.search(line)]
    if result.returncode != 0 and not faults:
        raise CommandFailed(f"lfs check servers ended with {result.returncode}.", "", "lfs")
    return Asked(faults)


def ask_gpfs(world: World, patience: float) -> Asked:
    """Ask ``mmgetstate -Y`` for the state of this node.

    :raises CommandFailed: it gave no response.
    """
    if not os.access(world.path(_GETSTATE), os.X_OK):
        return Asked([], "mmgetstate is not installed")
    if os.geteuid() != 0:
        return Asked([], "only root may ask mmgetstate")
    result = world.run([_GETSTATE, "-Y"], timeout=patience)
    rows = [line.split(":") for line in result.stdout.splitlines() if ":" in line]
    heads = [row for row in rows if "HEADER" in row]
    if not heads or "state" not in heads[0]:
        raise CommandFailed("mmgetstate gave no table.", "Run it by hand.", "mmgetstate")
    place = heads[0].index("state")
    states = [row[place] for row in rows if "HEADER" not in row and len(row) > place]
    return Asked([f"this node is {state}" for state in states if state != "active"])


def decide(answers: Mapping[str, Any], dummy: float, options: NodeOptions) -> list[Check]:  # noqa: ARG001
    """Return storage_server for each server and file system."""
    return [_server(label, response) for label, response in answers.items()]


def _server(label: str, response: bool | Asked | Problem) -> Check:
    if isinstance(response, Problem):
        return fault(CHECK, verdict.CRITICAL, f"{label} does not answer: {response}", label)
    if isinstance(response, Asked):
        if response.skipped:
            return skipped(CHECK, f"{label}: {response.skipped}", label)
        if response.faults:
            more = ""
            if len(response.faults) > 3:
                more = f" and {len(response.faults) - 3} more"
            text = f"{label}: {'; '.join(response.faults[:3])}{more}"
            return fault(CHECK, verdict.CRITICAL, text, label, value=len(response.faults))
    return passed(CHECK, f"{label} answers", label)
