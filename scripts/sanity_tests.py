# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run ansible-test sanity with one ansible-core, and count its tests."""

from __future__ import annotations

import os
import re
from pathlib import Path

import setup
from common import BUILD
from session import Checks
from versions import ANSIBLE_LINES


def environment(checks: Checks) -> dict[str, str]:
    """A home of its own for ansible-test, with the pip bootstrap scripts that it would otherwise
    download from a fixed host.

    The user's own ~/.ansible stays untouched; pip and pyenv still find the machine's settings.
    """
    home, real = BUILD / "ansible-test-home", Path.home()
    cache = home / ".ansible" / "test" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    for name in ("get_pip_24_2.py", "get_pip_25_2.py"):
        (cache / name).write_text("import ensurepip\n\nensurepip.bootstrap()\n", encoding="utf-8")
    for name in (".pip", ".config/pip", ".gitconfig"):
        link = home / name
        if (real / name).exists() and not link.is_symlink():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(real / name)
    env = checks.environment(
        HOME=str(home), PYENV_ROOT=os.environ.get("PYENV_ROOT") or str(real / ".pyenv")
    )
    for name in ("ANSIBLE_HOME", "PYTHONNOUSERSITE"):
        env.pop(name)
    return env


def run(checks: Checks, name: str, binary: Path, copy: Path, env: dict[str, str]) -> None:
    """Run the sanity tests with one ansible-core and count them from what ansible-test prints."""
    version = ANSIBLE_LINES[name][1]
    argv = [
        binary,
        "sanity",
        "--local",
        "--requirements",
        "--python",
        version,
        "--color",
        "no",
        "-v",
    ]
    done = checks.command([*argv, *checks.arguments], live=False, cwd=copy, env=env)
    title = f"sanity ({setup.describe(name)})"
    ran = list(dict.fromkeys(re.findall(r'^Running sanity test "([^"]+)"', done.stdout, re.M)))
    summary = re.search(
        r"sanity test\(s\) listed below \(out of \d+\) failed[^\n]*\n((?:(?!\[).)*)",
        done.stdout,
        re.S,
    )
    failed = {
        line.split()[0]
        for line in (summary.group(1) if summary else "").splitlines()
        if line.strip()
    } & {t.split()[0] for t in ran}
    failed |= {
        test.split()[0] for test in re.findall(r"^ERROR: Found \d+ (\S+) issue", done.stdout, re.M)
    }
    for test in ran:
        checks.result.record(f"{title}: {test}", test.split()[0] not in failed, "see the log")
    fatal = re.search(r"^FATAL: (?!The \d+ sanity)(.*)$", done.stdout, re.M)
    if fatal or not ran or (done.returncode != 0 and not failed):
        checks.result.record(
            title, False, f"ended early: {fatal.group(1)[:150] if fatal else done.returncode}"
        )
    for test, why in re.findall(
        r'^WARNING: Skipping sanity test "?([a-z0-9-]+)"? (.*)$', done.stdout, re.M
    ):
        checks.result.skip(f"{title}: {test}", why)
