# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Carry a plan out: rename each unit into a quarantine folder beside it, look again, then remove it there.

A unit leaves its place in one atomic step, so that a crash never leaves half of it where it looks whole. The quarantine folder
(C(.mlops-fleet-trash-...), 0700, in the cleanup root, so on the same filesystem) has two compartments:
C(new) holds what was moved and not yet looked at again, C(doomed) what is being removed. The next run finishes what is in C(doomed)
and judges what is in C(new) anew. Where the filesystem has no room for that folder, files and then the smallest folders go without it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from ..ports import Progress, Tell
from ..system.removal import DIRECTORY, Changed, Identity, identity, remove
from .inuse import InUse
from .options import TRASH, Target
from .plan import Doomed, Kept, cutoff, due
from .scan import STAMPS, Look, Survey, survey

#: Why a unit goes back that a stopped run had moved.
PUT_BACK = "put back: a run was interrupted before its removal, and it is not due"
#: Units, and files in them, that are moved before the process table is read again. Those that must stay are back before the first of the
#: others is removed, that is, after one look at so many files.
BATCH, BATCH_FILES = 8192, 50_000

_NAME = re.compile(re.escape(TRASH) + r"[0-9a-f]{16}")
_ASIDE = re.compile(re.escape(TRASH) + r"[0-9a-f]{16}-(.+)", re.S)
#: Mode of a folder that was set aside and is being removed.
_BEGUN = 0o1700


@dataclass
class Root:
    """An open cleanup root. C(device) is st_dev, C(mount) the mount id, C(source) (major:minor, path inside
    that filesystem), C(given) the path as it was configured, C(overlay) whether it lies on an overlay."""

    fd: int
    path: str
    device: int
    mount: int | None
    source: tuple[str, str] | None = None
    given: str = ""
    overlay: bool = False

    def look(self, target: Target, busy: InUse | None, now: float, moved: bool = False) -> Look:
        """Return what a survey of one of this root's units looks out for."""
        stamp, fresh = STAMPS[target.age_by], cutoff(target, now)
        if busy is None:
            return Look(
                stamp, self.device, self.mount, excluded=target.excluded, fresh=fresh, moved=moved
            )
        return Look(
            stamp,
            self.device,
            self.mount,
            busy.identities,
            busy.inodes,
            busy.hidden,
            target.excluded,
            fresh,
            moved,
        )


@dataclass
class Failure:
    """A unit that could not be removed, and why; C(path) is where what is left of it lies."""

    target: str
    path: str
    error: str

    def to_dict(self) -> dict[str, str]:
        return {"target": self.target, "path": self.path, "error": self.error}


@dataclass
class Done:
    """What was done. C(freed) is in bytes, by target name."""

    removed: list[Doomed] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    freed: dict[str, int] = field(default_factory=dict)
    links: dict[Identity, int] = field(default_factory=dict)

    def gone(self, one: Doomed, found: Survey) -> None:
        """Count a unit that was removed; a file with several links when its last one went."""
        size = found.size
        for key, (count, seen, bytes_of) in found.linked.items():
            self.links[key] = self.links.get(key, 0) + seen
            if self.links[key] >= count:
                size += bytes_of
        self.count(one, size)

    def count(self, one: Doomed, size: int) -> None:
        """Count a unit whose removal freed C(size) bytes."""
        self.freed[one.target] = self.freed.get(one.target, 0) + size
        self.removed.append(one)

    def fail(self, target: str, path: str, error: object) -> None:
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        self.failures.append(Failure(target, path, text))


