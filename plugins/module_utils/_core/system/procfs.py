# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading small files below C(/proc), C(/sys) and C(/etc): a missing file is None."""

from __future__ import annotations

import os

from ..ports import World


class Problem(str):
    """Why a probe gave no answer, in one line; told apart from an answer by its type."""


def text(world: World, path: str) -> str | None:
    """Return the content of a file below the world's root without surrounding white space, None when it can't be read."""
    try:
        with open(world.path(path), encoding="utf-8", errors="replace") as stream:
            return stream.read().strip()
    except OSError:
        return None


def lines(world: World, path: str) -> list[str]:
    """Return the lines of a file, [] when it can't be read."""
    return (text(world, path) or "").splitlines()


def number(world: World, path: str) -> int | None:
    """Return a file that holds one whole number (its first word), None when it does not."""
    words = (text(world, path) or "").split()
    try:
        return int(words[0]) if words else None
    except ValueError:
        return None


def uptime(world: World) -> float | None:
    """Return how many seconds ago the kernel booted, None without a C(/proc/uptime) that says so."""
    try:
        seconds = float((text(world, "/proc/uptime") or "").split()[0])
    except (IndexError, ValueError):
        return None
    return seconds if 0 <= seconds < 1e10 else None


def folder(world: World, path: str) -> list[str]:
    """Return the sorted names in a folder, [] when it can't be read."""
    try:
        return sorted(os.listdir(world.path(path)))
    except OSError:
        return []


def in_container(world: World) -> bool:
    """Whether this is a container, where clock, kernel and hardware are the host's business."""
    marks = (
        "/run/.containerenv",
        "/.dockerenv",
        "/var/run/secrets/kubernetes.io",
    )  # podman, docker, a pod
    if any(os.path.exists(world.path(mark)) for mark in marks):
        return True
    if text(world, "/run/systemd/container") is not None:
        return True
    return any(
        word.startswith("container=") for word in (text(world, "/proc/1/environ") or "").split("\0")
    )
