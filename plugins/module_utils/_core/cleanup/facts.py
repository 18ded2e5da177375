# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a cleanup decides from. Reads only."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from ..errors import NotUsable
from ..ports import Progress, Tell, World
from ..system.removal import Changed, Identity, identity, open_directory
from . import checkpoints, inuse, tools
from .checkpoints import Checkpoint, Container, RunFacts
from .cover import Coverage
from .guards import MOUNT, own_paths
from .held import DOOMED, HeldUnit, Hold, expiry
from .history import History
from .inuse import InUse
from .layouts import GENERIC, candidates, parse_state
from .options import CleanupOptions, homes, refuse_root
from .quarantine import Aside, Quarantine
from .root import Root, open_target
from .scan import STAMPS, Look, survey
from .targets import Target
from .tool import ToolFacts
from .units import Survey, Unit
from .watch import TreeWatch
from .watermark import Space, Watermark

#: Units between two reports of progress.
_STEP = 100


@dataclass
class TargetFacts:
    """What was observed of a target.

    ``state`` is ``ok``, ``missing`` (no such directory) or ``failed`` with a ``note``. ``protected`` maps names of units to why they stay
    whatever their age; ``unread`` those that could not be looked at to why.
    """

    target: Target
    path: str = ""
    state: str = "ok"
    note: str = ""
    units: list[Unit] = field(default_factory=list)
    protected: dict[str, str] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)
    #: The directory below the target's root that holds these units, None for the root itself; and what is known of their run.
    container: Container | None = None
    device: int = 0
    run: RunFacts = field(default_factory=RunFacts)
    #: For a target with a layout: the directories that hold checkpoints, instead of units of its own.
    containers: list[TargetFacts] = field(default_factory=list)


class MovedUnit(NamedTuple):
    """A unit that a stopped run had only moved: its name, where it is now, the target that matches it, and what it is (None: unknown)."""

    name: str
    path: str
    target: Target | None
    survey: Unit | None = None
    protected: bool = False


@dataclass
class LeftoverFacts:
    """What a stopped run left in a quarantine directory: units whose removal had begun (path, what is left), and units only moved.

    ``first`` is the first target of the root.
    """

    quarantine: Quarantine
    first: Target
    begun: list[tuple[str, Unit | None]] = field(default_factory=list)
    moved: list[MovedUnit] = field(default_factory=list)


@dataclass
class HoldFacts:
    """A quarantine that keeps removed units. ``begun``: names of units whose removal was interrupted, and what is left of each."""

    hold: Hold
    target: Target
    device: int
    units: list[HeldUnit] = field(default_factory=list)
    begun: list[tuple[str, Unit | None]] = field(default_factory=list)


