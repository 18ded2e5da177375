# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The manifest of a backup: what is in it, with a SHA-256 per file.

Its existence says that the backup is complete. It is one JSON document in three parts, each with a
checksum of its own: the head, which says what the backup is and is all that most jobs read; the
entries, one per line; and the index, which says where in the archive each chunk lies and where in
the tar each file does. Without the index everything still works, only slower.

Manifests of format 1 had one checksum over everything, and no index.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii as quoted
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict, cast

from ..errors import NotUsable
from ..verdict import isoformat
from .source import DIRECTORY, FILE, LINK, fingerprint

if TYPE_CHECKING:
    from .archive import Written
    from .options import BackupOptions

FORMAT = 2
#: The first format: one checksum over the whole document, no index.
WHOLE = 1
#: Bytes that are read first; nearly every head is smaller.
HEAD = 64 << 10
_ENTRIES = b',\n "entries": [\n'
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


class Part(TypedDict):
    """A part of the document behind the head: its size in bytes and its SHA-256."""

    size: int
    sha256: str


class _HeadBase(TypedDict):
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
    verifications: list[Verification]


class Member(TypedDict):
    """An archive that a set names: that of one model. Sizes in bytes."""

    model: str
    name: str
    created: float
    size: int
    sha256: str
    fingerprint: str
    files: int
    bytes: int
    verified: bool


class Head(_HeadBase, total=False):
    """What a backup is.

    ``created`` is in seconds since the epoch, ``name`` is the archive's. ``entries_part`` and
    ``index_part`` describe what follows; format 1 has neither. Only the head of a set has
    ``archives``, and nothing follows it. ``model`` is there if the archive was made for a set.
    """

    entries_part: Part
    index_part: Part
    archives: list[Member]
    model: str


class Manifest(Head):
    """A document as a whole."""

    entries: list[ManifestEntry]


class Chunk(NamedTuple):
    """A chunk of the archive: where it begins, its length in bytes and its SHA-256."""

    offset: int
    length: int
    sha256: str


class Index(NamedTuple):
    """Where everything lies.

    :param chunk_size: bytes of the tar in each chunk; the last one has fewer.
    :param chunks: in the order of the archive.
    :param places: where the content of each entry begins in the tar, in the order of the entries;
        -1 for what is no file.
    """

    chunk_size: int
    chunks: tuple[Chunk, ...]
    places: tuple[int, ...]


@dataclass(frozen=True)
class Contents:
    """What follows the head. ``index`` is None where there is none, ``problem`` says why."""

    entries: list[ManifestEntry]
    index: Index | None = None
    problem: str = ""


#: What a manifest must have to be one.
_FIELDS: dict[str, tuple[type, ...]] = {
    "format": (int,),
    "name": (str,),
    "created": (int, float),
    "source": (str,),
    "fingerprint": (str,),
    "archive": (dict,),
    "totals": (dict,),
    "verifications": (list,),
}


def records(written: Written) -> list[ManifestEntry]:
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
    known: str = "",
) -> Head:
    """Return the head of the manifest of an archive just written.

    ``created`` is in seconds since the epoch, sizes in bytes, times of files in nanoseconds.
    ``known`` is the fingerprint of the entries if it is known already.
    Undecodable bytes of names are lone surrogates, which JSON carries as escapes.
    """
    document = empty_head(name, created, hostname, options, skipped)
    document["fingerprint"] = known or fingerprint(options.source, written.entries)
    document["archive"] = {
        "size": written.size,
        "sha256": written.sha256,
        "plain_size": written.plain,
    }
    document["totals"] = {
        "files": sum(entry.type == FILE for entry in written.entries),
        "folders": sum(entry.type == DIRECTORY for entry in written.entries),
        "links": sum(entry.type == LINK for entry in written.entries),
        "bytes": sum(entry.size for entry in written.entries),
    }
    return document


def empty_head(
    name: str, created: float, hostname: str, options: BackupOptions, skipped: tuple[str, ...]
) -> Head:
    """Return the head of a backup about whose content nothing is known yet."""
    return {
        "format": FORMAT,
        "tool": f"mlops.fleet {VERSION}",
        "name": name,
        "created": created,
        "created_iso": isoformat(created),
        "hostname": hostname,
        "source": options.source,
        "fingerprint": "",
        "compression": options.compression,
        "compression_level": options.level,
        "exclude": list(options.exclude),
        "skipped": list(skipped),
        "archive": {"size": 0, "sha256": "", "plain_size": 0},
        "totals": {"files": 0, "folders": 0, "links": 0, "bytes": 0},
        "verifications": [],
    }


