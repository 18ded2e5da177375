# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose configuration rotates the same files: the script the role runs on the node, run as it
is.
"""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

SCRIPT = (
    pathlib.Path(__file__).resolve().parents[4]
    / "roles"
    / "log_rotation"
    / "files"
    / "find_conflicts.py"
)
OURS = '"/var/log/ml-backup.log" "/var/log/ml-api/*.log"\n{\n  daily\n}\n'


@pytest.fixture
def conflicts(tmp_path):
    """Run the script with one other configuration and return its lines, that configuration's path
    written OTHER.
    """

    def run(theirs, name="other"):
        (tmp_path / "ours").write_text(OURS)
        directory = tmp_path / "logrotate.d"
        directory.mkdir(exist_ok=True)
        (directory / name).write_text(theirs)
        (tmp_path / "logrotate.conf").write_text(f"weekly\ninclude {directory}\n")
        done = subprocess.run(
            [
                sys.executable,
                str(SCRIPT),
                str(tmp_path / "ours"),
                str(tmp_path / "logrotate.conf"),
                str(directory),
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.replace(str(directory / name), "OTHER").splitlines()

    return run


@pytest.mark.parametrize(
    ("theirs", "line", "pattern"),
    [
        ("/var/log/ml-backup.log {\n weekly\n}\n", 1, "/var/log/ml-backup.log"),
        ("# mine\n/var/log/ml-*.log\n{\n weekly\n}\n", 2, "/var/log/ml-*.log"),
        ("/var/log/a.log /var/log/ml-backup.log { weekly }\n", 1, "/var/log/ml-backup.log"),
        ("/var/log/a.log\n/var/log/*.log {\n}\n", 2, "/var/log/*.log"),
        ('"/var/log/ml-backup.log" {\n}\n', 1, "/var/log/ml-backup.log"),
        (
            (
                "/var/log/a {\n postrotate\n  if true; then { echo; }; fi\n"
                " endscript\n}\n/var/log/ml-backup.log {\n}\n"
            ),
            6,
            "/var/log/ml-backup.log",
        ),
    ],
)
def test_a_competitor_is_named_with_its_line_once(conflicts, theirs, line, pattern):
    assert conflicts(theirs) == [f"OTHER:{line} rotates {pattern} (/var/log/ml-backup.log of ours)"]


def test_entries_of_ours_may_not_meet_either(tmp_path):
    """logrotate says so only once the log is there."""
    (tmp_path / "ours").write_text(
        OURS + "/var/log/ml-*.log\n{\n  weekly\n}\n/var/log/ml-api/error.log\n{\n}\n"
    )
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path / "ours")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.replace(str(tmp_path), "").splitlines() == [
        "/ours:5 rotates /var/log/ml-*.log (/var/log/ml-backup.log of ours, too)",
        "/ours:9 rotates /var/log/ml-api/error.log (/var/log/ml-api/*.log of ours, too)",
    ]


def test_patterns_of_the_same_directory_meet(conflicts):
    assert conflicts("/var/log/ml-api/access.log {\n}\n") == [
        "OTHER:1 rotates /var/log/ml-api/access.log (/var/log/ml-api/*.log of ours)"
    ]
    assert conflicts("/var/log/*/access.log {\n}\n") == [
        "OTHER:1 rotates /var/log/*/access.log (/var/log/ml-api/*.log of ours)"
    ]


@pytest.mark.parametrize(
    "theirs",
    [
        "/var/log/syslog {\n}\n",
        "/var/log/sub/ml-backup.log {\n}\n",
        "#/var/log/ml-backup.log {\n#}\n",
        "/var/log/a {\n postrotate\n  /usr/bin/tool\n  /var/log/ml-backup.log\n endscript\n}\n",
        "/var/log/*.txt {\n}\n",
    ],
)
def test_others_are_left_in_peace(conflicts, theirs):
    assert conflicts(theirs) == []


@pytest.mark.parametrize("name", ["old.bak", "x.dpkg-old", "y~", "z.swp"])
def test_files_that_logrotate_ignores_do_not_count(conflicts, name):
    assert conflicts("/var/log/ml-backup.log {\n}\n", name) == []
