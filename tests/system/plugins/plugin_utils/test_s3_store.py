# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs kept in a bucket of a real object store."""

from __future__ import annotations

import json
import threading

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import (
    NotUsable,
    OptionError,
    StoreError,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.fleet import history, merge
from ansible_collections.mlops.fleet.plugins.plugin_utils import run_stores
from ansible_collections.mlops.fleet.tests import synthetic_fleet
from ansible_collections.mlops.fleet.tests.system.plugins.module_utils._core.backup.test_s3 import (
    KEYS,
    bucket,
    client,
    endpoint,
)

# Fixtures.
__all__ = ("bucket", "endpoint")

NOW = 1_800_000_000


@pytest.fixture
def store(endpoint, bucket):
    def opened(prefix="/runs/", **keys):
        options = {"endpoint_url": endpoint, **KEYS, "region": "", **keys}
        return run_stores.open_store(f"s3://{bucket}{prefix}", options)

    return opened


def texts(number, hosts=None):
    run = {**synthetic_fleet.run(2, results=hosts), "number": number}
    return {"json": json.dumps(run), "html": f"<p>{number}", "md": f"text {number}"}


def numbers(store):
    names = [f"{stem}.json" for stem in history.stems_of(store.names())]
    return sorted(store.load(name)["number"] for name in names)


def test_runs_are_kept_read_and_removed(store, endpoint, bucket):
    assert numbers(store()) == []
    for number in range(4):
        made = store().add(texts(number), NOW + number, 2, None)
    assert numbers(store()) == [2, 3]
    assert made["html"].startswith(f"s3://{bucket}/runs/maintenance-20270115T080003Z-")
    problems = []
    assert len(list(history.earlier(store(), problems))) == 2 and problems == []
    s3 = client(endpoint)
    page = s3.get_object(Bucket=bucket, Key="runs/latest.html")
    assert page["Body"].read() == b"<p>3" and page["ContentType"].startswith("text/html")
    s3.put_object(Bucket=bucket, Key="runs/maintenance-20270115T090000Z.json", Body=b"{")
    s3.put_object(Bucket=bucket, Key="runs/maintenance-20270115T090001Z.html", Body=b"alone")
    assert len(list(history.earlier(store(), problems))) == 2
    assert [problem.reason for problem in problems] == ["not valid JSON"]
    assert len(s3.list_objects_v2(Bucket=bucket)["Contents"]) == 11


def test_controllers_that_write_at_once_lose_nothing_and_are_merged(store):
    def write(number):
        hosts = {f"h{number}": {"health": {"status": "pass", "checks": []}}}
        store("/slices").add(texts(number, hosts), NOW, 30, None)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert numbers(store("/slices")) == list(range(5))
    runs = merge.recent(store("/slices"), NOW, 24)
    merged = merge.combine(runs, timestamp=NOW, title="t", fail_on="critical")
    assert sorted(entry["host"] for entry in merged["hosts"]) == [f"h{n}" for n in range(5)]
    with pytest.raises(NotUsable, match="no run of the last 24 hours"):
        merge.recent(store("/none"), NOW, 24)


def test_errors_name_the_bucket_and_no_secret(store):
    with pytest.raises(StoreError, match="s3://") as caught:
        store(secret_key="canary-secret").names()
    assert "canary" not in str(caught.value)
    for wrong in ("s3://", "s3:///x", "s3://a:canary@b/x", "s3://b/x?y"):
        with pytest.raises(OptionError) as caught:
            run_stores.open_store(wrong)
        assert "canary" not in str(caught.value)
