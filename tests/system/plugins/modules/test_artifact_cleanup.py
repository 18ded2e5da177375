# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cleanup module as Ansible runs it: check, apply, check, apply again; failures; its
documentation says what its options are.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest
import yaml

from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup.options import (
    CleanupOptions,
)

ROOT = pathlib.Path(__file__).resolve().parents[4]
COLLECTIONS = ROOT / ".build" / "collections"
OLD = 1_000_000_000


def run(options, check=False, diff=False):
    """Run the module's file with its arguments on standard input, as Ansible does; return (exit
    status, result).
    """
    given = {
        "ANSIBLE_MODULE_ARGS": {**options, "_ansible_check_mode": check, "_ansible_diff": diff}
    }
    done = subprocess.run(
        [sys.executable, "-m", "ansible_collections.mlops.fleet.plugins.modules.artifact_cleanup"],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(COLLECTIONS), *filter(None, sys.path)]),
        },
        check=False,
    )
    assert done.stdout.strip().startswith("{"), done.stdout + done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.fixture
def runs(tmp_path):
    root = tmp_path / "runs"
    for name in ("old-1", "old-2", "new"):
        (root / name).mkdir(parents=True)
        (root / name / "model.bin").write_bytes(b"x" * 5000)
        if name != "new":
            for path in (root / name / "model.bin", root / name):
                os.utime(path, (OLD, OLD))
    return root


def _options(root, **more):
    return {
        "targets": [{"name": "runs", "path": str(root), "retention_days": 30, "age_by": "mtime"}],
        **more,
    }


def test_check_apply_check_apply(runs):
    for check, changed, left in (
        (True, True, 3),
        (False, True, 1),
        (True, False, 1),
        (False, False, 1),
    ):
        status, result = run(_options(runs), check=check, diff=True)
        assert (status, result["changed"], len(os.listdir(runs))) == (0, changed, left)
        assert result["diff"]["before"].splitlines() == (
            [str(runs / "old-1"), str(runs / "old-2")] if changed else []
        )
        assert result["removed_count"] == (2 if changed else 0) and result["kept_count"] == 1
        assert (result["freed_bytes"] > 10_000) is changed
        assert not {"rc", "items", "keys", "values", "failed"} & set(result)


def test_the_brake_fails_with_the_plan_and_nothing_goes(runs):
    status, result = run(_options(runs, brake={"max_units": 1}))
    assert (
        status == 1
        and result["failed"]
        and not result["changed"]
        and result["plan_count"] == 2
        and result["removed"] == []
    )
    assert "the brake allows 1" in result["msg"] and len(os.listdir(runs)) == 3


def test_what_was_done_is_reported_when_something_failed(runs, tmp_path):
    (tmp_path / "file").write_text("x")
    options = _options(runs)
    options["targets"].append({"name": "bad", "path": str(tmp_path / "file"), "retention_days": 0})
    status, result = run(options)
    assert status == 1 and result["failed"] and result["changed"] and result["removed_count"] == 2
    assert "Not a directory" in result["msg"] and [
        target["status"] for target in result["targets"]
    ] == [
        "ok",
        "failed",
    ]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"targets": [{"path": "/", "retention_days": 1}]}, "system or home directory"),
        ({"targets": [{"path": "/data/x", "retention_days": "soon"}]}, "converted to a float"),
        ({"only": ["typo"]}, "typo"),
    ],
)
def test_bad_options_are_one_clear_message(options, words):
    status, result = run(options)
    assert (
        status == 1
        and result["failed"]
        and words in result["msg"]
        and "Traceback" not in json.dumps(result)
    )


def _documented(options):
    fields = ("type", "required", "default", "elements", "choices", "aliases")
    found = {}
    for name, entry in options.items():
        found[name] = {
            field: entry[field] for field in fields if entry.get(field) not in (None, False, [])
        }
        if "suboptions" in entry:
            found[name]["suboptions"] = _documented(entry["suboptions"])
    return found


def _declared(table):
    found = {}
    for option in table:
        entry = {
            "type": option.type,
            "required": option.required,
            "default": option.default,
            "elements": option.elements,
        }
        entry.update(choices=list(option.choices or ()), aliases=list(option.aliases))
        found[option.name] = {
            field: value for field, value in entry.items() if value not in (None, False, [])
        }
        if option.suboptions:
            found[option.name]["suboptions"] = _declared(option.subtable)
    return found


def test_the_documentation_says_what_the_option_table_says():
    from ansible_collections.mlops.fleet.plugins.modules import artifact_cleanup

    assert _documented(yaml.safe_load(artifact_cleanup.DOCUMENTATION)["options"]) == _declared(
        CleanupOptions.TABLE
    )


def test_every_key_of_the_result_is_documented(runs):
    from ansible_collections.mlops.fleet.plugins.modules import artifact_cleanup

    documented = yaml.safe_load(artifact_cleanup.RETURN)
    _status, result = run(_options(runs))
    assert set(result) - set(documented) == {"changed", "duration", "invocation"} & set(result)
    for name in ("plan", "removed", "kept", "targets", "filesystems"):
        assert set(result[name][0]) == set(documented[name]["contains"]), name


def test_the_page_names_the_usual_places_and_our_own_logs():
    from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup import guards
    from ansible_collections.mlops.fleet.tests import docs_pages

    page = docs_pages.text("cleanup")
    retention = CleanupOptions.from_mapping({"aggressive": True})
    for target in retention.directories:
        number = target.retention / 86400
        days = f"{number:g} day{'s' * (number != 1)}" if target.retention else "always"
        path = f"``{target.path}/{target.pattern}``".replace(os.path.expanduser("~/"), "~/")
        assert any(
            f"``{target.name}``" in row[0] and path in row[1] and row[-1].startswith(days)
            for row in docs_pages.rows("cleanup")
        ), target.name
    assert all(
        guards.OWN_LOGS.fullmatch(f"ml-{name}.log") and f"``ml-{name}.log``" in page
        for name in ("backup", "cleanup", "health-check", "maintenance")
    )


def test_the_short_form_of_require_backup_reaches_the_core(runs, tmp_path):
    status, result = run(_options(runs, require_backup="covered"), check=True)
    backups = "/backup/models"
    if not os.path.isdir(backups):
        assert status == 1 and f"{backups} holds no verified backup" in result["msg"]
    assert "dictionary" not in result.get("msg", "")
