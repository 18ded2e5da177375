# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known about one backup, and how modules return it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypedDict

from ..verdict import isoformat
from . import manifest as manifests
from .manifest import Head, Member
from .names import MANIFEST, is_set
from .options import PER_MODEL, SINGLE


class _DescriptionBase(TypedDict):
    name: str
    path: str
    created: str
    size: int
    sha256: str | None
    legacy: bool
    verified: bool
    problems: list[str]


class ArchiveDescription(TypedDict):
    """An archive that a set names. Sizes in bytes; ``created`` says when it was written."""

    model: str
    name: str
    path: str
    created: str
    size: int
    sha256: str
    files: int
    bytes: int


class Description(_DescriptionBase, total=False):
    """A backup as modules return it. Only with a manifest: what it holds and where it was made.

    Sizes in bytes.
    """

    files: int
    bytes: int
    source: str
    compression: str
    hostname: str
    manifest: str
    checked: str
    unreadable: str
    storage_class: str
    layout: str
    archives: list[ArchiveDescription]


@dataclass(frozen=True)
class Backup:
    """One backup, or an archive that a set names.

    ``created`` is in seconds since the epoch, ``size`` in bytes. ``manifest`` is the head of its
    manifest, None for archives of the old scripts (``legacy``: they have a checksum file only) and
    for what is damaged; ``problems`` says what is wrong as far as names, sizes and the manifest
    tell. ``lost`` means that the archive itself is gone. ``unreadable`` is why this user can't read
    its files: then it may be a perfect backup. ``index_problem`` is what is wrong with the index in
    its manifest, as far as sizes tell: that only makes reading slower.
    """

    name: str
    path: str
    created: float
    size: int
    sha256: str | None = None
    legacy: bool = False
    manifest: Head | None = field(default=None, repr=False, compare=False)
    problems: tuple[str, ...] = ()
    lost: bool = False
    unreadable: str = ""
    storage_class: str = ""
    index_problem: str = ""

    @property
    def complete(self) -> bool:
        """Whether it is a finished backup of ours, as far as is known without reading it."""
        return self.manifest is not None and not self.problems

    @property
    def archives(self) -> Sequence[Member]:
        """The archives that it names if it is a set; an archive names none."""
        if self.manifest is None:
            return ()
        return self.manifest.get("archives", ())

    @property
    def is_set(self) -> bool:
        """Whether it is a set of archives, one per model."""
        return is_set(self.name)

    @property
    def verified(self) -> bool:
        """Whether the archive was read back and matched, the last time that was tried."""
        return self.complete and self.manifest is not None and manifests.verified(self.manifest)

    def to_dict(self) -> Description:
        """Return it as modules do; nothing that has a problem, however small, is verified there."""
        description: Description = {
            "name": self.name,
            "path": self.path,
            "created": isoformat(self.created),
            "size": self.size,
            "sha256": self.sha256,
            "legacy": self.legacy,
            "verified": self.verified and not self.index_problem,
            "problems": list(filter(None, (*self.problems, self.index_problem))),
        }
        if self.manifest is not None:
            document = self.manifest
            description["files"] = document["totals"]["files"]
            description["bytes"] = document["totals"]["bytes"]
            description["source"] = document["source"]
            description["compression"] = document["compression"]
            description["hostname"] = document["hostname"]
            description["manifest"] = self.path
            description["layout"] = PER_MODEL
            if self.is_set:
                description["archives"] = [self._described(archive) for archive in self.archives]
            else:
                description["manifest"] += MANIFEST
                description["layout"] = SINGLE
        if self.unreadable:
            description["unreadable"] = self.unreadable
        if self.storage_class:
            description["storage_class"] = self.storage_class
        return description

    def _described(self, archive: Member) -> ArchiveDescription:
        return {
            "model": archive["model"],
            "name": archive["name"],
            "path": self.path[: -len(self.name)] + archive["name"],
            "created": isoformat(archive["created"]),
            "size": archive["size"],
            "sha256": archive["sha256"],
            "files": archive["files"],
            "bytes": archive["bytes"],
        }
