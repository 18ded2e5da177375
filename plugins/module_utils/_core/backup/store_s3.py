# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copies of backups in S3: sent with checksums that the server has to confirm, the manifest last, read back for a restore.

Every part is read from the archive in full and sent with its SHA-256; S3 has no SHA-256 over an object sent in parts, only one
over the parts' digests, so that is what gets compared with the server's answer afterwards. A server that accepts a wrong
checksum proves nothing by repeating one, so servers other than Amazon's are asked to take a wrong one first.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import os
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from ..errors import MissingLibrary, NotUsable, StoreError, VerificationFailed
from ..ports import Progress, Tell, silent
from . import catalogue, manifest, reading, verify
from .catalogue import Backup
from .names import CHECKSUM, MANIFEST, is_archive, stamp_time

#: The first boto3 that sends checksums of ours.
OLDEST = "1.21"
#: Smallest part in bytes (the server's limit is 5 MiB), and what sizes of parts are a multiple of.
PART = 16 << 20
_STEP = 4 << 20
#: S3 takes 10,000 parts; some room is left.
_MOST_PARTS = 9000
#: How often a broken download is taken up again.
_RESUMES = 5

#: The server confirmed the SHA-256 of what it stores, and it is known to refuse wrong ones.
CONFIRMED = "checksum"
#: The server only tells the size; a restore will still compare everything.
SIZE_ONLY = "size_only"

_TODO = {
    "NoSuchBucket": "Create the bucket, or correct s3.bucket.",
    "AccessDenied": "Check the permissions of the key: it must list, read and write under this prefix.",
    "InvalidAccessKeyId": "Check s3.access_key.",
    "SignatureDoesNotMatch": "Check s3.secret_key.",
    "InvalidObjectState": "The object is in cold storage: request its restore from there first, then try again.",
    "NoCredentialsError": "Give s3.access_key and s3.secret_key, or set up the node's own credentials.",
    "EndpointConnectionError": "Check s3.endpoint_url and the network.",
}


