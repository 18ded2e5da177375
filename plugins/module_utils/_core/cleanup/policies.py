# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which checkpoints a target's policies keep, whatever their age, and why. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from ..system.text import human_duration
from .checkpoints import Checkpoint, RunFacts
from .layouts import GENERIC, step_of
from .targets import DAY, Target
from .units import Unit

_Keep = Callable[["Member", str], None]
#: Seconds without a change after which nobody is writing an incomplete checkpoint any more.
ABANDONED = DAY


class Member(NamedTuple):
    """A unit as the policies see it. ``key`` identifies it among the members."""

    key: tuple[int, str]
    survey: Unit
    checkpoint: Checkpoint
    run: RunFacts

    @property
    def written(self) -> int:
        """When its content was written, nanoseconds since the epoch."""
        return self.survey.content


def group_name(target: Target, run: RunFacts, name: str) -> str:
    """Return the run that a unit belongs to. Without a layout it is the name without the number of its step."""
    if target.layout != GENERIC:
        return run.name
    step = step_of(name)
    if step is None:
        return name
    head, dummy, tail = name.rpartition(str(step))
    return f"{head.rstrip('0')}*{tail}"


def newest_first(members: Iterable[Member]) -> list[Member]:
    """Return members by step, where all have one, otherwise by when they were written."""
    members = list(members)
    if all(member.checkpoint.step is not None for member in members):
        members.sort(
            key=lambda member: (member.checkpoint.step or 0, member.written, member.key[1])
        )
    else:
        members.sort(key=lambda member: (member.written, member.key[1]))
    members.reverse()
    return members


class Reasons(NamedTuple):
    """Why a unit stays: ``fixed`` is what no option gives up, ``chosen`` what the policies say."""

    fixed: list[str]
    chosen: list[str]

    def __str__(self) -> str:
        return "; ".join((*self.fixed, *self.chosen))


def reasons(
    target: Target, members: Sequence[Member], now: float
) -> dict[tuple[int, str], Reasons]:
    """Return why the policies of a target keep units, by the key of the unit; those that are not in it may be removed."""
    kept: dict[tuple[int, str], Reasons] = {}

    def fix(member: Member, reason: str) -> None:
        kept.setdefault(member.key, Reasons([], [])).fixed.append(reason)

    def keep(member: Member, reason: str) -> None:
        kept.setdefault(member.key, Reasons([], [])).chosen.append(reason)

    runs: dict[str, list[Member]] = {}
    for member in members:
        runs.setdefault(group_name(target, member.run, member.key[1]), []).append(member)
    if target.layout != GENERIC:
        for name, units in runs.items():
            _keep_anchors(target, name, units, fix, now)
    groups = runs if target.by_run else {"": list(members)}
    for name, units in groups.items():
        where = ""
        if name:
            where = f" of {name}"
        complete = [member for member in newest_first(units) if member.checkpoint.complete]
        for member in complete[: target.keep_last]:
            keep(member, f"one of the {target.keep_last} newest{where}")
        for rank, member in enumerate(best_first(target, complete)[: target.keep_best]):
            keep(
                member,
                f"number {rank + 1} of the {target.keep_best} best{where}"
                f" ({target.metric} {member.checkpoint.metric:g})",
            )
        _keep_every(target, complete, keep, where)
    return kept


def best_first(target: Target, complete: Iterable[Member]) -> list[Member]:
    """Return the complete members with a known metric, the best first; of equals the newer one."""
    sign = 1 if target.mode == "min" else -1
    known = [member for member in complete if member.checkpoint.metric is not None]
    return sorted(
        known,
        key=lambda member: (
            sign * (member.checkpoint.metric or 0.0),
            -(member.checkpoint.step or 0),
            -member.written,
        ),
    )


def _keep_anchors(target: Target, name: str, units: list[Member], keep: _Keep, now: float) -> None:
    """Keep what no policy gives up: newest complete, best, and what its run may still write."""
    complete = [member for member in newest_first(units) if member.checkpoint.complete]
    if complete:
        keep(complete[0], f"the newest complete checkpoint of {name}")
        last = max(complete, key=lambda member: member.written)
        if last is not complete[0]:
            keep(last, f"the complete checkpoint of {name} that was written last")
    best = best_first(target, complete)
    if best:
        keep(
            best[0],
            f"the best checkpoint of {name} ({target.metric} {best[0].checkpoint.metric:g})",
        )
    incomplete = [member for member in newest_first(units) if not member.checkpoint.complete]
    for member in incomplete:
        why = f"incomplete ({member.checkpoint.missing})"
        if member.run.in_use:
            keep(member, f"{why}, and a process uses its run {name}")
            continue
        changed = max(
            member.run.changed,
            member.survey.newest,
            *(other.written for other in units if other.run is member.run),
        )
        age = now - changed / 10**9
        if age < ABANDONED:
            keep(
                member,
                f"{why}, and its run {name} changed {human_duration(max(0.0, age))} ago: it may still be written",
            )
        elif not complete and member is incomplete[0]:
            keep(member, f"{why}, but {name} has no complete one")


def _keep_every(target: Target, complete: Sequence[Member], keep: _Keep, where: str) -> None:
    if target.every_steps:
        for member in complete:
            step = member.checkpoint.step
            if step is not None and step % target.every_steps == 0:
                keep(member, f"step {step} is a multiple of {target.every_steps}")
    if target.every_seconds:
        seen = set()
        for member in sorted(complete, key=lambda member: member.written, reverse=True):
            number = int(member.written / 10**9 // target.every_seconds)
            if number not in seen:
                seen.add(number)
                length = target.every_seconds
                text = f"{length / DAY:g} days" if length >= DAY else human_duration(length)
                keep(member, f"the newest of its {text}{where}")
