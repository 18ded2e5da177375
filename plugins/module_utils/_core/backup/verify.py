# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Proving that a backup can be restored, without restoring it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from ..errors import FleetError, NotUsable, VerificationFailed
from ..ports import Progress, Tell, silent
from . import catalogue, reading
from .catalogue import Backup
from .codec import BLOCK
from .reading import Problem, Scan


def full(
    stream: BinaryIO,
    size: int,
    manifest: Mapping[str, Any] | None,
    sha256: str | None,
    tell: Tell,
    what: str,
) -> Scan:
    """Read an archive back whole: every file is unpacked and hashed. Problems are in the result, each names its file.

    An archive in which no file was found, or fewer than the manifest says, has a problem too.
    """
    try:
        found = reading.scan(stream, size, manifest, sha256, tell)
    except (
        FleetError
    ) as error:  # an entry that may not be there, a store that fails, a library that is missing
        found = Scan()
        found.add(str(error))
    except OSError as error:
        found = Scan()
        found.add(f"can't be read: {error.strerror or error}")
    if not found.files and not found.problems:
        found.add(f"{what} holds no file")
    return found


def quick(stream: BinaryIO, sha256: str | None, size: int, tell: Tell) -> list[Problem]:
    """Compare an archive's SHA-256 only; finds any change since it was made, but says not which file is hit."""
    if sha256 is None:
        return [Problem("there is no checksum to compare with")]
    digest, done = hashlib.sha256(), 0
    try:
        while True:
            block = stream.read(BLOCK)
            if not block:
                break
            digest.update(block)
            done += len(block)
            tell(Progress("verify", done, size))
    except FleetError as error:
        return [Problem(str(error))]
    except OSError as error:
        return [Problem(f"can't be read: {error.strerror or error}")]
    if digest.hexdigest() != sha256:
        return [
            Problem(
                f"the archive's SHA-256 is {digest.hexdigest()}, but was {sha256} when it was made"
            )
        ]
    return []


def check(
    backup: Backup,
    depth: str,
    tell: Tell = silent,
    opener: Callable[[Backup], BinaryIO] | None = None,
) -> dict[str, Any]:
    """Return C(backup.to_dict()) with what a look of that depth (C(none quick full)) found.

    :param opener: opens the archive's stream; by default the local file.

    With C(full), C(verified) is what this look found; otherwise what is on record, and false when there is any problem.
    """
    found = backup.to_dict()
    found["checked"] = depth
    if depth == "none" or (opener is None and not os.path.lexists(backup.path)):
        return found
    problems = list(backup.problems)
    try:
        stream = opener(backup) if opener is not None else reading.open_archive(backup.path)
    except FleetError as error:
        found.update(problems=[*problems, error.message], verified=False)
        return found
    with stream:
        if depth == "quick":
            problems += [
                str(problem) for problem in quick(stream, backup.sha256, backup.size, tell)
            ]
            found.update(problems=problems, verified=backup.verified and not problems)
            return found
        scan = full(stream, backup.size, backup.manifest, backup.sha256, tell, "the archive")
    problems += [str(problem) for problem in scan.problems if str(problem) not in problems]
    if scan.more_problems:
        problems.append(f"{scan.more_problems} more problems")
    # Without any checksum nothing is proven beyond that it can be unpacked.
    found.update(
        problems=problems,
        verified=not problems and backup.sha256 is not None,
        files=scan.files,
        bytes=scan.bytes,
    )
    return found


def at(path: str) -> Backup:
    """Return the backup whose archive is the file C(path), whatever its name. :raises NotUsable: there is no such file."""
    folder, name = os.path.split(os.path.abspath(path))
    found = catalogue.inspect(folder, name)
    if found is None:
        raise NotUsable(
            f"There is no archive {path}.",
            "Name an existing archive file; links are not followed.",
            path,
        )
    return found


def verify_file(path: str, tell: Tell = silent) -> dict[str, Any]:
    """Verify one archive in full and return its description. :raises VerificationFailed: it has a problem; the message says which."""
    found = check(at(path), "full", tell)
    if not found["verified"]:
        problems = found["problems"] or ["there is no checksum to compare with"]
        raise VerificationFailed(
            f"{path} failed its verification: {'; '.join(problems[:5])}.",
            "Use another backup.",
            path,
        )
    return found
