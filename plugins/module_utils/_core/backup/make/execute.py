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

from ...errors import WriteFailed
from ...ports import Tell, World
from ...system.files import atomic_write
from ...system.locks import lock
from ...verdict import isoformat
from .. import archive, catalogue, codecs, manifest, names, reading, verify
from ..catalogue import Backup
from ..manifest import Contents, Head, Verification
from ..options import BackupOptions
from ..source import Tree

FILE_MODE = 0o640
_DIRECTORY_MODE = 0o750


@dataclass(frozen=True)
class Made:
    """A backup that was made.

    ``tree`` is what it holds, as it was read; bytes of archives ``written`` and of files ``read``;
    seconds per phase; and how many ``archives`` were written.
    """

    backup: Backup
    tree: Tree
    written: int
    read: int
    durations: dict[str, float] = field(default_factory=dict)
    archives: int = 1


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


class Run:
    """Makes archives in the destination, which is open and locked."""

    def __init__(
        self, options: BackupOptions, created: float, world: World, tell: Tell, directory: int
    ) -> None:
        self.options, self.created, self.world = options, created, world
        self.directory, self._tell = directory, tell
        self.durations: dict[str, float] = {}

    def single(self, root: int, tree: Tree, name: str, fingerprint: str = "") -> Made:
        """Make a backup that is one archive. :raises Changed: a file changed meanwhile.

        :param fingerprint: that of the tree, if it is known.
        """
        head, written = self.archive(root, tree, name, fingerprint)
        return Made(
            published(self.options.destination, name),
            tree,
            head["archive"]["size"],
            sum(entry.size for entry in written.entries),
            self.durations,
        )

    def archive(
        self, root: int, tree: Tree, name: str, fingerprint: str = "", model: str | None = None
    ) -> tuple[Head, archive.Written]:
        """Write, prove and publish one archive.

        :param root: the source, open. :param fingerprint: that of the tree, if it is known.
        :param model: what is noted in its manifest.
        :raises Changed: a file changed meanwhile; nothing is left of the archive.
        """
        options = self.options
        temporary = f".{name}.{os.urandom(6).hex()}.tmp"
        fd = _create(self.directory, temporary, options.destination)
        try:
            try:
                with self._timed("archive"):
                    written = _write(options, root, tree, fd, self._tell)
                if written.entries != tree.entries:
                    fingerprint = ""
                host = self.world.hostname
                document = manifest.build(
                    name, self.created, host, options, tree.skipped, written, fingerprint
                )
                if model is not None:
                    document["model"] = model
                contents = manifest.contents(written)
                if options.verify:
                    with self._timed("verify"):
                        source = _source(fd, written, document, contents)
                        scan = _prove(fd, source, name, options.workers, self._tell)
                    document["verifications"].append(self._verification(scan))
            finally:
                os.close(fd)
            _publish(options.destination, self.directory, temporary, document, contents)
        except BaseException as error:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=self.directory)
            if isinstance(error, OSError):
                raise write_failed(options.destination, error) from error
            raise
        return document, written

    def _verification(self, scan: reading.Scan) -> Verification:
        return {
            "at": isoformat(self.world.clock.now()),
            "depth": "full",
            "result": "ok",
            "files": scan.files,
            "bytes": scan.bytes,
        }

    @contextlib.contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        started = self.world.clock.monotonic()
        yield
        took = self.world.clock.monotonic() - started
        self.durations[phase] = self.durations.get(phase, 0.0) + took


def write_failed(destination: str, error: OSError) -> WriteFailed:
    return WriteFailed(
        f"Writing the backup in {destination} failed: {error.strerror or error}.",
        "Nothing was kept of it and no older backup was touched; check space and disk.",
        destination,
    )


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


def published(destination: str, name: str) -> Backup:
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


def _write(options: BackupOptions, root: int, tree: Tree, fd: int, tell: Tell) -> archive.Written:
    """Write an archive to ``fd`` and synchronise it. :raises Changed: a file changed meanwhile."""
    packer = codecs.make(options.compression, options.level)
    workers = archive.cpus(options.workers)
    written = archive.write(tree, root, options.source, fd, packer, workers, tell)
    os.fchmod(fd, FILE_MODE)
    os.fsync(fd)
    return written


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
    atomic_write(checksum, f"{document['archive']['sha256']}  {name}\n", FILE_MODE)
    try:
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
        os.fsync(directory)
        atomic_write(
            os.path.join(destination, name + names.MANIFEST),
            manifest.dump(document, contents),
            FILE_MODE,
        )
    except BaseException:
        remove_files(directory, name)
        raise


def remove(directory: int, backups: Iterable[str]) -> None:
    """Remove backups by their names and make that durable.

    :raises WriteFailed: one can't be removed.
    """
    removed = False
    for name in backups:
        remove_files(directory, name)
        removed = True
    if removed:
        os.fsync(directory)


def remove_files(directory: int, name: str) -> None:
    """Remove a backup, or an archive that sets name.

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
