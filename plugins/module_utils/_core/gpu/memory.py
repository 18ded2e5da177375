# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state file: locked, read, written, and visible to people. Nothing is decided here."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

from .. import verdict
from ..errors import NotUsable, WriteFailed
from ..ports import World
from ..records import NamedTuple
from ..system import files, locks
from ..system.text import human_count
from . import history, trends
from .history import Memory, Record, title_of
from .reading import bus_id

#: How long a second run waits for the first one's lock; seconds.
PATIENCE = 2.0


class StateFile(NamedTuple):
    """The check that reports a state file that can't be used."""

    name: str
    runbook: str
    documentation: str


STATE_FILE = StateFile(
    "gpu_state_file", "gpu_state_file", "the state file could not be read or written"
)
#: What is added to the name of a file that can't be understood.
BROKEN = ".broken"


@contextlib.contextmanager
def locked(path: str) -> Iterator[None]:
    """Hold the lock of a state file while the body runs; its directory is made when missing.

    :raises WriteFailed: no state can be kept there. :raises LockBusy: the other run takes too long.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        text = f"{path} is not a file, so no state is kept there."
        raise WriteFailed(text, "Name another state_file.", path)
    directory = os.path.dirname(path)
    try:
        # One level only: a longer path that does not exist is a mistake.
        with contextlib.suppress(FileExistsError):
            os.mkdir(directory, 0o750)
    except OSError as error:
        raise WriteFailed(
            f"Can't make {directory} for the state file: {error.strerror}.",
            "Make it, or name another state_file.",
            path,
        ) from error
    with locks.lock(path + ".lock", "GPU check", wait=PATIENCE):
        yield


def locked_unless(check: bool, path: str) -> contextlib.AbstractContextManager[None]:
    """Return what holds the lock while the body runs; check mode writes nothing and needs none."""
    if check:
        return contextlib.nullcontext()
    return locked(path)


def read(path: str, now: float, world: World, keep_broken: bool = False) -> Memory:
    """Return what is remembered, nothing where there is no file.

    :param keep_broken: move a file that can't be understood out of the way, for people to look at.
    :raises FutureVersion: a later release wrote the file.
    """
    memory, problem = history.load(path, now)
    if problem:
        world.warn(f"The state file of the GPU check starts over: {problem}")
        if keep_broken and os.path.isfile(path):
            with contextlib.suppress(OSError):
                os.replace(path, path + BROKEN)
    return memory


def store(path: str, memory: Memory) -> None:
    """Write the state file. :raises WriteFailed: it can't be written."""
    files.atomic_write(path, history.dump(memory), mode=0o640)


# --- for people -------------------------------------------------------------------------------


def clear(path: str, gpu: str, world: World, check: bool = False) -> dict[str, list[str]]:
    """Mark the incidents of a GPU as dealt with.

    :param gpu: UUID, serial number or PCI address of the GPU, or ``all``. :param check: change
        nothing.
    :return: for each GPU that had any, the codes of the incidents that were not marked before.
    :raises NotUsable: no such GPU is remembered.
    """

    def selected(record: Record) -> bool:
        address = bus_id(gpu)
        return gpu in ("all", record.uuid, record.serial) or (
            address is not None and address == bus_id(record.bus_id)
        )

    with locked_unless(check, path):
        memory = read(path, world.clock.now(), world)
        records = [record for record in memory.records if selected(record)]
        if not records:
            known = ", ".join(record.label for record in memory.records) or "none"
            raise NotUsable(
                f"No GPU {gpu} is remembered in {path}.",
                f"Known: {known}. Name one of them, or all.",
                gpu,
            )
        codes = {
            record.label: [item.code for item in record.incidents if not item.cleared]
            for record in records
        }
        if not check:
            store(path, trends.clear(memory, selected)[0])
    return {label: items for label, items in codes.items() if items}


def to_dict(memory: Memory) -> dict[str, Any]:
    """Return the history as plain data, times as ISO 8601."""

    def plain(record: Record) -> dict[str, Any]:
        values = history.to_dict(record)
        for key in ("first_seen", "last_seen"):
            values[key] = verdict.isoformat(values[key])
        for entry in (*values["samples"], *values["incidents"], *filter(None, [values["reset"]])):
            entry["time"] = verdict.isoformat(entry["time"])
        return values

    return {"gpus": [plain(record) for record in memory.records]}


def lines(memory: Memory, now: float, local: Callable[[float], time.struct_time]) -> list[str]:
    """Return the history as text: a paragraph for each GPU, its newest incident last."""
    text: list[str] = []
    for record in memory.records:
        groups = history.recent(record, now)
        text.append(
            f"{record.label}  {record.name or 'unknown model'}, serial"
            f" {record.serial or 'unknown'}, last seen at {record.bus_id or 'an unknown address'}"
            f" {_stamp(record.last_seen, local)}"
        )
        incidents = human_count(len(groups), "incident")
        text.append(
            f"  {incidents} in 30 days, remembered since {_stamp(record.first_seen, local)}"
        )
        for incident in record.incidents:
            moment = _stamp(incident.moment.time, local)
            if not incident.dated:
                moment += " (noticed)"
            line = f"  {moment}  {incident.level:<8}  {title_of(incident.code)}"
            if incident.text:
                line += "  " + incident.text.strip(", ")
            if incident.cleared:
                line += "  cleared"
            text.append(line)
        if record.samples:
            counters = record.samples[-1].counters
            visible = {
                name: value for name, value in counters.items() if value and name != "energy"
            }
            if visible:
                text.append("  counters: " + ", ".join(f"{k} {v}" for k, v in visible.items()))
    return text or ["No GPU is remembered yet."]


def _stamp(when: float, local: Callable[[float], time.struct_time]) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", local(when))