@dataclass
class Facts:
    """What was observed. ``roots`` are by target name and open until close()."""

    now: float
    targets: list[TargetFacts] = field(default_factory=list)
    tools: list[ToolFacts] = field(default_factory=list)
    roots: dict[str, Root] = field(default_factory=dict)
    leftovers: list[LeftoverFacts] = field(default_factory=list)
    busy: InUse | None = None
    #: The file systems of the targets by st_dev.
    space: dict[int, Space] = field(default_factory=dict)
    held: list[HoldFacts] = field(default_factory=list)
    history: History | None = None
    #: Asked before a unit is removed whose files must be in a backup, None when they need not.
    coverage: Coverage | None = None

    def uncovered(self, place: TargetFacts, name: str) -> str:
        """Return why a unit is not covered by backups, empty when it is, or need not be."""
        root = self.roots.get(place.target.name)
        if self.coverage is None or root is None:
            return ""
        if place.container is None:
            return self.coverage.missing(root.fd, name)
        try:
            fd = checkpoints.open_below(root.fd, place.container.where, place.container.identity)
        except (OSError, Changed) as error:
            return f"it can't be compared with the backups: {error}"
        try:
            return self.coverage.missing(fd, name)
        finally:
            os.close(fd)

    #: Watches the units, None when they are not watched.
    watch: TreeWatch | None = None
    #: Roots of containers in which stopped runs left something.
    inner: list[Root] = field(default_factory=list)

    def watermark(self, device: int) -> Watermark | None:
        """Return the level of a file system, the largest of its targets; None when none has one."""
        space = self.space.get(device)
        levels = [
            (
                place.target.free_to.of(space.total),
                (place.target.when_below or place.target.free_to).of(space.total),
            )
            for place in self.targets
            if place.device == device and place.target.free_to is not None and space is not None
        ]
        if space is None or not levels:
            return None
        return Watermark(
            space, max(goal for goal, dummy in levels), max(trigger for dummy, trigger in levels)
        )

    def idle(self, place: TargetFacts) -> bool:
        """Return whether enough is free where a target is, so that it need not be looked at."""
        level = None if place.target.free_to is None else self.watermark(place.device)
        return level is not None and not level.below

    @property
    def places(self) -> list[TargetFacts]:
        """The directories whose entries are units, in the order of the targets."""
        places: list[TargetFacts] = []
        for place in self.targets:
            places.extend(place.containers if place.target.layout != GENERIC else (place,))
        return places

    def close(self, tidy: bool) -> None:
        """Close every descriptor; ``tidy``: remove quarantine directories that are empty."""
        if self.watch is not None:
            self.watch.close()
        for leftover in self.leftovers:
            leftover.quarantine.close(tidy)
        for held in self.held:
            held.hold.close(tidy)
        for root in (*self.inner, *self.roots.values()):
            root.close()


def observe(options: CleanupOptions, world: World, facts: Facts, tell: Tell) -> None:
    """Fill in the facts. The roots stay open."""
    for target in options.directories:
        facts.targets.append(_open(target, facts))
    roots = facts.roots
    needed = []
    for place in facts.targets:
        root = roots.get(place.target.name)
        if root is None:
            continue
        with contextlib.suppress(OSError):  # reported below
            if facts.idle(place):
                root.find_own()
        if not facts.idle(place) or any(expiry(name) <= facts.now for name in root.held):
            needed.append(root)
    facts.busy = in_use(options, world, needed)
    own = _own_paths(options, roots.values())
    places: dict[tuple[int, int], tuple[Root, list[Target]]] = {}
    for place in facts.targets:
        root = roots.get(place.target.name)
        if root is None:
            continue
        root.own = own
        if facts.idle(place):
            place.note = "enough space is free"
            continue
        try:
            if place.target.layout != GENERIC:
                root.find_own()
                _find_checkpoints(place, root, facts, tell, places)
                continue
            files: list[Unit] = []
            names = root.list(
                _quick_look(place, root, facts),
                place.target.fitting(),
                files,
                touched=facts.watch is not None,
            )
            place.protected = root.protected(facts.busy)
            _survey(place, root, names, facts, tell)
            place.units.extend(place.target.units_of(files))
            if not place.target.plain:
                _read_checkpoints(place, root, facts)
        except OSError as error:
            place.state, place.note = "failed", f"{place.path} can't be read: {error.strerror}"
            place.units, place.unread = [], {}
            continue
        key = (root.device, os.fstat(root.fd).st_ino)
        places.setdefault(key, (root, []))[1].append(place.target)
    find_held(facts)
    for held in facts.held:
        _survey_held(held, facts)
    for root, same in places.values():
        facts.leftovers.extend(leftovers(root, same, facts.busy, facts.now))
    facts.tools = [tools.observe(name, world) for name in options.tools]


def open_all(options: CleanupOptions, facts: Facts) -> None:
    """Open the roots and what is in quarantine in them, and look at nothing else."""
    for target in options.directories:
        facts.targets.append(_open(target, facts))
    for place in facts.targets:
        root = facts.roots.get(place.target.name)
        if root is not None:
            try:
                root.find_own()
            except OSError as error:
                place.state = "failed"
                place.note = f"{place.path} can't be read: {error.strerror}"
    find_held(facts)


