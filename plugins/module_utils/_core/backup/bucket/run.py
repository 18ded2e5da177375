# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Setting up a bucket: observe, decide, carry out, and look whether the server kept it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypedDict

from ...errors import StoreError
from ...ports import World
from ..s3.bucket import Bucket
from . import execute, facts, plan
from .options import BucketOptions


class ResultData(TypedDict):
    """What the module returns."""

    changed: bool
    bucket: str
    created: bool
    changes: list[str]
    settings: dict[str, Any]
    notes: list[str]


@dataclass(frozen=True)
class Result:
    """What was changed, or in check mode would be."""

    name: str
    plan: plan.Plan

    def to_dict(self) -> ResultData:
        """Return what the module returns."""
        return {
            "changed": self.plan.create or bool(self.plan.changes),
            "bucket": self.name,
            "created": self.plan.create,
            "changes": list(self.plan.changes),
            "settings": self.plan.after,
            "notes": list(self.plan.notes),
        }


def run(options: BucketOptions, world: World, check: bool = False) -> Result:
    """Make the bucket's settings what the options say.

    :param check: only say what would be changed.
    :raises Refused: the lifecycle would remove backups that retention keeps.
    :raises FleetError: the settings can't be read or written.
    """
    bucket = Bucket(options.s3)
    observed = facts.observe(options, world, bucket)
    if not observed.exists and not options.create:
        raise StoreError(
            f"There is no bucket {bucket.bucket}, and create is false.",
            "Create the bucket, or set create to true.",
            bucket.bucket,
        )
    planned = plan.decide(options, observed)
    if check or not (planned.create or planned.changes):
        return Result(bucket.bucket, planned)
    execute.carry_out(options, planned, bucket)
    remaining = plan.decide(options, facts.observe(options, world, bucket)).changes
    if remaining:
        raise StoreError(
            f"The server accepted the settings of {bucket.bucket}, but did not keep:"
            f" {', '.join(remaining)}.",
            "Look at them with the server's own tools; the copies are not protected as asked.",
            bucket.bucket,
        )
    return Result(bucket.bucket, planned)
