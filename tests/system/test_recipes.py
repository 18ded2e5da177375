# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The recipes of CONTRIBUTING.md work as they are written, and an incomplete addition fails at
import.

A recipe is a section "### Add ..." with steps, each with a code block: "In ``FILE``,
before|after|in place of ``LINE``:", "In ``FILE``, last in ``REGISTRY``:" or "Create ``FILE``:".
"""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess
import sys
import textwrap
from typing import NamedTuple

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
STEP = re.compile(
    r"^\d\. (?:In `(?P<changed>[^`]+)`,\s(?P<side>before|after|in place of|last in)"
    r" `(?P<line>(?:[^`]|``)+)`"
    r"|Create `(?P<created>[^`]+)`):\n\n"
    r"(?P<block>   ```\w+\n(?:   .*\n|\n)*?   ```\n)",
    re.MULTILINE,
)
COPIED = (
    "galaxy.yml",
    "pytest.ini",
    "changelogs",
    "docs",
    "meta",
    "plugins",
    "roles",
    "scripts",
    "tests/conftest.py",
    "tests/docs_pages.py",
    "tests/nvml_double",
    "tests/unit",
)

#: Files that an addition touches, test and changelog included.
MOST_FILES = 4


class Step(NamedTuple):
    """A change of one file: lines before or after a line, an entry of a registry, or a new file."""

    path: str
    side: str
    line: str
    code: str

    def apply(self, tree: pathlib.Path) -> None:
        target = tree / self.path
        if not self.side:
            assert not target.exists(), f"{self.path} exists already"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(self.code, encoding="utf-8")
            return
        lines = target.read_text(encoding="utf-8").splitlines(keepends=True)
        places = [number for number, line in enumerate(lines) if line.strip().startswith(self.line)]
        assert len(places) == 1, f"{self.path}: {self.line!r} begins {len(places)} lines"
        place = places[0]
        if self.side == "last in":
            while not lines[place].startswith(("    ),", "    ],")):
                place += 1
            lines.insert(place, textwrap.indent(self.code, " " * 8))
            target.write_text("".join(lines), encoding="utf-8")
            return
        indent = lines[place][: len(lines[place]) - len(lines[place].lstrip())]
        code = textwrap.indent(self.code, indent)
        if self.side == "in place of":
            lines[place] = code
        else:
            lines.insert(place if self.side == "before" else place + 1, code)
        target.write_text("".join(lines), encoding="utf-8")

    @property
    def module(self) -> str:
        return "ansible_collections.mlops.fleet." + self.path[: -len(".py")].replace("/", ".")


class Recipe(NamedTuple):
    name: str
    steps: tuple[Step, ...]

    @property
    def tests(self) -> list[str]:
        return [step.path for step in self.steps if step.path.startswith("tests/")]

    @property
    def entry(self) -> Step:
        """The step that registers the addition: the last that changes a file of _core, or the
        defaults of a role.
        """
        changed = [step for step in self.steps if step.side]
        return [step for step in changed if "/_core/" in step.path or "/defaults/" in step.path][-1]


def recipes() -> list[Recipe]:
    sections = re.split(r"^### ", GUIDE, flags=re.MULTILINE)[1:]
    found = []
    for section in sections:
        title, _newline, text = section.partition("\n")
        steps = []
        for match in STEP.finditer(text):
            code = textwrap.dedent(match["block"]).split("\n", 1)[1].rsplit("```", 1)[0]
            path = match["changed"] or match["created"]
            steps.append(Step(path, match["side"] or "", match["line"] or "", code))
        if title.startswith("Add "):
            found.append(Recipe(title[len("Add ") :], tuple(steps)))
    return found


RECIPES = {recipe.name: recipe for recipe in recipes()}


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> pathlib.Path:
    """A copy of the repository that recipes are applied to copies of."""
    tree = tmp_path_factory.mktemp("original") / "fleet"
    tree.mkdir()
    for name in COPIED:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name,
                tree / name,
                ignore=shutil.ignore_patterns("__pycache__"),
                symlinks=True,
            )
        else:
            shutil.copy2(ROOT / name, tree / name)
    return tree


@pytest.fixture
def tree(original, tmp_path) -> pathlib.Path:
    shutil.copytree(original, tmp_path / "fleet", symlinks=True)
    link = tmp_path / "fleet/.build/collections/ansible_collections/mlops"
    link.mkdir(parents=True)
    (link / "fleet").symlink_to(tmp_path / "fleet")
    return tmp_path / "fleet"


def python(tree: pathlib.Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": str(tree / ".build/collections"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    argv = [sys.executable, *arguments]
    return subprocess.run(
        argv, cwd=tree, env=environment, capture_output=True, text=True, check=False, timeout=120
    )


def test_every_kind_of_addition_has_a_recipe():
    assert len(RECIPES) >= 13 and all(recipe.steps for recipe in RECIPES.values())


@pytest.mark.parametrize("name", RECIPES)
def test_the_recipe_works(name, tree):
    recipe = RECIPES[name]
    for step in recipe.steps:
        step.apply(tree)
    assert len({step.path for step in recipe.steps}) <= MOST_FILES
    assert any(step.path.startswith("changelogs/fragments/") for step in recipe.steps)
    generated = python(tree, "scripts/generate.py")
    assert generated.returncode == 0, generated.stdout + generated.stderr
    assert python(tree, "scripts/generate.py", "--check").returncode == 0
    tests = python(tree, "-m", "pytest", "-q", *recipe.tests)
    assert tests.returncode == 0, tests.stdout + tests.stderr


@pytest.mark.parametrize("name", RECIPES)
def test_the_test_of_the_recipe_fails_without_the_entry(name, tree):
    recipe = RECIPES[name]
    for step in recipe.steps:
        if step != recipe.entry:
            step.apply(tree)
    tests = python(tree, "-m", "pytest", "-q", *recipe.tests)
    assert tests.returncode == 1, tests.stdout + tests.stderr


@pytest.mark.parametrize("name", RECIPES)
def test_an_incomplete_entry_fails_at_import(name, tree):
    """Every required field is left out in turn: those not marked optional, the help of an option,
    the comment of a variable.

    A module fails at import, a role when what is derived from it is generated.
    """
    recipe = RECIPES[name]
    for step in recipe.steps:
        if step != recipe.entry:
            step.apply(tree)
    path = tree / recipe.entry.path
    unchanged = path.read_text(encoding="utf-8")
    lines = recipe.entry.code.splitlines(keepends=True)
    field = r" +help=.*,\n" if "= option(" in lines[0] else r" +\w+=.*,\n"
    is_module = path.suffix == ".py"
    field = field if is_module else r"# "
    fields = [number for number, line in enumerate(lines) if re.match(field, line)]
    assert fields, "the entry gives its fields as keyword arguments, one a line"
    for number in fields:
        path.write_text(unchanged, encoding="utf-8")
        incomplete = "".join(lines[:number] + lines[number + 1 :])
        recipe.entry._replace(code=incomplete).apply(tree)
        load = ("-c", f"import {recipe.entry.module}") if is_module else ("scripts/generate.py",)
        process = python(tree, *load)
        assert process.returncode != 0, lines[number]
        error = "TypeError" if is_module else "Incomplete"
        assert error in process.stderr, lines[number] + process.stderr
