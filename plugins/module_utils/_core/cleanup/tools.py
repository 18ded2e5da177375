# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Places that other programs own: container images, the caches of package managers, and the hub of Hugging Face."""

from __future__ import annotations

from ..errors import CommandFailed
from ..ports import World
from ..registry import Registry
from . import hub, images, packages
from .tool import Tool, ToolFacts

_WEEK, _MONTH = 7 * 86400.0, 30 * 86400.0


def observe(name: str, world: World) -> ToolFacts:
    """Return what a tool could clean; a tool that is not there is skipped. Reads only."""
    try:
        return TOOLS[name].observe(world)
    except CommandFailed as error:
        return ToolFacts(name, state="skipped", note=error.message)


#: In the order in which they clean, with the option aggressive.
TOOLS: Registry[Tool] = Registry(
    "cleanup tool",
    (
        Tool(
            "docker",
            "Docker images that no container is made from, 7 days after they were made, pulled or tagged",
            _WEEK,
            images.observe_docker,
            images.clean_docker,
        ),
        Tool(
            "podman",
            "Podman images that no container is made from, 7 days after they were made",
            _WEEK,
            images.observe_podman,
            images.clean_podman,
        ),
        Tool(
            "crictl",
            "Images of containerd or CRI-O that no container uses and nobody pinned, 7 days after they were made",
            _WEEK,
            images.observe_crictl,
            images.clean_crictl,
        ),
        Tool(
            "pip",
            "pip's cache of the user who runs the cleanup",
            0.0,
            packages.observe_pip,
            packages.clean_pip,
        ),
        Tool(
            "apt",
            "Packages that apt has downloaded",
            0.0,
            packages.observe_apt,
            packages.clean_apt,
        ),
        Tool(
            "uv",
            "uv's cache of the user who runs the cleanup",
            0.0,
            packages.observe_uv,
            packages.clean_uv,
        ),
        Tool(
            "conda",
            "Conda's downloaded archives, index cache, and unpacked packages that no environment uses",
            0.0,
            packages.observe_conda,
            packages.clean_conda,
        ),
        Tool(
            "huggingface",
            "Revisions in the hub cache of Hugging Face that no branch or tag names, 30 days after their last use",
            _MONTH,
            hub.observe,
            hub.clean,
        ),
    ),
    required=("documentation", "retention", "observe", "clean"),
)
