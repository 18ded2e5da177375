# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The core may import the standard library, itself, and four guarded libraries; nothing else,
ever.
"""

from __future__ import annotations

import ast
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[5]
CORE = ROOT / "plugins" / "module_utils" / "_core"
GUARDED = {"psutil", "pynvml", "boto3", "botocore", "isal"}
#: sys.stdlib_module_names is new in 3.10; the walk itself is the same on every interpreter.
STDLIB = getattr(sys, "stdlib_module_names", None)
FILES = sorted(CORE.rglob("*.py"))


def _guarded(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> bool:
    """Whether an import sits in a function or in a try that catches ImportError."""
    while node in parents:
        node = parents[node]
        if isinstance(node, (ast.FunctionDef, ast.Try)):
            return True
    return False


def problems(source: str) -> list[str]:
    tree = ast.parse(source)
    parents = {child: parent for parent in ast.walk(tree) for child in ast.iter_child_nodes(parent)}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [] if node.level else [(node.module or "").split(".")[0]]
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in {"print", "__import__"}
        ):
            found.append(f"line {node.lineno}: {node.func.id}()")
            continue
        else:
            continue
        for name in names:
            if name in GUARDED:
                if not _guarded(node, parents):
                    found.append(f"line {node.lineno}: {name} is imported without a guard")
            elif name == "subprocess" or (STDLIB is not None and name not in STDLIB):
                found.append(f"line {node.lineno}: imports {name}")
    return found


@pytest.mark.skipif(STDLIB is None, reason="sys.stdlib_module_names needs Python 3.10")
@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CORE)))
def test_core_imports_only_what_it_may(path):
    assert problems(path.read_text(encoding="utf-8")) == []


@pytest.mark.skipif(STDLIB is None, reason="sys.stdlib_module_names needs Python 3.10")
@pytest.mark.parametrize(
    "source",
    [
        "import requests",
        "from ansible.module_utils.basic import x",
        "import boto3",
        "import subprocess",
        "def f():\n    import yaml",
        "print(1)",
    ],
)
def test_the_walk_finds_what_is_forbidden(source):
    assert problems(source)


def test_there_is_a_core():
    assert len(FILES) > 8
