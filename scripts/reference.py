# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The reference page of the documentation: commands, options, checks and registries.

``scripts/generate.py`` writes it; everything on it comes from the code.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import setup
from common import BUILD, ROOT

sys.path.insert(0, str(setup.link_collection()))

from ansible_collections.mlops.fleet.plugins.module_utils._core import config
from ansible_collections.mlops.fleet.plugins.module_utils._core.alert.channels import CHANNELS
from ansible_collections.mlops.fleet.plugins.module_utils._core.alert.payloads import PAYLOADS
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.codecs import CODECS
from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup.targets import BUILT_IN
from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup.tools import TOOLS
from ansible_collections.mlops.fleet.plugins.module_utils._core.gpu.checks import CHECKS as OF_A_GPU
from ansible_collections.mlops.fleet.plugins.module_utils._core.gpu.plan import (
    NODE_CHECKS as OF_ALL_GPUS,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.node.checks import (
    CHECKS as OF_THE_NODE,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.node.thresholds import OFF, Rule
from ansible_collections.mlops.fleet.plugins.module_utils._core.options import Option
from ansible_collections.mlops.fleet.plugins.module_utils._core.output.formats import FORMATS
from ansible_collections.mlops.fleet.plugins.module_utils._core.output.prometheus import METRICS

LABEL = "ansible_collections.mlops.fleet.docsite"
HEAD = f""".. Copyright (c) 2026, mlops.fleet contributors
.. GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
.. SPDX-License-Identifier: GPL-3.0-or-later
.. Made by scripts/generate.py from the code; changes are lost.

.. _{LABEL}.reference:

Reference
=========

.. contents::
  :local:
  :depth: 2

"""
#: Modules whose options are those of a section of the configuration.
MODULES = {
    "health": "node_health",
    "gpu": "gpu_health",
    "diagnostics": "gpu_diagnostics",
    "backup": "model_backup",
    "cleanup": "artifact_cleanup",
    "alert": "alert",
}


# --- reStructuredText ---------------------------------------------------------------------------


def heading(title: str, underline: str, label: str) -> str:
    return f".. _{LABEL}.reference.{label}:\n\n{title}\n{underline * len(title)}\n\n"


def code(text: str) -> str:
    if text:
        return f"``{text}``"
    return ""


def plain(text: str) -> str:
    """Return text in which no character means markup."""
    for character in "\\*`|_":
        text = text.replace(character, "\\" + character)
    return text


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [".. list-table::", "  :header-rows: 1", ""]
    for row in (header, *rows):
        for place, cell in enumerate(row):
            mark = "    -"
            if place == 0:
                mark = "  * -"
            lines.append(f"{mark} {cell}".rstrip())
    return "\n".join(lines) + "\n\n"


def sentence(text: str) -> str:
    """Return text as a sentence: it begins with a capital letter and ends with a full stop."""
    text = text[:1].upper() + text[1:]
    return plain(text.removesuffix(".") + ".")


# --- the node command -----------------------------------------------------------------------------


def command_package() -> Path:
    """Return the directory of a package ``reference_agent``: command and core, as on a node."""
    package = BUILD / "reference" / "reference_agent"
    package.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").touch()
    for name, source in (
        ("_core", "plugins/module_utils/_core"),
        ("mlfleet", "roles/agent/files/mlfleet"),
    ):
        link = package / name
        if not link.is_symlink() or link.resolve() != ROOT / source:
            link.unlink(missing_ok=True)
            link.symlink_to(ROOT / source)
    return package.parent


def commands() -> str:
    os.environ.pop("MLFLEET_CONFIG", None)  # the default of --config is on the page
    sys.path.insert(0, str(command_package()))
    module = importlib.import_module("reference_agent.mlfleet.commands")
    parser = importlib.import_module("reference_agent.mlfleet.parser")
    known = [module.load(name) for name in module.NAMES]
    parsers = {command.name: parser.command_parser(command) for command in known}
    common = set.intersection(*(set(_flags(parsers[command.name])) for command in known))
    text = heading("Commands of mlfleet", "-", "commands")
    text += table(
        ("Command", "Purpose", "Section of the configuration", "Log"),
        (
            (
                code(command.name),
                sentence(command.help),
                code(command.part),
                code(command.log),
            )
            for command in known
        ),
    )
    text += "Arguments of all commands:\n\n"
    first = parsers[known[0].name]
    header = ("Argument", "Purpose")
    text += table(header, (_argument(first, flag) for flag in _flags(first) if flag in common))
    for command in known:
        own = [flag for flag in _flags(parsers[command.name]) if flag not in common]
        text += heading(f"mlfleet {command.name}", "^", f"mlfleet_{command.name.replace('-', '_')}")
        text += ".. code-block:: console\n\n"
        text += "".join(f"    $ {line}\n" for line in command.examples) + "\n"
        if own:
            text += table(header, (_argument(parsers[command.name], flag) for flag in own))
        if command.part:
            text += f"Options are listed in :ref:`{LABEL}.reference.options_{command.part}`.\n\n"
    return text


def _flags(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """Return the arguments that are no options of a section, by their first spelling."""
    return {
        (action.option_strings or [action.dest])[0]: action
        for action in parser._actions
        if not action.dest.startswith("option:") and action.dest != "help"
    }


def _argument(parser: argparse.ArgumentParser, flag: str) -> tuple[str, str]:
    action = _flags(parser)[flag]
    value = action.metavar or ("" if action.option_strings else action.dest)
    if action.nargs != 0 and action.choices:
        value = "{" + ",".join(map(str, action.choices)) + "}"
    elif action.nargs != 0 and action.option_strings:
        value = value or action.dest.upper()
    spellings = ", ".join(action.option_strings)
    help_text = (action.help or "").replace("%%", "%").replace("%(default)s", str(action.default))
    return code(f"{spellings} {value if action.nargs != 0 else ''}".strip()), sentence(help_text)


# --- options


def options() -> str:
    text = heading("Options", "-", "options")
    text += (
        "Each option is an option of the module, a key of the section"
        " in\n``/etc/mlops-fleet/config.json``, and a flag of the command, unless it is a secret or"
        " a list\nof mappings. Flags win over environment variables, these over the file, that over"
        " defaults.\n\n"
    )
    header = ("Option", "Flag", "Type and default", "Environment", "Purpose")
    for part in config.PARTS:
        text += heading(f"Section {part}", "^", f"options_{part}")
        if part in MODULES:
            module = f"mlops.fleet.{MODULES[part]}"
            text += f"Module :ansplugin:`{module}#module`.\n\n"
        text += table(header, _option_rows(config.option_set(part).TABLE, ""))
    return text


def _option_rows(entries: Iterable[Option], prefix: str) -> Iterator[Sequence[str]]:
    for entry in entries:
        many = entry.type == "list" and bool(entry.suboptions)
        name = f"{prefix}{entry.name}"
        secret = entry.secret or many or bool(entry.suboptions) or "[]" in prefix
        flag = "" if secret else "--" + name.replace("_", "-").replace(".", "-")
        flags = ", ".join(code(spelling) for spelling in (flag, *entry.flags) if spelling)
        environment = ", ".join(code(variable) for variable in entry.env)
        help_text = sentence(entry.help) + (" Secret." if entry.secret else "")
        yield code(name), flags, _kind(entry), environment, help_text
        yield from _option_rows(entry.subtable, f"{name}[]." if many else f"{name}.")


def _kind(entry: Option) -> str:
    kind = f"list of {entry.elements}" if entry.type == "list" else entry.type
    if entry.choices:
        kind = " | ".join(map(str, entry.choices)).replace("|", "\\|")
    limits = [
        f"{word} {value:g}"
        for word, value in (("from", entry.minimum), ("to", entry.maximum))
        if value is not None
    ]
    kind = " ".join([kind, *limits])
    if entry.required:
        return f"{kind}, required"
    if entry.default is None:
        return kind
    default = entry.default if isinstance(entry.default, str) else json.dumps(entry.default)
    return f"{kind}, {code(default) or 'empty'}"


# --- checks and registries


def runbook(entry: str) -> str:
    return f":ref:`{entry} <{LABEL}.runbook.{entry}>`"


def node_checks() -> str:
    text = heading("Node checks", "-", "node_checks")
    text += (
        f"What each check looks at is explained in :ref:`{LABEL}.node_health`. Limits are *warning"
        " /\ncritical*; the option ``limits`` changes them.\n\n"
    )
    rows = (
        (
            check.group,
            code(check.name),
            sentence(check.documentation),
            _limits(check.limits),
            code(check.metric),
            runbook(check.runbook),
        )
        for check in OF_THE_NODE
    )
    return text + table(("Group", "Check", "Meaning", "Limits", "Metric", "Runbook"), rows)


def _limits(rule: Rule | None) -> str:
    if rule is None:
        return ""
    warning, critical = ("–" if limit == OFF else limit for limit in (rule.warning, rule.critical))
    return f"{warning} / {critical} {rule.unit}".rstrip()


def gpu_checks() -> str:
    text = heading("GPU checks", "-", "gpu_checks")
    text += f"What each check looks at is explained in :ref:`{LABEL}.gpu_health`.\n\n"
    rows = (
        (
            code(check.name),
            sentence(check.documentation),
            plain(check.limit),
            ", ".join(code(action) for action in check.actions),
            code(check.metric),
            runbook(check.runbook),
        )
        for check in (*OF_ALL_GPUS, *OF_A_GPU)
    )
    return text + table(("Check", "Finds", "Limit", "Actions", "Metric", "Runbook"), rows)


def registries() -> str:
    text = heading("Metrics", "-", "metrics")
    text += "Written to the file that the option ``textfile`` names.\n\n"
    rows: Iterable[Sequence[str]]
    rows = ((code(metric.name), metric.type, sentence(metric.help)) for metric in METRICS)
    text += table(("Metric", "Type", "Meaning"), rows)
    text += heading("Compressions", "-", "compressions")
    rows = (
        (
            code(codec.name),
            code(codec.suffix),
            f"{codec.levels[0]} to {codec.levels[1]}",
            sentence(codec.help),
        )
        for codec in CODECS
    )
    text += table(("Value of ``compression``", "Suffix", "Levels", "Notes"), rows)
    text += heading("Cleanup targets and tools", "-", "cleanup")
    rows = [
        *(
            (code(target.name), code(f"{target.path}/{target.pattern}"), _kept(target.retention))
            for target in BUILT_IN
        ),
        *((code(tool.name), sentence(tool.documentation), _days(tool.retention)) for tool in TOOLS),
    ]
    text += table(("Name", "What", "Kept for"), rows)
    text += heading("Alert channels and payloads", "-", "alerts")
    rows = ((code(kind.name), code(kind.option)) for kind in CHANNELS)
    text += table(("Channel", "Option"), rows)
    rows = (
        (code(payload.name), sentence(payload.service), payload.documentation)
        for payload in PAYLOADS
    )
    text += table(("Value of ``payload``", "Service", "Documentation"), rows)
    text += heading("Output formats", "-", "formats")
    rows = ((code(output.name), sentence(output.help)) for output in FORMATS)
    return text + table(("Value of ``--format``", "Output"), rows)


def _kept(retention: str | float) -> str:
    """Return the days as the option that holds them, or as a fixed number."""
    if isinstance(retention, str):
        return code(retention)
    return _days(retention * 86400)


def _days(seconds: float) -> str:
    if seconds:
        return f"{seconds / 86400:g} days"
    return "always removed"


def page() -> str:
    """Return the page docs/docsite/rst/reference.rst."""
    sections = (commands(), options(), node_checks(), gpu_checks(), registries())
    return (HEAD + "".join(sections)).rstrip() + "\n"
