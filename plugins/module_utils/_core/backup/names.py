# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""File names of backups: what is ours and what is not."""

from __future__ import annotations

import hashlib
import re
import time
from urllib.parse import quote

from .codecs import CODECS

#: The checksum file beside an archive, as sha256sum(1) writes and reads it.
CHECKSUM = ".sha256"
#: The manifest beside an archive; written last, so a backup with one is complete.
MANIFEST = ".manifest.json"
LOCK = ".models_backup.lock"
#: What the name of a set ends with.
SET = ".set.json"
#: Most characters of a model's name in the name of its archive.
_MOST_OF_MODEL = 150

_STAMP = "models_backup_([0-9]{8}_[0-9]{6})"
_SUFFIX = "(?:" + "|".join(re.escape(compression.suffix) for compression in CODECS) + ")"
_ARCHIVE = re.compile(rf"{_STAMP}{_SUFFIX}")
_MEMBER = re.compile(rf"{_STAMP}\.model\.([A-Za-z0-9_.%-]+(?:~[0-9a-f]{{16}})?){_SUFFIX}")
_SET = re.compile(rf"{_STAMP}{re.escape(SET)}")
_TEMPORARY = re.compile(r"\.(models_backup_.+?)(\.sha256|\.manifest\.json)?\.[0-9a-f]{12}\.tmp")


def is_archive(name: str) -> bool:
    """Say whether ``name`` is the file name of an archive of ours that is a backup of its own."""
    return _ARCHIVE.fullmatch(name) is not None and stamp_time(name) is not None


def is_member(name: str) -> bool:
    """Say whether ``name`` is the file name of an archive that holds one model."""
    return _MEMBER.fullmatch(name) is not None and stamp_time(name) is not None


def is_set(name: str) -> bool:
    """Say whether ``name`` is the file name of a set, which names the archives of its models."""
    return _SET.fullmatch(name) is not None and stamp_time(name) is not None


def is_backup(name: str) -> bool:
    """Say whether ``name`` is the file name of a backup: an archive or a set."""
    return is_archive(name) or is_set(name)


def is_temporary(name: str) -> bool:
    """Say whether ``name`` is a temporary file of a run of ours."""
    match = _TEMPORARY.fullmatch(name)
    return match is not None and is_companion(match.group(1))


def archive_of(temporary: str) -> str | None:
    """Return the final name of the archive in a temporary file, None when it is no archive."""
    match = _TEMPORARY.fullmatch(temporary)
    if match is None or match.group(2) is not None or is_set(match.group(1)):
        return None
    return match.group(1)


def without_companion(name: str) -> str:
    """Return the archive or set that a file belongs to by its name, or is."""
    for suffix in (CHECKSUM, MANIFEST):
        if name.endswith(suffix):
            return name[: -len(suffix)]
    return name


def is_companion(name: str) -> bool:
    """Say whether ``name`` is an archive or set of ours, or the file beside one."""
    name = without_companion(name)
    return is_backup(name) or is_member(name)


def member(created: float, model: str, suffix: str) -> str:
    """Return the file name for the archive of a model in a set made at ``created``.

    Different models have different names; what is no letter, digit, ``_``, ``-`` or ``.`` becomes
    ``%XX``, and a long name is cut and ends with a part of its SHA-256.
    """
    text = quote(model.encode("utf-8", "surrogateescape"), safe="").replace("~", "%7E")
    if len(text) > _MOST_OF_MODEL:
        digest = hashlib.sha256(text.encode("ascii")).hexdigest()[:16]
        text = f"{text[:_MOST_OF_MODEL]}~{digest}"
    return f"{stem(created)}.model.{text}{suffix}"


def stem(created: float) -> str:
    """Return the file name without suffix for a backup made at ``created``.

    :param created: seconds since the epoch; the name holds local time.
    """
    return time.strftime("models_backup_%Y%m%d_%H%M%S", time.localtime(created))


def stamp_time(name: str) -> float | None:
    """Return the time in the name of an archive or set as seconds since the epoch.

    None when it is no time.
    """
    match = _ARCHIVE.fullmatch(name) or _SET.fullmatch(name) or _MEMBER.fullmatch(name)
    if match is None:
        return None
    try:
        return time.mktime(time.strptime(match.group(1), "%Y%m%d_%H%M%S"))
    except (ValueError, OverflowError):
        return None