def find_held(facts: Facts) -> None:
    """Open the quarantines in the roots and list the units in them."""
    seen: set[Identity] = set()
    for place in facts.targets:
        root = facts.roots.get(place.target.name)
        if root is None or identity(os.fstat(root.fd)) in seen:
            continue
        seen.add(identity(os.fstat(root.fd)))
        for name in root.held:
            hold = Hold.take(root, name)
            if hold is None:
                continue
            held = HoldFacts(hold, place.target, root.device)
            facts.held.append(held)
            try:
                held.units = hold.units()
                for begun in hold.begun():
                    with hold.opened(DOOMED) as fd:
                        look = Look(STAMPS["mtime"], root.device, root.mount)
                        held.begun.append((begun, _survey_or_none(fd, begun, look)))
            except OSError as error:
                place.state, place.note = "failed", f"{hold.path} can't be read: {error.strerror}"


def _survey_held(held: HoldFacts, facts: Facts) -> None:
    """Look at the units in a quarantine that may be removed now, and at those whose size is unknown."""
    hold, root = held.hold, held.hold.root
    level = facts.watermark(held.device)
    due = facts.now >= hold.until or (level is not None and level.below)
    units = []
    stay: dict[int, dict[str, str]] = {}
    for unit in held.units:
        if not due and unit.size >= 0:
            units.append(unit)
            continue
        look = replace(root.look(held.target, facts.busy if due else None, facts.now), fresh=None)
        look = replace(look, excluded=None, moved=True)
        survey_, stays = None, "it can't be looked at"
        with contextlib.suppress(OSError, Changed), hold.opened(str(unit.number)) as fd:
            if due and unit.number not in stay:
                stay[unit.number] = root.protected(facts.busy, f"{hold.path}/{unit.number}", fd)
            stays = stay.get(unit.number, {}).get(unit.name, "")
            if not stays:
                survey_ = survey(fd, unit.name, look)
                stays = survey_.veto or ""
        size = unit.size if survey_ is None else survey_.disk_usage
        units.append(unit._replace(survey=survey_, stays=stays, size=max(0, size)))
    held.units = units


def _find_checkpoints(
    place: TargetFacts,
    root: Root,
    facts: Facts,
    tell: Tell,
    places: dict[tuple[int, int], tuple[Root, list[Target]]],
) -> None:
    """Find the directories below a root that hold checkpoints, and look at these. Directories that can't be read are noted.

    :raises OSError: the root can't be read.
    """
    target = place.target
    problems = []
    for container in checkpoints.containers(root.fd, root.path, target, root.mount):
        inner = TargetFacts(target, container=container, device=root.device)
        inner.run.name = container.run
        try:
            directory = root.inside(container.where, container.identity)
        except (OSError, Changed):
            continue  # it went meanwhile
        inner.path = directory.path
        kept_open = False
        try:
            follow_trackers(directory, container)
            directory.list()
            inner.protected = directory.protected(facts.busy)
            _survey(inner, directory, container.names, facts, tell)
            _read_checkpoints(inner, directory, facts)
            if directory.leftovers:
                key = (directory.device, os.fstat(directory.fd).st_ino)
                kept_open = key not in places
                if kept_open:
                    facts.inner.append(directory)
                places.setdefault(key, (directory, []))[1].append(target)
        except OSError as error:
            problems.append(f"{inner.path} can't be read: {error.strerror}")
            continue
        finally:
            if not kept_open:
                directory.close()
        place.containers.append(inner)
    if problems:
        place.state, place.note = "failed", "; ".join(problems[:5])
    elif not place.containers:
        place.note = "no checkpoint of a known layout is here"


