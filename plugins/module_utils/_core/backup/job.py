# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Making a backup: observe, decide, carry out. C(run) does all three and is what the shells call.

Order, and why: the archive is written under a temporary name, synchronised, read back and compared; then the checksum file,
then the archive's rename to its final name, then the manifest, which says that the backup is complete; then the copy in S3;
and only then what retention lets go. Killed at any moment, no half archive ever has a final name and nothing old is lost.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import FleetError, NotUsable, Refused, StoreError, WriteFailed
from ..ports import Tell, World, silent
from ..system.files import atomic_write
from ..system.locks import lock
from ..system.roots import FORBIDDEN_TREES
from ..system.text import display_path, human_size
from ..verdict import isoformat
from . import archive, catalogue, codec, manifest, names, reading, retention, source, verify
from .catalogue import Backup
from .options import BackupOptions
from .source import Tree

#: How often a run starts over because a file changed while it was read.
ATTEMPTS = 3
_FILE_MODE = 0o640
_FOLDER_MODE = 0o750


@dataclass(frozen=True)
class Facts:
    """What was read. C(tree) is the source, C(free) bytes left for this user at the destination, C(now) seconds since the epoch."""

    tree: Tree
    fingerprint: str
    backups: tuple[Backup, ...]
    free: int
    now: float


@dataclass(frozen=True)
class Plan:
    """What is to be done. C(make) with C(reason); C(current) is the backup that makes a new one unnecessary; C(estimate) in bytes."""

    options: BackupOptions
    facts: Facts
    make: bool
    reason: str
    current: Backup | None
    estimate: int
    decisions: tuple[retention.Decision, ...]

    @property
    def removals(self) -> list[retention.Decision]:
        return [one for one in self.decisions if not one.keep]


