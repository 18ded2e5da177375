# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small source tree, and the three jobs of the backup part as plain functions."""

from __future__ import annotations

import ctypes
import itertools
import os
import pathlib
import signal
import socket
import traceback

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.backup import info
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.make import run as making
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.options import (
    BackupOptions,
    InfoOptions,
    RestoreOptions,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.restore import (
    run as restoring,
)

DAY = 86400


@pytest.fixture
def source(tmp_path) -> pathlib.Path:
    """Weights that can't be compressed, text, an empty file, a sparse one, links, deep directories,
    names of all kinds, a socket.
    """
    root = tmp_path / "models"
    (root / "bert" / "v1").mkdir(parents=True)
    (root / "bert" / "v1" / "model.safetensors").write_bytes(os.urandom(4_300_000))
    (root / "bert" / "v1" / "tokenizer.json").write_text(
        "".join(f'{{"token": {n}}}\n' for n in range(30_000))
    )
    (root / "bert" / "latest").symlink_to("v1")
    (root / "empty").write_bytes(b"")
    (root / "empty directory").mkdir()
    with open(root / "sparse", "wb") as stream:
        stream.truncate(2_000_000)
    deep = root.joinpath(*["d" * 30] * 12)
    deep.mkdir(parents=True)
    (deep / ("n" * 200)).write_text("deep")
    (root / "two\nlines").write_text("newline")
    (root / "Grüße 模型").write_text("unicode")
    with open(os.fsencode(root) + b"/bad\xff\xfe", "wb") as stream:
        stream.write(b"no utf-8")
    (root / "-rf").write_text("dash")
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(0o750)
    os.utime(root / "run.sh", ns=(1, 1_234_567_890_123_456_789))
    with socket.socket(socket.AF_UNIX) as server:
        before = os.getcwd()
        os.chdir(root)
        server.bind("socket")
        os.chdir(before)
    return root


@pytest.fixture
def destination(tmp_path) -> pathlib.Path:
    return tmp_path / "backups"


@pytest.fixture
def back_up(world, source, destination):
    """Run a backup; options as keywords."""

    def run(check=False, **given):
        options = BackupOptions.from_mapping(
            {"source": str(source), "destination": str(destination), "workers": 2, **given}
        )
        return making.run(options, world, check=check)

    return run


@pytest.fixture
def look(destination):
    """List the backups with ``verify`` as depth."""

    def run(verify="none", path=None, **given):
        return info.run(
            InfoOptions.from_mapping({"path": str(path or destination), "verify": verify, **given})
        )

    return run


@pytest.fixture
def restored(tmp_path) -> pathlib.Path:
    return tmp_path / "restored" / "models"


@pytest.fixture
def bring_back(world, destination, restored):
    """Run a restore; options as keywords."""

    def run(check=False, **given):
        options = RestoreOptions.from_mapping(
            {"path": str(destination), "destination": str(restored), **given}
        )
        return restoring.run(options, world, check=check)

    return run


class Dies:
    """Runs a function in a forked child that kills itself (SIGKILL) around one of its steps: what
    makes, changes or synchronises files.

    By steps and not by time, so that every one is met, and on a busy machine too.
    """

    STEPS = (
        "write",
        "fsync",
        "rename",
        "replace",
        "unlink",
        "rmdir",
        "mkdir",
        "symlink",
        "ftruncate",
        "chmod",
        "fchmod",
        "utime",
    )

    def at(self, step, function) -> bool:
        """Run it; return whether it was killed.

        Even moments are before a step, odd ones behind it.
        """
        pid = os.fork()
        if pid:
            return os.WIFSIGNALED(os.waitpid(pid, 0)[1])
        count = 0

        def moment():
            nonlocal count
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1

        def counted(real):
            def call(*arguments, **named):
                moment()
                try:
                    return real(*arguments, **named)
                finally:
                    moment()

            return call

        try:
            for name in self.STEPS:
                setattr(os, name, counted(getattr(os, name)))
            function()
        finally:
            os._exit(0)

    def everywhere(self, function):
        """Kill it at each moment in turn, yield the moment's number, until it gets through."""
        for step in itertools.count():
            if not self.at(step, function):
                return
            yield step


@pytest.fixture
def few(tmp_path) -> pathlib.Path:
    """A source of each kind of entry, one or two of each."""
    root = tmp_path / "few"
    (root / "bert").mkdir(parents=True)
    (root / "bert" / "weights").write_bytes(os.urandom(300_000))
    (root / "bert" / "vocabulary").write_text("one\ntwo\n" * 10_000)
    (root / "latest").symlink_to("bert")
    return root


@pytest.fixture
def dies() -> Dies:
    return Dies()


@pytest.fixture
def mounted(tmp_path):
    """Run a function in a child with a mount namespace of its own; ``mounts`` are (source, target,
    type, options), type None binds.

    Skips where that can't be done; the child's assertion errors fail the test.
    """

    def run(mounts, function):
        libc = ctypes.CDLL(None, use_errno=True)
        told = tmp_path / "told"
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                if libc.unshare(0x00020000) or libc.mount(b"none", b"/", None, 0x44000, None):
                    os._exit(77)
                for origin, target, kind, options in mounts:
                    flags = 0 if kind else 0x1000
                    if libc.mount(
                        bytes(origin),
                        bytes(target),
                        kind.encode() if kind else None,
                        flags,
                        options.encode(),
                    ):
                        os._exit(77)
                function()
                status = 0
            except BaseException:
                told.write_text(traceback.format_exc())
            finally:
                os._exit(status)
        status = os.WEXITSTATUS(os.waitpid(pid, 0)[1])
        if status == 77:
            pytest.skip("no mount namespaces here")
        assert status == 0, told.read_text()

    return run
