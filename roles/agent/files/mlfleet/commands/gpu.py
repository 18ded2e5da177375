# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``mlfleet gpu``: check the GPUs of this node."""

from __future__ import annotations

from ..._core.jobs import JOBS
from ..._core.outcome import Outcome
from .. import parts
from ..context import Context
from ..reporting import arguments
from . import Command


def run(context: Context) -> int:
    """Check, print and send alerts; the exit status is that of the verdict."""
    document = parts.check_gpus(context)
    parts.show_document(context, document)
    context.outcome = Outcome(status=document["status"])
    parts.send_alerts_if_possible(context, document, log=True)
    return int(document["exit_code"])


COMMAND = Command(
    name="gpu",
    help="check the GPUs of this node",
    examples=(
        "mlfleet gpu --verbose",
        "TEMP_THRESHOLD=75 mlfleet gpu",
        "mlfleet gpu --json | jq '.gpus[] | .id, .temp'",
    ),
    arguments=arguments,
    run=run,
    part="gpu",
    leave_out=("fail_on",),
    log=JOBS["gpu"].log,
    dry_run=False,
    waits=False,
    hidden=False,
)
