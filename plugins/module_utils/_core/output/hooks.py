# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Verdicts for schedulers: one line and an exit code, as each of them expects (``--for``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import verdict
from ..records import NamedTuple
from ..registry import Registry


class Hook(NamedTuple):
    """A scheduler.

    :param name: value of ``--for``. :param help: who reads it, for ``--help``.
    :param documentation: where the scheduler says what it expects.
    :param failed: exit code for a critical verdict; anything better gives 0.
    :param unknown: exit code when nothing could be checked.
    :param length: characters of the line that are read.
    """

    name: str
    help: str
    documentation: str
    failed: int
    unknown: int
    length: int


HOOKS: Registry[Hook] = Registry(
    "scheduler hook",
    (
        # A prolog or epilog that ends with another code than 0 drains the node. A command that
        # could not check anything, as after a mistake in the configuration, must not drain all of
        # them.
        Hook("slurm", "Slurm", "https://slurm.schedmd.com/prolog_epilog.html", 1, 0, 200),
        Hook(
            "npd",
            "Node Problem Detector of Kubernetes",
            "https://github.com/kubernetes/node-problem-detector/blob/master/docs/custom_plugin_monitor.md",
            1,
            2,
            80,
        ),
    ),
    required=("help", "documentation", "failed", "unknown", "length"),
)


class Answer(NamedTuple):
    """What is printed, and the exit code."""

    line: str
    exit_code: int


def answer(document: Mapping[str, Any], name: str) -> Answer:
    """Return what a scheduler gets for a verdict document. Only a critical verdict is a failure."""
    hook, status = HOOKS[name], document["status"]
    problems = [
        check
        for check in document["checks"]
        if check["status"] in (verdict.CRITICAL, verdict.WARNING, verdict.UNKNOWN)
    ]
    problems.sort(key=lambda check: -verdict.STATUSES.index(check["status"]))
    if not problems:
        return Answer(f"ok: {document['summary']['passed']} checks passed", 0)
    word = "ok, but"
    if status == verdict.CRITICAL:
        word = "critical"
    more = ""
    if len(problems) > 1:
        more = f" (+{len(problems) - 1} more)"
    text = f"{word}: {problems[0]['check']}: {problems[0]['message']}"
    line = _shortened(text, hook.length - len(more)) + more
    return Answer(line, hook.failed if status == verdict.CRITICAL else 0)


def unknown(reason: str, name: str) -> Answer:
    """Return what a scheduler gets when nothing could be checked."""
    hook = HOOKS[name]
    return Answer(_shortened(f"unknown: {reason}", hook.length), hook.unknown)


def _shortened(text: str, length: int) -> str:
    line = " ".join(text.split())
    if len(line) <= length:
        return line
    return line[: length - 1].rstrip() + "…"
