# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of mlops.fleet.agent_install: makes the bundle that the module installs."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import os
import tarfile
import typing as t

from ansible.plugins.action import ActionBase

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CORE = os.path.join(ROOT, "plugins", "module_utils", "_core")
COMMAND = os.path.join(ROOT, "roles", "agent", "files", "mlfleet")


def files() -> dict[str, bytes]:
    """Return the package's files by their name in the package: the core's and the command's Python
    files, no caches.
    """
    paths = {"__init__.py": os.path.join(CORE, "__init__.py")}
    for package, source in (("_core", CORE), ("mlfleet", COMMAND)):
        for directory, subdirectories, names in os.walk(source):
            subdirectories[:] = sorted(name for name in subdirectories if name != "__pycache__")
            for name in names:
                if name.endswith(".py"):
                    path = os.path.join(directory, name)
                    paths[os.path.join(package, os.path.relpath(path, source))] = path
    content = {}
    for name, path in sorted(paths.items()):
        with open(path, "rb") as stream:
            content[name] = stream.read()
    return content


def release() -> str:
    """Return this collection's version, from the manifest of an installed one or the galaxy.yml of
    a checkout.
    """
    manifest = os.path.join(ROOT, "MANIFEST.json")
    if os.path.exists(manifest):
        with open(manifest, encoding="utf-8") as stream:
            return str(json.load(stream)["collection_info"]["version"])
    with open(os.path.join(ROOT, "galaxy.yml"), encoding="utf-8") as stream:
        return next(line.split(":", 1)[1].strip() for line in stream if line.startswith("version:"))


def version_of(content: dict[str, bytes]) -> str:
    """Return the version's name: this collection's release and the first twelve digits of the
    digest of the package's files.
    """
    digest = hashlib.sha256()
    for name, data in content.items():
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
    return f"{release()}-{digest.hexdigest()[:12]}"


def bundle() -> tuple[str, bytes]:
    """Return the version's name and the bundle; the same files always give the same bytes."""
    content = files()
    version = version_of(content)
    content["VERSION"] = f"{version}\n".encode("ascii")
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for name, data in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return version, gzip.compress(raw.getvalue(), mtime=0)


class ActionModule(ActionBase):
    """Adds bundle and version to the module's arguments."""

    TRANSFERS_FILES = False

    def run(
        self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None
    ) -> dict[str, t.Any]:
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        if arguments.get("state", "present") == "present":
            version, data = bundle()
            arguments.update(version=version, bundle=base64.b64encode(data).decode("ascii"))
        result: dict[str, t.Any] = self._execute_module(module_args=arguments, task_vars=task_vars)
        return result
