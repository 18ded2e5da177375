# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a restore writes.

A temporary tree beside the destination, every file compared while it is written, then one atomic
step.

What comes out of an archive is trusted in nothing: names stay below the tree (descriptors, no link
is ever followed), links are made last, devices and pipes are refused, and until everything has
matched the destination is untouched.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import glob
import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from ...errors import Refused, VerificationFailed, WriteFailed
from ...ports import Tell
from ...system.locks import lock, lock_directory
from ...system.removal import mount_id, remove
from ...system.roots import open_directory
from ...system.text import display_path
from .. import archive, chunks, reading, source
from ..writer import Writer
from .facts import holds_something, names_in
from .parts import Part
from .plan import Plan, Recovery

_RENAME_EXCHANGE = 2
#: Problems of a damaged backup that are noted one by one.
_MOST_NOTES = 20


@dataclass(frozen=True)
class Restored:
    """What was restored.

    Paths before and after, counts (bytes), and what was wrong with the backup or could not be
    removed.
    """

    before: list[str]
    after: list[str]
    files: int
    size: int
    notes: list[str]


@contextlib.contextmanager
def locked(destination: str) -> Iterator[None]:
    """Hold the lock of the restores to this destination.

    :raises LockBusy: another one is running.
    """
    parent, name = os.path.split(destination)
    key = hashlib.sha256(os.fsencode(os.path.join(os.path.realpath(parent), name))).hexdigest()[:16]
    path = os.path.join(lock_directory(), f"mlops-fleet-restore-{key}.lock")
    with lock(path, f"restore to {destination}"):
        yield


@contextlib.contextmanager
def opened_parent(destination: str, failure: str, todo: str) -> Iterator[int]:
    """Give the descriptor of the destination's parent.

    What goes wrong in the body becomes a WriteFailed.

    :param failure: the beginning of its message.
    """
    directory = open_directory(os.path.realpath(os.path.dirname(destination)))
    try:
        yield directory
    except OSError as error:
        raise WriteFailed(f"{failure}: {error.strerror or error}.", todo, destination) from error
    finally:
        os.close(directory)


def make_parents(destination: str) -> None:
    """Make the directories above the destination. :raises WriteFailed: it can't be done."""
    parent = os.path.dirname(destination)
    try:
        os.makedirs(parent, 0o750, exist_ok=True)
    except OSError as error:
        raise WriteFailed(
            f"Can't make the directory {parent}: {error.strerror}.",
            "Check the permissions of its parent directory.",
            parent,
        ) from error


def recover(recovery: Recovery, directory: int) -> list[str]:
    """Put back and remove what the plan says, in the open parent directory; return what to note.

    :raises OSError: it failed.
    """
    notes = []
    if recovery.put_back is not None:
        name = os.path.basename(recovery.destination)
        os.rename(recovery.put_back, name, src_dir_fd=directory, dst_dir_fd=directory)
        notes.append("put back the directory that an interrupted restore had moved aside")
    for leftover in recovery.remove:
        remains = discard(directory, leftover)
        notes.append(
            _remains_note(remains) if remains else "removed what an interrupted restore had left"
        )
    return notes


def carry_out(plan: Plan, directory: int, tell: Tell) -> Restored:
    """Restore, under the lock.

    :param directory: the destination's parent, open.
    :raises VerificationFailed: the archive is not what was backed up; nothing is left of it.
    :raises OSError: writing failed.
    """
    facts, options = plan.facts, plan.options
    name = os.path.basename(facts.destination)
    temporary = f".{name}.mlops-restore.{os.urandom(6).hex()}"
    os.mkdir(temporary, 0o700, dir_fd=directory)
    try:
        root = os.open(
            temporary,
            os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC,
            dir_fd=directory,
        )
        try:
            with contextlib.closing(_writer(root, plan)) as tree:
                notes = _fill(tree, plan, tell)
                tree.finish(root_mode(directory, name))
        finally:
            os.close(root)
        before = names_in(facts.destination) if options.mode == "replace" else []
        swap(directory, temporary, name, facts.destination)
    except BaseException:
        discard(directory, temporary)
        raise
    os.fsync(directory)
    remains = discard(directory, temporary)  # holds the replaced tree now, if there was one
    if remains:
        notes.append(_remains_note(remains))
    return Restored(before, sorted(tree.restored), tree.files, tree.bytes, notes)


def _remains_note(remains: list[str]) -> str:
    listed = "; ".join(display_path(problem) for problem in remains)
    return f"could not remove all of an old tree beside the destination: {listed}"


