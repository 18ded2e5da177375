# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a program that cleans a place of its own is to the cleanup, and what several of them
share.
"""

from __future__ import annotations

import contextlib
import fnmatch
import json
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from ..errors import CommandFailed
from ..ports import World

#: What a cache has instead of an age: it is removed whatever its age.
CACHE = "cache"


class Item(NamedTuple):
    """One thing that a tool can remove.

    ``made`` is in seconds since the epoch, None when unknown (it does not count where the tool has
    no retention); ``in_use`` says why it is in use, empty when it is not; ``arguments`` are what
    the tool is called with.
    """

    path: str
    kind: str
    size: int
    made: float | None = None
    in_use: str = ""
    files: int = 0
    arguments: tuple[str, ...] = ()
    #: What ``made`` is the time of.
    event: str = "created"


class ToolFacts(NamedTuple):
    """What was observed of one tool.

    ``state`` is ``ok`` or ``skipped`` (not here, or not ours to clean); ``note`` says why.
    """

    name: str
    root: str = ""
    state: str = "ok"
    note: str = ""
    items: tuple[Item, ...] = ()
    #: How the program is called here, and the directories it said it keeps its files in.
    program: tuple[str, ...] = ()
    places: tuple[str, ...] = ()


class Tool(NamedTuple):
    """A program that cleans a place of its own.

    ``observe`` reads only and raises CommandFailed when the program is not here; ``clean`` removes
    items and returns an error by path for those that could not be removed. ``retention`` is in
    seconds since an item was made; 0 must be written down.
    """

    name: str
    documentation: str
    retention: float
    observe: Callable[[World], ToolFacts]
    clean: Callable[[World, ToolFacts, Sequence[Item]], dict[str, str]]


def run_program(world: World, argv: list[str], timeout: float = 60.0) -> str:
    """Return a program's output.

    :raises CommandFailed: missing, too slow, or it ended with an error.
    """
    result = world.run(argv, timeout=timeout)
    if result.returncode != 0:
        output = (result.stderr or result.stdout).strip().splitlines()
        why = " ".join(output[-2:]) or f"ended with {result.returncode}"
        raise CommandFailed(f"{' '.join(argv[:3])} failed: {why}", "", argv[0])
    return result.stdout


def run_json(world: World, argv: list[str], timeout: float = 60.0) -> Any:
    """Return a program's output, which is JSON.

    :raises CommandFailed: as run_program(), or it is no JSON.
    """
    try:
        return json.loads(run_program(world, argv, timeout))
    except ValueError as error:
        raise CommandFailed(
            f"{' '.join(argv[:3])} did not answer with JSON: {error}", "", argv[0]
        ) from error


def measure(
    directories: Iterable[str], pattern: str = "*", unlinked: bool = False
) -> tuple[int, int]:
    """Return number and allocated bytes of the files in these trees whose name fits; (0, 0) when
    there is none.

    :param unlinked: do not count the bytes of files that have further links.
    """
    count = size = 0
    for top in directories:
        for directory, dummy, files in os.walk(top):
            for name in fnmatch.filter(files, pattern):
                with contextlib.suppress(OSError):
                    state = os.lstat(os.path.join(directory, name))
                    if state.st_nlink == 1 or not unlinked:
                        size += state.st_blocks * 512
                    count += 1
    return count, size


def one_cache(facts: ToolFacts, measured: tuple[int, int]) -> ToolFacts:
    """Return the facts of a tool that has one item, its cache."""
    files, size = measured
    if not files:
        return facts
    return facts._replace(items=(Item(facts.root, CACHE, size, files=files),))


def purge(
    world: World,
    facts: ToolFacts,
    command: Sequence[str],
    timeout: float,
    measure: Callable[[Sequence[str]], tuple[int, int]],
) -> dict[str, str]:
    try:
        run_program(world, [*facts.program, *command], timeout)
    except CommandFailed as error:
        return {facts.root: error.message}
    remaining = measure(facts.places)[0]
    if remaining:
        return {facts.root: f"{remaining} files are left"}
    return {}
