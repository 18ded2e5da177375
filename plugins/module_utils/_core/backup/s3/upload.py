# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Uploading an archive: every part is sent with its SHA-256, which the server has to confirm."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import threading
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import Any, BinaryIO

from ...errors import StoreError, VerificationFailed
from ...ports import Progress, Tell
from .. import reading
from ..catalogue import Backup
from . import resume
from .bucket import Bucket
from .connection import asking, base64_text, error_code, http_status

#: Usual size of a part in bytes, the smallest that S3 takes, and what sizes are a multiple of.
PART = 16 << 20
_LEAST = 5 << 20
_STEP = 64 << 10
#: Refusals that are about the caller and not about what was sent.
_NOT_THE_PARTS = (401, 403, 408, 429)
_EXPIRED = ("ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired")
#: S3 takes 10,000 parts; some room is left.
_MOST_PARTS = 9000


def part_size(size: int, connections: int) -> int:
    """Return the size of the parts for an object of ``size`` bytes.

    Each connection sends the same number of parts: the last ones travel together, too.
    """
    wanted = -(-size // _MOST_PARTS)
    if wanted <= PART:
        # An archive that is hardly larger than some number of parts needs no further turn.
        turns = -(-size // ((PART + PART // 16) * connections))
        wanted = max(_LEAST, -(-size // max(1, turns * connections)))
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
        if backup.size <= PART:
            data = _exactly(stream, backup.size, backup.path)
            return _send_at_once(bucket, backup, data, target, tell)
        return _send_in_parts(bucket, backup, stream, target, tell)


def _send_at_once(
    bucket: Bucket, backup: Backup, data: bytes, target: dict[str, Any], tell: Tell
) -> str:
    digest = hashlib.sha256(data)
    _require_same(backup, digest.hexdigest())
    checksum = base64_text(digest.digest())
    with asking("Uploading", bucket.url(backup.name)):
        body = bucket.limiter.body(data)
        bucket.client.put_object(Body=body, ChecksumSHA256=checksum, **target)
    tell(Progress("upload", backup.size, backup.size, subject=backup.name))
    return checksum


def _send_in_parts(
    bucket: Bucket, backup: Backup, stream: BinaryIO, target: dict[str, Any], tell: Tell
) -> str:
    """Upload parts, several at a time; continue an upload that was interrupted.

    Return the checksum over the parts' digests, with their number.
    """
    with asking("Uploading", bucket.url(backup.name)):
        size = part_size(backup.size, bucket.parallel)
        begun = resume.find(bucket, backup, stream.fileno(), size, target)
        identifier, present, size = begun.identifier, begun.present, begun.size
        if not identifier:
            identifier = bucket.client.create_multipart_upload(**target)["UploadId"]
        upload = {"Bucket": bucket.bucket, "Key": target["Key"], "UploadId": identifier}
        try:
            parts = _Parts(bucket, backup, upload, present, tell).send(stream, size)
            bucket.client.complete_multipart_upload(MultipartUpload={"Parts": parts}, **upload)
        except BaseException as error:
            # After a broken connection or a signal the next run continues; after a refusal the
            # parts are worth nothing and cost money until they are dropped.
            if _is_refusal(error):
                with contextlib.suppress(Exception):
                    bucket.client.abort_multipart_upload(**upload)
            raise
    digests = b"".join(base64.b64decode(part["ChecksumSHA256"]) for part in parts)
    return f"{base64_text(hashlib.sha256(digests).digest())}-{len(parts)}"


def _is_refusal(error: BaseException) -> bool:
    """Say whether sending the same parts again would fail again.

    With other credentials, or later, they may be taken.
    """
    from botocore.exceptions import ClientError

    if isinstance(error, VerificationFailed):
        return True
    if not isinstance(error, ClientError) or error_code(error) in _EXPIRED:
        return False
    return 400 <= http_status(error) < 500 and http_status(error) not in _NOT_THE_PARTS


class _Parts:
    """Sends the parts of an archive, several at a time.

    While they travel, the next part is read and hashed, so that no connection waits for that. No
    more parts than these are in memory.
    """

    def __init__(
        self,
        bucket: Bucket,
        backup: Backup,
        upload: dict[str, str],
        present: dict[int, str],
        tell: Tell,
    ) -> None:
        """:param present: number and ETag of the parts that the store has already."""
        self._bucket, self._backup, self._upload, self._tell = bucket, backup, upload, tell
        self._present = present
        self._memory = threading.Semaphore(bucket.parallel + 1)
        self._connections = threading.Semaphore(bucket.parallel)
        self._failures: list[BaseException] = []
        self._lock = threading.Lock()
        self._done = 0

    def send(self, stream: BinaryIO, size: int) -> list[dict[str, Any]]:
        """Send all parts; return their descriptions in order.

        :raises VerificationFailed: together they are not the archive that was made.
        """
        whole = hashlib.sha256()
        total, sent = self._backup.size, []
        pool = ThreadPoolExecutor(self._bucket.parallel + 1, thread_name_prefix="s3-send")
        hashing = ThreadPoolExecutor(1, thread_name_prefix="s3-hash")
        try:
            for number, offset in enumerate(range(0, total, size), 1):
                self._memory.acquire()  # pylint: disable=consider-using-with
                if self._failures:
                    break
                data = _exactly(stream, min(size, total - offset), self._backup.path)
                hashed = hashing.submit(whole.update, data)
                sent.append(pool.submit(self._part, number, data, hashed))
                del data, hashed
            wait(sent, return_when=FIRST_EXCEPTION)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        finally:
            hashing.shutdown(wait=False)
        # A part that arrives after the upload was dropped would stay, and cost money.
        pool.shutdown(cancel_futures=True)
        if self._failures:
            raise self._failures[0]
        _require_same(self._backup, whole.hexdigest())
        return [future.result() for future in sent]

    def _part(self, number: int, data: bytes, hashed: Future[None]) -> dict[str, Any]:
        """Send a part. :param hashed: is done when nobody else reads the data any more."""
        try:
            checksum = base64_text(hashlib.sha256(data).digest())
            part = {"PartNumber": number, "ChecksumSHA256": checksum}
            etag = self._present.get(number)
            if etag is None:
                with self._connections:
                    if self._failures:
                        return {}
                    body = self._bucket.limiter.body(data)
                    response = self._bucket.client.upload_part(Body=body, **part, **self._upload)
                etag = response["ETag"]
            with self._lock:
                self._done += len(data)
                total = self._backup.size
                self._tell(Progress("upload", self._done, total, subject=self._backup.name))
            return {**part, "ETag": etag}
        except BaseException as error:
            self._failures.append(error)
            raise
        finally:
            hashed.exception()
            self._memory.release()


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
