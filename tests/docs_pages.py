# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the pages of docs/docsite/rst for tests that compare them with the code."""

from __future__ import annotations

import pathlib
import re
import textwrap

PAGES = pathlib.Path(__file__).resolve().parents[1] / "docs" / "docsite" / "rst"
#: What the labels of the runbook's entries begin with; the name of the check follows.
RUNBOOK = "ansible_collections.mlops.fleet.docsite.runbook."


def text(page: str) -> str:
    return (PAGES / f"{page}.rst").read_text(encoding="utf-8")


def rows(page: str) -> list[list[str]]:
    """Return the rows of all tables of a page, each as its cells."""
    found: list[list[str]] = []
    for line in text(page).splitlines():
        if line.startswith("  * -"):
            found.append([line[6:]])
        elif found and line.startswith("    -"):
            found[-1].append(line[6:])
        elif found and line.startswith("      "):
            found[-1][-1] += " " + line.strip()
    return found


def runbook_entries() -> set[str]:
    """Return the names that have an entry in the runbook."""
    return set(re.findall(rf"^\.\. _{re.escape(RUNBOOK)}(\w+):", text("runbook"), re.MULTILINE))


def code_blocks(page: str, language: str) -> list[str]:
    """Return the code blocks of a page in one language."""
    pattern = rf"^\.\. code-block:: {language}\n\n((?:    .*\n|\n)+)"
    return [textwrap.dedent(block) for block in re.findall(pattern, text(page), re.MULTILINE)]
