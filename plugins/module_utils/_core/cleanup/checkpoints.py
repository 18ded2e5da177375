# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find the checkpoints below a cleanup root and read what their layout says about them. Reads only, through directory descriptors."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ..system.removal import DIRECTORY, Changed, Identity, identity, mount_id, open_checked
from ..system.text import display_path
from . import layouts
from .guards import own_directory
from .inuse import InUse
from .layouts import GENERIC, Layout
from .targets import Target

#: Levels of directories below a target in which runs are looked for.
DEPTH = 8
#: Bytes of a state file, tracker or metric file that are read; a larger one is not what it should be.
_LARGEST = 32 << 20
#: Entries of one checkpoint that are looked at.
_ENTRIES = 20_000
#: Beginning of a zip archive, and of the record at its end, which torch.save() writes last.
_ZIP, _ZIP_END, _ZIP_TAIL = b"PK\x03\x04", b"PK\x05\x06", 22
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Container(NamedTuple):
    """A directory with checkpoints: its path below the target's root ("" for the root), what it is, and the names in it.

    ``run`` is the name of the run that they belong to.
    """

    where: str
    identity: Identity
    layout: Layout
    names: list[str]
    run: str


class Checkpoint(NamedTuple):
    """What the layout says about a unit.

    ``missing`` says why it is incomplete, empty when it is complete. ``metric`` is the value of the target's metric, None when unknown.
    """

    step: int | None = None
    missing: str = ""
    metric: float | None = None

    @property
    def complete(self) -> bool:
        """Whether its library can resume from it."""
        return not self.missing


@dataclass
class RunFacts:
    """The run in one container: its name, the last change outside its checkpoints (nanoseconds), whether a process uses anything in it."""

    name: str = ""
    changed: int = 0
    in_use: bool = False
    checkpoints: dict[str, Checkpoint] = field(default_factory=dict)
    #: The complete checkpoint that stays: without it none of the others is removed.
    anchor: str = ""


# --- where checkpoints are ------------------------------------------------------------------------------------------------


def containers(fd: int, path: str, target: Target, mount: int | None) -> Iterator[Container]:
    """Yield the directories below an open root that hold checkpoints, or what a stopped run left. ``path`` is the root's.

    :raises OSError: the root can't be read; directories below it that can't be read are left alone.
    """
    state = os.fstat(fd)
    pending = [("", identity(state))]
    while pending:
        where, expected = pending.pop()
        try:
            here = open_below(fd, where, expected)
        except (OSError, Changed):
            if not where:
                raise
            continue
        try:
            if mount is not None and mount_id(here) != mount:
                continue
            names, directories, leftovers = _entries(here, state.st_dev)
            layout, units = _recognise(here, target.layout, names, directories)
            if units or leftovers:
                yield Container(where, expected, layout, units, _run_of(path, where, layout))
        except OSError:
            if not where:
                raise
            continue
        finally:
            os.close(here)
        if where.count("/") + bool(where) < DEPTH:
            taken = set(units)
            pending.extend(
                (f"{where}/{name}" if where else name, directories[name])
                for name in sorted(directories, reverse=True)
                if name not in taken
            )


def _run_of(path: str, where: str, layout: Layout) -> str:
    """Return the name of the run in a directory below a root: its path there, or the root's own name."""
    head, dummy, last = where.rpartition("/")
    if layout.run_above and last == layout.run_above:
        return head or os.path.basename(path)
    return where or os.path.basename(path)


def open_below(fd: int, where: str, expected: Identity) -> int:
    """Open a directory below an open one, none of its parts a link. :raises Changed: it is another one than expected."""
    here = os.dup(fd)
    try:
        for part in where.split("/") if where else ():
            inner = os.open(part, DIRECTORY, dir_fd=here)
            os.close(here)
            here = inner
        if identity(os.fstat(here)) != expected:
            raise Changed(f"{where} was replaced while it was read")
    except OSError as error:
        os.close(here)
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise Changed(f"{where} was replaced while it was read") from error
        raise
    except BaseException:
        os.close(here)
        raise
    return here


