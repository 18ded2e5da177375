# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The last result of each phase that a timer or cron ran on this node.

One file per phase, on one line, so that a controller reads them without running anything: the
playbook ``collect`` makes the fleet report of them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from .errors import FleetError, NotUsable
from .records import NamedTuple
from .system import files, roots

DIRECTORY = "/var/lib/mlops-fleet/last"
VERSION = 1
#: How many entries of a list are kept: a cleanup may have removed hundreds of thousands of units.
ENTRIES = 100
#: Lists that a report does not need, and that grow with what was looked at.
_LEFT_OUT = ("plan", "kept")


class Kept(NamedTuple):
    """A result. ``time``: when the run ended, seconds since the epoch."""

    time: float
    result: dict[str, Any]


def keep(phase: str, result: Mapping[str, Any], now: float, directory: str = DIRECTORY) -> None:
    """Write the result of a phase in place of the one before.

    Not through a link anywhere in the path: the service user owns the directory above, and root
    writes here too.

    :param now: seconds since the epoch.
    :raises FleetError: it can't be written.
    """
    document = {"version": VERSION, "phase": phase, "time": now, "result": _shortened(result)}
    try:
        os.mkdir(directory, 0o750)
    except FileExistsError:
        pass
    except OSError as error:
        raise NotUsable(f"Can't make {directory}: {error.strerror}.", "", directory) from error
    fd = roots.open_directory(directory)
    try:
        text = json.dumps(document, separators=(",", ":"), default=str) + "\n"
        files.atomic_write(f"/proc/self/fd/{fd}/{phase}.json", text, 0o640, durable=False)
    finally:
        os.close(fd)


def _shortened(result: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in result.items() if key not in _LEFT_OUT}
    removed = kept.get("removed")
    if isinstance(removed, list) and len(removed) > ENTRIES:
        kept["removed_count"] = kept.get("removed_count", len(removed))
        kept["removed"] = removed[:ENTRIES]
    return kept


def parse(text: str, phase: str) -> Kept:
    """Read what ``keep`` wrote.

    :raises NotUsable: it is damaged, of a later version, or of another phase.
    """
    try:
        document = json.loads(text)
        if document["version"] != VERSION:
            raise NotUsable(
                f"The last result of {phase} has version {document['version']!r}, known is"
                f" {VERSION}.",
                "Use the collection's version of the node's agent, or a later one.",
                phase,
            )
        kept = Kept(float(document["time"]), dict(document["result"]))
        if document["phase"] != phase:
            raise ValueError
    except (ValueError, TypeError, KeyError) as error:
        raise NotUsable(
            f"The last result of {phase} is damaged.", "The next run writes it again.", phase
        ) from error
    return kept


def read(phase: str, directory: str = DIRECTORY) -> Kept | None:
    """Return the last result of a phase, None when there is none yet.

    :raises NotUsable: see parse; or it can't be read.
    """
    path = os.path.join(directory, f"{phase}.json")
    try:
        with open(path, encoding="utf-8") as stream:
            return parse(stream.read(), phase)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise NotUsable(f"Can't read {path}: {error.strerror}.", "", path) from error


def job_phase(job: str) -> str:
    """Return the phase under which the end of a job is kept."""
    return f"job-{job}"


def keep_all(
    results: Mapping[str, Mapping[str, Any]], now: float, directory: str = DIRECTORY
) -> str:
    """Keep several results.

    Return why one could not be written, else nothing: it must fail no job.
    """
    try:
        for phase, result in results.items():
            keep(phase, result, now, directory)
    except FleetError as error:
        return str(error)
    return ""
