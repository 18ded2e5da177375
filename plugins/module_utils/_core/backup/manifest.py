# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The manifest of a backup: what is in it, with a SHA-256 per file.

Its existence says that the backup is complete.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypedDict, cast

from ..errors import NotUsable
from ..verdict import isoformat
from .source import DIRECTORY, FILE, LINK, fingerprint

if TYPE_CHECKING:
    from .archive import Written
    from .options import BackupOptions

FORMAT = 1
#: Version of the collection, recorded in what it writes.
VERSION = "0.1.0"


class _EntryBase(TypedDict):
    path: str
    type: str
    mode: str
    uid: int
    gid: int
    mtime_ns: int


class ManifestEntry(_EntryBase, total=False):
    """One file, directory or link.

    Files have ``size`` (bytes) and ``sha256``, links have ``target``.
    """

    size: int
    sha256: str
    target: str


class ArchiveRecord(TypedDict):
    """The archive itself: its size, its SHA-256 and the size of the tar in it, in bytes."""

    size: int
    sha256: str
    plain_size: int


class Totals(TypedDict):
    """What is in the archive, in numbers; ``bytes`` of all files."""

    files: int
    folders: int
    links: int
    bytes: int


class Verification(TypedDict):
    """One reading of the whole archive. ``result`` is ``ok`` when every file matched."""

    at: str
    depth: str
    result: str
    files: int
    bytes: int


class Manifest(TypedDict):
    """The document. ``created`` is in seconds since the epoch, ``name`` is the archive's."""

    format: int
    tool: str
    name: str
    created: float
    created_iso: str
    hostname: str
    source: str
    fingerprint: str
    compression: str
    compression_level: int
    exclude: list[str]
    skipped: list[str]
    archive: ArchiveRecord
    totals: Totals
    entries: list[ManifestEntry]
    verifications: list[Verification]


#: What a manifest must have to be one.
_FIELDS: dict[str, tuple[type, ...]] = {
    "format": (int,),
    "name": (str,),
    "created": (int, float),
    "source": (str,),
    "fingerprint": (str,),
    "archive": (dict,),
    "totals": (dict,),
    "entries": (list,),
    "verifications": (list,),
}


def _records(written: Written) -> list[ManifestEntry]:
    records: list[ManifestEntry] = []
    for entry in written.entries:
        record: ManifestEntry = {
            "path": entry.path,
            "type": entry.type,
            "mode": f"{entry.mode:04o}",
            "uid": entry.uid,
            "gid": entry.gid,
            "mtime_ns": entry.mtime_ns,
        }
        if entry.type == FILE:
            record["size"] = entry.size
            record["sha256"] = written.digests[entry.path]
        elif entry.type == LINK:
            record["target"] = entry.target
        records.append(record)
    return records


def build(
    name: str,
    created: float,
    hostname: str,
    options: BackupOptions,
    skipped: tuple[str, ...],
    written: Written,
) -> Manifest:
    """Return the manifest of an archive just written.

    ``created`` is in seconds since the epoch, sizes in bytes, times of files in nanoseconds.
    Undecodable bytes of names are lone surrogates, which JSON carries as escapes.
    """
    return {
        "format": FORMAT,
        "tool": f"mlops.fleet {VERSION}",
        "name": name,
        "created": created,
        "created_iso": isoformat(created),
        "hostname": hostname,
        "source": options.source,
        "fingerprint": fingerprint(options.source, written.entries),
        "compression": options.compression,
        "compression_level": options.level,
        "exclude": list(options.exclude),
        "skipped": list(skipped),
        "archive": {"size": written.size, "sha256": written.sha256, "plain_size": written.plain},
        "totals": {
            "files": sum(entry.type == FILE for entry in written.entries),
            "folders": sum(entry.type == DIRECTORY for entry in written.entries),
            "links": sum(entry.type == LINK for entry in written.entries),
            "bytes": sum(entry.size for entry in written.entries),
        },
        "entries": _records(written),
        "verifications": [],
    }


def expected(name: str, created: float, options: BackupOptions) -> Manifest:
    """Return the manifest of a backup still to be made, as far as retention rules need it."""
    verification: Verification = {"at": "", "depth": "full", "result": "ok", "files": 0, "bytes": 0}
    return {
        "format": FORMAT,
        "tool": f"mlops.fleet {VERSION}",
        "name": name,
        "created": created,
        "created_iso": isoformat(created),
        "hostname": "",
        "source": options.source,
        "fingerprint": "",
        "compression": options.compression,
        "compression_level": options.level,
        "exclude": [],
        "skipped": [],
        "archive": {"size": 0, "sha256": "", "plain_size": 0},
        "totals": {"files": 0, "folders": 0, "links": 0, "bytes": 0},
        "entries": [],
        "verifications": [verification] if options.verify else [],
    }


def _checksum(body: Mapping[str, object]) -> str:
    return hashlib.sha256(
        json.dumps(body, sort_keys=True, separators=(",", ":")).encode("ascii")
    ).hexdigest()


def dump(manifest: Manifest) -> bytes:
    """Return the manifest as a JSON file, one line per entry.

    It holds a checksum over everything else in it.
    """
    body = {key: value for key, value in manifest.items() if key != "checksum"}
    lines = [json.dumps(entry) for entry in manifest["entries"]]
    head = json.dumps({key: value for key, value in body.items() if key != "entries"}, indent=1)
    text = (
        head[:-2]
        + ',\n "entries": [\n  '
        + ",\n  ".join(lines)
        + '\n ],\n "checksum": '
        + json.dumps(_checksum(body))
        + "\n}\n"
    )
    return text.encode("ascii")


def parse(raw: bytes, where: str) -> Manifest:
    """Return the manifest in ``raw``.

    :param where: its path or URL, for messages.
    :raises NotUsable: it is no manifest, was made by a later format, or is damaged.
    """
    try:
        document = json.loads(raw)
    except ValueError as error:
        raise NotUsable(f"The manifest {where} is not valid JSON: {error}.", "", where) from error
    if not isinstance(document, dict):
        raise NotUsable(f"The manifest {where} is not a JSON object.", "", where)
    body = {key: value for key, value in document.items() if key != "checksum"}
    if document.get("checksum") != _checksum(body):
        raise NotUsable(f"The manifest {where} is damaged: its checksum is wrong.", "", where)
    if body.get("format") != FORMAT:
        raise NotUsable(
            f"The manifest {where} has format {body.get('format')!r}; this version reads {FORMAT}.",
            "Use a newer mlops.fleet.",
            where,
        )
    for key, kinds in _FIELDS.items():
        if not isinstance(body.get(key), kinds):
            raise NotUsable(f"The manifest {where} lacks a valid {key}.", "", where)
    return cast(Manifest, body)


def verified(manifest: Manifest) -> bool:
    """Say whether the archive was read back and every file matched, the last time it was tried."""
    return bool(manifest["verifications"]) and manifest["verifications"][-1].get("result") == "ok"
