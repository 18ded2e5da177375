# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel's messages from wherever they can be read: the journal, the ring buffer, a log file.

Only what the kernel itself wrote is returned. A program's line that quotes a kernel message
(``sudo grep``, a monitoring agent) is left out, because anybody can write such a line.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Optional

from ..errors import CommandFailed
from ..ports import World
from . import boot

#: How much of the end of a log file is read, bytes.
TAIL = 16 << 20
#: A longer record of the ring buffer is truncated by the kernel.
_RECORD = 1 << 16
#: First bytes of files that people name as a log and that hold no lines, and what these are.
_NOT_TEXT = {
    b"\x1f\x8b": "compressed by gzip",
    b"\xfd7zXZ": "compressed by xz",
    b"BZh": "compressed by bzip2",
    b"\x28\xb5\x2f\xfd": "compressed by zstd",
    b"LPKSHHRH": "a file of the systemd journal",
}


class Record(NamedTuple):
    """One message of the kernel: seconds since the epoch (None: not known), text, syslog level."""

    time: Optional[float]
    message: str
    level: Optional[int] = None


class KernelLog(NamedTuple):
    """What was read. ``source`` says where; ``problem`` why nothing could be read, or is empty."""

    source: str
    records: tuple[Record, ...] = ()
    problem: str = ""


def read(source: str, since: float, pattern: str, timeout: float, world: World) -> KernelLog:
    """Return the messages that are not older than ``since`` (seconds since the epoch).

    :param source: ``journal``, ``dmesg``, the path of a file, or ``auto``: the journal, else the
        ring buffer.
    :param pattern: texts that messages of interest contain, separated by ``|``, with a backslash
        before special characters; it only saves work, others may be returned as well.
    :param timeout: seconds for external programs. Never raises for a log that can't be read.
    """
    if source == "journal":
        return journal(since, pattern, timeout, world)
    if source in ("dmesg", "/dev/kmsg"):
        return ring_buffer(since, world, pattern=pattern)
    if source != "auto":
        return log_file(source, since, world)
    from_journal = journal(since, pattern, timeout, world)
    if not from_journal.problem:
        return from_journal
    from_buffer = ring_buffer(since, world, pattern=pattern)
    if not from_buffer.problem:
        return from_buffer
    return KernelLog("auto", problem=f"{from_journal.problem}; {from_buffer.problem}")


# --- sources ----------------------------------------------------------------------------------


def journal(since: float, pattern: str, timeout: float, world: World) -> KernelLog:
    """Ask ``journalctl`` for the kernel's messages of this boot."""
    deadline = time.monotonic() + timeout
    base = ["journalctl", "--dmesg", "--quiet", "--no-pager", "--output=short-unix"]
    try:
        # A user who may not read the system's journal gets an empty answer, not an error;
        # a readable one has kernel lines.
        probe = world.run([*base, "--lines=1"], timeout=timeout)
        if probe.returncode or not probe.stdout.strip():
            unreadable = (
                "the journal has no kernel messages of this boot, or this user may not read them"
            )
            return KernelLog("journal", problem=_last_line(probe.stderr) or unreadable)
        command = [*base, f"--since=@{int(since)}"]
        result = world.run(
            [*command, f"--grep={pattern}"], timeout=max(0.1, deadline - time.monotonic())
        )
        # Without a match the status is 1 and nothing is printed; built without --grep it complains.
        if result.returncode and result.stderr.strip():
            result = world.run(command, timeout=max(0.1, deadline - time.monotonic()))
        if result.returncode and result.stderr.strip():
            failure = _last_line(result.stderr) or f"journalctl ended with {result.returncode}"
            return KernelLog("journal", problem=failure)
    except CommandFailed as error:
        return KernelLog("journal", problem=error.message.rstrip("."))
    return KernelLog("journal", tuple(_short_unix(result.stdout.splitlines(), since)))


def _short_unix(lines: Iterable[str], since: float) -> Iterator[Record]:
    """Yield the messages of ``journalctl --dmesg --output=short-unix``, all of them the kernel's.

    A line is ``1800000000.123456 HOST IDENTIFIER: MESSAGE``; what it continues with is indented.
    """
    when: float | None = None
    for line in lines:
        if line[:1] in (" ", "\t"):
            message = line.strip()
        else:
            stamp, dummy, rest = line.partition(" ")
            message = rest.partition(" ")[2]
            when = _seconds(stamp, 1.0, 0.0)
            if message.startswith("kernel: "):
                message = message[len("kernel: ") :]
        if when is None or when >= since:
            yield Record(when, _unescape(message))


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if lines:
        return lines[-1]
    return ""


