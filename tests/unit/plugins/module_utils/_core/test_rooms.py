# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which room of the core may import which, lazily or not; modules import each other in no
circle.
"""

from __future__ import annotations

import ast
import functools
import pathlib

CORE = pathlib.Path(__file__).resolve().parents[5] / "plugins" / "module_utils" / "_core"
BASE = {"errors", "options", "ports", "registry", "system", "verdict"}
#: Room -> the rooms it may import. A room is a directory or a module directly in _core.
ARROWS = {
    "agent": {"errors", "ports", "system"},
    "alert": BASE,
    "backup": BASE,
    "cleanup": BASE | {"backup"},
    "config": {"environment", "errors", "options", "system"},
    "environment": {"environment_syntax"},
    "diagnostics": BASE | {"gpu"},
    "doctor": {
        "environment",
        "errors",
        "jobs",
        "maintenance",
        "ports",
        "system",
        "trial",
        "verdict",
    },
    "fleet": {"errors", "installed", "last", "maintenance", "output", "system", "verdict"},
    "gpu": BASE | {"output"},
    "jobs": {"outcome", "registry"},
    "last": {"errors", "system"},
    "maintenance": {"errors", "options", "ports", "registry", "verdict"},
    "node": BASE | {"backup", "gpu", "output"},
    "options": {"errors"},
    "outcome": {"errors"},
    "output": {"registry", "system", "verdict"},
    "registry": {"errors"},
    "sandbox": {"errors", "jobs", "ports", "system"},
    # What the jobs write to is in the options of the parts.
    "schedule": (
        {"config", "environment", "errors", "options", "ports"}
        | {"alert", "backup", "cleanup", "gpu", "node"}
    ),
    "status": {"alert", "errors", "jobs", "last", "outcome", "ports", "trial", "verdict"},
    "system": {"errors", "ports"},
    "timers": {"errors", "options", "ports"},
    "trial": {"errors", "jobs", "outcome", "ports", "system", "verdict"},
    "verdict": {"system"},
}
#: Stands in for typing and dataclasses; every room may import it, and it imports none.
FOUNDATION = ("records",)
PARTS = {"alert", "backup", "cleanup", "diagnostics", "gpu", "node"}
#: What a part may import of another part.
DOORS = {"backup": {"api"}, "gpu": {"api", "reading"}}

#: Imports in functions that close a circle and are still to be removed. This list only shrinks.
KNOWN_CIRCLES = {(("backup", "stores"), ("backup", "s3", "sets"))}


def walk(root: pathlib.Path) -> dict[tuple[str, ...], set[tuple[str, ...]]]:
    """Every module below root with the modules it imports, those in functions included, those for
    type checkers not.
    """
    modules = {}
    for path in root.rglob("*.py"):
        parts = path.relative_to(root).with_suffix("").parts
        modules[parts[:-1] if parts[-1] == "__init__" else parts] = path
    imports = {}
    for module, path in modules.items():
        package = path.relative_to(root).parts[:-1]
        targets = set()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        types_only = {
            inner
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            for inner in ast.walk(node)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.level and node not in types_only:
                base = (
                    *package[: len(package) + 1 - node.level],
                    *((node.module or "").split(".") if node.module else ()),
                )
                targets |= {
                    (*base, alias.name) if (*base, alias.name) in modules else base
                    for alias in node.names
                }
        imports[module] = targets - {module}
    return imports


def circle(imports: dict[tuple[str, ...], set[tuple[str, ...]]]) -> list[str]:
    """The modules of a circle, in order; empty where there is none."""
    done: set[tuple[str, ...]] = set()

    def visit(module: tuple[str, ...], path: list[tuple[str, ...]]) -> list[str]:
        if module in path:
            return [".".join(step) for step in [*path[path.index(module) :], module]]
        if module in done:
            return []
        for target in sorted(imports.get(module, ())):
            result = visit(target, [*path, module])
            if result:
                return result
        done.add(module)
        return []

    for module in sorted(imports):
        result = visit(module, [])
        if result:
            return result
    return []


def undeclared(imports: dict[tuple[str, ...], set[tuple[str, ...]]]) -> list[str]:
    """The imports that ARROWS and DOORS do not allow."""
    problems = []
    for module, targets in imports.items():
        for target in targets:
            if not module or target in ((), FOUNDATION) or module[:1] == target[:1]:
                continue
            door = target[0] not in PARTS or module[0] not in PARTS
            door = door or (target[1:2] != () and target[1] in DOORS.get(target[0], set()))
            if target[0] not in ARROWS.get(module[0], set()) or not door:
                problems.append(f"{'.'.join(module)} -> {'.'.join(target)}")
    return sorted(problems)


@functools.cache
def core() -> dict[tuple[str, ...], set[tuple[str, ...]]]:
    return walk(CORE)


def test_every_arrow_is_declared():
    assert undeclared(core()) == []


def test_no_circle():
    imports = {module: set(targets) for module, targets in core().items()}
    for module, target in KNOWN_CIRCLES:
        assert target in imports[module]
        imports[module].remove(target)
    assert circle(imports) == []


def test_rooms_without_circle():
    assert circle({(room,): {(to,) for to in targets} for room, targets in ARROWS.items()}) == []


def test_no_arrow_is_declared_in_vain():
    used = {(m[0], t[0]) for m, targets in core().items() for t in targets if m and t}
    assert {(a, b) for a, targets in ARROWS.items() for b in targets} - used == set()


def test_the_walk_finds_circles_and_lazy_arrows(tmp_path):
    (tmp_path / "gpu").mkdir()
    (tmp_path / "gpu" / "__init__.py").write_text("")
    (tmp_path / "gpu" / "a.py").write_text("def f():\n    from ..node import b\n")
    (tmp_path / "node").mkdir()
    (tmp_path / "node" / "__init__.py").write_text("")
    (tmp_path / "node" / "b.py").write_text("from ..gpu.a import f\n")
    imports = walk(tmp_path)
    assert circle(imports) == ["gpu.a", "node.b", "gpu.a"]
    assert undeclared(imports) == ["gpu.a -> node.b", "node.b -> gpu.a"]
