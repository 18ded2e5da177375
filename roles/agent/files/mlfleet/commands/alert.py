# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``mlfleet alert``: send an alert over the configured channels."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from ..._core import outcome
from ..._core.errors import OptionError
from ..context import Context
from . import Command


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    parser.add_argument(
        "--document",
        dest="document_file",
        metavar="FILE",
        help="send an alert about this verdict (- for standard input)",
    )
    parser.add_argument("--unit", help="say that this systemd unit failed (for OnFailure=)")


def run(context: Context) -> int:
    """Send an alert and print what happened on each channel."""
    from ..._core.alert import run as alert
    from ..._core.alert.options import AlertOptions

    args, terminal = context.arguments, context.terminal
    merged = context.merged("alert")
    if args.document_file:
        merged.values["document"] = read_document(args.document_file)
    if args.unit:
        merged.values.setdefault("severity", "critical")
        if not merged.values.get("msg"):
            merged.values["msg"] = _unit_failed(context, args.unit)
    to_send = (merged.values.get("document"), merged.values.get("msg"))
    if to_send == (None, None) and not merged.values.get("test"):
        raise OptionError("There is nothing to send.", "Give --msg, --document or --test.", "msg")
    options = context.configuration.checked(AlertOptions, merged)
    result = alert.run(options, context.world, check=args.dry_run).to_dict()
    for channel in result["channels"]:
        status, detail = channel["status"], channel.get("detail") or ""
        # The detail says already that a message would be sent.
        text = (
            detail
            if status == "would_send" and detail
            else ": ".join(filter(None, (status, detail)))
        )
        terminal.say(f"{channel['name']}: {text}")
    if not result["channels"]:
        terminal.say(
            "No channel is configured: set alert.email, alert.webhooks, alert.syslog or"
            " alert.command in the configuration."
        )
    terminal.data(result)
    return outcome.of_channels(result["channels"])


def _unit_failed(context: Context, unit: str) -> str:
    # systemd 251 and later says why: oom-kill, timeout, exit-code.
    reason = context.environ.get("MONITOR_SERVICE_RESULT", "")
    text = f"{unit} failed on {context.world.hostname}"
    if reason:
        text += f" ({reason})"
    return text


def read_document(path: str) -> Any:
    """Return the JSON document in a file, or on standard input (``-``).

    :raises OptionError: there is none.
    """
    try:
        if path == "-":
            return json.load(sys.stdin)
        with open(path, encoding="utf-8") as stream:
            return json.load(stream)
    except (OSError, ValueError) as error:
        raise OptionError(
            f"{path} can't be read as a JSON document: {error}.",
            "Give the output of a command with --json.",
            path,
        ) from None


COMMAND = Command(
    name="alert",
    help="send an alert over the configured channels",
    examples=(
        "mlfleet alert --test",
        "mlfleet alert --severity warning --msg 'The tape library is full'",
        "mlfleet health --json | mlfleet alert --document -",
    ),
    arguments=arguments,
    run=run,
    part="alert",
    leave_out=("document",),
    log="",
    dry_run=True,
    waits=False,
    statuses="0 delivered, 1 a channel did not deliver, 3 could not run",
)
