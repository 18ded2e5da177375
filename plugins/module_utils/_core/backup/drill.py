# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restore drills: a backup is restored into a scratch directory, compared and removed.

What a drill does is what a restore does; it then reads every file again from the disk.
A success is recorded.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import os
import re
import signal
import stat
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn, TypedDict

from ..errors import NotPermitted, NotUsable, Refused, VerificationFailed, WriteFailed
from ..ports import Tell, World, silent
from ..system.locks import lock, lock_directory
from ..system.removal import mount_id, remove
from ..verdict import isoformat
from . import proofs
from .engines import ENGINES
from .options import RestoreOptions
from .proofs import Proof
from .restore import facts
from .restore.run import RestoredData, Result

#: The restored tree in the scratch directory; what the restore makes beside it is in there too.
_TREE = "models"


class ResultData(TypedDict):
    """What the module returns for a drill; ``last_restore_proof`` is None in check mode."""

    changed: bool
    restored: RestoredData
    last_restore_proof: Proof | None
    notes: list[str]


class _Stopped(BaseException):
    """A signal asked this process to end while the scratch directory was there."""


def run(
    options: RestoreOptions, world: World, check: bool = False, tell: Tell = silent
) -> ResultData:
    """Restore a backup into a scratch directory, compare every file, remove it, record the proof.

    :param check: only say what would be done.
    :raises VerificationFailed: what was restored is not what was backed up.
    :raises FleetError: anything else; the scratch directory is gone then, too.
    """
    parent = _scratch_parent(options.scratch)
    engine = ENGINES[options.engine]
    if check:
        inner = _inner(options, os.path.join(parent, _prefix(world)))
        planned = engine.restore(inner, world, True, tell)
        data = planned.to_dict()
        return {**data, "changed": False, "last_restore_proof": None}
    place = os.path.dirname(options.backup) if "/" in options.backup else options.path
    if options.s3 is not None or os.path.isdir(place):
        proofs.prepare(place)
    with _locked(parent), _ending_by_signal():
        notes = _remove_leftovers(parent, world)
        with _scratch(parent, world, notes) as directory:
            tree = os.path.join(directory, _TREE)
            started = world.clock.monotonic()
            result = engine.restore(_inner(options, tree), world, False, tell)
            if engine.rereads:
                _compare(result, tree, tell)
            seconds = world.clock.monotonic() - started
    proof = _proof(result, seconds, world)
    proofs.record(place, proof)
    data = result.to_dict()
    return {
        "changed": False,
        "restored": data["restored"],
        "last_restore_proof": proof,
        "notes": data["notes"] + notes,
    }


def _inner(options: RestoreOptions, destination: str) -> RestoreOptions:
    """Return the options of the restore that the drill consists of."""
    inner = copy.copy(options)
    inner.destination = destination
    inner.allow_outside_links = True  # nobody follows them, and the tree goes at once
    return inner


def _prefix(world: World) -> str:
    """Return how the names of this host's scratch directories begin."""
    return ".mlops-drill." + re.sub(r"[^A-Za-z0-9-]", "-", world.hostname)


def _scratch_parent(path: str) -> str:
    """Return the real path of the directory for scratch directories.

    :raises NotUsable: there is no such directory. :raises Refused: others could exchange what is
        in it.
    """
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise NotUsable(
            f"There is no directory {path} for the drill.",
            "Name an existing directory with scratch.",
            path,
        ) from None
    except OSError as error:
        raise NotPermitted(
            f"Can't look at {path}: {error.strerror}.", "Name another directory.", path
        ) from error
    if not stat.S_ISDIR(status.st_mode):
        raise NotUsable(f"{path} is not a directory.", "Name a directory with scratch.", path)
    if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
        raise Refused(
            f"Everybody may remove what is in {path}.",
            "Name another directory with scratch.",
            path,
        )
    return os.path.realpath(path)


@contextlib.contextmanager
def _locked(parent: str) -> Iterator[None]:
    """Hold the lock of this user's drills in a directory. :raises LockBusy: another one runs."""
    key = hashlib.sha256(os.fsencode(parent)).hexdigest()[:16]
    path = os.path.join(lock_directory(), f"mlops-fleet-drill-{key}.lock")
    with lock(path, f"restore drill in {parent}"):
        yield


