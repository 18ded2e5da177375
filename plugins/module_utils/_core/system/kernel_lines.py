# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Log lines taken apart: who wrote them and when, in the formats that logs are kept in.

Journal (short forms, JSON, export), dmesg, syslog, RFC 5424, CRI, docker.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Optional

from .text import field_text

#: From here on a time stamp is garbage (the year 5138), and soon no date any more.
NO_TIME = 1e11


class Line(NamedTuple):
    """A line taken apart; ``kernel`` is None where the format does not say who wrote it."""

    time: Optional[float]
    kernel: Optional[bool]
    message: str


_LEVEL = re.compile(r"^<(\d{1,3})>(?:1 )?")  # RFC 3164 and RFC 5424; dmesg -r
_DECODED = re.compile(r"^([a-z0-9]+) *:([a-z]+) *: ")  # dmesg -x
_EPOCH = re.compile(r"^(\d{9,11}\.\d+) ")  # journalctl -o short-unix
_UPTIME = re.compile(r"^\[ *(\d+\.\d+)(?:\] ?|, *[^\]]*\] ?)")  # dmesg
_KMSG = re.compile(r"^\d+,\d+,(\d+),[^;]*;")
_ISO = re.compile(
    r"^\[?(?:[^\W\d_]{2,4}\.? )?(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d)(?:[.,]\d+)?"
    r" ?(Z|[+-]\d\d:?\d\d|(?<= )(?:[A-Z]{3,5}|[+-]\d\d)(?= \S+ \S))?\]? "
)
_CTIME = re.compile(
    r"^\[\S{1,6} +(\S+) +(\d{1,2}) (\d\d:\d\d:\d\d) (\d{4})\] ?"
)  # dmesg -T in any language
_SYSLOG = re.compile(r"^([^\W\d_]{3,6}\.?|\d{1,2}[月월]) +(\d{1,2}) (\d\d:\d\d:\d\d)(?:\.\d+)? ")
_CRI = re.compile(r"^(?:stdout|stderr) [FP] ")
_RFC5424 = re.compile(r"^\S+ (\S+) \S+ \S+ (?:-|\[.*?[^\\]\]) ?")
_TAG = re.compile(r"^(?:(\S*[^\s:]) )?([^\s:\[\]]+)(?:\[[^\]]*\])?: ?")
_AFTER_TAG = re.compile(r"^(?:\[ *\d+\.\d+\] ?)?(?:\[ *[TC]\d+\] ?)?")
_ANY_TAG = re.compile(r"(?:^|\s)([^\s:\[\]]+)(?:\[\d+\])?: ")
_MONOTONIC = re.compile(
    r"^[^\s:]+ (?:kernel: |[^\s:\[\]]+\[(\d+)\]: )"
)  # journalctl -o short-monotonic
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_MONTHS = {
    name: number
    for number, names in enumerate(
        (
            "jan january januar jän janv ene gen sty янв led oca ocak tammi ιαν ian січ",
            "feb february februar févr fev lut фев úno şub helmi φεβ febr лют",
            "mar march mär mrz mars mrt maa marzec мар märz bře maalis μαρ márc бер",
            "apr april avr abr kwi апр dub nis huhti απρ ápr кві",
            "may mai mag maj mei май мая kvě touko μαΐ μαι máj тра",
            "jun june juin giu cze čen июн juni haz kesä ιουν jún чер",
            "jul july juil lug lip čec июл juli tem heinä ιουλ júl лип",
            "aug août aou ago sie авг srp ağu elo αυγ сер",
            "sep sept set wrz сен zář eyl syys σεπ szept вер",
            "oct okt out ott paź окт říj eki loka οκτ жов",
            "nov lis ноя kas marras νοε νοέ лис",
            "dec dez déc dic gru дек des pro ara joulu δεκ гру",
        ),
        1,
    )
    for name in names.split()
}


def parse_line(line: str, now: float, zero: float) -> Line:
    """Take a log line apart: journal (short forms, JSON), dmesg, syslog, RFC 5424, CRI, docker.

    :param now: seconds since the epoch, for formats without a year.
    :param zero: what the kernel's own time stamps count from.
    """
    if "\x1b" in line:
        line = _COLOUR.sub("", line)
    line = line.lstrip("\0")  # what a crash left of the lines before
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


