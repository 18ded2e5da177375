# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""With require_backup: covered, a unit goes only when each of its files is in a verified backup."""

from __future__ import annotations

import os
import pathlib
import shutil
import textwrap

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.make import run as backups
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.options import BackupOptions
from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup import run
from ansible_collections.mlops.fleet.plugins.module_utils._core.cleanup.options import (
    CleanupOptions,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import OptionError, Refused


@pytest.fixture
def backup(world, tmp_path, root, lab):
    """A backup of units a, b and c, and those units in the root."""
    source = tmp_path / "models"
    for name in "abc":
        lab.unit(source, name, files=("model.bin", "logs/train.log"))
    destination = tmp_path / "backups"
    options = {"source": str(source), "destination": str(destination)}
    assert backups.run(BackupOptions.from_mapping(options), world).to_dict()["changed"]
    for name in "abc":
        shutil.copytree(source / name, root / name)
    return {"path": str(destination), "check": "covered"}


def test_only_units_whose_every_file_is_in_a_backup_go(world, clock, root, lab, backup):
    (root / "b/new.bin").write_text("not in it")
    data = (root / "c/model.bin").read_bytes()
    (root / "c/model.bin").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))  # as large as before
    (root / "a/link").symlink_to("model.bin")
    (root / "a/empty").write_text("")
    clock.time += 400 * 86400  # as old as it may be: what it holds is compared
    planned = lab.clean(world, root, require_backup=backup, check=True)
    result = lab.clean(world, root, require_backup=backup)
    assert planned["removed"] == result["removed"] and planned["kept"] == result["kept"]
    assert lab.names(result["removed"]) == ["a"] and sorted(os.listdir(root)) == ["b", "c"]
    assert "b/new.bin is in no verified backup" in lab.reasons(result)["b"]
    assert "c/model.bin is in no verified backup" in lab.reasons(result)["c"]


def test_a_damaged_backup_covers_nothing(world, root, lab, backup):
    for path in os.listdir(backup["path"]):
        if path.endswith((".tar.gz", ".tar.zst", ".tgz")) or path.count(".") == 1:
            with open(os.path.join(backup["path"], path), "ab") as stream:
                stream.write(b"damage")
    with pytest.raises(Refused, match="no verified backup"):
        lab.clean(world, root, require_backup=backup)
    assert len(os.listdir(root)) == 3


def test_what_is_written_after_the_comparison_stays(world, root, lab, backup, monkeypatch):
    real = os.rename

    def rename(source, *arguments, **options):
        if source == "a" and (root / "a").exists():
            with open(root / "a/model.bin", "ab") as stream:
                stream.write(b"more")
        return real(source, *arguments, **options)

    monkeypatch.setattr(os, "rename", rename)
    result = lab.clean(world, root, retention_days=0, require_backup=backup, in_use="ignore")
    assert lab.names(result["removed"]) == ["b", "c"] and os.listdir(root) == ["a"]
    assert "changed after it was compared" in lab.reasons(result)["a"]


def test_uncovered_units_are_passed_over_on_the_way_to_a_level(world, root, lab, backup):
    (root / "a/new.bin").write_text("not in it")
    target = {"path": str(root), "retention_days": 1, "free_to": "99.99%"}
    options = {"targets": [target], "require_backup": backup, "in_use": "ignore"}
    result = run.run(CleanupOptions.from_mapping(options), world).to_dict()
    assert lab.names(result["removed"]) == ["b", "c"]
    assert "is in no verified backup" in lab.reasons(result)["a"]


def test_the_short_form_looks_where_backups_are_made_by_default():
    options = CleanupOptions.from_mapping({"require_backup": "covered"})
    assert options.require_backup.check == "covered"
    assert options.require_backup.path == BackupOptions.default("destination")
    with pytest.raises(OptionError, match=r"require_backup\.path is required"):
        CleanupOptions.from_mapping({"require_backup": {"max_age_hours": 3}})


def test_the_example_of_the_guide_does_what_its_question_asks(world, clock, tmp_path, root, lab):
    page = (pathlib.Path(__file__).parents[6] / "docs/docsite/rst/cleanup.rst").read_text()
    block = page.split(".. code-block:: yaml\n")[1].split("\n\n  - name")[-1].split("\n\nTry it")[0]
    example = textwrap.dedent("  - name" + block.removeprefix("\n  - name"))
    assert len(example.strip().splitlines()) <= 15
    (task,) = pytest.importorskip("yaml").safe_load(example)
    options = task["mlops.fleet.artifact_cleanup"]
    options["targets"][0]["path"] = str(root)
    options["require_backup"]["path"] = str(tmp_path / "backups")
    options["free_to"] = "99.99%"  # this file system is not that empty
    losses = {100: 0.1, 200: 0.2, 300: 0.3, 400: 0.9, 500: 0.8, 600: 0.7, 700: 0.6}
    for name in ("a", "b"):
        for step, loss in losses.items():
            path = lab.checkpoint(root / name, "lightning", step, loss=loss)
            path.write_bytes(path.read_bytes().replace(b"x", f"{name}{step}".encode()))
    shutil.copytree(root, tmp_path / "models")
    (root / "b/checkpoints/epoch=4-step=400-val_loss=0.9.ckpt").write_bytes(b"not in the backup")
    made = {"source": str(tmp_path / "models"), "destination": str(tmp_path / "backups")}
    backups.run(BackupOptions.from_mapping(made), world)
    result = run.run(CleanupOptions.from_mapping(options), world).to_dict()
    removed = sorted(os.path.relpath(unit["path"], root)[:26] for unit in result["removed"])
    assert removed == [
        "a/checkpoints/epoch=4-step",
        "a/checkpoints/epoch=5-step",
        "b/checkpoints/epoch=5-step",
    ]
    assert result["quarantined_count"] == 3 and result["quarantined_bytes"] > 0
    undo = {**options, "state": "restored"}
    assert run.run(CleanupOptions.from_mapping(undo), world).to_dict()["restored_count"] == 3
