# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line: the subcommands, and flags made from the option tables."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from .._core import config, outcome
from .._core.options import Option
from . import commands, pages
from .commands import Command
from .terminal import tell

VERSION_FILE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "VERSION")
#: The installed command sets the variable to the place the agent role was given.
CONFIG = os.environ.get("MLFLEET_CONFIG") or config.PATH


def version() -> str:
    """Return the version that the agent role stamped, ``unknown`` when run from a checkout."""
    try:
        with open(VERSION_FILE, encoding="ascii") as stream:
            return stream.read().strip()
    except OSError:
        return "unknown"


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Return the parsed command line; ``command`` is its Command.

    :raises SystemExit: it is wrong, or asks for help.
    """
    first, *rest = argv or ("help",)
    if first in ("-h", "--help"):
        first, rest = "help", []
    elif first == "--version":
        print(f"mlfleet {version()}")
        raise SystemExit(0)
    if first not in commands.NAMES:
        _refuse(first)
    # Only the subcommand that was named is loaded: importing the others costs time.
    return command_parser(commands.load(first)).parse_args(rest)


def _refuse(word: str) -> NoReturn:
    text = f"unknown command {word!r}"
    hints = pages.close(word, (*commands.NAMES, "--version"))
    if word.startswith("-"):
        text, hints = f"{word} comes after the command", []
    if hints:
        text += f". Did you mean {' or '.join(hints)}?"
    tell(f"mlfleet: {text}\nSee: mlfleet help\n")
    raise SystemExit(2)


def command_parser(command: Command) -> pages.Parser:
    """Return the parser of a subcommand."""
    sub = pages.Parser(
        prog=f"mlfleet {command.name}", formatter_class=pages.Formatter, allow_abbrev=False
    )
    sub.page_of = command
    sub.set_defaults(command=command)
    sub.add_argument(
        "--config",
        default=CONFIG,
        metavar="FILE",
        help=f"configuration file (default {CONFIG}) [MLFLEET_CONFIG]",
    )
    sub.add_argument(
        "--json", action="store_true", help="print one JSON document and nothing else on stdout"
    )
    sub.add_argument("--verbose", "-v", action="store_true", help="show what passed too")
    if command.log:
        sub.add_argument(
            "--log-file", metavar="FILE", help=f"append to this log (default {command.log})"
        )
    if command.dry_run:
        sub.add_argument(
            "--dry-run", "-n", action="store_true", help="change nothing, say what would be done"
        )
    if command.waits:
        sub.add_argument(
            "--wait",
            type=_seconds,
            metavar="SECONDS",
            help="wait this long for another job to end (default 0; in a scheduled run "
            f"{outcome.PATIENCE:g}, then exit status {outcome.GAVE_WAY}: a warning)",
        )
    if command.part:
        add_options(sub, config.option_set(command.part).TABLE, command.leave_out)
    command.arguments(sub)
    positionals = "".join(
        f" {_positional(action)}" for action in sub._actions if not action.option_strings
    )
    sub.usage = f"mlfleet {command.name} [options]{positionals}"
    return sub


def _positional(action: argparse.Action) -> str:
    """Return how the usage shows an argument."""
    name = action.dest.upper()
    if action.nargs is None:
        return name
    if action.nargs == "*":
        return f"[{name} ...]"
    return f"[{name}]"


# --- flags from the option tables
# -------------------------------------------------------------------------------------


def add_options(
    parser: argparse.ArgumentParser, table: Iterable[Option], leave_out: Sequence[str] = ()
) -> None:
    """Add a flag for each option that is not secret; values stay text until the core reads them."""
    group = parser.add_argument_group("options (also keys of the configuration file)")
    for option in table:
        if option.name not in leave_out:
            _add_option(group, option, "")


def _add_option(group: argparse._ArgumentGroup, option: Option, prefix: str) -> None:
    if option.secret or (option.type == "list" and option.suboptions):
        return  # secrets would be visible in the process list; lists of mappings belong in the file
    if option.suboptions is not None:
        for inner in option.subtable:
            _add_option(group, inner, f"{prefix}{option.name}.")
        return  # secrets would be visible in the process list; lists of mappings belong in the file
    flag = (prefix + option.name).replace("_", "-").replace(".", "-")
    text = pages.option_help(option).replace("%", "%%")
    keywords: dict[str, Any] = {
        "dest": f"option:{prefix}{option.name}",
        "default": None,
        "help": text,
    }
    if option.type == "bool":
        keywords["action"] = argparse.BooleanOptionalAction
    elif option.type == "path" and not option.relative_ok:
        keywords.update(metavar="PATH", type=full_path)
    elif option.type == "list":
        keywords.update(metavar="LIST", type=_list_items, action="extend")
    elif option.type == "dict":
        keywords.update(metavar="JSON", type=_json_object)
    else:
        keywords["metavar"] = pages.placeholder(option)
    group.add_argument(f"--{flag}", *option.flags, **keywords)


def _seconds(text: str) -> float:
    """Return a number of seconds, finite and not negative."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return seconds


def full_path(text: str) -> str:
    """Return a path of the command line in full: it is relative to the current directory.

    An empty one stays empty.
    """
    if not text or text.startswith(("/", "~")):
        return text
    try:
        return os.path.normpath(os.path.join(os.getcwd(), text))
    except OSError as error:
        raise argparse.ArgumentTypeError(
            f"the current directory is gone ({error.strerror}): give a full path"
        ) from None


def archive(text: str) -> str:
    """Return the full path of an archive, or its name, or ``latest``."""
    if not text:
        raise argparse.ArgumentTypeError("empty: give an archive, its name, or latest")
    if "/" in text:
        return full_path(text)
    return text


def _list_items(text: str) -> list[str]:
    """Return the items of a list, separated by commas or blanks.

    Repeated flags add up; an empty list is not the same as an option that was not given.
    """
    return text.replace(",", " ").split()


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError("not a JSON object")
    return value


def flags_given(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the options that were given as flags, suboptions nested."""
    flags: dict[str, Any] = {}
    for key, value in vars(arguments).items():
        if key.startswith("option:") and value is not None:
            *outer, name = key[len("option:") :].split(".")
            section = flags
            for step in outer:
                section = section.setdefault(step, {})
            section[name] = value
    return flags
