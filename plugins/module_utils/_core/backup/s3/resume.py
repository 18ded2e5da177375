# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Interrupted uploads: continued where all their parts are of this very archive, else dropped."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ..catalogue import Backup
from ..names import is_archive
from .bucket import Bucket
from .connection import base64_text

#: Uploads of other archives of ours that nobody has continued for this long are dropped.
_FORGOTTEN = datetime.timedelta(days=7)
#: Sizes in bytes between which a part of ours is; nothing longer is read to compare it. The archive
#: of 5 TiB, the largest object, has parts of less than 600 MiB.
_LEAST, _MOST = 5 << 20, 600 << 20


@dataclass(frozen=True)
class Begun:
    """An upload to continue; without an identifier there is none.

    :param present: the ETags of the parts that the store has, by number.
    :param size: of a part in bytes.
    """

    size: int
    identifier: str = ""
    present: dict[int, str] = field(default_factory=dict)


def find(bucket: Bucket, backup: Backup, archive: int, size: int, target: dict[str, Any]) -> Begun:
    """Return the upload to continue. Its parts may have another size than new ones would have.

    Other uploads of this object are dropped: they cost money, and nobody else sends it.

    :param archive: descriptor of the archive. :param size: of a part of a new upload in bytes.
    :param target: the object, as a new upload would name it.
    """
    begun = Begun(size)
    for upload in _uploads(bucket):
        if upload["Key"] != target["Key"]:
            if _forgotten(bucket, upload):
                _drop(bucket, upload)
            continue
        if (
            not begun.identifier
            and upload.get("StorageClass", "STANDARD") == target["StorageClass"]
        ):
            begun = _continued(bucket, upload, backup.size, archive, size)
        if begun.identifier != upload["UploadId"]:
            _drop(bucket, upload)
    return begun


def _uploads(bucket: Bucket) -> list[dict[str, Any]]:
    """Return the unfinished uploads below our prefix, the newest first.

    Empty where the key may not list them or the server can't.
    """
    uploads: list[dict[str, Any]] = []
    with contextlib.suppress(Exception):
        pages = bucket.client.get_paginator("list_multipart_uploads")
        for page in pages.paginate(Bucket=bucket.bucket, Prefix=bucket.prefix):
            uploads += page.get("Uploads", ())
    return sorted(uploads, key=lambda upload: str(upload.get("Initiated", "")), reverse=True)


def _forgotten(bucket: Bucket, upload: dict[str, Any]) -> bool:
    begun = upload.get("Initiated")
    name = upload["Key"][len(bucket.prefix) :]
    if not isinstance(begun, datetime.datetime) or not is_archive(name):
        return False
    return datetime.datetime.now(datetime.timezone.utc) - begun > _FORGOTTEN


def _drop(bucket: Bucket, upload: dict[str, Any]) -> None:
    with contextlib.suppress(Exception):  # not every key may do that
        bucket.client.abort_multipart_upload(
            Bucket=bucket.bucket, Key=upload["Key"], UploadId=upload["UploadId"]
        )


def _continued(
    bucket: Bucket, upload: dict[str, Any], total: int, archive: int, size: int
) -> Begun:
    """Return an upload with its parts; without identifier unless each is a part of the archive."""
    with contextlib.suppress(Exception):
        parts = list(_listed(bucket, upload))
        largest = max((part["Size"] for part in parts), default=0)
        for candidate in dict.fromkeys((largest, size)):
            if _LEAST <= candidate <= _MOST and _fit(parts, candidate, total):
                if not all(_same(part, archive, candidate) for part in parts):
                    break
                present = {part["PartNumber"]: part["ETag"] for part in parts}
                return Begun(candidate, upload["UploadId"], present)
    return Begun(size)


def _fit(parts: list[dict[str, Any]], size: int, total: int) -> bool:
    """Say whether the parts are as long as those of an object that is cut every ``size`` bytes."""
    lengths = (min(size, total - (part["PartNumber"] - 1) * size) for part in parts)
    return bool(parts) and all(part["Size"] == length for part, length in zip(parts, lengths))


def _listed(bucket: Bucket, upload: dict[str, Any]) -> Iterator[dict[str, Any]]:
    pages = bucket.client.get_paginator("list_parts")
    for page in pages.paginate(
        Bucket=bucket.bucket, Key=upload["Key"], UploadId=upload["UploadId"]
    ):
        yield from page.get("Parts", ())


def _same(part: dict[str, Any], archive: int, size: int) -> bool:
    """Say whether the server has these bytes of the archive.

    By their SHA-256 or, where it lists none, by the MD5 in the ETag.
    """
    data = os.pread(archive, part["Size"], (part["PartNumber"] - 1) * size)
    if part.get("ChecksumSHA256"):
        return bool(part["ChecksumSHA256"] == base64_text(hashlib.sha256(data).digest()))
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    return str(part["ETag"]).strip('"').lower() == md5
