# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Count what makes code hard to read; no count may rise.

    python scripts/limits.py             exit with 1 if a count is higher than in limits.json
    python scripts/limits.py --list      print every finding
    python scripts/limits.py --update    lower the counts in limits.json; they never rise
    python scripts/limits.py FILE ...    check these files only and print every finding

A file or function that has a reason to be long says so with a comment in the file or on the line of
its definition: `# long because ...`. ruff checks the length of lines; files that still have lines
of more than 100 characters are listed in ruff.toml, and `--update` removes those that have none.
"""

from __future__ import annotations

import argparse
import ast
import collections
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
BASELINE = Path(__file__).with_suffix(".json")
RUFF = ROOT / "ruff.toml"
FILE_LINES = 400
FUNCTION_LINES = 50
LINE_LENGTH = 100
REASON = "# long because "
#: A line of ruff.toml that lets a file have long lines.
LONG_LINES = re.compile(r'^"(?P<path>[^"*]+)" = \["E501"\]\n', re.MULTILINE)


class Finding(NamedTuple):
    rule: str
    path: str
    line: int
    text: str


def tracked_files() -> list[str]:
    """Return the Python files of the repository."""
    argv = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"]
    names = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in names.splitlines() if (ROOT / name).is_file()]


def findings_in(path: str, text: str) -> Iterator[Finding]:
    """Find long files, functions and lines, and conditional expressions, nested or not."""
    lines = text.splitlines()
    if len(lines) > FILE_LINES and not any(line.startswith(REASON) for line in lines):
        yield Finding("long file", path, 1, f"{len(lines)} lines")
    for number, line in enumerate(lines, 1):
        if len(line) > LINE_LENGTH:
            yield Finding("long line", path, number, f"{len(line)} characters")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES and REASON not in lines[node.lineno - 1]:
                yield Finding("long function", path, node.lineno, f"{node.name}: {length} lines")
        elif isinstance(node, ast.IfExp):
            inner = (node.test, node.body, node.orelse)
            rule = "conditional expression"
            if any(isinstance(part, ast.IfExp) for root in inner for part in ast.walk(root)):
                rule = f"nested {rule}"
            yield Finding(rule, path, node.lineno, ast.unparse(node)[:80])


def counted(finding: Finding) -> bool:
    """Say whether a finding counts: tests may have conditional expressions."""
    return not (finding.rule == "conditional expression" and finding.path.startswith("tests/"))


def remove_files_without_long_lines(findings: list[Finding]) -> None:
    """Remove entries from ruff.toml that are not needed any more."""
    long = {finding.path for finding in findings if finding.rule == "long line"}
    text = RUFF.read_text(encoding="utf-8")
    kept = LONG_LINES.sub(lambda match: match[0] if match["path"] in long else "", text)
    RUFF.write_text(kept, encoding="utf-8")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--list", action="store_true", help="print every finding")
    parser.add_argument("--update", action="store_true", help="lower the recorded counts")
    parser.add_argument("files", nargs="*", metavar="FILE", help="check these files only")
    arguments = parser.parse_args(argv)
    names = [str(Path(name).resolve().relative_to(ROOT)) for name in arguments.files]
    findings = [
        finding
        for name in names or tracked_files()
        for finding in findings_in(name, (ROOT / name).read_text(encoding="utf-8"))
        if counted(finding)
    ]
    counts = collections.Counter(finding.rule for finding in findings)
    allowed = json.loads(BASELINE.read_text(encoding="utf-8")) if BASELINE.exists() else {}
    if arguments.update:
        allowed = {rule: min(allowed.get(rule, counts[rule]), counts[rule]) for rule in counts}
        BASELINE.write_text(json.dumps(allowed, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        remove_files_without_long_lines(findings)
    risen = [] if names else [rule for rule in counts if counts[rule] > allowed.get(rule, 0)]
    for finding in findings:
        if names or arguments.list or finding.rule in risen:
            print(f"{finding.path}:{finding.line}: {finding.rule}: {finding.text}")
    for rule, count in sorted(counts.items()):
        allowance = "" if names else f" of {allowed.get(rule, 0)} allowed"
        print(f"{rule}: {count}{allowance}")
    if risen:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
