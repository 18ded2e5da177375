# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Long files, functions and lines and conditional expressions are counted; no count rises."""

from __future__ import annotations

import importlib.util
import json
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
BODY = "    a = 1\n" * 50


@pytest.fixture
def limits(tmp_path, monkeypatch):
    """The script over a tree of one file, x.py."""
    spec = importlib.util.spec_from_file_location("limits", ROOT / "scripts" / "limits.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "BASELINE", tmp_path / "limits.json")
    monkeypatch.setattr(module, "RUFF", tmp_path / "ruff.toml")
    monkeypatch.setattr(module, "tracked_files", lambda: ["x.py"])
    module.RUFF.write_text('[lint.per-file-ignores]\n"x.py" = ["E501"]\n"tests/**" = ["S"]\n')
    return module


@pytest.mark.parametrize(
    ("code", "rules"),
    [
        ("a = 1\n" * 400, []),
        ("a = 1\n" * 401, ["long file"]),
        ("# long because it is a table\n" + "a = 1\n" * 401, []),
        ("def f():\n" + BODY[:-10], []),
        ("def f():\n" + BODY, ["long function"]),
        ("def f():  # long because it is a table\n" + BODY, []),
        (f"a = '{'x' * 94}'\n", []),
        (f"a = '{'x' * 95}'\n", ["long line"]),
        ("a = 1 if b else 2\n", ["conditional expression"]),
        (
            "a = 1 if b else 2 if c else 3\n",
            ["nested conditional expression", "conditional expression"],
        ),
        (
            "a = (1 if b else f(2 if c else 3))\n",
            ["nested conditional expression", "conditional expression"],
        ),
    ],
)
def test_findings(limits, code, rules):
    assert [finding.rule for finding in limits.findings_in("x.py", code)] == rules


def test_counts_only_fall(limits, capsys):
    path = limits.ROOT / "x.py"
    path.write_text("a = 1 if b else 2\n" * 2)
    assert limits.main(["--update"]) == 0
    path.write_text("a = 1 if b else 2\n" * 3)
    assert limits.main([]) == 1
    assert "x.py:3: conditional expression" in capsys.readouterr().out
    assert limits.main(["--update"]) == 1
    path.write_text("a = 1\n")
    assert limits.main(["--update"]) == 0
    assert limits.main([]) == 0
    path.write_text("a = 1 if b else 2\n")
    assert limits.main([]) == 1
    assert json.loads(limits.BASELINE.read_text()).get("conditional expression", 0) == 0


def test_files_without_long_lines_leave_the_list_of_ruff(limits):
    path = limits.ROOT / "x.py"
    path.write_text(f"a = '{'x' * 95}'\n")
    limits.main(["--update"])
    assert '"x.py"' in limits.RUFF.read_text()
    path.write_text("a = 1\n")
    limits.main(["--update"])
    assert limits.RUFF.read_text() == '[lint.per-file-ignores]\n"tests/**" = ["S"]\n'


def test_tests_may_have_conditional_expressions(limits):
    code = "a = 1 if b else 2 if c else 3\n"
    counted = [
        finding.rule
        for finding in limits.findings_in("tests/x.py", code)
        if limits.counted(finding)
    ]
    assert counted == ["nested conditional expression"]