@dataclass
class Result:
    """What was done, or in check mode would be."""

    plan: Plan
    backup: dict[str, Any] | None
    removed: list[dict[str, Any]]
    copies: list[dict[str, Any]] = field(default_factory=list)
    changed: bool = False
    notes: list[str] = field(default_factory=list)
    durations: dict[str, float] = field(default_factory=dict)
    written: int = 0
    before: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return what the module returns: C(changed backup plan removed copies stats notes). Durations in seconds, sizes in bytes."""
        tree = self.plan.facts.tree
        return {
            "changed": self.changed,
            "backup": self.backup,
            "plan": {
                "action": "create" if self.plan.make else "keep",
                "reason": self.plan.reason,
                "files": tree.files,
                "bytes": tree.size,
                "estimated_size": self.plan.estimate,
            },
            "removed": self.removed,
            "copies": self.copies,
            "stats": {
                "durations": {
                    phase: round(seconds, 3) for phase, seconds in self.durations.items()
                },
                "bytes_read": tree.size if self.written else 0,
                "bytes_written": self.written,
                "ratio": round(self.written / tree.size, 4) if self.written and tree.size else None,
            },
            "notes": self.notes,
        }


def run(options: BackupOptions, world: World, check: bool = False, tell: Tell = silent) -> Result:
    """Make a backup unless the newest one still matches the source, copy it to S3, remove what retention lets go.

    :param check: only say what would be done.
    :raises FleetError: whatever kept it from succeeding; then nothing was removed. VerificationFailed: the archive was not good.
    """
    facts = observe(options, world)
    plan = decide(options, facts)
    return preview(plan) if check else carry_out(plan, world, tell)


# --- reading ----------------------------------------------------------------------------------------------------------------


def observe(options: BackupOptions, world: World) -> Facts:
    """Read source and destination. :raises NotUsable: source missing, unreadable, without a file. :raises Refused: see below."""
    refuse(options.source, options.destination)
    if options.compression == "zstd":
        codec.make("zstd", options.compression_level)
    if options.s3:
        # A missing library or a setting that can't be used must come out before hours of work, not after.
        from .store_s3 import Store

        Store(options.s3)
    with _opened_source(options.source) as root:
        tree = _walk(root, options)
    return Facts(
        tree=tree,
        fingerprint=source.fingerprint(options.source, tree.entries),
        backups=tuple(catalogue.listing(options.destination)),
        free=_free(options.destination),
        now=world.clock.now(),
    )


def refuse(origin: str, destination: str) -> None:
    """Refuse a destination inside the source, the reverse, and system folders. :raises Refused: :raises NotUsable: no folder."""
    here, there = os.path.realpath(origin), os.path.realpath(destination)
    if not os.path.isdir(here):
        what = "is not a folder" if os.path.lexists(here) else "does not exist"
        raise NotUsable(
            f"The source {origin} {what}.", "Name the folder that holds the models.", origin
        )
    present = destination
    while not os.path.lexists(present):
        present = os.path.dirname(present)
    if not os.path.exists(present):
        # Where a link leads to is mostly a disk; made on the disk below its mount point, backups would not be where they are looked for.
        target = os.path.realpath(present)
        raise NotUsable(
            f"The destination {destination} leads to {target}, which does not exist.",
            "Mount its disk, or make the folder.",
            destination,
        )
    if os.path.lexists(there) and not os.path.isdir(there):
        raise NotUsable(
            f"The destination {destination} is not a folder.", "Name a folder.", destination
        )
    if there == "/" or any(
        there == tree or there.startswith(tree + "/") for tree in FORBIDDEN_TREES
    ):
        raise Refused(
            f"The destination {destination} is a system folder.",
            "Name a folder of its own for backups.",
            destination,
        )
    if _inside(there, here):
        raise Refused(
            f"The destination {destination} lies inside the source {origin}, so backups would contain backups.",
            "Name a folder elsewhere.",
            destination,
        )
    if _inside(here, there):
        raise Refused(
            f"The source {origin} lies inside the destination {destination}.",
            "Name a folder elsewhere.",
            destination,
        )


def _inside(path: str, folder: str) -> bool:
    """Say whether C(path) is C(folder) or in it, by identity, so that bind mounts and other spellings count."""
    try:
        wanted = os.stat(folder)
    except OSError:
        return False
    while True:
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(path), wanted):
                return True
        if path == "/":
            return False
        path = os.path.dirname(path)


@contextlib.contextmanager
def _opened_source(path: str) -> Iterator[int]:
    fd = source.open_root(path)
    try:
        yield fd
    finally:
        os.close(fd)


def _walk(root: int, options: BackupOptions) -> Tree:
    never = None
    with contextlib.suppress(OSError):
        never = os.stat(options.destination)
    tree = source.walk(root, options.source, options.exclude, never)
    if not tree.files:
        left = " that is not excluded" if options.exclude else ""
        raise NotUsable(
            f"The source {options.source} holds no file{left}; an empty backup would only push good ones out.",
            "Check the path, and that its disk is mounted.",
            options.source,
        )
    return tree


def _free(folder: str) -> int:
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


# --- deciding ---------------------------------------------------------------------------------------------------------------


def decide(options: BackupOptions, facts: Facts) -> Plan:
    """Say whether a backup is needed and what would go afterwards. Pure. :raises WriteFailed: it would not fit."""
    own = catalogue.of_source(facts.backups, options.source)
    current = catalogue.newest(own, facts.now)
    make, reason = _needed(options, facts, current)
    estimate = _estimate(options, facts, current) if make else 0
    if estimate > facts.free:
        raise WriteFailed(
            f"Not enough space in {options.destination}: the backup needs about {human_size(estimate)}, {human_size(facts.free)} are free.",
            "Free some space, or name another destination.",
            options.destination,
        )
    backups = own
    if make:
        backups.append(_expected(options, _time(facts)))
    decisions = retention.decide(backups, rules(options), facts.now)
    return Plan(
        options,
        facts,
        make,
        reason,
        None if make else current,
        estimate,
        tuple(one for one in decisions if one.backup.name),
    )


def _expected(options: BackupOptions, created: float) -> Backup:
    """Return the backup that is to be made, for the rules."""
    return Backup(
        "", "", created, 0, manifest={"verifications": [{"result": "ok"}] if options.verify else []}
    )


def rules(options: BackupOptions) -> retention.Rules:
    """Return the retention options as rules."""
    return retention.Rules(
        days=options.retention_days,
        last=options.keep_last,
        daily=options.keep_daily,
        weekly=options.keep_weekly,
        monthly=options.keep_monthly,
        yearly=options.keep_yearly,
    )


def _needed(options: BackupOptions, facts: Facts, current: Backup | None) -> tuple[bool, str]:
    if options.force:
        return True, "forced"
    if current is None or current.manifest is None:
        return True, "there is no complete backup"
    if options.verify and not current.verified:
        return True, "the newest backup was never verified"
    if current.manifest["fingerprint"] != facts.fingerprint:
        return True, "the source has changed"
    return False, f"nothing has changed since {current.name}"


def _estimate(options: BackupOptions, facts: Facts, current: Backup | None) -> int:
    """Return the expected size of the archive in bytes: by the last one's ratio, else as if nothing could be compressed."""
    overhead = 2048 * len(facts.tree.entries) + 65536
    if options.compression == "none":
        return facts.tree.size + overhead
    size = facts.tree.allocated
    if (
        current is not None
        and current.manifest is not None
        and current.manifest["compression"] == options.compression
    ):
        before = current.manifest["totals"]["bytes"]
        if before:
            return int(facts.tree.size * min(1.0, 1.1 * current.size / before)) + overhead
    return size + overhead