def ring_buffer(since: float, world: World, cleared: bool = True, pattern: str = "") -> KernelLog:
    """Read ``/dev/kmsg`` without blocking (Documentation/ABI/testing/dev-kmsg).

    :param cleared: also what an administrator has cleared from view (``dmesg -C``).
    :param pattern: as of read(); empty for all messages.
    """
    wanted = tuple(text.replace("\\", "").encode() for text in pattern.split("|"))
    try:
        fd = os.open(world.path("/dev/kmsg"), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return KernelLog("dmesg", problem=_unreadable_buffer(error))
    records = []
    try:
        if not cleared:
            with contextlib.suppress(OSError):
                os.lseek(fd, 0, os.SEEK_DATA)
        while True:
            try:
                record = os.read(fd, _RECORD)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno == errno.EPIPE:  # overwritten meanwhile: go on with the next one
                    continue
                return KernelLog("dmesg", problem=_unreadable_buffer(error))
            if not record:
                break
            records.append(record)
    finally:
        os.close(fd)
    content = b"".join(records)
    if not any(text in content for text in wanted):  # as on a healthy node
        return KernelLog("dmesg")
    zero = kernel_start(world)
    parsed = []
    for line in content.decode("utf-8", "replace").splitlines():
        head, separator, message = line.partition(";")
        fields = head.split(",")
        # Lines with a leading space are further fields of the record before.
        if line[:1] == " " or not separator or len(fields) < 3 or not fields[0].isdigit():
            continue
        when = _seconds(fields[2], 1e-6, zero)
        if when is None or when >= since:
            parsed.append(Record(when, _unescape(message), int(fields[0]) & 7))
    return KernelLog("dmesg", tuple(parsed))


def _unreadable_buffer(error: OSError) -> str:
    return f"the kernel's message buffer can't be read ({error.strerror})"


def kernel_start(world: World) -> float:
    """Return the time that the kernel's time stamps count from, in seconds since the epoch."""
    if world.root == "/":  # its clock stands still while the machine is suspended
        return world.clock.now() - time.clock_gettime(time.CLOCK_MONOTONIC)
    return boot.boot_time(world) or 0.0


def log_file(path: str, since: float, world: World) -> KernelLog:
    """Read the end of a log file, and of its predecessor if rotated away since ``since``."""
    text = ""
    with contextlib.suppress(OSError):
        if os.stat(path + ".1").st_mtime >= since:
            text = _tail(path + ".1") + "\n"
    try:
        text += _tail(path)
    except OSError as error:
        return KernelLog(path, problem=f"{path} can't be read ({error.strerror or error})")
    return KernelLog(path, tuple(dated(text.splitlines(), since, world)))


def _tail(path: str) -> str:
    with open(path, "rb") as stream:
        head = stream.read(8)
        for magic, kind in _NOT_TEXT.items():
            if head.startswith(magic):
                raise OSError(errno.EINVAL, f"not text but {kind}")
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - TAIL))
        return stream.read(TAIL).decode("utf-8", "replace")


def dated(lines: Iterable[str], since: float, world: World) -> Iterator[Record]:
    """Yield the kernel's messages among log lines, those older than ``since`` left out.

    A line without a readable time is kept with None. An indented line continues the one before.
    """
    from . import kernel_lines  # neither the journal nor the ring buffer needs it

    now, zero = world.clock.now(), kernel_start(world)
    previous = kernel_lines.Line(None, True, "")
    for line in kernel_lines.entries(lines):
        if isinstance(line, kernel_lines.Line):
            parsed = line
        elif line[:1] in (" ", "\t"):
            parsed = previous._replace(message=line.strip())
        else:
            parsed = previous = kernel_lines.parse_line(line, now, zero)
        if parsed.kernel is False:
            continue
        if parsed.time is None or parsed.time >= since:
            yield Record(parsed.time, _unescape(parsed.message))


def _unescape(message: str) -> str:
    """Return a message with its line breaks, as which ``/dev/kmsg`` and rsyslog write others."""
    return message.replace("\\x0a", "\n").replace("#012", "\n")


def _seconds(text: str, factor: float, offset: float) -> float | None:
    try:
        return offset + float(text) * factor
    except ValueError:
        return None
