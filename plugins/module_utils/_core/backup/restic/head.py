# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a snapshot's tags say, in the form in which all decisions read a backup."""

from __future__ import annotations

from collections.abc import Mapping

from ...verdict import isoformat
from ..manifest import FORMAT, VERSION, Head, Verification


def of_snapshot(
    *,
    name: str,
    created: float,
    hostname: str,
    source: str,
    identifier: str,
    tags: Mapping[str, str],
) -> Head:
    """Return the head of a backup that another engine keeps, from what is in its tags.

    :param identifier: SHA-256 that names it. :param tags: ``files``, ``bytes``, ``fingerprint``,
        ``added`` (bytes) and ``verified`` (when), as far as they are there.
    """
    verification: Verification = {
        "at": tags.get("verified", ""),
        "depth": "full",
        "result": "ok",
        "files": _count(tags, "files"),
        "bytes": _count(tags, "bytes"),
    }
    return {
        "format": FORMAT,
        "tool": f"mlops.fleet {VERSION}",
        "name": name,
        "created": created,
        "created_iso": isoformat(created),
        "hostname": hostname,
        "source": source,
        "fingerprint": tags.get("fingerprint", ""),
        "compression": "restic",
        "compression_level": 0,
        "exclude": [],
        "skipped": [],
        "archive": {"size": _count(tags, "added"), "sha256": identifier, "plain_size": 0},
        "totals": {
            "files": _count(tags, "files"),
            "folders": 0,
            "links": 0,
            "bytes": _count(tags, "bytes"),
        },
        "verifications": [verification] if tags.get("verified") else [],
    }


def _count(tags: Mapping[str, str], name: str) -> int:
    text = tags.get(name, "")
    return int(text) if text.isdigit() else 0
