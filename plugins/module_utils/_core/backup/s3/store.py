# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copies of backups in S3.

Sent with checksums that the server has to confirm, the manifest last, read back for a restore.

Every part is read from the archive in full and sent with its SHA-256; S3 has no SHA-256 over an
object sent in parts, only one over the parts' digests, so that is what gets compared with the
server's answer afterwards. A server that accepts a wrong checksum proves nothing by repeating one,
so servers other than Amazon's are asked to take a wrong one first.
"""

from __future__ import annotations

import contextlib
import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import BinaryIO, cast

from ...errors import NotUsable, StoreError
from ...ports import Tell, silent
from .. import catalogue, manifest
from ..catalogue import Backup
from ..manifest import Contents, Head
from ..names import CHECKSUM, MANIFEST, is_archive, stamp_time
from ..options import S3Connection, S3Copies
from ..store import StoredCopy
from . import download, upload
from .bucket import Bucket
from .connection import base64_text, is_amazon

#: The server confirmed the SHA-256 of what it stores, and it is known to refuse wrong ones.
CONFIRMED = "checksum"
#: The server reports only the size; a restore will still compare everything.
SIZE_ONLY = "size_only"


class S3Store:
    """A bucket and prefix that hold copies; implements CopyStore.

    :raises MissingLibrary: boto3 is not installed or too old.
    :raises StoreError: bad region or the like.
    """

    def __init__(self, options: S3Connection) -> None:
        self._bucket = Bucket(options)
        self._class = "STANDARD"
        self.prunes = False
        self.connections = options.parallel
        if isinstance(options, S3Copies):
            self._class, self.prunes = options.storage_class, options.prune
        #: Whether the server's checksums prove anything; None while that is not known.
        self._trusted: bool | None = is_amazon(self._bucket.client) or None

    def url(self, name: str) -> str:
        """Return ``s3://bucket/prefix/name``."""
        return self._bucket.url(name)

    def local_path(self, backup: Backup) -> str | None:  # noqa: ARG002
        return None

    def look(self) -> None:
        """:raises StoreError: the bucket does not exist, or there is no connection to it."""
        self._bucket.require()

    def listing(self) -> list[Backup]:
        """Return the backups directly under the prefix, newest first; their ``path`` is a URL.

        :raises StoreError:
        """
        listed = self._bucket.listing()
        sizes = {name: size for name, (size, dummy) in listed.items()}
        return catalogue.newest_first(
            replace(self._describe(name, sizes), storage_class=listed[name][1])
            for name in sizes
            if is_archive(name)
        )

    def _describe(self, name: str, sizes: dict[str, int]) -> Backup:
        problems: list[str] = []
        document: Head | None = None
        index_problem = ""
        sha256: str | None = None
        if name + MANIFEST in sizes:
            try:
                document, index_problem = self._head(name, sizes[name + MANIFEST])
            except NotUsable as error:
                problems.append(error.message)
        if document is not None:
            sha256 = document["archive"]["sha256"]
            problems += catalogue.contradictions(document, name, sizes[name], "object")
        elif name + CHECKSUM in sizes and not problems:
            sha256 = catalogue.parse_checksum(self._bucket.get(name + CHECKSUM), name)
            if sha256 is None:
                problems.append("the checksum object holds no SHA-256")
        elif not problems:
            problems.append("neither manifest nor checksum: an unfinished or foreign upload")
        created = document["created"] if document is not None else stamp_time(name)
        return Backup(
            name,
            self.url(name),
            float(created or 0),
            sizes[name],
            sha256,
            legacy=document is None and not problems,
            manifest=document,
            problems=tuple(problems),
            index_problem=index_problem,
        )

    def _head(self, name: str, size: int) -> tuple[Head, str]:
        """Return the head of a manifest, and what is wrong with its index.

        :raises NotUsable: it is damaged.
        """
        position = 0

        def read(count: int) -> bytes:
            nonlocal position
            if position >= size:
                return b""
            # Where the first piece does not do, all of it is needed.
            count = size if position else count
            piece = self._bucket.get_range(name + MANIFEST, position, count)
            position += len(piece)
            return piece

        return manifest.read_head(read, size, self.url(name + MANIFEST))

    def contents(self, backup: Backup) -> Contents | None:
        """Return what the manifest lists, None without one. :raises NotUsable: it is damaged."""
        if backup.manifest is None:
            return None
        name = backup.name + MANIFEST
        return catalogue.same_manifest(backup, self._bucket.get(name), self.url(name))

    def read(self, backup: Backup, offset: int, length: int) -> bytes:
        """Return a range of the archive. :raises StoreError: it can't be read."""
        length = max(0, min(length, backup.size - offset))
        try:
            piece = download.Piece(self._bucket, backup.name, None, backup.size)
            return piece.fetch(offset, length)
        except download.NoRanges:
            return self._bucket.get_range(backup.name, offset, length)

    def present(self, backup: Backup) -> StoredCopy | None:
        """Return the complete copy of this very backup, None when there is none.

        :raises StoreError: another backup has its name.
        """
        marker = self._bucket.head(backup.name + MANIFEST)
        if marker is None:
            return None
        noted = marker.get("Metadata", {})
        sha256 = noted.get("archive-sha256")
        if sha256 is None:
            # Copied there by another tool, which has left our metadata behind.
            with contextlib.suppress(NotUsable):
                head, dummy = self._head(backup.name, int(marker["ContentLength"]))
                sha256 = head["archive"]["sha256"]
        if sha256 != backup.sha256:
            raise StoreError(
                f"{self.url(backup.name)} is another backup with the same name, probably of another"
                " host.",
                "Give each host a prefix of its own (s3.prefix).",
                self.url(backup.name),
            )
        stored = self._bucket.head(backup.name)
        if stored is None or stored["ContentLength"] != backup.size:
            return None
        recorded = noted.get("archive-checksum", "")
        confirmed = bool(recorded) and stored.get("ChecksumSHA256") == recorded
        if recorded and not confirmed:
            return None  # not what was uploaded: send it again
        return self._copy(backup, confirmed, stored.get("StorageClass") or "STANDARD", False)

    def _copy(
        self, backup: Backup, confirmed: bool, storage_class: str, uploaded: bool
    ) -> StoredCopy:
        return {
            "url": self.url(backup.name),
            "size": backup.size,
            "sha256": backup.sha256,
            "verified": CONFIRMED if confirmed else SIZE_ONLY,
            "storage_class": storage_class,
            "uploaded": uploaded,
        }

    def upload(self, backup: Backup, tell: Tell = silent) -> StoredCopy:
        """Copy a local backup.

        The archive, what the server reports about it compared, then checksum and manifest.

        :raises StoreError: the server refused, or what it stores is not what was sent.
        :raises VerificationFailed: the local archive is not what it was when it was made.
        """
        if backup.manifest is None:
            raise StoreError(f"{backup.path} has no manifest.", "", backup.path)
        document = catalogue.read_manifest(backup)
        catalogue.same_manifest(backup, document, backup.path + MANIFEST)
        # What does not wait for the archive travels beside it.
        with ThreadPoolExecutor(1, thread_name_prefix="s3-beside") as beside:
            probe = beside.submit(self._is_trusted, backup)
            checksum = upload.send(self._bucket, backup, self._class, tell)
            trusted = probe.result()
            line = f"{backup.sha256}  {backup.name}\n".encode("ascii")
            checksum_sent = beside.submit(self._bucket.put, backup.name + CHECKSUM, line, {})
            reported, problem = self._reported(backup, checksum)
            checksum_sent.result()
        if problem:
            raise self._withdrawn(backup, problem)
        confirmed = reported is not None and trusted
        noted = {
            "archive-sha256": str(backup.sha256),
            "archive-checksum": str(reported) if confirmed else "",
        }
        self._bucket.put(backup.name + MANIFEST, document, noted)
        return self._copy(backup, confirmed, self._class, uploaded=True)

    def _is_trusted(self, backup: Backup) -> bool:
        """Say whether the server refuses wrong checksums; it is asked once."""
        if self._trusted is None:
            self._trusted = upload.refuses_wrong_checksums(self._bucket, backup.name + CHECKSUM)
        return self._trusted

    def _reported(self, backup: Backup, checksum: str) -> tuple[str | None, str]:
        """Return the checksum that the server reports for the archive, None where it reports none.

        With it comes what is wrong with what it stores, ``""`` for nothing.
        """
        stored = self._bucket.head(backup.name)
        if stored is None:
            return None, f"the server then has nothing instead of {backup.size} bytes"
        if stored["ContentLength"] != backup.size:
            size = stored["ContentLength"]
            return None, f"the server then has {size} bytes instead of {backup.size} bytes"
        reported: str | None = stored.get("ChecksumSHA256")
        # Some servers leave out the number of parts, others report the whole object's checksum also
        # where it was sent in parts.
        if reported is not None and reported not in (
            checksum,
            checksum.partition("-")[0],
            base64_text(bytes.fromhex(str(backup.sha256))),
        ):
            return None, f"the server then has the checksum {reported} instead of {checksum}"
        return reported, ""

    def _withdrawn(self, backup: Backup, why: str) -> StoreError:
        """Remove an upload that went wrong, so that nobody takes it for a copy.

        Return the error to raise.
        """
        for name in (backup.name, backup.name + CHECKSUM):
            with contextlib.suppress(StoreError):
                self._bucket.delete(name)
        return StoreError(
            f"Uploading {self.url(backup.name)} failed: {why}.",
            "Check the server; nothing was left there.",
            self.url(backup.name),
        )

    def remove(self, name: str) -> None:
        """Remove a copy, its manifest first.

        :raises StoreError: the server refused (an object lock, say).
        """
        if not is_archive(name):
            raise StoreError(f"{self.url(name)} is no backup of ours.", "", self.url(name))
        for item in (name + MANIFEST, name, name + CHECKSUM):
            self._bucket.delete(item)

    def open(self, backup: Backup) -> BinaryIO:
        """Return the archive as a stream that survives broken connections.

        :raises StoreError: it can't be read.
        """
        bucket, name = self._bucket, backup.name
        raw: io.RawIOBase
        if bucket.parallel == 1 or backup.size <= download.PIECE:
            raw = download.Download(bucket, name)
        else:
            stored = bucket.head(name)
            if stored is None:
                url = self.url(name)
                raise StoreError(f"{url} is gone.", "Use another backup.", url)
            raw = download.ParallelDownload(
                bucket, name, stored["ETag"], int(stored["ContentLength"])
            )
        return cast(BinaryIO, io.BufferedReader(raw, 1 << 20))
