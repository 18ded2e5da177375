# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the integration targets of ansible-test, and count them."""

from __future__ import annotations

import re
from pathlib import Path

from common import ROOT
from session import Checks
from versions import ANSIBLE_LINES


def names() -> list[str]:
    """Return the targets that are tests."""
    tasks = ROOT.glob("tests/integration/targets/*/tasks/main.yml")
    targets = sorted(path.parent.parent.name for path in tasks)
    return [name for name in targets if not name.startswith(("setup_", "prepare_"))]


def run(checks: Checks, target: str, binary: Path, copy: Path, env: dict[str, str]) -> None:
    """Run one target and count it: as skipped where its aliases leave it out here."""
    argv = [binary, "integration", "--local", "--python", ANSIBLE_LINES["dev"][1]]
    argv += ["--color", "no", "--allow-root", "--allow-unsupported", *checks.arguments, target]
    done = checks.command(argv, cwd=copy, env=env)
    if done.returncode == 0 and "All targets skipped." in done.stdout:
        excluded = re.search(
            r"^WARNING: Excluding target tests marked (.*?):[^:]*$", done.stdout, re.M
        )
        reason = "see the log"
        if excluded:
            reason = f"marked {excluded.group(1)}"
        checks.result.skip(target, reason)
        return
    errors = re.findall(r"^(?:fatal|\[ERROR\]|FATAL|ERROR).*$", done.stdout, re.M)
    why = [*errors, f"ended with {done.returncode}"][0]
    checks.result.record(target, done.returncode == 0, why[:200])
