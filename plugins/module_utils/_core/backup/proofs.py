# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The record of restore drills that succeeded: a file beside the backups, one JSON document a line.

Lines are only added, so that hosts which share a directory lose none of each other's, and a run
that is killed spoils at most its own line.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import TypedDict

from ..errors import WriteFailed
from ..system.files import write_all

#: Name of the file in the backup directory.
FILE = "restore_proofs.jsonl"
#: Only this much of its end is read, in bytes: thousands of drills.
_READ = 1 << 20
_TEXTS = ("at", "place", "backup", "hostname")


class Proof(TypedDict, total=False):
    """A drill that succeeded, as modules return it.

    ``place`` is the directory or URL that was read. ``compared`` is ``files`` or, for an archive of
    the old scripts, ``archive``. ``seconds`` are those of restoring and comparing, ``bytes`` the
    size of the files. Only ``unreadable`` is set where the record can't be read.
    """

    at: str
    hostname: str
    place: str
    backup: str
    created: str
    sha256: str | None
    source: str
    files: int
    bytes: int
    seconds: float
    compared: str
    unreadable: str


def prepare(directory: str) -> None:
    """Make sure that a proof can be recorded, before hours of work.

    :raises WriteFailed: it can't; the directory is made when missing.
    """
    try:
        os.makedirs(directory, 0o750, exist_ok=True)
        os.close(_opened(os.path.join(directory, FILE)))
    except OSError as error:
        raise _failed(directory, error) from error


def record(directory: str, proof: Proof) -> None:
    """Add a proof to the record. :raises WriteFailed: it can't be written."""
    line = json.dumps(proof, ensure_ascii=False, sort_keys=True).encode("utf-8", "backslashreplace")
    try:
        fd = _opened(os.path.join(directory, FILE))
        try:
            size = os.fstat(fd).st_size
            # What a killed run has written in part must not spoil this line.
            torn = size > 0 and os.pread(fd, 1, size - 1) != b"\n"
            write_all(fd, (b"\n" if torn else b"") + line + b"\n")
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise _failed(directory, error) from error


def _opened(path: str) -> int:
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    return os.open(path, flags, 0o640)


def _failed(directory: str, error: OSError) -> WriteFailed:
    path = os.path.join(directory, FILE)
    return WriteFailed(
        f"Can't record the proof of a restore in {path}: {error.strerror}.",
        "Run the drill as a user who may write there.",
        path,
    )


def newest(directory: str) -> Proof | None:
    """Return the newest proof in the record, of whatever place, None when there is none."""
    return _newest(directory, lambda place: True)


def last(directory: str, place: str | None = None) -> Proof | None:
    """Return the newest proof of one place in the record, None when there is none.

    :param place: URL of copies; by default it is this machine.
    """
    return _newest(directory, lambda recorded: _is_of(recorded, place))


def _newest(directory: str, wanted: Callable[[str], bool]) -> Proof | None:
    path = os.path.join(directory, FILE)
    try:
        raw = _tail(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return {"unreadable": f"Can't read {path}: {error.strerror}."}
    # Of two in the same second the later line counts.
    lines = reversed(raw.split(b"\n"))
    proofs = [proof for proof in map(_parsed, lines) if proof is not None]
    return max(
        (proof for proof in proofs if wanted(proof["place"])),
        key=lambda proof: proof["at"],
        default=None,
    )


def _is_of(recorded: str, place: str | None) -> bool:
    if place is None:
        return "://" not in recorded
    return recorded.rstrip("/") == place.rstrip("/")


def _tail(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return os.pread(fd, _READ, max(0, os.fstat(fd).st_size - _READ))
    finally:
        os.close(fd)


def _parsed(line: bytes) -> Proof | None:
    """Return the proof in a line, None where it holds none: the file is not ours alone."""
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    if any(not isinstance(document.get(name), str) for name in _TEXTS):
        return None
    numbers = (document.get("seconds"), document.get("files"), document.get("bytes"))
    if any(isinstance(value, bool) or not isinstance(value, (int, float)) for value in numbers):
        return None
    known: Proof = {}
    for name in Proof.__annotations__:
        if name in document and name != "unreadable":
            known[name] = document[name]  # type: ignore[literal-required]
    return known
