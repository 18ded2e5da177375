# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node health check as a whole: observe, decide, write, report."""

from __future__ import annotations

import contextlib

from .. import verdict
from ..errors import FleetError, WriteFailed
from ..ports import World
from ..verdict import Check, Document, isoformat
from .facts import NodeFacts, observe
from .options import NodeOptions
from .plan import conclude, decide
from .probes import Problem
from .thresholds import fault


def run(options: NodeOptions, world: World, check: bool = False) -> Document:
    """Check this node and return the report.

    ``extra`` holds the recommendation (``none``, ``inspect``, ``drain``, ``reboot``), its
    reasons (texts) and the domain (``none``, ``user``, ``node``), and with ``hardware_facts`` the
    ``hardware``. A state or metrics file that can't be written becomes a check, so that a full
    disk does not hide the rest.

    :param check: write nothing. :raises MissingLibrary: see observe().
    """
    facts = observe(options, world)
    problems: list[Check] = []
    checks = _remember(options, world, facts, check, problems)
    if options.textfile and not check:
        from . import execute

        try:
            execute.write_metrics(options.textfile, [*checks, *problems], facts.now)
        except WriteFailed as error:
            problems.append(fault("textfile", verdict.WARNING, str(error), options.textfile))
    checks, advice = conclude(checks, problems)
    extra = advice._asdict()
    if options.hardware_facts and not isinstance(facts.inventory, (Problem, type(None))):
        from . import inventory

        extra["hardware"] = inventory.to_dict(facts.inventory)
    return Document(isoformat(facts.now), world.hostname, tuple(checks), extra=extra)


def _remember(
    options: NodeOptions, world: World, facts: NodeFacts, check: bool, problems: list[Check]
) -> list[Check]:
    """Return the checks, with what earlier runs remember if there is a state file.

    A run that can't have the file does without, and reports that in ``problems``.
    """
    path = options.state_file
    if not path:
        return decide(facts, options).checks
    from . import execute, state  # a module without a state file does not load them

    try:
        with contextlib.nullcontext() if check else execute.locked(path):
            memory, problem = state.load(path, facts.now)
            if problem:
                world.warn(f"The state file starts over: {problem}")
            plan = decide(facts, options, memory)
            if plan.memory is not None and not check:
                execute.store(path, plan.memory)
        return plan.checks
    except FleetError as error:
        problems.append(fault("state_file", verdict.WARNING, str(error), path))
        return decide(facts, options).checks
