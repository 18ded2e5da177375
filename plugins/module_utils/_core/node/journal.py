# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Recent errors: one bounded, indexed query of the journal, or the kernel's own ring buffer where there is no journal."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import time
from collections.abc import Mapping
from typing import Any

from .. import verdict
from ..errors import CommandFailed
from ..ports import World
from ..system import boot, procfs
from ..verdict import Check
from . import thresholds
from .options import NodeOptions

#: Most entries one query may return; newest first, so what is left out is the oldest.
MOST = 1000
#: systemd's catalogue id of "a unit's restart was scheduled" (sd-messages.h, SD_MESSAGE_UNIT_RESTART_SCHEDULED).
RESTARTED = "5eb03494b6584870a536b337290809b3"
_FIELDS = "MESSAGE,PRIORITY,_TRANSPORT,SYSLOG_IDENTIFIER,_SYSTEMD_UNIT,UNIT,MESSAGE_ID,_SOURCE_MONOTONIC_TIMESTAMP"
_OOM = re.compile(
    r"(?P<cgroup>Memory cgroup out of memory|Out of memory)(?:: Killed process|: Kill process|.*Killed process) (?P<pid>\d+),? \((?P<name>[^)]*)\)"
)

#: Kernel messages that mean something on every node: name, pattern, verdict, action. The first that fits takes a message.
#: Drives for removable media (fd0, sr0) complain whenever they are empty.
PATTERNS: tuple[tuple[str, str, str, str], ...] = (
    (
        "file system error",
        r"EXT4-fs error|XFS \(\S+\): .*([Cc]orruption|[Ss]hutting down|metadata I/O error)|BTRFS (error|critical)|Remounting filesystem read-only",
        "critical",
        "drain",
    ),
    (
        "disk I/O error",
        r"(I/O error, dev|Buffer I/O error on (dev|device|device dev)|critical medium error, dev) (?!fd\d|sr\d)",
        "critical",
        "drain",
    ),
    (
        "NVMe controller fault",
        r"nvme.*(controller is down|Removing after probe failure|Disabling device after reset failure|Device not ready; aborting"
        r"|I/O .*timeout, (reset|disable))",
        "critical",
        "drain",
    ),
    (
        "uncorrected hardware error",
        r"Machine Check Exception|[Ff]atal [Mm]achine check|Uncorrected|System Fatal error|event severity: (fatal|recoverable)"
        r"|Processor context corrupt|Memory failure: 0x",
        "critical",
        "drain",
    ),
    (
        "machine check",
        r"\[Hardware Error\]",
        "warning",
        "inspect",
    ),  # a corrected one: AMD machines log these as emergencies, too
    (
        "lock-up",
        r"soft lockup|hard LOCKUP|rcu.*detected (expedited )?stall|watchdog: BUG",
        "critical",
        "reboot",
    ),
    (
        "kernel bug",
        r"kernel BUG at|BUG: (unable to handle|kernel NULL|Bad page)|Oops: |general protection fault.*\[#",
        "critical",
        "reboot",
    ),
    ("hung task", r"blocked for more than \d+ seconds", "warning", "inspect"),
    (
        "network device fault",
        r"NETDEV WATCHDOG|transmit queue \d+ timed out|tx timeout",
        "warning",
        "inspect",
    ),
    (
        "PCIe error",
        r"AER: .*(Fatal|Uncorrect)|PCIe Bus Error: severity=Uncorrect",
        "warning",
        "inspect",
    ),
    (
        "network file system",
        r"nfs: server \S+ not responding(?!, still trying.*OK)|LustreError|CIFS: VFS: \S+ has not responded",
        "warning",
        "inspect",
    ),
)
#: Of these the kernel logs some as mere warnings: a controller that is given up, a fault in the kernel itself, a queue that stands still.
_ALSO_WARNINGS = frozenset({"NVMe controller fault", "kernel bug", "network device fault"})
_ERROR, _WARNING = 3, 4  # syslog priorities