# --- doing ------------------------------------------------------------------------------------------------------------------


def preview(plan: Plan) -> Result:
    """Return what carrying out the plan would return, as far as it can be known."""
    facts = plan.facts
    result = Result(
        plan,
        plan.current.to_dict() if plan.current else None,
        [_removal(one) for one in plan.removals],
    )
    result.before = sorted(one.name for one in facts.backups)
    gone = {one.backup.name for one in plan.removals}
    result.after = [name for name in result.before if name not in gone]
    result.notes = _notes(facts.tree, plan.options.source) + _folder_notes(
        facts, plan.options.source
    )
    if plan.make:
        result.after.append(
            _free_name(result.before, _time(facts), names.SUFFIXES[plan.options.compression])[0]
        )
    result.changed = plan.make or bool(gone)
    if plan.options.s3:
        from .store_s3 import Store

        store = Store(plan.options.s3)
        store.look()
        copied = plan.current is not None and store.has(plan.current)
        result.copies = (
            [
                {
                    "url": store.url(
                        result.after[-1] if plan.make or plan.current is None else plan.current.name
                    ),
                    "verified": "planned",
                }
            ]
            if not copied
            else []
        )
        if plan.options.s3["prune"]:
            coming = [] if copied else [plan.current or _expected(plan.options, _time(facts))]
            gone_there = _prunable(store, plan.options, facts.now, coming)
            result.copies += [
                {"url": store.url(one.backup.name), "removed": True, "reason": one.reason}
                for one in gone_there
            ]
        result.changed = result.changed or bool(result.copies)
    return result


def carry_out(plan: Plan, world: World, tell: Tell = silent) -> Result:
    """Do what the plan says, under the destination's lock; what another run did since is taken into account.

    :raises LockBusy: another run is at it. :raises FleetError: see run.
    """
    options = plan.options
    _make_folder(options.destination)
    with lock(os.path.join(options.destination, names.LOCK), "backup to this folder"):
        folder = os.open(
            os.path.realpath(options.destination), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        )
        try:
            return _locked(plan, world, tell, folder)
        finally:
            os.close(folder)


def _locked(plan: Plan, world: World, tell: Tell, folder: int) -> Result:
    options = plan.options
    stale = catalogue.stale(options.destination)
    for name in stale:
        _discard(folder, name)
    facts = replace(
        plan.facts,
        backups=tuple(catalogue.listing(options.destination)),
        free=_free(options.destination),
    )
    plan = decide(options, facts)
    result = Result(plan, None, [])
    result.before = sorted(one.name for one in facts.backups)
    if stale:
        result.notes.append(f"removed {len(stale)} temporary files of interrupted runs")
    if plan.make:
        current = _make(plan, result, world, tell, folder)
    elif plan.current is not None:
        current = plan.current
    else:
        raise FleetError("The plan neither makes a backup nor knows one.")
    result.notes += _notes(result.plan.facts.tree, options.source) + _folder_notes(
        facts, options.source
    )
    result.backup = current.to_dict()
    if options.s3:
        _copy(options, current, result, world, tell)
    backups = catalogue.listing(options.destination)
    for decision in retention.decide(
        catalogue.of_source(backups, options.source), rules(options), facts.now
    ):
        # The run's own backup is never up for removal, whatever the clock says.
        if not decision.keep and decision.backup.name != current.name:
            _remove(folder, decision.backup.name)
            result.removed.append(_removal(decision))
            result.changed = True
    if result.removed:
        os.fsync(folder)
    gone = {one["name"] for one in result.removed}
    result.after = sorted(({one.name for one in backups} | {current.name}) - gone)
    return result


