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
from typing import Any

from ..catalogue import Backup
from ..names import is_archive
from .bucket import Bucket
from .connection import base64_text

#: Uploads of other archives of ours that nobody has continued for this long are dropped.
_FORGOTTEN = datetime.timedelta(days=7)


def find(
    bucket: Bucket, backup: Backup, archive: int, size: int, target: dict[str, Any]
) -> tuple[str, dict[int, str]]:
    """Return the upload to continue, ``""`` for none, and the ETags of its parts by number.

    Other uploads of this object are dropped: they cost money, and nobody else sends it.

    :param archive: descriptor of the archive. :param size: of a part in bytes.
    :param target: the object, as a new upload would name it.
    """
    identifier, present = "", {}
    for upload in _uploads(bucket):
        if upload["Key"] != target["Key"]:
            if _forgotten(bucket, upload):
                _drop(bucket, upload)
            continue
        if not identifier and upload.get("StorageClass", "STANDARD") == target["StorageClass"]:
            present = _parts(bucket, upload, backup.size, archive, size)
        if present and not identifier:
            identifier = upload["UploadId"]
        else:
            _drop(bucket, upload)
    return identifier, present if identifier else {}


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


def _parts(
    bucket: Bucket, upload: dict[str, Any], total: int, archive: int, size: int
) -> dict[int, str]:
    """Return the ETags of an upload's parts; none unless each is a part of the archive."""
    present: dict[int, str] = {}
    with contextlib.suppress(Exception):
        for part in _listed(bucket, upload):
            offset = (part["PartNumber"] - 1) * size
            length = min(size, total - offset)
            if length <= 0 or part["Size"] != length:
                return {}
            if not _same(part, os.pread(archive, length, offset)):
                return {}
            present[part["PartNumber"]] = part["ETag"]
        return present
    return {}


def _listed(bucket: Bucket, upload: dict[str, Any]) -> Iterator[dict[str, Any]]:
    pages = bucket.client.get_paginator("list_parts")
    for page in pages.paginate(
        Bucket=bucket.bucket, Key=upload["Key"], UploadId=upload["UploadId"]
    ):
        yield from page.get("Parts", ())


def _same(part: dict[str, Any], data: bytes) -> bool:
    """Say whether the server has these bytes.

    By their SHA-256 or, where it lists none, by the MD5 in the ETag.
    """
    if part.get("ChecksumSHA256"):
        return bool(part["ChecksumSHA256"] == base64_text(hashlib.sha256(data).digest()))
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    return str(part["ETag"]).strip('"').lower() == md5
