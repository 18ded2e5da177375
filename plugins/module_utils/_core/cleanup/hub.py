# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hub cache of Hugging Face, by revision: what no branch or tag names any more, and files that
no revision has.

Its documented layout: ``models--org--name/refs/main`` holds the name of a revision,
``snapshots/REVISION`` links to ``blobs/HASH``, and whoever writes a blob holds a lock on
``.locks/models--org--name/HASH.lock``. Everything is opened through the descriptor of its
directory, and no link is followed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from ..errors import CommandFailed, FleetError
from ..ports import World
from ..system.removal import DIRECTORY, mount_id, remove
from . import inuse
from .guards import TRASH
from .inuse import InUse
from .scan import open_root
from .tool import Item, ToolFacts
from .units import BLOCK

_REPOSITORY = re.compile(r"(?:models|datasets|spaces)--.+")
_BLOBS = "blobs of no revision"
#: Levels of directories in a snapshot or in refs.
_DEPTH = 16
_NOATIME = getattr(os, "ST_NOATIME", 1024)


@dataclass
class Revision:
    """A snapshot: the blobs that it links to, the bytes of files of its own, and the newest change
    (seconds since the epoch).
    """

    name: str
    blobs: set[str] = field(default_factory=set)
    size: int = 0
    changed: float = 0.0


@dataclass
class Repository:
    """One repository in the cache. ``refs`` are revisions by the branch or tag that names them."""

    name: str
    refs: dict[str, str] = field(default_factory=dict)
    revisions: list[Revision] = field(default_factory=list)
    blobs: dict[str, os.stat_result] = field(default_factory=dict)

    def naming(self, revision: str) -> str:
        """Return the branch or tag that names a revision, empty when none does."""
        return next((ref for ref, named in sorted(self.refs.items()) if named == revision), "")

    def used(self, revision: Revision) -> float:
        """Return when a revision was last read or written."""
        return max([revision.changed, *map(_used, self._states(revision.blobs))])

    def orphans(self) -> set[str]:
        """Return the blobs that no revision links to: unfinished downloads, and what is left of
        removed revisions.
        """
        return self.blobs.keys() - {blob for revision in self.revisions for blob in revision.blobs}

    def frees(self, revision: Revision) -> int:
        """Return the bytes that the removal of a revision frees, when those that were used before
        it are removed, too.
        """
        size, used = revision.size, self.used(revision)
        for blob in revision.blobs & self.blobs.keys():
            others = [
                other for other in self.revisions if other is not revision and blob in other.blobs
            ]
            if not any(
                self.naming(other.name) or (self.used(other), other.name) > (used, revision.name)
                for other in others
            ):
                size += self.blobs[blob].st_blocks * BLOCK
        return size

    def _states(self, blobs: Iterable[str]) -> list[os.stat_result]:
        return [self.blobs[blob] for blob in blobs if blob in self.blobs]


def _used(state: os.stat_result) -> float:
    return max(state.st_atime, state.st_mtime)


def directory(world: World) -> str:
    """Return where the cache of the user who runs this is, as huggingface_hub itself finds it."""
    environ = world.environ
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if environ.get(variable):
            return os.path.expanduser(environ[variable])
    home = environ.get("HF_HOME")
    if not home:
        cache = environ.get("XDG_CACHE_HOME") or f"{environ.get('HOME') or '~'}/.cache"
        home = f"{cache}/huggingface"
    return os.path.expanduser(f"{home}/hub")


# --- reading --------------------------------------------------------------------------------------


@contextlib.contextmanager
def _opened(name: str, parent: int) -> Iterator[int]:
    """Give a directory open that is no link. :raises OSError: it is not there."""
    fd = os.open(name, DIRECTORY, dir_fd=parent)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _cache(path: str) -> Iterator[int]:
    """Give the cache open. :raises CommandFailed: it is not there, or can't be trusted."""
    try:
        fd, dummy = open_root(path)
    except FileNotFoundError as error:
        raise CommandFailed(f"there is no {path} here") from error
    except FleetError as error:
        raise CommandFailed(error.message) from error
    try:
        yield fd
    finally:
        os.close(fd)


