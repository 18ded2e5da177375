# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of the project, and copies of it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from common import ROOT, ask, run


def files() -> list[str]:
    """The files that git knows or would add."""
    listing = ask(
        [
            "git",
            "-c",
            "safe.directory=*",
            "-C",
            ROOT,
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ]
    )
    return [path for path in listing.split("\0") if path and (ROOT / path).exists()]


def copy(directory: Path) -> Path:
    """Copy the project's files to DIRECTORY/ansible_collections/mlops/fleet, a git repository of
    its own; return that path.

    ansible-test wants exactly that, and a copy keeps what tests write out of the checkout.
    """
    target = directory / "ansible_collections" / "mlops" / "fleet"
    shutil.rmtree(directory, ignore_errors=True)
    for path in files():
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, target / path, follow_symlinks=False)
    run(["git", "init", "--quiet", target], capture=True)
    run(["git", "-C", target, "add", "--all"], capture=True)
    return target


def is_shell(path: Path) -> bool:
    """Whether a file starts as a shell script."""
    if path.is_symlink() or not path.is_file():
        return False
    with open(path, "rb") as handle:
        first = handle.readline(80)
    return bool(re.match(rb"#!\s*/(usr/)?bin/(env\s+)?(ba|da|k)?sh\b", first))