def contents(written: Written) -> Contents:
    """Return what follows the head, for an archive just written."""
    return Contents(records(written), Index(written.chunk_size, written.chunks, written.places))


def expected(name: str, created: float, options: BackupOptions) -> Head:
    """Return the head of a backup still to be made, as far as retention rules need it."""
    document = empty_head(name, created, "", options, ())
    if options.verify:
        document["verifications"] = [
            {"at": "", "depth": "full", "result": "ok", "files": 0, "bytes": 0}
        ]
    return document


def checksum(body: Mapping[str, object]) -> str:
    """Return the SHA-256 of a document, which it holds itself."""
    return hashlib.sha256(
        json.dumps(body, sort_keys=True, separators=(",", ":")).encode("ascii")
    ).hexdigest()


def dump(head: Head, rest: Contents) -> bytes:
    """Return the manifest as a JSON file, one line per entry and per chunk."""
    lines = ",\n  ".join(_line(entry) for entry in rest.entries)
    entries = f',\n "entries": [\n  {lines}\n ]'.encode("ascii")
    index = rest.index or Index(0, (), ())
    chunks = ",\n  ".join(json.dumps(chunk) for chunk in index.chunks)
    places = json.dumps(index.places)
    tail = (
        f',\n "index": {{"chunk_size": {index.chunk_size},\n "places": {places},\n "chunks": [\n'
        f"  {chunks}\n ]}}\n}}\n"
    ).encode("ascii")
    body: dict[str, Any] = {key: value for key, value in head.items() if key != "checksum"}
    body["format"] = FORMAT
    body["entries_part"], body["index_part"] = _part(entries), _part(tail)
    body["checksum"] = checksum(body)
    return json.dumps(body, indent=1)[:-2].encode("ascii") + entries + tail


def _line(entry: ManifestEntry) -> str:
    """Return an entry as json.dumps would, which takes five times as long."""
    kind = entry["type"]
    line = (
        f'{{"path": {quoted(entry["path"])}, "type": "{kind}", "mode": "{entry["mode"]}", '
        f'"uid": {entry["uid"]}, "gid": {entry["gid"]}, "mtime_ns": {entry["mtime_ns"]}'
    )
    if kind == FILE:
        return f'{line}, "size": {entry["size"]}, "sha256": "{entry["sha256"]}"}}'
    if kind == LINK:
        return f'{line}, "target": {quoted(entry["target"])}}}'
    return line + "}"


def _part(raw: bytes) -> Part:
    return {"size": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}


def _index_problem(where: str) -> str:
    return f"the index in the manifest {where} is damaged, so reading takes longer"


def read_head(read: Callable[[int], bytes], size: int, where: str) -> tuple[Head, str]:
    """Return the head of a manifest, reading no more of it than that takes.

    Return what its size says about the index behind it, too; "" when nothing is wrong.

    :param read: returns up to so many of the next bytes, none at the end.
    :param size: size of the whole manifest in bytes.
    :param where: its path or URL, for messages.
    :raises NotUsable: it is no manifest, was made by a later format, or is damaged.
    """
    raw = b""
    while _ENTRIES not in raw:
        piece = read(HEAD)
        if not piece:
            break
        raw += piece
    head = _head(raw, where)
    if head is None:
        pieces = [raw]
        while pieces[-1]:
            pieces.append(read(HEAD))
        return _whole(b"".join(pieces), where)[0], ""
    needed = raw.index(_ENTRIES) + head["entries_part"]["size"]
    expected_size = needed + head["index_part"]["size"]
    if size < needed:
        raise NotUsable(
            f"The manifest {where} is damaged: it is {size} bytes long instead of {expected_size}.",
            "",
            where,
        )
    if size != expected_size:
        return head, _index_problem(where)
    return head, ""


def _head(raw: bytes, where: str) -> Head | None:
    """Return the head at the beginning of ``raw``; None where all of it has to be read."""
    end = raw.find(_ENTRIES)
    if end < 0:
        return None
    document = _loaded(raw[:end] + b"\n}", where)
    if document.get("format") == WHOLE:
        return None
    body = _checked(document, where)
    for part in ("entries_part", "index_part"):
        record = body.get(part)
        if not isinstance(record, dict) or not isinstance(record.get("size"), int):
            raise NotUsable(f"The manifest {where} lacks a valid {part}.", "", where)
    return cast(Head, body)


