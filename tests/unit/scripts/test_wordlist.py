# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The word list finds what it names, and a recorded count never rises."""

from __future__ import annotations

import importlib.util
import json
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def wordlist():
    spec = importlib.util.spec_from_file_location("wordlist", ROOT / "scripts" / "wordlist.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tree(wordlist, tmp_path, monkeypatch):
    """A tree of one file that the lint checks; returns a function that writes the file."""
    monkeypatch.setattr(wordlist, "ROOT", tmp_path)
    monkeypatch.setattr(wordlist, "BASELINE", tmp_path / "wordlist.json")
    monkeypatch.setattr(wordlist, "tracked_files", lambda: ["page.rst"])
    return (tmp_path / "page.rst").write_text


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("Make a folder first.", "folder"),
        ("log_folder = 1", "folder"),
        ("Nobody can be told.", "told"),
        ("It tells people.", "tell people"),
        ("A node is judged.", "judge"),
        ("It is said once.", "said"),
        ("The map of the house", "house"),
        ("The file lies in /tmp.", "lies in"),
        ("a unit, the one that goes", "one that"),
        ("from which verdict on", "from which on"),
    ],
)
def test_prose(wordlist, text, rule):
    assert [finding.rule.name for finding in wordlist.prose_findings("page.rst", text)] == [rule]


@pytest.mark.parametrize(
    "text", ["a warehouse", "I untold", "the directory", "they show", "goldsick", "a lie"]
)
def test_other_words_are_left_alone(wordlist, text):
    assert not list(wordlist.prose_findings("page.rst", text))


@pytest.mark.parametrize(
    ("code", "rule"),
    [
        ("found = 1", "name found"),
        ("for one in backups: pass", "name one"),
        ("def f(words): pass", "name words"),
        ("def shown(): pass", "name shown"),
        ("with x as left: pass", "name left"),
        ("import reading as r", "one-letter alias"),
    ],
)
def test_names(wordlist, code, rule):
    assert [finding.rule.name for finding in wordlist.name_findings("x.py", code)] == [rule]


def test_typing_may_be_shortened_as_in_ansible_core(wordlist):
    assert not list(wordlist.name_findings("x.py", "import typing as t\nfoundation = leftover = 1"))


def test_allowed_texts_belong_to_their_files(wordlist, monkeypatch):
    monkeypatch.setattr(wordlist, "ALLOWED", {"roles/*": ("old_folder",)})
    text = "old_folder and new_folder"
    allowed = wordlist.without_allowed("roles/x.yml", text)
    assert len(list(wordlist.prose_findings("roles/x.yml", allowed))) == 1
    assert wordlist.without_allowed("docs/x.rst", text) == text


def test_recorded_counts_only_fall(wordlist, tree, capsys):
    tree("folder folder anew")
    assert wordlist.main(["--update"]) == 0
    tree("folder folder folder")
    assert wordlist.main([]) == 1 and "folder: 3 findings, 2 allowed" in capsys.readouterr().out
    assert wordlist.main(["--update"]) == 1
    tree("folder")
    assert wordlist.main(["--update"]) == 0
    assert json.loads(wordlist.BASELINE.read_text()) == {"folder": 1}
    tree("anew")
    assert wordlist.main([]) == 1
