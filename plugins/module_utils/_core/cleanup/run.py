# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One cleanup from options to result: observe, decide, carry out, report."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterator

from ..errors import NotUsable, WriteFailed
from ..ports import Tell, World, silent
from ..system.files import atomic_write
from ..system.locks import lock, lock_directory
from ..verdict import isoformat
from .brake import Braked, refuse_without_backup
from .cover import Interlock
from .execute import carry_out, predict
from .facts import Facts, observe, open_all
from .held import select
from .history import as_text, open_history
from .options import CleanupOptions
from .outcome import Outcome
from .plan import decide
from .record import Recorder
from .removals import Plan
from .result import LISTED, CleanupResult
from .undo import restore
from .watch import watch_trees


def run(
    options: CleanupOptions,
    world: World,
    check: bool = False,
    tell: Tell = silent,
    recorder: Recorder | None = None,
) -> CleanupResult:
    """Clean up; with ``check`` say what would be done and touch nothing.

    Everything that is removed is given to ``recorder`` at once; what could not be recorded is among the result's notes.

    Nothing was removed when one of these is raised; units that can't be removed later are in ``failures``.

    :raises Braked: more would be removed than the brake allows. :raises Refused: a dangerous root, or no fresh verified backup.
    :raises LockBusy: another cleanup runs on this host. :raises NotUsable: what is in use can't be found out, or the report has no directory.
    """
    if options.report_path and not os.path.isdir(os.path.dirname(options.report_path)):
        raise NotUsable(
            f"The directory of the report {options.report_path} does not exist.",
            "Make it, or name another file.",
            options.report_path,
        )
    if options.report_path and os.path.isdir(options.report_path):
        raise NotUsable(
            f"The report {options.report_path} is a directory.",
            "Name a file in it.",
            options.report_path,
        )
    with _without_collector():
        if check:
            return _run(options, world, True, tell, None)
        with lock(os.path.join(lock_directory(), "cleanup.lock"), "cleanup"):
            if recorder is None:
                return _run(options, world, False, tell, None)
            with recorder:
                result = _run(options, world, False, tell, recorder)
    result.plan.notes.extend(f"Not recorded in {problem}." for problem in recorder.problems)
    return result


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """Keep Python from looking for reference cycles among hundreds of thousands of units again and again; there are none."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            # The result is not looked through either when the collector is back.
            gc.freeze()
            gc.enable()


def _restore(
    options: CleanupOptions, world: World, facts: Facts, check: bool, recorder: Recorder | None
) -> CleanupResult:
    """Bring back what is in quarantine. :raises NotUsable: something that is named is not in quarantine."""
    try:
        open_all(options, facts)
        units = [unit for held in facts.held for unit in held.units]
        result = CleanupResult(
            options, isoformat(facts.now), world.hostname, facts, Plan(), Outcome(), check
        )
        result.outcome.record = recorder
        restore(select(units, options.undo), facts, check, result.outcome)
    finally:
        facts.close(tidy=not check)
    return result


def _run(
    options: CleanupOptions, world: World, check: bool, tell: Tell, recorder: Recorder | None
) -> CleanupResult:
    facts, tidy = Facts(now=world.clock.now()), False
    if options.state == "restored":
        return _restore(options, world, facts, check, recorder)
    required = options.require_backup
    if required is not None:
        interlock = Interlock(required)
        refuse_without_backup(required, interlock.backups, facts.now)
        if required.check == "covered":
            facts.coverage = interlock.coverage
    growth = options.brake is not None and options.brake.max_growth is not None
    facts.history = open_history(options.state_dir, world, growth, check)
    try:
        facts.watch = watch_trees(wanted=not check)
        observe(options, world, facts, tell)
        plan = decide(options, facts)
        result = CleanupResult(
            options, isoformat(facts.now), world.hostname, facts, plan, Outcome(), check
        )
        if plan.braked:
            braked = Braked(
                f"The cleanup was stopped before anything was removed: {plan.braked}.",
                plan.allow,
                "brake",
            )
            braked.result = result.to_dict()
            raise braked
        if check:
            predict(facts, plan, result.outcome)
            return result
        tidy = True
        result.outcome.record = recorder
        carry_out(options, world, facts, plan, result.outcome, tell)
        if result.changed:
            removed = result.outcome.amounts
            try:
                facts.history.add(removed, result.report(LISTED), facts.now, options.report_days)
            except WriteFailed as error:
                plan.notes.append(f"No report was kept: {error.message}")
        if options.report_path:
            text = as_text(result.report())
            try:
                atomic_write(options.report_path, text, mode=0o640)
            except WriteFailed as error:
                result.outcome.fail("", options.report_path, error)
    finally:
        facts.close(tidy)
    return result
