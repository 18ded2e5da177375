# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a molecule scenario, and count its steps and tests."""

from __future__ import annotations

import re
from pathlib import Path

from session import Checks


def run(checks: Checks, scenario: str, argv: list[str | Path], env: dict[str, str]) -> None:
    """Run one molecule scenario and count its steps and the tests of its verify step."""
    done = checks.command(argv, env=env)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
    failed_before = checks.result.failed
    for step, outcome in re.findall(
        r"^\S+ ➜ (\w+): Executed: (\w+)", plain.partition("DETAILS")[2], re.M
    ):
        if (
            outcome != "Missing"
        ):  # a playbook that the scenario does not have, run by molecule's own clean-up
            checks.result.record(
                f"{scenario}: {step}", outcome == "Successful", f"{outcome}, see the log"
            )
    cases = re.findall(r"=+ (?:.*?(\d+) failed)?.*?(\d+) passed.*? in ", plain)
    if cases:
        checks.result.passed += int(cases[-1][1])
        checks.result.failed += int(cases[-1][0] or 0)
    reruns = re.search(r"(\d+) rerun\b", plain)
    if reruns:
        checks.result.notes.append(
            f"rerun: {scenario}: {reruns.group(1)} of its tests, see the log"
        )
    if done.returncode != 0 and checks.result.failed == failed_before:
        checks.result.record(scenario, False, f"molecule ended with {done.returncode}, see the log")
