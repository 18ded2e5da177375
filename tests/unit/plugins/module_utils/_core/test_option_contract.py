# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Released options stay: names, defaults, limits and old variables are those of
option_contract.json.

After a change on purpose write the file again, and look at its difference:

    MLOPS_WRITE_CONTRACT=1 python -m pytest
    tests/unit/plugins/module_utils/_core/test_option_contract.py
"""

from __future__ import annotations

import importlib
import json
import os
import pathlib

from ansible_collections.mlops.fleet.plugins.module_utils._core import config
from ansible_collections.mlops.fleet.plugins.module_utils._core.options import Option

FILE = pathlib.Path(__file__).with_name("option_contract.json")
CORE = config.__name__.rpartition(".")[0]
#: Option sets that are no section of the configuration file.
OTHERS = {
    "backup_bucket": ("backup.bucket.options", "BucketOptions"),
    "backup_info": ("backup.options", "InfoOptions"),
    "restore": ("backup.options", "RestoreOptions"),
}


def _rows(table: tuple[Option, ...], where: str):
    """Yield an option's full name and what was promised about it; what is not set is left out."""
    for entry in table:
        promised = {
            "type": entry.type,
            "default": entry.default,
            "required": entry.required,
            "elements": entry.elements,
            "choices": list(entry.choices or ()),
            "minimum": entry.minimum,
            "maximum": entry.maximum,
            "env": list(entry.env),
            "aliases": list(entry.aliases),
            "secret": entry.secret,
        }
        given = {key: value for key, value in promised.items() if value not in (None, [], ())}
        yield (
            f"{where}.{entry.name}",
            {k: v for k, v in given.items() if v is not False or k == "default"},
        )
        yield from _rows(entry.subtable, f"{where}.{entry.name}")


def _contract():
    sets = {part: config.option_set(part) for part in config.PARTS}
    for name, (module, class_name) in OTHERS.items():
        sets[name] = getattr(importlib.import_module(f"{CORE}.{module}"), class_name)
    return {key: row for name, cls in sets.items() for key, row in _rows(cls.TABLE, name)}


def test_released_options_stay():
    contract = json.loads(json.dumps(_contract()))
    if os.environ.get("MLOPS_WRITE_CONTRACT"):
        lines = (f"{json.dumps(key)}: {json.dumps(contract[key])}" for key in sorted(contract))
        FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    assert contract == json.loads(FILE.read_text(encoding="utf-8"))
