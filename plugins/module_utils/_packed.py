# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Let Python compile each file of a packed module once instead of twice.

Ansible runs a module from an archive that holds source code only. To learn the path of a module in
it, the standard library's importer compiles the file and throws the result away (find_spec() calls
zipimporter.get_filename(); CPython 3.8 to 3.13). To run it, it compiles the file again. For these
modules that is a tenth of the CPU of the whole task. Importing this file makes the importer keep
the first result for the second call. It does so only in a packed module.
"""

from __future__ import annotations

import typing as t
import zipimport

_Key = tuple[str, str, str]


def _keep_first(compile_module: t.Callable[..., t.Any]) -> t.Callable[..., t.Any]:
    """Return a function that answers a second call for a module with the result of the first."""
    waiting: dict[_Key, t.Any] = {}

    def module_code(importer: t.Any, name: str) -> t.Any:
        key = (importer.archive, importer.prefix, name)
        if key in waiting:
            return waiting.pop(key)
        waiting[key] = compile_module(importer, name)
        return waiting[key]

    return module_code


def compile_once() -> None:
    """Change the importer of archives, unless this Python has another one."""
    compile_module = getattr(zipimport, "_get_module_code", None)
    if callable(compile_module):
        setattr(zipimport, "_get_module_code", _keep_first(compile_module))  # noqa: B010  # private, so type checkers do not know it


if isinstance(globals().get("__loader__"), zipimport.zipimporter):
    compile_once()
