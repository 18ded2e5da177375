# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A bucket's settings on real servers: SeaweedFS, which has no storage classes and no access block,
and moto's server, which has both.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.request

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core import errors
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup import names
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.bucket import run
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.bucket.options import (
    BucketOptions,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.make import run as making
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.options import BackupOptions
from ansible_collections.mlops.fleet.plugins.module_utils._core.ports import World

from . import test_s3
from .test_s3 import DAY, HOME, KEYS, READER, client, free_ports

boto3 = pytest.importorskip("boto3")

endpoint, bucket = test_s3.endpoint, test_s3.bucket


class Later:
    """A clock some days ahead: objects can't be made old."""

    def __init__(self, days):
        self.ahead = days * DAY

    def now(self):
        return time.time() + self.ahead

    def monotonic(self):
        return time.monotonic()


def setup(url, check=False, days=0, keys=None, name="ml-backups", **given):
    options = BucketOptions.from_mapping(
        {"s3": {"bucket": name, "endpoint_url": url, **(keys or KEYS)}, **given}
    )
    return run.run(options, World(run=None, clock=Later(days)), check=check).to_dict()


@pytest.fixture(scope="module")
def moto():
    """A server of moto, installed beside SeaweedFS when it is not there yet."""
    program = HOME / "bin" / "moto_server"
    if not program.exists():
        subprocess.run([sys.executable, "-m", "venv", str(HOME)], check=True)
        pip = [str(HOME / "bin" / "python"), "-m", "pip", "install", "--quiet", "moto[server]>=5.1"]
        installed = subprocess.run(pip, capture_output=True, text=True, check=False)
        if installed.returncode:
            pytest.skip(f"moto can't be installed: {installed.stderr.strip()[-200:]}")
    (port,) = free_ports(1)
    process = subprocess.Popen(
        [str(program), "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    url = f"http://127.0.0.1:{port}"
    end = time.monotonic() + 60
    try:
        while True:
            try:
                urllib.request.urlopen(url + "/moto-api/", timeout=2).close()
                break
            except OSError:
                assert time.monotonic() < end and process.poll() is None, "moto does not start"
                time.sleep(0.2)
        yield url
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


#: moto forgets the size in a rule's filter, which must not go unnoticed.
ANY_SIZE = {"transition_larger_than": 0}


def test_everything_is_set_once(moto):
    assert setup(moto, check=True)["created"] is True
    with pytest.raises(errors.StoreError, match="There is no bucket"):
        setup(moto, create=False)
    with pytest.raises(errors.StoreError, match="but did not keep: lifecycle"):
        setup(moto, name="forgetful")
    first = setup(moto, **ANY_SIZE)
    assert first["created"] and len(first["changes"]) == 4
    s3 = client(moto)
    rules = s3.get_bucket_lifecycle_configuration(Bucket="ml-backups")["Rules"]
    assert [rule["Transitions"][0] for rule in rules if "Transitions" in rule] == [
        {"Days": 30, "StorageClass": "GLACIER"}
    ]
    assert {"Days": 90} in [rule.get("Expiration") for rule in rules]
    assert s3.get_bucket_versioning(Bucket="ml-backups")["Status"] == "Enabled"
    block = s3.get_public_access_block(Bucket="ml-backups")["PublicAccessBlockConfiguration"]
    assert set(block.values()) == {True}
    again = setup(moto, **ANY_SIZE)
    assert (again["changed"], again["changes"]) == (False, [])


def test_somebody_elses_change_is_put_right_and_their_rules_stay(moto):
    setup(moto, name="shared", **ANY_SIZE)
    s3 = client(moto)
    theirs = {
        "ID": "logs",
        "Status": "Enabled",
        "Filter": {"Prefix": "logs/"},
        "Expiration": {"Days": 1},
    }
    s3.put_bucket_lifecycle_configuration(
        Bucket="shared", LifecycleConfiguration={"Rules": [theirs]}
    )
    s3.delete_public_access_block(Bucket="shared")
    with pytest.raises(errors.Refused, match="'logs' removes objects after 1 days"):
        setup(moto, name="shared", **ANY_SIZE)
    s3.put_bucket_lifecycle_configuration(
        Bucket="shared", LifecycleConfiguration={"Rules": [{**theirs, "Expiration": {"Days": 40}}]}
    )
    assert setup(moto, name="shared", **ANY_SIZE)["changes"] == ["block_public_access", "lifecycle"]
    rules = s3.get_bucket_lifecycle_configuration(Bucket="shared")["Rules"]
    assert sorted(rule["ID"].split()[0] for rule in rules) == ["logs"] + ["mlops.fleet"] * 4


def test_a_server_without_storage_classes(endpoint, bucket):
    with pytest.raises(errors.NotUsable, match="no setting block_public_access"):
        setup(endpoint, name=bucket)
    with pytest.raises(errors.StoreError, match="set transition_days to 0"):
        setup(endpoint, name=bucket, block_public_access=False)
    given = {"name": bucket, "block_public_access": False, "transition_days": 0}
    assert setup(endpoint, **given)["changes"] == ["lifecycle"]
    assert setup(endpoint, **given)["changed"] is False
    with pytest.raises(errors.FleetError):
        setup(endpoint, keys=READER, expire_days=50, **given)
    assert setup(endpoint, **given)["changed"] is False


def test_old_backups_that_are_kept_stop_it(endpoint, bucket):
    s3 = client(endpoint)
    for age in (0, 10):
        name = f"{names.stem(time.time() - age * DAY)}.tar.gz"
        s3.put_object(Bucket=bucket, Key=f"node7/{name}", Body=b"x")
        s3.put_object(
            Bucket=bucket, Key=f"node7/{name}.sha256", Body=f"{'0' * 64}  {name}\n".encode()
        )
    given = {"name": bucket, "block_public_access": False, "transition_days": 0}
    with pytest.raises(errors.Refused, match=r"node7/.*days old and kept"):
        setup(endpoint, days=95, **given)
    setup(endpoint, days=60, **given)


def test_an_archive_that_a_kept_set_names_stops_it(endpoint, bucket, tmp_path):
    """A model that did not change for 70 days: its archive would go 20 days from now."""
    source = tmp_path / "models"
    for model in ("bert", "llama"):
        (source / model).mkdir(parents=True)
        (source / model / "weights").write_bytes(os.urandom(1000))
    places = {"source": str(source), "destination": str(tmp_path / "backups")}
    s3 = {"bucket": bucket, "prefix": "node7", "endpoint_url": endpoint, **KEYS}
    for days in (0, 70):
        (source / "bert" / "weights").write_bytes(os.urandom(1000))
        options = BackupOptions.from_mapping({**places, "s3": s3, "layout": "per_model"})
        assert making.run(options, World(run=None, clock=Later(days))).changed
    given = {"name": bucket, "block_public_access": False, "transition_days": 0, "days": 70}
    with pytest.raises(errors.Refused, match=r"remove node7/.*model.* 20 days from now.*names it"):
        setup(endpoint, **given)
    done = setup(endpoint, expire_days=120, **given)
    assert done["changed"] and "per_model" in done["notes"][-1]
