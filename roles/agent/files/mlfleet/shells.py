# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Completion scripts for bash, zsh and fish, all made from one table of the commands and their
flags.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NamedTuple

from . import commands, parser

_FILES = ("FILE", "DIR", "PATH")
_MARK = "Installed by mlops.fleet.agent; changes are lost."


class Flag(NamedTuple):
    """A flag, or an argument without one.

    :param names: as typed; empty for an argument. :param choices: the values it takes, where they
        are known.
    :param files: whether it takes a file. :param switch: whether it takes no value.
    """

    names: tuple[str, ...]
    help: str
    choices: tuple[str, ...]
    files: bool
    switch: bool


class Entry(NamedTuple):
    """A subcommand with its flags and arguments."""

    name: str
    help: str
    flags: tuple[Flag, ...]
    arguments: tuple[Flag, ...]


def table() -> list[Entry]:
    """Return the subcommands in the order of the overview."""
    entries = []
    for name in commands.NAMES:
        command = commands.load(name)
        actions = parser.command_parser(command)._actions
        flags = [_flag(command.name, action) for action in actions]
        entries.append(
            Entry(
                name,
                command.help,
                tuple(flag for flag in flags if flag.names),
                tuple(flag for flag in flags if not flag.names),
            )
        )
    return entries


def _flag(command: str, action: argparse.Action) -> Flag:
    switch = action.nargs == 0 or isinstance(action, argparse.BooleanOptionalAction)
    metavar = str(action.metavar)
    choices: tuple[str, ...] = tuple(map(str, action.choices or ()))
    if not choices and metavar.startswith("{"):
        choices = tuple(metavar[1:-1].split(","))
    if command == "help" and action.dest == "topic":
        choices = commands.NAMES
    files = metavar in _FILES or (not action.option_strings and not choices)
    # Only the first clause: a menu of completions has one line for each.
    text = str(action.help or "").replace("%%", "%").replace("%(prog)s", "mlfleet")
    return Flag(
        tuple(action.option_strings), text.split(" (default", maxsplit=1)[0], choices, files, switch
    )


# --- bash
# -------------------------------------------------------------------------------------------------------------


def bash(entries: list[Entry]) -> str:
    """Return the script for bash."""
    files: list[str] = []
    plain: list[str] = []
    cases: list[str] = []
    last: list[str] = []
    for entry in entries:
        for flag in entry.flags:
            patterns = "|".join(f'"{entry.name} {name}"' for name in flag.names)
            if flag.switch:
                continue
            if flag.choices:
                cases.append(f"    {patterns}) words='{' '.join(flag.choices)}' ;;")
            else:
                (files if flag.files else plain).append(patterns)
        offers = [name for flag in entry.flags for name in flag.names if name.startswith("--")]
        offers += [choice for argument in entry.arguments for choice in argument.choices]
        last.append(f"    \"{entry.name} \"*) words='{' '.join(offers)}' ;;")
    takes_files = [
        entry.name for entry in entries if any(argument.files for argument in entry.arguments)
    ]
    # The flags with values first: the line of the subcommand itself matches whatever comes before
    # the cursor.
    script = _BASH.replace(
        "@NAMES@", " ".join([*(entry.name for entry in entries), "--help", "--version"])
    )
    script = script.replace("@FLAGS@", "\n".join([*cases, *last]))
    script = script.replace("@FILES@", "|".join(files)).replace("@PLAIN@", "|".join(plain))
    return script.replace("@ARGUMENTS@", "|".join(takes_files)).replace("@MARK@", _MARK)


# Works without the package bash-completion: plain bash 4 built-ins only.
_BASH = """# Completion of mlfleet for bash. @MARK@
_mlfleet() {
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} command word words
    command='' words=''
    # bash takes the = of --flag=value for a word
    if [[ $current == = ]]; then
        current=
    elif [[ $previous == = ]]; then
        previous=${COMP_WORDS[COMP_CWORD - 2]}
    fi
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        if [[ $word != -* ]]; then
            command=$word
            break
        fi
    done
    COMPREPLY=()
    case "$command $previous" in
    @FILES@)
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
        return
        ;;
    @PLAIN@) return ;;
    " "*) words='@NAMES@' ;;
@FLAGS@
    esac
    if [[ $command == @(@ARGUMENTS@) && $current != -* ]]; then
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
        return
    fi
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}
complete -F _mlfleet mlfleet
"""