def read_set(raw: bytes, where: str) -> Head:
    """Return the head of a set, which is all of it. :raises NotUsable: as ``read_head``."""
    return cast(Head, _checked(_loaded(raw, where), where))


def _loaded(raw: bytes, where: str) -> dict[str, Any]:
    try:
        document = json.loads(raw)
    except ValueError as error:
        raise NotUsable(f"The manifest {where} is not valid JSON: {error}.", "", where) from error
    if not isinstance(document, dict):
        raise NotUsable(f"The manifest {where} is not a JSON object.", "", where)
    return document


def _checked(document: dict[str, Any], where: str) -> dict[str, Any]:
    """Return the document without its checksum, which must be right."""
    body = {key: value for key, value in document.items() if key != "checksum"}
    if document.get("checksum") != checksum(body):
        raise NotUsable(f"The manifest {where} is damaged: its checksum is wrong.", "", where)
    if body.get("format") not in (WHOLE, FORMAT):
        raise NotUsable(
            f"The manifest {where} has format {body.get('format')!r}; this version reads {FORMAT}.",
            "Use a newer mlops.fleet.",
            where,
        )
    for key, kinds in _FIELDS.items():
        if not isinstance(body.get(key), kinds):
            raise NotUsable(f"The manifest {where} lacks a valid {key}.", "", where)
    return body


def _whole(raw: bytes, where: str) -> tuple[Head, list[ManifestEntry]]:
    """Return head and entries of a manifest of format 1."""
    body = _checked(_loaded(raw, where), where)
    entries = body.pop("entries", None)
    if body["format"] != WHOLE:
        raise NotUsable(f"The manifest {where} is damaged: it was rewritten.", "", where)
    if not isinstance(entries, list):
        raise NotUsable(f"The manifest {where} lacks a valid entries.", "", where)
    return cast(Head, body), entries


def read_contents(raw: bytes, where: str) -> tuple[Head, Contents]:
    """Return head and contents of the manifest in ``raw``.

    A damaged index is left out, with the problem noted.

    :param where: its path or URL, for messages.
    :raises NotUsable: as ``read_head``, or its entries are damaged.
    """
    head = _head(raw, where)
    if head is None:
        old, entries = _whole(raw, where)
        return old, Contents(entries)
    start = raw.index(_ENTRIES)
    middle = start + head["entries_part"]["size"]
    part = raw[start:middle]
    if _part(part) != head["entries_part"]:
        raise NotUsable(
            f"The manifest {where} is damaged: the checksum of its entries is wrong.", "", where
        )
    listed: list[ManifestEntry] = json.loads(b"{" + part[1:] + b"}")["entries"]
    tail = raw[middle:]
    if _part(tail) != head["index_part"]:
        return head, Contents(listed, None, _index_problem(where))
    return head, Contents(listed, _index(json.loads(b"{" + tail[1:])["index"], listed))


def damage(raw: bytes, where: str) -> str:
    """Return what is wrong with the entries in a manifest, "" when nothing is; parses none of them.

    :raises NotUsable: as ``read_head``.
    """
    head = _head(raw, where)
    if head is None:
        return ""  # format 1 is checked as a whole whenever it is read
    start = raw.index(_ENTRIES)
    if _part(raw[start : start + head["entries_part"]["size"]]) == head["entries_part"]:
        return ""
    return f"The manifest {where} is damaged: the checksum of its entries is wrong."


def _index(record: Mapping[str, Any], entries: Sequence[ManifestEntry]) -> Index | None:
    index = Index(
        int(record["chunk_size"]),
        tuple(Chunk(*chunk) for chunk in record["chunks"]),
        tuple(record["places"]),
    )
    return index if index.chunks and len(index.places) == len(entries) else None


def parse(raw: bytes, where: str) -> Manifest:
    """Return the manifest in ``raw`` with its entries.

    :param where: its path or URL, for messages.
    :raises NotUsable: it is no manifest, was made by a later format, or is damaged.
    """
    head, rest = read_contents(raw, where)
    return cast(Manifest, {**head, "entries": rest.entries})


def verified(manifest: Head) -> bool:
    """Say whether the archive was read back and every file matched, the last time it was tried."""
    return bool(manifest["verifications"]) and manifest["verifications"][-1].get("result") == "ok"