@contextlib.contextmanager
def _asking(what: str, url: str) -> Iterator[None]:
    """Turn what boto3 raises into a StoreError that names the object."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        text = str(error.response.get("Error", {}).get("Message", "")) or code
        raise StoreError(
            f"{what} {url} failed: {code}: {text.rstrip('.')}.", _TODO.get(code, ""), url
        ) from error
    except BotoCoreError as error:
        raise StoreError(
            f"{what} {url} failed: {str(error).rstrip('.')}.",
            _TODO.get(type(error).__name__, ""),
            url,
        ) from error


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _status(error: Any) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode("ascii")


def part_size(size: int) -> int:
    """Return the size of the parts for an object of C(size) bytes."""
    wanted = max(PART, -(-size // _MOST_PARTS))
    return -(-wanted // _STEP) * _STEP


class Store:
    """A bucket and prefix that hold copies.

    :param options: the checked C(s3) options. :raises MissingLibrary: boto3 is not there. :raises StoreError: bad region or the like.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        try:
            import boto3
            from botocore.config import Config
        except ImportError as error:
            raise MissingLibrary("boto3", "to store copies in S3", str(error)) from error
        self.bucket: str = options["bucket"]
        # Some servers refuse empty parts between slashes, and nobody means them.
        prefix = "/".join(part for part in options["prefix"].split("/") if part)
        self._prefix = prefix + "/" if prefix else ""
        self._class: str = options.get("storage_class") or "STANDARD"
        settings: dict[str, Any] = {
            "retries": {"max_attempts": 5, "mode": "standard"},
            "connect_timeout": 10,
            "read_timeout": 60,
        }
        settings["user_agent_extra"] = f"mlops.fleet/{manifest.VERSION}"
        if options["endpoint_url"]:
            settings["s3"] = {"addressing_style": "path"}
        try:
            # We send checksums of our own; newer releases would add theirs, which some servers refuse.
            config = Config(
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                **settings,
            )
        except TypeError:
            config = Config(**settings)
        with _asking("Connecting to", self.url("")):
            try:
                self._client = boto3.session.Session().client(
                    "s3",
                    region_name=options["region"]
                    or ("us-east-1" if options["endpoint_url"] else None),
                    endpoint_url=options["endpoint_url"],
                    aws_access_key_id=options["access_key"],
                    aws_secret_access_key=options["secret_key"],
                    aws_session_token=options["session_token"],
                    verify=options["ca_bundle"],
                    config=config,
                )
            except ValueError as error:
                raise StoreError(
                    f"Connecting to {self.url('')} failed: {error}.",
                    "Check s3.endpoint_url and s3.region.",
                    self.url(""),
                ) from error
        if (
            "ChecksumSHA256"
            not in self._client.meta.service_model.operation_model("UploadPart").input_shape.members
        ):
            raise MissingLibrary(
                "boto3",
                f"to store copies in S3, in version {OLDEST} or later ({boto3.__version__} is there)",
            )
        # The address that counts: the environment and the library's own configuration can name another one than Amazon's too.
        host = urlsplit(self._client.meta.endpoint_url).hostname or ""
        self._trusted: bool | None = (
            True if host.endswith((".amazonaws.com", ".amazonaws.com.cn")) else None
        )

    def key(self, name: str) -> str:
        """Return the object name of the file C(name)."""
        return self._prefix + name

    def url(self, name: str) -> str:
        """Return C(s3://bucket/prefix/name)."""
        return f"s3://{self.bucket}/{self._prefix}{name}"

    # --- what is there -------------------------------------------------------------------------------------------------

    def _head(self, name: str) -> dict[str, Any] | None:
        """Return what the server says about an object, None when there is none."""
        from botocore.exceptions import ClientError

        with _asking("Looking at", self.url(name)):
            try:
                found: dict[str, Any] = self._client.head_object(
                    Bucket=self.bucket, Key=self.key(name), ChecksumMode="ENABLED"
                )
            except ClientError as error:
                # A missing bucket and a missing object look the same here: the error has no body.
                if _status(error) == 404:
                    return None
                raise
        return found

    def _get(self, name: str) -> bytes:
        with _asking("Reading", self.url(name)):
            answer = self._client.get_object(Bucket=self.bucket, Key=self.key(name))
            data: bytes = answer["Body"].read()
        return data

    def listing(self) -> list[Backup]:
        """Return the backups directly under the prefix, newest first; their C(path) is a URL. :raises StoreError:"""
        sizes: dict[str, int] = {}
        with _asking("Listing", self.url("")):
            for page in self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=self._prefix, Delimiter="/"
            ):
                for one in page.get("Contents", ()):
                    sizes[one["Key"][len(self._prefix) :]] = int(one["Size"])
        found = [self._describe(name, sizes) for name in sizes if is_archive(name)]
        return sorted(found, key=lambda one: (one.created, one.name), reverse=True)

    def _describe(self, name: str, sizes: dict[str, int]) -> Backup:
        problems: list[str] = []
        document: dict[str, Any] | None = None
        sha256: str | None = None
        if name + MANIFEST in sizes:
            try:
                document = manifest.parse(self._get(name + MANIFEST), self.url(name + MANIFEST))
            except NotUsable as error:
                problems.append(error.message)
        if document is not None:
            sha256 = document["archive"]["sha256"]
            if document["name"] != name:
                problems.append(f"the manifest belongs to {document['name']}")
            if document["archive"]["size"] != sizes[name]:
                problems.append(
                    f"the object is {sizes[name]} bytes long, but was {document['archive']['size']} when it was made"
                )
        elif name + CHECKSUM in sizes and not problems:
            text = self._get(name + CHECKSUM)
            sha256 = catalogue.parse_checksum(text, name)
            if sha256 is None:
                problems.append("the checksum object holds no SHA-256")
        elif not problems:
            problems.append("neither manifest nor checksum: an unfinished or foreign upload")
        created = document["created"] if document is not None else stamp_time(name)
        legacy = document is None and not problems
        return Backup(
            name,
            self.url(name),
            float(created or 0),
            sizes[name],
            sha256,
            legacy,
            document,
            tuple(problems),
        )

    def look(self) -> None:
        """:raises StoreError: the bucket does not exist, which looking at an object does not tell, or nobody answers."""
        from botocore.exceptions import ClientError

        with _asking("Looking at", self.url("")):
            try:
                self._client.head_bucket(Bucket=self.bucket)
            except ClientError as error:
                if _status(error) == 404:
                    raise StoreError(
                        f"Looking at {self.url('')} failed: there is no such bucket.",
                        _TODO["NoSuchBucket"],
                        self.url(""),
                    ) from error
                # A key that may write may still not be allowed to look at the bucket.
                if _status(error) != 403:
                    raise

    def has(self, backup: Backup) -> bool:
        """Say whether a complete copy of this very backup is there. :raises StoreError: another backup has its name."""
        return self._present(backup) is not None

    def _present(self, backup: Backup) -> dict[str, Any] | None:
        marker = self._head(backup.name + MANIFEST)
        if marker is None:
            return None
        noted = marker.get("Metadata", {})
        sha256 = noted.get("archive-sha256")
        if sha256 is None:
            # Copied there by another tool, which has left our metadata behind.
            with contextlib.suppress(NotUsable):
                sha256 = manifest.parse(
                    self._get(backup.name + MANIFEST), self.url(backup.name + MANIFEST)
                )["archive"]["sha256"]
        if sha256 != backup.sha256:
            raise StoreError(
                f"{self.url(backup.name)} is another backup with the same name, probably of another host.",
                "Give each host a prefix of its own (s3.prefix).",
                self.url(backup.name),
            )
        found = self._head(backup.name)
        if found is None or found["ContentLength"] != backup.size:
            return None
        recorded = noted.get("archive-checksum", "")
        confirmed = bool(recorded) and found.get("ChecksumSHA256") == recorded
        if recorded and not confirmed:
            return None  # not what was uploaded: send it again
        return self._copy(
            backup,
            CONFIRMED if confirmed else SIZE_ONLY,
            found.get("StorageClass") or "STANDARD",
            uploaded=False,
        )

    def _copy(
        self, backup: Backup, verified: str, storage_class: str, uploaded: bool
    ) -> dict[str, Any]:
        return {
            "url": self.url(backup.name),
            "size": backup.size,
            "sha256": backup.sha256,
            "verified": verified,
            "storage_class": storage_class,
            "uploaded": uploaded,
        }

    # --- writing -------------------------------------------------------------------------------------------------------

    def ensure(self, backup: Backup, tell: Tell = silent) -> tuple[dict[str, Any], bool]:
        """Make sure that a complete copy of a local backup is there; return its description and whether it was sent.

        :raises StoreError: the server refused, or what it stores is not what was sent. :raises VerificationFailed: the local
            archive is not what it was when it was made.
        """
        present = self._present(backup)
        if present is not None:
            return present, False
        if self._trusted is None:
            self._trusted = self._refuses_wrong_checksums(backup.name + CHECKSUM)
        checksum = self._send(backup, tell)
        found = self._head(backup.name)
        if found is None or found["ContentLength"] != backup.size:
            size = "nothing" if found is None else f"{found['ContentLength']} bytes"
            raise self._withdrawn(
                backup, f"the server then has {size} instead of {backup.size} bytes"
            )
        told = found.get("ChecksumSHA256")
        # Some servers leave out the number of parts, others tell the checksum of the whole object also where it was sent in parts.
        if told is not None and told not in (
            checksum,
            checksum.partition("-")[0],
            _base64(bytes.fromhex(str(backup.sha256))),
        ):
            raise self._withdrawn(
                backup, f"the server then has the checksum {told} instead of {checksum}"
            )
        confirmed = told is not None and bool(self._trusted)
        self._put(backup.name + CHECKSUM, f"{backup.sha256}  {backup.name}\n".encode("ascii"), {})
        noted = {
            "archive-sha256": str(backup.sha256),
            "archive-checksum": str(told) if confirmed else "",
        }
        self._put(backup.name + MANIFEST, manifest.dump(backup.manifest or {}), noted)
        return self._copy(
            backup, CONFIRMED if confirmed else SIZE_ONLY, self._class, uploaded=True
        ), True

    def _withdrawn(self, backup: Backup, why: str) -> StoreError:
        """Remove an upload that went wrong, so that nobody takes it for a copy; return the error to raise."""
        with contextlib.suppress(StoreError):
            self._delete(backup.name)
        return StoreError(
            f"Uploading {self.url(backup.name)} failed: {why}.",
            "Check the server; nothing was left there.",
            self.url(backup.name),
        )

    def _refuses_wrong_checksums(self, name: str) -> bool:
        """Ask the server to store a few bytes under a wrong SHA-256. The object is one that the upload writes anyway."""
        from botocore.exceptions import BotoCoreError, ClientError

        wrong = _base64(hashlib.sha256(b"something else").digest())
        try:
            self._client.put_object(
                Bucket=self.bucket,
                Key=self.key(name),
                Body=b"probe\n",
                ChecksumSHA256=wrong,
                ChecksumAlgorithm="SHA256",
            )
        except ClientError as error:
            if _status(error) == 400 and _code(error) not in ("NoSuchBucket", "InvalidBucketName"):
                return True
            if _status(error) == 501:
                return False
            with _asking("Writing to", self.url(name)):
                raise
        except BotoCoreError:
            with _asking("Writing to", self.url(name)):
                raise
        with contextlib.suppress(StoreError):
            self._delete(name)
        return False

    def _put(self, name: str, data: bytes, metadata: dict[str, str]) -> None:
        with _asking("Writing", self.url(name)):
            self._client.put_object(
                Bucket=self.bucket,
                Key=self.key(name),
                Body=data,
                Metadata=metadata,
                ChecksumSHA256=_base64(hashlib.sha256(data).digest()),
                ChecksumAlgorithm="SHA256",  # buckets with object lock may ask for it by name
            )

    def _send(self, backup: Backup, tell: Tell) -> str:
        """Upload the archive; return the checksum that the server must tell for it."""
        with reading.open_archive(backup.path) as stream:
            size = part_size(backup.size)
            if os.fstat(stream.fileno()).st_size != backup.size:
                raise VerificationFailed(
                    f"{backup.path} has changed since it was made.",
                    "Make a new backup.",
                    backup.path,
                )
            if backup.size <= size:
                return self._send_at_once(backup, _exactly(stream, backup.size, backup.path), tell)
            return self._send_in_parts(backup, stream, size, tell)

    def _send_at_once(self, backup: Backup, data: bytes, tell: Tell) -> str:
        digest = hashlib.sha256(data)
        self._same(backup, digest.hexdigest())
        checksum = _base64(digest.digest())
        with _asking("Uploading", self.url(backup.name)):
            self._client.put_object(
                Bucket=self.bucket,
                Key=self.key(backup.name),
                Body=data,
                ChecksumSHA256=checksum,
                ChecksumAlgorithm="SHA256",
                StorageClass=self._class,
                Metadata={"sha256": str(backup.sha256)},
            )
        tell(Progress("upload", backup.size, backup.size, subject=backup.name))
        return checksum

    def _send_in_parts(self, backup: Backup, stream: Any, size: int, tell: Tell) -> str:
        key = self.key(backup.name)
        whole = hashlib.sha256()
        self._abort_older(key)
        with _asking("Uploading", self.url(backup.name)):
            begun = self._client.create_multipart_upload(
                Bucket=self.bucket,
                Key=key,
                ChecksumAlgorithm="SHA256",
                StorageClass=self._class,
                Metadata={"sha256": str(backup.sha256)},
            )
            upload = begun["UploadId"]
            try:
                parts: list[dict[str, Any]] = []
                digests = b""
                for offset in range(0, backup.size, size):
                    data = _exactly(stream, min(size, backup.size - offset), backup.path)
                    whole.update(data)
                    digest = hashlib.sha256(data).digest()
                    digests += digest
                    number = len(parts) + 1
                    answer = self._client.upload_part(
                        Bucket=self.bucket,
                        Key=key,
                        UploadId=upload,
                        PartNumber=number,
                        Body=data,
                        ChecksumSHA256=_base64(digest),
                    )
                    parts.append(
                        {
                            "PartNumber": number,
                            "ETag": answer["ETag"],
                            "ChecksumSHA256": _base64(digest),
                        }
                    )
                    tell(Progress("upload", offset + len(data), backup.size, subject=backup.name))
                self._same(backup, whole.hexdigest())
                self._client.complete_multipart_upload(
                    Bucket=self.bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": parts}
                )
            except BaseException:
                # Parts of an unfinished upload cost money until they are dropped.
                with contextlib.suppress(Exception):
                    self._client.abort_multipart_upload(
                        Bucket=self.bucket, Key=key, UploadId=upload
                    )
                raise
        return f"{_base64(hashlib.sha256(digests).digest())}-{len(parts)}"

    def _abort_older(self, key: str) -> None:
        """Drop uploads of this very object that a killed run has left: they cost money, and nobody else sends it."""
        with contextlib.suppress(Exception):  # not every key may do that, and not every server can
            for one in self._client.list_multipart_uploads(Bucket=self.bucket, Prefix=key).get(
                "Uploads", ()
            ):
                if one["Key"] == key:
                    self._client.abort_multipart_upload(
                        Bucket=self.bucket, Key=key, UploadId=one["UploadId"]
                    )

    def _same(self, backup: Backup, sha256: str) -> None:
        if sha256 != backup.sha256:
            raise VerificationFailed(
                f"{backup.path} has changed since it was made: its SHA-256 is {sha256}.",
                "Make a new backup.",
                backup.path,
            )

    def _delete(self, name: str) -> None:
        with _asking("Removing", self.url(name)):
            self._client.delete_object(Bucket=self.bucket, Key=self.key(name))

    def remove(self, name: str) -> None:
        """Remove a copy, its manifest first. :raises StoreError: the server refused (an object lock, say)."""
        if not is_archive(name):
            raise StoreError(f"{self.url(name)} is no backup of ours.", "", self.url(name))
        for one in (name + MANIFEST, name, name + CHECKSUM):
            self._delete(one)

    # --- reading -------------------------------------------------------------------------------------------------------

    def open(self, backup: Backup) -> Any:
        """Return the archive as a stream that survives broken connections. :raises StoreError: it can't be read."""
        return io.BufferedReader(
            _Download(self._client, self.bucket, self.key(backup.name), self.url(backup.name)),
            1 << 20,
        )

    def check(self, backup: Backup, depth: str, tell: Tell = silent) -> dict[str, Any]:
        """Return C(backup.to_dict()) with what a look of that depth found; C(quick) and C(full) download the whole archive."""
        return verify.check(backup, depth, tell, self.open)


