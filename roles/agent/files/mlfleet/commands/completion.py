# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``mlfleet completion``: print the completion script for bash."""

from __future__ import annotations

import argparse

from .. import parser as command_line
from ..context import Context
from . import NAMES, Command, load, no_arguments

_FILE_METAVARS = ("FILE", "DIR", "PATH")


def run(context: Context) -> int:
    """Print the script, made from the parser, so that it offers what this version knows."""
    parser = command_line.build(load(name) for name in NAMES)
    (subparsers,) = (
        action for action in parser._actions if isinstance(action, argparse._SubParsersAction)
    )
    files: list[str] = []
    plain: list[str] = []
    flags: list[str] = []
    for name, sub in subparsers.choices.items():
        long_flags: list[str] = []
        for action in sub._actions:
            long_flags += [flag for flag in action.option_strings if flag.startswith("--")]
            patterns = "|".join(f'"{name} {flag}"' for flag in action.option_strings)
            switch = action.nargs == 0 or isinstance(action, argparse.BooleanOptionalAction)
            if not patterns or switch:
                continue
            choices = _choices(action)
            if choices:
                flags.append(f"    {patterns}) words='{' '.join(choices)}' ;;")
            else:
                (files if action.metavar in _FILE_METAVARS else plain).append(patterns)
        flags.append(f"    \"{name} \"*) words='{' '.join(long_flags)}' ;;")
    # The flags with values first: the line of the subcommand itself matches whatever comes before the cursor.
    flags.sort(key=lambda line: line.startswith('    "') and '"*)' in line)
    names = " ".join([*subparsers.choices, "--help", "--version"])
    script = _COMPLETION.replace("@NAMES@", names).replace("@FLAGS@", "\n".join(flags))
    script = script.replace("@FILES@", "|".join(files)).replace("@PLAIN@", "|".join(plain))
    context.terminal.say(script.rstrip())
    return 0


def _choices(action: argparse.Action) -> list[str]:
    if action.choices:
        return [str(choice) for choice in action.choices]
    metavar = str(action.metavar)
    return metavar[1:-1].split(",") if metavar.startswith("{") else []


# Works without the package bash-completion: plain bash 4 built-ins only.
_COMPLETION = """# Completion of mlfleet for bash. Installed by mlops.fleet.agent; changes are lost.
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
    if [[ $command == @(verify|restore) && $current != -* ]]; then
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
        return
    fi
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}
complete -F _mlfleet mlfleet
"""

COMMAND = Command(
    name="completion",
    help="Print the completion script for bash.",
    examples=(),
    arguments=no_arguments,
    run=run,
    part="",
    leave_out=(),
    log="",
    dry_run=False,
    waits=False,
    hidden=True,
)
