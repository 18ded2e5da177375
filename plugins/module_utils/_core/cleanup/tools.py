# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Places that other programs own: docker's images, the caches of pip and apt. Each is cleaned by its own program, never by us."""

from __future__ import annotations

import contextlib
import datetime
import fnmatch
import functools
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import CommandFailed
from ..ports import World
from .options import IMAGE_DAYS
from .plan import Doomed, Kept

#: Images that are dated before 1980 are not dated.
DATED = 315532800.0


@dataclass
class Tool:
    """What was found of one place. C(state): C(ok), C(skipped) (not here, or not ours to clean) or C(failed); C(note) says why.
    C(clean) removes what the plan names and returns an error by path for what resisted."""

    name: str
    root: str = ""
    state: str = "ok"
    note: str = ""
    remove: list[Doomed] = field(default_factory=list)
    keep: list[Kept] = field(default_factory=list)
    clean: Callable[[], dict[str, str]] = dict


def look(name: str, world: World) -> Tool:
    """Find out what a tool would clean; a tool that is not there is skipped. Reads only."""
    try:
        return {"docker": _docker, "pip": _pip, "apt": _apt}[name](world)
    except CommandFailed as error:
        return Tool(name, state="skipped", note=error.message)


def _run(world: World, argv: list[str], timeout: float = 60.0) -> str:
    """Return a program's output. :raises CommandFailed: missing, too slow, or it ended with an error."""
    done = world.run(argv, timeout=timeout)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise CommandFailed(
            f"{' '.join(argv[:3])} failed: {' '.join(said[-2:]) or f'ended with {done.returncode}'}",
            "",
            argv[0],
        )
    return done.stdout


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
    return max((one for one in times if one > DATED), default=None)


def _images(world: World) -> tuple[list[dict[str, Any]], set[str]]:
    """Return docker's images and the ids of those that containers are made from.

    Asked again when a container or an image went between two questions.
    """
    for _attempt in range(2):
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


def _docker(world: World) -> Tool:
    """Images that no container uses, by age: docker keeps no time of last use."""
    found = Tool(
        "docker",
        "docker images",
        note="ages count from when images were made, pulled or tagged; sizes count layers that images share each time",
    )
    images, used = _images(world)
    now = world.clock.now()
    going: list[tuple[Doomed, list[str]]] = []
    for image in images:
        names = [tag for tag in image.get("RepoTags") or [] if tag != "<none>:<none>"]
        path = names[0] if names else image["Id"]
        made = _made(image)
        age = now - made if made is not None else 0.0
        if made is None:
            found.keep.append(Kept("docker", path, "its creation time is unknown"))
        elif image["Id"] in used or image["Id"].split(":")[-1] in used:
            found.keep.append(Kept("docker", path, "in use: a container is made from it"))
        elif age < IMAGE_DAYS * 86400:
            found.keep.append(
                Kept(
                    "docker",
                    path,
                    f"created {age / 86400:.1f} days ago, kept {IMAGE_DAYS:.1f} days",
                )
            )
        else:
            reason = f"created {age / 86400:.1f} days ago, kept {IMAGE_DAYS:.1f} days"
            going.append(
                (
                    Doomed("docker", path, "image", int(image.get("Size") or 0), age, reason),
                    names or [image["Id"]],
                )
            )
    found.remove = [one for one, _names in going]

    def clean() -> dict[str, str]:
        problems = {}
        for one, names in going:
            try:
                # Without --force: docker itself refuses what a container has begun to use meanwhile.
                _run(world, ["docker", "image", "rm", *names], timeout=600)
            except CommandFailed as error:
                problems[one.path] = error.message
        return problems

    found.clean = clean
    return found


def _measure(folders: Sequence[str], pattern: str = "*") -> tuple[int, int]:
    """Return number and allocated bytes of the files in these trees whose name fits; (0, 0) when there is none."""
    count = size = 0
    for top in folders:
        for folder, _folders, files in os.walk(top):
            for name in fnmatch.filter(files, pattern):
                with contextlib.suppress(OSError):
                    size += os.lstat(os.path.join(folder, name)).st_blocks * 512
                    count += 1
    return count, size


def _cache(
    found: Tool, measure: Callable[[], tuple[int, int]], purge: Callable[[], object]
) -> Tool:
    """Fill in a tool that has one unit, its cache."""
    files, size = measure()
    if files:
        found.remove = [
            Doomed(found.name, found.root, "cache", size, None, f"a cache of {files} files")
        ]

    def clean() -> dict[str, str]:
        try:
            purge()
        except CommandFailed as error:
            return {found.root: error.message}
        left = measure()[0]
        return {found.root: f"{left} files are left"} if left else {}

    found.clean = clean
    return found


def _pip(world: World) -> Tool:
    """The cache of the user who runs this; those of other users are theirs."""
    failure: CommandFailed | None = None
    for argv in (["pip3"], ["pip"], ["python3", "-m", "pip"]):
        try:
            folder = _run(world, [*argv, "cache", "dir"]).strip()
            # Which folders a pip purges depends on its version; it says so itself.
            places = re.findall(
                r" location[^:]*: (/.+)$", _run(world, [*argv, "cache", "info"]), re.M
            )
        except CommandFailed as error:
            failure = failure or error
            continue
        measure = functools.partial(_measure_pip, places)
        purge = functools.partial(_run, world, [*argv, "cache", "purge"], 600)
        return _cache(
            Tool("pip", folder, note="the cache of the user who runs the cleanup"), measure, purge
        )
    raise failure or CommandFailed("pip is not installed.")


def _measure_pip(places: Sequence[str]) -> tuple[int, int]:
    wheels = [place for place in places if os.path.basename(place) == "wheels"]
    pages, built = (
        _measure([place for place in places if place not in wheels]),
        _measure(wheels, "*.whl"),
    )
    return pages[0] + built[0], pages[1] + built[1]


def _apt(world: World) -> Tool:
    """Downloaded packages."""
    answer = _run(world, ["apt-config", "shell", "FOLDER", "Dir::Cache::archives/d"])
    match = re.search(r"FOLDER='([^']*)'", answer)
    folder = match.group(1).rstrip("/") if match else ""
    if not folder:
        raise CommandFailed(
            "apt-config does not name the folder of downloaded packages.", "", "apt-config"
        )
    if not os.access(folder, os.W_OK):
        return Tool("apt", folder, "skipped", "its cache belongs to root")
    measure = functools.partial(_measure, [folder], "*.deb*")
    return _cache(
        Tool("apt", folder),
        measure,
        functools.partial(
            _run, world, ["apt-get", "--option", "DPkg::Lock::Timeout=60", "clean"], 120
        ),
    )
