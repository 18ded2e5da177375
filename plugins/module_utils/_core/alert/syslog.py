# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The journal (structured fields over its own socket), or ``/dev/log`` where there is no
journal.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterable, Sequence

from ..ports import World
from .channel import Absent, Channel, Undelivered
from .events import Event
from .messages import Message, separate

_JOURNAL = "/run/systemd/journal/socket"
_DEV_LOG = "/dev/log"
_IDENTIFIER = "mlops-fleet"
#: syslog(3): critical, warning, notice, informational.
_PRIORITIES = {"critical": 2, "warning": 4, "pass": 5, "info": 6}
_USER_FACILITY = 1
_SECONDS = 2.0


class Syslog(Channel):
    """One entry per event, never a digest: entries are filtered by their fields."""

    kind = "syslog"

    def __init__(self, world: World) -> None:
        super().__init__(world, "syslog", "journal", "syslog")

    def messages(self, events: Sequence[Event], still_open: Iterable[str]) -> list[Message]:  # noqa: ARG002
        return separate(events, len(events))

    def send(self, message: Message, deadline: float) -> str:  # noqa: ARG002
        event = message.events[0]
        if _post(self.world.path(_JOURNAL), journal_entry(event)):
            return "written to the journal"
        if _post(self.world.path(_DEV_LOG), syslog_line(event)):
            return "written to /dev/log"
        raise Absent("this host has neither a journal nor /dev/log")


def journal_entry(event: Event) -> bytes:
    """Return the datagram of the journal's native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL).

    Its fields are ``NAME=value`` lines, or a name, the length and the bytes where these hold a line
    break.
    """
    fields = {
        "MESSAGE": event.title,
        "PRIORITY": str(_PRIORITIES[event.severity]),
        "SYSLOG_IDENTIFIER": _IDENTIFIER,
        "MLOPS_EVENT": event.kind,
        "MLOPS_HOST": event.host,
        "MLOPS_CHECK": event.check,
        "MLOPS_SUBJECT": event.subject,
        "MLOPS_STATUS": event.status,
        "MLOPS_SEVERITY": event.severity,
        "MLOPS_VALUE": event.value,
        "MLOPS_UNIT": event.unit,
        "MLOPS_ACTION": event.action,
        "MLOPS_KEY": event.key,
        "MLOPS_REASON": event.reason,
    }
    data = b""
    for name, text in fields.items():
        value = text.encode("utf-8", "replace")
        if value and b"\n" in value:
            data += name.encode() + b"\n" + struct.pack("<Q", len(value)) + value + b"\n"
        elif value:
            data += name.encode() + b"=" + value + b"\n"
    return data


def syslog_line(event: Event) -> bytes:
    """Return the classic line that ``/dev/log`` takes (RFC 3164)."""
    stamp = time.strftime("%b %e %H:%M:%S", time.localtime(event.time))
    priority = _USER_FACILITY * 8 + _PRIORITIES[event.severity]
    about = f"{event.title} [{event.label}] [{event.key}]"
    text = f"<{priority}>{stamp} {_IDENTIFIER}[{os.getpid()}]: {about}"
    return text.encode("utf-8", "replace")


def _post(path: str, data: bytes) -> bool:
    """Send to a local socket;

    False when there is none. :raises Undelivered: it does not take the data.
    """
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        with socket.socket(socket.AF_UNIX, kind) as line:
            line.settimeout(_SECONDS)
            try:
                line.connect(path)
                line.sendall(data if kind == socket.SOCK_DGRAM else data + b"\0")
            except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
                return False
            except OSError as error:
                import errno

                if error.errno == errno.EPROTOTYPE and kind == socket.SOCK_DGRAM:
                    continue
                raise Undelivered(
                    f"{path} does not take the entry: {error.strerror or error}"
                ) from error
            return True
    return False
