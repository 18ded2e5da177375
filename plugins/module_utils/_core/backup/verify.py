# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Proving that a backup can be restored, without restoring it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from typing import BinaryIO, NamedTuple

from ..errors import ColdStorage, FleetError, NotPermitted, NotUsable, VerificationFailed
from ..ports import Progress, Tell, silent
from . import archive, catalogue, chunks, local, reading, sets
from .catalogue import Backup, Description
from .codec import BLOCK
from .manifest import Contents, Head
from .reading import Problem, Scan
from .store import Store


class Archive(NamedTuple):
    """An archive to be read back.

    :param open: opens it as a stream; may be called again.
    :param read: returns a range of it, given offset and length.
    :param sha256: what its SHA-256 must be, None where that is not known.
    :param head: of its manifest, None where there is none; ``contents`` likewise.
    """

    open: Callable[[], BinaryIO]
    read: Callable[[int, int], bytes]
    size: int
    sha256: str | None
    head: Head | None
    contents: Contents | None


def full(source: Archive, tell: Tell, what: str, workers: int = 0) -> Scan:
    """Read a whole archive back: every file is unpacked and hashed.

    Problems are in the result, each names its file.

    An archive that holds no file, or fewer than the manifest says, has a problem too.

    :param workers: threads, 0 for one per CPU.
    """
    try:
        scan = _by_index(source, tell, workers) or _thorough(source, tell)
    except FleetError as error:
        # An entry that may not be there, a store that fails, or a library that is missing.
        scan = Scan()
        scan.add(str(error))
    except OSError as error:
        scan = Scan()
        scan.add(f"can't be read: {error.strerror or error}")
    # The archive of a model that is a link, or an empty directory, holds no file by right.
    expects_files = source.head is None or source.head["totals"]["files"]
    if not scan.files and not scan.problems and expects_files:
        scan.add(f"{what} holds no file")
    return scan


def _by_index(source: Archive, tell: Tell, workers: int) -> Scan | None:
    """Read an archive by its index; None where there is none, or anything differs."""
    if source.head is None or source.contents is None:
        return None
    if not chunks.usable(source.head, source.contents):
        return None
    if source.sha256 != source.head["archive"]["sha256"]:
        return None
    with source.open() as stream:
        scan = chunks.scan(stream, source.head, source.contents, archive.cpus(workers), tell)
    return None if scan.problems else scan


def _thorough(source: Archive, tell: Tell) -> Scan:
    """Read an archive in one pass, and name the damaged ranges where there is an index."""
    size = source.size if source.head is None else source.head["archive"]["size"]
    with source.open() as stream:
        scan = reading.scan(stream, size, source.contents, source.sha256, tell)
    if scan.problems and source.contents is not None:
        for line in chunks.damage(source.read, source.contents):
            scan.add(line)
    return scan


def quick(stream: BinaryIO, sha256: str | None, size: int, tell: Tell) -> list[Problem]:
    """Compare an archive's SHA-256 only.

    Detects any change since it was made, but not which file is hit.
    """
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
    store: Store | None = None,
) -> Description:
    """Return ``backup.to_dict()`` with what a check of that depth (``none quick full``) detected.

    With ``full``, ``verified`` is the result of this check; otherwise what is on record, and false
    when there is any problem.

    :param store: where it is; by default on this machine.
    """
    description = backup.to_dict()
    description["checked"] = depth
    if depth == "none" or backup.lost:
        return description
    place = store or local.LocalStore(os.path.dirname(backup.path))
    if backup.is_set:
        return _check_set(backup, description, depth, tell, place)
    problems = list(backup.problems)
    try:
        stream = place.open(backup)
    except FleetError as error:
        return _failed(description, [*problems, error.message], error)
    with stream:
        contents: Contents | None = None
        try:
            contents = place.contents(backup)
            if contents is not None and contents.problem:
                problems.append(contents.problem)
        except FleetError as error:
            problems.append(error.message)
        if depth == "quick":
            problems += [
                str(problem) for problem in quick(stream, backup.sha256, backup.size, tell)
            ]
            description["problems"] = problems
            description["verified"] = backup.verified and not problems
            return description
    return _check_whole(backup, description, problems, contents, place, tell)


def _check_set(
    backup: Backup, description: Description, depth: str, tell: Tell, place: Store
) -> Description:
    """Check each archive of a set."""
    problems, files, size, verified = [], 0, 0, backup.manifest is not None
    for archived, member in zip(backup.archives, place.members(backup)):
        checked = check(member, depth, tell, place)
        known = set(backup.problems) | set(member.problems)
        problems += [
            sets.problem(archived, problem)
            for problem in checked["problems"]
            if problem not in known
        ]
        problems += [problem for problem in member.problems if problem not in backup.problems]
        verified = verified and checked["verified"]
        files, size = files + checked.get("files", 0), size + checked.get("bytes", 0)
        if "unreadable" in checked:
            description["unreadable"] = checked["unreadable"]
    description["problems"] = [*backup.problems, *problems]
    description["verified"] = verified and not description["problems"]
    if depth == "full":
        description["files"], description["bytes"] = files, size
    return description


def _check_whole(
    backup: Backup,
    description: Description,
    problems: list[str],
    contents: Contents | None,
    place: Store,
    tell: Tell,
) -> Description:
    """Read an archive back. :param problems: what is known already."""
    source = Archive(
        open=lambda: place.open(backup),
        read=lambda offset, length: place.read(backup, offset, length),
        size=backup.size,
        sha256=backup.sha256,
        head=backup.manifest,
        contents=contents,
    )
    scan = full(source, tell, "the archive")
    problems += [str(problem) for problem in scan.problems if str(problem) not in problems]
    if scan.more_problems:
        problems.append(f"{scan.more_problems} more problems")
    description["problems"] = problems
    # Without any checksum nothing is proven beyond that it can be unpacked.
    description["verified"] = not problems and backup.sha256 is not None
    description["files"] = scan.files
    description["bytes"] = scan.bytes
    return description


def _failed(description: Description, problems: list[str], error: FleetError) -> Description:
    description["problems"] = problems
    description["verified"] = False
    if isinstance(error, NotPermitted):
        description["unreadable"] = error.message
    if isinstance(error, ColdStorage):
        description["unreadable"] = str(error)
    return description


def at(path: str) -> Backup:
    """Return the backup whose archive is the file ``path``, whatever its name.

    :raises NotUsable: there is no such file.
    """
    directory, name = os.path.split(os.path.abspath(path))
    backup = catalogue.inspect(directory, name)
    if backup is None:
        raise NotUsable(
            f"There is no archive {path}.",
            "Name an existing archive file; links are not followed.",
            path,
        )
    return backup


def verify_file(path: str, tell: Tell = silent) -> Description:
    """Verify one archive in full and return its description.

    :raises VerificationFailed: it has a problem, which the message names.
    """
    description = check(at(path), "full", tell)
    if not description["verified"]:
        problems = description["problems"] or ["there is no checksum to compare with"]
        raise VerificationFailed(
            f"{path} failed its verification: {'; '.join(problems[:5])}.",
            "Use another backup.",
            path,
        )
    return description
