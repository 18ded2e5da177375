# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bounded, indexed queries of systemd's journal."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence

from ..errors import CommandFailed
from ..ports import World
from ..records import NamedTuple
from . import boot, procfs
from .text import field_text

_FIELDS = (
    "MESSAGE,PRIORITY,_TRANSPORT,SYSLOG_IDENTIFIER,_SYSTEMD_UNIT,UNIT,MESSAGE_ID,"
    "_SOURCE_MONOTONIC_TIMESTAMP"
)
_ERROR = 3  # syslog priority of an entry that has none


class Entry(NamedTuple):
    """One entry; ``time`` in seconds since the epoch, ``source`` unit, program or ``kernel``."""

    time: float
    message: str
    priority: int
    kernel: bool
    source: str
    this_boot: bool
    message_id: str
    unit: str


def readable(world: World) -> bool:
    """Return whether there is a journal whose system part this user may read.

    Anybody can read their own part of it, and journalctl then keeps quiet about what it leaves
    out: no errors there means nothing.
    """
    directories = [
        f"{base}/{machine}"
        for base in ("/var/log/journal", "/run/log/journal")
        for machine in procfs.directory(world, base)
    ]
    paths = [
        world.path(f"{directory}/{file}")
        for directory in directories
        for file in procfs.directory(world, directory)
    ]
    system = [path for path in paths if os.path.basename(path).startswith("system")]
    if system:
        return any(os.access(path, os.R_OK) for path in system)
    return bool(paths)


def query(
    world: World, matches: Sequence[str], window: float, most: int, timeout: float
) -> list[Entry] | None:
    """Return the entries of the last ``window`` seconds, oldest first; None when not permitted.

    :param matches: field matches as on journalctl's command line.
    :param most: how many entries at most; what is left out is the oldest.
    :param timeout: seconds.
    :raises CommandFailed: journalctl did not answer in time, or not in JSON.
    """
    argv = ["journalctl", "-q", "--no-pager", "-r", "-o", "json", f"--output-fields={_FIELDS}"]
    result = world.run([*argv, f"--since=-{window:g}s", "-n", str(most), *matches], timeout=timeout)
    if (
        result.returncode != 0
        or "not seeing messages from other users" in result.stderr
        or "insufficient permissions" in result.stderr.lower()
    ):
        return None
    lines = result.stdout.split("\n")
    entries = list(_entries(reversed(lines), world))
    if not entries and any(line.strip() and not line.startswith("-- ") for line in lines):
        raise CommandFailed("journalctl gave no JSON.", "Run it by hand.", "journalctl")
    return entries


def _entries(lines: Iterable[str], world: World) -> Iterable[Entry]:
    boot_id = (boot.boot_id(world) or "").replace("-", "")
    started = world.clock.now() - (boot.uptime(world) or 0.0)
    for line in lines:
        try:
            fields = json.loads(line)
            when = int(fields["__REALTIME_TIMESTAMP"]) / 1e6
            if fields.get("_BOOT_ID") == boot_id and "_SOURCE_MONOTONIC_TIMESTAMP" in fields:
                # A journal that starts late (in a container) takes old kernel messages for new
                # ones; they carry their own time.
                monotonic = int(field_text(fields["_SOURCE_MONOTONIC_TIMESTAMP"])) / 1e6
                when = min(when, started + monotonic)
            priority = int(field_text(fields.get("PRIORITY")) or _ERROR)
        except (ValueError, KeyError, TypeError):
            continue
        kernel = field_text(fields.get("_TRANSPORT")) == "kernel"
        program = field_text(fields.get("SYSLOG_IDENTIFIER")) or "unknown"
        yield Entry(
            time=when,
            message=field_text(fields.get("MESSAGE")),
            priority=priority,
            kernel=kernel,
            source="kernel" if kernel else field_text(fields.get("_SYSTEMD_UNIT")) or program,
            this_boot=fields.get("_BOOT_ID", boot_id) == boot_id or not boot_id,
            message_id=field_text(fields.get("MESSAGE_ID")),
            unit=field_text(fields.get("UNIT")),
        )
