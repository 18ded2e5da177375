# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One cleanup from options to result: observe, decide, check the brake, carry out, report."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import FleetError, NotUsable, Refused, WriteFailed
from ..ports import Progress, Tell, World, silent
from ..system.files import atomic_write
from ..system.locks import lock, lock_folder
from ..system.mounts import Mount, follow, located
from ..system.mounts import read as read_mounts
from ..system.removal import Changed, mount_id
from ..system.text import display_path, human_duration
from ..verdict import isoformat
from . import inuse, tools
from .apply import PUT_BACK, Done, Failure, Leftover, Root, Work, carry_out, leftovers, recover
from .inuse import InUse
from .options import OWN_LOGS, CleanupOptions, Target, homes, refuse_root
from .plan import Braked, Doomed, Folder, Kept, Plan, check_brake, decide
from .scan import MOUNT, open_root, survey

#: Seconds by which the clock that dated a backup may be ahead of ours.
SKEW = 3600.0
#: Entries of each list in the result; the report has all.
SHOWN = 1000


@dataclass
class Facts:
    """What was observed. C(roots) are by target name and open until close(); C(left) is what stopped runs left."""

    folders: list[Folder] = field(default_factory=list)
    tools: list[tools.Tool] = field(default_factory=list)
    roots: dict[str, Root] = field(default_factory=dict)
    left: list[Leftover] = field(default_factory=list)
    busy: InUse | None = None
    now: float = 0.0

    def close(self, tidy: bool) -> None:
        """Close every descriptor; C(tidy): remove quarantine folders that are empty."""
        for one in self.left:
            one.quarantine.close(tidy)
        for fd in {root.fd for root in self.roots.values()}:
            os.close(fd)


@dataclass
class CleanupResult:
    """What a cleanup did, or in check mode would do."""

    options: CleanupOptions
    timestamp: str
    hostname: str
    facts: Facts
    plan: Plan
    done: Done
    check: bool
    filesystems: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        """Whether something was removed or put back, or would be."""
        return bool(self.done.removed or any(one.back for one in self.facts.left))

    @property
    def failures(self) -> list[Failure]:
        """What could not be done."""
        found = [
            Failure(folder.target.name, folder.target.path, folder.note)
            for folder in self.facts.folders
            if folder.state == "failed"
        ]
        return found + self.done.failures

    def to_dict(self, limit: int | None = SHOWN) -> dict[str, Any]:
        """Return the module's result; lists end after C(limit) entries, their lengths stand in C(*_count)."""
        kept = self.plan.keep + self.done.kept
        found: dict[str, Any] = {
            "changed": self.changed,
            "plan": [one.to_dict() for one in self.plan.remove[:limit]],
            "plan_count": len(self.plan.remove),
            "removed": [one.to_dict() for one in self.done.removed[:limit]],
            "removed_count": len(self.done.removed),
            "kept": [one.to_dict() for one in kept[:limit]],
            "kept_count": len(kept),
            "failures": [one.to_dict() for one in self.failures[:limit]],
            "freed_bytes": sum(self.done.freed.values()),
            "filesystems": self.filesystems,
            "targets": self._targets(),
            "notes": self.notes,
        }
        if self.failures:
            found["failed"] = True
            found["msg"] = self.message()
        return found

    def message(self) -> str:
        """Return one line about what failed."""
        first = self.failures[0]
        more = f" (and {len(self.failures) - 1} more)" if len(self.failures) > 1 else ""
        return f"{len(self.failures)} of the cleanup's tasks failed: {display_path(first.path)}: {first.error}{more}."

    def diff(self) -> dict[str, str]:
        """Return the removed units as lines that disappear."""
        lines = "".join(f"{display_path(one.path)}\n" for one in self.done.removed)
        return {
            "before_header": "units to remove",
            "after_header": "units to remove",
            "before": lines,
            "after": "",
        }

    def report(self) -> dict[str, Any]:
        """Return the whole report, nothing left out."""
        return {
            "timestamp": self.timestamp,
            "hostname": self.hostname,
            "options": self.options.to_dict(),
            **self.to_dict(None),
        }

    def _targets(self) -> list[dict[str, Any]]:
        found = []
        failed = {one.target for one in self.failures}
        for name, root, state, note in [
            *(
                (one.target.name, one.path or one.target.path, one.state, one.note)
                for one in self.facts.folders
            ),
            *((one.name, one.root, one.state, one.note) for one in self.facts.tools),
        ]:
            planned = self.plan.of(name)
            found.append(
                {
                    "name": name,
                    "root": display_path(root),
                    "status": "failed" if name in failed else state,
                    "note": note,
                    "matched_count": self.plan.matched.get(name, 0),
                    "planned_count": len(planned),
                    "planned_bytes": sum(one.size for one in planned),
                    "removed_count": sum(one.target == name for one in self.done.removed),
                    "kept_count": sum(
                        one.target == name for one in self.plan.keep + self.done.kept
                    ),
                    "freed_bytes": self.done.freed.get(name, 0),
                }
            )
        return found


