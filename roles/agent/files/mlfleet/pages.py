# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the command says about itself: pages of ``--help``, the overview, suggestions for what was
misspelled.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
from collections.abc import Iterable
from typing import NoReturn

from .._core.options import Option
from .commands import GROUPS, Command, load

#: How exit statuses read; a page shows those that its command has.
EXIT_STATUS = (
    "0 all well, 1 warning (backup, cleanup, maintenance: failed), 2 critical (backup: a backup is"
    " damaged), 3 could not run"
)
GAVE_WAY = "75 a scheduled job gave way to another one"
PRECEDENCE = (
    "Flags win over environment variables (in brackets), these over /etc/ml-automation.conf, that"
    " over the configuration file, that over defaults; 'mlfleet config' shows the effective values."
)
#: Unit of an option -> (what its help text or name says, placeholder, unit as written after a
#: number).
_UNITS = (
    (re.compile(r"°C|Degrees Celsius"), "CELSIUS", " °C"),
    (re.compile(r"^GiB"), "GIB", " GiB"),
    (re.compile(r"\b[Pp]ercent"), "PERCENT", " %"),
    (re.compile(r"^Seconds|in seconds"), "SECONDS", " s"),
    (re.compile(r"^Hours|in hours"), "HOURS", " h"),
    (re.compile(r"^Days|in days"), "DAYS", " days"),
    (re.compile(r"[Nn]umber of bytes|in bytes"), "BYTES", " bytes"),
)

#: Choices that are longer when they are all listed are described in the text.
_MOST_CHOICES = 60


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Help as wide as the terminal, up to 100 columns."""

    def __init__(self, prog: str) -> None:
        # argparse would import shutil, with four compression libraries, to ask for the width.
        super().__init__(prog, max_help_position=28, width=min(_columns(), 100) - 2)

    def _split_lines(self, text: str, width: int) -> list[str]:
        return _wrap(text, width).splitlines()


def _columns() -> int:
    with contextlib.suppress(ValueError):
        columns = int(os.environ.get("COLUMNS", ""))
        if columns > 20:
            return columns
    for fd in (1, 2):
        with contextlib.suppress(OSError):
            columns = os.get_terminal_size(fd).columns
            if columns > 20:
                return columns
    return 80


class Parser(argparse.ArgumentParser):
    """The parser of one subcommand; it suggests what a misspelled flag may have meant."""

    #: The command whose page this prints.
    page_of: Command | None = None

    def format_help(self) -> str:
        """Return the page; what it begins and ends with is made only when it is wanted."""
        if self.page_of is not None:
            self.description = page_top(self.page_of)
            self.epilog = page_end(self.page_of)
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        """Print what is wrong, what to do, and end with the status of a wrong call."""
        prefix = "unrecognized arguments: "
        if message.startswith(prefix):
            unknown = [word for word in message[len(prefix) :].split() if word.startswith("-")]
            flags = [flag for action in self._actions for flag in action.option_strings]
            hints = [hint for word in unknown for hint in close(word.partition("=")[0], flags)]
            if hints:
                message += f". Did you mean {' or '.join(hints)}?"
        self.exit(2, f"mlfleet: {message}\nSee: {self.prog} --help\n")


def close(word: str, known: Iterable[str]) -> list[str]:
    """Return what a misspelled word may have meant, if anything."""
    import difflib

    return difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)


def sentence(text: str) -> str:
    """Return a help text as a sentence."""
    return text[:1].upper() + text[1:].rstrip(".") + "."


def page_top(command: Command) -> str:
    """Return what a page begins with: what the command does, and examples."""
    examples = "".join(f"  {line}\n" for line in command.examples)
    return sentence(command.help) + (f"\n\nexamples:\n{examples}" if examples else "")


def page_end(command: Command) -> str:
    """Return what a page ends with: exit statuses and precedence."""
    gave_way = ""
    if command.waits:
        gave_way = f", {GAVE_WAY}"
    lines = [f"exit status: {command.statuses}{gave_way}."]
    if command.part:
        lines.append(PRECEDENCE)
    return "\n".join(_wrap(line, min(_columns(), 100) - 2) for line in lines)


def _wrap(text: str, width: int) -> str:
    """Return text in lines that fit; paths and flags are not broken at their hyphens."""
    import textwrap

    return textwrap.fill(" ".join(text.split()), width, break_on_hyphens=False)


def option_help(option: Option) -> str:
    """Return the help text of an option with its default and the old scripts' variables."""
    text = option.help
    if option.choices and placeholder(option) == "NAME":
        text = f"{text.rstrip('.')}: {', '.join(map(str, option.choices))}"
    default = default_text(option)
    if default:
        text = f"{text.rstrip('.')} (default {default})"
    if option.env:
        text += f" [{', '.join(option.env)}]"
    return text


def unit(option: Option) -> tuple[str, str]:
    """Return the placeholder of a number's unit and the unit as it is written after a number, empty
    without one.
    """
    if option.type in ("int", "float") or str(option.default).isdigit():
        for pattern, placeholder, written in _UNITS:
            if pattern.search(option.help):
                return placeholder, written
    return "", ""


def placeholder(option: Option) -> str:
    """Return what stands for the value in usage and help."""
    if option.choices:
        choices = ",".join(map(str, option.choices))
        if len(choices) < _MOST_CHOICES:
            return f"{{{choices}}}"
        return "NAME"
    names = {"int": "NUMBER", "float": "NUMBER", "str": "TEXT", "path": "PATH", "list": "LIST"}
    return unit(option)[0] or names.get(option.type, "JSON" if option.type == "dict" else "VALUE")


def default_text(option: Option) -> str:
    """Return the default as people read it, empty without one."""
    value = option.default
    if value is None or value in ("", [], {}):
        return ""
    if isinstance(value, str) and value.isdigit():
        return f"{value}{unit(option)[1]}"
    if isinstance(value, bool):
        if value:
            return "yes"
        return "no"
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value))
    if isinstance(value, (int, float)):
        return f"{value:g}{unit(option)[1]}"
    return str(value)


def overview(version: str) -> str:
    """Return what ``mlfleet`` alone prints: the commands by what they are for, and how to begin."""
    lines = [
        f"mlfleet {version}: keeps this ML node healthy.",
        "",
        "usage: mlfleet COMMAND [options]",
    ]
    for title, names in GROUPS:
        lines += ["", f"{title}:"]
        lines += [f"  {name:<13}{load(name).help}" for name in names]
    lines += [
        "",
        "examples:",
        "  mlfleet status                  what runs when, how it ended, and what is wrong",
        "  mlfleet health --verbose        every check of this node with its result",
        "  mlfleet cleanup --dry-run       what a cleanup would remove",
        "  mlfleet help backup             the page of a command",
        "  mlfleet help gpu.temperature_warning    an option of the configuration",
        "",
        _wrap(f"exit status: {EXIT_STATUS}.", 100),
    ]
    return "\n".join(lines)