class Quarantine:
    """The quarantine folder of a root: made new, or left behind by a run that was stopped. It is locked while it is open."""

    def __init__(self, root: Root, name: str, fd: int, new: int, doomed: int) -> None:
        self.root, self.name, self.fd, self.new, self.doomed = root, name, fd, new, doomed

    @property
    def path(self) -> str:
        return f"{self.root.path.rstrip('/')}/{self.name}"

    def place(self, *where: str) -> str:
        """Return the path of a unit: compartment and name."""
        return "/".join((self.path, *where))

    @classmethod
    def make(cls, root: Root) -> Quarantine:
        """Make a new one. :raises OSError: no permission, no space."""
        name = TRASH + os.urandom(8).hex()
        os.mkdir(name, 0o700, dir_fd=root.fd)
        fd = os.open(name, DIRECTORY, dir_fd=root.fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for compartment in ("new", "doomed"):
                os.mkdir(compartment, 0o700, dir_fd=fd)
            return cls(
                root,
                name,
                fd,
                os.open("new", DIRECTORY, dir_fd=fd),
                os.open("doomed", DIRECTORY, dir_fd=fd),
            )
        except BaseException:
            for compartment in ("new", "doomed"):
                with contextlib.suppress(OSError):
                    os.rmdir(compartment, dir_fd=fd)
            os.close(fd)
            with contextlib.suppress(OSError):
                os.rmdir(name, dir_fd=root.fd)
            raise

    @classmethod
    def take(cls, root: Root, name: str) -> Quarantine | None:
        """Open one that a stopped run of this user left; None for anything that is not exactly that, or that a run holds."""
        if not _NAME.fullmatch(name):
            return None
        fds: list[int] = []
        try:
            for compartment in ("", "new", "doomed"):
                if compartment and compartment not in os.listdir(fds[0]):
                    fds.append(-1)  # stopped while it was made or removed
                    continue
                fds.append(
                    os.open(
                        compartment or name, DIRECTORY, dir_fd=fds[0] if compartment else root.fd
                    )
                )
                found = os.fstat(fds[-1])
                if (
                    found.st_uid != os.geteuid()
                    or found.st_mode & 0o777 != 0o700
                    or found.st_dev != root.device
                ):
                    raise PermissionError
                if not compartment:
                    fcntl.flock(fds[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if not set(os.listdir(fds[0])) <= {"new", "doomed"}:
                        raise PermissionError
            return cls(root, name, *fds)
        except OSError:
            for fd in fds:
                if fd >= 0:
                    os.close(fd)
            return None

    def complete(self) -> None:
        """Make the compartments that a stopped run had not made yet. :raises OSError: no permission, no space."""
        for compartment in ("new", "doomed"):
            if getattr(self, compartment) < 0:
                os.mkdir(compartment, 0o700, dir_fd=self.fd)
                setattr(self, compartment, os.open(compartment, DIRECTORY, dir_fd=self.fd))

    def put_back(self, name: str) -> None:
        """Return a unit from C(new) to its place. :raises OSError: something else has taken the place; nothing is overwritten."""
        found = os.lstat(name, dir_fd=self.new)
        if stat.S_ISDIR(found.st_mode):
            # rename(2) replaces nothing but an empty folder by a folder.
            os.rename(name, name, src_dir_fd=self.new, dst_dir_fd=self.root.fd)
            return
        try:
            os.link(name, name, src_dir_fd=self.new, dst_dir_fd=self.root.fd, follow_symlinks=False)
        except FileExistsError:
            if identity(os.lstat(name, dir_fd=self.root.fd)) != identity(found):
                raise  # otherwise a run was stopped right here
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK):
                raise
            # No hard links here, or not for this user: an empty file claims the name, and the rename replaces nothing but that.
            os.close(
                os.open(
                    name,
                    os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC,
                    0o600,
                    dir_fd=self.root.fd,
                )
            )
            os.rename(name, name, src_dir_fd=self.new, dst_dir_fd=self.root.fd)
            return
        os.unlink(name, dir_fd=self.new)

    def close(self, tidy: bool = True) -> None:
        """Close it; C(tidy): remove it when it is empty."""
        if tidy:
            for compartment in ("new", "doomed"):
                with contextlib.suppress(OSError):
                    os.rmdir(compartment, dir_fd=self.fd)
            with contextlib.suppress(OSError):
                os.rmdir(self.name, dir_fd=self.root.fd)
        for fd in (self.new, self.doomed, self.fd):
            if fd >= 0:
                os.close(fd)


class Aside(Quarantine):
    """A folder that was set aside under another name in its root, because there was no room for a quarantine folder. Its mode says
    whether its removal has begun; until then it goes back."""

    def __init__(self, root: Root, name: str, original: str) -> None:
        super().__init__(root, name, root.fd, root.fd, root.fd)
        self.original = original

    @classmethod
    def name_for(cls, original: str) -> str:
        return f"{TRASH}{os.urandom(8).hex()}-{original}"

    @classmethod
    def take(cls, root: Root, name: str) -> Aside | None:
        """Open one that a stopped run left; None for anything else. One cleanup runs at a time, and it has only one."""
        match = _ASIDE.fullmatch(name)
        try:
            return (
                cls(root, name, match.group(1))
                if match and stat.S_ISDIR(os.lstat(name, dir_fd=root.fd).st_mode)
                else None
            )
        except OSError:
            return None

    @property
    def begun(self) -> bool:
        """Whether its removal has begun. Nobody else can make a folder that looks so."""
        found = os.lstat(self.name, dir_fd=self.root.fd)
        return (
            found.st_uid == os.geteuid()
            and found.st_mode & 0o7777 == _BEGUN
            and found.st_dev == self.root.device
        )

    def begin(self, expected: Identity) -> None:
        """Mark it as being removed; no name and no block is needed for that. :raises OSError: not ours to remove."""
        fd = os.open(self.name, DIRECTORY, dir_fd=self.root.fd)
        try:
            if identity(os.fstat(fd)) != expected:
                raise Changed("it was replaced by something else")
            if os.fstat(fd).st_uid != os.geteuid():
                os.fchown(fd, os.geteuid(), -1)
            os.fchmod(fd, _BEGUN)
        finally:
            os.close(fd)

    def place(self, *_where: str) -> str:
        return self.path

    def put_back(self, name: str) -> None:
        os.rename(self.name, name, src_dir_fd=self.root.fd, dst_dir_fd=self.root.fd)

    def close(self, tidy: bool = True) -> None:
        """It has no descriptors of its own."""


@dataclass(frozen=True)
class Work:
    """What removing the units of one root needs: C(busy) reads the process table anew (None: in-use is not asked),
    C(protected) returns the names that must stay, read anew, given the path of their folder and what is in use."""

    target: Target
    now: float
    busy: Callable[[], InUse | None]
    protected: Callable[[str, InUse | None], dict[str, str]]


def carry_out(root: Root, work: Work, units: Sequence[Doomed], done: Done, tell: Tell) -> None:
    """Remove the units of one target; one that resists is recorded and the others go on."""
    units = list(units)
    try:
        quarantine = Quarantine.make(root)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            # No room for a folder: files need none, since unlinking one is atomic. Afterwards there is room.
            units = _unlink_files(root, work, units, done)
            if not units:
                return
        try:
            quarantine = _make_room(root, work, units, done)
        except OSError as second:
            for one in units:
                done.fail(
                    one.target,
                    one.path,
                    f"no quarantine folder could be made in {root.path}: {second.strerror}",
                )
            return
    try:
        finished = 0
        for batch in _batches(units):
            _batch(
                quarantine,
                work,
                batch,
                done,
                lambda number: tell(
                    Progress("remove", number, len(units), "files", work.target.name)
                ),
                finished,
            )
            finished += len(batch)
        tell(Progress("remove", finished, len(units), "files", work.target.name))
    finally:
        quarantine.close()


def _batches(units: Sequence[Doomed]) -> Iterator[list[Doomed]]:
    batch: list[Doomed] = []
    files = 0
    for one in units:
        batch.append(one)
        files += one.survey.files if one.survey else 1
        if len(batch) >= BATCH or files >= BATCH_FILES:
            yield batch
            batch, files = [], 0
    if batch:
        yield batch


def _unlink_files(root: Root, work: Work, units: list[Doomed], done: Done) -> list[Doomed]:
    busy = work.busy()
    protected = work.protected(root.path, busy)
    left = []
    for one in units:
        name = os.path.basename(one.path)
        if one.kind == "dir" or one.survey is None:
            left.append(one)
            continue
        try:
            found = survey(root.fd, name, root.look(work.target, busy, work.now))
            if _differs(one.survey, found, work) or name in protected:
                left.append(one)  # judged again, with all the reasons, in quarantine
                continue
            os.unlink(name, dir_fd=root.fd)
        except (OSError, Changed) as error:
            done.fail(one.target, one.path, error)
        else:
            done.gone(one, found)
    return left


def _make_room(root: Root, work: Work, units: list[Doomed], done: Done) -> Quarantine:
    """Make a quarantine folder, if need be by removing folders where they are, the smallest first, until there is room for it.

    :raises OSError: there is none even so.
    """
    while True:
        try:
            return Quarantine.make(root)
        except OSError as error:
            folders = sorted(
                (one.survey.files, one.path, one)
                for one in units
                if one.kind == "dir" and one.survey is not None
            )
            if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not folders:
                raise
            one = folders[0][2]
            units.remove(one)
            try:
                _remove_aside(root, work, one, done)
            except (OSError, Changed) as why:
                done.fail(one.target, one.path, why)


def _remove_aside(root: Root, work: Work, one: Doomed, done: Done) -> None:
    name = os.path.basename(one.path)
    protected = work.protected(root.path, None)
    if name in protected:
        done.kept.append(Kept(one.target, one.path, protected[name]))
        return
    found: Survey | None = None
    aside = Aside(root, Aside.name_for(name), name)
    os.rename(name, aside.name, src_dir_fd=root.fd, dst_dir_fd=root.fd)
    try:
        busy = work.busy()
        protected = work.protected(root.path, busy)
        reason = protected.get(name) or protected.get(aside.name)
        if not reason:
            found = survey(root.fd, aside.name, root.look(work.target, busy, work.now, moved=True))
            reason = _differs(one.survey, found, work)
            if not reason:
                aside.begin(found.identity)
    except BaseException as error:
        _return(aside, one, f"the cleanup was stopped: {error}", done)
        if isinstance(error, (OSError, Changed)):
            return
        raise
    if reason or found is None:
        _return(aside, one, reason, done)
    else:
        finish(root, aside, aside.name, replace(one, survey=found), done)


def _batch(
    quarantine: Quarantine,
    work: Work,
    units: Sequence[Doomed],
    done: Done,
    step: Callable[[int], None],
    before: int,
) -> None:
    """Move units, judge them again, remove them. C(before) have gone before, C(step) is told how far it is."""
    root = quarantine.root
    protected = work.protected(root.path, None)
    moved = []
    for one in units:
        name = os.path.basename(one.path)
        if name in protected:
            done.kept.append(Kept(one.target, one.path, protected[name]))
            continue
        try:
            os.rename(name, name, src_dir_fd=root.fd, dst_dir_fd=quarantine.new)
        except FileNotFoundError:
            continue  # somebody else removed it
        except OSError as error:
            lower = error.errno == errno.EXDEV and root.overlay
            done.fail(
                one.target,
                one.path,
                "it lies in a lower layer of an overlay, where no folder can be renamed"
                if lower
                else error,
            )
            continue
        moved.append(one)
    judged: list[tuple[Doomed, Survey]] = []
    waiting = list(reversed(moved))
    try:
        # Whoever opened a unit before it was moved is seen now; nobody can open it by its name any more.
        busy = work.busy()
        protected = work.protected(f"{quarantine.path}/new", busy)
        look = root.look(work.target, busy, work.now, moved=True)
        while waiting:
            found = _judge(quarantine, work, waiting[-1], look, protected, done)
            one = waiting.pop()
            if found is not None:
                judged.append((one, found))
        judged.reverse()
        while judged:
            if len(judged) % 50 == 0:
                step(before + len(units) - len(judged))
            _destroy(quarantine, *judged.pop(), done)
    except BaseException as error:
        for one in [*waiting, *(one for one, _found in judged)]:
            _return(quarantine, one, f"the cleanup was stopped: {error}", done)
        raise


def _judge(
    quarantine: Quarantine,
    work: Work,
    one: Doomed,
    look: Look,
    protected: dict[str, str],
    done: Done,
) -> Survey | None:
    """Look again at a unit that was moved; return what it is now, or put it back and return None."""
    name = os.path.basename(one.path)
    if name in protected:
        _return(quarantine, one, protected[name], done)
        return None
    try:
        found = survey(quarantine.new, name, look)
        reason = _differs(one.survey, found, work)
    except FileNotFoundError:
        done.fail(one.target, one.path, "it vanished from the quarantine folder")
        return None
    except Changed as error:
        reason = str(error)
    except OSError as error:
        reason = f"it can't be read: {error.strerror}"
    if reason:
        _return(quarantine, one, reason, done)
        return None
    return found


def _destroy(quarantine: Quarantine, one: Doomed, found: Survey, done: Done) -> None:
    root, name = quarantine.root, os.path.basename(one.path)
    try:
        os.rename(name, name, src_dir_fd=quarantine.new, dst_dir_fd=quarantine.doomed)
    except OSError as error:
        done.fail(one.target, one.path, error)
        return
    finish(root, quarantine, name, replace(one, survey=found), done)


def finish(root: Root, quarantine: Quarantine, name: str, one: Doomed, done: Done) -> None:
    """Remove a unit that lies in C(doomed)."""
    problems = remove(quarantine.doomed, name, root.device, root.mount)
    if problems:
        done.fail(one.target, quarantine.place("doomed", name), "; ".join(problems))
    elif one.survey is not None:
        done.gone(one, one.survey)
    else:
        done.count(one, 0)


def _return(quarantine: Quarantine, one: Doomed, reason: str, done: Done) -> None:
    name = os.path.basename(one.path)
    try:
        quarantine.put_back(name)
    except OSError as error:
        done.fail(
            one.target,
            quarantine.place("new", name),
            f"{reason}; and it could not be put back: {error.strerror}",
        )
    else:
        done.kept.append(Kept(one.target, one.path, reason))


def _differs(planned: Survey | None, found: Survey, work: Work) -> str:
    """Return why a unit is no longer what was planned, or empty."""
    if planned is not None and (found.identity != planned.identity or found.mode != planned.mode):
        return "it was replaced by something else after the plan was made"
    if found.veto is not None and not found.stopped:
        return found.veto
    if not due(found, work.target, work.now) or (
        planned is not None and found.mtime_ns != planned.mtime_ns
    ):
        return "it was changed after the plan was made"
    return ""


# --- what a stopped run left --------------------------------------------------------------------------------------


@dataclass
class Leftover:
    """A quarantine folder of a stopped run: what in it was already being removed, what was only moved and is due, and what goes back to
    its place (target and name)."""

    quarantine: Quarantine
    begun: list[Doomed] = field(default_factory=list)
    due: list[Doomed] = field(default_factory=list)
    back: list[tuple[str, str]] = field(default_factory=list)


def leftovers(
    root: Root,
    targets: Sequence[Target],
    busy: InUse | None,
    now: float,
    protected: Callable[[str, InUse | None], dict[str, str]],
) -> Iterator[Leftover]:
    """Find what stopped runs left in a root.

    What was already being removed goes on; what was only moved is judged again by the target that matches its name
    (its own ctime is the moment of the move, so only its mtime counts), and goes back when it is not due, or when that target keeps its
    newest units: which those are can only be told of units in their places.
    """
    for name in sorted(os.listdir(root.fd)):
        aside = Aside.take(root, name)
        if aside is not None:
            yield _left_aside(aside, targets[0])
            continue
        quarantine = Quarantine.take(root, name)
        if quarantine is None:
            continue
        found = Leftover(quarantine)
        for one in _names(quarantine.doomed):
            unit = None
            with contextlib.suppress(OSError, Changed):
                unit = survey(
                    quarantine.doomed, one, Look(STAMPS["mtime"], root.device, root.mount)
                )
            found.begun.append(
                _left(
                    targets[0],
                    f"{quarantine.path}/doomed/{one}",
                    unit,
                    "its removal was interrupted",
                )
            )
        stay = protected(f"{quarantine.path}/new", busy)
        for one in _names(quarantine.new):
            target = next((target for target in targets if target.matches(one)), None)
            if target is None or one in stay:
                found.back.append(((target or targets[0]).name, one))
                continue
            try:
                unit = survey(quarantine.new, one, root.look(target, busy, now, moved=True))
            except (OSError, Changed):
                found.back.append((target.name, one))
                continue
            kept = target.keep_last > 0 or not target.fits(unit.kind)
            if kept or (unit.veto is not None and not unit.stopped) or not due(unit, target, now):
                found.back.append((target.name, one))
            else:
                found.due.append(
                    _left(
                        target,
                        f"{quarantine.path}/new/{one}",
                        unit,
                        "a run was interrupted before its removal",
                    )
                )
        yield found


def _left_aside(aside: Aside, target: Target) -> Leftover:
    found = Leftover(aside)
    if not aside.begun:
        found.back.append((target.name, aside.original))
        return found
    unit = None
    with contextlib.suppress(OSError, Changed):
        unit = survey(
            aside.root.fd, aside.name, Look(STAMPS["mtime"], aside.root.device, aside.root.mount)
        )
    found.begun.append(_left(target, aside.path, unit, "its removal was interrupted"))
    return found


def _names(fd: int) -> list[str]:
    return sorted(os.listdir(fd)) if fd >= 0 else []


def _left(target: Target, path: str, unit: Survey | None, reason: str) -> Doomed:
    kind, size = (unit.kind, unit.disk_usage) if unit else ("dir", 0)
    return Doomed(target.name, path, kind, size, None, reason, unit)


def recover(left: Leftover, done: Done) -> None:
    """Finish what a stopped run began."""
    quarantine = left.quarantine
    if left.due:
        try:
            quarantine.complete()
        except OSError as error:
            done.fail(left.due[0].target, quarantine.path, error)
            return
    for target, name in left.back:
        path = f"{quarantine.root.path.rstrip('/')}/{name}"
        _return(quarantine, Doomed(target, path, "", 0, None, ""), PUT_BACK, done)
    for one in left.begun:
        finish(quarantine.root, quarantine, os.path.basename(one.path), one, done)
    for one in left.due:
        if one.survey is not None:
            _destroy(quarantine, one, one.survey, done)
