# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Argument specs of roles that are written by hand, completed from ``defaults/main.yml``.

Defaults are stated once, in ``defaults/main.yml``. A variable that its argument specs lack is
added with the comment above it as its description, and a type that fits the default. Descriptions
and types that are there stay. The times of the scheduled jobs come from the job catalogue.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import setup
import yaml

sys.path.insert(0, str(setup.link_collection()))

from ansible_collections.mlops.fleet.plugins.module_utils._core.jobs import JOBS
from ansible_collections.mlops.fleet.plugins.module_utils._core.schedule import JobOptions

ROOT = Path(__file__).resolve().parents[1]
#: The specs of maintenance are generated as a whole.
ROLES = ("agent", "fleet_report", "log_rotation", "s3_bucket", "schedule")
_BLOCK = r"^      {name}:\n(?:        .*\n)+"
_DEFAULT = re.compile(r"^        default:.*\n(?:          .*\n)*", re.MULTILINE)


class Incomplete(Exception):
    """A variable that the code needs is missing where only a person can write it."""


def specs_path(role: str) -> str:
    return f"roles/{role}/meta/argument_specs.yml"


def defaults_path(role: str) -> str:
    return f"roles/{role}/defaults/main.yml"


def _read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def argument_specs(role: str) -> str:
    """Return a role's argument specs with the defaults of the role, and its missing variables."""
    text = _read(specs_path(role))
    defaults_text = schedule_defaults() if role == "schedule" else _read(defaults_path(role))
    defaults = yaml.safe_load(defaults_text) or {}
    specs = yaml.safe_load(text)["argument_specs"]["main"]["options"]
    before = ""
    for variable, default in defaults.items():
        match = re.search(_BLOCK.format(name=variable), text, re.MULTILINE)
        if match is None:
            text = _inserted(text, before, _block(variable, default, defaults_text))
        else:
            if specs[variable].get("default") != default:
                block = _with_default(match[0], default)
                text = text[: match.start()] + block + text[match.end() :]
        before = variable
    return text


def _inserted(text: str, before: str, block: str) -> str:
    """Return the text with a block after that of the variable ``before``, or as the first."""
    pattern = r"^    options:\n"
    if before:
        pattern = _BLOCK.format(name=before)
    match = re.search(pattern, text, re.MULTILINE)
    if match is None:
        raise Incomplete("The argument specs have no options")
    return text[: match.end()] + block + text[match.end() :]


def _with_default(block: str, default: Any) -> str:
    line = "" if default is None else f"        default: {json.dumps(default)}\n"
    if _DEFAULT.search(block):
        return _DEFAULT.sub(lambda match: line, block, count=1)
    return re.sub(r"^(        type:.*\n)", rf"\g<1>{line}", block, count=1, flags=re.MULTILINE)


def _block(variable: str, default: Any, defaults_text: str) -> str:
    lines = [f"      {variable}:", *_types(variable, default)]
    if default is not None:
        lines.append(f"        default: {json.dumps(default)}")
    lines.append(f"        description: {json.dumps(_comment(variable, defaults_text))}")
    return "\n".join(lines) + "\n"


def _types(variable: str, default: Any) -> list[str]:
    kinds = {bool: "bool", int: "int", float: "float", list: "list", dict: "dict"}
    kind = kinds.get(type(default), "str")
    if kind == "str" and variable.endswith(("_dir", "_file", "_path")):
        kind = "path"
    return [f"        type: {kind}", *(["        elements: str"] if kind == "list" else [])]


def _comment(variable: str, text: str) -> str:
    """Return the comment above a variable as one line. :raises Incomplete: there is none."""
    match = re.search(rf"^((?:# .*\n)+){variable}:", text, re.MULTILINE)
    if match is None:
        raise Incomplete(f"{variable} needs a comment in defaults/main.yml: what it is for")
    return " ".join(line[2:].strip() for line in match[1].splitlines())


def schedule_defaults() -> str:
    """Return the defaults of the schedule role, with the times of the job catalogue.

    :raises Incomplete: a variable of a job is missing.
    """
    path = defaults_path("schedule")
    text = _read(path)
    for job in JOBS:
        for name, value in (("calendar", job.calendar), ("cron", job.cron)):
            line = f"schedule_{job.name}_{name}: {json.dumps(value)}"
            text = re.sub(rf"^schedule_{job.name}_{name}: .*$", line, text, flags=re.MULTILINE)
        for entry in JobOptions.TABLE:
            variable = f"schedule_{job.name}_{entry.name}"
            if entry.name != "name" and not re.search(rf"^{variable}:", text, re.MULTILINE):
                raise Incomplete(f"{path} lacks {variable}")
    return text