def _text(value: Any) -> str:
    """Return a field as text: journald writes what is not UTF-8 as a list of bytes, and a field given twice as a list of both."""
    if isinstance(value, list):
        if value and all(isinstance(one, int) and 0 <= one < 256 for one in value):
            return bytes(value).decode("utf-8", "replace")
        return _text(value[0]) if value else ""
    return "" if value is None else str(value)


def _entry(
    message: Any, when: float, kernel: bool, priority: int, source: str, this_boot: bool = True
) -> dict[str, Any]:
    return {
        "message": _text(message),
        "this_boot": this_boot,
        "time": when,
        "kernel": kernel,
        "priority": priority,
        "source": source,
    }


def has_journal(world: World) -> bool:
    """Whether there is a journal here, persistent or volatile, and this user may read the system's.

    Anybody can read the own user's part of it, and journalctl then keeps quiet about what it leaves out: no errors there means nothing.
    """
    bases = [
        f"{base}/{name}"
        for base in ("/var/log/journal", "/run/log/journal")
        for name in procfs.directory(world, base)
    ]
    paths = [
        world.path(f"{base}/{name}") for base in bases for name in procfs.directory(world, base)
    ]
    system = [path for path in paths if os.path.basename(path).startswith("system")]
    return any(os.access(path, os.R_OK) for path in system) if system else bool(paths)


def observe(world: World, options: NodeOptions, timeout: float) -> dict[str, Any]:
    """Return C(source) (C(journal), C(kernel) or None), C(entries) of priority err and worse, newest last, C(restarts) and C(limited).

    C(restarts) counts by unit what systemd restarted within the flapping window; None where no journal tells it.

    :raises CommandFailed: journalctl did not answer in time, or not in JSON.
    """
    now = world.clock.now()
    if has_journal(world):
        found = _journal(world, options, timeout, now)
        if found is not None:
            return found
    entries = _ring(world, options.error_window)
    if entries is None:
        return {
            "source": None,
            "entries": [],
            "restarts": None,
            "limited": False,
            "window": options.error_window,
        }
    return {
        "source": "kernel",
        "entries": entries,
        "restarts": None,
        "limited": False,
        "window": options.error_window,
    }


def _journal(
    world: World, options: NodeOptions, timeout: float, now: float
) -> dict[str, Any] | None:
    """Ask the journal; None when this user may not read it."""
    errors = [f"PRIORITY={level}" for level in range(_ERROR + 1)]
    kernel = ["_TRANSPORT=kernel", f"PRIORITY={_WARNING}"]
    begun = time.monotonic()
    lines = _query(world, options, timeout, [*errors, "+", *kernel, "+", f"MESSAGE_ID={RESTARTED}"])
    if lines is None:
        return None
    facts = _read(world, options, lines, now)
    if facts[
        "limited"
    ]:  # one that complains a thousand times must not hide what the kernel and systemd say
        left = max(0.1, timeout - (time.monotonic() - begun))
        more = _query(world, options, left, [*kernel[:1], *errors, "+", f"MESSAGE_ID={RESTARTED}"])
        rest = _read(world, options, more or [], now)
        others = [
            entry for entry in facts["entries"] if not entry["kernel"] or entry["priority"] > _ERROR
        ]
        facts = {
            **facts,
            "entries": sorted([*others, *rest["entries"]], key=lambda entry: float(entry["time"])),
            "restarts": rest["restarts"],
        }
    return facts


def _query(
    world: World, options: NodeOptions, timeout: float, matches: list[str]
) -> list[str] | None:
    window = max(options.error_window, options.flapping_window)
    argv = [
        "journalctl",
        "-q",
        "--no-pager",
        "-r",
        "-o",
        "json",
        f"--output-fields={_FIELDS}",
        f"--since=-{window}s",
        "-n",
        str(MOST),
        *matches,
    ]
    done = world.run(argv, timeout=timeout)
    if (
        done.returncode != 0
        or "not seeing messages from other users" in done.stderr
        or "insufficient permissions" in done.stderr.lower()
    ):
        return None
    return done.stdout.split("\n")