def _notes(tree: Tree, origin: str) -> list[str]:
    notes = [f"not backed up: {one}" for one in tree.skipped[:20]]
    if len(tree.skipped) > 20:
        notes.append(f"not backed up: {len(tree.skipped) - 20} more sockets, pipes and devices")
    return notes + _link_note(tree, origin)


def _folder_notes(facts: Facts, origin: str) -> list[str]:
    """Return what is worth knowing about the other backups in the folder."""
    notes = []
    ahead = [one for one in facts.backups if not catalogue.credible(one, facts.now)]
    if ahead:
        notes.append(
            f"{len(ahead)} backups are dated in the future ({ahead[0].name}): a clock was wrong; they stay until then, never taken for the newest"
        )
    others = catalogue.sources(facts.backups) - {origin}
    if others:
        notes.append(
            f"the folder holds backups of {', '.join(sorted(display_path(one) for one in others))} too; this run leaves them alone"
        )
    return notes


def _link_note(tree: Tree, origin: str) -> list[str]:
    links = {one.path: one.target for one in tree.entries if one.type == source.LINK}
    outside = [
        one
        for one in tree.entries
        if one.type == source.LINK
        and source.points_outside(one.path, one.target, os.path.normpath(origin), links)
    ]
    if not outside:
        return []
    first = f"{display_path(outside[0].path)} -> {display_path(outside[0].target)}"
    return [
        f"{len(outside)} links point out of the source ({first}): what they point to is not in the backup, and restoring them needs allow_outside_links"
    ]


def _removal(decision: retention.Decision) -> dict[str, Any]:
    backup = decision.backup
    return {
        "name": backup.name,
        "path": backup.path,
        "created": isoformat(backup.created),
        "size": backup.size,
        "reason": decision.reason,
    }


def _make_folder(path: str) -> None:
    missing = []
    while not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    for one in reversed(missing):
        try:
            os.mkdir(one, _FOLDER_MODE)
            os.chmod(one, _FOLDER_MODE)
        except FileExistsError:
            continue
        except OSError as error:
            raise WriteFailed(
                f"Can't make the folder {one}: {error.strerror}.",
                "Check its parent's permissions.",
                one,
            ) from error


def _free_name(present: Iterable[str], now: float, suffix: str) -> tuple[str, float]:
    """Return a name that none of C(present) has and its time: when this second is taken, the next one."""
    present = tuple(present)
    created = float(int(now))
    while any(one.startswith(names.stem(created) + ".") for one in present):
        created += 1
    return names.stem(created) + suffix, created


def _time(facts: Facts) -> float:
    """Return the time of a new backup: now, or after the newest one when the clock was set back a little, so that the order holds."""
    return max(
        [
            facts.now,
            *(
                int(one.created) + 1.0
                for one in facts.backups
                if one.complete and facts.now < one.created <= facts.now + catalogue.DAY
            ),
        ]
    )


def _make(plan: Plan, result: Result, world: World, tell: Tell, folder: int) -> Backup:
    """Write, prove and publish one archive."""
    options, clock = plan.options, world.clock
    name, created = _free_name(
        os.listdir(folder), _time(plan.facts), names.SUFFIXES[options.compression]
    )
    temporary = f".{name}.{os.urandom(6).hex()}.tmp"
    started = clock.monotonic()
    try:
        fd = os.open(
            temporary,
            os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC,
            0o600,
            dir_fd=folder,
        )
    except OSError as error:
        raise WriteFailed(
            f"Can't write in {options.destination}: {error.strerror}.",
            "Check its permissions.",
            options.destination,
        ) from error
    try:
        try:
            tree, written = _write(plan, fd, tell)
            result.durations["archive"] = clock.monotonic() - started
            result.plan = replace(plan, facts=replace(plan.facts, tree=tree))
            result.written = written.size
            document = manifest.build(
                name,
                created,
                world.hostname,
                options.source,
                options.to_dict(),
                tree.skipped,
                written,
            )
            if options.verify:
                started = clock.monotonic()
                found = _prove(fd, name, written, document, tell)
                document["verifications"].append(
                    {
                        "at": isoformat(clock.now()),
                        "depth": "full",
                        "result": "ok",
                        "files": found.files,
                        "bytes": found.bytes,
                    }
                )
                result.durations["verify"] = clock.monotonic() - started
        finally:
            os.close(fd)
        _publish(options.destination, folder, temporary, name, written.sha256, document)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        if isinstance(error, OSError):
            raise WriteFailed(
                f"Writing the backup in {options.destination} failed: {error.strerror or error}.",
                "Nothing was kept of it and no older backup was touched; check space and disk.",
                options.destination,
            ) from error
        raise
    result.changed = True
    backup = catalogue.inspect(options.destination, name)
    if backup is None or not backup.complete:
        raise WriteFailed(
            f"The backup {name} is not there after it was written.",
            "Does something else clean this folder?",
            options.destination,
        )
    return backup


