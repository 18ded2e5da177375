# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How well the models are protected: copies counted against the 3-2-1 rule."""

from __future__ import annotations

import calendar
import os
import time
from collections.abc import Iterable, Mapping
from typing import Any, TypedDict

from .catalogue import Description

#: What the rule asks for: copies, kinds of storage, copies elsewhere.
COPIES, STORAGES, ELSEWHERE = 3, 2, 1
#: How a copy is called whose checksum the server has confirmed.
_CONFIRMED = "checksum"


class Protection(TypedDict):
    """The copies of the models, themselves included.

    ``storages`` are separate storages, ``elsewhere`` the copies that are not on this host, and
    ``verified`` the backups and copies that were verified. ``created``, ``age_hours`` and ``size``
    (bytes) are those of the newest backup, None where there is none.
    """

    copies: int
    storages: int
    elsewhere: int
    satisfied: bool
    verified: int
    created: str | None
    age_hours: float | None
    size: int | None


def on_other_storage(source: str, destination: str) -> bool:
    """Say whether two directories are on separate file systems, as far as that can be read."""
    try:
        return os.stat(source).st_dev != os.stat(destination).st_dev
    except OSError:
        return False


def count(
    backup: Description | None,
    copies: Iterable[Mapping[str, Any]],
    separate: bool,
    now: float,
) -> Protection:
    """Count the copies of the models.

    :param backup: the newest one. :param copies: of it, in other places.
    :param separate: whether the backup is on another storage than the models.
    :param now: seconds since the epoch.
    """
    kept = [
        copy for copy in copies if not copy.get("removed") and copy.get("verified") != "planned"
    ]
    at_hand = backup is not None and backup["path"].startswith("/")
    away = backup is not None and not at_hand
    elsewhere = len(kept) + int(away)
    total = 1 + int(backup is not None) + len(kept)
    storages = 1 + int(at_hand and separate) + int(elsewhere > 0)
    verified = sum(copy.get("verified") == _CONFIRMED for copy in kept)
    verified += int(backup is not None and backup["verified"])
    created = None if backup is None else backup["created"]
    return {
        "copies": total,
        "storages": storages,
        "elsewhere": elsewhere,
        "satisfied": total >= COPIES and storages >= STORAGES and elsewhere >= ELSEWHERE,
        "verified": verified,
        "created": created,
        "age_hours": None if created is None else _hours_since(created, now),
        "size": None if backup is None else backup["size"],
    }


def _hours_since(created: str, now: float) -> float:
    moment = calendar.timegm(time.strptime(created[:19], "%Y-%m-%dT%H:%M:%S"))
    return round(max(0.0, now - moment) / 3600, 2)
