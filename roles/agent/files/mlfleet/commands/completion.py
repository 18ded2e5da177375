# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``mlfleet completion``: print the completion script for a shell."""

from __future__ import annotations

import argparse

from .. import shells
from ..context import Context
from . import Command


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "shell",
        nargs="?",
        choices=tuple(shells.SCRIPTS),
        default="bash",
        help="bash (default), zsh or fish",
    )


def run(context: Context) -> int:
    """Print the script, made from the parsers, so that it offers what this version knows."""
    context.terminal.say(shells.SCRIPTS[context.arguments.shell](shells.table()).rstrip())
    return 0


COMMAND = Command(
    name="completion",
    help="print the completion script for bash, zsh or fish",
    examples=(
        "mlfleet completion bash | sudo tee /etc/bash_completion.d/mlfleet",
        "mlfleet completion zsh | sudo tee /usr/local/share/zsh/site-functions/_mlfleet",
        "mlfleet completion fish | sudo tee /etc/fish/completions/mlfleet.fish",
    ),
    arguments=arguments,
    run=run,
    part="",
    leave_out=(),
    log="",
    dry_run=False,
    waits=False,
    statuses="0 printed, 3 could not run",
)
