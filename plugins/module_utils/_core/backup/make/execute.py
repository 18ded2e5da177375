# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What making a backup writes.

Nothing is decided here: what is done, and under which name, stands in the plan.

Order, and why: the archive is written under a temporary name, synchronised, read back and compared;
then the checksum file, then the archive's rename to its final name, then the manifest, which says
that the backup is complete. Killed at any moment, no half archive ever has a final name and nothing
old is lost.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from ...errors import NotUsable, WriteFailed
from ...ports import Tell, World
from ...system.files import atomic_write
from ...system.locks import lock
from ...system.text import display_path
from ...verdict import isoformat
from .. import archive, catalogue, codecs, manifest, names, reading, verify
from ..catalogue import Backup
from ..manifest import Contents, Head
from ..source import Tree
from . import facts
from .plan import Plan

#: How often a run starts over because a file changed while it was read.
ATTEMPTS = 3
_FILE_MODE = 0o640
_DIRECTORY_MODE = 0o750


@dataclass(frozen=True)
class Made:
    """A backup that was made: what it holds, as it was read, and the seconds per phase."""

    backup: Backup
    tree: Tree
    written: int
    durations: dict[str, float] = field(default_factory=dict)


@contextlib.contextmanager
def locked(destination: str) -> Iterator[int]:
    """Give the descriptor of the destination, made when missing, under its lock.

    :raises LockBusy: another run is at work there. :raises WriteFailed: it can't be made.
    """
    _make_directory(destination)
    with lock(os.path.join(destination, names.LOCK), "backup to this directory"):
        directory = os.open(
            os.path.realpath(destination), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        )
        try:
            yield directory
        finally:
            os.close(directory)


def _make_directory(path: str) -> None:
    missing = []
    while not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    for ancestor in reversed(missing):
        try:
            os.mkdir(ancestor, _DIRECTORY_MODE)
            os.chmod(ancestor, _DIRECTORY_MODE)
        except FileExistsError:
            continue
        except OSError as error:
            raise WriteFailed(
                f"Can't make the directory {ancestor}: {error.strerror}.",
                "Check the permissions of its parent directory.",
                ancestor,
            ) from error


def discard(directory: int, temporaries: Iterable[str]) -> None:
    """Remove temporary files of dead runs.

    Before each, the checksum file of an archive that never got its name.
    """
    for temporary in temporaries:
        archived = names.archive_of(temporary)
        if archived is not None and not os.path.lexists(f"/proc/self/fd/{directory}/{archived}"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(archived + names.CHECKSUM, dir_fd=directory)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=directory)


def make(plan: Plan, world: World, tell: Tell, directory: int) -> Made:
    """Write, prove and publish one archive.

    :param directory: the destination, open and locked.
    :raises VerificationFailed: the archive is not what was written.
    :raises WriteFailed:
    :raises NotUsable: see the message.
    """
    options, name = plan.options, plan.current.name
    temporary = f".{name}.{os.urandom(6).hex()}.tmp"
    fd = _create(directory, temporary, options.destination)
    durations: dict[str, float] = {}
    try:
        try:
            started = world.clock.monotonic()
            tree, written = _write(plan, fd, tell)
            durations["archive"] = world.clock.monotonic() - started
            document = manifest.build(
                name, plan.current.created, world.hostname, options, tree.skipped, written
            )
            contents = manifest.contents(written)
            if options.verify:
                started = world.clock.monotonic()
                source = _source(fd, written, document, contents)
                scan = _prove(fd, source, name, options.workers, tell)
                document["verifications"].append(
                    {
                        "at": isoformat(world.clock.now()),
                        "depth": "full",
                        "result": "ok",
                        "files": scan.files,
                        "bytes": scan.bytes,
                    }
                )
                durations["verify"] = world.clock.monotonic() - started
        finally:
            os.close(fd)
        _publish(options.destination, directory, temporary, document, contents)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=directory)
        if isinstance(error, OSError):
            raise WriteFailed(
                f"Writing the backup in {options.destination} failed: {error.strerror or error}.",
                "Nothing was kept of it and no older backup was touched; check space and disk.",
                options.destination,
            ) from error
        raise
    return Made(_published(options.destination, name), tree, written.size, durations)


