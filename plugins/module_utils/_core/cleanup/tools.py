# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Places that other programs own: docker's images, the caches of pip and apt. Each is cleaned by its own program, never by us."""

from __future__ import annotations

import contextlib
import datetime
import fnmatch
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ..errors import CommandFailed
from ..ports import World
from ..registry import Registry

#: Images that are dated before 1980 are not dated.
DATED = 315532800.0
#: What a cache has instead of an age: it is removed whatever its age.
CACHE = "cache"


class Item(NamedTuple):
    """One thing that a tool can remove.

    ``made`` is in seconds since the epoch, None when unknown (it does not count where the tool has no retention); ``in_use`` says why it
    is in use, empty when it is not; ``arguments`` are what the tool is called with.
    """

    path: str
    kind: str
    size: int
    made: float | None = None
    in_use: str = ""
    files: int = 0
    arguments: tuple[str, ...] = ()


class ToolFacts(NamedTuple):
    """What was observed of one tool. ``state`` is ``ok`` or ``skipped`` (not here, or not ours to clean); ``note`` says why."""

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

    ``observe`` reads only and raises CommandFailed when the program is not here; ``clean`` removes items and returns an error by path for
    those that could not be removed. ``retention`` is in seconds since an item was made; 0 must be written down.
    """

    name: str
    documentation: str
    retention: float
    observe: Callable[[World], ToolFacts]
    clean: Callable[[World, ToolFacts, Sequence[Item]], dict[str, str]]


def observe(name: str, world: World) -> ToolFacts:
    """Return what a tool could clean; a tool that is not there is skipped. Reads only."""
    try:
        return TOOLS[name].observe(world)
    except CommandFailed as error:
        return ToolFacts(name, state="skipped", note=error.message)


def _run(world: World, argv: list[str], timeout: float = 60.0) -> str:
    """Return a program's output. :raises CommandFailed: missing, too slow, or it ended with an error."""
    result = world.run(argv, timeout=timeout)
    if result.returncode != 0:
        output = (result.stderr or result.stdout).strip().splitlines()
        why = " ".join(output[-2:]) or f"ended with {result.returncode}"
        raise CommandFailed(f"{' '.join(argv[:3])} failed: {why}", "", argv[0])
    return result.stdout


def parse_created(text: str) -> float:
    """Return docker's creation time (RFC 3339, up to nanoseconds) as seconds since the epoch. :raises ValueError: it is none."""
    match = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:\d\d)", text)
    if match is None:
        raise ValueError(text)
    return datetime.datetime.fromisoformat(
        match.group(1) + match.group(2).replace("Z", "+00:00")
    ).timestamp()


def _made(image: Mapping[str, Any]) -> float | None:
    """Return when an image was made or last pulled or tagged here, whichever is later, None when neither is known.

    Reproducible builds date their images 1970 or earlier, and an image made long ago may have been pulled for today's training.
    """
    times = []
    for text in (image.get("Created"), (image.get("Metadata") or {}).get("LastTagTime")):
        with contextlib.suppress(ValueError, TypeError):
            times.append(parse_created(text or ""))
    return max((made for made in times if made > DATED), default=None)


def _images(world: World) -> tuple[list[dict[str, Any]], set[str]]:
    """Return docker's images and the ids of those that containers are made from.

    Asked again when a container or an image went between two questions.
    """
    for dummy in range(2):
        try:
            return _ask(world)
        except CommandFailed as error:
            if "no such" not in error.message.lower():
                raise
    return _ask(world)


def _ask(world: World) -> tuple[list[dict[str, Any]], set[str]]:
    ids = list(
        dict.fromkeys(_run(world, ["docker", "image", "ls", "--quiet", "--no-trunc"]).split())
    )
    containers = _run(world, ["docker", "ps", "--all", "--quiet", "--no-trunc"]).split()
    used = (
        set(
            _run(
                world,
                ["docker", "inspect", "--type", "container", "--format", "{{.Image}}", *containers],
            ).split()
        )
        if containers
        else set()
    )
    try:
        return (json.loads(_run(world, ["docker", "image", "inspect", *ids])) if ids else []), used
    except ValueError as error:
        raise CommandFailed(
            f"docker image inspect did not answer with JSON: {error}", "", "docker"
        ) from error


def _observe_docker(world: World) -> ToolFacts:
    """Images, by age: docker keeps no time of last use."""
    images, used = _images(world)
    items = []
    for image in images:
        tags = tuple(tag for tag in image.get("RepoTags") or [] if tag != "<none>:<none>")
        in_use = image["Id"] in used or image["Id"].split(":")[-1] in used
        items.append(
            Item(
                path=tags[0] if tags else image["Id"],
                kind="image",
                size=int(image.get("Size") or 0),
                made=_made(image),
                in_use="in use: a container is made from it" if in_use else "",
                arguments=tags or (image["Id"],),
            )
        )
    return ToolFacts(
        "docker",
        "docker images",
        note="ages count from when images were made, pulled or tagged; sizes count layers that images share each time",
        items=tuple(items),
    )


