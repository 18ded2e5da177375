# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The manifest of a backup: what is in it, with a SHA-256 per file. Its existence says that the backup is complete."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ..errors import NotUsable
from ..verdict import isoformat
from .archive import Written
from .source import FILE, FOLDER, LINK, fingerprint

FORMAT = 1
#: Version of the collection, recorded in what it writes.
VERSION = "0.1.0"

_FIELDS: tuple[tuple[str, type], ...] = (
    ("format", int),
    ("name", str),
    ("created", (int, float)),  # type: ignore[assignment]
    ("source", str),
    ("fingerprint", str),
    ("archive", dict),
    ("totals", dict),
    ("entries", list),
    ("verifications", list),
)


def build(
    name: str,
    created: float,
    hostname: str,
    source: str,
    options: Mapping[str, Any],
    skipped: tuple[str, ...],
    written: Written,
) -> dict[str, Any]:
    """Return the manifest of an archive just written.

    C(created) is in seconds since the epoch, sizes in bytes, times of files in nanoseconds. Undecodable bytes of names are lone
    surrogates, which JSON carries as escapes.
    """
    entries = []
    for entry in written.entries:
        found: dict[str, Any] = {
            "path": entry.path,
            "type": entry.type,
            "mode": f"{entry.mode:04o}",
            "uid": entry.uid,
            "gid": entry.gid,
        }
        found["mtime_ns"] = entry.mtime_ns
        if entry.type == FILE:
            found.update(size=entry.size, sha256=written.digests[entry.path])
        elif entry.type == LINK:
            found["target"] = entry.target
        entries.append(found)
    return {
        "format": FORMAT,
        "tool": f"mlops.fleet {VERSION}",
        "name": name,
        "created": created,
        "created_iso": isoformat(created),
        "hostname": hostname,
        "source": source,
        "fingerprint": fingerprint(source, written.entries),
        "compression": options["compression"],
        "compression_level": options["compression_level"],
        "exclude": list(options["exclude"]),
        "skipped": list(skipped),
        "archive": {"size": written.size, "sha256": written.sha256, "plain_size": written.plain},
        "totals": {
            "files": sum(entry.type == FILE for entry in written.entries),
            "folders": sum(entry.type == FOLDER for entry in written.entries),
            "links": sum(entry.type == LINK for entry in written.entries),
            "bytes": sum(entry.size for entry in written.entries),
        },
        "entries": entries,
        "verifications": [],
    }


def _checksum(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(
        json.dumps(body, sort_keys=True, separators=(",", ":")).encode("ascii")
    ).hexdigest()


def dump(manifest: Mapping[str, Any]) -> bytes:
    """Return the manifest as a JSON file, one line per entry, with a checksum over everything else in it."""
    body = {key: value for key, value in manifest.items() if key != "checksum"}
    lines = [json.dumps(entry) for entry in body["entries"]]
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


def parse(raw: bytes, where: str) -> dict[str, Any]:
    """Return the manifest in C(raw). :raises NotUsable: it is no manifest, was made by a later format, or is damaged."""
    try:
        found = json.loads(raw)
    except ValueError as error:
        raise NotUsable(f"The manifest {where} is not valid JSON: {error}.", "", where) from error
    if not isinstance(found, dict):
        raise NotUsable(f"The manifest {where} is not a JSON object.", "", where)
    body = {key: value for key, value in found.items() if key != "checksum"}
    if found.get("checksum") != _checksum(body):
        raise NotUsable(f"The manifest {where} is damaged: its checksum is wrong.", "", where)
    if body.get("format") != FORMAT:
        raise NotUsable(
            f"The manifest {where} has format {body.get('format')!r}; this version reads {FORMAT}.",
            "Use a newer mlops.fleet.",
            where,
        )
    for key, kind in _FIELDS:
        if not isinstance(body.get(key), kind):
            raise NotUsable(f"The manifest {where} lacks a valid {key}.", "", where)
    return body


def verified(manifest: Mapping[str, Any]) -> bool:
    """Say whether the archive was read back whole and every file matched, the last time that was tried."""
    return bool(manifest["verifications"]) and manifest["verifications"][-1].get("result") == "ok"
