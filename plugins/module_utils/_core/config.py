# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Node configuration: one JSON document whose sections are the parts and whose keys are the module options.

Precedence, highest first: flags, environment (the old scripts' variables), the file, defaults.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from .errors import FleetError, OptionError
from .options import OptionSet, from_environment
from .system.files import read_json

#: Where the node command looks unless told otherwise.
PATH = "/etc/mlops-fleet/config.json"

#: Section name -> (module of the core, class of the option set). Imported only when asked for.
PARTS = {
    "health": ("node.options", "NodeOptions"),
    "gpu": ("gpu.options", "GpuOptions"),
    "backup": ("backup.options", "BackupOptions"),
    "cleanup": ("cleanup.options", "CleanupOptions"),
    "alert": ("alert.options", "AlertOptions"),
    "maintenance": ("maintenance.options", "MaintenanceOptions"),
}


def option_set(part: str) -> type[OptionSet]:
    """Return the option set of a part. :raises OptionError: there is no such part."""
    if part not in PARTS:
        raise OptionError(
            f"Unknown configuration section {part!r}.",
            "Known: " + ", ".join(sorted(PARTS)) + ".",
            part,
        )
    module, name = PARTS[part]
    found: type[OptionSet] = getattr(importlib.import_module("." + module, __package__), name)
    return found


def load(path: str = PATH) -> dict[str, dict[str, Any]]:
    """Return the sections of the configuration file, {} when there is none.

    :raises NotUsable: unreadable or not JSON. :raises OptionError: not a mapping of mappings, or an unknown section.
    """
    document = read_json(path)
    if document is None:
        return {}
    if not isinstance(document, Mapping):
        raise OptionError(f"{path} must hold a JSON object with one section per part.", "", path)
    for section, values in document.items():
        if section not in PARTS:
            raise OptionError(
                f"{path}: unknown section {section!r}.",
                "Known: " + ", ".join(sorted(PARTS)) + ".",
                path,
            )
        if not isinstance(values, Mapping):
            raise OptionError(f"{path}: section {section!r} must be an object.", "", path)
    return {section: dict(values) for section, values in document.items()}


def _set(values: dict[str, Any], name: str, value: Any) -> None:
    """Set an option; a mapping adds to the mapping that is there."""
    below = values.get(name)
    values[name] = (
        {**below, **value} if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    )


def merge(
    table: type[OptionSet],
    section: Mapping[str, Any],
    environ: Mapping[str, str],
    flags: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, str]]:
    """Merge file section, environment and flags by precedence.

    :return: the merged mapping (input of C(from_mapping)) and where each option came from
        (C(flag), C(environment VARIABLE), C(file), C(default)).
    """
    values: dict[str, Any] = dict(section)
    origin = dict.fromkeys(values, "file")
    for name, (found, variable) in from_environment(table.TABLE, environ).items():
        _set(values, name, found)
        origin[name] = f"environment {variable}"
    for name, value in flags.items():
        if value is not None:
            _set(values, name, value)
            origin[name] = "flag"
    for option in table.TABLE:
        origin.setdefault(option.name, "default")
    return values, origin


def validate(document: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return what is wrong with a configuration document, one line per problem; empty when it can be used."""
    problems = []
    for section, values in document.items():
        try:
            option_set(section).from_section(values)
        except FleetError as error:
            problems.append(f"{section}: {error}")
    return problems
