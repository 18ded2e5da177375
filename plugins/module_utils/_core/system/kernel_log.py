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
import re
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Optional

from ..errors import CommandFailed
from ..ports import World
from . import boot
from .text import field_text

#: How much of the end of a log file is read, bytes.
TAIL = 16 << 20
#: A longer record of the ring buffer is truncated by the kernel.
_RECORD = 1 << 16
#: From here on a time stamp is garbage (the year 5138), and soon no date any more.
_NO_TIME = 1e11


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
    :param pattern: regular expression of the messages of interest; it only saves work, others
        may be returned as well.
    :param timeout: seconds for external programs. Never raises for a log that can't be read.
    """
    if source == "journal":
        return journal(since, pattern, timeout, world)
    if source in ("dmesg", "/dev/kmsg"):
        return ring_buffer(since, world)
    if source != "auto":
        return log_file(source, since, world)
    from_journal = journal(since, pattern, timeout, world)
    if not from_journal.problem:
        return from_journal
    from_buffer = ring_buffer(since, world)
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
    records = dated(result.stdout.splitlines(), since, world, kernel_only=True)
    return KernelLog("journal", tuple(records))


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def ring_buffer(since: float, world: World, cleared: bool = True) -> KernelLog:
    """Read ``/dev/kmsg`` without blocking (Documentation/ABI/testing/dev-kmsg).

    :param cleared: also what an administrator has cleared from view (``dmesg -C``).
    """
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
            records.append(record.decode("utf-8", "replace"))
    finally:
        os.close(fd)
    zero = kernel_start(world)
    parsed = []
    for line in "".join(records).splitlines():
        head, separator, message = line.partition(";")
        fields = head.split(",")
        # Lines with a leading space are further fields of the record before.
        if line[:1] == " " or not separator or len(fields) < 3 or not fields[0].isdigit():
            continue
        when = _number(fields[2], 1e-6, zero)
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
    """Read the end of a log file, and of the one that was rotated away since ``since``."""
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
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - TAIL))
        return stream.read(TAIL).decode("utf-8", "replace")


# --- lines ------------------------------------------------------------------------------------


class _Line(NamedTuple):
    """A line taken apart; ``kernel`` is None where the format does not say who wrote it."""

    time: Optional[float]
    kernel: Optional[bool]
    message: str


def dated(
    lines: Iterable[str], since: float, world: World, kernel_only: bool = False
) -> Iterator[Record]:
    """Yield the kernel's messages among log lines, those older than ``since`` left out.

    A line without a readable time is kept with None. An indented line continues the one before.

    :param kernel_only: the lines come from a source that holds only the kernel's messages.
    """
    now, zero = world.clock.now(), kernel_start(world)
    previous = _Line(None, True, "")
    for line in _entries(lines):
        if isinstance(line, _Line):
            parsed = line
        elif line[:1] in (" ", "\t"):
            parsed = previous._replace(message=line.strip())
        else:
            parsed = previous = parse_line(line, now, zero)
        if not (kernel_only or parsed.kernel is not False):
            continue
        if parsed.time is None or parsed.time >= since:
            yield Record(parsed.time, _unescape(parsed.message))


def _unescape(message: str) -> str:
    """Return a message with its line breaks, as which ``/dev/kmsg`` and rsyslog write others."""
    return message.replace("\\x0a", "\n").replace("#012", "\n")


_LEVEL = re.compile(r"^<(\d{1,3})>(?:1 )?")  # RFC 3164 and RFC 5424; dmesg -r
_DECODED = re.compile(r"^([a-z0-9]+) *:([a-z]+) *: ")  # dmesg -x
_EPOCH = re.compile(r"^(\d{9,11}\.\d+) ")  # journalctl -o short-unix
_UPTIME = re.compile(r"^\[ *(\d+\.\d+)(?:\] ?|, *[^\]]*\] ?)")  # dmesg
_KMSG = re.compile(r"^\d+,\d+,(\d+),[^;]*;")
_ISO = re.compile(
    r"^\[?(?:[^\W\d_]{2,4}\.? )?(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d)(?:[.,]\d+)?"
    r" ?(Z|UTC|[+-]\d\d:?\d\d)?\]? "
)
_CTIME = re.compile(
    r"^\[\S{1,6} +(\S+) +(\d{1,2}) (\d\d:\d\d:\d\d) (\d{4})\] ?"
)  # dmesg -T in any language
_SYSLOG = re.compile(r"^([^\W\d_]{3,5}\.?|\d{1,2}月) +(\d{1,2}) (\d\d:\d\d:\d\d)(?:\.\d+)? ")
_CRI = re.compile(r"^(?:stdout|stderr) [FP] ")
_RFC5424 = re.compile(r"^\S+ (\S+) \S+ \S+ (?:-|\[.*?[^\\]\]) ?")
_TAG = re.compile(r"^(?:(\S*[^\s:]) )?([^\s:\[\]]+)(?:\[[^\]]*\])?: ?")
_AFTER_TAG = re.compile(r"^(?:\[ *\d+\.\d+\] ?)?(?:\[ *[TC]\d+\] ?)?")
_ANY_TAG = re.compile(r"(?:^|\s)([^\s:\[\]]+)(?:\[\d+\])?: ")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_MONTHS = {
    name: number
    for number, names in enumerate(
        (
            "jan january januar jän janv ene gen sty янв",
            "feb february februar févr fev feb lut фев",
            "mar march mär mrz mars mrt maa marzec мар märz",
            "apr april avr abr kwi апр",
            "may mai mag maj mei май мая",
            "jun june juin giu cze июн juni",
            "jul july juil lug lip июл juli",
            "aug août aou ago sie авг",
            "sep sept sept set wrz сен",
            "oct okt out ott paź окт",
            "nov lis ноя",
            "dec dez déc dic gru дек des",
        ),
        1,
    )
    for name in names.split()
}


def parse_line(line: str, now: float, zero: float) -> _Line:
    """Take a log line apart: journal (short forms, JSON), dmesg, syslog, RFC 5424, CRI, docker.

    :param now: seconds since the epoch, for formats without a year.
    :param zero: what the kernel's own time stamps count from.
    """
    line = _COLOUR.sub("", line) if "\x1b" in line else line
    if line[:1] == "{":
        return _json(line, now, zero)
    kernel: bool | None = None
    level = _LEVEL.match(line)
    if level:
        kernel = int(level[1]) < 8
        line = line[level.end() :]
    decoded = _DECODED.match(line)
    if decoded:
        return _stamped(line[decoded.end() :], now, zero, decoded[1] == "kern")
    return _stamped(line, now, zero, kernel)


def _stamped(line: str, now: float, zero: float, kernel: bool | None) -> _Line:
    for pattern, factor, offset in ((_EPOCH, 1.0, 0.0), (_UPTIME, 1.0, zero), (_KMSG, 1e-6, zero)):
        match = pattern.match(line)
        if match:
            rest = line[match.end() :]
            when = _number(match[1], factor, offset)
            if pattern is _EPOCH:
                return _tagged(rest, when, kernel)
            return _Line(when, kernel is not False, _AFTER_TAG.sub("", rest, count=1))
    match = _ISO.match(line)
    if match:
        rest = line[match.end() :]
        when = _iso(match[1].replace("T", " "), match[2] or "")
        cri = _CRI.match(rest)
        if cri:
            inner = _stamped(rest[cri.end() :], now, zero, None)
            return inner if inner.time is not None else inner._replace(time=when)
        return _tagged(rest, when, kernel)
    match = _CTIME.match(line)
    if match:
        when = _calendar(match[1], match[2], match[3], int(match[4]))
        return _Line(when, kernel is not False, line[match.end() :])
    match = _SYSLOG.match(line)
    if match:
        year = time.localtime(now).tm_year
        when = _calendar(match[1], match[2], match[3], year)
        if when is None or when > now + 86400:  # 29 February exists only together with its year
            when = _calendar(match[1], match[2], match[3], year - 1)
        return _tagged(line[match.end() :], when, kernel)
    return _without_stamp(line, kernel)


def _tagged(rest: str, when: float | None, kernel: bool | None) -> _Line:
    """Take apart what follows the time: ``HOST TAG[PID]: MESSAGE``, RFC 5424's fields, or a message.

    dmesg writes no host; there the first field ends with the colon of the message itself.
    """
    tag = _TAG.match(rest)
    if tag and tag[2] == "kernel":
        return _Line(when, True, _AFTER_TAG.sub("", rest[tag.end() :], count=1))
    structured = None if tag else _RFC5424.match(rest)
    if structured:
        message = _AFTER_TAG.sub("", rest[structured.end() :], count=1)
        return _Line(when, structured[1] == "kernel", message)
    if tag and tag[1] and kernel is not True:
        return _Line(when, False, rest[tag.start(2) :])
    return _Line(when, kernel is not False, rest)


def _without_stamp(line: str, kernel: bool | None) -> _Line:
    """Look for the writer in a line of unknown format: the first ``tag:`` decides."""
    tag = _ANY_TAG.search(line)
    if tag and tag[1] == "kernel":
        return _Line(None, True, _AFTER_TAG.sub("", line[tag.end() :], count=1))
    if tag and tag.start(1) == 0 and "[" not in tag[0]:
        return _Line(None, kernel, line)  # a bare message, like "NVRM: ..."
    if tag and "[" not in tag[0] and "=" not in line[: tag.start()]:
        return _Line(None, kernel, line[tag.start(1) :])
    return _Line(None, False if tag and "[" in tag[0] else kernel, line)


def _number(text: str, factor: float, offset: float) -> float | None:
    try:
        when = offset + float(text) * factor
    except ValueError:
        return None
    return when if when < _NO_TIME else None


def _iso(text: str, zone: str) -> float | None:
    import calendar  # only where a log has such stamps

    try:
        moment = time.strptime(text, "%Y-%m-%d %H:%M:%S")
        if not zone:
            return _sane(time.mktime(moment))
        offset = 0
        if zone[0] in "+-":
            digits = zone[1:].replace(":", "")
            offset = (int(digits[:2]) * 60 + int(digits[2:])) * 60 * (-1 if zone[0] == "-" else 1)
        return _sane(float(calendar.timegm(moment) - offset))
    except (ValueError, OverflowError):
        return None


def _calendar(month: str, day: str, clock: str, year: int) -> float | None:
    number = month[:-1] if month.endswith("月") else _MONTHS.get(month.rstrip(".").lower())
    try:
        return _sane(
            time.mktime(time.strptime(f"{year} {number} {day} {clock}", "%Y %m %d %H:%M:%S"))
        )
    except (ValueError, OverflowError):
        return None


def _sane(when: float) -> float | None:
    return when if when < _NO_TIME else None


def _json(line: str, now: float, zero: float) -> _Line:
    """Read a line of ``journalctl -o json`` or of docker's json-file log."""
    import json  # only where a log is written so

    try:
        fields = json.loads(line)
    except ValueError:
        return _Line(None, None, line)
    if not isinstance(fields, dict):
        return _Line(None, None, line)
    if "log" in fields:
        inner = parse_line(str(fields["log"]).rstrip("\n"), now, zero)
        stamp = _ISO.match(str(fields.get("time", "")) + " ")
        if inner.time is None and stamp:
            return inner._replace(time=_iso(stamp[1].replace("T", " "), stamp[2] or ""))
        return inner
    return _journal_fields({key: field_text(value) for key, value in fields.items()})


