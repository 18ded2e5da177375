# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copies of sets in S3: first the archives that are not there yet, then the set that names them."""

from __future__ import annotations

import contextlib
from dataclasses import replace

from ...errors import NotUsable, StoreError
from ...ports import Tell, silent
from .. import catalogue, members, sets
from ..catalogue import Backup
from ..manifest import Head, Member
from ..names import CHECKSUM, MANIFEST, is_archive, is_set, stamp_time
from ..store import StoredCopy
from .store import CONFIRMED, S3Store


class S3Sets(S3Store):
    """A bucket and prefix that hold copies of archives and of sets; implements CopyStore."""

    def listing(self) -> list[Backup]:
        """Return the backups directly under the prefix, newest first; their ``path`` is a URL.

        :raises StoreError: the bucket can't be read.
        """
        listed = self._bucket.listing()
        sizes = {name: size for name, (size, dummy) in listed.items()}
        backups = [
            replace(self._describe(name, sizes), storage_class=listed[name][1])
            for name in sizes
            if is_archive(name)
        ]
        for name in filter(is_set, sizes):
            backup = self._describe_set(name, sizes)
            classes = {
                listed[archive["name"]][1]
                for archive in backup.archives
                if archive["name"] in listed
            }
            backups.append(replace(backup, storage_class=", ".join(sorted(classes))))
        return catalogue.newest_first(backups)

    def _describe_set(self, name: str, sizes: dict[str, int]) -> Backup:
        url = self.url(name)
        backup = Backup(name, url, stamp_time(name) or 0.0, 0)
        try:
            head = self._set(name)
        except (NotUsable, StoreError) as error:
            return replace(backup, problems=(error.message,))
        problems = catalogue.contradictions(head, name, head["archive"]["size"], "set")
        for archive in head["archives"]:
            size, manifest = sizes.get(archive["name"]), archive["name"] + MANIFEST in sizes
            problems += sets.contradictions(archive, size, manifest)
        return replace(
            backup,
            created=float(head["created"]),
            size=head["archive"]["size"],
            sha256=head["archive"]["sha256"],
            manifest=head,
            problems=tuple(problems),
        )

    def _set(self, name: str) -> Head:
        """Return a set. :raises NotUsable: it is damaged. :raises StoreError: it can't be read."""
        return sets.parse(self._bucket.get(name), self.url(name))

    def members(self, backup: Backup) -> list[Backup]:
        """Return the archives that a set names, with what is wrong with each."""
        sizes = self._bucket.sizes()
        return [
            members.named(archive, self._member(archive, sizes), backup)
            for archive in backup.archives
        ]

    def _member(self, archive: Member, sizes: dict[str, int]) -> Backup | None:
        if archive["name"] not in sizes:
            return None
        return self._describe(archive["name"], sizes)

    def present(self, backup: Backup) -> StoredCopy | None:
        """Return the complete copy of this very backup, None when there is none.

        :raises StoreError: another backup has its name.
        """
        if not backup.is_set:
            return super().present(backup)
        marker = self._bucket.head(backup.name)
        if marker is None:
            return None
        sha256 = marker.get("Metadata", {}).get("archive-sha256")
        if sha256 is None:  # copied there by another tool, which has left our metadata behind
            with contextlib.suppress(NotUsable):
                sha256 = self._set(backup.name)["archive"]["sha256"]
        if sha256 != backup.sha256:
            raise StoreError(
                f"{self.url(backup.name)} is another backup with the same name, probably of "
                "another host.",
                "Give each host a prefix of its own (s3.prefix).",
                self.url(backup.name),
            )
        copies = [super(S3Sets, self).present(item) for item in members.local_members(backup)]
        stored = [copy for copy in copies if copy is not None]
        if len(stored) != len(copies):
            return None
        return self._set_copy(backup, stored, uploaded=False)

    def _set_copy(self, backup: Backup, stored: list[StoredCopy], uploaded: bool) -> StoredCopy:
        confirmed = all(copy["verified"] == CONFIRMED for copy in stored)
        classes = {copy["storage_class"] for copy in stored}
        return self._copy(backup, confirmed, ", ".join(sorted(classes)), uploaded)

    def upload(self, backup: Backup, tell: Tell = silent) -> StoredCopy:
        """Copy a local backup; of a set, the archives that are not there, then the set.

        :raises StoreError: the server refused, or what it stores is not what was sent.
        :raises VerificationFailed: an archive is not what it was when it was made.
        """
        if not backup.is_set:
            return super().upload(backup, tell)
        if backup.manifest is None or backup.problems:
            raise StoreError(f"{backup.path} is not complete.", "", backup.path)
        stored = [self._sent(item, tell) for item in members.local_members(backup)]
        checksums = sets.checksums(backup.archives).encode("ascii")
        self._bucket.put(backup.name + CHECKSUM, checksums, {})
        noted = {"archive-sha256": str(backup.sha256)}
        self._bucket.put(backup.name, sets.dump(backup.manifest), noted)
        return self._set_copy(backup, stored, uploaded=True)

    def _sent(self, archive: Backup, tell: Tell) -> StoredCopy:
        """Return the copy of an archive, which is sent unless it is there."""
        return super().present(archive) or super().upload(archive, tell)

    def remove(self, name: str) -> None:
        """Remove a copy; of a set, also the archives that no other set names.

        :raises StoreError: the server refused (an object lock, say).
        """
        if not is_set(name):
            super().remove(name)
            return
        removable: set[str] = set()
        with contextlib.suppress(NotUsable):  # then nobody knows which archives it names
            removable = {archive["name"] for archive in self._set(name)["archives"]}
        for item in (name, name + CHECKSUM):
            self._bucket.delete(item)
        for archive in sorted(removable - self._named()):
            for item in (archive + MANIFEST, archive, archive + CHECKSUM):
                self._bucket.delete(item)

    def _named(self) -> set[str]:
        """Return what the sets name; all archives where a set is damaged, which may name any."""
        sizes = self._bucket.sizes()
        named: set[str] = set()
        for name in filter(is_set, sizes):
            try:
                named |= {archive["name"] for archive in self._set(name)["archives"]}
            except NotUsable:
                return set(sizes)
        return named
