# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``mlfleet help``: the overview, the page of a command, or an option of the configuration."""

from __future__ import annotations

import argparse

from ..._core import config, outcome
from ..._core.errors import OptionError
from ..._core.options import Option
from ..._core.system.text import human_list
from .. import pages
from .. import parser as command_line
from ..context import Context
from . import NAMES, Command, load


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "topic",
        nargs="?",
        default="",
        help="a command, or an option of the configuration (gpu.temperature_warning)",
    )
    parser.add_argument(
        "--man", action="store_true", help="print the manual page (mlfleet help --man | man -l -)"
    )


def run(context: Context) -> int:
    """Print the page that was asked for. :raises OptionError: there is no such topic."""
    topic, terminal = context.arguments.topic, context.terminal
    if context.arguments.man:
        from .. import manual

        terminal.say(manual.page())
    elif not topic:
        terminal.say(pages.overview(command_line.version()))
    elif topic in NAMES:
        terminal.say(command_line.command_parser(load(topic)).format_help().rstrip())
    elif "." in topic:
        terminal.say(*_explain(topic))
    else:
        raise OptionError(f"There is no command {topic!r}.", _hint(topic), topic)
    return outcome.OK


def _hint(topic: str) -> str:
    """Return what a name may have meant: a command, or the options with it in their names."""
    options = [
        f"{part}.{option.name}"
        for part in config.PARTS
        for option in config.option_set(part).TABLE
        if topic.replace("-", "_") in option.name
    ]
    if options and not pages.close(topic, NAMES):
        return f"Did you mean {human_list(options, 6)}?"
    return suggestion(topic, NAMES, "commands")


def suggestion(topic: str, known: tuple[str, ...], what: str) -> str:
    """Return what a misspelled name may have meant, or all that are known."""
    hints = pages.close(topic, known)
    if hints:
        return f"Did you mean {' or '.join(hints)}?"
    return f"Known {what}: {', '.join(known)}."


def _explain(topic: str) -> list[str]:
    """Return the lines about an option. :raises OptionError: there is no such option."""
    part, *path = topic.split(".")
    if part not in config.PARTS:
        known = tuple(config.PARTS)
        raise OptionError(
            f"Unknown configuration section {part!r}.", suggestion(part, known, "sections"), topic
        )
    table: tuple[Option, ...] = config.option_set(part).TABLE
    option: Option | None = None
    for step in path:
        option = next((entry for entry in table if step in (entry.name, *entry.aliases)), None)
        if option is None:
            names = tuple(entry.name for entry in table)
            raise OptionError(f"Unknown option {topic}.", suggestion(step, names, "options"), topic)
        table = option.subtable
    if option is None:
        raise OptionError(f"{topic!r} names no option.", "Write section.option.", topic)
    lines = [f"{topic}: {option.help}", "", f"type: {option.type}"]
    if option.choices:
        lines.append("one of: " + ", ".join(map(str, option.choices)))
    if option.minimum is not None or option.maximum is not None:
        lines.append(f"limits: {_limits(option)}")
    lines.append(f"default: {pages.default_text(option) or 'none'}")
    lines += _flags(part, ".".join(path))
    if option.env:
        lines.append("variable: " + ", ".join(option.env))
    if option.subtable:
        lines.append("keys: " + ", ".join(entry.name for entry in option.subtable))
    return lines


def _flags(part: str, key: str) -> list[str]:
    """Return the line with the command and flags that set an option, if it has any."""
    for command in map(load, NAMES):
        if command.part == part:
            for action in command_line.command_parser(command)._actions:
                if action.dest == f"option:{key}":
                    return [f"flag: mlfleet {command.name} {', '.join(action.option_strings)}"]
    return []


def _limits(option: Option) -> str:
    if option.minimum is None:
        return f"{option.maximum:g} or less"
    if option.maximum is None:
        return f"{option.minimum:g} or more"
    return f"{option.minimum:g} to {option.maximum:g}"


COMMAND = Command(
    name="help",
    help="show the page of a command, or explain an option of the configuration",
    examples=(
        "mlfleet help backup",
        "mlfleet help cleanup.targets.keep_last",
        "mlfleet help --man",
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
