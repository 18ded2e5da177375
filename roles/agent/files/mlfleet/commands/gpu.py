# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``mlfleet gpu``: check the GPUs of this node."""

from __future__ import annotations

import argparse
import time

from ..._core.errors import OptionError
from ..._core.jobs import JOBS
from ..._core.outcome import Outcome
from .. import parts
from ..context import Context
from ..reporting import arguments, check_dry_run, dry_run_argument
from . import Command

CLEAR = "--clear-xids"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of a check, and those that read and change what earlier ones remember."""
    arguments(parser)
    parser.add_argument(
        "--history",
        action="store_true",
        help="check nothing; print what is remembered of each GPU in state_file",
    )
    parser.add_argument(
        CLEAR,
        metavar="GPU",
        help=(
            "check nothing; mark the Xids of a GPU as dealt with (UUID, serial number, PCI address"
            " or all)"
        ),
    )
    dry_run_argument(parser, CLEAR)


def run(context: Context) -> int:
    """Check, print and send alerts; the exit status is that of the verdict.

    :raises OptionError: --dry-run without --clear-xids.
    """
    check_dry_run(context.arguments, CLEAR)
    if context.arguments.history or context.arguments.clear_xids:
        return _remembered(context)
    document = parts.check_gpus(context)
    parts.show_document(context, document)
    context.outcome = Outcome(status=document["status"])
    parts.send_alerts_if_possible(context, document, log=True)
    return int(document["exit_code"])


def _remembered(context: Context) -> int:
    """Print the history, or clear Xids in it. :raises OptionError: no state_file is configured."""
    from collections import Counter

    from ..._core.gpu import memory
    from ..._core.gpu.options import GpuOptions
    from ..._core.system.text import human_count

    path = context.options("gpu", GpuOptions).state_file
    if not path:
        raise OptionError(
            "Nothing is remembered, because no state_file is configured.",
            "Set gpu.state_file in the configuration, or give --state-file.",
            "state_file",
        )
    if context.arguments.clear_xids:
        check = context.arguments.dry_run
        codes = memory.clear(path, context.arguments.clear_xids, context.world, check)
        verb = "marked"
        if check:
            verb = "would mark"
        context.terminal.say(
            *(
                f"{gpu}: {verb} {human_count(len(items), 'incident')} as dealt with "
                f"({', '.join(_title(code, count) for code, count in Counter(items).items())})"
                for gpu, items in codes.items()
            )
        )
        if not codes:
            context.terminal.say("Nothing to mark: every incident is marked as dealt with already.")
        count = sum(map(len, codes.values()))
        context.terminal.data({"cleared": 0 if check else count, "incidents": codes})
        return 0
    now = context.world.clock.now()
    content = memory.read(path, now, context.world)
    context.terminal.say(*memory.lines(content, now, time.localtime))
    context.terminal.data(memory.to_dict(content))
    return 0


def _title(code: str, count: int) -> str:
    title = f"Xid {code}" if code.isdecimal() else code
    if count > 1:
        return f"{count} times {title}"
    return title


COMMAND = Command(
    name="gpu",
    help="check the GPUs of this node",
    examples=(
        "mlfleet gpu --verbose",
        "TEMP_THRESHOLD=75 mlfleet gpu",
        "mlfleet gpu --json | jq '.gpus[] | .id, .temp'",
        "mlfleet gpu --history",
        "mlfleet gpu --clear-xids all --dry-run",
    ),
    arguments=add_arguments,
    run=run,
    part="gpu",
    leave_out=("fail_on",),
    log=JOBS["gpu"].log,
    dry_run=False,
    waits=False,
)
