# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Listing backups and verifying them; reads only."""

from __future__ import annotations

import os
from typing import Any

from ..errors import NotUsable
from ..ports import Tell, silent
from . import catalogue, verify
from .catalogue import Backup
from .options import InfoOptions


def run(options: InfoOptions, tell: Tell = silent) -> dict[str, Any]:
    """Return C(backups), newest first, C(latest) and C(verified): there is one, the newest is verified, and none has a problem.

    :raises NotUsable: the folder or archive does not exist.
    """
    if options.s3:
        from .store_s3 import Store

        store = Store(options.s3)
        found = [store.check(one, options.verify, tell) for one in store.listing()]
    else:
        found = [verify.check(one, options.verify, tell) for one in local(options.path)]
    return {
        "backups": found,
        "latest": next((one for one in found if not one["problems"]), None),
        "verified": bool(found)
        and found[0]["verified"]
        and not any(one["problems"] for one in found),
    }


def local(path: str) -> list[Backup]:
    """Return the backups in a folder, or the one that is the file C(path). :raises NotUsable: neither exists."""
    if os.path.isdir(path):
        return catalogue.listing(path)
    if not os.path.lexists(path):
        raise NotUsable(
            f"There is no backup folder or archive {path}.",
            "Check the path; no backup may have been made yet.",
            path,
        )
    return [verify.at(path)]