def read(cache: int, name: str) -> Repository:
    """Read a repository. :raises OSError: it can't be read."""
    repository = Repository(name)
    with _opened(name, cache) as fd:
        with contextlib.suppress(FileNotFoundError), _opened("refs", fd) as refs:
            _read_refs(refs, "", repository.refs)
        with contextlib.suppress(FileNotFoundError), _opened("blobs", fd) as blobs:
            for blob in os.listdir(blobs):
                state = os.lstat(blob, dir_fd=blobs)
                if stat.S_ISREG(state.st_mode):
                    repository.blobs[blob] = state
        with contextlib.suppress(FileNotFoundError), _opened("snapshots", fd) as snapshots:
            for snapshot in sorted(os.listdir(snapshots)):
                revision = Revision(snapshot)
                state = os.lstat(snapshot, dir_fd=snapshots)
                if not stat.S_ISDIR(state.st_mode):
                    continue
                revision.changed = max(state.st_mtime, state.st_ctime)
                with _opened(snapshot, snapshots) as inside:
                    _read_snapshot(inside, revision)
                repository.revisions.append(revision)
    return repository


def _read_refs(fd: int, where: str, refs: dict[str, str], depth: int = 0) -> None:
    """Read the revisions that branches and tags name; pull requests are in directories
    (``refs/pr/1``).
    """
    for name in os.listdir(fd):
        state = os.lstat(name, dir_fd=fd)
        if stat.S_ISDIR(state.st_mode) and depth < _DEPTH:
            with _opened(name, fd) as inner:
                _read_refs(inner, f"{where}{name}/", refs, depth + 1)
        elif stat.S_ISREG(state.st_mode):
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            ref = os.open(name, flags, dir_fd=fd)
            try:
                refs[where + name] = os.read(ref, 256).decode("utf-8", "replace").strip()
            finally:
                os.close(ref)


def _read_snapshot(fd: int, revision: Revision, depth: int = 0) -> None:
    for name in os.listdir(fd):
        state = os.lstat(name, dir_fd=fd)
        if stat.S_ISLNK(state.st_mode):
            revision.blobs.add(os.path.basename(os.readlink(name, dir_fd=fd)))
        elif stat.S_ISDIR(state.st_mode):
            if depth >= _DEPTH:
                raise OSError(f"{revision.name} has too many levels of directories")
            with _opened(name, fd) as inner:
                _read_snapshot(inner, revision, depth + 1)
        else:  # where links can't be made, the files themselves are here
            revision.size += state.st_blocks * BLOCK
            revision.changed = max(revision.changed, _used(state), state.st_ctime)


def _busy(world: World, cache: int, path: str) -> InUse:
    """:raises CommandFailed: what is in use can't be found out."""
    try:
        return inuse.observe(world.path("/proc"), {os.fstat(cache).st_dev}, [path])
    except FleetError as error:
        raise CommandFailed(error.message) from error


def _why_used(states: Iterable[os.stat_result], busy: InUse) -> str:
    for state in states:
        if (state.st_dev, state.st_ino) in busy.identities:
            return "in use: one of its files is open or mapped"
        if busy.hidden is not None and state.st_uid in busy.hidden:
            return "may be in use by processes that this user can't examine"
    return ""


def observe(world: World) -> ToolFacts:
    """Revisions by their last use, and blobs of no revision by their last change."""
    path = directory(world)
    items: list[Item] = []
    problems = []
    with _cache(path) as cache:
        busy = _busy(world, cache, path)
        unknown = ""
        if os.fstatvfs(cache).f_flag & _NOATIME:
            unknown = "its last use is unknown: the file system is mounted with noatime"
        for name in sorted(filter(_REPOSITORY.fullmatch, os.listdir(cache))):
            try:
                items.extend(_items(read(cache, name), busy, unknown))
            except OSError as error:
                problems.append(f"{name} can't be read: {error.strerror or error}")
    note = "the cache of the user who runs the cleanup"
    return ToolFacts("huggingface", path, note="; ".join([note, *problems[:3]]), items=tuple(items))


