# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""File names of backups: what is ours and what is not."""

from __future__ import annotations

import re
import time

from .codecs import CODECS

#: The checksum file beside an archive, as sha256sum(1) writes and reads it.
CHECKSUM = ".sha256"
#: The manifest beside an archive; written last, so a backup with one is complete.
MANIFEST = ".manifest.json"
LOCK = ".models_backup.lock"

_SUFFIX = "(?:" + "|".join(re.escape(compression.suffix) for compression in CODECS) + ")"
_ARCHIVE = re.compile(rf"models_backup_([0-9]{{8}}_[0-9]{{6}}){_SUFFIX}")
_TEMPORARY = re.compile(
    rf"\.(models_backup_[0-9]{{8}}_[0-9]{{6}}{_SUFFIX})(\.sha256|\.manifest\.json)?\.[0-9a-f]{{12}}\.tmp"
)


def is_archive(name: str) -> bool:
    """Say whether ``name`` is the file name of an archive of ours."""
    return _ARCHIVE.fullmatch(name) is not None and stamp_time(name) is not None


def is_temporary(name: str) -> bool:
    """Say whether ``name`` is a temporary file of a run of ours."""
    return _TEMPORARY.fullmatch(name) is not None


def archive_of(temporary: str) -> str | None:
    """Return the final name of the archive in a temporary file, None when it is no archive."""
    match = _TEMPORARY.fullmatch(temporary)
    return match.group(1) if match is not None and match.group(2) is None else None


def is_companion(name: str) -> bool:
    """Say whether ``name`` is an archive of ours or the checksum file or manifest beside one."""
    for suffix in (CHECKSUM, MANIFEST):
        if name.endswith(suffix):
            return is_archive(name[: -len(suffix)])
    return is_archive(name)


def stem(created: float) -> str:
    """Return the file name without suffix for a backup made at ``created``.

    :param created: seconds since the epoch; the name holds local time.
    """
    return time.strftime("models_backup_%Y%m%d_%H%M%S", time.localtime(created))


def stamp_time(name: str) -> float | None:
    """Return the time in an archive's name as seconds since the epoch, None when it is no time."""
    match = _ARCHIVE.fullmatch(name)
    if match is None:
        return None
    try:
        return time.mktime(time.strptime(match.group(1), "%Y%m%d_%H%M%S"))
    except (ValueError, OverflowError):
        return None