# --- zsh
# --------------------------------------------------------------------------------------------------------------


def zsh(entries: list[Entry]) -> str:
    """Return the script for zsh."""
    lines = ["#compdef mlfleet", f"# Completion of mlfleet for zsh. {_MARK}", "", "_mlfleet() {"]
    lines += ["    local context state line", "    local -a commands", "    commands=("]
    lines += [f"        {_quoted(f'{entry.name}:{entry.help}')}" for entry in entries]
    lines += ["    )", "    if (( CURRENT == 2 )); then"]
    lines += ["        _describe -t commands command commands", "        return", "    fi"]
    lines += [
        "    local name=$words[2]",
        "    shift words",
        "    (( CURRENT-- ))",
        "    case $name in",
    ]
    for entry in entries:
        lines += [f"    {entry.name})", "        _arguments -s \\"]
        specs = [spec for flag in entry.flags for spec in _zsh_specs(flag)]
        specs += [
            f"'*:{_plain(argument.help)}:{_zsh_values(argument)}'"
            for argument in entry.arguments[-1:]
        ]
        lines += [f"            {spec} \\" for spec in specs[:-1]]
        lines += [f"            {specs[-1]}", "        ;;"]
    lines += ["    esac", "}", "", '_mlfleet "$@"']
    return "\n".join(lines) + "\n"


def _zsh_specs(flag: Flag) -> list[str]:
    value = "" if flag.switch else f":value:{_zsh_values(flag)}"
    # Flags of lists add up, and nothing is lost when another is offered twice.
    return [f"'*{name}[{_plain(flag.help)}]{value}'" for name in flag.names]


def _zsh_values(flag: Flag) -> str:
    if flag.choices:
        return f"({' '.join(flag.choices)})"
    if flag.files:
        return "_files"
    return " "


def _plain(text: str) -> str:
    """Return a help text without what zsh would interpret in a specification."""
    for character in "[]:'`\\$\"":
        text = text.replace(character, " ")
    return " ".join(text.split())


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


# --- fish
# -------------------------------------------------------------------------------------------------------------


def fish(entries: list[Entry]) -> str:
    """Return the script for fish."""
    names = " ".join(entry.name for entry in entries)
    lines = [f"# Completion of mlfleet for fish. {_MARK}", "complete -c mlfleet -f"]
    none = f"not __fish_seen_subcommand_from {names}"
    lines += [
        f"complete -c mlfleet -n '{none}' -a {entry.name} -d {_fish(entry.help)}"
        for entry in entries
    ]
    for entry in entries:
        start = f"complete -c mlfleet -n '__fish_seen_subcommand_from {entry.name}'"
        for flag in entry.flags:
            spelled = "".join(
                f" -l {name[2:]}" if name.startswith("--") else f" -s {name[1:]}"
                for name in flag.names
            )
            lines.append(f"{start}{spelled}{_fish_values(flag)} -d {_fish(flag.help)}")
        for argument in entry.arguments:
            if argument.choices:
                lines.append(f"{start} -a {_fish(' '.join(argument.choices))}")
            elif argument.files:
                lines.append(f"{start} -F")
    return "\n".join(lines) + "\n"


def _fish_values(flag: Flag) -> str:
    if flag.switch:
        return ""
    if flag.choices:
        return f" -x -a {_fish(' '.join(flag.choices))}"
    if flag.files:
        return " -r -F"
    return " -x"


def _fish(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


#: How each shell's script is made from the table.
SCRIPTS: dict[str, Callable[[list[Entry]], str]] = {"bash": bash, "zsh": zsh, "fish": fish}
