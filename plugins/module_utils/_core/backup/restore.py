# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restoring: into a temporary tree beside the destination, every file compared while it is written, then one atomic step.

What comes out of an archive is trusted in nothing: names stay below the tree (descriptors, no link is ever followed), links are
made last, devices and pipes are refused, and until everything has matched the destination is untouched.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from ..errors import NotUsable, Refused, VerificationFailed, WriteFailed
from ..ports import Tell, World, silent
from ..system import mounts
from ..system.locks import lock, lock_folder
from ..system.removal import mount_id, remove
from ..system.roots import open_folder, refuse_dangerous
from ..system.text import display_path, human_size
from . import catalogue, reading, source, verify
from .catalogue import Backup
from .codec import BLOCK
from .options import RestoreOptions
from .source import FILE, FOLDER, LINK
from .writer import Writer, check_links, permissions

_RENAME_EXCHANGE = 2
#: Problems of a damaged backup that are told one by one.
_MOST_NOTES = 20


@dataclass(frozen=True)
class Origin:
    """Where a backup is read from: its description, a function that opens its stream, and what to tell about the choice."""

    backup: Backup
    open: Any
    url: str
    note: str = ""


@dataclass(frozen=True)
class Facts:
    """What was read. C(wanted) are the entries to restore (None: an archive of the old scripts, known only when read).

    C(state) of the destination: C(missing empty same other). C(free) in bytes.
    """

    origin: Origin
    destination: str
    wanted: tuple[dict[str, Any], ...] | None
    state: str
    free: int
    reason: str = ""


