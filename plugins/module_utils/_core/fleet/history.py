# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kept runs, in a directory or another store: read whatever is there, add one, remove the
oldest.

A run is a JSON document ``maintenance-TIMESTAMP.json`` with its page and its Markdown beside it.
Version 2 has the keys that the page ``fleet_report`` of the documentation lists. Version 1, of
release 0.1, has no faults: a phase that did not pass counts as one fault there.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from ..errors import NotUsable
from ..system.files import atomic_write
from ..system.locks import lock
from ..system.text import display_path
from .faults import ANY_CHECK, clean, mapping, severity

#: Version of the documents that are written. Readers take all versions up to it.
VERSION = 2
#: Largest document that is read.
SIZE_LIMIT = 256 * 1024**2
#: Most earlier runs whose metrics a run repeats.
TREND = 60
#: Seconds to wait for another controller that writes to the same directory.
LOCK_WAIT = 60.0
_NAME = re.compile(r"^(?P<stem>maintenance-(?P<time>\d{8}T\d{6}Z)(?:-\d+)?)\.(?:json|html|md)$")


class Damaged(ValueError):
    """A kept document that can't be used; the text says why."""


class Problem(NamedTuple):
    """A kept document that was left out, and why."""

    name: str
    reason: str


class Store(Protocol):
    """Where runs are kept: a directory, a bucket, a Git repository."""

    @property
    def place(self) -> str:
        """The store for people, without secrets."""
        ...  # pylint: disable=unnecessary-ellipsis

    def names(self) -> list[str]:
        """Return the names of the kept files, others too.

        :raises FleetError: they can't be read.
        """
        ...  # pylint: disable=unnecessary-ellipsis

    def load(self, name: str) -> Any:
        """Return the content of a kept document as it is.

        :raises Damaged: it can't be used. :raises OSError, FleetError: it can't be read.
        """
        ...  # pylint: disable=unnecessary-ellipsis

    def add(
        self, texts: Mapping[str, str], now: float, keep: int, keep_days: float | None
    ) -> dict[str, str]:
        """Add a run, remove those beyond a number and an age; return where each file is.

        :param texts: suffix (``json``, ``html``, ``md``) to content. :raises FleetError: it can't
            be kept.
        """
        ...  # pylint: disable=unnecessary-ellipsis


class Directory:
    """A directory on the controller; implements Store."""

    def __init__(self, path: str) -> None:
        self.place = os.path.abspath(path)

    def names(self) -> list[str]:
        """Return the names in the directory; none without it."""
        try:
            return os.listdir(self.place)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise NotUsable(
                f"Can't read the report directory {self.place}: {error.strerror}.",
                "Set fleet_report_dir to a directory that this user can read.",
                self.place,
            ) from error

    def load(self, name: str) -> Any:
        return load(os.path.join(self.place, name))

    def add(
        self, texts: Mapping[str, str], now: float, keep: int, keep_days: float | None
    ) -> dict[str, str]:
        with adding(self.place, now) as kept:
            paths = {kind: kept.write(kind, text) for kind, text in texts.items()}
            kept.prune(keep, keep_days, now)
        return paths


def secret_of(url: str) -> str:
    """Return user and password in a URL, the empty text without any."""
    authority = url.partition("://")[2].partition("/")[0]
    if ":" in authority.rpartition("@")[0]:
        return authority.rpartition("@")[0]
    return ""


def without_secrets(url: str) -> str:
    """Return a URL for people: without user and password."""
    secret = secret_of(url)
    if secret:
        return url.replace(f"{secret}@", "", 1)
    return url


def stems_of(names: Iterable[str]) -> list[str]:
    """Return the names of runs (without suffix) among names of files, oldest first."""
    return sorted({match["stem"] for match in map(_NAME.match, names) if match}, key=_order)


def files_of(names: Iterable[str], runs: Collection[str]) -> list[str]:
    """Return the names of the files that belong to these runs."""
    return [
        name for name in names for match in [_NAME.match(name)] if match and match["stem"] in runs
    ]


def stems(directory: str) -> list[str]:
    """Return the names of the runs that a directory keeps, oldest first; none without a
    directory.
    """
    return stems_of(Directory(directory).names())


def _order(stem: str) -> tuple[str, int]:
    moment, dummy, number = stem.partition("-")[2].partition("-")
    return moment, int(number or 1)


def earlier(store: Store, problems: list[Problem]) -> Iterator[dict[str, Any]]:
    """Yield the kept runs, newest first, as documents of the current version.

    :param problems: gets the documents that can't be used.
    :raises FleetError: the store can't be read.
    """
    for stem in reversed(stems_of(store.names())):
        name = f"{stem}.json"
        try:
            yield upgrade(store.load(name))
        except FileNotFoundError:
            continue  # removed by another controller meanwhile, or only a page
        except (Damaged, OSError) as error:
            problems.append(Problem(display_path(name), clean(error, 200)))


def since(store: Store, moment: float) -> list[str]:
    """Return the names of the kept runs that are not older than a time, oldest first."""
    limit = stamp(moment)
    return [stem for stem in stems_of(store.names()) if _order(stem)[0] >= limit]


