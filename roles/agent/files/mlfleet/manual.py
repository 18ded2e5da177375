# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The manual page mlfleet(1), made from the texts of ``--help``."""

from __future__ import annotations

import argparse

from . import commands, pages, parser


def page() -> str:
    """Return the page as roff (man(7)), without date and version: the same commands give the same
    page.
    """
    lines = [
        '.\\" Installed by mlops.fleet.agent; changes are lost.',
        '.TH MLFLEET 1 "" "mlops.fleet" "mlops.fleet"',
        ".SH NAME",
        "mlfleet \\- keeps an ML node healthy",
        ".SH SYNOPSIS",
        ".B mlfleet",
        ".I COMMAND",
        "[options]",
        ".SH DESCRIPTION",
        (
            "Checks the node and its GPUs, makes verified backups of models, frees disk space"
            " without removing what is"
        ),
        "needed, and sends alerts. Timers or cron run the same command.",
        ".SH COMMANDS",
    ]
    for name in commands.NAMES:
        lines += _command(commands.load(name))
    lines += [".SH EXIT STATUS", _roff(f"{pages.EXIT_STATUS}, {pages.GAVE_WAY}.")]
    lines += [".SH PRECEDENCE", _roff(" ".join(pages.PRECEDENCE.split()))]
    lines += [".SH FILES"]
    for path, text in _FILES:
        lines += [".TP", f".I {_roff(path)}", _roff(text)]
    lines += [".SH SEE ALSO", ".BR systemd.timer (5),", ".BR systemd.exec (5),", ".BR cron (8)"]
    return "\n".join(lines) + "\n"


_FILES = (
    (
        "/etc/mlops-fleet/config.json",
        "the configuration: sections are the parts, keys the options of the modules",
    ),
    (
        "/etc/ml-automation.conf",
        "variables of the old scripts, with the syntax of EnvironmentFile= of systemd",
    ),
    ("/var/lib/mlops-fleet", "what was sent as an alert and what is queued"),
    (
        "/run/lock/mlops-fleet/jobs.lock",
        "the lock that backup, restore, cleanup and maintenance share",
    ),
    ("/var/log/ml-*.log, /var/log/gpu-monitor.log", "the logs of the jobs"),
)


def _command(command: commands.Command) -> list[str]:
    sub = parser.command_parser(command)
    usage = str(sub.usage).removeprefix("mlfleet ")
    lines = [f'.SS "mlfleet {_roff(usage)}"', _roff(pages.sentence(command.help))]
    for action in sub._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        value = ""
        if action.nargs != 0 and not isinstance(action, argparse.BooleanOptionalAction):
            value = f" \\fI{_roff(str(action.metavar or action.dest.upper()))}\\fR"
        names = ", ".join(f"\\fB{_roff(name)}\\fR" for name in action.option_strings)
        text = str(action.help or "").replace("%%", "%")
        lines += [".TP", f"{names}{value}" if names else value.strip(), _roff(text)]
    lines += [".P", "Examples:", ".P", ".EX"]
    lines += [_roff(example) for example in command.examples]
    return [*lines, ".EE"]


def _roff(text: str) -> str:
    """Return text as roff that prints it unchanged."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    if text.startswith((".", "'")):
        return f"\\&{text}"
    return text