def _stamped(line: str, now: float, zero: float, kernel: bool | None) -> Line:
    for pattern, factor, offset in ((_EPOCH, 1.0, 0.0), (_UPTIME, 1.0, zero), (_KMSG, 1e-6, zero)):
        match = pattern.match(line)
        if match:
            rest = line[match.end() :]
            when = _number(match[1], factor, offset)
            if pattern is _EPOCH:
                return _tagged(rest, when, kernel)
            tag = _MONOTONIC.match(rest)
            if tag and tag[1]:
                return Line(when, False, rest[tag.end() :])
            if tag:
                rest = rest[tag.end() :]
            return Line(when, kernel is not False, _AFTER_TAG.sub("", rest, count=1))
    match = _ISO.match(line)
    if match:
        rest = line[match.end() :]
        when = _iso(match[1].replace("T", " "), match[2] or "")
        cri = _CRI.match(rest)
        if cri:
            inner = _stamped(rest[cri.end() :], now, zero, None)
            if inner.time is not None:
                return inner
            return inner._replace(time=when)
        return _tagged(rest, when, kernel)
    match = _CTIME.match(line)
    if match:
        when = _calendar(match[1], match[2], match[3], int(match[4]))
        return Line(when, kernel is not False, line[match.end() :])
    match = _SYSLOG.match(line)
    if match:
        year = time.localtime(now).tm_year
        when = _calendar(match[1], match[2], match[3], year)
        if when is None or when > now + 86400:  # 29 February exists only together with its year
            when = _calendar(match[1], match[2], match[3], year - 1)
        return _tagged(line[match.end() :], when, kernel)
    return _without_stamp(line, kernel)


def _tagged(rest: str, when: float | None, kernel: bool | None) -> Line:
    """Take apart what follows the time: ``HOST TAG[PID]: MESSAGE``, RFC 5424, or a message.

    dmesg writes no host; there the first field ends with the colon of the message itself.
    """
    tag = _TAG.match(rest)
    if tag and tag[2] == "kernel" and "[" not in tag[0]:  # the kernel has no process ID
        return Line(when, True, _AFTER_TAG.sub("", rest[tag.end() :], count=1))
    structured = None if tag else _RFC5424.match(rest)
    if structured:
        message = _AFTER_TAG.sub("", rest[structured.end() :], count=1)
        return Line(when, structured[1] == "kernel", message)
    if tag and tag[1] and kernel is not True:
        return Line(when, False, rest[tag.start(2) :])
    return Line(when, kernel is not False, rest)


def _without_stamp(line: str, kernel: bool | None) -> Line:
    """Look for the writer in a line of unknown format: the first ``tag:`` decides."""
    tag = _ANY_TAG.search(line)
    if tag and tag[1] == "kernel":
        return Line(None, True, _AFTER_TAG.sub("", line[tag.end() :], count=1))
    if tag and tag.start(1) == 0 and "[" not in tag[0]:
        return Line(None, kernel, line)  # a bare message, like "NVRM: ..."
    if tag and "[" not in tag[0] and "=" not in line[: tag.start()]:
        return Line(None, kernel, line[tag.start(1) :])
    return Line(None, False if tag and "[" in tag[0] else kernel, line)


def _number(text: str, factor: float, offset: float) -> float | None:
    try:
        when = offset + float(text) * factor
    except ValueError:
        return None
    if when < NO_TIME:
        return when
    return None


def _iso(text: str, zone: str) -> float | None:
    import calendar  # only where a log has such stamps

    try:
        moment = time.strptime(text, "%Y-%m-%d %H:%M:%S")
        if not zone or (zone.isalpha() and zone not in ("Z", "UTC", "GMT")):
            return _sane(time.mktime(moment))  # a name like CET is that of the node's own zone
        offset = 0
        if zone[0] in "+-":
            digits = zone[1:].replace(":", "")
            offset = (
                (int(digits[:2]) * 60 + int(digits[2:] or 0)) * 60 * (-1 if zone[0] == "-" else 1)
            )
        return _sane(float(calendar.timegm(moment) - offset))
    except (ValueError, OverflowError):
        return None


def _calendar(month: str, day: str, clock: str, year: int) -> float | None:
    number = month[:-1] if month[-1] in "月월" else _MONTHS.get(month.rstrip(".").lower())
    try:
        return _sane(
            time.mktime(time.strptime(f"{year} {number} {day} {clock}", "%Y %m %d %H:%M:%S"))
        )
    except (ValueError, OverflowError):
        return None


def _sane(when: float) -> float | None:
    if when < NO_TIME:
        return when
    return None


def _json(line: str, now: float, zero: float) -> Line:
    """Read a line of ``journalctl -o json`` or of docker's json-file log."""
    import json  # only where a log is written so

    try:
        fields = json.loads(line)
    except ValueError:
        return Line(None, None, line)
    if not isinstance(fields, dict):
        return Line(None, None, line)
    if "log" in fields:
        inner = parse_line(str(fields["log"]).rstrip("\n"), now, zero)
        stamp = _ISO.match(str(fields.get("time", "")) + " ")
        if inner.time is None and stamp:
            return inner._replace(time=_iso(stamp[1].replace("T", " "), stamp[2] or ""))
        return inner
    return _journal_fields({key: field_text(value) for key, value in fields.items()})


def _journal_fields(fields: dict[str, str]) -> Line:
    when = _number(fields.get("__REALTIME_TIMESTAMP", "none"), 1e-6, 0.0)
    return Line(when, fields.get("_TRANSPORT") == "kernel", fields.get("MESSAGE", ""))


_EXPORT = re.compile(r"^(_*[A-Z][A-Z0-9_]*)=(.*)$")


def entries(lines: Iterable[str]) -> Iterator[str | Line]:
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
