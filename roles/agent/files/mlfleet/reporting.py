# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The flags that the two checks share."""

from __future__ import annotations

import argparse

from .._core.errors import OptionError
from .._core.output import formats


def format_argument(parser: argparse.ArgumentParser) -> None:
    """Add the flag that chooses what a verdict is printed as."""
    parser.add_argument(
        "--format",
        choices=formats.FORMATS.names,
        default=formats.DEFAULT,
        help="what to print: for people, plugin output, or JUnit XML",
    )


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of a command that reports a verdict and sends alerts."""
    format_argument(parser)
    alert_arguments(parser)


def dry_run_argument(parser: argparse.ArgumentParser, flag: str) -> None:
    """Add the rehearsal of the only flag of a check that changes something."""
    parser.add_argument(
        "--dry-run", "-n", action="store_true", help=f"with {flag}: change nothing, list what would"
    )


def check_dry_run(arguments: argparse.Namespace, flag: str) -> None:
    """Check that a rehearsal has something to rehearse. :raises OptionError: it has not."""
    if arguments.dry_run and not getattr(arguments, flag.lstrip("-").replace("-", "_")):
        raise OptionError(
            f"--dry-run goes with {flag}.", "Leave it out: a check changes nothing.", "dry_run"
        )


def alert_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that decide whether alerts are sent."""
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument(
        "--alert",
        action="store_true",
        help="send alerts although this is a call by hand; timers and cron jobs always do",
    )
    choice.add_argument(
        "--no-alert", action="store_true", help="send no alert, whatever the verdict"
    )