def _read(world: World, options: NodeOptions, lines: list[str], now: float) -> dict[str, Any]:
    boot_id = (boot.boot_id(world) or "").replace("-", "")
    uptime = boot.uptime(world) or 0.0
    entries: list[dict[str, Any]] = []
    restarts: dict[str, int] = {}
    count = 0
    for line in reversed(lines):
        try:
            fields = json.loads(line)
            when = int(fields["__REALTIME_TIMESTAMP"]) / 1e6
            if fields.get("_BOOT_ID") == boot_id and "_SOURCE_MONOTONIC_TIMESTAMP" in fields:
                # A journal that starts late (in a container) takes old kernel messages for new; they carry their own time.
                when = min(
                    when, now - uptime + int(_text(fields["_SOURCE_MONOTONIC_TIMESTAMP"])) / 1e6
                )
            priority = int(_text(fields.get("PRIORITY")) or _ERROR)
        except (ValueError, KeyError, TypeError):
            continue
        count += 1
        if RESTARTED in _text(fields.get("MESSAGE_ID")):
            name = _text(fields.get("UNIT"))
            if name and when >= now - options.flapping_window:
                restarts[name] = restarts.get(name, 0) + 1
            continue
        if when < now - options.error_window:
            continue
        kernel = _text(fields.get("_TRANSPORT")) == "kernel"
        source = (
            _text(fields.get("_SYSTEMD_UNIT"))
            or _text(fields.get("SYSLOG_IDENTIFIER"))
            or "unknown"
        )
        this_boot = fields.get("_BOOT_ID", boot_id) == boot_id or not boot_id
        entries.append(
            _entry(
                fields.get("MESSAGE"),
                when,
                kernel,
                priority,
                "kernel" if kernel else source,
                this_boot,
            )
        )
    if not count and any(line.strip() and not line.startswith("-- ") for line in lines):
        raise CommandFailed("journalctl gave no JSON.", "Run it by hand.", "journalctl")
    return {
        "source": "journal",
        "entries": entries,
        "restarts": restarts,
        "limited": count >= MOST,
        "window": options.error_window,
    }


