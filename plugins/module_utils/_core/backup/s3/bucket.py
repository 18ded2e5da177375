# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Single requests to a bucket: what they ask for, and errors that name the object."""

from __future__ import annotations

import contextlib
import hashlib
import shlex
from collections.abc import Iterator
from typing import Any

from ...errors import ColdStorage, OptionError, StoreError
from ..options import S3Connection
from .connection import TODO, asking, base64_text, connect, error_code, http_status
from .limiter import Limiter


class Bucket:
    """A bucket and the prefix in it below which our objects are.

    :raises MissingLibrary: boto3 is not installed or too old.
    :raises StoreError: a setting can't be used.
    """

    def __init__(self, options: S3Connection) -> None:
        if not options.bucket:
            raise OptionError("Option s3.bucket is missing.", "Name the bucket.", "s3.bucket")
        self.bucket = options.bucket
        # Some servers refuse empty parts between slashes, and nobody means them.
        prefix = "/".join(part for part in options.prefix.split("/") if part)
        self.prefix = prefix + "/" if prefix else ""
        self.client = connect(options, self.url(""))
        self.parallel = options.parallel
        self.limiter = Limiter(options.bytes_per_second)
        self._endpoint = options.endpoint_url or ""

    def key(self, name: str) -> str:
        """Return the object name of a file."""
        return self.prefix + name

    def url(self, name: str) -> str:
        """Return ``s3://bucket/prefix/name``."""
        return f"s3://{self.bucket}/{self.prefix}{name}"

    def require(self) -> None:
        """Make sure that the bucket exists, which a request for an object does not tell.

        :raises StoreError: it does not, or the server can't be reached.
        """
        from botocore.exceptions import ClientError

        with asking("Looking at", self.url("")):
            try:
                self.client.head_bucket(Bucket=self.bucket)
            except ClientError as error:
                if http_status(error) == 404:
                    raise StoreError(
                        f"Looking at {self.url('')} failed: there is no such bucket.",
                        TODO["NoSuchBucket"],
                        self.url(""),
                    ) from error
                # A key that may write may still not be allowed to look at the bucket.
                if http_status(error) != 403:
                    raise

    def sizes(self) -> dict[str, int]:
        """Return the names directly under the prefix with their sizes in bytes."""
        return {name: size for name, (size, dummy) in self.listing().items()}

    def listing(self) -> dict[str, tuple[int, str]]:
        """Return the names directly under the prefix with sizes in bytes and storage classes."""
        listed: dict[str, tuple[int, str]] = {}
        with asking("Listing", self.url("")):
            for page in self.client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=self.prefix, Delimiter="/"
            ):
                for item in page.get("Contents", ()):
                    storage_class = str(item.get("StorageClass") or "STANDARD")
                    name = item["Key"][len(self.prefix) :]
                    listed[name] = int(item["Size"]), storage_class
        return listed

    def head(self, name: str) -> dict[str, Any] | None:
        """Return what the server says about an object, None when there is none."""
        from botocore.exceptions import ClientError

        with asking("Looking at", self.url(name)):
            try:
                answer: dict[str, Any] = self.client.head_object(
                    Bucket=self.bucket, Key=self.key(name), ChecksumMode="ENABLED"
                )
            except ClientError as error:
                # A missing bucket and a missing object look the same here: the error has no body.
                if http_status(error) == 404:
                    return None
                raise
        return answer

    @contextlib.contextmanager
    def reading(self, name: str) -> Iterator[None]:
        """Turn what boto3 raises while an object is read into a StoreError.

        :raises ColdStorage: the object must be restored first; the error says with which request.
        """
        from botocore.exceptions import ClientError

        with asking("Reading", self.url(name)):
            try:
                yield
            except ClientError as error:
                if error_code(error) != "InvalidObjectState":
                    raise
                raise self._cold(name) from error

    def _cold(self, name: str) -> ColdStorage:
        """Return the error for an object in cold storage, with the request that restores it."""
        stored: dict[str, Any] = {}
        with contextlib.suppress(StoreError):
            stored = self.head(name) or {}
        storage = stored.get("StorageClass") or "cold storage"
        arguments = ["--bucket", self.bucket, "--key", self.key(name)]
        if self._endpoint:
            arguments += ["--endpoint-url", self._endpoint]
        if 'ongoing-request="true"' in str(stored.get("Restore")):
            return ColdStorage(
                f"{self.url(name)} is being restored from {storage}, which is not complete yet.",
                f"Try again later; see: aws s3api head-object {shlex.join(arguments)}",
                self.url(name),
            )
        request = ["--restore-request", "Days=7,GlacierJobParameters={Tier=Standard}"]
        return ColdStorage(
            f"{self.url(name)} is in {storage} and can't be read before it is restored from there.",
            "Request that, wait until it is complete (up to 12 hours), and try again: "
            f"aws s3api restore-object {shlex.join([*arguments, *request])}",
            self.url(name),
        )

    def get(self, name: str) -> bytes:
        """Return the content of a small object."""
        with self.reading(name):
            answer = self.client.get_object(Bucket=self.bucket, Key=self.key(name))
            data: bytes = answer["Body"].read()
        return data

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        """Return a range of an object, shorter where it ends."""
        with self.reading(name):
            answer = self.client.get_object(
                Bucket=self.bucket,
                Key=self.key(name),
                Range=f"bytes={offset}-{offset + length - 1}",
            )
            data: bytes = answer["Body"].read()
        self.limiter.take(len(data))
        if answer.get("ResponseMetadata", {}).get("HTTPStatusCode") == 200:
            return data[offset : offset + length]  # the server knows no ranges
        return data

    def put(self, name: str, data: bytes, metadata: dict[str, str], content_type: str = "") -> None:
        """Write a small object."""
        described = {"ContentType": content_type} if content_type else {}
        with asking("Writing", self.url(name)):
            self.client.put_object(
                Bucket=self.bucket,
                Key=self.key(name),
                Body=data,
                Metadata=metadata,
                ChecksumSHA256=base64_text(hashlib.sha256(data).digest()),
                ChecksumAlgorithm="SHA256",  # buckets with object lock may ask for it by name
                **described,
            )

    def delete(self, name: str) -> None:
        """Remove an object; none is fine too."""
        with asking("Removing", self.url(name)):
            self.client.delete_object(Bucket=self.bucket, Key=self.key(name))
