# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sets: backups with one archive per model (``layout: per_model``).

A set is a small JSON file that names archives, each of which is complete with checksum file and
manifest. It is written last: archives that no set names are no part of any backup. Sets share the
archives of models that did not change.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import NotUsable
from ..system.text import display_path
from ..verdict import isoformat
from . import manifest as manifests
from . import names
from .manifest import Head, Member, Totals
from .source import DIRECTORY, FILE, LINK, Entry, fingerprint

if TYPE_CHECKING:
    from .options import BackupOptions

_MEMBER: dict[str, tuple[type, ...]] = {
    "model": (str,),
    "name": (str,),
    "created": (int, float),
    "size": (int,),
    "sha256": (str,),
    "fingerprint": (str,),
    "files": (int,),
    "bytes": (int,),
    "verified": (bool,),
}


def group(entries: Iterable[Entry]) -> dict[str, tuple[Entry, ...]]:
    """Return the entries by model, which is the entry of the source that they are or are in."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.path.partition("/")[0], []).append(entry)
    return {model: tuple(members) for model, members in groups.items()}


def member(head: Head, model: str) -> Member:
    """Return what a set notes about the archive of a model, given the head of its manifest."""
    return {
        "model": model,
        "name": head["name"],
        "created": head["created"],
        "size": head["archive"]["size"],
        "sha256": head["archive"]["sha256"],
        "fingerprint": head["fingerprint"],
        "files": head["totals"]["files"],
        "bytes": head["totals"]["bytes"],
        "verified": manifests.verified(head),
    }


def checksums(archives: Sequence[Member]) -> str:
    """Return the checksum file beside a set, which is that of its archives, for sha256sum(1)."""
    return "".join(f"{archive['sha256']}  {archive['name']}\n" for archive in archives)


def build(
    name: str,
    created: float,
    hostname: str,
    options: BackupOptions,
    skipped: tuple[str, ...],
    entries: Sequence[Entry],
    archives: Sequence[Member],
    now: float,
) -> Head:
    """Return the set that names these archives. :param now: seconds since the epoch."""
    head = manifests.empty_head(name, created, hostname, options, skipped)
    totals: Totals = {
        "files": sum(entry.type == FILE for entry in entries),
        "folders": sum(entry.type == DIRECTORY for entry in entries),
        "links": sum(entry.type == LINK for entry in entries),
        "bytes": sum(entry.size for entry in entries),
    }
    size = sum(archive["size"] for archive in archives)
    sha256 = hashlib.sha256(checksums(archives).encode("ascii")).hexdigest()
    head["fingerprint"] = fingerprint(options.source, entries)
    head["archive"] = {"size": size, "sha256": sha256, "plain_size": size}
    head["totals"], head["archives"] = totals, list(archives)
    if all(archive["verified"] for archive in archives):
        head["verifications"] = [
            {
                "at": isoformat(now),
                "depth": "full",
                "result": "ok",
                "files": totals["files"],
                "bytes": totals["bytes"],
            }
        ]
    return head


def dump(head: Head) -> bytes:
    """Return the set as a JSON file, one line per archive."""
    body: dict[str, Any] = {key: value for key, value in head.items() if key != "checksum"}
    body["checksum"] = manifests.checksum(body)
    archives = ",\n  ".join(json.dumps(archive) for archive in head["archives"])
    body.pop("archives")
    text = json.dumps(body, indent=1)[:-2]
    return f'{text},\n "archives": [\n  {archives}\n ]\n}}\n'.encode("ascii")


def parse(raw: bytes, where: str) -> Head:
    """Return the set in ``raw``.

    :param where: its path or URL, for messages.
    :raises NotUsable: it is no set, was made by a later format, or is damaged.
    """
    head = manifests.read_set(raw, where)
    archives = head.get("archives")
    if not isinstance(archives, list) or not all(_is_member(archive) for archive in archives):
        raise NotUsable(f"The set {where} lacks valid archives.", "", where)
    return head


def _is_member(record: object) -> bool:
    return (
        isinstance(record, Mapping)
        and all(isinstance(record.get(key), kinds) for key, kinds in _MEMBER.items())
        and names.is_member(str(record["name"]))
    )


def problem(archive: Member, text: str) -> str:
    """Return a problem of an archive that a set names, for a message."""
    return f"{display_path(archive['model'])}: {text}"


def contradictions(archive: Member, size: int | None, manifest: bool) -> list[str]:
    """Return what is wrong with an archive that a set names.

    :param size: of the archive in bytes, None when it is not there.
    :param manifest: whether its manifest is there.
    """
    if size is None:
        return [problem(archive, f"the archive {archive['name']} is gone")]
    if size != archive["size"]:
        expected = archive["size"]
        text = f"the archive is {size} bytes long, but was {expected} when it was made"
        return [problem(archive, text)]
    if not manifest:
        return [problem(archive, f"the manifest of {archive['name']} is gone")]
    return []
