# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Container runtimes: whether docker, containerd and CRI-O answer on their sockets."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from .. import verdict
from ..ports import World
from ..records import NamedTuple
from ..system import procfs
from ..verdict import Check
from .optional import RUNTIMES
from .options import NodeOptions
from .probes import Problem
from .thresholds import fault, passed, skipped

CHECK = "container_runtime"
#: Docker Engine API, "Ping"; CRI-O's server/inspect.go. CRI-O also speaks gRPC on that socket, but
#: some versions say nothing there before the first call.
_HTTP = {"docker": "/_ping", "cri-o": "/info"}
#: The beginning of HTTP/2, which gRPC speaks, and an empty frame SETTINGS (RFC 9113, 3.4).
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
_SETTINGS = 4

ANSWERS, IDLE, DENIED, CLOSED, GARBAGE = "answers", "idle", "denied", "closed", "garbage"


class Runtime(NamedTuple):
    """What became of a question to a runtime: one of the constants above, and the socket."""

    state: str
    path: str


def questions(world: World, dummy: NodeOptions, patience: float) -> dict[str, Callable[[], Any]]:
    """Return the question for each runtime whose socket exists."""
    present = {
        name: next((path for path in paths if os.path.exists(world.path(path))), None)
        for name, paths in RUNTIMES.items()
    }
    return {
        name: partial(ask, world, name, path, patience) for name, path in present.items() if path
    }


def ask(world: World, name: str, path: str, patience: float) -> Runtime:
    """Ask a runtime for a sign of life.

    :raises TimeoutError: it took the connection and said nothing.
    """
    # systemd listens on docker's socket and would start it.
    pid = procfs.number(world, "/run/docker.pid")
    if name == "docker" and (pid is None or not os.path.exists(world.path(f"/proc/{pid}"))):
        return Runtime(IDLE, path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        line.settimeout(patience)
        try:
            line.connect(world.path(path))
            line.sendall(_question(name))
            response = _read(line, 12)
        except PermissionError:
            return Runtime(DENIED, path)
        except (ConnectionError, FileNotFoundError):
            return Runtime(CLOSED, path)
    good = len(response) > 3 and response[3] == _SETTINGS
    if name in _HTTP:
        good = response.startswith(b"HTTP/1.") and response[9:12] == b"200"
    return Runtime(ANSWERS if good else GARBAGE, path)


def _question(name: str) -> bytes:
    if name not in _HTTP:
        return _PREFACE
    return f"GET {_HTTP[name]} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()


def _read(line: socket.socket, most: int) -> bytes:
    data = b""
    while len(data) < most:
        more = line.recv(most - len(data))
        if not more:
            break
        data += more
    return data


def decide(answers: Mapping[str, Any], dummy: float, options: NodeOptions) -> list[Check]:  # noqa: ARG001
    """Return container_runtime for each runtime."""
    return [_runtime(name, response) for name, response in answers.items()]


def _runtime(name: str, response: Runtime | Problem) -> Check:
    head = f"Container runtime {name}"
    if isinstance(response, Problem):
        text = f"{head} does not answer: {response}"
        return fault(CHECK, verdict.CRITICAL, text, name, "restart_app")
    where = f"{head} ({response.path})"
    if response.state == ANSWERS:
        return passed(CHECK, f"{where}: answers", name)
    if response.state == IDLE:
        return skipped(CHECK, f"{where}: does not run, systemd starts it when it is used", name)
    if response.state == DENIED:
        return skipped(CHECK, f"{where}: may not be asked by this user", name)
    if response.state == CLOSED:
        return fault(CHECK, verdict.WARNING, f"{where}: nobody listens", name, "restart_app")
    return fault(CHECK, verdict.CRITICAL, f"{where}: answers with an error", name, "restart_app")