def _create(directory: int, temporary: str, destination: str) -> int:
    """Create the file that the archive is written to; nobody else may read it yet."""
    try:
        return os.open(
            temporary,
            os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC,
            0o600,
            dir_fd=directory,
        )
    except OSError as error:
        raise WriteFailed(
            f"Can't write in {destination}: {error.strerror}.",
            "Check its permissions.",
            destination,
        ) from error


def _published(destination: str, name: str) -> Backup:
    """Return the backup as it is listed now.

    :raises WriteFailed: it is not there or not complete.
    """
    backup = catalogue.inspect(destination, name)
    if backup is None or not backup.complete:
        raise WriteFailed(
            f"The backup {name} is not there after it was written.",
            "Does something else clean this directory?",
            destination,
        )
    return backup


def _write(plan: Plan, fd: int, tell: Tell) -> tuple[Tree, archive.Written]:
    """Write the archive to ``fd`` and synchronise it.

    Start over when a file changed while it was read.
    """
    options, tree = plan.options, plan.facts.tree
    packer = codecs.make(options.compression, options.level)
    path = ""
    with facts.opened_source(options.source) as root:
        for attempt in range(ATTEMPTS):
            if attempt:
                tree = facts.walk(root, options)
                os.ftruncate(fd, 0)
                os.lseek(fd, 0, os.SEEK_SET)
            try:
                written = archive.write(
                    tree, root, options.source, fd, packer, archive.cpus(options.workers), tell
                )
            except archive.Changed as change:
                path = str(change.args[0])
                continue
            os.fchmod(fd, _FILE_MODE)
            os.fsync(fd)
            return tree, written
    full = display_path(f"{options.source}/{path}")
    raise NotUsable(
        f"{full} changed while it was read, {ATTEMPTS} times in a row.",
        "Back up when nothing writes to it, or exclude it.",
        full,
    )


def _source(
    fd: int, written: archive.Written, document: Head, contents: Contents
) -> verify.Archive:
    """Return the archive open as ``fd`` as something to be read back."""

    def opened() -> BinaryIO:
        os.lseek(fd, 0, os.SEEK_SET)
        return os.fdopen(os.dup(fd), "rb", buffering=0)

    return verify.Archive(
        open=opened,
        read=lambda offset, length: os.pread(fd, length, offset),
        size=written.size,
        sha256=written.sha256,
        head=document,
        contents=contents,
    )


def _prove(fd: int, source: verify.Archive, name: str, workers: int, tell: Tell) -> reading.Scan:
    """Read the synchronised archive back and compare everything.

    :raises VerificationFailed: it is not what was written.
    """
    # Drop it from memory first, so that what is compared comes from the disk.
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    scan = verify.full(source, tell, name, workers)
    scan.raise_for(f"The new backup {name}")
    return scan


def _publish(
    destination: str, directory: int, temporary: str, document: Head, contents: Contents
) -> None:
    """Give the archive its name.

    The checksum comes before and the manifest after, each synchronised on its own.
    """
    name = document["name"]
    checksum = os.path.join(destination, name + names.CHECKSUM)
    atomic_write(checksum, f"{document['archive']['sha256']}  {name}\n", _FILE_MODE)
    try:
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
        os.fsync(directory)
        atomic_write(
            os.path.join(destination, name + names.MANIFEST),
            manifest.dump(document, contents),
            _FILE_MODE,
        )
    except BaseException:
        _remove(directory, name)
        raise


def remove(directory: int, backups: Iterable[str]) -> None:
    """Remove backups by their names and make that durable.

    :raises WriteFailed: one can't be removed.
    """
    removed = False
    for name in backups:
        _remove(directory, name)
        removed = True
    if removed:
        os.fsync(directory)


def _remove(directory: int, name: str) -> None:
    """Remove a backup.

    First the manifest that calls it complete, last the archive, so that a killed run leaves nothing
    unseen.

    Only plain files are ever unlinked.
    """
    for file in (name + names.MANIFEST, name + names.CHECKSUM, name):
        try:
            if stat.S_ISREG(os.stat(file, dir_fd=directory, follow_symlinks=False).st_mode):
                os.unlink(file, dir_fd=directory)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise WriteFailed(
                f"Can't remove the old backup {file}: {error.strerror}.",
                "Check the directory's permissions.",
                file,
            ) from error