def _clean_docker(world: World, _facts: ToolFacts, items: Sequence[Item]) -> dict[str, str]:
    problems = {}
    for item in items:
        try:
            # Without --force: docker itself refuses what a container has begun to use meanwhile.
            _run(world, ["docker", "image", "rm", *item.arguments], timeout=600)
        except CommandFailed as error:
            problems[item.path] = error.message
    return problems


def _measure(directories: Iterable[str], pattern: str = "*") -> tuple[int, int]:
    """Return number and allocated bytes of the files in these trees whose name fits; (0, 0) when there is none."""
    count = size = 0
    for top in directories:
        for directory, dummy, files in os.walk(top):
            for name in fnmatch.filter(files, pattern):
                with contextlib.suppress(OSError):
                    size += os.lstat(os.path.join(directory, name)).st_blocks * 512
                    count += 1
    return count, size


def _cache(facts: ToolFacts, measured: tuple[int, int]) -> ToolFacts:
    """Return the facts of a tool that has one item, its cache."""
    files, size = measured
    if not files:
        return facts
    return facts._replace(items=(Item(facts.root, CACHE, size, files=files),))


def _purge(
    world: World,
    facts: ToolFacts,
    command: Sequence[str],
    timeout: float,
    measure: Callable[[Sequence[str]], tuple[int, int]],
) -> dict[str, str]:
    try:
        _run(world, [*facts.program, *command], timeout)
    except CommandFailed as error:
        return {facts.root: error.message}
    remaining = measure(facts.places)[0]
    return {facts.root: f"{remaining} files are left"} if remaining else {}


def _observe_pip(world: World) -> ToolFacts:
    """The cache of the user who runs this; those of other users are theirs."""
    failure: CommandFailed | None = None
    for program in (("pip3",), ("pip",), ("python3", "-m", "pip")):
        try:
            directory = _run(world, [*program, "cache", "dir"]).strip()
            # Which directories a pip purges depends on its version; it reports them itself.
            report = _run(world, [*program, "cache", "info"])
        except CommandFailed as error:
            failure = failure or error
            continue
        places = tuple(re.findall(r" location[^:]*: (/.+)$", report, re.M))
        facts = ToolFacts(
            "pip",
            directory,
            note="the cache of the user who runs the cleanup",
            program=program,
            places=places,
        )
        return _cache(facts, _measure_pip(places))
    raise failure or CommandFailed("pip is not installed.")


def _measure_pip(places: Sequence[str]) -> tuple[int, int]:
    wheels = [place for place in places if os.path.basename(place) == "wheels"]
    pages = _measure(place for place in places if place not in wheels)
    built = _measure(wheels, "*.whl")
    return pages[0] + built[0], pages[1] + built[1]


def _clean_pip(world: World, facts: ToolFacts, _items: Sequence[Item]) -> dict[str, str]:
    return _purge(world, facts, ("cache", "purge"), 600, _measure_pip)


def _observe_apt(world: World) -> ToolFacts:
    """Downloaded packages."""
    settings = _run(world, ["apt-config", "shell", "FOLDER", "Dir::Cache::archives/d"])
    match = re.search(r"FOLDER='([^']*)'", settings)
    directory = match.group(1).rstrip("/") if match else ""
    if not directory:
        raise CommandFailed(
            "apt-config does not name the directory of downloaded packages.", "", "apt-config"
        )
    if not os.access(directory, os.W_OK):
        return ToolFacts("apt", directory, "skipped", "its cache belongs to root")
    facts = ToolFacts("apt", directory, program=("apt-get",), places=(directory,))
    return _cache(facts, _measure_apt(facts.places))


def _measure_apt(places: Sequence[str]) -> tuple[int, int]:
    return _measure(places, "*.deb*")


def _clean_apt(world: World, facts: ToolFacts, _items: Sequence[Item]) -> dict[str, str]:
    return _purge(world, facts, ("--option", "DPkg::Lock::Timeout=60", "clean"), 120, _measure_apt)


#: In the order in which they clean, with the option aggressive.
TOOLS: Registry[Tool] = Registry(
    "cleanup tool",
    (
        Tool(
            "docker",
            "Docker images that no container is made from, 7 days after they were made, pulled or tagged",
            7 * 86400.0,
            _observe_docker,
            _clean_docker,
        ),
        Tool(
            "pip",
            "pip's cache of the user who runs the cleanup",
            0.0,
            _observe_pip,
            _clean_pip,
        ),
        Tool("apt", "Packages that apt has downloaded", 0.0, _observe_apt, _clean_apt),
    ),
    required=("documentation", "retention", "observe", "clean"),
)