@contextlib.contextmanager
def _ending_by_signal() -> Iterator[None]:
    """Let the body clear up when a signal ends the process; then end by that signal.

    A shell that has handlers of its own keeps them.
    """
    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001
        signal.signal(number, signal.SIG_IGN)  # a second one must not interrupt the clearing up
        received.append(number)
        raise _Stopped(signal.Signals(number).name)

    handled = []
    with contextlib.suppress(ValueError):  # only the main thread may set handlers
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) == signal.SIG_DFL:
                signal.signal(number, stop)
                handled.append(number)
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, signal.SIG_DFL)
        if received:
            os.kill(os.getpid(), received[0])


@contextlib.contextmanager
def _scratch(parent: str, world: World, notes: list[str]) -> Iterator[str]:
    """Give a new directory that only this user may enter; it is removed whatever happens.

    :param notes: gets what could not be removed. :raises WriteFailed: it can't be made.
    """
    name = f"{_prefix(world)}.{os.urandom(6).hex()}"
    path = os.path.join(parent, name)
    try:
        try:
            os.mkdir(path, 0o700)
        except OSError as error:
            raise WriteFailed(
                f"Can't make a scratch directory in {parent}: {error.strerror}.",
                "Name another directory with scratch.",
                parent,
            ) from error
        yield path
    finally:
        try:
            notes += _removed(parent, name)
        except BaseException:
            _removed(parent, name)  # a signal came while it was removed; the next one is ignored
            raise


def _removed(parent: str, name: str) -> list[str]:
    """Remove a scratch directory; return what could not be removed."""
    fd = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        device = os.stat(name, dir_fd=fd, follow_symlinks=False).st_dev
        return [f"could not remove {problem}" for problem in remove(fd, name, device, mount_id(fd))]
    except FileNotFoundError:
        return []
    finally:
        os.close(fd)


def _remove_leftovers(parent: str, world: World) -> list[str]:
    """Remove what killed drills of this host and user have left; return what to note."""
    pattern = re.compile(re.escape(_prefix(world)) + r"\.[0-9a-f]{12}")
    notes = []
    for name in sorted(os.listdir(parent)):
        if not pattern.fullmatch(name):
            continue
        status = os.lstat(os.path.join(parent, name))
        if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid():
            notes += _removed(parent, name) or ["removed what an interrupted drill had left"]
    return notes


def _compare(result: Result, tree: str, tell: Tell) -> None:
    """Read every restored file again and compare it with the manifest.

    :raises VerificationFailed: something differs.
    """
    wanted = result.plan.facts.wanted
    if wanted is None:
        return  # an archive of the old scripts: its own checksum was compared
    _forget(tree)
    reason = facts.difference(tree, wanted, tell)
    if reason:
        name = result.plan.facts.origin.backup.name
        raise VerificationFailed(
            f"The backup {name} was restored, but {reason}.",
            "Check the disk of the scratch directory, then the backup.",
            name,
        )


def _forget(tree: str) -> None:
    """Drop the restored files from memory, so that what is compared comes from the disk."""
    for directory, dummy, names in os.walk(tree):
        for name in names:
            with contextlib.suppress(OSError):
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                fd = os.open(os.path.join(directory, name), flags)
                try:
                    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                finally:
                    os.close(fd)


def _proof(result: Result, seconds: float, world: World) -> Proof:
    seen = result.plan.facts
    backup, head = seen.origin.backup, seen.origin.backup.manifest
    return {
        "at": isoformat(world.clock.now()),
        "hostname": world.hostname,
        "place": os.path.dirname(seen.origin.url),
        "backup": backup.name,
        "created": isoformat(backup.created),
        "sha256": backup.sha256,
        "source": "" if head is None else head["source"],
        "files": result.files,
        "bytes": result.bytes,
        "seconds": round(seconds, 3),
        "compared": "archive" if seen.wanted is None else "files",
    }
