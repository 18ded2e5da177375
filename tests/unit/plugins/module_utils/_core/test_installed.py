# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core import installed


@pytest.mark.parametrize("content", ["", "no version", "1.0.0-" + "g" * 12, "x" * 5000, "\xff"])
def test_a_stamp_that_is_none(tmp_path, content):
    directory = tmp_path / "current" / "mlops_fleet"
    directory.mkdir(parents=True)
    (directory / "VERSION").write_text(content, encoding="latin-1")
    assert installed.agent_version(str(tmp_path)) is None


@pytest.mark.parametrize(
    ("ours", "collection", "words"),
    [
        ("0.1.0-aaaaaaaaaaaa", "0.1.0-aaaaaaaaaaaa", ""),
        ("", "0.1.0-aaaaaaaaaaaa", ""),
        ("0.1.0-aaaaaaaaaaaa", "", ""),
        ("0.1.0-aaaaaaaaaaaa", "0.2.0-bbbbbbbbbbbb", "older"),
        ("0.9.0-aaaaaaaaaaaa", "0.10.0-bbbbbbbbbbbb", "older"),
        ("1.0.0-rc1-aaaaaaaaaaaa", "1.0.0-bbbbbbbbbbbb", "older"),
        ("1.0.0-beta.2-aaaaaaaaaaaa", "1.0.0-beta.11-bbbbbbbbbbbb", "older"),
        ("1.0.0-1-aaaaaaaaaaaa", "1.0.0-alpha-bbbbbbbbbbbb", "older"),
        ("2.0.0-aaaaaaaaaaaa", "1.9.9-bbbbbbbbbbbb", "newer"),
        ("0.1.0-aaaaaaaaaaaa", "0.1.0-bbbbbbbbbbbb", "another build"),
    ],
)
def test_how_versions_compare(ours, collection, words):
    said = installed.compare(ours, collection)
    assert bool(said) == bool(words) and words in said
    if words:
        assert (
            ours in said
            and collection in said
            and ("mlops.fleet.install" in said) == (words != "newer")
        )