def _journal_fields(fields: dict[str, str]) -> _Line:
    when = _number(fields.get("__REALTIME_TIMESTAMP", "none"), 1e-6, 0.0)
    return _Line(when, fields.get("_TRANSPORT") == "kernel", fields.get("MESSAGE", ""))


_EXPORT = re.compile(r"^(_*[A-Z][A-Z0-9_]*)=(.*)$")


def _entries(lines: Iterable[str]) -> Iterator[str | _Line]:
    """Yield the lines, with entries of the journal's export format put together.

    A field with line breaks has its name on a line of its own and its length in 8 bytes.
    """
    fields: dict[str, str] = {}
    long_field = ""
    for line in lines:
        match = _EXPORT.match(line)
        if match and (fields or match[1] in ("__CURSOR", "__REALTIME_TIMESTAMP")):
            long_field = ""
            fields[match[1]] = match[2]
        elif fields and not line:
            yield _journal_fields(fields)
            fields, long_field = {}, ""
        elif fields and not long_field and line.isupper():
            long_field = line
        elif fields and long_field:
            known = fields.get(long_field)
            fields[long_field] = line[8:] if known is None else f"{known}\n{line}"
        else:
            if fields:
                yield _journal_fields(fields)
                fields = {}
            yield line
    if fields:
        yield _journal_fields(fields)