def _entries(fd: int, device: int) -> tuple[dict[str, str], dict[str, Identity], bool]:
    """Return names with their kind, the directories on the same device, and whether a stopped run left something."""
    names: dict[str, str] = {}
    directories: dict[str, Identity] = {}
    leftovers = False
    with os.scandir(fd) as entries:
        for entry in entries:
            name = entry.name
            if own_directory(name):
                leftovers = True
            elif not name.startswith("."):
                if entry.is_dir(follow_symlinks=False):
                    names[name] = "dir"
                    with contextlib.suppress(FileNotFoundError):
                        state = entry.stat(follow_symlinks=False)
                        if state.st_dev == device:
                            directories[name] = identity(state)
                else:
                    # A link is never a checkpoint: what it leads to is, and is protected by it.
                    names[name] = "link" if entry.is_symlink() else "file"
    return names, directories, leftovers


def _recognise(
    fd: int, wanted: str, names: Mapping[str, str], directories: Mapping[str, Identity]
) -> tuple[Layout, list[str]]:
    """Return the layout of a directory and the names of the checkpoints in it."""
    possible = layouts.candidates(wanted)
    inside: dict[str, list[str]] = {}

    def has(name: str, pattern: str) -> bool:
        if name not in inside:
            inside[name] = _inside(fd, name, directories[name])
        return any(layouts.matches(pattern, path) for path in inside[name])

    for layout in possible:
        units = []
        for name, kind in names.items():
            if not layout.is_checkpoint(name, kind) or (kind == "dir" and name not in directories):
                continue
            if (
                kind == "dir"
                and layout.recognised
                and not layout.is_partial(name)
                and not (wanted == layout.name and layouts.matches(layout.certain, name))
                and not has(name, layout.recognised)
            ):
                continue
            if kind == "dir" and layout.above and has(name, layout.above):
                continue
            units.append(name)
        if units and (len(possible) == 1 or not all(map(layout.is_partial, units))):
            return layout, units
    return possible[0], []


def _inside(fd: int, name: str, expected: Identity) -> list[str]:
    """Return the paths in a directory, two levels deep."""
    paths: list[str] = []
    try:
        top = open_checked(name, fd, expected, name)
    except (OSError, Changed):
        return paths
    try:
        for inner, is_directory in _names(top):
            paths.append(inner)
            if not is_directory or len(paths) > _ENTRIES:
                continue
            with contextlib.suppress(OSError):
                below = os.open(inner, DIRECTORY, dir_fd=top)
                try:
                    paths.extend(f"{inner}/{last}" for last, dummy in _names(below))
                finally:
                    os.close(below)
    except OSError:
        pass
    finally:
        os.close(top)
    return paths


def _names(fd: int) -> list[tuple[str, bool]]:
    with os.scandir(fd) as entries:
        return [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]


# --- what a checkpoint is worth -------------------------------------------------------------------------------------------


def read(fd: int, name: str, layout: Layout, target: Target, metrics: object) -> Checkpoint:
    """Return what the layout says about a unit of an open container, trackers aside.

    :param metrics: the JSON document beside the units, None when there is none.
    """
    step = layouts.step_of(name)
    if layout.name == GENERIC:
        state, missing = None, ""
    else:
        state, missing = _check(fd, name, layout)
    return Checkpoint(step, missing, _metric(fd, name, layout, target, state, metrics))


def _check(fd: int, name: str, layout: Layout) -> tuple[object, str]:
    """Return the document of the layout's state file, and what is missing."""
    if layout.is_partial(name):
        return None, "its name is that of a checkpoint that is being written"
    kind = os.lstat(name, dir_fd=fd)
    if not stat.S_ISDIR(kind.st_mode):
        return None, _truncated(fd, name) if layout.archive else ""
    inside = _inside(fd, name, identity(kind))
    for path in inside:
        if layouts.matches(layout.unfinished, path):
            return None, f"it holds {display_path(path)}"
    if layout.marker and not any(layouts.matches(layout.marker, path) for path in inside):
        return None, "it lacks what its library writes last"
    if layout.state and layout.state in inside:
        state = layouts.parse_state(read_text(fd, f"{name}/{layout.state}") or "")
        return state, "" if state is not None else f"its {layout.state} is not whole"
    return None, "" if inside else "it is empty"


def _truncated(fd: int, name: str) -> str:
    """Return what is wrong with an archive of torch.save(), empty when it is whole or in another format."""
    try:
        file = os.open(name, _FILE, dir_fd=fd)
    except OSError as error:
        return f"it can't be read: {error.strerror}"
    try:
        state = os.fstat(file)
        if not stat.S_ISREG(state.st_mode):
            return "it is no regular file"
        if state.st_size == 0:
            return "it is empty"
        if os.pread(file, len(_ZIP), 0) != _ZIP:
            return ""
        tail = os.pread(file, _ZIP_TAIL, max(0, state.st_size - _ZIP_TAIL))
        return "" if tail.startswith(_ZIP_END) else "its end is missing"
    finally:
        os.close(file)


