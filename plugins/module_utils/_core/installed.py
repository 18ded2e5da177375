# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which version of the agent a node has, and how it compares with the collection's.

Versions are named C(RELEASE-DIGEST).
"""

from __future__ import annotations

import os
import re
from typing import Any

#: Where the agent role installs by default. An agent elsewhere is not seen.
DIRECTORY = "/opt/mlops-fleet"
_VERSION = re.compile(r"^(?P<release>[0-9A-Za-z][0-9A-Za-z.+_-]{0,60})-(?P<digest>[0-9a-f]{12})$")


def agent_version(directory: str = DIRECTORY) -> str | None:
    """Return the version of the agent that is current in the install directory, None where there is
    none or it is unreadable.
    """
    try:
        with open(
            os.path.join(directory, "current", "mlops_fleet", "VERSION"), encoding="ascii"
        ) as stream:
            text = stream.read(100).strip()
    except (OSError, UnicodeDecodeError):
        return None
    if _VERSION.match(text):
        return text
    return None


def _order(release: str) -> tuple[Any, ...]:
    """Return a key that sorts releases as semantic versioning does: numbers as numbers,
    C(1.0.0-rc1) before C(1.0.0).
    """
    release, _plus, _build = release.partition("+")
    numbers, _dash, before = release.partition("-")
    parts = [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in before.split(".")]
    return [int(part) if part.isdigit() else 0 for part in numbers.split(".")], not before, parts


def compare(version: str, collection: str) -> str:
    """Say in a sentence how a node's agent differs from the collection's C(version); empty when it
    is the same, or either is unknown.
    """
    ours, theirs = _VERSION.match(version), _VERSION.match(collection)
    if not ours or not theirs or version == collection:
        return ""
    mine, wanted = _order(ours["release"]), _order(theirs["release"])
    how, todo = "another build than", "; run mlops.fleet.install to renew it"
    if mine < wanted:
        how = "older than"
    elif mine > wanted:
        how, todo = "newer than", ""
    return f"the agent on this node ({version}) is {how} the collection ({collection}){todo}"
