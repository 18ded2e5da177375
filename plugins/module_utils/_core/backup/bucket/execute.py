# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write a bucket's settings; decides nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...errors import StoreError
from ..s3.bucket import Bucket
from ..s3.connection import asking, error_code
from .facts import PUBLIC_ACCESS
from .options import BucketOptions
from .plan import Plan


def carry_out(options: BucketOptions, plan: Plan, bucket: Bucket) -> None:
    """Create the bucket if it is to be, then write each setting that differs.

    :raises StoreError: the server refused one; the message names those that were written before.
    """
    if plan.create:
        _create(bucket)
    written: list[str] = ["creation"] if plan.create else []
    for name in plan.changes:
        try:
            with asking(f"Setting {name.replace('_', ' ')} of", f"s3://{bucket.bucket}"):
                _WRITERS[name](options, plan, bucket)
        except StoreError as error:
            earlier = f" Written before: {', '.join(written)}." if written else ""
            todo = error.todo
            if name == "lifecycle" and "NotImplemented" in error.message:
                todo = (
                    "Servers without storage classes take no transition: set transition_days to 0."
                )
            raise StoreError(error.message + earlier, todo, error.subject) from error
        written.append(name)


def _create(bucket: Bucket) -> None:
    from botocore.exceptions import ClientError

    region = bucket.client.meta.region_name
    arguments: dict[str, Any] = {"Bucket": bucket.bucket}
    if region and region not in ("us-east-1", "aws-global"):
        arguments["CreateBucketConfiguration"] = {"LocationConstraint": region}
    with asking("Creating", f"s3://{bucket.bucket}"):
        try:
            bucket.client.create_bucket(**arguments)
        except ClientError as error:
            if error_code(error) != "BucketAlreadyOwnedByYou":  # another run was faster
                raise


def _versioning(options: BucketOptions, plan: Plan, bucket: Bucket) -> None:  # noqa: ARG001
    bucket.client.put_bucket_versioning(
        Bucket=bucket.bucket, VersioningConfiguration={"Status": "Enabled"}
    )


def _encryption(options: BucketOptions, plan: Plan, bucket: Bucket) -> None:  # noqa: ARG001
    default = {"SSEAlgorithm": options.encryption}
    if options.kms_key_id:
        default["KMSMasterKeyID"] = options.kms_key_id
    bucket.client.put_bucket_encryption(
        Bucket=bucket.bucket,
        ServerSideEncryptionConfiguration={
            "Rules": [{"ApplyServerSideEncryptionByDefault": default}]
        },
    )


def _public_access(options: BucketOptions, plan: Plan, bucket: Bucket) -> None:  # noqa: ARG001
    bucket.client.put_public_access_block(
        Bucket=bucket.bucket,
        PublicAccessBlockConfiguration=dict.fromkeys(PUBLIC_ACCESS, True),
    )


def _lifecycle(options: BucketOptions, plan: Plan, bucket: Bucket) -> None:  # noqa: ARG001
    if plan.lifecycle:
        bucket.client.put_bucket_lifecycle_configuration(
            Bucket=bucket.bucket, LifecycleConfiguration={"Rules": list(plan.lifecycle)}
        )
    else:
        bucket.client.delete_bucket_lifecycle(Bucket=bucket.bucket)


_WRITERS: dict[str, Callable[[BucketOptions, Plan, Bucket], None]] = {
    "block_public_access": _public_access,
    "encryption": _encryption,
    "versioning": _versioning,
    "lifecycle": _lifecycle,
}
