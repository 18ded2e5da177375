# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copies of sets in a real object store: complete, not sent twice, removed by reference."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core import errors
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup import names
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.s3 import store
from ansible_collections.mlops.fleet.tests.system.plugins.module_utils._core.backup.test_s3 import (
    bucket,
    client,
    endpoint,
    fetch,
    objects,
    s3,
)

# Fixtures.
__all__ = ("bucket", "endpoint", "s3")

DAY = 86400


@pytest.fixture
def two(few):
    """Two models and a link."""
    (few / "llama").mkdir()
    (few / "llama" / "weights").write_bytes(os.urandom(50_000))
    return few


@pytest.fixture
def per_model(back_up, two, s3):
    return lambda **given: back_up(source=str(two), **{"layout": "per_model", "s3": s3, **given})


def stored(s3):
    return {key.rpartition("/")[2] for key in objects(s3)}


def test_a_set_is_complete_in_the_bucket(
    per_model, look, bring_back, s3, two, destination, restored, clock
):
    preview = per_model(check=True).to_dict()
    assert preview["copies"][0]["url"].endswith(".set.json") and not objects(s3)
    result = per_model().to_dict()
    backup, (copy,) = result["backup"], result["copies"]
    assert copy["verified"] == "checksum" and copy["uploaded"]
    assert (copy["size"], copy["sha256"]) == (backup["size"], backup["sha256"])
    local = {name for name in os.listdir(destination) if not name.startswith(".")}
    assert stored(s3) == local
    for name in local:
        assert fetch(s3, f"node1/{name}") == (destination / name).read_bytes()
    assert not per_model().changed
    clock.time += DAY
    (two / "llama" / "weights").write_bytes(b"new")
    before = objects(s3)
    again = per_model().to_dict()
    sent = set(objects(s3)) - set(before)
    members = {key for key in sent if names.is_member(key.rpartition("/")[2])}
    assert len(members) == 1 and "llama" in members.pop()
    shutil.rmtree(destination)
    for depth in ("none", "quick", "full"):
        found = look(verify=depth, s3=s3)
        assert [item["name"] for item in found["backups"]] == [
            again["backup"]["name"],
            backup["name"],
        ]
        assert found["verified"], depth
    assert bring_back(s3=s3, model="llama").files == 1
    assert (restored / "llama" / "weights").read_bytes() == b"new"
    assert bring_back(s3=s3, destination=str(restored) + "2").files == 3
    subprocess.run(["diff", "-r", "--no-dereference", two, str(restored) + "2"], check=True)


def test_a_lost_object_is_sent_again_and_is_a_problem_until_then(per_model, look, bring_back, s3):
    backup = per_model().backup
    lost = f"node1/{backup['archives'][0]['name']}"
    client(s3["endpoint_url"]).delete_object(Bucket=s3["bucket"], Key=lost)
    (listed,) = look(s3=s3)["backups"]
    assert "is gone" in listed["problems"][0] and not listed["verified"]
    with pytest.raises(errors.FleetError):
        bring_back(s3=s3)
    result = per_model().to_dict()
    assert result["copies"][0]["uploaded"] and result["stats"]["bytes_written"] == 0
    assert look(verify="full", s3=s3)["verified"]


def test_an_interrupted_upload_is_no_set(per_model, look, s3, monkeypatch):
    real, calls = store.S3Store.upload, []

    def upload(self, backup, *rest):
        calls.append(backup.name)
        if len(calls) == 2:
            raise errors.StoreError("cut off", "", "")
        return real(self, backup, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(store.S3Store, "upload", upload)
        with pytest.raises(errors.StoreError, match=r"The local backup .* is complete"):
            per_model()
    assert look(s3=s3)["backups"] == []
    assert per_model().copies[0]["uploaded"]
    assert look(verify="full", s3=s3)["verified"]


def test_removal_counts_references(per_model, s3, two, look, clock):
    for day in range(3):
        clock.time += DAY
        (two / "llama" / "weights").write_text(str(day))
        result = per_model(s3={**s3, "prune": True}, retention_days=0, keep_last=1)
    assert [item["name"] for item in look(s3=s3)["backups"]] == [result.backup["name"]]
    named = {item["name"] for item in result.backup["archives"]}
    assert {name for name in stored(s3) if names.is_member(name)} == named
    assert look(verify="full", s3=s3)["verified"]
