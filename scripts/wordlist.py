# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find words and names that the project does not use, in docs, help texts, comments and code.

    python scripts/wordlist.py             end with 1 if there are more than in wordlist.json
    python scripts/wordlist.py --list      print every finding
    python scripts/wordlist.py --update    lower the counts in wordlist.json; they never rise
    python scripts/wordlist.py FILE ...    check these files only and print every finding

A released name that reads like a finding is listed in ALLOWED, with the file and the exact text.
"""

from __future__ import annotations

import argparse
import ast
import collections
import fnmatch
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
BASELINE = Path(__file__).with_suffix(".json")
TEXT = (".md", ".rst", ".yml", ".yaml", ".py", ".sh", ".j2", ".cfg", ".ini", ".toml", ".txt", ".c")
#: Not ours, released, recorded or generated.
SKIPPED = (
    "LICENSE",
    "CHANGELOG.md",
    "changelogs/changelog.yaml",
    "scripts/wordlist.*",
    "tests/situations/recorded/*",
    "tests/unit/scripts/test_wordlist.py",
    ".git*/*",
)


class Rule(NamedTuple):
    """A pattern (case is ignored) and what to write instead."""

    name: str
    pattern: str
    instead: str


#: In all text, code included. Identifiers count too, because "_" separates words here.
PROSE = (
    Rule("folder", r"folders?", "directory"),
    Rule("anew", r"anew", "again"),
    Rule("told", r"told", "notified, sent, configured, unknown"),
    Rule(
        "tell people",
        r"(?:tell|tells|telling) (?:people|somebody|nobody|you|us|them)",
        "send an alert",
    ),
    Rule("judge", r"judg(?:e|es|ed|ing|ement|ments?)", "check, evaluate, verdict"),
    Rule("said", r"(?:is|are|was|be|been|gets?) said|said once", "reported, logged"),
    Rule("in sight", r"in sight", "detected"),
    Rule("house", r"house", "repository, layout"),
    Rule("doomed", r"doomed", "to remove"),
    Rule("sick", r"sick", "unhealthy"),
    Rule("settled", r"settled", "stable"),
    Rule("lies in", r"(?:lies|lie|lay|lives?) (?:in|on|under|below|beside|there)", "is in"),
    Rule("from which on", r"from which \w+ on", "minimum"),
    Rule("by way of", r"by way of", "through"),
    Rule("as meant", r"as meant", "by design, intended"),
    Rule("words for arguments", r"words (?:behind|after|for)", "arguments"),
    Rule("one that", r"(?:the )?ones? that", "the noun that is meant"),
)
#: Names of variables, arguments, functions and classes, outside tests.
NAMES = (
    Rule("name found", r"_?found", "what was found: backups, units, checks"),
    Rule("name one", r"_?ones?", "what it is: backup, unit, check"),
    Rule("name words", r"_?words", "arguments, fields"),
    Rule("name left", r"_?left", "remaining"),
    Rule("name done", r"_?done", "process, completed"),
    Rule("name answer", r"_?answer", "response, document"),
    Rule("name shown", r"(?:\w*_)?shown?", "display, rendered"),
    Rule("name settled", r"(?:\w*_)?settled", "stable"),
)
#: Released names and quotations, per file pattern: these texts are removed before the rules apply.
ALLOWED: dict[str, tuple[str, ...]] = {
    # A directory of the quarantine on disk, which a later version must find.
    "plugins/module_utils/_core/cleanup/*": ("doomed", "DOOMED"),
    "tests/*cleanup*": ("doomed",),
    # Format 1 of the manifest.
    "plugins/module_utils/_core/backup/*": ("folders", '"folder"', "called a folder"),
    "tests/libraries/test_layouts.py": ("repo_folder_name",),
}


class Finding(NamedTuple):
    rule: Rule
    path: str
    line: int
    text: str


def tracked_files() -> list[str]:
    """Return the files to check, relative to the repository."""
    argv = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [
        name
        for name in names.splitlines()
        if name.endswith(TEXT) or "/" not in name
        if not any(fnmatch.fnmatch(name, pattern) for pattern in SKIPPED)
        if (ROOT / name).is_file()
    ]


def compiled(rules: tuple[Rule, ...], whole: bool = False) -> list[tuple[Rule, re.Pattern[str]]]:
    """Compile rules, for whole names or for words in text."""
    form = r"(?<![A-Za-z]){}(?![A-Za-z])"
    if whole:
        form = r"{}\Z"
    return [(rule, re.compile(form.format(f"(?:{rule.pattern})"), re.IGNORECASE)) for rule in rules]


PROSE_PATTERNS = compiled(PROSE)
NAME_PATTERNS = compiled(NAMES, whole=True)


def without_allowed(path: str, text: str) -> str:
    """Replace the allowed texts of a file by blanks of the same length."""
    for pattern, texts in ALLOWED.items():
        if fnmatch.fnmatch(path, pattern):
            for allowed in texts:
                text = text.replace(allowed, " " * len(allowed))
    return text


def prose_findings(path: str, text: str) -> Iterator[Finding]:
    lines = text.splitlines()
    for rule, pattern in PROSE_PATTERNS:
        for match in pattern.finditer(text):
            number = text.count("\n", 0, match.start())
            yield Finding(rule, path, number + 1, lines[number].strip())


def bound_names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Return every name that the code binds, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name, node.lineno


def name_findings(path: str, text: str) -> Iterator[Finding]:
    tree = ast.parse(text)
    for name, line in bound_names(tree):
        for rule, pattern in NAME_PATTERNS:
            if pattern.match(name):
                yield Finding(rule, path, line, name)
    alias_rule = Rule("one-letter alias", "", "the name of the module")
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            for alias in node.names:
                typing = alias.name == "typing" and alias.asname == "t"  # as in ansible-core
                if alias.asname and len(alias.asname) == 1 and not typing:
                    text = f"{alias.name} as {alias.asname}"
                    yield Finding(alias_rule, path, node.lineno, text)


def findings_in(paths: list[str]) -> list[Finding]:
    findings: list[Finding] = []
    for path in paths:
        try:
            text = (ROOT / path).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        findings += prose_findings(path, without_allowed(path, text))
        if path.endswith(".py") and not path.startswith(("tests/", "molecule/")):
            findings += name_findings(path, text)
    return findings


def display(findings: list[Finding]) -> None:
    for finding in findings:
        print(
            f"{finding.path}:{finding.line}: {finding.rule.name} "
            f"(instead: {finding.rule.instead}): {finding.text[:120]}"
        )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--list", action="store_true", help="print every finding")
    parser.add_argument("--update", action="store_true", help="lower the recorded counts")
    parser.add_argument("files", nargs="*", metavar="FILE", help="check these files only")
    arguments = parser.parse_args(argv)
    if arguments.files:
        names = [str(Path(name).resolve().relative_to(ROOT)) for name in arguments.files]
        findings = findings_in(names)
        display(findings)
        if findings:
            return 1
        return 0
    findings = findings_in(tracked_files())
    counts = collections.Counter(finding.rule.name for finding in findings)
    allowed = json.loads(BASELINE.read_text(encoding="utf-8")) if BASELINE.exists() else {}
    if arguments.list:
        display(findings)
    if arguments.update:
        known = allowed or dict(counts)
        lowered = {rule: min(known.get(rule, 0), counts[rule]) for rule in sorted(counts)}
        kept = {rule: count for rule, count in lowered.items() if count}
        BASELINE.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
        allowed = kept
    risen = [rule for rule, count in counts.items() if count > allowed.get(rule, 0)]
    display([finding for finding in findings if finding.rule.name in risen])
    for rule in sorted(risen):
        print(f"{rule}: {counts[rule]} findings, {allowed.get(rule, 0)} allowed")
    print(f"word list: {sum(counts.values())} findings, {sum(allowed.values())} allowed")
    if risen:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
