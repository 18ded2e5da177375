# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How copies travel: in parallel, within a limit, continued after a break, from cold storage."""

from __future__ import annotations

import fcntl
import os
import shlex
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core import errors
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.make import run as making
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.options import BackupOptions
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.s3 import download, upload

from . import test_bucket, test_s3
from .test_s3 import KEYS, Honest, behind, client

endpoint, bucket, s3, moto = test_s3.endpoint, test_s3.bucket, test_s3.s3, test_bucket.moto


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Parts of 8 MiB are sent and pieces of 2 MiB read, so that little data is several."""
    monkeypatch.setattr(upload, "PART", 8 << 20)
    monkeypatch.setattr(download, "PIECE", 2 << 20)


@pytest.fixture
def large(tmp_path):
    """A source whose archive has five parts, seven for four connections."""
    root = tmp_path / "large"
    root.mkdir()
    (root / "weights").write_bytes(os.urandom(36_000_000))
    return {"source": str(root), "compression": "none", "verify": False}


class Counts(Honest):
    """Counts the parts that arrive, and the requests for data at the same time."""

    def __init__(self, hold=0.0):
        self.hold, self.parts, self.now, self.most = hold, [], 0, 0
        self.ranges = []
        self.lock = threading.Lock()

    def _is_data(self, handler):
        is_part = handler.command == "PUT" and "partNumber=" in handler.path
        return is_part or (handler.command == "GET" and "Range" in handler.headers)

    def request(self, handler, headers, body):
        if self._is_data(handler):
            with self.lock:
                self.now += 1
                self.most = max(self.most, self.now)
                if handler.command == "PUT":
                    self.parts.append(len(body))
                elif not handler.path.endswith(".json"):
                    self.ranges.append(handler.headers["Range"])
            time.sleep(self.hold)
        return headers, body

    def response(self, handler, status, headers, data):
        if self._is_data(handler):
            with self.lock:
                self.now -= 1
        return status, headers, data


@pytest.mark.parametrize(("parallel", "parts"), [(1, 5), (4, 7)])
def test_several_parts_travel_at_the_same_time(
    back_up, bring_back, s3, large, restored, tmp_path, parallel, parts
):
    counts = Counts(hold=0.3)
    with behind(counts, s3) as url:
        there = {**s3, "endpoint_url": url, "parallel": parallel}
        assert back_up(s3=there, **large).copies[0]["verified"] == "checksum"
        assert (len(counts.parts), counts.most) == (parts, parallel)
        counts.most = 0
        assert bring_back(s3=there).verified
        assert counts.most == (parallel if parallel > 1 else 1)
    assert (restored / "weights").read_bytes() == (tmp_path / "large" / "weights").read_bytes()


def _open_uploads(s3):
    uploads = client(s3["endpoint_url"]).list_multipart_uploads(Bucket=s3["bucket"])
    return [upload["Key"] for upload in uploads.get("Uploads", ())]


def test_an_upload_is_continued_where_a_killed_run_was(
    back_up, bring_back, s3, large, destination, world
):
    options = BackupOptions.from_mapping(
        {**large, "destination": str(destination), "s3": {**s3, "parallel": 1}}
    )

    def die(progress):
        if progress.phase == "upload" and progress.done > 12 << 20:
            os.kill(os.getpid(), signal.SIGKILL)

    pid = os.fork()
    if pid == 0:
        try:
            making.run(options, world, tell=die)
        finally:
            os._exit(99)
    assert os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    assert len(_open_uploads(s3)) == 1
    counts = Counts()
    with behind(counts, s3) as url:
        copy = back_up(s3={**s3, "endpoint_url": url}, **large).copies[0]
    assert copy["verified"] == "checksum" and copy["uploaded"]
    assert len(counts.parts) == 3 and _open_uploads(s3) == []
    assert bring_back(s3=s3).verified


def test_parts_of_other_content_are_not_continued(back_up, bring_back, s3, large, destination):
    """Two parts are right, the third is not: nobody knows what it is, so all are sent."""
    backup = back_up(**large).backup
    data = (destination / backup["name"]).read_bytes()
    target = {"Bucket": s3["bucket"], "Key": f"node1/{backup['name']}"}
    s3client = client(s3["endpoint_url"])
    identifier = s3client.create_multipart_upload(**target)["UploadId"]
    for number in (1, 2, 3):
        part = data[(number - 1) << 23 : number << 23]
        body = part if number < 3 else part[:-1] + bytes([part[-1] ^ 1])
        s3client.upload_part(**target, UploadId=identifier, PartNumber=number, Body=body)
    counts = Counts()
    with behind(counts, s3) as url:
        back_up(s3={**s3, "endpoint_url": url}, **large)
    assert len(counts.parts) == 7 and _open_uploads(s3) == []
    assert bring_back(s3=s3).verified


@pytest.mark.parametrize("parallel", [1, 4])
def test_the_bandwidth_limit_is_for_all_connections_together(
    back_up, bring_back, s3, large, parallel
):
    limited = {**s3, "bandwidth_limit": "24M", "parallel": parallel}
    for work in (lambda: back_up(s3=limited, **large), lambda: bring_back(s3=limited)):
        started = time.monotonic()
        work()
        assert time.monotonic() - started > 36_000_000 / (24 << 20) * 0.95


@pytest.mark.parametrize("value", ["fast", "-1", "1", "15K", "20 MB/s"])
def test_bandwidths_that_can_not_be_meant(s3, value):
    with pytest.raises(errors.OptionError, match="bandwidth_limit"):
        BackupOptions.from_mapping({"s3": {**s3, "bandwidth_limit": value}})


class NoRanges(Honest):
    """Returns the whole object instead of a range, as a simple server does."""

    def __init__(self, s3):
        self.s3 = s3

    def response(self, handler, status, headers, data):
        if handler.command == "GET" and status == 206:
            key = handler.path.split("?")[0].partition(self.s3["bucket"] + "/")[2]
            data = test_s3.fetch(self.s3, key)
            headers = {k: v for k, v in headers.items() if k.lower() != "content-range"}
            headers["Content-Length"] = str(len(data))
            status = 200
        return status, headers, data


def test_a_server_without_ranges(back_up, bring_back, look, s3, large):
    back_up(s3=s3, **large)
    with behind(NoRanges(s3), s3) as url:
        assert bring_back(s3={**s3, "endpoint_url": url}).verified
        assert look(s3={**s3, "endpoint_url": url}, verify="quick")["backups"][0]["problems"] == []


def test_disaster_recovery_as_the_documentation_says(back_up, few, s3, tmp_path):
    """The commands of the runbook, run in bash with nothing but boto3, sha256sum and tar."""
    name = back_up(source=str(few), s3=s3).backup["name"]
    page = (test_s3.ROOT / "docs/docsite/rst/backup.rst").read_text(encoding="utf-8")
    section = page.partition("Without ``aws``, Python and ``boto3``")[2]
    block = section.partition(".. code-block:: shell\n\n")[2].partition("\n\nWith ")[0]
    commands = textwrap.dedent(block)
    target, empty = tmp_path / "models-again", tmp_path / "empty"
    empty.mkdir()
    for written, real in (
        ("AWS_ACCESS_KEY_ID=...", f"AWS_ACCESS_KEY_ID={KEYS['access_key']}"),
        ("AWS_SECRET_ACCESS_KEY=...", f"AWS_SECRET_ACCESS_KEY={KEYS['secret_key']}"),
        ("https://s3.example.com:9000", s3["endpoint_url"]),
        ("ml-backups", s3["bucket"]),
        ("models_backup_20261128_020000.tar.gz", name),
        ("/opt/ml/models", str(target)),
        ("python3", sys.executable),
    ):
        assert written in commands
        commands = commands.replace(written, real)
    done = subprocess.run(
        ["bash", "-euc", commands], cwd=empty, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"node1/{name}\n" in done.stdout and f"{name}: OK" in done.stdout
    assert subprocess.run(["diff", "-r", few, target], check=False).returncode == 0


@pytest.fixture(scope="session")
def aws():
    """The directory of the program aws, installed beside SeaweedFS when it is nowhere yet."""
    home = test_s3.HOME.parent / "aws"
    home.parent.mkdir(exist_ok=True)
    with open(home.parent / "aws.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "bin" / "aws").exists():
            subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
            pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "awscli"]
            installed = subprocess.run(pip, capture_output=True, text=True, check=False)
            if installed.returncode:
                pytest.skip(f"awscli can't be installed: {installed.stderr.strip()[-200:]}")
    return home / "bin"


def _commands(heading, number):
    """Return a block of shell commands behind a line of the page about backups."""
    page = (test_s3.ROOT / "docs/docsite/rst/backup.rst").read_text(encoding="utf-8")
    assert heading in page
    block = page.partition(heading)[2].split(".. code-block:: shell\n\n")[number]
    lines = block.splitlines()
    stop = next((n for n, line in enumerate(lines) if line and line[0] != " "), len(lines))
    return textwrap.dedent("\n".join(lines[:stop]))


@pytest.mark.parametrize(
    ("layout", "heading", "written"),
    [
        ("single", "any S3 client:", "models_backup_20261128_020000.tar.gz"),
        ("per_model", "Its checksum file lists the archives:", "models_backup_20261128_020000.set"),
    ],
)
def test_disaster_recovery_with_aws_as_the_documentation_says(
    back_up, few, s3, aws, tmp_path, layout, heading, written
):
    """The commands of the page, run in bash with nothing but aws, sha256sum and tar."""
    (few / "bert").mkdir(exist_ok=True)
    (few / "bert" / "model.bin").write_bytes(os.urandom(100_000))
    name = back_up(source=str(few), layout=layout, s3=s3).backup["name"]
    target, empty = tmp_path / "models-again", tmp_path / "empty"
    empty.mkdir()
    commands = _commands(heading, 1)
    for text, real in (
        ("ml-backups", s3["bucket"]),
        (written, name.partition(".json")[0]),
        ("/opt/ml/models", str(target)),
    ):
        assert text in commands
        commands = commands.replace(text, real)
    environ = {
        **os.environ,
        "PATH": f"{aws}:{os.environ['PATH']}",
        "AWS_ACCESS_KEY_ID": KEYS["access_key"],
        "AWS_SECRET_ACCESS_KEY": KEYS["secret_key"],
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": s3["endpoint_url"],
    }
    done = subprocess.run(
        ["bash", "-euc", commands],
        cwd=empty,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert ": OK" in done.stdout
    assert subprocess.run(["diff", "-r", few, target], check=False).returncode == 0


def test_cold_storage_is_named_with_the_request_to_make(back_up, bring_back, look, moto, large):
    """The request in the message, sent as it is, makes the restore possible."""
    there = {"bucket": "cold", "prefix": "a node", "endpoint_url": moto, **KEYS}
    client(moto).create_bucket(Bucket="cold")
    name = back_up(s3={**there, "storage_class": "GLACIER"}, **large).backup["name"]
    (backup,) = look(s3=there, verify="full")["backups"]
    assert "aws s3api restore-object" in backup["unreadable"] and not backup["verified"]
    assert look(s3=there)["backups"][0]["storage_class"] == "GLACIER"
    for given in ({}, {"files": ["weights"]}):
        with pytest.raises(errors.ColdStorage, match=rf"{name} is in GLACIER") as error:
            bring_back(s3=there, **given)
    words = shlex.split(error.value.todo.partition("aws s3api restore-object ")[2])
    request = dict(zip(words[::2], words[1::2]))
    assert request["--restore-request"] == "Days=7,GlacierJobParameters={Tier=Standard}"
    client(request["--endpoint-url"]).restore_object(
        Bucket=request["--bucket"],
        Key=request["--key"],
        RestoreRequest={"Days": 7, "GlacierJobParameters": {"Tier": "Standard"}},
    )
    assert bring_back(s3=there).verified


@pytest.mark.parametrize("parallel", [1, 4])
def test_single_files_are_read_in_ranges_at_the_same_time(
    back_up, bring_back, s3, restored, tmp_path, parallel
):
    """Only the nine chunks of 4 MiB in which these files are, each once."""
    root = tmp_path / "several"
    root.mkdir()
    for name in ("a", "b", "c", "d"):
        (root / name).write_bytes(os.urandom(10_000_000))
    back_up(source=str(root), compression="none", s3=s3)
    counts = Counts(hold=0.3)
    with behind(counts, s3) as url:
        there = {**s3, "endpoint_url": url, "parallel": parallel}
        assert bring_back(s3=there, files=["a", "[cd]"]).verified
    assert counts.most == parallel and len(counts.ranges) == len(set(counts.ranges)) == 9
    assert sorted(os.listdir(restored)) == ["a", "c", "d"]
    assert all((restored / name).read_bytes() == (root / name).read_bytes() for name in "acd")


class Interrupts(Counts):
    """Lets two parts through; then something happens. From the third on this is the response."""

    def __init__(self, happens, status=None, code=""):
        super().__init__()
        self.happens, self.status, self.code = happens, status, code

    def request(self, handler, headers, body):
        headers, body = super().request(handler, headers, body)
        if len(self.parts) == 3:
            self.happens()
        return headers, body

    def response(self, handler, status, headers, data):
        status, headers, data = super().response(handler, status, headers, data)
        if self.status and len(self.parts) > 2 and handler.command in ("PUT", "DELETE"):
            text = f"<Error><Code>{self.code}</Code><Message>no</Message></Error>"
            return self.status, {"Content-Type": "application/xml"}, text.encode()
        return status, headers, data


def _interrupted(back_up, s3, large, alter, match):
    with behind(alter, s3) as url, pytest.raises(errors.FleetError, match=match) as error:
        back_up(s3={**s3, "endpoint_url": url, "parallel": 1}, **large)
    assert not [key for key in test_s3.objects(s3) if key.endswith((".tar", ".json"))]
    return error.value


def _sent_by_the_next_run(back_up, bring_back, s3, large):
    """Return how many parts the next run sends."""
    counts = Counts()
    with behind(counts, s3) as url:
        assert back_up(s3={**s3, "endpoint_url": url, "parallel": 1}, **large).copies[0]["uploaded"]
    assert _open_uploads(s3) == [] and bring_back(s3=s3).verified
    return len(counts.parts)


def test_an_upload_that_another_controller_aborts(back_up, bring_back, s3, large):
    """A clear error, nothing that looks like a copy, and the next run sends everything."""
    s3client = client(s3["endpoint_url"])

    def abort():
        (upload,) = s3client.list_multipart_uploads(Bucket=s3["bucket"])["Uploads"]
        target = {"Bucket": s3["bucket"], "Key": upload["Key"], "UploadId": upload["UploadId"]}
        s3client.abort_multipart_upload(**target)

    _interrupted(back_up, s3, large, Interrupts(abort), "NoSuchUpload")
    assert _open_uploads(s3) == []
    assert _sent_by_the_next_run(back_up, bring_back, s3, large) == 5


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, "ExpiredToken"), (403, "InvalidAccessKeyId"), (403, "RequestTimeTooSkewed")],
)
def test_credentials_that_expire_halfway(back_up, bring_back, s3, large, status, code):
    """With new ones the next run continues: the three parts that arrived are not sent again."""
    error = _interrupted(back_up, s3, large, Interrupts(lambda: None, status, code), code)
    assert error.todo
    assert len(_open_uploads(s3)) == 1
    assert _sent_by_the_next_run(back_up, bring_back, s3, large) == 2


def test_parts_that_the_server_refuses_are_dropped(back_up, bring_back, s3, large):
    _interrupted(back_up, s3, large, Interrupts(lambda: None, 400, "EntityTooLarge"), "TooLarge")
    assert _sent_by_the_next_run(back_up, bring_back, s3, large) == 5


def test_an_archive_that_changes_between_two_runs(back_up, s3, large, destination):
    """Some parts are in the bucket; then the local archive changes: it is no copy of the backup."""
    _interrupted(back_up, s3, large, Interrupts(lambda: None, 403, "ExpiredToken"), "ExpiredToken")
    (archive,) = destination.glob("*.tar")
    with open(archive, "r+b") as stream:
        stream.seek(1_000_000)
        stream.write(b"changed")
    for dummy in range(2):
        with pytest.raises(errors.VerificationFailed, match="has changed since it was made"):
            back_up(s3={**s3, "parallel": 2}, **large)
        assert _open_uploads(s3) == [] and not test_s3.objects(s3)