def _write(plan: Plan, fd: int, tell: Tell) -> tuple[Tree, archive.Written]:
    """Write the archive to C(fd) and synchronise it; start over when a file changed while it was read."""
    options, tree = plan.options, plan.facts.tree
    packer = codec.make(options.compression, options.compression_level)
    path = ""
    with _opened_source(options.source) as root:
        for attempt in range(ATTEMPTS):
            if attempt:
                tree = _walk(root, options)
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


def _prove(
    fd: int, name: str, written: archive.Written, document: dict[str, Any], tell: Tell
) -> reading.Scan:
    """Read the synchronised archive back and compare everything. :raises VerificationFailed: it is not what was written."""
    # Drop it from memory first, so that what is compared comes from the disk.
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.lseek(fd, 0, os.SEEK_SET)
    with os.fdopen(os.dup(fd), "rb", buffering=0) as stream:
        found = verify.full(stream, written.size, document, written.sha256, tell, name)
    found.raise_for(f"The new backup {name}")
    return found


def _publish(
    destination: str, folder: int, temporary: str, name: str, sha256: str, document: dict[str, Any]
) -> None:
    """Give the archive its name. The checksum comes before and the manifest after, each synchronised on its own."""
    checksum = os.path.join(destination, name + names.CHECKSUM)
    atomic_write(checksum, f"{sha256}  {name}\n", _FILE_MODE)
    try:
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(folder)
        atomic_write(
            os.path.join(destination, name + names.MANIFEST), manifest.dump(document), _FILE_MODE
        )
    except BaseException:
        _remove(folder, name)
        raise


def _discard(folder: int, temporary: str) -> None:
    """Remove a dead run's temporary file; before it, the checksum file of an archive that never got its name."""
    archived = names.archive_of(temporary)
    if archived is not None and not os.path.lexists(f"/proc/self/fd/{folder}/{archived}"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(archived + names.CHECKSUM, dir_fd=folder)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary, dir_fd=folder)


def _remove(folder: int, name: str) -> None:
    """Remove a backup: first the manifest that calls it complete, last the archive, so that a killed run leaves nothing unseen.

    Only plain files are ever unlinked.
    """
    for one in (name + names.MANIFEST, name + names.CHECKSUM, name):
        try:
            if stat.S_ISREG(os.stat(one, dir_fd=folder, follow_symlinks=False).st_mode):
                os.unlink(one, dir_fd=folder)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise WriteFailed(
                f"Can't remove the old backup {one}: {error.strerror}.",
                "Check the folder's permissions.",
                one,
            ) from error


def _copy(
    options: BackupOptions, current: Backup, result: Result, world: World, tell: Tell
) -> None:
    from .store_s3 import Store

    started = world.clock.monotonic()
    try:
        assert options.s3 is not None  # noqa: S101
        store = Store(options.s3)
        copy, uploaded = store.ensure(current, tell)
        result.copies.append(copy)
        result.changed = result.changed or uploaded
        if options.s3["prune"]:
            for decision in _prunable(store, options, result.plan.facts.now, [current]):
                store.remove(decision.backup.name)
                result.copies.append(
                    {
                        "url": store.url(decision.backup.name),
                        "removed": True,
                        "reason": decision.reason,
                    }
                )
                result.changed = True
    except StoreError as error:
        raise StoreError(
            f"{error.message} The local backup {current.path} is complete.",
            error.todo,
            error.subject,
        ) from error
    result.durations["upload"] = world.clock.monotonic() - started


def _prunable(
    store: Any, options: BackupOptions, now: float, coming: Sequence[Backup]
) -> Sequence[retention.Decision]:
    """Return what retention lets go among the copies. :param coming: backups whose copy is there, or will be, and stays."""
    ours = {one.name for one in coming}
    backups = [
        one for one in catalogue.of_source(store.listing(), options.source) if one.name not in ours
    ] + list(coming)
    return [
        one
        for one in retention.decide(backups, rules(options), now)
        if not one.keep and one.backup.name not in ours
    ]
