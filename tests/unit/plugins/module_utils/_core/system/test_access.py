# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which path keeps a user from running a program; the nearest to the root is reported."""

from __future__ import annotations

import os

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.system import access


@pytest.fixture
def program(tmp_path, monkeypatch):
    """A script whose interpreter is in another tree, and links; what is above is open."""
    stat = os.stat
    above = {str(path) for path in tmp_path.parents}

    def open_above(path, *args, **kwargs):
        found = stat(path, *args, **kwargs)
        if str(path) not in above:
            return found
        return os.stat_result((found.st_mode | 0o111, *found[1:]))

    monkeypatch.setattr(access.os, "stat", open_above)
    tmp_path.chmod(0o755)
    for directory in ("bin", "venv", "venv/bin", "base"):
        (tmp_path / directory).mkdir()
        (tmp_path / directory).chmod(0o755)
    python = tmp_path / "base/python3"
    python.write_bytes(b"\x7fELF")
    (tmp_path / "venv/bin/python3").symlink_to(python)
    script = tmp_path / "bin/mlfleet"
    script.write_text(f"#!{tmp_path}/venv/bin/python3 -I\n")
    for path in (python, script):
        path.chmod(0o755)
    return script


def test_an_open_program_has_no_obstacle(program):
    assert access.closed_to("nobody", str(program)) == ""


@pytest.mark.parametrize(
    ("path", "mode"),
    [
        ("venv", 0o700),
        ("venv/bin", 0o750),
        ("base", 0o700),
        ("base/python3", 0o644),
        ("bin/mlfleet", 0o744),
        ("bin", 0o600),
    ],
)
def test_the_closed_path_is_named(program, tmp_path, path, mode):
    (tmp_path / path).chmod(mode)
    # What a link points to is reported by the link's path.
    path = {"base/python3": "venv/bin/python3"}.get(path, path)
    expected = f"{tmp_path / path} ("
    assert access.closed_to("nobody", str(program)).startswith(expected)
    assert access.closed_to("nobody", str(program)).endswith(f", mode {mode:04o})")


def test_root_enters_every_directory(program, tmp_path):
    (tmp_path / "venv").chmod(0)
    assert access.closed_to("root", str(program)) == ""
    (tmp_path / "base/python3").chmod(0o644)
    assert access.closed_to("root", str(program)).startswith(f"{tmp_path}/venv/bin/python3 (")


def test_a_missing_interpreter_is_named(program, tmp_path):
    (tmp_path / "venv/bin/python3").unlink()
    assert access.closed_to("nobody", str(program)) == (
        f"{tmp_path}/venv/bin/python3, which does not exist"
    )


def test_an_unknown_user_has_no_answer(program):
    assert access.closed_to("nobody-here", str(program)) == ""