def load(path: str) -> Any:
    """Return the content of a kept document as it is.

    :raises Damaged: it is no JSON. :raises OSError: it can't be read.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as stream:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise Damaged("not a file")
        if status.st_size > SIZE_LIMIT:
            raise Damaged("larger than 256 MiB")
        raw = stream.read(SIZE_LIMIT + 1)
    return parse(raw)


def parse(raw: bytes) -> Any:
    """Return the content of a document. :raises Damaged: it is no JSON."""
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise Damaged("not valid JSON") from error


def upgrade(document: Any) -> dict[str, Any]:
    """Return a document of any known version as one of the current version, with the keys that
    comparisons and trends read: ``timestamp phases hosts metrics trend``.

    :raises Damaged: it is not a run, or its version is newer.
    """
    if not isinstance(document, Mapping):
        raise Damaged("not a report")
    version = document.get("version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise Damaged("no valid version")
    if version > VERSION:
        raise Damaged(f"version {version}, newer than {VERSION}: written by a newer collection")
    try:
        hosts = [_host(entry, version) for entry in document["hosts"]]
        metrics = document.get("metrics")
        return {
            "version": VERSION,
            "timestamp": clean(document["timestamp"], 40),
            "title": clean(document.get("title", ""), 200),
            "status": clean(document.get("status", ""), 20),
            "phases": [clean(phase, 40) for phase in document["phases"]],
            "hosts": hosts,
            "metrics": _numbers(mapping(metrics)),
            "trend": [
                (clean(moment, 40), _numbers(values))
                for moment, values in list(document.get("trend", ()))[-TREND:]
            ],
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Damaged("keys of a report are missing or of another type") from error


def _numbers(values: Mapping[Any, Any]) -> dict[str, float]:
    return {
        str(name): value
        for name, value in values.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e18
    }


def _host(entry: Mapping[str, Any], version: int) -> dict[str, Any]:
    host = str(entry["host"])
    phases = [
        {
            "phase": str(phase["phase"]),
            "status": str(phase["status"]),
            "message": str(phase.get("message", "")),
        }
        for phase in entry["phases"]
    ]
    if version == 1:
        faults = [_phase_fault(host, phase) for phase in phases if severity(phase["status"]) >= 0]
    else:
        names = ("phase", "check", "subject", "status", "message", "action")
        faults = [
            {"host": host, **{name: clean(fault[name]) for name in names}}
            for fault in entry["faults"]
        ]
    corrected = {
        str(device.get("id")): device["corrected"]
        for device in entry.get("devices", ())
        if "corrected" in _numbers(device)
    }
    return {
        "host": host,
        "phases": phases,
        "faults": faults,
        "corrected": corrected,
        "backed_up": clean(entry.get("backed_up") or "", 40),
    }


def _phase_fault(host: str, phase: Mapping[str, str]) -> dict[str, Any]:
    status = phase["status"]
    check = ANY_CHECK
    if status == "unreachable":
        check = status
    elif status in ("failed", "held", "no_data"):
        check = f"{phase['phase']}_{status}"
    return {
        "host": host,
        "phase": phase["phase"],
        "check": check,
        "subject": "",
        "status": status,
        "message": clean(phase["message"]),
        "action": "none",
    }


class Kept(NamedTuple):
    """Where a run is written: its directory and name, reserved while the lock is held."""

    directory: str
    stem: str

    def path(self, kind: str) -> str:
        return os.path.join(self.directory, f"{self.stem}.{kind}")

    def write(self, kind: str, text: str) -> str:
        """Write a file of the run and point the link ``latest.KIND`` to it; return its path."""
        path = self.path(kind)
        atomic_write(path, text.encode("utf-8", "replace"), mode=0o640)
        link = os.path.join(self.directory, f".latest.{kind}.{os.getpid()}")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(link)
        os.symlink(os.path.basename(path), link)
        os.replace(link, os.path.join(self.directory, f"latest.{kind}"))
        return path

    def prune(self, keep: int, keep_days: float | None, now: float) -> None:
        """Remove the runs beyond a number and an age; never this one."""
        names = os.listdir(self.directory)
        for name in files_of(names, outdated(names, self.stem, keep, keep_days, now)):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(self.directory, name))


def outdated(
    names: Iterable[str], this: str, keep: int, keep_days: float | None, now: float
) -> set[str]:
    """Return the runs beyond a number and an age; never this one.

    :param names: the names of all kept files.
    """
    kept = stems_of(names)
    limit = "" if not keep_days else stamp(now - keep_days * 86400)
    stay = {this, *kept[-keep:]}
    return {stem for stem in kept if stem not in stay or (_order(stem)[0] < limit)} - {this}


def stamp(now: float) -> str:
    """Return a time as it stands in the names of runs."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(max(0.0, now)))


@contextlib.contextmanager
def adding(directory: str, now: float) -> Iterator[Kept]:
    """Reserve a name for a run in a directory, made when missing, while the body writes it.

    Runs of two controllers get different names, also within one second; each waits for the other.

    :raises NotUsable: the directory can't be made. :raises LockBusy: another controller writes to
        it for longer than a minute.
    """
    try:
        os.makedirs(directory, mode=0o750, exist_ok=True)
    except OSError as error:
        raise NotUsable(
            f"Can't make the report directory {directory}: {error.strerror}.",
            "Set fleet_report_dir to a directory that this user can write.",
            directory,
        ) from error
    with lock(os.path.join(directory, ".lock"), "writing the fleet report", LOCK_WAIT):
        base = f"maintenance-{stamp(now)}"
        taken = set(stems(directory))
        stem, number = base, 1
        while stem in taken:
            number += 1
            stem = f"{base}-{number}"
        yield Kept(directory, stem)
