# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Change plans, guards and limits in small ways and see whether the tests of the same part notice.

    python scripts/mutation.py                          400 mutants, the same ones every time
    python scripts/mutation.py --count 0                all of them
    python scripts/mutation.py --only cleanup/plan      of modules whose path contains this
    python scripts/mutation.py --fresh                  forget earlier outcomes

Outcomes are kept in .build/mutation.json with the fingerprint of the module and its tests, so that
a stopped run goes on where it was. A mutant that changes nothing observable is marked in the
source, `# mutant: equivalent because ...`, on its line, and is left out. Exit code 1: fewer than
MINIMUM percent were killed.
"""

from __future__ import annotations

import argparse
import ast
import concurrent.futures
import dataclasses
import json
import os
import queue
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from common import BUILD, ROOT, Problem, digest, main_wrapper, say

CORE = "plugins/module_utils/_core"
TESTS = f"tests/unit/{CORE}"
STATE = BUILD / "mutation.json"
MINIMUM = 90
#: Seconds for the tests of an unchanged module; those of a mutant get a multiple of what it took.
TIMEOUT = 300
MARK = "# mutant: equivalent because"
# Modules that decide. Each is tested by tests/unit/PART/test_MODULE*.py, and by what EXTRA_TESTS
# adds.
MODULES = (
    "*/options.py",
    "*/plan.py",
    "cleanup/brake.py",
    "cleanup/levels.py",
    "cleanup/policies.py",
    "cleanup/removals.py",
    "cleanup/targets.py",
    "cleanup/watermark.py",
    "*/guards.py",
    "*/root.py",
    "*/retention.py",
    "*/thresholds.py",
    "diagnostics/peers.py",
    "*/make/plan.py",
    "*/restore/plan.py",
    "*/bucket/plan.py",
    "*/bucket/options.py",
    "node/recommend.py",
    "node/state.py",
    "fleet/rollout.py",
    "system/roots.py",
    "options.py",
    "verdict.py",
)
EXTRA_TESTS = {
    "backup/make/plan.py": ["backup/test_plan_make.py"],
    "backup/restore/plan.py": ["backup/test_plan_restore.py"],
    "backup/bucket/plan.py": ["backup/test_plan_bucket.py"],
    "backup/bucket/options.py": ["backup/test_plan_bucket.py"],
    "diagnostics/options.py": ["diagnostics/test_plan.py", "diagnostics/test_plan_edges.py"],
    "diagnostics/peers.py": ["diagnostics/test_plan.py", "diagnostics/test_plan_edges.py"],
    "maintenance/options.py": ["maintenance/test_plan.py"],
    "cleanup/options.py": ["cleanup/test_targets.py"],
    "cleanup/plan.py": ["cleanup/test_levels.py"],
    "cleanup/brake.py": ["cleanup/test_plan.py", "cleanup/test_history.py"],
    "cleanup/levels.py": ["cleanup/test_plan.py"],
    "cleanup/removals.py": ["cleanup/test_plan.py", "cleanup/test_levels.py"],
    "cleanup/targets.py": ["cleanup/test_options_edges.py"],
    "cleanup/watermark.py": ["cleanup/test_levels.py"],
    "gpu/plan.py": ["gpu/test_history.py", "gpu/test_nvswitch.py"],
    "node/options.py": ["node/test_expected.py", "node/test_values.py"],
}
#: Defaults and limits of every option table.
CONTRACT = "test_option_contract.py"
COMPARE: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}


@dataclasses.dataclass(frozen=True)
class Mutant:
    """One change to one module; `text` is the whole changed source."""

    module: str
    line: int
    kind: str
    before: str
    after: str
    text: str = dataclasses.field(repr=False)

    @property
    def key(self) -> str:
        return digest(self.module, self.text)


def replacements(node: ast.AST) -> Iterator[tuple[str, ast.expr, ast.expr]]:
    """The changes at one node: kind, the expression to replace and its replacement."""
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in COMPARE:
        other = COMPARE[type(node.ops[0])]()
        yield "comparison", node, ast.Compare(node.left, [other], node.comparators)
    elif isinstance(node, ast.BoolOp):
        other_op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield "and/or", node, ast.BoolOp(other_op, node.values)
        for index in range(len(node.values)):
            rest = node.values[:index] + node.values[index + 1 :]
            yield (
                "condition removed",
                node,
                rest[0] if len(rest) == 1 else ast.BoolOp(node.op, rest),
            )
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "not removed", node, node.operand
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield "boolean", node, ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        yield "constant", node, ast.Constant(node.value + 1)
    elif isinstance(node, (ast.If, ast.IfExp)):
        yield "guard removed", node.test, ast.Constant(False)
        yield "guard forced", node.test, ast.Constant(True)


def walk(node: ast.AST) -> Iterator[ast.AST]:
    """Every node except type annotations, decorators and what only type checkers run."""
    yield node
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST):
                continue
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            yield from walk(child)


def mutants_of(module: str) -> list[Mutant]:
    """All mutants of a module, in the order of its lines."""
    source = (ROOT / module).read_text(encoding="utf-8")
    data = source.encode()
    starts = [0]
    for line in data.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    lines, seen, result = source.splitlines(), set(), []
    for node in walk(ast.parse(source)):
        for kind, old, new in replacements(node):
            begin, end = (
                starts[old.lineno - 1] + old.col_offset,
                starts[(old.end_lineno or 1) - 1] + (old.end_col_offset or 0),
            )
            after = f"({ast.unparse(ast.fix_missing_locations(new))})"
            text = (data[:begin] + after.encode() + data[end:]).decode()
            if text in seen or any(
                MARK in line for line in lines[max(old.lineno - 2, 0) : old.end_lineno]
            ):
                continue
            try:
                compile(text, module, "exec")
            except SyntaxError:
                continue  # inside an f-string or a match pattern
            seen.add(text)
            result.append(Mutant(module, old.lineno, kind, data[begin:end].decode(), after, text))
    return sorted(result, key=lambda mutant: (mutant.line, mutant.kind, mutant.after))


def tests_of(module: str) -> list[str]:
    """The test files that must kill a module's mutants."""
    inner = Path(module).relative_to(CORE)
    stem = inner.stem
    nearest = sorted((ROOT / TESTS / inner.parent).glob(f"test_{stem}.py")) + sorted(
        (ROOT / TESTS / inner.parent).glob(f"test_{stem}_*.py")
    )
    extra = [ROOT / TESTS / test for test in EXTRA_TESTS.get(str(inner), [])]
    if stem == "options":
        extra.append(ROOT / TESTS / CONTRACT)
    return list(
        dict.fromkeys(str(path.relative_to(ROOT)) for path in [*nearest, *extra] if path.exists())
    )