@dataclass
class Result:
    """What was restored, or in check mode would be."""

    facts: Facts
    changed: bool
    files: int = 0
    bytes: int = 0
    verified: bool = False
    notes: list[str] = field(default_factory=list)
    before: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return what the module returns: C(changed restored notes). Sizes in bytes."""
        backup = self.facts.origin.backup
        return {
            "changed": self.changed,
            "restored": {
                "backup": backup.name,
                "origin": self.facts.origin.url,
                "created": backup.to_dict()["created"],
                "sha256": backup.sha256,
                "destination": self.facts.destination,
                "files": self.files,
                "bytes": self.bytes,
                "verified": self.verified,
                "state": self.facts.state,
            },
            "notes": self.notes,
        }


def run(options: RestoreOptions, world: World, check: bool = False, tell: Tell = silent) -> Result:
    """Restore a backup unless the destination already equals it.

    :param check: only say what would be done. :raises VerificationFailed: the archive is not what was backed up; nothing is left.
    :raises Refused: the destination or something in the archive is dangerous. :raises FleetError: anything else.
    """
    put_back, notes = (False, []) if check else recover(options.destination)
    facts = observe(options, world, tell)
    plan = decide(options, facts)
    result = plan if check or not plan.changed else carry_out(plan, options, tell)
    result.changed = result.changed or put_back
    result.notes[:0] = notes
    return result


def recover(destination: str) -> tuple[bool, list[str]]:
    """Clear up after restores to this folder that were killed; return whether a folder was put back, and what to tell.

    A run that died between two renames has left the only copy of what was there under a temporary name.

    :raises LockBusy: another restore to this folder is running.
    """
    destination = refuse_dangerous(destination, "restore destination")
    parent, name = os.path.split(destination)
    pattern = _leftover(name)
    if not os.path.isdir(parent) or not any(pattern.fullmatch(one) for one in os.listdir(parent)):
        return False, []
    with _locked_destination(destination):
        folder = open_folder(os.path.realpath(parent))
        try:
            return _clean_up(folder, name)
        except OSError as error:
            raise WriteFailed(
                f"Can't clear up beside {destination}: {error.strerror or error}.",
                "Check the permissions of its parent.",
                destination,
            ) from error
        finally:
            os.close(folder)


def _leftover(name: str) -> re.Pattern[str]:
    """Return the pattern of temporary names beside a destination."""
    return re.compile(re.escape(f".{name}.mlops-") + "(restore|old)[.][0-9a-f]{12}")


@contextlib.contextmanager
def _locked_destination(destination: str) -> Iterator[None]:
    parent, name = os.path.split(destination)
    key = hashlib.sha256(os.fsencode(os.path.join(os.path.realpath(parent), name))).hexdigest()[:16]
    with lock(
        os.path.join(lock_folder(), f"mlops-fleet-restore-{key}.lock"), f"restore to {destination}"
    ):
        yield


# --- reading ----------------------------------------------------------------------------------------------------------------


def observe(options: RestoreOptions, world: World, tell: Tell = silent) -> Facts:
    """Find the backup and look at the destination. :raises NotUsable: there is no such backup. :raises Refused: bad destination."""
    destination = refuse_dangerous(options.destination, "restore destination")
    if os.path.islink(destination):
        raise Refused(
            f"The restore destination {destination} is a symbolic link.",
            "Name the folder it points to.",
            destination,
        )
    _refuse_mounts(destination)
    origin = find(options, world.clock.now())
    if not options.s3 and os.path.realpath(origin.url).startswith(
        os.path.realpath(destination) + "/"
    ):
        raise Refused(
            f"The backup {origin.url} lies inside the restore destination {destination}.",
            "Restore into a folder elsewhere.",
            destination,
        )
    wanted = _wanted(origin.backup, options.files)
    if wanted is not None and not wanted:
        raise NotUsable(
            f"Nothing in {origin.backup.name} matches {', '.join(options.files)}.",
            "Check the patterns.",
            origin.backup.name,
        )
    if wanted is not None:
        check_links(wanted, destination, options.allow_outside_links)
    state, reason = _state(destination, wanted, tell)
    return Facts(origin, destination, wanted, state, _free(destination), reason)


def _refuse_mounts(destination: str) -> None:
    """Refuse a destination that is a mount point or holds one: it could not be swapped, or what is mounted would go with it."""
    try:
        table = mounts.read()
    except OSError:
        table = []
    real = os.path.realpath(destination)
    for mount in table:
        if mount.point == real or mount.point.startswith(real + "/"):
            what = (
                "is a mount point"
                if mount.point == real
                else f"holds the mount point {display_path(mount.point)}"
            )
            raise Refused(
                f"The restore destination {destination} {what}.",
                "Restore into a folder inside of it, or unmount it.",
                destination,
            )


def find(options: RestoreOptions, now: float) -> Origin:
    """Return the backup the options name. C(latest) is the newest complete one, a verified one first. :raises NotUsable: none."""
    if options.s3:
        from .store_s3 import Store

        store = Store(options.s3)
        listed = store.listing()
        chosen = _choose(listed, options.backup, store.url(""), now)
        return Origin(
            chosen,
            lambda: store.open(chosen),
            store.url(chosen.name),
            _others(options, listed, chosen),
        )
    listed = [] if "/" in options.backup else catalogue.listing(options.path)
    chosen = (
        verify.at(options.backup)
        if "/" in options.backup
        else _choose(listed, options.backup, options.path, now)
    )
    if chosen.problems and options.verify:
        raise VerificationFailed(
            f"{chosen.path} is damaged: {'; '.join(chosen.problems)}.",
            "Use another backup.",
            chosen.path,
        )
    return Origin(
        chosen,
        lambda: reading.open_archive(chosen.path),
        chosen.path,
        _others(options, listed, chosen),
    )


def _others(options: RestoreOptions, listed: list[Backup], chosen: Backup) -> str:
    """Say that C(latest) was not the only one it could have meant."""
    if options.backup != "latest" or chosen.manifest is None:
        return ""
    others = catalogue.sources(listed) - {chosen.manifest["source"]}
    where = ", ".join(sorted(display_path(one) for one in others))
    return (
        f"this is the latest backup of {display_path(chosen.manifest['source'])}; there are backups of {where} too"
        if others
        else ""
    )


def _choose(backups: list[Backup], wanted: str, where: str, now: float) -> Backup:
    if wanted == "latest":
        backups = sorted(
            backups, key=lambda one: not catalogue.credible(one, now)
        )  # what a wrong clock has dated ahead comes last
        for good in (lambda one: one.verified, lambda one: one.complete, lambda one: one.legacy):
            found = next((one for one in backups if good(one)), None)
            if found is not None:
                return found
        raise NotUsable(
            f"There is no complete backup in {where}.", "Make one, or name another place.", where
        )
    found = next((one for one in backups if one.name == wanted), None)
    if found is None:
        near = ", ".join(one.name for one in backups[:3]) or "none"
        raise NotUsable(
            f"There is no backup {wanted} in {where}.", f"The newest there: {near}.", where
        )
    return found


def _wanted(backup: Backup, patterns: list[str]) -> tuple[dict[str, Any], ...] | None:
    """Return the manifest's entries that fit, with the folders they lie in."""
    if backup.manifest is None:
        return None
    entries = backup.manifest["entries"]
    if not patterns:
        return tuple(entries)
    chosen = {entry["path"] for entry in entries if source.selected(entry["path"], patterns)}
    parents = {
        "/".join(path.split("/")[:n]) for path in chosen for n in range(1, path.count("/") + 1)
    }
    return tuple(
        entry
        for entry in entries
        if entry["path"] in chosen or (entry["path"] in parents and entry["type"] == FOLDER)
    )


