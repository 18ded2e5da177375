# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The subcommands, one module each, named as they are typed.

A module is imported only when its command is used.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import argparse

    from ..context import Context


class Command(NamedTuple):
    """A subcommand; every module of this package has one as ``COMMAND``.

    :param arguments: adds the flags that are this command's own.
    :param run: does the work and returns the exit status.
    :param part: section of the configuration whose options become flags, but for ``leave_out``;
        empty for none.
    :param log: file that the command appends to; empty for none.
    :param dry_run: whether it can say what it would do. :param waits: whether it takes the lock of
        all jobs.
    :param statuses: its exit statuses, as its page shows them.
    """

    name: str
    help: str
    examples: tuple[str, ...]
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[Context], int]
    part: str
    leave_out: tuple[str, ...]
    log: str
    dry_run: bool
    waits: bool
    statuses: str = "0 all well, 1 warning, 2 critical, 3 could not run"


#: In the order of the overview.
GROUPS = (
    ("Look at this node", ("status", "health", "gpu", "gpu-test", "doctor")),
    ("Backups", ("backup", "backups", "verify", "restore")),
    ("Disk space, and everything at once", ("cleanup", "maintenance")),
    ("Set up", ("config", "alert", "completion", "help")),
)
NAMES = tuple(name for dummy, names in GROUPS for name in names)


def load(name: str) -> Command:
    """Return a subcommand. :raises TypeError: its module is incomplete."""
    command = importlib.import_module("." + name.replace("-", "_"), __name__).COMMAND
    if not isinstance(command, Command) or command.name != name:
        raise TypeError(f"The module of the command {name} has no COMMAND of that name")
    if not command.help or not command.examples:
        raise TypeError(f"The command {name} has no help or no examples")
    return command


def no_arguments(parser: argparse.ArgumentParser) -> None:
    """Add no flags of one's own."""
