# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which sessions run side by side, and that all of them run."""

from __future__ import annotations

import ast
import pathlib
import re
import sys
import threading

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]


@pytest.fixture
def checks(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import checks

    yield checks
    sys.modules.pop("checks")


@pytest.mark.parametrize(
    ("waiting", "running", "session"),
    [
        (["molecule", "lint"], set(), "molecule"),
        (["integration", "importer", "system"], {"molecule"}, "integration"),
        (["importer", "sanity"], {"integration"}, "sanity"),
        (["importer"], {"integration"}, None),
        ([], {"integration"}, None),
    ],
)
def test_the_next_session(checks, waiting, running, session):
    assert checks.next_session(waiting, running) == session


def test_all_run_two_at_a_time_and_never_two_that_exclude_each_other(checks):
    running, together, lock = set(), [], threading.Lock()

    def start(name):
        with lock:
            running.add(name)
            together.append(set(running))
        threading.Event().wait(0.01)
        with lock:
            running.discard(name)
        return checks.Result(passed=1)

    results = checks.run_sessions([*checks.SESSIONS], start)
    assert list(results) == list(checks.SESSIONS)
    assert max(len(names) for names in together) == 2
    assert all(len(names & checks.EXCLUSIVE) <= 1 for names in together)


def test_an_error_of_a_session_is_not_lost(checks):
    def start(name):
        raise RuntimeError(name)

    with pytest.raises(RuntimeError, match="lint"):
        checks.run_sessions(["lint"], start)


def test_what_runs_once_uses_no_ansible_core():
    tree = ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8"))
    (paths,) = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "WITHOUT_ANSIBLE"
    ]
    for path in paths:
        files = [ROOT / path] if path.endswith(".py") else list((ROOT / path).rglob("*.py"))
        assert files, path
        for file in files:
            text = file.read_text(encoding="utf-8")
            assert not re.search(r"(import|from) ansible\b|\bansible-\w+|\"ansible\"", text), file
