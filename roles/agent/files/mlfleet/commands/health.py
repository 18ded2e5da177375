# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``mlfleet health``: check this node."""

from __future__ import annotations

import argparse

from ..._core.errors import FleetError
from ..._core.jobs import JOBS
from ..._core.outcome import Outcome
from ..._core.output import hooks
from .. import parts
from ..context import Context
from ..reporting import arguments, check_dry_run, dry_run_argument
from . import Command

LEARN = "--learn"


def run(context: Context) -> int:
    """Check, print and send alerts; the exit status is that of the verdict.

    :raises OptionError: --dry-run without --learn.
    """
    check_dry_run(context.arguments, LEARN)
    if context.arguments.learn:
        return learn(context)
    if context.arguments.hook:
        return answer_hook(context, context.arguments.hook)
    document = parts.check_node(context)
    parts.show_document(context, document)
    context.outcome = Outcome(status=document["status"])
    parts.send_alerts_if_possible(context, document, log=True)
    return int(document["exit_code"])


def answer_hook(context: Context, name: str) -> int:
    """Check, and answer a scheduler with one line and the exit code that it expects.

    Never sends alerts.
    """
    try:
        document = parts.check_node(context)
    except FleetError as error:
        given = hooks.unknown(str(error), name)
    else:
        given = hooks.answer(document, name)
        context.outcome = Outcome(status=document["status"])
        context.terminal.data(document)
    context.terminal.say(given.line)
    return given.exit_code


def learn(context: Context) -> int:
    """Write what this node has into the file of expected hardware, and print it."""
    import json

    from ..._core.node import expected
    from ..._core.node.options import NodeOptions

    options = context.options("health", NodeOptions)
    check = context.arguments.dry_run
    content = expected.learn(context.world, options, check)
    path = options.expected_hardware_file
    context.terminal.say(
        f"This node would have to have (would be written to {path}):"
        if check
        else f"From now on this node must have (written to {path}):",
        json.dumps(content["expected_hardware"], indent=2),
    )
    context.terminal.data(content)
    return 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this command."""
    arguments(parser)
    parser.add_argument(
        "--for",
        dest="hook",
        choices=hooks.HOOKS.names,
        help="print one line and end as a scheduler's hook expects: "
        + ", ".join(f"{hook.name} ({hook.help})" for hook in hooks.HOOKS),
    )
    parser.add_argument(
        LEARN,
        action="store_true",
        help="check nothing; write what this node has into the file of --expected-hardware-file",
    )
    dry_run_argument(parser, LEARN)


COMMAND = Command(
    name="health",
    help="check this node",
    examples=(
        "mlfleet health --verbose",
        'mlfleet health --disk-warn 70 --services "docker nginx" --no-network',
        "mlfleet health --json | jq .summary.health_score",
        "mlfleet health --learn --dry-run",
        "mlfleet health --for slurm --no-network",
    ),
    arguments=add_arguments,
    run=run,
    part="health",
    leave_out=("fail_on",),
    log=JOBS["health"].log,
    dry_run=False,
    waits=False,
)
