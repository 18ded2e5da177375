# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The interlock with backups whose only copy is in a real object store."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.make import run as backups
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.options import BackupOptions
from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import (
    FleetError,
    OptionError,
    Refused,
)
from ansible_collections.mlops.fleet.tests.system.plugins.module_utils._core.backup.test_s3 import (
    bucket,
    client,
    endpoint,
    objects,
    s3,
)

# Fixtures.
__all__ = ("bucket", "endpoint", "s3")


@pytest.fixture
def make(world, tmp_path, root, lab, s3):
    """Return a function that backs units a and b up to S3, and loses the local archives."""
    source = tmp_path / "models"
    for name in "ab":
        lab.unit(source, name, files=("model.bin", "logs/train.log"))
        shutil.copytree(source / name, root / name)

    def make(**more):
        destination = tmp_path / "backups"
        options = {"source": str(source), "destination": str(destination), "s3": s3, **more}
        result = backups.run(BackupOptions.from_mapping(options), world).to_dict()
        shutil.rmtree(destination)
        return result

    return make


@pytest.mark.parametrize("layout", ["single", "per_model"])
def test_only_what_is_in_the_bucket_goes(world, root, lab, s3, make, layout):
    make(**({"layout": layout} if layout != "single" else {}))
    (root / "b/new.bin").write_text("not in it")
    required = {"s3": s3, "check": "covered"}
    planned = lab.clean(world, root, require_backup=required, check=True)
    result = lab.clean(world, root, require_backup=required)
    assert planned["removed"] == result["removed"] and lab.names(result["removed"]) == ["a"]
    assert "b/new.bin is in no verified backup" in lab.reasons(result)["b"]
    assert sorted(os.listdir(root)) == ["b"]


def test_a_fresh_copy_is_a_backup(world, root, lab, clock, s3, make):
    required = {"s3": s3, "max_age_hours": 1}
    with pytest.raises(Refused, match=f"s3://{s3['bucket']}.* holds no verified backup"):
        lab.clean(world, root, require_backup=required)
    make()
    clock.time += 3599
    assert lab.clean(world, root, require_backup=required, check=True)["changed"]
    clock.time += 2
    with pytest.raises(Refused, match="1 h are allowed"):
        lab.clean(world, root, require_backup=required)
    assert sorted(os.listdir(root)) == ["a", "b"]


def test_directory_and_bucket_together(world, root, lab, tmp_path, s3, make):
    make()
    other = tmp_path / "other"
    lab.unit(other, "c")
    shutil.copytree(other / "c", root / "c")
    local = tmp_path / "local"
    options = {"source": str(other), "destination": str(local)}
    backups.run(BackupOptions.from_mapping(options), world)
    required = {"s3": s3, "path": str(local), "check": "covered"}
    assert lab.clean(world, root, require_backup=required)["removed_count"] == 3


def test_a_copy_whose_manifest_is_damaged_covers_nothing(world, root, lab, endpoint, s3, make):
    make()
    for key in objects(s3):
        if key.endswith(".manifest.json"):
            store = client(endpoint)
            body = store.get_object(Bucket=s3["bucket"], Key=key)["Body"].read()
            store.put_object(Bucket=s3["bucket"], Key=key, Body=body[: len(body) // 2])
    with pytest.raises(Refused, match="no verified backup"):
        lab.clean(world, root, require_backup={"s3": s3, "check": "covered"})
    assert sorted(os.listdir(root)) == ["a", "b"]


def test_a_store_that_does_not_answer_removes_nothing(world, root, lab, s3):
    (root / "a").mkdir()
    wrong = {**s3, "endpoint_url": "http://127.0.0.1:9"}
    with pytest.raises(FleetError):
        lab.clean(world, root, require_backup={"s3": wrong, "check": "covered"})
    assert os.listdir(root) == ["a"]


def test_the_report_keeps_no_secret(world, root, lab, tmp_path, s3, make):
    make()
    report = tmp_path / "report.json"
    required = {"s3": s3, "check": "covered"}
    lab.clean(world, root, require_backup=required, report_path=str(report))
    assert json.loads(report.read_text())["removed_count"] == 2
    assert s3["secret_key"] not in report.read_text()


@pytest.mark.parametrize("required", [{}, {"check": "covered"}, {"s3": {"prefix": "x"}}])
def test_a_place_must_be_named(world, root, lab, required):
    with pytest.raises(OptionError, match=r"require_backup\.path|s3\.bucket"):
        lab.clean(world, root, require_backup=required)