def follow_trackers(root: Root, container: Container) -> None:
    """Protect what the library of a container's checkpoints resumes from, read again whenever it is asked."""
    layout, names = container.layout, container.names
    root.trackers = lambda: checkpoints.tracked(root.fd, layout, names)


def _read_checkpoints(place: TargetFacts, root: Root, facts: Facts) -> None:
    """Read what the layout says about the units of a place, and whether their run is alive."""
    target, container = place.target, place.container
    layout = candidates(GENERIC)[0] if container is None else container.layout
    beside = None
    if target.metric:
        beside = parse_state(checkpoints.read_text(root.fd, target.metric_file) or "")
    for unit in place.units:
        try:
            known = checkpoints.read(root.fd, unit.name, layout, target, beside)
        except OSError as error:
            known = Checkpoint(missing=f"it can't be read: {error.strerror}")
        place.run.checkpoints[unit.name] = known
    checkpoints.committed(root.fd, layout, place.run.checkpoints)
    if container is None:
        return
    run, busy = place.run, facts.busy
    run.changed, run.in_use = checkpoints.activity(root.fd, container.names, busy)
    if layout.run_above and container.where.rpartition("/")[2] == layout.run_above:
        with contextlib.suppress(OSError):
            above = open_directory("..", root.fd)
            try:
                changed, used = checkpoints.activity(above, (), busy)
            finally:
                os.close(above)
            run.changed, run.in_use = max(run.changed, changed), run.in_use or used


def _open(target: Target, facts: Facts) -> TargetFacts:
    place = TargetFacts(target)
    try:
        root = open_target(target)
    except FileNotFoundError:
        place.state, place.note = "missing", "there is no such directory here"
        return place
    except NotUsable as error:
        place.state, place.note = "failed", str(error)
        return place
    facts.roots[target.name] = root
    place.path, place.device = root.path, root.device
    if root.device not in facts.space:
        state = os.fstatvfs(root.fd)
        unit = state.f_frsize
        used = (state.f_blocks - state.f_bfree) * unit
        available = state.f_bavail * unit
        facts.space[root.device] = Space(root.path, available, used + available)
    refuse_root(root.path, target.shared_ok)  # once more, where the links lead now
    return place


def in_use(options: CleanupOptions, world: World, roots: Iterable[Root]) -> InUse | None:
    """Return what is in use on the roots' devices, None when that is not asked. :raises NotUsable: it can't be found out."""
    roots = list(roots)
    if options.in_use == "ignore" or not roots:
        return None
    # In an overlay st_dev differs by layer, so that no list of devices is complete.
    devices = None if any(root.overlay for root in roots) else {root.device for root in roots}
    return inuse.observe(world.path("/proc"), devices, [root.path for root in roots])


def _own_paths(options: CleanupOptions, roots: Iterable[Root]) -> dict[str, str]:
    # Not asked of locks.lock_directory(), which makes the directory: a check touches nothing.
    locks = [f"/tmp/mlops-fleet-{os.geteuid()}"]
    configured = os.environ.get("MLOPS_FLEET_LOCK_DIR")
    if configured:
        locks.append(configured)
    required, backup = options.require_backup, None
    if required is not None and required.path is not None:
        backup = os.path.realpath(required.path)
    return own_paths(
        homes(),
        [root.path for root in roots],
        [os.path.realpath(directory) for directory in locks],
        os.path.realpath(options.report_path) if options.report_path else None,
        backup,
    )


def _foreign(root: Root) -> bool:
    """Return whether this user may remove only entries of its own: in a sticky directory, unless it is root or owns the directory."""
    here = os.fstat(root.fd)
    return bool(here.st_mode & stat.S_ISVTX) and os.geteuid() not in (0, here.st_uid)


def _quick_look(place: TargetFacts, root: Root, facts: Facts) -> Look | None:
    """Return what plain files are looked at with while a directory is listed; None where each needs more than that."""
    busy, target = facts.busy, place.target
    if target.age_by not in ("newest", "mtime") or _foreign(root):
        return None
    if busy is not None and (busy.hidden is not None or not root.knows_locks(busy)):
        return None
    return root.look(target, busy, facts.now)


