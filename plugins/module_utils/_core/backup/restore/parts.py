# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The archives that a restore reads: the backup itself, or those that a set names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO

from ...errors import NotPermitted, NotUsable, VerificationFailed
from ..catalogue import Backup
from ..manifest import Contents, ManifestEntry
from ..store import Store


@dataclass(frozen=True)
class Part:
    """An archive that is read: the backup itself, or one that a set names.

    :param open: opens its stream. :param read: returns a range, given offset and length.
    :param contents: what its manifest lists, None for archives of the old scripts.
    :param read_again: ``read`` where that is cheap, on this machine; else None.
    :param connections: how many ranges may be read at the same time.
    """

    backup: Backup
    open: Callable[[], BinaryIO]
    read: Callable[[int, int], bytes]
    contents: Contents | None = None
    read_again: Callable[[int, int], bytes] | None = None
    connections: int = 1


def observe(
    store: Store, backup: Backup, verify: bool, model: str | None
) -> tuple[tuple[Part, ...], list[str]]:
    """Return the archives of the backup with what they hold, and what to note about them.

    :param verify: whether damage ends the restore. :param model: the only model to look at.
    :raises VerificationFailed: an archive is gone, or its manifest is damaged.
    :raises FleetError: it can't be read.
    """
    archives, notes = [backup], []
    if backup.is_set:
        archives = []
        for named, member in zip(backup.archives, store.members(backup)):
            if model not in (None, named["model"]):
                continue
            if member.problems and verify:
                raise VerificationFailed(
                    f"{backup.path} is damaged: {'; '.join(member.problems)}.",
                    "Use another backup.",
                    backup.path,
                )
            notes += [f"damaged: {problem}" for problem in member.problems]
            if not member.lost:
                archives.append(member)
    parts = []
    for archive in archives:
        contents, note = _contents(store, archive, verify)
        parts.append(_part(store, archive, contents))
        if note:
            notes.append(note)
    return tuple(parts), notes


def _part(store: Store, archive: Backup, contents: Contents | None) -> Part:
    def read(offset: int, length: int) -> bytes:
        return store.read(archive, offset, length)

    part = Part(archive, lambda: store.open(archive), read, contents, connections=store.connections)
    if store.local_path(archive) is None:
        return part
    return replace(part, read_again=read)


def merged(parts: Sequence[Part]) -> Contents | None:
    """Return what all these archives hold together; None where that is not known of one."""
    entries: list[ManifestEntry] = []
    for part in parts:
        if part.contents is None:
            return None
        entries += part.contents.entries
    return Contents(entries)


def _contents(store: Store, backup: Backup, verify: bool) -> tuple[Contents | None, str]:
    """Return what an archive's manifest lists, and what to note about that."""
    try:
        contents = store.contents(backup)
    except NotPermitted:
        raise
    except NotUsable as error:
        if verify:
            raise VerificationFailed(error.message, "Use another backup.", backup.path) from error
        return None, f"damaged: {error.message}"
    return contents, "" if contents is None else contents.problem