def root_mode(directory: int, name: str) -> int:
    try:
        return stat.S_IMODE(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return 0o750


def discard(directory: int, name: str) -> list[str]:
    """Remove a tree of ours below an open directory; return what could not be removed.

    Links and mounts in it are never entered.
    """
    try:
        device = os.stat(name, dir_fd=directory, follow_symlinks=False).st_dev
    except FileNotFoundError:
        return []
    if os.geteuid() != 0:
        with contextlib.suppress(OSError):
            _open_up(directory, name)
    return remove(directory, name, device, mount_id(directory))


def _open_up(directory: int, name: str) -> None:
    """Make the directories of a tree of ours accessible to us, their owner.

    Root needs no such thing.
    """
    mount, pending = mount_id(directory), [name]
    with source.below(directory) as directories:
        while pending:
            path = pending.pop()
            where, dummy, base = path.rpartition("/")
            os.chmod(base, 0o700, dir_fd=directories.open(where))
            fd = directories.open(path)
            if mount_id(fd) == mount:
                inner = [
                    child
                    for child in os.listdir(fd)
                    if stat.S_ISDIR(os.stat(child, dir_fd=fd, follow_symlinks=False).st_mode)
                ]
                pending.extend(f"{path}/{child}" for child in inner)


def _writer(root: int, plan: Plan) -> Writer:
    facts, options = plan.facts, plan.options
    chosen = None if facts.wanted is None else {entry["path"] for entry in facts.wanted}
    patterns = options.files
    if options.model is not None and not patterns:
        patterns = [glob.escape(options.model)]
    return Writer(root, facts.destination, chosen, patterns, options.allow_outside_links)


def _fill(tree: Writer, plan: Plan, tell: Tell) -> list[str]:
    """Read the archive into the tree.

    Return what is wrong with it, which without ``verify`` does not end the restore.
    """
    options, backup = plan.options, plan.facts.origin.backup
    scan = _read(tree, plan, tell)
    if options.verify:
        scan.raise_for(f"The backup {backup.name}")
    tree.drop_unfinished()
    if not tree.files:
        matching = " that matches" if options.files else ""
        why = f": {scan.problems[0]}" if scan.problems else ""
        raise VerificationFailed(
            f"The backup {backup.name} holds no file{matching}{why}.",
            "Use another backup.",
            backup.name,
        )
    return _damage_notes(scan, tree)


def _read(tree: Writer, plan: Plan, tell: Tell) -> reading.Scan:
    """Read the archives into the tree."""
    whole = reading.Scan()
    for part in plan.facts.origin.parts:
        scan = _read_part(tree, plan, part, tell)
        for problem in scan.problems:
            whole.add(problem.message, problem.path)
        whole.more_problems += scan.more_problems
        if whole.problems and plan.options.verify:
            break
        tree.drop_unfinished()
    return whole


def _read_part(tree: Writer, plan: Plan, part: Part, tell: Tell) -> reading.Scan:
    """Read an archive, by its index where there is one and all must be right."""
    options, backup, contents = plan.options, part.backup, part.contents
    head = backup.manifest
    if (
        options.verify
        and head is not None
        and contents is not None
        and chunks.usable(head, contents)
    ):
        if (options.files or options.model) and plan.facts.wanted is not None:
            paths = {entry["path"] for entry in plan.facts.wanted}
            return chunks.extract(part.read, head, contents, paths, tell, tree, part.connections)
        with contextlib.closing(part.open()) as stream:
            return chunks.scan(
                stream,
                head,
                contents,
                archive.cpus(0),
                tell,
                tree,
                "restore",
                part.read_again,
            )
    with contextlib.closing(part.open()) as stream:
        return reading.scan(
            stream,
            backup.size,
            contents,
            backup.sha256 if options.verify else None,
            tell,
            sink=tree,
            phase="restore",
            salvage=not options.verify,
        )


def _damage_notes(scan: reading.Scan, tree: Writer) -> list[str]:
    problems = [
        f"damaged: {problem}"
        for problem in scan.problems
        if problem.path is None or tree.wants(problem.path)
    ]
    more = len(problems) - _MOST_NOTES + scan.more_problems
    if more > 0:
        return [*problems[:_MOST_NOTES], f"damaged: {more} more problems"]
    return problems


def swap(directory: int, temporary: str, name: str, destination: str) -> None:
    """Put the finished tree in place in one step.

    Afterwards ``temporary`` is the replaced tree, or gone.

    :raises OSError: it could not; the destination is as before.
    """
    if not holds_something(directory, name):
        try:
            os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
            return
        except OSError as error:
            if error.errno in (errno.EBUSY, errno.EXDEV):
                raise Refused(
                    f"The restore destination {destination} is a mount point.",
                    "Restore into a directory inside of it.",
                    destination,
                ) from error
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise Refused(
                    f"Something was put into {destination} meanwhile.",
                    "Find out what did that, then restore again.",
                    destination,
                ) from error
            raise
    if exchange(directory, temporary, name):
        return
    old = f".{name}.mlops-old.{os.urandom(6).hex()}"
    os.rename(name, old, src_dir_fd=directory, dst_dir_fd=directory)
    try:
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError:
        os.rename(old, name, src_dir_fd=directory, dst_dir_fd=directory)
        raise
    os.rename(old, temporary, src_dir_fd=directory, dst_dir_fd=directory)


def exchange(directory: int, first: str, second: str) -> bool:
    """Swap two names in an open directory in one step (renameat2).

    False where kernel, C library or filesystem can't.

    :raises OSError: it could, but failed.
    """
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    renameat2.argtypes = (
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_uint,
    )
    if (
        renameat2(directory, os.fsencode(first), directory, os.fsencode(second), _RENAME_EXCHANGE)
        == 0
    ):
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP):
        return False
    raise OSError(code, os.strerror(code), second)