def run(
    options: CleanupOptions, world: World, check: bool = False, tell: Tell = silent
) -> CleanupResult:
    """Clean up; with C(check) say what would be done and touch nothing.

    :raises Braked: more would go than the brake allows. :raises Refused: a root that is dangerous, or no fresh verified backup.
    :raises LockBusy: another cleanup runs on this host. :raises NotUsable: it can't be found out what is in use, or the report has no folder.
    Nothing was removed when one of these is raised before the first unit goes; units that resist later are in C(failures).
    """
    if options.report_path and not os.path.isdir(os.path.dirname(options.report_path)):
        raise NotUsable(
            f"The folder of the report {options.report_path} does not exist.",
            "Make it, or name another file.",
            options.report_path,
        )
    if options.report_path and os.path.isdir(options.report_path):
        raise NotUsable(
            f"The report {options.report_path} is a folder.",
            "Name a file in it.",
            options.report_path,
        )
    if check:
        return _run(options, world, True, tell)
    with lock(os.path.join(lock_folder(), "cleanup.lock"), "cleanup"):
        return _run(options, world, False, tell)


def _run(options: CleanupOptions, world: World, check: bool, tell: Tell) -> CleanupResult:
    require_backup(options, world)
    facts, tidy = Facts(now=world.clock.now()), False
    try:
        observe(options, world, facts, tell)
        plan = decide(facts.folders, facts.now)
        for tool in facts.tools:
            plan.remove.extend(tool.remove)
            plan.keep.extend(tool.keep)
            plan.matched[tool.name] = len(tool.remove) + len(tool.keep)
        result = CleanupResult(
            options, isoformat(facts.now), world.hostname, facts, plan, Done(), check
        )
        if facts.busy is not None and (facts.busy.unseen or facts.busy.hidden is not None):
            stay = (
                "" if facts.busy.hidden is None else "; units that hold files of their users stay"
            )
            result.notes.append(
                f"{facts.busy.unseen or 'Some'} process(es) could not be examined; only locks and mounts tell what they use{stay}."
            )
        for left in facts.left:
            plan.remove.extend(left.due)
            for one in left.due:
                plan.matched[one.target] += 1
        try:
            check_brake(plan, facts.folders, options.brake)
        except Braked as stopped:
            stopped.result = result.to_dict()
            raise
        for left in facts.left:
            plan.remove.extend(left.begun)
        if check:
            _predict(result)
        else:
            tidy = True
            before = _space(facts)
            _carry_out(options, world, facts, plan, result.done, tell)
            result.filesystems = _compare(before, _space(facts))
        if not check and options.report_path:
            try:
                atomic_write(
                    options.report_path, json.dumps(result.report(), indent=1) + "\n", mode=0o640
                )
            except WriteFailed as error:
                result.done.fail("", options.report_path, error)
    finally:
        facts.close(tidy)
    return result


# --- observing ----------------------------------------------------------------------------------------------------


def require_backup(options: CleanupOptions, world: World) -> None:
    """:raises Refused: a backup is required and there is none that is verified and fresh."""
    wanted = options.require_backup
    if not wanted:
        return
    from ..backup import api as backups

    path = wanted["path"]
    found = backups.backups_at(path)
    verified = [backup for backup in found if backup.verified]
    if not verified:
        why = (
            f" ({display_path(found[0].name)}: {'; '.join(found[0].problems) or 'it was not verified'})"
            if found
            else ""
        )
        raise Refused(
            f"Nothing was removed: {path} holds no verified backup{why}.",
            "Make one with mlops.fleet.model_backup first.",
            path,
        )
    # A date in the future would make a backup fresh for ever.
    dated = [backup.created for backup in verified if backup.created <= world.clock.now() + SKEW]
    if not dated:
        raise Refused(
            f"Nothing was removed: the newest verified backup in {path} is dated in the future ({isoformat(verified[0].created)}); a clock was wrong.",
            "Check the clock and make a new backup with mlops.fleet.model_backup first.",
            path,
        )
    age = world.clock.now() - max(dated)
    if age > wanted["max_age_hours"] * 3600:
        raise Refused(
            f"Nothing was removed: the newest verified backup in {path} is {human_duration(age)} old, {wanted['max_age_hours']:g} h are allowed.",
            "Make a new one with mlops.fleet.model_backup first.",
            path,
        )


