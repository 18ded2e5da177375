# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The DOCUMENTATION of modules, completed from the option tables.

Choices are written from the table. An option that the documentation lacks is added with its help;
whoever adds one may then describe it at length, which stays.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import setup

sys.path.insert(0, str(setup.link_collection()))

from ansible_collections.mlops.fleet.plugins.module_utils._core.options import Option

ROOT = Path(__file__).resolve().parents[1]
#: The options of each module: where its table is.
MODULE_OPTIONS = {
    "alert": ("alert.options", "AlertOptions"),
    "artifact_cleanup": ("cleanup.options", "CleanupOptions"),
    "gpu_health": ("gpu.options", "GpuOptions"),
    "model_backup": ("backup.options", "BackupOptions"),
    "model_backup_info": ("backup.options", "InfoOptions"),
    "model_restore": ("backup.options", "RestoreOptions"),
    "node_health": ("node.options", "NodeOptions"),
}
#: Modules whose options the documentation fragments with choices describe.
FRAGMENT_OPTIONS = {"restic": "model_restore"}
_OPTION = re.compile(r"^  (\w+):\n", re.MULTILINE)


def module_text(module: str) -> str:
    """Return the whole text of a module with its documentation completed."""
    table = _table(module)
    text = (ROOT / "plugins" / "modules" / f"{module}.py").read_text(encoding="utf-8")
    head, mark, rest = text.partition('EXAMPLES = r"""')
    return with_choices(with_missing(head, table), table) + mark + rest


def fragment_text(fragment: str) -> str:
    """Return the whole text of a documentation fragment with the choices of its options."""
    text = (ROOT / "plugins" / "doc_fragments" / f"{fragment}.py").read_text(encoding="utf-8")
    return with_choices(text, _table(FRAGMENT_OPTIONS[fragment]))


def _table(module: str) -> Sequence[Option]:
    package, name = MODULE_OPTIONS[module]
    core = "ansible_collections.mlops.fleet.plugins.module_utils._core"
    table: Sequence[Option] = getattr(importlib.import_module(f"{core}.{package}"), name).TABLE
    return table


def with_choices(text: str, table: Iterable[Option]) -> str:
    """Return a module's text with the choices of its options."""
    for entry in table:
        if entry.choices:
            pattern = rf"(^( +){entry.name}:\n(?:\2 .*\n|\n)*?\2  choices: )\[[^\]]*\]"
            choices = "[" + ", ".join(map(str, entry.choices)) + "]"
            text = re.sub(pattern, rf"\g<1>{choices}", text, flags=re.MULTILINE)
        if entry.suboptions:
            text = with_choices(text, entry.subtable)
    return text


def shared() -> set[str]:
    """Return the options that documentation fragments describe."""
    files = (ROOT / "plugins" / "doc_fragments").glob("*.py")
    return {name for path in files for name in _OPTION.findall(path.read_text(encoding="utf-8"))}


def with_missing(text: str, table: Sequence[Option]) -> str:
    """Return a module's text with the options that its documentation lacks, in their order."""
    head, mark, section = text.partition("\noptions:\n")
    end = re.search(r"^\S", section, re.MULTILINE)
    section, rest = section[: end.start()], section[end.start() :]  # type: ignore[union-attr]
    for place, entry in enumerate(table):
        documented = {match[1]: match.start() for match in _OPTION.finditer(section)}
        if entry.name in documented or entry.name in shared():
            continue
        later = (documented[after.name] for after in table[place:] if after.name in documented)
        here = next(later, len(section))
        section = section[:here] + "\n".join(_lines(entry, "  ")) + "\n" + section[here:]
    return head + mark + section + rest


def _lines(entry: Option, indent: str) -> list[str]:
    help_text = json.dumps(entry.help) if re.search(r": |^[\W\d]", entry.help) else entry.help
    lines = [f"{entry.name}:", f"  description: {help_text}", f"  type: {entry.type}"]
    if entry.elements:
        lines.append(f"  elements: {entry.elements}")
    if entry.choices:
        lines.append("  choices: [" + ", ".join(map(str, entry.choices)) + "]")
    if entry.required:
        lines.append("  required: true")
    elif entry.default is not None:
        lines.append(f"  default: {json.dumps(entry.default)}")
    if entry.suboptions:
        lines.append("  suboptions:")
        for inner in entry.subtable:
            lines += _lines(inner, "    ")
    return [indent + line for line in lines]
