# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Record the results of situations: ``python tests/situations/record.py [--tree CHECKOUT] [--check]
[NAME ...]``.

Without names all are recorded. ``--tree`` records another checkout, for example an earlier version.
``--check`` writes nothing and prints what would change. The last line says whether only prose
changes (``message``, ``todo`` and the like), or results too.
"""

from __future__ import annotations

import argparse
import difflib
import json
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import node
from node import ROOT, Programs
from situations import SITUATIONS, Situation

RECORDED = pathlib.Path(__file__).resolve().parent / "recorded"
#: Keys whose values are prose. Everything else is an interface.
PROSE = frozenset(
    "message msg todo reason detail stderr lines table text headline attention problems errors"
    " error skip_reason".split()
)


def path_of(name: str) -> pathlib.Path:
    return RECORDED / f"{name}.json"


def missing(situation: Situation) -> str:
    """Return what this machine lacks for a situation; empty when nothing."""
    has = {
        "compiler": lambda: bool(node.harness().compiler()),
        "namespaces": node.can_replace_kernel_files,
    }
    return " and ".join(need for need in situation.needs.split() if not has[need]())


def observe(situation: Situation, programs: Programs, base: pathlib.Path) -> object:
    """Let a situation happen on a new node below ``base``; return what is compared."""
    place = node.Node(programs, base)
    return json.loads(json.dumps(place.normal(situation.act(place))))


def text_of(value: object) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def difference(before: object, after: object, name: str) -> str:
    lines = difflib.unified_diff(
        text_of(before).splitlines(),
        text_of(after).splitlines(),
        f"{name} recorded",
        f"{name} now",
        lineterm="",
        n=2,
    )
    return "\n".join(lines)


def without_prose(value: object) -> object:
    """Return a result without its prose."""
    if isinstance(value, dict):
        return {
            key: "prose" if key in PROSE else without_prose(item) for key, item in value.items()
        }
    if isinstance(value, list):
        return [without_prose(item) for item in value]
    return value


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--tree", type=pathlib.Path, default=ROOT, help="checkout to run (default: this one)"
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with 1 when something differs"
    )
    parser.add_argument(
        "names",
        nargs="*",
        choices=[*sorted(SITUATIONS), []],
        metavar="NAME",
        help="situations to record (default: all)",
    )
    arguments = parser.parse_args()
    RECORDED.mkdir(exist_ok=True)
    changed, results_changed = [], []
    with tempfile.TemporaryDirectory(prefix="mlops-fleet-situations-") as directory:
        base = pathlib.Path(directory)
        (base / "programs").mkdir()
        programs = Programs(arguments.tree.resolve(), base / "programs")
        for name in arguments.names or sorted(SITUATIONS):
            lacking = missing(SITUATIONS[name])
            if lacking:
                print(f"{name}: left as it is, this machine lacks {lacking}")
                continue
            (base / name).mkdir()
            observed = observe(SITUATIONS[name], programs, base / name)
            before = (
                json.loads(path_of(name).read_text(encoding="utf-8"))
                if path_of(name).exists()
                else None
            )
            if observed == before:
                continue
            changed.append(name)
            if without_prose(observed) != without_prose(before):
                results_changed.append(name)
            print(difference(before, observed, name))
            if not arguments.check:
                path_of(name).write_text(text_of(observed), encoding="utf-8")
    if results_changed:
        print(f"Results changed, not only prose: {' '.join(results_changed)}")
    elif changed:
        print(f"Only prose changed: {' '.join(changed)}")
    return 1 if arguments.check and changed else 0


if __name__ == "__main__":
    sys.exit(main())