def _free(folder: str) -> int:
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def _state(
    destination: str, wanted: tuple[dict[str, Any], ...] | None, tell: Tell
) -> tuple[str, str]:
    try:
        found = os.lstat(destination)
    except FileNotFoundError:
        return "missing", ""
    except OSError as error:
        raise NotUsable(
            f"Can't look at {destination}: {error.strerror}.", "Check its permissions.", destination
        ) from error
    if not stat.S_ISDIR(found.st_mode):
        raise Refused(
            f"The restore destination {destination} exists and is not a folder.",
            "Name a folder.",
            destination,
        )
    try:
        if not os.listdir(destination):
            return "empty", ""
    except OSError as error:
        raise NotUsable(
            f"Can't read {destination}: {error.strerror}.", "Check its permissions.", destination
        ) from error
    if wanted is None:
        return "other", "what an archive of the old scripts holds is not known beforehand"
    try:
        reason = difference(destination, wanted, tell)
    except (NotUsable, OSError) as error:
        # Files that not even their owner may read are restored so, and compared by root only.
        reason = (
            error.message.rstrip(".")
            if isinstance(error, NotUsable)
            else f"it can't be compared: {error.strerror or error}"
        )
    return ("other", reason) if reason else ("same", "")


def difference(destination: str, wanted: tuple[dict[str, Any], ...], tell: Tell = silent) -> str:
    """Return how the folder differs from the entries, C("") when it equals them: names, kinds, modes, times and contents."""
    root = source.open_root(destination)
    try:
        tree = source.walk(root, destination)
        expected = {entry["path"]: entry for entry in wanted}
        present = {entry.path: entry for entry in tree.entries}
        for path in expected:
            if path not in present:
                return f"{display_path(path)} is missing"
        for path, entry in present.items():
            other = expected.get(path)
            if other is None:
                return f"{display_path(path)} is not in the backup"
            if (
                entry.type != other["type"]
                or entry.target != other.get("target", "")
                or (entry.type == FILE and entry.size != other["size"])
            ):
                return f"{display_path(path)} differs"
            if entry.type != LINK and entry.mode != permissions(other):
                return f"{display_path(path)} has other permissions"
            if entry.type == FILE and entry.mtime_ns != other["mtime_ns"]:
                return f"{display_path(path)} has another modification time"
        if tree.skipped:
            return f"{tree.skipped[0]} is not in the backup"
        with source.below(root) as folders:
            for path, entry in present.items():
                if entry.type == FILE and _digest(folders, path, tell) != expected[path]["sha256"]:
                    return f"{display_path(path)} has other content"
    finally:
        os.close(root)
    return ""


def _digest(folders: source.Folders, path: str, tell: Tell) -> str:  # noqa: ARG001
    folder, _slash, base = path.rpartition("/")
    fd = os.open(
        base,
        os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC,
        dir_fd=folders.open(folder),
    )
    digest = hashlib.sha256()
    with os.fdopen(fd, "rb", buffering=0) as stream:
        while True:
            block = stream.read(BLOCK)
            if not block:
                return digest.hexdigest()
            digest.update(block)


# --- deciding ---------------------------------------------------------------------------------------------------------------


