# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""NVIDIA driver errors (Xid) in the kernel log: what each number means, and finding them.

Levels follow the immediate actions of NVIDIA's "Analyzing Xid Errors with the Xid Catalog"
(https://docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html), not one of the tools that contradict it: 63, 121 and
others are informational there, 109 needs a reset. A number that is not in the table is a warning, never silent.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

from ..errors import CommandFailed
from ..ports import World
from ..verdict import CRITICAL, PASS, WARNING

#: So many application errors (RESTART_APP) on one GPU within the window are a warning: likely the GPU, not the program.
REPEATED = 3
#: How much of the end of a log file is read, bytes.
TAIL = 16 << 20

#: GPU as the log names it: PCI domain, bus, device.
BusId = tuple[int, int, int]


@dataclass(frozen=True)
class Meaning:
    """What an Xid number says: verdict level, what to do, and a few words."""

    level: str
    action: str
    text: str
    repeats: bool = False


def _catalog() -> dict[int, Meaning]:
    found: dict[int, Meaning] = {}

    def add(level: str, action: str, texts: Mapping[int, str], repeats: bool = False) -> None:
        for code, text in texts.items():
            found[code] = Meaning(level, action, text, repeats)

    application = "application error"
    codes = (
        8,
        11,
        13,
        25,
        31,
        32,
        39,
        40,
        41,
        60,
        68,
        69,
        70,
        71,
        72,
        75,
        76,
        77,
        80,
        82,
        83,
        84,
        85,
        86,
        88,
        89,
    )
    add(
        PASS,
        "restart_app",
        dict.fromkeys((*codes, *range(96, 106), *range(126, 136), 139), application),
        repeats=True,
    )
    add(
        PASS,
        "restart_app",
        {8: "GPU stopped processing", 13: "graphics engine exception", 31: "GPU memory page fault"},
        repeats=True,
    )
    add(WARNING, "restart_app", {94: "contained memory error"}, repeats=True)
    add(
        PASS,
        "none",
        dict.fromkeys(
            (14, 37, 38, 44, 66, 67, 93, 106, 107, 108, 137, 141, 152, 153, 160, 161),
            "informational",
        ),
    )
    add(PASS, "none", {43: "GPU stopped processing", 45: "preemptive cleanup", 63: "row remapped"})
    add(
        WARNING,
        "inspect",
        {
            92: "high rate of corrected memory errors",
            121: "corrected C2C link error",
            157: "informational",
        },
    )
    add(CRITICAL, "reboot", {79: "GPU has fallen off the bus"})
    reset = {
        46: "GPU stopped answering",
        62: "PMU halt",
        64: "row remapping failure",
        95: "uncontained memory error",
        109: "context switch timeout",
        110: "security fault",
        119: "GSP RPC timeout",
        120: "GSP error",
        136: "link training failed",
        140: "unrecovered ECC error",
        143: "GPU initialization failed",
        155: "NVLink software error",
        156: "resource retirement",
        158: "fatal timeout",
        48: "double-bit ECC error",
    }
    add(CRITICAL, "reset_gpu", reset)
    add(CRITICAL, "inspect", {74: "NVLink error", 54: "auxiliary power not connected"})
    add(CRITICAL, "drain", {151: "key rotation error"})
    add(WARNING, "inspect", dict.fromkeys(range(144, 151), "NVLink5 error"))
    add(WARNING, "inspect", {78: "vGPU start error", 159: "CHI non-data error"})
    add(WARNING, "reset_gpu", {154: "recovery action changed"})
    add(WARNING, "inspect", dict.fromkeys((*range(162, 174),), "no action published"))
    serious = {
        167: "PCIe fatal timeout",
        169: "SEC2 halt",
        171: "uncorrectable DRAM error",
        172: "uncorrectable SRAM error",
        173: "C2C link error",
    }
    add(CRITICAL, "inspect", serious)
    return found


#: Xid number -> meaning. 154 and 144 to 150 say more in their text; see judge().
CATALOG = _catalog()
UNLISTED = Meaning(WARNING, "inspect", "not in the catalog")
OFF_THE_BUS = 79
#: Seconds in which the driver says in several ways that the same GPU fell off the bus.
SAME_FALL = 60


@dataclass
class Event:
    """All log lines of one Xid on one GPU within the window. C(last) is the time of the newest, seconds since the epoch.

    C(level) and C(action) are the judgement; C(repeats) says whether C(count) takes part in the repeat rule; C(source) is whose level it is.
    """

    bus: Optional[BusId]
    code: int
    count: int = 0
    last: Optional[float] = None
    level: str = PASS
    action: str = "none"
    text: str = ""
    repeats: bool = False
    source: str = "default"

    def to_dict(self) -> dict[str, Any]:
        """Return the event for people: C(last) as ISO 8601 in UTC, or None for a line without a time."""
        last = (
            None
            if self.last is None
            else datetime.datetime.fromtimestamp(int(self.last), datetime.timezone.utc).isoformat()
        )
        return {
            "code": self.code,
            "count": self.count,
            "last": last,
            "level": self.level,
            "action": self.action,
            "text": self.text,
        }


# --- finding -----------------------------------------------------------------------------------------------------------

_BUS = r"(?:PCI:)?([0-9a-fA-F]{4,8}):([0-9a-fA-F]{2}):([0-9a-fA-F]{2})(?:\.[0-7])?"
# The parenthesis may hold more (a MIG instance). NVSwitch errors read "SXid (" and are not ours.
_XID = re.compile(r"\bNVRM(?:\[\d+\])?: +Xid \(" + _BUS + r"[^)]*\): *(\d+)\b(.*)", re.DOTALL)
_GPU = re.compile(r"\bGPU (?:at )?" + _BUS)
_LOST = re.compile(r"\bfallen off the bus\b")
_NONFATAL = re.compile(r"\bnon[-_ ]?fatal\b", re.IGNORECASE)
_RECOVERY = re.compile(r"\bto 0x([0-9a-fA-F]+)")


def bus_id(text: str) -> BusId | None:
    """Read a PCI address in any of the forms NVML (8-digit domain) and the kernel (4-digit, no function) use; None when it is none."""
    found = re.fullmatch(_BUS, text.strip())
    return (int(found[1], 16), int(found[2], 16), int(found[3], 16)) if found else None


def shown(bus: BusId | None) -> str:
    """Return a PCI address as C(lspci -D) shows it, without function."""
    return "unknown GPU" if bus is None else f"{bus[0]:04x}:{bus[1]:02x}:{bus[2]:02x}"


def _ids(found: re.Match[str]) -> BusId:
    return int(found[1], 16), int(found[2], 16), int(found[3], 16)


def find(
    lines: Iterable[tuple[float | None, str]],
) -> Iterator[tuple[float | None, BusId | None, int, str]]:
    """Yield (time, GPU, Xid, rest of the line) from (time, message) pairs in the order of the log.

    Two wordings that carry no number mean 79: C(GPU 0000:18:00.0: GPU has fallen off the bus) and a block of three lines, which
    may arrive as one message or as three. Where they come with a numbered line, as most often, they are no second error.
    """
    named: BusId | None = None
    age = 0
    fallen: dict[BusId | None, float | None] = {}
    for when, message in lines:
        found = _XID.search(message)
        if found:
            if int(found[4]) == OFF_THE_BUS:
                fallen[_ids(found)] = when
            yield when, _ids(found), int(found[4]), found[5]
            continue
        if "NVRM" not in message and named is None and not _LOST.search(message):
            continue
        if "SXid" in message:
            continue
        gpu = _GPU.search(message)
        if gpu:
            named, age = _ids(gpu), 0
        elif named is not None:
            age += 1
            if age > 2:
                named = None
        if _LOST.search(message) and ("NVRM" in message or named is not None):
            if named not in fallen or (when or 0.0) - (fallen[named] or 0.0) > SAME_FALL:
                yield when, named, OFF_THE_BUS, " GPU has fallen off the bus"
            fallen[named] = when
            named = None


def judge(
    found: Iterable[tuple[float | None, BusId | None, int, str]],
    overrides: Mapping[Any, str] | None = None,
) -> list[Event]:
    """Group the finds by GPU and number and give each group its level, in the order of first sight.

    144 to 150 are what their line says (C(Fatal) or C(Nonfatal)); 154 is what the newest line's target action says, so that a GPU
    that was reset since is not held against the node. C(overrides) (number -> C(ignore) C(warning) C(critical)) has the last word.
    """
    events: dict[tuple[BusId | None, int], Event] = {}
    chosen = {int(code): level for code, level in (overrides or {}).items()}
    for when, bus, code, rest in found:
        event = events.get((bus, code))
        meaning = _meaning(code, rest)
        if event is None:
            event = events[bus, code] = Event(
                bus, code, 0, when, meaning.level, meaning.action, meaning.text, meaning.repeats
            )
        elif code == 154 or (meaning.level == CRITICAL and event.level != CRITICAL):
            event.level, event.action, event.text = meaning.level, meaning.action, meaning.text
        event.count += 1
        if when is not None:
            event.last = when
        if code in chosen:
            event.level = PASS if chosen[code] == "ignore" else chosen[code]
            event.repeats, event.source = False, "user"
            if event.level == PASS:
                event.action = "none"
            elif event.action == "none":
                event.action = "inspect"
    return list(events.values())


def _meaning(code: int, rest: str) -> Meaning:
    meaning = CATALOG.get(code, UNLISTED)
    if 144 <= code <= 150:
        if _NONFATAL.search(rest):
            return Meaning(WARNING, "inspect", "nonfatal NVLink5 error")
        if re.search(r"\bFatal\b", rest, re.IGNORECASE):
            return Meaning(CRITICAL, "reset_gpu", "fatal NVLink5 error")
    if code == 154:
        target = _RECOVERY.search(rest)
        if target:
            level, action, text = recovery(int(target[1], 16))
            return Meaning(level, action, f"recovery action is now: {text}")
    return meaning


_RECOVERIES = {
    0: (PASS, "none", "none"),
    1: (CRITICAL, "reset_gpu", "reset the GPU"),
    2: (CRITICAL, "reboot", "reboot the node"),
    3: (WARNING, "drain", "drain peer-to-peer work"),
    4: (CRITICAL, "drain", "drain the node and reset the GPU"),
    5: (CRITICAL, "inspect", "recover the IMEX domain"),
    6: (CRITICAL, "reboot", "reset the GPU's bus"),
    7: (CRITICAL, "reboot", "reboot the system"),
}


def recovery(value: int) -> tuple[str, str, str]:
    """Return (level, action, words) of a GPU recovery action (NVML field 230; target of Xid 154)."""
    return _RECOVERIES.get(value, (CRITICAL, "inspect", f"unknown action {value}"))


# --- reading the kernel log --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Log:
    """What was found. C(source) says where; C(problem) is why nothing could be read, or empty."""

    source: str
    problem: str = ""
    finds: list[tuple[Optional[float], Optional[BusId], int, str]] = field(default_factory=list)


def boot_time(world: World) -> float:
    """Return when this machine booted, seconds since the epoch; 0.0 when unknown."""
    with (
        contextlib.suppress(OSError, ValueError),
        open(world.path("/proc/stat"), encoding="ascii", errors="replace") as stream,
    ):
        for line in stream:
            if line.startswith("btime "):
                return float(line.split()[1])
    return 0.0


def read(source: str, window: float, timeout: float, world: World) -> Log:
    """Look for Xids in the kernel log, not older than C(window) seconds and not before the last boot.

    :param source: C(journal), C(dmesg), the path of a file, or C(auto): the journal, else the kernel's own buffer.
    :param timeout: seconds for the external program. Never raises for a log that can't be read: see C(Log.problem).
    """
    since = max(boot_time(world), world.clock.now() - window)
    if source == "journal":
        return _journal(since, timeout, world)
    if source in ("dmesg", "/dev/kmsg"):
        return _kernel_buffer(since, world)
    if source != "auto":
        return _file(source, since, world)
    journal = _journal(since, timeout, world)
    if not journal.problem:
        return journal
    kernel = _kernel_buffer(since, world)
    return kernel if not kernel.problem else Log("auto", f"{journal.problem}; {kernel.problem}")


# Of a line that a program wrote to /dev/kmsg, the journal takes "NVRM:" for the program's name and off the message.
_GREP = r"--grep=NVRM|Xid \(|NVIDIA GPU|fallen off the bus"


def _journal(since: float, timeout: float, world: World) -> Log:
    deadline = time.monotonic() + timeout
    base = ["journalctl", "--dmesg", "--quiet", "--no-pager", "--output=short-unix"]
    try:
        # A user who may not read the system's journal gets an empty answer, not an error; a readable one has kernel lines.
        probe = world.run([*base, "--lines=1"], timeout=timeout)
        if probe.returncode or not probe.stdout.strip():
            return Log(
                "journal",
                _last_line(probe.stderr)
                or "the journal has no kernel messages of this boot, or this user may not read them",
            )
        command = [*base, f"--since=@{int(since)}"]
        found = world.run([*command, _GREP], timeout=max(0.1, deadline - time.monotonic()))
        if (
            found.returncode and found.stderr.strip()
        ):  # built without --grep; finding nothing gives 1 in silence
            found = world.run(command, timeout=max(0.1, deadline - time.monotonic()))
        if found.returncode and found.stderr.strip():
            return Log(
                "journal", _last_line(found.stderr) or f"journalctl ended with {found.returncode}"
            )
    except CommandFailed as error:
        return Log("journal", error.message.rstrip("."))
    return Log("journal", finds=list(find(dated(found.stdout.splitlines(), since, world))))


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _kernel_buffer(since: float, world: World) -> Log:
    path = world.path("/dev/kmsg")
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return Log("dmesg", f"the kernel's message buffer can't be read ({error.strerror})")
    records = []
    try:
        while True:
            try:
                record = os.read(fd, 1 << 16)
            except BlockingIOError:
                break
            except OSError as error:
                if (
                    error.errno == errno.EPIPE
                ):  # overwritten while reading: go on with the oldest there is
                    continue
                return Log("dmesg", f"the kernel's message buffer can't be read ({error.strerror})")
            if not record:
                break
            records.append(record.decode("utf-8", "replace"))
    finally:
        os.close(fd)
    return Log("dmesg", finds=list(find(dated("".join(records).splitlines(), since, world))))


def _file(path: str, since: float, world: World) -> Log:
    text = ""
    # What log rotation has put aside within the window is part of it.
    with contextlib.suppress(OSError):
        if os.stat(path + ".1").st_mtime >= since:
            text = _tail(path + ".1") + "\n"
    try:
        text += _tail(path)
    except OSError as error:
        return Log(path, f"{path} can't be read ({error.strerror or error})")
    return Log(path, finds=list(find(dated(text.splitlines(), since, world))))


def _tail(path: str) -> str:
    with open(path, "rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - TAIL))
        return stream.read(TAIL).decode("utf-8", "replace")


#: From here on a stamp is garbage (the year 5138), and soon no date any more.
_NO_TIME = 1e11
_STAMPS = (
    (re.compile(r"^(\d{9,11}\.\d+) "), "epoch"),  # journalctl -o short-unix
    (
        re.compile(r"^(?:<\d+>|\w+ *:\w+ *: )?\[ *(\d+\.\d+)(?:\]|,)"),
        "uptime",
    ),  # dmesg, with -r, with -x
    (re.compile(r"^\d+,\d+,(\d+),[^;]*;"), "uptime_us"),  # /dev/kmsg
    (
        re.compile(r"^\[?(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?)"),
        "iso",
    ),  # rsyslog, dmesg --time-format iso
    (re.compile(r"^\[(\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4})\]"), "ctime"),  # dmesg -T
    (
        re.compile(r"^(\w{3} [ \d]\d \d\d:\d\d:\d\d)(?:\.\d+)? "),
        "syslog",
    ),  # traditional syslog, journalctl -o short, short-precise
    (
        re.compile(r"^\w{3} (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?: UTC)?)"),
        "iso",
    ),  # journalctl -o short-full
)


def dated(lines: Iterable[str], since: float, world: World) -> Iterator[tuple[float | None, str]]:
    """Yield (seconds since the epoch, line) for lines not older than C(since).

    A line that is indented continues the one before it. A line without a time is kept with None: it can't be shown to be old.
    """
    now = world.clock.now()
    uptime_zero = (
        now - time.clock_gettime(time.CLOCK_MONOTONIC) if world.root == "/" else boot_time(world)
    )
    previous: float | None = None
    for line in lines:
        if line[:1] in (" ", "\t"):
            when = previous
        else:
            when = previous = _time(line, now, uptime_zero)
        if when is None or when >= since:
            yield (
                when,
                line.replace("\\x0a", "\n"),
            )  # how /dev/kmsg writes a line break inside a message


def _time(line: str, now: float, uptime_zero: float) -> float | None:
    for pattern, kind in _STAMPS:
        found = pattern.match(line)
        if found:
            try:
                when = _parse_time(found[1], kind, now, uptime_zero)
            except (ValueError, OverflowError):
                return None
            return when if when < _NO_TIME else None
    return None


def _parse_time(text: str, kind: str, now: float, uptime_zero: float) -> float:
    if kind == "epoch":
        return float(text)
    if kind == "uptime":
        return uptime_zero + float(text)
    if kind == "uptime_us":
        return uptime_zero + int(text) / 1e6
    if kind == "iso":
        # Python 3.9's fromisoformat knows neither Z nor +0100 nor other than 3 or 6 decimals.
        text = re.sub(r"[.,]\d+", "", text).replace(" UTC", "Z").replace("Z", "+00:00")
        text = re.sub(r"([+-]\d\d)(\d\d)$", r"\1:\2", text)
        return datetime.datetime.fromisoformat(text).timestamp()
    if kind == "ctime":
        return _local(text, "%a %b %d %H:%M:%S %Y")
    year = time.localtime(now).tm_year
    # The year goes in before parsing: 29 February exists only together with it.
    when = _local(f"{year} {text}", "%Y %b %d %H:%M:%S")
    return when if when <= now + 86400 else _local(f"{year - 1} {text}", "%Y %b %d %H:%M:%S")


def _local(text: str, form: str) -> float:
    return time.mktime(time.strptime(text, form))
