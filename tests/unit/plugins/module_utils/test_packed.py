# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A packed module compiles each of its files once."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import zipfile

from ansible_collections.mlops.fleet.plugins.module_utils import _packed

PROBE = """
import collections, json, sys, zipimport

compiled = collections.Counter()

def count(source, path, *arguments, **keywords):
    compiled[path.rpartition("/")[2]] += 1
    return compile(source, path, *arguments, **keywords)

zipimport.compile = count
sys.path.insert(0, sys.argv[1])
import package._packed, package.first, package.second
try:
    import package.broken
except SyntaxError as error:
    broken = error.filename
first = package.first
del sys.modules["package.first"]
import package.first
print(json.dumps({
    "compiled": compiled,
    "path": package.second.__file__,
    "origin": package.second.__spec__.origin,
    "fresh": first is not sys.modules["package.first"] and package.first.value == [1],
    "broken": broken,
}))
"""


def _probe(tmp_path):
    archive = tmp_path / "packed.zip"
    with zipfile.ZipFile(archive, "w") as stream:
        stream.writestr("package/__init__.py", "")
        stream.writestr("package/_packed.py", pathlib.Path(_packed.__file__).read_text("utf-8"))
        stream.writestr("package/first.py", "value = [1]\n")
        stream.writestr("package/second.py", "from .first import value\n")
        stream.writestr("package/broken.py", "value = (\n")
    argv = [sys.executable, "-c", PROBE, str(archive)]
    process = subprocess.run(argv, capture_output=True, text=True, check=False)
    return archive, process


def test_each_file_is_compiled_once(tmp_path):
    archive, process = _probe(tmp_path)
    assert process.returncode == 0, process.stderr
    seen = json.loads(process.stdout)
    # The first two come before the importer is changed; first.py is imported twice.
    assert seen["compiled"]["_packed.py"] == 2
    assert (seen["compiled"]["first.py"], seen["compiled"]["second.py"]) == (2, 1)
    assert seen["path"] == seen["origin"] == f"{archive}/package/second.py"
    assert seen["fresh"]
    assert seen["broken"] == f"{archive}/package/broken.py"


def test_another_importer_is_left_alone(monkeypatch):
    monkeypatch.delattr(_packed.zipimport, "_get_module_code")
    _packed.compile_once()
    assert not hasattr(_packed.zipimport, "_get_module_code")


def test_nothing_changes_outside_an_archive():
    assert _packed.zipimport._get_module_code.__module__ == "zipimport"
