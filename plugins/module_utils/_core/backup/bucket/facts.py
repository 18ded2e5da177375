# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a bucket's settings are, and which backups in it have reached the age of expiry.

Reads only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...errors import NotPermitted, StoreError
from ...ports import World
from ..catalogue import DAY, Backup
from ..names import is_archive, is_member, is_set
from ..options import S3Connection
from ..s3.bucket import Bucket
from ..s3.connection import asking, error_code, http_status
from ..s3.sets import S3Sets
from .options import KEEP, BucketOptions

#: Answers of servers that lack a function: Amazon's codes and those of compatible servers.
NOT_IMPLEMENTED = ("NotImplemented", "MethodNotAllowed", "XNotImplemented")
#: "Nothing is set", by setting.
_NOT_SET = (
    "NoSuchLifecycleConfiguration",
    "ServerSideEncryptionConfigurationNotFoundError",
    "NoSuchPublicAccessBlockConfiguration",
)
#: The four switches of the public access block; the safe state is all of them on.
PUBLIC_ACCESS = (
    "BlockPublicAcls",
    "IgnorePublicAcls",
    "BlockPublicPolicy",
    "RestrictPublicBuckets",
)


@dataclass(frozen=True)
class Facts:
    """The settings that were found.

    ``lifecycle`` holds the rules as S3 returns them. ``unsupported`` names the settings that this
    server does not have. ``aged`` holds, by prefix, all backups of each prefix in which one has
    reached ``expire_days``, or which holds sets. ``uploaded`` says when the archives that sets name
    were written, by object name.
    """

    exists: bool
    now: float
    lifecycle: tuple[dict[str, Any], ...] = ()
    versioning: str = ""
    encryption: str = ""
    kms_key_id: str | None = None
    public_access_blocked: bool = False
    unsupported: frozenset[str] = frozenset()
    aged: tuple[tuple[str, tuple[Backup, ...]], ...] = ()
    uploaded: Mapping[str, float] = field(default_factory=dict)


def observe(options: BucketOptions, world: World, bucket: Bucket) -> Facts:
    """Read the settings that the options are about.

    :raises NotPermitted: the bucket is there, but these credentials may not look at it.
    :raises StoreError: the server can't be asked.
    """
    if not _exists(bucket):
        return Facts(False, world.clock.now())
    unsupported: set[str] = set()

    def read(setting: str, request: Callable[..., dict[str, Any]]) -> dict[str, Any]:
        return _read(bucket, setting, request, unsupported)

    client = bucket.client
    lifecycle = read("lifecycle", client.get_bucket_lifecycle_configuration)
    versioning = read("versioning", client.get_bucket_versioning) if options.versioning else {}
    algorithm, key = "", None
    if options.encryption != KEEP:
        configuration = read("encryption", client.get_bucket_encryption)
        algorithm, key = _encryption(configuration)
    access: dict[str, Any] = {}
    if options.block_public_access:
        access = read("block_public_access", client.get_public_access_block)
    switches = access.get("PublicAccessBlockConfiguration", {})
    prefixes, uploaded = _stored(options, world.clock.now(), bucket)
    return Facts(
        True,
        world.clock.now(),
        tuple(lifecycle.get("Rules", ())),
        versioning.get("Status", ""),
        algorithm,
        key,
        all(switches.get(name) for name in PUBLIC_ACCESS),
        frozenset(unsupported),
        tuple((prefix, tuple(_listing(options.s3, prefix))) for prefix in prefixes),
        uploaded,
    )


def _exists(bucket: Bucket) -> bool:
    from botocore.exceptions import ClientError

    with asking("Looking at", bucket.url("")):
        try:
            bucket.client.head_bucket(Bucket=bucket.bucket)
        except ClientError as error:
            if http_status(error) == 404:
                return False
            if http_status(error) == 403:
                raise NotPermitted(
                    f"Bucket {bucket.bucket} exists, but these credentials may not look at it.",
                    "Use credentials that may change its settings, or another name: "
                    "the bucket may belong to somebody else.",
                    bucket.bucket,
                ) from error
            raise
    return True


def _read(
    bucket: Bucket,
    setting: str,
    request: Callable[..., dict[str, Any]],
    unsupported: set[str],
) -> dict[str, Any]:
    """Return a setting, empty when it was never set or the server does not have it."""
    from botocore.exceptions import ClientError

    with asking(f"Reading the {setting.replace('_', ' ')} setting of", f"s3://{bucket.bucket}"):
        try:
            return request(Bucket=bucket.bucket)
        except ClientError as error:
            if error_code(error) in _NOT_SET:
                return {}
            if error_code(error) in NOT_IMPLEMENTED or http_status(error) == 501:
                unsupported.add(setting)
                return {}
            raise


def _encryption(response: dict[str, Any]) -> tuple[str, str | None]:
    for rule in response.get("ServerSideEncryptionConfiguration", {}).get("Rules", ()):
        default = rule.get("ApplyServerSideEncryptionByDefault", {})
        if default:
            return default.get("SSEAlgorithm", ""), default.get("KMSMasterKeyID")
    return "", None


def _stored(
    options: BucketOptions, now: float, bucket: Bucket
) -> tuple[list[str], dict[str, float]]:
    """Return the prefixes whose backups count, and when the archives of sets were written.

    Those that hold an archive older than the age of expiry, or a set: its archives may be older
    than the set. Only there the manifests are read: usually nowhere.
    """
    prefixes: set[str] = set()
    uploaded: dict[str, float] = {}
    if not options.expire_days:
        return [], uploaded
    with asking("Listing", bucket.url("")):
        for page in bucket.client.get_paginator("list_objects_v2").paginate(
            Bucket=bucket.bucket, Prefix=bucket.prefix
        ):
            for item in page.get("Contents", ()):
                directory, dummy, name = item["Key"].rpartition("/")
                written = item["LastModified"].timestamp()
                if is_member(name):
                    uploaded[item["Key"]] = written
                old = is_archive(name) and now - written >= options.expire_days * DAY
                if old or is_set(name):
                    prefixes.add(directory)
    return sorted(prefixes), uploaded


def _listing(connection: S3Connection, prefix: str) -> list[Backup]:
    try:
        return S3Sets(S3Connection({**connection.given(), "prefix": prefix})).listing()
    except StoreError as error:
        raise StoreError(
            f"Which of the old backups are still wanted can't be found out: {error.message}",
            error.todo,
            error.subject,
        ) from error