def decide(options: RestoreOptions, facts: Facts) -> Result:
    """Say what would be done. Pure. :raises Refused: the destination holds something and may not be replaced."""
    plan = Result(facts, changed=facts.state != "same")
    if facts.origin.note:
        plan.notes.append(facts.origin.note)
    if facts.wanted is not None:
        files = [entry for entry in facts.wanted if entry["type"] == FILE]
        plan.files, plan.bytes = len(files), sum(entry["size"] for entry in files)
        plan.after = [entry["path"] for entry in facts.wanted]
    if facts.state == "same":
        plan.verified = True
        plan.before = plan.after
        return plan
    if facts.state == "other" and options.mode == "new":
        raise Refused(
            f"The restore destination {facts.destination} is not empty and differs from the backup: {facts.reason}.",
            "Name a new folder, or set mode to replace.",
            facts.destination,
        )
    if facts.wanted is not None and plan.bytes > facts.free:
        raise WriteFailed(
            f"Not enough space for {facts.destination}: the backup needs {human_size(plan.bytes)}, {human_size(facts.free)} are free.",
            "Free some space, or restore only some files.",
            facts.destination,
        )
    return plan


# --- doing ------------------------------------------------------------------------------------------------------------------


def carry_out(plan: Result, options: RestoreOptions, tell: Tell = silent) -> Result:
    """Restore. :raises LockBusy: another restore to this folder is running. :raises FleetError: see run."""
    destination = plan.facts.destination
    parent, name = os.path.split(destination)
    with _locked_destination(destination):
        _make_parents(parent)
        folder = open_folder(os.path.realpath(parent))
        try:
            return _locked(plan, options, tell, folder, name)
        except OSError as error:
            raise WriteFailed(
                f"Restoring to {destination} failed: {error.strerror or error}.",
                "Nothing was changed there; check space and permissions.",
                destination,
            ) from error
        finally:
            os.close(folder)


def _make_parents(parent: str) -> None:
    try:
        os.makedirs(parent, 0o750, exist_ok=True)
    except OSError as error:
        raise WriteFailed(
            f"Can't make the folder {parent}: {error.strerror}.",
            "Check its parent's permissions.",
            parent,
        ) from error


def _locked(plan: Result, options: RestoreOptions, tell: Tell, folder: int, name: str) -> Result:
    facts = plan.facts
    # What was seen before the lock may be out of date: something put there meanwhile must not be lost.
    if (
        options.mode == "new"
        and _present(folder, name)
        and os.listdir(f"/proc/self/fd/{folder}/{name}")
    ):
        raise Refused(
            f"The restore destination {facts.destination} is not empty any more.",
            "Look what put something there.",
            facts.destination,
        )
    temporary = f".{name}.mlops-restore.{os.urandom(6).hex()}"
    os.mkdir(temporary, 0o700, dir_fd=folder)
    try:
        root = os.open(
            temporary, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder
        )
        try:
            with contextlib.closing(_writer(root, facts, options)) as tree:
                plan.notes += _fill(tree, facts, options, tell)
                tree.finish(_root_mode(folder, name))
        finally:
            os.close(root)
        plan.after = sorted(tree.restored)
        plan.before = _names_in(facts.destination) if options.mode == "replace" else []
        _swap(folder, temporary, name, facts.destination)
    except BaseException:
        _discard(folder, temporary)
        raise
    os.fsync(folder)
    left = _discard(folder, temporary)  # holds the replaced tree now, if there was one
    if left:
        plan.notes.append(_left_note(left))
    plan.files, plan.bytes = tree.files, tree.bytes
    plan.verified = options.verify and facts.origin.backup.sha256 is not None
    plan.changed = True
    return plan


def _left_note(left: list[str]) -> str:
    return f"could not remove all of an old tree beside the destination: {'; '.join(display_path(one) for one in left)}"


def _names_in(path: str) -> list[str]:
    try:
        root = source.open_root(path)
    except NotUsable:
        return []
    try:
        return sorted(entry.path for entry in source.walk(root, path).entries)
    except NotUsable:
        return []
    finally:
        os.close(root)