def observe(options: CleanupOptions, world: World, facts: Facts, tell: Tell) -> None:
    """Fill in the facts. Reads only; the roots stay open."""
    for target in options.folders:
        facts.folders.append(_open(target, facts))
    facts.busy = _busy(options, world, facts.roots.values())
    own = _own_paths(options, facts)
    places: dict[tuple[int, int], list[Folder]] = {}
    for folder in facts.folders:
        root = facts.roots.get(folder.target.name)
        if root is None:
            continue
        try:
            folder.protected = _protected(root, facts.busy, own, root.path)
            _survey(folder, root, facts, tell)
        except OSError as error:
            folder.state, folder.note = "failed", f"{folder.path} can't be read: {error.strerror}"
            folder.units, folder.unread = [], {}
            continue
        places.setdefault((root.device, os.fstat(root.fd).st_ino), []).append(folder)
    for same in places.values():
        root = facts.roots[same[0].target.name]
        protected = functools.partial(_stay, root, own)
        facts.left.extend(
            leftovers(root, [folder.target for folder in same], facts.busy, facts.now, protected)
        )
    facts.tools = [tools.look(name, world) for name in options.tools]


def _open(target: Target, facts: Facts) -> Folder:
    folder = Folder(target)
    try:
        fd, folder.path = open_root(target.path)
    except FileNotFoundError:
        folder.state, folder.note = "missing", "there is no such folder here"
        return folder
    except NotUsable as error:
        folder.state, folder.note = "failed", str(error)
        return folder
    root = facts.roots[target.name] = Root(
        fd, folder.path, os.fstat(fd).st_dev, mount_id(fd), given=target.path
    )
    refuse_root(folder.path, target.shared_ok)  # once more, where the links lead now
    mounts = read_mounts()
    root.source = located(folder.path, mounts)
    root.overlay = any(
        mount.fstype == "overlay" and (root.mount is None or mount.id == root.mount)
        for mount in mounts
    )
    return folder


def _busy(options: CleanupOptions, world: World, roots: Iterable[Root]) -> InUse | None:
    roots = list(roots)
    if options.in_use == "ignore" or not roots:
        return None
    # In an overlay st_dev differs by layer, so that no list of devices is complete.
    devices = None if any(root.overlay for root in roots) else {root.device for root in roots}
    return inuse.observe(world.path("/proc"), devices, [root.path for root in roots])


def _own_paths(options: CleanupOptions, facts: Facts) -> dict[str, str]:
    """Return paths that must not go, and why: what this run itself needs."""
    own = {path: f"is or holds the home folder of {user}" for path, user in homes().items()}
    own.update((root.path, "holds a cleanup root") for root in facts.roots.values())
    # Not asked of lock_folder(), which makes it: a check touches nothing.
    for folder in (f"/tmp/mlops-fleet-{os.geteuid()}", os.environ.get("MLOPS_FLEET_LOCK_DIR", "")):
        own[os.path.realpath(folder or "/")] = "holds our locks"
    if options.report_path:
        own[os.path.realpath(options.report_path)] = "is or holds the report"
    if options.require_backup:
        own[os.path.realpath(options.require_backup["path"])] = "is or holds the backup"
    return own


def _protected(root: Root, busy: InUse | None, own: dict[str, str], folder: str) -> dict[str, str]:
    """Return the names in C(folder) (the root, or its quarantine) that must stay whatever their age, and why. Reads the mount table anew."""
    found: dict[str, str] = {}
    mounts = read_mounts()

    def protect(path: str, base: str, reason: str) -> None:
        unit = _unit_of(path, base)
        if unit:
            found.setdefault(unit, reason)

    for path, reason in own.items():
        protect(path, root.path, reason)
    for line in mounts:
        protect(line.point, folder, MOUNT)
    if busy is not None and root.source is not None:
        source = root.source[1].rstrip("/") + folder[len(root.path) :]
        for device, path in busy.mounts:
            if device == root.source[0]:
                protect(path, source, "in use: it is mounted elsewhere")
    with os.scandir(root.fd) as entries:
        present = [(entry.name, entry.is_symlink()) for entry in entries]
    units = {name for name, _link in present}
    if folder != root.path:
        with contextlib.suppress(OSError):
            units.update(os.listdir(folder))
    for name, link in present:
        unit = _named_by(root, name, mounts) if link else ""
        if unit in units and unit != name:
            found.setdefault(unit, f"the link {display_path(name)} names it")
            found.setdefault(name, f"it names {display_path(unit)}")
    if root.path == "/var/log":
        found.update(
            (name, "a log of our own jobs; log rotation removes it")
            for name, _link in present
            if OWN_LOGS.fullmatch(name)
        )
    return found


def _unit_of(path: str, base: str) -> str:
    """Return the first component of C(path) below C(base), empty when it does not lie below it."""
    base = base.rstrip("/") + "/"
    return path[len(base) :].split("/")[0] if path.startswith(base) else ""