def copy_tree(directory: Path) -> None:
    """Copy what the tests read."""
    for name in ("plugins", "tests", "roles", "docs", "meta", "scripts", "playbooks", "changelogs"):
        if (ROOT / name).exists():
            shutil.copytree(
                ROOT / name, directory / name, ignore=shutil.ignore_patterns("__pycache__")
            )
    for path in ROOT.iterdir():
        if path.is_file() and path.name != ".git":
            shutil.copy2(path, directory / path.name)


def run_tests(tree: Path, tests: list[str], timeout: float) -> tuple[str, str]:
    """Run tests in a copy: passed, failed or timeout, and the last line of the output."""
    temporary = tree / "tmp"
    temporary.mkdir(exist_ok=True)
    # Two mutants of one size in one second would share a compiled file.
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(temporary)}
    env.pop("PYTHONPYCACHEPREFIX", None)
    argv = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "--tb=no",
        "-p",
        "no:xdist",
        "-p",
        "no:rerunfailures",
        *tests,
    ]
    try:
        done = subprocess.run(
            argv, cwd=tree, env=env, capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        return "timeout", ""
    return "passed" if done.returncode == 0 else "failed", (
        done.stdout.strip().splitlines() or [""]
    )[-1]


def parse() -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=400, help="how many mutants, 0 for all (400)")
    parser.add_argument("--seed", type=int, default=1, help="which sample (1)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", default="", help="modules whose path contains this")
    parser.add_argument("--fresh", action="store_true", help="forget earlier outcomes")
    parser.add_argument(
        "--seconds", type=float, default=0, help="stop after this time; the next run continues"
    )
    return parser.parse_args()


