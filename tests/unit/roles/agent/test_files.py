# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role runs on the node: which packages are missing, and what its directories were
before.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest

FILES = pathlib.Path(__file__).resolve().parents[4] / "roles" / "agent" / "files"


@pytest.fixture
def missing(tmp_path):
    """Ask with a package database that has zstd installed and git removed, and a Python that
    imports psutil only.
    """
    (tmp_path / "bin").mkdir()
    database = tmp_path / "bin" / "dpkg-query"
    database.write_text(
        "#!/bin/sh\ncase $3 in zstd) printf installed ;; git) printf not-installed ;; *) exit 1 ;;"
        " esac\n"
    )
    database.chmod(0o755)
    for module, text in (("psutil", ""), ("boto3", "raise AttributeError\n")):
        (tmp_path / f"{module}.py").write_text(text)
    (tmp_path / "pynvml.py").write_text("import missing_for_sure\n")

    def ask(*packages, options=()):
        result = subprocess.run(
            [sys.executable, *options, FILES / "missing_packages.py", *packages],
            env={"PATH": f"{tmp_path}/bin:/usr/bin:/bin", "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        )
        return json.loads(result.stdout)

    return ask


def test_what_python_imports_or_the_database_has_is_not_missing(missing):
    packages = ["python3-psutil", "python3.12-psutil", "psutil", "zstd", "git", "nowhere"]
    assert missing(*packages) == ["git", "nowhere"]


def test_a_library_that_does_not_work_is_missing(missing):
    packages = ["python3-boto3", "python3-pynvml", "nvidia-ml-py"]
    assert missing(*packages) == packages


def test_a_directory_that_a_removed_package_left_is_no_library(missing, tmp_path):
    (tmp_path / "psutil.py").unlink()
    (tmp_path / "psutil" / "__pycache__").mkdir(parents=True)
    assert missing("python3-psutil", options=["-S"]) == ["python3-psutil"]


@pytest.fixture
def new(tmp_path):
    def look(*others):
        paths = [tmp_path / name for name in ("opt/fleet", "etc/fleet", "var/fleet", *others)]
        result = subprocess.run(
            ["sh", FILES / "what_is_new.sh", tmp_path / "opt/fleet/.accounts", *paths],
            capture_output=True,
            text=True,
            check=True,
        )
        assert result.stderr == ""
        return result.stdout.replace(str(tmp_path), "").splitlines()

    return look


def test_missing_directories_are_listed_with_their_missing_parents(new, tmp_path):
    for directory in ("opt", "etc", "var", "backup"):
        (tmp_path / directory).mkdir()
    assert new("backup/team/models") == [
        "directory /opt/fleet",
        "directory /etc/fleet",
        "directory /var/fleet",
        "directory /backup/team/models",
        "directory /backup/team",
    ]


def test_a_directory_that_existed_before_is_recorded_once(new, tmp_path):
    for directory in ("opt/fleet", "etc/fleet", "var/fleet"):
        (tmp_path / directory).mkdir(parents=True)
    (tmp_path / "etc/fleet").chmod(0o755)
    record = tmp_path / "opt/fleet/.accounts"
    record.write_text(f"directory {tmp_path}/var/fleet\n")
    owner = f"{(tmp_path / 'etc').owner()} {(tmp_path / 'etc').group()}"
    assert new() == [f"was /etc/fleet 755 {owner}"]
    record.write_text(f"{record.read_text()}was {tmp_path}/etc/fleet 755 {owner}\n")
    (tmp_path / "etc/fleet").chmod(0o750)
    assert new() == []


def test_directories_of_an_installation_without_a_record_are_the_roles(new, tmp_path):
    os.makedirs(tmp_path / "opt/fleet/versions")
    for directory in ("etc/fleet", "var/fleet"):
        (tmp_path / directory).mkdir(parents=True)
    (tmp_path / "opt/fleet/.accounts").write_text("user mlops-fleet\n")
    assert new() == ["directory /opt/fleet", "directory /etc/fleet", "directory /var/fleet"]