def _named_by(root: Root, link: str, mounts: Sequence[Mount]) -> str:
    """Return the name in the root that a link in the root (C(latest)) leads to, empty when it leads elsewhere.

    Compared as text first, and through the mount table: a link into a dead network mount must not be followed.
    """
    try:
        target = os.readlink(link, dir_fd=root.fd)
    except OSError:
        return ""
    text = os.path.normpath(os.path.join(root.path, target))
    for path in (text, follow(os.path.join(root.path, target), mounts, root.mount)):
        unit = _unit_of(path, root.path) or _unit_of(path, root.given)
        if not unit and root.source is not None:
            device, source = located(path, mounts) or ("", "")
            unit = _unit_of(source, root.source[1]) if device == root.source[0] else ""
        if unit:
            return unit
    return ""


def _survey(folder: Folder, root: Root, facts: Facts, tell: Tell) -> None:
    target, look = folder.target, root.look(folder.target, facts.busy, facts.now)
    here = os.fstat(root.fd)
    # In a sticky folder only root and the owners of the folder and of the entry may remove the entry.
    foreign = bool(here.st_mode & stat.S_ISVTX) and os.geteuid() not in (0, here.st_uid)
    names = [name for name in sorted(os.listdir(root.fd)) if target.matches(name)]
    for number, name in enumerate(names):
        if number % 100 == 0:
            tell(Progress("scan", number, len(names), "files", target.name))
        if folder.protected.get(name) == MOUNT:
            folder.unread[name] = MOUNT  # not even looked at: a dead network mount would not answer
            continue
        try:
            unit = survey(root.fd, name, look)
        except FileNotFoundError:
            continue
        except (Changed, OSError) as error:
            folder.unread[name] = (
                f"it could not be looked at: {error.strerror if isinstance(error, OSError) else error}"
            )
            continue
        if not target.fits(unit.kind):
            continue
        if foreign and unit.uid != os.geteuid():
            unit.veto, unit.stopped = "it belongs to another user", False
        plain = stat.S_ISDIR(unit.mode) or stat.S_ISREG(unit.mode)
        if (
            facts.busy is not None
            and plain
            and unit.veto is None
            and not unit.stopped
            and inuse.locked(name, root.fd, unit.kind == "dir")
        ):
            unit.keep("in use: it is locked")
        folder.units.append(unit)


# --- carrying out -------------------------------------------------------------------------------------------------


def _predict(result: CleanupResult) -> None:
    """Fill in what a run would do."""
    for left in result.facts.left:
        result.done.kept.extend(
            Kept(target, f"{left.quarantine.root.path}/{name}", PUT_BACK)
            for target, name in left.back
        )
    for one in result.plan.remove:
        _count(result.done, one)


def _count(done: Done, one: Doomed) -> None:
    if one.survey is not None:
        done.gone(one, one.survey)
    else:
        done.count(one, one.size)


def _carry_out(
    options: CleanupOptions, world: World, facts: Facts, plan: Plan, done: Done, tell: Tell
) -> None:
    own = _own_paths(options, facts)
    for left in facts.left:
        recover(left, done)
    for folder in facts.folders:
        root, name = facts.roots.get(folder.target.name), folder.target.name
        units = [one for one in plan.of(name) if os.path.dirname(one.path) == folder.path]
        if root is None or not units:
            continue
        busy = functools.partial(_busy, options, world, [root])
        protected = functools.partial(_stay, root, own)
        try:
            carry_out(root, Work(folder.target, facts.now, busy, protected), units, done, tell)
        except (FleetError, OSError) as error:
            done.fail(name, folder.path, error)
    for tool in facts.tools:
        if tool.remove:
            tell(Progress("remove", 0, len(tool.remove), "files", tool.name))
            problems = tool.clean()
            for one in tool.remove:
                if one.path in problems:
                    done.fail(tool.name, one.path, problems[one.path])
                else:
                    _count(done, one)


def _stay(root: Root, own: dict[str, str], folder: str, busy: InUse | None) -> dict[str, str]:
    return _protected(root, busy, own, folder)


def _space(facts: Facts) -> dict[int, tuple[str, int]]:
    """Return the bytes available to users by filesystem: st_dev to (a path on it, bytes)."""
    found: dict[int, tuple[str, int]] = {}
    for root in facts.roots.values():
        state = os.fstatvfs(root.fd)
        found.setdefault(root.device, (root.path, state.f_bavail * state.f_frsize))
    return found


def _compare(
    before: dict[int, tuple[str, int]], after: dict[int, tuple[str, int]]
) -> list[dict[str, Any]]:
    return [
        {
            "path": path,
            "available_before": was,
            "available_after": after[device][1],
            "difference": after[device][1] - was,
        }
        for device, (path, was) in before.items()
    ]