def _survey(place: TargetFacts, root: Root, names: list[str], facts: Facts, tell: Tell) -> None:
    target, busy = place.target, facts.busy
    look = root.look(target, busy, facts.now, watch=facts.watch)
    uid, foreign = os.geteuid(), _foreign(root)
    ask_locks = busy is not None and not root.knows_locks(busy)
    matching = target.select(names)
    for number, name in enumerate(matching):
        if number % _STEP == 0:
            tell(Progress("scan", number, len(matching), "files", target.name))
        if place.protected.get(name) == MOUNT:
            # Not even looked at: a dead network mount would not answer.
            place.unread[name] = MOUNT
            continue
        try:
            unit = survey(root.fd, name, look)
        except FileNotFoundError:
            continue
        except Changed as error:
            place.unread[name] = f"it could not be looked at: {error}"
            continue
        except OSError as error:
            place.unread[name] = f"it could not be looked at: {error.strerror}"
            continue
        if not target.fits(unit.kind):
            continue
        if foreign and unit.uid != uid:
            unit.veto, unit.stopped = "it belongs to another user", False
        if ask_locks and unit.veto is None and not unit.stopped and _locked(root, unit):
            unit.keep("in use: it is locked")
        place.units.append(unit)


def _locked(root: Root, unit: Survey) -> bool:
    if not (stat.S_ISDIR(unit.mode) or stat.S_ISREG(unit.mode)):
        return False
    return inuse.locked(unit.name, root.fd, unit.kind == "dir")


# --- what stopped runs left -----------------------------------------------------------------------------------------------


def leftovers(
    root: Root, targets: Sequence[Target], busy: InUse | None, now: float
) -> list[LeftoverFacts]:
    """Return what stopped runs left in a root. The quarantine directories stay open."""
    observed = []
    for name in root.leftovers:
        aside = Aside.take(root, name)
        if aside is not None:
            observed.append(_aside(aside, targets[0]))
            continue
        quarantine = Quarantine.take(root, name)
        if quarantine is not None:
            observed.append(_quarantined(quarantine, targets, busy, now))
    return observed


def _quarantined(
    quarantine: Quarantine, targets: Sequence[Target], busy: InUse | None, now: float
) -> LeftoverFacts:
    root = quarantine.root
    facts = LeftoverFacts(quarantine, targets[0])
    for name in _names(quarantine.doomed):
        look = Look(STAMPS["mtime"], root.device, root.mount)
        path = quarantine.place("doomed", name)
        facts.begun.append((path, _survey_or_none(quarantine.doomed, name, look)))
    stay = root.protected(busy, quarantine.place("new"), quarantine.new)
    for name in _names(quarantine.new):
        path = quarantine.place("new", name)
        target = next((target for target in targets if target.matches(name)), None)
        unit = None
        if target is not None and name not in stay:
            unit = _survey_or_none(quarantine.new, name, root.look(target, busy, now, moved=True))
        facts.moved.append(MovedUnit(name, path, target, unit, name in stay))
    return facts


def _aside(aside: Aside, target: Target) -> LeftoverFacts:
    facts = LeftoverFacts(aside, target)
    if not aside.begun:
        facts.moved.append(MovedUnit(aside.original, aside.path, target))
        return facts
    look = Look(STAMPS["mtime"], aside.root.device, aside.root.mount)
    facts.begun.append((aside.path, _survey_or_none(aside.root.fd, aside.name, look)))
    return facts


def _survey_or_none(fd: int, name: str, look: Look) -> Survey | None:
    with contextlib.suppress(OSError, Changed):
        return survey(fd, name, look)
    return None


def _names(fd: int) -> list[str]:
    if fd >= 0:
        return sorted(os.listdir(fd))
    return []