def main() -> int:
    given = parse()
    modules = sorted(
        {str(path.relative_to(ROOT)) for glob in MODULES for path in (ROOT / CORE).glob(glob)}
    )
    modules = [module for module in modules if given.only in module]
    tests = {module: tests_of(module) for module in modules}
    mutants = [mutant for module in modules for mutant in mutants_of(module)]
    if given.count and given.count < len(mutants):
        mutants = random.Random(given.seed).sample(mutants, given.count)
    prints = {m: digest(*(ROOT.joinpath(path).read_bytes() for path in tests[m])) for m in modules}
    known: dict[str, str] = (
        json.loads(STATE.read_text(encoding="utf-8")) if STATE.exists() and not given.fresh else {}
    )
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mlops-mutation-") as directory:
        trees: queue.SimpleQueue[Path] = queue.SimpleQueue()
        for number in range(given.jobs):
            tree = Path(directory) / str(number)
            copy_tree(tree)
            trees.put(tree)

        def run_unchanged(module: str) -> tuple[str, float]:
            if not tests[module]:
                return module, 0
            tree = trees.get()
            begin = time.monotonic()
            try:
                outcome, last = run_tests(tree, tests[module], TIMEOUT)
            finally:
                trees.put(tree)
            if outcome != "passed":
                raise Problem(f"the tests of {module} fail without a mutant: {outcome} {last}")
            return module, 60 + 4 * (time.monotonic() - begin)

        def run_mutant(mutant: Mutant) -> None:
            key = f"{mutant.key}-{prints[mutant.module]}"
            if key in known or (given.seconds and time.monotonic() - start > given.seconds):
                return
            tree = trees.get()
            try:
                (tree / mutant.module).write_text(mutant.text, encoding="utf-8")
                outcome = "passed"
                if tests[mutant.module]:
                    outcome = run_tests(tree, tests[mutant.module], timeouts[mutant.module])[0]
                known[key] = "survived" if outcome == "passed" else "killed"
            finally:
                shutil.copy2(ROOT / mutant.module, tree / mutant.module)
                trees.put(tree)

        with concurrent.futures.ThreadPoolExecutor(max_workers=given.jobs) as pool:
            timeouts = dict(pool.map(run_unchanged, sorted({mutant.module for mutant in mutants})))
            for number, future in enumerate(
                [pool.submit(run_mutant, mutant) for mutant in mutants], 1
            ):
                future.result()
                if number % 20 == 0:
                    STATE.write_text(json.dumps(known), encoding="utf-8")
    STATE.write_text(json.dumps(known), encoding="utf-8")
    return show(mutants, known, prints, tests)


def show(
    mutants: list[Mutant],
    known: dict[str, str],
    prints: dict[str, str],
    tests: dict[str, list[str]],
) -> int:
    """Print survivors and the score of each module, and write them to .build/mutation-report.json;
    return the exit code.
    """
    rows: list[dict[str, object]] = []
    totals: dict[str, list[int]] = {}
    for mutant in sorted(mutants, key=lambda m: (m.module, m.line)):
        outcome = known.get(f"{mutant.key}-{prints[mutant.module]}")
        if outcome is None:
            continue
        total = totals.setdefault(mutant.module, [0, 0])
        total[0] += outcome == "killed"
        total[1] += 1
        rows.append(
            {
                "module": mutant.module,
                "line": mutant.line,
                "kind": mutant.kind,
                "outcome": outcome,
                "after": mutant.after,
            }
        )
        if outcome == "survived":
            say(
                f"{mutant.module}:{mutant.line}: {mutant.kind}\n  - {mutant.before}\n  +"
                f" {mutant.after}"
            )
    say()
    for module, (killed, count) in totals.items():
        note = "  (no test file)"
        if tests[module]:
            note = ""
        say(f"{killed:>5} of {count:>4} {100 * killed / count:>4.0f} %  {module}{note}")
    killed, count = (sum(total[index] for total in totals.values()) for index in (0, 1))
    score = 0.0
    if count:
        score = 100 * killed / count
    (BUILD / "mutation-report.json").write_text(
        json.dumps({"score": score, "mutants": rows}, indent=1), encoding="utf-8"
    )
    say(f"{killed} of {count} mutants killed ({score:.1f} %), {len(mutants) - count} not run")
    if score >= MINIMUM:
        return 0
    return 1


if __name__ == "__main__":
    main_wrapper(main)
