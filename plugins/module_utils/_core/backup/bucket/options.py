# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of a bucket's settings."""

from __future__ import annotations

from ...errors import OptionError
from ...options import option
from ..options import STORAGE_CLASSES, RetentionOptions, S3Connection, check_s3

#: Encryption is left as it is.
KEEP = "keep"
KMS = "aws:kms"
#: Classes to which a lifecycle can't move objects.
_NOT_TARGETS = ("STANDARD", "REDUCED_REDUNDANCY")


class BucketOptions(RetentionOptions):
    """Settings of a bucket that holds copies of backups.

    The retention options are those of the backups: the lifecycle must leave room for them.
    """

    s3: S3Connection = option(
        type="dict", suboptions=S3Connection, required=True, help="The bucket."
    )
    create: bool = option(type="bool", default=True, help="Create the bucket when it is missing.")
    transition_days: int = option(
        type="int",
        default=30,
        minimum=0,
        help="Age in days at which archives move to transition_class; 0 = never.",
    )
    transition_class: str = option(
        default="GLACIER",
        choices=tuple(name for name in STORAGE_CLASSES if name not in _NOT_TARGETS),
        help="Storage class to which old archives move.",
    )
    transition_larger_than: int = option(
        type="int",
        default=16 * 1024 * 1024,
        minimum=0,
        help="Only objects larger than this many bytes move, so that manifests stay readable.",
    )
    expire_days: int = option(
        type="int",
        default=90,
        minimum=0,
        help="Age in days at which objects are removed; 0 = never.",
    )
    noncurrent_days: int = option(
        type="int",
        default=30,
        minimum=0,
        help="Days after which replaced or deleted versions are removed; 0 = never.",
    )
    abort_incomplete_days: int = option(
        type="int",
        default=7,
        minimum=0,
        help="Days after which unfinished uploads are removed; 0 = never.",
    )
    versioning: bool = option(
        type="bool", default=True, help="Switch versioning on; false leaves it as it is."
    )
    encryption: str = option(
        default="AES256",
        choices=("AES256", KMS, KEEP),
        help="Default encryption of new objects; keep leaves it as it is.",
    )
    kms_key_id: str | None = option(help="Key for aws:kms; the account's own when it is not set.")
    block_public_access: bool = option(
        type="bool", default=True, help="Block public access; false leaves it as it is."
    )

    def check_together(self) -> None:
        if check_s3(self.s3) is None:
            raise OptionError("Option s3.bucket is missing.", "Name the bucket.", "s3.bucket")
        if self.kms_key_id and self.encryption != KMS:
            raise OptionError(
                f"Option kms_key_id is set, but encryption is {self.encryption}.",
                "Set encryption to aws:kms.",
                "kms_key_id",
            )
        if 0 < self.expire_days <= self.transition_days:
            raise OptionError(
                f"Option transition_days is {self.transition_days}, but objects are removed after "
                f"{self.expire_days} days (expire_days), so none would ever move.",
                "Make transition_days smaller, or 0.",
                "transition_days",
            )