def _ring(world: World, window: float) -> list[dict[str, Any]] | None:
    """Read the kernel's ring buffer without blocking (Documentation/ABI/testing/dev-kmsg); None when this user may not."""
    try:
        fd = os.open(world.path("/dev/kmsg"), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with contextlib.suppress(OSError):
        os.lseek(fd, 0, os.SEEK_DATA)  # what an administrator cleared (dmesg -C) is seen to
    now = world.clock.now()
    age_base = boot.uptime(world) or 0.0
    entries = []
    try:
        while True:
            try:
                record = os.read(fd, 8192)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno == errno.EPIPE:  # overwritten while we read: go on with the next
                    continue
                return None
            if not record:
                break
            for line in record.decode("utf-8", "replace").splitlines():
                head, separator, body = line.partition(";")
                words = head.split(",")
                if (
                    line.startswith(" ")
                    or not separator
                    or len(words) < 3
                    or not (words[0].isdigit() and words[2].isdigit())
                ):
                    continue  # a record's further fields
                level, age = int(words[0]) & 7, age_base - int(words[2]) / 1e6
                if level <= _WARNING and age <= window:
                    entries.append(_entry(body, now - age, True, level, "kernel"))
    finally:
        os.close(fd)
    return entries


def _shown(message: str) -> str:
    line = " ".join(message.split())
    return line if len(line) <= 120 else line[:119] + "…"


def judge(facts: Mapping[str, Any], options: NodeOptions) -> list[Check]:
    """Judge the entries, and C(oom_delta): kills counted by the kernel since the last run (None without a state file)."""
    found = []
    source = facts["source"]
    entries = [entry for entry in facts["entries"] if entry["priority"] <= _ERROR]
    span = f"the last {facts['window'] // 60} min"
    kernel = [entry for entry in facts["entries"] if entry["kernel"]]
    if options.wants("oom_kills"):
        found.append(_oom(facts, kernel, span, options))
    if options.wants("kernel_errors"):
        if source is None:
            found.append(
                Check(
                    "kernel_errors",
                    verdict.SKIPPED,
                    "Kernel messages: neither journal nor kernel log can be read by this user",
                )
            )
        else:
            found += _kernel(kernel, span, options)
    if options.wants("journal_errors"):
        if source != "journal":
            found.append(
                Check(
                    "journal_errors",
                    verdict.SKIPPED,
                    "Recent errors: no journal that this user may read",
                )
            )
        else:
            by_source: dict[str, int] = {}
            for entry in entries:
                by_source[entry["source"]] = by_source.get(entry["source"], 0) + 1
            top = sorted(by_source.items(), key=lambda pair: (-pair[1], pair[0]))
            more = f" or more (only the newest {MOST} were read)" if facts["limited"] else ""
            message = f"Recent errors: {len(entries)}{more} in {span}" + (
                ": " + ", ".join(f"{name} {count}" for name, count in top[:5]) if top else ""
            )
            details = {"by_source": dict(top[:20])} if top else None
            found.append(
                thresholds.judge(
                    options.limits_in_force["journal_errors"],
                    "journal_errors",
                    len(entries),
                    message,
                    details=details,
                )
            )
    return found


def _oom(
    facts: Mapping[str, Any], kernel: list[dict[str, Any]], span: str, options: NodeOptions
) -> Check:
    victims = []
    whole_node = False
    for entry in kernel:
        match = _OOM.search(entry["message"])
        if match:
            victims.append(f"{match.group('name')} ({match.group('pid')})")
            whole_node = whole_node or match.group("cgroup") == "Out of memory"
    delta = facts.get("oom_delta")
    if facts["source"] is None and delta is None:
        since_boot = facts.get("oom_since_boot")
        if since_boot == 0:
            return thresholds.judge(
                options.limits_in_force["oom_kills"], "oom_kills", 0, "OOM kills: 0 since boot"
            )
        return Check(
            "oom_kills",
            verdict.SKIPPED,
            "OOM kills: no log to read, and no state file to compare the kernel's counter with",
        )
    count = max(len(victims), delta or 0)
    names = ": " + ", ".join(dict.fromkeys(victims[-5:])) if victims else ""
    when = f"in {span}" if delta is None or len(victims) >= delta else "since the last check"
    details = {"victims": victims[-20:], "whole_node": whole_node} if victims else None
    return thresholds.judge(
        options.limits_in_force["oom_kills"],
        "oom_kills",
        count,
        f"OOM kills: {count} {when}{names}",
        details=details,
    )


def _kernel(kernel: list[dict[str, Any]], span: str, options: NodeOptions) -> list[Check]:
    own = {
        rule["name"]: (rule["name"], rule["pattern"], rule["status"], "inspect")
        for rule in options.error_patterns
    }
    found = []
    taken: set[int] = set()
    for name, pattern, status, action in (
        [*(rule for rule in PATTERNS if rule[0] not in own), *own.values()] if kernel else ()
    ):
        compiled = re.compile(
            pattern
        )  # costs more than all the rest here, so only where the kernel said something
        hits = []
        for number, entry in enumerate(kernel):
            fits = (entry["priority"] <= _ERROR or name in _ALSO_WARNINGS) and (
                name in own or number not in taken
            )
            fits = fits and (
                entry["this_boot"] or action != "reboot"
            )  # what a reboot cures is cured by the last one
            if fits and compiled.search(entry["message"]):
                hits.append(entry)
                taken.add(number)
        if hits:
            text = f"Kernel: {name}, {len(hits)} in {span}, last: {_shown(hits[-1]['message'])}"
            found.append(
                Check(
                    "kernel_errors",
                    status,
                    text,
                    name,
                    value=len(hits),
                    action=action,
                    domain="node",
                )
            )
    return found or [
        Check("kernel_errors", verdict.PASS, f"Kernel messages: no known fault in {span}", value=0)
    ]


def oom_counter(world: World) -> int | None:
    """Return how many processes the kernel has killed for want of memory since boot (C(oom_kill) of C(/proc/vmstat))."""
    for line in procfs.lines(world, "/proc/vmstat"):
        name, _space, value = line.partition(" ")
        if name == "oom_kill" and value.strip().isdigit():
            return int(value)
    return None
