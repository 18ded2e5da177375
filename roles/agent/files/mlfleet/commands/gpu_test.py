# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``mlfleet gpu-test``: test the GPUs of this node under load."""

from __future__ import annotations

from ..._core.outcome import Outcome
from .. import parts
from ..context import Context
from ..reporting import format_argument
from . import Command


def run(context: Context) -> int:
    """Test and print; the exit status is that of the verdict.

    A test sends no alerts: somebody is looking.
    """
    context.arguments.verbose = True  # the figures are what it was started for
    document = parts.test_gpus(context)
    parts.show_document(context, document)
    if context.arguments.dry_run:
        numbers = ", ".join(map(str, document["would_test"])) or "none"
        context.terminal.note(f"Would test the GPUs: {numbers}")
    context.outcome = Outcome(status=document["status"])
    return int(document["exit_code"])


COMMAND = Command(
    name="gpu-test",
    help="test the GPUs of this node under load",
    examples=(
        "mlfleet gpu-test",
        "mlfleet gpu-test --level standard --when-busy skip",
        "mlfleet gpu-test --tests memory,compute --json",
    ),
    arguments=format_argument,
    run=run,
    part="diagnostics",
    leave_out=("fail_on",),
    log="",
    dry_run=True,
    waits=False,
)
