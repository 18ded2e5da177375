# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one reader of the file with the old scripts' variables.

UNITS is what systemd 252 and 257 gave a unit.
"""

from __future__ import annotations

import os

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core import config, environment

CONF = "/etc/ml-automation.conf"
UNITS = [
    ("A=1\n", {"A": "1"}),
    ("  A = 1 \n", {"A": "1"}),
    ("A=\n", {"A": ""}),
    ("# A=1\n;B=2\nC=3", {"C": "3"}),
    ("A=7 # a week\n", {"A": "7 # a week"}),
    ('A="cron\n ssh"\n', {"A": "cron\n ssh"}),
    ('A="/backup/models"/\n', {"A": "/backup/models/"}),
    ("A='it''s' \"$HOME\"x\n", {"A": "its$HOMEx"}),
    ('A=x "y"\n', {"A": 'x "y"'}),
    (r'A="\$HOME \"q\" \x"' + "\n", {"A": r'$HOME "q" \x'}),
    ("A=a\\\nb\n", {"A": "ab"}),
    ('A="a\\\nb"\n', {"A": "ab"}),
    ("A=a\\ \\b\n", {"A": "a b"}),
    ("A=a  \\\n\n", {"A": "a  "}),
    ("A=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
    ("A=1\nA=2\n", {"A": "2"}),
    ("A='x\nB=2\n", {"A": "x\nB=2\n"}),
    ("B=\\\n`\\\n'A'\n", {"B": "`'A'"}),
    ('A=`x/y\t\t"\\\nvalue;\n', {"A": '`x/y\t\t"value;'}),
    ("2X=1\nno sign\nA=é=\n", {"A": "é="}),
]


@pytest.mark.parametrize(("text", "expected"), UNITS)
def test_the_reader_reads_what_systemd_reads(text, expected):
    read = environment.parse(text.encode())
    assert read.units == expected
    assert {name: a.value for name, a in read.variables.items()} == expected


def test_export_is_understood_although_systemd_ignores_it():
    read = environment.parse(b"export A='x y'\nB=1\nexport B=2\nexport B\n")
    assert read.units == {"B": "1"} and read.problems == ()
    assert {n: (a.value, a.line) for n, a in read.variables.items()} == {
        "A": ("x y", 1),
        "B": ("2", 3),
    }


@pytest.mark.parametrize(
    ("content", "line", "text", "ignored"),
    [
        (b"A=1\n\nset -a\n", 3, "not understood", True),
        (b'A="1\n2"\nB\n', 3, "not understood", True),
        (b"2X=secret\n", 1, "no valid name", True),
        (b"export A B-C=secret\n", 1, "no valid name", True),
        (b"A=1\nB=\xff\n", 2, "not UTF-8", True),
        (b"A=1\nB=2\0\n", 2, "NUL", True),
        (b"A=7 # secret\n", 1, "A: '#'", False),
        (b"A=$HOME/secret\n", 1, "A: '$'", False),
        (b'A="x${B}secret"\n', 1, "A: '$'", False),
        (b"B=1\nA='secret\n", 2, "A: the quote ' is not closed", False),
        (b"# x \\\nA=secret\n", 1, "systemd before 254", False),
    ],
)
def test_a_line_that_is_not_what_it_seems_is_named_by_its_number(content, line, text, ignored):
    (problem,) = environment.parse(content).problems
    assert (problem.line, problem.ignored) == (line, ignored)
    assert text in problem.text and "secret" not in problem.text


@pytest.mark.parametrize(
    "text", ["A='$HOME'\n", 'A="\\$HOME"\n', "A=\\$HOME\n", "A=a#b\n", "A=5$\n", "# x\\\n\n#y\n"]
)
def test_nothing_is_wrong_where_bash_reads_the_same(text):
    assert environment.parse(text.encode()).problems == ()


def test_nothing_of_a_file_that_systemd_refuses_is_in_force():
    assert environment.parse(b"A=1\nB=\xff\n").variables == {}


def test_the_environment_wins_but_in_a_unit_what_systemd_read_is_the_file():
    read = environment.parse(b"A=file\nexport B=file\nC=1\nexport C=2\n")
    merged, lines = read.complete({"A": "mine", "C": "1"})
    assert merged == {"A": "mine", "B": "file", "C": "1"} and lines == {"B": 2}
    merged, lines = read.complete({"INVOCATION_ID": "x", "A": "file", "C": "1"})
    assert merged == {"INVOCATION_ID": "x", "A": "file", "B": "file", "C": "2"}
    assert lines == {"A": 1, "B": 2, "C": 4}


def test_what_is_not_a_readable_file_is_not_absent(tmp_path):
    missing = environment.read(str(tmp_path / "missing"))
    assert not missing.exists and not missing.unreadable
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "."):
        assert environment.read(str(tmp_path / name)).unreadable == "it is not a file"
    (tmp_path / "large").write_bytes(b"#" * (1 << 20) + b"\n")
    assert "larger than" in environment.read(str(tmp_path / "large")).unreadable
    assert environment.read("") == environment.Environment()


def test_the_configuration_shows_the_file_as_origin_and_its_line_in_a_mistake(tmp_path):
    conf = tmp_path / "ml-automation.conf"
    conf.write_text("export BACKUP_DIR=/backup/other\nRETENTION_DAYS=7 # a week\n")
    path = str(conf)
    node = config.Configuration(str(tmp_path / "none.json"), {}, environment.read(path))
    merged = node.merged("backup", {})
    assert merged.values["destination"] == "/backup/other" and merged.origin["destination"] == path
    (problem,) = node.effective()[1]
    assert f"It comes from {path}, line 2 (RETENTION_DAYS)." in problem
    given = {"BACKUP_DIR": "/mine"}
    node = config.Configuration(str(tmp_path / "none.json"), given, environment.read(path))
    assert node.merged("backup", {}).origin["destination"] == "environment BACKUP_DIR"
