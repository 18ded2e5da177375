# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The README names everything that the collection offers, and nothing else."""

from __future__ import annotations

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PLAYBOOKS = {path.stem for path in (ROOT / "playbooks").glob("*.yml")}
#: Imported by others, of no use alone.
PARTS = {"fail_hosts", "require_hosts"}
CONTENT = {
    *(path.stem for path in (ROOT / "plugins/modules").glob("*.py")),
    *(path.stem for path in (ROOT / "plugins/filter").glob("*.yml")),
    *(path.name for path in (ROOT / "roles").iterdir() if path.is_dir()),
}


def test_the_content_is_named_in_full():
    named = set(re.findall(r"(?<!group/)mlops\.fleet\.([a-z0-9_]+)", README))
    assert CONTENT - named == set()
    assert named - CONTENT - PLAYBOOKS == set()


def test_the_playbooks_are_named():
    listed = re.findall(r"`([a-z_]+)`", README.split("Playbooks: ")[1].split(".")[0])
    assert set(listed) == PLAYBOOKS - PARTS and len(listed) == len(set(listed))


@pytest.mark.parametrize("page", sorted(p.name for p in (ROOT / "docs/docsite/rst").glob("*.rst")))
def test_each_page_is_linked(page):
    assert f"(docs/docsite/rst/{page})" in README