def _items(repository: Repository, busy: InUse, unknown: str) -> Iterator[Item]:
    for revision in repository.revisions:
        ref = repository.naming(revision.name)
        in_use = ""
        if ref:
            in_use = f"{ref} names it"
        states = repository._states(revision.blobs)
        in_use = in_use or _why_used(states, busy) or unknown
        yield Item(
            f"{repository.name}/snapshots/{revision.name}",
            "revision",
            repository.frees(revision),
            repository.used(revision),
            in_use,
            len(revision.blobs),
            (repository.name, revision.name),
            "last used",
        )
    orphans = repository.orphans()
    if orphans:
        states = repository._states(orphans)
        yield Item(
            f"{repository.name}: {_BLOBS}",
            "blobs",
            sum(state.st_blocks for state in states) * BLOCK,
            max(max(state.st_mtime, state.st_ctime) for state in states),
            _why_used(states, busy),
            len(orphans),
            (repository.name, ""),
            "last written",
        )


# --- removing -------------------------------------------------------------------------------------


def clean(world: World, facts: ToolFacts, items: Sequence[Item]) -> dict[str, str]:
    """Remove revisions, and then the blobs that no revision links to any more.

    What was used meanwhile stays.
    """
    problems: dict[str, str] = {}
    with _cache(facts.root) as cache:
        busy = _busy(world, cache, facts.root)
        _finish(cache)
        # What was used before goes first, so that a blob goes with the last of its revisions.
        for item in sorted(items, key=lambda item: item.made or 0.0):
            name, revision = item.arguments
            try:
                problem = _remove(cache, name, revision, item, busy)
            except OSError as error:
                problem = error.strerror or str(error)
            if problem:
                problems[item.path] = problem
    return problems


def _finish(cache: int) -> None:
    """Remove what stopped runs had begun to remove."""
    for name in os.listdir(cache):
        if name.startswith(TRASH) and os.lstat(name, dir_fd=cache).st_uid == os.geteuid():
            remove(cache, name, os.fstat(cache).st_dev, mount_id(cache))


def _remove(cache: int, name: str, revision: str, item: Item, busy: InUse) -> str:
    """Remove a revision, or with an empty one the blobs that had none; return why that was not
    possible.
    """
    repository = read(cache, name)
    if not revision:
        unlinked = repository.orphans()
        states = repository._states(unlinked)
        newest = max((max(state.st_mtime, state.st_ctime) for state in states), default=0.0)
        if newest > (item.made or 0.0):
            return "it was changed after the plan was made"
        return _why_used(states, busy) or _unlink(cache, name, unlinked)
    known = {entry.name: entry for entry in repository.revisions}
    if revision not in known:
        return ""
    ref = repository.naming(revision)
    if ref:
        return f"{ref} names it now"
    if repository.used(known[revision]) > (item.made or 0.0):
        return "it was used after the plan was made"
    why = _why_used(repository._states(known[revision].blobs), busy)
    if why:
        return why
    trash = TRASH + os.urandom(8).hex()
    with _opened(name, cache) as fd, _opened("snapshots", fd) as snapshots:
        # In one step, so that half a revision is never taken for a whole one.
        os.rename(revision, trash, src_dir_fd=snapshots, dst_dir_fd=cache)
    left = remove(cache, trash, os.fstat(cache).st_dev, mount_id(cache))
    if left:
        return "; ".join(left)
    unlinked = known[revision].blobs & read(cache, name).orphans()
    return _unlink(cache, name, unlinked)


def _unlink(cache: int, name: str, blobs: Iterable[str]) -> str:
    """Remove blobs that no revision links to; those that somebody is downloading again stay."""
    locked = 0
    with _opened(name, cache) as fd, _opened("blobs", fd) as directory_fd:
        for blob in sorted(blobs):
            with _lock(cache, name, blob) as free:
                # While the lock is held nobody adds a link to it.
                if not free or blob not in read(cache, name).orphans():
                    locked += 1
                    continue
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(blob, dir_fd=directory_fd)
    if locked:
        return f"{locked} of its files are being downloaded"
    return ""


@contextlib.contextmanager
def _lock(cache: int, name: str, blob: str) -> Iterator[bool]:
    """Hold the lock that a download of a blob takes, where there is one; give whether it is
    free.
    """
    fd = -1
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        with _opened(".locks", cache) as locks, _opened(name, locks) as own:
            fd = os.open(f"{blob.split('.')[0]}.lock", flags, dir_fd=own)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        yield False
        return
    except OSError:
        pass
    try:
        yield True
    finally:
        if fd >= 0:
            os.close(fd)
