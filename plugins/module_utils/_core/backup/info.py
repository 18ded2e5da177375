# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Listing backups and verifying them; reads only, so there is nothing to plan or to carry out."""

from __future__ import annotations

import os
from typing import TypedDict

from ..errors import NotPermitted, NotUsable
from ..ports import Tell, silent
from . import catalogue, local, proofs, stores, verify
from .catalogue import Description
from .options import InfoOptions
from .proofs import Proof


class Result(TypedDict):
    """What the module returns.

    ``backups``, newest first, and ``latest``, the newest without a problem.

    ``verified``: there is a backup, the newest is verified, and none has a problem.

    ``last_restore_proof`` is the newest drill on record that restored one of these backups, None
    when there is none.
    """

    backups: list[Description]
    latest: Description | None
    verified: bool
    last_restore_proof: Proof | None


def run(options: InfoOptions, tell: Tell = silent) -> Result:
    """List the backups and check each as thoroughly as the options say.

    :raises NotUsable: the directory or archive does not exist or can't be read.
    """
    store = stores.to_read(options, options.path)
    place: str | None = store.url("")
    if isinstance(store, local.LocalStore):
        _require(options.path)
        place = None
    return summarise(
        [verify.check(backup, options.verify, tell, store) for backup in store.listing()],
        proofs.last(record_directory(options.path), place),
    )


def record_directory(path: str) -> str:
    """Return the directory that may hold the record of drills: that of an archive is beside it."""
    return os.path.dirname(path) if os.path.isfile(path) else path


def summarise(backups: list[Description], proof: Proof | None = None) -> Result:
    """Return the result for these descriptions, which are ordered newest first."""
    sound = [backup for backup in backups if not backup["problems"]]
    return {
        "backups": backups,
        "latest": sound[0] if sound else None,
        "verified": bool(backups) and backups[0]["verified"] and len(sound) == len(backups),
        "last_restore_proof": proof,
    }


def _require(path: str) -> None:
    """:raises NotUsable: there is nothing at this path. :raises NotPermitted: that is unknown."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise NotUsable(
            f"There is no backup directory or archive {path}.",
            "Check the path; no backup may have been made yet.",
            path,
        ) from None
    except OSError as error:
        raise NotPermitted(
            f"Can't look at {path}: {error.strerror}.", catalogue.TODO, path
        ) from error
