# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the node command says about itself, and what the shells make of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.gpu.options import GpuOptions

BACKENDS = next(option.choices for option in GpuOptions.TABLE if option.name == "backend")


@pytest.fixture
def ask(command, tmp_path):
    """Run mlfleet with an environment of its own; return status, stdout and stderr."""

    def run(*words, check=0, **env):
        done = subprocess.run(
            [str(command), *words],
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "COLUMNS": "100", **env},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == check, done.stdout + done.stderr
        return done

    return run


def test_alone_and_help_teach(ask):
    overview = ask().stdout
    assert overview == ask("help").stdout == ask("--help").stdout
    for words in (["status"], ["cleanup", "--dry-run"], ["help", "backup"]):
        assert f"  mlfleet {' '.join(words)}" in overview
    assert max(map(len, overview.splitlines())) <= 100
    assert ask("help", "backup").stdout == ask("backup", "--help").stdout


def test_a_page_has_examples_first_then_defaults_units_and_the_old_variable(ask):
    page = " ".join(ask("gpu", "--help").stdout.split())
    assert page.index("examples:") < page.index("--config FILE") < page.index("exit status")
    assert "--memory-warning PERCENT" in page
    assert "in percent; 0 never (default 90 %) [MEMORY_THRESHOLD]" in page
    assert all(len(line) <= 100 for line in ask("cleanup", "--help").stdout.splitlines())


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["helth"], "Did you mean health?"),
        (["help", "clenup"], "Did you mean cleanup?"),
        (["gpu", "--memory-warnin", "3"], "Did you mean --memory-warning?"),
        (["help", "gpu.memory_warnin"], "Did you mean memory_warning"),
        (["help", "gpus.x"], "Did you mean gpu?"),
        (
            ["help", "retention"],
            "Did you mean backup.retention_days, cleanup.experiments_retention",
        ),
        (["--json", "gpu"], "--json comes after the command"),
        (["version"], "Did you mean --version?"),
    ],
)
def test_what_is_misspelled_gets_a_suggestion(ask, words, hint):
    done = ask(*words, check=3)
    assert hint in done.stderr and len(done.stderr.splitlines()) <= 2


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        ({"gpus": {}}, "Did you mean gpu?"),
        ({"gpu": {"memory_warnin": 1}}, "Did you mean memory_warning?"),
    ],
)
def test_a_misspelled_key_of_the_configuration_gets_a_suggestion(ask, tmp_path, content, hint):
    (tmp_path / "c.json").write_text(json.dumps(content))
    done = ask("config", "--config", str(tmp_path / "c.json"), check=3)
    assert hint in done.stdout + done.stderr


def test_help_explains_an_option_of_the_configuration(ask):
    text = ask("help", "backup.s3.bucket").stdout
    assert text.startswith("backup.s3.bucket: ") and "variable: S3_BUCKET" in text
    assert "default: 90" in ask("help", "gpu.memory_warning").stdout
    assert "flag: mlfleet backup --s3-bucket\n" in text
    assert "flag:" not in ask("help", "alert.email.password").stdout  # secrets have none
    assert "default: docker\n" in ask("help", "health.services").stdout
    assert "limits: 0 or more" in ask("help", "cleanup.targets.keep_last").stdout


def test_pages_have_the_exit_statuses_of_their_command_and_break_no_path(ask):
    page = ask("help", "verify").stdout
    assert "exit status: 0 all backups verified, 2 a backup is damaged" in page
    assert "maintenance" not in page and "75" not in page
    page = ask("help", "health").stdout
    assert "/var/log/ml-health-check.log" in page and "default 80 %" in page
    assert not [line for line in page.splitlines() if line.endswith(("mlops-", "ml-"))]
    # A number in a text is no unit: 3 incidents in 30 days, 7 backups of different days.
    for command, flag in (("gpu", "--incidents-warning"), ("backup", "--keep-daily")):
        assert f"{flag} NUMBER" in ask("help", command).stdout


def test_the_examples_of_help_work(ask):
    examples = re.findall(r"^  mlfleet (.*)$", ask("help", "help").stdout, re.MULTILINE)
    assert len(examples) > 2
    for example in examples:
        assert ask(*example.split()).stdout


def test_no_line_of_the_configuration_is_longer_than_100_columns(ask, tmp_path):
    targets = [
        {"name": f"n{i}", "path": f"/srv/scratch-{i}/x", "retention_days": 1} for i in range(9)
    ]
    (tmp_path / "c.json").write_text(json.dumps({"cleanup": {"targets": targets}}))
    text = ask("config", "--config", str(tmp_path / "c.json")).stdout
    lines = text.replace(str(tmp_path), "/etc").splitlines()  # a long path stays in one piece
    assert max(map(len, lines)) <= 100
    assert all(f"/srv/scratch-{i}/x" in " ".join(lines) for i in range(9))


def test_the_manual_page_is_valid_and_has_every_command(ask):
    page = ask("help", "--man").stdout
    assert page == ask("help", "--man").stdout and page.count(".SS ") == 15
    if not shutil.which("mandoc"):
        pytest.skip("mandoc is not installed")
    lint = subprocess.run(
        ["mandoc", "-Tlint", "-Wwarning"], input=page, capture_output=True, text=True, check=False
    )
    problems = [line for line in lint.stdout.splitlines() if "missing date" not in line]
    assert problems == []
    text = subprocess.run(
        ["mandoc", "-Tascii"], input=page, capture_output=True, text=True, check=True
    ).stdout
    plain = re.sub(r".\x08", "", text)
    assert "TEMP_THRESHOLD=75 mlfleet gpu" in plain and "--disk-warning" in plain


def test_zsh_completes_commands_flags_and_values(ask, tmp_path):
    if not shutil.which("zsh"):
        pytest.skip("zsh is not installed")
    script = tmp_path / "_mlfleet"
    script.write_text(ask("completion", "zsh").stdout)
    subprocess.run(["zsh", "-n", script], check=True)
    program = (
        '_describe() { print -l -- $commands }; _arguments() { print -l -- "$@" };'
        'words=("${@:2}"); CURRENT=$#words; source $1'
    )

    def offered(*words):
        done = subprocess.run(
            ["zsh", "-fc", program, "zsh", script, *words],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr == ""
        return done.stdout.splitlines()

    assert any(line.startswith("gpu-test:") for line in offered("mlfleet", ""))
    assert f":value:({' '.join(BACKENDS)})" in " ".join(offered("mlfleet", "gpu", "--ba"))
    assert any(line.endswith(":_files") for line in offered("mlfleet", "verify", ""))


def test_fish_completes_commands_flags_and_values(ask, tmp_path):
    if not shutil.which("fish"):
        pytest.skip("fish is not installed")
    script = tmp_path / "mlfleet.fish"
    script.write_text(ask("completion", "fish").stdout)

    def offered(line):
        done = subprocess.run(
            ["fish", "--no-config", "-c", f"source {script}; complete -C '{line}'"],
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        )
        return [entry.partition("\t")[0] for entry in done.stdout.splitlines()]

    assert {"gpu", "gpu-test"} <= set(offered("mlfleet g")) and "health" not in offered("mlfleet g")
    assert offered("mlfleet gpu --backend ") == sorted(BACKENDS)
    assert "--dry-run" in offered("mlfleet backup --dr")