def _exactly(stream: Any, count: int, path: str) -> bytes:
    """Return exactly C(count) bytes; a short one must never become a shorter object."""
    pieces = []
    while count:
        piece = stream.read(count)
        if not piece:
            raise VerificationFailed(f"{path} ends early.", "Make a new backup.", path)
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)


class _Download(io.RawIOBase):
    """An object read from the beginning to its end; a broken connection is taken up where it broke, on the same version."""

    def __init__(self, client: Any, bucket: str, key: str, url: str) -> None:
        self._client, self._bucket, self._key, self._url = client, bucket, key, url
        self._position = 0
        self._etag: str | None = None
        self._size = 0
        self._body: Any = None
        self._resumes = 0
        self._connect()

    def _connect(self) -> None:
        more = (
            {}
            if self._etag is None
            else {"Range": f"bytes={self._position}-", "IfMatch": self._etag}
        )
        with _asking("Reading", self._url):
            answer = self._client.get_object(Bucket=self._bucket, Key=self._key, **more)
        if self._etag is None:
            self._etag, self._size = answer["ETag"], int(answer["ContentLength"])
        self._body = answer["Body"]

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            try:
                data = self._body.read(len(buffer))
            except Exception as error:  # noqa: BLE001  # botocore lets several libraries' errors through
                data = b""
                reason = str(error)
            else:
                reason = "the connection ended early"
            if data or self._position == self._size:
                buffer[: len(data)] = data
                self._position += len(data)
                return len(data)
            self._resumes += 1
            if self._resumes > _RESUMES:
                raise StoreError(
                    f"Reading {self._url} failed at byte {self._position} of {self._size}: {reason}.",
                    "Try again.",
                    self._url,
                )
            self._connect()

    def close(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None
        super().close()
