# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The caches of package managers: pip, apt, uv, conda. Each is cleaned by its own program."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

from ..errors import CommandFailed
from ..ports import World
from .tool import CACHE, Item, ToolFacts, measure, one_cache, purge, run_json, run_program


def observe_pip(world: World) -> ToolFacts:
    """The cache of the user who runs this; those of other users are theirs."""
    failure: CommandFailed | None = None
    for program in (("pip3",), ("pip",), ("python3", "-m", "pip")):
        try:
            directory = run_program(world, [*program, "cache", "dir"]).strip()
            # Which directories a pip purges depends on its version; it reports them itself.
            report = run_program(world, [*program, "cache", "info"])
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
        return one_cache(facts, _measure_pip(places))
    raise failure or CommandFailed("pip is not installed.")


def _measure_pip(places: Sequence[str]) -> tuple[int, int]:
    wheels = [place for place in places if os.path.basename(place) == "wheels"]
    pages = measure(place for place in places if place not in wheels)
    built = measure(wheels, "*.whl")
    return pages[0] + built[0], pages[1] + built[1]


def clean_pip(world: World, facts: ToolFacts, _items: Sequence[Item]) -> dict[str, str]:
    return purge(world, facts, ("cache", "purge"), 600, _measure_pip)


def observe_apt(world: World) -> ToolFacts:
    """Downloaded packages."""
    settings = run_program(world, ["apt-config", "shell", "DIRECTORY", "Dir::Cache::archives/d"])
    match = re.search(r"DIRECTORY='([^']*)'", settings)
    directory = ""
    if match:
        directory = match.group(1).rstrip("/")
    if not directory:
        raise CommandFailed(
            "apt-config does not name the directory of downloaded packages.", "", "apt-config"
        )
    if not os.access(directory, os.W_OK):
        return ToolFacts("apt", directory, "skipped", "its cache belongs to root")
    facts = ToolFacts("apt", directory, program=("apt-get",), places=(directory,))
    return one_cache(facts, _measure_apt(facts.places))


def _measure_apt(places: Sequence[str]) -> tuple[int, int]:
    return measure(places, "*.deb*")


def clean_apt(world: World, facts: ToolFacts, _items: Sequence[Item]) -> dict[str, str]:
    return purge(world, facts, ("--option", "DPkg::Lock::Timeout=60", "clean"), 120, _measure_apt)


def _first(world: World, programs: Sequence[str], arguments: Sequence[str]) -> tuple[str, str]:
    """Return the first of several programs that is here, and its output.

    :raises CommandFailed: none is, or it failed.
    """
    failure: CommandFailed | None = None
    for program in programs:
        try:
            return program, run_program(world, [program, *arguments])
        except CommandFailed as error:
            failure = failure or error
    raise failure or CommandFailed("no program was named")


def observe_uv(world: World) -> ToolFacts:
    """The cache of the user who runs this.

    Files that are also in an environment free nothing and do not count.
    """
    home = world.environ.get("HOME", "/root")
    program, output = _first(world, ("uv", f"{home}/.local/bin/uv"), ("cache", "dir"))
    directory = output.strip()
    facts = ToolFacts(
        "uv",
        directory,
        note="the cache of the user who runs the cleanup",
        program=(program,),
        places=(directory,),
    )
    return one_cache(facts, _measure_uv(facts.places))


def _measure_uv(places: Sequence[str]) -> tuple[int, int]:
    count, size = measure(places, unlinked=True)
    # What marks the directory as a cache, and its lock, may stay.
    own = [name for place in places for name in _OWN_UV if os.path.lexists(f"{place}/{name}")]
    return count - len(own), size if count > len(own) else 0


#: Files of uv itself in its cache.
_OWN_UV = ("CACHEDIR.TAG", ".gitignore", ".git", ".lock")


def clean_uv(world: World, facts: ToolFacts, _items: Sequence[Item]) -> dict[str, str]:
    # uv waits for others that use the cache; with a time limit it is left to them.
    return purge(world, facts, ("cache", "clean"), 120, _measure_uv)


#: Where conda is, unless it is in PATH.
_CONDA = ("conda", "/opt/conda/bin/conda", "/opt/miniconda3/bin/conda", "/opt/miniforge3/bin/conda")
#: What it cleans: key of its report, and option.
_CONDA_PARTS = (
    ("tarballs", "--tarballs"),
    ("packages", "--packages"),
    ("index_cache", "--index-cache"),
)


def observe_conda(world: World) -> ToolFacts:
    """What conda itself would remove."""
    programs = [world.environ.get("CONDA_EXE", ""), *_CONDA]
    program, dummy = _first(world, [name for name in programs if name], ("--version",))
    options = [option for dummy, option in _CONDA_PARTS]
    report = run_json(world, [program, "clean", *options, "--dry-run", "--yes", "--json"], 300)
    settings = run_json(world, [program, "config", "--show", "allow_softlinks", "--json"])
    linked = bool(settings.get("allow_softlinks"))
    items = []
    for key, option in _CONDA_PARTS:
        files, size = _conda_part(report.get(key))
        if files:
            in_use = ""
            if key == "packages" and linked:
                in_use = "environments may hold symbolic links to it (allow_softlinks)"
            items.append(Item(f"conda {key}", CACHE, size, None, in_use, files, (option,)))
    return ToolFacts("conda", "conda", program=(program,), items=tuple(items))


def _conda_part(part: Any) -> tuple[int, int]:
    """Return the number and bytes of what a part of conda's report names."""
    if not isinstance(part, dict):
        return 0, 0
    entries = part.get("pkgs_dirs") or {}
    count, size = sum(len(names) for names in entries.values()), int(part.get("total_size") or 0)
    files, bytes_ = measure(part.get("files") or ())
    return count + files, size + bytes_


def clean_conda(world: World, facts: ToolFacts, items: Sequence[Item]) -> dict[str, str]:
    problems = {}
    for item in items:
        command = [*facts.program, "clean", *item.arguments, "--yes", "--json"]
        try:
            run_program(world, command, 600)
        except CommandFailed as error:
            problems[item.path] = error.message
    return problems
