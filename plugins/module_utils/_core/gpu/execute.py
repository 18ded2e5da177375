# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes the metrics files that a plan names; decides nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Optional

from .. import verdict
from ..errors import WriteFailed
from ..output import prometheus
from ..records import NamedTuple
from ..registry import Registry
from ..verdict import Check
from . import metrics
from .plan import Plan


class Writer(NamedTuple):
    """A file to write: the check that reports a failure, where the plan says the path, how."""

    name: str
    path: Callable[[Plan], Optional[str]]
    write: Callable[[str, Plan], None]
    runbook: str
    documentation: str


def _append_csv(path: str, plan: Plan) -> None:
    metrics.append_csv(path, plan.gpus, plan.now)


def _write_textfile(path: str, plan: Plan) -> None:
    prometheus.write(path, metrics.samples(plan))


WRITERS: Registry[Writer] = Registry(
    "metrics file",
    (
        Writer(
            "gpu_metrics_csv",
            lambda plan: plan.metrics_csv,
            _append_csv,
            "gpu_metrics_csv",
            "the CSV file could not be written",
        ),
        Writer(
            "gpu_textfile",
            lambda plan: plan.textfile,
            _write_textfile,
            "gpu_textfile",
            "the Prometheus file could not be written",
        ),
    ),
    required=("path", "write", "runbook", "documentation"),
)


def carry_out(plan: Plan) -> list[Check]:
    """Write the files; return a check for each that could not be written.

    A failure is part of what the next file shows: a full disk must not hide a broken GPU.
    """
    problems: list[Check] = []
    for writer in WRITERS:
        path = writer.path(plan)
        if path is None:
            continue
        try:
            writer.write(path, plan._replace(checks=(*plan.checks, *problems)))
        except WriteFailed as error:
            problems.append(
                Check(writer.name, verdict.WARNING, str(error), subject=path, domain="node")
            )
    return problems
