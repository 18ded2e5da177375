# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Container images: of docker, of podman, and of containerd and CRI-O (crictl).

Each is removed by its own program.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import CommandFailed
from ..ports import World
from .tool import Item, ToolFacts, run_json, run_program

#: Images that are dated before 1980 are not dated.
DATED = 315532800.0
IN_USE = "in use: a container is made from it"


def parse_created(text: str) -> float:
    """Return docker's creation time (RFC 3339, up to nanoseconds) as seconds since the epoch.

    :raises ValueError: it is none.
    """
    match = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:\d\d)", text)
    if match is None:
        raise ValueError(text)
    return datetime.datetime.fromisoformat(
        match.group(1) + match.group(2).replace("Z", "+00:00")
    ).timestamp()


def made_at(image: Mapping[str, Any]) -> float | None:
    """Return when an image was made or last pulled or tagged here, whichever is later, None when
    neither is known.

    Reproducible builds date their images 1970 or earlier, and an image made long ago may have been
    pulled for today's training.
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
            return _ask_docker(world)
        except CommandFailed as error:
            if "no such" not in error.message.lower():
                raise
    return _ask_docker(world)


def _ask_docker(world: World) -> tuple[list[dict[str, Any]], set[str]]:
    ids = list(
        dict.fromkeys(
            run_program(world, ["docker", "image", "ls", "--quiet", "--no-trunc"]).split()
        )
    )
    containers = run_program(world, ["docker", "ps", "--all", "--quiet", "--no-trunc"]).split()
    used = (
        set(
            run_program(
                world,
                ["docker", "inspect", "--type", "container", "--format", "{{.Image}}", *containers],
            ).split()
        )
        if containers
        else set()
    )
    try:
        return (
            json.loads(run_program(world, ["docker", "image", "inspect", *ids])) if ids else []
        ), used
    except ValueError as error:
        raise CommandFailed(
            f"docker image inspect did not answer with JSON: {error}", "", "docker"
        ) from error


def observe_docker(world: World) -> ToolFacts:
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
                made=made_at(image),
                in_use=IN_USE if in_use else "",
                arguments=tags or (image["Id"],),
            )
        )
    return ToolFacts(
        "docker",
        "docker images",
        note=(
            "ages count from when images were made, pulled or tagged; sizes count layers that"
            " images share each time"
        ),
        items=tuple(items),
    )


def clean_docker(world: World, _facts: ToolFacts, items: Sequence[Item]) -> dict[str, str]:
    return _remove_each(world, ["docker", "image", "rm"], items)


def _remove_each(
    world: World, command: list[str], items: Sequence[Item], timeout: float = 600
) -> dict[str, str]:
    problems = {}
    for item in items:
        try:
            # Without --force: the program itself refuses what a container has begun to use
            # meanwhile.
            run_program(world, [*command, *item.arguments], timeout)
        except CommandFailed as error:
            problems[item.path] = error.message
    return problems


def observe_podman(world: World) -> ToolFacts:
    """Images of the user who runs this, by age: podman keeps no time of last use."""
    with contextlib.suppress(CommandFailed):
        if "podman" in run_program(world, ["docker", "--version"]).lower():
            return ToolFacts(
                "podman", state="skipped", note="the command docker is podman here: see docker"
            )
    images = run_json(world, ["podman", "image", "ls", "--format", "json"]) or []
    containers = run_json(world, ["podman", "ps", "--all", "--external", "--format", "json"]) or []
    used = {str(container.get("ImageID") or "") for container in containers}
    items = []
    for image in images:
        names = tuple(image.get("Names") or ())
        in_use = ""
        if image["Id"] in used or image.get("Containers"):
            in_use = IN_USE
        elif image.get("ReadOnly"):
            in_use = "it is in a read-only store"
        created = image.get("Created")
        dated = isinstance(created, (int, float)) and created > DATED
        items.append(
            Item(
                path=names[0] if names else image["Id"],
                kind="image",
                size=int(image.get("Size") or 0),
                made=float(created) if dated else None,
                in_use=in_use,
                arguments=names or (image["Id"],),
            )
        )
    return ToolFacts(
        "podman",
        "podman images",
        note=(
            "ages count from when images were made; sizes count layers that images share each time"
        ),
        items=tuple(items),
    )


def clean_podman(world: World, _facts: ToolFacts, items: Sequence[Item]) -> dict[str, str]:
    return _remove_each(world, ["podman", "image", "rm"], items)


def observe_crictl(world: World) -> ToolFacts:
    """Images of the container runtime of a Kubernetes node, by age: it keeps no time of last use,
    nor that of the download.
    """
    images = run_json(world, ["crictl", "images", "--output", "json"]).get("images") or []
    containers = run_json(world, ["crictl", "ps", "--all", "--output", "json"])
    used: set[str | None] = set()
    for container in containers.get("containers") or []:
        used.update((container.get("imageRef"), container.get("imageId")))
        used.add((container.get("image") or {}).get("image"))
    items = []
    for image in images:
        names = tuple(image.get("repoTags") or ())
        known = {image["id"], *names, *(image.get("repoDigests") or ())}
        in_use = ""
        if known & used or image["id"].split(":")[-1] in used:
            in_use = IN_USE
        elif image.get("pinned"):
            in_use = "the container runtime pins it"
        items.append(
            Item(
                path=names[0] if names else image["id"],
                kind="image",
                size=int(image.get("size") or 0),
                # One more call for each image, which says nothing of those that stay anyway.
                made=0.0 if in_use else _made_crictl(world, image["id"]),
                in_use=in_use,
                arguments=(image["id"],),
            )
        )
    return ToolFacts(
        "crictl",
        "images of the container runtime",
        note="ages count from when images were made, not from when they were pulled",
        items=tuple(items),
    )


def _made_crictl(world: World, image: str) -> float | None:
    """Return when an image was made, None when that is unknown."""
    with contextlib.suppress(CommandFailed, ValueError, TypeError, AttributeError):
        info = run_json(world, ["crictl", "inspecti", "--output", "json", image])["info"]
        if isinstance(info, str):
            info = json.loads(info)
        made = parse_created((info.get("imageSpec") or {}).get("created") or "")
        if made > DATED:
            return made
        return None
    return None


def clean_crictl(world: World, _facts: ToolFacts, items: Sequence[Item]) -> dict[str, str]:
    return _remove_each(world, ["crictl", "rmi"], items)