def _present(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _root_mode(folder: int, name: str) -> int:
    try:
        return stat.S_IMODE(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return 0o750


def _clean_up(folder: int, name: str) -> tuple[bool, list[str]]:
    """Under the lock: put back a tree that a killed run had moved aside, remove what such runs left."""
    notes, put_back = [], False
    ours = _leftover(name)
    for one in sorted(os.listdir(folder)):
        match = ours.fullmatch(one)
        if match is None:
            continue
        if match.group(1) == "old" and not _present(folder, name):
            os.rename(one, name, src_dir_fd=folder, dst_dir_fd=folder)
            put_back = True
            notes.append("put back the folder that an interrupted restore had moved aside")
            continue
        left = _discard(folder, one)
        notes.append(_left_note(left) if left else "removed what an interrupted restore had left")
    return put_back, notes


def _discard(folder: int, name: str) -> list[str]:
    """Remove a tree of ours below the open folder; return what could not be removed. Links and mounts in it are never entered."""
    try:
        device = os.stat(name, dir_fd=folder, follow_symlinks=False).st_dev
    except FileNotFoundError:
        return []
    if os.geteuid() != 0:
        with contextlib.suppress(OSError):
            _open_up(folder, name)
    return remove(folder, name, device, mount_id(folder))


def _open_up(folder: int, name: str) -> None:
    """Make the folders of a tree of ours accessible to us, their owner; root needs no such thing."""
    mount, pending = mount_id(folder), [name]
    with source.below(folder) as folders:
        while pending:
            path = pending.pop()
            where, _slash, base = path.rpartition("/")
            os.chmod(base, 0o700, dir_fd=folders.open(where))
            fd = folders.open(path)
            if mount_id(fd) == mount:
                inner = [
                    one
                    for one in os.listdir(fd)
                    if stat.S_ISDIR(os.stat(one, dir_fd=fd, follow_symlinks=False).st_mode)
                ]
                pending.extend(f"{path}/{one}" for one in inner)


def _writer(root: int, facts: Facts, options: RestoreOptions) -> Writer:
    chosen = {entry["path"] for entry in facts.wanted} if facts.wanted is not None else None
    return Writer(root, facts.destination, chosen, options.files, options.allow_outside_links)


def _fill(tree: Writer, facts: Facts, options: RestoreOptions, tell: Tell) -> list[str]:
    """Read the archive into the tree; return what is wrong with it, which without C(verify) does not end the restore."""
    backup = facts.origin.backup
    stream: BinaryIO = facts.origin.open()
    with contextlib.closing(stream):
        sha256 = backup.sha256 if options.verify else None
        found = reading.scan(
            stream,
            backup.size,
            backup.manifest,
            sha256,
            tell,
            sink=tree,
            phase="restore",
            salvage=not options.verify,
        )
    if options.verify:
        found.raise_for(f"The backup {backup.name}")
    tree.drop_unfinished()
    if not tree.files:
        why = f": {found.problems[0]}" if found.problems else ""
        raise VerificationFailed(
            f"The backup {backup.name} holds no file{' that matches' if options.files else ''}{why}.",
            "Use another backup.",
            backup.name,
        )
    problems = [str(one) for one in found.problems if one.path is None or tree.wants(one.path)]
    more = len(problems) - _MOST_NOTES + found.more_problems
    return [f"damaged: {one}" for one in problems[:_MOST_NOTES]] + (
        [f"damaged: {more} more problems"] if more > 0 else []
    )


def _swap(folder: int, temporary: str, name: str, destination: str) -> None:
    """Put the finished tree in place in one step; afterwards C(temporary) is the replaced tree, or gone.

    :raises OSError: it could not; the destination is as before.
    """
    if not _present(folder, name) or not os.listdir(f"/proc/self/fd/{folder}/{name}"):
        try:
            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
            return
        except OSError as error:
            if error.errno in (errno.EBUSY, errno.EXDEV):
                raise Refused(
                    f"The restore destination {destination} is a mount point.",
                    "Restore into a folder inside of it.",
                    destination,
                ) from error
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise Refused(
                    f"Something was put into {destination} meanwhile.",
                    "Look what did that, then restore again.",
                    destination,
                ) from error
            raise
    if exchange(folder, temporary, name):
        return
    old = f".{name}.mlops-old.{os.urandom(6).hex()}"
    os.rename(name, old, src_dir_fd=folder, dst_dir_fd=folder)
    try:
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        os.rename(old, name, src_dir_fd=folder, dst_dir_fd=folder)
        raise
    os.rename(old, temporary, src_dir_fd=folder, dst_dir_fd=folder)


def exchange(folder: int, one: str, other: str) -> bool:
    """Swap two names in an open folder in one step (renameat2); False where kernel, C library or filesystem can't.

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
    if renameat2(folder, os.fsencode(one), folder, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP):
        return False
    raise OSError(code, os.strerror(code), other)
