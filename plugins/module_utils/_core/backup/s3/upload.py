# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Uploading an archive: every part is sent with its SHA-256, which the server has to confirm."""

from __future__ import annotations

import contextlib
import hashlib
import os
from typing import Any, BinaryIO

from ...errors import StoreError, VerificationFailed
from ...ports import Progress, Tell
from .. import reading
from ..catalogue import Backup
from .bucket import Bucket
from .connection import asking, base64_text, error_code, http_status

#: Smallest part in bytes (the server's limit is 5 MiB), and what sizes of parts are a multiple of.
PART = 16 << 20
_STEP = 4 << 20
#: S3 takes 10,000 parts; some room is left.
_MOST_PARTS = 9000


def part_size(size: int) -> int:
    """Return the size of the parts for an object of ``size`` bytes."""
    wanted = max(PART, -(-size // _MOST_PARTS))
    return -(-wanted // _STEP) * _STEP


def refuses_wrong_checksums(bucket: Bucket, name: str) -> bool:
    """Ask the server to store a few bytes under a wrong SHA-256.

    :param name: an object that the upload writes anyway.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    wrong = base64_text(hashlib.sha256(b"something else").digest())
    try:
        bucket.client.put_object(
            Bucket=bucket.bucket,
            Key=bucket.key(name),
            Body=b"probe\n",
            ChecksumSHA256=wrong,
            ChecksumAlgorithm="SHA256",
        )
    except ClientError as error:
        if http_status(error) == 400 and error_code(error) not in (
            "NoSuchBucket",
            "InvalidBucketName",
        ):
            return True
        if http_status(error) == 501:
            return False
        with asking("Writing to", bucket.url(name)):
            raise
    except BotoCoreError:
        with asking("Writing to", bucket.url(name)):
            raise
    with contextlib.suppress(StoreError):
        bucket.delete(name)
    return False


def send(bucket: Bucket, backup: Backup, storage_class: str, tell: Tell) -> str:
    """Upload the archive; return the checksum that the server must report for it.

    :raises VerificationFailed: the archive is not what it was when it was made.
    :raises StoreError: the server refused.
    """
    with reading.open_archive(backup.path) as stream:
        size = part_size(backup.size)
        if os.fstat(stream.fileno()).st_size != backup.size:
            raise VerificationFailed(
                f"{backup.path} has changed since it was made.", "Make a new backup.", backup.path
            )
        target = {
            "Bucket": bucket.bucket,
            "Key": bucket.key(backup.name),
            "ChecksumAlgorithm": "SHA256",
            "StorageClass": storage_class,
            "Metadata": {"sha256": str(backup.sha256)},
        }
        if backup.size <= size:
            data = _exactly(stream, backup.size, backup.path)
            return _send_at_once(bucket, backup, data, target, tell)
        return _send_in_parts(bucket, backup, stream, size, target, tell)


def _send_at_once(
    bucket: Bucket, backup: Backup, data: bytes, target: dict[str, Any], tell: Tell
) -> str:
    digest = hashlib.sha256(data)
    _require_same(backup, digest.hexdigest())
    checksum = base64_text(digest.digest())
    with asking("Uploading", bucket.url(backup.name)):
        bucket.client.put_object(Body=data, ChecksumSHA256=checksum, **target)
    tell(Progress("upload", backup.size, backup.size, subject=backup.name))
    return checksum


def _send_in_parts(
    bucket: Bucket, backup: Backup, stream: BinaryIO, size: int, target: dict[str, Any], tell: Tell
) -> str:
    """Upload parts of ``size`` bytes.

    Return the checksum over the parts' digests, with their number.
    """
    _abort_older(bucket, target["Key"])
    with asking("Uploading", bucket.url(backup.name)):
        begun = bucket.client.create_multipart_upload(**target)
        upload = {"Bucket": bucket.bucket, "Key": target["Key"], "UploadId": begun["UploadId"]}
        try:
            parts, digests = _send_parts(bucket, backup, stream, size, upload, tell)
            bucket.client.complete_multipart_upload(MultipartUpload={"Parts": parts}, **upload)
        except BaseException:
            # Parts of an unfinished upload cost money until they are dropped.
            with contextlib.suppress(Exception):
                bucket.client.abort_multipart_upload(**upload)
            raise
    return f"{base64_text(hashlib.sha256(digests).digest())}-{len(parts)}"


def _send_parts(
    bucket: Bucket, backup: Backup, stream: BinaryIO, size: int, upload: dict[str, str], tell: Tell
) -> tuple[list[dict[str, Any]], bytes]:
    """Send all parts; return their descriptions, and their digests one after the other.

    :raises VerificationFailed: together they are not the archive that was made.
    """
    whole = hashlib.sha256()
    parts: list[dict[str, Any]] = []
    digests = b""
    for offset in range(0, backup.size, size):
        data = _exactly(stream, min(size, backup.size - offset), backup.path)
        whole.update(data)
        digest = hashlib.sha256(data).digest()
        digests += digest
        part = {"PartNumber": len(parts) + 1, "ChecksumSHA256": base64_text(digest)}
        answer = bucket.client.upload_part(Body=data, **part, **upload)
        parts.append({**part, "ETag": answer["ETag"]})
        tell(Progress("upload", offset + len(data), backup.size, subject=backup.name))
    _require_same(backup, whole.hexdigest())
    return parts, digests


def _abort_older(bucket: Bucket, key: str) -> None:
    """Drop uploads of this very object that a killed run has left.

    They cost money, and nobody else sends it.
    """
    with contextlib.suppress(Exception):  # not every key may do that, and not every server can
        uploads = bucket.client.list_multipart_uploads(Bucket=bucket.bucket, Prefix=key)
        for upload in uploads.get("Uploads", ()):
            if upload["Key"] == key:
                bucket.client.abort_multipart_upload(
                    Bucket=bucket.bucket, Key=key, UploadId=upload["UploadId"]
                )


def _require_same(backup: Backup, sha256: str) -> None:
    if sha256 != backup.sha256:
        raise VerificationFailed(
            f"{backup.path} has changed since it was made: its SHA-256 is {sha256}.",
            "Make a new backup.",
            backup.path,
        )


def _exactly(stream: BinaryIO, count: int, path: str) -> bytes:
    """Return exactly ``count`` bytes; a short read must never become a shorter object."""
    pieces = []
    while count:
        piece = stream.read(count)
        if not piece:
            raise VerificationFailed(f"{path} ends early.", "Make a new backup.", path)
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)