def _metric(
    fd: int, name: str, layout: Layout, target: Target, state: object, beside: object
) -> float | None:
    """Return the target's metric: from the layout's state file, a JSON file, or the name."""
    if not target.metric:
        return None
    value = None
    if layout.metrics is not None and state is not None:
        value = layout.metrics(state).get(target.metric)
    if value is None:
        document = layouts.parse_state(read_text(fd, f"{name}/{target.metric_file}") or "")
        value = layouts.metric_in(document, target.metric)
    if value is None and isinstance(beside, Mapping) and name in beside:
        entry = beside[name]
        value = layouts.metric_in(entry, target.metric)
        value = layouts.finite(entry) if value is None else value
    return layouts.metric_of(name, target.metric) if value is None else value


def read_text(fd: int, path: str) -> str | None:
    """Return the text of a regular file below an open directory, no part of its path a link; None when there is none."""
    *parts, last = path.split("/")
    here = os.dup(fd)
    try:
        for part in parts:
            inner = os.open(part, DIRECTORY, dir_fd=here)
            os.close(here)
            here = inner
        file = os.open(last, _FILE, dir_fd=here)
        try:
            state = os.fstat(file)
            if not stat.S_ISREG(state.st_mode) or state.st_size > _LARGEST:
                return None
            data = b""
            while len(data) <= _LARGEST:
                block = os.read(file, 1 << 20)
                if not block:
                    break
                data += block
        finally:
            os.close(file)
    except OSError:
        return None
    finally:
        os.close(here)
    return data.decode("utf-8", "replace")


def tracked(fd: int, layout: Layout, names: Sequence[str]) -> dict[str, str]:
    """Return the checkpoints of an open container that must stay because its library resumes from them, and why."""
    reasons: dict[str, str] = {}
    for name in names:
        if layouts.matches(layout.resumed, name):
            reasons[name] = "its library resumes from it"
    if layout.tracker and layout.tracked is not None:
        text = read_text(fd, layout.tracker)
        if text is not None:
            reasons[layout.tracked(text)] = f"{layout.tracker} names it"
    if layout.best is not None:
        # The newest state that is whole knows best.
        for name in sorted(names, key=lambda name: layouts.step_of(name) or 0, reverse=True):
            state = layouts.parse_state(read_text(fd, f"{name}/{layout.state}") or "")
            if state is not None:
                best = layout.best(state)
                if best:
                    reasons[best] = f"{layout.state} of {display_path(name)} names it as the best"
                break
    return reasons


def committed(fd: int, layout: Layout, checkpoints: dict[str, Checkpoint]) -> None:
    """Mark what lies beyond the tracker as incomplete: the tracker is written when a checkpoint is whole."""
    if not layout.committed or layout.tracked is None:
        return
    text = read_text(fd, layout.tracker)
    last = None if text is None else layout.tracked(text)
    limit = None if last is None else layouts.step_of(last)
    for name, checkpoint in checkpoints.items():
        if checkpoint.missing or name == last:
            continue
        if last is None:
            checkpoints[name] = checkpoint._replace(missing=f"there is no {layout.tracker}")
            continue
        beyond = _mtime(fd, name) > _mtime(fd, layout.tracker)
        if limit is not None and checkpoint.step is not None:
            beyond = checkpoint.step > limit
        if beyond:
            checkpoints[name] = checkpoint._replace(
                missing=f"{layout.tracker} names an earlier one"
            )


def _mtime(fd: int, name: str) -> int:
    with contextlib.suppress(OSError):
        return os.lstat(name, dir_fd=fd).st_mtime_ns
    return 0


def activity(fd: int, units: Sequence[str], busy: InUse | None) -> tuple[int, bool]:
    """Return the last change of a directory's entries that are no units (nanoseconds), and whether a process uses one, or itself."""
    taken = set(units)
    busy = busy or InUse()
    newest, used = 0, identity(os.fstat(fd)) in busy.directories
    with os.scandir(fd) as entries:
        for entry in entries:
            if entry.name in taken or own_directory(entry.name):
                continue
            with contextlib.suppress(OSError):
                state = entry.stat(follow_symlinks=False)
                used = used or identity(state) in busy.identities
                # Not the ctime: links and renames of others say nothing about the run. A directory changes when we move something.
                if not stat.S_ISDIR(state.st_mode):
                    newest = max(newest, state.st_mtime_ns)
    return newest, used
