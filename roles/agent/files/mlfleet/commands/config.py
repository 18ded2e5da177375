# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``mlfleet config``: show the effective configuration and where it comes from."""

from __future__ import annotations

import argparse
import json

from ..._core import config, outcome
from ..._core.errors import NotUsable
from ..context import Context
from ..parser import version
from . import Command


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    parser.add_argument(
        "--check",
        action="store_true",
        help="end with 3 when it can't be used, as without this flag",
    )
    parser.add_argument(
        "--quiet", "-q", action="store_true", help="print only whether it can be used"
    )
    parser.add_argument(
        "--export",
        action="store_true",
        help=(
            "print the variables of the environment file as shell commands, for scripts that run"
            " mlfleet as a user who can't read it; those that are set already are left out"
        ),
    )


def run(context: Context) -> int:
    """Print the options in force; fail when the configuration can't be used."""
    terminal, environment = context.terminal, context.environment
    if context.arguments.export:
        return _export(context)
    from ..._core.output import human

    settings, problems = context.configuration.effective()
    rows = [["OPTION", "VALUE", "FROM"]]
    rows += [
        [f"{part}.{option}", json.dumps(setting.value), setting.origin]
        for part, options in settings.items()
        for option, setting in options.items()
    ]
    if not context.arguments.quiet:
        terminal.say(*human.wrapped_table(rows))
    terminal.say(*(f"wrong: {problem}" for problem in problems))
    terminal.say(*(f"warning: {line}" for line in environment.lines()))
    if environment.unreadable:
        terminal.say(f"warning: {config.unreadable(environment)}")
    if not problems:
        empty = ": empty or not there, so defaults"
        if context.configuration.file:
            empty = ""
        terminal.say(f"The configuration can be used ({context.arguments.config}{empty}).")
    options_in_force = {
        part: {
            option: {"value": setting.value, "from": setting.origin}
            for option, setting in options.items()
        }
        for part, options in settings.items()
    }
    document = {
        "options": options_in_force,
        "problems": problems,
        "environment_file": {
            "path": environment.path,
            "exists": environment.exists,
            "unreadable": environment.unreadable,
            "problems": [problem._asdict() for problem in environment.problems],
        },
        "version": version(),
    }
    terminal.data(document)
    if problems:
        return outcome.NOT_RUN
    return outcome.OK


def _export(context: Context) -> int:
    """Print the variables of the environment file for a shell.

    :raises NotUsable: it can't be read.
    """
    import shlex

    environment = context.environment
    if environment.unreadable:
        raise NotUsable(config.unreadable(environment), "", environment.path)
    for variable in environment.complete(context.given_environ)[1]:
        value = environment.variables[variable].value
        context.terminal.say(f"export {variable}={shlex.quote(value)}")
    return outcome.OK


COMMAND = Command(
    name="config",
    help="show the effective configuration and where it comes from",
    examples=(
        "mlfleet config --check",
        "mlfleet config --json | jq .options.backup",
        "mlfleet config --export",
    ),
    arguments=arguments,
    run=run,
    part="",
    leave_out=(),
    log="",
    dry_run=False,
    waits=False,
    statuses="0 the configuration can be used, 3 it can't",
)
